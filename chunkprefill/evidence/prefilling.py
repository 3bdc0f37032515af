"""Evidence for chapter 1: what a token leaves is final and always as large; most work is matrix products."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from chunkprefill.engine import prefill
from chunkprefill.evidence.evidence import Evidence, Number
from chunkprefill.exercises.chapter1 import SMOLLM2
from chunkprefill.model.cache import KVCache
from chunkprefill.model.weights import load_model, random_model


def unmasked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention in which every token sees every other of its pass, later ones too."""
    group = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v)[0].transpose(0, 1)


def final_at_once(*, changed: bool = False, n_prompts: int = 20, seed: int = 0) -> Evidence:
    """Keys and values of a prompt, with and without more tokens behind it. changed: no causal mask."""
    model, dice, largest = load_model("tiny", dtype=torch.float64), random.Random(seed), 0.0
    for _ in range(n_prompts):
        n, more = dice.randint(1, 24), dice.randint(1, 24)
        tokens = [dice.randrange(model.config.vocab_size) for _ in range(n + more)]
        short, long = (KVCache(model.config, n + more, dtype=model.dtype) for _ in range(2))
        for cache in (short, long):
            if changed:
                cache._attention = unmasked
        prefill(model, tokens[:n], short)
        prefill(model, tokens, long)
        for layer in range(model.config.n_layers):
            pairs = zip(short.kv(layer), long.kv(layer))
            largest = max(largest, *(float((a - b[:n]).abs().max() / a.abs().max()) for a, b in pairs))
    return Evidence(
        claim="final-at-once",
        holds=largest <= 1e-12,
        setting=f"{n_prompts} random prompts, each read once alone and once with 1 to 24 more tokens behind "
        "it, in float64: its keys and values in all layers compared"
        + (". Every token sees every other, later ones too." if changed else "."),
        numbers=(
            Number("largest difference, as a share of the largest number", largest, how="measured"),
            Number("largest difference allowed", 1e-12),
        ),
        otherwise="drop the causal mask: let every token see every other of its pass.",
    )


def bytes_a_token(*, changed: bool = False, n: int = 64) -> Evidence:
    """What each token adds to the cache. changed: what it adds to the query-key pairs."""
    model = load_model("tiny")
    cache, held = KVCache(model.config, n), [0]
    for token in range(n):
        prefill(model, [token], cache)
        stored = [x.numel() * x.element_size() for i in range(model.config.n_layers) for x in cache.kv(i)]
        held.append(cache.length * (cache.length + 1) // 2 if changed else sum(stored))
    added = [after - before for before, after in pairwise(held)]
    unit, what = ("pairs", "query–key pairs") if changed else ("bytes", "bytes of keys and values")
    return Evidence(
        claim="bytes-a-token",
        holds=len(set(added)) == 1,
        setting=f"A tiny model in float32 reads {n} tokens one by one; after each, the {what} are counted.",
        numbers=(
            Number("the first token adds", added[0], unit),
            Number("the last token adds", added[-1], unit),
        ),
        otherwise="count query–key pairs in place of bytes: each token adds one more than the one before it.",
    )


def products_run(n_layers: int, n_tokens: int) -> int:
    """Operations of the matrix products, as PyTorch counts them while a model of SmolLM2's widths runs."""
    model = random_model(replace(SMOLLM2, n_layers=n_layers, vocab_size=16))
    with FlopCounterMode(display=False) as counter:
        prefill(model, [i % 16 for i in range(n_tokens)], KVCache(model.config, n_tokens))
    counts = counter.get_flop_counts()["Global"]
    return sum(int(flops) for operation, flops in counts.items() if "attention" not in str(operation))


def products_first(*, changed: bool = False) -> Evidence:
    """Operations of matrix products against attention. changed: a prompt beyond where the two are equal."""
    n = 65_536 if changed else 1024
    ran = products_run(2, 64) - products_run(1, 64)  # the last layer does less, for it serves one row only
    said = replace(SMOLLM2, n_layers=1).linear_flops(64)
    products, looking = SMOLLM2.linear_flops(n), SMOLLM2.attention_flops(n * (n + 1) // 2)
    return Evidence(
        claim="products-first",
        holds=products > looking and ran == said,
        setting=f"SmolLM2-135M, a prompt of {n:,} tokens. Operations are worked out from the model's shape, "
        "and the formula held against what PyTorch counts while a layer of that shape runs.",
        numbers=(
            Number("matrix products", round(products / 1e9), "GFLOP"),
            Number("attention", round(looking / 1e9), "GFLOP"),
            Number("one layer, 64 tokens: products that ran", round(ran / 1e6), "MFLOP"),
            Number("one layer, 64 tokens: products worked out", round(said / 1e6), "MFLOP"),
        ),
        otherwise="take a prompt of 65,536 tokens, beyond the length at which the two are equal.",
    )
