"""Exercise: the token budget for a bound on the time between tokens, tried on servers not seen before."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from chunkprefill.plots.style import Canvas
from chunkprefill_course.exercises.texts import prose
from chunkprefill_course.forms.answers import Plain, Unusable, apart, figure, told, whole
from chunkprefill_course.forms.calling import changed
from chunkprefill_course.forms.exercise import Case, Exercise, Wrong
from chunkprefill_course.forms.feedback import counted
from chunkprefill_course.forms.running import Program
from chunkprefill_course.forms.variants import Variant


class StepSeconds:
    """Seconds of a step: a chunk of so many tokens, behind so many cached ones, beside so many decodes."""

    def __init__(self, case: Case) -> None:
        prices = (case["weights"], case["token"], case["pair"], case["decode"])  # µs
        self.weights, self.token, self.pair, self.decode = (1e-6 * price for price in prices)  # s
        self.tile = case["tile"]  # tokens: a tile that is begun is paid whole
        self.first = 1e-6 * case.get("first", 0)  # s more where nothing of a prompt is cached

    def __call__(self, chunk: int, cached: int, n_decodes: int) -> float:
        tokens = -(-(chunk + n_decodes) // self.tile) * self.tile
        linear = max(self.weights, self.token * tokens)
        linear += self.first if not cached else 0
        return linear + self.pair * chunk * (cached + chunk / 2) + self.decode * n_decodes


def solution(seconds, budgets, n_decodes, n_prompt, bound):
    """Each budget is tried from the first chunk to the last: its longest step, and all of them together."""
    soonest, best = float("inf"), None
    for budget in budgets:
        size, cached, total, longest = budget - n_decodes, 0, 0.0, 0.0
        while cached < n_prompt:
            chunk = min(size, n_prompt - cached)
            step = seconds(chunk, cached, n_decodes)
            total, longest, cached = total + step, max(longest, step), cached + chunk
        if longest <= bound and total < soonest:
            soonest, best = total, budget
    return best


SIZE = "size, cached, total, longest = budget - n_decodes, 0, 0.0, 0.0"
STEP = "step = seconds(chunk, cached, n_decodes)"
CHOICE = "longest <= bound and total < soonest"


def _with(*swaps: tuple[str, str]) -> Variant:
    return Variant(solution, *swaps)


def rule_of_thumb(seconds, budgets, n_decodes, n_prompt, bound):
    """The chunk that takes about as long as a decoding step."""
    decoding = seconds(0, 0, n_decodes)
    return min(budgets, key=lambda budget: abs(seconds(budget - n_decodes, 0, 0) - decoding))


def shortest_on_average(seconds, budgets, n_decodes, n_prompt, bound):
    """Takes the mean of the steps for their sum."""
    means = {}
    for budget in budgets:
        starts = range(0, n_prompt, budget - n_decodes)
        taken = [seconds(min(budget - n_decodes, n_prompt - at), at, n_decodes) for at in starts]
        if max(taken) <= bound:
            means[budget] = sum(taken) / len(taken)
    return min(means, key=lambda budget: means[budget])


def last_chunk(seconds, budgets, n_decodes, n_prompt, bound):
    """Asks for a last chunk that is whole, and takes the largest that fits."""
    fitting = []
    for budget in budgets:
        chunk = budget - n_decodes
        if seconds(chunk, n_prompt - chunk, n_decodes) <= bound:
            fitting.append(budget)
    return max(fitting, default=min(budgets))


def steps(case: Case, budget: int) -> list[float]:
    """Seconds of each step in which the document takes part."""
    clock, n, cached, taken = StepSeconds(case), case["n_decodes"], 0, []
    while cached < case["n_prompt"]:
        chunk = min(budget - n, case["n_prompt"] - cached)
        taken.append(clock(chunk, cached, n))
        cached += chunk
    return taken


def bound_s(case: Case) -> float:
    """The bound of a case in s; one that is given as a budget is that budget's own longest step, or a share of it."""
    if "just" in case:
        return case.get("share", 1) * max(steps(case, case["just"]))
    return 1e-3 * case["bound"]


def run(program: Program, case: Case) -> Any:
    """Call it with a clock to ask, never with the answer."""
    budgets = list(case["budgets"])
    value = program(StepSeconds(case), budgets, case["n_decodes"], case["n_prompt"], bound_s(case))
    if budgets != list(case["budgets"]):
        raise Unusable(changed("budgets", budgets))
    return whole(value, f"one of {list(case['budgets'])}")


def fitting(case: Case) -> list[int]:
    """Budgets under which no chat is silent for too long."""
    return [b for b in case["budgets"] if max(steps(case, b)) <= bound_s(case)]


def want(case: Case) -> int:
    """By trying all of them."""
    return min(fitting(case), key=lambda budget: sum(steps(case, budget)))


def judge(case: Case, value: Plain) -> str:
    """The budget is used on a server, and the chats are watched."""
    if value not in case["budgets"]:
        return f"it returned {told(value)}; expected one of {list(case['budgets'])}"
    taken, bound, best = steps(case, value), bound_s(case), want(case)
    if max(taken) > bound:
        gap, limit = apart(1e3 * max(taken), 1e3 * bound)
        return f"with budget {figure(value)} a chat is silent for {gap} ms, and the bound is {limit} ms"
    if sum(taken) > sum(steps(case, best)) * (1 + 1e-9):
        mine, theirs = apart(sum(taken), sum(steps(case, best)))
        return (
            f"budget {figure(value)} keeps the bound, and so does {figure(best)}: the document is done after "
            f"{mine} s in {counted(len(taken), 'step')} in place of {theirs} s in {len(steps(case, best))}"
        )
    return ""


def case_of(prices: tuple[float, ...], budgets: tuple[int, ...], *, tile: int = 1, **rest: Any) -> Case:
    """Prices in µs: weights, token, pair, decode."""
    return {
        **dict(zip(("weights", "token", "pair", "decode"), prices)),
        "tile": tile,
        "budgets": budgets,
        **rest,
    }


SMALL = (
    case_of((4_000, 90, 0.001, 50), (64, 128), n_decodes=32, n_prompt=2048, bound=14),
    case_of((4_000, 40, 0.001, 0), (256, 320), tile=128, n_decodes=4, n_prompt=4096, bound=100),
    case_of((4_000, 40, 0.001, 0), (320, 256), tile=128, n_decodes=4, n_prompt=4096, bound=100),
    case_of((4_000, 20, 0.001, 0), (260, 204), n_decodes=4, n_prompt=256, bound=100),
    case_of((4_000, 40, 0.0, 50), (128, 129, 64), tile=128, n_decodes=8, n_prompt=1024, bound=100),
    # The same question on another server, on which two of the budgets are too slow.
    case_of((4_000, 800, 0.0, 50), (128, 129, 64), n_decodes=8, n_prompt=1024, bound=100),
    case_of((4_000, 40, 0.01, 200), (512, 64, 256, 128), n_decodes=8, n_prompt=2048, just=128),
    case_of((6_000, 40, 0.004, 200), (128, 512, 256, 1024), n_decodes=16, n_prompt=1536, just=256),
    # The fastest is too slow by half a thousandth.
    case_of((4_000, 40, 0.01, 200), (512, 64, 256, 128), n_decodes=8, n_prompt=2048, just=128, share=0.9995),
    case_of((6_000, 40, 0.004, 200), (256, 1024, 128), n_decodes=16, n_prompt=1536, just=256, share=0.9995),
    case_of((12_000, 20, 0.001, 400), (64, 1024, 2048), n_decodes=4, n_prompt=300, bound=60),
    case_of((12_000, 90, 0.001, 200), (256, 128, 512), n_decodes=4, n_prompt=257, bound=50),
    case_of((2_000, 20, 0.01, 50), (400, 600, 1000, 200), n_decodes=0, n_prompt=1001, bound=19),
    case_of((4_000, 40, 0.0, 50), (129, 128, 64), tile=128, n_decodes=8, n_prompt=1024, bound=100),
    # The longest step grows with the budget, but not always: 300 breaks this bound, 200 and 360 keep it.
    case_of((4_000, 20, 0.05, 50), (200, 300, 360), tile=128, n_decodes=0, n_prompt=600, bound=12.5),
    case_of((4_000, 20, 0.05, 50), (360, 300, 200), tile=128, n_decodes=0, n_prompt=600, bound=12.5),
    # What is cached before a chunk makes the fastest budget too slow.
    case_of((12_000, 20, 0.01, 0), (512, 256, 1024), n_decodes=0, n_prompt=4096, bound=40),
    # A budget is slower than its neighbours on both sides.
    case_of((4_000, 40, 0.001, 50), (288, 160, 128, 512), tile=64, n_decodes=4, n_prompt=4096, bound=100),
    case_of((8_000, 40, 0.001, 50), (512, 264, 260, 64), tile=256, n_decodes=4, n_prompt=2048, bound=100),
    case_of((1_000, 20, 0.0, 50), (128, 192, 256, 320), tile=128, n_decodes=0, n_prompt=1024, bound=100),
    # The last step decides.
    case_of((4_000, 40, 0.001, 50), (320, 192, 128), tile=128, n_decodes=4, n_prompt=1500, bound=100),
    # The first step is the longest.
    case_of((2_000, 40, 0.0, 50), (64, 512, 128, 256), n_decodes=8, n_prompt=1024, bound=17, first=8_000),
    case_of((2_000, 40, 0.0, 50), (64, 512, 128, 256), n_decodes=8, n_prompt=2048, bound=15, first=4_000),
    # The smallest budget has not the shortest steps: a short last chunk takes one tile less.
    case_of((1_000, 40, 0.0, 0), (100, 128), tile=64, n_decodes=0, n_prompt=190, bound=100),
    # As many tokens as there may be, in a few steps or in thousands.
    case_of((4_000, 40, 0.0, 50), (72, 4_104, 8_200, 16_384), n_decodes=8, n_prompt=131_072, bound=1_000),
    case_of((4_000, 40, 0.0, 50), (72, 4_104, 16_384, 8_200), n_decodes=8, n_prompt=131_072, just=8_200),
    # As many budgets as there may be, the best of them last but one.
    case_of(
        (4_000, 40, 0.0, 50),
        (64, 129, 96, 40, 257, 24, 512, 513),
        tile=128,
        n_decodes=8,
        n_prompt=4096,
        bound=40,
    ),
)


def cases(rng: random.Random) -> Iterator[Case]:
    """A few that tell much, then machines, bounds and documents drawn; some with tiles, some too dear."""
    yield from SMALL
    made = 0
    while made < 24:
        tile = rng.choice((1, 1, 64, 128))
        steps_of = (64, 128, 256, 512, 1024) if tile == 1 else (96, 128, 160, 256, 288, 512)
        n_decodes = rng.choice((4, 8, 16, 32))
        case = case_of(
            (
                rng.choice((4_000, 6_000, 12_000, 18_000)),
                rng.choice((20, 40, 90)),
                rng.choice((0.001, 0.004, 0.01)),
                rng.choice((50, 200, 400)),
            ),
            tuple(rng.sample(steps_of, rng.randint(2, len(steps_of)))),
            tile=tile,
            n_decodes=n_decodes,
            n_prompt=rng.choice((200, 1536, 2048, 4096, 5000)),
            bound=rng.choice((14, 25, 40, 60, 100)),
        )
        if telling(case):
            made += 1
            yield case


def telling(case: Case) -> bool:
    """Whether some budget fits, several are open, and no hair's breadth decides."""
    longest = [max(steps(case, budget)) / bound_s(case) for budget in case["budgets"]]
    return min(longest) <= 1 and all(abs(share - 1) > 1e-6 for share in longest)


def _rises(case: Case, budgets: list[int]) -> bool:
    """Whether, on the way through these budgets, one is slower than the one before it."""
    totals = [sum(steps(case, budget)) for budget in budgets]
    return any(later > sooner * (1 + 1e-9) for sooner, later in pairwise(totals))


def _chosen(case: Case, key: Callable[[int], Any]) -> int:
    return max(fitting(case), key=key)


def picture(case: Case, value: Plain) -> str:
    """The steps of that run, one bar each, against the bound."""
    if value not in case["budgets"]:
        return ""
    taken = [1e3 * step for step in steps(case, value)]
    top, tall, bound = 40.0, 130.0, 1e3 * bound_s(case)
    most = max(*taken, bound)
    canvas = Canvas(top + tall + 34)
    wide = canvas.width / len(taken)
    for i, ms in enumerate(taken):
        high = tall * ms / most
        fill = "trouble" if ms > bound * (1 + 1e-9) else "prefill"
        canvas.rect(i * wide, top + tall - high, max(wide * 0.85, 0.6), high, fill)
    y = top + tall - tall * bound / most
    canvas.line(0, y, canvas.width, y, dash="6 4")
    longest, limit = apart(max(taken), bound)
    canvas.text(0, 20, f"budget {value:,}: longest step {longest} ms", bold=True)
    canvas.text(canvas.width, 20, f"bound {limit} ms", anchor="end")
    n = counted(len(taken), "step")
    canvas.text(
        0, top + tall + 24, f"{n}, {figure(sum(taken), digits=4)} ms in all; the broken line is the bound"
    )
    n_over = sum(ms > bound * (1 + 1e-9) for ms in taken)
    alt = f"Budget {value:,}: {n}, the longest {longest} ms, {n_over} of them longer than the bound of {limit} ms."
    image = canvas.picture(alt=alt, caption="To scale.", badge="simulated").image()
    return f'<div style="max-width:{canvas.width:.0f}px">{image}</div>'


def prices(case: Case) -> str:
    """What a step takes, in words."""
    tile = case["tile"]
    padded = f" (their number, decodes included, is rounded up to tiles of {tile})" if tile > 1 else ""
    first = f", and {case['first'] / 1e3:g} ms more in a document's first step" if case.get("first") else ""
    return (
        f"a step takes {case['weights'] / 1e3:g} ms for the weights or {case['token']} µs a token{padded}, "
        f"whichever is more, {1e3 * case['pair']:g} ns for each pair of a chunk, {case['decode']} µs for each "
        f"decode{first}"
    )


def show(case: Case) -> str:
    """The server in words."""
    return (
        f"budgets {', '.join(f'{b:,}' for b in case['budgets'])}; {counted(case['n_decodes'], 'decode')}, a "
        f"document of {counted(case['n_prompt'], 'token')}, bound {figure(1e3 * bound_s(case), digits=8)} ms; "
        f"{prices(case)}"
    )


EXAMPLE = case_of((12_000, 40, 0.001, 200), (64,), n_decodes=4, n_prompt=2048, bound=25)

choose_budget = Exercise(
    id="choose-budget",
    title="A budget for a bound",
    name="choose_budget",
    prompt=prose("choose-budget"),
    starter="def choose_budget(seconds, budgets, n_decodes, n_prompt, bound):\n    ...",
    example=(EXAMPLE,),
    cases=cases,
    conditions={
        "some fit, some do not": lambda case: 0 < len(fitting(case)) < len(case["budgets"]),
        "all fit": lambda case: len(fitting(case)) == len(case["budgets"]) > 1,
        "the largest that fits is not the best": lambda case: want(case) < max(fitting(case)),
        "nor the smallest": lambda case: min(fitting(case)) < want(case) < max(fitting(case)),
        "the one with the fewest steps is not the best": lambda case: (
            len(steps(case, want(case))) > min(len(steps(case, b)) for b in fitting(case))
        ),
        "the one with the longest step is not the best": lambda case: (
            want(case) != _chosen(case, lambda b: max(steps(case, b)))
        ),
        "the one with the shortest step is not the best": lambda case: (
            want(case) != _chosen(case, lambda b: -max(steps(case, b)))
        ),
        "the one whose steps but the last take the least is not the best": lambda case: (
            want(case) != min(fitting(case), key=lambda b: sum(steps(case, b)[:-1]))
        ),
        "the last in the list is not the best": lambda case: want(case) != fitting(case)[-1],
        "the first in the list is not the best": lambda case: want(case) != fitting(case)[0],
        "a step just as long as the bound": lambda case: "just" in case and want(case) == case["just"],
        "the fastest is too slow by a hair's breadth": lambda case: any(
            bound_s(case) < max(steps(case, b)) < bound_s(case) * 1.001
            and sum(steps(case, b)) < sum(steps(case, want(case))) * (1 - 1e-9)
            for b in case["budgets"]
        ),
        "the first chunk fits, the last does not": lambda case: any(
            steps(case, b)[0] <= bound_s(case) < max(steps(case, b)) for b in case["budgets"]
        ),
        "the decodes decide": lambda case: any(
            max(steps(case, b)) - 1e-6 * case["decode"] * case["n_decodes"]
            <= bound_s(case)
            < max(steps(case, b))
            for b in case["budgets"]
        ),
        "the last two fit, the first does not": lambda case: any(
            max(steps(case, b)[-2:]) <= bound_s(case) < steps(case, b)[0] and len(steps(case, b)) > 2
            for b in case["budgets"]
        ),
        "a smaller one is too slow, a larger one is the best": lambda case: any(
            b < want(case) and b not in fitting(case) for b in case["budgets"]
        ),
        "two budgets a token apart, and the larger is no better": lambda case: (
            want(case) + 1 in fitting(case) and case["budgets"].index(want(case)) > 0
        ),
        "two smaller ones that fit, the larger of them slower": lambda case: _rises(
            case, [b for b in sorted(fitting(case)) if b < want(case)]
        ),
        "two larger ones that fit, the smaller of them slower": lambda case: _rises(
            case, [b for b in sorted(fitting(case), reverse=True) if b > want(case)]
        ),
        "the smallest has not the shortest steps on average": lambda case: (
            min(fitting(case)) != _chosen(case, lambda b: -sum(steps(case, b)) / len(steps(case, b)))
        ),
        "a budget as large as there may be is the best": lambda case: want(case) == 16_384,
        "a document as long as there may be, and thousands of steps": lambda case: (
            case["n_prompt"] == 131_072 and len(steps(case, min(case["budgets"]))) > 2000
        ),
        "eight budgets, one of the last the best": lambda case: (
            len(case["budgets"]) == 8 and want(case) in case["budgets"][6:]
        ),
        "a budget larger than the prompt": lambda case: (
            max(case["budgets"]) - case["n_decodes"] > case["n_prompt"]
        ),
        "no decodes": lambda case: case["n_decodes"] == 0,
        "tiles": lambda case: case["tile"] > 1,
    },
    run=run,
    want=want,
    judge=judge,
    picture=picture,
    show=show,
    solution=solution,
    wrong=(
        Wrong(
            rule_of_thumb,
            "It takes the chunk that lasts about as long as a decoding step, and never looks at the bound.",
        ),
        Wrong(
            _with((STEP, "step = seconds(chunk, 0, n_decodes)")),
            "It asks for the price of the first chunk only. The last one reads all the cache before it, and "
            "takes longer.",
        ),
        Wrong(
            _with(
                (
                    STEP,
                    "step = seconds(chunk, cached, 0)",
                )
            ),
            "It asks for the price of the chunk alone. The decodes are in the same step, and make it longer.",
        ),
        Wrong(
            _with((CHOICE, "best is None or budget < best")),
            "It takes the smallest, to be safe. The bound is kept, but the document's passes read the "
            "weights again and again for nothing.",
        ),
    ),
    slips=(
        Wrong(
            shortest_on_average,
            "It takes the budget whose steps are the shortest on average. Short steps are many: what counts is all of "
            "them together.",
        ),
        Wrong(
            last_chunk,
            "It takes the largest budget whose last, whole chunk fits. The largest need not be the "
            "fastest: a tile that is begun is paid for as a whole. Add up the steps.",
        ),
        Wrong(
            _with((CHOICE, "longest <= bound and budget > (best or 0)")),
            "It takes the largest budget that keeps the bound. The largest need not be the fastest: a "
            "tile that is begun is paid for as a whole. Add up the steps.",
        ),
        Wrong(
            _with((CHOICE, "longest <= bound")),
            "It takes the last in the list that keeps the bound. The list has no particular order.",
        ),
        Wrong(
            _with((CHOICE, "longest <= bound and best is None")),
            "It takes the first in the list that keeps the bound. The list has no particular order.",
        ),
        Wrong(
            _with(
                ("total + step", "total + 1"),
            ),
            "It counts steps. Fewer steps can take longer if each of them is longer.",
        ),
        Wrong(
            _with(
                (CHOICE, "longest <= bound and -longest < soonest"),
                ("soonest, best = total", "soonest, best = -longest"),
            ),
            "It takes the budget with the longest step that keeps the bound. What counts is all steps together.",
        ),
        Wrong(
            _with(
                (CHOICE, "longest <= bound and longest < soonest"),
                ("soonest, best = total", "soonest, best = longest"),
            ),
            "It takes the budget with the shortest step. What counts is all steps together.",
        ),
        Wrong(
            _with((SIZE, SIZE.replace("budget - n_decodes", "budget"))),
            "The chunk gets the whole budget, but the decodes take `n_decodes` tokens of it.",
        ),
        Wrong(
            _with((CHOICE, "longest < bound and total < soonest")),
            "A step that takes exactly `bound` seconds is refused. It is allowed.",
        ),
        Wrong(
            _with((CHOICE, "total < soonest")),
            "It ignores the bound and takes the budget that is fastest for the document.",
        ),
        Wrong(
            _with(("chunk = min(size, n_prompt - cached)", "chunk = size")),
            "The last chunk is assumed to be as long as the others. It has only what is left of the prompt.",
        ),
    ),
    hints=(
        "The budget counts all tokens of a step. How many of them are the chunk's?",
        "Walk through the document, chunk by chunk, and ask `seconds` for each step. Which two numbers "
        "do you need?",
        "For each budget: `cached` from 0, `chunk = min(budget - n_decodes, n_prompt - cached)`; keep the "
        "longest step and the sum. Of the budgets whose longest is at most `bound`, take the least sum.",
    ),
    minutes=18,
    level="evaluate",
    size=lambda case: len(case["budgets"]) * 1000 + case["n_prompt"] + case["n_decodes"],
)
