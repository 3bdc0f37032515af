"""Fit the kernel costs of `simulation.published` to published timings, and say how well they fit.

python -m chunkprefill.bench kernels --profiles DIR: DIR holds tables of LLMServingSim, Vidur, aiconfigurator.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from chunkprefill.bench.kernel_fit import refit
from chunkprefill.bench.provenance import add_common_args, provenance, write
from chunkprefill.model.config import LLAMA3_8B, Config
from chunkprefill.simulation.devices import DEVICES
from chunkprefill.simulation.kernels import Fit, Kernels

LLAMA2_7B = Config(n_layers=32, n_heads=32, n_kv_heads=32, head_dim=128, vocab_size=32_000, d_ff=11_008)
LLAMA2_70B = Config(n_layers=80, n_heads=64, n_kv_heads=8, head_dim=128, vocab_size=32_000, d_ff=28_672)
BEGIN = Fit(
    t_linear=1e-5, compute=0.7, memory=0.8, leak=0.1, t_chunk=5e-6, walk=3e-8, t_block=5e-6,
    attention=0.6, reading=0.5, t_decode=1e-5, t_row=1e-7, decode=0.8,
)  # fmt: skip
Rows = tuple[list[tuple[Any, ...]], np.ndarray]  # arguments of a method of Kernels; s of one layer
# What one layer is made of, in each table's own names; an entry that comes twice a layer stands twice.
VIDUR = (
    "input_layernorm", "attn_pre_proj", "attn_rope", "attn_post_proj", "add",
    "post_attention_layernorm", "mlp_up_proj", "mlp_act", "mlp_down_proj", "add",
)  # fmt: skip
SERVINGSIM = (
    "layernorm", "qkv_proj", "rotary_emb", "o_proj", "layernorm", "gate_up_proj", "act_fn", "down_proj",
)  # fmt: skip


def table(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(newline="") as file:
        yield from csv.DictReader(file)


def vidur_linear(folder: Path, name: str) -> Rows:
    """One layer's matrix products, norms and activations by number of tokens."""
    rows = list(table(folder / f"vidur_mlp_{name}_tp1.csv"))
    seconds = [sum(float(row[f"{op}_ms"]) for op in VIDUR) * 1e-3 for row in rows]
    return [(int(row["num_tokens"]),) for row in rows], np.array(seconds)


def servingsim_linear(folder: Path, hardware: str) -> Rows:
    """The same, of vLLM's kernels."""
    times: dict[str, dict[int, float]] = {}
    for row in table(folder / f"llmservingsim_{hardware}_Llama-3.1-8B_bf16_tp1_dense.csv"):
        times.setdefault(row["layer"], {})[int(row["tokens"])] = float(row["time_us"]) * 1e-6
    sizes = sorted(times["o_proj"])
    return [(n,) for n in sizes], np.array([sum(times[op][n] for op in SERVINGSIM) for n in sizes])


def servingsim_attention(folder: Path, hardware: str) -> tuple[Rows, Rows, Rows]:
    """One layer's attention: of one chunk, of one chunk beside decodes, of decodes alone."""
    rows: list[list[tuple[Any, ...]]] = [[], [], []]
    seconds: list[list[float]] = [[], [], []]
    for row in table(folder / f"llmservingsim_{hardware}_Llama-3.1-8B_bf16_tp1_attention.csv"):
        length, start = int(row["prefill_chunk"]), int(row["kv_prefill"])
        n, context = int(row["n_decode"]), int(row["kv_decode"])
        kind = 2 if not length else 1 if n else 0
        rows[kind].append((n, n * context) if kind == 2 else ([(start, length)], n, n * context))
        seconds[kind].append(float(row["time_us"]) * 1e-6)
    return (rows[0], np.array(seconds[0])), (rows[1], np.array(seconds[1])), (rows[2], np.array(seconds[2]))


def aiconfigurator_attention(folder: Path, n_heads: int, n_kv_heads: int) -> tuple[Rows, Rows]:
    """One layer's attention on an H100: of batches of whole prompts, of batches of decodes."""
    heads = {"num_heads": str(n_heads), "num_key_value_heads": str(n_kv_heads)}
    found = []
    for kind, size in (("context", "isl"), ("generation", "kv_len")):
        rows, seconds = [], []
        for row in table(folder / f"aic_h100sxm_vllm0.24_{kind}_attn_bf16_hd128.csv"):
            if heads.items() <= row.items():
                b, n = int(row["batch_size"]), int(row[size])
                rows.append(([(0, n)] * b,) if kind == "context" else (b, b * n))
                seconds.append(float(row["latency"]) * 1e-3)
        found.append((rows, np.array(seconds)))
    return found[0], found[1]


def octaves(rows: Sequence[tuple[Any, ...]]) -> np.ndarray:
    """Weights by which each octave of tokens counts alike (a table has most rows at large sizes)."""
    return np.gradient(np.log([row[0] + 8.0 for row in rows]))


def errors(cost: Kernels, part: str, data: Rows) -> dict[str, float]:
    """Mean, median, 95th percentile and largest of |predicted / measured − 1|, of one layer."""
    rows, seconds = data
    off = np.abs([getattr(cost, part)(*row) for row in rows] / seconds - 1)
    of = {"mean": off.mean(), "median": np.median(off), "p95": np.quantile(off, 0.95), "largest": off.max()}
    return {"n": len(rows)} | {name: round(float(value), 4) for name, value in of.items()}


def fit_servingsim(folder: Path, hardware: str, device: str) -> tuple[Kernels, dict[str, dict[str, float]]]:
    """All three parts from LLMServingSim's tables; mixed batches and chunks alone count alike."""
    linear = servingsim_linear(folder, hardware)
    alone, mixed, decodes = servingsim_attention(folder, hardware)
    cost = refit(Kernels(LLAMA3_8B, DEVICES[device], BEGIN), "linear", *linear, octaves(linear[0]))
    rows, seconds = alone[0] + mixed[0][::7], np.concatenate([alone[1], mixed[1][::7]])
    weights = [1 / len(alone[0])] * len(alone[0]) + [1 / len(mixed[0][::7])] * len(mixed[0][::7])
    cost = refit(cost, "decode_attention", *decodes)
    cost = refit(cost, "chunk_attention", rows, seconds, weights)
    return cost, {
        "linear": errors(cost, "linear", linear),
        "chunk": errors(cost, "chunk_attention", alone),
        "chunk beside decodes": errors(cost, "chunk_attention", mixed),
        "decodes": errors(cost, "decode_attention", decodes),
    }


def fit_h100(folder: Path) -> tuple[Kernels, dict[str, dict[str, float]]]:
    """Linear from Vidur's Llama-2-70B, attention from aiconfigurator, with Llama-3-8B's heads."""
    linear = vidur_linear(folder, "h100_Llama-2-70b-hf")
    chunks, decodes = aiconfigurator_attention(folder, 32, 8)
    cost = refit(Kernels(LLAMA2_70B, DEVICES["h100"], BEGIN), "linear", *linear, octaves(linear[0]))
    score = {"linear": errors(cost, "linear", linear)}
    cost = refit(replace(cost, config=LLAMA3_8B), "decode_attention", *decodes)
    cost = refit(cost, "chunk_attention", *chunks)
    score["chunk"] = errors(cost, "chunk_attention", chunks)
    return cost, score | {"decodes": errors(cost, "decode_attention", decodes)}


def fit_a100(folder: Path) -> tuple[Kernels, dict[str, dict[str, float]]]:
    """Linear alone, from Vidur's Llama-3-8B: there are no attention timings for it here."""
    linear = vidur_linear(folder, "a100_Meta-Llama-3-8B")
    cost = refit(Kernels(LLAMA3_8B, DEVICES["a100"], BEGIN), "linear", *linear, octaves(linear[0]))
    return cost, {"linear": errors(cost, "linear", linear)}


def overhead_curve(cost: Kernels, folder: Path, hardware: str) -> list[dict[str, float]]:
    """A whole prefilling in chunks of c: ours beside what the tables add up to, ms of 32 layers."""
    out = []
    for row in table(folder / "derived_chunk_overhead_curve.csv"):
        if row["hw"] != hardware:
            continue
        n, c = int(row["n"]), int(row["c"])
        seconds = sum(cost.linear(c) + cost.chunk_attention([(start, c)]) for start in range(0, n, c))
        ours, theirs = 32e3 * seconds, float(row["total_ms"])
        out.append(
            {
                "n": n,
                "c": c,
                "ms": round(ours, 2),
                "published_ms": theirs,
                "error": round(ours / theirs - 1, 4),
            }
        )
    return out


def main(argv: list[str] | None = None) -> int:
    """The bench; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="chunkprefill.bench kernels", description=__doc__)
    parser.add_argument("--profiles", type=Path, required=True, help="folder of the timing tables")
    add_common_args(parser)
    args = parser.parse_args(argv)
    about = provenance(seed=args.seed, commit=args.commit, dirty=args.dirty)
    document: dict[str, Any] = {"bench": "kernels", "provenance": about}
    fits = {
        "h100": fit_h100(args.profiles),
        "a100": fit_a100(args.profiles),
        "rtx4090": fit_servingsim(args.profiles, "RTX4090", "rtx4090"),
        "rtxpro6000": fit_servingsim(args.profiles, "RTXPRO6000", "rtxpro6000"),
    }
    document["devices"] = {
        name: {
            "device": asdict(cost.device), "fit": asdict(cost.fit), "errors": score,
            "curve": overhead_curve(cost, args.profiles, name.upper()),
        }
        for name, (cost, score) in fits.items()
    }  # fmt: skip
    write(document, args.out)
    return 0
