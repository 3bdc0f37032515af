"""Chapter 4's claims: each holds because of its conditions, and its numbers are those of a plain count."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunkprefill.scheduling.core import Request
from chunkprefill.scheduling.policies import ChunkedPrefill, PrefillFirst
from chunkprefill.simulation.published import published
from chunkprefill.simulation.simulate import simulate
from chunkprefill_course.evidence import tradeoff as evidence
from chunkprefill_course.evidence.evidence import both_sides

CLAIMS = [
    evidence.piggyback,
    evidence.mixing_loses,
    evidence.throughput_when,
    evidence.ttft_price,
    evidence.fairness,
    evidence.bubbles,
]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda f: f.__name__)
def test_each_claim_holds_under_its_conditions_and_not_without_one(claim):
    both = both_sides(claim)
    assert both.sound, str(both)
    assert both.claimed.claim == claim.__name__.replace("_", "-")
    assert str(both) == str(both_sides(claim)), "simulated numbers are the same at every run"


@given(st.integers(0, 600), st.integers(0, 4000), st.integers(0, 64), st.integers(1, 4000))
def test_a_mixed_step_holds_what_it_says(chunk, start, n_decodes, context):
    batch = evidence.mixed(chunk=chunk, start=start, n_decodes=n_decodes, context=context)
    totals = batch.totals()
    assert totals.n_tokens == chunk + n_decodes
    assert totals.n_decodes == n_decodes and totals.decode_context == n_decodes * context
    assert totals.chunks == (((start, chunk),) if chunk else ())
    assert totals.n_emits == n_decodes


@pytest.mark.parametrize("device", ["rtx4090", "rtxpro6000", "h100"])
def test_riding_along_is_cheap_on_every_device_with_published_timings(device):
    assert evidence.piggyback(device=device).holds


def test_no_single_budget_decides_whether_chunks_raise_throughput():
    """Gains are those of each budget by itself, on both sides of zero: a verdict on one of them would be luck."""
    found = evidence.gains(ChunkedPrefill)
    assert len(found) == len(evidence.BUDGETS) >= 10, "a median of fewer is none"
    assert min(found) < 0 < max(found)
    i = evidence.BUDGETS.index(512)
    one = evidence.throughput_of(ChunkedPrefill(512)) / evidence.throughput_of(PrefillFirst(8192)) - 1
    assert found[i] == pytest.approx(one)


@pytest.mark.parametrize("context", [128, 2048, 8192])
def test_mixing_is_compared_with_the_same_work_apart(context):
    price = published("rtxpro6000")
    alone, chunk, both = evidence.added(price, 512, 64, context)
    assert chunk == evidence.added(price, 512, 1, 1)[1], "the chunk alone does not know of the decodes"
    assert max(alone, chunk) < both < 3 * (alone + chunk)


@given(st.integers(1, 5), st.integers(1, 300), st.integers(1, 30))
def test_throughput_counts_every_token_once(n, n_prompt, n_output):
    requests = [Request(rid, 0.0, n_prompt, n_output) for rid in range(n)]
    trace = simulate(requests, ChunkedPrefill(64), lambda batch: 1.0)
    assert evidence.throughput(trace) == n * (n_prompt + n_output) / len(trace.steps)


def test_a_document_alone_waits_for_its_chunks_and_nothing_else():
    trace = simulate([Request("document", 1.0, 8192, 4)], PrefillFirst(8192), published("rtx4090"))
    assert evidence.document_wait(8192, n_chats=0) == pytest.approx(trace.steps[0].end - 1.0)
