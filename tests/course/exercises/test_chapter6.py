"""Chapter 6: tasks against an oracle, graphs against their rules, lanes against times, its exercises."""

from __future__ import annotations

import importlib
import re
import xml.etree.ElementTree as ET
from collections import OrderedDict
from dataclasses import replace
from itertools import pairwise, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chunkprefill as cp
import chunkprefill_course as course
from chunkprefill.simulation.cuda_graphs import MODES, VLLM_SIZES
from chunkprefill_course import exercises
from chunkprefill_course.evidence import launching
from chunkprefill_course.exercises.ch06 import questions as chapter6
from chunkprefill_course.forms.written import Written

# The room holds a form under its module's name: the form first, then the module that it comes from.
visits = importlib.import_module(exercises.count_visits.solution.__module__)
linear = importlib.import_module(exercises.write_linear.solution.__module__)
PRICE = cp.published("h100")
requests = st.lists(
    st.tuples(st.floats(0, 2), st.integers(1, 3000), st.integers(1, 12)), min_size=1, max_size=8
).map(lambda rows: [cp.Request(i, *row) for i, row in enumerate(rows)])
policies = st.one_of(
    st.integers(16, 4096).map(cp.ChunkedPrefill),
    st.integers(16, 512).map(cp.SerialChunks),
    st.just(cp.PrefillFirst(4096)),
    st.just(cp.PrefillFirst(256, chunk=256)),
)


# --- tasks ----------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(requests, policies, st.sampled_from([1, 16, 64]))
def test_tasks_are_what_the_requests_lives_add_up_to(asked, policy, block):
    """Told from the other side: request by request, from its own boxes."""
    trace = cp.simulate(asked, policy, PRICE)
    found = cp.tasks(trace, block_size=block)
    assert found.visits == found.chunks + found.decodes == sum(len(step.batch) for step in trace.steps)
    assert found.decodes == sum(request.n_output - 1 for request in asked)
    lives, block_s, choices = cp.request_timelines(trace), 0.0, 0
    for request in asked:
        own = [(s, e) for kind, s, e in lives[request.rid].boxes if kind == "prefill"]
        sizes = [
            c.length
            for step in trace.steps
            for c in step.batch
            if c.rid == request.rid and c.start < request.n_prompt
        ]
        done = 0
        for n, ((_, end), (_, next_end)) in zip(sizes, pairwise(own)):
            done += n
            block_s += -(-done // block) * (next_end - end)
        choices += sum(request.arrival <= step.scheduled and step.start <= own[-1][0] for step in trace.steps)
    assert found.block_s == pytest.approx(block_s, rel=1e-9, abs=1e-12) and found.choices == choices
    kinds = [{c.start < asked[c.rid].n_prompt for c in step.batch} for step in trace.steps]
    assert found.mixed == sum(len(kind) == 2 for kind in kinds) and found.n_steps == len(trace.steps)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6000), st.integers(1, 50), st.integers(1, 1024))
def test_alone_a_prompt_takes_a_visit_a_chunk_and_one_a_token_after_the_first(n, n_output, chunk):
    found = cp.tasks(cp.simulate([cp.Request("a", 0.0, n, n_output)], cp.ChunkedPrefill(chunk), PRICE))
    assert (found.chunks, found.decodes) == (-(-n // chunk), n_output - 1)
    assert (found.half_built, found.mixed) == (int(chunk < n), 0)
    assert (found.block_s == 0) == (chunk >= n)


def test_what_is_evicted_is_half_built_again():
    asked = [cp.Request(i, 0.0, 60, 60) for i in range(4)]
    trace = cp.simulate(asked, cp.ChunkedPrefill(64), PRICE, cp.BlockPool(20))
    found = cp.tasks(trace)
    assert any(step.batch.preempted for step in trace.steps) and found.chunks > 4 * -(-60 // 64)
    assert found.block_s > 0 and found.half_built <= 4


# --- graphs ---------------------------------------------------------------------------------------------

steps = st.builds(
    course.evidence.mixed,
    chunk=st.integers(0, 1500),
    start=st.integers(0, 5000),
    n_decodes=st.integers(1, 500),
    context=st.integers(1, 3000),
)


@given(steps, st.sampled_from(MODES))
def test_a_graph_pads_up_to_the_next_size_and_never_down(batch, mode):
    graphs = cp.CudaGraphs(cost=PRICE, mode=mode)
    n, padded = batch.totals().n_tokens, graphs.padded(batch)
    if graphs.runs(batch) == "kernels":
        assert padded == n and graphs.device(batch) == PRICE(batch)
    else:
        assert padded in VLLM_SIZES and padded >= n and not any(n <= size < padded for size in VLLM_SIZES)
        assert graphs.device(batch) >= PRICE(batch) * (1 - 1e-12)
    assert graphs(batch) == max(graphs.device(batch), graphs.launching(batch)) >= PRICE(batch) * (1 - 1e-12)


@given(steps)
def test_a_chunk_loses_the_full_graph_and_nothing_but_a_chunk_does(batch):
    graphs = cp.CudaGraphs(cost=PRICE)
    sums = batch.totals()
    fits = sums.n_tokens <= VLLM_SIZES[-1]
    assert graphs.runs(batch) == ("kernels" if not fits else "pieces" if sums.chunks else "graph")
    how = {mode: cp.CudaGraphs(cost=PRICE, mode=mode).launching(batch) for mode in MODES}
    assert how["none"] >= how["decodes"] >= how["decodes, pieces"]
    if sums.chunks:
        assert how["none"] == how["decodes"]


@given(st.integers(1, 512))
def test_every_size_recorded_means_no_padding(n):
    batch = course.evidence.mixed(n_decodes=n, context=100)
    fine = cp.CudaGraphs(cost=PRICE, sizes=range(1, 513))
    assert fine.device(batch) == PRICE(batch)
    coarse = cp.CudaGraphs(cost=PRICE, sizes=(64, 512))
    assert coarse.device(batch) >= fine.device(batch) and coarse.launching(batch) == fine.launching(batch)


@pytest.mark.parametrize("sizes", [(), (0, 2), (4, 2), (2, 2)])
def test_sizes_that_do_not_ascend_are_refused(sizes):
    with pytest.raises(ValueError, match="ascend"):
        cp.CudaGraphs(cost=PRICE, sizes=sizes)
    with pytest.raises(ValueError, match="mode 'full'"):
        cp.CudaGraphs(cost=PRICE, mode="full")


# --- lanes ----------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(requests, st.integers(16, 600), st.floats(0, 0.02), st.booleans(), st.integers(1, 9))
def test_lanes_draw_each_step_where_its_times_say(asked, budget, s0, both, n_steps):
    scheduling = cp.SchedulerCost(s0=s0)
    runs = {"a": cp.simulate(asked, cp.ChunkedPrefill(budget), PRICE, scheduling=scheduling, overlap=both)}
    picture = cp.lanes_picture(runs, caption="c", n_steps=n_steps)
    shown = runs["a"].steps[:n_steps]
    root = ET.fromstring(picture.image())
    boxes = [
        (float(e.get("x")), float(e.get("width")), e.get("fill")) for e in root if e.tag.endswith("rect")
    ]
    boxes = boxes[3:]  # the key
    device = [box for box in boxes if box[2] in ("#0072B2", "#E69F00")]
    assert len(device) == len(shown) and len(picture.table.rows) == len(shown)
    scale = 396 / (shown[-1].end - shown[0].scheduled)
    for (x, wide, fill), step in zip(sorted(device), shown):
        assert x == pytest.approx(96 + scale * (step.start - shown[0].scheduled), abs=0.2)
        assert wide == pytest.approx(max(scale * (step.end - step.start) - 1, 0.8), abs=0.2)
        assert (fill == "#0072B2") == bool(step.batch.totals().chunks)
    assert all(x + wide <= 493 for x, wide, _ in boxes)
    with pytest.raises(ValueError, match="no step"):
        cp.lanes_picture(runs, caption="c", first=len(runs["a"].steps))


# --- bars and dots --------------------------------------------------------------------------------------

amounts = st.dictionaries(
    st.sampled_from("abc"), st.floats(0, 1e6), min_size=1, max_size=3
)  # one group's series


@given(st.lists(amounts, min_size=1, max_size=5), st.sampled_from(["%", "ms"]))
def test_bars_are_as_long_as_their_numbers(rows, unit):
    rows = [{name: row.get(name, 1.0) for name in rows[0]} for row in rows]
    groups = {f"group {i}": row for i, row in enumerate(rows)}
    most = max(amount for row in rows for amount in row.values())
    if not most > 0:
        with pytest.raises(ValueError, match="not all 0"):
            cp.bars_picture(groups, alt="a", caption="c", unit=unit)
        return
    made = cp.bars_picture(groups, alt="a", caption="c", unit=unit)
    root = ET.fromstring(made.image())
    wide = [float(e.get("width")) for e in root if e.tag.endswith("rect") and e.get("height") == "19"]
    wanted = [max(420 * amount / most, 1) for row in rows for amount in row.values()]
    assert wide == pytest.approx(wanted, abs=0.06) and len(made.table.rows) == len(rows)


@pytest.mark.parametrize(
    "groups",
    [{}, {"a": {}}, {"a": {"x": -1.0}}, {"a": {"x": 1.0}, "b": {"y": 1.0}}, {"a": {"x": float("nan")}}],
)
def test_bars_that_say_nothing_are_refused(groups):
    with pytest.raises(ValueError, match="needed"):
        cp.bars_picture(groups, alt="a", caption="c")


def test_a_fit_is_drawn_with_its_errors():
    """A scheduler whose price is known: every dot on the line, both errors nought."""
    cost = cp.SchedulerCost(1e-5, 2e-6, 3e-6, 1e-8)
    batches = [
        course.evidence.mixed(chunk=c, start=c, n_decodes=d, context=9)
        for c in (0, 2, 64, 256)
        for d in (1, 8, 32)
    ]
    larger = [course.evidence.mixed(chunk=512, start=9, n_decodes=64, context=9)]
    fit = cp.fit_overhead([(b, cost(b)) for b in batches], [(b, cost(b)) for b in larger])
    made = cp.fit_picture({"priced": fit}, caption="c")
    assert fit.held_out_error < 1e-6 and made.table.rows[0][0] == "priced"
    assert "12 steps fitted" in made.alt and "on 1 not fitted" in made.alt
    alone = cp.fit_overhead([(b, cost(b)) for b in batches])
    assert cp.fit_picture({"priced": alone}, caption="c").table.rows[0][3] == "–"


# --- count the visits -----------------------------------------------------------------------------------

counts = st.builds(
    visits.case_of,
    st.integers(1, 900),
    st.integers(1, 30),
    st.integers(1, 300),
    st.integers(0, 9),
    st.integers(1, 50),
)


@settings(max_examples=80, deadline=None)
@given(counts)
def test_the_formula_is_what_the_loop_does(case):
    assert visits.solution(**case) == visits.want(case)


# --- a linear decision ----------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_any_way_that_does_not_search_is_accepted(seed):
    form = exercises.write_linear

    def with_a_set(requests, decoding, pending, budget):
        known = set(decoding)
        plan = {name: 1 for name in requests if name in known}
        left = budget - len(plan)
        for name in requests:
            if name not in known and left > 0:
                take = min(left, pending[name])
                plan[name], left = take, left - take
        return plan

    def side_by_side(requests, decoding, pending, budget):
        plan, left, ahead = {}, budget - len(decoding), iter(decoding)
        decodes = next(ahead, None)
        for name in requests:
            if name == decodes:
                plan[name], decodes = 1, next(ahead, None)
            elif left > 0:
                plan[name] = min(pending[name], left)
                left -= plan[name]
        return OrderedDict(plan)

    for program in (with_a_set, side_by_side):
        assert form.check(program, seed=seed), str(form.check(program, seed=seed))


def test_the_slow_program_is_the_one_on_the_page_and_its_looks_are_quadratic():
    form = exercises.write_linear
    space: dict = {}
    exec(form.about, space)
    feedback = form.check(space["plan_step"], seed=0)
    assert feedback.ok is False and "with their square" in feedback.message
    looks = []
    for n in (20, 40, 80):
        case = {
            "n": n,
            "decoding": list(range(n // 2)),
            "pending": [1] * (n // 2) + [9] * (n - n // 2),
            "budget": 10 * n,
            "hash": n,
        }
        looks.append(form.outcome(space["plan_step"], case).value["looks"])
        assert form.outcome(form.solution, case).value["looks"] <= 8 * n
    assert all(3.3 < b / a < 4.5 for a, b in pairwise(looks)), looks


odd_names = st.integers(-3, 9) | st.text(max_size=3)
odd_tokens = st.integers(-5, 60) | st.booleans() | st.floats() | st.none()


@settings(max_examples=30)
@given(st.dictionaries(odd_names, odd_tokens, max_size=9))
def test_no_plan_raises_and_a_stranger_in_it_is_named(plan):
    def program(requests, decoding, pending, budget):
        by_number = dict(enumerate(requests))
        return {by_number.get(key, key): tokens for key, tokens in plan.items()}

    feedback = exercises.write_linear.check(program, seed=0)
    assert feedback.ok is not True and len(str(feedback)) > 20

    def and_a_stranger(requests, decoding, pending, budget):
        return exercises.write_linear.solution(requests, decoding, pending, budget) | {"ghost": 1}

    assert "'ghost' is in the plan" in str(exercises.write_linear.check(and_a_stranger, seed=0))


def test_comparisons_are_the_same_in_every_process():
    """A hash is drawn from the case: a question that is shown on a page stays the same."""
    assert (
        exercises.write_linear.as_choice(0)._repr_html_() == exercises.write_linear.as_choice(0)._repr_html_()
    )
    assert hash(linear.Name(7, linear.Meter(9), 70)) == 70


# --- the device kept busy -------------------------------------------------------------------------------


def test_only_the_soonest_order_is_right_and_the_others_are_told_what_they_cost():
    form = exercises.order_overlap
    keys = [step.key for step in form.steps]
    works, right = {}, []
    for order in permutations(keys):
        feedback = form.check(list(order))
        before = all(
            order.index(a) < order.index(b)
            for a, b in [
                ("plan1", "launch1"),
                ("launch1", "read1"),
                ("plan1", "plan2"),
                ("plan2", "launch2"),
                ("launch1", "launch2"),
                ("launch2", "read2"),
                ("read1", "read2"),
            ]
        )
        assert before == ("comes too early" not in feedback.message), (order, feedback.message)
        if before:
            works[order] = feedback
            right += [order] if feedback.ok else []
    assert right == [tuple(keys)] and len(works) == 5
    serial = works[("plan1", "launch1", "read1", "plan2", "launch2", "read2")]
    assert "22 ms where 17 are enough" in serial.message and "is idle for 5 ms" in serial.message


# --- in words -------------------------------------------------------------------------------------------


def test_the_written_question_keeps_its_answer_behind_folds():
    form = exercises.overhead_in_words
    page = form._repr_html_()
    shown = re.sub(r"<details>.*?</details>", "", page, flags=re.S)
    assert "smaller part of the loss" in page and "smaller part of the loss" not in shown
    assert page.count("<details>") == 2 and page.count('type="checkbox"') == len(form.rubric)
    for i in range(len(form.rubric)):
        assert f'for="cp-{form.id}-{i}"' in page
    assert form.points == 10 and str(form.points) in str(form)


def test_its_numbers_are_those_of_a_run():
    """Steps and scheduling of the model answer, from the loop itself."""
    for budget, n_steps in zip(chapter6.BUDGETS, chapter6.STEPS):
        n = chapter6.N_RUNNING
        asked = [cp.Request(i, 0.0, 1, 100) for i in range(n)]
        asked.append(cp.Request("document", 0.5, chapter6.N_PROMPT, 1))
        visit = 1e-6 * chapter6.VISIT_US
        trace = cp.simulate(
            asked, cp.ChunkedPrefill(budget), lambda batch: 1.0, scheduling=cp.SchedulerCost(per_decode=visit)
        )
        own = [step for step in trace.steps if "document" in step.batch.rid]
        assert len(own) == n_steps
        assert 1e3 * (own[0].dispatched - own[0].scheduled) == pytest.approx(chapter6.VISITS_MS)
        assert f"{n_steps}" in exercises.overhead_in_words.answer


def test_a_rubric_that_gives_nothing_is_refused():
    with pytest.raises(ValueError, match="at least 1 point"):
        Written(id="x", title="", prompt="", rubric=(), answer="")
    with pytest.raises(ValueError, match="same thing twice"):
        Written(id="x", title="", prompt="", rubric=((1, "a"), (2, "a")), answer="")
    assert replace(exercises.overhead_in_words, rubric=((3, "a"),)).points == 3


def test_the_profile_of_the_question_adds_up():
    prompt = exercises.what_to_fix.prompt
    parts = [float(ms) for ms in re.findall(r"(\d\.\d) ms", prompt)]
    assert len(parts) == 6 and sum(parts) == pytest.approx(10 - 4)


# --- claims about graphs --------------------------------------------------------------------------------


@pytest.mark.parametrize(("evidence", "badge"), [("lost_graphs", "recorded"), ("padding", "simulated")])
def test_claims_about_graphs_have_two_sides(evidence, badge):
    found = course.evidence.both_sides(getattr(course.evidence, evidence))
    assert found.sound and found.claimed.badges == [badge]


def test_the_sentence_that_lost_graphs_replaces_fails_on_the_recording():
    """Of "on a large model launching runs ahead of the kernels, and nothing is lost", the recorded rows say otherwise."""
    rows = {
        key: eager / graph for key, (eager, graph) in launching.graph_rows().items() if key[0] == "Llama-3-8B"
    }
    assert max(rows.values()) > 2 and len(rows) >= 6
