"""A schedule to plan by hand, iteration by iteration; it is played on the loop's own contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar

from chunkprefill.scheduling.core import Batch, Plan, Request, ScheduleError
from chunkprefill.scheduling.state import State
from chunkprefill_course.forms.answers import mapping
from chunkprefill_course.forms.boards import Cell, board
from chunkprefill_course.forms.choice import Choice, Option
from chunkprefill_course.forms.feedback import (
    Feedback,
    code_block,
    counted,
    element,
    fold,
    heading,
    hint_folds,
    inline,
)
from chunkprefill_course.forms.running import attempt

Row = dict[Any, int]  # one iteration: tokens by request


@dataclass(frozen=True)
class WrongPlan:
    """A plan that people really make; `hint` is what it overlooks."""

    rows: tuple[Row, ...]
    rule: str  # the one that it breaks, of RULES
    hint: str  # shown whenever that rule is broken


#: what a plan is held to, in the order in which it is looked at in each iteration
RULES = ("early", "contract", "budget", "stall", "late", "cut", "idle")


@dataclass(frozen=True)
class Played:
    """How far a plan went: the batches that ran, the rule that stopped it (or ""), and the words for it."""

    batches: tuple[Batch, ...]
    rule: str = ""
    said: str = ""


@dataclass(frozen=True, kw_only=True)
class Playback:
    """Plan the first iterations so that `short` stays responsive and `long` gets all the rest.

    n_long, n_cached: prompt tokens of the long request, and how many are cached already
    n_short, arrival: prompt tokens of the short one, and the iteration (from 1) before which it arrives
    budget:           tokens an iteration; n_iterations are to be planned
    wrong, hints:     plans that people make, each with the rule that it breaks; three hints, faint to plain

    Raises ValueError where the plan asked for would not be the only one, or would run past the long prompt.
    """

    id: str
    title: str
    prompt: str
    n_long: int
    n_cached: int
    n_short: int
    arrival: int
    budget: int
    n_iterations: int
    wrong: tuple[WrongPlan, ...]
    hints: tuple[str, str, str]
    minutes: int = 6
    level: str = "apply"

    def __post_init__(self) -> None:
        if not 1 <= self.arrival < self.n_iterations or self.n_short < 1 or self.budget < 2:
            raise ValueError(f"{self.id}: the short request must come, and decode, within the plan")
        if self.n_long - self.n_cached <= self.budget * self.n_iterations:
            raise ValueError(f"{self.id}: the long prompt would end within {self.n_iterations} iterations")

    @property
    def solution(self) -> tuple[Row, ...]:
        """Decodes first, then the short prompt, then the long one."""
        rows, short = [], self.n_short
        for t in range(1, self.n_iterations + 1):
            mine = 0 if t < self.arrival else 1 if not short else min(short, self.budget)
            short -= mine if short and t >= self.arrival else 0
            rest = self.budget - mine
            rows.append({name: n for name, n in (("short", mine), ("long", rest)) if n})
        return tuple(rows)

    def check(self, plan: Any, *, seconds: float = 2.0) -> Feedback:
        """Play a plan, a list with a dict {"long": n, "short": n} for each iteration. Never raises.

        seconds: the time that reading the plan may take, because a plan may be a program's own kind of list
        """
        if plan is None or plan is ... or not isinstance(plan, Mapping | list | tuple) or not len(plan):
            return Feedback(ok=None, message=f"Plan {self.n_iterations} iterations, such as {self.example}.")
        made = attempt(lambda: [mapping(row) for row in plan], seconds=seconds)
        rows = made.value
        if made.trouble or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            return Feedback(ok=None, message=f"A plan is a list of dicts, such as {self.example}.")
        played = self.play(rows)
        picture = self.picture(played)
        if played.rule:
            hint = next((w.hint for w in self.wrong if w.rule == played.rule), "")
            return Feedback(ok=False, message=f"{hint} {played.said}".strip(), picture=picture)
        if len(rows) != self.n_iterations:
            message = f"So far it works. {len(rows)} of {self.n_iterations} iterations are planned."
            return Feedback(ok=False, message=message, picture=picture)
        return Feedback(ok=True, message=self.praise(played), picture=picture)

    def play(self, rows: Any) -> Played:
        """Apply one row after the other, and stop at the first rule broken."""
        state, batches = State(), list[Batch]()
        state.arrive(Request("long", 0, self.n_long, 2))
        if self.n_cached:
            state.commit(state.apply(Plan({"long": self.n_cached})))
        for t, row in enumerate(rows, 1):
            if t == self.arrival:
                state.arrive(Request("short", 0, self.n_short, self.n_iterations + 1))
            live = {str(seq.rid): seq for seq in chain(state.running, state.waiting)}
            pending = {rid: seq.pending for rid, seq in live.items()}
            decoding = {rid for rid, seq in live.items() if seq.decoding}
            row = {name: n for name, n in row.items() if n != 0}  # nothing granted is nothing planned
            if "short" in row and t < self.arrival:
                said = f"Iteration {t}: `short` arrives before iteration {self.arrival}."
                return Played(tuple(batches), "early", said)
            try:
                batch = state.apply(Plan(row))
            except ScheduleError as error:
                return Played(tuple(batches), "contract", f"Iteration {t}: {error}.")
            state.commit(batch)
            batches.append(batch)
            if broken := self._broken(row, pending, decoding):
                return Played(tuple(batches), broken[0], f"Iteration {t}: {broken[1]}.")
        return Played(tuple(batches))

    def _broken(self, row: Row, pending: Row, decoding: set[str]) -> tuple[str, str] | None:
        total, short = sum(row.values()), min(pending.get("short", 0), self.budget)
        if total > self.budget:
            return "budget", f"{counted(total, 'token')} planned, the budget is {self.budget}"
        if "short" in decoding and "short" not in row:
            return "stall", "`short` could decode and is left out"
        if "short" not in row and short:
            return "late", f"{counted(short, 'token')} of `short` could run, and none does"
        if row.get("short", 0) < short:
            return "cut", f"{row['short']} of {counted(short, 'token')} of `short` run, and {short} would fit"
        if total < self.budget:
            return (
                "idle",
                f"room for {counted(self.budget - total, 'token')} of the budget of {self.budget} stays unused",
            )
        return None

    def praise(self, played: Played) -> str:
        """What a good plan bought, and what the long prompt paid."""
        shorts = [
            t for t, batch in enumerate(played.batches, 1) if ("short", True) in zip(batch.rid, batch.emits)
        ]
        given = sum(n for b in played.batches for rid, n in zip(b.rid, b.length) if rid == "long")
        alone = self.budget * self.n_iterations
        return (
            f"`short` gets its first token in iteration {shorts[0]}, and one in each iteration that follows. `long` "
            f"got {given} tokens in {self.n_iterations} iterations, {alone - given} fewer than alone."
        )

    def picture(self, played: Played) -> str:
        """Tokens by iteration; the last column is where it stopped. Nothing, where nothing ran."""
        if not played.batches:
            return ""
        rows: list[tuple[str, list[Cell]]] = []
        for name, n_prompt in (("long", self.n_long), ("short", self.n_short)):
            cells: list[Cell] = []
            for batch in played.batches:
                found = [(s, n) for rid, s, n in zip(batch.rid, batch.start, batch.length) if rid == name]
                kind = "idle" if not found else "decode" if found[0][0] >= n_prompt else "prefill"
                cells.append((kind, str(found[0][1]) if found else ""))
            rows.append((name, cells))
        sums = [("empty", str(sum(batch.length))) for batch in played.batches]
        columns = [str(t) for t in range(1, len(played.batches) + 1)]
        note = f"Tokens; at most {self.budget} in all."
        return board(
            [*rows, ("in all", sums)], title="Played, iteration by iteration", columns=columns, note=note
        )

    #: What a plan is called in a reader's program, as `Exercise.name` is.
    name: ClassVar[str] = "plan"

    @property
    def starter(self) -> str:
        """The program that a reader fills in."""
        first = f'    {{"long": {self.budget}}},  # iteration 1'
        return f"plan = [\n{first}\n    # and so on, to iteration {self.n_iterations}\n]\n"

    @property
    def example(self) -> str:
        """The form of an answer, as code."""
        return f"`[{{'long': {self.budget}}}, …]`"

    def as_choice(self) -> Choice:
        """The same question for a page: which of these plans keeps all the rules? Each is played."""
        plans = [(self.solution, ""), *((wrong.rows, wrong.hint) for wrong in self.wrong)]
        options = []
        for key, (rows, hint) in zip("abcdefgh", sorted(plans, key=str)):  # the right one among the others
            played = self.play(rows)
            reply = f"{hint} {played.said}" if played.rule else self.praise(played)
            options.append(
                Option(key, f"Plan {key.upper()}", reply, not played.rule, _text(rows), self.picture(played))
            )
        prompt = "Which of these plans keeps every rule? Rows are iterations, numbers are tokens."
        return Choice(id=f"{self.id}-twin", prompt=prompt, options=tuple(options))

    def __str__(self) -> str:
        return f"{self.title} ({self.minutes} min, {self.level})\n{self.prompt}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        played = self.play(self.solution)
        answer = (
            f"{code_block(_text(self.solution))}{self.picture(played)}<p>{inline(self.praise(played))}</p>"
        )
        inner = (
            f"{heading(self)}<p>{inline(self.prompt)}</p>{hint_folds(self.hints)}{fold('Solution', answer)}"
        )
        return element(inner, kind="exercise", id=f"cp-{self.id}", data_starter=self.starter)


def _text(rows: tuple[Row, ...]) -> str:
    lines = (", ".join(f"{name} {n}" for name, n in sorted(row.items())) for row in rows)
    return "\n".join(f"{t}: {line}" for t, line in enumerate(lines, 1))
