"""Under an endless stream of others: who waits a bounded time, and who waits as long as the stream lasts."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chunkprefill as cp

SECOND = 1.0  # each step takes one


def stream(n, every, n_prompt, n_output):
    """Short, urgent requests, faster than they can be served."""
    return [cp.Request(f"s{i}", i * every, n_prompt, n_output, None, 0) for i in range(n)]


def times(policy, requests, rid):
    """When `rid` emitted its tokens."""
    trace = cp.simulate(requests, policy, lambda batch: SECOND)
    return [step.end for step in trace.steps for chunk in step.batch if chunk.rid == rid and chunk.emits]


FIRST_TOKEN_BOUNDED = [
    cp.RequestLevel(4),
    cp.PrefillFirst(16),
    cp.PrefillFirst(16, mixed=True),
    cp.PrefillFirst(16, 4),
    cp.PrefillFirst(16, 4, True),
    cp.Alternate(4),
    cp.SerialChunks(4),
    cp.ChunkedPrefill(16, 8),
    cp.Alternate(4, prefills=3, decodes=2),
    cp.ChunkedPrefill(None, 8, prefill_cap=12),
    cp.PrefillAware(12, 16, 8),
    cp.VllmV1(16, 8),
    cp.VllmV1(16, 8, 4),
    cp.VllmV1(50, 8, enable_chunked_prefill=False),
]
FIRST_TOKEN_UNBOUNDED = [
    cp.ChunkedPrefill(16, 8, "shortest"),
    cp.ChunkedPrefill(16, 8, "priority"),
    cp.VllmV1(16, 8, policy="priority"),
]
GAP_BOUNDED = [
    cp.RequestLevel(4),
    cp.Alternate(4),
    cp.SerialChunks(4),
    cp.ChunkedPrefill(16, 8),
    cp.VllmV1(16, 8),
    cp.ChunkedPrefill(None, 8, prefill_cap=12),
    cp.PrefillAware(12, 16, 8),
    cp.ChunkedPrefill(16, 8, "shortest"),
    cp.ChunkedPrefill(16, 8, "priority"),
    cp.ChunkedPrefill(16, 8, "hrrn"),
    cp.VllmV1(16, 8, policy="priority"),
]
GAP_UNBOUNDED = [cp.PrefillFirst(16), cp.PrefillFirst(16, 4), cp.PrefillFirst(16, mixed=True)]

shapes = st.tuples(st.sampled_from((0.1, 0.25, 0.4)), st.integers(3, 9), st.integers(1, 6))


@pytest.mark.parametrize("policy", FIRST_TOKEN_BOUNDED, ids=str)
@settings(max_examples=15, deadline=None)
@given(shapes)
def test_the_wait_for_a_first_token_does_not_depend_on_who_comes_later(policy, shape):
    """A long, unimportant prompt among short, urgent ones that never stop."""
    every, n_prompt, n_output = shape
    long = cp.Request("long", 2.0, 45, 3, None, 9)
    waits = [times(policy, [*stream(n, every, n_prompt, n_output), long], "long")[0] for n in (150, 300)]
    assert waits[0] == waits[1]
    ahead = sum(r.n_prompt + r.n_output for r in stream(300, every, n_prompt, n_output) if r.arrival <= 2.0)
    assert waits[0] - long.arrival <= 45 + 3 * ahead, "longer than serving, one by one, all who came before"


@pytest.mark.parametrize("policy", FIRST_TOKEN_UNBOUNDED, ids=str)
@settings(max_examples=15, deadline=None)
@given(st.tuples(st.sampled_from((0.1, 0.2)), st.integers(6, 9), st.integers(1, 3)))
def test_where_others_may_pass_the_wait_lasts_as_long_as_the_stream(policy, shape):
    every, n_prompt, n_output = shape
    long = cp.Request("long", 2.0, 45, 3, None, 9)
    waits = [times(policy, [*stream(n, every, n_prompt, n_output), long], "long")[0] for n in (150, 300)]
    assert waits[0] > 150 * every and waits[1] > 300 * every and waits[1] > 1.5 * waits[0]


def first_grants(trace):
    """When each request was first given a token."""
    granted = {}
    for step in trace.steps:
        for rid in step.batch.rid:
            granted.setdefault(rid, step.start)
    return granted


long_among_short = st.tuples(st.sampled_from((0.1, 0.2, 0.5, 0.9)), st.integers(3, 9), st.integers(1, 3))


@settings(max_examples=25, deadline=None)
@given(long_among_short, st.sampled_from((0.5, 3.0, 10.0)))
def test_with_aging_only_those_who_come_soon_after_may_pass(shape, aging):
    """However overloaded: a second waited counts as `aging` tokens, so the lead of a newcomer is bounded."""
    every, n_prompt, n_output = shape
    long = cp.Request("long", 2.0, 45, 3, None, 0)
    waits = []
    for n in (150, 400):
        requests = [*stream(n, every, n_prompt, n_output), long]
        trace = cp.simulate(requests, cp.ChunkedPrefill(16, 8, "shortest", aging=aging), lambda batch: SECOND)
        granted = first_grants(trace)
        waits.append(granted["long"] - long.arrival)
        ahead = [r for r in requests if granted[r.rid] < granted["long"]]
        assert max(r.arrival for r in ahead) <= long.arrival + (45 - n_prompt) / aging
    soon = long.arrival + 45 / aging + every
    if soon < 150 * every:  # the stream goes on for longer than anyone can pass
        assert waits[0] == waits[1]
        n_ahead = soon / every + 1
        assert waits[0] <= 45 + n_ahead * (n_prompt + n_output)


@settings(max_examples=25, deadline=None)
@given(long_among_short)
def test_under_hrrn_only_the_first_part_of_a_wait_can_be_passed(shape):
    """Who came later than the first 1 - q/n of the wait never passes, whatever the load."""
    every, n_prompt, n_output = shape
    long = cp.Request("long", 2.0, 45, 3, None, 0)
    requests = [*stream(300, every, n_prompt, n_output), long]
    trace = cp.simulate(requests, cp.ChunkedPrefill(16, 8, "hrrn"), lambda batch: SECOND)
    granted = first_grants(trace)
    wait = granted["long"] - long.arrival
    ahead = [r for r in requests if granted[r.rid] < granted["long"]]
    assert max(r.arrival for r in ahead) <= long.arrival + wait * (1 - n_prompt / 45) + 1e-9


def test_hrrn_bounds_a_wait_where_shortest_first_starves():
    """10 tokens a second for a server of 9, a document of 90 among prompts of 10: 10 · (1 - 10/90) < 9."""
    document = cp.Request("document", 5.0, 90, 1)
    waits = {}
    for order in ("shortest", "hrrn"):
        for n in (200, 400, 800):
            chats = [cp.Request(f"c{i}", float(i), 10, 1) for i in range(n)]
            policy = cp.ChunkedPrefill(9, 64, order)
            waits[order, n] = times(policy, [*chats, document], "document")[0] - document.arrival
    assert waits["shortest", 400] > 400 and waits["shortest", 800] > 800
    assert waits["hrrn", 200] == waits["hrrn", 400] == waits["hrrn", 800] < 150


def worst_gap(policy, n, every, n_prompt):
    """The longest silence of a chat that decodes when the stream begins."""
    chat = cp.Request("chat", 0.0, 4, 12, None, 0)
    later = [cp.Request(r.rid, 3.0 + r.arrival, r.n_prompt, 1) for r in stream(n, every, n_prompt, 1)]
    at = times(policy, [chat, *later], "chat")
    return max(b - a for a, b in pairwise(at))


@pytest.mark.parametrize("policy", GAP_BOUNDED, ids=str)
def test_a_decode_goes_on(policy):
    gaps = [worst_gap(policy, n, 0.25, 8) for n in (100, 300)]
    assert gaps[0] == gaps[1] <= 2 * SECOND  # Alternate: every other step


@pytest.mark.parametrize("policy", GAP_UNBOUNDED, ids=str)
def test_prefilling_first_silences_a_decode_for_as_long_as_prompts_come(policy):
    gaps = [worst_gap(policy, n, 0.25, 16) for n in (100, 300)]
    assert gaps[0] > 60 * SECOND and gaps[1] > 2.5 * gaps[0]


def test_below_the_number_of_decodes_the_tail_waits_for_the_head():
    """Budget 4, 8 decodes: the first four run on, the last four stand still until those have finished."""
    requests = [cp.Request(i, 0.0, 1, 10) for i in range(8)]
    for policy in (cp.ChunkedPrefill(4), cp.VllmV1(4)):
        trace = cp.simulate(requests, policy, lambda batch: SECOND)
        gaps = {r.rid: 0.0 for r in requests}
        for r in requests:
            at = [s.end for s in trace.steps for c in s.batch if c.rid == r.rid and c.emits]
            gaps[r.rid] = max(b - a for a, b in zip([0.0, *at], at))
        assert all(gaps[i] <= 1 for i in range(4)) and all(gaps[i] > 9 for i in range(4, 8))
