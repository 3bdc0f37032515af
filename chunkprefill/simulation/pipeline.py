"""Pipeline parallelism in the simulator: layers cut into stages, and the bubbles that uneven steps leave."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.core import Batch, Request
from chunkprefill.scheduling.loop import output_lengths
from chunkprefill.scheduling.state import State
from chunkprefill.simulation.cost import Roofline
from chunkprefill.whole import whole_number


@dataclass(frozen=True)
class Visit:
    """One micro-batch in one stage."""

    stage: int
    lane: int
    start: float  # s
    end: float  # s
    batch: Batch


@dataclass(frozen=True)
class Pipeline:
    """What a pipeline did. `visits` in order of start; `tokens`: {rid: times of its tokens in s}."""

    n_stages: int
    visits: tuple[Visit, ...]
    tokens: dict[Any, list[float]]

    @property
    def duration(self) -> float:
        """s from the first visit's start to the last one's end."""
        return max(v.end for v in self.visits) - min(v.start for v in self.visits) if self.visits else 0.0

    @property
    def bubbles(self) -> float:
        """Share of the stages' time, from each one's first visit to its last, in which they stood idle.

        Filling and draining the pipeline are left out; idle time without requests counts, so load it.
        """
        idle = span = 0.0
        for stage in range(self.n_stages):
            mine = [v for v in self.visits if v.stage == stage]
            if mine:
                length = max(v.end for v in mine) - min(v.start for v in mine)
                idle, span = idle + length - sum(v.end - v.start for v in mine), span + length
        return idle / span if span else 0.0


def simulate_pipeline(
    requests: Iterable[Request],
    policy: Any,
    cost: Any = None,
    n_stages: int = 4,
    pool: BlockPool | None = None,
) -> Pipeline:
    """Serve `requests` on `n_stages` stages, each with an equal share of every batch's price.

    cost: as in `simulate`. As many micro-batches are in flight as there are stages: requests go to lanes in
    turn, each lane is scheduled by `policy` on its own (with a pool of its own), and its next batch enters
    when the last has left, because it needs the tokens. A stage takes micro-batches in the order of their
    arrival; what passes between stages costs nothing. Raises what `serve` raises, ValueError for no stage.
    """
    n_stages = whole_number("n_stages", n_stages, 1)
    price, requests = cost or Roofline(), sorted(requests, key=lambda request: request.arrival)
    states = [State(pool) for _ in range(n_stages)]
    lengths = output_lengths(requests, policy, pool)
    queues = [list(reversed(requests[lane::n_stages])) for lane in range(n_stages)]
    free = [0.0] * n_stages  # when each stage is
    visits: list[Visit] = []
    tokens: dict[Any, list[float]] = {request.rid: [] for request in requests}
    ready: list[tuple[float, int, Batch | None]] = [(0.0, lane, None) for lane in range(n_stages)]  # a heap
    while ready:
        now, lane, done = heappop(ready)
        state, queue = states[lane], queues[lane]
        if done is not None:
            state.commit(done)
        while queue and queue[-1].arrival <= now:
            request = queue.pop()
            state.arrive(request, lengths[request.rid])
        if not state:
            if queue:
                heappush(ready, (queue[-1].arrival, lane, None))
            continue
        batch = state.apply(state.ask(policy, now))
        share, at = price(batch) / n_stages, now
        for stage in range(n_stages):
            start = max(at, free[stage])
            at = free[stage] = start + share
            visits.append(Visit(stage, lane, start, at, batch))
        for rid, emits in zip(batch.rid, batch.emits):
            if emits:
                tokens[rid].append(at)
        heappush(ready, (at, lane, batch))
    return Pipeline(n_stages, tuple(sorted(visits, key=lambda v: (v.start, v.stage))), tokens)
