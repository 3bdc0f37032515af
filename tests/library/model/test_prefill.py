"""prefill and generate: what they refuse, what they leave alone, what they report."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import chunkprefill as cp
from chunkprefill import generation
from tests.library.model.equality import built, small_model

MODEL = small_model()
TOKENS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]


def filled(room: int = 20) -> cp.KVCache:
    kv = cp.KVCache(MODEL.config, room, dtype=MODEL.dtype)
    cp.prefill(MODEL, [7, 8, 9], kv)
    return kv


def state(kv: cp.KVCache) -> list[torch.Tensor]:
    return [torch.tensor(kv.length), *(x.clone() for i in range(2) for x in kv.kv(i))]


@pytest.mark.parametrize(
    ("tokens", "chunk", "message"),
    [
        (TOKENS, 0, "chunk_size.* must be a whole number of at least 1, got 0"),
        (TOKENS, -3, "chunk_size.* must be a whole number of at least 1, got -3"),
        (TOKENS, [4, 0, 6], "chunk 1 must be a whole number of at least 1, got 0"),
        (TOKENS, [12, -2], "chunk 1 must be a whole number of at least 1, got -2"),
        (TOKENS, [4, 4], "add up to 8 tokens, the prompt has 10"),
        (TOKENS, [], "add up to 0 tokens, the prompt has 10"),
        (TOKENS, np.array([5, 6]), "add up to 11 tokens, the prompt has 10"),
        ([], None, "0 tokens"),
        (torch.tensor([], dtype=torch.long), 4, "0 tokens"),
        ([1, 61], 1, "token id 61 is outside the vocabulary of 61"),
        ([1, -1, 2], 1, "token id -1 is outside"),
        ([2**70], None, "no sequence of token ids"),
        (["a"], None, "no sequence of token ids"),
        ("text", None, "no sequence of token ids"),
        ([1.0, 2.0], None, "float"),
        (torch.tensor([True, False]), None, "bool"),
        (torch.zeros(2, 3, dtype=torch.long), None, r"shape \[2, 3\]"),
        (torch.tensor(3), None, r"shape \[\]"),
        (list(range(18)), 4, "18 tokens, the cache room for 17 of 20"),
    ],
)
def test_a_refused_prompt_leaves_the_cache_as_it_was(tokens: Any, chunk: Any, message: str) -> None:
    kv = filled()
    before = state(kv)
    with pytest.raises(ValueError, match=message):
        cp.prefill(MODEL, tokens, kv, chunk)
    assert all(torch.equal(a, b) for a, b in zip(before, state(kv)))


@pytest.mark.parametrize(
    "chunk", [2.5, 2.0, "3", "55", b"\x0a", True, False, object(), np.float64(5), np.array(5.0)]
)
def test_a_chunk_size_of_the_wrong_type_is_refused(chunk: Any) -> None:
    kv = filled()
    with pytest.raises(ValueError) as error:
        cp.prefill(MODEL, TOKENS, kv, chunk)
    said = "chunk_size, where it is no list of lengths, must be a whole number of at least 1"
    assert str(error.value) == f"{said}, got {chunk!r}"
    assert kv.length == 3


@pytest.mark.parametrize("length", [5.0, "5", [5], (2, 3), None, True, np.array([5, 5])])
def test_a_length_of_the_wrong_type_is_refused_by_its_place(length: Any) -> None:
    kv = filled()
    with pytest.raises(ValueError) as error:
        cp.prefill(MODEL, TOKENS, kv, [5, length])
    assert str(error.value) == f"chunk 1 must be a whole number of at least 1, got {length!r}"
    assert kv.length == 3


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_pass_that_fails_midway_leaves_the_cache_as_it_was(error: type[BaseException]) -> None:
    kv = filled()
    before = state(kv)

    def stop(start: int, length: int) -> None:
        if start >= 7:
            raise error

    with pytest.raises(error):
        cp.prefill(MODEL, TOKENS, kv, 2, on_chunk=stop)
    assert all(torch.equal(a, b) for a, b in zip(before, state(kv)))
    # and it still works: what was written beyond the length is never read
    fresh = filled()
    assert torch.equal(cp.prefill(MODEL, TOKENS, kv, 2), cp.prefill(MODEL, TOKENS, fresh, 2))


def test_caches_of_another_type_or_model_are_refused() -> None:
    with pytest.raises(ValueError, match="float32"):
        cp.prefill(MODEL, TOKENS, cp.KVCache(MODEL.config, 20))
    other = small_model("qwen3")
    with pytest.raises(ValueError, match="another model"):
        cp.prefill(MODEL, TOKENS, cp.KVCache(other.config, 20, dtype=MODEL.dtype))


@pytest.mark.parametrize("max_len", [0, -1, MODEL.config.max_positions + 1])
def test_a_cache_holds_positions_that_the_model_has(max_len: int) -> None:
    with pytest.raises(ValueError, match=str(max_len)):
        cp.KVCache(MODEL.config, max_len)


def test_unknown_backend_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'flash'.*reference, sdpa"):
        cp.KVCache(MODEL.config, 4, backend="flash")


@given(n=st.integers(1, 300), size=st.integers(1, 400))
def test_equal_chunks_cover_the_prompt(n: int, size: int) -> None:
    lengths = generation.chunk_lengths(n, size)
    assert sum(lengths) == n and len(lengths) == -(-n // size)
    assert all(length == size for length in lengths[:-1]) and 1 <= lengths[-1] <= size


@pytest.mark.parametrize("chunk", [np.int64(4), torch.tensor(4), [4, 4, 2], (4, 4, 2), np.array([4, 4, 2])])
def test_chunk_sizes_of_several_types(chunk: Any) -> None:
    assert generation.chunk_lengths(10, chunk) == [4, 4, 2]


@pytest.mark.parametrize(
    "tokens", [TOKENS, tuple(TOKENS), np.array(TOKENS), np.array(TOKENS, dtype=np.uint8)]
)
def test_tokens_of_several_types(tokens: Any) -> None:
    assert torch.equal(
        built(MODEL, tokens, 3)[0], built(MODEL, torch.tensor(TOKENS, dtype=torch.int32), 3)[0]
    )


def test_passes_are_counted_by_on_chunk_and_are_as_many_as_the_model_runs(monkeypatch: Any) -> None:
    strips, passes = [], []
    forward = type(MODEL).forward
    monkeypatch.setattr(
        type(MODEL), "forward", lambda self, t, kv: strips.append(len(t)) or forward(self, t, kv)
    )
    kv = filled()
    del strips[:]
    cp.prefill(MODEL, TOKENS, kv, 4, on_chunk=lambda start, length: passes.append((start, length)))
    assert strips == [4, 4, 2]
    assert passes == [(3, 4), (7, 4), (11, 2)]


def test_the_head_runs_on_emitting_rows_only(monkeypatch: Any) -> None:
    rows = []
    logits = type(MODEL)._logits
    monkeypatch.setattr(type(MODEL), "_logits", lambda self, x: rows.append(len(x)) or logits(self, x))
    built(MODEL, TOKENS, 4)
    assert rows == [0, 0, 1]


def test_logits_may_be_changed_by_their_caller() -> None:
    logits = built(MODEL, TOKENS, 4)[0]
    assert logits.shape == (61,)
    logits[logits.argmax()] = -torch.inf
    assert not logits.requires_grad


def test_a_progress_bar_goes_to_standard_error(capsys: Any) -> None:
    kv = filled()
    cp.prefill(MODEL, TOKENS, kv, 2, progress=True)
    out, err = capsys.readouterr()
    assert out == "" and "5/5" in err
    cp.prefill(MODEL, TOKENS[:2], kv, 2)
    assert capsys.readouterr() == ("", "")


@given(n=st.integers(0, 8), chunk=st.sampled_from([None, 1, 3, 99]))
def test_generate_is_greedy_one_token_at_a_time(n: int, chunk: int | None) -> None:
    known = list(TOKENS)
    for _ in range(n):
        known.append(int(built(MODEL, known, None, backend="reference")[0].argmax()))
    kv = cp.KVCache(MODEL.config, len(TOKENS) + max(n, 1) - 1, dtype=MODEL.dtype)  # exactly the room it needs
    assert cp.generate(MODEL, TOKENS, n, cache=kv, chunk_size=chunk) == known[len(TOKENS) :]
    assert kv.length == kv.max_len
    assert cp.generate(MODEL, torch.tensor(TOKENS), n, chunk_size=chunk) == known[len(TOKENS) :]


def test_generate_stops_at_a_stop_token_and_keeps_it() -> None:
    whole = cp.generate(MODEL, TOKENS, 8)
    stop = whole[3]
    assert cp.generate(MODEL, TOKENS, 8, stop={stop}) == whole[: whole.index(stop) + 1]


@pytest.mark.parametrize(
    ("tokens", "n", "room", "message"),
    [
        (TOKENS, -1, 20, "n must be a whole number of at least 0, got -1"),
        (TOKENS, 2.0, 20, "n must be a whole number of at least 0, got 2.0"),
        (TOKENS, "4", 20, "n must be a whole number of at least 0, got '4'"),
        (TOKENS, 12, 20, "10 prompt tokens and 12 new ones need 21 positions, there are 20"),
        ([], 3, 20, "0 tokens"),
        ([99], 3, 20, "99 is outside"),
    ],
)
def test_generate_refuses_before_the_cache_changes(tokens: Any, n: Any, room: int, message: str) -> None:
    kv = cp.KVCache(MODEL.config, room, dtype=MODEL.dtype)
    with pytest.raises(ValueError, match=message):
        cp.generate(MODEL, tokens, n, cache=kv)
    assert kv.length == 0


def test_keys_and_values_are_views_of_the_length() -> None:
    kv = filled()
    keys, values = kv.kv(0)
    assert keys.shape == values.shape == (3, 2, 8)
    assert kv.n_bytes == 2 * 2 * 3 * 2 * 8 * 8  # k and v, layers, tokens, heads, numbers, bytes
    assert keys.data_ptr() == kv.keys[0].data_ptr()
