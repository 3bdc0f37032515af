"""A programming exercise that runs the reader's function against rules and an oracle, on fresh cases."""

from __future__ import annotations

import importlib
import inspect
import random
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from chunkprefill.whole import article, as_real, as_whole, briefly
from chunkprefill_course.forms.answers import Plain, told
from chunkprefill_course.forms.apart import apart, in_notebook
from chunkprefill_course.forms.choice import Choice, Option
from chunkprefill_course.forms.feedback import (
    Feedback,
    code_block,
    element,
    fold,
    heading,
    hint_folds,
    inline,
)
from chunkprefill_course.forms.running import Case, Outcome, Program, attempt
from chunkprefill_course.forms.stopping import NO_LIMIT
from chunkprefill_course.forms.trial import ProgramTrial
from chunkprefill_course.forms.variants import Variant, Wrong

#: What judging or drawing an answer of an unexpected kind may raise.
ODD = (TypeError, ValueError, IndexError, KeyError, AttributeError, OverflowError)
DRAWS = 60  # times that cases are drawn again for a condition that was not met


@cache
def _load(module: str) -> None:
    """A first import takes long, and one that is cut short by a time limit breaks its module."""
    with suppress(ImportError):
        importlib.import_module(module)


def _wording(trouble: str) -> str:
    """A refusal without what it quotes and counts: those differ where the mistake is the same."""
    return re.sub(r"`[^`]*`|\d[\d.,]*", "", trouble)


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """A function to write. Everything about it stands in one file; `check` does the rest.

    id, title:  unique in the book; a few words
    prompt:     what to write, in words, with the names and shapes of the arguments
    name:       the function's name; `starter` is the cell that the reader fills in
    example:    the cases that the prompt shows; each of `wrong` passes them
    cases:      cases(rng) gives cases, the small ones all, the large ones drawn; `size` orders them
    conditions: {name: met(case)}: that on which programs differ. Cases are drawn until each one is met
    run:        run(program, case) calls it and returns what is judged; it makes fresh inputs for each call
    judge:      judge(case, value) names the first rule broken, or returns "" (rules first, oracle last)
    want:       want(case) is the value that a right program gives, for pictures and comparison
    picture:    picture(case, value) draws a value (an inline `<svg>`), beside the right one if they differ
    show:       show(case) writes a case as the call that it is
    solution, wrong, hints: a right program, three wrong ones or more, three hints from faint to plain
    slips:      more mistakes with a reply of their own; they need not pass the example, no page shows them
    minutes, level: how long it takes; Bloom's level
    rung:       "rung 2 of 4: Write a scheduler" of exercises that build on one another
    makes:      "function", or "policy" for a class with `schedule`
    needs:      modules that programs may import: loaded before the clock starts, where they are installed
    about:      code that the prompt is about
    preamble:   the imports that a program needs, shown above it
    tell:       tell(case, value) says a value in words, where it cannot be written down
    compared:   what of a value two programs must share to be the same mistake
    """

    id: str
    title: str
    name: str
    prompt: str
    starter: str
    example: tuple[Case, ...]
    cases: Callable[[random.Random], Iterable[Case]]
    run: Callable[[Program, Case], Any]
    want: Callable[[Case], Plain]
    judge: Callable[[Case, Plain], str]
    picture: Callable[[Case, Plain], str]
    show: Callable[[Case], str]
    solution: Program
    wrong: tuple[Wrong, ...]
    hints: tuple[str, str, str]
    slips: tuple[Wrong, ...] = ()
    conditions: Mapping[str, Callable[[Case], bool]] = field(default_factory=dict)
    minutes: int = 5
    level: str = "apply"
    rung: str = ""
    makes: str = "function"
    needs: tuple[str, ...] = ()
    preamble: str = ""
    about: str = ""
    tell: Callable[[Case, Plain], str] | None = None
    compared: Callable[[Plain], Any] = field(default=lambda value: value)
    size: Callable[[Case], float] = field(
        default=lambda case: sum(v for v in case.values() if isinstance(v, int))
    )

    def check(self, program: Program | Any, *, seed: int | None = None, seconds: float = 10.0) -> Feedback:
        """Run `program` on the example and on fresh cases; say what is wrong on the smallest that fails.

        seed:    of the drawn cases; None draws new ones each time
        seconds: the time that all calls may take together; `NO_LIMIT` where others end what takes too long

        Not attempted (`...`, None, NotImplementedError, nothing returned) is an answer of its own, no error.
        Never raises for anything that `program` is or does; ValueError for `seconds` that are no number above 0.
        """
        if (limit := as_real(seconds)) is None or not limit > 0:
            raise ValueError(f"seconds is {briefly(seconds)}: a number above 0 is needed")
        try:
            meant, refusal = self._meant(program)
            if refusal is not None:
                return refusal
            trial = ProgramTrial(self, meant, seed, seconds)
            self._load_needs()
            bounded = in_notebook() and seconds != NO_LIMIT
            return apart(trial.feedback, seconds, self.name) if bounded else trial.feedback()
        except Exception as error:
            said = f"`{self.name}` gave an answer so odd that it cannot be judged ({type(error).__name__})."
            return Feedback(ok=False, message=said)

    def _meant(self, program: Any) -> tuple[Program, Feedback | None]:
        """What the reader means to hand in: a policy's class, where an instance was handed in."""
        name, kind = self.name, type(program)
        if program is None or program is ...:
            return kind, Feedback(ok=None, message=f"Write `{name}` first.")
        if self.makes == "policy" and callable(getattr(kind, "schedule", None)):
            return kind, None
        if callable(program):
            return program, None
        what = "class" if self.makes == "policy" else "function"
        said = (
            f"`{name}` should be a {what}; this is {told(program)}, {article(kind.__name__)} {kind.__name__}."
        )
        return program, Feedback(ok=False, message=f"{said} Pass the {what} itself: `check({name})`.")

    def outcome(self, program: Program, case: Case, *, seconds: float = 10.0) -> Outcome:
        """What `program` makes of one case."""
        self._load_needs()
        return attempt(lambda: self.run(program, case), seconds=seconds)

    def _load_needs(self) -> None:
        for module in self.needs:
            _load(module)

    def broken(self, case: Case, outcome: Outcome) -> str:
        """The first rule that an outcome breaks, or ""."""
        if outcome.trouble:
            return outcome.trouble.rstrip(".")
        if outcome.value is None:  # in no exercise is it an answer, not even where False is right
            return "it returned nothing: is there a path through it without a `return`?"
        try:
            return self.judge(case, outcome.value)
        except ODD:  # not the kind of answer judged here
            return f"it returned {self.in_words(outcome.value)}; {self._told(case, self.want(case))} is right"

    def in_words(self, value: Plain) -> str:
        """A value in a few words."""
        return told(value["returned"] if isinstance(value, dict) and "returned" in value else value)

    def alike(self, case: Case, one: Outcome, other: Outcome) -> bool:
        """Same value, or the same kind of failure; an answer that is refused, with the same words."""
        if one.kind or other.kind:
            refused = one.kind == "Unusable" and _wording(one.trouble) != _wording(other.trouble)
            return one.kind == other.kind and not refused
        try:
            return bool(self.compared(one.value) == self.compared(other.value))
        except ODD:
            return bool(one.value == other.value)

    def diagnose(self, program: Program, *, seed: int | None = None, seconds: float = 10.0) -> Wrong | None:
        """The known wrong answer that does the same as `program` in every case; None if none does."""
        return ProgramTrial(self, program, seed, seconds).known(self.drawn(seed), [])

    def drawn(self, seed: int | None) -> list[Case]:
        """The example and fresh cases, small ones first, every condition met by one of them."""
        rng = random.Random(seed)
        drawn = list(self.cases(rng))
        unmet = self.unmet([*self.example, *drawn])
        for _ in range(DRAWS):
            if not unmet:
                break
            for case in self.cases(rng):
                if met := [name for name in unmet if self.conditions[name](case)]:
                    drawn.append(case)
                    unmet = [name for name in unmet if name not in met]
        return [*self.example, *sorted(drawn, key=self.size)]

    def unmet(self, cases: Iterable[Case]) -> list[str]:
        """The conditions that none of these cases meets."""
        unmet = list(self.conditions)
        for case in cases:
            if not unmet:
                break
            unmet = [name for name in unmet if not self.conditions[name](case)]
        return unmet

    def as_choice(self, guilty: int = 0) -> Choice:
        """The exercise as a question for a page: which of these wrong programs made this picture?

        guilty: number of the program in `wrong`. The cases drawn are found by running all of them: the fewest
        small ones on which this program alone does what it does.
        """
        programs = [wrong.program for wrong in self.wrong]
        shown = self._telling_cases(guilty)
        options = []
        dealt = random.Random(f"{self.id} {guilty}").sample(self.wrong, len(self.wrong))
        for letter, wrong in zip("abcdefgh", dealt):
            ok, code = wrong is self.wrong[guilty], self.source(wrong.program).removeprefix(self.preamble)
            options.append(Option(letter, f"Program {letter.upper()}", self._reply(ok, wrong.hint), ok, code))
        calls = " and ".join(self.show(case) for case in shown)
        pictures = "".join(self.drawn_as(case, self.outcome(programs[guilty], case)) for case in shown)
        prompt = f"None of these programs is right. Which one made this, on {calls}?"
        return Choice(id=f"{self.id}-twin", prompt=prompt, options=tuple(options), picture=pictures)

    def _telling_cases(self, guilty: int) -> list[Case]:
        """Cases on which one wrong program differs from all others; on the first of them it is wrong."""
        if (number := as_whole(guilty)) is None or not 0 <= number < len(self.wrong):
            raise ValueError(f"guilty is {guilty!r}: a number from 0 to {len(self.wrong) - 1} is needed")
        cases = sorted(
            self.drawn(0), key=lambda case: (self.size(case) < 4, self.size(case))
        )  # not the tiniest
        shown: list[Case] = []
        alike = [i for i in range(len(self.wrong)) if i != guilty]
        made: dict[int, list[Outcome]] = {}  # what each program makes of a case, by the case's number
        while alike:
            best: tuple[list[int], Case | None] = (alike, None)
            for n, case in enumerate(cases):
                if n not in made:
                    made[n] = [self.outcome(wrong.program, case) for wrong in self.wrong]
                value = made[n][guilty]
                if not self.drawn_as(case, value) or not (shown or self.broken(case, value)):
                    continue
                left = [i for i in alike if self.alike(cases[n], value, made[n][i])]
                if len(left) < len(best[0]):
                    best = left, case
                if not left:
                    break
            if best[1] is None:
                raise ValueError(f"{self.id}: no case tells wrong program {guilty} from the others")
            alike = best[0]
            shown.append(best[1])
        return shown

    def source(self, program: Program) -> str:
        """The text of a program, under the exercise's name and without the line that says what it is."""
        text = program.text if isinstance(program, Variant) else textwrap.dedent(inspect.getsource(program))
        text = re.sub(r"^((?:@.*\n)*)(def|class) \w+", rf"\1\2 {self.name}", text, count=1)
        for module in self.needs:  # imported inside, to be imported late; a reader imports above
            text = re.sub(rf"\n +import {module}\n", "\n", text)
        return self.preamble + re.sub(r'\n +""".*?"""\n*(?=\n)', "", text, count=1, flags=re.S)

    def __str__(self) -> str:
        return f"{self.title} ({self.minutes} min, {self.level})\n{self.prompt}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        examples = "".join(
            f"<p>Example: {inline(self.show(case))} gives {inline(self._told(case, self.want(case)))}</p>"
            for case in self.example
        )
        about = code_block(self.about) if self.about else ""
        answer = fold("Solution", code_block(self.source(self.solution)))
        return element(
            f"{heading(self)}<p>{inline(self.prompt)}</p>{about}{examples}{hint_folds(self.hints)}{answer}",
            kind="exercise",
            id=f"cp-{self.id}",
            data_starter=self.preamble + self.starter,
        )

    def _told(self, case: Case, value: Plain) -> str:
        return self.tell(case, value) if self.tell else told(value, 90)

    def drawn_as(self, case: Case, outcome: Outcome) -> str:
        if outcome.trouble:
            return ""
        try:
            return self.picture(case, outcome.value)
        except ODD:
            return ""  # too odd an answer to draw; the words are enough

    @staticmethod
    def _reply(guilty: bool, hint: str) -> str:
        return hint if guilty else f"This program goes wrong in another way. {hint}"
