"""Exercise: the trap of telling prefilling from decoding by "more than one token"."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from functools import cache
from typing import Any

from chunkprefill_course.exercises.texts import prose
from chunkprefill_course.forms.answers import Plain, truth
from chunkprefill_course.forms.boards import table
from chunkprefill_course.forms.exercise import Case, Exercise, Wrong
from chunkprefill_course.forms.feedback import counted
from chunkprefill_course.forms.running import Program
from chunkprefill_course.forms.variants import Variant

ENGINE = """if T > 1:   # prefilling
    out = attention(q, k, v, is_causal=True)
else:       # decoding: the one query sees all keys
    out = attention(q, k, v)"""


def solution(cached, length):
    """Only a square mask may start in the top left corner, and one query needs no mask."""
    return length > 1 and cached > 0


def _when(rule: str) -> Variant:
    return Variant(solution, ("length > 1 and cached > 0", rule))


def cases(rng: random.Random) -> Iterator[Case]:
    """All chunks of up to 5 tokens after up to 8, ten larger ones, three as long as servers run them, and the longest.

    Some of the long ones are powers of two and of ten: a rule that is right up to a size often stops at one.
    """
    yield from ({"cached": s, "length": n} for s in range(9) for n in range(1, 6))
    yield from ({"cached": rng.randrange(30), "length": rng.randint(1, 20)} for _ in range(10))
    yield from ({"cached": s, "length": n} for s, n in ((0, 60), (3000, 1), (3000, 500)))
    lengths = (128, 129, 256, 257, LONGEST)
    yield from ({"cached": s, "length": n} for n in lengths for s in (0, 1, n, 256))
    depths = (100, 500, 1000, 5000, *(2**k for k in range(6, 14)), DEEPEST)
    yield from ({"cached": s, "length": n} for s in depths for n in (1, 2, 65))


DEEPEST, LONGEST = 10_000, 1_000  # cached tokens and tokens of a chunk: what the prompt allows
MOST_RUN = 600  # keys of a chunk that is run; beyond it, who sees which keys is compared
MOST_DRAWN = 60  # keys


@cache
def breaks(cached: int, length: int) -> bool:
    """Found out by running it: does the engine's attention differ from the definition on drawn numbers?

    A long one is not run: its queries see too many keys or too few, or they see the right ones.
    """
    if cached + length > MOST_RUN:
        seen = range(cached + 1, cached + length + 1)  # keys that each query sees
        return seen != (range(1, length + 1) if length > 1 else range(cached + 1, cached + 2))
    draw = random.Random(cached * 1000 + length)
    queries = [draw.gauss(0, 1) for _ in range(length)]  # one head of one number: [T]
    keys, values = ([draw.gauss(0, 1) for _ in range(cached + length)] for _ in "kv")  # [S]

    def attend(query: float, seen: list[int]) -> float:
        weights = [math.exp(query * keys[j]) for j in seen]
        return sum(w * values[j] for w, j in zip(weights, seen)) / sum(weights)

    everything = range(cached + length)
    for i, query in enumerate(queries):
        right = [j for j in everything if j <= cached + i]
        engine = [j for j in everything if j <= i] if length > 1 else list(everything)
        if abs(attend(query, right) - attend(query, engine)) > 1e-9:
            return True
    return False


def want(case: Case) -> bool:
    """What running it shows."""
    return breaks(case["cached"], case["length"])


def judge(case: Case, value: Plain) -> str:
    """Yes or no, against the run."""
    if bool(value) == want(case):
        return ""
    said, is_so = ("wrong", "right") if value else ("right", "wrong")
    if case["cached"] + case["length"] > MOST_RUN:
        seen = "the keys that it should" if value else "fewer keys than it should"
        return f"it says that the engine is {said}, but {'each' if value else 'a'} query sees {seen}"
    return f"it says that the engine is {said}, but on random numbers the engine is {is_so}"


def run(program: Program, case: Case) -> Any:
    """Call it."""
    return truth(program(case["cached"], case["length"]))


def picture(case: Case, value: Plain) -> str:
    """What the engine's queries see, marked where they should see otherwise."""
    cached, length = case["cached"], case["length"]
    if cached + length > MOST_DRAWN:
        return ""
    right = [[j <= cached + i for j in range(cached + length)] for i in range(length)]
    engine = [[j <= i or length == 1 for j in range(cached + length)] for i in range(length)]
    rows = [f"query {cached + i}" for i in range(length)]
    verdict = "the engine is wrong" if value else "the engine is right"
    return table(
        engine, right, rows=rows, title=f"Engine after {counted(cached, 'token')}. Answer: {verdict}"
    )


branch_on_t = Exercise(
    id="branch-on-t",
    title="The trap: is more than one token prefilling?",
    name="engine_is_wrong",
    prompt=prose("branch-on-t"),
    starter="def engine_is_wrong(cached, length):\n    ...",
    example=({"cached": 0, "length": 4}, {"cached": 5, "length": 3}),
    cases=cases,
    conditions={
        "first chunk": lambda case: case["cached"] == 0 and case["length"] > 1,
        "one token, a prefix": lambda case: case["length"] == 1 and case["cached"] > 0,
        "the very first token": lambda case: case["length"] == 1 and case["cached"] == 0,
        "one cached": lambda case: case["cached"] == 1 and case["length"] > 1,
        "as long as its prefix": lambda case: case["cached"] == case["length"] > 1,
        "chunk divides the prefix": lambda case: case["cached"] % case["length"] == 0 < case["cached"],
        "chunk longer than its prefix": lambda case: 0 < case["cached"] < case["length"],
        "a chunk as long as there may be": lambda case: case["length"] == LONGEST and case["cached"] > 0,
        "a first chunk as long as there may be": lambda case: (
            case["length"] == LONGEST and case["cached"] == 0
        ),
        "two tokens after as many as there may be": lambda case: (
            case["cached"] == DEEPEST and case["length"] == 2
        ),
        "one token after as many as there may be": lambda case: (
            case["cached"] == DEEPEST and case["length"] == 1
        ),
        "a product that 16 bits do not tell from none": lambda case: (
            case["cached"] > 0 < case["length"] - 1 and case["cached"] * (case["length"] - 1) % 2**16 == 0
        ),
    },
    run=run,
    want=want,
    judge=judge,
    picture=picture,
    show=lambda case: f"`engine_is_wrong({case['cached']}, {case['length']})`",
    solution=solution,
    wrong=(
        Wrong(
            _when("cached > 0"),
            "This calls every chunk with a prefix wrong, decoding steps included. One query at the end of the sequence may see all keys, so there the engine is right.",
        ),
        Wrong(
            _when("length > 1 and cached >= length"),
            "This calls only chunks wrong whose prefix is at least as long as they are. One cached token is enough to shift the staircase.",
        ),
        Wrong(
            _when("cached % length != 0"),
            "This makes it depend on whether the chunk divides the prefix. A second chunk as long as the first is wrong as well.",
        ),
        Wrong(
            _when("length == 1 or cached > length"),
            "This calls chunks of one token wrong. No key comes after a single query, so no mask is needed.",
        ),
    ),
    slips=(
        Wrong(
            _when("length > 1"),
            "This calls every chunk of several tokens wrong, even the first. With no prefix the mask is square, and the top left corner is the right place to start.",
        ),
        Wrong(
            _when("not (length > 1 and cached > 0)"),
            "This is the other way round: return True where the engine is *wrong*.",
        ),
        Wrong(
            _when("length > 1 and cached > 1"),
            "This accepts a prefix of one token. It shifts the staircase too, by one place.",
        ),
        Wrong(
            _when("length > 2 and cached > 0"),
            "This accepts a chunk of two tokens. Its first query already sees too little of the prefix.",
        ),
        Wrong(
            _when("True"),
            "This calls the engine wrong for every chunk. For some of them its mask happens to be right.",
        ),
    ),
    hints=(
        "Draw what each query sees for `cached = 2, length = 2`, with the staircase starting in the top left corner.",
        "There are three kinds of chunk: a first one, a later one of several tokens, and one of a single "
        "token.",
        "The engine is right where its mask happens to be the correct one: with no prefix, or with a single query.",
    ),
    minutes=6,
    needs=("torch",),
    about=ENGINE,
    level="analyse",
)
