"""Batches made to tell costs apart: decodes, chunks and tokens varied one without the others."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

from chunkprefill.measuring import designed
from chunkprefill.metrics.breakdown import Timed, part_times
from chunkprefill.scheduling.core import Request, Rid
from chunkprefill.scheduling.policies import SerialChunks
from chunkprefill.scheduling.trace import Trace

CONTEXT = 48  # tokens of a decode's prompt
SKIP = 3  # steps that begin a design: prompts of the decodes, first and second chunk


@dataclass(frozen=True)
class Design:
    """Steps of `n_decodes` decodes beside `n_chunks` chunks of `length` tokens each.

    Under `policy` these batches are what would be decided, so that deciding can be timed on them.
    """

    n_decodes: int
    n_chunks: int
    length: int

    @property
    def n_tokens(self) -> int:
        return self.n_decodes + self.n_chunks * self.length

    @property
    def policy(self) -> SerialChunks:
        return SerialChunks(self.length)

    def trace(self, n_steps: int) -> Trace:
        """`n_steps` such steps after `SKIP` others; nothing but the batches is in it."""
        total = n_steps + SKIP
        decodes: list[Rid] = [f"d{i}" for i in range(self.n_decodes)]
        chunks: list[Rid] = [f"p{i}" for i in range(self.n_chunks)]
        requests = [Request(name, 0.0, CONTEXT, total + 2) for name in decodes]
        requests += [Request(name, 0.0, total * self.length + 1, 2) for name in chunks]
        first = [[(name, CONTEXT) for name in decodes]] if decodes else []
        step = [(name, 1) for name in decodes] + [(name, self.length) for name in chunks]
        return designed(requests, first + [step] * (total - len(first)))


def grid(decodes: Sequence[int], chunks: Sequence[int], lengths: Sequence[int]) -> Iterator[Design]:
    """Every combination that has work in it; without chunks their length does not matter."""
    for d in decodes:
        for k in chunks:
            for c in lengths if k else lengths[:1]:
                if d or k:
                    yield Design(d, k, c)


def medians(traces: Sequence[Trace]) -> Trace:
    """One trace of batches that were measured several times over: each step's each time is its median."""
    one = Trace(traces[0].requests, label=traces[0].label)
    for i, step in enumerate(traces[0].steps):
        took = {name: median(t.timings[name][i] for t in traces) for name in traces[0].timings}
        times = (step.scheduled, step.dispatched, step.start, step.end)
        one.record(step.batch, times, step.blocks_used, took)
    return one


@contextmanager
def no_collection() -> Iterator[None]:
    """Python's garbage collector waits: it would fall on whichever step happens to make the most objects."""
    was = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def timed(traces: Sequence[Trace], *names: str) -> list[Timed]:
    """One row for each replayed design: its batch, and the median s of the parts named (none: all).

    A design's steps differ only in how much is cached: a step that was disturbed is outvoted.
    """
    rows = [part_times(trace, *names, skip=SKIP) for trace in traces]
    return [(steps[len(steps) // 2][0], median(seconds for _, seconds in steps)) for steps in rows]
