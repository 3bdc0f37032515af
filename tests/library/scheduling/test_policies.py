"""What each policy does that no other does, step by step, on workloads small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chunkprefill as cp
from chunkprefill.scheduling.state import State
from tests.library.scheduling.cases import cost, workloads


def kinds(trace: cp.Trace) -> str:
    """P for a step of prefilling alone, D for decodes alone, M for both."""
    prompts = {r.rid: r.n_prompt for r in trace.requests}
    letters = []
    for step in trace.steps:
        prefilling = {chunk.start < prompts[chunk.rid] for chunk in step.batch.chunks}
        letters.append("M" if len(prefilling) == 2 else "P" if prefilling == {True} else "D")
    return "".join(letters)


def test_alternate_takes_k_prefilling_steps_and_then_d_decoding_steps():
    requests = [cp.Request("chat", 0, 1, 400), cp.Request("document", 0, 400, 1)]
    for k, d in ((1, 1), (3, 1), (1, 3), (2, 5)):
        pattern = kinds(cp.simulate(requests, cp.Alternate(16, prefills=k, decodes=d), cost))
        turns = ("P" * k + "D" * d) * 60
        # The chat's own prompt is the first chunk; with no decode beside it yet, the next steps prefill too.
        begin, end = k + d, pattern.rindex("P") + 1
        assert pattern[begin:end] == turns[begin:end] and end > 25
    assert cp.Alternate(16) == cp.Alternate(16, 1, 1)
    assert repr(cp.Alternate(16)) == "Alternate(chunk=16)"
    assert repr(cp.Alternate(16, 2)) == "Alternate(chunk=16, prefills=2)"


@settings(max_examples=60, deadline=None)
@given(workloads(), st.integers(1, 20), st.integers(1, 3), st.integers(1, 3))
def test_alternate_never_leaves_a_step_empty_nor_mixes(requests, chunk, prefills, decodes):
    trace = cp.simulate(requests, cp.Alternate(chunk, prefills, decodes), cost)
    assert all(len(step.batch) for step in trace.steps) and "M" not in kinds(trace)


@settings(max_examples=60, deadline=None)
@given(workloads(), st.sampled_from((None, 8, 30)), st.integers(1, 12))
def test_a_cap_on_prefilling_leaves_the_decodes_alone(requests, budget, cap):
    trace = cp.simulate(requests, cp.ChunkedPrefill(budget, 64, prefill_cap=cap), cost)
    for step in trace.steps:
        sums = step.batch.totals()
        assert sums.n_tokens - sums.n_decodes <= cap
        assert budget is None or sums.n_tokens <= budget


def test_a_cap_on_prefilling_holds_whatever_decodes():
    """16 decodes beside a document, 8 tokens of it a step; a budget of 16 would leave it nothing."""
    requests = [cp.Request(i, 0, 1, 50) for i in range(16)] + [cp.Request("document", 1.0, 64, 1)]
    trace = cp.simulate(requests, cp.ChunkedPrefill(None, prefill_cap=8), lambda batch: 1.0)
    chunks = [(c.length, len(s.batch)) for s in trace.steps for c in s.batch.chunks if c.rid == "document"]
    assert chunks[-7:] == [(8, 17)] * 7


@pytest.mark.parametrize(
    ("running", "waiting", "budget"),
    [
        ([], [], 16),
        ([("d", 4, 6, 3)], [], 16),  # a decode alone
        ([("d", 4, 6, 3)], [("p", 9)], 16),  # one prompt beside it
        ([("d", 4, 6, 3)], [("p", 9), ("q", 9)], 4),  # two, both waiting
        ([("d", 4, 6, 3), ("p", 9, 3, 0)], [("q", 9)], 4),  # one under way, one waiting
        ([("p", 9, 3, 0), ("r", 9, 3, 0)], [("q", 9)], 16),  # no decode to protect
    ],
)
def test_prefill_aware_looks_at_active_prompts_and_decodes(running, waiting, budget):
    """At least two prompts and one decode: the small budget; else the large one (P-PAS)."""
    state = State(
        waiting=[cp.Sequence(rid, n, 0.0) for rid, n in waiting],
        running=[cp.Sequence(rid, n, 0.0, cached=c, generated=g) for rid, n, c, g in running],
    )
    policy = cp.PrefillAware(4, 16)
    assert policy.budget(state) == budget
    if running or waiting:
        assert sum(policy.schedule(state).tokens.values()) <= budget


def test_prefill_aware_is_sooner_than_the_large_budget_under_pressure_and_than_the_small_one_without():
    """A second a step of 1,000 tokens, and attention that makes small chunks dear: each regime its budget."""

    def seconds(batch):
        return 0.1 + sum(batch.length) / 1000

    alone = [cp.Request("document", 0, 8_000, 2)]
    crowd = [cp.Request(f"chat{i}", 0, 1, 60) for i in range(8)]
    crowd += [cp.Request(f"document{i}", 0.5, 8_000, 2) for i in range(3)]
    policies = {
        "aware": cp.PrefillAware(500, 4000),
        "small": cp.ChunkedPrefill(500),
        "large": cp.ChunkedPrefill(4000),
    }
    first = {name: cp.simulate(alone, policy, seconds) for name, policy in policies.items()}
    assert first["aware"].steps == first["large"].steps
    assert cp.ttft(first["aware"])[0] < cp.ttft(first["small"])[0]
    gaps = {
        name: cp.largest_tbt(cp.simulate(crowd, policy, seconds))[:8].max()
        for name, policy in policies.items()
    }
    assert gaps["large"] > 3 and gaps["small"] < 0.7
    # While the last document is alone it takes the large budget again: one prompt is no pressure.
    trace = cp.simulate(crowd, policies["aware"], seconds)
    small = [s for s in trace.steps if sum(s.batch.length) <= 500]
    assert len(small) > 20 and max(sum(s.batch.length) for s in trace.steps) > 3000


def test_hrrn_orders_by_seconds_waited_per_token():
    waiting = [cp.Sequence("long", 90, 0.0), cp.Sequence("short", 10, 8.0), cp.Sequence("new", 5, 10.0)]
    for now, first in ((9.0, "long"), (9.5, "short"), (11.0, "short"), (20.0, "new")):
        # Seconds a token at 9.0: 0.1, 0.1; a tie goes to the first to come. At 20: 0.22, 1.2, 2.0.
        state = State(now=now, waiting=waiting)
        assert next(iter(cp.ChunkedPrefill(4, order="hrrn").schedule(state).tokens)) == first


@pytest.mark.parametrize("order", ["shortest", "hrrn"])
def test_what_a_prefix_cache_holds_is_no_work_to_rank_by(order):
    """A long prompt that is cached but for its end goes before a shorter one that is not."""
    system, pool = tuple(range(64)), cp.BlockPool(100, 4, prefix_caching=True)
    requests = [
        cp.Request("first", 0.0, 64, 1, prompt=system),
        cp.Request("long", 1.5, 66, 1, prompt=(*system, 1, 2)),
        cp.Request("short", 1.5, 20, 1, prompt=tuple(range(100, 120))),
    ]
    policy = cp.ChunkedPrefill(64, max_seqs=2, order=order)
    trace = cp.simulate(requests, policy, lambda batch: 2.0, pool)
    later = [step.batch.rid[0] for step in trace.steps if step.batch.rid[0] != "first"]
    assert later[0] == "long"


def test_whole_numbers_of_numpy_are_whole_numbers():
    four = np.int64(4)
    made = [cp.ChunkedPrefill(four), cp.VllmV1(four), cp.BlockPool(four, four), cp.PrefillFirst(four, four)]
    assert repr(made[0]) == repr(cp.ChunkedPrefill(4))
    assert type(made[1].max_num_batched_tokens) is type(made[2].n_blocks) is type(made[3].chunk) is int
    config = cp.Config(four, four, np.int32(2), four, np.int64(100))
    assert type(config.n_layers) is int
    shape = ("llama-3.2-1b", "rtx4090")
    assert cp.pool_for(*shape, budget=np.int64(512)).n_blocks == cp.pool_for(*shape, budget=512).n_blocks
    for make in (cp.ChunkedPrefill, cp.VllmV1, cp.BlockPool):
        for bad in (True, 4.0, np.float64(4), np.bool_(True), "4", 0):
            with pytest.raises(ValueError, match="must be a whole number of at least 1, got"):
                make(bad)
