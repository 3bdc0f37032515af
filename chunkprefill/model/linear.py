"""Products with weights that oneDNN has packed for the processor; with plain weights everywhere else.

A product on a CPU reads its weights in tiles. A plain matrix is cut into tiles anew for each product, which for
a few rows of x takes as long as the product itself. `pack` does it once and keeps the copy beside the weight:
float32 and bfloat16 on a CPU with AVX-512, at the price of as much memory again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_ONEDNN: Any = torch.ops.mkldnn


@dataclass(frozen=True, eq=False)
class Packed:
    """A weight `[out, in]` in oneDNN's own order, and which state of the weight it is a copy of.

    A write through `weight.data` leaves no trace in `state`, so some values are kept to compare.
    """

    tensor: Tensor
    dtype: torch.dtype
    state: tuple[int, int]
    watched: Tensor  # a view of at most 16 values of the weight
    sample: Tensor  # what they were

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()  # a saved or copied model is packed again, or not at all


def can_pack(weight: Tensor, dtype: torch.dtype | None = None) -> bool:
    """Whether oneDNN packs this weight here and its products gain from it."""
    dtype = dtype or weight.dtype
    if weight.device.type != "cpu" or weight.is_inference() or not torch.backends.mkldnn.is_available():
        return False
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not hasattr(_ONEDNN, "_reorder_linear_weight"):
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


def pack(weight: Tensor, dtype: torch.dtype | None = None) -> None:
    """Keep a packed copy of the weight, in `dtype` (None: its own), where that makes products faster.

    The copy is no longer used once the weight is written to or moved. A write through `weight.data` is
    noticed if it changes one of 16 values spread over the weight, as loading or scaling does; after a smaller
    one, pack again.
    """
    dtype = dtype or weight.dtype
    if can_pack(weight, dtype):
        with torch.no_grad():
            tensor = _ONEDNN._reorder_linear_weight(weight.detach().to(dtype).contiguous(), None)
        watched = _watched(weight)
        weight.packed = Packed(  # type: ignore[attr-defined]
            tensor, dtype, _state(weight), watched, watched.clone()
        )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias for x `[T, in]` and weight `[out, in]`, computed in the type of x."""
    if not len(x):  # a pass that emits nothing wants no logits: do not widen the head for them
        return x.new_empty((0, len(weight)))
    packed = _packed(x, weight)
    if packed is None:
        return F.linear(x, weight.to(x.dtype), bias)
    return _ONEDNN._linear_pointwise(x, packed, bias, "none", [], "")


def add_linear(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x + linear(y, weight, bias); x is used up: where it can, the sum takes its memory."""
    packed = _packed(y, weight)
    if packed is not None:
        return _ONEDNN._linear_pointwise(y, x, packed, bias, "add")
    torch.addmm(x, y, weight.T, out=x)  # not addmm_, which the counter of operations does not see
    return x if bias is None else x.add_(bias)


def _packed(x: Tensor, weight: Tensor) -> Tensor | None:
    """The packed copy, if there is one for the type of x and the weight is still what it was."""
    packed: Packed | None = getattr(weight, "packed", None)
    if packed is None or packed.dtype != x.dtype or x.device.type != "cpu" or not len(x):
        return None
    if packed.state == _state(weight) and torch.equal(packed.watched, packed.sample):
        return packed.tensor
    weight.packed = None  # type: ignore[attr-defined]  # it holds on to memory
    return None


def _watched(weight: Tensor) -> Tensor:
    """A view of four columns of four rows, evenly apart."""
    rows, columns = (-(-n // 4) for n in weight.shape)
    return weight.detach()[rows // 2 :: rows, columns // 2 :: columns]


def _state(weight: Tensor) -> tuple[int, int]:
    """What changes when the weight is written to in place, or is given other memory."""
    return weight._version, weight.data_ptr()
