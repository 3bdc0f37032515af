"""Cases from a seed: drawn, tried, and kept if they speak plainly for one thing."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from math import floor, isnan, log10

from chunkprefill.exercises.clinic.case import Case, board
from chunkprefill.exercises.clinic.draw import scene
from chunkprefill.exercises.clinic.faults import CAUSES, FIX_FOR, FIXES, HEALTHY, plant, remedies
from chunkprefill.exercises.clinic.rows import PROMISES
from chunkprefill.exercises.clinic.server import serve
from chunkprefill.exercises.clinic.signs import PLAIN, SILENT, signs

TRIES = 1000
CLEAR = 1.12  # what is broken is broken by so much, or a rounded table would not show it
OTHERS = 1.04  # and under any fix but the right one still by so much
HAIR = 0.02  # nearer than this no promise is to being broken or kept
ROOM = (1.3, 3.0)  # blocks of such a cache / blocks in use at most
LONGEST = 4000  # steps of a run


def case(seed: int | str = 0, fault: str | None = None) -> Case:
    """A case drawn from a seed, the same each time.

    fault: a key of FAULTS, or "healthy"; None: the seed draws one of these too.

    Every case keeps to this, by construction: the right fix keeps every promise; with a fault, a promise is
    broken clearly, the rows speak plainly for that fault and for no other, and no other fix on offer keeps
    every promise. Raises ValueError for an unknown fault.
    """
    if fault is None:
        fault = random.Random(f"clinic {seed}").choice(list(CAUSES))
    if fault not in CAUSES:
        raise ValueError(f"no fault {fault!r}; there are {', '.join(CAUSES)}")
    for attempt in range(TRIES):
        found = _try(random.Random(f"clinic {seed} {fault} {attempt}"), seed, fault)
        if found:
            return found
    raise RuntimeError(f"no case of this fault in {TRIES} tries from seed {seed}")


def _try(rng: random.Random, seed: int | str, fault: str) -> Case | None:
    drawn = scene(rng, fault)
    if drawn is None:
        return None
    base = serve(drawn.requests, drawn.healthy, drawn.machine)
    if rng.random() < 0.6:  # a cache as large as this load needs, and not as the card allows
        n_blocks = int(rng.uniform(*ROOM) * max(base.columns["blocks_used"]))
        drawn = replace(drawn, healthy=replace(drawn.healthy, n_blocks=n_blocks))
        base = serve(drawn.requests, drawn.healthy, drawn.machine)
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
    made = Case(seed=seed, cause=fault, scene=drawn, settings=settings, bounds=bounds, offers=offers)
    if fault == HEALTHY:
        return made if _clear(made) else None
    try:
        trace = made.trace
    except ValueError:  # a pool that could never hold some request
        return None
    speaks = signs(made.dashboard.values, bounds)
    if (
        len(trace.steps) > LONGEST
        or max(made.metric(row) / bound for row, bound in bounds.items()) < CLEAR
        or not _clear(made)
        or speaks.pop(fault) < PLAIN
        or _loudest(speaks) > SILENT
        or made.mended.broken
    ):
        return None
    return made if all(_still_broken(made, fix) for fix in FIXES if fix != FIX_FOR[fault]) else None


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
