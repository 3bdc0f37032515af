"""Evidence that has to be timed: processor time of one core, runs interleaved, the middle of five, ratios.

One core and its processor time, because then other programs on the machine barely matter. Ratios of wall time
on many cores are larger, because more cores wait for the same memory.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

import torch

from chunkprefill.generation import prefill
from chunkprefill.model.cache import KVCache
from chunkprefill.model.transformer import Layer, Transformer
from chunkprefill.model.weights import random_model
from chunkprefill_course.evidence.counting import count_passes
from chunkprefill_course.evidence.evidence import Evidence, Number
from chunkprefill_course.exercises.ch01.questions import SMOLLM2

K = TypeVar("K")
SMALL, LARGE, N = 16, 256, 512  # tokens: chunks below and above the saturation point, and the prompt
SLOWER = 1.15  # a ratio of times that is called slower


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Torch on a single thread, for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def interleaved(work: Mapping[K, Callable[[], object]], *, rounds: int = 5) -> dict[K, float]:
    """Median seconds of processor time of each piece of work, each done once a round; one warms up."""
    taken: dict[K, list[float]] = {key: [] for key in work}
    with one_core():
        for _ in range(rounds + 1):
            for key, run in work.items():
                begin = time.process_time()
                run()
                taken[key].append(time.process_time() - begin)
    return {key: statistics.median(seconds[1:]) for key, seconds in taken.items()}


def model_of_two_layers() -> Transformer:
    """SmolLM2's widths, two layers of its thirty, random weights."""
    return random_model(replace(SMOLLM2, n_layers=2, vocab_size=1000))


def prefill_in(model: Transformer, chunk_size: int) -> Callable[[], object]:
    """One prefilling of N tokens, ready to be timed."""
    tokens = [i % model.config.vocab_size for i in range(N)]
    return lambda: prefill(model, tokens, KVCache(model.config, N), chunk_size)


def products_in(model: Transformer, chunk_size: int) -> Callable[[], object]:
    """The matrix products of that prefilling alone: N tokens through every weight, chunk by chunk."""
    weights = [
        matrix
        for layer in model.layers
        if isinstance(layer, Layer)
        for matrix in (layer.qkv, layer.out, layer.gate_up, layer.down)
    ]
    rows = {width: torch.ones(N, width) for width in {matrix.in_features for matrix in weights}}

    def run() -> None:
        with torch.inference_mode():
            for start in range(0, N, chunk_size):
                for matrix in weights:
                    matrix(rows[matrix.in_features][start : start + chunk_size])

    return run


def slower_prefill(*, changed: bool = False) -> Evidence:
    """Small chunks against one pass. changed: chunks above the saturation point.

    It could fail: both are timed, and the one pass could be as slow. The flip is the sentence's second half, on
    the same model and prompt: only the chunk changes.
    """
    model, chunk = model_of_two_layers(), LARGE if changed else SMALL
    seconds = interleaved({c: prefill_in(model, c) for c in (chunk, N)})
    ratio = seconds[chunk] / seconds[N]
    return Evidence(
        claim="slower-prefill",
        holds=ratio >= SLOWER,
        setting=f"{N} tokens alone on one core, two layers of SmolLM2's widths, float32: chunks of {chunk} "
        f"against one pass; slower means at least {SLOWER} times the time.",
        numbers=(
            Number("one pass", seconds[N], "s", "measured"),
            Number(f"chunks of {chunk}", seconds[chunk], "s", "measured"),
            Number("chunks against one pass", ratio, "×", "measured"),
        ),
        otherwise=f"take chunks of {LARGE}, above the saturation point of this machine.",
        timed=True,
    )


def weights_again(*, changed: bool = False) -> Evidence:
    """Weights read, counted; what that costs, timed in the matrix products alone. changed: long chunks.

    It could fail: the products' extra time could be less than half of all the extra time, as it is on a GPU whose
    launches bound a small chunk; and the whole prefilling could be no slower, which leaves nothing to explain.
    What it cannot tell apart is reading the weights and working on few rows at a time: both are in the products.
    The flip changes the chunk alone.
    """
    model, chunk = model_of_two_layers(), LARGE if changed else SMALL
    work = {(c, "all"): prefill_in(model, c) for c in (chunk, N)}
    work |= {(c, "products"): products_in(model, c) for c in (chunk, N)}
    seconds = interleaved(work)
    ratio, of_all = (seconds[chunk, part] / seconds[N, part] for part in ("products", "all"))
    more = {part: seconds[chunk, part] - seconds[N, part] for part in ("all", "products")}
    n_bytes = 4 * model.config.n_layers * model.config.linear_params
    n_passes = count_passes(model, N, chunk)
    return Evidence(
        claim="weights-again",
        holds=min(ratio, of_all) >= SLOWER and more["products"] > 0.5 * more["all"],
        setting=f"{N} tokens alone on one core, two layers of SmolLM2's widths, float32, in chunks of "
        f"{chunk}: the products with the weights timed alone, beside the whole prefilling.",
        numbers=(
            Number("bytes of the layers' matrices", n_bytes, "B"),
            Number("passes that read them", n_passes),
            Number("bytes read in all", n_passes * n_bytes, "B"),
            Number("products in chunks, against one pass", ratio, "×", "measured"),
            Number("whole prefilling in chunks, against one pass", of_all, "×", "measured"),
            Number("extra time of the products", more["products"], "s", "measured"),
            Number("extra time of the whole prefilling", more["all"], "s", "measured"),
        ),
        otherwise=f"take chunks of {LARGE}: they read the weights {N // LARGE} times instead of once, but their "
        "arithmetic takes long enough to hide it.",
        timed=True,
    )
