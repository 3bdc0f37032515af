"""A trace tallied with the standard library says what numpy's metrics say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import chunkprefill as cp
from chunkprefill.metrics.events import Events
from chunkprefill.metrics.overtime import tokens_by_kind
from chunkprefill.metrics.tally import Tally, quantile

POLICIES = (cp.ChunkedPrefill(64), cp.PrefillFirst(256), cp.VllmV1(96, 8), cp.Alternate(64))


def runs():
    """Small runs, with a pool so small that requests lose their cache, and with one that never runs out."""
    for seed in range(4):
        requests = cp.poisson(14, rate=40.0, prompt=(20, 300), output=(1, 40), seed=seed)
        for policy in POLICIES:
            for pool in (None, cp.BlockPool(24)):
                yield cp.simulate(requests, policy, pool=pool)


@pytest.mark.parametrize("trace", list(runs()), ids=repr)
def test_it_says_what_numpy_says(trace):
    t, e = Tally(trace), Events.of(trace)
    assert t.ttft == cp.ttft(trace).tolist()
    assert t.tbt == cp.tbt(trace).tolist()
    for kind, tokens in tokens_by_kind(e).items():
        assert getattr(t, kind) == tokens.tolist(), kind
    assert t.total == [sum(step.batch.length) for step in trace.steps]
    assert t.begun == e.by_request(e.first, e.start[e.step[e.first]]).tolist()
    assert t.n_evicted == sum(map(len, trace.preempted.values()))


def test_some_of_these_runs_lose_caches():
    assert sum(Tally(trace).n_evicted for trace in runs()) > 10


@pytest.mark.parametrize("trace", list(runs()), ids=repr)
def test_a_decode_is_ready_from_its_token_to_its_next_step_or_its_eviction(trace):
    """Counted by hand, step by step: a request is ready after it emitted, until it runs or loses its cache."""
    ready, told = set(), Tally(trace)
    left = {request.rid: request.n_output for request in trace.requests}
    for i, step in enumerate(trace.steps):
        ready -= set(step.batch.preempted)
        here = {rid for rid in ready if left[rid]}
        assert told.ready[i] == len(here)
        assert told.served[i] == len(here & set(step.batch.rid))
        for rid, _, _, emits in step.batch:
            ready.discard(rid)
            if emits:
                ready.add(rid)
                left[rid] -= 1


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.floats(0, 1))
def test_a_quantile_is_numpys(values, q):
    assert quantile(values, q) == np.quantile(values, q)


def test_a_quantile_of_nothing_is_not_a_number():
    assert math.isnan(quantile([], 0.5)) and math.isnan(quantile([1.0, math.nan], 0.5))
