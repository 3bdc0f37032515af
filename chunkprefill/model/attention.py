"""Attention of a chunk over everything cached: one function, written to be read and written to be fast.

Query i of a chunk of T tokens whose keys reach S positions stands at position S − T + i, and sees the keys up
to that position. Drawn as a T × S table, the edge of what they see is a diagonal that ends in the *bottom right*
corner. torch's `is_causal=True` starts it in the top left, which is the same only where T = S: in a prompt's
first chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def bottom_right_mask(n_queries: int, n_keys: int, device: torch.device | str = "cpu") -> Tensor:
    """Which keys each query of a chunk may see, `[T, S]`; the last query sees all of them."""
    return torch.ones(n_queries, n_keys, dtype=torch.bool, device=device).tril(n_keys - n_queries)


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type to compute norms, softmax and logits in: half precision overflows or rounds too coarsely."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def reference(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The definition: explicit scores, explicit mask, softmax in at least float32.

    q is `[T, H, D]`, k and v are `[S, Hkv, D]` and end with the chunk's own tokens; returns `[T, H, D]`.
    """
    n_queries, n_heads, head_dim = q.shape
    n_keys, n_kv_heads, _ = k.shape
    wide = accumulation_dtype(q.dtype)
    k, v = (x.to(wide).repeat_interleave(n_heads // n_kv_heads, dim=1) for x in (k, v))  # [S, H, D]
    scores = torch.einsum("thd,shd->hts", q.to(wide), k) * head_dim**-0.5
    scores.masked_fill_(~bottom_right_mask(n_queries, n_keys, q.device), -torch.inf)
    return torch.einsum("hts,shd->thd", scores.softmax(-1), v).to(q.dtype)


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same function through torch's fused kernels, with no T × S table in memory; shapes as above."""
    n_queries, n_heads, _ = q.shape
    n_keys, n_kv_heads, _ = k.shape
    if q.device.type == "cpu" and n_queries >= 16 and _outruns_fused(q.dtype):
        return _tiles(q, k, v)
    if q.device.type == "cpu" and _FLASH_CPU is not None and n_queries < n_keys:
        return _prefix_and_diagonal(q, k, v)
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))  # [1, heads, T or S, D]
    grouped = n_heads != n_kv_heads
    if grouped and not _takes_grouped_heads(q):
        k, v = (x.repeat_interleave(n_heads // n_kv_heads, dim=1) for x in (k, v))
        grouped = False
    mask = None if n_queries in (1, n_keys) else causal_lower_right(n_queries, n_keys)
    out = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=n_queries == n_keys > 1, enable_gqa=grouped
    )
    return out[0].transpose(0, 1)  # [T, H, D]


def _takes_grouped_heads(q: Tensor) -> bool:
    """Whether a fused kernel takes fewer key heads than query heads; else torch makes a T × S table for them.

    On GPUs flash attention does: half precision, compute capability 8.0 and newer.
    """
    if q.device.type == "cpu":
        return True
    half = q.dtype in (torch.float16, torch.bfloat16)
    return half and q.device.type == "cuda" and torch.cuda.get_device_capability(q.device) >= (8, 0)


# Private to torch, and the only CPU attention that also returns the log-sum-exp of its scores.
_FLASH_CPU: Any = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)


def _prefix_and_diagonal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend to the prefix with no mask and to the chunk itself with the square one, then merge (split-KV).

    Softmax over two sets of keys is the mean of the softmax over each, weighted by the sums of exponentials.
    """
    n_queries, n_heads, head_dim = q.shape
    n_keys, n_kv_heads, _ = k.shape
    start, group = n_keys - n_queries, n_heads // n_kv_heads
    # Every query of a group sees the same keys: heads become a batch, and the group folds into the length.
    q = q.view(n_queries, n_kv_heads, group, head_dim).permute(1, 2, 0, 3)  # [Hkv, G, T, D]
    k, v = (x.transpose(0, 1)[:, None] for x in (k, v))  # [Hkv, 1, S, D]
    folded = q.reshape(n_kv_heads, 1, group * n_queries, head_dim)
    if n_queries == 1:  # a decoding step sees all keys: nothing to mask, nothing to merge
        out, _ = _FLASH_CPU(folded, k, v)
        return out.view(1, n_heads, head_dim)
    prefix, prefix_lse = _FLASH_CPU(folded, k[:, :, :start], v[:, :, :start])
    own = (x[:, :, start:].expand(-1, group, -1, -1) for x in (k, v))
    out, own_lse = _FLASH_CPU(q, *own, is_causal=True)
    weight = torch.sigmoid(prefix_lse.reshape(own_lse.shape) - own_lse)[..., None].to(out.dtype)
    out = torch.lerp(out, prefix.view(q.shape), weight)  # [Hkv, G, T, D]
    return out.permute(2, 0, 1, 3).reshape(n_queries, n_heads, head_dim)


def _outruns_fused(dtype: torch.dtype) -> bool:
    """Whether plain products beat the fused kernel: bfloat16, on a CPU that has no matrix tiles for it."""
    if dtype != torch.bfloat16 or torch.cpu._is_amx_tile_supported():
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


TILE_SCORES = 1 << 22  # scores held at a time: 8 MiB of bfloat16


def _tiles(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scores, softmax and values as plain products, some queries at a time; bfloat16 on a CPU.

    torch's fused kernel multiplies bfloat16 at the speed of float32 on CPUs without matrix tiles (AMX). Two
    products of oneDNN take half the time there; on a CPU with tiles they take longer than the fused kernel.
    Scores and probabilities are rounded to bfloat16, as `transformers` rounds them without a fused kernel; the
    softmax itself is summed in float32.
    """
    n_queries, n_heads, head_dim = q.shape
    n_keys, n_kv_heads, _ = k.shape
    start, group = n_keys - n_queries, n_heads // n_kv_heads
    rows = max(16, min(128, TILE_SCORES // (n_heads * n_keys)))
    q = (q * head_dim**-0.5).view(n_queries, n_kv_heads, group, head_dim).permute(1, 0, 2, 3)
    k, v = k.permute(1, 2, 0), v.transpose(0, 1)  # [Hkv, D, S], [Hkv, S, D]
    future = ~bottom_right_mask(rows, rows, q.device)[:, None, :]  # [rows, 1, rows], for each head of a group
    out = q.new_empty((n_queries, n_heads, head_dim))
    for first in range(0, n_queries, rows):
        n = min(rows, n_queries - first)
        seen = start + first + n
        # The group folds into the rows.
        tile = q[:, first : first + n].reshape(n_kv_heads, n * group, head_dim)
        scores = torch.bmm(tile, k[:, :, :seen])  # [Hkv, rows G, S]
        own = scores.view(n_kv_heads, n, group, seen)[..., seen - n :]
        own.masked_fill_(future[:n, :, :n], -torch.inf)
        found = torch.bmm(scores.softmax(-1), v[:, :seen]).view(n_kv_heads, n, group, head_dim)
        out[first : first + n] = found.transpose(0, 1).flatten(1, 2)
    return out


def flash(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same function by flash attention's kernel on a GPU; its `is_causal` is bottom-right.

    `sdpa` takes a prompt's first chunk, where it can choose among more kernels, and head sizes that this one
    does not take.
    """
    if len(q) == len(k) or q.shape[-1] % 8:
        return sdpa(q, k, v)
    sizes = (None, None, len(q), len(k))
    q, k, v = (x[None] for x in (q, k, v))
    return torch.ops.aten._flash_attention_forward(q, k, v, *sizes, 0.0, sizes[2] > 1, False)[0][0]


BACKENDS: dict[str, Attention] = {"reference": reference, "sdpa": sdpa}


def backend_named(name: str) -> Attention:
    """The attention of one sequence by this name; ValueError lists the names there are.

    `varlen` packs many sequences into a launch (see `model.batch_attention`); `flash` is the same kernel for one.
    """
    if name == "varlen":
        return flash
    if name not in BACKENDS:
        raise ValueError(f"no attention backend {name!r}; there are {', '.join(BACKENDS)}, varlen")
    return BACKENDS[name]
