"""Pipelines: one stage is the plain simulator, stages keep their order, equal chunks fill bubbles."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.core import Request, ScheduleError
from chunkprefill.scheduling.policies import Alternate, ChunkedPrefill, PrefillFirst, RequestLevel
from chunkprefill.simulation.cost import Roofline
from chunkprefill.simulation.pipeline import simulate_pipeline
from chunkprefill.simulation.published import published
from chunkprefill.simulation.simulate import simulate
from chunkprefill.simulation.workloads import poisson

POLICIES = [ChunkedPrefill(32), PrefillFirst(128), RequestLevel(3), Alternate(16)]
LISTS = st.lists(
    st.tuples(st.integers(1, 80), st.integers(1, 10), st.floats(0, 0.5)), min_size=1, max_size=12
)


def requests_of(rows):
    return [Request(i, arrival, a, b) for i, (a, b, arrival) in enumerate(rows)]


@settings(max_examples=40)
@given(LISTS, st.sampled_from(POLICIES))
def test_one_stage_is_the_plain_simulator(rows, policy):
    requests = requests_of(rows)
    pipeline, trace = simulate_pipeline(requests, policy, n_stages=1), simulate(requests, policy)
    assert [(v.start, v.end, v.batch) for v in pipeline.visits] == [
        (s.start, s.end, s.batch) for s in trace.steps
    ]
    assert pipeline.bubbles == pytest.approx(
        1 - sum(s.end - s.start for s in trace.steps) / (trace.steps[-1].end - trace.steps[0].start), abs=1e-9
    )


@settings(max_examples=40)
@given(LISTS, st.sampled_from(POLICIES), st.integers(2, 5))
def test_stages_and_lanes_obey_their_order(rows, policy, n_stages):
    requests, cost = requests_of(rows), Roofline()
    pipeline = simulate_pipeline(requests, policy, cost, n_stages)
    for stage in range(n_stages):
        mine = [v for v in pipeline.visits if v.stage == stage]
        assert all(a.end <= b.start + 1e-12 for a, b in pairwise(mine))
        assert all(v.end - v.start == pytest.approx(cost(v.batch) / n_stages) for v in mine)
    for lane in range(n_stages):
        mine = sorted((v for v in pipeline.visits if v.lane == lane), key=lambda v: (v.start, v.stage))
        assert [v.stage for v in mine] == list(range(n_stages)) * (len(mine) // n_stages)
        assert all(a.end <= b.start + 1e-12 for a, b in pairwise(mine))  # its tokens first
    assert {rid: len(times) for rid, times in pipeline.tokens.items()} == {
        r.rid: r.n_output for r in requests
    }
    assert all(times[0] >= r.arrival for r in requests for times in [pipeline.tokens[r.rid]])
    assert 0 <= pipeline.bubbles < 1


@pytest.mark.parametrize("cost", [Roofline(), published("rtx4090")])
@pytest.mark.parametrize("n_stages", [2, 4, 8])
def test_equal_chunks_leave_smaller_bubbles_than_whole_prompts(cost, n_stages):
    """Sarathi-Serve's third argument, under load: prompts of every length, all waiting from the start."""
    requests = [Request(r.rid, 0.0, r.n_prompt, r.n_output) for r in poisson(96, 1.0, seed=5)]
    whole = simulate_pipeline(requests, PrefillFirst(8192), cost, n_stages)
    chunks = simulate_pipeline(requests, ChunkedPrefill(512), cost, n_stages)
    assert chunks.bubbles < whole.bubbles


def test_errors_name_the_rule():
    with pytest.raises(ValueError, match="n_stages must be a whole number of at least 1, got 0"):
        simulate_pipeline([], ChunkedPrefill(32), n_stages=0)
    with pytest.raises(ScheduleError, match="could never finish"):
        simulate_pipeline([Request(0, 0.0, 900, 9)], ChunkedPrefill(32), pool=BlockPool(3))
    assert simulate_pipeline([], ChunkedPrefill(32)).bubbles == 0
