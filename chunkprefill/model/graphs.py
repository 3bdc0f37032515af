"""CUDA graphs of decoding steps: a pass recorded once for a size of batch, and played back by one launch.

A graph runs the same kernels on the same memory each time, so it serves one size. A smaller batch is filled
up by copies of its first row, which compute once more what that row computes and store the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from chunkprefill.model.paged import PagedKVCache, PagedWindow
from chunkprefill.model.ragged import Varlen
from chunkprefill.model.transformer import Transformer

SIZES = (1, 2, 4, *range(8, 257, 8))  # sequences that a graph is recorded for


@dataclass(frozen=True, eq=False)
class Fixed:
    """A window on fixed memory: n decoding steps, whoever they belong to (`model.transformer.KV`)."""

    cache: PagedKVCache
    numbers: Tensor  # [5, n] token, position, slot, first key, number of keys
    attention: Varlen

    def positions(self) -> Tensor:
        return self.numbers[1]

    def emit_rows(self) -> slice:
        return slice(None)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        for store, new in ((keys, k), (values, v)):
            store.flatten(0, 1)[self.numbers[2]] = new
        return self.attention(q, keys, values)


@dataclass(frozen=True, eq=False)
class Recorded:
    """One graph, what it reads and what it writes."""

    graph: Any
    window: Fixed
    tokens: Tensor  # [n] the most likely next token of each row


class DecodeGraphs:
    """Graphs for the decoding steps of one model and cache, recorded at first use; for `varlen` attention."""

    def __init__(self, model: Transformer, cache: PagedKVCache) -> None:
        if cache.backend != "varlen":
            raise ValueError(f"CUDA graphs need varlen attention on a GPU; the cache has {cache.backend}")
        self.model, self.cache = model, cache
        self._recorded: dict[tuple[int, int, int], Recorded] = {}

    def __call__(self, strip: Tensor, window: PagedWindow) -> Tensor | None:
        """The next token of each row; None if the step is no lone batch of decodes that is read in place."""
        (_, part), n = window.parts[0], window.n_rows
        alone = len(window.parts) == 1 and isinstance(part, Varlen) and part.max_q == 1
        if not (alone and part.blocks is None and part.pages is None and n <= SIZES[-1]):  # type: ignore
            return None
        if len(window.emit_rows()) < n:
            return None
        assert isinstance(part, Varlen)
        self.cache.reserve(window.n_blocks)
        size = next(size for size in SIZES if size >= n)
        longest = 1 << max(8, (part.max_k - 1).bit_length())  # how the keys are split depends on it
        key = size, longest, self.cache.keys.data_ptr()
        rows = torch.stack(
            (strip, window.positions(), window._slots, part.first[:-1].long(), part.used.long())
        )
        if size > n:
            rows = torch.cat((rows, rows[:, :1].expand(-1, size - n)), dim=1)
        if key not in self._recorded:
            self._recorded[key] = self._record(rows, longest)
        recorded = self._recorded[key]
        self._fill(recorded.window, rows)
        recorded.graph.replay()
        return recorded.tokens[:n].clone()

    def _fill(self, window: Fixed, rows: Tensor) -> None:
        window.numbers.copy_(rows)
        window.attention.first[:-1].copy_(rows[3])
        window.attention.used.copy_(rows[4])

    def _record(self, rows: Tensor, longest: int) -> Recorded:
        """Capture a pass over these rows; it runs a few times before, so that nothing is set up meanwhile."""
        size, device = rows.shape[1], rows.device
        bounds = torch.arange(size + 1, dtype=torch.int32, device=device)
        attention = Varlen(bounds, torch.zeros_like(bounds), torch.zeros_like(bounds[1:]), 1, longest)
        window = Fixed(self.cache, rows.clone(), attention)
        self._fill(window, rows)
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
