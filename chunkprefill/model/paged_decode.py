"""A decoding step's attention that walks the block tables itself: one launch for all, and nothing copied.

Needs triton, which torch brings along on Linux with CUDA; import this module only there.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


def walk(q: Tensor, keys: Tensor, values: Tensor, tables: Tensor, ends: Tensor, *, n_splits: int) -> Tensor:
    """One query a sequence, q `[B, H, D]`, on blocks of keys and values `[blocks, block, Hkv, D]`.

    tables `[B, width]` int32 names each sequence's blocks, ends `[B]` int32 says how many positions are
    filled. The keys of a sequence are cut in `n_splits` ranges that are read side by side; what they gather
    is merged by their log-sum-exps, as in chapter 2. D must be a power of two, and half precision.
    """
    n, n_heads, head_dim = q.shape
    _, size, n_kv_heads, _ = keys.shape
    group = n_heads // n_kv_heads
    found = q.new_empty((n, n_heads, n_splits, head_dim), dtype=q.dtype if n_splits == 1 else torch.float32)
    lse = q.new_empty((n, n_heads, n_splits), dtype=torch.float32)
    _walk[(n_kv_heads, n, n_splits)](
        q,
        keys,
        values,
        tables,
        ends,
        found,
        lse,
        head_dim**-0.5,
        q.stride(0),
        q.stride(1),
        keys.stride(1),
        keys.stride(2),
        tables.stride(0),
        SIZE=size,
        D=head_dim,
        G=group,
        ROWS=max(16, triton.next_power_of_2(group)),
        N=64,
        SPLITS=n_splits,
        num_warps=4,
        num_stages=3,
    )
    if n_splits == 1:
        return found[:, :, 0]
    weight = lse.softmax(-1)[:, :, None]  # [B, H, 1, splits]
    return (weight @ found)[:, :, 0].to(q.dtype)


@triton.jit
def _walk(  # without annotations, which triton reads its own way
    q_ptr,
    k_ptr,
    v_ptr,
    tables_ptr,
    ends_ptr,
    out_ptr,
    lse_ptr,
    scale,
    q_row,
    q_head,
    slot,
    head,
    table_row,
    SIZE: tl.constexpr,
    D: tl.constexpr,
    G: tl.constexpr,
    ROWS: tl.constexpr,
    N: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """One sequence, one key head, one range of positions, for the queries that share the head."""
    h, i, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)  # heads of a position lie side by side
    end = tl.load(ends_ptr + i)
    share = tl.cdiv(tl.cdiv(end, N), SPLITS) * N
    first = split * share
    last = tl.minimum(first + share, end)
    g, d, at = tl.arange(0, ROWS), tl.arange(0, D), tl.arange(0, N)
    mine = g[:, None] < G
    q = tl.load(q_ptr + i * q_row + (h * G + g)[:, None] * q_head + d[None, :], mask=mine, other=0.0)
    top = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    gathered = tl.zeros((ROWS, D), tl.float32)
    for begin in range(first, last, N):
        position = begin + at
        there = position < last
        block = tl.load(tables_ptr + i * table_row + position // SIZE, mask=there, other=0)
        row = (block.to(tl.int64) * SIZE + position % SIZE) * slot + h * head
        k = tl.load(k_ptr + row[:, None] + d[None, :], mask=there[:, None], other=0.0)
        v = tl.load(v_ptr + row[:, None] + d[None, :], mask=there[:, None], other=0.0)
        scores = tl.dot(q, tl.trans(k)) * scale
        scores = tl.where(there[None, :], scores, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        p = tl.exp(scores - higher[:, None])
        shrink = tl.exp(top - higher)
        total = total * shrink + tl.sum(p, 1)
        gathered = gathered * shrink[:, None] + tl.dot(p.to(v.dtype), v)
        top = higher
    some = total > 0  # a range may be empty
    gathered = gathered / tl.where(some, total, 1.0)[:, None]
    out = ((i * (tl.num_programs(0) * G) + h * G + g) * SPLITS + split)[:, None] * D + d[None, :]
    tl.store(out_ptr + out, gathered, mask=mine)
    lse = tl.where(some, top + tl.log(tl.where(some, total, 1.0)), float("-inf"))
    tl.store(lse_ptr + (i * (tl.num_programs(0) * G) + h * G + g) * SPLITS + split, lse, mask=g < G)
