"""CUDA graphs of decoding steps: a pass recorded once for a size of batch, and played back by one launch.

A graph runs the same kernels on the same memory each time, so it serves one size. A smaller batch is filled
up with copies of its first row, which repeat that row's work and store the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from chunkprefill.model.batch_attention import Walked
from chunkprefill.model.paged import PagedKVCache, PagedWindow
from chunkprefill.model.transformer import Transformer

SIZES = (1, 2, 4, *range(8, 257, 8))  # sequences that a graph is recorded for


@dataclass(frozen=True, eq=False)
class Fixed:
    """A window on fixed memory: n decoding steps, of any sequences (`model.transformer.KV`)."""

    cache: PagedKVCache
    numbers: Tensor  # [3, n] token, position, slot
    attention: Walked

    def positions(self) -> Tensor:
        return self.numbers[1]

    def emit_rows(self) -> slice:
        return slice(None)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys, values = self.cache.store(layer, self.numbers[2], k, v)
        return self.attention(q, keys, values)

    def fill(self, numbers: Tensor, part: Walked) -> None:
        """Take over the numbers of a batch of at most n; rows that are left over repeat its first."""
        n, width = part.tables.shape
        for here, new in ((self.numbers.T, numbers.T), (self.attention.ends, part.ends)):
            here[:n].copy_(new)
            here[n:].copy_(new[:1].expand_as(here[n:]))
        tables = self.attention.tables
        tables[:n, :width].copy_(part.tables)
        tables[n:, :width].copy_(part.tables[:1].expand_as(tables[n:, :width]))


@dataclass(frozen=True, eq=False)
class Recorded:
    """One graph, what it reads and what it writes."""

    graph: Any
    window: Fixed
    tokens: Tensor  # [n] the most likely next token of each row


class DecodeGraphs:
    """Graphs for the decoding steps of one model and cache, recorded at first use.

    Raises ValueError where `varlen` attention with its own decoding kernel (`model.paged_decode`) cannot run.
    """

    def __init__(self, model: Transformer, cache: PagedKVCache) -> None:
        if not cache.walks or cache.backend != "varlen":
            raise ValueError(
                f"CUDA graphs need varlen attention on a GPU, with triton; the cache has {cache.backend} on "
                f"{cache.keys.device.type}"
            )
        self.model, self.cache = model, cache
        self._recorded: dict[tuple[int, ...], Recorded] = {}

    def __call__(self, strip: Tensor, window: PagedWindow) -> Tensor | None:
        """The next token of each row; None for a step with any chunk in it, or more rows than any graph."""
        (_, part), n = window.parts[0], window.n_rows
        if len(window.parts) > 1 or not isinstance(part, Walked) or n > SIZES[-1]:
            return None
        if len(window.emit_rows()) < n:  # a prompt's chunk of one token is no decoding step
            return None
        self.cache.reserve(window.n_blocks)
        size = next(size for size in SIZES if size >= n)
        width = 1 << (part.tables.shape[1] - 1).bit_length()
        key = size, width, part.n_splits, self.cache.keys.data_ptr()
        numbers = torch.stack((strip, window.positions(), window._slots))  # [3, n]
        if key not in self._recorded:
            self._recorded[key] = self._record(size, width, numbers, part)
        recorded = self._recorded[key]
        recorded.window.fill(numbers, part)
        recorded.graph.replay()
        return recorded.tokens[:n].clone()

    def _record(self, size: int, width: int, numbers: Tensor, part: Walked) -> Recorded:
        """Capture a pass over this batch, after two passes that set up what a first pass sets up."""
        empty = torch.zeros((size, width + 4), dtype=torch.long, device=numbers.device)
        attention = Walked(empty[:, 4:].int(), empty[:, 0].int(), part.n_splits)
        window = Fixed(self.cache, empty.T[:3].contiguous(), attention)
        window.fill(numbers, part)
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(2):
                self.model(window.numbers[0], window).argmax(-1)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            tokens = self.model(window.numbers[0], window).argmax(-1)
        return Recorded(graph, window, tokens)
