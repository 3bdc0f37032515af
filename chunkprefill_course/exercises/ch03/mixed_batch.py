"""Exercise: one mixed batch; at which position each token stands, which slot it is written to, what it sees."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from chunkprefill_course.exercises.texts import prose
from chunkprefill_course.forms.answers import Plain, Unusable, items, sets_as_lists, told
from chunkprefill_course.forms.boards import Cell, board
from chunkprefill_course.forms.calling import call, shared_list
from chunkprefill_course.forms.exercise import Case, Exercise, Wrong
from chunkprefill_course.forms.feedback import counted
from chunkprefill_course.forms.running import Program
from chunkprefill_course.forms.variants import Variant


def solution(batch, tables, block_size):
    """Each token's position in its own request leads to its slot, and to those that it reads."""
    rows = []
    for name, cached, length in batch:
        slots = [block * block_size + i for block in tables[name] for i in range(block_size)]
        for position in range(cached, cached + length):
            rows.append((position, slots[position], slots[: position + 1]))
    return rows


def _with(*swaps: tuple[str, str]) -> Variant:
    return Variant(solution, *swaps)


SMALL = (
    ([("a", 0, 1)], {"a": [0]}, 2),
    ([("a", 0, 2)], {"a": [1]}, 2),
    ([("a", 1, 1)], {"a": [2]}, 2),
    ([("a", 2, 2)], {"a": [3, 0]}, 2),
    ([("a", 1, 2)], {"a": [0, 2]}, 2),
    ([("a", 0, 1), ("b", 0, 1)], {"a": [1], "b": [0]}, 2),
    ([("a", 1, 1), ("b", 0, 2)], {"b": [0], "a": [1]}, 2),
    ([("a", 0, 3), ("b", 3, 1)], {"a": [4, 1], "b": [0, 2]}, 2),
    ([("a", 2, 1), ("b", 2, 3)], {"a": [5, 3], "b": [0, 1, 4]}, 2),
    ([("b", 0, 2), ("a", 4, 1)], {"a": [2, 0], "b": [1]}, 3),
    # Blocks that are not used yet, and requests that do not run.
    ([("a", 1, 1)], {"a": [2, 0, 5]}, 2),
    ([("b", 2, 1)], {"a": [3], "b": [1, 4, 0]}, 2),
    ([("b", 0, 3), ("c", 5, 1)], {"c": [0, 8, 3, 1], "a": [2, 7], "b": [6, 5]}, 2),
    (
        [("d", 1, 1), ("a", 1, 3), ("b", 1, 1), ("c", 0, 1), ("e", 3, 1)],
        {"a": [7, 2], "b": [1], "c": [5], "d": [0], "e": [3, 4]},
        2,
    ),
    # The same batch, and other tables.
    ([("a", 2, 2)], {"a": [1, 4]}, 2),
    ([("a", 0, 3), ("b", 3, 1)], {"a": [0, 5], "b": [3, 4]}, 2),
    ([("a", 300, 1), ("b", 40, 20)], {"a": [*range(6030, 6010, -1)], "b": [*range(5, 10)]}, 16),
)

MOST_DRAWN = 60  # cells of a row
MOST_SAID = 8  # requests, or blocks, in a call


def _case(batch: list, tables: dict, block_size: int) -> Case:
    return {"batch": batch, "tables": tables, "block_size": block_size}


def cases(rng: random.Random) -> Iterator[Case]:
    """Small batches, then drawn ones: decodes and chunks, blocks scattered over the pool; and the largest."""
    yield from (_case(*small) for small in SMALL)
    for _ in range(25):
        block_size, n = rng.choice((1, 2, 4)), rng.randint(1, 4)
        batch = [
            (name, rng.randint(0, 7), rng.choice((1, 1, rng.randint(1, 5))))
            for name in rng.sample("abcdef", n)
        ]
        pool = rng.sample(range(60), 60)
        spare = rng.choice((0, 0, 1))
        tables = {
            name: [pool.pop() for _ in range(-(-(c + n) // block_size) + spare)] for name, c, n in batch
        }
        yield _case(batch, tables, block_size)
    for block_size in (1, 100, MOST_SLOTS):
        pool = rng.sample(range(3 * LONGEST), -(-LONGEST // block_size))
        yield _case([("a", LONGEST - 2, 2), ("b", 0, 1)], {"b": [3 * LONGEST], "a": pool}, block_size)
    pool = rng.sample(range(2 * MOST_RUNNING), MOST_RUNNING)
    names = rng.sample(range(1000), MOST_RUNNING)
    yield _case([(f"r{i}", i % 3, 1) for i in names], {f"r{i}": [pool.pop()] for i in names}, 3)
    yield _case([("a", 0, 300)], {"a": rng.sample(range(90), 20)}, 16)


MOST_RUNNING, LONGEST, MOST_SLOTS = 256, 1_024, 128  # requests, tokens of one, slots: what the prompt allows


def want(case: Case) -> list[list[Any]]:
    """Token by token, by division."""
    size, rows = case["block_size"], []
    for name, cached, length in case["batch"]:
        table = case["tables"][name]
        for p in range(cached, cached + length):
            seen = [table[q // size] * size + q % size for q in range(p + 1)]
            rows.append([p, seen[-1], seen])
    return rows


def run(program: Program, case: Case) -> Any:
    """Call it with things of its own."""
    returned = call(program, case)
    rows = returned if type(returned) in (list, tuple) else ()
    if same := shared_list([row[2] for row in rows if type(row) in (list, tuple) and len(row) == 3]):
        raise Unusable(
            f"`seen` of row {same[0]} and of row {same[1]} are one and the same list, which grew after row {same[0]} "
            "was made. `[*slots]` makes a copy"
        )
    return items(sets_as_lists(returned), "a list with a row (position, slot, seen) for each token")


def judge(case: Case, value: Plain) -> str:
    """How many rows; then position, slot and what is seen of each."""
    right = want(case)
    names = [name for name, _, length in case["batch"] for _ in range(length)]
    if len(value) != len(right):
        return f"it returned {counted(len(value), 'row')}; the batch has {counted(len(right), 'token')}"
    for i, (got, wanted) in enumerate(zip(value, right)):
        token = f"token {i} of the batch, of request {names[i]},"
        if not isinstance(got, list) or len(got) != 3 or not isinstance(got[2], list):
            return f"row {i} is {told(got)}; expected (position, slot, seen), `seen` a list"
        if odd := [each for each in (*got[:2], *got[2]) if isinstance(each, bool)]:
            return f"row {i} holds {odd[0]}, and positions and slots are whole numbers"
        if got[0] != wanted[0]:
            return (
                f"{token} gets position {told(got[0])}; in its own request it stands at position {wanted[0]}"
            )
        if got[1] != wanted[1]:
            return f"{token} stands at position {wanted[0]} and is written to slot {told(got[1])}, not {wanted[1]}"
        numbers = all(isinstance(slot, int | float) for slot in got[2])
        if not numbers or sorted(got[2]) != sorted(wanted[2]):
            return f"{token} {_seen(got[2], wanted[2])}"
    return ""


def _seen(got: list, wanted: list) -> str:
    if strange := [slot for slot in got if slot not in wanted]:
        return f"sees slot {told(strange[0])}, which holds no token of its own request up to itself"
    if missing := [slot for slot in wanted if slot not in got]:
        return f"does not see slot {missing[0]}, which holds an earlier token of its request, or itself"
    return "sees a slot twice"


def picture(case: Case, value: Plain) -> str:
    """A row a request, a column a position; the cells are slots."""
    if max(len(case["batch"]), *(cached + length for _, cached, length in case["batch"])) > MOST_DRAWN:
        return ""
    lines: list[tuple[str, list[Cell]]] = []
    right, i = want(case), 0
    for name, cached, length in case["batch"]:
        cells: list[Cell] = [("old", str(slot)) for slot in right[i][2][:cached]]
        for k in range(i, i + length):
            ok = value[k][:2] == right[k][:2]
            cells.append(("new" if ok else "wrong", told(value[k][1]).strip("`")))
        lines.append((name, cells))
        i += length
    columns = [str(p) for p in range(max(len(cells) for _, cells in lines))]
    return board(lines, title=f"Slots, blocks of {case['block_size']}", columns=columns)


def show(case: Case) -> str:
    """The call; of many requests, and of many blocks, the first."""
    batch, tables = case["batch"], case["tables"]
    rows, names = str(batch), list(tables)
    if len(batch) > MOST_SAID:
        rows = f"{str(batch[:MOST_SAID])[:-1]}, … {len(batch)} in all]"
    said = [f"{name!r}: {_few(tables[name])}" for name in names[:MOST_SAID]]
    said += [f"… {len(names)} in all"] if len(names) > MOST_SAID else []
    return f"`mixed_batch({rows}, {{{', '.join(said)}}}, {case['block_size']})`"


def _few(blocks: list[int]) -> str:
    return (
        str(blocks)
        if len(blocks) <= 3 * MOST_SAID
        else f"{str(blocks[:MOST_SAID])[:-1]}, … {len(blocks)} in all]"
    )


mixed_batch = Exercise(
    id="mixed-batch",
    title="One mixed batch",
    name="mixed_batch",
    prompt=prose("mixed-batch"),
    starter="def mixed_batch(batch, tables, block_size):\n    ...",
    example=(_case([("a", 0, 1)], {"a": [0]}, 2),),
    cases=cases,
    conditions={
        "a decode beside a chunk": lambda c: {n == 1 for _, _, n in c["batch"]} == {True, False},
        "a later chunk of several tokens": lambda c: any(cached and n > 1 for _, cached, n in c["batch"]),
        "blocks out of order": lambda c: any(t != sorted(t) for t in c["tables"].values()),
        "a chunk begins inside a block": lambda c: any(k % c["block_size"] for _, k, _ in c["batch"]),
        "a chunk crosses blocks": lambda c: any(
            k // c["block_size"] < (k + n - 1) // c["block_size"] for _, k, n in c["batch"]
        ),
        "a block that is not used yet": lambda c: any(
            len(c["tables"][name]) * c["block_size"] >= cached + n + c["block_size"]
            for name, cached, n in c["batch"]
        ),
        "a request that does not run": lambda c: len(c["tables"]) > len(c["batch"]),
        "hundreds of tokens cached, in slots that 16 bits do not count": lambda c: any(
            cached > 2**8 and min(c["tables"][name]) * c["block_size"] > 2**16
            for name, cached, _ in c["batch"]
        ),
        "blocks of one": lambda c: c["block_size"] == 1,
        "a chunk among five requests": lambda c: len(c["batch"]) > 4 and max(n for *_, n in c["batch"]) > 2,
        "several requests": lambda c: len(c["batch"]) > 2,
        "a request as long as there may be": lambda c: any(
            cached + n == LONGEST for _, cached, n in c["batch"]
        ),
        "as many requests as there may be": lambda c: len(c["batch"]) == MOST_RUNNING,
        "blocks as large as there may be, several of them": lambda c: (
            c["block_size"] == MOST_SLOTS < max(cached for _, cached, _ in c["batch"])
        ),
        "hundreds of tokens in a chunk": lambda c: max(n for *_, n in c["batch"]) > 256,
    },
    run=run,
    want=want,
    judge=judge,
    picture=picture,
    show=show,
    tell=lambda case, value: ", ".join(f"`({p}, {slot}, {seen})`" for p, slot, seen in value),
    size=lambda case: sum(cached + 2 * length for _, cached, length in case["batch"]),
    solution=solution,
    wrong=(
        Wrong(
            _with(("(position, slots[position]", "(position - cached, slots[position]")),
            "Positions restart at 0 in each chunk. RoPE would then rotate the keys as if nothing came "
            "before them.",
        ),
        Wrong(
            _with(
                ("slots[position], slots[: position + 1]", "slots[position - cached], slots[: position + 1]")
            ),
            "Each chunk is written to the front of its request's blocks, over what is cached there.",
        ),
        Wrong(
            _with(("slots[: position + 1]", "slots[cached : position + 1]")),
            "A token sees only its own chunk. Everything that its request has cached comes before it too.",
        ),
        Wrong(
            _with(("slots[: position + 1]", "slots[: cached + length]")),
            "A token sees the whole chunk, including the tokens after it. Within a chunk the mask is causal.",
        ),
        Wrong(
            _with(
                ("rows = []", "rows, before = [], []"),
                (
                    "slots[: position + 1]))",
                    "before + slots[: position + 1]))\n        before = before + slots[: cached + length]",
                ),
            ),
            "A request sees the requests before it in the strip. Requests share a pass and a pool, and "
            "nothing else.",
        ),
    ),
    slips=(
        Wrong(
            _with(
                (
                    "block * block_size + i for block in tables[name]",
                    "tables[name][0] * block_size + k * block_size + i for k in range(len(tables[name]))",
                )
            ),
            "The blocks are assumed to be adjacent. The table says where each of them is.",
        ),
        Wrong(
            _with(("slots[: position + 1]", "slots[:position]")),
            "A token does not see itself. It attends to its own key as well.",
        ),
    ),
    hints=(
        "Start with one request: at which position is the first token that runs now?",
        "Position p stands in block number `p // block_size` of the request's table, at place `p % block_size`.",
        "For each request list all its slots in order; the token at position p is written to `slots[p]` and "
        "sees `slots[: p + 1]`.",
    ),
    minutes=12,
    level="apply",
)
