"""Chapter 6's evidence: counted twice, priced by a formula, measured with a cause."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chunkprefill as cp
import chunkprefill_course as course
from chunkprefill.scheduling.state import State
from chunkprefill_course.evidence import overhead, parts
from chunkprefill_course.evidence.evidence import both_sides
from tests.library.scheduling.cases import cost, runs, workloads
from tests.needs import ROOT

# --- counted ------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(runs(), st.data())
def test_what_is_kept_is_what_a_plain_walk_finds(run, data):
    requests, policy, pool, overlap = run
    trace = cp.simulate(requests, policy, cost, pool, overlap=overlap)
    names = data.draw(st.sets(st.sampled_from([r.rid for r in requests]), min_size=1))
    found = overhead.kept(trace, names)
    n_prompt = {r.rid: r.n_prompt for r in requests}
    rows = [(step, chunk) for step in trace.steps for chunk in step.batch]
    prompts = [(s, c) for s, c in rows if c.rid in names and c.start < n_prompt[c.rid]]
    assert found.visits * len(names) == pytest.approx(len(prompts))
    assert found.half_built * len(names) == pytest.approx(sum(not c.emits for _, c in prompts))
    held = sum(-(-c.end // 16) * (s.end - s.start) for s, c in prompts)
    assert found.block_seconds * len(names) == pytest.approx(held)
    assert found.decode_visits == sum(c.start >= n_prompt[c.rid] for _, c in rows)
    assert found.mixed <= found.visits


def test_without_names_nothing_is_counted():
    trace = cp.simulate([cp.Request(0, 0.0, 5, 2)], cp.ChunkedPrefill(4), cost)
    with pytest.raises(ValueError, match="none of the 1 requests is named"):
        overhead.kept(trace, ["x"])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 70), st.integers(1, 6))
def test_visits_of_a_lone_prompt_are_its_passes(n, c, n_output):
    trace = cp.simulate([cp.Request(0, 0.0, n, n_output)], cp.ChunkedPrefill(c), cost)
    found = overhead.kept(trace, [0])
    assert found.visits == -(-n // c) and found.half_built == found.visits - 1 and found.mixed == 0


def test_visits_and_state_grow_and_block_seconds_only_where_chunks_are_short():
    """The condition that the claim names: shorter steps keep the seconds down, until they get no shorter."""
    found = {c: overhead.documents_beside_chats(c) for c in (4096, 1024, 512, 64, 32)}
    assert found[4096].block_seconds > found[1024].block_seconds, "in halves, less is held at first"
    assert found[32].block_seconds > 1.8 * found[64].block_seconds
    assert found[512].visits == 8 and found[4096].visits == 1
    decodes = {kept.decode_visits for kept in found.values()}
    assert len(decodes) == 1, "decoding asks for as much as before"
    assert found[512].visits / (decodes.pop() / 12) < 0.05, "visits by chunks alone are a small part of all"


# --- priced -------------------------------------------------------------------------------------------


def test_models_have_the_weights_that_they_are_named_for():
    said = {"SmolLM2-135M": 135e6, "Llama-3.2-1B": 1.24e9, "Llama-3.2-3B": 3.21e9}
    said |= {"Llama-3-8B": 8.03e9, "Llama-3-70B": 70.6e9}
    assert said.keys() == overhead.MODELS.keys()
    for name, config in overhead.MODELS.items():
        assert config.n_params == pytest.approx(said[name], rel=0.01), name


@given(st.floats(1e-8, 1e-3), st.integers(1, 256), st.sampled_from((0, 64, 2048)))
def test_shares_fall_with_the_model_and_are_what_they_say(visit, n, chunk):
    found = overhead.priced_shares(visit, chunk=chunk, n_decodes=n)
    assert all(a > b for a, b in pairwise(found.values()))
    scheduling = visit * (n + (chunk > 0))
    for name, share in found.items():
        step = overhead.step_seconds(overhead.MODELS[name], chunk=chunk, n_decodes=n)
        assert share == pytest.approx(scheduling / (scheduling + step))
    given_cost = overhead.priced_shares(cp.SchedulerCost(0, visit, visit), chunk=chunk, n_decodes=n)
    assert given_cost == pytest.approx(found)


@pytest.mark.parametrize("name", overhead.MODELS)
@pytest.mark.parametrize("visit", [1e-6, 21e-6, 200e-6])
def test_overlap_takes_the_longer_of_the_two_and_serial_takes_both(name, visit):
    found = overhead.overlapped(overhead.MODELS[name], visit)
    assert found["serial"] == pytest.approx(found["free"] + found["scheduling"], rel=1e-6)
    assert found["overlapped"] == pytest.approx(max(found["free"], found["scheduling"]), rel=2e-3)


@pytest.mark.parametrize("claim", ["more_tasks", "overlap"])
def test_counted_and_priced_evidence_is_sound_and_the_same_again(claim):
    function = getattr(course.evidence, claim)
    assert both_sides(function).sound
    assert function().as_json() == function().as_json()


# --- measured -----------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(workloads(), st.integers(1, 30))
def test_the_changed_policies_decide_the_same(requests, size):
    """Only what deciding costs is changed."""
    for changed, plain in (
        (parts.ByToken(size), cp.SerialChunks(size)),
        (parts.Listed(size), cp.ChunkedPrefill(size)),
    ):
        assert cp.simulate(requests, changed, cost).steps == cp.simulate(requests, plain, cost).steps


def test_a_list_is_searched_as_often_as_it_is_long_squared(monkeypatch):
    compared = []
    inner = parts.TaskByValue.__eq__
    monkeypatch.setattr(parts.TaskByValue, "__eq__", lambda a, b: (compared.append(1), inner(a, b))[1])
    for n in (8, 32):
        compared.clear()
        state = State(waiting=[cp.Sequence(i, 5, 0.0) for i in range(n)])
        parts.Listed(1000).schedule(state)
        assert len(compared) == n * (n - 1) // 2


def test_figures_that_are_cited_are_in_the_bibliography():
    text = (ROOT / "book/references.bib").read_text("utf8")
    assert "wuklab" in text and "Can Scheduling Overhead Dominate" in text
    for workload, row in overhead.CITED_SHARES.items():  # a trend over models is read within one workload
        assert row.get("70B", 0) <= min(x for model, x in row.items() if model != "70B"), workload


def test_the_record_names_no_part_by_its_rank():
    """The order of the numbers is fixed, or two runs would not compare."""
    rows = json.loads((ROOT / "benchmarks/results/evidence.json").read_text())["rows"]
    (row,) = [row for row in rows if row["claim"] == "not-the-decision"]
    labels = [number["label"] for number in row["claimed"]["numbers"]][: len(cp.PARTS)]
    assert [label.split(" (")[0] for label in labels] == [
        "deciding the batch",
        "taking blocks",
        "building inputs",
        "launching",
        "sampling, reading back",
        "bookkeeping",
    ]
