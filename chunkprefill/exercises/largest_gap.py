"""Exercise: the largest time between tokens, the number that no average shows."""

from __future__ import annotations

import random
from collections.abc import Iterator
from html import escape
from itertools import pairwise
from typing import Any

from chunkprefill.analysis.style import Canvas
from chunkprefill.exercises.exercise import Case, Exercise, Wrong
from chunkprefill.exercises.running import Plain, Program

LEFT, WIDE, ROW = 70, 400, 34  # user units


def solution(times):
    """Gaps are taken within a request; the largest of all of them counts."""
    gaps = [0]
    for tokens in times.values():
        gaps += [after - before for before, after in pairwise(tokens)]
    return max(gaps)


def mean_gap(times):
    """Averages the gaps."""
    gaps = []
    for tokens in times.values():
        gaps += [after - before for before, after in pairwise(tokens)]
    return sum(gaps) / max(1, len(gaps))


def pooled(times):
    """Throws the tokens of all requests together before it looks for gaps."""
    tokens = sorted(time for tokens in times.values() for time in tokens)
    return max([after - before for before, after in pairwise(tokens)], default=0)


def worst_average(times):
    """Averages within each request, and takes the worst of these."""
    slowest = 0
    for tokens in times.values():
        if len(tokens) > 1:
            slowest = max(slowest, (tokens[-1] - tokens[0]) / (len(tokens) - 1))
    return slowest


def last_request(times):
    """Forgets the requests before the last."""
    for tokens in times.values():
        largest = max([after - before for before, after in pairwise(tokens)], default=0)
    return largest


def from_arrival(times):
    """Counts the wait for the first token as well, from 0."""
    gaps = [0]
    for tokens in times.values():
        gaps += [after - before for before, after in pairwise([0, *tokens])]
    return max(gaps)


def cases(rng: random.Random) -> Iterator[Case]:
    """A few small ones, and forty drawn."""
    yield {"times": {"a": [5]}}
    yield {"times": {"a": [0, 10], "b": [5]}}
    yield {"times": {"a": [0, 10, 40], "b": [0, 20, 30]}}
    yield {"times": {"a": [0, 60], "b": [10, 30, 50]}}
    for _ in range(40):
        times = {}
        for name in "abcd"[: rng.randint(1, 4)]:
            tokens, now = [], rng.randrange(0, 60, 5)
            for _ in range(rng.choice((1, 2, 4, 6))):
                tokens.append(now)
                now += rng.choice((5, 10, 15, 20, 90))
            times[name] = tokens
        yield {"times": times}


def want(case: Case) -> int:
    """Walk each request's tokens in turn."""
    largest = 0
    for tokens in case["times"].values():
        for i in range(1, len(tokens)):
            largest = max(largest, tokens[i] - tokens[i - 1])
    return largest


def judge(case: Case, value: Plain) -> str:
    """A number of ms: no less than any gap, and itself one of them."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"it returned {value!r}; a number of ms is wanted"
    if abs(value - want(case)) < 1e-9:
        return ""
    for rid, tokens in case["times"].items():
        for before, after in pairwise(tokens):
            if after - before > value + 1e-9:
                return f"request {rid} is silent from {before} to {after} ms, and it returned {value:g} ms"
    return f"it returned {value:g} ms, and no request is silent for longer than {want(case)} ms"


def run(program: Program, case: Case) -> Any:
    """Call it on a copy."""
    return program({rid: list(tokens) for rid, tokens in case["times"].items()})


def picture(case: Case, value: Plain) -> str:
    """A row a request, a tick a token, and what the program says beneath."""
    times = case["times"]
    end = max(time for tokens in times.values() for time in tokens) or 1
    canvas = Canvas(ROW * len(times) + 34, width=LEFT + WIDE + 12)
    for i, (rid, tokens) in enumerate(times.items()):
        y = ROW * i + 18
        canvas.text(LEFT - 16, y + 6, f"{rid}", anchor="end")
        canvas.line(LEFT, y, LEFT + WIDE, y, width=1)
        for time in tokens:
            canvas.rect(LEFT + WIDE * time / end - 3, y - 9, 6, 18, "decode")
    canvas.text(LEFT, ROW * len(times) + 24, f"0 to {end} ms; it says: {value:g} ms")
    said = "; ".join(f"{rid} has tokens at {', '.join(map(str, tokens))} ms" for rid, tokens in times.items())
    svg = canvas.svg.replace(
        "<svg ", f'<svg role="img" aria-label="{escape(said)}. It says {value:g} ms." ', 1
    )
    return f'<div style="max-width:{LEFT + WIDE + 12}px">{svg}</div>'


largest_gap = Exercise(
    id="largest-gap",
    title="Measure the longest silence",
    name="longest_silence",
    prompt="`times` maps each request to the moments, in ms, at which its tokens came out. Write "
    "`longest_silence(times)`: the longest that anybody waited from one of their tokens to their next. A "
    "request with one token has not waited; if all have one, the answer is 0.",
    starter="def longest_silence(times):\n    ...",
    example=({"times": {"a": [0, 20, 40]}},),
    cases=cases,
    run=run,
    want=want,
    judge=judge,
    picture=picture,
    show=lambda c: f"`longest_silence({c['times']})`",
    size=lambda c: sum(map(len, c["times"].values())),
    solution=solution,
    wrong=(
        Wrong(
            mean_gap,
            "The gaps are averaged. One long silence among many short gaps all but vanishes in a mean.",
        ),
        Wrong(
            pooled,
            "The tokens of all requests are thrown together. While one is silent the others go on, and their "
            "tokens fill its silence.",
        ),
        Wrong(
            worst_average,
            "Each request is averaged before the worst is taken. That is TPOT, a number a request: a silence "
            "is spread over all of its tokens.",
        ),
        Wrong(
            last_request,
            "Only the last request counts. The variable is set anew for each request, and kept for none.",
        ),
        Wrong(
            from_arrival,
            "The wait for the first token is counted too. That one is TTFT: it begins at an arrival, "
            "not at a token, and schedulers treat it differently.",
        ),
    ),
    hints=(
        "A silence belongs to one request. Whose tokens may you compare?",
        "Within each request, take the differences of neighbours; keep the largest over all requests.",
        "`pairwise(tokens)` gives the neighbours. Begin the list of gaps with a 0, for requests of one "
        "token.",
    ),
    preamble="from itertools import pairwise\n\n\n",
    minutes=6,
    level="apply",
)  # fmt: skip
