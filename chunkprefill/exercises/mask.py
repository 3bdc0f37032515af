"""Exercise: the mask of a chunk over everything cached."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from chunkprefill.exercises.draw import table
from chunkprefill.exercises.exercise import Case, Exercise, Wrong
from chunkprefill.exercises.running import Plain, Program, shape


def solution(start, length):
    """The border of the mask ends in the bottom right corner."""
    import torch

    return torch.ones(length, start + length).tril(diagonal=start).bool()


def top_left(start, length):
    """What `is_causal=True` does."""
    import torch

    return torch.ones(length, start + length).tril().bool()


def own_chunk_only(start, length):
    """A square: forgets that the prefix has columns."""
    import torch

    return torch.ones(length, length).tril().bool()


def prefix_hidden(start, length):
    """The prefix has columns, but nobody may look at them."""
    import torch

    prefix = torch.zeros(length, start)
    return torch.cat([prefix, torch.ones(length, length).tril()], dim=1).bool()


def window(start, length):
    """Each query sees as many keys as the chunk is long."""
    import torch

    seen = torch.ones(length, start + length).tril(start)
    return seen.triu(start - length + 1).bool()


def cases(rng: random.Random) -> Iterator[Case]:
    """All chunks of up to 3 tokens after up to 3, and thirty larger ones."""
    yield from ({"start": s, "length": n} for s in range(4) for n in range(1, 4))
    yield from ({"start": rng.randrange(20), "length": rng.randint(1, 12)} for _ in range(30))


def want(case: Case) -> list[list[bool]]:
    """The rule, spelled out."""
    start, length = case["start"], case["length"]
    return [[key <= start + query for key in range(start + length)] for query in range(length)]


def judge(case: Case, value: Plain) -> str:
    """Shape, then the first cell that is wrong."""
    right = want(case)
    start, length = case["start"], case["length"]
    if shape(value) != (length, start + length):
        wanted = (length, start + length)
        return f"the mask has the shape {shape(value)}; one row a query and one column a key make {wanted}"
    for query in range(length):
        for key in range(start + length):
            seen = value[query][key]
            if seen not in (0, 1):
                return f"the mask holds {seen!r}; True and False (or 1 and 0) are wanted"
            if bool(seen) != right[query][key]:
                who = f"the query at position {start + query} "
                if not right[query][key]:
                    return who + f"sees position {key}, which comes after it"
                return (
                    who
                    + f"cannot see position {key}, which "
                    + ("is the query itself" if key == start + query else "came before it")
                )
    return ""


def run(program: Program, case: Case) -> Any:
    """Call it."""
    return program(case["start"], case["length"])


def picture(case: Case, value: Plain) -> str:
    """A row a query, a column a key."""
    rows = [f"query {case['start'] + i}" for i in range(case["length"])]
    return table(value, want(case), rows=rows, title="Who sees which key?")


chunk_mask = Exercise(
    id="chunk-mask",
    title="The mask of a chunk",
    name="chunk_mask",
    prompt="Write `chunk_mask(start, length)`: a boolean tensor `[length, start + length]` that is True "
    "where a query may see a key. The chunk's queries stand at positions `start`, `start + 1`, …; the "
    "keys at 0, 1, …, all those cached before and the chunk's own. A query sees its own position and "
    "every earlier one.",
    starter="def chunk_mask(start, length):\n    ...",
    example=({"start": 0, "length": 3},),
    cases=cases,
    run=run,
    want=want,
    judge=judge,
    picture=picture,
    show=lambda case: f"`chunk_mask({case['start']}, {case['length']})`",
    solution=solution,
    wrong=(
        Wrong(
            top_left,
            "The border starts in the top left corner, as `is_causal=True` has it. That fits the first "
            "chunk only: later queries stand `start` positions further on.",
        ),
        Wrong(
            own_chunk_only,
            "The mask is a square over the chunk itself. The keys cached before it need columns too.",
        ),
        Wrong(
            prefix_hidden,
            "The columns of the cached prefix are there, but closed. A query sees everything before it, "
            "whichever chunk it came in.",
        ),
        Wrong(
            window,
            "Each query sees as many keys as the chunk is long, and no more. There is no such window: how "
            "the prompt is cut must not change what a token sees.",
        ),
    ),
    hints=(
        "Take `start = 2, length = 2` and write down, for each of the two queries, which positions it may "
        "see.",
        "Query number i of the chunk stands at position `start + i`. Compare that with the number of the "
        "column.",
        "`torch.ones(rows, columns).tril(diagonal=d)` keeps columns up to `row + d`. Which d does query 0 "
        "need?",
    ),
    minutes=6,
    needs=("torch",),
    preamble="import torch\n\n\n",
)
