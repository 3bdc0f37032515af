"""The shown solutions are right over the whole domain that their prompts state."""

from __future__ import annotations

import importlib
import random

from hypothesis import given, settings
from hypothesis import strategies as st

import chunkprefill as cp
from chunkprefill_course import exercises


def room(name):
    """The module of an exercise."""
    return importlib.import_module(getattr(exercises, name).solution.__module__)


vllm, make_room, linear, starvation = map(room, ("vllm_step", "make_room", "write_linear", "starve"))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(1, 9), max_size=4),
    st.lists(st.integers(1, 9), max_size=3),
    st.integers(1, 20),
    st.integers(0, 5),
)
def test_vllm_s_step_is_that_of_the_policy_held_against_recorded_decisions(
    running, waiting, budget, threshold
):
    if running or waiting:
        case = vllm._named(running, waiting, budget, threshold)
        assert vllm.want(case) == vllm.proved(case)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.integers(0, 3), st.integers(1, 5))
def test_who_is_evicted_is_whom_the_library_evicts(cached, free, block_size):
    case = make_room._case(tuple(cached), free, block_size)
    evicted, again = make_room.want(case)
    theirs, theirs_again = make_room.proved(case)
    assert (set(evicted), again) == (set(theirs), theirs_again)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_the_linear_plan_is_the_one_of_the_program_on_the_page(data):
    n = data.draw(st.integers(1, 8))
    names = "abcdefgh"[:n]
    decoding = [name for name in names if data.draw(st.booleans())]
    pending = {name: 1 if name in decoding else data.draw(st.integers(1, 9)) for name in names}
    budget = data.draw(st.integers(1, 20))
    arguments = (list(names), decoding, pending, budget)
    assert linear.solution(*arguments) == linear.slow(*arguments)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(1, 4)), min_size=1, max_size=5),
    st.integers(1, 9),
)
def test_prefill_first_agrees_with_the_exercise_s_rule(rows, budget):
    """(0, 1, 3), (0, 1, 3) under a bound of 1 among them: decodes alone have no bound."""
    form = exercises.write_prefill_first
    case = {"budget": budget, "requests": sorted(rows)}
    for policy in (cp.PrefillFirst, form.solution):
        assert not form.broken(case, form.outcome(policy, case))
    pair = {"budget": 1, "requests": [(0, 1, 3), (0, 1, 3)]}
    assert not form.broken(pair, form.outcome(cp.PrefillFirst, pair))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 30), st.integers(1, 12))
def test_the_arrivals_starve_any_document_and_arrival_order_feeds_it(budget, more, seconds):
    case = {"budget": budget, "n_prompt": budget + more, "seconds": seconds}
    form = exercises.starve
    assert not form.broken(case, form.outcome(form.solution, case))
    requests = [cp.Request("document", 0.0, budget + more, 1)]
    requests += [cp.Request(i, float(i), budget, 1) for i in range(seconds)]
    trace = cp.simulate(requests, cp.ChunkedPrefill(budget), lambda batch: 1.0)
    first = next(
        step.end for step in trace.steps if ("document", True) in zip(step.batch.rid, step.batch.emits)
    )
    assert first == -(-(budget + more) // budget)


def test_aging_saves_the_document_that_shortest_first_starves():
    stream = {"budget": 4, "requests": [(0, 9, 1), *[(k, 4, 1) for k in range(30)]]}
    waits = {}
    for rate in (0, 1):
        steps = exercises.write_aging.outcome(starvation.Solution, {**stream, "rate": rate}).value
        waits[rate] = next(
            k for k, rows in enumerate(steps) if [1, True] in [[row[0], row[3]] for row in rows]
        )
    assert waits[0] >= 30 > waits[1]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 30))
def test_the_trace_refutes_for_any_budget_and_patience(budget, patience):
    form, case = exercises.refute_claim, {"budget": budget, "patience": patience}
    assert not form.broken(case, form.outcome(form.solution, case))


def test_the_pair_is_a_cliff_on_many_servers():
    form = exercises.tile_cliff
    for seed in range(6):
        for case in form.cases(random.Random(seed)):
            assert not form.broken(case, form.outcome(form.solution, case)), case
