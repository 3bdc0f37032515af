"""A dashboard: what an engine's metrics say about a run, row by row, for any trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from html import escape
from math import isnan, nan

import numpy as np

from chunkprefill.analysis import metrics
from chunkprefill.analysis.events import Events
from chunkprefill.analysis.overtime import count_over, tokens_by_kind
from chunkprefill.scheduling.core import Batch
from chunkprefill.scheduling.trace import Trace

#: key: (group, words, unit). {short} and {long} are the names of the two classes of requests.
ROWS = {
    "tbt_p99": ("Promises", "time between tokens, P99", "s"),
    "ttft_short_p90": ("Promises", "time to first token of {short}, P90", "s"),
    "ttft_long_p90": ("Promises", "time to first token of {long}, P90", "s"),
    "tbt_p50": ("Waiting", "time between tokens, P50", "s"),
    "tbt_max": ("Waiting", "time between tokens, the longest", "s"),
    "waiting_early": ("Waiting", "requests that wait for their first step, first third of arrivals", ""),
    "waiting_late": ("Waiting", "requests that wait for their first step, last third of arrivals", ""),
    "ttft_behind": ("Waiting", "time to first token, P50, of {short} behind one of the {long}", "s"),
    "ttft_not_behind": ("Waiting", "time to first token, P50, of {short} behind none", "s"),
    "step_p50": ("Steps", "time of a step on the GPU, P50", "s"),
    "step_p99": ("Steps", "time of a step on the GPU, P99", "s"),
    "prompt_steps": ("Steps", "steps that carry prompt tokens", "%"),
    "prompt_tokens": ("Steps", "prompt tokens in a step that carries any, P50", ""),
    "prompt_step_tokens": ("Steps", "all tokens in a step that carries prompt tokens, P50", ""),
    "decodes": ("Steps", "decodes in a step that has any, mean", ""),
    "budget_full": ("Steps", "steps that fill the token budget", "%"),
    "decodes_fill": ("Steps", "steps in which decodes alone take 3/4 of the token budget or more", "%"),
    "left_out": ("Steps", "decodes that were ready and got no token in a step, of all ready", "%"),
    "all_left_out": ("Steps", "steps in which no decode ran though some were ready", "%"),
    "one_token": ("Machine alone", "a step of one token", "s"),
    "twice": ("Machine alone", "prompt tokens that make a step take twice as long", ""),
    "again": ("Machine alone", "a typical step with prompts, run again by itself", "s"),
    "again_less": ("Machine alone", "that typical step with a tenth fewer tokens", "s"),
    "cpu_step": ("CPU", "CPU time before a step, P50", "s"),
    "gpu_idle": ("CPU", "GPU idle while there was work, of that time", "%"),
    "blocks_peak": ("Memory", "cache blocks in use at most, of all", "%"),
    "evictions": ("Memory", "requests that lost their cache to make room", ""),
    "recomputed": ("Memory", "tokens computed again, of all computed", "%"),
}  # fmt: skip
PROMISES = ("tbt_p99", "ttft_short_p90", "ttft_long_p90")


@dataclass(frozen=True)
class Dashboard:
    """The rows of one run. `values`: {key: number}, s, shares of 1 or counts; nan where it does not apply.

    `bounds`: {key of PROMISES: s}. `text()` and `html()` round; nothing else does.
    """

    values: Mapping[str, float]
    bounds: Mapping[str, float] = field(default_factory=dict)
    short: str = "short requests"
    long: str = "long requests"

    @property
    def broken(self) -> tuple[str, ...]:
        """The promises that are not kept."""
        return tuple(key for key, bound in self.bounds.items() if self.values[key] > bound)

    def say(self, key: str) -> str:
        """A row's value, rounded, with its unit."""
        return say(self.values[key], ROWS[key][2])

    def words(self, key: str) -> str:
        """What a row is."""
        return ROWS[key][1].format(short=self.short, long=self.long)

    def promise(self, key: str) -> str:
        """`at most 60 ms: broken`."""
        kept = "broken" if key in self.broken else "kept"
        return f"at most {say(self.bounds[key], 's')}: {kept}"

    def html(self) -> str:
        """All rows by group as a table of two columns, which fits a phone."""
        body, group = "", ""
        for key, (mine, *_) in ROWS.items():
            if isnan(self.values[key]):
                continue
            if mine != group:
                group = mine
                body += f'<tr><th scope="colgroup" colspan="2">{group}</th></tr>'
            promise = escape(self.promise(key)) if key in self.bounds else ""
            bound = f"<br>{promise.replace('broken', '<strong>broken</strong>')}" if promise else ""
            name = f"<code>{key}</code> {escape(self.words(key))}"
            style = "font-weight:400;text-align:start"
            body += f'<tr><th scope="row" style="{style}">{name}</th><td>{self.say(key)}{bound}</td></tr>'
        head = '<thead><tr><th scope="col">row</th><th scope="col">here</th></tr></thead>'
        return f'<div class="cp-table"><table class="table">{head}<tbody>{body}</tbody></table></div>'

    def text(self) -> str:
        """All rows by group, one a line: key, value, what it is."""
        lines, group = [], ""
        for key, (mine, *_) in ROWS.items():
            if isnan(self.values[key]):
                continue
            if mine != group:
                group = mine
                lines.append(f"{group}:")
            bound = f" (promised: {self.promise(key)})" if key in self.bounds else ""
            lines.append(f"  {key:<18} {self.say(key):>9}  {self.words(key)}{bound}")
        return "\n".join(lines)


def say(value: float, unit: str) -> str:
    """Three figures: `12.3 ms`, `1.23 s`, `4.5%`, `1,230`; whole counts up to 1,000 as they are."""
    if isnan(value):
        return "–"
    if unit == "s":
        return f"{1e3 * value:,.3g} ms" if value < 0.9995 else f"{float(f'{value:.3g}'):,g} s"
    if unit == "%":
        return f"{100 * value:.2g}%" if value < 0.0995 else f"{100 * value:.0f}%"
    return f"{float(f'{value:.3g}'):,g}"


def read(
    trace: Trace,
    *,
    limit: int,
    token_budget: int | None = None,
    n_blocks: int | None = None,
    cost: Callable[[Batch], float] | None = None,
) -> dict[str, float]:
    """{row: value} of a run. See ROWS.

    limit:        prompt tokens above which a request is one of the long class
    token_budget, n_blocks: of the server, for the rows that compare with them
    cost:         Batch -> s, for the rows of the machine alone; None (a measured run): they are nan
    """  # fmt: skip
    e = Events.of(trace)
    values = dict.fromkeys(ROWS, nan)
    long = np.array([r.n_prompt > limit for r in trace.requests])
    ttft, gaps, seconds = metrics.ttft(e), metrics.tbt(e), e.end - e.start
    if len(gaps):
        p50, p99 = np.quantile(gaps, (0.5, 0.99))
        values |= {"tbt_p50": p50, "tbt_p99": p99, "tbt_max": gaps.max()}
    values |= {"ttft_short_p90": _quantile(ttft[~long], 0.9), "ttft_long_p90": _quantile(ttft[long], 0.9)}
    values |= _queue(e, ttft, long)
    values |= {"step_p50": np.quantile(seconds, 0.5), "step_p99": np.quantile(seconds, 0.99)}
    values |= _batches(e, token_budget)
    if cost:
        values |= _alone(e, cost)
    cpu = e.dispatched - e.scheduled
    work = float((e.end - e.scheduled).sum())
    values |= {
        "cpu_step": np.quantile(cpu, 0.5),
        "gpu_idle": 1 - float(seconds.sum()) / work if work else 0.0,
    }
    again = float(tokens_by_kind(e)["recompute"].sum())
    values |= {
        "blocks_peak": float(e.blocks.max()) / n_blocks if n_blocks else nan,
        "evictions": sum(map(len, trace.preempted.values())),
        "recomputed": again / float(e.length.sum()),
    }
    return {key: float(value) for key, value in values.items()}


def _quantile(values: np.ndarray, q: float) -> float:
    return float(np.quantile(values, q)) if len(values) else nan


def _queue(e: Events, ttft: np.ndarray, long: np.ndarray) -> dict[str, float]:
    """Who waits, early and late; and short requests behind long ones, and not."""
    arrivals, first = e.arrivals, e.arrivals + ttft
    begun = e.by_request(e.first, e.start[e.step[e.first]])
    edges = np.linspace(arrivals.min(), max(arrivals.max(), arrivals.min() + 1e-9), 4)
    waiting = count_over(edges, arrivals, begun)
    behind = np.zeros(len(arrivals), bool)
    for came, through in zip(arrivals[long], first[long]):
        behind |= (arrivals >= came) & (arrivals < through)
    out = {"waiting_early": waiting[0], "waiting_late": waiting[-1]}
    if long.any():
        out |= {"ttft_behind": _quantile(ttft[behind & ~long], 0.5)}
        out |= {"ttft_not_behind": _quantile(ttft[~behind & ~long], 0.5)}
    return out


def _batches(e: Events, token_budget: int | None) -> dict[str, float]:
    """What steps are made of, and which decodes sat out."""
    n = len(e.end)
    kinds = tokens_by_kind(e)
    prompts, tokens = kinds["prefill"] + kinds["recompute"], sum(kinds.values())
    ran = kinds["decode"]
    carry = prompts > 0
    # A decode is ready from the step after a token to the one that runs it, or to its eviction.
    starts = e.cached_after - e.length
    pairs = np.flatnonzero(e.same & e.emits[:-1])
    until = e.step[pairs + 1].astype(np.int64)
    kept = starts[pairs + 1] > 0
    if not kept.all():
        until[~kept] = _evicted(e, pairs[~kept], until[~kept])
    change = np.bincount(e.step[pairs] + 1, minlength=n + 1) - np.bincount(until, minlength=n + 1)
    sat = change.cumsum()[:n]
    served = np.bincount(until[kept], minlength=n)[:n]
    ready = served + sat
    out = {
        "prompt_steps": float(carry.mean()),
        "prompt_tokens": _quantile(prompts[carry], 0.5),
        "prompt_step_tokens": _quantile(np.asarray(tokens)[carry], 0.5),
        "decodes": float(ran[ran > 0].mean()) if (ran > 0).any() else 0.0,
        "left_out": float(sat.sum() / ready.sum()) if ready.sum() else 0.0,
        "all_left_out": float(((served == 0) & (sat > 0)).mean()),
    }
    if token_budget:
        out |= {
            "budget_full": float((np.asarray(tokens) >= token_budget).mean()),
            "decodes_fill": float((ran >= 0.75 * token_budget).mean()),
        }
    return out


def _evicted(e: Events, rows: np.ndarray, until: np.ndarray) -> np.ndarray:
    """The step that evicted the request of each of `rows`, after it and no later than step `until`."""
    when: dict[int | str, list[int]] = {}
    for step, rids in sorted(e.trace.preempted.items()):
        for rid in rids:
            when.setdefault(rid, []).append(step)
    names = [e.trace.requests[i].rid for i in e.request[rows]]
    ends = zip(names, e.step[rows], until)
    return np.array([next(s for s in when[rid] if after < s <= last) for rid, after, last in ends])


def _alone(e: Events, cost: Callable[[Batch], float]) -> dict[str, float]:
    """What the machine takes for steps made for the purpose."""

    def chunk(n: int) -> float:
        return cost(Batch((0,), (0,), (n,), (False,)))

    one = chunk(1)
    low, high = 1, 2
    while chunk(high) < 2 * one and high < 1 << 16:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if chunk(middle) >= 2 * one else (middle, high)
    out = {"one_token": one, "twice": float(high)}
    c = e.trace.columns
    tokens, offset = np.asarray(c["length"]), np.asarray(c["offset"]).astype(int)
    sums = np.add.reduceat(tokens, offset[:-1]) if len(tokens) else np.zeros(0)
    prompts = sums - np.add.reduceat(np.asarray(c["length"]) == 1, offset[:-1])
    carry = np.flatnonzero(prompts > 0)
    if len(carry):
        batch = e.trace.steps[int(carry[np.argsort(sums[carry], kind="stable")[len(carry) // 2]])].batch
        out |= {"again": cost(batch), "again_less": cost(_fewer(batch, -(-sum(batch.length) // 10)))}
    return out


def _fewer(batch: Batch, n: int) -> Batch:
    """A batch without n of its tokens: the longest chunks give first, and keep one token."""
    lengths = list(batch.length)
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        gone = min(n, lengths[i] - 1)
        lengths[i], n = lengths[i] - gone, n - gone
    return Batch(batch.rid, batch.start, tuple(lengths), batch.emits)
