"""Exercise: write prefilling-prioritized scheduling, whole prompts first and decoding when none can go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
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


STOP = "if seq.pending > left and tokens:"
DECODE = "tokens = {seq.rid: 1 for seq in state.running}"
LEFT = "left = self.max_tokens"
QUEUE = "for seq in state.waiting:"


def _with(*swaps: tuple[str, str]) -> Variant:
    return Variant(Solution, *swaps)


def _when(met: Callable[[Before, dict[int, int], int], Any]) -> Callable[[Case], bool]:
    return served.somewhen(Solution, met)


def _next(was: Before, got: dict[int, int]) -> int:
    """Tokens of the first prompt that has to wait, 0 if there is none."""
    return next((n for rid, n in was.pending.items() if rid not in got), 0)


def _behind(was: Before, got: dict[int, int]) -> list[int]:
    """Tokens of the prompts behind that one."""
    return [n for rid, n in was.pending.items() if rid not in got][1:]


def want(case: Case) -> list[Any]:
    """What the solution does."""
    return served.right(case, Solution)


def rule(was: Before, got: dict[int, int], budget: int) -> str:
    """The first rule that a step breaks."""
    prompts = was.prompts(got)
    cut = [rid for rid, n in prompts.items() if n < was.pending[rid]]
    if cut:
        rid = cut[0]
        return (
            f"request {rid} gets {prompts[rid]:,} of its {counted(was.pending[rid], 'prompt token')}: whole prompts "
            "only"
        )
    if was.pending and not prompts:
        first = next(iter(was.pending))
        return f"the prompt of request {first} waits while others decode; prompts go first here"
    if prompts and len(prompts) < len(got):
        rid = next(rid for rid in got if rid not in prompts)
        return f"request {rid} decodes beside a prompt: under this policy decoding waits"
    if len(prompts) > 1 and sum(prompts.values()) > budget:
        return (
            f"prompts of {counted(sum(prompts.values()), 'token')} run together, and at most {budget:,} may"
        )
    line = list(was.pending)
    if set(prompts) != set(line[: len(prompts)]):
        skipped = next(rid for rid in line if rid not in prompts)
        later = next(rid for rid in line[line.index(skipped) :] if rid in prompts)
        return f"request {later} goes before request {skipped}, which came first"
    if prompts and len(prompts) < len(line):
        rid = line[len(prompts)]
        if sum(prompts.values()) + was.pending[rid] <= budget:
            both = sum(prompts.values())
            has = f"request {rid} has {counted(was.pending[rid], 'token')} and waits"
            return f"{has}, though {budget - both:,} would fit"
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
    prompt=prose("write-prefill-first"),
    preamble=served.PREAMBLE,
    starter="@dataclass(frozen=True)\nclass PrefillFirst:\n    max_tokens: int\n\n"
    "    def schedule(self, state):\n        ...",
    example=({"budget": 4, "requests": [(0, 6, 3)]},),
    cases=partial(served.cases, tight=True),
    conditions={
        "a prompt that is too long runs alone": _when(
            lambda was, got, budget: len(got) == 1 and sum(was.prompts(got).values()) > budget
        ),
        "others wait behind it": _when(
            lambda was, got, budget: sum(was.prompts(got).values()) > budget and len(was.pending) > 1
        ),
        "a prompt that is too long ends a row": _when(
            lambda was, got, budget: was.prompts(got) and _next(was, got) > budget >= sum(got.values())
        ),
        "a later one would fit": _when(
            lambda was, got, budget: (
                was.prompts(got) and any(n <= budget - sum(got.values()) for n in _behind(was, got))
            )
        ),
        "a row just fits": _when(
            lambda was, got, budget: len(was.prompts(got)) > 1 and sum(got.values()) == budget
        ),
        "one token is missing": _when(
            lambda was, got, budget: (
                was.prompts(got) and 0 < _next(was, got) == budget - sum(got.values()) + 1
            )
        ),
        "a row of more than 65,536 tokens": _when(
            lambda was, got, budget: (
                len(was.prompts(got)) > 1 and 2**16 < sum(was.prompts(got).values()) <= budget
            )
        ),
        "more than 250 iterations": lambda case: len(served.moments(case, Solution)) > 250,
        "old sequences decode beside a young one": lambda case: any(
            not was.pending
            and len(was.ready) > 1
            and was.now - 256 > served.row_of(case, was.ready[0])[0]
            and was.now - 9 < served.row_of(case, was.ready[-1])[0]
            for was, _, __ in served.moments(case, Solution)
        ),
        "as many prompts in one iteration as there may be": _when(served.is_crowded),
        "ten prompts beside running sequences": _when(served.is_crowded_beside_decodes),
        "a later number came first, and too little for both": _when(served.is_passed_over),
        "more decodes than max_tokens": _when(
            lambda was, _, budget: not was.pending and len(was.ready) > budget
        ),
        "more decodes than max_tokens + 1": _when(
            lambda was, _, budget: not was.pending and len(was.ready) > budget + 1
        ),
        "a prompt comes while others decode": _when(lambda was, _, __: was.pending and was.ready),
        "two full rows one after the other": lambda case: any(
            one[0].prompts(one[1])
            and two[0].prompts(two[1])
            and sum(one[1].values()) > case["budget"] // 2 < sum(two[1].values())
            for one, two in pairwise(served.moments(case, Solution))
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
            _with(
                ("return cp.Plan(tokens)", "return cp.Plan(tokens | {seq.rid: 1 for seq in state.running})")
            ),
            "Decodes ride along with the prompts. That is another policy (Orca's, `mixed=True`): under "
            "prefilling first a decode waits until no prompt is left.",
        ),
        Wrong(
            _with((STOP, "if tokens:")),
            "One prompt runs in each iteration, although the next would fit as well. Iterations are "
            "expensive: each reads all the weights.",
        ),
        Wrong(
            _with(
                (STOP, "if seq.pending > left and (tokens or seq is not state.waiting[0]):"),
                ("                break", "                continue"),
            ),
            "A prompt that does not fit is passed over, and shorter ones behind it go first. Under a steady "
            "stream of short prompts the long one would never run.",
        ),
        Wrong(
            _with((QUEUE, "for seq in () if state.running else state.waiting:")),
            "Decoding goes first, and prompts wait until the batch has finished. That is request-level "
            "scheduling, the very thing this policy replaced.",
        ),
    ),
    slips=(
        Wrong(
            _with((DECODE, "tokens = {seq.rid: 1 for seq in list(state.running)[: self.max_tokens]}")),
            "The decodes are capped at `max_tokens`. That limit applies to prompts: when no prompt "
            "waits, every running sequence gets its token.",
        ),
        Wrong(
            _with((STOP, "if seq.pending > left:")),
            "A prompt longer than `max_tokens` never fits, so it never runs. It runs alone.",
        ),
        Wrong(
            _with((STOP, "if seq.pending >= left and tokens:")),
            "A prompt that fits exactly is turned away. The whole remaining budget may be used.",
        ),
        Wrong(
            _with((STOP, "if left <= 0 and tokens:")),
            "A prompt is admitted as long as anything is left, even if it does not fit as a whole.",
        ),
        Wrong(
            _with(("tokens[seq.rid] = seq.pending", "tokens[seq.rid] = min(seq.pending, self.max_tokens)")),
            "The long prompt is cut. Under this policy prompts run whole; the long one runs alone.",
        ),
        Wrong(
            _with(("left -= seq.pending", "pass")),
            "What a prompt takes is not subtracted, so too many run together.",
        ),
        Wrong(
            _with((QUEUE, "for seq in list(state.waiting)[:3]:")),
            "At most three prompts run together. As many as fit is the rule, however many that is.",
        ),
        Wrong(
            _with((QUEUE, "for seq in sorted(state.waiting, key=lambda seq: seq.pending):")),
            "The shortest prompts go first. The queue is served in the order of arrival.",
        ),
        Wrong(
            _with((DECODE, "tokens = {seq.rid: 1 for seq in list(state.running)[:1]}")),
            "Only one sequence decodes in an iteration. When no prompt waits, every running sequence gets its "
            "token.",
        ),
    ),
    hints=(
        "Is any prompt waiting? That question splits the method into two halves.",
        "Go through `state.waiting` with a count of what is left of `max_tokens`, and stop at the first "
        "prompt that is longer than that, unless it is the first in the row.",
        "`if seq.pending > left and tokens: break`, and after the loop: no tokens planned means that no "
        "prompt waits, so every running sequence gets one.",
    ),
    minutes=10,
    level="apply",
    makes="policy",
    rung="rung 1 of 4: write a scheduler",
    size=served.size,
)
