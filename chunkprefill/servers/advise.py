"""What budget should I set? Predicted waits over budgets, the largest that keeps the promises, and an error bar."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from chunkprefill.configs import Device, find_device, find_model, table
from chunkprefill.metrics.tally import Tally, quantile
from chunkprefill.model.config import Config
from chunkprefill.plots.style import Table, plain
from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.core import Request, ScheduleError
from chunkprefill.scheduling.trace import Trace
from chunkprefill.scheduling.vllm import VllmV1
from chunkprefill.servers.client import clean
from chunkprefill.simulation.cost import SchedulerCost
from chunkprefill.simulation.layout import Layout
from chunkprefill.simulation.price import SEATS, NoRoom, Serving, pool_of, priced
from chunkprefill.simulation.simulate import simulate
from chunkprefill.strict import shown
from chunkprefill.whole import check_fields, real_number, whole_number

BUDGETS = (128, 256, 512, 1024, 2048, 4096, 8192, 16_384)  # tokens a step
DOCUMENT = 2048  # prompt tokens above which a request of a trace counts as a document
QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "max": 1.0}
KINDS = ("chats", "documents")
HOST = SchedulerCost(s0=2e-4, per_decode=2e-5, per_chunk=2e-5)  # s: vLLM's, 18-21 us a request, a fixed part


@dataclass(frozen=True)
class Promise:
    """An upper bound on a wait: `Promise.of("tbt p99 50ms")`, `Promise.of("ttft chats p90 1s")`.

    metric: "tbt" or "ttft"; kind: a class of requests, "" for all; at: a key of QUANTILES; bound: s.
    """

    metric: str
    kind: str
    at: str
    bound: float

    def __post_init__(self) -> None:
        known = {"metric": ("tbt", "ttft"), "kind": ("", *KINDS), "at": tuple(QUANTILES)}
        for name, values in known.items():
            if (value := getattr(self, name)) not in values:
                raise ValueError(f"a promise of {name} {value!r}; there are {', '.join(map(repr, values))}")
        check_fields(self, real_number, ("bound",), of="a promise: ", above=True)

    @classmethod
    def of(cls, text: str) -> Promise:
        """From words. ValueError says what a promise looks like."""
        found = re.fullmatch(
            r"\s*(tbt|itl|ttft)\s+(?:(chats|documents|all)\s+)?(p50|p90|p95|p99|max)\s*(?:<=|≤|<)?\s*"
            r"(\d+(?:\.\d*)?|\.\d+)\s*(ms|s)\s*",
            text.lower() if isinstance(text, str) else "",
        )
        if not found:
            raise ValueError(
                f"no promise {clean(text, 60)!r}: METRIC [chats|documents] AT BOUND, such as 'tbt p99 50ms' or "
                "'ttft chats p90 1s'; METRIC tbt or ttft, AT p50, p90, p95, p99 or max, BOUND in ms or s"
            )
        metric, kind, at, bound, unit = found.groups()
        seconds = float(bound) * (1e-3 if unit == "ms" else 1.0)
        return cls("tbt" if metric == "itl" else metric, "" if kind in (None, "all") else kind, at, seconds)

    def __str__(self) -> str:
        who = f" of {self.kind}" if self.kind else ""
        return f"{self.metric.upper()}{who}, {self.at.upper() if self.at != 'max' else 'largest'}: {plain(self.bound)}"


def _pair_of_tokens(what: str, given: Any) -> tuple[int, int]:
    """Prompt and output tokens of a request. ValueError for what is no pair of them."""
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise ValueError(f"{what} must be (prompt, output) tokens, got {shown(given)}")
    prompt, output = (whole_number(f"{what}: tokens", n, 1, 1_000_000) for n in given)
    return prompt, output


@dataclass(frozen=True)
class Mix:
    """Chats and documents that come at random: requests/s, and (prompt, output) tokens of each, on average.

    Lengths are drawn evenly from half to one and a half times the average. Raises ValueError for numbers out of
    range.
    """

    chats_per_s: float = 4.0
    chat: tuple[int, int] = (300, 200)
    documents_per_s: float = 0.1
    document: tuple[int, int] = (8000, 200)
    n: int = 300
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self, real_number, ("chats_per_s", "documents_per_s"), below=1e5)
        if not self.chats_per_s + self.documents_per_s:
            raise ValueError("chats_per_s and documents_per_s are both 0: nothing comes")
        check_fields(self, _pair_of_tokens, ("chat", "document"))
        check_fields(self, whole_number, ("n",), least=20, most=20_000)
        check_fields(self, whole_number, ("seed",), least=0)

    def requests(self) -> list[Request]:
        """The requests, by name of their class: `chats 0`, `documents 1`."""
        draw, at, made = random.Random(self.seed), 0.0, []
        rate = self.chats_per_s + self.documents_per_s
        for i in range(self.n):
            at += draw.expovariate(rate)
            kind, mean = "chats", self.chat
            if draw.random() < self.documents_per_s / rate:
                kind, mean = "documents", self.document
            prompt, output = (max(1, round(tokens * draw.uniform(0.5, 1.5))) for tokens in mean)
            made.append(Request(f"{kind} {i}", at, prompt, output))
        return made

    def __str__(self) -> str:
        return (
            f"{self.chats_per_s:g} chats a second ({self.chat[0]:,} + {self.chat[1]:,} tokens), "
            f"{self.documents_per_s:g} documents a second ({self.document[0]:,} + {self.document[1]:,} tokens)"
        )


@dataclass(frozen=True)
class Place:
    """Where it runs: a model, how it lies on devices, and what the model is called."""

    model: Config
    device: Device
    layout: Layout = field(default_factory=Layout)
    name: str = ""

    @property
    def cost(self) -> Any:
        """Batch -> s."""
        return priced(self.model, self.device, self.layout)

    def pool(self, budget: int) -> BlockPool:
        """What is left for the cache beside a step of `budget` tokens. NoRoom where nothing is."""
        return pool_of(self.model, self.device, Serving(budget, min(SEATS, budget)), self.layout)

    def __str__(self) -> str:
        many = f"{self.layout.tp} × " if self.layout.tp > 1 else ""
        return f"{self.name or 'a model'} in {self.layout.dtype} on {many}{self.device.name}"


def predict(
    requests: Iterable[Request], place: Place, budget: int, *, threshold: int = 0, slower: float = 1.0
) -> Trace:
    """The run that a row is read from: vLLM's rules at this budget, priced; scheduling overlaps with the step.

    threshold: `long_prefill_token_threshold`. slower: a factor on every step's time. Raises ValueError where
    the model, or a request, does not fit.
    """
    cost = place.cost
    policy = VllmV1(budget, min(SEATS, budget), threshold)
    priced: Callable[..., float] = cost if slower == 1.0 else lambda batch: slower * cost(batch)
    return simulate(requests, policy, priced, place.pool(budget), scheduling=HOST, overlap=True)


@dataclass(frozen=True)
class Row:
    """One budget: what is predicted of it. Waits in s; why: why it cannot run, "" if it can."""

    budget: int
    n_blocks: int = 0
    waits: Mapping[tuple[str, str], Mapping[str, float]] = field(default_factory=dict)  # (metric, kind)
    tokens_per_s: float = math.nan  # of answers
    full: float = math.nan  # share of steps
    preemptions: int = 0
    why: str = ""

    def value(self, promise: Promise) -> float:
        """What is predicted of what was promised, s; inf where it cannot run, nan for a class without requests."""
        if self.why:
            return math.inf
        return self.waits.get((promise.metric, promise.kind), {}).get(promise.at, math.nan)


def row_of(trace: Trace, budget: int, n_blocks: int) -> Row:
    """A row, read off a run."""
    tally, kinds = Tally(trace), list(map(kind_of, trace.requests))
    waits: dict[tuple[str, str], dict[str, float]] = {}
    for kind in ("", *KINDS):
        if mine := [i for i, other in enumerate(kinds) if kind in ("", other)]:
            waits["ttft", kind] = quantiles(tally.ttft[i] for i in mine)
            waits["tbt", kind] = quantiles(gap for i in mine for gap in tally.gaps[i])
    lasted, n_steps = tally.duration, len(tally.total)
    return Row(
        budget,
        n_blocks,
        waits,
        tokens_per_s=sum(map(len, tally.tokens)) / lasted if lasted else math.nan,
        full=sum(tokens >= budget for tokens in tally.total) / n_steps if n_steps else math.nan,
        preemptions=tally.n_evicted,
    )


def kind_of(request: Request) -> str:
    """The class of a request: by its name where a `Mix` made it, else by the length of its prompt."""
    name = str(request.rid).split(" ")[0]
    if name in KINDS:
        return name
    return "documents" if request.n_prompt > DOCUMENT else "chats"


def quantiles(values: Iterable[float]) -> dict[str, float]:
    """{key of QUANTILES: s}, by the library's own rule; {} for no values."""
    known = [value for value in values if not math.isnan(value)]
    return {at: quantile(known, q) for at, q in QUANTILES.items()} if known else {}


@dataclass(frozen=True)
class Advice:
    """The answer. rows: by budget; best: the budget to set, None where none keeps every promise."""

    place: Place
    load: str
    requests: tuple[Request, ...] = field(repr=False)
    promises: tuple[Promise, ...]
    rows: tuple[Row, ...]

    @property
    def able(self) -> list[Row]:
        """The rows of budgets that can run."""
        return [row for row in self.rows if not row.why]

    def value(self, row: Row, promise: Promise) -> float:
        """What a promise is held against, s. For time between tokens the largest of this and all smaller budgets.

        A quantile falls again once a budget is so large that its long steps are few: the stalls have become
        rarer, not shorter. A promise that is kept in that way alone is not kept.
        """
        if promise.metric != "tbt" or row.why:
            return row.value(promise)
        values = [r.value(promise) for r in self.able if r.budget <= row.budget]
        return max((v for v in values if not math.isnan(v)), default=math.nan)

    @property
    def unheld(self) -> list[Promise]:
        """Promises of waits that no request of the load has: nothing was predicted that they could be held to."""
        able = self.able
        return [p for p in self.promises if able and all(math.isnan(row.value(p)) for row in able)]

    def broken(self, row: Row) -> list[Promise]:
        """The promises that a budget breaks."""
        return [p for p in self.promises if self.value(row, p) > p.bound]

    def hidden(self, row: Row) -> list[Promise]:
        """The broken ones whose quantile alone is kept: because long steps are few, not short."""
        return [p for p in self.broken(row) if row.value(p) <= p.bound]

    def worst(self, row: Row) -> float:
        """The largest of predicted over promised."""
        shares = (self.value(row, p) / p.bound for p in self.promises)
        return max((share for share in shares if not math.isnan(share)), default=0.0)

    @property
    def best(self) -> int | None:
        """The largest budget that keeps every promise; of budgets that make the same run, the smallest.

        Larger budgets finish prompts sooner and hold up decodes longer: it is the rule that vLLM's own
        developers give, "as large as possible, as long as your inter-token latency permits".
        """
        kept = [row for row in self.able if not self.broken(row)]
        if not kept:
            return None
        most = max(kept, key=lambda row: row.budget)
        # What no step ever fills need not be set.
        same = (r for r in self.able if (r.waits, r.tokens_per_s) == (most.waits, most.tokens_per_s))
        return min(row.budget for row in same)

    @property
    def nearest(self) -> Row | None:
        """The row that breaks its promises by the least; None where nothing fits."""
        return min(self.able, key=lambda row: (self.worst(row), row.budget), default=None)

    def table(self) -> Table:
        """What is predicted, by budget."""
        there = {key for row in self.rows for key in row.waits}
        shown = [("ttft", kind) for kind in KINDS if ("ttft", kind) in there]
        header = ["budget", *(f"TTFT {kind} P50 / P99" for _, kind in shown), "TBT P50 / P99 / largest"]
        header += ["answer tokens/s", "blocks", "full steps", "promises"]
        rows = []
        for row in self.rows:
            if row.why:
                rows.append((f"{row.budget:,}", *["–"] * (len(header) - 2), row.why))
                continue
            broken = self.broken(row)
            cells = [_waits(row, key, ("p50", "p99")) for key in shown]
            cells.append(_waits(row, ("tbt", ""), ("p50", "p99", "max")))
            kept = f"{len(broken)} broken{'*' if self.hidden(row) else ''}" if broken else "kept"
            more = (f"{row.tokens_per_s:,.0f}", f"{row.n_blocks:,}", f"{row.full:.0%}", kept)
            rows.append((f"{row.budget:,}", *cells, *more))
        return Table(header=header, rows=rows, caption=f"{self.place}; {self.load}")

    def flags(self, budget: int) -> list[str]:
        """The command lines that set it."""
        layout = self.place.layout
        vllm = f"vLLM:   --max-num-batched-tokens {budget}"
        sglang = f"SGLang: --chunked-prefill-size {budget} --enable-mixed-chunk"
        if budget < SEATS:
            vllm += f" --max-num-seqs {budget}"
        if layout.tp > 1:
            vllm, sglang = f"{vllm} --tensor-parallel-size {layout.tp}", f"{sglang} --tp {layout.tp}"
        if layout.dtype == "fp8":
            vllm, sglang = f"{vllm} --quantization fp8", f"{sglang} --quantization fp8"
        if layout.kv_dtype == "fp8":
            vllm += " --kv-cache-dtype fp8"
        return [vllm, sglang]

    @cached_property
    def elsewhere(self) -> list[tuple[str, int | None]]:
        """What would change the advice: (change, the budget then; None: none keeps the promises)."""
        rate = [replace(r, arrival=r.arrival / 1.5) for r in self.requests]
        out = [("half as many requests again", self._again(rate))]
        # A prompt counts as a document by its name, or doubling would move it to another class.
        if any(kind_of(r) == "documents" for r in self.requests):
            longer = [
                replace(r, n_prompt=2 * r.n_prompt) if kind_of(r) == "documents" else r for r in self.requests
            ]
            out.append(("documents twice as long", self._again(longer)))
        if error := min(worst_error(self.place), 0.5):
            out.append((f"every step {error:.0%} slower than predicted", self._again(slower=1 + error)))
            out.append((f"every step {error:.0%} faster", self._again(slower=1 - error)))
        if self.best is None:
            out += self._helps()
        return out

    def _helps(self) -> list[tuple[str, int | None]]:
        """What else would help where no budget keeps all promises."""
        out, layout = [], self.place.layout
        if self.nearest and (budget := self.nearest.budget) >= 256:
            words = f"--long-prefill-token-threshold {budget // 2} (newcomers pass a document)"
            out.append((words, self._again(threshold=budget // 2)))
        out.append(("two replicas (half of the requests each)", self._again(self.requests[::2])))
        layouts = {f"tp={2 * layout.tp}": replace(layout, tp=2 * layout.tp)}
        if layout.dtype in ("bf16", "fp16", "fp32"):
            layouts["weights in fp8"] = replace(layout, dtype="fp8")
        if layout.kv_dtype is None:
            layouts["a cache in fp8"] = replace(layout, kv_dtype="fp8")
        for words, other in layouts.items():
            try:
                out.append((words, self._again(place=replace(self.place, layout=other))))
            except ValueError:
                continue  # heads that so many devices cannot share, a format that the device lacks
        return out

    def _again(self, requests: Sequence[Request] = (), place: Place | None = None, **more: Any) -> int | None:
        """The best budget for other requests, another place, a threshold or another speed."""
        budgets = [row.budget for row in self.rows]
        rows = table_rows(requests or self.requests, place or self.place, budgets, **more)
        return replace(self, requests=(), rows=tuple(rows)).best

    def __str__(self) -> str:
        best, nearest, unheld = self.best, self.nearest, self.unheld
        lines = [str(self.table())]
        if any(map(self.hidden, self.able)):
            lines.append(
                "* a quantile that is kept because long steps are few, not short: see smaller budgets"
            )
        lines += ["", f"prices: {self.place.cost}"]
        for p in self.promises:
            lines.append(f"promise: {p}{' (no request of the load has such a wait)' if p in unheld else ''}")
        if best is not None:
            lines.append(f"set a budget of {best:,} tokens a step:")
            lines += [f"  {flag}" for flag in self.flags(best)]
        elif nearest is None:
            lines.append(f"nothing fits: {self.rows[0].why}")
        else:
            broken = "; ".join(
                f"{p} (predicted {plain(self.value(nearest, p))})" for p in self.broken(nearest)
            )
            lines.append(
                f"no budget keeps every promise. The nearest is {nearest.budget:,}, which breaks {broken}"
            )
        lines.append(f"error bar: {error_words(self.place)}")
        if nearest is not None and self.requests:
            for change, then in self.elsewhere:
                said = "no budget keeps every promise" if then is None else f"a budget of {then:,}"
                lines.append(f"with {change}: {said}")
        return "\n".join(lines)

    __repr__ = __str__


def _waits(row: Row, key: tuple[str, str], at: Sequence[str]) -> str:
    values = row.waits.get(key, {})
    return " / ".join(plain(values.get(name)) for name in at)


def table_rows(
    requests: Iterable[Request],
    place: Place,
    budgets: Iterable[int] = BUDGETS,
    *,
    slower: float = 1.0,
    threshold: int = 0,
) -> list[Row]:
    """A row for each budget."""
    requests, rows = list(requests), []
    for budget in sorted(set(budgets)):
        try:
            n_blocks = place.pool(budget).n_blocks or 0
            trace = predict(requests, place, budget, slower=slower, threshold=threshold)
            rows.append(row_of(trace, budget, n_blocks))
        except ScheduleError as error:
            rows.append(Row(budget, why=f"a request does not fit: {error}"))
        except NoRoom:
            rows.append(Row(budget, why="no room for a cache"))
    return rows


def advise(
    model: Config | str,
    device: Device | str,
    load: Mix | Iterable[Request],
    promises: Iterable[Promise | str],
    *,
    dtype: str = "bf16",
    kv_dtype: str | None = None,
    tp: int = 1,
    budgets: Sequence[int] = BUDGETS,
) -> Advice:
    """What token budget to set, predicted by the simulator under vLLM's rules, with how far it may be off.

    model, device, dtype, kv_dtype, tp: as `price`. load: a `Mix`, or requests (`read_azure`, a trace's).
    promises: at least one, as `Promise` or in words. Errors as of `price`; ValueError for an empty load.
    """
    config, where = find_model(model), find_device(device)
    place = Place(config, where, Layout(dtype, kv_dtype, tp), model if isinstance(model, str) else "")
    place.cost  # noqa: B018  (what is wrong with the place is said before anything is simulated)
    if isinstance(load, str) or not isinstance(load, Mix | Iterable):
        raise TypeError(f"load is {load!r}: a Mix or requests are needed, such as read_azure(FILE) gives")
    requests = tuple(load.requests() if isinstance(load, Mix) else load)
    if not requests:
        raise ValueError("no requests to predict waits of")
    listed = [promises] if isinstance(promises, Promise | str) else promises or ()
    kept = tuple(p if isinstance(p, Promise) else Promise.of(p) for p in listed)
    if not kept:
        raise ValueError("no promise to keep: give one, such as 'tbt p99 50ms'")
    tried = _budgets(budgets)
    words = str(load) if isinstance(load, Mix) else f"{len(requests):,} requests"
    found = Advice(place, words, requests, kept, tuple(table_rows(requests, place, tried)))
    if len(found.unheld) == len(kept):
        raise ValueError(
            f"{'; '.join(map(str, kept))}: no request of the load has such a wait, so any budget would keep it"
        )
    return found


def _budgets(budgets: Any) -> list[int]:
    """The budgets to try. ValueError for what is none."""
    given = budgets if isinstance(budgets, Iterable) and not isinstance(budgets, str) else [budgets]
    listed = [whole_number("a budget", each, 1, 1 << 20) for each in given]
    if not listed:
        raise ValueError("no budget to try: give one, such as 512")
    return listed


# --- how far such predictions were off ------------------------------------------------------------------


def accuracy() -> list[dict[str, Any]]:
    """Errors on runs that nothing was fitted to: rows of `benchmarks/results/accuracy.json`.

    Each has "device", "metric" and "error", a share: predicted over measured, less 1.
    """
    return [row for row in table("accuracy.json") if math.isfinite(row["error"])]


def worst_error(place: Place) -> float:
    """The largest error, as a share, on the place's own device if it was measured, else on any; 0 if none was."""
    return max((abs(row["error"]) for row in _nearest_runs(place)), default=0.0)


def _nearest_runs(place: Place) -> list[dict[str, Any]]:
    """The rows of the place's own device; of all devices where it was not measured."""
    rows = accuracy()
    return [row for row in rows if row["device"] == place.device.name] or rows


def error_words(place: Place) -> str:
    """The error bar in a sentence."""
    if not (rows := _nearest_runs(place)):
        return "not known: no run that was not fitted is recorded with this package"
    errors, devices = [abs(row["error"]) for row in rows], sorted({row["device"] for row in rows})
    mine = place.device.name in devices
    here = "" if mine else f"; none of them is of {place.device.name}, where more must be expected"
    return (
        f"{len(errors)} predicted waits and rates of runs that nothing was fitted to ({', '.join(devices)}) were off by "
        f"{quantile(errors, 0.5):.1%} in the middle and by {max(errors):.0%} at most{here}"
    )
