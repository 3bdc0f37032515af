"""Evidence that is counted while the real thing runs: the same cache, passes, reading again, peak memory."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from chunkprefill.engine import chunk_lengths, prefill
from chunkprefill.evidence.evidence import Evidence, Number
from chunkprefill.exercises.chapter1 import SMOLLM2
from chunkprefill.model.attention import bottom_right_mask, reference
from chunkprefill.model.cache import KVCache
from chunkprefill.model.transformer import Transformer
from chunkprefill.model.weights import load_model, random_model


def top_left(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention with the border starting in the top left corner, as `is_causal=True` has it."""
    group = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)[0].transpose(0, 1)


def same_cache(
    *, changed: bool = False, model: Transformer | None = None, n_prompts: int = 20, seed: int = 0
) -> Evidence:
    """Random prompts, cut at random: is the cache, and are the logits, what one pass gives?

    model: one to try in place of the tiny one in float64. changed: every mask starts in the top left corner.
    """
    model = model or load_model("tiny", dtype=torch.float64)
    exact = model.dtype == torch.float64
    tolerance, dice, largest, n_same = (1e-12 if exact else 1e-3), random.Random(seed), 0.0, 0
    for _ in range(n_prompts):
        tokens = [dice.randrange(model.config.vocab_size) for _ in range(dice.randint(2, 48))]
        whole, pieces = (KVCache(model.config, len(tokens), dtype=model.dtype) for _ in range(2))
        if changed:
            pieces._attention = top_left
        lengths = chunk_lengths(len(tokens), dice.randint(1, len(tokens) - 1))
        dice.shuffle(lengths)
        pairs = [(prefill(model, tokens, whole), prefill(model, tokens, pieces, lengths))]
        n_same += int(pairs[0][0].argmax() == pairs[0][1].argmax())
        for layer in range(model.config.n_layers):
            pairs += zip(whole.kv(layer), pieces.kv(layer))
        largest = max(largest, *(float((a - b).abs().max() / a.abs().max()) for a, b in pairs))
    return Evidence(
        claim="same-cache",
        holds=largest <= tolerance and n_same == n_prompts,
        setting=f"{n_prompts} random prompts of 2 to 48 tokens, each in one pass and cut at random, "
        f"in {'float64' if exact else 'float32'}: keys and values of all layers, and logits, compared"
        + (". Every chunk's mask starts in the top left corner." if changed else "."),
        numbers=(
            Number("prompts with the same next token", n_same),
            Number("prompts tried", n_prompts),
            Number("largest difference, as a share of the largest number", largest, how="measured"),
            Number("largest difference allowed", tolerance),
        ),
        otherwise="let every chunk's mask start in the top left corner, as `is_causal=True` does.",
    )


def count_passes(model: Transformer, n: int, chunk_size: int | Sequence[int] | None) -> int:
    """How often the model itself is called to prefill n tokens."""
    calls: list[int] = []
    hook = model.register_forward_hook(lambda *_: calls.append(1))
    try:
        prefill(model, [i % model.config.vocab_size for i in range(n)], KVCache(model.config, n), chunk_size)
    finally:
        hook.remove()
    return len(calls)


def passes(*, changed: bool = False, n_cases: int = 40, seed: int = 0) -> Evidence:
    """Calls of the model, for random prompts and chunk sizes. changed: the first chunk has one token only."""
    model, dice = load_model("tiny"), random.Random(seed)
    cases = [(1000, 256)] + [(dice.randint(2, 120), dice.randint(1, 60)) for _ in range(n_cases - 1)]
    counted = [count_passes(model, n, [1, *chunk_lengths(n - 1, c)] if changed else c) for n, c in cases]
    n_as_said = sum(count == -(-n // c) for count, (n, c) in zip(counted, cases))
    return Evidence(
        claim="passes",
        holds=n_as_said == n_cases,
        setting=f"{n_cases} pairs of a prompt's length n and a chunk size c; the calls of the model are "
        "counted" + (". The first chunk has one token, the others c." if changed else "."),
        numbers=(
            Number("passes for 1,000 tokens in chunks of 256", counted[0]),
            Number("passes for 1,000 tokens at once", count_passes(model, 1000, None)),
            Number("pairs that took ⌈n/c⌉ passes", n_as_said),
            Number("pairs tried", n_cases),
        ),
        otherwise="let the first chunk have one token, and only the others the chosen size.",
    )


def count_reads(n: int, chunks: int | Sequence[int] | None) -> tuple[int, int]:
    """Cached positions read again and query-key pairs scored in one layer, as a tiny model prefills n."""
    model, seen = load_model("tiny"), []
    cache = KVCache(model.config, n)

    def counting(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        seen.append((len(k) - len(q), int(bottom_right_mask(len(q), len(k)).sum())))
        return reference(q, k, v)

    cache._attention = counting
    prefill(model, [i % model.config.vocab_size for i in range(n)], cache, chunks)
    one_layer = seen[:: model.config.n_layers]
    return sum(again for again, _ in one_layer), sum(pairs for _, pairs in one_layer)


def reread(*, changed: bool = False, n: int = 512) -> Evidence:
    """Positions that later chunks read again, against n(n − c)/2c. changed: as many unequal chunks."""
    sizes, numbers, as_said = (256, 128, 64), [], True
    _, pairs_at_once = count_reads(n, None)
    for c in sizes:
        k = n // c
        lengths = [n - (k - 1) * (c // 2), *[c // 2] * (k - 1)] if changed else c
        again, pairs = count_reads(n, lengths)
        formula = n * (n - c) // (2 * c)
        as_said = as_said and again == formula and pairs == pairs_at_once
        numbers.append(Number(f"read again in {k} chunks (n(n − c)/2c = {formula:,})", again, "positions"))
    numbers.append(Number("query–key pairs, however it is cut", pairs_at_once))
    return Evidence(
        claim="reread",
        holds=as_said,
        setting=f"A prompt of {n} tokens on a tiny model; what each pass reads and compares is counted in "
        "one layer"
        + (". As many chunks, but the first is longer than the others." if changed else ", in equal chunks."),
        numbers=tuple(numbers),
        otherwise="cut into as many chunks, but make the first one longer than the others.",
    )


class _Live(TorchDispatchMode):
    """Follows which tensors are alive, operator by operator; `peak` is the most bytes at any one time."""

    def __init__(self, known: Sequence[Tensor]) -> None:
        super().__init__()
        self.known = {tensor.untyped_storage()._cdata for tensor in known}
        self.alive: dict[int, tuple[Any, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in self.known:
                storage = leaf.untyped_storage()
                self.alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.alive = {key: held for key, held in self.alive.items() if not held[0].expired()}
        self.peak = max(self.peak, sum(n_bytes for _, n_bytes in self.alive.values()))
        return out


def peak_bytes(model: Transformer, n: int, chunk_size: int) -> tuple[int, int]:
    """Peak bytes of activations, and bytes of the finished cache, of one prefilling.

    Exact and the same at every run. What a kernel takes for itself while it runs is not seen.
    """
    cache = KVCache(model.config, n, dtype=model.dtype)
    with _Live([*model.parameters(), cache.keys, cache.values]) as live:
        prefill(model, [i % model.config.vocab_size for i in range(n)], cache, chunk_size)
    return live.peak, cache.n_bytes


def activation_bytes(model: Transformer, n_tokens: int) -> int:
    """The same peak worked out: what is alive in a layer's MLP while it holds a chunk's gates, in float32.

    The residual stream, its norm, what attention gathered, queries, keys and values, gates and ups, RoPE's
    cosines and sines.
    """
    c = model.config
    numbers = 2 * c.d_model + c.d_q + (c.d_q + 2 * c.d_kv) + 2 * c.d_ff + 2 * c.head_dim
    return 4 * numbers * n_tokens


def peak_memory(*, changed: bool = False, n: int = 1024) -> Evidence:
    """Bytes alive while a model of SmolLM2's widths prefills. changed: looks at the finished cache."""
    model = random_model(replace(SMOLLM2, n_layers=2, vocab_size=1000))
    sizes = (n, n // 4, n // 16)
    found = [peak_bytes(model, n, size)[changed] for size in sizes]
    near = [abs(value / activation_bytes(model, size) - 1) < 0.02 for value, size in zip(found, sizes)]
    what = "bytes of the finished cache" if changed else "peak bytes of activations"
    numbers = [Number(f"{what}, chunks of {size:,}", value, "B") for size, value in zip(sizes, found)]
    numbers += [Number(f"worked out for a chunk of {sizes[0]:,}", activation_bytes(model, sizes[0]), "B")]
    return Evidence(
        claim="peak-memory",
        holds=all(a > 3 * b for a, b in pairwise(found)) and (changed or all(near)),
        setting=f"A model of SmolLM2's widths, two layers, float32, {n:,} tokens on a CPU: every tensor is "
        "followed from its making to its end; weights and cache are not counted, and logits are made for "
        "one row only"
        + (". Here the finished cache is looked at in place of the activations." if changed else "."),
        numbers=tuple(numbers),
        otherwise="look at the finished cache in place of the activations: chunks make it no smaller.",
    )
