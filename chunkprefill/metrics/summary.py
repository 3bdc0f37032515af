"""All metrics of a trace at once, with definitions: percentiles beside the maximum, by class too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import nan
from typing import Any

import numpy as np

from chunkprefill.metrics import waits as metrics
from chunkprefill.metrics.events import Events
from chunkprefill.scheduling.core import Request
from chunkprefill.scheduling.trace import Trace
from chunkprefill.whole import briefly

#: What each number means, to print beside it. Engines and papers disagree on several of them.
DEFINITIONS = {
    "ttft": "time to first token, s: from a request's arrival to its first token, queueing included",
    "tbt": "time between tokens, s: gap between two consecutive tokens of a request, pooled over all "
    "tokens of all requests (Sarathi-Serve); also called inter-token latency",
    "tpot": "time per output token, s: (latency − TTFT) / (tokens − 1), one number a request of two or more",
    "latency": "s from a request's arrival to its last token",
    "normalized_latency": "s a token: latency / output tokens, one number a request (Orca, vLLM)",
    "scheduling_delay": "s from a request's arrival to the start of the first step that ran any of it",
    "stall": "generation stall, s: the part of a gap between tokens in which steps ran without the request",
    "interference": "s by which a step shared with prefilling outlasted this trace's own decode-only steps "
    "of as many decodes (medians, interpolated), one number a decoded token; unknown without such steps",
    "duration": "s from the first arrival to the end of the last step",
    "requests_per_s": "requests that emitted / duration",
    "output_tokens_per_s": "emitted tokens / duration",
    "prompt_tokens_per_s": "prompt tokens of requests that emitted / duration",
    "step": "s of execution of one step",
    "preemptions": "times that a request lost its cache to make room",
    "recomputed_tokens": "tokens computed again after a preemption",
    "kv_block_seconds": "blocks in use × s, while steps ran",
    "peak_blocks": "most blocks in use in one step",
    "half_built_token_seconds": "cached tokens of a prompt not yet whole × s until the end of its next chunk",
    "chunks_per_prompt": "rows that emitted nothing, plus the one with the first token, for each request",
    "scheduling_share": "time from scheduling to dispatch, summed / time with work at hand; overlap included",
    "exposed_share": "time in which the executor stood idle with work at hand / time with work at hand",
    "goodput": "requests a second that met every bound: TTFT, and the largest TBT of the request",
}

_PER_TOKEN = ("tbt", "stall", "interference")  # metrics of tokens; the other spreads are of requests


@dataclass(frozen=True)
class Spread:
    """How a quantity is distributed; the maximum stands beside the percentiles, which can hide it.

    Percentiles are interpolated between neighbours, as numpy does by default; of nothing, all are nan.
    """

    n: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Any) -> Spread:
        """The spread of `values`, those that are nan left out."""
        values = np.asarray(values, float).ravel()
        if np.isnan(values.min(initial=0.0)):
            values = values[~np.isnan(values)]
        if not len(values):
            return cls(0, nan, nan, nan, nan, nan, nan)
        p50, p90, p95, p99 = map(float, np.quantile(values, (0.5, 0.9, 0.95, 0.99)))
        return cls(len(values), float(values.mean()), p50, p90, p95, p99, float(values.max()))

    @property
    def total(self) -> float:
        """The sum."""
        return self.n * self.mean if self.n else 0.0


@dataclass(frozen=True)
class Summary:
    """All the numbers of one trace, or of one class of its requests; DEFINITIONS says what each is.

    Server-wide numbers are None in the summary of a class. `classes`: {class: Summary} where `by` was given.
    """

    label: str
    n_requests: int
    ttft: Spread
    tbt: Spread
    tpot: Spread
    latency: Spread
    normalized_latency: Spread
    scheduling_delay: Spread
    stall: Spread
    interference: Spread
    requests_per_s: float
    output_tokens_per_s: float
    prompt_tokens_per_s: float
    chunks_per_prompt: float
    preemptions: int
    recomputed_tokens: int
    half_built_token_seconds: float
    step: Spread | None = None
    duration: float | None = None  # s
    kv_block_seconds: float | None = None
    peak_blocks: int | None = None
    scheduling_share: float | None = None
    exposed_share: float | None = None
    goodput: float | None = None
    classes: Mapping[str, Summary] = field(default_factory=dict)

    def rows(self) -> list[tuple[str, ...]]:
        """Table of spreads: quantity, n, mean, p50, p90, p95, p99, max; seconds with four digits."""
        out = []
        for name, value in vars(self).items():
            if isinstance(value, Spread):
                numbers = (value.mean, value.p50, value.p90, value.p95, value.p99, value.max)
                out.append((name, f"{value.n:,}", *(f"{x:.4g}" for x in numbers)))
        return out

    def as_dict(self) -> dict[str, Any]:
        """Flat, for JSON: `ttft_p99`, `tbt_max`, ...; what is unknown is None."""
        out: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, Spread):
                out |= {f"{name}_{k}": None if x != x else x for k, x in vars(value).items()}
            elif name != "classes":
                out[name] = value
        return out | {
            f"{name}.{k}": v for name, one in self.classes.items() for k, v in one.as_dict().items()
        }

    def __str__(self) -> str:
        head = ("", "n", "mean", "p50", "p90", "p95", "p99", "max")
        lines = [head, *self.rows()]
        widths = [max(map(len, column)) for column in zip(*lines)]
        text = [
            f"{row[0]:<{widths[0]}}  " + "  ".join(f"{cell:>{w}}" for cell, w in zip(row[1:], widths[1:]))
            for row in lines
        ]
        scalars = [(k, v) for k, v in vars(self).items() if isinstance(v, int | float) and k != "n_requests"]
        text += [f"{name:<{widths[0]}}  {value:,.6g}" for name, value in scalars]
        parts = [f"\n-- {name}\n{one}" for name, one in self.classes.items()]
        return "\n".join([f"{self.label or 'trace'}: {self.n_requests:,} requests", *text, *parts])

    __repr__ = __str__


def summary(
    source: Trace | Events,
    by: Callable[[Request], str] | None = None,
    *,
    ttft_bound: float | None = None,
    tbt_bound: float | None = None,
) -> Summary:
    """Every metric of a trace at once, whole and by class of request.

    by: names a request's class, such as `lambda r: "document" if r.n_prompt > 2000 else "chat"`.
    ttft_bound, tbt_bound: s; with both, goodput is counted too.
    """
    e = Events.of(source)
    for name, bound in (("ttft_bound", ttft_bound), ("tbt_bound", tbt_bound)):
        if bound is not None:
            metrics.check_bound(name, bound)
    if by is not None and not callable(by):
        raise ValueError(f"by is {briefly(by)}: a function of a Request that returns its class is needed")
    pick = np.ones(len(e.arrivals), bool)
    wall = max(float((e.end[-1] - e.scheduled[0]) - e.idle[1:].sum()), 0.0) if len(e.end) else 0.0
    busy_from = np.maximum(np.concatenate(([0.0], e.end[:-1])), e.scheduled)
    exposed = float(np.maximum(e.start - busy_from, 0.0).sum())
    bounds = ttft_bound is not None and tbt_bound is not None
    values = _values(e)
    whole = _summary(e, values, pick, e.trace.label)
    classes = {}
    if by is not None:
        names = np.array([by(request) for request in e.trace.requests], dtype=object)
        classes = {str(name): _summary(e, values, names == name, str(name)) for name in dict.fromkeys(names)}
    more: dict[str, Any] = {
        "step": Spread.of(e.end - e.start),
        "duration": metrics.duration(e),
        "kv_block_seconds": float((e.blocks * (e.end - e.start)).sum()),
        "peak_blocks": int(e.blocks.max(initial=0)),
        "scheduling_share": float((e.dispatched - e.scheduled).sum()) / wall if wall else 0.0,
        "exposed_share": exposed / wall if wall else 0.0,
        "goodput": metrics.goodput(e, ttft_bound=ttft_bound, tbt_bound=tbt_bound) if bounds else None,  # type: ignore[arg-type]
        "classes": classes,
    }
    return replace(whole, **more)


def _values(e: Events) -> dict[str, np.ndarray]:
    """Each quantity, one a request or one a token."""
    tokens = {"tbt": metrics.tbt(e), "stall": metrics.stalls(e), "interference": metrics.interference(e)}
    names = ("ttft", "tpot", "latency", "normalized_latency", "scheduling_delay")
    return tokens | {name: getattr(metrics, name)(e) for name in names}


def _summary(e: Events, values: dict[str, np.ndarray], pick: np.ndarray, label: str) -> Summary:
    """Of the requests that `pick` [requests] marks."""
    everyone = bool(pick.all())  # then nothing is copied
    owner = None if everyone else e.request[e.tokens[e.decoded]]
    rows = slice(None) if everyone else pick[e.request]
    n_computed, n_partial = int(e.length[rows].sum()), int((~e.emits[rows]).sum())
    furthest = np.maximum.reduceat(e.cached_after, e.first)[pick[e.request[e.first]]] if len(e.first) else 0
    part = np.flatnonzero(~e.emits[:-1] & e.same)  # a prompt's cache half built, unless it is evicted
    part = part[
        pick[e.request[part]] & (e.cached_after[part + 1] - e.length[part + 1] == e.cached_after[part])
    ]
    waits = e.ended[part + 1] - e.ended[part]
    mine = {request.rid for request, one in zip(e.trace.requests, pick) if one}
    seconds, n_ran = metrics.duration(e), int((e.token_counts[pick] > 0).sum())
    prompts = sum(r.n_prompt for r, one, n in zip(e.trace.requests, pick, e.token_counts) if one and n)
    spreads = {
        name: Spread.of(array if owner is None else array[pick[owner] if name in _PER_TOKEN else pick])
        for name, array in values.items()
    }
    return Summary(
        label=label,
        n_requests=int(pick.sum()),
        **spreads,  # type: ignore[arg-type]
        requests_per_s=n_ran / seconds if seconds else 0.0,
        output_tokens_per_s=float(e.token_counts[pick].sum()) / seconds if seconds else 0.0,
        prompt_tokens_per_s=prompts / seconds if seconds else 0.0,
        chunks_per_prompt=(n_partial + n_ran) / n_ran if n_ran else 0.0,
        preemptions=sum(rid in mine for rids in e.trace.preempted.values() for rid in rids),
        recomputed_tokens=n_computed - int(np.sum(furthest)),
        half_built_token_seconds=float((waits * e.cached_after[part]).sum()),
    )
