"""A trace read once with the standard library alone: what a page, which has no numpy, can say of a run."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from itertools import accumulate, chain, pairwise
from math import isnan, nan

from chunkprefill.scheduling.trace import Trace


class Tally:
    """Tokens by request and rows by step, read in one walk over a trace's columns.

    tokens:    a list for each request, in the trace's order: the times of its tokens, s
    begun:     for each request, the start of its first step in s; nan for one that never ran
    prefill, decode, recompute: tokens of each step, by kind; `total`, all of them
    ready, served: of each step: decodes that could run, and those that did

    The same definitions as `waits` and `overtime`, which need numpy and are faster on large traces.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace, n_requests, n_steps = trace, len(trace.requests), len(trace.columns["end"])
        self.tokens: list[list[float]] = [[] for _ in range(n_requests)]
        self.begun = [nan] * n_requests
        self.prefill, self.decode, self.recompute = ([0] * n_steps for _ in range(3))
        self.total, self.served = [0] * n_steps, [0] * n_steps
        self._idle = [0] * (n_steps + 1)  # changes of how many decodes are ready and sit out
        self._walk()
        sat = accumulate(self._idle)
        self.ready = [ran + out for ran, out in zip(self.served, sat)]

    def _walk(self) -> None:
        c, n_prompt = self.trace.columns, [request.n_prompt for request in self.trace.requests]
        furthest = [0] * len(n_prompt)  # positions that were cached once
        spoke = [-1] * len(n_prompt)  # the step in which a request's last row emitted, or -1
        rows = zip(c["request"], c["first"], c["length"], c["emits"])
        start, end, offset = c["start"], c["end"], c["offset"]
        decode, total = self.decode, self.total
        for step in range(len(end)):
            for _ in range(offset[step], offset[step + 1]):
                r, first, length, emits = next(rows)
                known = furthest[r]
                if length == 1 and first == known >= n_prompt[r]:
                    # A decode of what was never lost, as most are.
                    decode[step] += 1
                else:
                    again = min(max(known - first, 0), length)
                    prompt = min(max(n_prompt[r] - max(first, known), 0), length - again)
                    self.recompute[step] += again
                    self.prefill[step] += prompt
                    decode[step] += length - again - prompt
                total[step] += length
                if first + length > known:
                    furthest[r] = first + length
                if not known and isnan(self.begun[r]):
                    self.begun[r] = start[step]
                if spoke[r] >= 0:  # it was ready since the step after that
                    self._idle[spoke[r] + 1] += 1
                    self._idle[step if first else self._evicted(r, spoke[r], step)] -= 1
                    self.served[step] += bool(first)
                spoke[r] = step if emits else -1
                if emits:
                    self.tokens[r].append(end[step])

    def _evicted(self, r: int, after: int, last: int) -> int:
        """The step that evicted a request, after one step and no later than another."""
        rid, gone = self.trace.requests[r].rid, self.trace.preempted
        return next(step for step in sorted(gone) if after < step <= last and rid in gone[step])

    @cached_property
    def ttft(self) -> list[float]:
        """Of each request, s; nan for one that emitted nothing."""
        return [
            times[0] - request.arrival if times else nan
            for times, request in zip(self.tokens, self.trace.requests)
        ]

    @cached_property
    def gaps(self) -> list[list[float]]:
        """Of each request, s: between its tokens."""
        return [[b - a for a, b in pairwise(times)] for times in self.tokens]

    @property
    def tbt(self) -> list[float]:
        """All gaps between two tokens, s, by request, in order."""
        return list(chain.from_iterable(self.gaps))

    @property
    def seconds(self) -> list[float]:
        """Of each step, s on the device."""
        return [b - a for a, b in zip(self.trace.columns["start"], self.trace.columns["end"])]

    @property
    def duration(self) -> float:
        """s, from the first arrival to the last step's end; 0 without steps."""
        end = self.trace.columns["end"]
        return end[-1] - min(request.arrival for request in self.trace.requests) if end else 0.0

    @property
    def n_evicted(self) -> int:
        """Evictions, each request as often as it lost its cache."""
        return sum(map(len, self.trace.preempted.values()))


def quantile(values: Iterable[float], q: float) -> float:
    """Interpolated between neighbours, digit for digit as numpy does; nan for no values, and if one is nan."""
    ordered = sorted(values)
    if not ordered or any(map(isnan, ordered)):
        return nan
    at = q * (len(ordered) - 1)
    low = int(at)
    part, a, b = at - low, ordered[low], ordered[min(low + 1, len(ordered) - 1)]
    return a + (b - a) * part if part < 0.5 else b - (b - a) * (1 - part)
