"""Exercise: count a document's visits to the scheduler, and price them; held against a run of the loop."""

from __future__ import annotations

import random
from collections.abc import Iterator
from math import isfinite
from typing import Any

from chunkprefill.analysis.style import Canvas
from chunkprefill.exercises.exercise import Case, Exercise, Wrong
from chunkprefill.exercises.running import Plain, Program
from chunkprefill.scheduling.core import Request
from chunkprefill.scheduling.policies import ChunkedPrefill
from chunkprefill.simulation.simulate import simulate

NAMES = ("n_prompt", "n_output", "chunk", "n_chats", "visit")


def solution(n_prompt, n_output, chunk, n_chats, visit):
    """The last chunk emits the first token; every step visits all who run in it."""
    n_steps = -(-n_prompt // chunk) + n_output - 1
    return n_steps * (n_chats + 1) * visit


def rounds_down(n_prompt, n_output, chunk, n_chats, visit):
    """Leaves out the shorter chunk at the end."""
    n_steps = max(n_prompt // chunk, 1) + n_output - 1
    return n_steps * (n_chats + 1) * visit


def chunks_only(n_prompt, n_output, chunk, n_chats, visit):
    """Forgets that decoding visits the scheduler too."""
    return -(-n_prompt // chunk) * (n_chats + 1) * visit


def document_only(n_prompt, n_output, chunk, n_chats, visit):
    """Forgets the chats in the same steps."""
    return (-(-n_prompt // chunk) + n_output - 1) * visit


def token_visits(n_prompt, n_output, chunk, n_chats, visit):
    """A visit a token."""
    return (n_prompt + (n_output - 1) + n_chats * (-(-n_prompt // chunk) + n_output - 1)) * visit


def first_token_twice(n_prompt, n_output, chunk, n_chats, visit):
    """Lets a step of its own make the first token, where there are several chunks."""
    n_chunks = -(-n_prompt // chunk)
    n_steps = n_chunks + n_output if n_chunks > 1 else n_output
    return n_steps * (n_chats + 1) * visit


def case_of(*values: int) -> Case:
    """The arguments by name."""
    return dict(zip(NAMES, values))


def cases(rng: random.Random) -> Iterator[Case]:
    """Some that differ in one thing, then twenty drawn."""
    for changed in ((5, 1, 4, 0, 10), (4, 3, 4, 0, 10), (4, 2, 4, 3, 10), (8, 2, 4, 1, 20)):
        yield case_of(*changed)
    for _ in range(20):
        yield case_of(rng.randint(2, 4000), rng.randint(1, 40), rng.choice((64, 100, 256, 512, 1000)),
                      rng.randint(0, 8), rng.choice((5, 10, 20)))  # fmt: skip


def want(case: Case) -> int:
    """By serving the document: visits counted in the batches of the run."""
    n_chats, budget = case["n_chats"], case["chunk"] + case["n_chats"]
    steps = case["n_prompt"] // case["chunk"] + case["n_output"] + 4
    requests = [Request(f"chat {i}", 0.0, 1, steps + n_chats) for i in range(n_chats)]
    requests.append(Request("document", 0.5 if n_chats else 0.0, case["n_prompt"], case["n_output"]))
    # With a second a step, and the chats' one-token prompts done in the first, the document joins the second.
    trace = simulate(requests, ChunkedPrefill(max(budget, n_chats)), lambda batch: 1.0)
    return case["visit"] * sum(len(step.batch) for step in trace.steps if "document" in step.batch.rid)


def judge(case: Case, value: Plain) -> str:
    """A number of µs: that of the run."""
    right = want(case)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return f"it returned `{str(value)[:60]}`; a number of µs is wanted"
    visits = f"{right // case['visit']:,} visits of {case['visit']} µs"
    return "" if abs(value - right) < 1e-6 * right else (
        f"it returned {value:,.0f} µs; in the run there were {visits}, {right:,} µs in all"
    )  # fmt: skip


def run(program: Program, case: Case) -> Any:
    """Call it."""
    return program(*case.values())


def picture(case: Case, value: Plain) -> str:
    """Both numbers, as bars to the same scale."""
    given, right = float(value), float(want(case))
    if not isfinite(given):
        raise ValueError(f"{given} has no bar")
    longest, canvas = max(given, right, 1.0), Canvas(112)
    for k, (name, amount) in enumerate((("this program", given), ("counted in the run", right))):
        canvas.text(0, 20 + 56 * k, name, bold=True)
        canvas.text(canvas.width, 20 + 56 * k, f"{amount:,.0f} µs", anchor="end")
        fill = "scheduling" if amount == right else "trouble"
        canvas.rect(0, 28 + 56 * k, max(canvas.width * max(amount, 0) / longest, 2), 18, fill, radius=2)
    alt = f"This program says {given:,.0f} µs, the run took {right:,.0f} µs of scheduling."
    image = canvas.picture(alt=alt, caption="To scale.", badge="counted").image()
    return f'<div style="max-width:{canvas.width:.0f}px">{image}</div>'


def show(case: Case) -> str:
    """The call, with its names."""
    return "`scheduling_time(" + ", ".join(f"{name}={value}" for name, value in case.items()) + ")`"


count_visits = Exercise(
    id="count-visits",
    title="Count the visits, and price them",
    name="scheduling_time",
    prompt="In every step the scheduler visits each request that takes part, once, and a visit takes `visit` "
    "µs. `n_chats` chats decode all the while. A document of `n_prompt` tokens is prefilled beside them in "
    "chunks of `chunk` tokens, the last one perhaps shorter, and then writes until it has `n_output` tokens. "
    "Write `scheduling_time(n_prompt, n_output, chunk, n_chats, visit)`: the µs of all visits, the chats' "
    "included, in the steps in which the document takes part.",
    starter="def scheduling_time(n_prompt, n_output, chunk, n_chats, visit):\n    ...",
    example=(case_of(1, 1, 1, 0, 20),),
    cases=cases,
    run=run,
    want=want,
    judge=judge,
    picture=picture,
    show=show,
    solution=solution,
    wrong=(
        Wrong(
            rounds_down,
            "The chunk that is left over at the end is forgotten. It is shorter, and it is a visit all the "
            "same.",
        ),
        Wrong(
            chunks_only,
            "Only the chunks are counted. Every token that is decoded afterwards is a visit too, and mostly "
            "there are more of these.",
        ),
        Wrong(
            document_only,
            "Only the document is visited. The scheduler looks at everybody who runs in a step, and more "
            "steps mean more visits to the chats as well.",
        ),
        Wrong(
            token_visits,
            "A prompt token is taken for a visit. The scheduler names a chunk and its length; how many "
            "tokens are in it makes no difference to it.",
        ),
        Wrong(
            first_token_twice,
            "The first token gets a step of its own. The last chunk emits it: when that has run, one token "
            "less is to be decoded.",
        ),
    ),
    hints=(
        "First the steps: in how many does the document take part? Then the visits in each of them.",
        "The last chunk already hands out a token. How many steps are left for the others?",
        "Steps: ⌈n_prompt / chunk⌉ + n_output − 1. In Python, rounding up is `-(-a // b)`.",
    ),
    minutes=6,
    level="apply",
    size=lambda case: case["n_prompt"] + case["n_output"] + case["n_chats"],
)  # fmt: skip
