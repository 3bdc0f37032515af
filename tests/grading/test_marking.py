"""Points are what the tables say: for whole, half and blank answers, for typical mistakes and for guesses."""

from __future__ import annotations

import os
import random
import re
from dataclasses import replace

import pytest

from chunkprefill.grading.marking import mark
from chunkprefill.grading.problems import key
from chunkprefill.grading.problems.sheet import numbers_right, tally, truths_right
from chunkprefill.grading.session import LocalSession, NoAnswer, TimedOut
from tests.grading.submissions import FULL, HALF, SETS, cells, guess, marked, secrets, solved, total

# A case of PS3 takes seconds to draw. ALL_SECRETS=1 draws as many of them as of the other sets.
N = {"PS1": 50, "PS2": 50, "PS3": 50 if os.environ.get("ALL_SECRETS") else 6}


def rewritten(name: str, secret: str, question: str, *changes: tuple[str, str]) -> dict[str, str]:
    """The solution of one question with some of its code replaced."""
    (code,) = solved(name, secret, (question,)).values()
    for old, new in changes:
        assert re.search(old, code), f"{old} is not in the solution of {question}"
        code = re.sub(old, new, code)
    return {question: code}


@pytest.mark.parametrize("name", SETS)
def test_whole_half_and_blank_submissions_get_exactly_the_documented_points(name: str) -> None:
    for secret in secrets(N[name]):
        whole = marked(name, secret, rest="solution")
        assert total(whole) == FULL[name], [each for each in whole.values() if each.points < each.max_points]
        assert {each.status for each in whole.values()} <= {"ok", "needs manual"}
        questions, points = HALF[name]
        half = marked(name, secret, solved(name, secret, questions))
        assert total(half) == points
        blank = marked(name, secret)
        assert total(blank) == 0 and {each.status for each in blank.values()} == {"no answer"}
        rows = key.make(name, secret)["questions"]
        assert sum(row["points"] for row in rows) == key.make(name, secret)["max_score"] == 20


TOP_LEFT = (r"p = start \+ torch.arange\(n_queries\)", "p = torch.arange(n_queries)")
MISTAKES = {
    "a mask that starts top left": ("chunk_attention", (TOP_LEFT,), 2),
    "a chunk that sees itself alone": ("chunk_attention", ((r"\(j <= p\)", "(j >= start) & (j <= p)"),), 2),
    "no window": ("chunk_attention", ((r"p - j < WINDOW", "p - j < 10**9"),), 4),
    "a window and no sink": ("chunk_attention", ((r" \| \(j < SINK\)", ""),), 4),
    "no mask at all": ("chunk_attention", ((r"seen = .*", "seen = p + j >= 0"),), 0),
    "heads shared in the wrong order": ("chunk_attention", (
        (r"x.repeat_interleave\((.*), dim=1\) for", r"x.repeat(1, \1, 1) for"),), 4),
    "no scaling": ("chunk_attention", ((r" / size\*\*0.5", ""),), 0),
    "nan": ("chunk_attention", ((r"scores = ", "scores = float('nan') * "),), 0),
    "positions that restart in each chunk": ("store", (
        (r"angle = p\[", "angle = torch.arange(n_tokens)["),), 4),
    "a write at the start of the blocks": ("store", (
        (r"slots = (.*)", r"p = torch.arange(n_tokens)\n    slots = \1"),), 2),
    "a write that forgets the table": ("store", ((r"slots = .*", "slots = p"),), 2),
    "values turned too": ("store", ((r"= turned, v\n", "= turned, turned\n"),), 4),
    "keys not turned": ("store", ((r"= turned, v\n", "= k, v\n"),), 2),
    "turned the other way": ("store", ((r"angle = ", "angle = -1 * "),), 2),
    "another base": ("store", ((r"THETA \*\*", "10_000_000.0 **"),), 2),
    "other slots cleared": ("store", ((r"cache_k.clone\(\), cache_v.clone\(\)",
                                      "torch.zeros_like(cache_k), torch.zeros_like(cache_v)"),), 0),
    "a wrong shape": ("store", ((r"return cache_k, cache_v", "return cache_k[1:], cache_v[1:]"),), 0),
    "one array in place of two": ("store", ((r"return cache_k, cache_v", "return cache_k"),), 0),
    "whole numbers": ("chunk_attention", ((r"return (.*)", r"return (\1).long()"),), 0),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_code_with_a_known_mistake_gets_the_points_of_the_parts_that_it_has_right(mistake: str) -> None:
    question, changes, points = MISTAKES[mistake]
    for secret in secrets(12):
        (got,) = [m for m in marked("PS1", secret, rewritten("PS1", secret, question, *changes)).values()
                  if m.question == question]  # fmt: skip
        assert got.points == points, (secret, got)
        assert got.status == "ok" and got.comment and got.reason


POLICIES = {  # change of the reference -> promises that it does not keep
    "documents starve": ({"share": 0.0}, {"first tokens of documents"}),
    "first come, first served": ({"chat": 10**9}, {"first tokens of chats"}),
    "steps one fifth too long": ({"bound": 1.2}, {"time between tokens"}),
}


def policy_cell(secret: str, **changes: float) -> dict[str, str]:
    (code,) = solved("PS2", secret, ("Policy",)).values()
    names = ("TBT", "BASE", "TOKEN", "PAIR", "DECODE", "CHAT", "OWED")
    fields = dict(zip(("bound", "base", "token", "pair", "decode", "chat", "share"), names))
    for name, value in changes.items():
        fields[name] = f"{value} * TBT" if name == "bound" else repr(value)
    return {
        "Policy": code[: code.index("    return Owed(TBT")] + f"    return Owed({', '.join(fields.values())})"
    }


@pytest.mark.parametrize("kind", POLICIES)
def test_a_policy_that_forgets_one_promise_loses_that_one(kind: str) -> None:
    changes, lost = POLICIES[kind]
    for secret in secrets(10):
        got = marked("PS2", secret, policy_cell(secret, **changes))["Policy"]
        assert (got.points, set(got.reason.split(", "))) == (12 - 3 * len(lost), lost), (secret, got)


PLANS = {
    "overdraws": "cp.Plan({s.rid: s.pending + 1 for s in (*state.running, *state.waiting)})",
    "does nothing": "cp.Plan({})",
    "plans for a stranger": "cp.Plan({-7: 1})",
    "evicts for ever": "cp.Plan({}, tuple(s.rid for s in state.running)) if state.running else "
    "cp.Plan({s.rid: 1 for s in state.waiting})",
    "a token at a time": "cp.Plan({(*state.running, *state.waiting)[0].rid: 1})",
    "no plan": "42",
    "raises": "1 / 0",
    "raises what it sees": "exec('raise RuntimeError(str([s.n_prompt for s in state.waiting]))')",
    "raises a name": "exec('raise type(f\\'n{state.waiting[0].n_prompt}\\', (Exception,), {})()')",
    "returns a name": "type(f'n{(*state.waiting, *state.running)[0].n_prompt}', (), {})()",
    "gives a part of a token": "cp.Plan({s.rid: 0.5 for s in (*state.running, *state.waiting)})",
    "serves only chats": "cp.Plan({s.rid: s.pending for s in (*state.running, *state.waiting) if s.n_prompt "
    "<= CHAT})",
}


@pytest.mark.parametrize("kind", PLANS)
def test_a_policy_that_does_not_run_to_its_end_earns_nothing_and_carries_nothing_out(kind: str) -> None:
    body = f"class Policy:\n    def schedule(self, state):\n        return {PLANS[kind]}"
    for secret in secrets(4):
        (code,) = solved("PS2", secret, ("Policy",)).values()
        constants = re.search(r"^TBT, TTFT.*$", code, re.M)[0]  # type: ignore[index]
        got = marked("PS2", secret, {"Policy": f"{constants}\n{body}"})["Policy"]
        assert got.points == 0 and got.status == "ok" and "hidden workloads" in got.comment
        numbers = [float(n) for n in re.findall(r"\d+", got.comment)]
        assert all(n <= 20 for n in numbers), got.comment  # counts of workloads and of cells, no lengths


def test_naming_the_fault_is_worth_a_tenth_at_most_and_changing_everything_nothing() -> None:
    for secret in secrets(N["PS3"]):
        questions = {q.name: q for q in key.sheet_of("PS3", secret).questions}
        named = marked("PS3", secret, solved("PS3", secret, ("fault",)))
        assert total(named) == 1 <= 0.1 * sum(questions[q].points for q in ("report", "fault", "fix"))
        every = ("{'first': 'decodes', 'order': 'shortest', 'inputs': 'at once', 'chunk': 512, "
                 "'n_blocks': 30000, 'token_budget': 512}")  # fmt: skip
        got = marked("PS3", secret, {"fix": f"fix = {every}"})["fix"]
        assert got.points == 0 and "One setting" in got.comment


BAD_FIXES = (
    "{'token_budget': 10**12}", "{'token_budget': 1.5}", "{'token_budget': True}", "{'n_blocks': 1}",
    "{}", "{'first': 'nobody'}", "{'speed': 3}", "[1]", "'more'", "{'chunk': '512'}", "{1: 2}",
)  # fmt: skip


@pytest.mark.parametrize("fix", BAD_FIXES)
def test_a_fix_that_is_none_is_told_so_and_replays_nothing(fix: str) -> None:
    got = marked("PS3", secrets(1)[0], {"fix": f"fix = {fix}"})["fix"]
    assert got.points == 0 and (got.comment or got.status != "ok")


@pytest.mark.parametrize("name", SETS)
def test_who_guesses_every_choice_never_gets_full_marks_and_little_on_average(name: str) -> None:
    rng, points = random.Random(name), []
    for secret in secrets(N[name]):
        sheet = key.sheet_of(name, secret)
        guesses = {q.name: guess(q, rng) for q in sheet.questions if not q.written}
        points.append(total(marked(name, secret, guesses)))
    assert max(points) < 0.5 * FULL[name]
    assert sum(points) / len(points) < 0.15 * FULL[name]


@pytest.mark.parametrize(
    "value", ["float('nan')", "float('inf')", "True", "'7'", "[7]", "10**400", "None", "7+0j"]
)
def test_a_number_that_is_none_is_marked_wrong_with_a_reason(value: str) -> None:
    secret = secrets(1)[0]
    (right,) = solved("PS1", secret, ("counts",)).values()
    wrong = re.sub(r'"passes": \d+', f'"passes": {value}', right)
    got = marked("PS1", secret, {"counts": wrong})["counts"]
    assert got.points in (0, 3) and (got.comment or got.reason)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize(
    "value", ["7", "'text'", "[]", "{}", "[[1], {'a': None}]", "object()", "lambda *a: 7", "..."]
)
def test_an_answer_of_a_wrong_kind_never_breaks_the_marking(name: str, value: str) -> None:
    secret = secrets(1)[0]
    sheet = key.sheet_of(name, secret)
    marks = marked(name, secret, {q.name: f"{q.name} = {value}" for q in sheet.questions if not q.written})
    assert total(marks) == 0 and len(marks) == len(sheet.questions)


def test_an_object_that_equals_everything_is_no_answer() -> None:
    trick = "class Yes(dict):\n    __eq__ = lambda *a: True\n    __hash__ = None\n"
    for name in SETS:
        sheet = key.sheet_of(name, secrets(1)[0])
        marks = marked(name, secrets(1)[0], {q.name: f"{trick}{q.name} = Yes()" for q in sheet.questions})
        assert total(marks) == 0


def test_what_ends_the_session_goes_through_with_the_marks_so_far() -> None:
    secret = secrets(1)[0]
    sheet = key.sheet_of("PS1", secret)

    class Late(LocalSession):
        def call(self, *args, **kwargs):
            raise TimedOut("chunk_attention", "60 s of CPU time")

    session = Late(cells(sheet, lambda question: question.solution), needs_torch=True)
    with pytest.raises(TimedOut) as error:
        mark(key.make("PS1", secret), session, {})
    assert [each.question for each in error.value.marks] == ["order", "counts"]


def test_a_written_answer_waits_for_a_person_and_a_blank_one_does_not() -> None:
    secret = secrets(1)[0]
    session = LocalSession([])
    for text, status in (("It depends.", "needs manual"), ("  \n", "no answer")):
        advice = mark(key.make("PS3", secret), session, {"advice": text})[-1]
        assert (advice.question, advice.status, advice.points, advice.max_points) == ("advice", status, 0, 3)


def test_comments_never_hold_a_right_answer() -> None:
    """Everything wrong: no comment has the numbers, the letters or the settings that would be right."""
    for name in SETS:
        for secret in secrets(min(10, N[name])):
            rng, sheet = random.Random(secret), key.sheet_of(name, secret)
            wrong = {q.name: guess(q, rng) for q in sheet.questions if not q.written}
            marks = marked(name, secret, wrong)
            for question in sheet.questions:
                if question.form.get("kind") != "numbers":
                    continue
                right = [n for n in re.findall(r": ([\d.]+)", question.solution) if len(n) > 2]
                said = marks[question.name].comment
                assert not any(re.search(rf"(?<![\d.]){re.escape(n)}(?![\d.])", said) for n in right), said


def test_sums_and_statements_count_as_documented() -> None:
    assert tally([(2, True, "a"), (3, False, "b")], ("x", "y")).points == 2
    assert tally([(2, True, "a"), (3, False, "b")], ("x", "y")).missed == ("y",)
    right = dict.fromkeys("abcdefgh", True)
    for wrong in range(9):
        answer = {name: i >= wrong for i, name in enumerate(right)}
        assert truths_right(answer, right, 4).points == max(0, 4 - wrong)
    with pytest.raises(NoAnswer):
        truths_right(dict.fromkeys(right), right, 4)
    assert numbers_right({"x": 103}, {"x": 100}, 1, tolerance=0.03).points == 1
    assert numbers_right({"x": 104}, {"x": 100}, 1, tolerance=0.03).points == 0
    assert numbers_right({"x": 0}, {"x": 100}, 1, tolerance=0.03).points == 0


def test_a_changed_key_marks_nothing() -> None:
    made = key.make("PS2", secrets(1)[0])
    for change in ({"max_score": 100}, {"questions": []}, {"problem_set": "PS1"}, {"needs_torch": True}):
        with pytest.raises(ValueError, match="is not what this secret draws"):
            mark(made | change, LocalSession([]), {})
    assert replace(mark(made, LocalSession([]), {})[0], points=0).status == "no answer"
