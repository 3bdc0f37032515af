"""A KV cache in blocks for many sequences, and the window through which one mixed batch extends it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from chunkprefill.model.attention import backend_named
from chunkprefill.model.config import Config
from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.core import Batch, Rid


class PagedKVCache:
    """Keys and values in every layer, in blocks that any sequence may hold; tables tell who holds which.

    `pool` says how large a block is and how many there can be; memory is claimed as ids come into use.
    `backend` names the attention that reads the cache.
    """

    def __init__(
        self,
        config: Config,
        pool: BlockPool | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        backend: str = "sdpa",
    ) -> None:
        self.config, self.pool = config, pool or BlockPool(None)
        self.attention = backend_named(backend)
        shape = (config.n_layers, 0, self.pool.block_size, config.n_kv_heads, config.head_dim)
        self.keys = torch.empty(shape, dtype=dtype, device=device)  # [L, blocks, block, Hkv, D]
        self.values = torch.empty_like(self.keys)

    def reserve(self, n_blocks: int) -> None:
        """Make room for block ids below `n_blocks`: twice what there was, or more, never beyond the pool."""
        have = self.keys.shape[1]
        if n_blocks <= have:
            return
        want = min(max(n_blocks, 2 * have), self.pool.n_blocks or n_blocks + have)
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = old.new_empty((old.shape[0], max(want, n_blocks), *old.shape[2:]))
            new[:, :have] = old
            setattr(self, name, new)

    def kv(self, layer: int, table: Sequence[int], length: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the first `length` positions behind a table, each `[length, Hkv, D]`."""
        return self.gather(layer, torch.tensor(table, device=self.keys.device), length)

    def gather(self, layer: int, blocks: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """As `kv`, block ids given as a tensor: whole blocks are copied side by side."""
        k, v = (x[layer].index_select(0, blocks).flatten(0, 1)[:length] for x in (self.keys, self.values))
        return k, v

    def window(self, batch: Batch, tables: Mapping[Rid, Sequence[int]]) -> PagedWindow:
        """What the model sees while it runs `batch`; the tables are read now and not kept."""
        return PagedWindow(self, batch, [tables[rid] for rid in batch.rid])


class PagedWindow:
    """One strip of tokens of many sequences: the chunks of a batch, side by side."""

    def __init__(self, cache: PagedKVCache, batch: Batch, tables: Sequence[Sequence[int]]) -> None:
        device, size = cache.keys.device, cache.pool.block_size
        self.cache = cache
        self.n_blocks = 1 + max(max(table) for table in tables)
        self.lengths, self.ends = batch.length, [s + n for s, n in zip(batch.start, batch.length)]
        self.tables = [torch.tensor(table, device=device) for table in tables]
        steps = [torch.arange(s, end, device=device) for s, end in zip(batch.start, self.ends)]
        self._positions = torch.cat(steps)  # [T]
        slots = [table[at // size] * size + at % size for table, at in zip(self.tables, steps)]
        self._slots = torch.cat(slots)  # [T], where in all blocks laid end to end
        last = torch.tensor(batch.length, device=device).cumsum(0) - 1
        self._rows = last[torch.tensor(batch.emits, device=device)]

    def positions(self) -> Tensor:
        """Where each token of the strip stands in its own sequence, `[T]`."""
        return self._positions

    def emit_rows(self) -> Tensor:
        """The last row of each chunk that emits."""
        return self._rows

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store k, v, `[T, Hkv, D]`; each chunk of q, `[T, H, D]`, looks back on its own sequence."""
        self.cache.reserve(
            self.n_blocks
        )  # here, in the order of execution, and not when the batch was planned
        for store, new in ((self.cache.keys, k), (self.cache.values, v)):
            store[layer].flatten(0, 1)[self._slots] = new
        out = torch.empty_like(q)
        rows = zip(self.tables, self.ends, q.split(self.lengths), out.split(self.lengths))
        for blocks, end, chunk, there in rows:
            there.copy_(self.cache.attention(chunk, *self.cache.gather(layer, blocks, end)))
        return out
