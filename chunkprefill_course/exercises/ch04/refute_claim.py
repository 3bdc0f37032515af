"""Exercise: a claim about a server, refuted by a trace that the reader writes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from typing import Any

import chunkprefill as cp
from chunkprefill_course.exercises.texts import prose
from chunkprefill_course.forms import served
from chunkprefill_course.forms.answers import Plain, Unusable, figure
from chunkprefill_course.forms.exercise import Case, Exercise, Wrong
from chunkprefill_course.forms.feedback import counted
from chunkprefill_course.forms.running import Program
from chunkprefill_course.forms.variants import Variant


def solution(budget, patience):
    """A document that takes longer than anyone's patience, and a short prompt behind it."""
    return [(0, budget * (patience + 1), 1), (0, 1, 1)]


def _rows(rows: str) -> Variant:
    return Variant(solution, ("[(0, budget * (patience + 1), 1), (0, 1, 1)]", rows))


def cases(rng: random.Random) -> Iterator[Case]:
    """Small servers, then drawn ones."""
    yield from (
        {"budget": budget, "patience": patience} for budget in (1, 2, 4, 8) for patience in (1, 2, 3, 7)
    )
    yield from (
        {"budget": 2, "patience": 1000},
        {"budget": 64, "patience": 3},
        {"budget": 100_000, "patience": 2},
    )
    for _ in range(10):
        yield {"budget": rng.randint(3, 64), "patience": rng.randint(1, 20)}


def most_tokens(case: Case) -> int:
    """Prompt tokens that the trace may have in all."""
    return 2 * case["budget"] * (case["patience"] + 2)


def run(program: Program, case: Case) -> Any:
    """Serve what the program returns."""
    value = program(case["budget"], case["patience"])
    if value is None or value is ...:
        return None
    requests = served.arrivals(value, most=20)
    if not requests:
        raise Unusable("it returned no requests at all: nothing waits, and nothing is refuted")
    n = sum(request.n_prompt for request in requests)
    if n > most_tokens(case):
        raise Unusable(
            f"its prompts have {counted(n, 'token')} together, and at most {most_tokens(case)} are allowed"
        )
    if max(request.n_output for request in requests) > 1000:
        raise Unusable("a request asks for more than 1,000 output tokens")
    requests.sort(key=lambda request: request.arrival)
    waits = served.first_tokens(requests, cp.ChunkedPrefill(case["budget"]))
    return [[r.rid, r.arrival, r.n_prompt, waits[r.rid]] for r in requests]


@cache
def _right(budget: int, patience: int) -> list[Any]:
    return run(solution, {"budget": budget, "patience": patience})


def want(case: Case) -> list[Any]:
    """One trace that refutes; any other does as well."""
    return _right(case["budget"], case["patience"])


def judge(case: Case, value: Plain) -> str:
    """Is there a short prompt that waits for too long?"""
    short = [row for row in value if row[2] <= case["budget"]]
    if not short:
        return f"no prompt has at most {counted(case['budget'], 'token')}, so the claim says nothing about any of them"
    longest = max(short, key=lambda row: row[3])
    if longest[3] > case["patience"]:
        return ""
    return (
        f"of the prompts of at most {counted(case['budget'], 'token')} none waits for longer than "
        f"{figure(longest[3])} s, and the claim allows {case['patience']} s: it stands"
    )


def picture(case: Case, value: Plain) -> str:
    """Who waits how long."""
    requests = [cp.Request(rid, arrival, n, 1) for rid, arrival, n, _ in value]
    short = [row for row in value if row[2] <= case["budget"]]
    marked = max(short, key=lambda row: row[3])[0] if short else None
    return served.lives_picture(
        requests, {row[0]: row[3] for row in value}, marked=marked, title="Waits for the first token"
    )


refute_claim = Exercise(
    id="refute-claim",
    title="Refute it with a trace",
    name="refute",
    prompt=prose("refute-claim"),
    starter="def refute(budget, patience):\n    ...",
    example=({"budget": 4, "patience": 1},),
    cases=cases,
    conditions={
        "a budget of one": lambda case: case["budget"] == 1,
        "patience of one": lambda case: case["patience"] == 1,
        "more patience than a queue of 20 prompts takes": lambda case: case["patience"] > 500,
        "a budget that 20 decodes do not fill": lambda case: case["budget"] > 32,
        "a budget that 16 bits do not count": lambda case: case["budget"] > 2**16,
        "a large budget and patience": lambda case: case["budget"] > 3 and case["patience"] > 2,
    },
    run=run,
    want=want,
    judge=judge,
    picture=picture,
    show=lambda case: f"`refute({case['budget']}, {case['patience']})`",
    tell=lambda case, value: (
        f"requests of which one short prompt waits for {figure(max(row[3] for row in value))} s"
    ),
    size=lambda case: case["budget"] + 10 * case["patience"],
    solution=solution,
    wrong=(
        Wrong(
            _rows("[(0, 2 * budget, 1), (0, 1, 1)]"),
            "The document is done too soon: it takes two iterations, whatever the patience.",
        ),
        Wrong(
            _rows("[(0, budget + patience * 4, 1), (0, 1, 1)]"),
            "The document grows with the patience but not with the budget. A larger budget finishes it "
            "sooner.",
        ),
        Wrong(
            _rows("[(0, 8 * patience, 1), (0, 1, 1)]"),
            "The document's length ignores the budget. How many iterations should it take?",
        ),
    ),
    slips=(
        Wrong(
            _rows("[(0, 1, 1), (0, budget * (patience + 1), 1)]"),
            "The short prompt comes before the document, so it runs at once. Put it behind.",
        ),
        Wrong(
            _rows("[(0, budget * (patience + 1), 1)]"),
            "There is only the document. The claim is about prompts that fit into one iteration.",
        ),
        Wrong(
            _rows("[(0, budget * (patience + 1), 1), (patience + 1, 1, 1)]"),
            "The short prompt comes when the document is done, and waits for nothing.",
        ),
        Wrong(
            _rows("[(0, budget * (patience + 1), 1), (0, budget + 1, 1)]"),
            "The second prompt does not fit into one iteration, so the claim says nothing about it.",
        ),
        Wrong(
            _rows("[(0, budget, 1000), (0, 1, 1)]"),
            "A request that decodes takes one token of each iteration and leaves the others. A long prompt "
            "leaves none.",
        ),
        Wrong(
            _rows("[(0, budget, 1)] * (patience + 1)"),
            "A queue of prompts that fill an iteration each works while 20 of them are enough. One long "
            "document takes as many iterations as you like.",
        ),
    ),
    hints=(
        "Whose work goes before a newcomer's prompt, under this policy?",
        "How many iterations must pass before the short prompt gets its turn?",
        "A document of `budget * (patience + 1)` tokens, and behind it a prompt of one.",
    ),
    minutes=8,
    level="evaluate",
)
