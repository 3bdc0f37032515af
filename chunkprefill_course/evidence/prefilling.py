"""Evidence for chapter 1: what a token leaves is final and always as large; most work is matrix products."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from chunkprefill.generation import prefill
from chunkprefill.model.cache import KVCache
from chunkprefill.model.weights import load_model, random_model
from chunkprefill_course.evidence.counting import count_reads, stretch_by_length
from chunkprefill_course.evidence.evidence import Evidence, Number
from chunkprefill_course.exercises.ch01.questions import SMOLLM2

WINDOW = 32  # tokens that a forgetful layer keeps


def final_at_once(*, changed: bool = False, n_prompts: int = 20, seed: int = 0) -> Evidence:
    """Keys and values of a prompt, with and without more tokens behind it. changed: angles grow with the length.

    It could fail: without a causal mask, or with a norm over positions, the first tokens' values move. The flip
    changes the second condition alone, what a token's angle depends on.
    """
    model, dice, largest = load_model("tiny", dtype=torch.float64), random.Random(seed), 0.0
    if changed:
        stretch_by_length(model)
    for _ in range(n_prompts):
        n, more = dice.randint(1, 24), dice.randint(1, 24)
        tokens = [dice.randrange(model.config.vocab_size) for _ in range(n + more)]
        short, long = (KVCache(model.config, n + more, dtype=model.dtype) for _ in range(2))
        prefill(model, tokens[:n], short)
        prefill(model, tokens, long)
        for layer in range(model.config.n_layers):
            pairs = zip(short.kv(layer), long.kv(layer))
            largest = max(largest, *(float((a - b[:n]).abs().max() / a.abs().max()) for a, b in pairs))
    return Evidence(
        claim="final-at-once",
        holds=largest <= 1e-12,
        setting=f"{n_prompts} random prompts in float64, each run once alone and once followed by 1 to 24 more "
        "tokens; its keys and values in all layers are compared"
        + (
            ". A token's angle depends on the length of the sequence so far (dynamic NTK)."
            if changed
            else "."
        ),
        numbers=(
            Number("largest difference, as a share of the largest number", largest, how="measured"),
            Number("largest difference allowed", 1e-12),
        ),
        otherwise="let a token's angle depend on the length of the sequence so far, as dynamic NTK scaling does.",
    )


class Forgetful(KVCache):
    """A cache that keeps the last `WINDOW` tokens of each layer, as a sliding window does."""

    def kv(self, layer: int) -> tuple[Tensor, Tensor]:
        keys, values = super().kv(layer)
        return keys[-WINDOW:], values[-WINDOW:]


def bytes_a_token(*, changed: bool = False, n: int = 64) -> Evidence:
    """What each token adds to the cache. changed: layers that forget what is more than `WINDOW` tokens behind.

    It could fail: bytes are counted in the cache after each token, so a cache that packs, shares or drops
    anything adds unequal amounts. The flip changes the condition alone, which layers keep what; the same count
    is made of both caches.
    """
    model = load_model("tiny")
    cache, held = (Forgetful if changed else KVCache)(model.config, n), [0]
    for token in range(n):
        prefill(model, [token], cache)
        stored = [x.numel() * x.element_size() for i in range(model.config.n_layers) for x in cache.kv(i)]
        held.append(sum(stored))
    added = [after - before for before, after in pairwise(held)]
    unit, what = "bytes", "bytes of keys and values that are kept"
    return Evidence(
        claim="bytes-a-token",
        holds=len(set(added)) == 1,
        setting=f"A tiny model in float32 reads {n} tokens one by one; after each, the {what} are counted"
        + (f". Its layers forget what is more than {WINDOW} tokens behind." if changed else "."),
        numbers=(
            Number("the first token adds", added[0], unit),
            Number("the last token adds", added[-1], unit),
        ),
        otherwise="let the layers forget what is far behind, as a sliding window does: late tokens add nothing.",
    )


def products_run(n_layers: int, n_tokens: int) -> int:
    """Operations of the matrix products, as PyTorch counts them while a model of SmolLM2's widths runs."""
    model = random_model(replace(SMOLLM2, n_layers=n_layers, vocab_size=16))
    with FlopCounterMode(display=False) as counter:
        prefill(model, [i % 16 for i in range(n_tokens)], KVCache(model.config, n_tokens))
    counts = counter.get_flop_counts()["Global"]
    return sum(int(flops) for operation, flops in counts.items() if "attention" not in str(operation))


def products_first(*, changed: bool = False) -> Evidence:
    """Operations of matrix products against attention. changed: a prompt beyond where the two are equal.

    It could fail: both counts are worked out, and both formulas are held against a run, the products against
    PyTorch's counter and attention's pairs against a mask. The flip changes the condition alone, the length.
    """
    n = 65_536 if changed else 1024
    pairs_met = count_reads(64, None)[1]  # query-key pairs of one layer, 64 tokens
    # One layer more; the last one does less, because it serves one row only.
    ran = products_run(2, 64) - products_run(1, 64)
    said = replace(SMOLLM2, n_layers=1).linear_flops(64)
    products, looking = SMOLLM2.linear_flops(n), SMOLLM2.attention_flops(n * (n + 1) // 2)
    return Evidence(
        claim="products-first",
        holds=products > looking and ran == said and pairs_met == 64 * 65 // 2,
        setting=f"SmolLM2-135M, a prompt of {n:,} tokens. The operations are calculated from the model's "
        "shape, and the formula is checked against what PyTorch counts while such a layer runs.",
        numbers=(
            Number("matrix products", round(products / 1e9), "GFLOP"),
            Number("attention", round(looking / 1e9), "GFLOP"),
            Number("one layer, 64 tokens: products, counted", round(ran / 1e6), "MFLOP"),
            Number("one layer, 64 tokens: products, calculated", round(said / 1e6), "MFLOP"),
        ),
        otherwise="take a prompt of 65,536 tokens, beyond the length at which the two are equal.",
    )
