"""Policies that a reader writes: run in the simulator, a second a step, and judged step by step."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from chunkprefill.exercises.exercise import Case
from chunkprefill.exercises.feedback import counted
from chunkprefill.exercises.notation import grid
from chunkprefill.exercises.running import Plain, Program
from chunkprefill.scheduling.core import Plan, Request
from chunkprefill.scheduling.state import State
from chunkprefill.simulation.simulate import simulate

PREAMBLE = "from dataclasses import dataclass\n\nimport chunkprefill as cp\n\n\n"


@dataclass(frozen=True)
class _Watched:
    """A policy that has written nothing yet is not attempted, rather than wrong."""

    policy: Any

    def schedule(self, state: State) -> Plan:
        plan = self.policy.schedule(state)
        if plan is None or plan is ...:
            raise NotImplementedError
        return plan


@dataclass(frozen=True)
class Before:
    """How things stood before a step: pending tokens by prompt, in order of arrival, and who could decode."""

    pending: dict[int, int]
    ready: tuple[int, ...]


def requests(case: Case) -> list[Request]:
    """Requests 1, 2, … of (arrival in s, prompt tokens, output tokens)."""
    return [Request(rid, *numbers) for rid, numbers in enumerate(case["requests"], 1)]


def serve_case(program: Program, case: Case) -> list[list[list[Any]]]:
    """Each step as rows of rid, start, length, emits. Raises what the policy or the contract raises."""
    policy = program(case["budget"])
    if policy is None or policy is ...:
        raise NotImplementedError
    trace = simulate(requests(case), _Watched(policy), cost=lambda batch: 1.0)
    return [sorted(map(list, step.batch)) for step in trace.steps]  # the order within a plan is no matter


def before(case: Case, steps: list[list[list[Any]]], k: int) -> Before:
    """How things stood before step k; steps follow one another without a pause."""
    pending = {rid: n for rid, (arrival, n, _) in enumerate(case["requests"], 1) if arrival <= k}
    said = dict.fromkeys(pending, 0)
    for rows in steps[:k]:
        for rid, start, length, emits in rows:
            n_prompt = case["requests"][rid - 1][1]
            pending[rid] = max(0, n_prompt - start - length)
            said[rid] += emits
    ready = tuple(r for r, n in said.items() if 0 < n < case["requests"][r - 1][2])
    return Before({rid: n for rid, n in pending.items() if n}, ready)


Rule = Callable[[Before, dict[int, int], int], str]  # what stood there, {rid: tokens} of the step, the budget


def judge_steps(case: Case, steps: Plain, right: list[list[list[Any]]], rule: Rule) -> str:
    """The first step that differs from the right one, and the rule that it breaks."""
    for k, (mine, theirs) in enumerate(zip(steps, right)):
        got, wanted = ({row[0]: row[2] for row in rows} for rows in (mine, theirs))
        if got != wanted:
            why = rule(before(case, right, k), got, case["budget"])
            return f"in iteration {k + 1}, {why or f'{said(got)} runs, where {said(wanted)} is right'}"
    return "" if len(steps) == len(right) else f"it takes {len(steps)} iterations, {len(right)} are enough"


def said(tokens: dict[int, int]) -> str:
    """`request 1: 4 tokens, request 2: 1 token`."""
    return ", ".join(f"request {rid}: {counted(n, 'token')}" for rid, n in tokens.items()) or "nothing"


def show(case: Case) -> str:
    """A case in words."""
    lines = (f"request {r}: {n} + {m} tokens at {t} s" for r, (t, n, m) in enumerate(case["requests"], 1))
    return f"budget {case['budget']}; {'; '.join(lines)}"


def tell(case: Case, steps: Plain) -> str:
    """Who gets how many tokens, iteration by iteration."""
    lines = (f"{k}: {said({row[0]: row[2] for row in rows})}" for k, rows in enumerate(steps, 1))
    return "in iteration " + "; ".join(lines)


def picture(case: Case, steps: Plain) -> str:
    """P and D, iteration by iteration; the numbers are tokens."""
    prompts = {rid: n for rid, (_, n, _) in enumerate(case["requests"], 1)}
    return grid(steps, prompts, title="Tokens, iteration by iteration", tokens=True,
                note="Blue prefills, orange decodes.")  # fmt: skip


def size(case: Case) -> float:
    """Small cases first: all the tokens, and the requests."""
    return sum(n + m for _, n, m in case["requests"]) + 2 * len(case["requests"])


def cases(rng: random.Random) -> Iterator[Case]:
    """Pairs of a small prompt and one that comes later, then larger workloads with no idle time in them."""
    for n_first in (2, 4, 6, 9):
        for n_second in (2, 5, 9):
            for arrival in (0, 1, 2)[: 3 if n_first > 4 else 2]:
                yield {"budget": 4, "requests": [(0, n_first, 3), (arrival, n_second, 2)]}
    for _ in range(30):
        n_requests = rng.randint(3, 6)
        budget, lines, now = rng.randint(n_requests, 12), [], 0  # never fewer tokens than decodes
        for _ in range(n_requests):
            lines.append((now, rng.randint(1, 3 * budget), rng.randint(1, 6)))
            now += rng.choice((0, 0, 1))
        yield {"budget": budget, "requests": lines}
