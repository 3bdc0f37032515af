"""How fast the simulator is: steps a second and peak memory on recorded and drawn workloads."""

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

from chunkprefill.bench.provenance import ROOT, add_common_args, positive, provenance, write
from chunkprefill.scheduling.policies import ChunkedPrefill
from chunkprefill.simulation.cost import Roofline
from chunkprefill.simulation.simulate import simulate
from chunkprefill.simulation.workloads import poisson, read_azure

BUDGET = 512  # tokens a step
TRACE = "traces/AzureLLMInferenceTrace_conv.csv"  # in the shared folder
CASES = {
    "azure-2000": 2000,
    "azure-2000-loop": 2000,
    "azure-all": 19_366,
    "poisson-10000": 10_000,
}  # requests
TARGETS: dict[str, dict[str, float]] = {
    "azure-2000": {"steps_a_second": 15_000},
    "azure-2000-loop": {"steps_a_second": 15_000},
    "azure-all": {"cpu_s": 8.0, "peak_mb": 100.0},
}
# Rates (operations and bytes a second) of a card that this workload keeps busy: about 40 chunks a step.
COST = Roofline(flops=165e12, bandwidth=1.0e12)
STEP = 0.0333  # s: in "-loop" each step costs this and nothing is computed, so that the loop is timed alone


def one(case: str, trace: Path, seed: int) -> dict[str, Any]:
    """Run a case in this process, which should be fresh: peak memory is the process's own."""
    n = CASES[case]
    if case.startswith("azure"):
        requests = read_azure(trace)[:n]
    else:
        requests = poisson(n, 5.5, prompt=(16, 2048), output=(16, 400), seed=seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    begun = process_time()
    cost = (lambda batch: STEP) if case.endswith("-loop") else COST
    result = simulate(requests, ChunkedPrefill(BUDGET), cost)
    seconds = process_time() - begun
    n_steps, n_chunks = len(result.steps), len(result.columns["length"])
    return {
        **{"case": case, "requests": len(requests), "steps": n_steps, "chunks": n_chunks, "cpu_s": seconds},
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        **{"before_mb": before, "simulated_s": result.columns["end"][-1]},
        "reference_ns": reference_ns(),
    }


def reference_ns(n: int = 1_000_000) -> float:
    """This interpreter on this core as it is now: ns for one turn of a loop that stores into a dict."""
    store: dict[int, int] = {}
    begun = process_time()
    for i in range(n):
        store[i & 255] = i
    return (process_time() - begun) / n * 1e9


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of the runs of one case, and their raw seconds."""
    first, cpu_s = runs[0], statistics.median(run["cpu_s"] for run in runs)
    row = {
        **{key: first[key] for key in ("case", "requests", "steps", "chunks", "simulated_s")},
        **{
            "cpu_s": cpu_s,
            "steps_a_second": first["steps"] / cpu_s,
            "us_a_chunk": cpu_s / first["chunks"] * 1e6,
        },
        **{"chunks_a_step": first["chunks"] / first["steps"], "peak_mb": max(run["peak_mb"] for run in runs)},
        **{"before_mb": first["before_mb"], "samples_cpu_s": [run["cpu_s"] for run in runs]},
        "reference_ns": statistics.median(run["reference_ns"] for run in runs),
    }
    met = {
        name: row[name] >= target if name == "steps_a_second" else row[name] <= target
        for name, target in TARGETS.get(first["case"], {}).items()
    }
    return row | {"targets": TARGETS.get(first["case"], {}), "met": met}


def trace_file() -> Path:
    """The recorded workload: in the folder that CHUNKPREFILL_SHARED names, else in ../shared."""
    named = os.environ.get("CHUNKPREFILL_SHARED")
    if named and (Path(named) / TRACE).is_file():
        return Path(named) / TRACE
    return ROOT.parent / "shared" / TRACE


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m chunkprefill.bench simulate", description=__doc__)
    parser.add_argument("--trace", type=Path, default=trace_file(), help="Azure's conversation trace (CSV)")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--runs", type=positive, default=5, help="fresh processes a case, interleaved")
    parser.add_argument("--one", choices=CASES, help=argparse.SUPPRESS)
    add_common_args(parser)
    args = parser.parse_args(argv)
    if args.one:
        print(json.dumps(one(args.one, args.trace, args.seed)))
        return 0
    cases = [case for case in args.cases if args.trace.is_file() or not case.startswith("azure")]
    if len(cases) < len(args.cases):
        print(f"SKIPPED the recorded workload: no file {args.trace.name} (give --trace)", file=sys.stderr)
    samples: dict[str, list[dict[str, Any]]] = {case: [] for case in cases}
    for i in range(args.runs):
        for case in cases:
            print(f"run {i + 1} of {args.runs}: {case}", file=sys.stderr)
            command = [sys.executable, "-m", "chunkprefill.bench", "simulate", "--one", case]
            command += ["--trace", str(args.trace), "--seed", str(args.seed)]
            done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
            samples[case].append(json.loads(done.stdout))
    rows = [summary(runs) for runs in samples.values()]
    for row in rows:
        print(
            f"{row['case']:>14}: {row['steps']:,} steps of {row['chunks_a_step']:.1f} chunks in"
            f" {row['cpu_s']:.2f} s of CPU, {row['steps_a_second']:,.0f} steps/s,"
            f" {row['us_a_chunk']:.2f} µs a chunk,"
            f" peak {row['peak_mb']:.0f} MB ({row['before_mb']:.0f} before) {row['met'] or ''}",
            file=sys.stderr,
        )
    document = {
        "bench": "simulate",
        "what": f"CPU seconds under ChunkedPrefill({BUDGET}), every check on: medians; peak resident memory",
        "reference": "ns of CPU for one turn of a loop that stores into a dict: how fast this core was then",
        "cost": "Roofline of Llama-3-8B at 165 TFLOP/s, 1 TB/s: about 40 chunks a step; -loop: 33.3 ms each",
        "rows": rows,
        "provenance": provenance(seed=args.seed, commit=args.commit, dirty=args.dirty),
    }
    write(document, args.out)
    return 0
