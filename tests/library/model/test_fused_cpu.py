"""The kernels between the products against the lines of torch that define them; a model with and without them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import chunkprefill as cp
from chunkprefill.model import fused_cpu, transformer
from chunkprefill.model.transformer import Transformer, gated, rms_norm, rotate_
from tests.library.model.equality import FEATURES, difference, small_model
from tests.needs import need, need_smollm2

DTYPES = [torch.float32, torch.bfloat16]
EXTREMES = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    1e-40,
    88.5,
    -88.5,
    89.5,
    -89.5,
    1e4,
    -1e4,
    1e30,
    -1e30,
    torch.inf,
    -torch.inf,
]
EXTREMES.append(torch.nan)


@pytest.fixture(autouse=True)
def _compiler() -> None:
    torch.manual_seed(5)
    need("a C compiler", fused_cpu.kernels(torch.float32), "apt-get install gcc")


@contextmanager
def without_kernels() -> Iterator[None]:
    """As on a machine that has no C compiler."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused_cpu, "kernels", lambda dtype: None)
        yield


@contextmanager
def counted() -> Iterator[list[str]]:
    """The names of the kernels that are called."""
    calls: list[str] = []
    real = fused_cpu._kernel

    def noted(name: str, x: Tensor) -> Callable[..., Any]:
        calls.append(name)
        return real(name, x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused_cpu, "_kernel", noted)
        yield calls


def both(function: Callable[..., Tensor], x: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    """What the kernel makes of a copy of x with the same strides, and what torch makes of x."""
    copy = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype).copy_(x)
    with counted() as calls:
        found = function(copy, *others)
    assert len(calls) == 1
    with without_kernels(), counted() as calls:
        expected = function(x, *others)
    assert not calls
    assert found.shape == expected.shape and found.dtype == expected.dtype
    return found, expected


def assert_same(found: Tensor, expected: Tensor) -> None:
    """float32: to a few units in the last place. bfloat16: all but one number in a hundred to the bit."""
    if found.dtype == torch.float32:
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6, equal_nan=True)
        return
    torch.testing.assert_close(found, expected, rtol=2**-7, atol=1e-6, equal_nan=True)
    other = (found != expected) & ~(found.isnan() & expected.isnan())
    assert int(other.sum()) <= found.numel() / 100


def silu_of(x: Tensor) -> Tensor:
    """`gated` behind a product with the identity, which is left out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transformer, "linear", lambda x, weight, bias: x)
        return gated(nn.Linear(1, 1), x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [0, 1, 5, 70])
@pytest.mark.parametrize("size", [2, 30, 64, 576, 1000])
def test_the_norm(dtype: torch.dtype, rows: int, size: int) -> None:
    strip = torch.randn(rows, size + 7).to(dtype)
    weight = (1 + 0.1 * torch.randn(size)).to(dtype)
    for x in (strip[:, :size], strip[:, 3 : 3 + size], strip[1:, :size].contiguous()):
        found, expected = both(rms_norm, x, weight, 1e-5)
        assert found.is_contiguous()
        assert_same(found, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_dim", [2, 8, 64, 90, 128])
def test_the_norm_of_heads_that_lie_in_a_wider_strip(dtype: torch.dtype, head_dim: int) -> None:
    qkv = torch.randn(9, 5, head_dim).to(dtype)
    weight = (1 + 0.1 * torch.randn(head_dim)).to(dtype)
    for x in (qkv[:, :3], qkv[:, 3:4], qkv[2:, ::2], qkv[:0, :3]):
        assert_same(*both(rms_norm, x, weight, 1e-6))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_dim", [2, 8, 64, 90, 128])
@pytest.mark.parametrize("rows", [0, 1, 33])
def test_the_rotation_turns_q_and_k_and_leaves_v(dtype: torch.dtype, head_dim: int, rows: int) -> None:
    angles = 3 * torch.randn(rows, 1, head_dim // 2)
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    cos, sin = torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)
    qkv = torch.randn(rows, 7, head_dim).to(dtype)
    for view in (slice(0, 5), slice(3, 5), slice(0, 7, 2)):
        found, expected = qkv.clone(), qkv.clone()
        assert rotate_(found[:, view], cos, sin).shape == found[:, view].shape
        with without_kernels():
            rotate_(expected[:, view], cos, sin)
        assert_same(found, expected)
        left = [head for head in range(7) if head not in range(7)[view]]
        assert torch.equal(found[:, left], qkv[:, left])
    with counted() as calls:
        rotate_(qkv[:, :5], cos, sin)
    assert calls == ["rotate"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [0, 1, 5, 70])
@pytest.mark.parametrize("size", [1, 7, 64, 1536])
def test_the_gate(dtype: torch.dtype, rows: int, size: int) -> None:
    wide = (4 * torch.randn(rows, 2 * size + 3)).to(dtype)
    for x in (wide[:, : 2 * size], wide[:, 3:], wide[:, : 2 * size].contiguous()):
        found, expected = both(silu_of, x)
        assert found.is_contiguous()
        assert_same(found, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gate_over_the_whole_range(dtype: torch.dtype) -> None:
    """Every bfloat16 number; as many of float32, those between which torch's exponential ends among them."""
    bits = torch.arange(-(1 << 15), 1 << 15).to(torch.int16).view(torch.bfloat16)
    gate = bits if dtype == torch.bfloat16 else torch.cat((bits.float(), torch.linspace(-110, 110, 65537)))
    x = torch.stack((gate, torch.ones_like(gate)), -1)
    found, expected = both(silu_of, x)
    assert torch.equal(found.isnan(), expected.isnan())
    there = ~expected.isnan()
    # An exponential of 1e-7 and a quotient: in bfloat16 a few ties fall the other way.
    rtol = 1e-6 if dtype == torch.float32 else 2**-7
    torch.testing.assert_close(found[there], expected[there], rtol=rtol, atol=1e-37)
    if dtype == torch.bfloat16:
        assert int((found[there] != expected[there]).sum()) <= 4


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_that_are_none_go_through_as_in_torch(dtype: torch.dtype) -> None:
    pairs = torch.tensor(list(itertools.product(EXTREMES, EXTREMES))).to(dtype)  # [256, 2]
    assert_same(*both(silu_of, pairs))
    for size in (2, 34):  # alone, and within what is walked over in vectors
        x = torch.ones(len(pairs), size, dtype=dtype)
        x[:, -2:] = pairs
        weight = torch.linspace(0.5, 2, size).to(dtype)
        found, expected = both(rms_norm, x, weight, 1e-5)
        assert torch.equal(found.isnan(), expected.isnan())
        assert_same(found, expected)
        cos, sin = (torch.linspace(-1, 1, size).to(dtype).expand(len(x), 1, size).contiguous() for _ in "cs")
        found, expected = both(rotate_, x[:, None], cos, sin)
        assert torch.equal(found.isnan(), expected.isnan())
        torch.testing.assert_close(found, expected, rtol=2**-7, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_several_threads_compute_what_one_computes(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(67, 5, 128).to(dtype)
    weight, angles = torch.ones(128, dtype=dtype), torch.randn(67, 1, 128).to(dtype)
    found = []
    for n in (1, 2, 3):
        monkeypatch.setattr(fused_cpu, "_threads", lambda numbers, n=n: n)
        found.append((rms_norm(x, weight, 1e-5), rotate_(x.clone(), angles, angles), silu_of(x.flatten(1))))
    for others in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], others))


def test_few_numbers_are_left_to_one_thread() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert (fused_cpu._threads(576), fused_cpu._threads(1 << 20)) == (1, 2)
    finally:
        torch.set_num_threads(before)


def test_what_the_kernels_do_not_take_is_left_to_torch() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    x, weight = torch.randn(4, 6), torch.ones(6)
    assert fused_cpu.can_fuse(x, weight) and fused_cpu.can_fuse(x, nn.Parameter(weight, requires_grad=False))
    taught = nn.Parameter(weight)
    refused = [
        (x.double(), weight.double()),
        (x.half(), weight.half()),
        (x.bfloat16(), weight),
        (x.T, torch.ones(4)),
        (x[:, ::2], torch.ones(3)),
        (x[:, :5], torch.ones(5)),
        (x, torch.ones(12)[::2]),
        (x[0], weight),
        (x, taught),
        (x.clone().requires_grad_(), weight),
    ]
    for case in refused:
        assert not fused_cpu.can_fuse(*case)
        rms_norm(*case, 1e-5)
    assert rms_norm(x, taught, 1e-5).requires_grad
    for off in (torch.no_grad, torch.inference_mode):
        with off():
            assert fused_cpu.can_fuse(x, taught)
    with FakeTensorMode():
        assert not fused_cpu.can_fuse(torch.empty(4, 6), torch.empty(6))
    odd = torch.randn(2, 3, 5), torch.randn(2, 1, 5), torch.randn(2, 1, 5)
    assert not fused_cpu.can_fuse(*odd)
    assert rotate_(*odd).shape == (2, 3, 5)


def test_gradients_are_those_of_torch() -> None:
    def gradients() -> list[Tensor]:
        x = torch.linspace(-2, 3, 18).view(3, 6).requires_grad_()
        weight = torch.full((6,), 1.5, requires_grad=True)
        return list(
            torch.autograd.grad(rms_norm(x, weight, 1e-5).square().sum() + silu_of(x).sum(), (x, weight))
        )

    with counted() as calls:
        found = gradients()
    assert not calls
    with without_kernels():
        assert all(torch.equal(a, b) for a, b in zip(found, gradients()))


def keys_and_logits(model: Transformer, tokens: list[int], chunk: int | None) -> list[Tensor]:
    cache = cp.KVCache(model.config, len(tokens), dtype=model.dtype)
    logits = cp.prefill(model, tokens, cache, chunk)
    return [logits, *(x for layer in range(model.config.n_layers) for x in cache.kv(layer))]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", FEATURES)
def test_a_model_computes_the_same_with_and_without(family: str, dtype: torch.dtype) -> None:
    model = small_model(family, dtype=dtype)
    tokens = [7 * i % 61 for i in range(90)]
    for chunk in (7, 64, None):
        with counted() as calls:
            found = keys_and_logits(model, tokens, chunk)
        assert set(calls) == {"rms_norm", "rotate", "gated"}
        with without_kernels():
            expected = keys_and_logits(model, tokens, chunk)
        assert difference(found, expected) <= (1e-5 if dtype == torch.float32 else 3e-2)
        spoken = [cp.generate(model, tokens, 12, chunk_size=chunk)]
        with without_kernels():
            spoken.append(cp.generate(model, tokens, 12, chunk_size=chunk))
        assert spoken[0] == spoken[1]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_real_model_says_the_same_with_and_without(dtype: torch.dtype) -> None:
    need_smollm2()
    model, tokenizer = cp.load_model("smollm2-135m", dtype=dtype), cp.load_tokenizer("smollm2-135m")
    tokens = tokenizer.chat("Name the planets, and say one thing about each of them. " * 6)
    for chunk in (7, 64, None):
        spoken = [cp.generate(model, tokens, 8, chunk_size=chunk)]
        with without_kernels():
            spoken.append(cp.generate(model, tokens, 8, chunk_size=chunk))
        assert spoken[0] == spoken[1]
