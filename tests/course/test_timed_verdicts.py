"""Verdicts that ask a clock, under clocks of our own: each is turned round by what its claim is about.

What a real clock says depends on the machine. `python -m benchmarks evidence` asks one, and records where.
"""

from __future__ import annotations

import pytest

from chunkprefill.metrics.breakdown import Breakdown, OverheadFit
from chunkprefill.scheduling.trace import PARTS
from chunkprefill.simulation.cost import SchedulerCost
from chunkprefill_course.evidence import overhead, parts, timing
from tests.book.notebooks.test_measured import sanitise

N = timing.N


def clock(monkeypatch, seconds):
    """`interleaved` does nothing, and says that the work took what `seconds` of its key says."""
    monkeypatch.setattr(timing, "interleaved", lambda work: {key: seconds(key) for key in work})


@pytest.mark.parametrize("changed", [False, True])
@pytest.mark.parametrize(
    ("ratio", "holds"), [(1.0, False), (1.14, False), (1.16, True), (3.0, True), (0.5, False)]
)
def test_slower_is_slower_than_one_pass(monkeypatch, changed, ratio, holds):
    clock(monkeypatch, lambda chunk: 1.0 if chunk == N else ratio)
    found = timing.slower_prefill(changed=changed)
    assert found.timed and found.holds == holds


@pytest.mark.parametrize(
    ("products", "whole", "holds"),
    [
        (2.0, 3.5, True),  # all of 1 s more is the products'
        (1.5, 3.5, False),  # half of it: the rest is as much
        (1.6, 3.5, True),
        (1.1, 2.6, False),  # products no slower
        (1.2, 2.4, False),  # the whole no slower: nothing is to be explained
        (1.2, 2.0, False),  # the whole faster than in one pass
    ],
)
def test_weights_explain_what_small_chunks_cost(monkeypatch, products, whole, holds):
    """In one pass: 1 s of products, 2.5 s in all."""
    took = {"products": (1.0, products), "all": (2.5, whole)}
    clock(monkeypatch, lambda key: took[key[1]][key[0] != N])
    assert timing.weights_again().holds == holds == timing.weights_again(changed=True).holds


@pytest.fixture
def fits(monkeypatch):
    cost = SchedulerCost(1e-6, 1e-6, 1e-6)
    step = (1, 1, 1, 4e-6, 4e-6)  # decodes, chunks, tokens, s measured, s predicted
    fit = OverheadFit(cost, 1.0, (step,), (step,))
    monkeypatch.setattr(parts, "visit_fits", lambda: dict.fromkeys(("decide", "inputs", "all"), fit))


@pytest.mark.parametrize(
    ("by_requests", "by_tokens", "inputs", "holds"),
    [
        (4.0, 1.0, 8.0, True),
        (1.2, 1.1, 8.0, False),  # requests cost no more than tokens do
        (4.0, 1.6, 8.0, False),  # tokens cost deciding time
        (4.0, 1.0, 1.4, False),  # and building inputs none
    ],
)
def test_a_visit_costs_by_requests(monkeypatch, fits, by_requests, by_tokens, inputs, holds):
    grown = [{"decide": by_requests, "inputs": 4.0}, {"decide": by_tokens, "inputs": inputs}]
    monkeypatch.setattr(parts, "growth", lambda *designs, policy: grown)
    assert parts.cost_per_visit().holds == holds == parts.cost_per_visit(changed=True).holds


@pytest.mark.parametrize(
    ("deciding", "inputs", "holds"),
    [
        (1.9, 2.0, True),
        (4.2, 9.0, True),
        (4.5, 9.0, False),  # not the largest, but more than a quarter
        (1.1, 1.0, False),  # less than a quarter, and the largest
        (9.0, 2.0, False),
    ],
)
def test_the_decision_is_the_small_part(monkeypatch, deciding, inputs, holds):
    """The other four parts take 1 s each."""
    took = dict.fromkeys(PARTS, 1.0) | {"inputs": inputs, "decide": deciding}
    broken = Breakdown("", 1, took, 1.0, 0.0, 1.0)
    monkeypatch.setattr(parts, "our_breakdown", lambda *, listed: broken)
    assert parts.not_the_decision(changed=True).holds == holds


@pytest.mark.parametrize(
    ("short", "long", "holds"), [(0.6, 0.1, True), (0.3, 0.11, False), (0.1, 0.1, False)]
)
def test_a_share_is_large_where_steps_are_short(monkeypatch, fits, short, long, holds):
    monkeypatch.setattr(parts, "measured_shares", lambda: {"short": short, "long": long})
    assert overhead.overhead_share().holds == holds and overhead.overhead_share().timed
    assert not overhead.overhead_share(changed=True).timed, "priced, whatever the clock says"


def test_nbval_leaves_a_timed_verdict_out_and_no_other(monkeypatch):
    texts = []
    for ratio in (1.0, 3.0):
        clock(monkeypatch, lambda chunk, ratio=ratio: 1.0 if chunk == N else ratio)
        found = timing.slower_prefill()
        texts.append((sanitise(str(found)), sanitise(found._repr_html_())))
    assert texts[0] == texts[1]
    assert sanitise("✓ The claim holds here.") != sanitise("✗ The claim does not hold here.")
