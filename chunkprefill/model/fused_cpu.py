"""Norm, RoPE and the gate of a layer on a CPU, each in one walk over its numbers.

torch takes half a dozen walks for each, and writes down what lies between. `transformer` holds the definitions,
and asks `can_fuse` before it leaves the work to this file. The C beside it is compiled by `compiled_c`. A step
that torch rounds is rounded there too, so tokens do not depend on whether there is a compiler.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from chunkprefill.model.compiled_c import COUNT, FLOAT, POINTER, STRIDE, Function, compiled

SIGNATURES = {
    "rms_norm": (None, POINTER, STRIDE, STRIDE, POINTER, FLOAT, POINTER, STRIDE, *[COUNT] * 3),
    "rotate": (None, POINTER, STRIDE, STRIDE, POINTER, POINTER, STRIDE, *[COUNT] * 3),
    "gated": (None, POINTER, STRIDE, POINTER, STRIDE, COUNT, COUNT),
}
ALONE = 1 << 15  # numbers that one thread walks over before a second one could begin


def can_fuse(x: Tensor, *others: Tensor) -> bool:
    """Whether the kernels take these: rows of one type, on a CPU, even in size, without a gradient to record.

    False where the C does not compile. x is `[T, n]` or `[T, heads, n]`, its last dimension in one piece; the
    others are in one piece altogether.
    """
    for each in others:
        if each.dtype != x.dtype or not each.is_contiguous():
            return False
    return (
        all(type(each) in (Tensor, nn.Parameter) and each.device.type == "cpu" for each in (x, *others))
        and x.ndim in (2, 3)
        and x.stride(-1) == 1
        and x.shape[-1] % 2 == 0
        and not (torch.is_grad_enabled() and any(each.requires_grad for each in (x, *others)))
        and kernels(x.dtype) is not None
    )


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`transformer.rms_norm` of x, `[T, D]` or `[T, heads, D]`."""
    out = torch.empty(x.shape, dtype=x.dtype)
    heads, head = (x.shape[1], x.stride(1)) if x.ndim == 3 else (1, 0)
    pointers = (x.data_ptr(), x.stride(0), head, weight.data_ptr(), eps, out.data_ptr())
    _kernel("rms_norm", x)(*pointers, len(x), heads, x.shape[-1], _threads(x.numel()))
    return out


def rotate_(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`transformer.rotate_` of x, `[T, heads, D]`, by cos and sin, `[T, 1, D]`."""
    n, heads, head_dim = x.shape
    assert cos.shape == sin.shape == (n, 1, head_dim)
    pointers = (x.data_ptr(), x.stride(0), x.stride(1), cos.data_ptr(), sin.data_ptr())
    _kernel("rotate", x)(*pointers, n, heads, head_dim, _threads(x.numel()))
    return x


def gated(gate_up: Tensor) -> Tensor:
    """silu(gate) · up, `[T, F]`, of gate and up side by side, `[T, 2 F]`."""
    n, wide = gate_up.shape
    out = torch.empty((n, wide // 2), dtype=gate_up.dtype)
    pointers = (gate_up.data_ptr(), gate_up.stride(0), out.data_ptr())
    _kernel("gated", gate_up)(*pointers, n, wide // 2, _threads(gate_up.numel()))
    return out


@cache
def kernels(dtype: torch.dtype) -> dict[str, Function] | None:
    """The C functions for this type of number; None where they cannot be compiled, and for float64."""
    return compiled("fused_cpu", dtype, SIGNATURES) if dtype != torch.float64 else None


def _kernel(name: str, x: Tensor) -> Function:
    functions = kernels(x.dtype)
    assert functions is not None  # `can_fuse` was asked before
    return functions[name]


def _threads(numbers: int) -> int:
    return 1 if numbers < ALONE else torch.get_num_threads()
