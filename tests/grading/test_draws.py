"""What a secret varies: solutions of other draws do not fit, sentences have both truths, examples are no answers."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections import Counter, defaultdict

import pytest

from chunkprefill_grading.problems import (
    draw,
    key,
    ps1,
    ps1_attention,
    ps1_order,
    ps2,
    ps2_decide,
    ps2_statements,
    ps3,
)
from chunkprefill_grading.problems.notebook import as_json, notebook
from chunkprefill_grading.problems.sheet import Question
from chunkprefill_grading.sandbox.session import NoAnswer
from chunkprefill_grading.submission.load import parse
from chunkprefill_grading.submission.stamps import refusal
from tests.grading.submissions import SETS, body, pasted, secrets, solved
from tests.proof import draws

#: draws of each set, and solutions of how many other secrets each is tried with.
#: A case of PS3 takes a second to draw, a solution of PS1 or PS2 a fifth of one to mark.
N_DRAWS = {"PS1": draws(12, 50), "PS2": draws(12, 50), "PS3": draws(4, 12, 50)}
N_OTHERS = dict.fromkeys(SETS, draws(1, 1, 20))


@pytest.mark.parametrize("name", SETS)
def test_no_draw_is_solved_by_another_s_solution_nor_by_the_examples_in_its_questions(name: str) -> None:
    """Solutions of other draws, pasted under the constants of this one, earn at most a fifth of any question."""
    n = N_DRAWS[name]
    drawn = secrets(n + N_OTHERS[name])
    for i, secret in enumerate(drawn[:n]):
        no_example_is_an_answer(name, secret)
        for other in drawn[i + 1 : i + 1 + N_OTHERS[name]]:
            for mark in pasted(name, secret, other).values():
                assert mark.points <= 0.2 * mark.max_points, (secret, other, mark)


#: questions that are answered by values, and who draws them from a stream of numbers
VALUES = {
    "order": ps1_order.order_question,
    "counts": ps1.counts_question,
    "plan": ps2.plan_question,
    "statements": ps2_statements.statements_question,
    "tasks": lambda rng: ps3.tasks_questions(rng)[0],
    "consequence": lambda rng: ps3.tasks_questions(rng)[1],
    "overhead": ps3.overhead_question,
}
N_VALUES = draws(200, 200, 400)  # draws of each, every one tried with the answers of all others


class Given:
    """A submission that gives the same answer whatever it is asked."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def value(self, name: str) -> object:
        return self.answer

    def earns(self, question: Question) -> float:
        """Points; a name that the question does not have is no answer to it."""
        try:
            return question.judge(self).points
        except NoAnswer:
            return 0.0


@pytest.mark.parametrize("name", VALUES)
def test_values_of_another_draw_are_right_by_chance_once_in_five_thousand_pairs_or_less(name: str) -> None:
    """Two draws can have one number in common, whatever is asked: where it earns more than a fifth, it is rare."""
    questions = [VALUES[name](random.Random(f"{name} {i}")) for i in range(N_VALUES)]
    answers = []
    for question in questions:
        space: dict[str, object] = {}
        exec(question.solution, space)
        answers.append(Given(space[name]))
        assert answers[-1].earns(question) == question.points
    lucky = [
        (i, k)
        for (i, question), (k, answer) in itertools.product(enumerate(questions), enumerate(answers))
        if i != k and answer.earns(question) > 0.2 * question.points
    ]
    assert len(lucky) <= N_VALUES * (N_VALUES - 1) / 5_000, lucky


@pytest.mark.parametrize("name", SETS)
def test_a_solution_under_its_own_constants_earns_everything(name: str) -> None:
    """The test before would pass if pasting broke every cell."""
    (secret,) = secrets(1)
    for mark in pasted(name, secret, secret).values():
        assert mark.points == mark.max_points or mark.question == "advice"


def test_structures_hardly_ever_come_twice() -> None:
    """Of fifty draws hardly two ask for the same function in the same form."""
    for name, questions in (("PS1", ("chunk_attention", "store")), ("PS2", ("decide",))):
        for wanted in questions:
            seen = []
            for secret in secrets(50):
                question = next(q for q in key.sheet_of(name, secret).questions if q.name == wanted)
                seen.append(body(question, question.solution)[1])
            assert len(set(seen)) >= 48, wanted


def attention(rng: random.Random) -> tuple[object, ...]:
    """All of PS1's rule but its numbers, which are given as constants."""
    rule = vars(ps1_attention.drawn(rng))
    return tuple(value for name, value in rule.items() if name not in ("width", "other", "number"))


def interface(rng: random.Random) -> tuple[object, ...]:
    """PS2's interface; which of two columns that no policy needs comes first makes no difference."""
    form = ps2_decide.interface(rng)
    return form.signature, tuple("?" if f in ("begun", "rank") else f for f in form.fields), form.returns


@pytest.mark.parametrize("drawn", [attention, interface])
def test_two_draws_ask_for_the_same_in_the_same_form_once_in_twenty_thousand_pairs_or_less(drawn) -> None:
    n = 3_000
    seen = Counter(drawn(random.Random(i)) for i in range(n))
    n_same = sum(times * (times - 1) // 2 for times in seen.values())
    assert n_same / (n * (n - 1) / 2) < 1 / 20_000


def test_every_statement_is_true_in_some_draws_and_false_in_others() -> None:
    """At least three in ten of each, and of all together about half."""
    truths: dict[str, list[bool]] = defaultdict(list)
    for secret in secrets(100):
        question = ps2_statements.statements_question(draw.stream(secret, "PS2", "shown", "statements"))
        space: dict[str, dict[str, bool]] = {}
        exec(question.solution, space)
        for name, words in re.findall(r"- `(s\d+)`: (.*)", question.text):
            truths[re.sub(r"[\d.,]+", "#", words)].append(space["statements"][name])
    assert len(truths) == 11
    for words, found in truths.items():
        assert 0.3 <= sum(found) / len(found) <= 0.7, words
    everything = list(itertools.chain(*truths.values()))
    assert 0.4 < sum(everything) / len(everything) < 0.6


def test_one_more_or_less_is_outside_the_tolerance_of_overhead_in_every_draw() -> None:
    """Each number of the text taken one step off, where it enters a result."""
    for secret in secrets(50):
        question = ps3.overhead_question(draw.stream(secret, "PS3", "shown", "overhead"))
        space: dict[str, dict[str, float]] = {}
        exec(question.solution, space)
        right = space["overhead"]
        n = [float(x.replace(",", "")) for x in re.findall(r"\d[\d,]*(?:\.\d+)?", question.text)]
        s0, row, token, gpu0, gpu, chats, prompt, small, large = n[:9]

        def prices(numbers):
            s0, row, token, gpu0, gpu, rows, tokens, small, large, steps = numbers
            cpu = [s0 + row * rows + token * (chunk + tokens) for chunk in (small, large)]
            run = [1e3 * gpu0 + gpu * (chunk + tokens) for chunk in (small, large)]
            shares = [c / (c + r) for c, r in zip(cpu, run)]
            return cpu[0] / 1e3, *shares, cpu[0] * steps / 1e3, cpu[1] * steps * small / large / 1e3

        due = [s0, row, token, gpu0, gpu, chats + 1, chats, small, large, prompt / small]
        assert prices(due) == pytest.approx(list(right.values()), rel=1e-6)
        for at, step in ((5, -1), (5, 1), (6, -1), (6, 1), (9, 1), (9, -1)):
            wrong = list(due)
            wrong[at] += step
            off = [
                a != b and abs(a - b) > ps3.OVERHEAD_TOLERANCE * b
                for a, b in zip(prices(wrong), due_of(right))
            ]
            touched = [abs(a - b) > 1e-9 * b for a, b in zip(prices(wrong), prices(due))]
            assert any(off), (secret, at, step)
            assert (off[0], off[3]) == (touched[0], touched[3]), "in shares, two changes may cancel"


def due_of(right: dict[str, float]) -> list[float]:
    """The numbers in their order."""
    return list(right.values())


def no_example_is_an_answer(name: str, secret: str) -> None:
    """Nor a part of one."""
    for question in key.sheet_of(name, secret).questions:
        for example in re.findall(r"such as `+([^`]+)`", question.text):
            bare = example.strip("\"'[]{}… ,").replace("'", '"')
            assert bare not in question.solution.replace("'", '"'), (secret, example)


@pytest.mark.parametrize("name", SETS)
def test_a_notebook_says_which_draw_it_is_of_and_a_key_refuses_all_others(name: str) -> None:
    mine, other = secrets(2)
    stamp, theirs = draw.stamp(name, mine), draw.stamp(name, other)
    assert stamp != theirs and mine[:10] not in stamp
    book = json.loads(as_json(notebook(key.sheet_of(name, mine))))
    assert parse(json.dumps(book).encode()).stamps == {stamp}
    bare = {**book, "metadata": {}}
    assert parse(json.dumps(bare).encode()).stamps == {stamp}, "the text alone says so"
    untitled = {**book, "cells": book["cells"][1:]}
    assert parse(json.dumps(untitled).encode()).stamps == {stamp}, "the metadata alone say so"
    neither = parse(json.dumps({**bare, "cells": book["cells"][1:]}).encode())
    assert neither.stamps == frozenset() and refusal(neither.stamps, stamp) == ""
    assert refusal(frozenset({stamp}), stamp) == "" == refusal(frozenset({stamp, theirs}), stamp)
    assert "another draw" in refusal(frozenset({theirs}), stamp)
    assert "another problem set" in refusal(frozenset({draw.stamp("PS9", mine)}), stamp)


def test_stamps_of_a_hostile_notebook_are_few_and_short() -> None:
    for metadata in (
        {"chunkprefill": 3},
        {"chunkprefill": {"draw": ["x"]}},
        [],
        None,
        {"chunkprefill": {"draw": "x" * 10**6}},
    ):
        book = {"cells": [{"cell_type": "markdown", "source": "draw `" * 1000}], "metadata": metadata}
        assert parse(json.dumps(book).encode()).stamps == frozenset()


def test_decisions_are_read_in_the_drawn_form_and_in_no_other() -> None:
    from chunkprefill_grading.sandbox.session import BadAnswer

    for returns, good, bad in (
        ("list", [3, 0], ([3], [3, -1], {"17": 3}, [[3, 17]], [0.5, 1], None, [True, 1])),
        ("dict", {17: 3}, ({3: 17}, [3, 0], {17: -1}, {"seventeen": 3}, {17: 3, "17": 1})),
        ("pairs", [[3, 17]], ([[17, 3]], [[3, 17], [1, 17]], [3, 0], [[3]])),
    ):
        asked = ps2_decide.Decisions(
            None, ps2_decide.Interface(("prompts", "n_decodes", "now"), ("name",), returns)
        )
        assert asked.pairs(good, [17, 4]) == [(17, 3)]
        for each in bad:
            with pytest.raises(BadAnswer):
                asked.pairs(each, [17, 4])


def test_solved_is_a_helper_that_finds_something() -> None:
    assert set(solved("PS2", secrets(1)[0], ("decide", "plan"))) == {"decide", "plan"}
