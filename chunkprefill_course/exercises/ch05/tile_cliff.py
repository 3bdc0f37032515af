"""Exercise: a larger budget that is slower; found by asking the clock."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

from chunkprefill_course.exercises.ch05.choose_budget import StepSeconds, case_of, prices, steps
from chunkprefill_course.exercises.texts import prose
from chunkprefill_course.forms.amount_bars import bars
from chunkprefill_course.forms.answers import Plain, Unusable, apart, figure, items, told
from chunkprefill_course.forms.calling import changed
from chunkprefill_course.forms.exercise import Case, Exercise, Wrong
from chunkprefill_course.forms.feedback import counted
from chunkprefill_course.forms.running import Program
from chunkprefill_course.forms.variants import Variant


def solution(seconds, budgets, n_decodes, n_prompt):
    """Every budget is walked through; then each larger one is compared with each smaller one."""
    taken = {}
    for budget in budgets:
        cached, taken[budget] = 0, 0.0
        while cached < n_prompt:
            chunk = min(budget - n_decodes, n_prompt - cached)
            taken[budget] += seconds(chunk, cached, n_decodes)
            cached += chunk
    for small in budgets:
        for large in budgets:
            if small < large and taken[small] < taken[large]:
                return small, large


def _with(*swaps: tuple[str, str]) -> Variant:
    return Variant(solution, *swaps)


def total(case: Case, budget: int) -> float:
    """Seconds of all the document's steps."""
    return sum(steps(case, budget))


def cliffs(case: Case) -> list[tuple[int, int]]:
    """All pairs in which the larger budget is slower."""
    pairs = combinations(sorted(case["budgets"]), 2)
    return [(small, large) for small, large in pairs if total(case, small) < total(case, large) * (1 - 1e-9)]


def tied(case: Case) -> bool:
    """Whether two budgets take exactly as many steps that take exactly as long."""
    taken = [tuple(steps(case, budget)) for budget in case["budgets"]]
    return len(set(taken)) < len(taken)


def clear(case: Case) -> bool:
    """Whether no two budgets take equally long, apart from rounding."""
    pairs = combinations([total(case, budget) for budget in case["budgets"]], 2)
    return all(abs(one - other) > 1e-6 * one for one, other in pairs)


def without_cache(seconds, budget, n_decodes, n_prompt):
    """Seconds under a budget, if no chunk had anything before it."""
    size = budget - n_decodes
    starts = range(0, n_prompt, size)
    return sum(seconds(min(size, n_prompt - start), 0, n_decodes) for start in starts)


def without_rest(seconds, budget, n_decodes, n_prompt):
    """Seconds of the whole chunks."""
    size = budget - n_decodes
    return sum(seconds(size, start, n_decodes) for start in range(0, n_prompt - size + 1, size))


def _misleads(case: Case, measure: Callable[..., float]) -> bool:
    """Whether most pairs that are a cliff by this measure are none."""
    taken = {b: measure(StepSeconds(case), b, case["n_decodes"], case["n_prompt"]) for b in case["budgets"]}
    seeming = [(a, b) for a, b in combinations(sorted(taken), 2) if taken[a] < taken[b]]
    return 2 * sum(pair in cliffs(case) for pair in seeming) < len(seeming)


def cases(rng: random.Random) -> Iterator[Case]:
    """A few that tell much, then machines with tiles."""
    yield case_of((1_000, 40, 0.001, 0), (256, 700, 320), tile=128, n_decodes=4, n_prompt=4096)
    yield case_of((1_000, 40, 0.0, 0), (960, 128, 129, 96), tile=128, n_decodes=0, n_prompt=4096)
    yield case_of((1_000, 40, 0.0, 100), (144, 128, 1032), tile=128, n_decodes=8, n_prompt=1024)
    yield case_of((8_000, 40, 0.001, 50), (64, 300, 256, 512), tile=128, n_decodes=16, n_prompt=2000)
    yield case_of((6_000, 40, 0.0, 0), (128, 320, 384, 400), tile=128, n_decodes=0, n_prompt=1025)
    yield case_of((6_000, 40, 0.0, 0), (300, 512, 128, 129), tile=128, n_decodes=0, n_prompt=512)
    yield case_of((6_000, 40, 0.0, 0), (600, 650, 1024, 1025), tile=1024, n_decodes=0, n_prompt=2000)
    # What a chunk reads of the cache is a large part of its price here.
    yield case_of((500, 40, 0.05, 50), (1024, 600, 384, 128), tile=64, n_decodes=4, n_prompt=1000)
    yield case_of((500, 40, 0.05, 50), (64, 700, 384, 600), tile=64, n_decodes=4, n_prompt=2000)
    yield case_of((1_000, 40, 0.05, 50), (320, 300, 128, 512), tile=64, n_decodes=4, n_prompt=1024)
    # The rest of the prompt decides.
    yield case_of((4_000, 20, 0.001, 50), (320, 700, 260, 512), tile=64, n_decodes=0, n_prompt=1024)
    yield case_of((500, 20, 0.001, 50), (320, 256, 512, 300), tile=64, n_decodes=4, n_prompt=1024)
    # As many budgets as there may be, and one cliff among the middle ones; and the largest budgets.
    middle = (160, 132, 520, 192, 640, 320, 256, 768)
    yield case_of((2_000, 20, 0.0, 400), middle, tile=128, n_decodes=8, n_prompt=5000)
    middle = (320, 640, 390, 520, 260, 132, 512, 1300)
    yield case_of((6_000, 40, 0.001, 400), middle, tile=128, n_decodes=16, n_prompt=4096)
    # All of it within a millisecond.
    yield case_of((10, 0.5, 0.0, 0), (192, 64, 128), tile=128, n_decodes=0, n_prompt=384)
    large = (16_384, 8_193, 8_192, 16_383)
    yield case_of((1_000, 40, 0.0, 10), large, tile=8192, n_decodes=0, n_prompt=131_072)
    made = 0
    while made < 12:
        case = case_of(
            (rng.choice((500, 2_000, 4_000)), rng.choice((20, 40, 90)), rng.choice((0.001, 0.004)), 50),
            tuple(rng.sample((64, 96, 128, 132, 160, 256, 260, 320, 384, 512, 1024), 4)),
            tile=rng.choice((64, 128)),
            n_decodes=rng.choice((0, 4, 8, 16)),
            n_prompt=rng.choice((1024, 1500, 4096)),
        )
        if cliffs(case) and clear(case):
            made += 1
            yield case


def want(case: Case) -> list[int]:
    """One such pair."""
    return list(cliffs(case)[0])


def run(program: Program, case: Case) -> Any:
    """Call it with a clock to ask."""
    budgets = list(case["budgets"])
    value = program(StepSeconds(case), budgets, case["n_decodes"], case["n_prompt"])
    if budgets != list(case["budgets"]):
        raise Unusable(changed("budgets", budgets))
    return items(value, "a pair (smaller, larger) of the budgets")


def judge(case: Case, value: Plain) -> str:
    """Two of the budgets, the smaller one first, and the larger one slower."""
    if len(value) != 2 or any(each not in case["budgets"] for each in value):
        return f"it returned {told(value)}; expected a pair (smaller, larger) out of {list(case['budgets'])}"
    small, large = value
    if small >= large:
        return f"it returned {told(value)}; the smaller budget comes first, and they differ"
    if (small, large) in cliffs(case):
        return ""
    times = apart(1e3 * total(case, small), 1e3 * total(case, large))
    n = [counted(len(steps(case, budget)), "step") for budget in (small, large)]
    return (
        f"with budget {small:,} the document takes {times[0]} ms in {n[0]}, with {large:,} it takes {times[1]} ms in "
        f"{n[1]}: the larger is not slower"
    )


def picture(case: Case, value: Plain) -> str:
    """The document's time under each budget."""
    rows = [
        (f"budget {b}", 1e3 * total(case, b), "trouble" if b in value else "prefill")
        for b in sorted(case["budgets"])
    ]
    return bars(rows, unit="ms", title="All steps of the document")


def show(case: Case) -> str:
    """The server in words."""
    return (
        f"budgets {', '.join(map(figure, case['budgets']))}; {counted(case['n_decodes'], 'decode')}, a document of "
        f"{counted(case['n_prompt'], 'token')}; {prices(case)}"
    )


tile_cliff = Exercise(
    id="tile-cliff",
    title="A larger budget that is slower",
    name="cliff",
    prompt=prose("tile-cliff"),
    starter="def cliff(seconds, budgets, n_decodes, n_prompt):\n    ...",
    example=(case_of((1_000, 40, 0.0, 0), (128, 192), tile=128, n_decodes=0, n_prompt=3840),),
    cases=cases,
    conditions={
        "most pairs are no cliff": lambda c: 2 * len(cliffs(c)) < len(list(combinations(c["budgets"], 2))),
        "the list is out of order": lambda c: list(c["budgets"]) != sorted(c["budgets"]),
        "eight budgets, one cliff among the middle ones": lambda c: (
            len(c["budgets"]) == 8
            and len(cliffs(c)) == 1
            and not {*sorted(c["budgets"])[:3], *sorted(c["budgets"])[-2:]} & {*cliffs(c)[0]}
        ),
        "budgets of thousands, and a document as long as there may be": lambda c: (
            min(c["budgets"]) > 8000 and c["n_prompt"] == 131_072
        ),
        "less than a millisecond in all": lambda c: max(total(c, b) for b in c["budgets"]) < 5e-4,
        "decodes share the tile": lambda c: c["n_decodes"] > 0,
        "no decodes": lambda c: c["n_decodes"] == 0,
        "two budgets that take equally long": tied,
        "what is cached decides": lambda c: _misleads(c, without_cache),
        "the last chunk decides": lambda c: _misleads(c, without_rest),
        "the two largest are no cliff": lambda c: tuple(sorted(c["budgets"])[-2:]) not in cliffs(c),
        "the two smallest are no cliff": lambda c: tuple(sorted(c["budgets"])[:2]) not in cliffs(c),
    },
    run=run,
    want=want,
    judge=judge,
    picture=picture,
    show=show,
    size=lambda case: len(case["budgets"]) * 10_000 + case["n_prompt"],
    solution=solution,
    wrong=(
        Wrong(
            _with(("if small < large and taken[small] < taken[large]:", "if small < large:")),
            "It takes any two budgets. Usually the larger one is faster; compare the times.",
        ),
        Wrong(
            _with(
                (
                    "taken[budget] += seconds(chunk, cached, n_decodes)",
                    "taken[budget] = seconds(chunk, cached, n_decodes)",
                )
            ),
            "It compares single steps. A step of a larger budget usually takes longer, but there are "
            "fewer of them: add them up.",
        ),
        Wrong(
            _with(
                (
                    "if small < large and taken[small] < taken[large]:",
                    "if large == max(budgets) and small < large:",
                )
            ),
            "It assumes that the largest budget is the slower one. A cliff is where a new tile begins, "
            "not at the end of the list.",
        ),
    ),
    slips=(
        Wrong(
            _with(("seconds(chunk, cached, n_decodes)", "seconds(chunk, 0, n_decodes)")),
            "Every chunk is priced as if it were the first. A later one reads all the cache before it, and "
            "takes longer.",
        ),
        Wrong(
            _with(
                ("while cached < n_prompt:", "while cached + budget - n_decodes <= n_prompt:"),
            ),
            "Only whole chunks are counted. What is left of the prompt takes a step as well.",
        ),
        Wrong(
            _with(("taken[small] < taken[large]", "taken[small] > taken[large]")),
            "In this pair the larger budget is faster: that is the rule, and the question asks for the "
            "exception.",
        ),
        Wrong(
            _with(("return small, large", "return large, small")),
            "The two are in the wrong order: the smaller budget comes first.",
        ),
    ),
    hints=(
        "What do you have to compare between two budgets?",
        "Walk through the document for each budget, as in the exercise before, and add up the steps.",
        "Keep `taken[budget]`; then look for two budgets with `small < large and taken[small] < taken[large]`.",
    ),
    minutes=12,
    level="analyse",
)
