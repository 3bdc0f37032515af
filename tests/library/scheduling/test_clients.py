"""A closed loop: never more than n requests with the server, each sent when one is answered; and arguments."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chunkprefill as cp
from tests.library.scheduling.cases import cost, policies, workloads


@settings(max_examples=80, deadline=None)
@given(workloads(), policies, st.integers(1, 5), st.booleans())
def test_each_request_is_sent_when_another_is_answered(requests, policy, n, overlap):
    trace = cp.simulate(cp.clients(n, requests), policy, cost, overlap=overlap)
    told = sorted(requests, key=lambda r: r.arrival)
    assert {r.rid for r in trace.requests} == {r.rid for r in requests}
    sent = {r.rid: r.arrival for r in trace.requests}
    answered = {
        r.rid: end
        for r, end in zip(trace.requests, (cp.latency(trace) + [r.arrival for r in trace.requests]))
    }
    assert all(end == end for end in answered.values()), "every request is served"
    moments = sorted(answered.values())
    for place, request in enumerate(told):
        if place < n:
            assert sent[request.rid] == request.arrival
        else:  # at its own arrival, or when the request that made room for it was answered
            assert sent[request.rid] == pytest.approx(max(request.arrival, moments[place - n]))
    for rid in sent:  # at that moment at most n − 1 others are with the server
        others = [o for o in sent if o != rid and sent[o] <= sent[rid] < answered[o] - 1e-12]
        assert len(others) <= n - 1


def test_one_client_has_the_server_to_itself():
    requests = [cp.Request(i, 0.0, 10, 3) for i in range(4)]
    trace = cp.simulate(cp.clients(1, requests), cp.ChunkedPrefill(16), lambda batch: 1.0)
    assert [r.arrival for r in trace.requests] == [0.0, 3.0, 6.0, 9.0]
    assert list(cp.ttft(trace)) == [1.0] * 4
    assert all(len(step.batch) == 1 for step in trace.steps)


def test_more_clients_than_requests_is_an_open_loop():
    requests = [cp.Request(i, 0.3 * i, 10, 3) for i in range(4)]
    for overlap in (False, True):
        closed = cp.simulate(cp.clients(9, requests), cp.ChunkedPrefill(16), cost, overlap=overlap)
        assert closed == cp.simulate(requests, cp.ChunkedPrefill(16), cost, overlap=overlap)
    assert not cp.simulate(cp.clients(2, []), cp.ChunkedPrefill(16), cost).requests


@pytest.mark.parametrize("overlap", [False, True])
def test_an_engine_serves_clients_with_the_steps_of_the_simulator_and_its_own_tokens(overlap):
    pytest.importorskip("torch")
    model = cp.load_model("tiny")
    requests = [cp.Request(i, 0.0, 5 + i, 4) for i in range(7)]
    closed, policy = cp.clients(2, requests), cp.ChunkedPrefill(8)
    trace = cp.Engine(model, policy, cost=cost, overlap=overlap).run(closed)
    assert trace.steps == cp.simulate(closed, policy, cost, overlap=overlap).steps
    alone = cp.Engine(model, policy, cost=cost).run(requests)
    assert trace.outputs == alone.outputs
    measured = cp.Engine(model, policy, overlap=overlap).run(closed)
    assert measured.outputs == alone.outputs
    assert all(len(step.batch) <= 2 for step in measured.steps)


def test_a_request_evicted_and_resumed_is_answered_once():
    requests = [cp.Request(i, 0.0, 12, 12) for i in range(6)]
    pool = cp.BlockPool(8, 4)
    trace = cp.simulate(cp.clients(3, requests), cp.ChunkedPrefill(24), cost, pool)
    assert trace.preempted
    assert sorted(cp.latency(trace) > 0) == [True] * 6


@pytest.mark.parametrize("n", [0, -1, 1.5, "2", None, True])
def test_a_number_of_clients_that_is_none(n):
    with pytest.raises(ValueError, match="the number of clients, must be a whole number of at least 1"):
        cp.clients(n, [])


REQUESTS = [cp.Request(0, 0.0, 4, 2)]
POLICY = cp.ChunkedPrefill(8)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: cp.simulate(REQUESTS, cp.ChunkedPrefill), "policy is the class ChunkedPrefill"),
        (lambda: cp.simulate(REQUESTS, 512), "policy is 512: it has no schedule"),
        (
            lambda: cp.simulate(REQUESTS, POLICY, None, 10),
            r"pool is 10: a BlockPool is needed, such as BlockPool\(n_blocks\), or None",
        ),
        (lambda: cp.simulate(REQUESTS, POLICY, None, cp.BlockPool), "pool is <class"),
        (lambda: cp.simulate(REQUESTS, POLICY, 5), "cost is 5"),
        (lambda: cp.simulate(REQUESTS, POLICY, cp.Roofline), "cost is the class Roofline"),
        (lambda: cp.simulate(REQUESTS, POLICY, scheduling=0.1), "scheduling is 0.1"),
        (lambda: cp.simulate(5, POLICY), "requests is 5"),
        (lambda: cp.simulate([5], POLICY), "entry 0 of the requests is 5"),
        (lambda: cp.clients(2, [5]), "entry 0 of the requests is 5"),
        (lambda: list(cp.clients(2, REQUESTS)), "2 clients send when they are answered"),
        (lambda: cp.sweep({"x": cp.clients(2, REQUESTS)}, [POLICY], progress=False), "clients send when"),
        (lambda: cp.Engine(cp.load_model("tiny"), cp.ChunkedPrefill), "policy is the class ChunkedPrefill"),
        (lambda: cp.Engine(cp.load_model("tiny"), POLICY, 10), "pool is 10"),
        (lambda: cp.Engine(cp.load_model("tiny"), POLICY).run([5]), "entry 0 of the requests is 5"),
        (lambda: cp.generate(cp.load_model("tiny"), None, 3), "the prompt is None"),
        (lambda: cp.generate("tiny", [1], 3), "model is 'tiny': a model is needed"),
        (lambda: cp.prefill("tiny", [1], None), "model is 'tiny'"),
        (lambda: cp.prefill(cp.load_model("tiny"), [1], None), "cache is None: a KVCache is needed"),
        (lambda: cp.KVCache("tiny", 5), "config is 'tiny': a Config is needed"),
        (lambda: cp.load_tokenizer("tiny").decode(None), "a list of token ids is needed, this is None"),
        (lambda: cp.load_tokenizer("tiny").decode(["a"]), "a list of token ids is needed"),
        (lambda: cp.load_tokenizer("tiny").decode([-1]), "a list of token ids is needed"),
    ],
)
def test_an_argument_of_a_wrong_kind_is_one_clear_line(run, message):
    pytest.importorskip("torch")  # some of them are the model's
    with pytest.raises(ValueError, match=message) as error:
        run()
    assert "\n" not in str(error.value)
