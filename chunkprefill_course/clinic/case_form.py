"""A case as a form that works on a page without a kernel: look, name the cause, the evidence, the fix."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from functools import cached_property
from html import escape
from math import isnan

from chunkprefill_course.clinic.case import Case
from chunkprefill_course.clinic.faults import CAUSES, FIX_FOR, HEALTHY, REMEDIES, SHORT
from chunkprefill_course.clinic.make import fault_of
from chunkprefill_course.clinic.rows import PROMISES, ROWS
from chunkprefill_course.clinic.verdict import against, evidence_against, result
from chunkprefill_course.forms.choice import Choice, Option
from chunkprefill_course.forms.feedback import fold

N_ROWS = 5  # offered as evidence


@dataclass(frozen=True)
class Form:
    """A case to look at and three questions about it, each answered with the numbers of this case.

    name: what the page calls it, such as "A"; unique in the book, for the ids are made of it. It says nothing
    about the cause, and no more does the order of the answers.
    """

    case: Case
    name: str

    @cached_property
    def cause(self) -> Choice:
        """What is it? Each wrong answer is told the evidence against it."""
        case = self.case
        right = (
            CAUSES[case.cause]
            + " "
            + " ".join(
                f"`{row}`: {case.dashboard.words(row)}, {case.dashboard.say(row)}." for row in case.tells()
            )
        )
        options = [
            Option(key, words, right if key == case.cause else against(case, key), key == case.cause)
            for key, words in SHORT.items()  # ten lines, for a case to fit a phone
        ]
        return self._choice("cause", f"Case {self.name}. What is wrong with this server?", options)

    @cached_property
    def evidence(self) -> Choice:
        """Which row says so?"""
        case, board = self.case, self.case.dashboard
        rng = random.Random(f"{case.seed} rows")
        there = [row for row in ROWS if not isnan(board.values[row])]
        right = next(iter(case.tells()))
        if case.cause == HEALTHY:
            others = [row for row in there if row not in PROMISES]
            right = "tbt_p99"
        else:
            others = [row for row in there if row not in case.tells() and evidence_against(case, [row])]
        rows = [right, *rng.sample(others, N_ROWS - 1)]
        options = []
        for row in sorted(rows, key=list(ROWS).index):
            words = f"`{row}`: {board.words(row)}, {board.say(row)}"
            why = evidence_against(case, [row]) if row != right else f"{words}. {CAUSES[case.cause]}"
            if case.cause == HEALTHY and row != right:
                why = f"`{row}` is {board.say(row)}. Odd or not: no promise is about it."
            options.append(Option(row.replace("_", "-"), words + ".", why, row == right))
        return self._choice("evidence", "Which of these rows speaks for it?", options)

    @cached_property
    def fix(self) -> Choice:
        """What is to be done? Each is replayed."""
        case, options = self.case, []
        for key in REMEDIES:
            ok = key == FIX_FOR[case.cause]
            changes = case.changes(key)
            try:
                replay = case.replay(**changes)
                why = result(replay)
                if replay.trace is case.trace and key != "nothing":
                    why = f"{REMEDIES[key]}: it changes nothing here, the server runs so already."
                elif case.cause == HEALTHY and replay.restored and not ok:
                    why += " Kept before, kept after: what for?"
            except ValueError as error:
                why = f"It cannot be done: {error}."
            options.append(Option(key, case.offer(key), why, ok))
        return self._choice("fix", "What would you change? Each change has been replayed.", options)

    def _choice(self, what: str, prompt: str, options: list[Option]) -> Choice:
        return Choice(id=f"clinic-{self.name.lower()}-{what}", prompt=prompt, options=tuple(options))

    def __str__(self) -> str:
        return f"Case {self.name}\n{self.case.text()}\n\n{self.cause}\n{self.evidence}\n{self.fix}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        then = fold("Then: which row says so?", self.evidence._repr_html_()) + fold(
            "Then: what is to be done?", self.fix._repr_html_()
        )
        return f"{self.case.html(folded=True)}{self.cause._repr_html_()}{then}{self._live()}"

    def _live(self) -> str:
        """Where a page lets its reader diagnose with settings of their own; nothing to see without scripts."""
        if self.case.cause != fault_of(self.case.seed):  # a page has nothing but the seed to go by
            return ""
        seed = escape(json.dumps(self.case.seed))
        here = f"cp-clinic-{self.name.lower()}"
        return (
            f'<div class="cp-clinic" id="{here}" data-seed="{seed}" data-attempt="{self.case.attempt}"></div>'
        )


def form(case: Case, name: str = "") -> Form:
    """The form of a case; `name` defaults to its seed. ValueError for a case with two faults: it asks for one."""
    if case.second:
        raise ValueError("a form asks for one cause, and this case has two: use case.check")
    return Form(case, name or str(case.seed))
