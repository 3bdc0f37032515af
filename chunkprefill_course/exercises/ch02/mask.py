"""Exercise: the mask of a chunk over everything cached."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any

from chunkprefill_course.exercises.texts import prose
from chunkprefill_course.forms.answers import Plain, Unusable, figure, items, shape, told
from chunkprefill_course.forms.boards import table
from chunkprefill_course.forms.calling import shared_list
from chunkprefill_course.forms.exercise import Case, Exercise, Wrong
from chunkprefill_course.forms.running import Program
from chunkprefill_course.forms.variants import Variant


def solution(start, length):
    """Query number i stands at position start + i."""
    return [[key <= start + query for key in range(start + length)] for query in range(length)]


def _where(rule: str) -> Variant:
    return Variant(solution, ("key <= start + query", rule))


def cases(rng: random.Random) -> Iterator[Case]:
    """All chunks of up to 4 tokens after up to 5, thirty larger ones, three long ones, and the largest masks."""
    yield from ({"start": s, "length": n} for s in range(6) for n in range(1, 5))
    yield from ({"start": rng.randrange(20), "length": rng.randint(1, 12)} for _ in range(30))
    yield from ({"start": s, "length": n} for s, n in ((10, 270), (270, 130), (5000, 2)))
    yield from ({"start": CELLS // n - n, "length": n} for n in (1, 2, 40))
    yield {"start": 0, "length": int(CELLS**0.5)}


CELLS = 80_000  # of a mask: what the prompt allows


MOST_DRAWN = 60  # keys


def want(case: Case) -> list[list[bool]]:
    """The rule, spelled out."""
    start, length = case["start"], case["length"]
    return [[key <= start + query for key in range(start + length)] for query in range(length)]


def judge(case: Case, value: Plain) -> str:
    """Shape, kind of the cells, then the first cell that is wrong."""
    right = want(case)
    start, length = case["start"], case["length"]
    if shape(value) != (length, start + length):
        wanted = (length, start + length)
        if shape(value) is None:
            long = sorted({len(row) if isinstance(row, list) else 0 for row in value})
            return f"its rows have {', '.join(map(figure, long))} cells; each needs {figure(start + length)}, one a key"
        return f"the mask has the shape {shape(value)}; one row a query and one column a key make {wanted}"
    if any({*map(type, row)} != {bool} for row in value):
        return _not_a_bool([cell for row in value for cell in row if type(cell) is not bool])
    for query in range(length):
        if value[query] == right[query]:
            continue
        for key in range(start + length):
            if value[query][key] != right[query][key]:
                return _wrong_cell(start + query, key, right[query][key])
    return ""


def _not_a_bool(odd: list[Plain]) -> str:
    if any(isinstance(cell, float) and math.isinf(cell) for cell in odd):
        return "the mask is additive, with 0 where a key is seen and minus infinity where it is not; use True and False"
    kind = {int: "whole numbers", float: "floats"}.get(type(odd[0]), "")
    if not kind:
        return f"the mask holds {told(odd[0])}; every cell is True or False"
    return (
        f"the mask holds {kind} ({told(odd[0])}) in place of True and False: attention would add them to its "
        "scores. Compare, or end a tensor with `.bool()`"
    )


def _wrong_cell(query: int, key: int, seen: bool) -> str:
    who = f"the query at position {query} "
    if not seen:
        return f"{who}sees position {key}, which comes after it"
    which = "is the query itself" if key == query else "came before it"
    return f"{who}cannot see position {key}, which {which}"


def run(program: Program, case: Case) -> Any:
    """Call it."""
    returned = program(case["start"], case["length"])
    if same := shared_list(returned):
        raise Unusable(
            f"rows {same[0]} and {same[1]} are one and the same list, so what is written to one is written to both: "
            "`[row] * n` copies nothing. Make each row anew"
        )
    return items(returned, "a mask, as rows or as a tensor")


def picture(case: Case, value: Plain) -> str:
    """A row a query, a column a key."""
    if case["start"] + case["length"] > MOST_DRAWN:
        return ""
    rows = [f"query {case['start'] + i}" for i in range(case["length"])]
    return table(value, want(case), rows=rows, title="Who sees which key?")


chunk_mask = Exercise(
    id="chunk-mask",
    title="The mask of a chunk",
    name="chunk_mask",
    prompt=prose("chunk-mask"),
    starter="def chunk_mask(start, length):\n    ...",
    example=({"start": 0, "length": 3},),
    cases=cases,
    conditions={
        "first chunk": lambda case: case["start"] == 0 and case["length"] > 1,
        "later chunk": lambda case: case["start"] > 0 and case["length"] > 1,
        "one token": lambda case: case["length"] == 1 and case["start"] > 0,
        "very first token": lambda case: case["length"] == 1 and case["start"] == 0,
        "chunk longer than its prefix": lambda case: 0 < case["start"] < case["length"],
        "prefix longer than the chunk": lambda case: case["start"] > case["length"] > 1,
        "as long as its prefix": lambda case: case["start"] == case["length"] > 1,
        "more queries than 8 bits count": lambda case: case["length"] > 2**8,
        "more queries than 7 bits count, and more keys than 8 do": lambda case: (
            case["start"] > 2**8 and case["length"] > 2**7
        ),
        "thousands of keys": lambda case: case["start"] > 2**12,
        "two rows as long as there may be": lambda case: (
            case["length"] == 2 and 2 * (case["start"] + 2) == CELLS
        ),
        "one row as long as there may be": lambda case: case["length"] == 1 and case["start"] + 1 == CELLS,
        "as many queries as there may be": lambda case: case["length"] == int(CELLS**0.5),
    },
    run=run,
    want=want,
    judge=judge,
    picture=picture,
    show=lambda case: f"`chunk_mask({case['start']}, {case['length']})`",
    solution=solution,
    wrong=(
        Wrong(
            _where("key <= query"),
            "This staircase starts in the top left corner, as with `is_causal=True`. That fits the first chunk only, because later queries stand `start` positions further on.",
        ),
        Wrong(
            Variant(
                solution, ("key <= start + query", "key <= query"), ("range(start + length)", "range(length)")
            ),
            "This mask is a square over the chunk alone. The keys cached before it need columns too.",
        ),
        Wrong(
            _where("start <= key <= start + query"),
            "The cached prefix has columns, but they are all False. A query sees everything before it, whichever chunk that came in.",
        ),
        Wrong(
            _where("start + query - length < key <= start + query"),
            "Here each query sees only as many keys as the chunk is long. There is no such window: how the prompt is cut must not change what a token sees.",
        ),
    ),
    slips=(
        Wrong(
            _where("key > start + query"),
            "This is the other way round: here True means that a query sees a key, not that the key is hidden.",
        ),
        Wrong(
            _where("key < start + query"),
            "The staircase is one place too far left: a query sees its own key too.",
        ),
        Wrong(
            _where("key <= start + query + 1"),
            "The staircase is one place too far right: a query would see the token that it has to predict.",
        ),
        Wrong(
            _where("True"),
            "Here every query sees every key, even later ones. Within the chunk the mask has to be causal.",
        ),
        Wrong(
            Variant(
                solution,
                ("for key in range(start + length)", "for query in range(length)"),
                ("] for query in range(length)", "] for key in range(start + length)"),
            ),
            "Rows and columns are swapped: a row is a query, a column is a key.",
        ),
    ),
    hints=(
        "Take `start = 2, length = 2` and write down, for each of the two queries, which positions it may "
        "see.",
        "Query i of the chunk stands at position `start + i`. Compare that with the column's number.",
        "For a row: `[key <= start + query for key in range(start + length)]`. With torch, "
        "`torch.ones(rows, columns).tril(diagonal=d).bool()` keeps columns up to `row + d`.",
    ),
    minutes=6,
    needs=("torch",),
)
