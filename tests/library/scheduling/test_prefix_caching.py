"""Prefix caching: whole blocks that are used again, in the order that vLLM keeps, on a model as in a price."""

from __future__ import annotations

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

import chunkprefill as cp
from chunkprefill.scheduling.prefix_cache import EvictionOrder, PrefixCache, block_contents
from chunkprefill.scheduling.state import State
from tests.library.scheduling.cases import cost, n_outputs, need, policies

SIZE = 4


def asks(rid, *segments, at=0.0, n_output=3, priority=0):
    n_prompt = sum(n for _, n in segments)
    return cp.Request(rid, at, n_prompt, n_output, priority=priority, segments=segments)


@st.composite
def shared(draw, most=8):
    """Requests whose prompts begin alike, more or less."""
    requests = []
    for i in range(draw(st.integers(1, most))):
        names = st.sampled_from(("system", "system", "tools", f"own {i}"))
        segments = draw(st.lists(st.tuples(names, st.integers(1, 13)), min_size=1, max_size=3))
        at, n_output = draw(st.integers(0, 20)), draw(st.integers(1, 8))
        requests.append(asks(i, *segments, at=float(at), n_output=n_output, priority=draw(st.integers(0, 2))))
    return requests


@st.composite
def runs(draw, most=8):
    requests = draw(shared(most))
    size = draw(st.sampled_from((1, 2, 4, 8)))
    n_blocks = need(requests, size) + draw(st.sampled_from((0, 0, 1, 3, 10, 60)))
    return requests, draw(policies), cp.BlockPool(n_blocks, size, prefix_caching=True), draw(st.booleans())


def starts(trace):
    """Where each request began, at its first admission."""
    first = {}
    for step in trace.steps:
        for chunk in step.batch:
            first.setdefault(chunk.rid, chunk.start)
    return first


# --- what is found ------------------------------------------------------------------------------------


def test_whole_blocks_are_found_and_the_last_token_is_computed():
    requests = [asks(i, ("a", n), at=float(50 * i)) for i, n in enumerate((16, 16, 17, 15, 3))]
    trace = cp.simulate(requests, cp.VllmV1(64), lambda b: 1.0, cp.BlockPool(50, SIZE, prefix_caching=True))
    assert list(starts(trace).values()) == [0, 12, 16, 12, 0]


def test_segments_prompts_and_block_hashes_say_the_same():
    tokens = {"a": tuple(range(12)), "b": tuple(range(100, 108)), "c": tuple(range(200, 208))}
    names = [("a", "b"), ("a", "c"), ("a", "b")]
    by_segment = [asks(i, *((n, len(tokens[n])) for n in pair), at=20.0 * i) for i, pair in enumerate(names)]
    by_token = [
        cp.Request(i, 20.0 * i, 20, 3, tokens[first] + tokens[second])
        for i, (first, second) in enumerate(names)
    ]
    by_hash = [
        cp.Request(i, 20.0 * i, 20, 3, blocks=(1, 2, 3, f"4{second}", f"5{second}"))
        for i, (_, second) in enumerate(names)
    ]
    pool = cp.BlockPool(50, SIZE, prefix_caching=True)
    found = [starts(cp.simulate(each, cp.VllmV1(64), cost, pool)) for each in (by_segment, by_token, by_hash)]
    assert found[0] == found[1] == found[2] == {0: 0, 1: 12, 2: 16}


def test_a_block_of_two_segments_is_equal_only_where_both_are():
    one = block_contents(asks(0, ("a", 6), ("b", 6)), SIZE)
    assert one == [(("a", 0, 4),), (("a", 4, 2), ("b", 0, 2)), (("b", 2, 4),)]
    assert block_contents(asks(1, ("a", 6), ("c", 6)), SIZE)[:2] == [one[0], (("a", 4, 2), ("c", 0, 2))]
    assert block_contents(asks(2, ("a", 3)), SIZE) == [] == block_contents(cp.Request(3, 0, 40, 1), SIZE)


def test_a_request_that_says_nothing_shares_nothing():
    requests = [cp.Request(i, 9.0 * i, 20, 2) for i in range(2)]
    trace = cp.simulate(requests, cp.VllmV1(64), cost, cp.BlockPool(50, SIZE, prefix_caching=True))
    assert starts(trace) == {0: 0, 1: 0}


def test_a_prefix_is_found_while_it_is_half_built():
    requests = [asks("a", ("x", 40)), asks("b", ("x", 40), at=1.0)]
    policy = cp.VllmV1(24, long_prefill_token_threshold=8)
    pool = cp.BlockPool(50, SIZE, prefix_caching=True)
    steps = cp.simulate(requests, policy, lambda b: 1.0, pool).steps
    assert steps[0].batch.chunks == (cp.Chunk("a", 0, 24, False),)  # alone, so that the threshold is off
    # b begins behind the chunk of a that runs in the same step
    assert steps[1].batch.chunks == (cp.Chunk("a", 24, 8, False), cp.Chunk("b", 32, 8, True))


def test_an_evicted_request_finds_its_own_outputs():
    pool = cp.BlockPool(11, SIZE, prefix_caching=True)
    requests = [asks(i, (f"own {i}", 12), n_output=16) for i in range(2)]
    trace = cp.simulate(requests, cp.VllmV1(64), lambda b: 1.0, pool)
    assert trace.preempted == {8: (1,)} or trace.preempted
    evicted = next(iter(trace.preempted))
    again = next(c for s in trace.steps[evicted + 1 :] for c in s.batch if c.rid == 1)
    assert again.start >= 12, "its prompt and the whole blocks of its outputs are still there"


def test_the_block_freed_first_goes_first_and_of_one_sequence_the_tail():
    cache, size = PrefixCache(cp.BlockPool(6, SIZE)), 12
    for rid in ("a", "b"):
        cache.arrive(rid, block_contents(asks(rid, (rid, size)), SIZE))
        cache.grant(cp.Sequence(rid, size, 0.0), size)
    cache.release("a")
    cache.release("b")
    found = []
    for i in range(6):  # the tail of a goes first, then its middle, then its head; then b's in the same way
        cache.arrive(i)
        cache.grant(cp.Sequence(i, SIZE, 0.0), SIZE)
        found.append((len(cache.hits("a", size + 1)), len(cache.hits("b", size + 1))))
    assert found == [(2, 3), (1, 3), (0, 3), (0, 2), (0, 1), (0, 0)]
    with pytest.raises(
        cp.ScheduleError, match="request 6: out of blocks, 4 tokens planned, 0 cached, 1 more"
    ):
        cache.arrive(6)
        cache.grant(cp.Sequence(6, SIZE, 0.0), SIZE)


def test_what_is_tried_is_undone():
    """A policy tries plans out on the cache itself: nothing of it may stay."""
    state = State(cp.BlockPool(9, SIZE, prefix_caching=True))
    for request in (asks("a", ("x", 16)), asks("b", ("x", 16)), asks("c", ("z", 30))):
        state.arrive(request)
    state.commit(state.apply(cp.Plan({"a": 16, "b": 4})))
    cache = state._books.cache

    def look():
        holders, keys = dict(cache._holders), dict(cache._key_of)
        return holders, keys, list(cache._free), cache.n_free, copy_of(cache.tables), dict(cache.n_keyed)

    def copy_of(tables):
        return {rid: list(table) for rid, table in tables.items()}

    before = look()

    class Tries:
        def schedule(self, state):
            trial = state.pool.trial()
            trial.evict(state.running[0])
            trial.grant(state.running[1], 1)
            trial.evict(state.running[1])
            trial.grant(state.waiting[0], 20)
            assert look() != before
            return cp.Plan({"a": 1})  # and never closes its trial

    assert state.ask(Tries()).tokens == {"a": 1}
    assert look() == before


@given(st.lists(st.tuples(st.sampled_from((0, 0, 1, 1, 2)), st.integers(0, 7)), max_size=60))
def test_the_order_of_eviction_is_a_list(moves):
    order, plain, undo = EvictionOrder(), [], []
    for what, block in moves:
        if what == 0 and block not in plain:
            undo.append((order.remove, (block,), list(plain)))
            order.append(block)
            plain.append(block)
        elif what == 1 and block in plain:
            undo.append((order.restore, (block, order.remove(block)), list(plain)))
            plain.remove(block)
        elif what == 2 and undo:
            back, arguments, plain = undo.pop()
            back(*arguments)
        assert list(order) == plain and len(order) == len(plain)
        assert order.first == (plain[0] if plain else -1)


# --- any policy, any pool -----------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(runs())
def test_everything_finishes_and_no_block_is_left(run):
    requests, policy, pool, overlap = run
    seen = []

    class Watch:
        max_model_len = getattr(policy, "max_model_len", None)
        max_prompt = getattr(policy, "max_prompt", None)

        def schedule(self, state):
            seen.append(state)
            free = state.pool.n_free
            plan = policy.schedule(state)
            assert state.pool.n_free == free and policy.schedule(state) == plan
            return plan

    trace = cp.simulate(requests, Watch(), cost, pool, overlap=overlap)
    cache = seen[-1]._books.cache
    assert seen[-1].pool.n_used == 0 and not cache.tables and not cache._holders
    assert len(cache._free) == len(cache._key_of) == sum(map(len, cache._with_key.values()))
    known, cached = {r.rid: r.n_prompt for r in requests}, {r.rid: 0 for r in requests}
    emitted = dict.fromkeys(known, 0)
    for step in trace.steps:
        assert step.blocks_used <= pool.n_blocks
        for rid in step.batch.preempted:
            cached[rid] = 0
        for chunk in step.batch:
            if not cached[chunk.rid]:
                assert chunk.start % pool.block_size == 0 and chunk.start < known[chunk.rid]
            else:
                assert chunk.start == cached[chunk.rid]
            cached[chunk.rid] = chunk.end
            if chunk.emits:
                known[chunk.rid] += 1
                emitted[chunk.rid] += 1
    assert emitted == {r.rid: n_outputs(r, policy) for r in requests}
    event(f"hits: {any(starts(trace).values())}, evictions: {bool(trace.preempted)}")


# --- on a model ---------------------------------------------------------------------------------------


torch = pytest.importorskip("torch")
from chunkprefill.engine import prompt_of  # noqa: E402
from tests.library.scheduling.test_engine import SCHEDULING, tiny  # noqa: E402


def alone(request, policy, block_size):
    prompt = prompt_of(request, tiny().config.vocab_size, block_size)
    return cp.generate(tiny(), prompt, n_outputs(request, policy))


@settings(max_examples=60, deadline=None)
@given(runs(most=5))
def test_a_model_says_the_same_with_hits_and_takes_the_simulator_s_steps(run):
    requests, policy, pool, overlap = run
    how = {"scheduling": SCHEDULING, "overlap": overlap}
    trace = cp.Engine(tiny(), policy, pool, cost=cost, **how).run(requests)
    assert trace.steps == cp.simulate(requests, policy, cost, pool, **how).steps
    for request in requests:
        assert trace.outputs[request.rid] == alone(request, policy, pool.block_size)
    event(f"hits: {any(starts(trace).values())}, evictions: {bool(trace.preempted)}, overlap: {overlap}")


@settings(max_examples=15, deadline=None)
@given(runs(most=4))
def test_measured_runs_say_the_same_too(run):
    requests, policy, pool, overlap = run
    trace = cp.Engine(tiny(), policy, pool, overlap=overlap).run(requests)
    for request in requests:
        assert trace.outputs[request.rid] == alone(request, policy, pool.block_size)


@pytest.mark.parametrize("same_step", [False, True])
def test_keys_and_values_of_a_hit_are_used(same_step):
    """Change what the shared blocks hold, and the request that found them says something else."""
    requests = [asks("a", ("x", 24), n_output=2), asks("b", ("x", 24), ("y", 5), n_output=6, at=0.0)]
    pool = cp.BlockPool(40, SIZE, prefix_caching=True)
    policy = cp.VllmV1(64 if same_step else 24)

    class Corrupting:
        def __init__(self, engine, blocks):
            self.engine, self.blocks = engine, blocks

        def schedule(self, state):
            if state.n_steps == 1 and self.blocks:
                with torch.inference_mode():
                    self.engine.cache.keys[:, self.blocks] += 3.0
                    self.engine.cache.values[:, self.blocks] -= 2.0
            return policy.schedule(state)

    said = []
    for blocks in ([], [1, 2]):
        engine = cp.Engine(tiny(), policy, pool, cost=cost)
        engine.policy = Corrupting(engine, blocks)
        trace = engine.run(requests)
        assert starts(trace) == {"a": 0, "b": 24}
        said.append(trace.outputs["b"])
    assert said[0] == alone(requests[1], policy, SIZE)
    assert said[1] != said[0]


def test_equal_segments_and_equal_block_hashes_are_equal_tokens():
    vocab = tiny().config.vocab_size
    long, short = prompt_of(asks(0, ("x", 20), ("y", 3)), vocab), prompt_of(asks(1, ("x", 12)), vocab)
    assert long[:12] == short and len(long) == 23
    one = prompt_of(cp.Request(0, 0, 11, 1, blocks=("h", "i")), vocab, 4)
    two = prompt_of(cp.Request(1, 0, 10, 1, blocks=("h", "j")), vocab, 4)
    assert one[:4] == two[:4] and one[4:8] != two[4:8] and len(one) == 11


def test_a_replay_finds_what_the_trace_found():
    pool = cp.BlockPool(30, SIZE, prefix_caching=True)
    requests = [asks(i, ("x", 16), (f"own {i}", 6), at=2.0 * i, n_output=6) for i in range(4)]
    trace = cp.simulate(requests, cp.VllmV1(32), cost, pool)
    again = cp.replay(trace, cp.Engine(tiny(), cp.VllmV1(32), pool))
    assert [s.batch for s in again.steps] == [s.batch for s in trace.steps]
    assert any(starts(again).values()) and again.outputs[3] == alone(requests[3], cp.VllmV1(), SIZE)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"segments": (("a", 4),)}, "request 1: segments of 4 tokens, n_prompt is 8"),
        ({"segments": (("a", 0), ("b", 8))}, "request 1: segment a must be.*at least 1, got 0"),
        ({"segments": (("a", 8),), "blocks": (1, 2)}, "request 1: its prompt is given twice"),
    ],
)
def test_what_a_request_shares_is_checked(change, message):
    with pytest.raises(ValueError, match=message):
        cp.Request(1, 0.0, 8, 1, **change)


def test_block_hashes_must_be_those_of_the_pool_s_blocks():
    request = cp.Request(1, 0.0, 8, 1, blocks=(7,))
    with pytest.raises(
        ValueError, match="request 1: 1 block hashes, but 8 prompt tokens have 2 whole blocks"
    ):
        cp.simulate([request], cp.VllmV1(), cost, cp.BlockPool(9, SIZE, prefix_caching=True))
    cp.simulate([request], cp.VllmV1(), cost, cp.BlockPool(9, 8, prefix_caching=True))


def test_a_trace_keeps_what_its_requests_share(tmp_path):
    requests = [asks(0, ("a", 9)), cp.Request(1, 0.0, 8, 1, blocks=("x", 3))]
    trace = cp.simulate(requests, cp.VllmV1(), cost)
    trace.save(tmp_path / "trace.json")
    assert cp.Trace.load(tmp_path / "trace.json").requests == trace.requests


def test_moves_that_amount_to_another_plan_are_refused():
    state = State(cp.BlockPool(9, SIZE, prefix_caching=True))
    state.arrive(asks("a", ("x", 8)))
    with pytest.raises(cp.ScheduleError, match="its moves amount to other tokens"):
        state.apply(cp.Plan({"a": 8}, (), (("a", 4),)))
    assert state.pool.n_used == 0
    state.apply(cp.Plan({"a": 8}, (), (("a", 8),)))
