"""A cost fitted to measured steps: piecewise linear in tokens, plus attention by its counts."""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any
from warnings import warn

import numpy as np

from chunkprefill.metrics.waits import tbt, ttft
from chunkprefill.scheduling.arguments import check_cost
from chunkprefill.scheduling.core import Batch
from chunkprefill.scheduling.trace import Trace
from chunkprefill.simulation.cost import SchedulerCost
from chunkprefill.strict import loads
from chunkprefill.whole import needed, real_number, whole_number

FORMAT, VERSION = "chunkprefill-calibrated", 1
TERMS = ("chunk", "chunk_keys", "chunk_pairs", "decode", "decode_keys", "emit")


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """Seconds of a batch, as one machine was measured to take them.

    tokens, seconds: corners of a curve, which says what all linear layers take for a number of tokens;
    straight between corners and beyond the last, never falling. The others are s, all layers together: chunk:
    a chunk; chunk_keys: each of the p + c keys that a chunk of c after p reads; chunk_pairs: each of its
    c(p + c/2) query-key pairs; decode: a decode; decode_keys: each key that it reads; emit: a row that emits.
    host: building and handing over a step, as `SchedulerCost`. Raises ValueError for numbers below 0.
    """

    tokens: tuple[int, ...]
    seconds: tuple[float, ...]
    chunk: float = 0.0
    chunk_keys: float = 0.0
    chunk_pairs: float = 0.0
    decode: float = 0.0
    decode_keys: float = 0.0
    emit: float = 0.0
    host: SchedulerCost = field(default_factory=SchedulerCost)
    about: str = ""  # what was measured, where and when
    entangled: tuple[str, ...] = ()  # terms that the measured steps do not tell apart; only sums are known
    held_out: tuple[Error, ...] = ()  # how it predicts steps that it was not fitted to

    def __post_init__(self) -> None:
        if len(self.tokens) < 2 or len(self.tokens) != len(self.seconds):
            raise ValueError(f"{len(self.tokens)} corners and {len(self.seconds)} times; 2 of each at least")
        if list(self.tokens) != sorted(set(self.tokens)) or self.tokens[0] < 1:
            raise ValueError(f"corners must rise from 1 token or more: {self.tokens}")
        numbers = [*self.seconds, *(getattr(self, name) for name in TERMS)]
        if not all(isfinite(x) and x >= 0 for x in numbers) or list(self.seconds) != sorted(self.seconds):
            raise ValueError(f"seconds must be finite, at least 0, and rise with tokens: {numbers}")

    def __call__(self, batch: Batch) -> float:
        return self.linear(sum(batch.length)) + sum(
            getattr(self, name) * count for name, count in zip(TERMS, counts(batch))
        )

    def linear(self, n_tokens: int) -> float:
        """Seconds of what depends on the number of tokens alone."""
        i = min(max(bisect_right(self.tokens, n_tokens) - 1, 0), len(self.tokens) - 2)
        part = max(n_tokens - self.tokens[i], 0) / (self.tokens[i + 1] - self.tokens[i])
        return self.seconds[i] + part * (self.seconds[i + 1] - self.seconds[i])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write JSON."""
        document = {"format": FORMAT, "version": VERSION, **asdict(self)}
        Path(path).write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Calibrated:
        """Read what `save` wrote. ValueError naming the file and what is wrong with it."""
        try:
            document = loads(Path(path).read_text(encoding="utf-8"))
            if document.pop("format") != FORMAT or document.pop("version") != VERSION:
                raise ValueError(f"not a {FORMAT} of version {VERSION}")
            document["host"] = SchedulerCost(**document["host"])
            document["held_out"] = tuple(Error(**one) for one in document["held_out"])
            document["tokens"] = tuple(map(int, document["tokens"]))
            document["entangled"] = tuple(map(str, document.get("entangled", ())))
            document["seconds"] = tuple(map(float, document["seconds"]))
            document |= {name: float(document[name]) for name in TERMS}
            return cls(**document)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise ValueError(f"{path}: not a calibration: {type(error).__name__}: {error}") from None


@dataclass(frozen=True)
class Error:
    """|predicted / measured − 1| of a class of steps, or of a metric's mean (then n is 1)."""

    of: str
    n: int
    median: float
    p95: float
    largest: float


def counts(batch: Batch) -> tuple[float, ...]:
    """What each of TERMS is multiplied by."""
    sums = batch.totals()
    keys = sum(p + c for p, c in sums.chunks)
    pairs = sum(c * (p + c / 2) for p, c in sums.chunks)
    return (len(sums.chunks), keys, pairs, sums.n_decodes, sums.decode_context + sums.n_decodes, sums.n_emits)


def _measured(i: int, step: Any) -> tuple[Batch, float]:
    """Step `i` as a batch and its seconds. ValueError unless it is both."""
    try:
        batch, given = step
    except (TypeError, ValueError):
        batch, given = None, None
    if not isinstance(batch, Batch):
        raise ValueError(f"step {i} is {step!r}: a Batch and its seconds are needed")
    return batch, real_number(f"step {i}: its seconds", given, above=True)


def fit(
    steps: Iterable[tuple[Batch, float]], tokens: Iterable[int] | None = None, *, about: str = ""
) -> Calibrated:
    """The cost with the least absolute relative errors over measured steps, none of its numbers below 0.

    steps: (batch, s). tokens: corners of the curve; default: sizes of batches of one chunk that starts at 0.
    Raises ValueError for fewer than two corners, for a step that took no time, and for steps that never show
    what a term costs: without decodes, decodes would be free. Terms that always vary together are named in
    `entangled`, with a warning: their sum is known where they go together, and no more.
    """
    steps = [_measured(i, step) for i, step in enumerate(steps)]
    if tokens is None:
        tokens = {batch.length[0] for batch, _ in steps if len(batch) == 1 and not batch.start[0]}
    corners = np.array(sorted({whole_number("a corner of the curve", n, 1) for n in tokens}))
    if len(corners) < 2:
        raise ValueError(f"{len(corners)} sizes of batches to fit a curve to; at least 2 are needed")
    measured = np.array([seconds for _, seconds in steps])
    # The curve is its first value and a rise to each later corner, as far as the batch has climbed it.
    sizes = np.array([sum(batch.length) for batch, _ in steps])[:, None]
    climbed = np.clip((sizes - corners[:-1]) / np.diff(corners), 0, 1)
    climbed[:, -1:] = np.maximum((sizes - corners[-2]) / (corners[-1] - corners[-2]), 0)
    table = np.hstack([np.ones_like(sizes), climbed, np.array([counts(batch) for batch, _ in steps])])
    _refuse_what_was_never_seen(table, corners, int(sizes.max()))
    entangled = _entangled(table)
    if entangled:
        warn(
            f"the {len(steps)} steps do not tell {', '.join(entangled)} apart: batches unlike them may be "
            "priced wrongly",
            stacklevel=2,
        )
    table = table / measured[:, None]
    found, weights = np.zeros(table.shape[1]), np.ones(len(steps))
    for _ in range(8):  # reweighted towards absolute errors: a step that was disturbed pulls less
        found = nonnegative(table * weights[:, None], weights)
        weights = 1 / np.sqrt(np.maximum(np.abs(table @ found - 1), 0.02))
    terms = dict(zip(TERMS, map(float, found[len(corners) :])))
    curve = tuple(map(float, np.cumsum(found[: len(corners)])))
    return Calibrated(
        tokens=tuple(map(int, corners)),
        seconds=curve,
        about=about,
        entangled=entangled,
        **terms,  # type: ignore[arg-type]
    )


def _refuse_what_was_never_seen(table: np.ndarray, corners: np.ndarray, largest: int) -> None:
    """ValueError for a term that no step has: its cost would be 0, and nothing would say so."""
    seen = {term: bool(table[:, len(corners) + i].any()) for i, term in enumerate(TERMS)}
    for term, what in (("decode", "decode"), ("chunk", "chunk"), ("emit", "row that emits")):
        if not seen[term]:
            raise ValueError(
                f"no step of {len(table)} has a {what}: what one costs cannot be known, and it would be "
                "priced at 0 s; measure steps that have some"
            )
    if not table[:, len(corners) - 1].any():
        raise ValueError(
            f"the largest step has {largest} tokens: the corner at {corners[-1]} cannot be known, because "
            f"no step has more than {corners[-2]}"
        )


def _entangled(table: np.ndarray) -> tuple[str, ...]:
    """Terms with which the steps' columns cancel: in them, some other mixture of costs fits as well."""
    scaled = table / np.maximum(np.linalg.norm(table, axis=0), 1e-300)
    _, sizes, directions = np.linalg.svd(scaled, full_matrices=True)
    null = directions[np.count_nonzero(sizes > 1e-9 * sizes.max()) :]  # [free directions, columns]
    free = np.abs(null[:, -len(TERMS) :]).max(axis=0, initial=0.0) > 1e-6
    return tuple(name for name, one in zip(TERMS, free) if one)


def fit_host(steps: Iterable[tuple[Batch, float]]) -> SchedulerCost:
    """s0 + per_decode · decodes + per_chunk · chunks + per_token · tokens, least squares, none below 0.

    The three must vary apart in `steps`: in a server's own batches their sum is the budget, and no regression
    can tell them apart.
    """
    rows, seconds = host_table(steps)
    if not len(rows):
        raise ValueError("0 steps to fit a cost of scheduling to; at least 1 is needed")
    return SchedulerCost(*map(float, nonnegative(rows, seconds)))


def host_table(steps: Iterable[tuple[Batch, float]]) -> tuple[np.ndarray, np.ndarray]:
    """[steps, 4] ones, decodes, chunks, tokens; [steps] s: what scheduling a step is fitted to."""
    pairs = [(batch.totals(), seconds) for batch, seconds in steps]
    rows = [(1, sums.n_decodes, len(sums.chunks), sums.n_tokens) for sums, _ in pairs]
    return np.array(rows, float).reshape(-1, 4), np.array([seconds for _, seconds in pairs], float)


def reprice(trace: Trace, cost: Any) -> Trace:
    """The same batches in turn, each taking what `cost` says; waiting for work and scheduling stay."""
    needed("trace", trace, Trace, "such as simulate returns")
    check_cost("cost", cost)
    again, now, ended = Trace(trace.requests, label=trace.label), 0.0, 0.0
    for step in trace.steps:
        scheduled = now + max(step.scheduled - ended, 0.0)
        dispatched = scheduled + step.dispatched - step.scheduled
        start = dispatched + step.start - step.dispatched
        ended, now = step.end, start + cost(step.batch)
        again.record(step.batch, (scheduled, dispatched, start, now), step.blocks_used)
    return again


def prediction_errors(measured: Trace, cost: Any) -> tuple[Error, ...]:
    """How `cost` predicts a measured serial trace: each class of step, and the mean TTFT and TBT."""
    needed("measured", measured, Trace, "such as Engine.run returns")
    check_cost("cost", cost)
    off: dict[str, list[float]] = {}
    for step in measured.steps:
        sums = step.batch.totals()
        kind = "mixed steps" if sums.n_decodes else "chunks alone"
        kind = kind if sums.chunks else "decodes alone"
        off.setdefault(kind, []).append(abs(cost(step.batch) / (step.end - step.start) - 1))
    off["all steps"] = [one for each in off.values() for one in each]
    again = reprice(measured, cost)
    for name, metric in (("mean TTFT", ttft), ("mean TBT", tbt)):
        was, now = metric(measured), metric(again)
        if len(was):
            off[name] = [abs(float(np.nanmean(now) / np.nanmean(was)) - 1)]
    found = ((name, np.array(values)) for name, values in off.items() if values)
    return tuple(
        Error(name, len(v), float(np.median(v)), float(np.quantile(v, 0.95)), float(v.max()))
        for name, v in found
    )


def nonnegative(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """x ≥ 0 with the least |a x − b|² (Lawson and Hanson, "Solving Least Squares Problems", 1974, ch. 23)."""
    scale = np.maximum(np.linalg.norm(a, axis=0), 1e-300)  # columns differ by many powers of ten
    a, x, free = a / scale, np.zeros(a.shape[1]), np.zeros(a.shape[1], bool)
    for _ in range(10 * a.shape[1]):
        slope = a.T @ (b - a @ x)
        slope[free] = 0.0
        if slope.max(initial=0.0) <= 1e-10 * np.linalg.norm(b):
            break
        free[slope.argmax()] = True
        while True:
            trial = np.zeros_like(x)
            trial[free] = np.linalg.lstsq(a[:, free], b, rcond=None)[0]
            bad = free & (trial <= 0)
            if not bad.any():
                break
            x += (trial - x) * np.min(x[bad] / np.maximum(x[bad] - trial[bad], 1e-300))
            free &= x > 1e-14
        x = trial
    return x / scale
