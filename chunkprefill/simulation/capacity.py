"""How many requests a second a server carries before it breaks its promises."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any

from chunkprefill.metrics.events import Events
from chunkprefill.metrics.summary import Spread
from chunkprefill.metrics.waits import scheduling_delay, tbt
from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.core import Request
from chunkprefill.simulation.simulate import simulate
from chunkprefill.whole import as_real, real_number


@dataclass(frozen=True)
class Probe:
    """One rate that was tried."""

    rate: float  # requests/s
    tbt_p99: float  # s
    tbt_max: float  # s
    delay_p50: float  # s
    met: bool


@dataclass(frozen=True)
class Capacity:
    """The largest rate found that met the bounds, and the smallest that did not: the truth lies between.

    rate is `low`, the one that was seen to work. `high` is inf where nothing tried failed, `low` is 0 where
    nothing met the bounds. `probes` in the order tried; `monotone` is False where a higher rate met what a
    lower one broke: then the bracket is less certain than it looks.
    """

    low: float  # requests/s
    high: float  # requests/s
    tbt_bound: float  # s
    delay_bound: float  # s
    probes: tuple[Probe, ...]
    tbt_max_bound: float | None = None  # s

    @property
    def rate(self) -> float:
        """Requests a second that met every bound."""
        return self.low

    @property
    def at_low(self) -> Probe | None:
        """What was seen at `low`; None where nothing met the bounds."""
        return next((probe for probe in self.probes if probe.met and probe.rate == self.low), None)

    @property
    def monotone(self) -> bool:
        """Whether every rate that met the bounds lies below every one that did not."""
        good = [probe.rate for probe in self.probes if probe.met]
        bad = [probe.rate for probe in self.probes if not probe.met]
        return not good or not bad or max(good) < min(bad)

    def __str__(self) -> str:
        bounds = f"P99 TBT ≤ {self.tbt_bound:g} s"
        if self.tbt_max_bound is not None:
            bounds += f", largest TBT ≤ {self.tbt_max_bound:g} s"
        bounds += f" and median scheduling delay ≤ {self.delay_bound:g} s"
        seen = self.at_low
        there = f"; there P99 TBT {seen.tbt_p99:.4g} s, largest {seen.tbt_max:.4g} s" if seen else ""
        between = f"between {self.low:.4g} and {self.high:.4g}"
        return f"capacity {self.low:.4g} requests/s ({between}): {bounds}{there}"


def at_rate(requests: Iterable[Request], rate: float) -> list[Request]:
    """The same requests, arriving `rate` a second on average: gaps are scaled, lengths and order stay.

    Raises ValueError for fewer than two requests, for all at one time, or for a rate of 0 or less.
    """
    requests = sorted(requests, key=lambda request: request.arrival)
    real_number("rate, in requests/s,", rate, above=True)
    first = requests[0].arrival if requests else 0.0
    span = requests[-1].arrival - first if requests else 0.0
    if not span > 0:
        raise ValueError(f"{len(requests)} requests in {span} s have no rate to scale")
    scale = (len(requests) - 1) / (span * rate)
    return [replace(request, arrival=(request.arrival - first) * scale) for request in requests]


def capacity(
    requests: Iterable[Request],
    policy: Any,
    cost: Any = None,
    *,
    tbt_bound: float,
    tbt_max_bound: float | None = None,
    delay_bound: float = 2.0,
    tolerance: float = 0.05,
    start: float | None = None,
    pool: BlockPool | None = None,
    scheduling: Any = None,
    overlap: bool = False,
    progress: Callable[[Probe], object] | None = None,
) -> Capacity:
    """The largest rate of these requests with P99 TBT and median scheduling delay within their bounds (s).

    The definition is Sarathi-Serve's. A P99 alone favours long steps, because they are rarer: the largest gap
    is printed beside it, and `tbt_max_bound` bounds it too. Every rate is tried on the same requests with
    their gaps scaled (common random numbers), so that policies differ by what they do and not by their luck.
    The bracket is doubled or halved from `start` (default: the requests' own rate) and then bisected in ratio
    until it is `tolerance` wide. A short run never saturates: use enough requests for the delay to show.
    Raises what `simulate` does.
    """
    requests = list(requests)
    given = {"tbt_bound": tbt_bound, "delay_bound": delay_bound, "tolerance": tolerance}
    given |= {} if tbt_max_bound is None else {"tbt_max_bound": tbt_max_bound}
    given |= {} if start is None else {"start": start}
    for name, value in given.items():
        least = "of at least" if name == "delay_bound" else "above"
        if as_real(value) is None or not (value > 0 or (value == 0 and name == "delay_bound")):
            raise ValueError(f"{name} must be a number {least} 0, got {value!r}")
    probes: list[Probe] = []

    def met(rate: float) -> bool:
        trace = simulate(at_rate(requests, rate), policy, cost, pool, scheduling=scheduling, overlap=overlap)
        events = Events(trace)
        gaps, delay = Spread.of(tbt(events)), Spread.of(scheduling_delay(events))
        fine = not gaps.p99 > tbt_bound and delay.p50 <= delay_bound
        fine = fine and not (tbt_max_bound is not None and gaps.max > tbt_max_bound)
        probes.append(Probe(rate, gaps.p99, gaps.max, delay.p50, fine))
        if progress:
            progress(probes[-1])
        return fine

    if start is None:
        arrivals = [request.arrival for request in requests]
        span = max(arrivals, default=0.0) - min(arrivals, default=0.0)
        start = (len(requests) - 1) / span if span > 0 else 1.0
    low, high, rate, tries = 0.0, float("inf"), start, 16
    while (not low or high == float("inf")) and tries:
        if met(rate):
            low, rate = rate, rate * 2
        else:
            high, rate = rate, rate / 2
        tries -= 1
    while low and high < float("inf") and high > low * (1 + tolerance):
        middle = sqrt(low * high)
        if met(middle):
            low = middle
        else:
            high = middle
    return Capacity(low, high, tbt_bound, delay_bound, tuple(probes), tbt_max_bound)
