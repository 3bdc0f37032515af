"""Exercise: write a chunk's keys into the cache."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from chunkprefill.exercises.draw import Cell, board
from chunkprefill.exercises.exercise import Case, Exercise, Wrong
from chunkprefill.exercises.feedback import counted
from chunkprefill.exercises.running import Plain, Program, Unusable

EMPTY, NEW = -1, 100  # what the rows hold: -1 nothing, p the key of position p, 100 + i the chunk's key i


def solution(cache, length, new):
    """Behind what is there."""
    end = length + len(new)
    cache[length:end] = new
    return end


def at_zero(cache, length, new):
    """Writes each chunk to the front."""
    cache[: len(new)] = new
    return length + len(new)


def at_the_end(cache, length, new):
    """Writes to the last rows, as a sliding window would."""
    cache[-len(new) :] = new
    return length + len(new)


def forgets_length(cache, length, new):
    """Returns the chunk's length for the cache's."""
    cache[length : length + len(new)] = new
    return len(new)


def equal_chunks(cache, length, new):
    """Counts chunks, and takes them all to be as long as this one."""
    start = (length // len(new)) * len(new)
    cache[start : start + len(new)] = new
    return start + len(new)


def cases(rng: random.Random) -> Iterator[Case]:
    """All fillings of a cache of 4 rows, and thirty larger ones."""
    yield from ({"length": s, "new": n, "max_len": 4} for s in range(4) for n in range(1, 5) if s + n <= 4)
    for _ in range(30):
        length, new = rng.randrange(12), rng.randint(1, 8)
        yield {"length": length, "new": new, "max_len": length + new + rng.randrange(4)}


def want(case: Case) -> dict[str, Any]:
    """The rows afterwards, and the new length."""
    length, new = case["length"], case["new"]
    rows = [*range(length), *(NEW + i for i in range(new))]
    return {"rows": rows + [EMPTY] * (case["max_len"] - len(rows)), "returned": length + new, "input": "kept"}


def run(program: Program, case: Case) -> Any:
    """Call it on a real cache of two heads of four numbers, each row of which says whose key it is."""
    import torch

    def rows(tags: list[int]) -> torch.Tensor:  # [len(tags), Hkv=2, D=4]
        return torch.tensor(tags, dtype=torch.float32)[:, None, None].expand(-1, 2, 4).clone()

    before = [*range(case["length"]), *([EMPTY] * (case["max_len"] - case["length"]))]
    cache, new = rows(before), rows([NEW + i for i in range(case["new"])])
    kept = new.clone()
    returned = program(cache, case["length"], new)
    if cache.shape != (case["max_len"], 2, 4):
        raise Unusable(
            f"the cache has the shape {tuple(cache.shape)} now, and must keep {(case['max_len'], 2, 4)}"
        )
    if not bool((cache == cache[:, :1, :1]).all()):
        raise Unusable("a row of the cache holds numbers from several tokens")
    input_kept = new.shape == kept.shape and torch.equal(new, kept)
    if isinstance(returned, torch.Tensor) and returned.ndim:
        raise Unusable(
            "it returned a tensor; the new length is wanted, and the rows are written into `cache`"
        )
    tags = [int(tag) for tag in cache[:, 0, 0]]
    return {"rows": tags, "returned": returned, "input": "kept" if input_kept else "changed"}


def judge(case: Case, value: Plain) -> str:
    """What was there first, then the new rows, the rest, the length, the input."""
    right, rows = want(case), value["rows"]
    for p, (got, wanted) in enumerate(zip(rows, right["rows"])):
        if got == wanted:
            continue
        if p < case["length"]:
            return f"the key of position {p}, cached before, is overwritten with {_name(case, got)}"
        return f"row {p} of the cache holds {_name(case, got)}, where {_name(case, wanted)} belongs"
    if type(value["returned"]) is not int or value["returned"] != right["returned"]:
        made = f"{case['length']} cached and {case['new']} new make {right['returned']}"
        return f"it returned {value['returned']}; {made}"
    return "" if value["input"] == "kept" else "it changed `new`, which is not its to change"


def picture(case: Case, value: Plain) -> str:
    """The rows of the cache, each with the position whose key it holds."""
    cells: list[Cell] = []
    for got, wanted in zip(value["rows"], want(case)["rows"]):
        kind = "wrong" if got not in (wanted, EMPTY) else "missing" if got != wanted else ""
        kind = kind or ("empty" if got == EMPTY else "new" if got >= NEW else "old")
        cells.append((kind, "" if got == EMPTY else str(_position(case, got))))
    title = f"{case['length']} cached, {case['new']} new, returned {value['returned']}"
    return board([("holds key", cells)], title=title, columns=[str(p) for p in range(len(cells))])


def tell(case: Case, value: Plain) -> str:
    """What a right program does, in words."""
    n, c = value["returned"], case["length"]
    return f"`{n}`, and rows {c} to {n - 1} of the cache hold the new keys"


def _position(case: Case, tag: int) -> int:
    return tag if tag < NEW else case["length"] + tag - NEW


def _name(case: Case, tag: int) -> str:
    return "nothing" if tag == EMPTY else f"the key of position {_position(case, tag)}"


cache_write = Exercise(
    id="cache-write",
    title="Write a chunk into the cache",
    name="cache_write",
    prompt="Write `cache_write(cache, length, new)`. `cache` is a tensor `[max_len, Hkv, D]` whose first "
    "`length` rows are filled; `new`, `[T, Hkv, D]`, holds the keys of the next chunk. Store them in "
    "place, for the cache is shared with whoever reads it, and return the new length. They fit.",
    starter="def cache_write(cache, length, new):\n    ...",
    example=({"length": 0, "new": 4, "max_len": 4},),
    cases=cases,
    run=run,
    want=want,
    judge=judge,
    picture=picture,
    tell=tell,
    show=lambda case: f"`cache_write(cache, {case['length']}, new)`, {counted(case['new'], 'new row')}, "
    f"room for {case['max_len']}",
    solution=solution,
    wrong=(
        Wrong(
            at_zero,
            "Each chunk is written to the front of the cache, over the keys that stood there. The next free "
            "row is `length`.",
        ),
        Wrong(
            at_the_end,
            "The chunk goes to the last rows, whatever is filled. That leaves a gap of rows that nobody "
            "wrote; the next free row is `length`.",
        ),
        Wrong(
            forgets_length,
            "The rows are right, but the length returned is this chunk's alone. The next chunk would be "
            "written over this one.",
        ),
        Wrong(
            equal_chunks,
            "The place is worked out from the number of chunks, as if all were as long as this one. The last "
            "chunk is often shorter; the cache's own length knows better.",
        ),
    ),
    hints=(
        "Which row is the first free one?",
        "The new rows are `length` up to, but not with, `length + len(new)`.",
        "Assign to a slice, `cache[a:b] = new`: `cache = ...` would only give a new tensor the old name.",
    ),
    minutes=5,
    needs=("torch",),
)  # fmt: skip
