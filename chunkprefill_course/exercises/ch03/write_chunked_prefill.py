"""Exercise: write stall-free batching, decodes first and chunks in what is left of the budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import chunkprefill as cp
from chunkprefill_course.exercises.texts import prose
from chunkprefill_course.forms import served
from chunkprefill_course.forms.answers import Plain
from chunkprefill_course.forms.exercise import Case, Exercise, Wrong
from chunkprefill_course.forms.served import Before
from chunkprefill_course.forms.variants import Variant


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


LINE = "(*state.running, *state.waiting)"
DECODES = "tokens = {seq.rid: 1 for seq in state.running if seq.decoding}"
LEFT = "left = self.token_budget - len(tokens)"
MORE = "if not seq.decoding and left > 0:"
GRANT = "tokens[seq.rid] = min(seq.pending, left)"
SPEND = "left -= tokens[seq.rid]"


def _with(*swaps: tuple[str, str]) -> Variant:
    return Variant(Solution, *swaps)


def _when(met: Callable[[Before, dict[int, int], int], Any]) -> Callable[[Case], bool]:
    return served.somewhen(Solution, met)


def want(case: Case) -> list[Any]:
    """What the solution does."""
    return served.right(case, Solution)


def rule(was: Before, got: dict[int, int], budget: int) -> str:
    """The first rule that a step breaks."""
    total = sum(got.values())
    if total > budget:
        return served.overrun(total, budget)
    if left_out := [rid for rid in was.ready if rid not in got]:
        return f"request {left_out[0]} could decode and is left out"
    line = was.line
    short = [rid for rid in line if got.get(rid, 0) < was.pending[rid]]
    if total < budget and short:
        waits = f"request {short[0]} has {was.pending[short[0]]:,} to prefill"
        return f"{served.unused(budget - total, budget)}, and {waits}"
    later = [rid for rid in line[line.index(short[0]) + 1 :] if rid in got] if short else []
    if later:
        return (
            f"request {later[0]} prefills before request {short[0]}, {_first(was, short[0], later[0])}, has all "
            "it can use"
        )
    return ""


def _first(was: Before, first: int, then: int) -> str:
    """Why one prompt goes before another."""
    if first in was.half and then not in was.half:
        return "which is half done"
    return "which arrived first" if was.arrived_in_order((first, then)) else "which was admitted first"


def judge(case: Case, value: Plain) -> str:
    """Step by step."""
    return served.judge_steps(case, value, want(case), rule)


write_chunked_prefill = Exercise(
    id="write-chunked-prefill",
    title="Write stall-free batching",
    name="ChunkedPrefill",
    prompt=prose("write-chunked-prefill"),
    preamble=served.PREAMBLE,
    starter="@dataclass(frozen=True)\nclass ChunkedPrefill:\n    token_budget: int\n\n"
    "    def schedule(self, state):\n        ...",
    example=({"budget": 4, "requests": [(0, 10, 3)]},),
    cases=served.cases,
    conditions={
        "a chunk of more than 65,536 tokens beside decodes": _when(
            lambda was, got, _: was.ready and max(was.prompts(got).values(), default=0) > 2**16
        ),
        "a half-done prompt came after one that waits": _when(
            lambda was, got, _: any(
                rid not in was.half and rid not in got and was.order.index(rid) < was.order.index(half)
                for half in was.half
                for rid in was.pending
            )
        ),
        "two half-done prompts, and the later one was admitted first": _when(
            lambda was, _, __: not was.arrived_in_order(was.half)
        ),
        "decodes beside a chunk": _when(lambda was, got, budget: was.ready and len(got) > len(was.ready)),
        "a tail and a head in one iteration": _when(lambda was, got, _: len(was.prompts(got)) > 1),
        "as many prompts in one iteration as there may be": _when(served.is_crowded),
        "more than 250 prompts, one cut, one left out": _when(served.is_cut_among_many),
        "ten decodes, and ten prompts join": _when(served.is_crowded_beside_decodes),
        "a later number came first, and too little for both": _when(served.is_passed_over),
        "decodes take the whole budget": _when(
            lambda was, _, budget: was.pending and len(was.ready) == budget
        ),
        "one token left for prompts": _when(
            lambda was, _, budget: was.pending and len(was.ready) == budget - 1 > 0
        ),
        "decodes take more than half": _when(
            lambda was, _, budget: was.pending and budget > 2 * (budget - len(was.ready)) > 0
        ),
        "a prompt with one token pending waits": _when(
            lambda was, got, _: any(n == 1 and rid not in got for rid, n in was.pending.items())
        ),
        "a half-done prompt and one that waits": _when(
            lambda was, _, __: was.half and len(was.pending) > len(was.half)
        ),
        "three half-done prompts end, and one that waits begins": _when(
            lambda was, got, _: (
                len(was.half) > 2
                and all(got.get(rid) == was.pending[rid] for rid in was.half)
                and len(was.prompts(got)) > len(was.half)
            )
        ),
        "a short one waits behind a long one": _when(
            lambda was, got, _: any(
                rid not in got and n < max(was.pending.values()) for rid, n in was.pending.items()
            )
        ),
        "a prompt just fits": _when(
            lambda was, got, budget: (
                was.pending and was.pending == was.prompts(got) and sum(got.values()) == budget
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
            _with(
                (DECODES, "tokens = {}"),
                (LEFT, "left = self.token_budget"),
                (
                    "return cp.Plan",
                    """for seq in state.running:
            if seq.decoding and left > 0:
                tokens[seq.rid] = 1
                left -= 1
        return cp.Plan""",
                ),
            ),
            "The prompts are cut, and they still go first: a decode gets what they leave. "
            "Cutting alone protects no request; the order does.",
        ),
        Wrong(
            _with((LEFT, "left = self.token_budget")),
            "The chunks take the whole budget although the decodes have spent some of it. "
            "The budget counts all tokens of an iteration, whichever request they belong to.",
        ),
        Wrong(
            _with((SPEND, "break")),
            "After one chunk no other prompt gets a turn, even if budget is left. The tail of one prompt "
            "and the head of the next can share an iteration.",
        ),
        Wrong(
            _with((LINE, "(*state.waiting, *state.running)")),
            "Prompts that wait are served before the one that is half done. The half-done prompt is the "
            "oldest of all: it is in `state.running`, and comes first.",
        ),
    ),
    slips=(
        Wrong(
            _with(
                (DECODES, "tokens = {s.rid: 1 for s in (*state.running, *state.waiting) if s.pending == 1}")
            ),
            "Every sequence with one token pending is treated as a decode. A prompt can have one token "
            "left as well: `decoding` tells them apart.",
        ),
        Wrong(
            _with((LEFT, "left = self.token_budget // 2")),
            "Half the budget is reserved for prompts. They get everything that the decodes leave, "
            "whether that is more or less than half.",
        ),
        Wrong(
            _with(
                (
                    DECODES,
                    "decodes = [seq.rid for seq in state.running if seq.decoding]\n"
                    "        tokens = dict.fromkeys(decodes[: max(1, self.token_budget // 2)], 1)",
                )
            ),
            "Half the budget is reserved for prompts, and decodes wait. Every sequence that decodes gets "
            "its token.",
        ),
        Wrong(
            _with((LINE, "(state.running if any(not s.decoding for s in state.running) else state.waiting)")),
            "While one prompt is half done, no other gets anything, even if budget is left.",
        ),
        Wrong(
            _with((LINE, "state.waiting")),
            "A prompt that is half done has left the queue: it is in `state.running`, and gets nothing "
            "more here.",
        ),
        Wrong(
            _with((MORE, "if not seq.decoding and seq.pending <= left:")),
            "Only prompts that fit whole get in. Cutting is the point: a prompt gets as much as is left.",
        ),
        Wrong(
            _with((SPEND, "pass")),
            "What a prompt gets is not subtracted from the rest of the budget, so the next prompt gets "
            "it again.",
        ),
        Wrong(
            _with((LINE, "sorted((*state.running, *state.waiting), key=lambda seq: seq.pending)")),
            "The prompt with the least to do goes first. That is the next rung of the ladder: here "
            "prompts are served in order of arrival.",
        ),
        Wrong(
            _with((LINE, "sorted((*state.running, *state.waiting), key=lambda seq: seq.arrival)")),
            "The prompts are sorted by arrival, so one that waits passes one that is half done. Those that are "
            "half done come first, in the order of `state.running`.",
        ),
        Wrong(
            _with((LINE, "reversed((*state.running, *state.waiting))")),
            "The prompt that arrived last goes first. The rule is first come, first served.",
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
    makes="policy",
    rung="rung 2 of 4: write a scheduler",
    size=served.size,
)
