"""The clinic's cases speak plainly: their rounded text is enough to find the fault; only its fix mends it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from functools import cache
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chunkprefill as cp
import chunkprefill_course as course
from chunkprefill.plots import dashboard as traceplots
from chunkprefill_course.clinic import CAUSES, FAULTS, FIX_FOR, FIXES, PROMISES, REMEDIES, ROWS, TELLING
from tests.needs import ROOT
from tests.proof import draws, left_to_proof

#: Cases of each cause, from seeds that nothing else uses: 207 in all where all are drawn.
UNSEEN = draws(2, 12, 23)


# --- a diagnoser that sees what a reader sees ---------------------------------------------------------


def number(text):
    """`12.3 ms`, `1.2 s`, `45%`, `1,234` as seconds, a share of 1, or a count."""
    value, unit = re.match(r"([\d,.]+)\s?(ms|s|%)?", text).groups()
    return float(value.replace(",", "")) * {"ms": 1e-3, "s": 1, "%": 1e-2, None: 1}[unit]


def table(text):
    """{row: number} and {row: (promise, broken)} of a dashboard's text."""
    rows, promises = {}, {}
    for line in text.splitlines():
        if found := re.match(r"  (\w+) +([\d,.]+(?: m?s|%)?)  \w", line):
            rows[found[1]] = number(found[2])
            if promised := re.search(r"promised: at most (.*?): (kept|broken)", line):
                promises[found[1]] = number(promised[1]), promised[2] == "broken"
    return rows, promises


def diagnose(text):
    """The cause, by the book: what is broken, and then one question after another."""
    v, promises = table(text)
    broken = {row for row, (_, is_broken) in promises.items() if is_broken}
    if not broken:
        return "healthy"
    if v["evictions"] > 3 and v["recomputed"] > 0.02:
        return "pool-too-small"
    if v["all_left_out"] > 0.02:
        return "prefill-first"
    if v["gpu_idle"] > 0.22:
        return "slow-inputs"
    if v["launch"] > 0.65 * v["step_p50"]:
        return "launch-bound"
    if v["decodes_fill"] > 0.4:
        return "budget-below-decodes"
    if v["step_p99"] > 1.6 * promises["tbt_p99"][0]:
        return "budget-too-large"
    if v["again_less"] < 0.87 * v["again"]:
        return "tile-unfriendly"
    if v["prompt_tokens"] < 0.5 * v["twice"] and v["prompt_steps"] > 0.65:
        return "chunk-too-small"
    if v.get("ttft_behind", 0) > 2 * v.get("ttft_not_behind", 1):
        return "long-head"
    return "?"


@cache
def drawn(cause, i):
    return course.clinic.case(f"unseen {i}", cause)


@pytest.fixture(scope="module")
def unseen():
    """{cause: cases} from seeds of their own."""
    return {cause: [drawn(cause, i) for i in range(UNSEEN)] for cause in CAUSES}


def few(cause):
    """The first of them."""
    return [drawn(cause, i) for i in range(min(4, UNSEEN))]


@pytest.mark.slow
def test_the_rounded_text_is_enough(unseen):
    answers = Counter((c.cause, diagnose(c.text())) for cases in unseen.values() for c in cases)
    right = sum(n for (cause, said), n in answers.items() if cause == said)
    missed = {pair: n for pair, n in answers.items() if pair[0] != pair[1]}
    assert sum(answers.values()) == UNSEEN * len(CAUSES) and right >= 0.95 * sum(answers.values()), missed
    assert answers["healthy", "healthy"] >= 0.95 * UNSEEN, missed


def test_the_text_says_nothing_but_numbers():
    """No name of the fault, and none of the settings that are words."""
    for cause in CAUSES:
        for case in few(cause)[:2]:
            shown = case.text() + repr(case) + str(case.picture())
            for secret in (*CAUSES, *FAULTS.values(), "row by row", "prompts first", "arrival:", "shortest"):
                assert secret not in shown, secret
            assert set(table(case.text())[0]) == {row for row in ROWS if not np.isnan(case.metric(row))}


@pytest.mark.slow
@left_to_proof(
    "three cases a cause are enough for the tests beside it, and too few for what settings overlap"
)
def test_nothing_is_recognised_by_its_settings(unseen):
    """The shown settings of different causes overlap, except where the setting is the fault."""
    budgets = {cause: [c.settings.token_budget for c in cases] for cause, cases in unseen.items()}
    plain = [cause for cause in CAUSES if not cause.startswith("budget")]
    for one in plain:
        for other in plain:
            assert min(budgets[one]) <= max(budgets[other]), (one, other)
    off_tile = [b % 128 for cause in plain if cause != "tile-unfriendly" for b in budgets[cause]]
    assert sum(map(bool, off_tile)) > 0.15 * len(off_tile), "a crooked budget is not a fault in itself"
    assert len({c.scene.machine.name for cases in unseen.values() for c in cases}) >= 6
    for cases in unseen.values():
        assert len({c.requests for c in cases}) == len(cases)
        assert len({c.scene.load.names for c in cases}) > 1


# --- the fixes ----------------------------------------------------------------------------------------


def quantile(values, q):
    """By hand: the metrics of the package are not asked."""
    values = sorted(values)
    place = q * (len(values) - 1)
    low = int(place)
    return values[low] + (place - low) * (values[min(low + 1, len(values) - 1)] - values[low])


def promised(case, trace):
    """{promise: value} of a trace, from its rows one after the other."""
    c = trace.columns
    ends = [end for end, a, b in zip(c["end"], c["offset"], c["offset"][1:]) for _ in range(b - a)]
    said = {}
    for i, emits, end in zip(c["request"], c["emits"], ends):
        if emits:
            said.setdefault(i, []).append(end)
    gaps = [b - a for times in said.values() for a, b in pairwise(times)]
    out = {"tbt_p99": quantile(gaps, 0.99)}
    waits = {i: times[0] - trace.requests[i].arrival for i, times in said.items()}
    long = {i for i, r in enumerate(trace.requests) if r.n_prompt > case.limit}
    for row, mine in (("ttft_short_p90", waits.keys() - long), ("ttft_long_p90", long)):
        if mine:
            out[row] = quantile([waits[i] for i in mine], 0.9)
    return out


@pytest.mark.parametrize("cause", FAULTS)
def test_the_right_fix_mends_it_and_no_other_does(cause):
    """Replayed, with the promises counted here; near one counts as neither kept nor broken."""
    for case in few(cause):
        worst = {}
        for fix in REMEDIES:
            if fix != "nothing" and case.replay(**case.changes(fix)).trace is case.trace:
                continue  # it changes nothing
            values = promised(case, case.replay(**case.changes(fix)).trace)
            assert values.keys() == case.bounds.keys()
            worst[fix] = max(values[row] / bound for row, bound in case.bounds.items())
        assert worst.pop(FIX_FOR[cause]) < 1, (case, worst)
        assert min(worst.values()) > 1.02, (case, worst)


def test_each_fault_breaks_what_its_fix_restores():
    for cause in FAULTS:
        for case in few(cause):
            replay = case.replay(**case.changes(case.right_fix))
            assert case.dashboard.broken and replay.restored
            for row in case.dashboard.broken:
                assert replay.after.values[row] < case.metric(row)


@pytest.mark.slow
def test_plain_and_silent_lie_apart(unseen):
    """What `course.clinic.marks()` says of all cases with a fault, read off their rounded texts."""
    said = {
        row[0]: [float(re.search(r"[\d.]+", cell)[0]) for cell in row[1:]]
        for row in course.clinic.marks().rows
    }
    plain, silent = (dict(zip(said, column)) for column in zip(*said.values()))
    rows = {
        "prefill-first": ("steps in which no decode ran though some were ready", "all_left_out", 100),
        "pool-too-small": ("requests that lost their cache", "evictions", 1),
        "budget-below-decodes": ("steps that decodes fill to three quarters", "decodes_fill", 100),
        "slow-inputs": ("GPU idle while there was work", "gpu_idle", 100),
        "tile-unfriendly": ("time saved by a tenth fewer tokens", "saved", 100),
    }
    for cause in FAULTS:
        for case in unseen[cause]:
            v, _ = table(case.text())
            v["saved"] = 1 - v["again_less"] / v["again"]
            for own, (words, row, scale) in rows.items():
                if cause == own:
                    assert scale * v[row] >= 0.96 * plain[words], (case, row)
                else:
                    assert scale * v[row] <= 1.06 * silent[words], (case, row)


@pytest.mark.slow
def test_the_fault_itself_is_there(unseen):
    """Counted in the trace, by definitions written here and not by the dashboard's."""
    for case in unseen["budget-below-decodes"]:
        wanted = case.replay(**case.changes("larger-budget")).after.values["decodes"]
        assert case.settings.token_budget < wanted, "fewer tokens a step than there are decodes"
    for case in unseen["pool-too-small"]:
        assert sum(len(step.batch.preempted) for step in case.trace.steps) > 3
    for case in unseen["prefill-first"]:
        kinds = [
            {c.start >= 1 and c.length == 1 and c.emits for c in s.batch.chunks} for s in case.trace.steps
        ]
        assert kinds.count({True, False}) < 0.02 * len(kinds), "prompts and decodes never share a step"
    for case in unseen["tile-unfriendly"]:
        assert 0 < case.settings.token_budget % case.scene.machine.tile <= case.settings.token_budget / 14
    for case in unseen["slow-inputs"]:
        idle = sum(s.start - s.scheduled for s in case.trace.steps)
        assert idle > 0.3 * sum(s.end - s.start for s in case.trace.steps)
    for case in unseen["healthy"]:
        assert case.changes("nothing") == {} and not case.dashboard.broken


def test_a_case_is_a_function_of_its_seed():
    script = "import chunkprefill_course as course; print(course.clinic.case(5, 'prefill-first').text())"
    fresh = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    case = course.clinic.case(5, "prefill-first")
    assert fresh.stdout.strip() == case.text().strip(), fresh.stderr
    assert course.clinic.case(6, "prefill-first").text() != case.text()
    drawn = [course.clinic.case(seed) for seed in range(3)]
    assert [c.text() for c in drawn] == [course.clinic.case(c.seed, c.cause).text() for c in drawn]
    with pytest.raises(ValueError, match="no fault 'gremlins'"):
        course.clinic.case(0, "gremlins")


# --- what a diagnosis is told -------------------------------------------------------------------------


class Balanced(HTMLParser):
    """Fails on a tag that is closed by another, or never."""

    def __init__(self, page):
        super().__init__()
        self.open = []
        self.feed(page)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        if tag not in {"input", "br", "img", "hr", "path", "use", "rect", "line"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            assert self.open.pop() == tag


@pytest.mark.parametrize("cause", CAUSES)
def test_a_whole_right_diagnosis_is_right_and_each_part_is_needed(cause):
    for case in few(cause):
        rows, fix = list(case.tells()), FIX_FOR[cause]
        assert case.check(cause, rows, fix).ok is True, str(case.check(cause, rows, fix))
        assert case.check(cause, rows, case.changes(fix)).ok is True
        assert case.check(cause, rows).ok is None and case.check(cause).ok is None and case.check().ok is None
        for other in REMEDIES:
            if other != fix:
                assert not case.check(cause, rows, other), other


@pytest.mark.parametrize("cause", CAUSES)
def test_a_wrong_cause_is_told_the_numbers_against_it(cause):
    for case in few(cause):
        told = set()
        for wrong in CAUSES:
            if wrong == cause:
                continue
            feedback = case.check(wrong, list(ROWS), FIX_FOR[wrong])
            assert feedback.ok is False and re.search(r"\d", str(feedback))
            told.add(str(feedback))
            quoted = [number(x) for x in re.findall(r"[\d,.]*\d(?: m?s\b|%)?", str(feedback))]
            known = [number(case.dashboard.say(row)) for row in ROWS if case.dashboard.say(row) != "–"]
            assert any(q in known for q in quoted) or "There are no" in str(feedback), str(feedback)
            assert CAUSES[cause] not in str(feedback), "the answer is not given away"
        assert len(told) == len(CAUSES) - 1


@pytest.mark.parametrize("cause", FAULTS)
def test_the_right_cause_with_the_wrong_evidence_is_told_so(cause):
    for case in few(cause):
        symptoms = case.check(cause, list(PROMISES[:2]), FIX_FOR[cause])
        assert symptoms.ok is False and "not the evidence" in str(symptoms)
        still = [
            row for row in ROWS if row not in TELLING[cause] and case.metric(row) == case.mended.values[row]
        ]
        assert still, "some row does not change"
        feedback = case.check(cause, [*case.tells(), still[0]], FIX_FOR[cause])
        assert feedback.ok is False and still[0] in str(feedback)


def test_a_free_fix_counts_if_it_mends():
    case = few("budget-too-large")[0]
    half = case.changes("smaller-budget")["token_budget"]
    assert case.replay(token_budget=half).restored
    assert case.check(case.cause, "step_p99", {"token_budget": half}).ok is True
    assert case.check(case.cause, "step_p99", {"token_budget": case.settings.token_budget}).ok is False
    for bad in (
        {"token_budget": 0},
        {"token_budget": 10**9},
        {"gremlins": 1},
        {"first": "no one"},
        7,
        "luck",
        {"token_budget": 1},
        {"n_blocks": 1},
        {"token_budget": "1"},
        [],
        {3: 4},
    ):
        feedback = case.check(case.cause, "step_p99", bad)
        assert feedback.ok is not True and len(str(feedback)) < 2000, bad


class Unspeakable:
    def __repr__(self):
        raise RuntimeError

    def __iter__(self):
        while True:
            yield self


CASE = course.clinic.case("odd", "slow-inputs")


@settings(max_examples=60, deadline=None)
@given(
    cause=st.none() | st.text() | st.sampled_from(list(CAUSES)) | st.integers() | st.just(Unspeakable()),
    evidence=st.none()
    | st.text()
    | st.lists(st.text() | st.sampled_from(list(ROWS)) | st.integers())
    | st.integers()
    | st.just(Unspeakable()),
    fix=st.none()
    | st.text()
    | st.sampled_from(list(FIXES))
    | st.integers()
    | st.just(Unspeakable())
    | st.dictionaries(st.text(), st.integers(), max_size=2),
)
def test_whatever_is_said_never_raises(cause, evidence, fix):
    feedback = CASE.check(cause, evidence, fix)
    assert feedback.ok in (True, False, None) and len(str(feedback)) < 3000
    Balanced(feedback._repr_html_())


# --- forms --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cause", CAUSES)
def test_a_form_answers_without_a_kernel_and_gives_nothing_away(cause):
    case = few(cause)[0]
    form = course.clinic.form(case, "X")
    page = form._repr_html_()
    Balanced(page)
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids)) and len(page) < 130_000
    right = [next(o for o in part.options if o.ok) for part in (form.cause, form.evidence, form.fix)]
    assert right[0].key == cause and right[2].key == FIX_FOR[cause]
    row = right[1].key.replace("-", "_")
    assert row in (case.tells() if cause != "healthy" else PROMISES)
    assert [o.key for o in form.cause.options] == list(CAUSES), "the order is the same in all cases"
    assert [o.key for o in form.fix.options] == list(REMEDIES)
    for option in form.fix.options:
        if "Replayed" in option.reply and cause != "healthy":
            assert ("broken" in option.reply) != option.ok, option.reply
    for option in form.cause.options:
        assert re.search(r"\d", option.reply), option.reply
        assert option.ok or CAUSES[cause] not in option.reply


def test_the_picture_shows_every_wait():
    from matplotlib.figure import Figure

    case = few("long-head")[0]
    ax = Figure().subplots()
    traceplots.first_tokens(case.trace, ax, lambda r: "long" if r.n_prompt > case.limit else "short")
    drawn = {tuple(xy) for line in ax.lines for xy in zip(*line.get_data())}
    first = {}
    for step in case.trace.steps:
        for chunk in step.batch.chunks:
            if chunk.emits:
                first.setdefault(chunk.rid, step.end)
    assert drawn == {(r.arrival, first[r.rid] - r.arrival) for r in case.requests}
    assert len(ax.lines) == 2 and len({line.get_marker() for line in ax.lines}) == 2, "not by colour alone"
    ax = Figure().subplots()
    traceplots.gaps(case.trace, ax, lambda r: "long" if r.n_prompt > case.limit else "short")
    tops = [max(ax.patches[0].get_data().values), max(ax.lines[0].get_ydata())]
    assert min(tops) > 0 and max(tops) == pytest.approx(1e3 * case.metric("tbt_max"))
    assert len(case.picture().svg) < 90_000


# --- rows ---------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 0.5), st.integers(1, 300), st.integers(1, 20)), min_size=1, max_size=10),
    st.integers(4, 64),
    st.sampled_from(["decodes", "prompts"]),
    st.sampled_from(["arrival", "shortest"]),
    st.integers(20, 60),
)
def test_rows_of_any_run_agree_with_its_steps(rows, budget, first, order, n_blocks):
    requests = [cp.Request(i, t, p, o) for i, (t, p, o) in enumerate(rows)]
    set_to = course.clinic.Settings(
        token_budget=budget, chunk=48, n_blocks=n_blocks, first=first, order=order
    )
    trace = cp.simulate(requests, course.clinic.Rules(set_to), cp.published("h100"), cp.BlockPool(n_blocks))
    read = course.clinic.read(trace, limit=200, token_budget=budget, n_blocks=n_blocks)
    n_left = n_ready = n_none = n_full = 0
    ready: set = set()
    for step in trace.steps:
        ran = {c.rid for c in step.batch.chunks}
        assert sum(step.batch.length) <= budget, "the budget is kept"
        ready -= set(step.batch.preempted)
        n_left += len(ready - ran)
        n_ready += len(ready)
        n_none += bool(ready) and not ready & ran
        n_full += sum(step.batch.length) == budget
        emitted = {c.rid for c in step.batch.chunks if c.emits}
        ends = {c.rid: c.end for c in step.batch.chunks}
        last = {r.rid: r.n_prompt + r.n_output - 1 for r in requests}
        ready = (ready | emitted) - {rid for rid in emitted if ends[rid] == last[rid]}
    n = len(trace.steps)
    assert read["left_out"] == pytest.approx(n_left / n_ready if n_ready else 0)
    assert read["all_left_out"] == pytest.approx(n_none / n) and read["budget_full"] == pytest.approx(
        n_full / n
    )
    assert read["evictions"] == sum(len(s.batch.preempted) for s in trace.steps)
    assert np.isnan(read["again"]), "nothing is priced where no price is given"
    if first == "decodes" and not trace.preempted:
        assert read["left_out"] == 0, "decodes first, and never more of them than the budget"


def test_each_cause_has_its_fix_its_rows_and_its_words():
    assert set(FIX_FOR) == set(CAUSES) == set(TELLING) and set(FIX_FOR.values()) == set(REMEDIES)
    assert len(FAULTS) == len(FIXES) == 9
