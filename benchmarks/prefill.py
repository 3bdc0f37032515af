"""`python -m benchmarks prefill`: chunked prefilling by this package and by transformers, as ratios.

Both run the same random weights, in the shape of SmolLM2-135M with fewer layers, with equal threads. Samples
are interleaved, each figure is a median, and beside it stands the fraction of the machine's matrix-product
peak, measured in the same round. transformers runs with sdpa, inference mode and logits_to_keep=1, and is
given the faster of its dynamic and its static cache. Where it is missing its rows are skipped, loudly.

On a machine that others use, `--clock cpu --threads 1` counts processor time, which waiting does not enter.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from benchmarks.runner import (
    CLOCKS,
    add_model_options,
    natural,
    options,
    positive,
    provenance_of,
    turn,
    write,
)
from benchmarks.twin import transformers_twin, twin_prefills
from chunkprefill.configs import SMOLLM2_135M
from chunkprefill.generation import chunk_lengths, prefill
from chunkprefill.model.cache import KVCache
from chunkprefill.model.config import Config
from chunkprefill.model.transformer import Transformer
from chunkprefill.model.weights import random_model

CHUNKS = (64, 128, 256, 512, 1024, 0)  # 0: the whole prompt
PROMPTS = (2048, 8192)
# At what prompt length which geometric mean over the chunks is asked for, CPU float32, and the least of each.
TARGETS = {2048: (1.12, 1.0), 8192: (1.2, 0.0)}
Run = Callable[[torch.Tensor, list[int]], Any]


def main(argv: list[str]) -> int:
    parser = options("prefill", __doc__)
    add_model_options(parser)
    parser.add_argument("--layers", type=positive, default=8, help="default: %(default)s")
    parser.add_argument("--repeats", type=positive, default=5, help="samples of each (default: %(default)s)")
    parser.add_argument("--chunks", type=natural, nargs="+", default=CHUNKS, help="0 is the whole prompt")
    parser.add_argument("--prompts", type=positive, nargs="+", default=PROMPTS, help="tokens")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="default: %(default)s")
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    dtype = getattr(torch, args.dtype or ("bfloat16" if args.device.startswith("cuda") else "float32"))

    config = replace(SMOLLM2_135M, n_layers=args.layers, max_positions=max(8192, *args.prompts))
    model = random_model(config, seed=args.seed, device=args.device, dtype=dtype).pack()
    runs: dict[str, Run] = {"chunkprefill": ours(model)} | theirs(model)
    generator = torch.Generator().manual_seed(args.seed)
    cells = []
    for n in args.prompts:
        tokens = torch.randint(0, config.vocab_size, (n,), generator=generator).to(args.device)
        for chunk in args.chunks:
            cells.append(measure(runs, model, tokens, chunk, args.repeats, CLOCKS[args.clock]))
            print(_line(cells[-1]), file=sys.stderr, flush=True)
    document = {
        "bench": "prefill",
        "provenance": provenance_of(args),
        "model": {
            "layers": args.layers,
            "d_model": config.d_model,
            "heads": "9/3",
            "head_dim": 64,
            "d_ff": 1536,
        },
        "dtype": str(dtype).removeprefix("torch."),
        "unit": "s",
        "clock": args.clock,
        "cells": cells,
        "summary": summary_rows(cells, judged=args.device == "cpu" and dtype == torch.float32),
    }
    write(document, args.out)
    return 0


def ours(model: Transformer) -> Run:
    def run(tokens: torch.Tensor, lengths: list[int]) -> torch.Tensor:
        cache = KVCache(model.config, len(tokens), dtype=model.dtype, device=model.device)
        return prefill(model, tokens, cache, lengths)

    return run


def theirs(model: Transformer) -> dict[str, Run]:
    """transformers on the same weights, with each of its caches; none, said loudly, where it is missing."""
    try:
        runs = twin_prefills(transformers_twin(model))
    except ImportError as error:
        print(f"MISSING transformers ({error}): its rows are skipped", file=sys.stderr)
        return {}
    return {f"transformers-{name}": run for name, run in runs.items()}


def measure(
    runs: dict[str, Run],
    model: Transformer,
    tokens: torch.Tensor,
    chunk: int,
    repeats: int,
    clock: Callable[[], float],
) -> dict[str, Any]:
    """One cell: every run in turn, `repeats` times, after a first round that warms up and compares logits.

    A rival a quarter slower than the other in that round will not be the faster one, and is set aside.
    """
    lengths = chunk_lengths(len(tokens), chunk or None)
    warmup: dict[str, float] = {}
    expected = runs["chunkprefill"](tokens, lengths).float()
    for name, run in runs.items():
        began = clock()
        difference = float((run(tokens, lengths).float() - expected).abs().max())
        warmup[name] = clock() - began
        if not difference < (1e-3 if model.dtype == torch.float32 else 0.5) * float(expected.abs().max()):
            raise RuntimeError(f"{name} differs by {difference} in its logits: these are other weights")
    rivals = [seconds for name, seconds in warmup.items() if name != "chunkprefill"]
    kept = [name for name in runs if name == "chunkprefill" or warmup[name] <= 1.25 * min(rivals)]
    samples: dict[str, list[float]] = {name: [] for name in kept}
    peaks: list[float] = []
    for i in range(repeats):
        peaks.append(matmul_peak(model, clock))
        for name in turn(kept, i):
            samples[name].append(_seconds(partial(runs[name], tokens, lengths), model.device, clock))
    medians = {name: statistics.median(values) for name, values in samples.items()}
    others = {name: seconds for name, seconds in medians.items() if name != "chunkprefill"}
    best = min(others, key=others.__getitem__, default=None)
    achieved = [flops(model.config, lengths) / s / peak for s, peak in zip(samples["chunkprefill"], peaks)]
    return {
        "prompt": len(tokens),
        "chunk": chunk or len(tokens),
        "median": medians,
        "fastest_transformers": best,
        "ratio": others[best] / medians["chunkprefill"] if best else None,
        "fraction_of_peak": statistics.median(achieved),
        "peak_flops": statistics.median(peaks),
        "samples": samples,
        "warmup": warmup,
        "peak_samples": peaks,
    }


def flops(config: Config, lengths: list[int]) -> int:
    """Operations that this package does: after the last layer's attention only one row goes on."""
    n, c = sum(lengths), config
    skipped = (n - 1) * 2 * (c.linear_params - c.d_model * (c.d_q + 2 * c.d_kv))
    return c.linear_flops(n) - skipped + c.attention_flops(n * (n + 1) // 2) + c.head_flops(1)


def matmul_peak(model: Transformer, clock: Callable[[], float], side: int = 2048) -> float:
    """FLOP/s of a square product in the model's type, the better of two."""
    side = side if model.device.type == "cpu" else 8192
    a = torch.rand(side, side, dtype=model.dtype, device=model.device)
    return max(2 * side**3 / _seconds(lambda: a @ a, model.device, clock) for _ in range(2))


def _seconds(work: Callable[[], Any], device: torch.device, clock: Callable[[], float]) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - began


def summary_rows(cells: list[dict[str, Any]], *, judged: bool) -> list[dict[str, Any]]:
    """For each prompt length the geometric mean and the least of the ratios, held against the targets."""
    rows = []
    for n in sorted({cell["prompt"] for cell in cells}):
        ratios = [cell["ratio"] for cell in cells if cell["prompt"] == n and cell["ratio"]]
        if not ratios:
            continue
        mean, least = math.exp(statistics.fmean(map(math.log, ratios))), min(ratios)
        row = {"prompt": n, "geometric_mean": mean, "least": least}
        if judged and n in TARGETS:
            row["target"] = {"geometric_mean": TARGETS[n][0], "least": TARGETS[n][1]}
            row["met"] = mean >= TARGETS[n][0] and least >= TARGETS[n][1]
        rows.append(row)
        print(f"{n} tokens: geometric mean {mean:.3f}, least {least:.3f}", file=sys.stderr)
    return rows


def _line(cell: dict[str, Any]) -> str:
    times = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in cell["median"].items())
    ratio = f"ratio {cell['ratio']:.3f}, " if cell["ratio"] else ""
    return f"{cell['prompt']} in {cell['chunk']}: {times}; {ratio}{cell['fraction_of_peak']:.2f} of the peak"
