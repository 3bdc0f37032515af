"""A trace by request: what ran for each and when, its tokens' times, its longest gap between two of them."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from itertools import pairwise

from chunkprefill.scheduling.core import Rid
from chunkprefill.scheduling.trace import Trace
from chunkprefill.whole import needed


@dataclass(frozen=True)
class RequestTimeline:
    """One request's: its boxes as (kind, start, end in s), and the times of its tokens.

    A box's kind is "prefill", "decode", or "recompute": what was cached once and evicted.
    """

    rid: Rid
    arrival: float  # s
    boxes: tuple[tuple[str, float, float], ...]
    tokens: tuple[float, ...]  # s

    @property
    def first_token(self) -> float:
        """Seconds from arrival to the first token: its TTFT."""
        return self.tokens[0] - self.arrival

    @property
    def longest_gap(self) -> tuple[float, float]:
        """The longest gap between two tokens, (from, to) in s; an empty one where there are not two."""
        gaps = list(pairwise(self.tokens)) or [(self.tokens[-1], self.tokens[-1])]
        return max(gaps, key=lambda gap: gap[1] - gap[0])

    @property
    def longest(self) -> float:
        """Seconds of that gap: the request's largest time between tokens."""
        return self.longest_gap[1] - self.longest_gap[0]


def request_timelines(trace: Trace) -> dict[Rid, RequestTimeline]:
    """The same trace by request, in the order of its requests. ValueError for one that got no token."""
    needed("trace", trace, Trace, "such as simulate returns")
    n_prompt = {request.rid: request.n_prompt for request in trace.requests}
    boxes: dict[Rid, list[tuple[str, float, float]]] = {rid: [] for rid in n_prompt}
    tokens: dict[Rid, list[float]] = {rid: [] for rid in n_prompt}
    reached = dict.fromkeys(n_prompt, 0)  # positions that were cached once
    for step in trace.steps:
        for rid, start, length, emits in step.batch:
            again = start < reached[rid]
            kind = "recompute" if again else "prefill" if start < n_prompt[rid] else "decode"
            boxes[rid].append((kind, step.start, step.end))
            reached[rid] = max(reached[rid], start + length)
            if emits:
                tokens[rid].append(step.end)
    if silent := [rid for rid, times in tokens.items() if not times]:
        raise ValueError(
            f"the trace has no token of request {silent[0]}: it ends before that request was served"
        )
    return {
        request.rid: RequestTimeline(
            request.rid, request.arrival, tuple(boxes[request.rid]), tuple(tokens[request.rid])
        )
        for request in trace.requests
    }


def align_arrivals(planned: Trace, measured: Trace) -> Trace:
    """A replayed trace with each arrival at the same moment of the run as in the trace that was replayed.

    A replay takes its batches from one clock and its durations from another. What arrived in the middle of a
    planned step arrives in the middle of that step here, so that waiting can be read off.
    """
    for name, given in (("planned", planned), ("measured", measured)):
        needed(name, given, Trace, "such as simulate or replay returns")
    then, now = (
        [0.0, *(t for step in trace.steps for t in (step.start, step.end))] for trace in (planned, measured)
    )
    moved = (replace(request, arrival=_at(request.arrival, then, now)) for request in planned.requests)
    trace = Trace(moved, label=measured.label)
    trace.columns, trace.outputs, trace.preempted = measured.columns, measured.outputs, measured.preempted
    return trace


def _at(moment: float, then: list[float], now: list[float]) -> float:
    """`moment` of the clock `then`, read on the clock `now`: straight lines between the marks of both."""
    i = bisect_right(then, moment)
    if i == 0 or i == len(then):
        return now[0] if i == 0 else now[-1]
    a, b = then[i - 1], then[i]
    return now[i - 1] + (moment - a) / (b - a) * (now[i] - now[i - 1])
