"""Fit the kernel costs of `simulation.published` to published timings, and say how well they fit.

python -m benchmarks kernels --profiles DIR: DIR holds tables of LLMServingSim, Vidur, aiconfigurator.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.kernel_fit import Row, Timings, refit, refit_linear, with_fit
from benchmarks.runner import options, provenance_of, write
from chunkprefill.configs import DEVICES, LLAMA2_70B, LLAMA3_8B
from chunkprefill.simulation.kernels import Fit, Kernels
from chunkprefill.simulation.price import pool_for

BEGIN = Fit(
    t_linear=1e-5,
    reach=((1, 0.8),),
    t_chunk=5e-6,
    walk=3e-8,
    t_block=5e-6,
    attention=0.6,
    reading=0.5,
    t_decode=1e-5,
    t_row=1e-7,
    decode=0.8,
)
#: Bytes of the cache between memory and multiprocessors, by the whitepapers that `configs` names.
L2 = {"rtx4090": 72e6, "rtxpro6000": 128e6, "h100": 50e6}
# What one layer is made of, in each table's own names; an entry that comes twice a layer stands twice.
VIDUR = {
    "products": ("attn_pre_proj", "attn_post_proj", "mlp_up_proj", "mlp_down_proj"),
    "small": ("input_layernorm", "attn_rope", "add", "post_attention_layernorm", "mlp_act", "add"),
}
SERVINGSIM = {
    "products": ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
    "small": ("layernorm", "rotary_emb", "layernorm", "act_fn"),
}
KEY_BYTES = LLAMA3_8B.kv_bytes() / LLAMA3_8B.n_layers  # of one token's keys and values in one layer
Errors = dict[str, Any]


def table(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(newline="") as file:
        yield from csv.DictReader(file)


# --- regimes: what a bias is told apart by ----------------------------------------------------------------


def between(value: float, edges: tuple[int, ...]) -> str:
    """The step of `edges` that a value falls into, in words."""
    for low, high in zip((0, *edges), edges):
        if value <= high:
            return f"{low + 1:,} to {high:,}"
    return f"over {edges[-1]:,}"


def by_tokens(row: Row) -> str:
    """Of a batch's products: how many tokens."""
    return f"{between(row[0], (16, 64, 128, 256, 512, 1024, 2048))} tokens"


def by_chunk(most_keys: float) -> Callable[[Row], str]:
    """Of chunks with decodes beside them: how long, beside how many, of what context."""

    def regime(row: Row) -> str:
        (start, length), *_ = row[0]
        n, n_keys = row[1:] if len(row) > 1 else (0, 0)
        if n_keys + start + length > most_keys:
            return "more keys than the memory holds"
        chunk = f"chunk of {between(length, (64, 256, 1023))}"
        if not n:
            return f"{chunk} after {between(start, (1024, 4096))}"
        return f"{chunk} beside {between(n, (8, 32, 64))} decodes of {between(n_keys / n, (256, 1024, 4096))}"

    return regime


def by_decodes(most_keys: float, warm: float) -> Callable[[Row], str]:
    """Of decodes alone: how many, of what context, and whether a benchmark finds their keys in a cache."""

    def regime(row: Row) -> str:
        n, n_keys = row
        if n_keys * KEY_BYTES < warm:
            return "keys found in the device's cache"
        if n_keys > most_keys:
            return "more keys than the memory holds"
        return f"{between(n, (8, 32, 64))} decodes of {between(n_keys / n, (256, 1024, 4096))}"

    return regime


# --- tables -----------------------------------------------------------------------------------------------


def vidur_linear(folder: Path, name: str) -> tuple[Timings, float]:
    """One layer's matrix products, norms and activations by number of tokens; s of the small ones at one."""
    rows = list(table(folder / f"vidur_mlp_{name}_tp1.csv"))

    def seconds(row: dict[str, str], *kinds: str) -> float:
        return sum(float(row[f"{op}_ms"]) for kind in kinds for op in VIDUR[kind]) * 1e-3

    least = min(rows, key=lambda row: int(row["num_tokens"]))
    every = [seconds(row, *VIDUR) for row in rows]
    return Timings([(int(row["num_tokens"]),) for row in rows], every, by_tokens), seconds(least, "small")


def servingsim_linear(folder: Path, hardware: str) -> tuple[Timings, float]:
    """The same, of vLLM's kernels."""
    times: dict[str, dict[int, float]] = {}
    for row in table(folder / f"llmservingsim_{hardware}_Llama-3.1-8B_bf16_tp1_dense.csv"):
        times.setdefault(row["layer"], {})[int(row["tokens"])] = float(row["time_us"]) * 1e-6
    sizes = sorted(times["o_proj"])
    every = [sum(times[op][n] for kind in SERVINGSIM.values() for op in kind) for n in sizes]
    return Timings([(n,) for n in sizes], every, by_tokens), sum(times[op][1] for op in SERVINGSIM["small"])


def servingsim_head(folder: Path, hardware: str) -> Timings:
    """What a step does once, by rows that emit: embedding, last norm, head, sampler; s."""
    stem = f"llmservingsim_{hardware}_Llama-3.1-8B_bf16_tp1"
    once = {"embedding": dict[int, float](), "final_layernorm": dict[int, float]()}
    for row in table(folder / f"{stem}_dense.csv"):
        if row["layer"] in once:
            once[row["layer"]][int(row["tokens"])] = float(row["time_us"]) * 1e-6
    times: dict[int, float] = {}
    for row in table(folder / f"{stem}_per_sequence.csv"):
        n = int(row["sequences"])
        begin = sum(each[n] for each in once.values())
        times[n] = times.get(n, begin) + float(row["time_us"]) * 1e-6
    return Timings(
        [(n,) for n in times], list(times.values()), lambda row: f"{between(row[0], (32, 128))} rows"
    )


def servingsim_attention(folder: Path, hardware: str, most_keys: float) -> tuple[Timings, Timings]:
    """One layer's attention: of one chunk, alone or beside decodes; of decodes alone.

    most_keys: tokens of cache that the device holds beside the whole model; the timings ran one layer.
    """
    rows: tuple[list[Row], list[Row]] = ([], [])
    seconds: tuple[list[float], list[float]] = ([], [])
    for row in table(folder / f"llmservingsim_{hardware}_Llama-3.1-8B_bf16_tp1_attention.csv"):
        length, start = int(row["prefill_chunk"]), int(row["kv_prefill"])
        n, context = int(row["n_decode"]), int(row["kv_decode"])
        alone = not length
        rows[alone].append((n, n * context) if alone else ([(start, length)], n, n * context))
        seconds[alone].append(float(row["time_us"]) * 1e-6)
    decodes = by_decodes(most_keys, L2[hardware.lower()])
    return Timings(rows[0], seconds[0], by_chunk(most_keys)), Timings(rows[1], seconds[1], decodes)


def aiconfigurator_attention(folder: Path, n_heads: int, n_kv_heads: int) -> tuple[Timings, Timings]:
    """One layer's attention on an H100: of batches of whole prompts, of batches of decodes."""
    heads = {"num_heads": str(n_heads), "num_key_value_heads": str(n_kv_heads)}
    found = []
    for kind, size in (("context", "isl"), ("generation", "kv_len")):
        rows: list[Row] = []
        seconds = []
        for row in table(folder / f"aic_h100sxm_vllm0.24_{kind}_attn_bf16_hd128.csv"):
            if heads.items() <= row.items():
                b, n = int(row["batch_size"]), int(row[size])
                rows.append(([(0, n)] * b,) if kind == "context" else (b, b * n))
                seconds.append(float(row["latency"]) * 1e-3)
        found.append(Timings(rows, seconds))
    return found[0], found[1]


def errors(cost: Kernels, part: str, timings: Timings) -> Errors:
    """Of |predicted / measured - 1|, mean to largest; and the signed mean of each regime, of one layer."""
    signed = timings.off(cost, part)
    off = np.abs(signed)
    of = {"mean": off.mean(), "median": np.median(off), "p95": np.quantile(off, 0.95), "largest": off.max()}
    out: Errors = {"n": len(off)} | {name: round(float(value), 4) for name, value in of.items()}
    biases = {str(name): signed[timings.index == i] for i, name in enumerate(timings.names)}
    out["signed"] = {
        name: {"n": len(values), "mean": round(float(values.mean()), 4)} for name, values in biases.items()
    }
    return out


def most_keys(device: str) -> int:
    """Tokens of cache that a device holds beside the whole model."""
    pool = pool_for(LLAMA3_8B, device, budget=2048)
    return (pool.n_blocks or 0) * pool.block_size


# --- fits -------------------------------------------------------------------------------------------------


def fit_servingsim(folder: Path, hardware: str, device: str) -> tuple[Kernels, dict[str, Errors]]:
    """All parts from LLMServingSim's tables; every regime counts alike."""
    chunks, decodes = servingsim_attention(folder, hardware, most_keys(device))
    linear, small_s = servingsim_linear(folder, hardware)
    head = servingsim_head(folder, hardware)
    cost = Kernels(LLAMA3_8B, DEVICES[device], replace(BEGIN, warm=L2[device]))
    cost = refit_linear(cost, linear, small_s)
    cost = refit(cost, "head", head)
    # A benchmark finds few keys again in the device's cache; a server, which reads its weights meanwhile, does
    # not. So launches are taken from batches with next to no keys, and reading from those that fill the cache.
    least, warm = decodes.where(lambda row: row[1] <= 32 * row[0]), L2[device]
    cost = refit(cost, "decode_attention", least, ("t_decode", "t_row"))
    cold = decodes.where(lambda row: row[1] * KEY_BYTES >= warm)
    cost = refit(cost, "decode_attention", cold, ("decode", "t_fill"))
    cost = refit(cost, "chunk_attention", chunks.every(max(1, len(chunks.rows) // 1400)))
    return cost, {
        "linear": errors(cost, "linear", linear),
        "head": errors(cost, "head", head),
        "chunks": errors(cost, "chunk_attention", chunks),
        "decodes": errors(cost, "decode_attention", decodes),
    }


def fit_h100(folder: Path) -> tuple[Kernels, dict[str, Errors]]:
    """Linear from Vidur's Llama-2-70B, attention from aiconfigurator, with Llama-3-8B's heads."""
    linear, _ = vidur_linear(folder, "h100_Llama-2-70b-hf")
    _, small_s = vidur_linear(folder, "h100_Llama-2-7b-hf")  # those of a narrower model have least to do
    chunks, decodes = aiconfigurator_attention(folder, 32, 8)
    cost = refit_linear(Kernels(LLAMA2_70B, DEVICES["h100"], BEGIN), linear, small_s)
    score = {"linear": errors(cost, "linear", linear)}
    cost = with_fit(replace(cost, config=LLAMA3_8B), shared=False)
    cost = refit(cost, "decode_attention", decodes, ("t_decode", "t_row", "decode"))
    cost = refit(cost, "chunk_attention", chunks, ("t_chunk", "walk", "t_block", "attention", "reading"))
    score["chunks"] = errors(cost, "chunk_attention", chunks)
    return cost, score | {"decodes": errors(cost, "decode_attention", decodes)}


def fit_a100(folder: Path) -> tuple[Kernels, dict[str, Errors]]:
    """Linear alone, from Vidur's Llama-3-8B: there are no attention timings for it here."""
    linear, small_s = vidur_linear(folder, "a100_Meta-Llama-3-8B")
    cost = refit_linear(Kernels(LLAMA3_8B, DEVICES["a100"], BEGIN), linear, small_s)
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


def finite(values: dict[str, Any]) -> dict[str, Any]:
    """The same with None for what has no bound: JSON has no infinity."""
    return {name: None if value == inf else value for name, value in values.items()}


def main(argv: list[str] | None = None) -> int:
    """The bench; see the module's docstring."""
    parser = options("kernels", __doc__)
    parser.add_argument("--profiles", type=Path, required=True, help="folder of the timing tables")
    args = parser.parse_args(argv)
    about = provenance_of(args)
    document: dict[str, Any] = {"bench": "kernels", "provenance": about}
    fits = {
        "h100": fit_h100(args.profiles),
        "a100": fit_a100(args.profiles),
        "rtx4090": fit_servingsim(args.profiles, "RTX4090", "rtx4090"),
        "rtxpro6000": fit_servingsim(args.profiles, "RTXPRO6000", "rtxpro6000"),
    }
    document["devices"] = {
        name: {
            "device": asdict(cost.device),
            "fit": finite(asdict(cost.fit)),
            "errors": score,
            "curve": overhead_curve(cost, args.profiles, name.upper()),
        }
        for name, (cost, score) in fits.items()
    }
    write(document, args.out)
    return 0
