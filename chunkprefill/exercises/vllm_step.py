"""Exercise: one step by vLLM's rules, for any budget and threshold."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from chunkprefill.analysis.style import Canvas
from chunkprefill.exercises.exercise import Case, Exercise, Wrong
from chunkprefill.exercises.feedback import counted
from chunkprefill.exercises.running import Plain, Program
from chunkprefill.scheduling.core import Sequence
from chunkprefill.scheduling.state import State
from chunkprefill.scheduling.vllm import VllmV1


def solution(running, waiting, budget, threshold):
    """Who runs, in order; then who waits, in order; a cap on each, unless somebody is alone."""
    if len(running) + len(waiting) <= 1:
        threshold = 0
    tokens = {}
    for name, pending in running + waiting:
        n = min(pending, threshold or pending, budget)
        if n > 0:
            tokens[name] = n
            budget -= n
    return tokens


def decodes_first(running, waiting, budget, threshold):
    """Sorts those who decode to the front."""
    if len(running) + len(waiting) <= 1:
        threshold = 0
    tokens = {}
    for name, pending in sorted(running, key=lambda one: one[1] > 1) + waiting:
        n = min(pending, threshold or pending, budget)
        if n > 0:
            tokens[name] = n
            budget -= n
    return tokens


def caps_the_lone_one(running, waiting, budget, threshold):
    """The cap holds even where nobody is kept waiting."""
    tokens = {}
    for name, pending in running + waiting:
        n = min(pending, threshold or pending, budget)
        if n > 0:
            tokens[name] = n
            budget -= n
    return tokens


def caps_newcomers_only(running, waiting, budget, threshold):
    """Forgets the cap for those who run already."""
    if len(running) + len(waiting) <= 1:
        threshold = 0
    tokens = {}
    for name, pending in running + waiting:
        cap = threshold if (name, pending) in waiting else 0
        n = min(pending, cap or pending, budget)
        if n > 0:
            tokens[name] = n
            budget -= n
    return tokens


def whole_or_not_at_all(running, waiting, budget, threshold):
    """Lets nobody in whose prompt does not fit whole."""
    if len(running) + len(waiting) <= 1:
        threshold = 0
    tokens = {}
    for name, pending in running + waiting:
        n = min(pending, threshold or pending)
        if (name, pending) in waiting and n > budget:
            break
        n = min(n, budget)
        if n > 0:
            tokens[name] = n
            budget -= n
    return tokens


def one_prompt_at_a_time(running, waiting, budget, threshold):
    """Lets nobody in while a prompt is half done."""
    if len(running) + len(waiting) <= 1:
        threshold = 0
    tokens, half_done = {}, False
    for name, pending in running + waiting:
        if half_done and (name, pending) in waiting:
            break
        n = min(pending, threshold or pending, budget)
        if n > 0:
            tokens[name] = n
            budget -= n
        half_done = half_done or n < pending
    return tokens


def _state(case: Case) -> State:
    """The same moment, for the policy that is proved against vLLM's recorded decisions."""
    running = [
        Sequence(name, 2 if n == 1 else n + 1, 0.0, cached=2 if n == 1 else 1, generated=int(n == 1), order=i)
        for i, (name, n) in enumerate(case["running"])
    ]
    n_running = len(running)
    waiting = [Sequence(name, n, 0.0, order=n_running + i) for i, (name, n) in enumerate(case["waiting"])]
    return State(running=running, waiting=waiting)


def want(case: Case) -> dict:
    """By the rules themselves."""
    policy = VllmV1(case["budget"], long_prefill_token_threshold=case["threshold"])
    return dict(policy.schedule(_state(case)).tokens)


def run(program: Program, case: Case) -> Any:
    """Call it with lists of its own."""
    return program(list(case["running"]), list(case["waiting"]), case["budget"], case["threshold"])


def judge(case: Case, value: Plain) -> str:
    """Names, budget, what is pending, the cap; the rules themselves last."""
    if not isinstance(value, dict):
        return f"it returned `{str(value)[:60]}`; a dict of tokens by name is wanted"
    pending = dict(case["running"]) | dict(case["waiting"])
    for name, n in value.items():
        if name not in pending:
            return f"`{str(name)[:20]}` is nobody who runs or waits"
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            return f"{name} gets `{str(n)[:20]}`; whoever is in the step gets at least 1 token"
        if n > pending[name]:
            return f"{name} gets {counted(n, 'token')}, and only {pending[name]} pending"
    if sum(value.values()) > case["budget"]:
        return f"{sum(value.values())} tokens are granted, and the budget is {case['budget']}"
    right = want(case)
    for name in pending:
        if value.get(name, 0) != right.get(name, 0):
            got, wanted = (counted(side.get(name, 0), "token") for side in (value, right))
            return f"{name} gets {got}, where {wanted} would be right"
    return ""


def cases(rng: random.Random) -> Iterator[Case]:
    """Small moments first, then drawn ones: decodes among half-done prompts, tight and ample budgets."""
    yield _case([("a", 9)], [], 6, 2)
    yield _case([], [("a", 9)], 8, 3)
    yield _case([("a", 9), ("b", 1)], [], 4, 0)
    yield _case([("a", 1), ("b", 9)], [("c", 3)], 8, 4)
    yield _case([("a", 1)], [("b", 9), ("c", 2)], 6, 0)
    yield _case([("a", 7)], [("b", 2)], 6, 3)
    for _ in range(60):
        names = iter("abcdefgh")
        running = [(next(names), rng.choice((1, 1, 1, rng.randint(2, 30)))) for _ in range(rng.randint(0, 4))]
        waiting = [(next(names), rng.randint(2, 40)) for _ in range(rng.randint(0 if running else 1, 3))]
        yield _case(running, waiting, rng.randint(2, 32), rng.choice((0, 0, 2, 4, 8, 16)))


def _case(running: list, waiting: list, budget: int, threshold: int) -> Case:
    return {"running": running, "waiting": waiting, "budget": budget, "threshold": threshold}


def picture(case: Case, value: Plain) -> str:
    """Everybody's pending tokens as a bar, and how much of it the step runs."""
    if not isinstance(value, dict):
        return ""
    everybody = [*case["running"], *case["waiting"]]
    most, left, tall = max(n for _, n in everybody), 130.0, 40.0
    canvas = Canvas(34 + tall * len(everybody))
    unit = (canvas.width - left - 70) / most
    cap = f", threshold {case['threshold']}" if case["threshold"] else ""
    canvas.text(0, 20, f"budget {case['budget']}{cap}; {sum(value.values())} tokens run", bold=True)
    said = []
    for k, (name, pending) in enumerate(everybody):
        y, n = 34 + k * tall, value.get(name, 0)
        kind = "runs" if k < len(case["running"]) else "waits"
        canvas.text(left - 10, y + 24, f"{name} {kind}", anchor="end")
        canvas.rect(left, y + 8, max(pending * unit, 2), 22, stroke="ink", dash="3 4", radius=2)
        if n:
            canvas.rect(left, y + 8, max(n * unit, 2), 22, "prefill" if n > 1 else "decode", radius=2)
        canvas.text(left + pending * unit + 8, y + 25, f"{n} of {pending}")
        said.append(f"{name} {kind} and gets {n} of {pending} pending")
    alt = f"Budget {case['budget']}{cap}: {'; '.join(said)}."
    image = canvas.picture(alt=alt, caption="One step.", badge="counted").image()
    return f'<div style="max-width:{canvas.width:.0f}px">{image}</div>'


def show(case: Case) -> str:
    """The call."""
    arguments = (case["running"], case["waiting"], case["budget"], case["threshold"])
    return f"`vllm_step({', '.join(map(repr, arguments))})`"


vllm_step = Exercise(
    id="vllm-step",
    title="One step of vLLM",
    name="vllm_step",
    prompt="Write `vllm_step(running, waiting, budget, threshold)`: the tokens of each request in the next "
    "step by vLLM's rules, as a dict. `running` and `waiting` are lists of `(name, pending)`, in the order "
    "of admission and of arrival; `pending` counts tokens that are known and not cached, 1 for whoever "
    "decodes. Memory never runs out. `threshold` is 0 where there is none, and does not hold for a request "
    "that is alone. Whoever gets nothing is not in the dict.",
    starter="def vllm_step(running, waiting, budget, threshold):\n    ...",
    example=(_case([("a", 1)], [("b", 5)], 8, 0),),
    cases=cases,
    run=run,
    want=want,
    judge=judge,
    picture=picture,
    show=show,
    solution=solution,
    wrong=(
        Wrong(
            decodes_first,
            "It moves those who decode to the front. vLLM has no such rule: it goes through the running ones "
            "in the order in which they were admitted.",
        ),
        Wrong(
            caps_the_lone_one,
            "It holds a lone request to the threshold. There is nobody whom that would help, and vLLM lifts "
            "the cap.",
        ),
        Wrong(
            caps_newcomers_only,
            "It caps those who come in and not those who run. A long prompt would be held back in its first "
            "step alone, and take everything from then on.",
        ),
        Wrong(
            whole_or_not_at_all,
            "It lets a prompt in only if it fits whole. Then nothing is cut: a prompt longer than the budget "
            "would never start.",
        ),
        Wrong(
            one_prompt_at_a_time,
            "It lets nobody in while a prompt is half done. If the threshold leaves some of the budget, the "
            "next one in the queue gets it.",
        ),
    ),
    hints=(
        "There are no phases and no special cases for decodes: everybody catches up with what is pending.",
        "First the running ones in order, then the waiting ones in order, each as much as three limits "
        "allow: what is pending, the threshold, what is left of the budget.",
        "Set `threshold = 0` if `len(running) + len(waiting) <= 1`. Then one loop over `running + waiting` "
        "is enough.",
    ),
    minutes=8,
    level="apply",
    size=lambda case: sum(n for _, n in case["running"] + case["waiting"]) + case["budget"],
)  # fmt: skip
