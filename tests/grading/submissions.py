"""Submissions made by rule: solved, half, blank, and guessed; the points that the tables give them."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from functools import cache
from typing import Any

from chunkprefill_grading.marking.mark import Mark, mark
from chunkprefill_grading.problems import draw, key
from chunkprefill_grading.problems.notebook import notebook
from chunkprefill_grading.problems.sheet import Question, Sheet
from chunkprefill_grading.sandbox.session import LocalSession

SETS = ("PS1", "PS2", "PS3")
#: Who answers these questions and no others gets these points, by the tables that stand in the notebooks.
HALF = {
    "PS1": (("order", "chunk_attention"), 10),
    "PS2": (("plan", "statements"), 8),
    "PS3": (("tasks", "consequence", "overhead", "report"), 11),
}
FULL = {"PS1": 20, "PS2": 20, "PS3": 17}  # PS3: and three for the written answer, which a person gives


@cache
def secrets(n: int) -> list[str]:
    """Secrets drawn by no one, the same in each run."""
    rng, out = random.Random("secrets for tests"), []
    while len(out) < n:
        secret = f"{rng.getrandbits(128):032x}"
        out += [secret] * (not draw.weakness(secret))
    return out


def cells(sheet: Sheet, answer: Callable[[Question], str]) -> list[str]:
    """The code of a submission: what the notebook shares, and an answer to each question."""
    shared = [cell["source"] for cell in notebook(sheet)["cells"][1:4] if cell["cell_type"] == "code"]
    return [*shared, *(answer(question) for question in sheet.questions if not question.written)]


def marked(
    name: str, secret: str, answers: dict[str, str] | None = None, rest: str = "starter"
) -> dict[str, Mark]:
    """Marks by question. answers: cells by question; the others have `rest`, "starter" or "solution"."""
    sheet, given = key.sheet_of(name, secret), answers or {}
    code = cells(sheet, lambda question: given.get(question.name, getattr(question, rest)))
    session = LocalSession(code, needs_torch=sheet.needs_torch)
    written = {q.name: q.solution for q in sheet.questions if q.written and rest == "solution"}
    return {each.question: each for each in mark(key.make(name, secret), session, written)}


def solved(name: str, secret: str, questions: tuple[str, ...]) -> dict[str, str]:
    """The solutions of some questions."""
    return {q.name: q.solution for q in key.sheet_of(name, secret).questions if q.name in questions}


def total(marks: dict[str, Mark]) -> float:
    """Points in all."""
    return sum(each.points for each in marks.values())


def guess(question: Question, rng: random.Random) -> str:
    """A well-formed answer at random; the functions are left as they are."""
    form, name = question.form, question.name
    value: Any
    if form["kind"] == "letters":
        value = "".join(rng.sample(form["of"], rng.randint(4, len(form["of"]))))
    elif form["kind"] == "numbers":
        value = {each: rng.choice([0, 1, rng.randint(0, 100), rng.random()]) for each in form["names"]}
    elif form["kind"] == "truths":
        value = {each: rng.random() < 0.5 for each in form["names"]}
    elif form["kind"] == "rows":
        budget = int(re.search(r"room for (\d+) tokens", question.text)[1])  # type: ignore[index]
        value = []
        for _ in range(form["n"]):
            short = rng.choice([0, 1, rng.randint(0, budget)])
            value.append({"short": short, "long": budget - short})
    elif form["kind"] == "choice":
        value = rng.choice(form["of"])
    elif form["kind"] == "settings":
        label = rng.choice(form["names"])
        value = {label: rng.choice(["decodes", "shortest", "at once", 2048, 512, 30_000])}
    else:
        return question.starter
    return f"{name} = {value!r}"


def body(question: Question, code: str) -> tuple[str, str]:
    """(constants, the rest) of a cell: what a draw gives, and what answers it."""
    lines = code.split("\n")
    first = next(i for i, line in enumerate(lines) if line.startswith(("def ", f"{question.name} =")))
    return "\n".join(lines[:first]), "\n".join(lines[first:])


def pasted(name: str, secret: str, other: str) -> dict[str, Mark]:
    """Marks for the solutions of another draw, under the constants of this one."""
    answers = {}
    for mine, theirs in zip(key.sheet_of(name, secret).questions, key.sheet_of(name, other).questions):
        if not mine.written:
            answers[mine.name] = f"{body(mine, mine.starter)[0]}\n{body(theirs, theirs.solution)[1]}"
    return marked(name, secret, answers)
