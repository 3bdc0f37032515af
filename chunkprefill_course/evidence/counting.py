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

from chunkprefill.generation import chunk_lengths, prefill
from chunkprefill.model.attention import bottom_right_mask, reference
from chunkprefill.model.cache import KVCache
from chunkprefill.model.transformer import Transformer
from chunkprefill.model.weights import load_model, random_model
from chunkprefill_course.evidence.evidence import Evidence, Number
from chunkprefill_course.exercises.ch01.questions import SMOLLM2


def stretch_by_length(model: Transformer, trained: int = 8) -> None:
    """Give the model the angles of dynamic NTK scaling: they depend on how long the sequence is by now.

    Beyond `trained` positions the base grows with the length seen in the pass, so that a token's angle is not its
    own position's alone: a prompt read in pieces is turned by other angles than one that is read at once.
    """

    def angles(positions: Tensor) -> tuple[Tensor, Tensor]:
        length = max(trained, int(positions.max()) + 1)
        d = model.config.head_dim
        base = model.config.rope_theta * (2 * length / trained - 1) ** (d / (d - 2))
        stretched = Transformer(replace(model.config, rope_theta=base)).to(model.dtype)
        return Transformer._angles(stretched, positions)

    model._angles = angles  # type: ignore[method-assign]


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

    model: one to try in place of the tiny one in float64. changed: a token's angle depends on the length in all.
    It could fail: a wrong mask, position or place in the cache makes differences of 0.1 and more (mutants). The
    flip changes the last condition alone.
    """
    model = model or load_model("tiny", dtype=torch.float64)
    exact = model.dtype == torch.float64
    tolerance, dice, largest, n_same = (1e-12 if exact else 1e-3), random.Random(seed), 0.0, 0
    if changed:
        stretch_by_length(model)
    for _ in range(n_prompts):
        tokens = [dice.randrange(model.config.vocab_size) for _ in range(dice.randint(2, 48))]
        whole, pieces = (KVCache(model.config, len(tokens), dtype=model.dtype) for _ in range(2))
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
        setting=f"{n_prompts} random prompts of 2 to 48 tokens in {'float64' if exact else 'float32'}, each run in one "
        "pass and in random chunks; keys and values of all layers, and the logits, are compared"
        + (
            ". A token's angle depends on the length of the sequence so far (dynamic NTK)."
            if changed
            else "."
        ),
        numbers=(
            Number("prompts with the same next token", n_same),
            Number("prompts tried", n_prompts),
            Number("largest difference, as a share of the largest number", largest, how="measured"),
            Number("largest difference allowed", tolerance),
        ),
        otherwise="let a token's angle depend on the length of the sequence so far, as dynamic NTK scaling does.",
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
    """Calls of the model, for random prompts and chunk sizes. changed: the first chunk has one token only.

    It could fail: the model's own calls are counted, so a pass too many, or a last pass for the logits, shows. The
    flip changes the condition that chunks have a fixed size; every other chunk has it still.
    """
    model, dice = load_model("tiny"), random.Random(seed)
    cases = [(1000, 256)] + [(dice.randint(2, 120), dice.randint(1, 60)) for _ in range(n_cases - 1)]
    counted = [count_passes(model, n, [1, *chunk_lengths(n - 1, c)] if changed else c) for n, c in cases]
    n_as_said = sum(count == -(-n // c) for count, (n, c) in zip(counted, cases))
    return Evidence(
        claim="passes",
        holds=n_as_said == n_cases,
        setting=f"{n_cases} pairs of prompt length n and chunk size c; the model's calls are counted"
        + (". The first chunk has one token, the others c." if changed else "."),
        numbers=(
            Number("passes for 1,000 tokens in chunks of 256", counted[0]),
            Number("passes for 1,000 tokens, uncut", count_passes(model, 1000, None)),
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
    """Positions that later chunks read again, against n(n − c)/2c. changed: as many unequal chunks.

    It could fail: what attention is called with is counted while the model runs; the formula knows nothing of
    it. The flip changes the condition alone, that chunks are equally long; their number stays.
    """
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


def peak_bytes(model: Transformer, n: int, chunk_size: int, *, every_row: bool = False) -> tuple[int, int]:
    """Peak bytes of activations, and bytes of the finished cache, of one prefilling.

    every_row: make logits of every row, and keep them to the end, as scoring a prompt does.

    Exact and the same at every run. What a kernel takes for itself while it runs is not seen.
    """
    cache = KVCache(model.config, n, dtype=model.dtype)
    tokens = [i % model.config.vocab_size for i in range(n)]
    with _Live([*model.parameters(), cache.keys, cache.values]) as live:
        if every_row:
            score(model, tokens, cache, chunk_size)
        else:
            prefill(model, tokens, cache, chunk_size)
    return live.peak, cache.n_bytes


class EveryRow:
    """A window of a cache that wants the logits of all its rows."""

    def __init__(self, window: Any) -> None:
        self.positions, self.attend = window.positions, window.attend

    def emit_rows(self) -> slice:
        """All of them."""
        return slice(None)


def score(model: Transformer, tokens: Sequence[int], cache: KVCache, chunk_size: int) -> list[Tensor]:
    """Logits of every row, chunk by chunk: [chunk, vocab] each."""
    kept = []
    with torch.inference_mode():
        for begin in range(0, len(tokens), chunk_size):
            chunk = torch.tensor(tokens[begin : begin + chunk_size])
            kept.append(model(chunk, EveryRow(cache.window(len(chunk)))))
            cache.length += len(chunk)
    return kept


def activation_bytes(model: Transformer, n_tokens: int) -> int:
    """The same peak worked out: what is alive in a layer's MLP while it holds a chunk's gates, in float32.

    The residual stream, its norm, queries, keys and values, gates, ups and the gates' SiLU, RoPE's cosines and
    sines.
    """
    c = model.config
    numbers = 2 * c.d_model + (c.d_q + 2 * c.d_kv) + 3 * c.d_ff + 2 * c.head_dim
    return 4 * numbers * n_tokens


def peak_memory(*, changed: bool = False, n: int = 1024) -> Evidence:
    """Bytes alive while a model of SmolLM2's widths prefills. changed: logits are made for every row.

    It could fail: the peak is followed tensor by tensor, and held against a formula that knows the chunk alone.
    The flip changes the condition alone, for which rows logits are made.
    """
    model = random_model(replace(SMOLLM2, n_layers=2, vocab_size=20_000 if changed else 1000))
    sizes = (n, n // 4, n // 16)
    found = [peak_bytes(model, n, size, every_row=changed)[0] for size in sizes]
    near = [abs(value / activation_bytes(model, size) - 1) < 0.02 for value, size in zip(found, sizes)]
    what = "peak bytes of activations"
    numbers = [Number(f"{what}, chunks of {size:,}", value, "B") for size, value in zip(sizes, found)]
    numbers += [Number(f"calculated for a chunk of {sizes[0]:,}", activation_bytes(model, sizes[0]), "B")]
    return Evidence(
        claim="peak-memory",
        holds=all(a > 3 * b for a, b in pairwise(found)) and (changed or all(near)),
        setting=f"A model of SmolLM2's widths, two layers, float32, {n:,} tokens on a CPU: every tensor is "
        "tracked from creation to release; weights and cache are not counted, and logits are computed for "
        "one row only"
        + (
            ". Here logits over 20,000 tokens are computed for every row of the prompt and kept to its end."
            if changed
            else "."
        ),
        numbers=tuple(numbers),
        otherwise="compute logits for every row of the prompt and keep them: there are as many however it is cut.",
    )
