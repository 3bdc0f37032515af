"""Sections on one prompt: the machine's ceilings, prefilling in chunks, tile steps, peak memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

import torch

from benchmarks.gpu.lab import MODELS, JsonRow, Lab, median
from benchmarks.gpu.roofline import Ceilings, SequencePart, prefill_roofline, roofline
from benchmarks.prefill import flops
from chunkprefill.generation import chunk_lengths, prefill
from chunkprefill.model.cache import KVCache

CHUNKS = (64, 128, 256, 512, 1024, 2048, 4096, 8192)  # tokens


def ceilings(lab: Lab) -> Iterator[JsonRow]:
    """FLOP/s of a square product of random numbers, bytes/s of a copy: fractions are stated of them."""
    side = lab.pick(tiny=256, smoke=8192, full=8192)
    n_copy = lab.pick(tiny=2**20, smoke=2**31, full=2**31)  # bytes
    a, b = (torch.rand(side, side, device=lab.device, dtype=torch.float32).to(lab.dtype) for _ in range(2))
    source = torch.randint(0, 255, (n_copy,), device=lab.device, dtype=torch.uint8)
    there, out = torch.empty_like(source), torch.empty_like(a)
    work = {
        "matrix product": lab.timed(lambda: torch.mm(a, b, out=out)),
        "copy": lab.timed(lambda: there.copy_(source)),
    }
    samples = lab.rounds(work, lab.pick(tiny=3, smoke=10, full=20), warm=3)
    product, copy = (median(samples[name]) for name in work)
    lab.ceilings = Ceilings(2 * side**3 / product, 2 * n_copy / copy, lab.dtype.itemsize)
    yield {
        "what": "matrix product",
        "side": side,
        "flops": lab.ceilings.flops,
        "s": product,
        "samples_s": samples["matrix product"],
    }
    yield {
        "what": "copy",
        "bytes": n_copy,
        "bytes_a_second": lab.ceilings.copy,
        "s": copy,
        "counted": "bytes read and written",
        "samples_s": samples["copy"],
    }


def prefilling(lab: Lab) -> Iterator[JsonRow]:
    """Whole prompts in chunks of each size, beside the peak and the operator roofline of each."""
    prompts = lab.pick(tiny=(96,), smoke=(8192,), full=(8192, 2048, 32_768))  # tokens
    sizes = lab.pick(tiny=(16, 64, 96), smoke=(512, 2048), full=CHUNKS)
    names = lab.pick(tiny=lab.names(), smoke=[lab.main], full=lab.names()[::-1])
    for n, name in product(prompts, names):  # the longest prompts of all models come last
        if lab.late(f"{name}, {n} tokens"):
            return
        yield from prefill_rows(lab, name, n, [size for size in sizes if size <= n])


def prefill_rows(lab: Lab, name: str, n: int, sizes: list[int]) -> Iterator[JsonRow]:
    """One prompt in chunks of each of these sizes, interleaved."""
    cache, tokens = lab.cache(name, n), some_tokens(lab, name, n)
    work = {size: lab.timed(partial(one_prefill, lab, name, cache, tokens, size)) for size in sizes}
    samples = lab.rounds(work, lab.pick(tiny=2, smoke=2, full=3 if n < 20_000 else 2))
    config = MODELS[name]
    for size in sizes:
        s, lengths = median(samples[size]), chunk_lengths(n, size)
        least = prefill_roofline(config, n, size, lab.top)
        yield {
            **{"model": name, "prompt": n, "chunk": size, "passes": len(lengths), "s": s},
            **{"tokens_a_second": n / s, "fraction_of_peak": flops(config, lengths) / s / lab.top.flops},
            **{"roofline_s": least, "over_roofline": s / least, "samples_s": samples[size]},
        }


def one_prefill(lab: Lab, name: str, cache: KVCache, tokens: torch.Tensor, size: int | None) -> torch.Tensor:
    """One prompt into a cache that is used again."""
    cache.length = 0
    return prefill(lab.model(name), tokens, cache, size)


def some_tokens(lab: Lab, name: str, n: int) -> torch.Tensor:
    """A seeded prompt on the device, `[n]`."""
    generator = torch.Generator().manual_seed(lab.seed)
    return torch.randint(0, MODELS[name].vocab_size, (n,), generator=generator).to(lab.device)


def tiles(lab: Lab) -> Iterator[JsonRow]:
    """One pass over a little less than, exactly, and a little more than some tiles of tokens."""
    edges = lab.pick(tiny=(16,), smoke=(256,), full=(128, 256, 512, 1024))
    for name in lab.pick(tiny=lab.names(), smoke=[lab.main], full=[lab.main, "Qwen3-0.6B"]):
        sizes = [edge + more for edge in edges for more in (-1, 0, 1)]
        if lab.late(name):
            return
        work: dict[int, Callable[[], tuple[float, float]]] = {
            n: lab.step(name, [SequencePart(0, n)]) for n in sizes
        }
        samples = lab.rounds(work, lab.pick(tiny=2, smoke=5, full=15), warm=2)
        for n in sizes:
            passes = [one for one, _ in samples[n]]
            least = roofline(MODELS[name], [SequencePart(0, n)], lab.top)
            yield {"model": name, "tokens": n, "s": median(passes), "roofline_s": least, "samples_s": passes}


def memory(lab: Lab) -> Iterator[JsonRow]:
    """Bytes that a prefilling takes at most besides weights and cache, by chunk, as torch counts them."""
    n = lab.pick(tiny=96, smoke=8192, full=8192)
    sizes = lab.pick(tiny=(16, 96), smoke=(512, 8192), full=CHUNKS)
    for name in lab.pick(tiny=lab.names(), smoke=[lab.main], full=lab.names()[::-1]):
        cache, tokens = lab.cache(name, n), some_tokens(lab, name, n)
        for size in sizes if name == lab.main else sizes[::3]:
            if lab.late(f"{name}, chunk {size}"):
                return
            one_prefill(lab, name, cache, tokens, size)  # workspaces of libraries are claimed now
            peak = before = None
            if lab.cuda:
                lab.tidy()
                lab.sync()
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
                one_prefill(lab, name, cache, tokens, size)
                lab.sync()
                peak = torch.cuda.max_memory_allocated() - before
            yield {
                **{"model": name, "prompt": n, "chunk": size, "peak_bytes": peak, "held_bytes": before},
                "cache_bytes": MODELS[name].kv_bytes(n, lab.dtype.itemsize),
                "weight_bytes": MODELS[name].weight_bytes(lab.dtype.itemsize),
                "unknown": "" if lab.cuda else "torch counts no memory on a CPU",
            }
