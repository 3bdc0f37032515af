"""Points for answers: every question asked, every comparison made out here, against what the secret draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chunkprefill_grading.problems.key import CODE, Key, checked, sheet_of
from chunkprefill_grading.problems.sheet import Question
from chunkprefill_grading.sandbox.session import Refused, Session

MOST_COMMENT = 1200  # characters


@dataclass(frozen=True)
class Mark:
    """What one question earned.

    status: "ok" (judged, right or wrong), "no answer", "bad answer" (of a kind that none can be), "raised"
    (the student's code did), "timeout", "memory", "crashed" (its process ended while this was asked), "needs
    manual" (a person marks it: the points are none yet)
    reason: why the status is not "ok", or which parts were wrong, in words that are the same for everybody
    comment: what was wrong, for the student
    """

    question: str
    points: float
    max_points: float
    status: str = "ok"
    reason: str = ""
    comment: str = ""


def mark(key: Key, answers: Session, written: Mapping[str, str]) -> list[Mark]:
    """A mark for each question of the key's problem set, in its order.

    answers: the submission's notebook, after it ran. written: its written answers by marker, as text.
    What ends the process (time, memory, a crash) costs the question that was asked, and no other: `answers`
    begins anew for the next one, if it can (`marking.lasting`).
    Raises ValueError for a key that its own secret does not draw.
    """
    key = checked(key)
    questions = sheet_of(key["problem_set"], key["secret"]).questions
    # plain values first: what a process says after it has seen hidden inputs could be about those
    order = sorted(questions, key=lambda question: question.form.get("kind") in CODE)
    marks = {question.name: _marked(question, answers, written) for question in order}
    return [marks[question.name] for question in questions]


def _marked(question: Question, answers: Session, written: Mapping[str, str]) -> Mark:
    name, most = question.name, question.points
    if question.judge is None:
        if written.get(name, "").strip():
            return Mark(name, 0.0, most, "needs manual", "a written answer: a person marks it")
        return Mark(name, 0.0, most, "no answer", "nothing stands below the marker")
    try:
        verdict = question.judge(answers)
    except Refused as refused:
        return Mark(name, 0.0, most, refused.status, _short(refused.why or "not answered"))
    points = min(most, max(0.0, float(verdict.points)))
    reason = ", ".join(verdict.missed) or ("wrong" if points < most else "")
    return Mark(name, points, most, reason=_short(reason), comment=_short(verdict.comment))


def _short(text: Any) -> str:
    return str(text)[:MOST_COMMENT]
