"""Evidence about what lies beyond one scheduler: a prefix that is cached, and machines of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np

from chunkprefill.configs import LLAMA3_8B
from chunkprefill.metrics.timelines import request_timelines
from chunkprefill.metrics.waits import tbt, ttft
from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.core import Batch, Request, Rid
from chunkprefill.scheduling.policies import ChunkedPrefill, PrefillFirst
from chunkprefill.simulation.capacity import at_rate
from chunkprefill.simulation.published import published
from chunkprefill.simulation.simulate import simulate
from chunkprefill.simulation.workloads import conversation
from chunkprefill_course.evidence.engines import DEVICE, ON
from chunkprefill_course.evidence.evidence import Evidence, Number
from chunkprefill_course.evidence.tradeoff import mixed

Price = Callable[[Batch], float]  # s
BUDGETS = (128, 256, 512, 1024, 2048)  # tokens an iteration
N_REQUESTS = 240
LINK = 50e9  # bytes/s from one machine to the other: a network card of 400 Gbit/s
KV_BYTES = LLAMA3_8B.kv_bytes(1, 2)  # of a token, in 16-bit
RATES = (1, 2, 3, 4, 5, 6, 8, 10)  # requests/s for each GPU


def after_prefix(price: Price, prefixes: Mapping[Rid, int]) -> Price:
    """The price of requests whose first tokens are cached already, and are not in the loop's `n_prompt`.

    In the loop a sequence begins with nothing cached. So a prompt of n tokens, p of them cached, is given to
    it as n − p, and its chunks are priced where they really stand: p positions further. They look back at
    the prefix, and do not compute it. The prefix's blocks belong to the cache, and are not counted.
    prefixes: {rid: p tokens}
    """

    def priced(batch: Batch) -> float:
        starts = tuple(start + prefixes.get(rid, 0) for rid, start in zip(batch.rid, batch.start))
        return price(replace(batch, start=starts))

    return priced


def prompt_seconds(price: Price, n: int, *, cached: int = 0, chunk: int = 512) -> float:
    """Seconds to prefill the rest of a prompt of n tokens alone, in chunks, `cached` of them being there."""
    starts = range(cached, n, chunk)
    return sum(price(mixed(chunk=min(chunk, n - start), start=start)) for start in starts)


def prefix_passes(*, changed: bool = False) -> Evidence:
    """What does a cached prefix save? changed: the prefix is the short part of the prompt.

    It could fail on either side: the rest might cost as much as the whole, or no more than the same tokens alone,
    if looking back were free. The flip changes the condition alone, which part of the prompt is cached.
    """
    cached, rest = (2048, 30_720) if changed else (30_720, 2048)
    price = published(DEVICE)
    whole, left, bare = (
        prompt_seconds(price, cached + rest),
        prompt_seconds(price, cached + rest, cached=cached),
        prompt_seconds(price, rest),
    )
    return Evidence(
        claim="prefix-passes",
        holds=left <= 0.2 * whole and left >= 1.05 * bare,
        setting=f"a prompt of {cached + rest:,} tokens, {cached:,} of them cached, chunks of 512, {ON}.",
        numbers=(
            Number("passes without the cached prefix", -(-(cached + rest) // 512)),
            Number("passes with it", -(-rest // 512)),
            _ms("the whole prompt", whole),
            _ms("what is left of it", left),
            _ms(f"{rest:,} tokens with nothing before them", bare),
        ),
        otherwise="let the prefix be the short part: 2,048 tokens of 32,768.",
    )


def together(budget: int, rate: float, seed: int = 0) -> tuple[float, float]:
    """P90 of TTFT and P99 of TBT, s, of a GPU that does both tasks, `rate` requests a second coming."""
    trace = simulate(_talks(rate, seed), ChunkedPrefill(budget), published(DEVICE), BlockPool(32_768))
    return _quantile(ttft(trace), 0.9), _quantile(tbt(trace), 0.99)


def apart(rate: float, seed: int = 0) -> tuple[float, float]:
    """The same of two GPUs: one prefills, whole prompts in order, and the other decodes.

    The first token comes from the first GPU. The second comes from the other one, which has to get the
    cache over the link before it begins: its price is that of decodes behind a prefix.
    """
    requests, price = _talks(rate, seed), published(DEVICE)
    first = request_timelines(simulate([replace(r, n_output=1) for r in requests], PrefillFirst(4096), price))
    left = [
        replace(
            r,
            arrival=first[r.rid].tokens[0] + r.n_prompt * KV_BYTES / LINK,
            n_prompt=1,
            n_output=r.n_output - 1,
        )
        for r in requests
        if r.n_output > 1
    ]
    behind = after_prefix(price, {r.rid: r.n_prompt for r in requests})
    then = request_timelines(simulate(left, ChunkedPrefill(1024, 1024), behind))
    gaps = [np.diff([first[r.rid].tokens[0], *then[r.rid].tokens]) for r in left]
    firsts = [life.first_token for life in first.values()]
    return _quantile(firsts, 0.9), _quantile(np.concatenate(gaps), 0.99)


def carried(
    run: Callable[[float], tuple[float, float]], bounds: tuple[float, float], rates: Iterable[float] = RATES
) -> float:
    """The largest of these rates at which P90 of TTFT and P99 of TBT keep the bounds, s; 0 if none does."""
    best = 0.0
    for rate in rates:
        if not all(found <= bound for found, bound in zip(run(rate), bounds)):
            break  # more requests do not make it better
        best = rate
    return best


@cache
def two_cards(
    bounds: tuple[float, float], budgets: Sequence[int] = BUDGETS, seed: int = 0
) -> tuple[dict[int, float], float]:
    """Requests a second that two GPUs carry within the bounds: alike, by budget, and one for each task."""
    alike = {budget: 2 * carried(partial(together, budget, seed=seed), bounds) for budget in budgets}
    return alike, carried(partial(apart, seed=seed), bounds, [2 * rate for rate in RATES])


TIGHT, LOOSE = (0.3, 0.016), (0.3, 0.100)  # s: P90 of TTFT, P99 of TBT


def no_budget(*, changed: bool = False, seed: int = 0) -> Evidence:
    """Is there a budget for two bounds at once? changed: the bound on the time between tokens is looser.

    It could fail: both arrangements are run at rising rates with every budget, and one budget might keep both
    bounds. The flip changes the first condition alone, the bound on the time between tokens.
    """
    bounds = LOOSE if changed else TIGHT
    alike, divided = two_cards(bounds, seed=seed)
    numbers = [
        Number(f"requests a second, both GPUs do everything, budget {b:,}", rate, "", "simulated")
        for b, rate in alike.items()
    ]
    return Evidence(
        claim="no-budget",
        holds=divided > 1.5 * max(alike.values()),
        setting="two GPUs serve conversations with lengths as in Azure's trace. Nine of ten first tokens "
        f"come within {1e3 * bounds[0]:.0f} ms, and P99 of the time between tokens is at most "
        f"{1e3 * bounds[1]:.0f} ms, {ON}. Rates from {RATES[0]} to {RATES[-1]} a second for each GPU.",
        numbers=(*numbers, Number("one GPU prefills, one decodes", divided, "", "simulated")),
        otherwise=f"allow {1e3 * LOOSE[1]:.0f} ms between tokens.",
    )


@cache
def _talks(rate: float, seed: int) -> tuple[Request, ...]:
    return tuple(at_rate(conversation(N_REQUESTS, seed=seed), rate))


def _quantile(values: Any, share: float) -> float:
    return float(np.quantile(np.asarray(values), share))


def _ms(label: str, seconds: float) -> Number:
    return Number(label, round(1e3 * seconds), "ms", "simulated")
