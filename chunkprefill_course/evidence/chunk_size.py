"""Evidence about the size of a chunk: what fits a bound, what the rule of thumb picks, what a tile costs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from statistics import mean
from typing import Any

from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.core import Request
from chunkprefill.scheduling.policies import ChunkedPrefill
from chunkprefill.simulation.capacity import Capacity, capacity
from chunkprefill.simulation.published import published
from chunkprefill.simulation.workloads import conversation
from chunkprefill_course.evidence.evidence import Evidence, Number
from chunkprefill_course.evidence.tradeoff import mixed
from chunkprefill_course.gpu_recording import digest, recorded, where_from

BUDGETS = (128, 256, 512, 1024)  # tokens an iteration
BOUND = 0.05  # s between two tokens, at P99
N_REQUESTS = 1000  # fewer end before the queue has shown whether it grows
N_BLOCKS = 32_768  # of 16 tokens: 64 GiB of Llama-3.1-8B's cache in 16-bit, what an 80 GB GPU has to spare
MULTIPLES = (
    128,
    256,
    512,
    1024,
)  # of the modelled tile, tokens: where recorded passes were taken a token at a time
ON = "priced by published kernel timings of Llama-3.1-8B on an RTX PRO 6000"


@dataclass(frozen=True)
class Load:
    """What a workload asks of a step, on average."""

    n_prompt: float  # tokens of a request's prompt
    n_output: float  # tokens that a request writes
    context: float  # cached tokens of a decode, each decode counted
    prefix: float  # cached tokens of its prompt before a chunk, each prompt token counted

    @classmethod
    def of(cls, requests: list[Request]) -> Load:
        """The averages of these requests."""
        outputs = sum(r.n_output for r in requests)
        prompts = sum(r.n_prompt for r in requests)
        return cls(
            prompts / len(requests),
            outputs / len(requests),
            sum(r.n_output * (r.n_prompt + r.n_output / 2) for r in requests) / outputs,
            sum(r.n_prompt**2 / 2 for r in requests) / prompts,
        )

    def n_decodes(self, budget: int) -> int:
        """Decodes in a step of a server that just keeps up: their share of the tokens, so of the budget."""
        return round(budget * self.n_output / (self.n_prompt + self.n_output))


def full_step(price: Any, budget: int, load: Load) -> float:
    """Seconds of an average step that uses its whole budget, under as much load as the server can carry."""
    n = load.n_decodes(budget)
    return price(mixed(chunk=budget - n, start=round(load.prefix), n_decodes=n, context=round(load.context)))


def largest_that_fits(price: Any, bound: float, load: Load, budgets: tuple[int, ...] = BUDGETS) -> int:
    """The rule that works: the largest budget whose full step fits the bound; the smallest if none does."""
    return max((b for b in budgets if full_step(price, b, load) <= bound), default=min(budgets))


def as_long_as_decoding(price: Any, n_decodes: int, load: Load, budgets: tuple[int, ...] = BUDGETS) -> int:
    """The rule of thumb: the chunk whose time alone is nearest to that of a step of `n_decodes` decodes."""
    step = price(mixed(n_decodes=n_decodes, context=round(load.context)))
    return min(budgets, key=lambda c: abs(price(mixed(chunk=c)) - step))


def keeps_up(price: Any, budget: int, load: Load) -> float:
    """Requests a second if every step is full: an estimate without a run, and blind to the bound."""
    return budget / (load.n_prompt + load.n_output) / full_step(price, budget, load)


def carries(budget: int, device: str = "rtxpro6000", bound: float = BOUND) -> Capacity:
    """Capacity of a server of conversations with this budget under this bound (s), to a tenth; found once."""
    return _carries(budget, device, bound)


@cache
def _carries(budget: int, device: str, bound: float) -> Capacity:
    requests = conversation(N_REQUESTS)
    return capacity(
        requests,
        ChunkedPrefill(budget),
        published(device),
        tbt_bound=bound,
        tolerance=0.1,
        start=keeps_up(published(device), budget, Load.of(requests)),
        pool=BlockPool(N_BLOCKS),
    )


def balance(*, changed: bool = False, n_decodes: int = 16) -> Evidence:
    """Does the budget picked carry what the best one carries? changed: picked by the rule of thumb.

    It could fail: the rule looks at one priced step, and what each budget carries is found apart from it, by
    running servers at rising rates. The flip changes the rule that the conditions set beside this one, on the
    same server, load and bound.
    """
    price, load = published("rtxpro6000"), Load.of(conversation(N_REQUESTS))
    pick = largest_that_fits(price, BOUND, load)
    if changed:
        pick = as_long_as_decoding(price, n_decodes, load)
    rates = {budget: carries(budget).rate for budget in BUDGETS}
    step = price(mixed(n_decodes=n_decodes, context=round(load.context)))
    numbers = [
        Number("budget picked", pick, "tokens", "simulated"),
        Number("a full step with it", round(1e3 * full_step(price, pick, load), 1), "ms", "simulated"),
    ]
    if changed:
        numbers += [
            Number(f"a step of {n_decodes} decodes alone", round(1e3 * step, 1), "ms", "simulated"),
            Number("that chunk alone", round(1e3 * price(mixed(chunk=pick)), 1), "ms", "simulated"),
        ]
    numbers += [
        Number(f"requests a second within the bound, budget {b:,}", round(rate, 1), "", "simulated")
        for b, rate in rates.items()
    ]
    share = rates[pick] / max(rates.values())
    numbers.append(Number("the picked one's share of the best", round(100 * share), "%", "simulated"))
    return Evidence(
        claim="balance",
        holds=share >= 0.95,
        setting=f"{N_REQUESTS:,} conversations with lengths as in Azure's trace, decodes first, P99 of the "
        f"time between tokens at most {1e3 * BOUND:.0f} ms, {ON}. Picked: "
        + (
            f"the chunk that takes about as long as a decoding step of {n_decodes}."
            if changed
            else "the largest budget whose full step fits the bound."
        ),
        numbers=tuple(numbers),
        otherwise=f"take the rule of thumb by its word: the chunk that lasts as long as a decoding step, "
        f"with {n_decodes} decodes in it.",
    )


#: Published: µs of one layer's matrix products, norms and activations for so many tokens. Medians.
#: RTX: LLMServingSim (casys-kaist, commit 5daddb2, MIT), vLLM 0.19; the others: Vidur (microsoft, commit
#: 7d47513, MIT).
LAYER_US = {
    "RTX 4090, Llama-3.1-8B": {240: 742.5, 256: 747.6, 272: 1073.1},
    "RTX PRO 6000, Llama-3.1-8B": {240: 431.8, 256: 434.0, 272: 508.8},
    "A100, Llama-3-8B": {248: 615.0, 256: 613.0, 264: 833.0},
    "H100, Llama-2-70B": {248: 772.5, 256: 768.0, 264: 1072.0},
}


def tiles(*, changed: bool = False) -> Evidence:
    """A few tokens over a multiple: four published machines at 256, and recorded whole passes. changed: below it.

    It could fail: the timings are other people's and the passes were recorded before the claim was worded; one
    machine of the four without a step refutes it, or one recorded boundary at which a token costs no more than
    its share. The flip changes the condition alone, on which side of the multiple the tokens are added.
    """
    sizes = {name: sorted(times)[:2] if changed else sorted(times)[1:] for name, times in LAYER_US.items()}
    more = {name: LAYER_US[name][b] / LAYER_US[name][a] - 1 for name, (a, b) in sizes.items()}
    numbers = [
        Number(f"{name}: {sizes[name][0]} to {sizes[name][1]} tokens", round(100 * x), "%", "published")
        for name, x in more.items()
    ]
    tokens = mean(b / a - 1 for a, b in sizes.values())
    numbers.append(Number("more tokens, on average", round(100 * tokens), "%", "published"))
    took = recorded_passes()
    steps = {n: took[n] / took[n - 1] - 1 for n in (m if changed else m + 1 for m in MULTIPLES)}
    numbers += [
        Number(f"whole pass, {n - 1:,} to {n:,} tokens", round(100 * step, 1), "%", "recorded")
        for n, step in steps.items()
    ]
    side = "below" if changed else "above"
    return Evidence(
        claim="tiles",
        holds=all(x >= 0.1 for x in more.values()) and all(step >= 0.02 for step in steps.values()),
        setting="published timings of one layer's products with the weights, and what goes with them, for tokens by "
        f"the eight or sixteen, just {side} 256; whole passes of Llama-3-8B, {where_from(digest())}, for one token "
        f"just {side} a multiple of 128. Extra time for the extra tokens; one token of 129 is a share of 0.8%.",
        numbers=tuple(numbers),
        otherwise="add the same few tokens below the multiple in place of above it.",
    )


def recorded_passes() -> dict[int, float]:
    """Tokens of a recorded pass -> its median seconds."""
    return {row["tokens"]: row["s"] for row in recorded("tiles").rows}
