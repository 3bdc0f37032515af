"""Where a step's processor time goes, and what it grows with: sums, fits, and errors on steps not fitted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import numpy as np

from chunkprefill.measure import measured
from chunkprefill.plots.style import Table, Tabular
from chunkprefill.scheduling.core import Batch
from chunkprefill.scheduling.trace import PARTS, Trace
from chunkprefill.simulation.calibration import host_table, nonnegative
from chunkprefill.simulation.cost import SchedulerCost
from chunkprefill.whole import needed, whole_number

#: In words, and the code that it is.
WORDS = {
    "decide": "deciding the batch",
    "blocks": "taking blocks",
    "inputs": "building inputs",
    "launch": "launching",
    "read": "sampling, reading back",
    "book": "bookkeeping",
}
CODE = {
    "decide": "policy.schedule",
    "blocks": "State.apply",
    "inputs": "ModelExecutor.launch and PagedWindow",
    "launch": "InFlightStep.execute, up to its last kernel "
    "(on a CPU: nothing, the pass is run and not launched)",
    "read": "argmax and InFlightStep.wait",
    "book": "Trace.record, State.commit, State.arrive",
}


@dataclass(frozen=True, repr=False)
class Breakdown(Tabular):
    """How the steps of a run divide; s a step, each part's median over the steps.

    parts: by the names of `PARTS`. execution: what the loop waits for the pass. check: the contract. covered:
    the share of all steps' wall time that was accounted for, by sums and not by medians; nan if overlapped.
    """

    label: str
    n_steps: int
    parts: dict[str, float]
    execution: float
    check: float
    covered: float

    @property
    def scheduling(self) -> float:
        """s a step of all parts together."""
        return sum(self.parts.values())

    @property
    def share(self) -> float:
        """Of a step, the share that is not the pass; the check is left out of both."""
        return self.scheduling / (self.scheduling + self.execution)

    @property
    def largest(self) -> list[str]:
        """The parts, the largest first."""
        return sorted(self.parts, key=lambda name: -self.parts[name])

    def table(self) -> Table:
        """s a step and shares, with the code that each part is."""
        rows = [
            (WORDS[name], measured(s), measured(s / self.scheduling, "%"), CODE[name])
            for name, s in self.parts.items()
        ]
        rows += [
            ("all parts", measured(self.scheduling), "", f"{measured(self.share, '%')} of a step"),
            ("the pass", measured(self.execution), "", "Transformer.forward"),
            ("checking the contract", measured(self.check), "", "no part: a tool of teaching"),
        ]
        head = ("part", "a step", "of all parts", "code")
        return Table(header=head, rows=rows, caption=f"{self.label} ({self.n_steps} steps)".strip())


def breakdown(trace: Trace, *, label: str = "", skip: int = 1) -> Breakdown:
    """How the steps of a measured run divide; the first `skip` steps, which warm up, are left out.

    Raises ValueError for a trace whose parts were not measured: one that was simulated, or run with `cost`.
    """
    needed("trace", trace, Trace, "such as Engine.run returns")
    skip = whole_number("skip, in steps,", skip, 0)
    steps = trace.steps[skip:]
    if not trace.parts or not steps:
        raise ValueError(
            f"{len(trace.steps)} steps, parts of {len(trace.timings.get('book', ()))} measured: an Engine "
            f"without cost measures them, and {skip} are left out"
        )
    columns = {name: column[skip:] for name, column in trace.timings.items()}
    wall = sum(step.end - step.scheduled for step in steps)
    if any(later.scheduled < step.end for step, later in pairwise(steps)):
        wall = math.nan  # overlapped: a step begins within another
    known = sum(sum(columns[name]) for name in (*PARTS, "check", "wait"))
    parts = {name: median(columns[name]) for name in PARTS}
    return Breakdown(
        label or trace.label,
        len(steps),
        parts,
        median(columns["wait"]),
        median(columns["check"]),
        known / wall if wall else math.nan,
    )


Timed = tuple[Batch, float]  # a step's batch and s
Fitted = tuple[int, int, int, float, float]  # a step's decodes, chunks, tokens; s measured, s predicted


def part_times(trace: Trace, *names: str, skip: int = 0) -> list[Timed]:
    """Each step's batch and the seconds of its parts (all, or those named), without the first `skip`."""
    needed("trace", trace, Trace, "such as Engine.run returns")
    columns = [trace.parts[name][skip:] for name in names or PARTS]
    return [(step.batch, sum(seconds)) for step, seconds in zip(trace.steps[skip:], zip(*columns))]


@dataclass(frozen=True, repr=False)
class OverheadFit(Tabular):
    """Seconds of scheduling a step, as s0 + per_decode · decodes + per_chunk · chunks + per_token · tokens.

    cost: the coefficients, s. r2: the share of the variance that they explain. fitted, held_out: each step's
    decodes, chunks, tokens, and what was measured and what is predicted, s.
    """

    cost: SchedulerCost
    r2: float
    fitted: tuple[Fitted, ...]
    held_out: tuple[Fitted, ...]

    @property
    def residuals(self) -> list[float]:
        """Measured − predicted of each fitted step, s."""
        return [got - want for *_, got, want in self.fitted]

    @property
    def error(self) -> float:
        """Median |predicted / measured − 1| of the steps fitted."""
        return median(abs(want / got - 1) for *_, got, want in self.fitted)

    @property
    def held_out_error(self) -> float:
        """The same of the steps held out; nan if there are none."""
        return median([abs(want / got - 1) for *_, got, want in self.held_out] or [float("nan")])

    def table(self) -> Table:
        """The coefficients, how well they fit, and how well they predict."""
        c = self.cost
        rows = [
            ("a step", measured(c.s0)),
            ("a decode", measured(c.per_decode)),
            ("a chunk", measured(c.per_chunk)),
            ("a token", measured(c.per_token)),
            ("share of the variance explained", measured(self.r2, "%")),
            (f"error of {len(self.fitted)} steps fitted, median", measured(self.error, "%")),
        ]
        if self.held_out:
            words = f"error of {len(self.held_out)} steps held out, median"
            rows.append((words, measured(self.held_out_error, "%")))
        return Table(header=("what", "found"), rows=rows)


def fit_overhead(steps: Iterable[Timed], held_out: Iterable[Timed] = ()) -> OverheadFit:
    """Least squares of relative errors, no coefficient below 0. steps, held_out: as `part_times` gives them.

    Decodes, chunks and tokens must vary apart: a server's own batches have as many tokens as the budget, and
    no regression can tell the three apart. Raises ValueError if they do not, or for times not above 0.
    """
    steps, held_out = list(steps), list(held_out)
    table, seconds = host_table(steps)
    if np.linalg.matrix_rank(table / np.maximum(table.max(axis=0, initial=0), 1)) < 4:
        raise ValueError(
            f"{len(steps)} steps in which decodes, chunks and tokens do not vary apart: nothing can be told"
        )
    if not (seconds > 0).all():
        i = int((seconds <= 0).argmax())
        raise ValueError(f"step {i}: {seconds[i]} s; more than 0 is needed")
    found = nonnegative(table / seconds[:, None], np.ones(len(seconds)))
    cost = SchedulerCost(*map(float, found))
    spread = float(((seconds - seconds.mean()) ** 2).sum())
    r2 = 1 - float(((seconds - table @ found) ** 2).sum()) / spread if spread else 0.0
    return OverheadFit(cost, r2, _beside(steps, cost), _beside(held_out, cost))


def _beside(steps: Sequence[Timed], cost: SchedulerCost) -> tuple[Fitted, ...]:
    table, seconds = host_table(steps)
    return tuple(
        (int(d), int(k), int(n), float(s), cost(batch))
        for (_, d, k, n), s, (batch, _) in zip(table, seconds, steps)
    )
