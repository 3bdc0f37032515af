"""Exercise: count a document's visits to the scheduler, and price them; held against a run of the loop."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import product
from math import isfinite
from typing import Any

from chunkprefill_course.exercises.texts import prose
from chunkprefill_course.forms.amount_bars import bars
from chunkprefill_course.forms.answers import Plain, apart, number
from chunkprefill_course.forms.exercise import Case, Exercise, Wrong
from chunkprefill_course.forms.feedback import counted
from chunkprefill_course.forms.running import Program
from chunkprefill_course.forms.variants import Variant

NAMES = ("n_prompt", "n_output", "chunk", "n_chats", "visit")


def solution(n_prompt, n_output, chunk, n_chats, visit):
    """The last chunk emits the first token; every step visits all who run in it."""
    n_steps = -(-n_prompt // chunk) + n_output - 1
    return n_steps * (n_chats + 1) * visit


STEPS = "-(-n_prompt // chunk) + n_output - 1"
TIME = "n_steps * (n_chats + 1) * visit"


def _with(*swaps: tuple[str, str]) -> Variant:
    return Variant(solution, *swaps)


MOST = 100_000  # of each argument: what the prompt allows


def case_of(*values: int) -> Case:
    """The arguments by name."""
    return dict(zip(NAMES, values))


def cases(rng: random.Random) -> Iterator[Case]:
    """Small ones, all of them, then as much of each as there may be, and twenty drawn."""
    for n_prompt, n_output, chunk in product((1, 2, 3, 4, 8), (1, 2, 3), (1, 3, 4)):
        yield from (case_of(n_prompt, n_output, chunk, n_chats, 10) for n_chats in (0, 1, 3))
    yield case_of(8, 2, 4, 1, 20)
    yield case_of(8193, 2, 2048, 1, 10)
    yield case_of(99_991, 700, 512, 300, 7)
    yield case_of(MOST, MOST, 1, 3, 5)
    yield case_of(MOST, 2, MOST, MOST, MOST)
    yield case_of(MOST - 1, 5, MOST, 2, 3)
    yield case_of(3, MOST, 2, MOST - 1, MOST)
    for _ in range(20):
        chunk = rng.choice((64, 100, 256, 512, 1000))
        yield case_of(
            rng.choice((rng.randint(2, 4000), chunk * rng.randint(1, 5))),
            rng.randint(1, 40),
            chunk,
            rng.randint(0, 8),
            rng.choice((5, 10, 20)),
        )


def want(case: Case) -> int:
    """By running the document: visits counted step by step."""
    left, said, visits = case["n_prompt"], 0, 0
    while said < case["n_output"]:
        visits += case["n_chats"] + 1
        left -= min(left, case["chunk"])
        said += not left
    return case["visit"] * visits


def judge(case: Case, value: Plain) -> str:
    """A number of µs: that of the run."""
    right = want(case)
    if abs(value - right) <= 1e-12 * right:
        return ""
    visits = f"{counted(right // case['visit'], 'visit')} of {case['visit']} µs"
    said, true = apart(value, right, digits=5)
    were = "was" if right == case["visit"] else "were"
    return f"it returned {said} µs; in the run there {were} {visits}, {true} µs in all"


def run(program: Program, case: Case) -> Any:
    """Call it."""
    return number(program(*case.values()), "a number of µs")


def picture(case: Case, value: Plain) -> str:
    """Both numbers, as bars to the same scale."""
    given, right = float(value), float(want(case))
    if not isfinite(given):
        raise ValueError(f"{given} has no bar")
    fill = "scheduling" if given == right else "trouble"
    rows = (("this program", given, fill), ("counted in the run", right, "scheduling"))
    return bars(rows, unit="µs", title="Time of the visits", badge="counted")


def show(case: Case) -> str:
    """The call, with its names."""
    return "`scheduling_time(" + ", ".join(f"{name}={value}" for name, value in case.items()) + ")`"


count_visits = Exercise(
    id="count-visits",
    title="Count the visits, and price them",
    name="scheduling_time",
    prompt=prose("count-visits"),
    starter="def scheduling_time(n_prompt, n_output, chunk, n_chats, visit):\n    ...",
    example=(case_of(1, 1, 1, 0, 20),),
    cases=cases,
    conditions={
        "chunks fit exactly": lambda case: (
            case["n_prompt"] % case["chunk"] == 0 and case["n_prompt"] > case["chunk"] > 1
        ),
        "a shorter chunk at the end": lambda case: (
            case["n_prompt"] % case["chunk"] > 0 and case["n_prompt"] > case["chunk"]
        ),
        "the prompt is one chunk": lambda case: case["n_prompt"] == case["chunk"] > 1,
        "the prompt is less than a chunk": lambda case: case["n_prompt"] < case["chunk"],
        "one output token": lambda case: case["n_output"] == 1,
        "several output tokens": lambda case: case["n_output"] > 2,
        "as much of each as there may be": lambda case: (
            MOST in (case["n_prompt"], case["n_output"]) and case["n_chats"] >= MOST - 1
        ),
        "as many steps as there may be": lambda case: case["n_prompt"] == case["n_output"] == MOST,
        "no chats": lambda case: case["n_chats"] == 0,
        "several chats": lambda case: case["n_chats"] > 2,
        "another price": lambda case: case["visit"] == 20,
        "one token more than large chunks": lambda case: (
            case["n_prompt"] % case["chunk"] == 1 and case["chunk"] > 2000
        ),
        "large numbers": lambda case: (
            case["n_prompt"] > 2**16 and min(case["n_output"], case["n_chats"]) > 256
        ),
    },
    run=run,
    want=want,
    judge=judge,
    picture=picture,
    show=show,
    solution=solution,
    wrong=(
        Wrong(
            _with((STEPS, "max(n_prompt // chunk, 1) + n_output - 1")),
            "The chunk that is left over at the end is forgotten. It is shorter, but it is still a visit.",
        ),
        Wrong(
            _with((STEPS, "-(-n_prompt // chunk)")),
            "Only the chunks are counted. Every token that is decoded afterwards is a visit too, and "
            "usually there are more of those.",
        ),
        Wrong(
            _with((TIME, "n_steps * visit")),
            "Only the document is counted. The scheduler handles every request in a step, so more steps "
            "mean more visits to the chats too.",
        ),
        Wrong(
            _with((TIME, "(n_prompt + n_output - 1 + n_chats * n_steps) * visit")),
            "Each prompt token is counted as a visit. The scheduler handles a chunk as a whole; its "
            "number of tokens makes no difference.",
        ),
        Wrong(
            _with(
                (STEPS, "-(-n_prompt // chunk) + n_output if n_prompt > chunk else n_output"),
            ),
            "The first token gets a step of its own. The last chunk emits it: after that, one token "
            "fewer is left to decode.",
        ),
    ),
    slips=(
        Wrong(
            _with((TIME, "n_steps * n_chats * visit")),
            "Only the chats are counted. The document takes part in each of these steps as well.",
        ),
        Wrong(
            _with((TIME, "n_steps * (n_chats + 1) * visit / 1000")),
            "The answer is in ms. A visit is given in µs, and so is the answer.",
        ),
        Wrong(
            _with((TIME, "n_steps * (n_chats + 1)")),
            "This is the number of visits. Each of them takes `visit` µs.",
        ),
        Wrong(
            _with((STEPS, "-(-n_prompt // chunk) + n_output")),
            "There is one step too many: the last chunk already makes the first of the `n_output` tokens.",
        ),
        Wrong(
            _with((STEPS, "n_prompt / chunk + n_output - 1")),
            "The chunks are not rounded up. The shorter one at the end takes a step as well.",
        ),
        Wrong(
            _with((STEPS, "n_prompt // chunk + 1 + n_output - 1")),
            "When the chunks fit exactly, one step too many is counted. Rounding up adds nothing there.",
        ),
        Wrong(
            _with((STEPS, "n_prompt // chunk + n_output - 1")),
            "The chunks are rounded down. The shorter one at the end takes a step as well.",
        ),
    ),
    hints=(
        "First the steps: in how many does the document take part? Then the visits in each of them.",
        "The last chunk already produces a token. How many steps are left for the others?",
        "Steps: ⌈n_prompt / chunk⌉ + n_output − 1. In Python, rounding up is `-(-a // b)`.",
    ),
    minutes=6,
    level="apply",
    size=lambda case: case["n_prompt"] + case["n_output"] + case["n_chats"],
)
