"""Exercises: the arrivals that starve a document under shortest-first, and the aging that saves it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from math import inf
from typing import Any

import chunkprefill as cp
from chunkprefill_course.exercises.texts import prose
from chunkprefill_course.forms import served
from chunkprefill_course.forms.answers import Plain, Unusable, figure
from chunkprefill_course.forms.exercise import Case, Exercise, Wrong
from chunkprefill_course.forms.feedback import counted
from chunkprefill_course.forms.running import Program
from chunkprefill_course.forms.served import Before
from chunkprefill_course.forms.variants import Variant

# --- the arrivals that starve -------------------------------------------------------------------------


def solution(budget, n_prompt, seconds):
    """A prompt that fills the iteration arrives in every second, and is shorter than the document."""
    return [(second, budget, 1) for second in range(seconds)]


def _rows(rows: str) -> Variant:
    return Variant(solution, ("(second, budget, 1) for second in range(seconds)", rows))


MOST = 10_000  # requests that are read


def cases(rng: random.Random) -> Iterator[Case]:
    """Documents somewhat longer than a budget, and much longer; from a second to several minutes."""
    for budget, n_prompt in ((1, 2), (2, 3), (4, 5), (4, 9), (8, 100), (3, 7)):
        yield from ({"budget": budget, "n_prompt": n_prompt, "seconds": s} for s in (1, 2, 5))
    yield {"budget": 2, "n_prompt": 3, "seconds": 400}
    yield {"budget": 64, "n_prompt": 65, "seconds": 3}
    yield {"budget": 3, "n_prompt": 15, "seconds": 20}
    yield {"budget": 2048, "n_prompt": 2049, "seconds": 2}
    yield {"budget": 1024, "n_prompt": 5000, "seconds": 7}
    for _ in range(8):
        budget = rng.randint(2, 16)
        yield {"budget": budget, "n_prompt": budget + rng.randint(1, 80), "seconds": rng.randint(2, 40)}


def run(program: Program, case: Case) -> Any:
    """The waits under both orders, with the arrivals that the program gives."""
    value = program(case["budget"], case["n_prompt"], case["seconds"])
    if value is None or value is ...:
        return None
    others = served.arrivals(value, most=MOST)
    return _served(case, others)


def _served(case: Case, others: list[cp.Request]) -> dict[str, Any]:
    budget, n_prompt = case["budget"], case["n_prompt"]
    a_second: dict[int, int] = {}
    for request in others:
        if request.n_prompt >= n_prompt:
            raise Unusable(
                f"a prompt of {counted(request.n_prompt, 'token')} arrives; each is to be shorter than the "
                f"document's {n_prompt}"
            )
        if request.n_output != 1:
            raise Unusable(
                f"a request asks for {counted(request.n_output, 'token')}; 1 is what each may ask for"
            )
        second = int(request.arrival)
        a_second[second] = a_second.get(second, 0) + request.n_prompt
        if a_second[second] > budget:
            raise Unusable(
                f"in second {second} prompts of {counted(a_second[second], 'token')} arrive, and the server "
                f"runs {budget} in an iteration: that is overload, and starves the document under any order"
            )
    document = cp.Request("document", 0.0, n_prompt, 1)
    in_time = [
        request for request in others if request.arrival <= case["seconds"]
    ]  # later ones change nothing
    every = sorted([document, *in_time], key=lambda request: request.arrival)
    waits = served.first_tokens(every, cp.ChunkedPrefill(budget, order="shortest"))
    return {"wait": waits["document"], "rows": [[r.rid, r.arrival, r.n_prompt, waits[r.rid]] for r in every]}


@cache
def _right(budget: int, n_prompt: int, seconds: int) -> dict[str, Any]:
    case = {"budget": budget, "n_prompt": n_prompt, "seconds": seconds}
    return run(solution, case)


def want(case: Case) -> dict[str, Any]:
    """One way to do it; every other that starves the document is as right."""
    return _right(case["budget"], case["n_prompt"], case["seconds"])


def judge(case: Case, value: Plain) -> str:
    """Does the document wait long enough?"""
    if value["wait"] > case["seconds"]:
        return ""
    return f"the document gets its first token after {figure(value['wait'])} s, and it has to wait for more than {case['seconds']} s"


def picture(case: Case, value: Plain) -> str:
    """Who waits how long."""
    requests = [cp.Request(rid, arrival, n, 1) for rid, arrival, n, _ in value["rows"]]
    waits = {rid: wait for rid, _, _, wait in value["rows"]}
    return served.lives_picture(requests, waits, marked="document", title="Waits for the first token")


starve = Exercise(
    id="starve",
    title="Starve the document",
    name="starving",
    prompt=prose("starve"),
    starter="def starving(budget, n_prompt, seconds):\n    ...",
    example=({"budget": 4, "n_prompt": 5, "seconds": 1},),
    cases=cases,
    conditions={
        "a long time": lambda case: case["seconds"] > 4,
        "more than five minutes": lambda case: case["seconds"] > 300,
        "a large budget": lambda case: case["budget"] > 32,
        "a document hardly longer than a budget": lambda case: case["n_prompt"] == case["budget"] + 1,
        "a document of many budgets": lambda case: case["n_prompt"] > 4 * case["budget"],
        "a document of whole budgets, and more time than they take": lambda case: (
            case["n_prompt"] % case["budget"] == 0
            and case["seconds"] > case["n_prompt"] // case["budget"] > 4
        ),
        "a budget of one": lambda case: case["budget"] == 1,
        "two seconds": lambda case: case["seconds"] == 2,
    },
    run=run,
    want=want,
    judge=judge,
    picture=picture,
    show=lambda c: f"`starving({c['budget']}, {c['n_prompt']}, {c['seconds']})`",
    tell=lambda case, value: f"arrivals under which the document waits for {figure(value['wait'])} s",
    size=lambda case: case["seconds"] * 100 + case["n_prompt"],
    solution=solution,
    wrong=(
        Wrong(
            _rows("(0, budget, 1) for second in range(1)"),
            "One request holds the document up for one iteration. Newcomers have to keep coming.",
        ),
        Wrong(
            _rows("(second, budget, 1) for second in range((seconds + 1) // 2)"),
            "The newcomers stop coming too soon. In the first iteration without one the document runs.",
        ),
        Wrong(
            _rows("(second, budget, 1) for second in range(0, seconds, 2)"),
            "There are seconds in which no newcomer arrives. In each of them the document runs.",
        ),
    ),
    slips=(
        Wrong(
            _rows("(second, 1, 1) for second in range(seconds)"),
            "Each newcomer leaves most of the iteration free, and the document takes the rest. Fill it.",
        ),
        Wrong(
            _rows("(second, n_prompt, 1) for second in range(seconds)"),
            "The newcomers are as long as the document. Shortest-first holds up a prompt for *shorter* ones.",
        ),
        Wrong(
            _rows("(0, budget, 1) for second in range(seconds)"),
            "All of them arrive at once. That is overload: the document would wait under any order.",
        ),
    ),
    hints=(
        "What has to be true of every single iteration?",
        "A newcomer that arrives at second k runs in iteration k if it is shorter than what is left of the "
        "document. How many tokens must it have to leave no room?",
        "`[(k, budget, 1) for k in range(seconds)]`",
    ),
    minutes=8,
    level="analyse",
)

# --- the aging that saves -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Solution:
    """What is left, less what the wait has earned."""

    token_budget: int
    rate: float

    def schedule(self, state):
        def rank(seq):
            return seq.pending - self.rate * (state.now - seq.arrival)

        tokens = {seq.rid: 1 for seq in state.running if seq.decoding}
        left = self.token_budget - len(tokens)
        for seq in sorted((*state.running, *state.waiting), key=rank):
            if not seq.decoding and left > 0:
                tokens[seq.rid] = min(seq.pending, left)
                left -= tokens[seq.rid]
        return cp.Plan(tokens)


RANK = "return seq.pending - self.rate * (state.now - seq.arrival)"


def _rank(rank: str) -> Variant:
    return Variant(Solution, (RANK, f"return {rank}"))


BETWEEN = [(0, 11, 1), (0.5, 5, 1), (0.75, 9, 1), (1.25, 6, 1), (1.25, 7, 1), (1.75, 11, 1)]
PATIENT = [(0, 590, 1), *[(75 * k, 300, 1) for k in range(6)]]  # its wait counts for more after 290 s
STREAM = [(0, 9, 2), *[(k, 4, 1) for k in range(10)]]


def aging_cases(rng: random.Random) -> Iterator[Case]:
    """Documents under a stream of short prompts, and the small workloads of the other rungs, at several rates."""
    for rate in (0.5, 1, 3):
        yield {"budget": 4, "rate": rate, "requests": STREAM}
    yield {"budget": 4, "rate": 2, "requests": [(0, 3, 3), (0, 9, 2), *[(k, 3, 1) for k in range(1, 8)]]}
    yield {"budget": 3, "rate": 2, "requests": [(0, 7, 1), (1, 9, 1), (2, 6, 1), (3, 3, 1)]}
    yield {"budget": 1, "rate": 4, "requests": [(0, 6, 1), (1, 8, 1), (2, 2, 1)]}
    yield {"budget": 4, "rate": 0.5, "requests": [(0, 6, 2), *STREAM[1:]]}
    yield {"budget": 4, "rate": 1.5, "requests": STREAM}
    yield {"budget": 4, "rate": 3.5, "requests": BETWEEN}
    yield {"budget": 4, "rate": 1, "requests": PATIENT}
    yield {"budget": 4, "rate": 0, "requests": STREAM}
    # Waiting counts for little: a token and a half in fifty seconds. Once it decides, once it does not.
    yield from ({"budget": 4, "rate": 0.03, "requests": [(0, 402, 1), (50, n, 1)]} for n in (200, 201))
    yield {"budget": 4, "rate": 0.999, "requests": [(0, 10, 1), (1, 5, 1)]}  # ranks a thousandth apart
    # Were a second a millisecond, a wait of two of them would count for two tokens.
    yield {"budget": 100, "rate": 1000, "requests": [(0, 301, 1), (2, 100, 1), (2, 300, 1)]}
    yield {"budget": 100, "rate": 1000, "requests": [(0, 800, 1), (1, 60, 1)]}
    yield {"budget": 100, "rate": 1000, "requests": [(0, 9000, 1), (1, 2000, 1)]}
    for case in served.cases(rng):
        yield {**case, "rate": rng.choice((0, 0.5, 1, 2, 4))}


def aging_want(case: Case) -> list[Any]:
    """What the solution does."""
    return served.right(case, Solution)


def _scores(case: Case, was: Before) -> dict[int, float]:
    """Each prompt's rank."""
    came = dict(zip(served.rids(case), (arrival for arrival, _, _ in case["requests"])))
    return {rid: n - case["rate"] * (was.now - came[rid]) for rid, n in was.pending.items()}


def aging_judge(case: Case, value: Plain) -> str:
    """Step by step, each against the state that the reader's own steps have led to."""
    given = len(case.get("given", ()))
    for k, (was, rows) in enumerate(zip(served.standings(case, value), value)):
        if k >= given and (why := _broken(case, was, {row[0]: row[2] for row in rows})):
            return f"in iteration {k + 1}, {why}"
    return ""


def _broken(case: Case, was: Before, got: dict[int, int]) -> str:
    budget, total = case["budget"], sum(got.values())
    if total > budget:
        return served.overrun(total, budget)
    if left_out := [rid for rid in was.ready if rid not in got]:
        return f"request {left_out[0]} could decode and is left out"
    scores = _scores(case, was)
    short = sorted((scores[rid], rid) for rid, n in was.pending.items() if got.get(rid, 0) < n)
    if total < budget and short:
        rid = short[0][1]
        return (
            f"{served.unused(budget - total, budget)}, and request {rid} has {was.pending[rid]:,} to prefill"
        )
    for score, rid in short:
        later = [r for r in got if r in was.pending and scores[r] > score + 1e-9]
        if later:
            ranks = f"{figure(scores[later[0]])} against {figure(score)}"
            return f"request {later[0]} goes before request {rid}, whose rank is lower ({ranks})"
    return served.shared(was, got)


def _aged(case: Case) -> bool:
    """Whether waiting changes the order of some step."""
    return _aged_after(case, 0)


def _aged_after(case: Case, seconds: float) -> bool:
    """Whether it does so only after some seconds."""
    for was, got, _ in served.moments(case, Solution):
        short = [rid for rid, n in was.pending.items() if got.get(rid, 0) < n]
        if any(was.pending[rid] < was.pending[r] for rid in short for r in got if r in was.pending):
            return was.now >= seconds
    return False


def _both_below(case: Case, most: float) -> bool:
    """In some step the lowest rank is below `most`, and so is that of a prompt before it, which has to wait."""
    for was, got, _ in served.moments(case, Solution):
        scores, passed = _scores(case, was), -inf  # the highest rank below `most` of those that wait
        for rid, score in scores.items():
            if rid in got and score < passed:
                return True
            if rid not in got and passed < score < most:
                passed = score
    return False


def _equal_ranks(case: Case) -> bool:
    """In some step two ranks are equal, and one of the two gets a part of what it has left."""
    for was, got, _ in served.moments(case, Solution):
        scores = _scores(case, was)
        ranks = list(scores.values())
        if any(1 < got.get(rid, 0) < n and ranks.count(scores[rid]) > 1 for rid, n in was.pending.items()):
            return True
    return False


def _all_but_equal(case: Case) -> bool:
    """In some step one prompt runs and another waits, and their ranks are less than a hundredth apart."""
    for was, got, _ in served.moments(case, Solution):
        scores = _scores(case, was)
        waits = [score for rid, score in scores.items() if rid not in got]
        if any(0 < other - scores[rid] < 0.01 for rid in got if rid in scores for other in waits):
            return True
    return False


write_aging = Exercise(
    id="write-aging",
    title="Let waiting count",
    name="Aging",
    prompt=prose("write-aging"),
    preamble=served.PREAMBLE,
    starter="@dataclass(frozen=True)\nclass Aging:\n    token_budget: int\n    rate: float\n\n"
    "    def schedule(self, state):\n        ...",
    example=({"budget": 4, "rate": 1, "requests": [(0, 10, 3)]},),
    cases=aging_cases,
    conditions={
        "waiting changes the order": _aged,
        "no rate": lambda case: case["rate"] == 0 and len(case["requests"]) > 2,
        "a rate below one": lambda case: 0 < case["rate"] < 1 and _aged(case),
        "a rate between two whole numbers": lambda case: case["rate"] == 1.5 and _aged(case),
        "arrivals between two iterations": lambda case: (
            any(arrival % 1 for arrival, _, _ in case["requests"]) and _aged(case)
        ),
        "a wait of more than four minutes decides": lambda case: _aged_after(case, 256),
        "a high rate": lambda case: case["rate"] > 2 and _aged(case),
        "two ranks below zero, the later prompt first": lambda case: _both_below(case, 0),
        "two ranks below -1024, the later prompt first": lambda case: _both_below(case, -1024),
        "a low rate decides": lambda case: 0 < case["rate"] < 0.1 and _aged(case),
        "a low rate, and the newcomer passes all the same": lambda case: (
            0 < case["rate"] < 0.1 and not _aged(case) and len(case["requests"]) > 1
        ),
        "two ranks less than a hundredth apart": _all_but_equal,
        "milliseconds would change the order": lambda case: (
            case["rate"] > 512 and _aged({**case, "rate": case["rate"] / 1000})
        ),
        "a rate of hundreds": lambda case: case["rate"] > 512 and _aged(case),
        "no rate, where one would matter": lambda case: case["rate"] == 0 and _aged({**case, "rate": 1}),
        "equal ranks, and tokens for a part of one": _equal_ranks,
        "as many prompts in one iteration as there may be": served.somewhen(Solution, served.is_crowded),
        "a shorter newcomer still passes": served.somewhen(
            Solution,
            lambda was, got, _: any(
                rid not in was.half and was.pending[rid] < was.pending[half]
                for half in was.half
                if half not in got
                for rid in got
                if rid in was.pending
            ),
        ),
        "decodes beside a chunk": served.somewhen(
            Solution, lambda was, got, _: was.ready and len(got) > len(was.ready)
        ),
    },
    run=served.serve_case,
    want=aging_want,
    judge=aging_judge,
    picture=served.served_picture,
    show=served.show,
    tell=served.tell,
    solution=Solution,
    wrong=(
        Wrong(
            _rank("seq.pending"),
            "Waiting does not count here: this is still shortest-first, and the document starves as before.",
        ),
        Wrong(
            _rank("seq.pending + self.rate * (state.now - seq.arrival)"),
            "Waiting counts the wrong way: the longer a prompt has waited, the later its turn.",
        ),
        Wrong(
            _rank("seq.arrival"),
            "The order of arrival alone decides. The document is safe, and every newcomer waits behind it.",
        ),
        Wrong(
            _rank("seq.pending / (1 + self.rate * (state.now - seq.arrival))"),
            "Waiting divides what is left. It should be subtracted: `rate` tokens for every second.",
        ),
    ),
    slips=(
        Wrong(
            _rank("seq.pending - (state.now - seq.arrival)"),
            "A second counts as one token, whatever `rate` is.",
        ),
        Wrong(
            _rank("seq.pending - self.rate * (state.now - seq.arrival) / 1000"),
            "The wait is divided by 1,000. `state.now` and `seq.arrival` are in s, and `rate` counts tokens for every "
            "second.",
        ),
        Wrong(
            _rank("seq.n_prompt - self.rate * (state.now - seq.arrival)"),
            "The whole prompt counts, done or not. What is left to prefill decides.",
        ),
    ),
    hints=(
        "Only the sort key has to change.",
        "A sequence has `arrival`, and the state has `now`, both in s.",
        "`key=lambda seq: seq.pending - self.rate * (state.now - seq.arrival)`",
    ),
    minutes=8,
    level="apply",
    makes="policy",
    rung="rung 4 of 4: write a scheduler",
    size=served.size,
)
