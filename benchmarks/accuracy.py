"""The simulator against runs of vLLM that others measured: TTFT, TPOT, latency, makespan, tokens a second.

python -m benchmarks accuracy [FILES]: files as in the shared folder's `runs`; without any, those there are.
Nothing of a price was fitted to them: its constants come from timings of single kernels (`kernels`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

from benchmarks.runner import ROOT, options, provenance_of, write
from chunkprefill.metrics.events import Events
from chunkprefill.metrics.waits import latency, tpot, ttft
from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.core import Batch, Request, ScheduleError
from chunkprefill.scheduling.prefix_cache import block_contents
from chunkprefill.scheduling.trace import Trace
from chunkprefill.scheduling.vllm import VllmV1
from chunkprefill.simulation.cost import Roofline
from chunkprefill.simulation.kernels import Kernels
from chunkprefill.simulation.price import pool_for, price
from chunkprefill.simulation.simulate import simulate
from chunkprefill.strict import loads, shown
from chunkprefill.whole import flag, real_number

BOUND = 0.05  # of every cell
SPREAD = {"mean": np.mean, "P50": 50, "P90": 90, "P99": 99}
GAP = 0.25e-3  # s between two steps, tried below: a device that waits while the next batch is handed over
#: Errors that LLMServingSim publishes of itself, by device and model: the `validation/summary.txt` beside
#: each example at commit 5daddb2. It counts TTFT from the engine's queue, not from the client's call.
LLMSERVINGSIM = {
    ("rtx4090", "Llama-3.1-8B"): {
        "TTFT": {"mean": 0.006, "P50": 0.008, "P90": 0.006, "P99": 0.003},
        "TPOT": {"mean": 0.002, "P50": 0.002, "P90": 0.002, "P99": 0.009},
        "latency": {"mean": 0.005, "P50": 0.009, "P90": 0.002, "P99": 0.004},
    },
    ("rtxpro6000", "Llama-3.1-8B"): {
        "TTFT": {"mean": -0.040, "P50": -0.086, "P90": -0.044, "P99": -0.020},
        "TPOT": {"mean": -0.010, "P50": -0.000, "P90": 0.005, "P99": 0.006},
        "latency": {"mean": -0.018, "P50": -0.012, "P90": -0.018, "P99": -0.016},
    },
}
#: Settings of the server that its rules take, by the names of `VllmV1`.
RULES = (
    "max_num_batched_tokens",
    "max_num_seqs",
    "long_prefill_token_threshold",
    "policy",
    "enable_chunked_prefill",
    "max_model_len",
    "scheduler_reserve_full_isl",
    "watermark",
)
#: What else is read of it, and what only describes it. Any other setting may change what it does: refused.
SETTINGS = {*RULES, "model", "device", "dtype", "kv_dtype", "tp", "n_blocks", "block_size", "prefix_caching"}
SETTINGS |= {"async_scheduling", "gpu_memory_utilization", "vllm", "version", "note", "seed"}
#: Settings whose values here leave a run as it is priced. By type too: `"ep": true` is not one device.
NEUTRAL = {"pp": (1,), "dp": (1,), "ep": (1, False), "enforce_eager": (False,)}
TIMES = ("arrival", "first_token", "last_token")  # s
#: What would say of a request that it was not served, and what it says of one that was.
SERVED: dict[str, tuple[object, ...]] = {
    "success": (True, None),
    "failed": (False, None),
    "aborted": (False, None),
    "error": (None, "", False),
}
Cells = dict[str, dict[str, float]]  # metric -> statistic -> s, or tokens/s


def _is_known(name: str, value: object) -> bool:
    """Whether a setting is read here, only describes the server, or changes nothing."""
    neutral = any(type(value) is type(each) and value == each for each in NEUTRAL.get(name, ()))
    return name in SETTINGS or value is None or neutral


@dataclass(frozen=True)
class MeasuredRun:
    """A measured run: what the server was set to, what came, and when it was answered."""

    name: str
    model: str
    engine: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    source: str

    @classmethod
    def load(cls, path: Path) -> MeasuredRun:
        """Read one file; ValueError naming it where it is no such run."""
        try:
            document = loads(path.read_text("utf-8"))
            engine, rows = document["engine"], document["requests"]
            model = engine.get("model") or Path(document["path"]).parent.name
            source = f"{document['source']}, commit {document['commit'][:7]}, {document['licence']}"
            if other := [name for name in engine if not _is_known(name, engine[name])]:
                raise ValueError(
                    f"engine.{other[0]} is {shown(engine[other[0]])}: a setting that is not known"
                )
            if not rows:
                raise ValueError("no requests")
            for row in rows:
                times = [real_number(f"request {row['rid']}: {name}", row[name]) for name in TIMES]
                if times != sorted(times) or times[0] == times[1]:
                    raise ValueError(
                        f"request {row['rid']}: {', '.join(TIMES)} are {times}, which go backwards or stand still"
                    )
                for name, fine in SERVED.items():
                    if row.get(name) not in fine:
                        raise ValueError(
                            f"request {row['rid']}: {name} is {shown(row[name])}: it was not served"
                        )
            run = cls(path.stem, model, engine, rows, source)
            run.check()
            return run
        except (KeyError, TypeError, ValueError, AttributeError, OSError, RecursionError) as error:
            raise ValueError(f"{path}: not a measured run: {type(error).__name__}: {error}") from None

    def check(self) -> None:
        """ValueError for requests, rules, a pool or a price that there cannot be."""
        requests, pool = self.requests(), self.pool()
        Trace(requests)
        self.policy()
        self.price()
        flag("engine.async_scheduling", self.overlap)
        for request in requests if pool.prefix_caching else ():
            block_contents(request, pool.block_size)

    @property
    def caching(self) -> bool:
        """Whether prompts that begin alike share blocks."""
        return flag("engine.prefix_caching", self.engine.get("prefix_caching", False))

    def requests(self) -> list[Request]:
        """What came, at its true times; equal hashes of blocks say which prompts begin alike."""
        return [
            Request(
                r["rid"],
                r["arrival"],
                r["n_prompt"],
                r["n_output"],
                priority=r.get("priority", 0),
                blocks=tuple(r["blocks"]) if self.caching else None,
            )
            for r in self.rows
        ]

    def policy(self) -> VllmV1:
        """The server's rules."""
        engine = self.engine
        needed = {name: engine[name] for name in RULES[:2]}  # the device decides vLLM's defaults
        return VllmV1(**(needed | {name: engine[name] for name in RULES if engine.get(name) is not None}))

    @property
    def overlap(self) -> bool:
        """Whether it schedules while the step before runs."""
        return flag("engine.async_scheduling", self.engine.get("async_scheduling", False))

    def pool(self) -> BlockPool:
        """Its blocks, less the null block; where they were not recorded, as many as the device has room for."""
        engine, caching = self.engine, self.caching
        if engine.get("n_blocks") is not None:
            return BlockPool(engine["n_blocks"] - 1, engine["block_size"], caching)
        share = engine.get("gpu_memory_utilization")
        room = pool_for(
            self.model,
            engine["device"],
            dtype=engine["dtype"],
            kv_dtype=engine.get("kv_dtype"),
            budget=engine["max_num_batched_tokens"],
            tp=engine.get("tp", 1),
            block_size=engine["block_size"],
            max_seqs=engine["max_num_seqs"],
            **({} if share is None else {"utilisation": share}),
        )
        return BlockPool(room.n_blocks, engine["block_size"], caching)

    def price(self) -> Kernels | Roofline:
        """A step's price, of kernels timed one by one."""
        engine = self.engine
        return price(
            self.model,
            engine["device"],
            dtype=engine["dtype"],
            kv_dtype=engine.get("kv_dtype"),
            tp=engine.get("tp", 1),
        )


def measured_cells(run: MeasuredRun) -> Cells:
    """What the run took."""
    rows = run.rows
    arrival, first, last = (np.array([r[k] for r in rows]) for k in ("arrival", "first_token", "last_token"))
    n = np.array([r["n_output"] for r in rows])
    each = (last - first)[n > 1] / (n[n > 1] - 1)
    return cells(first - arrival, each, last - arrival, last.max() - arrival.min(), int(n.sum()))


def predicted(trace: Trace) -> Cells:
    """What the simulator says it takes."""
    events = Events(trace)
    each = tpot(events)
    n = sum(request.n_output for request in trace.requests)
    span = trace.columns["end"][-1] - min(request.arrival for request in trace.requests)
    return cells(ttft(events), each[~np.isnan(each)], latency(events), span, n)


def cells(first: Any, each: Any, whole: Any, span: float, n_tokens: int) -> Cells:
    """The table of one run; without TPOT where no request has a second token."""
    out = {}
    for name, values in (("TTFT", first), ("TPOT", each), ("latency", whole)):
        if not len(values):
            continue
        out[name] = {
            statistic: float(how(values) if callable(how) else np.percentile(values, float(str(how))))
            for statistic, how in SPREAD.items()
        }
    return out | {"makespan": {"all": float(span)}, "tokens a second": {"all": n_tokens / float(span)}}


def errors(ours: Cells, theirs: Cells) -> Cells:
    """ours / theirs - 1, where theirs is more than 0: tokens that a client got together are 0 s apart."""
    return {m: {s: ours[m][s] / value - 1 for s, value in row.items() if value} for m, row in theirs.items()}


# --- what an error is made of -----------------------------------------------------------------------------


def average_decodes(cost: Kernels) -> Callable[[Batch], float]:
    """The price of a batch whose decodes are all as long as their mean."""

    def of(batch: Batch) -> float:
        return cost.of(batch.totals()._replace(longest_decode=0))

    return of


def variants(run: MeasuredRun) -> dict[str, Callable[[], Trace]]:
    """What to simulate: the run as it was set up, and otherwise in each thing that an error may come from."""
    cost = run.price()
    overlap = run.overlap

    def trace(
        cost: Callable[[Batch], float] = cost, overlap: bool = overlap, pool: BlockPool | None = None
    ) -> Trace:
        return simulate(run.requests(), run.policy(), cost, pool or run.pool(), overlap=overlap)

    out: dict[str, Callable[[], Trace]] = {"as set up": trace}
    if isinstance(cost, Kernels):
        out["every decode as long as their mean"] = lambda: trace(average_decodes(cost))
        out[f"a gap of {1e3 * GAP:g} ms a step"] = lambda: trace(replace(cost, overhead=GAP))
    if run.pool().prefix_caching:
        plain = run.pool()
        out["no prefix caching"] = lambda: trace(pool=BlockPool(plain.n_blocks, plain.block_size))
    if overlap:
        out["scheduled between steps"] = lambda: trace(overlap=False)
    return out


def error_of(run: MeasuredRun) -> Cells:
    """predicted / measured - 1 of the run as it was set up."""
    return errors(predicted(variants(run)["as set up"]()), measured_cells(run))


def judged(run: MeasuredRun) -> dict[str, Any]:
    """The document of one run. ValueError naming it where its settings could not have served its requests."""
    truth = measured_cells(run)
    begun = process_time()
    made = variants(run)
    try:
        trace = made["as set up"]()
    except ScheduleError as error:
        raise ValueError(f"{run.name}: its settings could not have served it: {error}") from None
    cpu_s = process_time() - begun
    ours = predicted(trace)
    off = errors(ours, truth)
    met = {m: {s: abs(value) <= BOUND for s, value in row.items()} for m, row in off.items()}
    return {
        "run": run.name,
        "model": run.model,
        "engine": {key: value for key, value in run.engine.items() if isinstance(value, bool | int | str)},
        "source": run.source,
        "price": str(run.price()),
        "requests": len(run.rows),
        "prompt_tokens": sum(r["n_prompt"] for r in run.rows),
        "output_tokens": sum(r["n_output"] for r in run.rows),
        "steps": len(trace.steps),
        "preemptions": sum(len(step.batch.preempted) for step in trace.steps),
        "cpu_s": round(cpu_s, 3),
        "steps_a_second": round(len(trace.steps) / cpu_s),
        "measured": rounded(truth),
        "predicted": rounded(ours),
        "error": rounded(off),
        "within_bound": met,
        "all_within_bound": all(fine for row in met.values() for fine in row.values()),
        "llmservingsim": LLMSERVINGSIM.get((run.engine["device"], run.model)),
        "otherwise": {
            name: rounded(errors(predicted(made[name]()), truth)) for name in made if name != "as set up"
        },
    }


def rounded(table: Cells) -> Cells:
    """To five digits: the runs themselves stay where they are."""
    return {m: {s: float(f"{value:.5g}") for s, value in row.items()} for m, row in table.items()}


def printed(document: dict[str, Any]) -> str:
    """The table of one run, for a terminal."""
    theirs = document["llmservingsim"] or {}
    lines = [f"{document['run']}: {document['model']}, {document['steps']:,} steps", f"  {document['price']}"]
    lines.append(f"  {'':>22} {'measured':>10} {'predicted':>10} {'error':>8} {'LLMServingSim':>14}")
    for metric, row in document["measured"].items():
        for statistic, value in row.items():
            off, other = document["error"][metric].get(statistic), theirs.get(metric, {}).get(statistic)
            mark = "" if off is None or abs(off) <= BOUND else " *"
            error, beside = ("" if x is None else f"{x:+.1%}" for x in (off, other))
            line = f"  {metric + ' ' + statistic:>22} {value:>10.4g} {document['predicted'][metric][statistic]:>10.4g}"
            lines.append(f"{line} {error:>8} {beside:>14}{mark}")
    for name, off in document["otherwise"].items():
        means = ", ".join(f"{m} {off[m]['mean']:+.1%}" for m in ("TTFT", "TPOT", "latency") if off.get(m))
        lines.append(f"  {name}: {means}, makespan {off['makespan']['all']:+.1%}")
    return "\n".join(lines)


def shared_runs() -> list[Path]:
    """The measured runs in the folder that CHUNKPREFILL_SHARED names, else in ../shared."""
    named = os.environ.get("CHUNKPREFILL_SHARED")
    folders = [Path(named)] if named else []
    for folder in (*folders, ROOT.parent / "shared"):
        if found := sorted((folder / "runs").glob("*.json")):
            return found
    return []


def main(argv: list[str] | None = None) -> int:
    """The bench; see the module's docstring. Exit status 0 whatever the errors are, 2 for what is no run."""
    parser = options("accuracy", __doc__)
    parser.add_argument(
        "files", nargs="*", type=Path, help="measured runs (default: those in the shared folder)"
    )
    args = parser.parse_args(argv)
    files = args.files or shared_runs()
    if not files:
        print("SKIPPED: no measured runs (name files, or the folder in CHUNKPREFILL_SHARED)", file=sys.stderr)
        return 0
    rows = []
    for path in files:
        try:
            rows.append(judged(MeasuredRun.load(path)))
        except ValueError as error:
            print(f"accuracy: {error}", file=sys.stderr)
            return 2
        print(printed(rows[-1]), file=sys.stderr)
    document = {
        "bench": "accuracy",
        "what": "predicted / measured - 1 of runs of vLLM that others measured and nothing here was fitted to",
        "bound": BOUND,
        "rows": rows,
        "provenance": provenance_of(args),
    }
    write(document, args.out)
    return 0
