"""Finding the numbers of a kernel cost: a search for the least relative error, with no bias by regime."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from heapq import heappop, heappush
from math import inf
from typing import Any

import numpy as np

from chunkprefill.simulation.kernels import Kernels

#: What each part of a cost is fitted by: the numbers it frees, and where the search begins.
FREE = {
    "chunk_attention": {
        "t_chunk": 3e-6,
        "walk": 2.5e-8,
        "t_block": 5e-6,
        "t_empty": 2e-9,
        "beside": 1.03,
        "apart": 0.12,
        "attention": 0.8,
        "reading": 0.7,
        "l2": 6e7,
    },
    "decode_attention": {"t_decode": 1e-5, "t_row": 1e-7, "decode": 0.93, "t_fill": 3e-5},
    "head": {"head": 1.05, "t_sample": 2.5e-5, "sampled": 6.0},
}
SHARES = ("attention", "reading", "decode")  # of a sheet, so at most 1
#: Numbers of tokens at which `reach` has a corner: every tile, because products fill a device's processors in
#: waves, which come out even at some numbers of tiles and not at others; closer where few tokens are read.
CORNERS = (1, 16, 24, 64, 128, 192, 256, *range(384, 2049, 128), 3072, 4096)
Row = tuple[Any, ...]


class Timings:
    """What was measured of one part: arguments of a method of `Kernels`, s of one layer, and their regimes.

    regime: row -> a label; every regime counts alike, however many rows it has. None: every row does.
    """

    def __init__(
        self, rows: Sequence[Row], seconds: Any, regime: Callable[[Row], Hashable] | None = None
    ) -> None:
        self.rows, self.seconds, self.regime = list(rows), np.asarray(seconds, float), regime
        self.labels = [regime(row) if regime else 0 for row in self.rows]
        names = {label: i for i, label in enumerate(dict.fromkeys(self.labels))}
        self.index = np.array([names[label] for label in self.labels], int)
        self.names = list(names)
        self.weights = 1 / np.bincount(self.index)[self.index] if regime else np.ones(len(self.rows))

    def every(self, n: int) -> Timings:
        """Each n-th row."""
        return Timings(self.rows[::n], self.seconds[::n], self.regime)

    def where(self, wanted: Callable[[Row], bool]) -> Timings:
        """The rows that are wanted."""
        kept = [i for i, row in enumerate(self.rows) if wanted(row)]
        return Timings([self.rows[i] for i in kept], self.seconds[kept], self.regime)

    def off(self, cost: Kernels, part: str) -> np.ndarray:
        """predicted / measured - 1 of each row."""
        return np.array([getattr(cost, part)(*row) for row in self.rows]) / self.seconds - 1

    def loss(self, off: np.ndarray) -> float:
        """Weighted mean of |off|, and half as much again of the regimes' biases."""
        sums = np.bincount(self.index, off * self.weights) / np.bincount(self.index, self.weights)
        return float(np.average(np.abs(off), weights=self.weights) + 0.5 * np.abs(sums).mean())


def refit(cost: Kernels, part: str, timings: Timings, only: Sequence[str] = ()) -> Kernels:
    """`cost` with one part of its fit found anew; shares stay at most 1. KeyError for an unknown part.

    part: a key of FREE, and the method of `Kernels` that is called with each of the rows. only: the numbers
    to find, where the timings say nothing of the others.
    """
    start = {name: FREE[part][name] for name in only or FREE[part]}
    bound = {name: 1.0 for name in start if name in SHARES}

    def loss(values: dict[str, float]) -> float:
        return timings.loss(timings.off(with_fit(cost, **values), part))

    return with_fit(cost, **least(loss, start, bound))


def refit_linear(cost: Kernels, timings: Timings, small_s: float) -> Kernels:
    """`cost` with `t_linear` and `reach` found anew. small_s: s of a layer's small kernels at one token.

    Each corner begins at the share that the row nearest to it shows, and is then moved to lessen the loss.
    """
    trial = with_fit(cost, t_linear=small_s, reach=((1, 1.0),))
    tokens = np.array([row[0] for row in timings.rows])
    limit = np.array([trial.linear(*row) for row in timings.rows]) - small_s
    share = np.minimum(limit / np.maximum(timings.seconds - small_s, 1e-9), 1.0)
    corners = [n for n in CORNERS if n <= tokens.max()]
    begin = {str(n): float(share[np.abs(tokens - n).argmin()]) for n in corners}

    def curved(values: dict[str, float]) -> Kernels:
        reach = tuple((float(n), value) for n, value in zip(corners, values.values()))
        return with_fit(cost, t_linear=small_s, reach=reach)

    def loss(values: dict[str, float]) -> float:
        return timings.loss(timings.off(curved(values), "linear"))

    return curved(least(loss, begin, dict.fromkeys(begin, 1.2), step=0.1, pairs=False))


def followed(cost: Kernels, lengths: Sequence[float]) -> float:
    """Seconds of one layer's decodes when their blocks are followed to their end, one by one.

    A block walks one sequence for one key/value head, one block to a multiprocessor, head after head. All of
    them share the memory, and none walks faster than `walk`. The check on `TAIL`: no number is fitted here.
    """
    c, fit, device = cost.config, cost.fit, cost.device
    rate = fit.decode * device.bandwidth / (4 * c.head_dim)  # tokens/s of all blocks, 16-bit keys and values
    queue = [length for _ in range(c.n_kv_heads) for length in lengths]
    # All running blocks walk at one speed, so each ends when the common distance reaches its own.
    running: list[float] = []
    seconds = walked = 0.0
    for length in queue[: device.n_sms]:
        heappush(running, length)
    waiting = iter(queue[device.n_sms :])
    while running:
        end = heappop(running)
        seconds += (end - walked) * max(fit.walk, (len(running) + 1) / rate)
        walked = end
        if (following := next(waiting, None)) is not None:
            heappush(running, walked + following)
    return seconds


def with_fit(cost: Kernels, **values: Any) -> Kernels:
    """The same cost with some numbers of its fit changed."""
    return replace(cost, fit=replace(cost.fit, **values))


def least(
    loss: Callable[[dict[str, float]], float],
    start: dict[str, float],
    most: dict[str, float] | None = None,
    *,
    step: float = 0.5,
    pairs: bool = True,
) -> dict[str, float]:
    """The values, all above 0 and at most `most`, with the least loss.

    A compass search over logarithms: steps along each axis, and along diagonals where `pairs`, halved when
    nothing helps.
    """
    bound = most or {}
    best = dict(start)
    lowest = loss(best)
    while step > 2e-3:
        before = dict(best)
        leaps = [{name: factor} for name in start for factor in (1 + step, 1 / (1 + step))]
        if pairs:
            leaps += [{a: 1 + step, b: 1 / (1 + step)} for a in start for b in start if a != b]
        for leap in leaps:
            trial = {n: min(best[n] * leap.get(n, 1.0), bound.get(n, inf)) for n in start}
            if (value := loss(trial)) < lowest - 1e-9:
                best, lowest = trial, value
        if best == before:
            step /= 2
    return best
