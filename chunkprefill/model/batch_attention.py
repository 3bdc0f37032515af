"""How the chunks of one batch read a cache in blocks: one by one, padded, or many in one launch.

A part takes the rows of q that are its own, `[rows, H, D]`, and the blocks of one layer's keys and values,
`[blocks, block, Hkv, D]`, and returns what those rows gather, `[rows, H, D]`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from chunkprefill.model import paged_decode_cpu
from chunkprefill.model.attention import Attention
from chunkprefill.model.backends import varlen_parameters

Blocks = slice | Tensor  # a run of ids, or any ids
Part = Callable[[Tensor, Tensor, Tensor], Tensor]


class StripChunk(NamedTuple):
    """Tokens of one sequence in the strip: rows row to row + end − start, positions start to end."""

    row: int
    start: int
    end: int
    table: Sequence[int]

    @property
    def length(self) -> int:
        return self.end - self.start

    @property
    def run(self) -> bool:
        """Whether its blocks lie side by side, so that they can be read where they are."""
        first = self.table[0]
        return list(self.table) == list(range(first, first + len(self.table)))


def to_device(lists: Sequence[Sequence[int]], device: torch.device) -> list[Tensor]:
    """Each list of whole numbers as a tensor on the device: one copy for all, which the host does not wait for."""
    flat = torch.tensor([number for numbers in lists for number in numbers], dtype=torch.long)
    if device.type == "cuda":
        flat = flat.pin_memory().to(device, non_blocking=True)
    return list(flat.split([len(numbers) for numbers in lists]))


def padded(chunks: Sequence[StripChunk]) -> tuple[list[int], int]:
    """All tables end to end, each filled up to the longest by its own first block, and how long that is."""
    width = max(len(chunk.table) for chunk in chunks)
    return [n for c in chunks for n in (*c.table, *[c.table[0]] * (width - len(c.table)))], width


def tables_and_ends(chunks: Sequence[StripChunk], device: torch.device) -> tuple[Tensor, Tensor]:
    """The padded tables `[N, blocks]` and how many positions each sequence fills, `[N]`, on the device."""
    filled, width = padded(chunks)
    tables, ends = to_device([filled, [chunk.end for chunk in chunks]], device)
    return tables.view(len(chunks), width), ends


def read(x: Tensor, blocks: Blocks) -> Tensor:
    """The blocks of x side by side, `[positions, Hkv, D]`: a view of a run, a copy of any others."""
    return (x[blocks] if isinstance(blocks, slice) else x.index_select(0, blocks)).flatten(0, 1)


@dataclass(frozen=True, eq=False)
class Alone:
    """One chunk, by the attention of one sequence."""

    attention: Attention
    blocks: Blocks
    end: int

    def __call__(self, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        k, v = (read(x, self.blocks)[: self.end] for x in (keys, values))
        return self.attention(q, k, v)

    @classmethod
    def of(cls, chunk: StripChunk, attention: Attention, device: torch.device) -> Alone:
        first, n = chunk.table[0], len(chunk.table)
        blocks = slice(first, first + n) if chunk.run else to_device([chunk.table], device)[0]
        return cls(attention, blocks, chunk.end)


@dataclass(frozen=True, eq=False)
class Padded:
    """Decoding steps in one call: tables filled up to the longest, what is filled up masked out."""

    tables: Tensor  # [B, blocks]
    seen: Tensor  # [B, 1, 1, S]

    def __call__(self, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        k, v = (x[self.tables].flatten(1, 2).transpose(1, 2) for x in (keys, values))  # [B, Hkv, S, D]
        # One query a sequence: the heads that share keys stand in for the length, and no key is copied.
        folded = q.view(len(q), k.shape[1], -1, q.shape[-1])  # [B, Hkv, G, D]
        return F.scaled_dot_product_attention(folded, k, v, attn_mask=self.seen).reshape(q.shape)

    @classmethod
    def of(cls, chunks: Sequence[StripChunk], block_size: int, device: torch.device) -> Padded:
        tables, ends = tables_and_ends(chunks, device)
        seen = torch.arange(tables.shape[1] * block_size, device=device) < ends[:, None]  # [B, S]
        return cls(tables, seen[:, None, None])


@dataclass(frozen=True, eq=False)
class Varlen:
    """Many chunks in one launch of flash attention, each with its own keys: float16, bfloat16; CUDA 8.0 on.

    The keys of sequence i are `used[i]` rows from `first[i]` on: in the pool itself where every table is a
    run, else in a copy of the blocks side by side. With `pages` the kernel walks the tables itself.
    """

    cu_q: Tensor  # [N + 1] int32, where each chunk begins among the rows
    first: Tensor  # [N + 1] int32
    used: Tensor  # [N] int32
    max_q: int
    max_k: int
    blocks: Tensor | None = None  # to be copied side by side
    pages: Tensor | None = None  # [N, blocks] int32

    def __call__(self, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        if self.blocks is not None:
            keys, values = read(keys, self.blocks), read(values, self.blocks)
        elif self.pages is None:
            keys, values = keys.flatten(0, 1), values.flatten(0, 1)
        launch = _public if "seqused_k" in varlen_parameters() else _older
        return launch(q, keys, values, self)

    @property
    def window(self) -> tuple[int, int]:
        """Keys that a query sees, (to its left, to its right); -1: all of them.

        A lone query sees all its keys. Without a mask the kernel folds grouped heads and splits long keys.
        """
        return (-1, -1) if self.max_q == 1 else (-1, 0)

    @classmethod
    def of(cls, chunks: Sequence[StripChunk], block_size: int, device: torch.device) -> Varlen:
        lengths, ends = [c.length for c in chunks], [c.end for c in chunks]
        paged = "block_table" in varlen_parameters() and block_size % PAGE == 0
        in_place = all(chunk.run for chunk in chunks)
        filled, width = padded(chunks)
        if in_place:
            first, blocks = [chunk.table[0] * block_size for chunk in chunks], []
        elif paged:
            first = [0] * len(chunks)
            blocks = filled
        else:
            first = [at * block_size for at in accumulate((len(c.table) for c in chunks[:-1]), initial=0)]
            blocks = [block for chunk in chunks for block in chunk.table]
        lists = [[*accumulate(lengths, initial=0)], [*first, 0], ends, blocks]
        cu_q, begin, used, ids = to_device(lists, device)
        return cls(
            cu_q.int(),
            begin.int(),
            used.int(),
            max(lengths),
            max(ends),
            None if in_place or paged else ids,
            ids.int().view(len(chunks), width) if paged and not in_place else None,
        )


PAGE = 256  # tokens: the pages that flash attention walks by itself are multiples of this


@dataclass(frozen=True, eq=False)
class Walked:
    """Decoding steps in one launch of our own kernel, which walks the tables; see `model.paged_decode`."""

    tables: Tensor  # [B, blocks] int32
    ends: Tensor  # [B] int32
    n_splits: int

    def __call__(self, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        walk = _kernel(q.device)
        return walk(q, keys, values, self.tables, self.ends, n_splits=self.n_splits)

    @classmethod
    def of(cls, chunks: Sequence[StripChunk], n_kv_heads: int, device: torch.device) -> Walked:
        tables, ends = tables_and_ends(chunks, device)
        n_splits = splits_for(len(chunks) * n_kv_heads, max(chunk.end for chunk in chunks))
        return cls(tables.int(), ends.int(), n_splits)


def _kernel(device: torch.device) -> Callable[..., Tensor]:
    """The decoding kernel of the device; triton is imported only where it is needed."""
    if device.type == "cpu":
        return paged_decode_cpu.walk_on_cpu
    from chunkprefill.model.paged_decode import walk

    return walk


def splits_for(n_programs: int, longest: int) -> int:
    """Ranges of keys to read side by side: enough to fill a device, none below 256 keys; 1 to 16.

    264: two programs on each of an H100's 132 multiprocessors.
    """
    n = 1
    while n < 16 and n * n_programs < 264 and longest > 256 * n:
        n *= 2
    return n


def _public(q: Tensor, k: Tensor, v: Tensor, part: Varlen) -> Tensor:
    """torch's own `varlen_attn`, 2.12 and newer."""
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn(  # type: ignore[return-value]
        q,
        k,
        v,
        part.cu_q,
        part.first if part.pages is None else None,
        part.max_q,
        part.max_k,
        window_size=part.window,
        enable_gqa=q.shape[1] != k.shape[-2],
        seqused_k=part.used,
        block_table=part.pages,
    )


def _older(q: Tensor, k: Tensor, v: Tensor, part: Varlen) -> Tensor:
    """The operation under an older `varlen_attn`: keys are read in place here too."""
    bounds, (left, right) = (part.cu_q, part.first, part.max_q, part.max_k), part.window
    return torch.ops.aten._flash_attention_forward(
        q,
        k,
        v,
        *bounds,
        0.0,
        right == 0,  # causal
        False,
        window_size_left=left,
        window_size_right=right,
        seqused_k=part.used,
    )[0]
