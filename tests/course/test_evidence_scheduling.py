"""Chapter 3's claims: each condition matters, each number is what an independent count finds."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chunkprefill as cp
from chunkprefill.scheduling import parity
from chunkprefill_course.evidence import scheduling as evidence
from chunkprefill_course.evidence.evidence import both_sides
from tests.needs import ROOT

CLAIMS = [evidence.no_stall, evidence.not_by_itself, evidence.who_is_protected, evidence.preempted_passes]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda f: f.__name__)
def test_each_claim_holds_under_its_conditions_and_not_without_one(claim):
    both = both_sides(claim)
    assert both.sound, str(both)
    assert both.claimed.claim == claim.__name__.replace("_", "-")
    assert str(both) == str(both_sides(claim)), "simulated numbers are the same at every run"


@pytest.mark.parametrize("condition", evidence.BREAKS)
def test_each_condition_of_no_stall_matters(condition):
    found = evidence.no_stall(breaking=condition)
    assert not found.holds, str(found)


def test_a_condition_that_is_none_is_refused():
    with pytest.raises(ValueError, match="no condition 'luck'"):
        evidence.no_stall(breaking="luck")


workloads = st.lists(
    st.tuples(st.integers(0, 12), st.integers(1, 60), st.integers(1, 9)), min_size=1, max_size=8
)


@settings(max_examples=150, deadline=None)
@given(workloads, st.integers(1, 40), st.sampled_from(["arrival", "shortest", "priority"]))
def test_no_stall_holds_for_any_workload_budget_and_order(lines, budget, order):
    requests = [cp.Request(rid, *numbers) for rid, numbers in enumerate(lines)]
    trace = cp.simulate(requests, cp.ChunkedPrefill(budget, order=order), lambda batch: 1.0)
    gap = evidence.widest_gaps(trace)
    assert gap.steps <= 1 and gap.prompt_tokens < max(budget, 1)
    assert gap.n_tokens == sum(r.n_output - 1 for r in requests)


@settings(max_examples=100, deadline=None)
@given(workloads, st.sampled_from([cp.PrefillFirst(20, chunk=5), cp.SerialChunks(7), cp.RequestLevel(2)]))
def test_gaps_are_what_a_plain_count_finds(lines, policy):
    requests = [cp.Request(rid, *numbers) for rid, numbers in enumerate(lines)]
    trace = cp.simulate(requests, policy, lambda batch: 1.0 + sum(batch.length))
    said = {
        r.rid: [i for i, s in enumerate(trace.steps) for c in s.batch if c.rid == r.rid and c.emits]
        for r in requests
    }
    steps, prompts, seconds = 0, 0, 0.0
    for indices in said.values():
        for a, b in pairwise(indices):
            between = [trace.steps[i] for i in range(a + 1, b + 1)]
            steps = max(steps, len(between))
            n = sum(c.length for s in between for c in s.batch if c.start < requests[c.rid].n_prompt)
            prompts, seconds = max(prompts, n), max(seconds, trace.steps[b].end - trace.steps[a].end)
    assert evidence.widest_gaps(trace) == evidence.Gap(
        sum(len(i) - 1 for i in said.values()), steps, prompts, seconds
    )


def test_the_recorded_decisions_say_the_same_of_a_newcomer():
    """vLLM's own scheduler: six chats decode beside each chunk; who comes later waits for the document."""

    (case,) = parity.load(str(ROOT / "tests/data/parity/long_doc_plus_chats.json"))
    document = max(case.requests, key=lambda r: r.n_prompt)
    last = max(
        t
        for t, step in enumerate(case.steps)
        if any(rid == document.rid and n > 1 for rid, n in step["scheduled"])
    )
    chats = [r for r in case.requests if r.arrival == 0 and r is not document]
    assert len(chats) >= 2
    for step in case.steps[int(document.arrival) : last]:
        assert {r.rid for r in chats} <= {rid for rid, _ in step["scheduled"]}


@settings(max_examples=150, deadline=None)
@given(workloads, st.integers(1, 12), st.sampled_from(["arrival", "shortest", "priority"]))
def test_who_decodes_has_come_in_through_the_budget(lines, budget, order):
    """So that, while it is not lowered and no request is evicted, the decodes are never more than the budget."""
    requests = {rid: cp.Request(rid, *numbers) for rid, numbers in enumerate(lines)}
    trace = cp.simulate(requests.values(), cp.ChunkedPrefill(budget, order=order), lambda batch: 1.0)
    said = dict.fromkeys(requests, 0)
    for step in trace.steps:
        assert sum(0 < n < requests[rid].n_output for rid, n in said.items()) <= budget
        for chunk in step.batch:
            said[chunk.rid] += chunk.emits


def test_the_chapter_draws_what_its_evidence_runs():
    """The five requests stand in the notebook, for the reader, and in the evidence."""
    notebook = json.loads((ROOT / "notebooks/03_iteration_level_scheduling.ipynb").read_text())
    (cell,) = (cell for cell in notebook["cells"] if cell["id"] == "five")
    space = {"cp": cp}
    exec("".join(cell["source"]).split("price =")[0], space)
    drawn = [(r.rid, r.arrival, r.n_prompt, r.n_output) for r in space["requests"]]
    assert drawn == [(r.rid, r.arrival, r.n_prompt, r.n_output) for r in evidence.DOCUMENT_AMONG_CHATS]
