"""Exercise: the positions that RoPE turns a chunk's tokens by."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from chunkprefill_course.exercises.texts import prose
from chunkprefill_course.forms.answers import Plain, figure, items, shape, told
from chunkprefill_course.forms.boards import Cell, board
from chunkprefill_course.forms.exercise import Case, Exercise, Wrong
from chunkprefill_course.forms.feedback import counted
from chunkprefill_course.forms.running import Program
from chunkprefill_course.forms.variants import Variant


def solution(cached, length):
    """Counting goes on where the cache ends."""
    return list(range(cached, cached + length))


def _with(numbers: str) -> Variant:
    return Variant(solution, ("range(cached, cached + length)", numbers))


def cases(rng: random.Random) -> Iterator[Case]:
    """All chunks of up to 4 tokens after up to 6, thirty larger ones, then as long and as deep as there may be."""
    yield from ({"cached": s, "length": n} for s in range(7) for n in range(1, 5))
    yield from ({"cached": rng.randrange(30), "length": rng.randint(1, 12)} for _ in range(30))
    yield {"cached": 700, "length": LONGEST}
    yield {"cached": 0, "length": LONGEST}
    yield {"cached": 100_003, "length": 5}  # too deep for a narrow type of numbers
    yield {"cached": rng.randrange(2**17, DEEPEST), "length": rng.randint(1, LONGEST)}
    yield from ({"cached": DEEPEST, "length": n} for n in (1, 2, LONGEST))


DEEPEST, LONGEST = 1_000_000, 512  # cached tokens and tokens of a chunk: what the prompt allows


MOST_DRAWN = 60  # tokens


def want(case: Case) -> list[int]:
    """Position of each token: how many tokens of the sequence come before it."""
    return [case["cached"] + i for i in range(case["length"])]


def judge(case: Case, value: Plain) -> str:
    """How many, then each."""
    n = case["length"]
    if shape(value) != (n,):
        return f"the positions have the shape {shape(value)}; a chunk of {counted(n, 'token')} needs ({n},)"
    for i, (got, right) in enumerate(zip(value, want(case))):
        if type(got) is not int:
            kind = "ints, not floats" if isinstance(got, float) else "ints"
            return f"token {i} of the chunk gets {told(got)}; positions are whole numbers ({kind})"
        if got != right:
            return f"token {i} of the chunk gets position {figure(got)}; it has {counted(right, 'token')} before it"
    return ""


def run(program: Program, case: Case) -> Any:
    """Call it."""
    return items(program(case["cached"], case["length"]), "a list or a tensor of positions")


def picture(case: Case, value: Plain) -> str:
    """The sequence, and the positions that its new tokens were given."""
    if case["length"] > MOST_DRAWN or len(value) > 2 * MOST_DRAWN:
        return ""
    cached, right = case["cached"], want(case)
    before = [str(i) for i in range(cached)] if cached < 60 else ["0", "…", str(cached - 1)]
    rows: list[tuple[str, list[Cell]]] = [
        ("place", [("old", text) for text in before] + [("new", str(i)) for i in right])
    ]
    given = [("new" if i < len(right) and v == right[i] else "wrong", str(v)) for i, v in enumerate(value)]
    rows.append(("given", [("empty", "")] * len(before) + given))
    return board(rows, title=f"{counted(cached, 'token')} cached, {case['length']} new")


rope_positions = Exercise(
    id="rope-positions",
    title="Positions of a chunk",
    name="rope_positions",
    prompt=prose("rope-positions"),
    starter="def rope_positions(cached, length):\n    ...",
    example=({"cached": 0, "length": 4},),
    cases=cases,
    conditions={
        "first chunk": lambda case: case["cached"] == 0,
        "deeper than 16 bits count": lambda case: case["cached"] > 2**16,
        "a chunk as long as there may be": lambda case: (
            0 < case["cached"] < DEEPEST and case["length"] == LONGEST
        ),
        "as many cached as there may be": lambda case: case["cached"] == DEEPEST and case["length"] > 1,
        "one token after as many as there may be": lambda case: (
            case["cached"] == DEEPEST and case["length"] == 1
        ),
        "one token, many cached": lambda case: case["length"] == 1 and case["cached"] > 1,
        "fewer cached than new": lambda case: 0 < case["cached"] < case["length"],
        "chunk does not divide the prefix": lambda case: case["cached"] % case["length"] > 0,
        "chunk divides the prefix": lambda case: case["cached"] % case["length"] == 0 < case["cached"],
    },
    run=run,
    want=want,
    judge=judge,
    picture=picture,
    show=lambda case: f"`rope_positions({case['cached']}, {case['length']})`",
    solution=solution,
    wrong=(
        Wrong(
            _with("range(length)"),
            "This counts from 0 again in this chunk. Its tokens would seem to stand beside the first ones of the prompt, and every distance between a query and a cached key would be wrong.",
        ),
        Wrong(
            _with("range(cached, max(cached, length))"),
            "This takes the chunk's length for its end. The chunk starts at `cached` and ends `length` tokens later.",
        ),
        Wrong(
            _with("range(cached + length)"),
            "This gives the prefix positions again. Its keys were rotated when they were stored; only the chunk's own tokens are rotated now.",
        ),
        Wrong(
            _with("range(cached // length * length, cached // length * length + length)"),
            "This takes the earlier chunks to be as long as this one. The last chunk is often shorter; what counts is how many tokens are cached.",
        ),
    ),
    slips=(
        Wrong(
            _with("range(cached + 1, cached + length + 1)"),
            "This counts from 1. The first token of a sequence has position 0, so this chunk's first token has position `cached`.",
        ),
        Wrong(
            _with("range(cached, cached + length - 1)"),
            "The last token gets no position: `range` and `torch.arange` stop before their end.",
        ),
        Wrong(
            _with("range(cached, cached + length + 1)"),
            "There is one position too many: `range` and `torch.arange` stop before their end, so the end is "
            "`cached + length`.",
        ),
        Wrong(
            _with("reversed(range(cached, cached + length))"),
            "The positions run backwards. A chunk's tokens are in the order in which they were written.",
        ),
    ),
    hints=(
        "How many tokens of the sequence stand before the first token of this chunk?",
        "The first token's position is `cached`. What is the last one's?",
        "`range(first, end)` and `torch.arange(first, end)` stop before `end`.",
    ),
    minutes=2,
    needs=("torch",),
)
