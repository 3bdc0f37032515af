"""What a problem set is made of: questions with their texts, their tables of marks, and who judges them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from chunkprefill_grading.problems import answer_forms
from chunkprefill_grading.sandbox.session import NoAnswer

#: an answer is asked for by its name: `value(name)`, `call(name, args, returns)`, `policy(name, args)`
Answers = Any  # chunkprefill_grading.sandbox.session.Session


@dataclass(frozen=True)
class Judgement:
    """What an answer earned, and what was wrong with it, in words that give nothing away.

    missed: the parts that were wrong, in words that are the same for everybody: what a summary counts.
    """

    points: float
    comment: str = ""
    missed: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question of a drawn problem set.

    name:      the name that the notebook gives the answer; of a written one, its marker
    table:     what is marked, and the points for it: the documented marks
    starter:   the cell as it is handed out, with no answer in it; solution: the same cell, answered
    form:      what the public check looks at, as JSON (`forms.py`): whether it is well formed, never right
    judge:     judge(answers) -> Judgement; None for a written answer, which a person marks by `rubric`
    given:     a cell before the answer, with what it is about, such as a server's records
    public:    a cell to try the answer with, which shows what happened and does not judge
    """

    name: str
    title: str
    text: str
    table: tuple[tuple[str, float], ...]
    kind: str
    starter: str = ""
    solution: str = ""
    form: dict[str, Any] = field(default_factory=dict)
    judge: Callable[[Answers], Judgement] | None = None
    rubric: str = ""
    given: str = ""
    public: str = ""

    @property
    def points(self) -> float:
        """The most that can be earned."""
        return sum(points for _, points in self.table)

    @property
    def written(self) -> bool:
        """Whether a person marks it."""
        return self.judge is None


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A drawn problem set: what a notebook is written from and an answer is judged by."""

    name: str
    title: str
    intro: str
    setup: str  # code that the questions share: constants, and functions that the answers may call
    questions: tuple[Question, ...]
    needs_torch: bool = False
    stamp: str = ""  # the public name of the draw

    @property
    def max_score(self) -> float:
        """Of all questions."""
        return sum(question.points for question in self.questions)


def tally(parts: Sequence[tuple[float, bool, str]], names: Sequence[str] = ()) -> Judgement:
    """Points of the parts that are right; the comments of those that are not, one after the other.

    names: of the parts, for `missed`.
    """
    points = sum(points for points, right, _ in parts if right)
    said = " ".join(comment for _, right, comment in parts if not right and comment)
    return Judgement(points, said, tuple(name for name, (_, right, _) in zip(names, parts) if not right))


ROUNDING = (
    1e-14  # relative: what sums and quotients of floats lose on a count; one more or less is far outside
)


def numbers_right(
    answer: Any,
    right: dict[str, float],
    points: float | dict[str, float],
    *,
    tolerance: float = 0.0,
    hints: dict[str, str] | None = None,
) -> Judgement:
    """Points for each named number that is right, to a relative tolerance; hints say where to look again.

    points: of each, or of each by its name.
    """
    given = answer_forms.read(answer, {"kind": "numbers", "names": list(right)})
    if given.value is None:
        return refused(given)
    parts, within = [], max(tolerance, ROUNDING)
    for name, wanted in right.items():
        got = given.value.get(name)
        if got is None:
            why = f"`{name}` is missing, or no finite number."
        else:
            why = f"`{name}` is wrong. {(hints or {}).get(name, '')}".strip()
        worth = points[name] if isinstance(points, dict) else points
        parts.append((worth, got is not None and abs(got - wanted) <= within * abs(wanted), why))
    return tally(parts, list(right))


def chosen(answer: Any, labels: list[str]) -> tuple[str, str]:
    """The label that was chosen, and "" or why it is none. NoAnswer where there is none."""
    given = answer_forms.read(answer, {"kind": "choice", "of": labels})
    return given.value or "", "" if given.value else refused(given).comment


def refused(given: answer_forms.ReadAnswer) -> Judgement:
    """No points, with the reason in a sentence. NoAnswer where nothing was answered."""
    if not given.trouble:
        raise NoAnswer()
    return Judgement(0, sentence(given.trouble))


def sentence(words: str) -> str:
    """Words of `forms` as a sentence, without what they quote: that is the student's."""
    words = re.sub(r""" (?:'[^']*'|"[^"]*")""", " of that name", words)
    return f"{words[:1].upper()}{words[1:]}."


def truths_right(answer: Any, right: dict[str, bool], points: float) -> Judgement:
    """All points, less a quarter of them for each statement that is wrong or left out, and never below 0."""
    given = answer_forms.read(answer, {"kind": "truths", "names": list(right)})
    if given.value is None:
        return refused(given)
    wrong = [name for name, said in given.value.items() if said is not right[name]]
    n_left = len(right) - len(given.value)
    said = f"{len(wrong)} of {len(right)} statements are judged wrongly." if wrong else ""
    left = f"{n_left} have no True or False." if n_left else ""
    return Judgement(max(0.0, points - points / 4 * (len(wrong) + n_left)), f"{said} {left}".strip())
