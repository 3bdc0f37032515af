"""Section on what must be equal: chunked and standard caches on the device, by type and backend."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.gpu.lab import MODELS, JsonRow, Lab, random_on
from chunkprefill.engine import Engine
from chunkprefill.generation import prefill
from chunkprefill.model.attention import BACKENDS
from chunkprefill.model.backends import backend_for
from chunkprefill.model.cache import KVCache
from chunkprefill.model.config import Config
from chunkprefill.model.transformer import Transformer
from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.core import Batch, Request, Rid
from chunkprefill.scheduling.policies import ChunkedPrefill

#: Largest difference allowed, relative to the largest number compared; the types' rounding is 1e-16, 6e-8,
#: 5e-4 and 4e-3. The wrong mask, a wrong position or a lost token is off by a tenth to the whole.
TOLERANCES = {"float64": 1e-12, "float32": 2e-5, "float16": 2e-2, "bfloat16": 1e-1}


def equality(lab: Lab) -> Iterator[JsonRow]:
    """One pass by the definition of attention, against chunks by each backend, in one cache and in blocks."""
    n = lab.pick(tiny=80, smoke=600, full=600)
    for dtype_name, tolerance in TOLERANCES.items():
        dtype = getattr(torch, dtype_name)
        config = equality_config(lab)
        model = random_on(config, seed=lab.seed, device=lab.device, dtype=dtype)
        tokens = random.Random(lab.seed).choices(range(config.vocab_size), k=n)
        standard = one_cache(model, tokens, None, "reference")
        for backend in (*BACKENDS, "varlen"):
            row = {"dtype": dtype_name, "backend": backend, "tolerance": tolerance}
            try:
                backend_for(backend, lab.device, dtype)
            except ValueError as error:  # a backend need not take every type: that is said, and not tried
                yield row | {"equal": None, "refused": str(error)}
                continue
            for kind, build in {"one cache": one_cache, "blocks": in_blocks}.items():
                gaps = {
                    name: difference(build(model, tokens, split, backend), standard)
                    for name, split in splits(n, lab.seed).items()
                }
                worst = max(gaps.values())
                yield row | {
                    "cache": kind,
                    "difference": worst,
                    "equal": worst <= tolerance,
                    "by_split": gaps,
                }


def equality_config(lab: Lab) -> Config:
    """Four layers of Qwen3's shape (grouped heads, norms over heads), so that even float64 is quick."""
    if lab.size == "tiny":
        return MODELS["tiny"]
    return replace(MODELS["Qwen3-0.6B"], n_layers=4, vocab_size=4096)


def splits(n: int, seed: int) -> dict[str, list[int]]:
    """Ways to cut `n` tokens: whole, small, about a tile, and at random."""
    draw = random.Random(f"splits {seed}")
    cuts = sorted(draw.sample(range(1, n), min(7, n - 1)))
    at_random = [b - a for a, b in zip([0, *cuts], [*cuts, n])]
    fixed = {size: [min(size, n - at) for at in range(0, n, size)] for size in (n, 7, 64, 129)}
    return {"whole" if size == n else f"chunks of {size}": split for size, split in fixed.items()} | {
        "at random": at_random
    }


def one_cache(
    model: Transformer, tokens: Sequence[int], split: list[int] | None, backend: str
) -> list[Tensor]:
    """The next token's logits, then each layer's keys and values."""
    cache = KVCache(model.config, len(tokens), dtype=model.dtype, device=model.device, backend=backend)
    logits = prefill(model, tokens, cache, split)
    return [logits, *(x for layer in range(model.config.n_layers) for x in cache.kv(layer))]


def in_blocks(model: Transformer, tokens: Sequence[int], split: list[int], backend: str) -> list[Tensor]:
    """The same through an engine's cache in blocks, a step a chunk; another sequence decodes beside it."""
    engine = Engine(model, ChunkedPrefill(64), BlockPool(None), backend=backend)
    prompt = Request("prompt", 0.0, len(tokens), 1, tuple(tokens))
    other = Request("other", 0.0, 40, len(split) + 1)
    executor = engine.executor((prompt, other))
    pool = engine.cache.pool.copy()
    tables: dict[Rid, list[int]] = {"prompt": [], "other": pool.take(1)}
    executor.launch(Batch(("other",), (0,), (5,), (False,)), tables).wait()
    start, cached = 0, 5
    for length in split:
        for rid, end in (("prompt", start + length), ("other", cached + 1)):  # taken in turn: blocks mix
            tables[rid] += pool.take(pool.blocks_for(end) - len(tables[rid]))
        batch = Batch(("prompt", "other"), (start, cached), (length, 1), (False, cached >= 39))
        executor.launch(batch, tables).wait()
        start, cached = start + length, cached + 1
    layers = [x for i in range(model.config.n_layers) for x in engine.cache.kv(i, tables["prompt"], start)]
    last = Batch(
        ("prompt",), (start - 1,), (1,), (True,)
    )  # the last token again: its logits, from this cache
    with torch.inference_mode():
        strip = torch.tensor([tokens[-1]], device=model.device)
        logits = model(strip, engine.cache.window(last, tables))[-1].clone()
    return [logits, *layers]


def difference(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """The largest one, relative to the largest number in each pair of tensors; infinite for NaN."""
    worst = 0.0
    for a, b in zip(ours, theirs, strict=True):
        gap = float((a.double() - b.double()).abs().max() / b.double().abs().max())
        worst = max(worst, gap if gap == gap else float("inf"))
    return worst
