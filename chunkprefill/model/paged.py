"""A KV cache in blocks for many sequences, and the window through which one mixed batch extends it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from chunkprefill.model.attention import backend_named
from chunkprefill.model.backends import backend_for, walks
from chunkprefill.model.batch_attention import (
    Alone,
    Padded,
    Part,
    StripChunk,
    Varlen,
    Walked,
    read,
    to_device,
)
from chunkprefill.model.config import Config
from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.core import Batch, Rid
from chunkprefill.whole import needed


class PagedKVCache:
    """Keys and values in every layer, in blocks that any sequence may hold; a table lists the blocks of one.

    `pool` says how large a block is and how many there can be; memory is claimed as ids come into use.
    `backend` names the attention that reads the cache, as in `KVCache`.
    """

    def __init__(
        self,
        config: Config,
        pool: BlockPool | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        backend: str | None = None,
    ) -> None:
        needed("config", config, Config, "such as model.config")
        if pool is not None:
            needed("pool", pool, BlockPool, "such as BlockPool(n_blocks)")
        self.config, self.pool = config, pool or BlockPool(None)
        self.backend = backend_for(backend, device, dtype)
        self.attention = backend_named(self.backend)
        self.walks = walks(self.backend, torch.device(device), dtype, config)
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
            new = old.new_zeros((old.shape[0], max(want, n_blocks), *old.shape[2:]))  # masked, and never NaN
            new[:, :have] = old
            setattr(self, name, new)

    def store(self, layer: int, slots: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Put k and v, `[T, Hkv, D]`, in these slots; return the layer's `[blocks, block, Hkv, D]`."""
        keys, values = self.keys[layer], self.values[layer]
        keys.flatten(0, 1).index_copy_(0, slots, k)
        values.flatten(0, 1).index_copy_(0, slots, v)
        return keys, values

    def kv(self, layer: int, table: Sequence[int], length: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the first `length` positions behind a table, each `[length, Hkv, D]`."""
        blocks = torch.tensor(table, device=self.keys.device)
        k, v = (read(x[layer], blocks)[:length] for x in (self.keys, self.values))
        return k, v

    def window(self, batch: Batch, tables: Mapping[Rid, Sequence[int]]) -> PagedWindow:
        """What the model sees while it runs `batch`; the tables are read now and not kept."""
        return PagedWindow(self, batch, [tables[rid] for rid in batch.rid])


class PagedWindow:
    """One strip of tokens of many sequences: the chunks of a batch, side by side."""

    def __init__(self, cache: PagedKVCache, batch: Batch, tables: Sequence[Sequence[int]]) -> None:
        self.cache = cache
        size, row = cache.pool.block_size, 0
        positions: list[int] = []
        slots: list[int] = []  # where each token goes in all blocks laid end to end
        last: list[int] = []
        chunks = []
        for start, length, emits, table in zip(batch.start, batch.length, batch.emits, tables):
            end = start + length
            table = table[: -(-end // size)]
            positions += range(start, end)
            if length == 1:
                slots.append(table[-1] * size + start % size)
            else:
                first = start // size
                there = [block * size + at for block in table[first:] for at in range(size)]
                slots += there[start - first * size : end - first * size]
            chunks.append(StripChunk(row, start, end, table))
            row += length
            if emits:
                last.append(row - 1)
        self.n_blocks = 1 + max(max(chunk.table) for chunk in chunks)
        self.n_rows = row
        self._positions, self._slots, self._rows = to_device((positions, slots, last), cache.keys.device)
        self.parts = parts_of(chunks, cache)

    def positions(self) -> Tensor:
        """Where each token of the strip stands in its own sequence, `[T]`."""
        return self._positions

    def emit_rows(self) -> Tensor:
        """The last row of each chunk that emits."""
        return self._rows

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store k, v, `[T, Hkv, D]`; each chunk of q, `[T, H, D]`, looks back on its own sequence."""
        # Room is made here, in the order of execution, and not when the batch was planned.
        self.cache.reserve(self.n_blocks)
        keys, values = self.cache.store(layer, self._slots, k, v)
        if len(self.parts) == 1:
            return self.parts[0][1](q, keys, values)
        found = [part(q[rows], keys, values) for rows, part in self.parts]
        if all(isinstance(rows, slice) for rows, _ in self.parts):  # side by side, and in the strip's order
            return torch.cat(found)
        out = torch.empty_like(q)
        for (rows, _), one in zip(self.parts, found):
            out[rows] = one
        return out


def parts_of(chunks: Sequence[StripChunk], cache: PagedKVCache) -> list[tuple[slice | Tensor, Part]]:
    """The batch's chunks in as few launches as the backend can, each with the rows of the strip it takes.

    Rows side by side are a slice; where every part has one, they are in the strip's order.
    Where our own kernel runs it takes all decoding steps. `varlen`: decoding steps apart from chunks, because
    a launch made for both gives each lone query a whole tile; what must be copied apart from what is read in
    place. Others: chunk by chunk, and on a GPU all decoding steps at once.
    """
    device, size, many = cache.keys.device, cache.pool.block_size, cache.backend == "varlen"
    lone = [chunk for chunk in chunks if chunk.length == 1]
    if not lone:
        together: Part | None = None
    elif cache.walks:
        together = Walked.of(lone, cache.config.n_kv_heads, device)
    elif not many and cache.backend != "reference" and device.type == "cuda":
        together = Padded.of(lone, size, device)
    else:
        together = None
    parts: list[tuple[slice | Tensor, Part]] = [(_rows(lone, device), together)] if together else []
    rest = [chunk for chunk in chunks if chunk.length > 1 or not together]
    if many:
        groups: dict[tuple[bool, bool], list[StripChunk]] = {}
        for chunk in rest:
            groups.setdefault((chunk.length == 1, chunk.run), []).append(chunk)
        parts += [(_rows(group, device), Varlen.of(group, size, device)) for group in groups.values()]
    else:
        parts += [(_rows([c], device), Alone.of(c, cache.attention, device)) for c in rest]
    return sorted(parts, key=lambda part: part[0].start if isinstance(part[0], slice) else -1)


def _rows(chunks: Sequence[StripChunk], device: torch.device) -> slice | Tensor:
    """The rows of the strip that belong to these chunks, in order: a slice where they are side by side."""
    rows = [row for chunk in chunks for row in range(chunk.row, chunk.row + chunk.length)]
    if rows[-1] - rows[0] + 1 == len(rows):
        return slice(rows[0], rows[-1] + 1)
    return to_device([rows], device)[0]
