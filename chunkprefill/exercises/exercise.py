"""A programming exercise that runs the reader's function against rules and an oracle, on fresh cases."""

from __future__ import annotations

import importlib
import inspect
import random
import re
import textwrap
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from chunkprefill.exercises.choice import Choice, Option
from chunkprefill.exercises.feedback import Feedback, code_block, element, fold, inline
from chunkprefill.exercises.running import Outcome, Plain, Program, attempt

Case = dict[str, Any]
#: What judging or drawing an answer of an unexpected kind may raise.
ODD = (TypeError, ValueError, IndexError, KeyError, AttributeError, OverflowError)


@dataclass(frozen=True)
class Wrong:
    """An answer that people really give: it passes the example, and its hint says what it overlooks."""

    program: Program
    hint: str


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """A function to write. Everything about it stands in one file; `check` does the rest.

    id, title:  unique in the book; a few words
    prompt:     what to write, in words, with the names and shapes of the arguments
    name:       the function's name; `starter` is the cell that the reader fills in
    example:    the cases that the prompt shows; each of `wrong` passes them
    cases:      cases(rng) gives cases, the small ones all, the large ones drawn; `size` orders them
    run:        run(program, case) calls it and returns what is judged; it makes fresh inputs for each call
    judge:      judge(case, value) names the first rule broken, or returns "" (rules first, oracle last)
    want:       want(case) is the value that a right program gives, for pictures and comparison
    picture:    picture(case, value) draws a value (an inline `<svg>`), beside the right one if they differ
    show:       show(case) writes a case as the call that it is
    solution, wrong, hints: a right program, three wrong ones or more, three hints from faint to plain
    minutes, level: how long it takes; Bloom's level
    needs:      modules that the programs import
    about:      code that the prompt is about
    preamble:   the imports that a program needs, shown above it
    tell:       tell(case, value) says a value in words, where it cannot be written down
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
    minutes: int = 5
    level: str = "apply"
    needs: tuple[str, ...] = ()
    preamble: str = ""
    about: str = ""
    tell: Callable[[Case, Plain], str] | None = None
    size: Callable[[Case], float] = field(
        default=lambda case: sum(v for v in case.values() if isinstance(v, int))
    )

    def check(self, program: Program | Any, *, seed: int | None = None, seconds: float = 10.0) -> Feedback:
        """Run `program` on the example and on fresh cases; say what is wrong on the smallest that fails.

        seed:    of the drawn cases; None draws new ones each time
        seconds: the time that all calls may take together

        Not attempted (`...`, None, NotImplementedError, nothing returned) is an answer of its own, no error.
        Never raises for anything that `program` is or does.
        """
        if program is None or program is ...:
            return Feedback(ok=None, message=f"Write `{self.name}` first.")
        if not callable(program):
            return Feedback(
                ok=False, message=f"`{self.name}` should be a function; this is a {type(program).__name__}."
            )
        first = self.outcome(program, self.example[0], seconds=seconds)
        if first.untried or (not first.trouble and self._nothing(first.value)):
            return Feedback(
                ok=None,
                message=f"`{self.name}` returns nothing yet. (Written already? Then look for a missing "
                "`return`.)",
            )
        tried, left = self._cases(seed), seconds
        for case in tried:
            begin = time.monotonic()
            got = self.outcome(program, case, seconds=max(0.1, left))
            left -= time.monotonic() - begin
            if got.kind == "Late":
                got = replace(got, trouble=f"it had not finished after {seconds:g} s: does a loop ever end?")
            if broken := self.broken(case, got):
                return self._failed(program, case, got, broken, tried, seconds)
        return Feedback(ok=True, message=f"`{self.name}` keeps every rule in all {len(tried)} cases tried.")

    def outcome(self, program: Program, case: Case, *, seconds: float = 10.0) -> Outcome:
        """What `program` makes of one case."""
        # Outside the time limit: a first import takes long, and a module whose import is cut short is broken.
        for module in self.needs:
            importlib.import_module(module)
        return attempt(lambda: self.run(program, case), seconds=seconds)

    def broken(self, case: Case, outcome: Outcome) -> str:
        """The first rule that an outcome breaks, or ""."""
        if outcome.trouble:
            return outcome.trouble.rstrip(".")
        try:
            return self.judge(case, outcome.value)
        except ODD:  # not the kind of answer judged here
            return (
                f"it returned `{_short(outcome.value)}`, where {self._told(case, self.want(case))} is right"
            )

    def diagnose(self, program: Program, *, seed: int | None = None, seconds: float = 10.0) -> Wrong | None:
        """The known wrong answer that does the same as `program` in every case; None if none does."""
        return self._same_as(program, self._cases(seed), seconds)

    def twin(self, guilty: int = 0) -> Choice:
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
        pictures = "".join(self._drawn(case, self.outcome(programs[guilty], case)) for case in shown)
        prompt = f"None of these programs is right. Which one made this, on {calls}?"
        return Choice(id=f"{self.id}-twin", prompt=prompt, options=tuple(options), picture=pictures)

    def _telling_cases(self, guilty: int) -> list[Case]:
        """Cases on which one wrong program differs from all others; on the first of them it is wrong."""
        cases = sorted(
            self._cases(0), key=lambda case: (self.size(case) < 4, self.size(case))
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
                if not self._drawn(case, value) or not (shown or self.broken(case, value)):
                    continue
                left = [i for i in alike if _alike(value, made[n][i])]
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
        text = textwrap.dedent(inspect.getsource(program))
        text = re.sub(r"^((?:@.*\n)*)(def|class) \w+", rf"\1\2 {self.name}", text, count=1)
        for module in self.needs:  # imported inside, to be imported late; a reader imports above
            text = re.sub(rf"\n +import {module}\n", "\n", text)
        return self.preamble + re.sub(r'\n +""".*?"""\n*(?=\n)', "", text, count=1, flags=re.S)

    def __str__(self) -> str:
        return f"{self.title} ({self.minutes} min, {self.level})\n{self.prompt}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = (
            f'<p class="cp-ask">{inline(self.title)} <small>({self.minutes} min · {self.level})</small></p>'
        )
        examples = "".join(
            f"<p>Example: {inline(self.show(case))} gives {inline(self._told(case, self.want(case)))}</p>"
            for case in self.example
        )
        about = code_block(self.about) if self.about else ""
        nested = ""
        for i, hint in reversed(list(enumerate(self.hints, 1))):
            nested = fold(f"Hint {i} of 3", f"<p>{inline(hint)}</p>{nested}")
        answer = fold("Solution", code_block(self.source(self.solution)))
        return element(
            f"{head}<p>{inline(self.prompt)}</p>{about}{examples}{nested}{answer}",
            kind="exercise",
            id=f"cp-{self.id}",
        )

    def _told(self, case: Case, value: Plain) -> str:
        return self.tell(case, value) if self.tell else f"`{_short(value)}`"

    def _cases(self, seed: int | None) -> list[Case]:
        drawn = sorted(self.cases(random.Random(seed)), key=self.size)
        return [*self.example, *drawn]

    def _failed(
        self, program: Program, case: Case, got: Outcome, broken: str, tried: list[Case], seconds: float
    ) -> Feedback:
        known = None if got.kind == "Late" else self._same_as(program, tried, seconds)
        end = "" if broken[-1] in ".?!" else "."
        message = f"{known.hint} Here {broken}{end}" if known else f"{broken[:1].upper()}{broken[1:]}{end}"
        if got.printed:
            message += f" It printed `{_short(got.printed.strip())}`."
        return Feedback(ok=False, message=message, case=self.show(case), picture=self._drawn(case, got))

    def _same_as(self, program: Program, cases: list[Case], seconds: float) -> Wrong | None:
        """Compare what programs do, never how they are written; one that dawdles is not compared further."""
        alike, left = list(self.wrong), seconds
        for case in cases:
            begin = time.monotonic()
            got = self.outcome(program, case, seconds=max(0.1, left))
            left -= time.monotonic() - begin
            if got.kind == "Late":
                return None
            alike = [w for w in alike if _alike(got, self.outcome(w.program, case))]
            if not alike:
                return None
        return alike[0]

    def _drawn(self, case: Case, outcome: Outcome) -> str:
        if outcome.trouble:
            return ""
        try:
            return self.picture(case, outcome.value)
        except ODD:
            return ""  # too odd an answer to draw; the words are enough

    @staticmethod
    def _reply(guilty: bool, hint: str) -> str:
        return hint if guilty else f"This program goes wrong in another way. {hint}"

    @staticmethod
    def _nothing(value: Plain) -> bool:
        return value is None or (isinstance(value, dict) and value.get("returned", 0) is None)


def _alike(a: Outcome, b: Outcome) -> bool:
    """Same value, or the same kind of failure."""
    return (a.kind == b.kind) if (a.kind or b.kind) else (repr(a.value) == repr(b.value))


def _short(value: Plain) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 90 else text[:87] + "…"
