"""The contract: each way to break it is refused by rule, request and numbers, and changes nothing."""

from __future__ import annotations

import copy
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chunkprefill as cp
from chunkprefill.scheduling.state import State
from tests.library.scheduling.cases import cost, runs
from tests.library.scheduling.test_loop import look


def a_state():
    """0 decodes, 1 is half prefilled, 2 waits, 3 has finished; 10 blocks of 4, of which 6 are used."""
    state = State(cp.BlockPool(10, 4))
    for rid, n_prompt, n_output in ((0, 5, 9), (1, 30, 4), (2, 12, 2), (3, 3, 1)):
        state.arrive(cp.Request(rid, 0.0, n_prompt, n_output))
    state.commit(state.apply(cp.Plan({0: 5, 1: 15, 3: 3})))
    assert (state.pool.n_used, [s.rid for s in state.running], [s.rid for s in state.waiting]) == (
        6,
        [0, 1],
        [2],
    )
    return state


BAD = {
    "unknown": (cp.Plan({7: 1}), "request 7: 1 tokens planned.*no such request has arrived.*3 requests"),
    "finished": (cp.Plan({0: 1, 3: 1}), "request 3: 1 tokens planned.*finished"),
    "too many": (cp.Plan({0: 1, 1: 16}), "request 1: 16 tokens planned, 15 pending"),
    "too many at once": (cp.Plan({2: 120}), "request 2: 120 tokens planned, 12 pending"),
    "zero": (cp.Plan({0: 0}), "request 0: 0 tokens planned, 1 pending.*at least 1"),
    "negative": (cp.Plan({1: -4}), "request 1: -4 tokens planned, 15 pending.*at least 1"),
    "half": (cp.Plan({1: 0.5}), "request 1: 0.5 tokens planned.*whole number"),
    "float": (cp.Plan({1: 2.0}), "request 1: 2.0 tokens planned.*whole number"),
    "text": (cp.Plan({0: "1"}), "request 0: '1' tokens planned.*whole number"),
    "none": (cp.Plan({0: None}), "request 0: None tokens planned.*whole number"),
    "planned and evicted": (cp.Plan({0: 1}, (0,)), "request 0: 1 tokens planned.*evicted by the same plan"),
    "evicts who waits": (cp.Plan({0: 1}, (2,)), "request 2: to be evicted.*holds no cache.*waits"),
    "evicts who is gone": (cp.Plan({0: 1}, (3,)), "request 3: to be evicted.*holds no cache.*finished"),
    "evicts a stranger": (cp.Plan({0: 1}, (9,)), "request 9: to be evicted.*no such request"),
    "evicts a list": (cp.Plan({0: 1}, ([],)), "to be evicted.*no such request"),
    "evicts twice": (cp.Plan({0: 1}, (1, 1)), "request 1: evicted twice"),
    "out of blocks": (cp.Plan({0: 1, 1: 15, 2: 8}), "request 2: out of blocks, 8 tokens.*2 more.*0 of 10"),
    "empty": (cp.Plan({}), "request 0: empty plan.*1 tokens pending, 3 requests"),
}


@pytest.mark.parametrize("plan, message", BAD.values(), ids=BAD)
def test_a_bad_plan_is_refused_and_changes_nothing(plan, message):
    state = a_state()
    before, tables = look(state), copy.deepcopy(state.tables)
    with pytest.raises(cp.ScheduleError, match=message):
        state.apply(plan)
    assert look(state) == before and state.tables == tables
    state.commit(state.apply(cp.Plan({0: 1, 1: 12, 2: 4})))  # and the state is as good as before
    assert state.pool.n_free == 0


def test_eviction_makes_room_for_the_same_plan():
    state = a_state()
    state.apply(cp.Plan({0: 1, 2: 12}, (1,)))
    assert [s.rid for s in state.waiting] == [1] and [s.rid for s in state.running] == [0, 2]
    assert state.waiting[0].cached == 0 and state.pool.n_used == 5


@given(st.permutations([0, 1, 2]))
def test_the_evicted_stand_at_the_front_and_keep_their_outputs(order):
    state = State()
    for rid in range(4):
        state.arrive(cp.Request(rid, 0.0, 4, 9))
    state.commit(state.apply(cp.Plan({0: 4, 1: 4, 2: 4})))
    state.apply(cp.Plan({}, tuple(order)))
    assert [s.rid for s in state.waiting] == [*reversed(order), 3] and len(state.running) == 0
    assert [s.generated for s in state.waiting] == [1, 1, 1, 0]
    assert [s.pending for s in state.waiting] == [5, 5, 5, 4] and state.pool.n_used == 0


class Bad:
    """A policy that behaves for two steps and then does `deed`."""

    def __init__(self, deed):
        self.deed, self.state, self.before, self.good = deed, None, None, cp.ChunkedPrefill(6)

    def schedule(self, state):
        if state.n_steps < 2:
            return self.good.schedule(state)
        self.state, self.before = state, look(state)
        plan = self.deed(state)
        return self.good.schedule(state) if plan is None else plan


REQUESTS = [
    cp.Request(0, 0.0, 4, 5),
    cp.Request(1, 0.0, 9, 3),
    cp.Request(2, 0.0, 8, 3),
    cp.Request(3, 99.0, 5, 2),
]


def set_slot(seq, name, value):
    object.__setattr__(seq, name, value)  # past the lock


DEEDS = {
    "plans who has not come yet": lambda s: cp.Plan({3: 1}),
    "plans nothing, for ever": lambda s: cp.Plan({}),
    "plans too much": lambda s: cp.Plan({1: 99}),
    "returns nothing": lambda s: "nothing",
    "returns a dict": lambda s: {0: 1},
    "maps nothing": lambda s: cp.Plan([0, 1]),
    "evicts a word": lambda s: cp.Plan({0: 1}, "0"),
    "evicts a number": lambda s: cp.Plan({0: 1}, 0),
    "sets cached": lambda s: setattr(s.running[0], "cached", 0),
    "sets generated": lambda s: setattr(s.running[0], "generated", 3),
    "sets known past the lock": lambda s: set_slot(s.running[0], "known", 99),
    "sets cached past the lock": lambda s: set_slot(s.running[-1], "cached", 0),
    "deletes a field": lambda s: delattr(s.running[0], "cached"),
    "pops the queue": lambda s: s.waiting.popleft(),
    "clears the running": lambda s: s.running.clear(),
    "deletes one who runs": lambda s: s.running.__delitem__(0),
    "sets one who runs": lambda s: s.running.__setitem__(0, s.waiting[0]),
    "appends": lambda s: s.running.append(s.waiting[0]),
    "turns the clock": lambda s: setattr(s, "now", 0.0),
    "replaces the queue": lambda s: setattr(s, "waiting", []),
    "takes blocks": lambda s: s.pool.take(1),
    "frees blocks": lambda s: setattr(s.pool, "n_free", 100),
    "applies its own plan": lambda s: s.apply(cp.Plan({0: 1})),
    "commits": lambda s: s.commit(cp.Batch((0,), (4,), (1,), (True,))),
    "lets one arrive": lambda s: s.arrive(REQUESTS[3]),
    "asks another": lambda s: s.tables.clear(),
    "asks how long": lambda s: cp.Plan({0: s.running[0].n_output}),
    "asks for the prompt": lambda s: cp.Plan({0: len(s.running[0].prompt)}),
    "asks who comes": lambda s: cp.Plan({0: len(s.requests)}),
}


@pytest.mark.parametrize("deed", DEEDS.values(), ids=DEEDS)
def test_a_bad_policy_is_refused_and_the_state_is_as_it_was(deed):
    bad = Bad(deed)
    with pytest.raises(cp.ScheduleError):
        cp.simulate(REQUESTS, bad, cost, cp.BlockPool(12, 2))
    assert look(bad.state) == bad.before


@pytest.mark.parametrize("name, value", [("cached", 2), ("known", 6), ("known", 99)])
def test_what_is_done_to_the_queue_is_found_when_it_is_admitted(name, value):
    state, before = a_state(), None

    class Sly:
        def schedule(self, state):
            object.__setattr__(state.waiting[0], name, value)
            return cp.Plan({2: 4})

    before = look(state)
    with pytest.raises(cp.ScheduleError, match=f"request 2: a policy only looks.*became {value}"):
        state.apply(state.ask(Sly()))
    assert look(state) == before


def test_the_message_names_rule_request_and_numbers():
    for name, pattern in {
        "sets known past the lock": r"request 0: a policy only looks.*known 6 became 99",
        "sets cached": r"request 0: a policy only looks.*cached to 0",
        "asks how long": r"request 0: a policy only looks.*'n_output'",
        "plans who has not come yet": r"request 3: 1 tokens planned.*no such request has arrived",
    }.items():
        with pytest.raises(cp.ScheduleError, match=pattern):
            cp.simulate(REQUESTS, Bad(DEEDS[name]), cost, cp.BlockPool(12, 2))


def test_nothing_public_that_a_policy_sees_leads_to_the_future():
    seen = []

    class Nosy:
        def schedule(self, state):
            things = [state, state.pool, *state.running, *state.waiting] if state.now < 50 else []
            for thing in things:
                for name in dir(thing):
                    if not name.startswith("_") and name not in ("tables",):
                        seen.append((name, getattr(thing, name)))
            return cp.ChunkedPrefill(8).schedule(state)

    secret = 7919
    cp.simulate([cp.Request(0, 0.0, 3, 2), cp.Request("later", 50.0, secret, secret)], Nosy(), cost)
    assert seen and not [name for name, value in seen if value in (secret, 50.0)]
    assert not hasattr(cp.Sequence(0, 1, 0.0), "n_output")


def test_a_livelock_is_an_error():
    class Restless:
        def schedule(self, state):
            if state.running:
                return cp.Plan({}, tuple(s.rid for s in state.running))
            return cp.Plan({state.waiting[0].rid: 1})

    with pytest.raises(cp.ScheduleError, match=r"request 0: livelock, \d+ evictions since a token"):
        cp.simulate([cp.Request(0, 0.0, 4, 2)], Restless(), cost)


@settings(max_examples=150, deadline=None)
@given(runs(), st.data())
def test_a_pool_too_small_is_refused_before_anything_runs(run, data):
    requests, policy, _, overlap = run
    size = data.draw(st.sampled_from((1, 3, 16)))
    limit = getattr(policy, "max_model_len", None)
    outs = [r.n_output if limit is None else min(r.n_output, limit - r.n_prompt) for r in requests]
    needs = [-(-(r.n_prompt + n - 1) // size) for r, n in zip(requests, outs)]
    ran = []

    class Counting:
        def launch(self, batch, tables):
            ran.append(batch)
            raise AssertionError

    if max(needs) > 1:
        pool = cp.BlockPool(max(needs) - 1, size)
        culprit = requests[needs.index(max(needs))].rid
        with pytest.raises(
            cp.ScheduleError, match=rf"request .*: could never finish.*need \d+ blocks of {size}"
        ) as e:
            cp.serve(requests, policy, Counting(), pool, overlap=overlap)
        assert not ran and (needs.count(max(needs)) > 1 or str(culprit) in str(e.value))
    cp.simulate(requests, policy, cost, cp.BlockPool(max(needs), size))  # and just enough is enough


def test_prompts_that_a_setting_forbids_are_refused_up_front():
    for policy, message in (
        (cp.VllmV1(max_model_len=20), "request 5: 20 prompt tokens, max_model_len is 20"),
        (cp.VllmV1(16, enable_chunked_prefill=False), "request 5: 20 prompt tokens.*at most 16"),
    ):
        with pytest.raises(cp.ScheduleError, match=message):
            cp.simulate([cp.Request(5, 0, 20, 2)], policy, cost)


def test_a_lone_resumed_sequence_may_exceed_a_budget_that_its_outputs_outgrew():
    policy = cp.VllmV1(8, enable_chunked_prefill=False)
    requests = [cp.Request(i, 0, 7, 12) for i in range(2)]
    trace = cp.simulate(requests, policy, cost, cp.BlockPool(20, 1))
    over = [s.batch for s in trace.steps if sum(s.batch.length) > 8]
    assert over and all(len(b) == 1 and b.length[0] > 7 for b in over)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"n_prompt": 0}, "request 1: n_prompt must be a whole number of at least 1, got 0"),
        ({"n_prompt": 2.5}, "request 1: n_prompt.*2.5"),
        ({"n_prompt": True}, "request 1: n_prompt.*True"),
        ({"n_output": 0}, "request 1: n_output.*got 0"),
        ({"arrival": -1.0}, "request 1: arrival, in s, must be a finite number of at least 0, got -1.0"),
        ({"arrival": float("nan")}, "request 1: arrival.*nan"),
        ({"arrival": float("inf")}, "request 1: arrival.*inf"),
        ({"arrival": "soon"}, "request 1: arrival.*'soon'"),
        ({"prompt": (1, 2)}, "request 1: prompt has 2 tokens, n_prompt is 3"),
        ({"prompt": (1, 2, -1)}, "request 1: a token id.*-1"),
        ({"priority": 0.5}, "request 1: priority must be a whole number, got 0.5"),
        ({"rid": None}, "request None: rid"),
        ({"rid": 1.5}, "request 1.5: rid"),
    ],
)
def test_a_request_is_checked_when_it_is_made(change, message):
    good = {"rid": 1, "arrival": 0.0, "n_prompt": 3, "n_output": 2}
    with pytest.raises(ValueError, match=message):
        cp.Request(**{**good, **change})


def test_a_name_used_twice_is_refused():
    with pytest.raises(ValueError, match="request 4: name used twice among 2"):
        cp.simulate([cp.Request(4, 0, 1, 1), cp.Request(4, 1, 1, 1)], cp.ChunkedPrefill(4), cost)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: cp.BlockPool(0), "n_blocks must be.*got 0"),
        (lambda: cp.BlockPool(4, 0), "block_size must be.*got 0"),
        (lambda: cp.BlockPool(2.0), "n_blocks must be.*2.0"),
        (lambda: cp.ChunkedPrefill(0), "ChunkedPrefill: token_budget.*got 0"),
        (lambda: cp.ChunkedPrefill(8, 0), "ChunkedPrefill: max_seqs.*got 0"),
        (lambda: cp.ChunkedPrefill(8, order="random"), "ChunkedPrefill: order.*'random'"),
        (lambda: cp.PrefillFirst(8, 0), "PrefillFirst: chunk.*got 0"),
        (lambda: cp.Alternate(-1), "Alternate: chunk.*got -1"),
        (lambda: cp.Alternate(8, prefills=0), "Alternate: prefills.*got 0"),
        (lambda: cp.Alternate(8, decodes=2.0), "Alternate: decodes.*2.0"),
        (lambda: cp.ChunkedPrefill(8, prefill_cap=0), "ChunkedPrefill: prefill_cap.*got 0"),
        (lambda: cp.ChunkedPrefill(None), "token_budget and prefill_cap are None"),
        (lambda: cp.ChunkedPrefill(8, order="shortest", aging=-1), "aging.*at least 0, got -1"),
        (lambda: cp.ChunkedPrefill(8, order="shortest", aging="1"), "aging.*got '1'"),
        (lambda: cp.ChunkedPrefill(8, aging=2.0), "aging is for order 'shortest', got 'arrival'"),
        (lambda: cp.PrefillAware(64, 32), "small is 64, more than large, which is 32"),
        (lambda: cp.PrefillAware(0, 32), "PrefillAware: small.*got 0"),
        (lambda: cp.SerialChunks(1.5), "SerialChunks: chunk.*1.5"),
        (lambda: cp.RequestLevel(None), "RequestLevel: batch_size.*None"),
        (lambda: cp.VllmV1(0), "VllmV1: max_num_batched_tokens.*got 0"),
        (lambda: cp.VllmV1(policy="lifo"), "VllmV1: policy.*'lifo'"),
        (lambda: cp.VllmV1(watermark=1.0), "VllmV1: watermark.*1.0"),
        (lambda: cp.VllmV1(long_prefill_token_threshold=-1), "VllmV1: long_prefill_token_threshold.*-1"),
        (lambda: cp.SchedulerCost(-1.0), "SchedulerCost: s0.*-1.0"),
        (lambda: cp.Roofline(flops=float("nan")), "Roofline: flops.*nan"),
    ],
)
def test_arguments_are_checked_by_name(make, message):
    with pytest.raises(ValueError, match=re.compile(message)):
        make()


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_a_price_must_be_a_time(seconds):
    requests = [cp.Request(0, 0, 3, 2)]
    with pytest.raises(ValueError, match="execution took"):
        cp.simulate(requests, cp.ChunkedPrefill(4), lambda batch: seconds)
    with pytest.raises(ValueError, match="scheduling took"):
        cp.simulate(requests, cp.ChunkedPrefill(4), cost, scheduling=lambda batch: seconds)


def test_numpy_numbers_and_other_mappings_are_welcome():
    np = pytest.importorskip("numpy")
    state = a_state()
    batch = state.apply(cp.Plan({0: np.int64(1), 1: np.int32(7)}, []))
    assert batch.length == (1, 7) and all(type(n) is int for n in batch.length)
    assert cp.Request(np.int64(3), np.float32(1), np.int64(4), 1) == cp.Request(3, 1.0, 4, 1)


def test_policies_take_their_arguments_by_position():
    assert cp.PrefillFirst(8, 4, True) == cp.PrefillFirst(max_tokens=8, chunk=4, mixed=True)
    assert cp.ChunkedPrefill(8, 2, "shortest") == cp.ChunkedPrefill(
        token_budget=8, max_seqs=2, order="shortest"
    )
    assert cp.Request(1, 2.0, 3, 4, (5, 6, 7), 8).priority == 8
    assert cp.SchedulerCost(1, 2, 3, 4) == cp.SchedulerCost(s0=1, per_decode=2, per_chunk=3, per_token=4)
    assert cp.Plan({1: 2}, (3,)).preempted == (3,) and cp.BlockPool(3, 4).block_size == 4


def test_a_state_can_be_copied_to_look_at_later():
    state = a_state()
    assert look(copy.deepcopy(state)) == look(state)


def test_a_state_made_by_hand_serves_for_one_decision():
    """For exercises and for looking at a policy: who runs, who waits, and what would you do?"""
    running = [cp.Sequence("chat", 10, 0.0, cached=12, generated=3), cp.Sequence("doc", 50, 0.1, cached=16)]
    state = State(cp.BlockPool(20, 8), 1.5, [cp.Sequence("late", 6, 1.0)], running)
    assert (state.now, state.pool.n_used, len(state)) == (1.5, 4, 3)
    assert [s.rid for s in state.running] == ["chat", "doc"] and state.running[0].decoding
    plan = cp.ChunkedPrefill(16).schedule(state)
    assert plan == cp.Plan({"chat": 1, "doc": 15}) and list(plan.tokens) == ["chat", "doc"]
    assert cp.ChunkedPrefill(16, order="shortest").schedule(state).tokens == {"chat": 1, "late": 6, "doc": 9}
    batch = state.apply(plan)
    assert batch.chunks == (cp.Chunk("chat", 12, 1, True), cp.Chunk("doc", 16, 15, False))
    assert state.commit(batch) == [] and state.running[0].generated == 4
    with pytest.raises(ValueError, match="request 1: runs with 3 of 3 tokens cached"):
        State(running=[cp.Sequence(1, 3, 0.0, cached=3)])
    with pytest.raises(ValueError, match="2 blocks asked for, 1 of 1 free"):
        State(cp.BlockPool(1, 8), running=[cp.Sequence(1, 30, 0.0, cached=9)])


def test_lines_are_read_by_place_by_name_and_in_order():
    state = a_state()
    first, second = state.running
    assert state.running[0] is first and state.running[-1] is second and state.running[:] == [first, second]
    assert (
        state.running.get(1) is second
        and state.running.get(2) is None
        and next(reversed(state.running)) is second
    )
    assert 0 in state.running and first in state.running and 2 not in state.running and bool(state.waiting)
    assert list(state.running.values()) == [first, second] and len(state.waiting) == 1
    with pytest.raises(IndexError):
        state.running[2]
    assert not hasattr(state.running, "append") and not hasattr(first, "n_output")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"blocks": ([1],)}, "request a: blocks holds [1], which is no hash"),
        ({"blocks": "ab"}, "request a: blocks must list a hash of each whole block, got 'ab'"),
        ({"blocks": 3}, "request a: blocks must list"),
        ({"segments": "ab"}, "request a: segments must list (name, tokens) pairs, got 'ab'"),
        ({"segments": ("ab",)}, "request a: segments must list (name, tokens) pairs, got ('ab',)"),
        ({"segments": 3}, "request a: segments must list"),
    ],
)
def test_what_a_prompt_shares_is_checked_by_name(fields, words):
    with pytest.raises(ValueError) as caught:
        cp.Request("a", 0.0, 2, 1, **fields)
    assert words in str(caught.value)


def test_block_hashes_that_do_not_match_are_said_before_anything_runs():
    ran = []
    requests = [cp.Request("a", 0.0, 4, 1), cp.Request("b", 9.0, 8, 1, blocks=("h",))]
    with pytest.raises(ValueError, match="request b: 1 block hashes, but 8 prompt tokens have 2"):
        cp.simulate(
            requests, cp.VllmV1(8), lambda b: ran.append(b) or 1.0, cp.BlockPool(9, 4, prefix_caching=True)
        )
    assert not ran


def test_an_executor_that_is_none_is_said():
    from chunkprefill.scheduling.loop import serve

    with pytest.raises(ValueError, match=r"^executor is None: it has no launch\(batch, tables\)"):
        serve([cp.Request("a", 0.0, 4, 1)], cp.VllmV1(8), None)
