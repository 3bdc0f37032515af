"""Exercise: the largest time between tokens, the number that no average shows."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from html import escape
from itertools import pairwise
from typing import Any

from chunkprefill.plots.style import Canvas
from chunkprefill_course.exercises.texts import prose
from chunkprefill_course.forms.answers import Plain, apart, figure, number
from chunkprefill_course.forms.calling import call
from chunkprefill_course.forms.exercise import Case, Exercise, Wrong
from chunkprefill_course.forms.running import Program

LEFT, WIDE, ROW = 70, 400, 34  # user units
MOST_DRAWN = 40  # requests, and tokens of one


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


def rounded(times):
    """Whole milliseconds only."""
    return int(solution(times))


def rounded_off(times):
    """The nearest whole millisecond."""
    return round(solution(times))


def across_requests(times):
    """One list of all tokens, request after request."""
    tokens = [time for tokens in times.values() for time in tokens]
    return max([after - before for before, after in pairwise(tokens)], default=0)


def in_seconds(times):
    """Seconds in place of milliseconds."""
    return solution(times) / 1000


def shortest_gap(times):
    """The smallest gap."""
    gaps = [after - before for tokens in times.values() for before, after in pairwise(tokens)]
    return min(gaps, default=0)


def whole_span(times):
    """From a request's first token to its last."""
    return max(tokens[-1] - tokens[0] for tokens in times.values())


def first_gap(times):
    """The first gap of each request."""
    return max([tokens[1] - tokens[0] for tokens in times.values() if len(tokens) > 1], default=0)


def last_gap(times):
    """The last gap of each request."""
    return max([tokens[-1] - tokens[-2] for tokens in times.values() if len(tokens) > 1], default=0)


def first_request(times):
    """Returns inside the loop."""
    for tokens in times.values():
        return max([after - before for before, after in pairwise(tokens)], default=0)


def until_the_end(times):
    """Up to the last token of all."""
    end = max(tokens[-1] for tokens in times.values())
    return max(
        [solution(times), *(end - tokens[-1] for tokens in times.values())],
    )


SMALL = (
    {"a": [5]},
    {"a": [0, 10], "b": [5]},
    {"a": [0, 10, 40], "b": [0, 20, 30]},
    {"a": [0, 60], "b": [10, 30, 50]},
    {"a": [0, 12.5]},
    {"a": [0, 12.75]},
    {"a": [0.5, 10.25, 30.75]},
    {"a": [0, 10], "b": [90, 95]},
    {"a": [90, 95], "b": [0, 10]},
    {"a": [20], "b": [70]},
    {"a": [30, 40, 45]},
    {"a": [0, 50, 60, 70], "b": [0, 5]},
    {"a": [0, 5, 60, 70]},
    {"a": [0, 5, 10, 60], "b": [0, 20]},
    {"a": [0, 40], "b": [0, 5, 90], "c": [0, 10]},
    {"a": [3_600_000, 3_600_000.0625], "b": [86_400_000, 86_400_000.25]},
    {"a": [0, 1.000_976_562_5], "b": [0, 1]},
    {7: [0, 20], 30: [0, 10, 40], 4: [0, 10]},
    {f"r{i}": [i, i + (40 if i == 280 else 20)] for i in range(300)},
    {"a": [*range(0, 2000, 5), 2100, 2105]},
    {"a": [0, 10, 10, 30], "b": [5, 5]},
    {"a": [7, 7], "b": [7]},
    {"a": [0, 86_400_000], "b": [1, 86_399_999]},
    {"a": [0, 40, 40, 50]},
    {"a": [0, 10, 20, 30, 40], "b": [5, 30]},
    {"a": [0, 5, 5, 45, 50]},
    {"a": [*range(498), 510, 531]},
)


def cases(rng: random.Random) -> Iterator[Case]:
    """A few small ones, and forty drawn."""
    yield from ({"times": times} for times in SMALL)
    for _ in range(40):
        times = {}
        for name in "abcd"[: rng.randint(1, 4)]:
            tokens, now = [], rng.randrange(0, 60, 5) + rng.choice((0, 0, 0.5))
            for _ in range(rng.choice((1, 2, 4, 6))):
                tokens.append(now)
                now += rng.choice((5, 10, 15, 20, 90, 7.5, 12.25))
            times[name] = tokens
        yield {"times": times}


def _gaps(case: Case) -> list[list[float]]:
    return [[after - before for before, after in pairwise(tokens)] for tokens in case["times"].values()]


def _largest_is(where: Callable[[list[float], float], bool]) -> Callable[[Case], bool]:
    """A condition on where the largest gap stands among those of its request, or on its request."""
    return lambda case: any(where(gaps, want(case)) for gaps in _gaps(case) if want(case) in gaps)


def want(case: Case) -> float:
    """Walk each request's tokens in turn."""
    largest = 0
    for tokens in case["times"].values():
        for i in range(1, len(tokens)):
            largest = max(largest, tokens[i] - tokens[i - 1])
    return largest


def judge(case: Case, value: Plain) -> str:
    """A number of ms: no less than any gap, and itself one of them."""
    largest = want(case)
    if abs(value - largest) < 1e-9:
        return ""
    said, true = apart(value, largest)
    for rid, tokens in case["times"].items():
        for before, after in pairwise(tokens):
            if after - before > value + 1e-9:
                gap, given = apart(after - before, value)
                begin, end = apart(before, after, digits=6)
                silent = f"request {rid} is silent from {begin} to {end} ms, for {gap} ms"
                return f"{silent}, and it returned {given} ms"
    return f"it returned {said} ms, and no request is silent for longer than {true} ms"


def run(program: Program, case: Case) -> Any:
    """Call it on a copy."""
    return number(call(program, {"times": case["times"]}), "a number of ms")


def picture(case: Case, value: Plain) -> str:
    """A row a request, a tick a token, and what the program says beneath."""
    times = case["times"]
    if max(len(times), *map(len, times.values())) > MOST_DRAWN:
        return ""
    end = max(time for tokens in times.values() for time in tokens) or 1
    canvas = Canvas(ROW * len(times) + 34, width=LEFT + WIDE + 12)
    for i, (rid, tokens) in enumerate(times.items()):
        y = ROW * i + 18
        canvas.text(LEFT - 16, y + 6, f"{rid}", anchor="end")
        canvas.line(LEFT, y, LEFT + WIDE, y, width=1)
        for time in tokens:
            canvas.rect(LEFT + WIDE * time / end - 3, y - 9, 6, 18, "decode")
    canvas.text(LEFT, ROW * len(times) + 24, f"0 to {end} ms; it says: {figure(value)} ms")
    said = "; ".join(f"{rid} has tokens at {', '.join(map(str, tokens))} ms" for rid, tokens in times.items())
    svg = canvas.svg.replace(
        "<svg ", f'<svg role="img" aria-label="{escape(said)}. It says {figure(value)} ms." ', 1
    )
    return f'<div style="max-width:{LEFT + WIDE + 12}px">{svg}</div>'


def show(case: Case) -> str:
    """The call; of many requests and of many tokens the first."""
    rows = []
    for name, tokens in case["times"].items():
        said = str(tokens)
        if len(tokens) > MOST_DRAWN:
            said = f"{str(tokens[:3])[:-1]}, …, {tokens[-1]}]"
        rows.append(f"{name!r}: {said}")
    if len(rows) > MOST_DRAWN:
        rows[6:] = [f"… {len(rows)} requests in all"]
    return f"`longest_silence({{{', '.join(rows)}}})`"


largest_gap = Exercise(
    id="largest-gap",
    title="Measure the longest silence",
    name="longest_silence",
    prompt=prose("largest-gap"),
    starter="def longest_silence(times):\n    ...",
    example=({"times": {"a": [0, 20, 40]}},),
    cases=cases,
    conditions={
        "one token each": lambda case: want(case) == 0,
        "one token beside several": lambda case: want(case) > 0 and [] in _gaps(case),
        "several requests": lambda case: len(case["times"]) > 2,
        "fractions": lambda case: want(case) % 1 > 0,
        "fractions of a half or more": lambda case: want(case) % 1 >= 0.5,
        "a day after the clock began": lambda case: (
            want(case) % 1 > 0 and min(map(min, case["times"].values())) > 2**20
        ),
        "fractions of a thousandth": lambda case: 0 < want(case) * 1000 % 1 < 1,
        "names that are numbers": lambda case: all(type(name) is int for name in case["times"]),
        "hundreds of requests, the largest late among them": lambda case: any(
            [want(case)] == gaps for gaps in _gaps(case)[2**8 : -1]
        ),
        "hundreds of tokens, the largest late among them": lambda case: any(
            len(gaps) > 300 and gaps.index(want(case)) > 256 for gaps in _gaps(case) if want(case) in gaps
        ),
        "two tokens at one moment": lambda case: any(0 in gaps for gaps in _gaps(case)) and want(case) > 0,
        "two tokens at one moment, and no other gap": lambda case: (
            want(case) == 0 and any(0 in gaps for gaps in _gaps(case))
        ),
        "silent for a whole day": lambda case: want(case) == 86_400_000,
        "as many tokens as there may be, the largest gap at the end": lambda case: any(
            len(gaps) == 499 and gaps[-1] == want(case) for gaps in _gaps(case)
        ),
        "neither the longest request nor that of most tokens has it": lambda case: (
            want(case) > 0
            and not any(
                want(case) in gaps
                and (sum(gaps) == max(map(sum, _gaps(case))) or len(gaps) == max(map(len, _gaps(case))))
                for gaps in _gaps(case)
            )
        ),
        "it starts late": lambda case: min(map(min, case["times"].values())) > want(case) > 0,
        "a longer pause between requests": lambda case: across_requests(case["times"]) > want(case) > 0,
        "the largest is not in the last request": lambda case: want(case) > max(_gaps(case)[-1], default=0),
        "nor in the first": lambda case: want(case) > max(_gaps(case)[0], default=0),
        "the largest comes last": _largest_is(lambda gaps, most: len(gaps) > 1 and gaps[-1] == most),
        "the largest does not come first": _largest_is(lambda gaps, most: gaps[0] < most),
        "the largest does not come last": _largest_is(lambda gaps, most: gaps[-1] < most),
    },
    run=run,
    want=want,
    judge=judge,
    picture=picture,
    show=show,
    size=lambda c: sum(map(len, c["times"].values())),
    solution=solution,
    wrong=(
        Wrong(
            mean_gap,
            "The gaps are averaged. One long silence among many short gaps all but vanishes in a mean.",
        ),
        Wrong(
            pooled,
            "The tokens of all requests are pooled. While one request is silent, the tokens of the "
            "others fill its silence.",
        ),
        Wrong(
            worst_average,
            "Each request is averaged before the worst is taken. That is TPOT, a number a request: a silence "
            "is spread over all of its tokens.",
        ),
        Wrong(
            last_request,
            "Only the last request counts: the variable is overwritten for each request.",
        ),
        Wrong(
            from_arrival,
            "The wait for the first token is counted too. That one is TTFT: it begins at an arrival, "
            "not at a token, and schedulers treat it differently.",
        ),
    ),
    slips=(
        Wrong(
            rounded, "The answer is cut to whole milliseconds. Moments may be fractional: keep the fractions."
        ),
        Wrong(
            rounded_off,
            "The answer is rounded to whole milliseconds. Moments may be fractional: keep the fractions.",
        ),
        Wrong(
            across_requests,
            "The lists are joined, so the time from one request's last token to the next one's first counts "
            "as a silence. A silence belongs to one request.",
        ),
        Wrong(in_seconds, "The answer is in seconds. Moments are given in ms, and so is the answer."),
        Wrong(shortest_gap, "This is the shortest silence. The longest is asked for."),
        Wrong(
            whole_span,
            "This is the time from a request's first token to its last: all its silences together, not one.",
        ),
        Wrong(first_gap, "Only the first silence of each request is looked at."),
        Wrong(last_gap, "Only the last silence of each request is looked at."),
        Wrong(first_request, "The function returns inside its loop, so only the first request is looked at."),
        Wrong(
            until_the_end,
            "A finished request is counted as silent until the others finish. It is not waiting for "
            "anything.",
        ),
    ),
    hints=(
        "A silence belongs to one request. Which tokens may you compare?",
        "Within each request, take the differences of neighbours; keep the largest over all requests.",
        "`pairwise(tokens)` gives the neighbours. Begin the list of gaps with a 0, for requests of one "
        "token.",
    ),
    preamble="from itertools import pairwise\n\n\n",
    minutes=6,
    level="apply",
)
