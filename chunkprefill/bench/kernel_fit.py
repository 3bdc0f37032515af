"""Finding the numbers of a kernel cost: a search for the least mean relative error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf
from typing import Any

import numpy as np

from chunkprefill.simulation.kernels import Kernels

#: What each part of a cost is fitted by: the numbers it frees, and where the search begins.
FREE = {
    "linear": {"t_linear": 1e-5, "compute": 0.8, "memory": 0.85, "leak": 0.2},
    "chunk_attention": {"t_chunk": 5e-6, "walk": 3e-8, "t_block": 5e-6, "attention": 0.7, "reading": 0.5},
    "decode_attention": {"t_decode": 1e-5, "t_row": 1e-7, "decode": 0.8},
}


def refit(
    cost: Kernels, part: str, rows: Sequence[tuple[Any, ...]], seconds: Any, weights: Any = None
) -> Kernels:
    """`cost` with one part of its fit found anew from timings of one layer; shares stay at most 1.

    part: a key of FREE, and the method of `Kernels` that is called with each of `rows`. seconds: of each row.
    weights: how much each row counts. Raises KeyError for an unknown part.
    """

    def model(values: dict[str, float]) -> list[float]:
        trial = replace(cost, fit=replace(cost.fit, **values))  # type: ignore[arg-type]
        return [getattr(trial, part)(*row) for row in rows]

    shares = {name: 1.0 for name in FREE[part] if name[:2] != "t_" and name != "walk"}
    starts = [{n: v * (scale if n[:2] == "t_" else 1) for n, v in FREE[part].items()} for scale in (1, 0.2)]
    best = min(
        (least_error(model, start, seconds, most=shares, weights=weights) for start in starts),
        key=lambda values: mean_error(model(values), seconds, weights),
    )
    return replace(cost, fit=replace(cost.fit, **best))  # type: ignore[arg-type]


def mean_error(predicted: Any, measured: Any, weights: Any = None) -> float:
    """Weighted mean of |predicted / measured − 1|."""
    off = np.abs(np.asarray(predicted, float) / np.asarray(measured, float) - 1)
    return float(np.average(off, weights=weights))


def least_error(
    model: Callable[[dict[str, float]], Any],
    start: dict[str, float],
    measured: Any,
    *,
    most: dict[str, float] | None = None,
    weights: Any = None,
) -> dict[str, float]:
    """The values, all above 0 and at most `most`, with the least weighted mean of |model / measured − 1|.

    model: values -> predictions, an array like `measured`. A compass search over logarithms: steps along each
    axis and diagonal, halved when nothing helps. Absolute, not squared: an odd timing pulls less.
    """
    bound = most or {}
    best, least, step = dict(start), mean_error(model(start), measured, weights), 0.5
    while step > 2e-3:
        before = dict(best)
        leaps = [{name: factor} for name in start for factor in (1 + step, 1 / (1 + step))]
        leaps += [{a: 1 + step, b: 1 / (1 + step)} for a in start for b in start if a != b]
        for leap in leaps:
            trial = {n: min(best[n] * leap.get(n, 1.0), bound.get(n, inf)) for n in start}
            if (e := mean_error(model(trial), measured, weights)) < least:
                best, least = trial, e
        if best == before:
            step /= 2
    return best
