"""The loop over random workloads, policies and pools: everything finishes, nothing leaks, budgets hold."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chunkprefill as cp
from tests.library.scheduling.cases import audit, cost, n_outputs, runs, workloads


class Watch:
    """A policy that looks over the shoulder of another, and keeps the state that it was shown."""

    def __init__(self, policy):
        self.policy, self.state = policy, None
        for limit in ("max_model_len", "max_prompt"):
            setattr(self, limit, getattr(policy, limit, None))

    def schedule(self, state):
        self.state = state
        before = look(state)
        plan = self.policy.schedule(state)
        assert look(state) == before, f"{self.policy} changed the state"
        assert self.policy.schedule(state) == plan, f"{self.policy} is not a function of the state"
        return plan


def look(state):
    """All that a policy can see, as values."""
    lines = [
        [(s.rid, s.n_prompt, s.arrival, s.priority, s.cached, s.known, s.generated, s.capacity) for s in line]
        for line in (state.waiting, state.running)
    ]
    return lines, state.now, state.n_steps, state.pool.n_free, state.pool.n_used


@settings(max_examples=400, deadline=None)
@given(runs())
def test_everything_finishes_by_the_rules(run):
    requests, policy, pool, overlap = run
    watch = Watch(policy)
    trace = cp.simulate(requests, watch, cost, pool, overlap=overlap)
    audit(trace, policy, pool, overlap=overlap)
    state = watch.state
    assert len(state.running) == len(state.waiting) == state.pool.n_used == 0, "something was left behind"
    assert pool is None or pool.n_used == 0


@settings(max_examples=200, deadline=None)
@given(runs())
def test_the_same_run_twice_is_the_same_trace(run):
    requests, policy, pool, overlap = run
    first, second = (cp.simulate(requests, policy, cost, pool, overlap=overlap) for _ in range(2))
    assert first == second and first.steps == list(second.steps)


def most_tokens(policy):
    """The budget of a step, where the policy has one."""
    for name in ("token_budget", "max_num_batched_tokens", "max_tokens"):
        if hasattr(policy, name):
            return getattr(policy, name)
    return None


@settings(max_examples=300, deadline=None)
@given(runs())
def test_budgets_hold(run):
    requests, policy, pool, overlap = run
    trace = cp.simulate(requests, policy, cost, pool, overlap=overlap)
    budget, chunk = most_tokens(policy), getattr(policy, "chunk", None)
    seqs = getattr(policy, "max_seqs", None) or getattr(policy, "max_num_seqs", None)
    prompt = {r.rid: r.n_prompt for r in requests}
    holding = set()
    for step in trace.steps:
        batch = step.batch
        asked = sum(batch.length)
        if isinstance(policy, cp.PrefillFirst) and not any(c.start < prompt[c.rid] for c in batch.chunks):
            asked = 0  # its bound is on prompts: decodes alone all run
        if budget is not None and asked > budget:
            may = isinstance(policy, cp.PrefillFirst) and policy.chunk is None
            grown = isinstance(policy, cp.VllmV1) and not policy.enable_chunked_prefill
            assert (may or grown) and len(batch) == 1, f"{sum(batch.length)} tokens, budget {budget}"
            assert may or batch.length[0] > prompt[batch.rid[0]], "only outputs may outgrow a budget"
        if chunk is not None:
            assert max(batch.length) <= chunk
        if isinstance(policy, cp.Alternate):
            wide = [c for c in batch.chunks if c.start < prompt[c.rid]]
            assert not wide or len(batch) == 1, "a chunk and a decode in one step"
        if isinstance(policy, cp.RequestLevel):
            assert len(batch) <= policy.batch_size
        holding = (holding - set(batch.preempted)) | set(batch.rid)
        if seqs is not None:
            assert len(holding) <= seqs
        emitted = {c.rid for c in batch.chunks if c.emits}
        holding -= {r for r in emitted if is_last(trace, step, r)}


def is_last(trace, step, rid):
    """Whether `step` is the last one of a request."""
    if not hasattr(trace, "_last_seen"):
        trace._last_seen = {r: s.end for s in trace.steps for r in s.batch.rid}
    return trace._last_seen[rid] == step.end


@settings(max_examples=150, deadline=None)
@given(workloads(), st.integers(8, 40), st.booleans())
def test_decodes_first_means_no_stall(requests, budget, overlap):
    """Budget at least the decodes, enough memory: every sequence that decodes is in every step."""
    policy = cp.ChunkedPrefill(budget, max_seqs=min(budget, 8))
    trace = cp.simulate(requests, policy, cost, overlap=overlap)
    left = {r.rid: r.n_output for r in requests}
    decoding = set()
    for step in trace.steps:
        assert decoding <= set(step.batch.rid), "a decode was left out"
        for chunk in step.batch.chunks:
            if chunk.emits:
                left[chunk.rid] -= 1
                decoding.add(chunk.rid)
        decoding = {rid for rid in decoding if left[rid]}


@settings(max_examples=100, deadline=None)
@given(workloads(most=6), st.integers(1, 20))
def test_one_chunk_at_a_time_alone_takes_ceil_n_over_c_passes(requests, c):
    for request in requests:
        trace = cp.simulate([request], cp.ChunkedPrefill(c), cost)
        chunks = [s.batch.chunks[0] for s in trace.steps]
        prompt = [k for k in chunks if k.start < request.n_prompt]
        assert len(prompt) == -(-request.n_prompt // c)
        assert [k.emits for k in prompt] == [False] * (len(prompt) - 1) + [True]
        assert len(chunks) == len(prompt) + request.n_output - 1


def test_idle_time_is_skipped_and_late_arrivals_wait_their_turn():
    requests = [cp.Request(0, 5.0, 4, 2), cp.Request(1, 5.5, 4, 1), cp.Request(2, 100.0, 4, 1)]
    steps = cp.simulate(requests, cp.ChunkedPrefill(8), lambda batch: 1.0).steps
    assert [(s.scheduled, s.end, s.batch.rid) for s in steps] == [
        (5.0, 6.0, (0,)),
        (6.0, 7.0, (0, 1)),
        (100.0, 101.0, (2,)),
    ]


def test_overlapped_an_arrival_is_seen_one_step_later():
    requests = [cp.Request(0, 0.0, 4, 3), cp.Request(1, 0.5, 4, 1)]
    price = cp.SchedulerCost(0.25)
    serial = cp.simulate(requests, cp.ChunkedPrefill(8), lambda b: 1.0, scheduling=price).steps
    over = cp.simulate(requests, cp.ChunkedPrefill(8), lambda b: 1.0, scheduling=price, overlap=True).steps
    times = [(s.scheduled, s.dispatched, s.start, s.end, s.batch.rid) for s in serial]
    assert times == [
        (0.0, 0.25, 0.25, 1.25, (0,)),
        (1.25, 1.5, 1.5, 2.5, (0, 1)),
        (2.5, 2.75, 2.75, 3.75, (0,)),
    ]
    times = [(s.scheduled, s.dispatched, s.start, s.end, s.batch.rid) for s in over]
    assert times == [
        (0.0, 0.25, 0.25, 1.25, (0,)),
        (0.25, 0.5, 1.25, 2.25, (0,)),  # request 1 comes at 0.5: too late for the plan made at 0.25
        (1.25, 1.5, 2.25, 3.25, (0, 1)),
    ]


@settings(max_examples=100, deadline=None)
@given(workloads(), st.floats(0, 3), st.floats(0.01, 3))
def test_overlap_hides_scheduling_up_to_the_length_of_a_step(requests, sched, execute):
    """Exposed scheduling: all of it in serial; overlapped, what exceeds the step before."""
    price, policy = cp.SchedulerCost(sched), cp.ChunkedPrefill(16)
    for overlap in (False, True):
        trace = cp.simulate(requests, policy, lambda b: execute, scheduling=price, overlap=overlap)
        for before, step in zip(trace.steps, trace.steps[1:]):
            assert step.dispatched - step.scheduled == pytest.approx(sched)
            if overlap and step.scheduled == before.start:
                assert step.start == max(step.dispatched, before.end)
            else:
                assert step.start == step.dispatched


def test_a_policy_of_a_few_lines_runs():
    class Mine:
        def schedule(self, state):
            budget, tokens = 16, {}
            for seq in [*state.running, *state.waiting]:
                n = min(seq.pending, budget)
                if n:
                    tokens[seq.rid], budget = n, budget - n
            return cp.Plan(tokens)

    requests = [cp.Request(i, i / 4, 10 + 7 * i, 3 + i) for i in range(6)]
    audit(cp.simulate(requests, Mine(), cost), Mine(), None)


def test_max_model_len_ends_a_request():
    requests = [cp.Request(0, 0, 10, 50), cp.Request(1, 0, 19, 5)]
    policy = cp.VllmV1(max_model_len=20)
    trace = cp.simulate(requests, policy, cost, cp.BlockPool(2, 20))
    assert [n_outputs(r, policy) for r in requests] == [10, 1]
    audit(trace, policy, cp.BlockPool(2, 20))
