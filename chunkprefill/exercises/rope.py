"""Exercise: the positions that RoPE turns a chunk's tokens by."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from chunkprefill.exercises.draw import Cell, board
from chunkprefill.exercises.exercise import Case, Exercise, Wrong
from chunkprefill.exercises.feedback import counted
from chunkprefill.exercises.running import Plain, Program, shape


def solution(cached, length):
    """Counting goes on where the cache ends."""
    import torch

    return torch.arange(cached, cached + length)


def restarts(cached, length):
    """Every chunk counts from 0."""
    import torch

    return torch.arange(length)


def end_for_length(cached, length):
    """Takes the chunk's length for its end."""
    import torch

    return torch.arange(cached, max(cached, length))


def everything(cached, length):
    """Positions of the prefix too."""
    import torch

    return torch.arange(cached + length)


def equal_chunks(cached, length):
    """Counts chunks, and takes them all to be as long as this one."""
    import torch

    chunk_index = cached // length
    return chunk_index * length + torch.arange(length)


def cases(rng: random.Random) -> Iterator[Case]:
    """All chunks of up to 3 tokens after up to 4, and thirty larger ones."""
    yield from ({"cached": s, "length": n} for s in range(5) for n in range(1, 4))
    yield from ({"cached": rng.randrange(30), "length": rng.randint(1, 12)} for _ in range(30))


def want(case: Case) -> list[int]:
    """Position of each token: how many tokens of the sequence come before it."""
    return [case["cached"] + i for i in range(case["length"])]


def judge(case: Case, value: Plain) -> str:
    """How many, then each."""
    n = case["length"]
    if shape(value) != (n,):
        return f"the positions have the shape {shape(value)}; a chunk of {counted(n, 'token')} needs ({n},)"
    for i, (got, right) in enumerate(zip(value, want(case))):
        if got != right:
            return f"token {i} of the chunk gets position {got}; it has {counted(right, 'token')} before it"
    return ""


def run(program: Program, case: Case) -> Any:
    """Call it."""
    return program(case["cached"], case["length"])


def picture(case: Case, value: Plain) -> str:
    """The sequence, and the positions that its new tokens were given."""
    cached, right = case["cached"], want(case)
    rows: list[tuple[str, list[Cell]]] = [
        ("place", [("old", str(i)) for i in range(cached)] + [("new", str(i)) for i in right])
    ]
    given = [("new" if i < len(right) and v == right[i] else "wrong", str(v)) for i, v in enumerate(value)]
    rows.append(("given", [("empty", "")] * cached + given))
    return board(rows, title=f"{cached} tokens cached, {case['length']} new")


rope_positions = Exercise(
    id="rope-positions",
    title="Positions of a chunk",
    name="rope_positions",
    prompt="RoPE turns each query and key by an angle that grows with its position. Write "
    "`rope_positions(cached, length)`: the positions of a chunk's `length` tokens, as a tensor `[length]` "
    "of whole numbers, when `cached` tokens of the same sequence are in the cache already.",
    starter="def rope_positions(cached, length):\n    ...",
    example=({"cached": 0, "length": 4},),
    cases=cases,
    run=run,
    want=want,
    judge=judge,
    picture=picture,
    show=lambda case: f"`rope_positions({case['cached']}, {case['length']})`",
    solution=solution,
    wrong=(
        Wrong(
            restarts,
            "The count starts again at 0 in this chunk. Its tokens would then seem to stand beside the first "
            "ones of the prompt, and every distance between a query and a cached key is wrong.",
        ),
        Wrong(
            end_for_length,
            "The chunk's length is taken for its end. It begins at `cached` and ends `length` tokens later.",
        ),
        Wrong(
            everything,
            "The prefix gets positions again. Its keys were turned when they were stored: only the "
            "chunk's own tokens are turned now.",
        ),
        Wrong(
            equal_chunks,
            "Chunks before this one are taken to be as long as this one. The last chunk is often shorter; "
            "what counts is how many tokens are cached.",
        ),
    ),
    hints=(
        "How many tokens of the sequence stand before the first token of this chunk?",
        "The first token's position is `cached`. What is the last one's?",
        "`torch.arange(first, end)` stops before `end`.",
    ),
    minutes=4,
    needs=("torch",),
    preamble="import torch\n\n\n",
)
