"""What a problem set is made of: questions with their texts, their tables of marks, and who judges them."""

from __future__ import annotations

import builtins
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from chunkprefill.grading.session import NoAnswer, Raised, Refused

KINDS = "int|float|str|bool|list|dict|tuple|set|NoneType|Tensor|ndarray|Plan|complex|function|range|generator"
#: an answer is asked for by its name: `value(name)`, `call(name, args, returns)`, `policy(name, args)`
Answers = Any  # chunkprefill.grading.session.Session


@dataclass(frozen=True)
class Verdict:
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
    judge:     judge(answers) -> Verdict; None for a written answer, which a person marks by `rubric`
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
    judge: Callable[[Answers], Verdict] | None = None
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

    @property
    def max_score(self) -> float:
        """Of all questions."""
        return sum(question.points for question in self.questions)


def tally(parts: Sequence[tuple[float, bool, str]], names: Sequence[str] = ()) -> Verdict:
    """Points of the parts that are right; the comments of those that are not, one after the other.

    names: of the parts, for `missed`.
    """
    points = sum(points for points, right, _ in parts if right)
    said = " ".join(comment for _, right, comment in parts if not right and comment)
    return Verdict(points, said, tuple(name for name, (_, right, _) in zip(names, parts) if not right))


def as_number(value: Any) -> float | None:
    """`value` if it is a finite number; None for anything else, and for True and False."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if abs(number) < 1e18 else None  # neither nan nor infinite


def numbers_right(
    answer: Any,
    right: dict[str, float],
    points: float,
    *,
    tolerance: float = 0.0,
    hints: dict[str, str] | None = None,
) -> Verdict:
    """Points for each named number that is right, to a relative tolerance; hints say where to look again."""
    if not isinstance(answer, dict):
        return Verdict(0, f"A dict of {len(right)} numbers was asked for, this is a {kind_of(answer)}.")
    if all(answer.get(name) is None for name in right):
        raise NoAnswer()
    parts = []
    for name, wanted in right.items():
        got = as_number(answer.get(name))
        if name not in answer or answer[name] is None:
            why = f"`{name}` is missing."
        elif got is None:
            why = f"`{name}` is no finite number: {kind_of(answer[name])}."
        else:
            why = f"`{name}` is wrong. {(hints or {}).get(name, '')}".strip()
        parts.append((points, got is not None and abs(got - wanted) <= tolerance * abs(wanted), why))
    return tally(parts, list(right))


def kind_of(value: Any) -> str:
    """The kind of a JSON value, for a comment."""
    kinds = {bool: "truth value", int: "number", float: "number", str: "text", list: "list", dict: "dict"}
    return kinds.get(type(value), "nothing" if value is None else type(value).__name__)


def truths_right(answer: Any, right: dict[str, bool], points: float) -> Verdict:
    """All points, less a quarter of them for each statement that is wrong or left out, and never below 0."""
    if not isinstance(answer, dict):
        return Verdict(0, f"A dict of {len(right)} truth values was asked for, this is a {kind_of(answer)}.")
    if all(answer.get(name) is None for name in right):
        raise NoAnswer()
    missed = [name for name in right if not isinstance(answer.get(name), bool)]
    wrong = [name for name in right if name not in missed and answer[name] is not right[name]]
    n = len(missed) + len(wrong)
    said = f"{len(wrong)} of {len(right)} statements are judged wrongly." if wrong else ""
    left = f"{len(missed)} have no True or False." if missed else ""
    return Verdict(max(0.0, points - points / 4 * n), f"{said} {left}".strip())


def plainly(refused: Refused) -> str:
    """What went wrong on a hidden input, without the student's own words, which could carry it out."""
    if not isinstance(refused, Raised):
        # the name of a class is the student's word too
        return re.sub(rf"of type (?!(?:{KINDS})\b)\w+", "of a type of its own", refused.why)[:160]
    kind = (re.match(r"\w{1,40}", refused.why) or [""])[0]
    own = getattr(builtins, kind, None)
    known = isinstance(own, type) and issubclass(own, BaseException)
    place = re.search(r"\(code cell \d+, line \d+\)$", refused.why)
    return f"it raised {kind if known else 'an error of its own'} {place[0] if place else ''}".strip()
