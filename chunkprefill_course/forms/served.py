"""Policies that a reader writes: run in the simulator, a second a step, and judged step by step."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import groupby, islice, pairwise
from typing import Any

from chunkprefill.plots.style import Canvas
from chunkprefill.scheduling.core import Batch, Plan, Request, ScheduleError
from chunkprefill.scheduling.state import State
from chunkprefill.simulation.simulate import simulate
from chunkprefill_course.forms.answers import Plain, Unusable, figure, is_mapping, items, told
from chunkprefill_course.forms.feedback import counted
from chunkprefill_course.forms.lines import place_of
from chunkprefill_course.forms.notation import grid
from chunkprefill_course.forms.running import Case, Program

MOST_SAID = 8  # requests in a sentence
MOST_DRAWN = 24  # requests in a picture
MOST_SERVED = 256  # requests that the prompts promise at most: as many as the library's policies seat
MOST_TOKENS = 100_000  # of a prompt, and of a budget: what the prompts allow
PREAMBLE = "from dataclasses import dataclass\n\nimport chunkprefill as cp\n\n\n"


class _Watched:
    """A policy whose plans are looked at before the loop sees them; nothing written yet is not attempted."""

    def __init__(self, policy: Any, given: Sequence[dict[Any, int]] = ()) -> None:
        self.policy, self.given, self.n_asked = policy, given, 0

    def schedule(self, state: State) -> Plan:
        self.n_asked += 1
        if self.n_asked <= len(self.given):
            return Plan(dict(self.given[self.n_asked - 1]))
        plan = self.policy.schedule(state)
        if plan is None or plan is ...:
            if self.n_asked > 1 + len(self.given):
                raise Unusable(
                    f"in iteration {self.n_asked}, `schedule` returned nothing: a `return` is missing"
                )
            raise NotImplementedError
        if is_mapping(plan):
            raise Unusable(f"`schedule` returned {told(plan)}; expected a plan: `return cp.Plan({{…}})`")
        if isinstance(plan, Plan) and any(hasattr(rid, "rid") for rid in plan.tokens):
            raise Unusable(
                "the plan has sequences as its keys; it names requests, by the `rid` of each: "
                "`cp.Plan({seq.rid: tokens})`"
            )
        if not isinstance(plan, Plan):
            raise Unusable(f"`schedule` returned {told(plan)}; expected a plan, `cp.Plan({{rid: tokens}})`")
        return plan


@dataclass(frozen=True)
class Before:
    """How things stood before a step.

    pending: tokens to prefill by request, in order of arrival; ready: who could decode; half: who is half done,
    in order of admission; order: all of them in order of arrival, which their numbers need not follow
    """

    pending: dict[int, int]
    ready: tuple[int, ...]
    half: tuple[int, ...] = ()
    now: float = 0.0  # s
    order: tuple[int, ...] = ()  # all of them, in order of arrival

    def prompts(self, got: Mapping[int, int]) -> dict[int, int]:
        """Tokens of the prompts among those who run."""
        return {rid: n for rid, n in got.items() if rid in self.pending}

    @property
    def line(self) -> list[int]:
        """Prompts as `(*state.running, *state.waiting)` has them."""
        half = set(self.half)
        return [*self.half, *(rid for rid in self.pending if rid not in half)]

    def arrived_in_order(self, rids: Sequence[int]) -> bool:
        """Whether these came one after the other as they stand there."""
        places = [self.order.index(rid) for rid in rids]
        return places == sorted(places)


def is_crowded(was: Before, got: Mapping[int, int], _budget: int) -> bool:
    """Whether as many prompts share an iteration as there may be, so that a program's own limit shows."""
    return len(was.prompts(got)) == MOST_SERVED


def is_cut_among_many(was: Before, got: Mapping[int, int], _budget: int) -> bool:
    """Whether one of more than 250 prompts gets a part of what it needs, and another nothing."""
    runs = was.prompts(got)
    return len(was.pending) - 1 > len(runs) > 250 and any(n < was.pending[rid] for rid, n in runs.items())


def is_crowded_beside_decodes(was: Before, got: Mapping[int, int], _budget: int) -> bool:
    """Whether ten prompts share an iteration while ten requests decode."""
    return len(was.prompts(got)) > 9 and len(was.ready) > 9


def is_reversed(was: Before, got: Mapping[int, int], _budget: int) -> bool:
    """Whether twenty prompts wait, each shorter than the one before it."""
    lengths = list(was.pending.values())
    return len(lengths) > 19 and lengths == sorted(set(lengths), reverse=True)


def is_passed_over(was: Before, got: Mapping[int, int], _budget: int) -> bool:
    """Whether a prompt waits while one of a larger number runs, so that an order by number shows."""
    last = max(was.prompts(got), default=0)
    return any(rid not in got and rid < last for rid in was.pending)


def rids(case: Case) -> Sequence[int]:
    """The requests' numbers, in order of arrival: 1, 2, … where a case has none of its own."""
    return case.get("rids") or range(1, len(case["requests"]) + 1)


def row_of(case: Case, rid: int) -> tuple[float, int, int]:
    """(arrival in s, prompt tokens, output tokens) of a request."""
    return dict(zip(rids(case), case["requests"]))[rid]


def requests(case: Case) -> list[Request]:
    """The requests of a case, of (arrival in s, prompt tokens, output tokens) each."""
    return [Request(rid, *numbers) for rid, numbers in zip(rids(case), case["requests"])]


def serve_case(program: Program, case: Case) -> list[list[list[Any]]]:
    """Each step as rows of rid, start, length, emits. Raises what the policy or the contract raises."""
    more = [case["rate"]] if "rate" in case else []
    policy = program(case["budget"], *more)
    if policy is None or policy is ...:
        raise NotImplementedError
    if not callable(getattr(policy, "schedule", None)):
        raise Unusable(f"it makes {told(policy)}, which has no method `schedule`; is it the class itself?")
    watched = _Watched(policy, case.get("given", ()))
    try:
        trace = simulate(requests(case), watched, cost=lambda batch: 1.0)
    except ScheduleError as error:
        if place_of(error):
            raise
        raise Unusable(f"in iteration {watched.n_asked}, the plan is refused: {error}") from None
    return [sorted(map(list, step.batch)) for step in trace.steps]  # the order within a plan is no matter


def before(case: Case, steps: list[list[list[Any]]], k: int) -> Before:
    """How things stood before step k."""
    return next(islice(standings(case, steps), k, None))


def standings(case: Case, steps: list[list[list[Any]]]) -> Iterator[Before]:
    """How things stood before each step, and after the last."""
    cached = [0] * len(case["requests"])
    said = [0] * len(case["requests"])
    # In which step each was; within one step, the order of arrival stands for that of the plan.
    admitted: dict[int, int] = {}
    names = rids(case)
    place = {rid: i for i, rid in enumerate(names)}

    def done(i: int) -> bool:
        return said[i] >= case["requests"][i][2]

    arrivals = [arrival for arrival, _, _ in case["requests"]]

    def standing() -> Before:
        here = [i for i, arrival in enumerate(arrivals) if arrival <= now and not done(i)]
        left = {names[i]: case["requests"][i][1] - cached[i] for i in here}
        half = (rid for rid, n in left.items() if n > 0 and cached[place[rid]])
        return Before(
            {rid: n for rid, n in left.items() if n > 0},
            tuple(rid for rid, n in left.items() if n <= 0),
            tuple(sorted(half, key=admitted.__getitem__)),
            now,
            tuple(left),
        )

    now = min(arrivals)
    for at, rows in enumerate(steps):
        yield standing()
        for rid, start, length, emits in rows:
            admitted.setdefault(rid, at)
            cached[place[rid]] = start + length
            said[place[rid]] += emits
        now += 1
        if all(done(i) for i, arrival in enumerate(arrivals) if arrival <= now):  # nothing to do: time passes
            now = min([arrival for arrival in arrivals if arrival > now], default=now)
    yield standing()


Rule = Callable[[Before, dict[int, int], int], str]  # what stood there, {rid: tokens} of the step, the budget


def judge_steps(case: Case, steps: Plain, right: list[list[list[Any]]], rule: Rule) -> str:
    """The first step that differs from the right one, and the rule that it breaks."""
    for k, (mine, theirs) in enumerate(zip(steps, right)):
        got, wanted = ({row[0]: row[2] for row in rows} for rows in (mine, theirs))
        if got != wanted:
            why = rule(before(case, right, k), got, case["budget"])
            return f"in iteration {k + 1}, {why or f'{said(got)} runs, where {said(wanted)} is right'}"
    if len(steps) == len(right):
        return ""
    return f"it takes {counted(len(steps), 'iteration')}, and {len(right)} would do"


def said(tokens: dict[int, int]) -> str:
    """`request 1: 4 tokens, request 2: 1 token`."""
    lines = [f"request {rid}: {counted(n, 'token')}" for rid, n in tokens.items()]
    more = [f"and {counted(len(lines) - MOST_SAID, 'more request')}"] if len(lines) > MOST_SAID else []
    return ", ".join(lines[:MOST_SAID] + more) or "nothing"


def show(case: Case) -> str:
    """A case in words."""
    lines = []
    for (t, n, m), group in groupby(zip(rids(case), case["requests"]), key=lambda one: one[1]):
        names = [rid for rid, _ in group]
        if len(names) > 3 and names == list(range(names[0], names[0] + len(names))):
            lines.append(f"requests {names[0]} to {names[-1]}: {n:,} + {m} tokens each, at {t} s")
        else:
            lines += [f"request {rid}: {n:,} + {m} tokens at {t} s" for rid in names]
    for k, plan in enumerate(case.get("given", ()), 1):
        lines.append(f"in iteration {k} another policy has run {said(plan)}")
    rate = f", rate {case['rate']}" if "rate" in case else ""
    return f"budget {case['budget']:,}{rate}; {'; '.join(lines)}"


def unused(n: int, budget: int) -> str:
    """The words for budget that is left while a prompt waits."""
    return f"room for {counted(n, 'token')} of the budget of {figure(budget)} stays unused"


def overrun(total: int, budget: int) -> str:
    """The words for a step that takes more than the budget."""
    return f"{counted(total, 'token')} run, and the budget is {figure(budget)}"


def shared(was: Before, got: Mapping[int, int]) -> str:
    """The words for two prompts that are cut in one step; "" where one at most is."""
    cut = [rid for rid, n in was.pending.items() if 0 < got.get(rid, 0) < n]
    if len(cut) < 2:
        return ""
    return (
        f"requests {cut[0]} and {cut[1]} share what is left, and neither gets all that it has to prefill; one goes "
        "first, and gets as much as it can use before the other gets any"
    )


def tell(case: Case, steps: Plain) -> str:
    """Who gets how many tokens, iteration by iteration."""
    lines = (f"{k}: {said({row[0]: row[2] for row in rows})}" for k, rows in enumerate(steps, 1))
    return "in iteration " + "; ".join(lines)


def _whole(value: float) -> Any:
    """4.0 as 4; what has a fraction as it is, for the request to refuse."""
    return int(value) if value == int(value) else value


def arrivals(value: Any, most: int) -> list[Request]:
    """Requests that a reader's program returns, rows of (arrival in s, prompt tokens, output tokens)."""
    rows = items(value, "a list of (arrival, n_prompt, n_output)")
    if rows is None:
        raise NotImplementedError
    if len(rows) > most:
        raise Unusable(f"it returned {counted(len(rows), 'request')}, and at most {figure(most)} are allowed")
    made = []
    for i, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != 3 or any(type(each) not in (int, float) for each in row):
            raise Unusable(
                f"request number {i} is {told(row)}; expected (arrival, n_prompt, n_output), three numbers"
            )
        try:
            arrival, n_prompt, n_output = row
            made.append(Request(f"number {i}", arrival, _whole(n_prompt), _whole(n_output)))
        except (TypeError, ValueError, OverflowError) as error:
            broken = str(error).removeprefix(f"request number {i}: ")
            raise Unusable(f"request number {i} is {told(row)}: {broken}") from None
    return made


class _AllOut(Exception):
    """Each request has its first token."""


class _Waits:
    """A policy that notes when first tokens come out, and ends the run with the last of them."""

    def __init__(self, policy: Any, came: dict[Any, float]) -> None:
        self.policy, self.came, self.now = policy, came, 0.0
        self.first: dict[Any, float] = {}

    def schedule(self, state: State) -> Plan:
        self.now = state.now
        return self.policy.schedule(state)

    def second(self, batch: Batch) -> float:
        """The price of a step."""
        for rid, emits in zip(batch.rid, batch.emits):
            if emits:
                self.first.setdefault(rid, self.now + 1.0 - self.came[rid])
        if len(self.first) == len(self.came):
            raise _AllOut
        return 1.0


def first_tokens(requests: list[Request], policy: Any) -> dict[Any, float]:
    """Seconds from arrival to the first token of each, at a second an iteration."""
    waits = _Waits(policy, {request.rid: request.arrival for request in requests})
    with suppress(_AllOut):
        simulate(requests, waits, cost=waits.second)
    return waits.first


def lives_picture(requests: list[Request], waits: dict[Any, float], *, marked: Any, title: str) -> str:
    """Each request's wait for its first token, as a bar; the first eight, the marked one among them."""
    chosen = [request for request in requests if request.rid == marked]
    chosen += [request for request in requests if request.rid != marked][: 8 - len(chosen)]
    canvas = Canvas(34 + 34 * len(chosen))
    end = max(request.arrival + waits[request.rid] for request in chosen)
    unit = (canvas.width - 260) / end
    canvas.text(0, 20, title, bold=True)
    for k, request in enumerate(chosen):
        y, wait = 34 + 34 * k, waits[request.rid]
        canvas.text(90, y + 20, str(request.rid), anchor="end")
        fill = "trouble" if request.rid == marked else "prefill"
        canvas.rect(100 + unit * request.arrival, y + 4, max(2, unit * wait), 22, fill, radius=2)
        canvas.text(
            canvas.width, y + 20, f"{counted(request.n_prompt, 'token')}, {figure(wait)} s", anchor="end"
        )
    said = "; ".join(
        f"{r.rid}, {counted(r.n_prompt, 'token')}, waits {figure(waits[r.rid])} s" for r in chosen
    )
    image = canvas.picture(alt=f"{title}. {said}.", caption="To scale.", badge="simulated").image()
    return f'<div style="max-width:{canvas.width:.0f}px">{image}</div>'


def served_picture(case: Case, steps: Plain) -> str:
    """P and D, iteration by iteration; the numbers are tokens. Nothing where the rows would fill a page."""
    if len(case["requests"]) > MOST_DRAWN:
        return ""
    prompts = {rid: n for rid, (_, n, _) in zip(rids(case), case["requests"])}
    return grid(
        steps,
        prompts,
        title="Tokens, iteration by iteration",
        tokens=True,
        note="Blue prefills, orange decodes.",
    )


def size(case: Case) -> float:
    """Small cases first: all the tokens, and the requests."""
    return sum(n + m for _, n, m in case["requests"]) + 2 * len(case["requests"])


Moment = tuple[Before, dict[int, int], int]  # what stood there, {rid: tokens} of the right step, the budget


def moments(case: Case, solution: Program) -> tuple[Moment, ...]:
    """Each step that the right run decided, with what it decided on."""
    key = solution, repr(case)
    if key not in _MOMENTS:
        steps = right(case, solution)
        _MOMENTS[key] = tuple(
            (was, {row[0]: row[2] for row in step}, case["budget"])
            for k, (was, step) in enumerate(zip(standings(case, steps), steps))
            if k >= len(case.get("given", ()))
        )
        _trim(_MOMENTS)
    return _MOMENTS[key]


def somewhen(solution: Program, met: Callable[[Before, dict[int, int], int], Any]) -> Callable[[Case], bool]:
    """A condition on cases: in some step of the right run this is met."""
    return lambda case: any(met(*moment) for moment in moments(case, solution))


def right(case: Case, solution: Program) -> list[list[list[Any]]]:
    """What the solution does."""
    key = solution, repr(case)
    if key not in _RIGHT:
        _RIGHT[key] = serve_case(solution, case)
        _trim(_RIGHT)
    return _RIGHT[key]


# Right runs are the same for every program that is checked, and small cases for every check.
_RIGHT: dict[tuple[Program, str], list[list[list[Any]]]] = {}
_MOMENTS: dict[tuple[Program, str], tuple[Moment, ...]] = {}


def _trim(kept: dict[Any, Any]) -> None:
    while len(kept) > 2000:
        kept.pop(next(iter(kept)))


def idle(case: Case) -> bool:
    """Whether a request comes long after all before it can be done."""
    rows = case["requests"]
    work = 0
    for (arrival, n_prompt, n_output), (later, _, _) in pairwise(rows):
        work = max(work, arrival) + n_prompt + n_output
        if later > work:
            return True
    return False


@cache
def _small(tight: bool) -> tuple[Case, ...]:
    """The same small workloads in every check, of two and three requests."""
    rng = random.Random(11)
    found: dict[str, Case] = {}
    while len(found) < 70:
        n = rng.choice((2, 2, 3, 3, 4))
        rows = [
            (rng.choice((0, 0, 1, 2, 3)), rng.choice((1, 2, 3, 4, 5, 7, 9)), rng.choice((1, 2, 3, 5)))
            for _ in range(n)
        ]
        rows = [(0, *rows[0][1:]), *sorted(rows[1:])]
        budget = rng.choice((1, 2, 3, 4, 4, 5, 8))
        case = {"budget": budget, "requests": rows}
        if tight or budget >= n_decoding(case):
            found[str(case)] = case
    return tuple(found.values())


def n_decoding(case: Case) -> int:
    """Requests that will decode: those that say more than their first token."""
    return sum(n_output > 1 for _, _, n_output in case["requests"])


#: Servers on which another policy has run until now: what no run of stall-free batching leads to.
HANDED_OVER: tuple[Case, ...] = (
    {"budget": 1, "requests": [(0, 3, 2), (1, 1, 4)], "given": [{1: 2}, {2: 1}]},
    {"budget": 2, "requests": [(0, 6, 2), (1, 1, 3), (1, 1, 4)], "given": [{1: 5}, {2: 1, 3: 1}]},
    {"budget": 3, "requests": [(0, 5, 3), (0, 7, 2), (1, 2, 3)], "given": [{1: 4, 2: 3}, {3: 2}]},
    {"budget": 3, "requests": [(0, 9, 2), (0, 9, 2), (1, 2, 2)], "given": [{1: 2, 2: 5}]},
    # Who is half done came after one that waits; two are, and the later one was admitted first.
    {"budget": 3, "requests": [(0, 2, 1), (0, 6, 2), (1, 7, 2)], "given": [{1: 2}, {3: 3}]},
    {"budget": 3, "requests": [(0, 2, 1), (0, 9, 1), (1, 8, 2)], "given": [{1: 2}, {3: 3}, {2: 3}]},
    # Three half-done prompts end in one iteration, and room is left for one that waits.
    {"budget": 12, "requests": [(0, 4, 2), (0, 4, 2), (0, 4, 2), (0, 9, 2)], "given": [{1: 1, 2: 2, 3: 3}]},
)


#: Numbers say nothing about who came first: a policy that goes by them is caught here.
OUT_OF_ORDER: tuple[Case, ...] = (
    {"budget": 2, "requests": [(0, 2, 1), (0, 2, 1)], "rids": (2, 1)},
    {"budget": 4, "requests": [(0, 3, 2), (0, 3, 2), (0, 2, 2)], "rids": (2, 3, 1)},
    {"budget": 3, "requests": [(0, 5, 2), (1, 4, 2), (1, 4, 1)], "rids": (3, 1, 2)},
)

#: Two with as much to do, and too little for either: one gets all of it.
TWINS: Case = {"budget": 4, "requests": [(0, 9, 2), (0, 9, 2), (1, 3, 2)]}

#: A half-done prompt with hardly less left than a newcomer has: what it has cached must not count.
HALF_DONE: Case = {"budget": 2, "requests": [(0, 12, 1), (3, 7, 1)]}
#: The same with a thousand cached, one token less left than a newcomer has, and one more.
MUCH_DONE: tuple[Case, ...] = (
    {"budget": 100, "requests": [(0, 1250, 1), (12, 51, 1)]},
    {"budget": 100, "requests": [(0, 1251, 1), (12, 50, 1)]},
)

#: Each came before a shorter one: the shortest of all stands at the end of a long queue.
FALLING: Case = {"budget": 6, "requests": [(0, n, 1) for n in range(40, 20, -1)]}

#: Many in one iteration, or much, or many iterations: a policy that has a limit or a grain of its own is caught here.
CROWDS: tuple[Case, ...] = (
    {"budget": MOST_SERVED, "requests": [(0, 1, 2)] * MOST_SERVED},
    {"budget": 274, "requests": [*[(0, 1, 2)] * 253, (0, 30, 2), (0, 20, 2), (0, 5, 2)]},
    {"budget": 40, "requests": [(0, 2, 2)] * 18},
    {"budget": 2048, "requests": [(0, 100, 9), (0, 9000, 2), (1, 4099, 2), (1, 4098, 2)]},
    {"budget": 99_000, "requests": [(0, 100, 4), (0, 99_400, 2), (1, MOST_TOKENS, 2), (1, 99_900, 2)]},
    {"budget": 70_000, "requests": [(0, 30_000, 2), (0, 35_500, 2), (0, 3_000, 2), (0, 9_000, 2)]},
    {"budget": 24, "requests": [*[(0, 1, 4)] * 12, *[(1, 1, 2)] * 10]},
    {"budget": 4, "requests": [(0, 3, 290), (0, 2, 280), (265, 9, 3)]},
)


def cases(rng: random.Random, *, tight: bool = False) -> Iterator[Case]:
    """Small workloads, the same each time, then larger ones drawn.

    tight: budgets may be smaller than the number of decodes
    """
    yield from _small(tight)
    yield from () if tight else HANDED_OVER
    yield from OUT_OF_ORDER
    yield TWINS
    yield HALF_DONE
    yield from MUCH_DONE
    yield FALLING
    yield from CROWDS
    for _ in range(30):
        n_requests, lines, now = rng.randint(3, 7), [], 0
        budget = rng.randint(1 if tight else 3, 12)
        for _ in range(n_requests):
            lines.append(
                (
                    now,
                    rng.choice((1, 2, rng.randint(1, budget), rng.randint(1, 3 * budget))),
                    rng.choice((1, 1, rng.randint(1, 7))),
                )
            )
            now += rng.choice((0, 0, 0, 1, 1, 2, 40))
        numbers = rng.sample(range(1, n_requests + 1), n_requests)
        case: Case = {"budget": budget, "requests": lines, "rids": numbers}
        if not tight:
            case["budget"] = max(budget, n_decoding(case))
        yield case
