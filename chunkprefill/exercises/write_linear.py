"""Exercise: a decision that is quadratic in the requests, to be made linear; the comparisons are counted."""

from __future__ import annotations

import random
from collections.abc import Iterator
from html import escape
from typing import Any

from chunkprefill.analysis.style import Canvas
from chunkprefill.exercises.exercise import Case, Exercise, Wrong
from chunkprefill.exercises.running import Plain, Program

MOST = 4  # comparisons of names that a request may take


class Meter:
    """Counts how often two names are compared."""

    def __init__(self) -> None:
        self.n = 0


class Name:
    """A request's name. Comparing it with another is what a scheduler's search is made of, and is counted."""

    __slots__ = ("_meter", "_number")

    def __init__(self, number: int, meter: Meter) -> None:
        self._number, self._meter = number, meter

    def __eq__(self, other: object) -> bool:
        self._meter.n += 1
        return isinstance(other, Name) and self._number == other._number

    def __lt__(self, other: Name) -> bool:
        self._meter.n += 1
        return self._number < other._number

    def __hash__(self) -> int:
        return self._number

    def __repr__(self) -> str:
        return f"r{self._number}"


def solution(requests, decoding, pending, budget):
    """What is in the plan already decodes: a dict is asked, no list searched."""
    plan = dict.fromkeys(decoding, 1)
    left = budget - len(plan)
    for name in requests:
        if left == 0:
            break
        if name not in plan:
            plan[name] = min(pending[name], left)
            left -= plan[name]
    return plan


def slow(requests, decoding, pending, budget):
    """The program of the exercise: it searches a list for every request."""
    plan = {}
    left = budget
    for name in requests:
        if name in decoding:
            plan[name] = 1
            left -= 1
    for name in requests:
        if name not in decoding and left > 0:
            plan[name] = min(pending[name], left)
            left -= plan[name]
    return plan


def counts(requests, decoding, pending, budget):
    """Searches the list to its end."""
    plan = dict.fromkeys(decoding, 1)
    left = budget - len(plan)
    for name in requests:
        if decoding.count(name) == 0 and left > 0:
            plan[name] = min(pending[name], left)
            left -= plan[name]
    return plan


def forgets_decodes(requests, decoding, pending, budget):
    """Lets the chunks have the whole budget."""
    plan = dict.fromkeys(decoding, 1)
    left = budget
    for name in requests:
        if name not in plan and left > 0:
            plan[name] = min(pending[name], left)
            left -= plan[name]
    return plan


def shortest(requests, decoding, pending, budget):
    """Sorts, to be done sooner."""
    plan = dict.fromkeys(decoding, 1)
    left = budget - len(plan)
    for name in sorted(requests, key=pending.get):
        if name not in plan and left > 0:
            plan[name] = min(pending[name], left)
            left -= plan[name]
    return plan


def zero_chunks(requests, decoding, pending, budget):
    """Visits everybody to the end, and plans nothing for those without room."""
    plan = dict.fromkeys(decoding, 1)
    left = budget - len(plan)
    for name in requests:
        if name not in plan:
            plan[name] = min(pending[name], left)
            left -= plan[name]
    return plan


def cases(rng: random.Random) -> Iterator[Case]:
    """A few requests, for the plan; many of them, for the looks."""
    for n in (*(rng.randint(2, 7) for _ in range(25)), 16, 20, 24, 32, 48, 64):
        n_decodes = rng.randint(n // 2, n - 1)
        decoding = sorted(rng.sample(range(n), n_decodes))
        pending = [1 if i in decoding else rng.randint(2, 40) for i in range(n)]
        budget = n_decodes + rng.randint(1, 20 * (n - n_decodes))
        yield {"n": n, "decoding": decoding, "pending": pending, "budget": budget}


def names(plan: dict[int, int]) -> str:
    """`r1: 1, r3: 12`, the first six of them."""
    said = [f"r{i}: {tokens}" for i, tokens in plan.items()]
    return ", ".join(said[:6]) + (", …" if len(said) > 6 else "")


def right(case: Case) -> dict[int, int]:
    """Tokens by request: 1 for each that decodes, then what is left, in the order of arrival."""
    plan = dict.fromkeys(case["decoding"], 1)
    left = case["budget"] - len(plan)
    for i, pending in enumerate(case["pending"]):
        if i not in case["decoding"] and left:
            plan[i] = min(pending, left)
            left -= plan[i]
    return plan


def want(case: Case) -> dict[str, Any]:
    """The plan, and as many looks as are allowed."""
    return {"returned": [[i, tokens] for i, tokens in sorted(right(case).items())], "looks": case["n"]}


def run(program: Program, case: Case) -> Any:
    """Call it on names that count their comparisons."""
    meter = Meter()
    every = [Name(i, meter) for i in range(case["n"])]
    copies = [
        Name(i, meter) for i in range(case["n"])
    ]  # equal, and not the same: as names from a message are
    decoding, requests = [copies[i] for i in case["decoding"]], list(every)
    pending = {every[i]: tokens for i, tokens in enumerate(case["pending"])}
    meter.n = 0
    plan = program(requests, decoding, pending, case["budget"])
    looks = meter.n
    if type(plan) is not dict:
        return {"returned": plan, "looks": looks}
    rows = [[key._number if isinstance(key, Name) else str(key), tokens] for key, tokens in plan.items()]
    return {"returned": sorted(rows, key=str), "looks": looks}


def judge(case: Case, value: Plain) -> str:
    """First the plan, then how often names were compared to find it."""
    plan = dict(value["returned"])
    wanted, n = right(case), case["n"]
    if zero := [i for i, tokens in plan.items() if tokens == 0]:
        return f"r{zero[0]} is in the plan with 0 tokens; who gets none is not in it"
    if strange := [name for name in plan if name not in range(n)]:
        return f"`{str(strange[0])[:40]}` is in the plan and is none of the requests"
    total = sum(plan.values())
    if total > case["budget"]:
        return f"it plans {total} tokens, the budget is {case['budget']}"
    if plan != wanted:
        differ = next(i for i in range(n) if plan.get(i) != wanted.get(i))
        return f"r{differ} gets {plan.get(differ, 0)} tokens, where {wanted.get(differ, 0)} are right"
    looks = value["looks"]
    if looks > MOST * n:
        return f"it compared names {looks:,} times for {n} requests; {MOST} for each, {MOST * n}, are plenty"
    return ""


def picture(case: Case, value: Plain) -> str:
    """The plan's tokens against the budget, and the comparisons that it took."""
    plan = dict(value["returned"])
    total, looks, allowed = sum(plan.values()), int(value["looks"]), MOST * case["n"]
    canvas = Canvas(168)
    canvas.text(0, 20, f"plan: {names(plan)}")
    bars = (
        ("tokens planned", total, case["budget"], "budget", "prefill"),
        ("names compared", looks, allowed, "allowed", "scheduling"),
    )
    for k, (what, amount, most, limit, fill) in enumerate(bars):
        y = 52 + 60 * k
        canvas.text(0, y, f"{what}: {amount:,}", bold=True)
        canvas.text(canvas.width, y, f"{limit} {most:,}", anchor="end")
        longest = max(amount, most, 1)
        canvas.rect(0, y + 8, canvas.width * amount / longest, 18, "trouble" if amount > most else fill)
        canvas.line(canvas.width * most / longest, y + 4, canvas.width * most / longest, y + 30)
    said = f"Plan: {names(plan)}. {total} tokens, budget {case['budget']}."
    alt = f"{said} {looks} comparisons, {allowed} allowed."
    svg = canvas.svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1)
    return f'<div style="max-width:{canvas.width:.0f}px">{svg}</div>'


def show(case: Case) -> str:
    """The requests in words; a few of them one by one."""
    n, chosen = case["n"], ", ".join(f"r{i}" for i in case["decoding"])
    who = f"{chosen} decode" if n < 8 else f"{len(case['decoding'])} of them decode"
    return f"{n} requests, {who}; pending {_few(case['pending'])}; budget {case['budget']}"


def _few(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:8])) + (", …" if len(numbers) > 8 else "")


SLOW = """def plan_step(requests, decoding, pending, budget):
    plan = {}
    left = budget
    for name in requests:
        if name in decoding:
            plan[name] = 1
            left -= 1
    for name in requests:
        if name not in decoding and left > 0:
            plan[name] = min(pending[name], left)
            left -= plan[name]
    return plan"""

write_linear = Exercise(
    id="write-linear",
    title="Make the decision linear",
    name="plan_step",
    prompt="This function decides a step: one token for each request that decodes, then chunks in what is "
    "left of the budget, in the order of `requests`. `requests` and `decoding` are lists of names, `pending` "
    "maps a name to its tokens to come. Its plans are right. But with twice the requests it compares four "
    "times as many names. Rewrite it: the same plan, with no more than four comparisons of names for each "
    "request. (The names count how often they are compared.)",
    starter="def plan_step(requests, decoding, pending, budget):\n    ...",
    about=SLOW,
    example=({"n": 2, "decoding": [0], "pending": [1, 6], "budget": 100},),
    cases=cases,
    run=run,
    want=want,
    judge=judge,
    picture=picture,
    show=show,
    tell=lambda case, value: f"the plan {names(dict(value['returned']))}",
    size=lambda case: case["n"],
    solution=solution,
    wrong=(
        Wrong(
            slow,
            "`in` on a list walks it from the front. It is done for every request, so the comparisons grow "
            "with their square.",
        ),
        Wrong(
            counts,
            "`count` walks the whole list, each time. It looks like one call and is as many comparisons as "
            "there are decodes.",
        ),
        Wrong(
            forgets_decodes,
            "The chunks get the whole budget. The decodes have used some of it: it is a limit on all tokens "
            "of the step.",
        ),
        Wrong(
            shortest,
            "It serves the shortest first. That may be a good idea, and it is another policy: the same plan "
            "was asked for.",
        ),
        Wrong(
            zero_chunks,
            "Requests for whom nothing is left come into the plan with 0 tokens. A plan names those who run.",
        ),
    ),
    hints=(
        "Where is a list searched? What would answer the same question without searching?",
        "A dict or a set finds a name by its hash: one comparison, however many there are.",
        "Begin with `plan = dict.fromkeys(decoding, 1)`; then `name not in plan` says who does not decode.",
    ),
    minutes=8,
    level="apply",
)  # fmt: skip
