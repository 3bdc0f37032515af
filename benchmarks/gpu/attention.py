"""Section on attention alone: the ways in which one layer can read the caches of many sequences."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import torch

from benchmarks.gpu.lab import MODELS, JsonRow, Lab, median
from chunkprefill.model.attention import backend_named
from chunkprefill.model.backends import backend_for, walks
from chunkprefill.model.batch_attention import Alone, Padded, StripChunk, Varlen, Walked

BLOCK = 16  # tokens
Launch = Callable[[], object]


def attention(lab: Lab) -> Iterator[JsonRow]:
    """Decoding steps by each kernel that runs here, blocks in runs or scattered; a mixed batch in one or two.

    Bytes are keys and values read once, in each row: what a way copies or reads again is its own loss.
    """
    device = torch.device(lab.device)
    loads = lab.pick(tiny=[(3, 21)], smoke=[(64, 2049)], full=[(64, 2049), (16, 8193), (256, 129), (8, 2049)])
    config = MODELS[lab.main]
    heads, kv, wide = config.n_heads, config.n_kv_heads, config.head_dim
    many = backend_for(lab.backend, device, lab.dtype) == "varlen"
    alone = backend_named("sdpa")
    for n, length in loads:
        if lab.late(f"{n} decodes at {length}"):
            return
        per = -(-length // BLOCK)
        keys = torch.randn(n * per, BLOCK, kv, wide, device=device).to(lab.dtype)
        values = torch.randn_like(keys)
        q = torch.randn(n, heads, wide, device=device).to(lab.dtype)
        ids = list(range(n * per))
        layouts = {
            "runs": [StripChunk(i, length - 1, length, ids[i * per : (i + 1) * per]) for i in range(n)]
        }
        random.Random(lab.seed).shuffle(ids)
        layouts["scattered"] = [
            StripChunk(i, length - 1, length, ids[i * per : (i + 1) * per]) for i in range(n)
        ]
        ways: dict[tuple[str, str], Launch] = {}
        for blocks, chunks in layouts.items():
            parts: dict[str, Callable[..., object]] = {"padded": Padded.of(chunks, BLOCK, device)}
            if many:
                parts["varlen"] = Varlen.of(chunks, BLOCK, device)
            if many and walks("varlen", device, lab.dtype, config):
                parts["walk"] = Walked.of(chunks, kv, device)
            if n <= 16:
                parts["one by one"] = _each([Alone.of(c, alone, device) for c in chunks])
            for name, part in parts.items():
                ways[name, blocks] = lab.timed(_call(part, q, keys, values))
        n_bytes = 2 * n * length * kv * wide * lab.dtype.itemsize
        yield from _rows(lab, ways, {"decodes": n, "context": length - 1, "bytes": n_bytes})
    if many:
        n, length = lab.pick(tiny=(3, 21), smoke=(64, 2049), full=(64, 2049))
        per, size = -(-length // BLOCK), 512
        n_blocks = n * per + size // BLOCK
        keys = torch.randn(n_blocks, BLOCK, kv, wide, device=device).to(lab.dtype)
        values = torch.randn_like(keys)
        q = torch.randn(size + n, heads, wide, device=device).to(lab.dtype)
        lone = [StripChunk(size + i, length - 1, length, range(i * per, (i + 1) * per)) for i in range(n)]
        chunk = StripChunk(0, 0, size, range(n * per, n_blocks))
        both, first, rest = (Varlen.of(part, BLOCK, device) for part in ([chunk, *lone], [chunk], lone))
        ways = {
            ("varlen, one launch", "runs"): lab.timed(_call(both, q, keys, values)),
            ("varlen, two launches", "runs"): lab.timed(
                lambda: (first(q[:size], keys, values), rest(q[size:], keys, values))
            ),
        }
        yield from _rows(lab, ways, {"chunk": size, "decodes": n, "context": length - 1})


def _call(part: Callable[..., object], *given: torch.Tensor) -> Launch:
    def run() -> None:
        with torch.inference_mode():
            part(*given)

    return run


def _each(parts: list[Alone]) -> Callable[..., object]:
    def run(q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> object:
        return [part(q[i : i + 1], keys, values) for i, part in enumerate(parts)]

    return run


def _rows(lab: Lab, ways: dict[tuple[str, str], Launch], load: JsonRow) -> Iterator[JsonRow]:
    samples = lab.rounds(ways, lab.pick(tiny=2, smoke=5, full=15), warm=3)
    for (way, blocks), seconds in samples.items():
        s = median(seconds)
        row: JsonRow = {"model": lab.main, "way": way, "blocks": blocks} | load | {"s": s}
        if "bytes" in load:
            row["fraction_of_copy"] = load["bytes"] / s / lab.top.copy
        yield row | {"samples_s": seconds}
