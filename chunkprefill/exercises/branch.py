"""Exercise: the trap of telling prefilling from decoding by "more than one token"."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from typing import Any

from chunkprefill.exercises.draw import table
from chunkprefill.exercises.exercise import Case, Exercise, Wrong
from chunkprefill.exercises.running import Plain, Program

ENGINE = """if T > 1:   # prefilling
    out = attention(q, k, v, is_causal=True)
else:       # decoding: the one query sees all keys
    out = attention(q, k, v)"""


def solution(cached, length):
    """Only a square mask may start in the top left corner, and one query needs no mask."""
    return length > 1 and cached > 0


def any_prefix(cached, length):
    """Every chunk after the first."""
    return cached > 0


def long_prefix(cached, length):
    """Only if the prefix is longer than the chunk."""
    return length > 1 and cached >= length


def ragged(cached, length):
    """Only if the chunk does not divide what came before."""
    return cached % length != 0


def short_chunk(cached, length):
    """Only chunks of one token."""
    return length == 1 or cached > length


def cases(rng: random.Random) -> Iterator[Case]:
    """All chunks of up to 5 tokens after up to 8, and ten larger ones."""
    yield from ({"cached": s, "length": n} for s in range(9) for n in range(1, 6))
    yield from ({"cached": rng.randrange(30), "length": rng.randint(1, 20)} for _ in range(10))


@cache
def breaks(cached: int, length: int) -> bool:
    """Found out by running it: does the engine's attention differ from the definition on random tensors?"""
    import torch
    import torch.nn.functional as F

    from chunkprefill.model.attention import reference

    make = torch.Generator().manual_seed(cached * 1000 + length)
    q, k, v = (
        torch.randn(n, 2, 8, generator=make, dtype=torch.float64)
        for n in (length, cached + length, cached + length)
    )  # [T, H, D], [S, H, D]
    qh, kh, vh = (x.transpose(0, 1)[None] for x in (q, k, v))  # heads first, as torch has it
    out = F.scaled_dot_product_attention(qh, kh, vh, is_causal=length > 1)
    return not torch.allclose(out[0].transpose(0, 1), reference(q, k, v), rtol=0, atol=1e-9)


def want(case: Case) -> bool:
    """What running it shows."""
    return breaks(case["cached"], case["length"])


def judge(case: Case, value: Plain) -> str:
    """Yes or no, against the run."""
    if value not in (0, 1):
        return f"it returned {value!r}; True or False is wanted"
    if bool(value) == want(case):
        return ""
    if value:
        return "it says that the engine is wrong, and run on random tensors the engine is right"
    return "it says that the engine is right, and run on random tensors the engine is wrong"


def run(program: Program, case: Case) -> Any:
    """Call it."""
    return program(case["cached"], case["length"])


def picture(case: Case, value: Plain) -> str:
    """What the engine's queries see, marked where they should see otherwise."""
    cached, length = case["cached"], case["length"]
    right = [[j <= cached + i for j in range(cached + length)] for i in range(length)]
    engine = [[j <= i or length == 1 for j in range(cached + length)] for i in range(length)]
    rows = [f"query {cached + i}" for i in range(length)]
    verdict = "the engine is wrong" if value else "the engine is right"
    return table(engine, right, rows=rows, title=f"Engine after {cached} tokens. Answer: {verdict}")


branch_on_t = Exercise(
    id="branch-on-t",
    title="The trap: is more than one token prefilling?",
    name="engine_is_wrong",
    prompt="The engine below tells prefilling from decoding by the number T of tokens in its input; "
    "torch's `is_causal=True` starts its border in the top left corner. Write `engine_is_wrong(cached, "
    "length)`: True for those chunks of `length` tokens after `cached` ones for which it computes "
    "something else than attention should.",
    starter="def engine_is_wrong(cached, length):\n    ...",
    example=({"cached": 0, "length": 4}, {"cached": 5, "length": 3}),
    cases=cases,
    run=run,
    want=want,
    judge=judge,
    picture=picture,
    show=lambda case: f"`engine_is_wrong({case['cached']}, {case['length']})`",
    solution=solution,
    wrong=(
        Wrong(
            any_prefix,
            "Every chunk with a prefix is called wrong, decoding steps too. One query at the end of the "
            "sequence may see all keys: there the engine is right.",
        ),
        Wrong(
            long_prefix,
            "Only chunks behind a prefix as long as themselves are called wrong. One cached token is "
            "enough to move the border.",
        ),
        Wrong(
            ragged,
            "It is made to depend on whether the chunk divides the prefix. Second chunks of the same "
            "length as the first are wrong as well.",
        ),
        Wrong(
            short_chunk,
            "Chunks of one token are called wrong. With one query no key comes after it, so no mask is "
            "needed.",
        ),
    ),
    hints=(
        "Draw what each query sees for `cached = 2, length = 2`, with the border starting in the top left "
        "corner.",
        "There are three kinds of chunk: a first one, a later one of several tokens, and one of a single "
        "token.",
        "The engine is right where its mask happens to be the true one: with no prefix, or with a single "
        "query.",
    ),
    minutes=6,
    needs=("torch",),
    about=ENGINE,
    level="analyse",
)
