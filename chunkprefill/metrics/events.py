"""The columns of a trace, sorted once by request: what every metric starts from."""

from __future__ import annotations

from functools import cached_property
from math import nan

import numpy as np

from chunkprefill.scheduling.trace import Trace
from chunkprefill.whole import needed


class Events:
    """The columns of a trace in one sorted pass: rows by request, in the order in which they ran.

    request, step:  of each row [N]; `emits` [N] bool; `ended` [N] s, the end of its step
    same:           [N − 1] bool, whether a row and the next belong to one request
    first:          [requests that ran] the first row of each
    Every metric takes a Trace or the Events of one: make them once to ask for several.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace, c = trace, trace.columns
        self.start, self.end = np.asarray(c["start"]), np.asarray(c["end"])
        self.scheduled, self.dispatched = np.asarray(c["scheduled"]), np.asarray(c["dispatched"])
        self.blocks = np.asarray(c["blocks_used"]).astype(float)
        counts: np.ndarray = np.diff(np.asarray(c["offset"]).astype(np.int64))
        requests = np.asarray(c["request"])
        if len(trace.requests) < 1 << 16:
            requests = requests.astype(np.uint16)  # for which numpy has a radix sort
        order = np.argsort(requests, kind="stable")
        self.request = requests[order]
        self.step = np.repeat(np.arange(len(counts), dtype=np.int32), counts)[order]
        self.emits = np.asarray(c["emits"]).astype(bool)[order]
        self.ended = self.end[self.step]
        self.same = self.request[1:] == self.request[:-1]
        self.first = np.flatnonzero(np.concatenate(([True], ~self.same)))[: len(order)]  # of each request
        self._order, self.n_rows = order, counts  # rows of each step [steps]

    @classmethod
    def of(cls, source: Trace | Events) -> Events:
        """Itself, or the events of a trace."""
        if isinstance(source, Events):
            return source
        needed("source", source, Trace, "such as simulate returns")
        return cls(source)

    def by_request(self, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
        """[requests]: `values` put where the requests of `rows` stand, nan elsewhere."""
        out = np.full(len(self.trace.requests), nan)
        out[self.request[rows]] = values
        return out

    @cached_property
    def tokens(self) -> np.ndarray:
        """Rows that emitted."""
        return np.flatnonzero(self.emits)

    @cached_property
    def follows(self) -> np.ndarray:
        """[tokens − 1] bool: whether a token and the one before it belong to one request."""
        owner = self.request[self.tokens]
        return owner[1:] == owner[:-1]

    @cached_property
    def decoded(self) -> np.ndarray:
        """Places in `tokens` of all but each request's first."""
        return 1 + np.flatnonzero(self.follows)

    @cached_property
    def first_tokens(self) -> np.ndarray:
        """Rows that emitted their request's first token."""
        if len(self.tokens) < 2:
            return self.tokens
        return self.tokens[np.concatenate(([True], ~self.follows))]

    @cached_property
    def length(self) -> np.ndarray:
        """Tokens of each row."""
        return np.asarray(self.trace.columns["length"])[self._order]

    @cached_property
    def cached_after(self) -> np.ndarray:
        """Tokens in the cache after each row."""
        return np.asarray(self.trace.columns["first"])[self._order].astype(np.int64) + self.length

    @cached_property
    def arrivals(self) -> np.ndarray:
        """[requests] s."""
        return np.array([request.arrival for request in self.trace.requests])

    @cached_property
    def token_counts(self) -> np.ndarray:
        """[requests] tokens emitted."""
        return np.bincount(self.request[self.tokens], minlength=len(self.trace.requests))

    @cached_property
    def idle(self) -> np.ndarray:
        """[steps] s before each step in which there was nothing to do; before the first, what precedes it."""
        return np.maximum(self.scheduled - np.concatenate(([0.0], self.end[:-1])), 0.0)
