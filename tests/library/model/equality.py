"""The course's central claim as one function: prefilling in any chunks is prefilling in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

import chunkprefill as cp
from chunkprefill.model.config import Config
from chunkprefill.model.transformer import Transformer
from chunkprefill.model.weights import random_model

FEATURES: dict[str, dict[str, Any]] = {
    "llama": {},
    "smollm2": {"tied": True},
    "qwen2": {"qkv_bias": True},
    "qwen3": {"qk_norm": True},
    "mistral": {"rope_theta": 1e6},
}
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
# Largest difference allowed, relative to the largest number compared.
TOLERANCES = {torch.float64: 1e-12, torch.float32: 2e-5, torch.float16: 2e-2, torch.bfloat16: 1e-1}


def small_model(
    family: str = "llama", *, dtype: torch.dtype = torch.float64, device: str = "cpu", **more: Any
) -> Transformer:
    """A model of two layers and 61 tokens with the family's features."""
    shape = {"n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "head_dim": 8, "vocab_size": 61, "d_ff": 40}
    return random_model(Config(**(shape | FEATURES[family] | more)), seed=1, dtype=dtype, device=device)


def built(
    model: Transformer, tokens: Sequence[int], chunk: Any, *, backend: str | None = "sdpa", room: int = 3
) -> list[torch.Tensor]:
    """The next token's logits, then each layer's keys and values."""
    cache = cp.KVCache(
        model.config, len(tokens) + room, dtype=model.dtype, device=model.device, backend=backend
    )
    logits = cp.prefill(model, tokens, cache, chunk)
    assert cache.length == len(tokens)
    return [logits, *(x for layer in range(model.config.n_layers) for x in cache.kv(layer))]


def difference(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> float:
    """The largest one, relative to the largest number in each pair of tensors."""
    worst = 0.0
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        gap = float((a.double() - b.double()).abs().max() / b.double().abs().max())
        worst = max(worst, gap if gap == gap else float("inf"))  # NaN is never close
    return worst


def assert_same(model: Transformer, tokens: Sequence[int], chunk: Any, **more: Any) -> None:
    expected = built(model, tokens, None, backend="reference")
    gap = difference(built(model, tokens, chunk, **more), expected)
    assert gap <= TOLERANCES[model.dtype], f"{len(tokens)} tokens in chunks {chunk} differ by {gap:.1e}"
