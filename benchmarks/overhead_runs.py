"""What `bench overhead` measures: batches varied apart, chunk sizes, models, overlap, recording itself."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter, process_time
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.runner import turn
from chunkprefill.engine import Engine, replay
from chunkprefill.metrics.breakdown import OverheadFit, breakdown, fit_overhead
from chunkprefill.model.config import Config
from chunkprefill.model.transformer import Transformer
from chunkprefill.scheduling.core import Request
from chunkprefill.scheduling.policies import ChunkedPrefill
from chunkprefill.scheduling.trace import PARTS, Trace
from chunkprefill.simulation.simulate import simulate
from chunkprefill_course.evidence.designs import SKIP, Design, grid, medians, no_collection, timed

#: Columns of a raw row: what ran, what it took (µs).
COLUMNS = ("decodes", "chunks", "tokens", *PARTS, "check", "wait", "execution", "gap", "wall")
FITS: dict[str, tuple[str, ...]] = {
    **{"all parts": (), "deciding": ("decide",), "building inputs": ("inputs",)},
    "deciding and taking blocks": ("decide", "blocks"),
}


@dataclass(frozen=True)
class Sizes:
    """How much is run."""

    rounds: int
    n_steps: int  # of a design
    fitted: tuple[Design, ...]
    held_out: tuple[Design, ...]  # twice the decodes, chunks and tokens of the largest that is fitted
    n_prompt: int
    chunks: tuple[int, ...]
    pairs: int  # runs with and without recording


FULL = Sizes(
    rounds=7,
    n_steps=6,
    fitted=tuple(grid((0, 4, 16, 32), (0, 1, 2, 4), (16, 64, 128))),
    held_out=(
        Design(64, 0, 1),
        *grid((64,), (8,), (16, 64, 128)),
        *(Design(0, 8, 128), Design(16, 8, 128), Design(64, 4, 256), Design(32, 8, 128)),
    ),
    n_prompt=1024,
    chunks=(16, 64, 256, 1024),
    pairs=40,
)
TINY = Sizes(2, 2, tuple(grid((0, 4), (0, 2), (8, 32))), (Design(8, 4, 32),), 64, (16, 64), 2)


def quick_model(config: Config, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Transformer:
    """A model of this shape with random weights made where they are used; not the same on two machines."""
    with torch.device(device):
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            model = Transformer(config)
        finally:
            torch.set_default_dtype(before)
    with torch.no_grad():
        for weight in model.parameters():
            bound = (3 / weight.shape[-1]) ** 0.5
            weight.fill_(1.0) if weight.ndim == 1 else weight.uniform_(-bound, bound)
    return model.eval().requires_grad_(False)


def raw(trace: Trace, *, skip: int = 0) -> list[list[float]]:
    """One row a step, by COLUMNS, in µs; a gap of 0 where there is no GPU."""
    rows = []
    for i, step in enumerate(trace.steps[skip:], skip):
        sums, found = step.batch.totals(), {name: column[i] for name, column in trace.timings.items()}
        found["wall"] = step.end - step.scheduled
        counts = [sums.n_decodes, len(sums.chunks), sums.n_tokens]
        rows.append(counts + [round(1e6 * found.get(name, 0.0), 2) for name in COLUMNS[3:]])
    return rows


def covered(rows: Sequence[Sequence[float]]) -> list[float]:
    """Of the wall time of each raw row, the share that parts, check and waiting account for."""
    at = {name: i for i, name in enumerate(COLUMNS)}
    return [sum(row[at[name]] for name in (*PARTS, "check", "wait")) / row[at["wall"]] for row in rows]


def replayer(model: Transformer) -> Callable[[Trace, Any], Trace]:
    """Replays traces on one engine, whose cache has grown once and for all; asks the policy it is given."""
    engine = Engine(model, ChunkedPrefill(1))

    def run(trace: Trace, policy: Any) -> Trace:
        engine.policy = policy
        return replay(trace, engine, decide=True)

    return run


def vary_apart(model: Transformer, sizes: Sizes, *, seed: int = 0) -> dict[str, Any]:
    """Decodes, chunks and tokens one without the others: raw steps, fits, errors on twice the batch."""
    designs = [*sizes.fitted, *sizes.held_out]
    found: dict[Design, list[Trace]] = {design: [] for design in designs}
    run = replayer(model)
    for i in tqdm(range(sizes.rounds + 1), desc="decodes, chunks, tokens apart"):
        with no_collection():
            for design in random.Random(f"{seed} {i}").sample(designs, len(designs)):
                again = run(design.trace(sizes.n_steps), design.policy)
                if i:  # one round warms up
                    found[design].append(again)
    middle = {design: medians(traces) for design, traces in found.items()}
    fits = {}
    for of, names in FITS.items():
        fit = fit_overhead(
            timed([middle[d] for d in sizes.fitted], *names),
            timed([middle[d] for d in sizes.held_out], *names),
        )
        fits[of] = fit_row(fit)
    return {
        "columns": COLUMNS,
        "steps": [row for traces in found.values() for row in raw(traces[-1], skip=SKIP)],
        "steps_are": "the last round's, unaveraged; fits are to medians over a design's rounds and steps",
        "fits": fits,
    }


def fit_row(fit: OverheadFit) -> dict[str, Any]:
    """A fit as plain data, in µs: coefficients, residuals and errors."""
    c, us = fit.cost, 1e6
    return {
        **{"s0_us": c.s0 * us, "per_decode_us": c.per_decode * us, "per_chunk_us": c.per_chunk * us},
        **{"per_token_us": c.per_token * us, "r2": fit.r2, "median_error": fit.error},
        **{"held_out_median_error": fit.held_out_error, "n_fitted": len(fit.fitted)},
        "n_held_out": len(fit.held_out),
        "residuals_us": [round(r * us, 2) for r in fit.residuals],
        "held_out_us": [
            [d, k, n, round(got * us, 2), round(want * us, 2)] for d, k, n, got, want in fit.held_out
        ],
    }


def prompt_beside_decodes(chunk: int, n_prompt: int, *, n_decodes: int = 8) -> tuple[Trace, Any]:
    """A fixed trace: `n_decodes` chats decode while one prompt is read in chunks; and its policy."""
    policy = ChunkedPrefill(chunk + n_decodes)
    n_steps = -(-n_prompt // chunk) + 6
    requests = [Request(f"chat {i}", 0.0, 32, n_steps) for i in range(n_decodes)]
    requests.append(Request("prompt", 1e-9, n_prompt, 4))
    return simulate(requests, policy), policy


def by_chunk(models: Mapping[str, Transformer], sizes: Sizes) -> list[dict[str, Any]]:
    """What one prompt costs in parts, by chunk and by model: given batches, rounds interleaved."""
    cases = [(name, chunk) for name in models for chunk in sizes.chunks]
    traces = {chunk: prompt_beside_decodes(chunk, sizes.n_prompt) for chunk in sizes.chunks}
    found: dict[tuple[str, int], list[Trace]] = {case: [] for case in cases}
    rounds, runs = max(2, sizes.rounds // 2), {name: replayer(model) for name, model in models.items()}
    for i in tqdm(range(rounds), desc="chunk sizes and models"):
        with no_collection():
            for name, chunk in turn(cases, i):
                trace, policy = traces[chunk]
                found[name, chunk].append(runs[name](trace, policy))
    return [row_of(name, chunk, medians(again)) for (name, chunk), again in found.items()]


def row_of(name: str, chunk: int, trace: Trace) -> dict[str, Any]:
    """One prompt's steps, summed, and a step's medians with the share that is not the pass."""
    steps = [i for i, step in enumerate(trace.steps) if "prompt" in step.batch.rid]
    inside = [i for i in steps if step_kind(trace, i) == "chunk"]
    total = {part: sum(column[i] for i in inside) for part, column in trace.timings.items()}
    one = breakdown(trace, skip=inside[0])
    scheduling = sum(total[part] for part in PARTS)
    return {
        **{"model": name, "chunk": chunk, "visits": len(inside)},
        "prompt_us": {part: round(1e6 * s, 1) for part, s in total.items()},
        "scheduling_us": round(1e6 * scheduling, 1),
        "share": scheduling / (scheduling + total["wait"]),
        "step_us": {part: round(1e6 * s, 1) for part, s in one.parts.items()},
        "step_execution_us": round(1e6 * one.execution, 1),
        "decode_share": share_of_decodes(trace),
    }


def step_kind(trace: Trace, i: int) -> str:
    """ "chunk" if a step holds one of the prompt, else "decodes"."""
    return (
        "chunk"
        if any(c.rid == "prompt" and c.start < trace.requests[-1].n_prompt for c in trace.steps[i].batch)
        else "decodes"
    )


def share_of_decodes(trace: Trace) -> float:
    """The share of scheduling in steps of decodes alone."""
    rows = [i for i in range(1, len(trace.steps)) if step_kind(trace, i) == "decodes"]
    scheduling = sum(trace.parts[part][i] for part in PARTS for i in rows)
    return scheduling / (scheduling + sum(trace.timings["wait"][i] for i in rows))


def overlapping(model: Transformer, sizes: Sizes) -> list[dict[str, Any]]:
    """The same requests, serial and overlapped, interleaved: wall, execution, parts, the GPU's idle gaps."""
    requests = [Request(i, 0.0, 32 + 8 * i, sizes.n_prompt // 16 + 8) for i in range(8)]
    found: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    for i in tqdm(range(max(2, sizes.rounds // 2)), desc="serial and overlapped"):
        for overlap in turn((True, False), i):
            with no_collection():
                trace = Engine(model, ChunkedPrefill(64), overlap=overlap).run(requests)
            wall = trace.steps[-1].end
            found[overlap].append(
                {
                    "wall_us": 1e6 * wall,
                    "steps": len(trace.steps),
                    "scheduling_us": 1e6 * sum(map(sum, trace.parts.values())),
                    "execution_us": 1e6 * sum(trace.timings["execution"]),
                    "idle_us": 1e6 * (wall - sum(s.end - s.start for s in trace.steps)),
                    "median_gap_us": 1e6 * median(trace.gaps[1:]) if len(trace.gaps) > 1 else None,
                }
            )
    rows = []
    for overlap, runs in found.items():
        middle = {key: median(run[key] for run in runs) for key in runs[0] if runs[0][key] is not None}
        walls = [round(run["wall_us"], 1) for run in runs]
        rows.append({"overlap": overlap, **middle, "samples_wall_us": walls})
    return rows


def recording_cost(model: Transformer, sizes: Sizes) -> dict[str, Any]:
    """What recording the parts adds: the same replay with and without it, in turn; ratio of medians."""
    cuda = model.device.type == "cuda"
    clock = perf_counter if cuda else process_time
    trace = Design(16, 2, 16).trace(20)
    samples: dict[bool, list[float]] = {True: [], False: []}
    engine = Engine(model, ChunkedPrefill(64))
    for i in tqdm(range(2 * sizes.pairs + 2), desc="recording, on and off"):
        on = (i % 2 == 0) == (i % 4 < 2)  # on, off, off, on, ...
        engine.timed = on
        with no_collection():
            begun = clock()
            replay(trace, engine)
            took = clock() - begun
        if i > 1:
            samples[on].append(took)
    middle = {on: median(values) for on, values in samples.items()}
    return {
        **{"clock": clock.__name__, "on_s": middle[True], "off_s": middle[False]},
        "share": middle[True] / middle[False] - 1,
        **{"samples_on_s": samples[True], "samples_off_s": samples[False]},
    }


def empty_pairs(n: int = 200) -> dict[str, float]:
    """What two CUDA events with nothing between them say has passed, µs: the method's own error."""
    stream: list[float] = []
    for _ in range(n):
        first, second = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        second.record()
        second.synchronize()
        stream.append(1e3 * first.elapsed_time(second))
    return {"median_us": median(stream), "largest_us": max(stream), "pairs": n, "resolution_us": 0.5}
