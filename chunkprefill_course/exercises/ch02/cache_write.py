"""Exercise: write a chunk's keys into the cache."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from math import isfinite, prod
from typing import Any

from chunkprefill_course.exercises.texts import prose
from chunkprefill_course.forms.answers import Plain, Unusable, figure, is_array, told, whole
from chunkprefill_course.forms.boards import Cell, board
from chunkprefill_course.forms.calling import changed
from chunkprefill_course.forms.exercise import Case, Exercise, Wrong
from chunkprefill_course.forms.feedback import counted
from chunkprefill_course.forms.running import Program
from chunkprefill_course.forms.strips import Strip
from chunkprefill_course.forms.variants import Variant

HEADS, DIM = 2, 4  # where a case says nothing else
# What the rows hold: 1 + p the key of position p, NEW + i the chunk's key i, EMPTY nothing, ODD a mixture.
EMPTY, NEW, ODD = -1, 1000, -2


def solution(cache, length, new):
    """Behind what is there."""
    end = length + len(new)
    cache[length:end] = new
    return end


def cases(rng: random.Random) -> Iterator[Case]:
    """All fillings of a cache of 5 rows, thirty larger ones of other heads too, and long chunks behind long prefixes.

    Some caches are views: the keys in a tensor that holds keys and values, or rows whose heads come first.
    """
    yield from ({"length": s, "new": n, "max_len": 5} for s in range(5) for n in range(1, 6) if s + n <= 5)
    for _ in range(30):
        length, new = rng.randrange(12), rng.randint(1, 8)
        heads, dim = rng.choice(((2, 4), (1, 8), (3, 2), (4, 1), (1, 1), (8, 16)))
        case = {"length": length, "new": new, "max_len": length + new + rng.randrange(4)}
        yield case | {"heads": heads, "dim": dim, "lies": rng.choice(("alone", *VIEWS))}
    yield {"length": 300, "new": 260, "max_len": 600}
    yield {"length": 4, "new": MOST - 4, "max_len": MOST}
    yield {"length": MOST - 5, "new": 3, "max_len": MOST}


MOST = 600  # rows of a cache: what the prompt allows
#: where a cache lies that is a view: beside values, or in a tensor whose heads come first
VIEWS = ("beside values", "heads first")


MOST_DRAWN = 60  # rows


def want(case: Case) -> dict[str, Any]:
    """The rows afterwards, and the new length."""
    length, new = case["length"], case["new"]
    rows = [*(1 + p for p in range(length)), *(NEW + i for i in range(new))]
    return {"rows": rows + [EMPTY] * (case["max_len"] - len(rows)), "returned": length + new}


def _number(tag: int, head: int, i: int) -> float:
    """One number of a row: it says whose it is, and where it belongs. Every second one is negative.

    The last part is one that no narrower type of numbers keeps.
    """
    return (tag + head / 16 + i / 1024 + 2**-30) * (-1 if (head + i) % 2 else 1)


def _rows(case: Case, tags: list[int]) -> list[Any]:
    """[len(tags), Hkv, D]"""
    heads, dim = _shape(case)
    return [[[_number(tag, h, i) for i in range(dim)] for h in range(heads)] for tag in tags]


def _shape(case: Case) -> tuple[int, int]:
    """Heads, and numbers of a head."""
    return case.get("heads", HEADS), case.get("dim", DIM)


def _tensor(case: Case, tags: list[int], lies: str = "alone") -> Any:
    """A tensor of rows, a view of a larger one if it `lies` in one; without torch, what a tensor of rows can do."""
    try:
        import torch
    except ImportError:
        return Strip.of_rows(_rows(case, tags))
    made = torch.tensor(_rows(case, tags), dtype=torch.float64)
    if lies == "beside values":
        return torch.stack([made, torch.zeros_like(made)], dim=1)[:, 0]
    return made.transpose(0, 1).contiguous().transpose(0, 1) if lies == "heads first" else made


def run(program: Program, case: Case) -> Any:
    """Call it on a real cache, each row of which says whose key it is."""
    before = [*(1 + p for p in range(case["length"])), *([EMPTY] * (case["max_len"] - case["length"]))]
    cache = _tensor(case, before, case.get("lies", "alone"))
    new = _tensor(case, [NEW + i for i in range(case["new"])])
    shared, kept = cache[:], new.tolist()  # a view, as another reader of the cache has it
    returned = program(cache, case["length"], new)
    if returned is None or returned is ...:
        if shared.tolist() == _rows(case, before):
            return None  # not written yet
        raise Unusable("it returned nothing; expected the new length")
    if is_array(returned) and prod(returned.shape) != 1:
        raise Unusable("it returned a tensor; expected the new length, and rows are written into `cache`")
    if new.tolist() != kept:
        raise Unusable(changed("new"))
    shape = (case["max_len"], *_shape(case))
    if tuple(cache.shape) != shape:
        raise Unusable(f"the cache has the shape {tuple(cache.shape)} now, and must keep {shape}")
    tags = [_tag(case, row) for row in shared.tolist()]
    return {"rows": tags, "before": before, "returned": whole(returned, "the new length")}


def _tag(case: Case, row: Any) -> int:
    tag = row[0][0]
    is_one = isfinite(tag) and [row] == _rows(case, [round(tag)])
    return round(tag) if is_one else ODD if any(map(any, row)) else 0


def judge(case: Case, value: Plain) -> str:
    """What was there first, then the new rows, the rest, the length."""
    if value is None:
        return "it wrote nothing and returned nothing"
    right, rows = want(case), value["rows"]
    if rows == value["before"]:
        return (
            "no row of the cache has changed. `cache = …`, `torch.cat` and `clone()` make a new tensor, and so do "
            "`contiguous` and `reshape` of a view; `cache[a:b] = new` writes into the one that others read"
        )
    for p, (got, wanted) in enumerate(zip(rows, right["rows"])):
        if got == wanted:
            continue
        if p < case["length"]:
            return f"the key of position {p}, cached before, is overwritten with {_name(case, got)}"
        return f"row {p} of the cache holds {_name(case, got)}, where {_name(case, wanted)} belongs"
    if value["returned"] != right["returned"]:
        made = f"{case['length']} cached and {case['new']} new make {right['returned']}"
        return f"it returned {told(value['returned'])}; {made}"
    return ""


def picture(case: Case, value: Plain) -> str:
    """The rows of the cache, each with the position whose key it holds."""
    if case["max_len"] > MOST_DRAWN:
        return ""
    cells: list[Cell] = []
    for got, wanted in zip(value["rows"], want(case)["rows"]):
        kind = "wrong" if got not in (wanted, EMPTY) else "missing" if got != wanted else ""
        kind = kind or ("empty" if got == EMPTY else "new" if got >= NEW else "old")
        cells.append((kind, str(_position(case, got)) if got > 0 else "" if got == EMPTY else "?"))
    title = f"{case['length']} cached, {case['new']} new, returned {value['returned']}"
    return board([("holds key", cells)], title=title, columns=[str(p) for p in range(len(cells))])


def tell(case: Case, value: Plain) -> str:
    """What a right program does, in words."""
    n, c = value["returned"], case["length"]
    return f"`{n}`, and rows {c} to {n - 1} of the cache hold the new keys"


def _lies(view: str, case: Case) -> bool:
    return case.get("lies") == view and _shape(case)[0] > 1 and case["max_len"] > 1


def _position(case: Case, tag: int) -> int:
    return tag - 1 if tag < NEW else case["length"] + tag - NEW


def show(case: Case) -> str:
    """The call; of a cache with other heads its shape, and of a view where it lies."""
    heads, dim = _shape(case)
    rows = f"{counted(case['new'], 'new row')}, room for {figure(case['max_len'])}"
    if (heads, dim) != (HEADS, DIM):
        rows += f", {counted(heads, 'head')} of {counted(dim, 'number')}"
    where = {
        "beside values": ", a view of a tensor that holds keys and values",
        "heads first": ", a view of a tensor whose heads come first",
    }.get(case.get("lies", ""), "")
    return f"`cache_write(cache, {case['length']}, new)`, {rows}{where}"


def _name(case: Case, tag: int) -> str:
    words = {EMPTY: "nothing", ODD: "numbers that are no token's key", 0: "zeros"}
    return words.get(tag) or f"the key of position {_position(case, tag)}"


cache_write = Exercise(
    id="cache-write",
    title="Write a chunk into the cache",
    name="cache_write",
    prompt=prose("cache-write"),
    starter="def cache_write(cache, length, new):\n    ...",
    example=({"length": 0, "new": 4, "max_len": 4},),
    cases=cases,
    conditions={
        "empty cache with room": lambda case: case["length"] == 0 and case["max_len"] > case["new"],
        "just fits": lambda case: case["length"] > 0 and case["length"] + case["new"] == case["max_len"],
        "room behind": lambda case: case["length"] > 0 and case["length"] + case["new"] < case["max_len"],
        "one new row": lambda case: case["new"] == 1 and case["length"] > 1,
        "chunk does not divide the prefix": lambda case: case["length"] % case["new"] > 0,
        "shorter than the chunk": lambda case: 0 < case["length"] < case["new"],
        "more rows than 8 bits count": lambda case: min(case["length"], case["new"]) > 2**8,
        "a chunk as long as there may be": lambda case: case["length"] + case["new"] == MOST,
        "other heads than the example has": lambda case: _shape(case)[0] > HEADS and _shape(case)[1] > DIM,
        "one number in a head": lambda case: _shape(case)[1] == 1 < _shape(case)[0],
        **{f"{view}, in several heads": partial(_lies, view) for view in VIEWS},
    },
    run=run,
    want=want,
    judge=judge,
    picture=picture,
    tell=tell,
    show=show,
    solution=solution,
    wrong=(
        Wrong(
            Variant(solution, ("cache[length:end]", "cache[: len(new)]")),
            "This writes each chunk to the front of the cache, over the keys that were there. The next free row is `length`.",
        ),
        Wrong(
            Variant(solution, ("cache[length:end]", "cache[len(cache) - len(new) :]")),
            "This writes the chunk to the last rows, however many are filled, and leaves a gap of empty rows. The next free row is `length`.",
        ),
        Wrong(
            Variant(solution, ("return end", "return len(new)")),
            "The rows are right, but the returned length is this chunk's alone. The next chunk would overwrite this one.",
        ),
        Wrong(
            Variant(
                solution,
                (
                    "end = length + len(new)",
                    "length = length // len(new) * len(new)\n    end = length + len(new)",
                ),
            ),
            "This works out the place from the number of chunks, as if all were as long as this one. The last chunk is often shorter. Use the cache's own length.",
        ),
    ),
    slips=(
        Wrong(
            Variant(solution, ("return end", "return len(cache)")),
            "The returned length is that of the whole cache. The new length counts only the filled rows.",
        ),
        Wrong(
            Variant(solution, ("return end", "return length")),
            "The rows are right, but the returned length is the old one. The next chunk would overwrite this one.",
        ),
        Wrong(
            Variant(solution, ("cache[length:end] = new", "cache[length:end] = new\n    cache[end:] = 0")),
            "This also changes the rows behind the chunk. They do not belong to it; leave them as they are.",
        ),
    ),
    hints=(
        "Which is the first free row?",
        "The new rows are `length` up to, but not including, `length + len(new)`.",
        "Assign to a slice, `cache[a:b] = new`. With `cache = ...` you would only give another tensor the old name.",
    ),
    minutes=5,
    needs=("torch",),
)
