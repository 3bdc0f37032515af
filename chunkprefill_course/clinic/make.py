"""Cases from a seed: drawn, tried, and kept if they speak plainly for one thing."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import floor, isnan, log10

from chunkprefill_course.clinic.case import Case, board
from chunkprefill_course.clinic.faults import (
    CAUSES,
    FIRST_NINE,
    FIX_FOR,
    FIXES,
    HEALTHY,
    PAIRS,
    plant,
    remedies,
)
from chunkprefill_course.clinic.healthy import scene
from chunkprefill_course.clinic.rows import PROMISES
from chunkprefill_course.clinic.server import run_server
from chunkprefill_course.clinic.signs import PLAIN, SILENT, signs

TRIES = 1000
CLEAR = 1.12  # what is broken is broken by so much, or a rounded table would not show it
OTHERS = 1.04  # and under any fix but the right one still by so much
HAIR = 0.02  # nearer than this no promise is to being broken or kept
ROOM = (1.3, 3.0)  # blocks of such a cache / blocks in use at most
LONGEST = 4000  # steps of a run


def case(seed: int | str = 0, fault: str | tuple[str, str] | None = None) -> Case:
    """A case drawn from a seed, the same each time.

    fault: a key of FAULTS, or "healthy", or a pair of PAIRS; None: the seed draws one fault, or none, too.

    Every case keeps to this, by construction: the right fix keeps every promise; with a fault, a promise is
    broken clearly, the rows speak plainly for that fault and for no other, and no other fix on offer keeps
    every promise. With two faults the rows speak plainly for both, and it takes both fixes: neither alone, nor
    any other, keeps every promise. Raises ValueError for an unknown fault or pair.
    """
    if fault is None:
        fault = fault_of(seed)
    first, second = (fault, "") if isinstance(fault, str) else _pair(fault)
    if first not in CAUSES:
        raise ValueError(f"no fault {fault!r}; there are {', '.join(CAUSES)}")
    named = f"{first} {second}".strip()
    for attempt in range(TRIES):
        made = _drawn(seed, (first, second), attempt)
        if made and _speaks_plainly(made):
            return made
    raise RuntimeError(f"no case of {named} in {TRIES} tries from seed {seed}")


def fault_of(seed: int | str) -> str:
    """The fault, or "healthy", that a seed draws where none is asked for."""
    late = random.Random(f"clinic {seed} launching").random() < 0.1
    return "launch-bound" if late else random.Random(f"clinic {seed}").choice(FIRST_NINE)


def again(seed: int | str, attempt: int) -> Case:
    """The case that `case(seed)` found at this attempt, without looking for it: what a page asks for.

    Raises ValueError where nothing can be drawn at this attempt.
    """
    made = _drawn(seed, (fault_of(seed), ""), attempt)
    if made is None:
        raise ValueError(f"seed {seed!r} draws no case at attempt {attempt}")
    return made


def _pair(faults: Iterable[str]) -> tuple[str, str]:
    """The pair as PAIRS has it, whichever is named first."""
    named = set(faults)
    for pair in PAIRS:
        if named == set(pair):
            return pair
    told = ", ".join(" + ".join(pair) for pair in PAIRS)
    raise ValueError(f"no pair of faults {' + '.join(map(str, faults))}; there are {told}")


def _drawn(seed: int | str, faults: tuple[str, str], attempt: int) -> Case | None:
    """One try at a case, not yet held to anything. faults: the second is "" where there is one alone."""
    fault, second = faults
    rng = random.Random(f"clinic {seed} {' '.join(filter(None, faults))} {attempt}")
    drawn = scene(rng, fault)
    if drawn is None:
        return None
    base = run_server(drawn.requests, drawn.healthy, drawn.machine)
    if rng.random() < 0.6:  # a cache as large as this load needs, and not as the card allows
        n_blocks = int(rng.uniform(*ROOM) * max(base.columns["blocks_used"]))
        drawn = replace(drawn, healthy=replace(drawn.healthy, n_blocks=n_blocks))
        base = run_server(drawn.requests, drawn.healthy, drawn.machine)
    if len(base.steps) > LONGEST or base.preempted:
        return None
    values = board(drawn, drawn.healthy, base, {}).values
    bounds = {
        row: nice(values[row] * margin)
        for row, margin in zip(PROMISES, drawn.margins)
        if not isnan(values[row])
    }
    if fault != HEALTHY and _loudest(signs(values, bounds)) > SILENT:
        return None
    settings = replace(drawn.healthy, **plant(rng, fault, drawn, values))  # type: ignore[arg-type]
    offers = remedies(rng, fault, drawn, settings)
    if second:
        settings = replace(settings, **plant(rng, second, drawn, values))  # type: ignore[arg-type]
        fix = FIX_FOR[second]
        offers = remedies(rng, fault, drawn, settings) | {fix: remedies(rng, second, drawn, settings)[fix]}
    return Case(
        seed=seed,
        cause=fault,
        second=second,
        scene=drawn,
        settings=settings,
        bounds=bounds,
        offers=offers,
        attempt=attempt,
    )


def _speaks_plainly(made: Case) -> bool:
    """Whether a case keeps to what `case` promises."""
    if made.cause == HEALTHY:
        return _clear(made)
    try:
        trace = made.trace
    except ValueError:  # a pool that could never hold some request
        return False
    speaks = signs(made.dashboard.values, made.bounds)
    if (
        len(trace.steps) > LONGEST
        or max(made.metric(row) / bound for row, bound in made.bounds.items()) < CLEAR
        or not _clear(made)
        or min(speaks.pop(cause) for cause in made.causes) < PLAIN
        or _loudest(speaks) > SILENT
        or made.mended.broken
    ):
        return False
    others = [fix for fix in FIXES if made.second or fix != FIX_FOR[made.cause]]
    return all(_still_broken(made, fix) for fix in others)


def _clear(made: Case) -> bool:
    """No promise is kept or broken by a hair."""
    return all(abs(made.metric(row) / bound - 1) > HAIR for row, bound in made.bounds.items())


def _still_broken(made: Case, fix: str) -> bool:
    changes = made.changes(fix)
    if all(getattr(made.settings, name) == value for name, value in changes.items()):
        return True  # nothing changes
    try:
        after = made.replay(**changes).after
    except ValueError:
        return True
    return max(after.values[row] / bound for row, bound in made.bounds.items()) > OTHERS


def _loudest(speaks: Mapping[str, float]) -> float:
    return max(value for value in speaks.values() if not isnan(value))


def nice(seconds: float) -> float:
    """Rounded up to two figures."""
    unit = 10.0 ** (floor(log10(seconds)) - 1)
    return round(-(-seconds // unit) * unit, 9)
