"""Any split of any prompt gives the same cache and the same logits; mutants of the package do not."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import chunkprefill as cp
from chunkprefill import generation
from chunkprefill.model import attention, cache
from tests.library.model.equality import (
    DEVICES,
    FEATURES,
    TOLERANCES,
    assert_same,
    built,
    difference,
    small_model,
)


@st.composite
def splits(draw: st.DrawFn, n: int) -> Any:
    """None, a chunk size, or lengths that add up to n."""
    kind = draw(st.sampled_from(["whole", "size", "lengths"]))
    if kind == "whole":
        return None
    if kind == "size":
        return draw(st.integers(1, n + 5))
    cuts = sorted(draw(st.sets(st.integers(1, max(n - 1, 1)), max_size=n - 1)))
    edges = [0, *(cut for cut in cuts if cut < n), n]
    return [b - a for a, b in itertools.pairwise(edges)]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_split_equals_standard_prefilling_in_float64(data: st.DataObject) -> None:
    kv_heads, group = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4))
    model = small_model(
        data.draw(st.sampled_from(list(FEATURES))),
        n_layers=data.draw(st.integers(1, 3)),
        n_heads=kv_heads * group,
        n_kv_heads=kv_heads,
        head_dim=2 * data.draw(st.integers(1, 40)),
        d_model=data.draw(st.integers(1, 40)),
    )
    n = data.draw(st.integers(1, 90))
    tokens = data.draw(st.lists(st.integers(0, 60), min_size=n, max_size=n))
    assert_same(
        model, tokens, data.draw(splits(n)), backend=data.draw(st.sampled_from(["reference", "sdpa"]))
    )


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_prompt_may_come_in_several_calls(data: st.DataObject) -> None:
    """Prefilling what is not yet cached extends the cache: a prefix may be there already."""
    model = small_model()
    tokens = data.draw(st.lists(st.integers(0, 60), min_size=2, max_size=50))
    cut = data.draw(st.integers(1, len(tokens) - 1))
    kv = cp.KVCache(model.config, len(tokens), dtype=model.dtype)
    cp.prefill(model, tokens[:cut], kv, data.draw(st.integers(1, 60)))
    logits = cp.prefill(model, tokens[cut:], kv, data.draw(st.integers(1, 60)))
    assert difference([logits, *kv.kv(1)], [built(model, tokens, None)[i] for i in (0, 3, 4)]) < 1e-12


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", list(TOLERANCES))
@pytest.mark.parametrize("family", list(FEATURES))
def test_every_dtype_and_device_within_its_tolerance(family: str, dtype: torch.dtype, device: str) -> None:
    model = small_model(family, dtype=dtype, device=device, head_dim=16)
    tokens = torch.randint(0, 61, (70,), generator=torch.Generator().manual_seed(5)).tolist()
    for chunk in (None, 1, 7, 64, [60, 10]):
        assert_same(model, tokens, chunk)
    logits = built(model, tokens, 9)[0]
    assert logits.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_without_torchs_private_kernel_the_public_one_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_FLASH_CPU", None)
    for family in FEATURES:
        model = small_model(family)
        for chunk in (1, 4, [1, 20, 9], None):
            assert_same(model, list(range(30)), chunk)
    monkeypatch.setattr(attention, "_takes_grouped_heads", lambda q: False)  # as on a T4
    assert_same(small_model(), list(range(30)), 7)


def test_long_chunks_and_long_prefixes_in_float32() -> None:
    """Lengths at which the kernels change their blocking."""
    model = small_model(dtype=torch.float32, n_heads=6, n_kv_heads=2, head_dim=64, vocab_size=61)
    tokens = torch.randint(0, 61, (1500,), generator=torch.Generator().manual_seed(6)).tolist()
    for chunk in (191, 193, 769, [1, 1499], [1499, 1]):
        assert_same(model, tokens, chunk)


def test_sdpa_is_the_reference_on_strips_of_any_layout() -> None:
    for q_shape, kv_shape in [((5, 6, 8), (12, 2, 8)), ((1, 3, 4), (9, 3, 4)), ((9, 4, 2), (9, 1, 2))]:
        q, k, v = (torch.randn(s, dtype=torch.float64) for s in (q_shape, kv_shape, kv_shape))
        expected = attention.reference(q, k, v)
        assert torch.allclose(attention.sdpa(q, k, v), expected, atol=1e-13)
        strided = (x.transpose(0, 1).contiguous().transpose(0, 1) for x in (q, k, v))
        assert torch.allclose(attention.sdpa(*strided), expected, atol=1e-13)


# Mutants: what a student would write. Each replaces a part of the package, and the equality test must see it.


@pytest.mark.parametrize("tiles", [False, True])
def test_bfloat16_with_and_without_matrix_tiles(tiles: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    products = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert attention._outruns_fused(torch.bfloat16) == (products and not tiles)
    for n, s in ((1, 40), (16, 16), (130, 130), (40, 300)):
        q, k, v = (torch.randn(rows, heads, 64).bfloat16() for rows, heads in ((n, 6), (s, 2), (s, 2)))
        expected = attention.reference(q, k, v)
        torch.testing.assert_close(attention.sdpa(q, k, v), expected, rtol=3e-2, atol=3e-2)


def _top_left(n_queries: int, n_keys: int, device: Any = "cpu") -> torch.Tensor:
    return torch.ones(n_queries, n_keys, dtype=torch.bool, device=device).tril()


def _top_left_sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    return out[0].transpose(0, 1)


def _write_at_zero(self: cache.KVCache, layer: int, start: int, k: torch.Tensor, v: torch.Tensor) -> None:
    _WRITE(self, layer, 0, k, v)


def _drop_last(n_tokens: int, chunk_size: Any = None) -> list[int]:
    lengths = _LENGTHS(n_tokens, chunk_size)
    return lengths[:-1] or lengths


def _emit_from_first_chunk(model: Any, tokens: Any, kv: Any, chunk: Any = None, **more: Any) -> torch.Tensor:
    lengths = _LENGTHS(len(tokens), chunk)
    first = _PREFILL(model, tokens[: lengths[0]], kv)
    if len(lengths) > 1:
        _PREFILL(model, tokens[lengths[0] :], kv, lengths[1:])
    return first


def _branch_on_more_than_one(self: cache.Window, layer: int, q: Any, k: Any, v: Any) -> torch.Tensor:
    """'More than one token, so this is the prefilling: attend to the strip; one token, so to the cache.'"""
    if self.length > 1:
        self.cache.write(layer, self.start, k, v)
        return attention.reference(q, k, v)
    return _ATTEND(self, layer, q, k, v)


def _advance_in_each_layer(self: cache.Window, layer: int, q: Any, k: Any, v: Any) -> torch.Tensor:
    return _ATTEND(dataclasses.replace(self, start=self.start + layer), layer, q, k, v)


_WRITE, _LENGTHS, _PREFILL, _ATTEND = (
    cache.KVCache.write,
    generation.chunk_lengths,
    generation.prefill,
    cache.Window.attend,
)

MUTANTS: dict[str, list[tuple[Any, str, Any]]] = {
    "top-left mask": [
        (attention, "bottom_right_mask", _top_left),
        (attention, "_FLASH_CPU", None),
        (attention, "causal_lower_right", _top_left),
    ],
    "is_causal for every chunk": [(cache, "backend_named", lambda name: _top_left_sdpa)],
    "RoPE from 0 in each chunk": [(cache.Window, "positions", lambda self: torch.arange(self.length))],
    "cache written at 0": [(cache.KVCache, "write", _write_at_zero)],
    "last chunk dropped": [(generation, "chunk_lengths", _drop_last)],
    "first token emitted early": [(cp, "prefill", _emit_from_first_chunk)],
    "branch on more than one token": [(cache.Window, "attend", _branch_on_more_than_one)],
    "length advanced by the model's layers": [(cache.Window, "attend", _advance_in_each_layer)],
}


TOKENS = [(7 * i) % 61 for i in range(20)]


def _caught(truth: list[torch.Tensor], chunk: Any, backend: str) -> bool:
    """Whether the equality test sees a difference from what the package gave before it was changed."""
    try:
        gap = difference(built(small_model(), TOKENS, chunk, backend=backend, room=9), truth)
    except (AssertionError, ValueError, RuntimeError, IndexError):
        return True
    return gap > TOLERANCES[torch.float64]


@pytest.mark.parametrize("name", list(MUTANTS))
def test_each_mutant_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = built(small_model(), TOKENS, None, backend="reference")
    tries = list(itertools.product([6, [1, 12, 7], 13], attention.BACKENDS))
    assert not any(_caught(truth, split, backend) for split, backend in tries)
    for target, attribute, wrong in MUTANTS[name]:
        monkeypatch.setattr(target, attribute, wrong)
    for split, backend in tries:
        assert _caught(truth, split, backend), f"{name}, chunks {split}, {backend}: nothing was seen"


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 40), cut=st.integers(1, 39))
def test_two_chunks_tell_the_masks_apart(n: int, cut: int) -> None:
    """With two chunks or more, the top-left mask hides keys that the bottom-right one shows."""
    assume(cut < n)
    right, wrong = attention.bottom_right_mask(n - cut, n), _top_left(n - cut, n)
    assert int(right.sum() - wrong.sum()) == (n - cut) * cut
    assert bool(right[-1].all()) and int(right[0].sum()) == cut + 1
