"""Exercise: change stall-free batching so that a short newcomer passes between a long prompt's chunks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import chunkprefill as cp
from chunkprefill.exercises import served
from chunkprefill.exercises.exercise import Case, Exercise, Wrong
from chunkprefill.exercises.feedback import counted
from chunkprefill.exercises.running import Plain
from chunkprefill.exercises.served import Before


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


@dataclass(frozen=True)
class ByLength:
    """Sorts by the whole prompt, done or not."""

    token_budget: int

    def schedule(self, state):
        tokens = {seq.rid: 1 for seq in state.running if seq.decoding}
        left = self.token_budget - len(tokens)
        for seq in sorted((*state.running, *state.waiting), key=lambda seq: seq.n_prompt):
            if not seq.decoding and left > 0:
                tokens[seq.rid] = min(seq.pending, left)
                left -= tokens[seq.rid]
        return cp.Plan(tokens)


@dataclass(frozen=True)
class ByArrival:
    """Nothing changed."""

    token_budget: int

    def schedule(self, state):
        tokens = {seq.rid: 1 for seq in state.running if seq.decoding}
        left = self.token_budget - len(tokens)
        for seq in sorted((*state.running, *state.waiting), key=lambda seq: seq.arrival):
            if not seq.decoding and left > 0:
                tokens[seq.rid] = min(seq.pending, left)
                left -= tokens[seq.rid]
        return cp.Plan(tokens)


@dataclass(frozen=True)
class LatestFirst:
    """Whoever came last."""

    token_budget: int

    def schedule(self, state):
        tokens = {seq.rid: 1 for seq in state.running if seq.decoding}
        left = self.token_budget - len(tokens)
        for seq in reversed((*state.running, *state.waiting)):
            if not seq.decoding and left > 0:
                tokens[seq.rid] = min(seq.pending, left)
                left -= tokens[seq.rid]
        return cp.Plan(tokens)


@dataclass(frozen=True)
class WholeBatchSorted:
    """Decodes are the shortest of all, and stand in the same row; then the budget is spent twice."""

    token_budget: int

    def schedule(self, state):
        tokens, left = {}, self.token_budget
        for seq in sorted((*state.running, *state.waiting), key=lambda seq: -seq.pending):
            if left > 0:
                tokens[seq.rid] = min(seq.pending, left)
                left -= tokens[seq.rid]
        return cp.Plan(tokens)


def want(case: Case) -> list[Any]:
    """What the solution does."""
    return served.serve_case(Solution, case)


def rule(was: Before, got: dict[int, int], budget: int) -> str:
    """The first rule that a step breaks. Who is as short as another may go before it or after it."""
    total = sum(got.values())
    if total > budget:
        return f"{counted(total, 'token')} run, the budget is {budget}"
    if left_out := [rid for rid in was.ready if rid not in got]:
        return f"request {left_out[0]} could decode and is left out"
    short = [(n, rid) for rid, n in was.pending.items() if got.get(rid, 0) < n]
    if total < budget and short:
        n, rid = short[0]
        return f"{budget - total} of {budget} tokens stay unused, and request {rid} has {n} to prefill"
    for n, rid in sorted(short):
        if longer := [r for r in got if was.pending.get(r, 0) > n]:
            more = f"request {longer[0]} has {was.pending[longer[0]]} tokens to prefill"
            return f"{more} and goes before request {rid}, which has {n}"
    return ""


def judge(case: Case, value: Plain) -> str:
    """Step by step, each against the state that the reader's own steps have led to."""
    for k, rows in enumerate(value):
        if why := rule(served.before(case, value, k), {row[0]: row[2] for row in rows}, case["budget"]):
            return f"in iteration {k + 1}, {why}"
    return ""


write_shortest_first = Exercise(
    id="write-shortest-first",
    title="Let the newcomer pass",
    name="ShortestFirst",
    prompt="Start from `ChunkedPrefill` and change one thing: what the decodes leave of the budget goes to "
    "the prompt that has the fewest tokens **left to prefill**, then to the next. Decodes still go first. "
    "Between two that have equally many left, either may be first.",
    preamble=served.PREAMBLE,
    starter=f"{served.PREAMBLE}@dataclass(frozen=True)\nclass ShortestFirst:\n    token_budget: int\n\n"
    "    def schedule(self, state):\n        ...",
    example=({"budget": 4, "requests": [(0, 10, 3)]},),
    cases=served.cases,
    run=served.serve_case,
    want=want,
    judge=judge,
    picture=served.picture,
    show=served.show,
    tell=served.tell,
    solution=Solution,
    wrong=(
        Wrong(
            ByLength,
            "It sorts by the length of the whole prompt. A long one that is nearly done has little left, and "
            "would be passed on its last metre.",
        ),
        Wrong(
            ByArrival,
            "It serves prompts in the order in which they came, as before. The newcomer still stands behind "
            "the document.",
        ),
        Wrong(
            LatestFirst,
            "It lets in whoever came last. That helps a short newcomer, and a long one just as much.",
        ),
        Wrong(
            WholeBatchSorted,
            "One row for everybody, the most pending first: the longest prompt takes the budget, and those "
            "who decode get what it leaves.",
        ),
    ),
    hints=(
        "Only the order in which the loop goes through the prompts has to change.",
        "`sorted(sequences, key=...)` gives them in the order of a number. Which number of a sequence is it?",
        "`sorted((*state.running, *state.waiting), key=lambda seq: seq.pending)`",
    ),
    minutes=6,
    level="apply",
    size=served.size,
)
