"""A run cut into equal stretches of time: what a dashboard draws and its table says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chunkprefill.metrics.events import Events
from chunkprefill.scheduling.trace import Trace


@dataclass(frozen=True, eq=False)
class OverTime:
    """Averages over each stretch of time, [n] each; what has no step running counts as 0.

    edges: [n + 1] s. prefill, decode, recompute: tokens in a step. step_mean, step_max: s of the steps
    running. waiting, running: requests that have arrived and not begun, that have begun and not ended.
    blocks: the most in use. scheduling: share of the time from scheduling to dispatch. evictions: how many.
    """

    edges: np.ndarray
    prefill: np.ndarray
    decode: np.ndarray
    recompute: np.ndarray
    step_mean: np.ndarray
    step_max: np.ndarray
    waiting: np.ndarray
    running: np.ndarray
    blocks: np.ndarray
    scheduling: np.ndarray
    evictions: np.ndarray


def over_time(source: Trace | Events, n: int = 96) -> OverTime:
    """A trace in `n` stretches. Raises ValueError for a trace without steps or n below 1."""
    e = Events.of(source)
    if not len(e.end) or n < 1:
        raise ValueError(f"{len(e.end)} steps in {n} stretches of time: there is nothing to show")
    edges = np.linspace(min(e.scheduled[0], e.arrivals.min()), e.end[-1], n + 1)
    kinds = {kind: mean_over(edges, e.start, e.end, tokens) for kind, tokens in tokens_by_kind(e).items()}
    begun = e.by_request(e.first, e.start[e.step[e.first]])
    last = np.append(e.first[1:], len(e.step)) - 1
    ended = e.by_request(last, e.ended[last])
    evictions = np.zeros(n, int)
    for step, rids in e.trace.preempted.items():
        evictions[min(int(np.searchsorted(edges, e.start[step], "right")) - 1, n - 1)] += len(rids)
    seconds = e.end - e.start
    return OverTime(
        edges=edges,
        **kinds,
        step_mean=mean_over(edges, e.start, e.end, seconds),
        step_max=max_over(edges, e.start, e.end, seconds),
        waiting=count_over(edges, e.arrivals, begun),
        running=count_over(
            edges, np.where(np.isnan(begun), np.inf, begun), np.where(np.isnan(ended), np.inf, ended)
        ),
        blocks=max_over(edges, e.start, e.end, e.blocks),
        scheduling=count_over(edges, e.scheduled, e.dispatched),
        evictions=evictions,
    )


def tokens_by_kind(source: Trace | Events) -> dict[str, np.ndarray]:
    """[steps] tokens of each step: "prefill", "decode", and "recompute", what an eviction made run again."""
    e = Events.of(source)
    owner = e.request.astype(np.int64)
    begin, far = e.cached_after - e.length, int(e.cached_after.max(initial=0)) + 1
    furthest = np.maximum.accumulate(e.cached_after + owner * far) - owner * far  # within each request
    before = np.concatenate(([0], np.where(e.same, furthest[:-1], 0)))[: len(begin)]
    again = np.clip(before - begin, 0, e.length)
    n_prompt = np.array([request.n_prompt for request in e.trace.requests], np.int64)
    prompt = np.clip(n_prompt[owner] - np.maximum(begin, before), 0, e.length - again)
    parts = {"prefill": prompt, "decode": e.length - again - prompt, "recompute": again}
    n = len(e.end)
    return {kind: np.bincount(e.step, weights=tokens, minlength=n) for kind, tokens in parts.items()}


def mean_over(edges: np.ndarray, start: np.ndarray, end: np.ndarray, value: np.ndarray) -> np.ndarray:
    """[n] average of `value` over each stretch, by time; intervals do not overlap, and none means 0."""
    times = np.column_stack((start, end)).ravel()
    area = np.column_stack((np.zeros(len(value)), value * (end - start))).ravel().cumsum()
    return np.diff(np.interp(edges, times, area)) / np.diff(edges)


def max_over(edges: np.ndarray, start: np.ndarray, end: np.ndarray, value: np.ndarray) -> np.ndarray:
    """[n] largest `value` of the intervals that touch each stretch; 0 where none does."""
    n, out = len(edges) - 1, np.zeros(len(edges) - 1)
    first = np.clip(np.searchsorted(edges, start, "right") - 1, 0, n - 1)
    last = np.clip(np.searchsorted(edges, end, "left") - 1, first, n - 1)
    while (open_ := first <= last).any():
        np.maximum.at(out, first[open_], value[open_])
        first = first + 1
    return out


def count_over(edges: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """[n] how many intervals are open, averaged over each stretch; nan: never."""
    opened, closed = (_area(edges, np.sort(times)) for times in (start, end))
    counts = np.diff(opened - closed) / np.diff(edges)
    return np.where(np.abs(counts) < 1e-6, 0.0, counts)  # rounding


def _area(edges: np.ndarray, times: np.ndarray) -> np.ndarray:
    """[n + 1] the sum of (edge − time) over the times before each edge."""
    times = times[np.isfinite(times)]
    n = np.searchsorted(times, edges, "right")
    return n * edges - np.concatenate(([0.0], times.cumsum()))[n]
