"""Exercise: write stall-free batching, decodes first and chunks in what is left of the budget."""

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
    """Ten lines."""

    token_budget: int

    def schedule(self, state):
        tokens = {seq.rid: 1 for seq in state.running if seq.decoding}
        left = self.token_budget - len(tokens)
        for seq in (*state.running, *state.waiting):
            if not seq.decoding and left > 0:
                tokens[seq.rid] = min(seq.pending, left)
                left -= tokens[seq.rid]
        return cp.Plan(tokens)


@dataclass(frozen=True)
class ChunksFirst:
    """Cuts the prompts, and still lets them go first."""

    token_budget: int

    def schedule(self, state):
        tokens, left = {}, self.token_budget
        for seq in (*state.running, *state.waiting):
            if not seq.decoding and left > 0:
                tokens[seq.rid] = min(seq.pending, left)
                left -= tokens[seq.rid]
        for seq in state.running:
            if seq.decoding and left > 0:
                tokens[seq.rid] = 1
                left -= 1
        return cp.Plan(tokens)


@dataclass(frozen=True)
class WholeBudgetForChunks:
    """Takes the budget for the size of a chunk."""

    token_budget: int

    def schedule(self, state):
        tokens = {seq.rid: 1 for seq in state.running if seq.decoding}
        left = self.token_budget
        for seq in (*state.running, *state.waiting):
            if not seq.decoding and left > 0:
                tokens[seq.rid] = min(seq.pending, left)
                left -= tokens[seq.rid]
        return cp.Plan(tokens)


@dataclass(frozen=True)
class OneChunkAStep:
    """Stops after the first prompt, whatever is left."""

    token_budget: int

    def schedule(self, state):
        tokens = {seq.rid: 1 for seq in state.running if seq.decoding}
        left = self.token_budget - len(tokens)
        for seq in (*state.running, *state.waiting):
            if not seq.decoding and left > 0:
                tokens[seq.rid] = min(seq.pending, left)
                break
        return cp.Plan(tokens)


@dataclass(frozen=True)
class NewcomersFirst:
    """Looks at who waits before who is half done."""

    token_budget: int

    def schedule(self, state):
        tokens = {seq.rid: 1 for seq in state.running if seq.decoding}
        left = self.token_budget - len(tokens)
        for seq in (*state.waiting, *state.running):
            if not seq.decoding and left > 0:
                tokens[seq.rid] = min(seq.pending, left)
                left -= tokens[seq.rid]
        return cp.Plan(tokens)


def want(case: Case) -> list[Any]:
    """What the solution does."""
    return served.serve_case(Solution, case)


def rule(was: Before, got: dict[int, int], budget: int) -> str:
    """The first rule that a step breaks."""
    total = sum(got.values())
    if total > budget:
        return f"{counted(total, 'token')} run, the budget is {budget}"
    if left_out := [rid for rid in was.ready if rid not in got]:
        return f"request {left_out[0]} could decode and is left out"
    short = [(rid, n) for rid, n in was.pending.items() if got.get(rid, 0) < n]
    if total < budget and short:
        rid, n = short[0]
        unused = f"{budget - total} of {budget} tokens of the budget stay unused"
        return f"{unused}, and request {rid} has {n} to prefill"
    later = [rid for rid in got if short and rid in was.pending and rid > short[0][0]]
    if later:
        return f"request {later[0]} prefills before request {short[0][0]}, which came first, has its fill"
    return ""


def judge(case: Case, value: Plain) -> str:
    """Step by step."""
    return served.judge_steps(case, value, want(case), rule)


write_chunked_prefill = Exercise(
    id="write-chunked-prefill",
    title="Write stall-free batching",
    name="ChunkedPrefill",
    prompt="Write the policy `ChunkedPrefill(token_budget)`. In every iteration each running sequence that "
    "is `decoding` gets one token. What is left of the budget goes to prompts, first come first served: each "
    "gets as much as is pending, or as is left. `schedule(state)` returns `cp.Plan({rid: tokens})`. You may "
    "look at `state.running` (who holds a cache, in the order of admission) and `state.waiting` (the queue); "
    "a sequence has `rid`, `pending`, `decoding`. The budget is never smaller than the number of decodes.",
    preamble=served.PREAMBLE,
    starter=f"{served.PREAMBLE}@dataclass(frozen=True)\nclass ChunkedPrefill:\n    token_budget: int\n\n"
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
            ChunksFirst,
            "The prompts are cut, and they still go first: a decode gets what they leave. "
            "Cutting alone protects nobody; the order does.",
        ),
        Wrong(
            WholeBudgetForChunks,
            "The chunks take the whole budget although the decodes have spent some of it. "
            "The budget counts all tokens of an iteration, whoever they belong to.",
        ),
        Wrong(
            OneChunkAStep,
            "After one chunk nobody else is asked, even if budget is left. The tail of one prompt and the "
            "head of the next can share an iteration.",
        ),
        Wrong(
            NewcomersFirst,
            "Those who wait are served before those who are half done. A half-built cache is the oldest "
            "prompt of all: it stands in `state.running`, and comes first.",
        ),
    ),
    hints=(
        "Write down one iteration by hand: budget 4, one sequence decoding, one with 9 tokens pending.",
        "Give the decodes their tokens first and count them. What is left is the size of the chunk.",
        "A prompt that is half done is in `state.running`, with `decoding` False. Go through "
        "`(*state.running, *state.waiting)`: take `min(seq.pending, left)`, subtract it, go on.",
    ),
    minutes=12,
    level="create",
    size=served.size,
)
