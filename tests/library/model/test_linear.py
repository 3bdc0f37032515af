"""Packed weights: the same product, faster; never a copy that the weight has outlived."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import chunkprefill as cp
from chunkprefill.configs import TINY
from chunkprefill.model import linear as products
from chunkprefill.model.linear import add_linear, can_pack, linear, pack
from chunkprefill.model.weights import random_model
from tests.needs import need

TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float64: 1e-14}


def weights(dtype: torch.dtype, *, bias: bool) -> tuple[torch.nn.Parameter, torch.Tensor | None]:
    weight = torch.nn.Parameter(torch.randn(40, 24, dtype=dtype), requires_grad=False)
    return weight, torch.randn(40, dtype=dtype) if bias else None


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [0, 1, 7, 300])
def test_the_same_product_packed_and_plain(dtype: torch.dtype, bias: bool, rows: int) -> None:
    weight, b = weights(dtype, bias=bias)
    wide = torch.randn(rows, 30, dtype=dtype)
    x, y = torch.randn(rows, 40, dtype=dtype), wide[:, :24]  # rows that do not lie side by side
    expected = F.linear(y.double(), weight.double(), None if b is None else b.double())
    for _ in range(2):
        found, added = linear(y, weight, b), add_linear(x.clone(), y, weight, b)
        assert found.dtype == added.dtype == dtype
        torch.testing.assert_close(
            found.double(), expected, rtol=TOLERANCES[dtype], atol=30 * TOLERANCES[dtype]
        )
        torch.testing.assert_close(
            added.double(), x.double() + expected, rtol=TOLERANCES[dtype], atol=30 * TOLERANCES[dtype]
        )
        pack(weight)
    assert hasattr(weight, "packed") == can_pack(weight)


def test_a_packed_copy_is_used_only_while_the_weight_is_what_it_was() -> None:
    need("oneDNN with AVX-512", can_pack(torch.zeros(1)), "a CPU with AVX-512")
    weight, _ = weights(torch.float32, bias=False)
    x = torch.randn(3, 24)
    pack(weight)
    assert products._packed(x, weight) is not None
    assert products._packed(x.double(), weight) is None, "a copy in another type"
    weight.mul_(2)
    assert products._packed(x, weight) is None, "written to"
    torch.testing.assert_close(linear(x, weight), x @ weight.T)
    pack(weight)
    weight.data = weight.data.clone()
    assert products._packed(x, weight) is None, "other memory"


def test_copies_and_files_of_a_model_carry_no_packed_weights() -> None:
    model = random_model(TINY).pack()
    again, loaded = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    for other in (again, loaded):
        assert not any(getattr(weight, "packed", None) for weight in other.parameters())
        tokens = [3, 1, 4, 1, 5]
        logits = [cp.prefill(m, tokens, cp.KVCache(TINY, 8)) for m in (model, other)]
        torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_are_float32_from_a_packed_head(dtype: torch.dtype) -> None:
    model = random_model(TINY, dtype=dtype)
    x = torch.randn(5, TINY.d_model, dtype=dtype)
    expected = x.double() @ model.head.double().T
    for _ in range(2):
        found = model._logits(x)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
        model.pack()


class Widened(TorchDispatchMode):
    """The largest tensor that was cast while this mode was on, in numbers."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func is torch.ops.aten._to_copy.default:
            self.largest = max(self.largest, args[0].numel())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("packed", [False, True])
def test_a_pass_that_emits_nothing_does_not_widen_the_head(packed: bool) -> None:
    model = random_model(TINY, dtype=torch.bfloat16)
    if packed:
        model.pack()
    with Widened() as seen:
        logits = model._logits(torch.empty(0, TINY.d_model, dtype=torch.bfloat16))
    assert logits.shape == (0, TINY.vocab_size) and logits.dtype == torch.float32
    assert seen.largest == 0
    with Widened() as seen:  # what the test above watches for does happen, where a row is wanted
        random_model(TINY, dtype=torch.bfloat16)._logits(torch.empty(1, TINY.d_model, dtype=torch.bfloat16))
    assert seen.largest == TINY.vocab_size * TINY.d_model


def test_a_write_through_data_and_a_cast_leave_no_stale_copy() -> None:
    need("oneDNN with AVX-512", can_pack(torch.zeros(1)), "a CPU with AVX-512")
    weight, _ = weights(torch.float32, bias=False)
    x = torch.randn(3, 24)
    pack(weight)
    weight.data.mul_(2)  # no version tells of it
    torch.testing.assert_close(linear(x, weight), x @ weight.T)
    assert products._packed(x, weight) is None
    model = random_model(TINY).pack()
    assert all(each.packed for each in (model.head, model.layers[0].down.weight))
    model.to(torch.bfloat16).to(torch.float32)
    assert not any(getattr(each, "packed", None) for each in model.parameters())
