"""What deciding costs: schedule + apply + commit of `VllmV1`, CPU time a step, by running requests."""

from __future__ import annotations

import gc
import statistics
import sys
from pathlib import Path
from time import process_time
from typing import Any

from benchmarks.runner import ROOT, options, positive, provenance_of, write
from chunkprefill.scheduling import parity
from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.core import Request
from chunkprefill.scheduling.state import State
from chunkprefill.scheduling.vllm import VllmV1

RUNNING = (1, 8, 64, 256)  # requests
VLLM = {1: 53.0, 8: 231.0, 64: 1327.0, 256: 4491.0}  # µs a step of vLLM's own, on a loaded machine
TARGET = 2.5  # µs a running request a step, at 256
PROMPT, CONTEXT = 32_768, 1024  # tokens of the long prompt; of the others' caches at the start
PART = ("schedule", "apply", "commit")


def server(n: int, policy: VllmV1, *, blocks: int | None = None, prompt: bool = False) -> State:
    """A state in which `n` requests decode, at contexts of many lengths, and a long prompt may wait."""
    state = State(BlockPool(blocks))
    for rid in range(n):
        state.arrive(Request(rid, 0.0, CONTEXT + rid % 16, 1_000_000))
    while any(not seq.decoding for seq in (*state.running, *state.waiting)):
        state.commit(state.apply(state.ask(VllmV1(1_000_000, n))))
    if prompt:
        state.arrive(Request(n, 0.0, PROMPT, 1_000_000))
    return state


def timed(state: State, policy: VllmV1, n_steps: int) -> list[dict[str, float]]:
    """Seconds of CPU time of each part of each step, and how many it ran and evicted."""
    rows = []
    for _ in range(n_steps):
        begun = process_time()
        plan = state.ask(policy)
        asked = process_time()
        batch = state.apply(plan)
        applied = process_time()
        state.commit(batch)
        times = (asked - begun, applied - asked, process_time() - applied)
        rows.append({**dict(zip(PART, times)), "running": len(batch), "evicted": len(batch.preempted)})
    return rows


def row(name: str, n: int, samples: list[list[dict[str, float]]]) -> dict[str, Any]:
    """Medians over steps of each run, then over runs, in µs."""
    parts = {
        part: statistics.median(statistics.median(step[part] for step in run) for run in samples) * 1e6
        for part in PART
    }
    runs = [statistics.median(sum(step[part] for part in PART) for step in run) * 1e6 for run in samples]
    step = statistics.median(runs)
    return {
        "case": name,
        "running": n,
        "step_us": step,
        "request_us": step / n,
        "parts_us": parts,
        "evictions_a_step": statistics.mean(step["evicted"] for run in samples for step in run),
        "vllm_step_us": VLLM.get(n),
        "samples_us": runs,
    }


def cases(n_steps: int) -> list[tuple[str, int, State, VllmV1, int]]:
    """(name, running, state, policy, steps) of each row."""
    found = []
    for n in RUNNING:
        policy = VllmV1(n + 512, n + 1)
        found.append(("decodes", n, server(n, policy), policy, n_steps))
        chunks = max(1, PROMPT // 512 - 2)
        found.append(("beside a 32k prompt", n, server(n, policy, prompt=True), policy, min(n_steps, chunks)))
    n = 64  # each takes 65 blocks; two fewer than all need: a request is evicted again and again
    policy = VllmV1(n + 512, n)
    found.append(("with preemption", n, server(n, policy, blocks=65 * n + 20), policy, n_steps))
    return found


def parity_files() -> list[Path]:
    return sorted((ROOT / "tests" / "data" / "parity").glob("*.json"))


def main(argv: list[str] | None = None) -> int:
    parser = options("schedule", __doc__)
    parser.add_argument("--steps", type=positive, default=400, help="steps a run (default: %(default)s)")
    parser.add_argument("--runs", type=positive, default=7, help="runs, interleaved (default: %(default)s)")
    args = parser.parse_args(argv)

    samples: dict[tuple[str, int], list[list[dict[str, float]]]] = {}
    for _ in range(args.runs):
        for name, n, state, policy, n_steps in cases(args.steps):
            gc.collect()
            timed(state, policy, min(8, n_steps // 8))  # warm
            samples.setdefault((name, n), []).append(timed(state, policy, n_steps))
    rows = [row(name, n, runs) for (name, n), runs in samples.items()]
    for r in rows:
        beside = f", vLLM's own {r['vllm_step_us']:,.0f}" if r["vllm_step_us"] else ""
        evicted = f", {r['evictions_a_step']:.2f} evictions a step" if r["evictions_a_step"] else ""
        print(
            f"{r['case']:>20} {r['running']:4} running: {r['step_us']:8.1f} µs a step,"
            f" {r['request_us']:5.2f} µs a request{beside}{evicted}",
            file=sys.stderr,
        )

    files = parity_files()
    compared = [parity.compare(case) for path in files for case in parity.load(str(path))]
    if not files:
        print("PARITY NOT CHECKED: no recordings beside this package", file=sys.stderr)
    by_n = {r["running"]: r["request_us"] for r in rows if r["case"] == "decodes"}
    verdict = {
        "target_request_us_at_256": TARGET,
        "request_us_at_256": max(r["request_us"] for r in rows if r["running"] == 256),
        "growth_64_to_256": by_n[256] / by_n[64],
        "parity_cases": len(compared),
        "parity_differences": sum(difference is not None for difference in compared),
    }
    met = verdict["request_us_at_256"] <= TARGET and verdict["growth_64_to_256"] <= 1.05
    verdict["met"] = met and not verdict["parity_differences"]
    print(verdict, file=sys.stderr)
    document = {
        "bench": "schedule",
        "what": "µs of CPU time of schedule + apply + commit of VllmV1; medians over steps, then over runs",
        "vllm": "vLLM 0.33.0's own schedule() and update_from_output(), two loaded CPU cores; cited, not run",
        "rows": rows,
        "verdict": verdict,
        "provenance": provenance_of(args),
    }
    write(document, args.out)
    return 0 if not verdict["parity_differences"] else 1
