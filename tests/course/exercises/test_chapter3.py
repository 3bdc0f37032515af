"""Chapter 3's exercises are judged by the loop's own contract, and by rules that hold for any workload."""

from __future__ import annotations

import random
import re
from itertools import pairwise, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chunkprefill.plots.grid import task
from chunkprefill.scheduling import policies
from chunkprefill.scheduling.core import Plan
from chunkprefill_course import exercises
from chunkprefill_course.forms import served
from chunkprefill_course.forms.notation import grid
from chunkprefill_course.forms.playback import Playback

POLICIES = [
    (exercises.write_chunked_prefill, policies.ChunkedPrefill),
    (exercises.write_prefill_first, policies.PrefillFirst),
]
PLAN = exercises.first_iterations


# --- policies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("form, ours", POLICIES, ids=lambda x: getattr(x, "id", ""))
def test_the_package_s_own_policy_is_a_right_answer(form, ours):
    for seed in range(5):
        assert form.check(ours, seed=seed), form.check(ours, seed=seed)


def test_neither_policy_is_an_answer_to_the_other_exercise():
    (chunked, ours), (first, theirs) = POLICIES
    assert chunked.check(theirs).ok is False and first.check(ours).ok is False


@pytest.mark.parametrize("form", [form for form, _ in POLICIES], ids=lambda form: form.id)
def test_a_policy_may_be_any_object_with_schedule(form):
    class Plain:
        def __init__(self, budget):
            self.inner = form.solution(budget)

        def schedule(self, state):
            plan = self.inner.schedule(state)
            return type(plan)(dict(reversed(plan.tokens.items())))  # the order in a plan is no matter

    assert form.check(Plain)


@pytest.mark.parametrize("form", [form for form, _ in POLICIES], ids=lambda form: form.id)
def test_what_the_contract_refuses_is_told_in_its_words(form):
    class Overdraws:
        def __init__(self, budget):
            pass

        def schedule(self, state):
            return Plan({seq.rid: seq.pending + 1 for seq in (*state.waiting, *state.running)})

    feedback = form.check(Overdraws)
    assert feedback.ok is False and re.search(r"request 1: \d+ tokens planned, \d+ pending", feedback.message)


@pytest.mark.parametrize("form", [form for form, _ in POLICIES], ids=lambda form: form.id)
def test_a_class_that_plans_nothing_is_not_attempted(form):
    class Starter:
        def __init__(self, budget):
            pass

        def schedule(self, state): ...

    assert form.check(Starter).ok is None


def test_what_stood_before_a_step_is_what_the_loop_saw():
    """Times, idle ones among them, are worked out from the steps alone."""
    for case in served.cases(random.Random(3)):
        for form, _ in POLICIES:
            seen = []

            class Sees:
                def __init__(self, budget, solution=form.solution, seen=seen):
                    self.inner, self.seen = solution(budget), seen

                def schedule(self, state):
                    live = [*state.running, *state.waiting]
                    self.seen.append(
                        (
                            {seq.rid: seq.pending for seq in live if not seq.decoding},
                            {seq.rid for seq in live if seq.decoding},
                        )
                    )
                    return self.inner.schedule(state)

            given = len(case.get("given", ()))
            steps = served.serve_case(Sees, case)
            for k, (pending, ready) in enumerate(seen, given):
                was = served.before(case, steps, k)
                assert (was.pending, set(was.ready)) == (pending, ready), (case, k)


def test_either_of_two_equals_may_pass():
    class LastOfEquals:
        def __init__(self, budget):
            self.budget = budget

        def schedule(self, state):
            tokens = {seq.rid: 1 for seq in state.running if seq.decoding}
            left = self.budget - len(tokens)
            for seq in sorted((*state.running, *state.waiting), key=lambda seq: (seq.pending, -seq.rid)):
                if not seq.decoding and left > 0:
                    tokens[seq.rid] = min(seq.pending, left)
                    left -= tokens[seq.rid]
            return Plan(tokens)

    for seed in range(5):
        assert exercises.write_shortest_first.check(LastOfEquals, seed=seed)
        ours = exercises.write_shortest_first.check(
            lambda b: policies.ChunkedPrefill(b, order="shortest"), seed=seed
        )
        assert ours, ours


# --- the plan of the first iterations ----------------------------------------------------------------


def test_the_solution_keeps_every_rule_and_says_what_it_bought():
    feedback = PLAN.check(list(PLAN.solution))
    assert feedback and "26 tokens in 4 iterations, 6 fewer" in feedback.message


@pytest.mark.parametrize("wrong", PLAN.wrong, ids=lambda wrong: wrong.rule)
def test_each_wrong_plan_breaks_its_own_rule_and_gets_its_own_hint(wrong):
    assert PLAN.play(wrong.rows).rule == wrong.rule
    feedback = PLAN.check(list(wrong.rows))
    assert feedback.ok is False
    assert [w for w in PLAN.wrong if w.hint.replace("`", "") in str(feedback)] == [wrong]


@pytest.mark.parametrize("odd", [..., None, 3, "abc", [3], {"long": 8}, [None], object(), [[1]], []])
def test_what_is_no_plan_is_not_attempted(odd):
    assert PLAN.check(odd).ok is None


tokens = st.one_of(st.integers(-2, 12), st.booleans(), st.text(max_size=2), st.none(), st.floats())
rows = st.dictionaries(st.sampled_from(["long", "short", "x", 1]), tokens, max_size=3)


@given(st.lists(rows, max_size=6))
def test_no_plan_raises_and_only_the_right_one_is_right(plan):
    feedback = PLAN.check(plan)
    as_planned = [{name: n for name, n in row.items() if n != 0} for row in plan]
    assert bool(feedback) == (as_planned == [dict(row) for row in PLAN.solution])


@settings(max_examples=60)
@given(st.integers(1, 9), st.integers(1, 3), st.integers(2, 9), st.integers(0, 5))
def test_any_numbers_make_an_exercise_with_one_answer(n_short, arrival, budget, n_cached):
    n_iterations = arrival + 3
    form = Playback(
        id="x",
        title="x",
        prompt="x",
        n_long=budget * n_iterations + n_cached + 1,
        n_cached=n_cached,
        n_short=n_short,
        arrival=arrival,
        budget=budget,
        n_iterations=n_iterations,
        wrong=(),
        hints=("", "", ""),
    )
    played = form.play(form.solution)
    assert not played.rule and all(sum(row.values()) == budget for row in form.solution)
    for t, row in enumerate(form.solution):  # one token less anywhere breaks a rule
        for name in row:
            less = [dict(r) for r in form.solution]
            less[t][name] -= 1
            assert form.play(less).rule, (form.solution, less)


def test_numbers_that_make_no_exercise_are_refused():
    numbers = {"n_long": 64, "n_cached": 8, "n_short": 4, "arrival": 2, "budget": 8, "n_iterations": 4}
    for change in ({"n_long": 40}, {"arrival": 4}, {"n_short": 0}, {"budget": 1}):
        with pytest.raises(ValueError, match="x: "):
            Playback(id="x", title="", prompt="", wrong=(), hints=("", "", ""), **numbers | change)


def test_the_page_s_question_has_the_solution_among_the_wrong_plans():
    twin = PLAN.as_choice()
    assert len(twin.options) == len(PLAN.wrong) + 1
    right = next(option for option in twin.options if option.ok)
    assert "2: long 4, short 4" in right.code and twin.check(right.key)


# --- the order of P and D ----------------------------------------------------------------------------


def oracle(order: tuple[str, ...]) -> bool:
    """The rules, in terms of places alone."""
    at = {key: i for i, key in enumerate(order)}
    rows = [["p11", "p12", "p13", "d11"], ["p11", "p21", "d21", "d22"]]  # 2 arrives while P11 runs
    if any(at[a] > at[b] for row in rows for a, b in pairwise(row)):
        return False
    waits = [("p21", "d21"), ("d21", "d22"), ("p13", "d11")]
    return all(sum(at[a] < at[p] < at[b] for p in ("p11", "p12", "p13", "p21")) <= 1 for a, b in waits)


def test_exactly_the_orders_that_stall_no_request_are_accepted():
    form = exercises.order_pd
    keys = [step.key for step in form.steps]
    right = {order for order in permutations(keys) if form.check(order)}
    assert right == set(filter(oracle, permutations(keys))) and len(right) > 1


def test_an_order_that_lets_the_newcomer_wait_is_right_and_told_what_it_costs():
    said = exercises.order_pd.check("p11 p12 p13 p21 d11 d21 d22").message
    assert "waited behind 2 chunks" in said
    assert "as soon as it arrived" in exercises.order_pd.check("p11 p21 p12 d21 p13 d22 d11").message


# --- notation ----------------------------------------------------------------------------------------


def test_tasks_are_named_as_in_the_textbook():
    assert (task("P", 1, 2), task("D", 2, 2), task("P", 3), task("P", 1, 12)) == ("P₁₂", "D₂₂", "P₃", "P₁ ₁₂")


def test_a_grid_says_in_words_what_it_draws():
    svg = grid([[("a", 0, 4, True)], [("a", 4, 1, True), ("b", 0, 2, True)]], {"a": 4, "b": 2}, title="T")
    assert 'aria-label="T. a: 1 prefills, 2 decodes; b: 1 waits, 2 prefills"' in svg
