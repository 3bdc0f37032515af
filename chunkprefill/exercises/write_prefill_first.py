"""Exercise: write prefilling-prioritized scheduling, whole prompts first and decoding when none can go."""

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

    max_tokens: int

    def schedule(self, state):
        left = self.max_tokens
        tokens: dict = {}
        for seq in state.waiting:
            if seq.pending > left and tokens:
                break
            tokens[seq.rid] = seq.pending
            left -= seq.pending
        if not tokens:
            tokens = {seq.rid: 1 for seq in state.running}
        return cp.Plan(tokens)


@dataclass(frozen=True)
class Together:
    """Decodes ride along."""

    max_tokens: int

    def schedule(self, state):
        left = self.max_tokens
        tokens: dict = {}
        for seq in state.waiting:
            if seq.pending > left and tokens:
                break
            tokens[seq.rid] = seq.pending
            left -= seq.pending
        return cp.Plan(tokens | {seq.rid: 1 for seq in state.running})


@dataclass(frozen=True)
class OneByOne:
    """A prompt an iteration, though more would fit."""

    max_tokens: int

    def schedule(self, state):
        for seq in state.waiting:
            return cp.Plan({seq.rid: seq.pending})
        return cp.Plan({seq.rid: 1 for seq in state.running})


@dataclass(frozen=True)
class LongOnesPassedOver:
    """Takes whatever fits, in whatever order."""

    max_tokens: int

    def schedule(self, state):
        left = self.max_tokens
        tokens: dict = {}
        for seq in state.waiting:
            if seq.pending <= left:
                tokens[seq.rid] = seq.pending
                left -= seq.pending
        if not tokens and state.running:
            return cp.Plan({seq.rid: 1 for seq in state.running})
        if not tokens:
            tokens = {state.waiting[0].rid: state.waiting[0].pending}
        return cp.Plan(tokens)


@dataclass(frozen=True)
class DecodesFirst:
    """Looks at prompts only when nobody decodes."""

    max_tokens: int

    def schedule(self, state):
        if state.running:
            return cp.Plan({seq.rid: 1 for seq in state.running})
        left = self.max_tokens
        tokens: dict = {}
        for seq in state.waiting:
            if seq.pending > left and tokens:
                break
            tokens[seq.rid] = seq.pending
            left -= seq.pending
        return cp.Plan(tokens)


def want(case: Case) -> list[Any]:
    """What the solution does."""
    return served.serve_case(Solution, case)


def rule(was: Before, got: dict[int, int], budget: int) -> str:
    """The first rule that a step breaks."""
    prompts = {rid: n for rid, n in got.items() if rid in was.pending}
    cut = [rid for rid, n in prompts.items() if n < was.pending[rid]]
    if cut:
        rid = cut[0]
        return (
            f"request {rid} gets {prompts[rid]} of its {was.pending[rid]} prompt tokens: whole prompts only"
        )
    if was.pending and not prompts:
        first = next(iter(was.pending))
        return f"the prompt of request {first} waits while others decode: prompts go first here"
    if prompts and len(prompts) < len(got):
        rid = next(rid for rid in got if rid not in prompts)
        return f"request {rid} decodes beside a prompt: under this policy decoding waits"
    if len(prompts) > 1 and sum(prompts.values()) > budget:
        return f"prompts of {counted(sum(prompts.values()), 'token')} run together, at most {budget} may"
    line = list(was.pending)
    if sorted(prompts) != line[: len(prompts)]:
        skipped = next(rid for rid in line if rid not in prompts)
        later = next(rid for rid in prompts if rid > skipped)
        return f"request {later} goes before request {skipped}, which came first"
    if prompts and len(prompts) < len(line):
        rid = line[len(prompts)]
        if sum(prompts.values()) + was.pending[rid] <= budget:
            both = sum(prompts.values())
            return f"request {rid} has {was.pending[rid]} tokens and waits, though {budget - both} would fit"
    if left_out := [rid for rid in was.ready if rid not in got and not prompts]:
        return f"request {left_out[0]} could decode and is left out"
    return ""


def judge(case: Case, value: Plain) -> str:
    """Step by step."""
    return served.judge_steps(case, value, want(case), rule)


write_prefill_first = Exercise(
    id="write-prefill-first",
    title="Write prefilling first",
    name="PrefillFirst",
    prompt="Write the policy `PrefillFirst(max_tokens)`, which early serving engines used. While anybody "
    "waits, an iteration runs whole prompts from the front of `state.waiting`, as many as fit in "
    "`max_tokens` together, and nothing else. A prompt longer than `max_tokens` runs alone. Nobody is "
    "passed over: the first that does not fit ends the row. Only when nobody waits does every sequence in "
    "`state.running` get one token. `schedule(state)` returns `cp.Plan({rid: tokens})`.",
    preamble=served.PREAMBLE,
    starter=f"{served.PREAMBLE}@dataclass(frozen=True)\nclass PrefillFirst:\n    max_tokens: int\n\n"
    "    def schedule(self, state):\n        ...",
    example=({"budget": 4, "requests": [(0, 6, 3)]},),
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
            Together,
            "Decodes ride along with the prompts. That is another policy (Orca's, `mixed=True`): under "
            "prefilling first a decode waits until no prompt is left.",
        ),
        Wrong(
            OneByOne,
            "One prompt runs in each iteration, although the next would fit as well. Iterations are dear: "
            "each reads all the weights.",
        ),
        Wrong(
            LongOnesPassedOver,
            "A prompt that does not fit is passed over, and shorter ones behind it go first. Under a steady "
            "stream of short prompts the long one would never run.",
        ),
        Wrong(
            DecodesFirst,
            "Decoding goes first, and prompts wait until the batch has finished. That is request-level "
            "scheduling, the very thing this policy replaced.",
        ),
    ),
    hints=(
        "Is anybody waiting? That question splits the method into two halves.",
        "Go through `state.waiting` with a count of what is left of `max_tokens`, and stop at the first "
        "prompt that is longer than that, unless it is the first in the row.",
        "`if seq.pending > left and tokens: break`, and after the loop: no tokens planned means that nobody "
        "waits, so every running sequence gets one.",
    ),
    minutes=12,
    level="apply",
    size=served.size,
)
