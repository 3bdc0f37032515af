"""How fast the simulator is: steps a second and peak memory on recorded and drawn workloads.

`--before FOLDER`, a checkout of an earlier commit, runs each case there too, in turns with this one.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from time import process_time
from typing import Any

from benchmarks.runner import ROOT, options, positive, provenance_of, turn, write
from chunkprefill.scheduling.policies import ChunkedPrefill
from chunkprefill.simulation.cost import Roofline
from chunkprefill.simulation.published import published
from chunkprefill.simulation.simulate import Cost, simulate
from chunkprefill.simulation.workloads import poisson, read_azure

BUDGET = 512  # tokens a step
TRACE = "traces/AzureLLMInferenceTrace_conv.csv"  # in the shared folder
CASES = {
    "azure-2000": 2000,
    "azure-2000-kernels": 2000,
    "azure-2000-loop": 2000,
    "azure-all": 19_366,
    "poisson-10000": 10_000,
}  # requests
TARGETS: dict[str, dict[str, float]] = {
    "azure-2000": {"steps_a_second": 15_000},
    "azure-2000-kernels": {"steps_a_second": 12_000},
    "azure-2000-loop": {"steps_a_second": 15_000},
    "azure-all": {"cpu_s": 8.0, "peak_mb": 100.0},
}
# Rates (operations and bytes a second) of a card that this workload keeps busy: about 40 chunks a step.
COST = Roofline(flops=165e12, bandwidth=1.0e12)
STEP = 0.0333  # s: in "-loop" each step costs this and nothing is computed, so that the loop is timed alone
# In "-kernels" a step is priced by timed kernels, at a share of their seconds that keeps about 40 chunks in it.
KERNELS, SHARE = published("rtx4090"), 0.77


def one(case: str, trace: Path, seed: int) -> dict[str, Any]:
    """Run a case in this process, which should be fresh: peak memory is the process's own."""
    n = CASES[case]
    if case.startswith("azure"):
        requests = read_azure(trace)[:n]
    else:
        requests = poisson(n, 5.5, prompt=(16, 2048), output=(16, 400), seed=seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    begun = process_time()
    cost: Cost = COST
    if case.endswith("-loop"):
        cost = lambda batch: STEP  # noqa: E731
    elif case.endswith("-kernels"):
        cost = lambda batch: SHARE * KERNELS(batch)  # noqa: E731
    result = simulate(requests, ChunkedPrefill(BUDGET), cost)
    seconds = process_time() - begun
    n_steps, n_chunks = len(result.steps), len(result.columns["length"])
    return {
        "case": case,
        "requests": len(requests),
        "steps": n_steps,
        "chunks": n_chunks,
        "cpu_s": seconds,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "before_mb": before,
        "simulated_s": result.columns["end"][-1],
        "reference_ns": reference_ns(),
    }


def reference_ns(n: int = 1_000_000) -> float:
    """This interpreter on this core as it is now: ns for one turn of a loop that stores into a dict."""
    store: dict[int, int] = {}
    begun = process_time()
    for i in range(n):
        store[i & 255] = i
    return (process_time() - begun) / n * 1e9


def summary_row(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of the runs of one case, and their raw seconds."""
    first, cpu_s = runs[0], statistics.median(run["cpu_s"] for run in runs)
    row = {key: first[key] for key in ("case", "requests", "steps", "chunks", "simulated_s")}
    row |= {
        "cpu_s": cpu_s,
        "steps_a_second": first["steps"] / cpu_s,
        "us_a_chunk": cpu_s / first["chunks"] * 1e6,
        "chunks_a_step": first["chunks"] / first["steps"],
        "peak_mb": max(run["peak_mb"] for run in runs),
        "before_mb": first["before_mb"],
        "samples_cpu_s": [run["cpu_s"] for run in runs],
        "reference_ns": statistics.median(run["reference_ns"] for run in runs),
    }
    met = {
        name: row[name] >= target if name == "steps_a_second" else row[name] <= target
        for name, target in TARGETS.get(first["case"], {}).items()
    }
    return row | {"targets": TARGETS.get(first["case"], {}), "met": met}


def elsewhere(folder: Path, case: str, trace: Path, seed: int) -> dict[str, Any]:
    """`one` of this file in a fresh process, with the package of that checkout."""
    command = [sys.executable, "-P", str(Path(__file__).resolve()), "--one", case]
    command += ["--trace", str(trace.resolve()), "--seed", str(seed)]
    path = {**os.environ, "PYTHONPATH": str(folder.resolve())}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=path, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def told(row: dict[str, Any]) -> str:
    """One row in one line."""
    return (
        f"{row['case']:>18}: {row['steps']:,} steps of {row['chunks_a_step']:.1f} chunks in"
        f" {row['cpu_s']:.2f} s of CPU, {row['steps_a_second']:,.0f} steps/s,"
        f" {row['us_a_chunk']:.2f} µs a chunk,"
        f" peak {row['peak_mb']:.0f} MB ({row['before_mb']:.0f} before) {row['met'] or ''}"
    )


def trace_file() -> Path:
    """The recorded workload: in the folder that CHUNKPREFILL_SHARED names, else in ../shared."""
    named = os.environ.get("CHUNKPREFILL_SHARED")
    if named and (Path(named) / TRACE).is_file():
        return Path(named) / TRACE
    return ROOT.parent / "shared" / TRACE


def main(argv: list[str] | None = None) -> int:
    parser = options("simulate", __doc__)
    parser.add_argument("--trace", type=Path, default=trace_file(), help="Azure's conversation trace (CSV)")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--runs", type=positive, default=5, help="fresh processes a case, interleaved")
    parser.add_argument("--one", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--before", type=Path, help="a checkout of an earlier commit, run in turns with this")
    args = parser.parse_args(argv)
    if args.one:
        print(json.dumps(one(args.one, args.trace, args.seed)))
        return 0
    cases = [case for case in args.cases if args.trace.is_file() or not case.startswith("azure")]
    if len(cases) < len(args.cases):
        print(f"SKIPPED the recorded workload: no file {args.trace.name} (give --trace)", file=sys.stderr)
    samples: dict[str, list[dict[str, Any]]] = {case: [] for case in cases}
    earlier: dict[str, list[dict[str, Any]]] = {case: [] for case in cases}
    for i in range(args.runs):
        for case in turn(cases, i):
            print(f"run {i + 1} of {args.runs}: {case}", file=sys.stderr)
            samples[case].append(elsewhere(ROOT, case, args.trace, args.seed))
            if args.before:
                try:
                    earlier[case].append(elsewhere(args.before, case, args.trace, args.seed))
                except subprocess.CalledProcessError:
                    print(f"SKIPPED {case} in {args.before}: it does not run there", file=sys.stderr)
    rows = [summary_row(runs) for runs in samples.values()]
    before = [summary_row(runs) for runs in earlier.values() if runs]
    for row in rows:
        print(told(row), file=sys.stderr)
    for row in before:
        now = next(each for each in rows if each["case"] == row["case"])
        ratio = now["steps_a_second"] / row["steps_a_second"]
        print(f"before, {told(row)}; now {ratio:.2f} times as many steps a second", file=sys.stderr)
    document = {
        "bench": "simulate",
        "what": f"CPU seconds under ChunkedPrefill({BUDGET}), every check on: medians; peak resident memory",
        "reference": "ns of CPU for one turn of a loop that stores into a dict: how fast this core was then",
        "cost": "Roofline of Llama-3-8B at 165 TFLOP/s, 1 TB/s: about 40 chunks a step; -kernels: of timed "
        f"kernels of an RTX 4090, {SHARE} of their seconds; -loop: 33.3 ms each",
        "rows": rows,
        "before": before,
        "provenance": provenance_of(args),
    }
    write(document, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
