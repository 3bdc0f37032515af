"""Exercise: the token budget for a bound on the time between tokens, tried on servers not seen before."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from chunkprefill.analysis.style import Canvas
from chunkprefill.analysis.timeline import lives
from chunkprefill.exercises.exercise import Case, Exercise, Wrong
from chunkprefill.exercises.running import Plain, Program
from chunkprefill.scheduling.core import Batch, Request
from chunkprefill.scheduling.policies import ChunkedPrefill
from chunkprefill.scheduling.trace import Trace
from chunkprefill.simulation.simulate import simulate


class Machine:
    """Seconds of a step: a chunk of so many tokens, behind so many cached ones, beside so many decodes."""

    def __init__(self, weights: float, token: float, pair: float, decode: float) -> None:
        self.weights, self.token, self.pair, self.decode = weights, token, pair, decode  # all in s

    def __call__(self, chunk: int, cached: int, n_decodes: int) -> float:
        linear = max(self.weights, self.token * (chunk + n_decodes))
        return linear + self.pair * chunk * (cached + chunk / 2) + self.decode * n_decodes

    def price(self, batch: Batch) -> float:
        """The same of a batch."""
        sums = batch.totals()
        pairs = sum(c * (p + c / 2) for p, c in sums.chunks)
        linear = max(self.weights, self.token * sums.n_tokens)
        return linear + self.pair * pairs + self.decode * sums.n_decodes


def solution(seconds, budgets, n_decodes, n_prompt, bound):
    """The last chunk of the prompt is the dearest; the decodes take their share of the budget."""
    fitting = []
    for budget in budgets:
        chunk = budget - n_decodes
        if seconds(chunk, n_prompt - chunk, n_decodes) <= bound:
            fitting.append(budget)
    return max(fitting)


def rule_of_thumb(seconds, budgets, n_decodes, n_prompt, bound):
    """The chunk that takes about as long as a decoding step."""
    decoding = seconds(0, 0, n_decodes)
    return min(budgets, key=lambda budget: abs(seconds(budget - n_decodes, 0, 0) - decoding))


def first_chunk(seconds, budgets, n_decodes, n_prompt, bound):
    """Looks at the first chunk only."""
    return max(b for b in budgets if seconds(b - n_decodes, 0, n_decodes) <= bound)


def chunk_alone(seconds, budgets, n_decodes, n_prompt, bound):
    """Forgets the decodes beside the chunk."""
    return max(b for b in budgets if seconds(b - n_decodes, n_prompt - b + n_decodes, 0) <= bound)


def smallest(seconds, budgets, n_decodes, n_prompt, bound):
    """To be on the safe side."""
    return min(budgets)


def machine(case: Case) -> Machine:
    """The server of a case; numbers there in µs."""
    return Machine(*(1e-6 * case[name] for name in ("weights", "token", "pair", "decode")))


def serve(case: Case, budget: int) -> Trace:
    """Chats decode; a document comes and is prefilled beside them under this budget."""
    long = 3 + case["n_prompt"] // (budget - case["n_decodes"]) + case["n_decodes"]
    requests = [Request(f"chat {i}", 0.0, 1, long) for i in range(1, case["n_decodes"] + 1)]
    cost = machine(case).price
    once = cost(Batch(("x",), (0,), (1,), (True,)))
    requests.append(Request("document", once / 2, case["n_prompt"], 2))
    return simulate(requests, ChunkedPrefill(budget), cost)


def silence(case: Case, budget: int) -> float:
    """The longest gap between two tokens of any chat, s."""
    told = lives(serve(case, budget))
    return max(life.longest for rid, life in told.items() if rid != "document")


def first_word(case: Case, budget: int) -> float:
    """The document's wait for its first token, s."""
    return lives(serve(case, budget))["document"].first_token


def run(program: Program, case: Case) -> Any:
    """Call it with a clock to ask, never with the answer."""
    return program(
        machine(case), list(case["budgets"]), case["n_decodes"], case["n_prompt"], 1e-3 * case["bound"]
    )


def want(case: Case) -> int:
    """By trying all of them."""
    return max(b for b in case["budgets"] if silence(case, b) <= 1e-3 * case["bound"])


def judge(case: Case, value: Plain) -> str:
    """The budget is used on a server, and the chats are watched."""
    if isinstance(value, bool) or not isinstance(value, int) or value not in case["budgets"]:
        return f"it returned `{str(value)[:60]}`; one of {list(case['budgets'])} is wanted"
    bound, gap = case["bound"], 1e3 * silence(case, value)
    if gap > bound:
        return f"with budget {value:,} a chat is silent for {gap:.1f} ms, and the bound is {bound} ms"
    larger = (b for b in sorted(case["budgets"], reverse=True) if b > value)
    best = next((b for b in larger if 1e3 * silence(case, b) <= bound), value)
    if value < best:
        waits = [f"{first_word(case, b):.2f} s" for b in (value, best)]
        return (
            f"budget {value:,} keeps the bound, and so does {best:,}: the document's first token comes "
            f"after {waits[0]} in place of {waits[1]}"
        )
    return ""


def cases(rng: random.Random) -> Iterator[Case]:
    """Machines, bounds and documents drawn; those left out where a hair's breadth would decide."""
    made = 0
    while made < 16:
        weights = rng.choice((4_000, 6_000, 12_000, 18_000))
        case = {
            "weights": weights, "token": rng.choice((20, 40, 90)), "pair": rng.choice((0.001, 0.004, 0.01)),
            "decode": rng.choice((50, 200, 400)), "budgets": (64, 128, 256, 512, 1024),
            "n_decodes": rng.choice((4, 8, 16)), "n_prompt": rng.choice((1536, 2048, 4096)),
            "bound": rng.choice((25, 40, 60, 100)),
        }  # fmt: skip
        if telling(case):
            made += 1
            yield case


def telling(case: Case) -> bool:
    """Whether some budgets fit and some do not, and none depends on where the last chunk happens to end."""
    clock, n, longest = machine(case), case["n_decodes"], case["n_prompt"]
    fits = []
    for budget in case["budgets"]:
        chunk = budget - n
        last = clock(chunk, longest - chunk, n)
        before = clock(chunk, max(longest - 2 * chunk, 0), n)
        if before <= 1e-3 * case["bound"] < 1.01 * last:
            return False
        fits.append(last <= 1e-3 * case["bound"])
    return any(fits) and not all(fits)


def picture(case: Case, value: Plain) -> str:
    """The steps of that run, one bar each, against the bound."""
    if value not in case["budgets"]:
        return ""
    steps = [1e3 * (s.end - s.start) for s in serve(case, value).steps]
    steps = steps[1:]  # the first one is the chats' own prompts
    top, tall, bound = 40.0, 130.0, case["bound"]
    most = max(*steps, bound)
    canvas = Canvas(top + tall + 34)
    wide = canvas.width / len(steps)
    for i, ms in enumerate(steps):
        high = tall * ms / most
        fill = "trouble" if ms > bound * (1 + 1e-9) else "prefill"
        canvas.rect(i * wide, top + tall - high, max(wide * 0.85, 0.6), high, fill)
    y = top + tall - tall * bound / most
    canvas.line(0, y, canvas.width, y, dash="6 4")
    canvas.text(0, 20, f"budget {value:,}: longest step {max(steps):.1f} ms", bold=True)
    canvas.text(canvas.width, 20, f"bound {bound} ms", anchor="end")
    canvas.text(0, top + tall + 24, f"{len(steps)} steps, one bar each; the broken line is the bound")
    n_over = sum(ms > bound * (1 + 1e-9) for ms in steps)
    alt = (
        f"Budget {value:,}: {len(steps)} steps, the longest {max(steps):.1f} ms, {n_over} of them longer "
        f"than the bound of {bound} ms."
    )
    image = canvas.picture(alt=alt, caption="To scale.", badge="simulated").image()
    return f'<div style="max-width:{canvas.width:.0f}px">{image}</div>'


def show(case: Case) -> str:
    """The server in words."""
    return (
        f"budgets {', '.join(f'{b:,}' for b in case['budgets'])}; {case['n_decodes']} decodes, a document of "
        f"{case['n_prompt']:,} tokens, bound {case['bound']} ms; "
        f"a step takes {case['weights'] / 1e3:g} ms for the weights or {case['token']} µs a token, whichever "
        f"is more, {1e3 * case['pair']:g} ns for each pair of a chunk, {case['decode']} µs for each decode"
    )


EXAMPLE = {
    "weights": 12_000, "token": 40, "pair": 0.001, "decode": 200, "budgets": (64,), "n_decodes": 4,
    "n_prompt": 2048, "bound": 25,
}  # fmt: skip

choose_budget = Exercise(
    id="choose-budget",
    title="A budget for a bound",
    name="choose_budget",
    prompt="Write `choose_budget(seconds, budgets, n_decodes, n_prompt, bound)`. A server runs decodes "
    "first, and chunks in what is left of its token budget. `n_decodes` chats decode, and a document of "
    "`n_prompt` tokens comes. `seconds(chunk, cached, n_decodes)` tells how long a step takes: a chunk of so "
    "many tokens with so many of its prompt cached before it, beside so many decodes. Return the one "
    "of `budgets` that gets the document done soonest while no chat is silent for longer than `bound` "
    "seconds. At least one of them can.",
    starter="def choose_budget(seconds, budgets, n_decodes, n_prompt, bound):\n    ...",
    example=(EXAMPLE,),
    cases=cases,
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
            first_chunk,
            "It asks for the price of the first chunk only. The last one reads all the cache before it, and "
            "takes longer.",
        ),
        Wrong(
            chunk_alone,
            "It asks for the price of the chunk alone. The decodes are in the same step, and make it longer.",
        ),
        Wrong(
            smallest,
            "It takes the smallest, to be safe. The bound is kept, and the document reads the weights again "
            "and again for nothing.",
        ),
    ),
    hints=(
        "The budget counts all tokens of a step. How many of them are the chunk's?",
        "Which chunk of the document takes longest? If that one fits, all do.",
        "With `chunk = budget - n_decodes`, the largest for which "
        "`seconds(chunk, n_prompt - chunk, n_decodes) <= bound`.",
    ),
    minutes=10,
    level="evaluate",
    size=lambda case: case["n_prompt"] + case["n_decodes"],
)
