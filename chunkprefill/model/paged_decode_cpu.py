"""The attention of decoding steps on a CPU: one call of C walks every block table, and nothing is copied.

The same work as `paged_decode` does on a GPU. Where the C beside this file cannot be compiled (see
`compiled_c`), the chunks of a batch are attended to one by one.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from chunkprefill.model.compiled_c import COUNT, POINTER, STRIDE, Function, compiled

MOST_D, MOST_G = 256, 16  # as in the C
SIGNATURES = {"paged_decode": (COUNT, POINTER, STRIDE, *[POINTER] * 5, *[COUNT] * 8)}


def can_walk(dtype: torch.dtype, head_dim: int, group: int) -> bool:
    """Whether the kernel takes heads of this size, this many queries a key head, and compiles here."""
    return head_dim <= MOST_D and group <= MOST_G and kernel(dtype) is not None


def walk_on_cpu(
    q: Tensor, keys: Tensor, values: Tensor, tables: Tensor, ends: Tensor, *, n_splits: int = 1
) -> Tensor:
    """One query a sequence, q `[B, H, D]`, on blocks of keys and values `[blocks, block, Hkv, D]`.

    tables `[B, width]` int32 names each sequence's blocks, ends `[B]` int32 says how many positions are
    filled. Returns `[B, H, D]`. n_splits is for the kernel of the GPU; here a sequence's keys stay together.
    """
    n, n_heads, head_dim = q.shape
    _, size, n_kv_heads, _ = keys.shape
    assert q.stride()[1:] == (head_dim, 1) and keys.is_contiguous() and values.is_contiguous()
    assert tables.is_contiguous() and tables.dtype == ends.dtype == torch.int32
    run = kernel(q.dtype)
    assert run is not None  # `can_walk` was asked before
    out = q.new_empty((n, n_heads, head_dim))
    pointers = [x.data_ptr() for x in (keys, values, tables, ends, out)]
    shape = (n, tables.shape[1], size, n_kv_heads, n_heads // n_kv_heads, head_dim)
    if run(q.data_ptr(), q.stride(0), *pointers, *shape, int(ends.max()), torch.get_num_threads()):
        raise MemoryError(f"no memory for the scores of {n} decoding steps")
    return out


@cache
def kernel(dtype: torch.dtype) -> Function | None:
    """The C function for this type of number; None where it cannot be compiled."""
    functions = compiled("paged_decode_cpu", dtype, SIGNATURES)
    return None if functions is None else functions["paged_decode"]
