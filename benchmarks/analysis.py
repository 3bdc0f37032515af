"""How fast a trace is looked at: `summary` of a long one, and a sweep over budgets and workloads."""

from __future__ import annotations

import os
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from benchmarks.runner import ROOT, options, positive, provenance_of, write
from chunkprefill.metrics.summary import summary
from chunkprefill.scheduling.policies import ChunkedPrefill
from chunkprefill.simulation.simulate import simulate
from chunkprefill.simulation.sweep import sweep
from chunkprefill.simulation.workloads import conversation, read_azure

TRACE = "traces/AzureLLMInferenceTrace_conv.csv"  # in the shared folder
BUDGETS = (128, 256, 384, 512, 768, 1024, 2048, 4096)  # tokens
TARGETS = {"summary": 0.5, "sweep": 60.0}  # s


def main(argv: list[str]) -> int:
    """Exit status 0 whatever the figures are; `met` says whether they meet their targets."""
    parser = options("analysis", __doc__)
    parser.add_argument("--requests", type=positive, default=2000, help="a workload of the sweep")
    parser.add_argument(
        "--workers", type=positive, default=os.cpu_count() or 1, help="processes of the sweep"
    )
    parser.add_argument("--repeats", type=positive, default=5, help="of the summary")
    shared = Path(os.environ.get("CHUNKPREFILL_SHARED") or ROOT.parent / "shared")
    parser.add_argument("--trace", type=Path, default=shared / TRACE, help="Azure's conversation trace")
    args = parser.parse_args(argv)
    rows = [timed_sweep(args.requests, args.workers, args.seed)]
    if args.trace.is_file():
        rows.append(timed_summary(args.trace, args.repeats))
    else:
        print(f"MISSING {args.trace}: the summary of a long trace is skipped", file=sys.stderr)
    for row in rows:
        row |= {"target_s": TARGETS[row["case"]], "met": row["seconds"] <= TARGETS[row["case"]]}
        print({k: v for k, v in row.items() if k != "samples"}, file=sys.stderr)
    where = provenance_of(args)
    write({"bench": "analysis", "provenance": where, "rows": rows}, args.out)
    return 0


def timed_summary(path: Path, repeats: int) -> dict[str, Any]:
    """CPU seconds of every metric of the whole trace; the first time is left out of the median."""
    trace = simulate(read_azure(path), ChunkedPrefill(512), lambda batch: 0.0333)
    samples = []
    for _ in range(repeats + 1):
        begun = process_time()
        summary(trace)
        samples.append(process_time() - begun)
    return {
        **{"case": "summary", "requests": len(trace.requests), "chunks": len(trace.columns["length"])},
        **{"seconds": statistics.median(samples[1:]), "clock": "cpu", "samples": samples},
    }


def timed_sweep(n: int, workers: int, seed: int) -> dict[str, Any]:
    """Wall seconds of all budgets on five workloads, on a pool of processes."""
    workloads = {f"seed {seed + i}": conversation(n, 5.0, seed=seed + i) for i in range(5)}
    begun = perf_counter()
    with ProcessPoolExecutor(workers) as pool:
        rows = sweep(workloads, [ChunkedPrefill(budget) for budget in BUDGETS], executor=pool)
    seconds = perf_counter() - begun
    return {
        **{"case": "sweep", "runs": len(rows), "requests": n, "workers": workers},
        **{"seconds": seconds, "clock": "wall", "samples": [seconds]},
    }
