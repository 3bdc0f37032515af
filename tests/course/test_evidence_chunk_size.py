"""Chapter 5's claims and its exercise: estimates against runs, published figures against their tables."""

from __future__ import annotations

import importlib
import json
import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chunkprefill as cp
from chunkprefill_course.evidence import chunk_size as evidence
from chunkprefill_course.evidence.evidence import both_sides
from tests.needs import ROOT, need, shared_dir

exercise = importlib.import_module(
    "chunkprefill_course.exercises.ch05.choose_budget"
)  # the room holds its form
FORM = exercise.choose_budget


# --- claims -------------------------------------------------------------------------------------------


def test_tiles_holds_above_the_multiple_and_not_below():
    assert both_sides(evidence.tiles).sound


def test_published_figures_are_those_of_their_tables():
    folder = shared_dir()
    need("shared", folder is not None, "the published timing tables are not beside the checkout")
    from benchmarks import kernels

    profiles = folder / "profiles"
    tables = {
        "RTX 4090, Llama-3.1-8B": kernels.servingsim_linear(profiles, "RTX4090"),
        "RTX PRO 6000, Llama-3.1-8B": kernels.servingsim_linear(profiles, "RTXPRO6000"),
        "A100, Llama-3-8B": kernels.vidur_linear(profiles, "a100_Meta-Llama-3-8B"),
        "H100, Llama-2-70B": kernels.vidur_linear(profiles, "h100_Llama-2-70b-hf"),
    }
    assert tables.keys() == evidence.LAYER_US.keys()
    for name, (timings, _) in tables.items():
        found = {row[0]: 1e6 * s for row, s in zip(timings.rows, timings.seconds)}
        for n, us in evidence.LAYER_US[name].items():
            assert found[n] == pytest.approx(us, abs=0.1), (name, n)
        sizes = sorted(found)
        assert all(b == sizes[sizes.index(a) + 1] for a, b in pairwise(evidence.LAYER_US[name])), "neighbours"


@settings(max_examples=40, deadline=None)
@given(st.floats(0.005, 0.3), st.sampled_from(["rtx4090", "rtxpro6000", "h100"]))
def test_the_rule_takes_the_last_that_fits_and_no_other(bound, device):
    price, load = cp.published(device), evidence.Load(1180, 208, 1432, 1082)
    steps = [evidence.full_step(price, b, load) for b in evidence.BUDGETS]
    assert all(a < b for a, b in pairwise(steps)), "a larger budget takes longer"
    pick = evidence.largest_that_fits(price, bound, load)
    fits = [b for b, s in zip(evidence.BUDGETS, steps) if s <= bound]
    assert pick == (fits[-1] if fits else evidence.BUDGETS[0])


@pytest.mark.parametrize("device", ["rtx4090", "rtxpro6000", "h100"])
def test_the_rule_of_thumb_picks_more_where_more_decode(device):
    price, load = cp.published(device), evidence.Load(1180, 208, 1432, 1082)
    fine = tuple(range(32, 1025, 32))
    picks = [evidence.as_long_as_decoding(price, n, load, fine) for n in (1, 16, 64, 128)]
    assert picks == sorted(picks) and picks[0] < picks[-1]


def test_the_estimate_of_a_full_step_is_what_a_saturated_server_runs():
    requests = cp.conversation(400)
    load, price = evidence.Load.of(requests), cp.published("rtxpro6000")
    rate = evidence.keeps_up(price, 256, load)
    pool = cp.BlockPool(evidence.N_BLOCKS)
    trace = cp.simulate(cp.at_rate(requests, rate), cp.ChunkedPrefill(256), price, pool)
    full = [s for s in trace.steps if sum(s.batch.length) == 256]
    middle = full[len(full) // 3 : 2 * len(full) // 3]  # neither filling nor draining
    seconds = np.mean([s.end - s.start for s in middle])
    assert seconds == pytest.approx(evidence.full_step(price, 256, load), rel=0.12)


def test_the_chapter_s_server_is_its_evidence_s():
    page = json.loads((ROOT / "notebooks/05_choosing_the_chunk_size.ipynb").read_text("utf8"))
    code = "\n".join("".join(cell["source"]) for cell in page["cells"] if cell["cell_type"] == "code")
    assert f"cp.conversation({evidence.N_REQUESTS})" in code
    assert f"cp.BlockPool({evidence.N_BLOCKS:_})" in code
    assert f"budgets = {evidence.BUDGETS}" in code


# --- the exercise -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_the_solution_is_what_trying_every_budget_finds(seed):
    for case in exercise.cases(random.Random(seed)):
        assert exercise.run(exercise.solution, case) == exercise.want(case), case


def served(case, budget):
    """Seconds of the steps in which a simulated server runs the document, beside chats that decode."""
    clock, n = exercise.StepSeconds(case), case["n_decodes"]
    n_output = 4 + case["n_prompt"] // (budget - n)
    requests = [cp.Request(f"chat {i}", 0.0, 1, n_output) for i in range(n)]
    requests.append(cp.Request("document", 1e-6 if n else 0.0, case["n_prompt"], 1))

    def cost(batch):
        own = [row for row in batch if row.rid == "document"]
        return clock(own[0].length, own[0].start, len(batch) - 1) if own else 1.0

    trace = cp.simulate(requests, cp.ChunkedPrefill(budget), cost)
    own = [step for step in trace.steps if "document" in step.batch.rid]
    assert all(len(step.batch) == n + 1 for step in own), "chats decode beside every chunk"
    return [step.end - step.start for step in own]


def test_the_steps_that_are_added_up_are_those_of_a_server():
    for case in [*exercise.SMALL, *list(exercise.cases(random.Random(3)))[-6:]]:
        for budget in case["budgets"]:
            assert exercise.steps(case, budget) == pytest.approx(served(case, budget), rel=1e-9)


prices = st.tuples(st.integers(0, 20_000), st.integers(0, 90), st.floats(0, 0.01), st.integers(0, 400))


@settings(max_examples=150, deadline=None)
@given(
    prices,
    st.lists(st.integers(9, 700), min_size=1, max_size=5, unique=True),
    st.integers(0, 8),
    st.integers(1, 900),
    st.sampled_from([1, 16, 64, 128]),
    st.data(),
)
def test_the_solution_is_right_for_any_prices(prices, budgets, n_decodes, n_prompt, tile, data):
    case = exercise.case_of(prices, tuple(budgets), tile=tile, n_decodes=n_decodes, n_prompt=n_prompt)
    case["just"] = data.draw(st.sampled_from(budgets))
    taken = {budget: exercise.steps(case, budget) for budget in budgets}
    fit = [budget for budget in budgets if max(taken[budget]) <= max(taken[case["just"]])]
    found = exercise.run(exercise.solution, case)
    assert found in fit and sum(taken[found]) <= min(sum(taken[budget]) for budget in fit)
    assert not exercise.judge(case, found)


@pytest.mark.parametrize("odd", [None, True, 3, 64.5, "64", [64], {"a": 1}, lambda: 0])
def test_an_odd_answer_gets_words(odd):
    feedback = FORM.check(lambda *_: odd)
    assert feedback.ok is (None if odd is None else False)


def test_a_budget_that_breaks_the_bound_is_told_by_how_much():
    feedback = FORM.check(lambda seconds, budgets, *_: max(budgets), seed=0)
    assert feedback.ok is False and "a chat is silent for" in feedback.message
    assert "<svg" in feedback.picture
