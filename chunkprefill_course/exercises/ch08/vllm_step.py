"""Exercise: one step by vLLM's rules, for any budget and threshold."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import pairwise
from string import ascii_lowercase
from typing import Any

from chunkprefill.plots.style import Canvas
from chunkprefill.scheduling.core import Sequence
from chunkprefill.scheduling.state import State
from chunkprefill.scheduling.vllm import VllmV1
from chunkprefill_course.exercises.texts import prose
from chunkprefill_course.forms.answers import Plain, mapping, told
from chunkprefill_course.forms.calling import call
from chunkprefill_course.forms.exercise import Case, Exercise, Wrong
from chunkprefill_course.forms.feedback import counted
from chunkprefill_course.forms.running import Program
from chunkprefill_course.forms.variants import Variant


def solution(running, waiting, budget, threshold):
    """Who runs, in order; then who waits, in order; a cap on each, unless a request is alone."""
    if len(running) + len(waiting) <= 1:
        threshold = 0
    tokens = {}
    for name, pending in running + waiting:
        n = min(pending, threshold or pending, budget)
        if n > 0:
            tokens[name] = n
            budget -= n
    return tokens


ALONE = "len(running) + len(waiting) <= 1"
LINE = "for name, pending in running + waiting:"
SHARE = "n = min(pending, threshold or pending, budget)"
GRANT = "if n > 0:"
SPEND = "budget -= n"


def _with(*swaps: tuple[str, str]) -> Variant:
    return Variant(solution, *swaps)


def _state(case: Case) -> State:
    """The same moment, for the policy that is proved against vLLM's recorded decisions."""
    running = [
        Sequence(name, 2 if n == 1 else n + 1, 0.0, cached=2 if n == 1 else 1, generated=int(n == 1), order=i)
        for i, (name, n) in enumerate(case["running"])
    ]
    n_running = len(running)
    waiting = [Sequence(name, n, 0.0, order=n_running + i) for i, (name, n) in enumerate(case["waiting"])]
    return State(running=running, waiting=waiting)


def proved(case: Case) -> dict:
    """By the policy that is held against vLLM's recorded decisions."""
    policy = VllmV1(case["budget"], long_prefill_token_threshold=case["threshold"])
    return dict(policy.schedule(_state(case)).tokens)


def want(case: Case) -> dict:
    """By the rules themselves."""
    return solution(case["running"], case["waiting"], case["budget"], case["threshold"])


def run(program: Program, case: Case) -> Any:
    """Call it with lists of its own."""
    return mapping(call(program, case), "a dict of tokens by name")


def judge(case: Case, value: Plain) -> str:
    """Names, budget, what is pending, the cap; the rules themselves last."""
    pending = dict(case["running"]) | dict(case["waiting"])
    for name, n in value.items():
        if name not in pending:
            return f"{told(name, 20)} is in the plan, and no request of that name runs or waits"
        if isinstance(n, bool) or not isinstance(n, int | float) or n != int(n) or n < 1:
            return f"request {name} gets {told(n, 20)}; a request that is in the step gets at least 1 token"
        if n > pending[name]:
            only = "is" if pending[name] == 1 else "are"
            return f"request {name} gets {counted(n, 'token')}, and only {pending[name]} {only} pending"
    if (total := sum(value.values())) > case["budget"]:
        return f"{counted(total, 'token')} are granted, and the budget is {case['budget']}"
    right = want(case)
    for name in pending:
        if value.get(name, 0) != right.get(name, 0):
            got, wanted = (counted(side.get(name, 0), "token") for side in (value, right))
            return f"request {name} gets {got}, where {wanted} would be right"
    return ""


def _moments() -> Iterator[Case]:
    """Small moments: one to three requests, running or waiting, every budget and threshold that matters."""
    rows = [
        ([9], []),
        ([1], []),
        ([2], []),
        ([], [9]),
        ([], [1]),
        ([9, 1], []),
        ([1, 9], []),
        ([7, 9], []),
        ([1, 1], []),
        ([9], [5]),
        ([1], [5]),
        ([], [9, 2]),
        ([], [2, 9]),
        ([5], [1]),
        ([1, 9], [3]),
        ([9, 1], [3]),
        ([1], [9, 2]),
        ([1, 1, 1], []),
        ([1, 1, 1], [4]),
        ([], [4, 4, 4]),
        ([4], [4, 4]),
    ]
    for running, waiting in rows:
        for budget, threshold in ((2, 0), (4, 0), (4, 3), (8, 2), (8, 4), (30, 0), (30, 4), (1, 0)):
            yield _named(running, waiting, budget, threshold)


MOST = 100_000  # tokens: what the prompt allows


def _named(
    running: list[int],
    waiting: list[int],
    budget: int,
    threshold: int,
    letters: Iterable[str] = ascii_lowercase,
) -> Case:
    names = iter(letters)
    first, then = ([(next(names), n) for n in part] for part in (running, waiting))
    return _case(first, then, budget, threshold)


def cases(rng: random.Random) -> Iterator[Case]:
    """Small moments first, then drawn ones: decodes among half-done prompts, tight and ample budgets.

    Names are in no order that tells anything.
    """
    yield from _moments()
    yield _named([5, 5], [], 6, 0, "ba")
    yield _named([], [5, 5], 6, 0, "ba")
    yield _named([3], [5, 5], 6, 0, "cba")
    yield _named([1] * 10, [2] * 9, 60, 8)
    yield _named([2] * 10, [3] * 9, 40, 2)
    many = [f"r{i}" for i in rng.sample(range(2000), 256)]
    yield _named([1] * 236, [2] * 20, 275, 0, many)
    yield _named([1] * 9 + [20_000], [9000, 70_000, 70_000], 100_000, 66_000, many)
    yield _named([], [MOST, 5], MOST, MOST - 1, many)
    yield _named([MOST], [], MOST, 1, many)
    yield _named([1, MOST], [9], MOST, 0, many)
    for _ in range(60):
        running = [rng.choice((1, 1, 1, rng.randint(2, 30))) for _ in range(rng.randint(0, 4))]
        waiting = [rng.randint(1, 40) for _ in range(rng.randint(0 if running else 1, 3))]
        letters = rng.sample(ascii_lowercase, len(running) + len(waiting))
        yield _named(running, waiting, rng.randint(1, 32), rng.choice((0, 0, 2, 4, 8, 16)), letters)


MOST_DRAWN = 24  # requests


def _case(running: list, waiting: list, budget: int, threshold: int) -> Case:
    return {"running": running, "waiting": waiting, "budget": budget, "threshold": threshold}


def _counts(case: Case) -> tuple[list[int], list[int]]:
    return [n for _, n in case["running"]], [n for _, n in case["waiting"]]


def _capped(case: Case) -> bool:
    """Whether the threshold would bind someone."""
    return 0 < case["threshold"] < max(*_counts(case)[0], *_counts(case)[1], 0, 0)


def picture(case: Case, value: Plain) -> str:
    """All pending tokens as a bar, and how much of it the step runs."""
    every = [*case["running"], *case["waiting"]]
    if len(every) > MOST_DRAWN:
        return ""
    most, left, tall = max(n for _, n in every), 130.0, 40.0
    canvas = Canvas(34 + tall * len(every))
    unit = (canvas.width - left - 70) / most
    cap = f", threshold {case['threshold']}" if case["threshold"] else ""
    canvas.text(
        0, 20, f"budget {case['budget']}{cap}; {counted(sum(value.values()), 'token')} run", bold=True
    )
    said = []
    for k, (name, pending) in enumerate(every):
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
    """The call; of many requests the first."""
    lists = []
    for part in ("running", "waiting"):
        more = f", … {len(case[part])} in all]" if len(case[part]) > MOST_DRAWN else "]"
        lists.append(repr(case[part][:MOST_DRAWN])[:-1] + more)
    return f"`vllm_step({', '.join(lists)}, {case['budget']}, {case['threshold']})`"


vllm_step = Exercise(
    id="vllm-step",
    title="One step of vLLM",
    name="vllm_step",
    prompt=prose("vllm-step"),
    starter="def vllm_step(running, waiting, budget, threshold):\n    ...",
    example=(_case([("a", 1)], [("b", 5)], 8, 0),),
    cases=cases,
    conditions={
        "alone and running, capped": lambda c: _capped(c) and len(c["running"]) == 1 and not c["waiting"],
        "alone and waiting, capped": lambda c: _capped(c) and len(c["waiting"]) == 1 and not c["running"],
        "several run, none waits, capped": lambda c: (
            _capped(c) and len(c["running"]) > 1 and not c["waiting"]
        ),
        "one runs, one waits, capped": lambda c: _capped(c) and len(c["running"]) == len(c["waiting"]) == 1,
        "several wait, none runs, capped": lambda c: (
            _capped(c) and len(c["waiting"]) > 1 and not c["running"]
        ),
        "a prompt before a decode, too little for both": lambda c: any(
            one > 1 and two == 1 and one >= c["budget"] for one, two in pairwise(_counts(c)[0])
        ),
        "more decodes than budget": lambda c: _counts(c)[0].count(1) > c["budget"],
        "a prompt is cut by the budget": lambda c: (
            not c["threshold"] and max(_counts(c)[1], default=0) > c["budget"]
        ),
        "two prompts in a step, the first capped": lambda c: (
            _capped(c) and len(want(c)) > 1 and len(c["waiting"]) > 1
        ),
        "names out of order, too little for all": lambda c: any(
            sorted(c[part]) != c[part] and set(dict(c[part])) - set(want(c))
            for part in ("running", "waiting")
        ),
        "more than eight run and as many join": lambda c: (
            len(c["running"]) > 8 < len(c["waiting"]) and len(want(c)) > 16
        ),
        "as many as there may be, and all of them run": lambda c: (
            len(c["running"]) > 200 and len(want(c)) == len(c["running"]) + len(c["waiting"]) == 256
        ),
        "chunks of thousands, one of them capped": lambda c: (
            c["threshold"] > 2**16 and list(want(c).values()).count(c["threshold"]) == 1
        ),
        "a waiting prompt of one token": lambda c: 1 in _counts(c)[1],
        "all get everything": lambda c: want(c) == dict(c["running"]) | dict(c["waiting"]),
        "someone gets nothing": lambda c: len(want(c)) < len(c["running"]) + len(c["waiting"]),
    },
    run=run,
    want=want,
    judge=judge,
    picture=picture,
    show=show,
    solution=solution,
    wrong=(
        Wrong(
            _with((LINE, "for name, pending in sorted(running, key=lambda one: one[1] > 1) + waiting:")),
            "It moves requests that decode to the front. vLLM has no such rule: it goes through the "
            "running ones in the order in which they were admitted.",
        ),
        Wrong(
            _with((ALONE, "False")),
            "It holds a lone request to the threshold. That would help no other request, and vLLM lifts the cap.",
        ),
        Wrong(
            _with(
                (
                    SHARE,
                    "n = min(pending, (threshold if (name, pending) in waiting else 0) or pending, budget)",
                )
            ),
            "It caps requests when they come in, but not while they run. A long prompt would be held "
            "back in its first step alone, and take everything from then on.",
        ),
        Wrong(
            _with(
                (
                    SHARE,
                    "n = min(pending, threshold or pending)\n        if (name, pending) in waiting and n > budget:\n"
                    "            break\n        n = min(n, budget)",
                )
            ),
            "It admits a prompt only if it fits as a whole. Then nothing is cut: a prompt longer than "
            "the budget would never start.",
        ),
        Wrong(
            _with(
                ("tokens = {}", "tokens, half_done = {}, False"),
                (
                    SHARE,
                    "if half_done and (name, pending) in waiting:\n            break\n"
                    "        n = min(pending, threshold or pending, budget)\n"
                    "        half_done = half_done or n < pending",
                ),
            ),
            "It admits no request while a prompt is half done. If the threshold leaves some of the budget, the "
            "next one in the queue gets it.",
        ),
    ),
    slips=(
        Wrong(
            _with((ALONE, "not waiting")),
            "When no request waits, the threshold is lifted even if several run. Alone means that there "
            "is no other request at all, neither waiting nor running.",
        ),
        Wrong(
            _with((ALONE, "len(running) <= 1")),
            "When at most one request runs, the threshold is lifted even if others wait. Alone means "
            "that there is no other request at all.",
        ),
        Wrong(
            _with((SHARE, "n = min(pending, budget)")),
            "The threshold is forgotten: it caps what one request gets in a step.",
        ),
        Wrong(
            _with((SHARE, "n = min(pending, threshold, budget)")),
            "A threshold of 0 is treated as a cap of 0 tokens. It means that there is no cap.",
        ),
        Wrong(
            _with((GRANT, "if True:")),
            "Requests that get nothing are in the dict with 0 tokens. It names only those that run.",
        ),
        Wrong(_with((SPEND, "pass")), "What a request gets is not subtracted from the budget."),
        Wrong(
            _with((LINE, "for name, pending in waiting + running:")),
            "The queue is served before the running requests. Running requests come first.",
        ),
        Wrong(
            _with((LINE, "for name, pending in running or waiting:")),
            "While any request runs, none is admitted. The waiting ones get what the running ones leave.",
        ),
        Wrong(
            _with((LINE, "for name, pending in sorted(running + waiting, key=lambda one: one[1]):")),
            "The shortest are served first. vLLM keeps the order of admission, then of arrival.",
        ),
        Wrong(
            _with((LINE, "for name, pending in running + sorted(waiting, key=lambda one: one[1]):")),
            "The queue is sorted by length. vLLM keeps the order of arrival.",
        ),
    ),
    hints=(
        "There are no phases and no special cases for decodes: every catches up with what is pending.",
        "First the running ones in order, then the waiting ones in order, each as much as three limits "
        "allow: what is pending, the threshold, what is left of the budget.",
        "Set `threshold = 0` if `len(running) + len(waiting) <= 1`. Then one loop over `running + waiting` "
        "is enough.",
    ),
    minutes=8,
    level="apply",
    size=lambda case: sum(n for _, n in case["running"] + case["waiting"]) + case["budget"],
)
