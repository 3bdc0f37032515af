"""Exercise: a decision that is quadratic in the requests, to be made linear; every look at a name counts."""

from __future__ import annotations

import random
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping
from functools import total_ordering
from html import escape
from typing import Any

from chunkprefill.plots.style import Canvas
from chunkprefill_course.exercises.texts import prose
from chunkprefill_course.forms.answers import Plain, Unusable, figure, is_mapping, told, whole
from chunkprefill_course.forms.calling import changed
from chunkprefill_course.forms.exercise import Case, Exercise, Wrong
from chunkprefill_course.forms.feedback import counted
from chunkprefill_course.forms.running import Program
from chunkprefill_course.forms.variants import Variant

MOST = 25  # looks at names that a request may take
ENDLESS = 400  # looks a request after which a program is stopped


class Meter:
    """Counts how often a name is looked at, in whatever way."""

    def __init__(self, most: int) -> None:
        self.n, self.most, self.on = 0, most, False

    def look(self) -> None:
        if self.on:
            self.n += 1
            if self.n > self.most:
                raise Unusable(f"it looked at names {self.n:,} times and was stopped")


@total_ordering
class Name:
    """A request's name. To compare it, to hash it and to write it down are looks, and are counted.

    Its order among names is that of their hashes, not of arrival, and it may print as another does.
    """

    __slots__ = ("_meter", "_number", "_scattered", "_text")

    def __init__(self, number: int, meter: Meter, scattered: int, text: str = "") -> None:
        self._number, self._meter, self._scattered, self._text = (
            number,
            meter,
            scattered,
            text or f"r{number}",
        )

    def __eq__(self, other: object) -> bool:
        self._meter.look()
        return isinstance(other, Name) and self._number == other._number

    def __lt__(self, other: Name) -> bool:
        self._meter.look()
        return (self._scattered, -self._number) < (other._scattered, -other._number)

    def __hash__(self) -> int:
        self._meter.look()
        return self._scattered

    def __repr__(self) -> str:
        self._meter.look()
        return self._text

    def __copy__(self) -> Name:
        return self

    def __deepcopy__(self, _: object) -> Name:
        return self


class Names(list):
    """A list of names: each one that is handed out is a look."""

    def __init__(self, names: Iterable[Name], meter: Meter) -> None:
        super().__init__(names)
        self._meter = meter

    def __iter__(self) -> Iterator[Name]:
        for name in list.__iter__(self):
            self._meter.look()
            yield name

    def __reversed__(self) -> Iterator[Name]:
        for name in list.__reversed__(self):
            self._meter.look()
            yield name

    def __getitem__(self, index: Any) -> Any:
        found = list.__getitem__(self, index)
        for _ in found if isinstance(found, list) else [found]:
            self._meter.look()
        return found

    def __add__(self, other: Iterable[Any]) -> list[Any]:
        return [*self, *other]

    def copy(self) -> list[Name]:
        return self[:]


class _Rows(ItemsView):
    def __init__(self, pending: Pending) -> None:
        super().__init__(pending)
        self._pending = pending

    def __reversed__(self) -> Iterator[tuple[Name, int]]:
        return ((name, self._pending[name]) for name in reversed(self._pending))


class _Keys(KeysView):
    def __init__(self, pending: Pending) -> None:
        super().__init__(pending)
        self._pending = pending

    def __reversed__(self) -> Iterator[Name]:
        return reversed(self._pending)


class Pending(dict):
    """Tokens by name: each name that is handed out is a look, as in a list of names."""

    def __init__(self, rows: Iterable[tuple[Name, int]], meter: Meter) -> None:
        super().__init__(rows)
        self._meter = meter

    def __iter__(self) -> Iterator[Name]:
        for name in dict.__iter__(self):
            self._meter.look()
            yield name

    def __reversed__(self) -> Iterator[Name]:
        for name in dict.__reversed__(self):
            self._meter.look()
            yield name

    def keys(self) -> Any:
        return _Keys(self)

    def items(self) -> Any:
        return _Rows(self)

    def copy(self) -> dict[Name, int]:
        return dict(self.items())

    def __or__(self, other: Any) -> Any:
        return self.copy() | dict(other)


def solution(requests, decoding, pending, budget):
    """What is in the plan already decodes: a dict is asked, no list searched."""
    plan = dict.fromkeys(decoding, 1)
    left = budget - len(plan)
    for name in requests:
        if name not in plan and left > 0:
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


def set_in_the_loop(requests, decoding, pending, budget):
    """A set, made anew for every request."""
    plan, left = {}, budget
    for name in requests:
        if name in set(decoding):
            plan[name] = 1
            left -= 1
    for name in requests:
        if name not in set(decoding) and left > 0:
            plan[name] = min(pending[name], left)
            left -= plan[name]
    return plan


def by_text(requests, decoding, pending, budget):
    """Names looked up by what they print."""
    known = {str(name) for name in decoding}
    plan = dict.fromkeys(decoding, 1)
    left = budget - len(plan)
    for name in requests:
        if str(name) not in known and left > 0:
            plan[name] = min(pending[name], left)
            left -= plan[name]
    return plan


def in_a_text(requests, decoding, pending, budget):
    """Searches the text of the list."""
    plan = dict.fromkeys(decoding, 1)
    left = budget - len(plan)
    for name in requests:
        if str(name) not in str(decoding) and left > 0:
            plan[name] = min(pending[name], left)
            left -= plan[name]
    return plan


TEST = "if name not in plan and left > 0:"
LEFT = "left = budget - len(plan)"
LINE = "for name in requests:"


def _with(*swaps: tuple[str, str]) -> Variant:
    return Variant(solution, *swaps)


MOST_TOKENS = 1_000_000  # to come, and of a budget: what the prompt allows
#: decoding, pending and budget of few requests, in which plans differ
FEW: tuple[tuple[tuple[int, ...], tuple[int, ...], int], ...] = (
    ((), (5, 1), 3),
    ((), (5, 1), 6),
    ((), (5, 4, 3), 8),
    ((0, 1), (1, 1, 5), 1),
    ((0, 1), (1, 1, 5), 2),
    ((0, 1), (1, 1, 5), 3),
    ((1,), (1, 1), 1),
    ((0,), (1, 1, 1), 2),
    ((1,), (6, 1, 4), 3),
    ((1,), (6, 1, 4), 8),
    ((2,), (9, 2, 1), 6),
    ((0, 1, 2), (1, 1, 1), 2),
    ((0, 2), (1, 3, 1, 3), 6),
    ((0, 2), (1, 3, 1, 3), 8),
    ((), (2, 2, 2, 2), 5),
    # As many requests, decodes and tokens as above, and another plan.
    ((0,), (1, 6, 4), 3),
    ((1,), (4, 1, 6), 8),
    ((), (3, 9), 6),
    ((1, 3), (4, 1, 2, 1), 8),
    ((), (MOST_TOKENS, MOST_TOKENS - 1), MOST_TOKENS),
    ((1,), (MOST_TOKENS - 2, 1, 5), MOST_TOKENS),
)


def _case(decoding: Iterable[int], pending: Iterable[int], budget: int, seed: int) -> Case:
    tokens = list(pending)
    return {"n": len(tokens), "decoding": list(decoding), "pending": tokens, "budget": budget, "hash": seed}


def cases(rng: random.Random) -> Iterator[Case]:
    """A few requests, for the plan; many of them, for the looks."""
    for k, few in enumerate(FEW):
        yield _case(*few, k)
    for n in (*(rng.randint(2, 8) for _ in range(25)), 32, 64, 128, 200):
        n_decodes = rng.randint(0, n) if n < 10 else rng.randint(n // 2, n - n // 4)
        decoding = sorted(rng.sample(range(n), n_decodes))
        pending = [1 if i in decoding else rng.choice((1, rng.randint(2, 40))) for i in range(n)]
        prompts = sum(pending) - n_decodes
        yield _case(decoding, pending, max(1, n_decodes + rng.randint(-2, prompts + 2)), rng.randrange(10**6))
    for n_decodes in (
        26,
        32,
        40,
        64,
    ):  # few decodes beside many prompts: each prompt may look for itself among them
        decoding = sorted(rng.sample(range(400), n_decodes))
        pending = [1 if i in decoding else rng.randint(1, 9) for i in range(400)]
        yield _case(decoding, pending, sum(pending) - 1, rng.randrange(10**6))
    many = [1 if i % 3 else rng.randint(1, 9) for i in range(1100)]
    yield _case([i for i in range(1100) if i % 3 == 1], many, sum(many) - 2, rng.randrange(10**6))


def names(plan: dict[int, int]) -> str:
    """`r1: 1, r3: 12`, the first six of them."""
    said = [f"r{i}: {tokens}" for i, tokens in plan.items()]
    return ", ".join(said[:6]) + (", …" if len(said) > 6 else "")


def right(case: Case) -> dict[int, int]:
    """Tokens by request: 1 for each that decodes, then what is left, in the order of arrival."""
    plan = dict.fromkeys(case["decoding"], 1)
    left = case["budget"] - len(plan)
    for i, pending in enumerate(case["pending"]):
        if i not in plan and left > 0:
            plan[i] = min(pending, left)
            left -= plan[i]
    return plan


def want(case: Case) -> dict[str, Any]:
    """The plan, and as many looks as are allowed."""
    return {"returned": [[i, tokens] for i, tokens in sorted(right(case).items())], "looks": case["n"]}


def run(program: Program, case: Case) -> Any:
    """Call it on names that count how often they are looked at."""
    n, meter, draw = case["n"], Meter(ENDLESS * case["n"]), random.Random(case["hash"])
    hashes = [draw.getrandbits(60) for _ in range(n)]
    for i in range(3, n, 4):
        hashes[i] = hashes[i - 1]  # two names may have one hash, as any two things may
    # And two may print alike: what tells them apart is `==`.
    texts = [f"r{i - 1 if i % 4 == 3 else i}" for i in range(n)]
    every = [Name(i, meter, hashes[i], texts[i]) for i in range(n)]
    # Equal and not the same, as names from a message are.
    copies = [Name(i, meter, hashes[i], texts[i]) for i in case["decoding"]]
    pending = Pending(zip(every, case["pending"]), meter)
    requests, decoding = Names(every, meter), Names(copies, meter)
    meter.on = True
    plan = program(requests, decoding, pending, case["budget"])
    if hasattr(type(plan), "__next__"):
        plan = list(plan)
    looks, meter.on = meter.n, False
    if [id(name) for name in requests] != [id(name) for name in every]:
        raise Unusable(changed("requests"))
    if [id(name) for name in decoding] != [id(name) for name in copies]:
        raise Unusable(changed("decoding"))
    if list(dict.items(pending)) != list(zip(every, case["pending"])):
        raise Unusable(changed("pending"))
    if plan is None or plan is ...:
        return None
    if not is_mapping(plan):
        raise Unusable(f"it returned {told(plan)}; expected a dict of tokens by name")
    rows = [[_number(name), _tokens(name, plan)] for name in list(plan.keys())]
    return {"returned": sorted(rows, key=str), "looks": looks, "allowed": MOST * n}


def _number(name: Any) -> int | str:
    return name._number if isinstance(name, Name) else told(name, 30)


def _tokens(name: Any, plan: Mapping[Any, Any]) -> int | None:
    return whole(plan[name], "a whole number of tokens for each name")


def judge(case: Case, value: Plain) -> str:
    """First the plan, then how often names were looked at to find it."""
    plan = dict(value["returned"])
    wanted, n = right(case), case["n"]
    if strange := [name for name in plan if name not in range(n)]:
        return f"{strange[0]} is in the plan and is none of the requests"
    for i in range(n):
        if i in plan and i not in wanted:
            if not plan[i]:
                return f"request r{i} is in the plan with 0 tokens; a request that gets none is not in it"
            return f"request r{i} gets {counted(plan[i], 'token')}, and nothing is left for it"
    if plan != wanted:
        i = next(i for i in range(n) if plan.get(i) != wanted.get(i))
        got, true = counted(plan.get(i, 0), "token"), wanted.get(i, 0)
        return f"request r{i} gets {got}, where {figure(true)} {'is' if true == 1 else 'are'} right"
    looks = value["looks"]
    if looks > MOST * n:
        return (
            f"it looked at names {looks:,} times for {n} requests, {looks // n} times for each; at most {MOST} "
            f"for each, {MOST * n:,} in all, are allowed. Something is searched or rebuilt for every request"
        )
    return ""


def _compared(value: Plain) -> Any:
    """The plan; and, of a program that looks too often, how often."""
    return value["returned"], value["looks"] if value["looks"] > value["allowed"] else 0


def tell(case: Case, value: Plain) -> str:
    """The plan in words."""
    return f"the plan {names(dict(value['returned']))}"


def picture(case: Case, value: Plain) -> str:
    """The plan's tokens against the budget, and the comparisons that it took."""
    plan = dict(value["returned"])
    total, looks, allowed = sum(plan.values()), int(value["looks"]), MOST * case["n"]
    canvas = Canvas(168)
    canvas.text(0, 20, f"plan: {names(plan)}")
    bars = (
        ("tokens planned", total, case["budget"], "budget", "prefill"),
        ("looks at names", looks, allowed, "allowed", "scheduling"),
    )
    for k, (what, amount, most, limit, fill) in enumerate(bars):
        y = 52 + 60 * k
        canvas.text(0, y, f"{what}: {amount:,}", bold=True)
        canvas.text(canvas.width, y, f"{limit} {most:,}", anchor="end")
        longest = max(amount, most, 1)
        canvas.rect(0, y + 8, canvas.width * amount / longest, 18, "trouble" if amount > most else fill)
        canvas.line(canvas.width * most / longest, y + 4, canvas.width * most / longest, y + 30)
    said = f"Plan: {names(plan)}. {total} tokens, budget {case['budget']}."
    alt = f"{said} {looks} looks at names, {allowed} allowed."
    svg = canvas.svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1)
    return f'<div style="max-width:{canvas.width:.0f}px">{svg}</div>'


def show(case: Case) -> str:
    """The requests in words; a few of them one by one."""
    n, chosen = case["n"], [f"r{i}" for i in case["decoding"]]
    who = f"{', '.join(chosen) or 'none'} of them decode" if n < 9 else f"{len(chosen)} of them decode"
    if len(chosen) == 1:
        who += "s"
    return f"{counted(n, 'request')}, {who}; pending {_few(case['pending'])}; budget {case['budget']}"


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
    prompt=prose("write-linear"),
    starter="def plan_step(requests, decoding, pending, budget):\n    ...",
    about=SLOW,
    example=(_case((0,), (1, 6), 100, 0),),
    cases=cases,
    run=run,
    want=want,
    judge=judge,
    picture=picture,
    show=show,
    tell=tell,
    compared=_compared,
    conditions={
        "more than 1,024 requests, and the last of them run": lambda c: (
            c["n"] > 2**10 and max(right(c)) > 2**10
        ),
        "no decodes": lambda case: not case["decoding"] and case["n"] > 1,
        "only decodes": lambda case: len(case["decoding"]) == case["n"],
        "budget below the decodes": lambda case: case["budget"] < len(case["decoding"]) < case["n"],
        "budget of the decodes alone": lambda case: case["budget"] == len(case["decoding"]) < case["n"],
        "one token left": lambda case: case["budget"] == len(case["decoding"]) + 1 < case["n"],
        "a prompt of one token": lambda case: any(
            n == 1 and i not in case["decoding"] for i, n in enumerate(case["pending"])
        ),
        "a prompt of one token gets none": lambda case: any(
            n == 1 and i not in right(case) for i, n in enumerate(case["pending"])
        ),
        "a prompt before a decode": lambda case: len(case["decoding"]) > 0 and 0 not in case["decoding"],
        "two prompts get tokens": lambda case: len(right(case)) > len(case["decoding"]) + 1,
        "a prompt is cut": lambda case: any(n < case["pending"][i] for i, n in right(case).items()),
        "a long prompt before a short one, too little for both": lambda case: any(
            0 < right(case).get(i, 0) < n and min(case["pending"][i:]) < n
            for i, n in enumerate(case["pending"])
        ),
        "two print alike, one of them decodes": lambda case: any(
            (i in case["decoding"]) != (i - 1 in case["decoding"])
            and i in right(case)
            and i - 1 in right(case)
            for i in range(3, case["n"], 4)
        ),
        "many": lambda case: case["n"] >= 200,
    },
    size=lambda case: case["n"],
    solution=solution,
    wrong=(
        Wrong(
            slow,
            "`in` on a list walks it from the front. It is done for every request, so the looks grow "
            "with their square.",
        ),
        Wrong(
            _with((TEST, "if decoding.count(name) == 0 and left > 0:")),
            "`count` walks the whole list, each time. It looks like one call, but makes as many "
            "comparisons as there are decodes.",
        ),
        Wrong(
            _with((LEFT, "left = budget")),
            "The chunks get the whole budget. The decodes have used some of it: it is a limit on all tokens "
            "of the step.",
        ),
        Wrong(
            _with((LINE, "for name in sorted(requests, key=pending.get):")),
            "It serves the shortest first. That may be a good idea, but it is another policy: the plan "
            "should stay the same.",
        ),
        Wrong(
            _with(
                (TEST, "if name not in plan:"),
                ("min(pending[name], left)", "max(0, min(pending[name], left))"),
            ),
            "Requests that get nothing are in the plan with 0 tokens. A plan names only those that run.",
        ),
    ),
    slips=(
        Wrong(
            set_in_the_loop,
            "The set is built again for every request: each time the whole list is read and hashed. "
            "Build it once, before the loop.",
        ),
        Wrong(
            by_text,
            "Names are looked up by what they print. Two may print alike: use the names themselves, which a "
            "set and a dict compare by `==`.",
        ),
        Wrong(
            _with((LINE, "for name in sorted(requests):")),
            "The chunks go to the requests in the order of their names. The order of `requests` is that of "
            "arrival.",
        ),
        Wrong(
            _with((LINE, "for name in (list(pending)[i] for i in range(len(requests))):")),
            "All names are read from `pending` again for every request. Walk through them once.",
        ),
        Wrong(
            in_a_text,
            "The list is turned into a string for every request, and searched from its front like any list.",
        ),
        Wrong(
            _with((LINE, "for name in set(requests) - set(decoding):")),
            "A set has no order: the chunks go to the requests in the order of their hashes, not of arrival.",
        ),
        Wrong(
            _with((TEST, "if pending[name] > 1 and left > 0:")),
            "A request with one token to come is treated as a decode. A prompt can have one token left "
            "as well: `decoding` tells.",
        ),
        Wrong(
            _with((TEST, "if name not in plan and left:")),
            "When the budget is smaller than the number of decodes, what is left is negative, and so is "
            "the chunk that comes into the plan.",
        ),
        Wrong(_with(("left -= plan[name]", "pass")), "What a prompt gets is not subtracted from the budget."),
        Wrong(
            _with((LINE, "for name in reversed(requests):")),
            "The chunks go to the requests that arrived last. The order of `requests` is that of arrival.",
        ),
    ),
    hints=(
        "Where is a list searched? What would answer the same question without searching?",
        "A dict or a set finds a name by its hash: two looks, however many names there are.",
        "Begin with `plan = dict.fromkeys(decoding, 1)`; then `name not in plan` says who does not decode.",
    ),
    minutes=8,
    level="apply",
)
