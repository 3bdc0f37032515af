"""A model and a price under one loop take the same steps, and each request gets its tokens as if alone."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

import chunkprefill as cp
from tests.clock import TICK
from tests.library.scheduling.cases import ORDERS, audit, cost, n_outputs, pools, runs, workloads

torch = pytest.importorskip("torch")
from chunkprefill.engine import prompt_of  # noqa: E402

SCHEDULING = cp.SchedulerCost(0.01, 0.002, 0.003, 1e-4)


@cache
def tiny():
    return cp.load_model("tiny", dtype=torch.float64)


@cache
def alone(request, n):
    """The tokens that a request gets with the model to itself, in one pass and greedy steps."""
    return cp.generate(tiny(), prompt_of(request, tiny().config.vocab_size), n)


def check_tokens(trace, policy):
    for request in trace.requests:
        n = n_outputs(request, policy)
        assert trace.outputs[request.rid] == alone(request, n), (
            f"request {request.rid} was told something else"
        )


@settings(max_examples=120, deadline=None)
@given(runs(most=6), st.booleans())
def test_priced_alike_engine_and_simulator_take_the_same_steps(run, free):
    requests, policy, pool, overlap = run
    how = {"scheduling": None if free else SCHEDULING, "overlap": overlap}
    engine = cp.Engine(tiny(), policy, pool, cost=cost, **how)
    trace = engine.run(requests)
    assert trace.steps == cp.simulate(requests, policy, cost, pool, **how).steps
    check_tokens(trace, policy)
    event(f"evictions: {bool(trace.preempted)}, overlap: {overlap}")


ALL = [
    cp.RequestLevel(3),
    cp.PrefillFirst(40),
    cp.PrefillFirst(40, mixed=True),
    cp.PrefillFirst(40, 7),
    cp.Alternate(7),
    cp.SerialChunks(7),
    *(cp.ChunkedPrefill(12, 8, order) for order in ORDERS),
    cp.VllmV1(12),
    cp.VllmV1(12, long_prefill_token_threshold=5, policy="priority"),
    cp.VllmV1(60, enable_chunked_prefill=False),
]


@pytest.mark.parametrize("overlap", [False, True], ids=["serial", "overlapped"])
@pytest.mark.parametrize("policy", ALL, ids=str)
def test_every_policy_under_a_pool_so_small_that_it_must_evict(policy, overlap):
    requests = [cp.Request(i, 0.4 * i, 5 + 6 * (i % 4), 14, None, i % 3) for i in range(6)]
    pool = cp.BlockPool(10, 4)
    how = {"scheduling": SCHEDULING, "overlap": overlap}
    trace = cp.Engine(tiny(), policy, pool, cost=cost, **how).run(requests)
    simulated = cp.simulate(requests, policy, cost, pool, **how)
    assert trace.steps == simulated.steps
    assert simulated.preempted, "this case should make it evict"
    check_tokens(trace, policy)
    audit(trace, policy, pool, overlap=overlap)


@settings(max_examples=30, deadline=None)
@given(runs(most=5))
def test_measured_runs_keep_the_rules_and_the_tokens(run):
    requests, policy, pool, overlap = run
    trace = cp.Engine(tiny(), policy, pool, overlap=overlap).run(requests)
    audit(trace, policy, pool, overlap=overlap, measured=True)
    check_tokens(trace, policy)


@settings(max_examples=25, deadline=None)
@given(workloads(most=5), st.data())
def test_replay_runs_the_batches_it_is_given(requests, data):
    pool = data.draw(pools(requests))
    policy = cp.ChunkedPrefill(data.draw(st.integers(1, 20)))
    trace = cp.simulate(requests, policy, cost, pool)
    again = cp.replay(trace, cp.Engine(tiny(), policy, pool))
    assert [s.batch for s in again.steps] == [s.batch for s in trace.steps]
    assert [s.blocks_used for s in again.steps] == [s.blocks_used for s in trace.steps]
    audit(again, policy, pool)
    check_tokens(again, policy)


def test_replay_of_a_step_that_only_evicts():
    class EvictsOnce:
        def schedule(self, state):
            seq = (state.running + state.waiting)[0]
            return cp.Plan({}, (seq.rid,)) if state.n_steps == 1 else cp.Plan({seq.rid: seq.pending})

    requests, pool = [cp.Request(0, 0.0, 8, 3)], cp.BlockPool(10)
    trace = cp.simulate(requests, EvictsOnce(), cost, pool)
    again = cp.replay(trace, cp.Engine(tiny(), EvictsOnce(), pool))
    assert [s.batch for s in again.steps] == [s.batch for s in trace.steps]
    assert not trace.steps[1].batch and trace.preempted == {1: (0,)}
    assert again.outputs[0] == alone(requests[0], 3)


@pytest.mark.parametrize("backend", ["reference", "sdpa"])
def test_logits_of_a_mixed_batch_are_those_of_each_alone(backend):
    """Chunks and decodes of several sequences in one strip, over scattered blocks."""
    model, pool = tiny(), cp.BlockPool(40, 4)
    prompts = {
        r: list(prompt_of(cp.Request(r, 0, n, 1), model.config.vocab_size)) for r, n in enumerate((9, 17, 6))
    }
    paged = cp.PagedKVCache(model.config, pool, dtype=model.dtype, backend=backend)
    tables = {rid: [] for rid in prompts}
    done = dict.fromkeys(prompts, 0)
    single = {r: cp.KVCache(model.config, 64, dtype=model.dtype) for r in prompts}
    for lengths in ({0: 5, 1: 3}, {0: 4, 1: 7, 2: 1}, {1: 7, 2: 4}, {2: 1}):
        starts = {r: done[r] for r in lengths}
        for r, n in lengths.items():
            done[r] += n
            tables[r] += pool.take(pool.blocks_for(done[r]) - len(tables[r]))
        emits = tuple(done[r] == len(prompts[r]) for r in lengths)
        batch = cp.Batch(tuple(lengths), tuple(starts.values()), tuple(lengths.values()), emits)
        strip = [t for r, n in lengths.items() for t in prompts[r][starts[r] : starts[r] + n]]
        with torch.inference_mode():
            logits = model(torch.tensor(strip), paged.window(batch, tables))
        expected = [cp.prefill(model, prompts[r][starts[r] : done[r]], single[r]) for r in lengths]
        expected = [row for row, wanted in zip(expected, emits) if wanted]
        assert len(logits) == len(expected)
        for row, alone in zip(logits, expected):
            torch.testing.assert_close(row, alone, rtol=0, atol=1e-12)
    for rid, table in tables.items():
        for layer in range(model.config.n_layers):
            for mine, theirs in zip(paged.kv(layer, table, done[rid]), single[rid].kv(layer)):
                torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


def test_given_prompts_are_used_and_checked():
    model = tiny()
    vocab = model.config.vocab_size
    request = cp.Request(0, 0, 3, 4, (1, 2, 3))
    assert cp.Engine(model, cp.ChunkedPrefill(2)).run([request]).outputs[0] == cp.generate(
        model, [1, 2, 3], 4
    )
    with pytest.raises(ValueError, match=f"request 0: token id {vocab} is outside the vocabulary of {vocab}"):
        cp.Engine(model, cp.ChunkedPrefill(2)).run([cp.Request(0, 0, 2, 1, (1, vocab))])
    most = model.config.max_positions
    with pytest.raises(ValueError, match=f"request 0: {most + 1} positions, the model has {most}"):
        cp.Engine(model, cp.ChunkedPrefill(2)).run([cp.Request(0, 0, most, 2)])


def test_an_engine_runs_again_and_after_an_error():
    engine = cp.Engine(tiny(), cp.ChunkedPrefill(8), cp.BlockPool(12, 4))
    requests = [cp.Request(i, 0, 9, 5) for i in range(4)]
    first = engine.run(requests).outputs
    with pytest.raises(cp.ScheduleError, match="could never finish"):
        engine.run([cp.Request(0, 0, 60, 9)])
    assert engine.run(requests).outputs == first


def test_a_policy_written_in_a_cell_runs_on_both():
    class Mine:
        def schedule(self, state):
            budget, tokens = 10, {}
            for seq in [*state.running, *state.waiting]:
                n = min(seq.pending, budget)
                if n:
                    tokens[seq.rid], budget = n, budget - n
            return cp.Plan(tokens)

    requests = [cp.Request(i, i / 4, 4 + 5 * i, 3 + i) for i in range(5)]
    trace = cp.Engine(tiny(), Mine(), cost=cost, scheduling=SCHEDULING).run(requests)
    assert trace.steps == cp.simulate(requests, Mine(), cost, scheduling=SCHEDULING).steps
    check_tokens(trace, Mine())
    bad = cp.Engine(tiny(), type("Bad", (), {"schedule": lambda self, state: cp.Plan({0: 99})})())
    with pytest.raises(cp.ScheduleError, match="request 0: 99 tokens planned, 4 pending"):
        bad.run(requests)


@pytest.mark.parametrize("overlap", [False, True])
def test_measured_time_is_the_wall_clock_less_the_pause(clock, overlap):
    requests = [cp.Request(0, 0.0, 30, 20), cp.Request(1, 500.0, 30, 20)]
    began = clock()
    trace = cp.Engine(tiny(), cp.ChunkedPrefill(8), overlap=overlap).run(requests)
    wall = clock() - began
    first = [s for s in trace.steps if s.batch.rid == (0,)]
    paused = 500.0 - first[-1].end
    assert 0 < trace.steps[-1].end - paused <= wall
    for a, b in zip(trace.steps, trace.steps[1:]):
        if not overlap and b.scheduled != 500.0:
            assert b.scheduled == a.end
    host = trace.host
    scheduling = sum(s.dispatched - s.scheduled for s in trace.steps)
    parts = sum(host[part] for part in ("commit", "decide", "apply", "launch")) - host["check"]
    assert scheduling == pytest.approx(parts, abs=20 * TICK * len(trace.steps))


def test_a_replay_on_another_prefix_cache_is_refused():
    prompt = tuple(range(8))
    requests = [cp.Request(0, 0.0, 8, 1, prompt=prompt), cp.Request(1, 5.0, 8, 1, prompt=prompt)]
    pool = cp.BlockPool(20, 4, prefix_caching=True)
    trace = cp.simulate(requests, cp.VllmV1(32), cost, pool)
    with pytest.raises(
        cp.ScheduleError, match=r"^replay: step 1: recorded .*start=4.*, this pool makes .*prefix"
    ):
        cp.replay(trace, cp.Engine(tiny(), cp.VllmV1(32), cp.BlockPool(20, 4)))


def test_block_hashes_are_held_against_the_block_size_without_a_cache_too():
    request = cp.Request("a", 0.0, 8, 1, blocks=("h",))
    with pytest.raises(ValueError, match="request a: 1 block hashes, but 8 prompt tokens have 2 whole"):
        prompt_of(request, 100, 4)
    with pytest.raises(ValueError, match="request a: 1 block hashes"):
        cp.Engine(tiny(), cp.VllmV1(32), cp.BlockPool(20, 4)).run([request])


def test_a_pool_for_decisions_alone_is_refused():
    pool = cp.BlockPool(20, 4, prefix_caching=True)
    pool.withdrawn_count = True
    with pytest.raises(ValueError, match="pool: withdrawn_count is for decisions alone"):
        cp.Engine(tiny(), cp.VllmV1(32), pool)
