"""A dashboard: what an engine's metrics say about a run, row by row, for any trace."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from math import isnan, nan

from chunkprefill.metrics.tally import Tally, quantile
from chunkprefill.scheduling.core import Batch
from chunkprefill.scheduling.trace import Trace
from chunkprefill.simulation.cuda_graphs import CudaGraphs

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
    "launch": ("CPU", "CPU time to launch a step's kernels while the GPU runs them, P50", "s"),
    "gpu_idle": ("CPU", "GPU idle while there was work, of that time", "%"),
    "blocks_peak": ("Memory", "cache blocks in use at most, of all", "%"),
    "evictions": ("Memory", "requests that lost their cache to make room", ""),
    "recomputed": ("Memory", "tokens computed again, of all computed", "%"),
}
LAUNCHES = 100  # steps whose launch is priced
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

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups that have a row here, in their order."""
        return tuple(dict.fromkeys(mine for key, (mine, *_) in ROWS.items() if not isnan(self.values[key])))

    def html(self, groups: Collection[str] | None = None) -> str:
        """The rows of these groups, of all by default, as a table of two columns, which fits a phone."""
        body, group = "", ""
        for key, (mine, *_) in ROWS.items():
            if isnan(self.values[key]) or (groups is not None and mine not in groups):
                continue
            if mine != group:
                group = mine
                if groups is None:  # one group by itself is named by what is around it
                    body += f'<tr><th scope="colgroup" colspan="2">{group}</th></tr>'
            promise = (
                escape(self.promise(key)).replace(" ", "\u00a0") if key in self.bounds else ""
            )  # one line
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


def measured_rows(
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
    cost:         Batch -> s, for the rows of the machine alone; None (a measured run): they are nan. `CudaGraphs`
                  tells what launching takes, too. Without them it is 0 s in a simulated run and nan in a
                  measured one: where the pass runs on a CPU, launching is the pass itself
    """
    launching = cost.launching if isinstance(cost, CudaGraphs) else None
    cost = cost.cost if isinstance(cost, CudaGraphs) else cost  # the kernels alone
    t, c = Tally(trace), trace.columns
    values = dict.fromkeys(ROWS, nan)
    long = [request.n_prompt > limit for request in trace.requests]
    gaps, seconds = t.tbt, t.seconds
    if gaps:
        values |= {"tbt_p50": quantile(gaps, 0.5), "tbt_p99": quantile(gaps, 0.99), "tbt_max": max(gaps)}
    for key, kind in (("ttft_short_p90", False), ("ttft_long_p90", True)):
        values[key] = quantile((wait for wait, is_long in zip(t.ttft, long) if is_long is kind), 0.9)
    values |= _queue(t, long)
    values |= {"step_p50": quantile(seconds, 0.5), "step_p99": quantile(seconds, 0.99)}
    values |= _batches(t, token_budget)
    if cost:
        values |= _alone(t, cost)
    work = sum(end - begin for begin, end in zip(c["scheduled"], c["end"]))
    values |= {
        "cpu_step": quantile((out - begin for begin, out in zip(c["scheduled"], c["dispatched"])), 0.5),
        "launch": _launching(trace, launching),
        "gpu_idle": 1 - sum(seconds) / work if work else 0.0,
        "blocks_peak": max(c["blocks_used"]) / n_blocks if n_blocks else nan,
        "evictions": t.n_evicted,
        "recomputed": sum(t.recompute) / sum(t.total),
    }
    return {key: float(value) for key, value in values.items()}


def _launching(trace: Trace, launching: Callable[[Batch], float] | None) -> float:
    """Of some steps, evenly spread. A run that was priced and not computed launches nothing."""
    if launching is None:
        return nan if trace.outputs else 0.0
    every = max(1, len(trace.steps) // LAUNCHES)
    return quantile((launching(step.batch) for step in trace.steps[::every]), 0.5)


def _queue(t: Tally, long: Sequence[bool]) -> dict[str, float]:
    """Who waits, early and late; and short requests behind long ones, and not."""
    arrivals = [request.arrival for request in t.trace.requests]
    first = [at + wait for at, wait in zip(arrivals, t.ttft)]
    begin = min(arrivals)
    end = max(*arrivals, begin + 1e-9)
    edges = [begin, begin + (end - begin) / 3, begin + 2 * (end - begin) / 3, end]
    waiting = mean_open(edges, arrivals, t.begun)
    spans = [(came, through) for came, through, is_long in zip(arrivals, first, long) if is_long]
    behind = [any(came <= at < through for came, through in spans) for at in arrivals]
    out = {"waiting_early": waiting[0], "waiting_late": waiting[-1]}
    for key, where in (("ttft_behind", True), ("ttft_not_behind", False)) if spans else ():
        waits = (w for w, is_long, b in zip(t.ttft, long, behind) if b is where and not is_long)
        out[key] = quantile(waits, 0.5)
    return out


def mean_open(edges: Sequence[float], opened: Iterable[float], closed: Iterable[float]) -> list[float]:
    """How many intervals are open in each stretch between edges, averaged over it; nan: never."""
    come, gone = ([t for t in times if not isnan(t)] for times in (opened, closed))

    def area(times: Sequence[float], edge: float) -> float:
        return sum(edge - t for t in times if t <= edge)

    areas = [area(come, edge) - area(gone, edge) for edge in edges]
    means = [(b - a) / (right - left) for (a, b), (left, right) in zip(pairwise(areas), pairwise(edges))]
    return [0.0 if abs(mean) < 1e-6 else mean for mean in means]  # rounding


def _batches(t: Tally, token_budget: int | None) -> dict[str, float]:
    """What steps are made of, and which decodes sat out."""
    n, prompts = len(t.total), [a + b for a, b in zip(t.prefill, t.recompute)]
    ran, n_ready = [tokens for tokens in t.decode if tokens], sum(t.ready)
    out = {
        "prompt_steps": sum(map(bool, prompts)) / n,
        "prompt_tokens": quantile(filter(None, prompts), 0.5),
        "prompt_step_tokens": quantile((whole for whole, prompt in zip(t.total, prompts) if prompt), 0.5),
        "decodes": sum(ran) / len(ran) if ran else 0.0,
        "left_out": (n_ready - sum(t.served)) / n_ready if n_ready else 0.0,
        "all_left_out": sum(ready > 0 and not served for ready, served in zip(t.ready, t.served)) / n,
    }
    if token_budget:
        out |= {
            "budget_full": sum(tokens >= token_budget for tokens in t.total) / n,
            "decodes_fill": sum(tokens >= 0.75 * token_budget for tokens in t.decode) / n,
        }
    return out


def _alone(t: Tally, cost: Callable[[Batch], float]) -> dict[str, float]:
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
    steps, c = t.trace.steps, t.trace.columns
    ones = [c["length"][a:b].count(1) for a, b in pairwise(c["offset"])]
    carry = sorted((i for i, n in enumerate(t.total) if n > ones[i]), key=lambda i: t.total[i])
    if carry:
        batch = steps[carry[len(carry) // 2]].batch
        out |= {"again": cost(batch), "again_less": cost(_fewer(batch, -(-sum(batch.length) // 10)))}
    return out


def _fewer(batch: Batch, n: int) -> Batch:
    """A batch without n of its tokens: the longest chunks give first, and keep one token."""
    lengths = list(batch.length)
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        gone = min(n, lengths[i] - 1)
        lengths[i], n = lengths[i] - gone, n - gone
    return Batch(batch.rid, batch.start, tuple(lengths), batch.emits)
