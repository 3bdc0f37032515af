"""Exercise: a block runs out; whom to evict, and how much is computed again."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import Any

from chunkprefill.plots.style import Canvas
from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.core import Sequence
from chunkprefill.scheduling.policies import ChunkedPrefill
from chunkprefill.scheduling.state import State
from chunkprefill_course.exercises.texts import prose
from chunkprefill_course.forms.answers import Plain, items, sets_as_lists, told
from chunkprefill_course.forms.calling import call
from chunkprefill_course.forms.exercise import Case, Exercise, Wrong
from chunkprefill_course.forms.feedback import counted
from chunkprefill_course.forms.running import Program
from chunkprefill_course.forms.variants import Variant


def solution(running, free, block_size):
    """Those that fill their last block ask for one; the last admitted pays, if need be itself."""
    left, evicted = list(running), []
    for name, cached in running:
        if name in evicted or cached % block_size:
            continue
        while free < 1:
            victim, n = left.pop()
            evicted.append(victim)
            free += -(-n // block_size)
        free -= 1
    return evicted, sum(cached for name, cached in running if name in evicted)


def _with(*swaps: tuple[str, str]) -> Variant:
    return Variant(solution, *swaps)


def _case(cached: tuple[int, ...], free: int, block_size: int, names: Iterable[str] = "abcdefgh") -> Case:
    return {"running": list(zip(names, cached)), "free": free, "block_size": block_size}


NAMES = [*"abcdefgh", *(f"r{i}" for i in range(500))]
MOST_DRAWN = 24  # requests
MOST_SAID = 8  # requests in a sentence or a call
MOST = 256  # requests that run: what the prompt allows
SMALL = (
    ((4,), 1, 4),
    ((3,), 0, 4),
    ((3, 5), 0, 4),
    ((4, 3), 0, 4),
    ((3, 4), 0, 4),
    ((4, 4), 1, 4),
    ((4, 4), 0, 4),
    ((4, 2, 6), 0, 4),
    ((4, 4, 9), 0, 4),
    ((4, 4, 1), 0, 4),
    ((4, 8, 4, 2), 0, 4),
    ((2, 4, 2, 6), 1, 2),
    ((2, 2, 2, 5), 0, 2),
    ((3, 2, 2, 2), 0, 2),
    ((1, 1, 1), 1, 1),
    ((6, 6, 6), 0, 3),
    ((4, 3, 1), 0, 4),
    ((8, 8), 2, 4),
    ((4, 8, 8), 1, 4),
)


def cases(rng: random.Random) -> Iterator[Case]:
    """Small servers, then drawn ones with few free blocks; names are in no order that tells anything."""
    yield from (_case(*small) for small in SMALL if small != ((4,), 1, 4))
    yield _case((4, 3), 0, 4, "ba")
    yield _case((4, 4, 2), 0, 4, "bca")
    yield _case((2, 2, 2, 1, 1, 1), 0, 2, "fadbec")
    yield _case((1, 1, 1, 1, 1, 1, 1), 0, 1, "gbadfec")
    yield _case((2, 2, 2), 1, 2, "bca")
    many = [rng.choice((rng.randint(1, 90), 16 * rng.randint(1, 9))) for _ in range(40)]
    yield _case(tuple(many), 2, 16, rng.sample(NAMES, 40))
    yield _case((3, 5, 7, 3000, 4096, 6000, 4096), 1, 4, "gbadfec")
    yield _case((4,) * MOST, MOST, 4, rng.sample(NAMES, MOST))
    yield _case((*(4,) * (MOST - 1), 4 * MOST - 5), 0, 4, rng.sample(NAMES, MOST))
    yield _case((4,) * (MOST // 2) + (3,) * (MOST // 2), 0, 4, rng.sample(NAMES, MOST))
    yield _case((*(1,) * 9, 900_000, 1_000_000), 0, 1, rng.sample(NAMES, 11))
    for _ in range(25):
        size, n = rng.choice((1, 2, 4, 16)), rng.randint(2, 6)
        cached = tuple(rng.choice((rng.randint(1, 40), size * rng.randint(1, 4))) for _ in range(n))
        yield _case(cached, rng.randint(0, 3), size, rng.sample("abcdefgh", n))


def proved(case: Case) -> tuple[list[Any], int]:
    """What the library's own policy evicts, in the same moment."""
    size = case["block_size"]
    sequences = [
        Sequence(name, cached, 0.0, cached=cached, generated=1, order=i)
        for i, (name, cached) in enumerate(case["running"])
    ]
    n_blocks = case["free"] + sum(-(-cached // size) for _, cached in case["running"])
    plan = ChunkedPrefill(1000).schedule(State(BlockPool(n_blocks, size), running=sequences))
    return list(plan.preempted), sum(n for name, n in case["running"] if name in plan.preempted)


def want(case: Case) -> list[Any]:
    """By the rule, one request after the other."""
    evicted, again = solution(**case)
    return [evicted, again]


def run(program: Program, case: Case) -> Any:
    """Call it with a list of its own."""
    return items(
        sets_as_lists(call(program, case)), "(evicted, again): a list of names and a number of tokens"
    )


def judge(case: Case, value: Plain) -> str:
    """Names, then whether blocks are enough, then the rule; then what is computed again."""
    evicted, again = want(case)
    cached = dict(case["running"])
    if len(value) != 2 or not isinstance(value[0], list):
        return f"it returned {told(value)}; expected (evicted, again), a list of names and a number"
    got = value[0]
    if strange := [name for name in got if name not in cached]:
        return f"{told(strange[0])} is to be evicted, and no request of that name runs"
    if twice := [name for i, name in enumerate(got) if name in got[:i]]:
        return f"{told(twice[0])} is named twice; it can be evicted once"
    if sorted(got) != sorted(evicted):
        spared = [name for name in evicted if name not in got]
        extra = [name for name in got if name not in evicted]
        both = f"it evicts {_names(got)}; {_names(evicted)} would be right"
        if extra:
            return f"{both}: request {extra[0]} can keep its cache"
        return f"{both}: without request {spared[0]} blocks do not suffice"
    if value[1] != again:
        noun = "token is" if value[1] == 1 else "tokens are"
        return (
            f"{told(value[1])} {noun} said to be computed again; {_names(evicted)} had "
            f"{counted(again, 'token')} cached"
        )
    return ""


def _names(names: list[Any]) -> str:
    """The first of them."""
    more = [f"and {len(names) - MOST_SAID} more"] if len(names) > MOST_SAID else []
    return ", ".join([*map(str, names[:MOST_SAID]), *more]) or "none"


def _asking(case: Case) -> list[Any]:
    """Who needs a block."""
    return [name for name, n in case["running"] if n % case["block_size"] == 0]


def picture(case: Case, value: Plain) -> str:
    """Each request's cache as a bar, those evicted marked."""
    if len(case["running"]) > MOST_DRAWN:
        return ""
    rows, size = case["running"], case["block_size"]
    canvas = Canvas(34 + 34 * len(rows))
    most = max(cached for _, cached in rows)
    canvas.text(0, 20, f"{counted(case['free'], 'block')} free, blocks of {size}", bold=True)
    for k, (name, cached) in enumerate(rows):
        y, gone = 34 + 34 * k, name in value[0]
        canvas.text(20, y + 20, name, anchor="end")
        fill = "trouble" if gone else "prefill"
        canvas.rect(30, y + 4, max(2, (canvas.width - 260) * cached / most), 22, fill, radius=2)
        asks = "asks for a block" if cached % size == 0 else "has room"
        canvas.text(canvas.width, y + 20, f"{cached} cached, {'evicted' if gone else asks}", anchor="end")
    alt = f"{counted(case['free'], 'block')} free. Evicted: {_names(value[0])}."
    image = canvas.picture(alt=alt, caption="One step.", badge="counted").image()
    return f'<div style="max-width:{canvas.width:.0f}px">{image}</div>'


def show(case: Case) -> str:
    """The call; of hundreds of requests the first, in words how many."""
    running = case["running"]
    rest = f"{case['free']}, {case['block_size']})`"
    if len(running) <= 3 * MOST_DRAWN:
        return f"`make_room({running}, {rest}"
    few = ", ".join(map(str, running[:MOST_SAID]))
    return f"`make_room([{few}, …], {rest}, with {len(running):,} requests of which {running[-1]} is the last"


make_room = Exercise(
    id="make-room",
    title="A block runs out",
    name="make_room",
    prompt=prose("make-room"),
    starter="def make_room(running, free, block_size):\n    ...",
    example=(_case((4,), 1, 4),),
    cases=cases,
    conditions={
        "none evicted": lambda c: not want(c)[0] and len(c["running"]) > 1,
        "blocks suffice just so": lambda c: (
            0 < c["free"] == sum(n % c["block_size"] == 0 for _, n in c["running"])
        ),
        "one evicted": lambda c: len(want(c)[0]) == 1 and len(c["running"]) > 2,
        "several evicted": lambda c: len(want(c)[0]) > 1,
        "more than two evicted": lambda c: len(want(c)[0]) > 2,
        "the last admitted is not the last by name": lambda c: (
            want(c)[0] and max(c["running"])[0] not in want(c)[0]
        ),
        "in the order of names one more would be evicted": lambda c: (
            want(c)[0] == ["a"] and [name for name, _ in c["running"]] == ["b", "c", "a"] and c["free"] == 1
        ),
        "it evicts itself": lambda c: (
            any(name in want(c)[0] and n % c["block_size"] == 0 for name, n in c["running"][-1:])
            and len(want(c)[0]) == 1
        ),
        "the evicted one had asked too": lambda c: (
            len(want(c)[0]) == 1
            and c["running"][-1][1] % c["block_size"] == 0
            and c["running"][0][1] % c["block_size"] == 0
        ),
        "the evicted one gives several blocks": lambda c: any(
            n > c["block_size"] for name, n in c["running"] if name in want(c)[0]
        ),
        "those blocks serve two": lambda c: (
            len(want(c)[0]) == 1
            and c["free"] == 0
            and sum(n % c["block_size"] == 0 for _, n in c["running"][:-1]) > 1
        ),
        "the longest is not the last": lambda c: (
            want(c)[0] and max(n for _, n in c["running"]) > c["running"][-1][1]
        ),
        "dozens run, and several of them are evicted": lambda c: (
            len(c["running"]) > 32 and len(want(c)[0]) > 2
        ),
        "as many as may run all take a block": lambda c: c["free"] == len(_asking(c)) == MOST,
        "one gives hundreds of blocks, and all are taken": lambda c: (
            len(want(c)[0]) == 1
            and c["free"] == 0
            and want(c)[1] // c["block_size"] + 1 == len(_asking(c)) == MOST - 1
        ),
        "more than a hundred are evicted": lambda c: len(want(c)[0]) > 100,
        "thousands of tokens are lost": lambda c: 4000 < want(c)[1] < 100_000,
        "a million tokens are lost": lambda c: want(c)[1] >= 1_000_000,
        "blocks of one": lambda c: c["block_size"] == 1,
    },
    run=run,
    want=want,
    judge=judge,
    picture=picture,
    show=show,
    tell=lambda case, value: f"`({value[0]}, {value[1]})`",
    size=lambda case: sum(n for _, n in case["running"]),
    solution=solution,
    wrong=(
        Wrong(
            _with(("left.pop()", "left.pop(0)")),
            "The request that was admitted first is evicted. It has waited longest and is closest to "
            "finishing; the one admitted last should go.",
        ),
        Wrong(
            _with(("sum(cached for", "sum(1 for")),
            "One token is counted for each request. Its whole cache is gone: all that was cached is computed "
            "again.",
        ),
        Wrong(
            _with(("free += -(-n // block_size)", "free += 1")),
            "Here an evicted request gives back one block. It should give back all of its blocks, and "
            "they may serve several requests.",
        ),
        Wrong(
            _with(("if name in evicted or cached % block_size:", "if name in evicted:")),
            "It assumes that every request needs a block. A request whose last block has room needs none.",
        ),
    ),
    slips=(
        Wrong(
            _with(("left.pop()", "left.pop(max(range(len(left)), key=lambda i: left[i][1]))")),
            "The request with the longest cache is evicted. That frees the most, and costs the most to "
            "compute again; the rule is to evict the one admitted last.",
        ),
        Wrong(
            _with(("        free -= 1", "        pass")),
            "A block that is taken is still counted as free, so the next request takes it again.",
        ),
        Wrong(
            _with(("free += -(-n // block_size)", "free += n // block_size")),
            "The last block of an evicted request, which is not full, is not given back. It holds "
            "⌈cached / block_size⌉.",
        ),
        Wrong(
            _with(("sum(cached for", "sum(-(-cached // block_size) for")),
            "Blocks are counted. Tokens are computed again: those that were cached.",
        ),
    ),
    hints=(
        "Which requests need a block? Look at `cached % block_size`.",
        "Keep a list of those that still hold their cache. When no block is free, its last entry goes.",
        "Walk through `running`; skip those with room and those evicted; `while free < 1`: pop the last, add "
        "`-(-n // block_size)` to `free`, and stop if it was the asking one.",
    ),
    minutes=14,
    level="apply",
)
