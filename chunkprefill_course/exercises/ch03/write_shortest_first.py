"""Exercise: change stall-free batching so that a short newcomer passes between a long prompt's chunks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import chunkprefill as cp
from chunkprefill_course.exercises.texts import prose
from chunkprefill_course.forms import served
from chunkprefill_course.forms.answers import Plain
from chunkprefill_course.forms.exercise import Case, Exercise, Wrong
from chunkprefill_course.forms.feedback import counted
from chunkprefill_course.forms.served import Before
from chunkprefill_course.forms.variants import Variant


@dataclass(frozen=True)
class Solution:
    """Sorted by what is left to do."""

    token_budget: int

    def schedule(self, state):
        tokens = {seq.rid: 1 for seq in state.running if seq.decoding}
        left = self.token_budget - len(tokens)
        for seq in sorted((*state.running, *state.waiting), key=lambda seq: seq.pending):
            if not seq.decoding and left > 0:
                tokens[seq.rid] = min(seq.pending, left)
                left -= tokens[seq.rid]
        return cp.Plan(tokens)


LINE = "sorted((*state.running, *state.waiting), key=lambda seq: seq.pending)"
DECODES = "tokens = {seq.rid: 1 for seq in state.running if seq.decoding}"
LEFT = "left = self.token_budget - len(tokens)"


def _in_order(line: str) -> Variant:
    return Variant(Solution, (LINE, line))


def _when(met: Callable[[Before, dict[int, int], int], Any]) -> Callable[[Case], bool]:
    return served.somewhen(Solution, met)


def _passed(was: Before, got: dict[int, int], _: int) -> bool:
    """A half-done prompt gets nothing, or less, while one that waited goes first."""
    return any(
        rid not in was.half and was.pending[rid] < was.pending[half]
        for half in was.half
        if got.get(half, 0) < was.pending[half]
        for rid in got
        if rid in was.pending
    )


def _much_cached(case: Case, more: int) -> bool:
    """A newcomer has `more` tokens to go than a half-done prompt with a thousand cached; too little for both."""
    return any(
        was.pending[rid] == was.pending[half] + more and rid not in was.half
        for was, got, budget in served.moments(case, Solution)
        for half in was.half
        if served.row_of(case, half)[1] - was.pending[half] > 1000
        for rid in was.pending
        if got.get(rid, 0) + got.get(half, 0) == budget < was.pending[rid] + was.pending[half]
    )


def want(case: Case) -> list[Any]:
    """What the solution does."""
    return served.right(case, Solution)


def rule(was: Before, got: dict[int, int], budget: int) -> str:
    """The first rule that a step breaks. Who is as short as another may go before it or after it."""
    total = sum(got.values())
    if total > budget:
        return served.overrun(total, budget)
    if left_out := [rid for rid in was.ready if rid not in got]:
        return f"request {left_out[0]} could decode and is left out"
    short = [(n, rid) for rid, n in was.pending.items() if got.get(rid, 0) < n]
    if total < budget and short:
        n, rid = short[0]
        return f"{served.unused(budget - total, budget)}, and request {rid} has {n:,} to prefill"
    for n, rid in sorted(short):
        if longer := [r for r in got if was.pending.get(r, 0) > n]:
            more = f"request {longer[0]} has {counted(was.pending[longer[0]], 'token')} to prefill"
            return f"{more} and goes before request {rid}, which has {n:,}"
    return served.shared(was, got)


def judge(case: Case, value: Plain) -> str:
    """Step by step, each against the state that the reader's own steps have led to."""
    given = len(case.get("given", ()))
    for k, (was, rows) in enumerate(zip(served.standings(case, value), value)):
        if k >= given and (why := rule(was, {row[0]: row[2] for row in rows}, case["budget"])):
            return f"in iteration {k + 1}, {why}"
    return ""


write_shortest_first = Exercise(
    id="write-shortest-first",
    title="Let the newcomer pass",
    name="ShortestFirst",
    prompt=prose("write-shortest-first"),
    preamble=served.PREAMBLE,
    starter="@dataclass(frozen=True)\nclass ShortestFirst:\n    token_budget: int\n\n"
    "    def schedule(self, state):\n        ...",
    example=({"budget": 4, "requests": [(0, 10, 3)]},),
    cases=served.cases,
    conditions={
        "a shorter newcomer passes": _when(_passed),
        "a longer newcomer does not": _when(
            lambda was, got, _: any(
                rid not in was.half and was.pending[rid] > was.pending[half]
                for half in was.half
                for rid in was.pending
                if half in got
            )
        ),
        "a long prompt has less left than a newcomer": lambda case: any(
            served.row_of(case, half)[1] > served.row_of(case, rid)[1] > was.pending[half]
            for was, _, __ in served.moments(case, Solution)
            for half in was.half
            for rid in was.pending
            if rid not in was.half
        ),
        "a half-done prompt has one token less left than a newcomer": _when(
            lambda was, got, _: any(
                was.pending[rid] == was.pending[half] + 1
                and rid not in was.half
                and got.get(half)
                and got.get(rid, 0) < was.pending[rid]
                for half in was.half
                for rid in was.pending
            )
        ),
        "a thousand cached, and one token less left than a newcomer": lambda case: _much_cached(case, 1),
        "a thousand cached, and one token more left than a newcomer": lambda case: _much_cached(case, -1),
        "the shortest of twenty stands last": _when(served.is_reversed),
        "decodes take the whole budget, one token is left of a prompt": _when(
            lambda was, _, budget: len(was.ready) == budget and 1 in was.pending.values()
        ),
        "the same, and the prompt came before a decode": _when(
            lambda was, _, budget: (
                len(was.ready) == budget
                and any(
                    n == 1 and rid in was.half and was.order.index(rid) < was.order.index(was.ready[-1])
                    for rid, n in was.pending.items()
                )
            )
        ),
        "as many prompts in one iteration as there may be": _when(served.is_crowded),
        "ten decodes, and ten prompts join": _when(served.is_crowded_beside_decodes),
        "two prompts in one iteration": _when(lambda was, got, _: sum(rid in was.pending for rid in got) > 1),
        "decodes beside a chunk": _when(lambda was, got, _: was.ready and len(got) > len(was.ready)),
        "equal lengths": _when(lambda was, _, __: len(set(was.pending.values())) < len(was.pending)),
        "equally many left, and tokens for a part of one": _when(
            lambda was, got, _: any(
                1 < got.get(rid, 0) < n and list(was.pending.values()).count(n) > 1
                for rid, n in was.pending.items()
            )
        ),
        "an idle time": served.idle,
    },
    run=served.serve_case,
    want=want,
    judge=judge,
    picture=served.served_picture,
    show=served.show,
    tell=served.tell,
    solution=Solution,
    wrong=(
        Wrong(
            _in_order("sorted((*state.running, *state.waiting), key=lambda seq: seq.n_prompt)"),
            "It sorts by the length of the whole prompt. A long prompt that is nearly done has little "
            "left, yet others would overtake it just before the end.",
        ),
        Wrong(
            _in_order("(*state.running, *state.waiting)"),
            "It serves prompts in order of arrival, as before. The newcomer still waits behind the document.",
        ),
        Wrong(
            _in_order("reversed((*state.running, *state.waiting))"),
            "It runs the prompt that arrived last. That helps a short newcomer, and a long one just as much.",
        ),
        Wrong(
            Variant(
                Solution,
                (LINE, "sorted((*state.running, *state.waiting), key=lambda seq: -seq.pending)"),
                (DECODES, "tokens = {}"),
                (LEFT, "left = self.token_budget"),
                ("if not seq.decoding and left > 0:", "if left > 0:"),
            ),
            "All sequences share one order, most pending first: the longest prompt takes the budget, and "
            "the decodes get what it leaves.",
        ),
    ),
    slips=(
        Wrong(
            Variant(
                Solution,
                (DECODES, "tokens = {}"),
                (LEFT, "left = self.token_budget"),
                ("if not seq.decoding and left > 0:", "if left > 0:"),
            ),
            "Decodes are sorted among the prompts: one that has a single token left can take a decode's place. "
            "Decodes go first, whatever the prompts have left.",
        ),
        Wrong(
            _in_order("sorted((*state.running, *state.waiting), key=lambda seq: -seq.pending)"),
            "The prompt with the *most* left goes first: the document, and the newcomer waits as before.",
        ),
        Wrong(
            _in_order("(*state.running, *sorted(state.waiting, key=lambda seq: seq.pending))"),
            "Only the queue is sorted. The document that is half done is in `state.running`, and still "
            "goes before every newcomer.",
        ),
        Wrong(
            _in_order("(*sorted(state.waiting, key=lambda seq: seq.pending), *state.running)"),
            "Every newcomer overtakes the half-done prompt, even a longer one. Sort both together.",
        ),
        Wrong(
            Variant(Solution, (LEFT, "left = self.token_budget")),
            "The chunks take the whole budget although the decodes have spent some of it.",
        ),
        Wrong(
            Variant(Solution, ("left -= tokens[seq.rid]", "break")),
            "After one chunk no other prompt gets a turn, even if budget is left.",
        ),
    ),
    hints=(
        "Only the order in which the loop goes through the prompts has to change.",
        "`sorted(sequences, key=...)` gives them in the order of a number. Which number of a sequence is it?",
        "`sorted((*state.running, *state.waiting), key=lambda seq: seq.pending)`",
    ),
    minutes=6,
    level="apply",
    makes="policy",
    rung="rung 3 of 4: write a scheduler",
    size=served.size,
)
