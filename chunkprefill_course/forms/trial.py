"""One check of one program: the example, fresh cases, and whether it answers the same when asked again."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any, Protocol

from chunkprefill_course.forms.answers import Plain, Unusable, is_array, plain, shortened
from chunkprefill_course.forms.feedback import Feedback
from chunkprefill_course.forms.lines import returning
from chunkprefill_course.forms.memory import Snapshot
from chunkprefill_course.forms.running import SLOW, Case, Outcome, Program, attempt
from chunkprefill_course.forms.stopping import Spent
from chunkprefill_course.forms.variants import Wrong

ASKED_AGAIN = 6  # cases that a right program is asked once more


class Asks(Protocol):
    """What a trial wants of an exercise."""

    @property
    def name(self) -> str: ...
    @property
    def example(self) -> tuple[Case, ...]: ...
    @property
    def wrong(self) -> tuple[Wrong, ...]: ...
    @property
    def slips(self) -> tuple[Wrong, ...]: ...
    def drawn(self, seed: int | None) -> list[Case]: ...
    def outcome(self, program: Program, case: Case, *, seconds: float = 10.0) -> Outcome: ...
    def broken(self, case: Case, outcome: Outcome) -> str: ...
    def alike(self, case: Case, one: Outcome, other: Outcome) -> bool: ...
    def in_words(self, value: Plain) -> str: ...
    def drawn_as(self, case: Case, outcome: Outcome) -> str: ...
    @property
    def run(self) -> Any: ...
    @property
    def show(self) -> Any: ...


class ProgramTrial:
    """`feedback()` does all of it, within `seconds` for all the calls together."""

    def __init__(self, form: Asks, program: Program, seed: int | None, seconds: float) -> None:
        self.form, self.seed, self.seconds = form, seed, seconds
        self.asked = _Asked(program)
        self.left = seconds
        self.before = Snapshot(program)

    def feedback(self) -> Feedback:
        """What becomes of it."""
        form = self.form
        first = self.outcome(form.example[0])
        if first.untried:
            return self._untried()
        cases = form.drawn(self.seed)
        made: list[Outcome] = []
        for case in cases:
            made.append(first if case is form.example[0] else self.outcome(case))
            if broken := form.broken(case, made[-1]):
                if made[-1].unanswered and self._never_answers(cases):
                    return self._untried()
                return self._failed(cases, made, broken)
        if (unsteady := self._unsteady(cases, made)) is not None:
            return unsteady
        return Feedback(ok=True, message=f"`{form.name}` keeps every rule in all {len(cases)} cases tried.")

    def outcome(self, case: Case) -> Outcome:
        """What the program makes of a case, in what is left of the time."""
        spent = Spent()
        got = self.form.outcome(self.asked, case, seconds=max(0.05, self.left))
        self.left -= spent()
        if not got.late:
            return got
        return replace(got, trouble=f"it had not finished after {self.seconds:g} s: {SLOW}")

    def _untried(self) -> Feedback:
        return Feedback(
            ok=None,
            message=f"`{self.form.name}` returns nothing yet. (Written already? Then look for a missing "
            "`return`.)",
        )

    def _never_answers(self, cases: list[Case]) -> bool:
        """Whether nothing comes of any case: not a wrong answer, none yet."""
        some = cases[:: max(1, len(cases) // 20)]
        return all(got.unanswered for got in map(self.outcome, some))

    # --- it is wrong ---

    def _failed(self, cases: list[Case], made: list[Outcome], broken: str) -> Feedback:
        case, got = cases[len(made) - 1], made[-1]
        if not got.late and (said := self._remembers(case, got)):
            return self._wrong(said, case, got)
        known = None if got.late else self.known(cases, made)
        end = "" if broken[-1] in ".?!" else "."
        message = f"{known.hint} Here {broken}{end}" if known else f"{broken[:1].upper()}{broken[1:]}{end}"
        place = "" if known or got.trouble else self._place(case)
        if place:
            message += f" The answer came from {place}."
        return self._wrong(message, case, got)

    def _place(self, case: Case) -> str:
        """The `return` that a wrong answer came from, found in what is left of the time."""
        before = sys.gettrace()
        try:
            run = lambda: returning(lambda: self.form.run(self.asked, case))  # noqa: E731
            return str(attempt(run, seconds=max(0.05, self.left)).value or "")
        finally:
            sys.settrace(before)

    def _wrong(self, message: str, case: Case, got: Outcome) -> Feedback:
        if got.printed.strip():
            message += f" It printed `{shortened(got.printed.strip(), 90)}`."
        picture = self.form.drawn_as(case, got)
        return Feedback(ok=False, message=message, case=self.form.show(case), picture=picture)

    def known(self, cases: list[Case], made: list[Outcome]) -> Wrong | None:
        """The known mistake that does the same in every case. What programs do counts, not how they look."""
        form, alike = self.form, [*self.form.wrong, *self.form.slips]
        for n, case in enumerate(cases):
            got = made[n] if n < len(made) else self.outcome(case)
            if got.late:
                return None
            alike = [wrong for wrong in alike if form.alike(case, got, form.outcome(wrong.program, case))]
            if not alike:
                return None
        return alike[0]

    def _remembers(self, case: Case, got: Outcome) -> str:
        """Whether the answer depends on earlier calls: the program is put back and asked this case alone."""
        form = self.form
        self.before.restore()
        alone = self.outcome(case)
        again = self.outcome(case)
        if alone.late or again.late:
            return ""
        if form.alike(case, alone, got) and form.alike(case, again, got):
            return ""
        if form.alike(case, alone, got):
            how = f"called twice with the same input it gave {self._apart(case, alone, again, 'and then')}"
        else:
            apart = self._apart(case, got, alone, "and called alone")
            how = f"after other calls it gave for this input {apart}"
        return self._memory(how)

    def _apart(self, case: Case, one: Outcome, other: Outcome, then: str) -> str:
        """What came first, and what then; where that reads alike, what is wrong with the one that is."""
        said = [outcome.trouble or self.form.in_words(outcome.value) for outcome in (one, other)]
        if said[0] == said[1]:
            broken = [self.form.broken(case, outcome) for outcome in (one, other)]
            said = [f"a wrong answer ({words})" if words else "the right answer" for words in broken]
        return f"{said[0]}, {then} {said[1]}"

    @staticmethod
    def _memory(how: str) -> str:
        return (
            f"Your function remembers: {how}. An answer may depend on the arguments alone. Look for a global "
            "variable, a default value such as `seen=[]`, an attribute that changes, or random numbers."
        )

    # --- it is right so far ---

    def _unsteady(self, cases: list[Case], made: list[Outcome]) -> Feedback | None:
        """Whether it gives something else when asked again, or what it gave first has changed since."""
        some = range(0, len(cases), max(1, len(cases) // ASKED_AGAIN))
        for n in some:
            again = self.outcome(cases[n])
            if not self.form.alike(cases[n], made[n], again) and self.form.broken(cases[n], again):
                apart = self._apart(cases[n], made[n], again, "and then")
                said = self._memory(f"called twice with the same input it gave {apart}")
                return self._wrong(said, cases[n], again)
        if self.asked.held_changed():
            said = (
                "Your function hands out one and the same object in every call: the answer to the first call "
                "changed with a later one. Make a new one each time."
            )
            return Feedback(ok=False, message=said, case=self.form.show(cases[0]))
        return None


class _Asked:
    """The program, with the first list, dict or array that it returned kept in sight."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.held: Any = None
        self.was: Plain = None

    def __call__(self, *args: Any) -> Any:
        value = self.program(*args)
        if self.held is None and (isinstance(value, list | dict) or is_array(value)) and not _used_up(value):
            self.held, self.was = value, _as_it_is(value)
        return value

    def held_changed(self) -> bool:
        """Whether it has become another since."""
        return self.held is not None and bool(_as_it_is(self.held) != self.was)


def _used_up(value: Any, depth: int = 3) -> bool:
    """Whether reading a value takes something from it: an iterator, or a list that holds one."""
    if hasattr(type(value), "__next__"):
        return True
    if not depth or type(value) not in (list, tuple, dict):
        return False
    return any(_used_up(each, depth - 1) for each in (value.values() if type(value) is dict else value))


def _as_it_is(value: Any) -> Plain:
    """A copy; of things that have no plain form, the things themselves."""
    try:
        return plain(value)
    except Unusable:
        return list(value.items()) if isinstance(value, dict) else list(value)
