"""The instruments behind the evidence measure what they say, held against others."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import chunkprefill as cp
from chunkprefill.model.attention import reference
from chunkprefill.model.weights import random_model
from chunkprefill_course.evidence import counting, timing
from chunkprefill_course.exercises.ch01.questions import SMOLLM2

splits = st.lists(st.integers(1, 9), min_size=1, max_size=6)


@given(splits)
@settings(max_examples=30)
def test_reads_and_pairs_of_any_split(lengths):
    n = sum(lengths)
    again, pairs = counting.count_reads(n, lengths)
    assert again == sum(sum(lengths[:i]) for i in range(len(lengths)))
    assert pairs == n * (n + 1) // 2, "however it is cut"


@given(st.integers(1, 60), st.integers(1, 70))
@settings(max_examples=30)
def test_passes_are_calls_of_the_model(n, c):
    assert counting.count_passes(cp.load_model("tiny"), n, c) == math.ceil(n / c)


@pytest.mark.parametrize("chunk_size", [32, 128])
def test_peak_bytes_are_the_profilers(chunk_size, monkeypatch):
    """The running sum of what torch's allocator reports, which the tracker of tensors never sees."""
    monkeypatch.setenv("KINETO_LOG_LEVEL", "99")
    model = random_model(replace(SMOLLM2, n_layers=2, vocab_size=300))
    peak, n_cached = counting.peak_bytes(model, 128, chunk_size)
    cache = cp.KVCache(model.config, 128)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        cp.prefill(model, [i % 300 for i in range(128)], cache, chunk_size)
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    total = highest = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        total += event.nbytes()
        highest = max(highest, total)
    assert peak == pytest.approx(highest, rel=0.02)
    assert peak == pytest.approx(counting.activation_bytes(model, chunk_size), rel=0.02)
    assert n_cached == cache.n_bytes


@pytest.mark.parametrize("family", [{}, {"qkv_bias": True}, {"qk_norm": True}, {"n_kv_heads": 9}])
def test_memory_worked_out_holds_for_other_shapes(family):
    model = random_model(replace(SMOLLM2, n_layers=2, vocab_size=300, **family))
    peak, _ = counting.peak_bytes(model, 128, 64)
    assert peak == pytest.approx(counting.activation_bytes(model, 64), rel=0.06)


def test_top_left_is_right_for_a_first_chunk_alone():
    for start, length in ((0, 4), (3, 2), (2, 5)):
        q = torch.randn(length, 4, 8, dtype=torch.float64)
        k, v = torch.randn(2, start + length, 2, 8, dtype=torch.float64)
        same = torch.allclose(counting.top_left(q, k, v), reference(q, k, v), atol=1e-12)
        assert same == (start == 0)


def test_same_cache_holds_for_another_model_and_seed():
    for seed in (1, 2):
        assert counting.same_cache(seed=seed).holds and not counting.same_cache(seed=seed, changed=True).holds
    assert counting.same_cache(model=cp.load_model("tiny")).holds, "float32, within its rounding"
    assert not counting.same_cache(model=cp.load_model("tiny"), changed=True).holds


def test_reread_holds_for_other_lengths():
    for n in (256, 1024):
        assert counting.reread(n=n).holds and not counting.reread(n=n, changed=True).holds


def test_timing_leaves_the_threads_as_they_were():
    before = torch.get_num_threads()
    seen: list[int] = []
    found = timing.interleaved(
        {"a": lambda: seen.append(torch.get_num_threads()), "b": lambda: None}, rounds=3
    )
    assert set(found) == {"a", "b"} and seen == [1] * 4 and torch.get_num_threads() == before
    with pytest.raises(ZeroDivisionError):
        timing.interleaved({"a": lambda: 1 / 0})
    assert torch.get_num_threads() == before
