"""Capacity: the bracket holds what it promises, and the definition is the one that is printed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chunkprefill.metrics.waits import scheduling_delay, tbt
from chunkprefill.scheduling.core import Request
from chunkprefill.scheduling.policies import ChunkedPrefill, PrefillFirst
from chunkprefill.simulation.capacity import at_rate, capacity
from chunkprefill.simulation.simulate import simulate
from chunkprefill.simulation.workloads import conversation, poisson


@given(st.lists(st.floats(0, 1e3), min_size=2, max_size=30), st.floats(0.01, 100))
def test_at_rate_scales_gaps_and_nothing_else(arrivals, rate):
    requests = [Request(i, a, 5 + i, 3) for i, a in enumerate(arrivals)]
    if max(arrivals) - min(arrivals) < 1e-6:
        return
    scaled = at_rate(requests, rate)
    assert [r.rid for r in scaled] == [r.rid for r in sorted(requests, key=lambda r: r.arrival)]
    assert scaled[0].arrival == 0
    assert (len(scaled) - 1) / scaled[-1].arrival == pytest.approx(rate)
    gaps, was = np.diff([r.arrival for r in scaled]), np.diff(sorted(arrivals))
    np.testing.assert_allclose(gaps * was.sum(), was * gaps.sum(), atol=1e-6)
    by_rid = {r.rid: r for r in requests}
    assert all((r.n_prompt, r.n_output) == (by_rid[r.rid].n_prompt, by_rid[r.rid].n_output) for r in scaled)


@pytest.mark.parametrize("policy", [ChunkedPrefill(256), ChunkedPrefill(1024), PrefillFirst(4096)])
@pytest.mark.parametrize("bound", [0.015, 0.05])
def test_the_bracket_holds_what_it_says(policy, bound):
    requests = conversation(60, seed=1)
    found = capacity(requests, policy, tbt_bound=bound, tolerance=0.1)
    assert found.probes and found.rate == found.low < found.high

    def met(rate):
        trace = simulate(at_rate(requests, rate), policy)
        return np.quantile(tbt(trace), 0.99) <= bound and np.median(scheduling_delay(trace)) <= 2.0

    if found.low:
        assert met(found.low)
    if math.isfinite(found.high):
        assert not met(found.high)
    if found.low and math.isfinite(found.high):
        assert found.high <= found.low * 1.1 * (1 + 1e-9)
    for probe in found.probes:
        assert (
            probe.met == (probe.tbt_p99 <= bound and probe.delay_p50 <= 2.0)
            and probe.tbt_max >= probe.tbt_p99
        )


@settings(max_examples=5)
@given(st.floats(0.02, 0.08), st.floats(1.1, 3))
def test_a_looser_bound_never_carries_less(bound, factor):
    requests = poisson(60, 4.0, seed=3)
    tight, loose = (
        capacity(requests, ChunkedPrefill(512), tbt_bound=b, tolerance=0.2, start=4.0)
        for b in (bound, bound * factor)
    )
    if tight.monotone and loose.monotone:
        assert loose.high >= tight.low


def test_bounds_out_of_reach_and_bad_arguments():
    requests = poisson(20, 4.0)
    never = capacity(requests, ChunkedPrefill(256), tbt_bound=1e-6)
    assert (never.low, never.rate) == (0, 0) and not any(probe.met for probe in never.probes)
    always = capacity(requests, ChunkedPrefill(256), tbt_bound=1e6, delay_bound=1e6)
    assert always.high == math.inf and all(probe.met for probe in always.probes)
    assert "P99 TBT ≤ 1e-06 s" in str(never) and "2 s" in str(never)
    with pytest.raises(ValueError, match="1 requests"):
        capacity([Request(0, 1.0, 5, 5)], ChunkedPrefill(256), tbt_bound=1.0)
    with pytest.raises(ValueError, match="tbt_bound must be a number above 0, got -1"):
        capacity(requests, ChunkedPrefill(256), tbt_bound=-1)
    with pytest.raises(ValueError, match="rate, in requests/s, must be a finite number above 0, got 0"):
        at_rate(requests, 0)


def test_a_bound_on_the_largest_gap_counts_beside_the_percentile():
    """Rare long steps pass a P99: the largest gap is printed beside it, and a bound on it sees them."""
    requests, policy = conversation(200, seed=1), PrefillFirst(8192)
    loose = capacity(requests, policy, tbt_bound=0.1, tolerance=0.2)
    seen = loose.at_low
    assert seen is not None and seen.met and seen.tbt_max > seen.tbt_p99
    assert f"P99 TBT {seen.tbt_p99:.4g} s, largest {seen.tbt_max:.4g} s" in str(loose)
    bound = 0.8 * seen.tbt_max
    strict = capacity(requests, policy, tbt_bound=0.1, tbt_max_bound=bound, tolerance=0.2)
    assert strict.low < loose.low and f"largest TBT ≤ {bound:g} s" in str(strict)
    assert all(probe.tbt_max <= bound for probe in strict.probes if probe.met)
    with pytest.raises(ValueError, match="tbt_max_bound must be a number above 0, got 0"):
        capacity(requests, policy, tbt_bound=0.1, tbt_max_bound=0)
