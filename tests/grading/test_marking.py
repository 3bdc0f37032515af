"""Points are what the tables say: for whole, half and blank answers, for typical mistakes and for guesses."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest

from chunkprefill_grading.marking.mark import mark
from chunkprefill_grading.problems import key, ps2_decide
from chunkprefill_grading.problems.sheet import numbers_right, tally, truths_right
from chunkprefill_grading.sandbox.session import LocalSession, NoAnswer, TimedOut
from tests.grading.submissions import FULL, HALF, SETS, cells, guess, marked, secrets, solved, total
from tests.proof import draws

# A case of PS3 takes a second to draw.
N = {"PS1": draws(12, 50), "PS2": draws(12, 50), "PS3": draws(4, 6, 50)}
N_WHOLE, N_HALF = draws(
    (6, 3), (16, 6), (50, 50)
)  # of PS1 and PS2: running a solution takes a fifth of a second


def rewritten(name: str, secret: str, question: str, *changes: tuple[str, str]) -> dict[str, str]:
    """The solution of one question with some of its code replaced."""
    (code,) = solved(name, secret, (question,)).values()
    for old, new in changes:
        assert re.search(old, code), f"{old} is not in the solution of {question}"
        code = re.sub(old, new, code)
    return {question: code}


@pytest.mark.parametrize("name", SETS)
def test_whole_half_and_blank_submissions_get_exactly_the_documented_points(name: str) -> None:
    for i, secret in enumerate(secrets(min(N[name], N_WHOLE))):
        whole = marked(name, secret, rest="solution")
        assert total(whole) == FULL[name], [each for each in whole.values() if each.points < each.max_points]
        assert {each.status for each in whole.values()} <= {"ok", "needs manual"}
        rows = key.make(name, secret)["questions"]
        assert sum(row["points"] for row in rows) == key.make(name, secret)["max_score"] == 20
        if i >= N_HALF:
            continue
        questions, points = HALF[name]
        half = marked(name, secret, solved(name, secret, questions))
        assert total(half) == points
        blank = marked(name, secret)
        assert total(blank) == 0 and {each.status for each in blank.values()} == {"no answer"}


TOP_LEFT = (r"p = start \+ torch.arange\(n_queries\)", "p = torch.arange(n_queries)")
MISTAKES = {  # what is rewritten, and the points that stay: a number, or a few that the drawn rule leaves
    "a mask that starts top left": ("chunk_attention", (TOP_LEFT,), {2}),
    "a chunk that sees itself alone": ("chunk_attention", ((r"\(j <= p\)", "(j >= start) & (j <= p)"),), {2}),
    "no window": ("chunk_attention", ((r"p - j < WIDTH", "p - j < 10**9"),), {2, 4}),
    "a window and nothing else": ("chunk_attention", ((r" \| \(.*", ")"),), {4, 2}),
    "no mask at all": ("chunk_attention", ((r"seen = .*", "seen = p + j >= 0"),), {0}),
    "scores as they are": ("chunk_attention", ((r"scores = (?!torch)[^;]*NUMBER.*", "pass"),), {0}),
    "heads shared in the wrong order": ("chunk_attention", ((r"shared = .*", "shared = WRONG"),), {0}),
    "one query too few": ("chunk_attention", ((r"return (.*)", r"return (\1)[1:]"),), {0}),
    "not a number": ("chunk_attention", ((r"weights = ", "weights = float('nan') * "),), {0}),
    "whole numbers": ("chunk_attention", ((r"return (.*)", r"return (\1).long()"),), {0}),
    "positions that restart in each chunk": (
        "store",
        (
            (r"p = cached \+ (.*)  # positions", r"p = cached + \1\n    q = \1  # positions"),
            (r"\(p \+ (\d)\)\[:|p\[:", r"q[:"),
        ),
        {1, 3},
    ),
    "a write at the start of the blocks": (
        "store",
        ((r"    block = table", "    p = torch.arange(n_tokens)\n    block = table"),),
        {2},
    ),
    "a write that forgets the table": ("store", ((r"block = table\[(.*)\]", r"block = \1"),), {2}),
    "slots from the other end": ("store", ((r"slot = .*", "slot = OTHER_END"),), {0}),
    "values turned too": ("store", ((r"\(cache_v, v\)", "(cache_v, turned)"),), {5}),
    "keys not turned": ("store", ((r"\(cache_k, turned\)", "(cache_k, k)"),), {1}),
    "turned the other way": ("store", ((r"angle = ", "angle = -1 * "),), {1}),
    "another base": ("store", ((r"THETA \*\*", "10_000_000.0 **"),), {1}),
    "other slots cleared": ("store", ((r"(cache\w*)\.clone\(\)", r"torch.zeros_like(\1)"),), {0}),
    "a wrong shape": ("store", ((r"return (cache\w*)", r"return \1[1:]"),), {0}),
}
#: what depends on the drawn rule
RULES = {
    "shared = WRONG": {
        "heads % k.shape[1]": "heads // (n_heads // k.shape[1])",
        "heads // (n_heads // k.shape[1])": "heads % k.shape[1]",
    },
    "slot = OTHER_END": {"p % BLOCK": "BLOCK - 1 - p % BLOCK", "BLOCK - 1 - p % BLOCK": "p % BLOCK"},
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_code_with_a_known_mistake_gets_the_points_of_the_parts_that_it_has_right(mistake: str) -> None:
    question, changes, points = MISTAKES[mistake]
    for secret in secrets(draws(4, 8, 12)):
        (right,) = solved("PS1", secret, (question,)).values()
        answer = rewritten("PS1", secret, question, *changes)
        for rule, other in RULES.items():
            name = rule.partition(" ")[0]
            drawn = re.search(rf"{name} = ([^#\n]*?) *(#|$)", right, re.M)
            if rule in answer[question] and drawn:
                answer[question] = answer[question].replace(rule, f"{name} = {other[drawn[1]]}")
        (got,) = [m for m in marked("PS1", secret, answer).values() if m.question == question]
        assert got.points in points, (secret, got, answer[question])
        assert got.status == "ok" and got.comment and got.reason


DECIDES = {  # change of the solution -> promises that it does not keep; those after the first count only with it
    "documents starve": ((r"kept = OWED \* left if documents else 0.0", "kept = 0.0"), {"documents"}),
    "first come, first served": ((r"n_prompt <= CHAT", "n_prompt <= 10**9"), {"chats"}),
    "steps one fifth too long": ((r"left = TBT", "left = 1.2 * TBT"), {"tbt"}),
    "decodes forgotten": ((r" - DECODE \* n_decodes", ""), {"tbt"}),
}


@pytest.mark.parametrize("kind", DECIDES)
def test_who_forgets_one_promise_loses_that_one_and_with_the_first_all_others(kind: str) -> None:
    change, lost = DECIDES[kind]
    for secret in secrets(draws(3, 10)):
        got = marked("PS2", secret, rewritten("PS2", secret, "decide", change))["decide"]
        kept = 0 if "tbt" in lost else 12 - sum(ps2_decide.POINTS[name] for name in lost)
        assert got.points == kept, (secret, got)


BUDGETS = (32, 64, 96, 128, 256, 512, 1024, 10**6)
BLIND = {  # policies that look at tokens alone: order of the prompts, and the most tokens of one chunk
    "arrival": "sorted(rows, key=lambda r: r[1])",
    "shortest first": "sorted(rows, key=lambda r: r[2])",
    "documents behind": "sorted(rows, key=lambda r: (r[3] > CHAT, r[1]))",
    "half each": "[(i, a, min(to_go, BUDGET // 2), n) for i, a, to_go, n in sorted(rows, key=lambda r: r[1])]",
}


@pytest.mark.parametrize("kind", BLIND)
def test_no_policy_that_ignores_the_prices_gets_more_than_a_third(kind: str) -> None:
    for secret in secrets(draws(1, 2, 50)):
        question = next(q for q in key.sheet_of("PS2", secret).questions if q.name == "decide")
        form, best = question.form, 0.0
        constants = question.starter.partition("\n\n\n")[0]
        name = form["fields"].index("name")
        code = f"""{constants}
def decide({", ".join(form["signature"])}):
    rows = []
    for row in prompts:
        told = dict(zip({form["fields"]!r}, row))
        to_go = told.get("pending", told["n_prompt"] - told.get("cached", 0))
        rows.append((told["name"], told.get("arrival", now - told.get("waited", 0)), to_go, told["n_prompt"]))
    left, given = BUDGET - n_decodes, {{}}
    for name, _, to_go, _ in {BLIND[kind]}:
        n = max(0, min(to_go, left))
        given[name], left = n, left - n
    if not n_decodes and not any(given.values()):
        given[rows[0][0]] = 1
    return RETURNED
"""
        returned = {
            "list": f"[given[row[{name}]] for row in prompts]",
            "dict": "given",
            "pairs": "[(n, name) for name, n in given.items()]",
        }[form["returns"]]
        for budget in BUDGETS:
            answer = code.replace("RETURNED", returned).replace("BUDGET", str(budget))
            best = max(best, marked("PS2", secret, {"decide": answer})["decide"].points)
        assert best <= question.points / 3, (secret, best)


PLANS = {
    "overdraws": "[10 ** 7 for row in prompts]",
    "does nothing": "[0 for row in prompts]",
    "plans for a stranger": "{-7: 1}",
    "a token at a time": "[1] + [0] * (len(prompts) - 1)",
    "no plan": "42",
    "raises": "1 / 0",
    "raises what it sees": "exec('raise RuntimeError(str([row for row in ' + repr(prompts) + ']))')",
    "raises a name": "exec(f'raise type(\"n{prompts[0][0]}\", (Exception,), {{}})()')",
    "returns a name": "type(f'n{prompts[0][0]}', (), {})()",
    "gives a part of a token": "[0.5 for row in prompts]",
}


@pytest.mark.parametrize("kind", PLANS)
def test_decisions_that_do_not_run_to_their_end_earn_nothing_and_carry_nothing_out(kind: str) -> None:
    for secret in secrets(draws(1, 4)):
        question = next(q for q in key.sheet_of("PS2", secret).questions if q.name == "decide")
        signature = ", ".join(question.form["signature"])
        got = marked("PS2", secret, {"decide": f"def decide({signature}):\n    return {PLANS[kind]}"})[
            "decide"
        ]
        assert got.points == 0 and got.status == "ok" and "hidden workloads" in got.comment, got
        said = re.sub(r"\(code cell.*", "", got.comment)
        assert all(float(n) <= 20 for n in re.findall(r"\d+", said)), got.comment  # counts, and no lengths


def test_naming_the_fault_is_worth_a_tenth_at_most_and_changing_everything_nothing() -> None:
    for secret in secrets(N["PS3"]):
        questions = {q.name: q for q in key.sheet_of("PS3", secret).questions}
        named = marked("PS3", secret, solved("PS3", secret, ("fault",)))
        assert total(named) == 1 <= 0.1 * sum(questions[q].points for q in ("report", "fault", "fix"))
        form = questions["fix"].form
        every = {label: form["words"].get(label, [512])[0] for label in form["names"]}
        got = marked("PS3", secret, {"fix": f"fix = {every}"})["fix"]
        assert got.points == 0 and "One setting" in got.comment


BAD_FIXES = (
    "{'token_budget': 10**12}",
    "{'token_budget': 1.5}",
    "{'token_budget': True}",
    "{'n_blocks': 1}",
    "{}",
    "{'first': 'none'}",
    "{'speed': 3}",
    "[1]",
    "'more'",
    "{'chunk': 'half'}",
    "{1: 2}",
)


@pytest.mark.parametrize("fix", BAD_FIXES)
def test_a_fix_that_is_none_is_told_so_and_replays_nothing(fix: str) -> None:
    question = next(q for q in key.sheet_of("PS3", secrets(1)[0]).questions if q.name == "fix")
    for label, name in re.findall(r"\| `(\w+)` \| [^|]*\(`(\w+)`\)", question.text):
        fix = fix.replace(f"'{name}'", f"'{label}'")
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
    assert got.points in (0, 3.5) and (got.comment or got.reason)


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


def test_what_ends_the_process_costs_the_question_that_was_asked() -> None:
    secret = secrets(1)[0]
    sheet = key.sheet_of("PS1", secret)

    class Late(LocalSession):
        def call(self, name, *args, **kwargs):
            if name == "chunk_attention":
                raise TimedOut(name, "60 s of CPU time")
            return super().call(name, *args, **kwargs)

    session = Late(cells(sheet, lambda question: question.solution), needs_torch=True)
    marks = {each.question: each for each in mark(key.make("PS1", secret), session, {})}
    assert marks["chunk_attention"].status == "timeout" and marks["chunk_attention"].points == 0
    assert all(each.points == each.max_points for each in marks.values() if each.status == "ok")
    assert [each.status for each in marks.values()].count("ok") == len(marks) - 1


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
