"""Metrics against a plain walk over the steps that knows nothing of columns, and the rules that they obey."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chunkprefill.metrics import waits as metrics
from chunkprefill.metrics.summary import DEFINITIONS, Spread, Summary, summary
from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.core import Batch, Request
from chunkprefill.scheduling.policies import (
    Alternate,
    ChunkedPrefill,
    PrefillFirst,
    RequestLevel,
    SerialChunks,
)
from chunkprefill.scheduling.trace import Trace
from chunkprefill.simulation.cost import Roofline, SchedulerCost
from chunkprefill.simulation.simulate import simulate

POLICIES = [
    RequestLevel(3),
    PrefillFirst(64),
    PrefillFirst(64, chunk=16),
    PrefillFirst(64, mixed=True),
    Alternate(16),
    SerialChunks(16),
    ChunkedPrefill(24),
    ChunkedPrefill(24, order="shortest"),
]


@st.composite
def traces(draw):
    n = draw(st.integers(1, 9))
    sizes = st.tuples(st.integers(1, 70), st.integers(1, 12), st.floats(0, 0.3))
    rows = draw(st.lists(sizes, min_size=n, max_size=n))
    requests = [Request(f"r{i}", arrival, a, b) for i, (a, b, arrival) in enumerate(rows)]
    least = max(-(-(r.n_prompt + r.n_output) // 16) for r in requests)
    pool = draw(st.sampled_from([None, BlockPool(least), BlockPool(2 * least + 1)]))
    scheduling = draw(st.sampled_from([None, SchedulerCost(1e-3, 1e-4, 1e-4, 1e-6)]))
    policy, overlap = draw(st.sampled_from(POLICIES)), draw(st.booleans())
    return simulate(requests, policy, Roofline(), pool, scheduling=scheduling, overlap=overlap)


def plain(trace):
    """Every per-request and per-token number, by walking steps and asking what happened in between."""
    steps, out = list(trace.steps), {}
    for request in trace.requests:
        mine = [i for i, step in enumerate(steps) if request.rid in step.batch.rid]
        emits = [i for i in mine if dict(zip(steps[i].batch.rid, steps[i].batch.emits))[request.rid]]
        times, gaps, lost = [steps[i].end for i in emits], [], []
        for a, b in pairwise(emits):
            gaps.append(steps[b].end - steps[a].end)
            out_of = [j for j in range(a + 1, b) if j not in mine]
            lost.append(sum(steps[j].end - steps[j - 1].end for j in out_of))
        out[request.rid] = {
            "ttft": times[0] - request.arrival,
            "latency": times[-1] - request.arrival,
            "tpot": (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else math.nan,
            "normalized_latency": (times[-1] - request.arrival) / len(times),
            "scheduling_delay": steps[mine[0]].start - request.arrival,
            "largest_tbt": max(gaps, default=math.nan),
            "tbt": gaps,
            "stalls": lost,
        }
    return out


@settings(max_examples=60)
@given(traces())
def test_each_metric_equals_a_plain_walk(trace):
    want = plain(trace)
    for name in ("ttft", "latency", "tpot", "normalized_latency", "scheduling_delay", "largest_tbt"):
        ours = getattr(metrics, name)(trace)
        theirs = [want[request.rid][name] for request in trace.requests]
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12, err_msg=name)
    for name in ("tbt", "stalls"):
        theirs = [value for request in trace.requests for value in want[request.rid][name]]
        np.testing.assert_allclose(getattr(metrics, name)(trace), theirs, rtol=1e-9, atol=1e-12, err_msg=name)
    assert (metrics.stalls(trace) <= metrics.tbt(trace) + 1e-9).all()


@settings(max_examples=60)
@given(traces())
def test_summary_counts_what_the_steps_say(trace):
    found, steps = summary(trace), list(trace.steps)
    assert found.preemptions == sum(len(step.batch.preempted) for step in steps)
    most = {r.rid: 0 for r in trace.requests}
    half, held = 0.0, {}
    for step in steps:
        for rid in step.batch.preempted:
            held.pop(rid, None)
        for chunk in step.batch:
            most[chunk.rid] = max(most[chunk.rid], chunk.end)
            if chunk.rid in held:
                tokens, since = held.pop(chunk.rid)
                half += tokens * (step.end - since)
            if not chunk.emits:
                held[chunk.rid] = chunk.end, step.end
    assert found.recomputed_tokens == sum(sum(step.batch.length) for step in steps) - sum(most.values())
    assert found.half_built_token_seconds == pytest.approx(half, rel=1e-9, abs=1e-9)
    assert found.kv_block_seconds == pytest.approx(sum(s.blocks_used * (s.end - s.start) for s in steps))
    assert found.peak_blocks == max(step.blocks_used for step in steps)
    idle = exposed = share = 0.0
    for before, step in zip([None, *steps], steps):
        ended = before.end if before else step.scheduled
        idle += max(0.0, step.scheduled - ended)
        exposed += max(0.0, step.start - max(ended, step.scheduled))
        share += step.dispatched - step.scheduled
    wall = steps[-1].end - steps[0].scheduled - idle
    assert found.exposed_share == pytest.approx(exposed / wall, abs=1e-9)
    assert found.scheduling_share == pytest.approx(share / wall, abs=1e-9)
    assert 0 <= found.exposed_share <= 1
    emitted = sum(sum(step.batch.emits) for step in steps)
    seconds = steps[-1].end - min(r.arrival for r in trace.requests)
    assert found.output_tokens_per_s == pytest.approx(emitted / seconds)


@settings(max_examples=40)
@given(traces())
def test_interference_is_what_a_shared_step_takes_more(trace):
    n_decodes, seen = [], set()
    for step in trace.steps:
        n_decodes.append(sum(chunk.emits and chunk.length == 1 and chunk.rid in seen for chunk in step.batch))
        seen |= {chunk.rid for chunk in step.batch if chunk.emits}
    alone = {}
    for step, n in zip(trace.steps, n_decodes):
        if n == len(step.batch):
            alone.setdefault(n, []).append(step.end - step.start)
    ours = metrics.interference(trace)
    if not alone:
        assert np.isnan(ours).all()
        return
    sizes = sorted(alone)
    medians = [np.median(alone[n]) for n in sizes]
    theirs, seen = {r.rid: [] for r in trace.requests}, set()
    for step, n in zip(trace.steps, n_decodes):
        extra = max(0.0, step.end - step.start - np.interp(n, sizes, medians)) if n < len(step.batch) else 0.0
        for chunk in step.batch:
            if chunk.emits and chunk.rid in seen:
                theirs[chunk.rid].append(extra)
        seen |= {chunk.rid for chunk in step.batch if chunk.emits}
    np.testing.assert_allclose(ours, [x for r in trace.requests for x in theirs[r.rid]], atol=1e-12)


@settings(max_examples=40)
@given(traces(), st.floats(0.001, 2), st.floats(0.001, 0.5))
def test_classes_share_out_the_whole(trace, ttft_bound, tbt_bound):
    whole = summary(
        trace, lambda r: "long" if r.n_prompt > 30 else "short", ttft_bound=ttft_bound, tbt_bound=tbt_bound
    )
    parts = whole.classes.values()
    assert sum(part.n_requests for part in parts) == whole.n_requests
    for name in ("tbt", "ttft", "stall"):
        total = getattr(whole, name)
        assert sum(getattr(part, name).n for part in parts) == total.n
        largest = [getattr(part, name).max for part in parts if getattr(part, name).n]
        assert max(largest, default=math.nan) == total.max or not total.n
    for name in ("preemptions", "recomputed_tokens"):
        assert sum(getattr(part, name) for part in parts) == getattr(whole, name)
    for name in ("output_tokens_per_s", "requests_per_s", "half_built_token_seconds"):
        assert sum(getattr(part, name) for part in parts) == pytest.approx(getattr(whole, name), abs=1e-9)
    met = sum(
        one["ttft"] <= ttft_bound and not one["largest_tbt"] > tbt_bound for one in plain(trace).values()
    )
    assert whole.goodput == pytest.approx(met / whole.duration)


def test_a_trace_by_hand():
    """Two requests; b's prompt (2 s) runs between a's tokens: a waits 2 s for it, and once shares a step."""
    trace = Trace([Request("a", 0, 3, 4), Request("b", 1.5, 4, 1)], label="by hand")

    def step(rows, times, blocks):
        rid, start, length, emits = zip(*rows)
        trace.record(Batch(rid, start, length, emits), times, blocks)

    step([("a", 0, 3, True)], (0, 0, 0, 1), 1)
    step([("a", 3, 1, True)], (1, 1, 1, 2), 1)
    step([("b", 0, 2, False)], (2, 2, 2, 4), 2)
    step([("a", 4, 1, True), ("b", 2, 2, True)], (4, 4.5, 4.5, 6), 2)
    step([("a", 5, 1, True)], (6, 6, 6, 7), 1)
    assert metrics.ttft(trace).tolist() == [1, 4.5]
    assert metrics.tbt(trace).tolist() == [1, 4, 1]
    assert metrics.stalls(trace).tolist() == [0, 2, 0]
    assert metrics.interference(trace).tolist() == [0, 0.5, 0]
    assert metrics.largest_tbt(trace).tolist()[0] == 4
    found = summary(trace)
    assert (found.duration, found.kv_block_seconds, found.exposed_share) == (7, 1 + 1 + 4 + 3 + 1, 0.5 / 7)
    assert found.half_built_token_seconds == 2 * 2  # 2 tokens from 4 s to 6 s
    assert found.tbt.max == 4 and found.tbt.n == 3


def test_what_is_printed_is_defined():
    trace = simulate([Request(0, 0.0, 40, 5), Request(1, 0.0, 300, 5)], ChunkedPrefill(64))
    found = summary(trace, lambda r: "long" if r.n_prompt > 100 else "short")
    names = set(vars(found)) - {"label", "n_requests", "classes"}
    assert names == set(DEFINITIONS)
    text = str(found)
    assert all(name in text for name in ("ttft", "tbt", "max", "-- long", "-- short"))
    flat = found.as_dict()
    assert flat["tbt_max"] == found.tbt.max and flat["long.ttft_p50"] == found.classes["long"].ttft.p50


def test_an_empty_trace_has_no_numbers_and_no_error():
    found = summary(Trace([]))
    assert isinstance(found, Summary) and found.tbt.n == 0 and math.isnan(found.tbt.max)
    assert summary(Trace([Request(0, 1.0, 5, 5)])).ttft.n == 0


@given(st.lists(st.floats(-1e6, 1e6), max_size=50))
def test_spread(values):
    spread = Spread.of([*values, math.nan])
    assert spread.n == len(values)
    if values:
        assert spread.max == max(values) and spread.p50 == pytest.approx(np.median(values))
        assert spread.total == pytest.approx(sum(values), abs=1e-3)


def test_a_spread_has_the_percentiles_of_numpy_and_latency_is_public():
    import chunkprefill as cp

    values = np.random.default_rng(0).exponential(size=1000)
    spread = cp.Spread.of(values)
    assert (spread.p50, spread.p90, spread.p95, spread.p99) == tuple(
        np.quantile(values, (0.5, 0.9, 0.95, 0.99))
    )
    assert np.isnan(cp.Spread.of([]).p95)
    requests = [cp.Request(i, 0.5 * i, 10, 3) for i in range(4)]
    trace = cp.simulate(requests, cp.ChunkedPrefill(16), lambda batch: 0.125)
    whole = cp.summary(trace)
    assert np.allclose(cp.latency(trace), cp.ttft(trace) + 2 * cp.tpot(trace))
    assert whole.latency.p95 == np.quantile(cp.latency(trace), 0.95) == whole.as_dict()["latency_p95"]
    assert "p95" in str(whole)
