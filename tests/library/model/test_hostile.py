"""Arguments of a wrong kind, and files that are none: refused by name, at once, whatever they hide."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import chunkprefill as cp
from chunkprefill.model import families
from tests.library.model.equality import small_model

CONFIG = {
    "model_type": "llama",
    "hidden_size": 12,
    "intermediate_size": 20,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 31,
    "rms_norm_eps": 1e-6,
}
INDEX, SHARD = "model.safetensors.index.json", "model-0.safetensors"
posix = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name on this system")


def pipe(path: Path) -> None:
    os.mkfifo(path)  # nothing writes to it: a reader waits for ever


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")  # its size reads 0


@posix
@pytest.mark.parametrize("make", [pipe, endless, Path.mkdir])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", SHARD])
def test_what_is_no_regular_file_is_refused_at_once(
    tmp_path: Path, name: str, make: Callable[[Path], None]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    if name == SHARD:
        (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"model.norm.weight": SHARD}}))
    (tmp_path / name).unlink(missing_ok=True)
    make(tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name}.*no regular file|no model\.safetensors"):
        cp.load_model(tmp_path)


KINDS = {
    "git-lfs": b"version https://git-lfs.example/spec/v1\noid sha256:0\nsize 1\n",
    "gzip": b"\x1f\x8b\x08\x00more",
    "zip archive": b"PK\x03\x04more",
    "web page": b"<!DOCTYPE html><html>",
    "UTF-16": json.dumps(CONFIG).encode("utf-16"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_file_that_is_another_in_its_place_is_named(tmp_path: Path, name: str, kind: str) -> None:
    """A checkpoint that was cloned without git-lfs, or saved from a browser."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / name).write_bytes(KINDS[kind])
    load = cp.load_tokenizer if name == "tokenizer.json" else cp.load_model
    with pytest.raises(ValueError, match=rf"{name}: .*{kind}"):
        load(tmp_path)


def test_json_is_read_up_to_a_limit_and_a_link_to_a_file_is_a_file(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"a": "é"}', encoding="utf-8")
    (tmp_path / "link").symlink_to(path)
    monkeypatch.setattr(families, "_MAX_JSON_BYTES", path.stat().st_size)
    assert families.read_json(path) == families.read_json(tmp_path / "link") == {"a": "é"}
    path.write_text('{"a": "é"} ', encoding="utf-8")
    with pytest.raises(ValueError, match=r"config\.json.*larger than 11 bytes"):
        families.read_json(path)


@pytest.mark.parametrize("dtype", ["float32", "int64", 32, torch.int32, torch.bool, float])
def test_a_dtype_that_is_none_is_named(dtype: Any) -> None:
    message = f"dtype is {dtype!r}"
    with pytest.raises(ValueError, match=message):
        cp.load_model("tiny", dtype=dtype)
    with pytest.raises(ValueError, match=message):
        cp.KVCache(small_model().config, 4, dtype=dtype)


@pytest.mark.parametrize("max_len", [3.5, 3.0, "3", None, True, [3], float("nan")])
def test_a_length_of_a_cache_that_is_no_whole_number_is_named(max_len: Any) -> None:
    with pytest.raises(ValueError) as error:
        cp.KVCache(small_model().config, max_len)
    assert str(error.value).startswith(
        "max_len, within the model's positions, must be a whole number from 1 to "
    )
    assert str(error.value).endswith(f", got {max_len!r}")


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "", 3.5, None, "meta", ["cpu"], "fpga"])
def test_a_device_that_is_not_there_is_one_clear_line(device: Any) -> None:
    makers = [lambda: cp.load_model("tiny", device=device)]
    makers.append(lambda: cp.KVCache(small_model().config, 4, device=device))
    for make in makers:
        with pytest.raises(ValueError, match=r"^device is ") as error:
            make()
        assert "\n" not in str(error.value) and len(str(error.value)) < 250


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_without_cuda_is_one_clear_line() -> None:
    with pytest.raises(ValueError, match="device is 'cuda', and torch finds 0 CUDA devices here"):
        cp.load_model("tiny", device="cuda")


@pytest.mark.parametrize("length", [-3, -1, 6, 10, 2.0, "2", None, True, float("nan"), [1]])
def test_a_length_that_the_cache_does_not_hold_is_refused_and_nothing_changes(length: Any) -> None:
    model = small_model()
    cache = cp.KVCache(model.config, 10, dtype=model.dtype)
    cp.prefill(model, [1, 2, 3, 4, 5], cache, 2)
    with pytest.raises(ValueError) as error:
        cache.length = length
    assert f"within the positions written, must be a whole number from 0 to 5, got {length!r}" in str(
        error.value
    )
    assert cache.length == 5


def test_a_cache_may_be_cut_back_and_filled_anew() -> None:
    model = small_model()
    cache = cp.KVCache(model.config, 10, dtype=model.dtype)
    whole = cp.prefill(model, [1, 2, 3, 4, 5], cache)
    cache.length = 2
    assert cache.room == 8 and len(cache.kv(0)[0]) == 2
    assert torch.allclose(cp.prefill(model, [3, 4, 5], cache), whole, atol=1e-12)
    cache.length = 0
    assert cache.length == 0


@pytest.mark.parametrize(
    ("n_tokens", "chunk_size", "message"),
    [
        (12.0, 5, "n_tokens must be a whole number.* got 12.0"),
        ("12", 5, "n_tokens must be a whole number.* got '12'"),
        (None, 5, "n_tokens must be a whole number.* got None"),
        (5, {2, 3}, "chunk_size is a set, which has no order"),
        (5, frozenset([2, 3]), "chunk_size is a frozenset"),
        (5, {2: 1, 3: 1}, "chunk_size is a dict"),
    ],
)
def test_chunks_of_no_order_and_lengths_of_no_number(n_tokens: Any, chunk_size: Any, message: str) -> None:
    from chunkprefill.generation import chunk_lengths

    with pytest.raises(ValueError, match=message):
        chunk_lengths(n_tokens, chunk_size)


@pytest.mark.parametrize("source", [None, "wheel", "hub", "folder"])
@pytest.mark.parametrize("name", ["", " "])
def test_an_empty_name_is_no_folder_and_lists_the_ways(
    name: str, source: str | None, tmp_path: Path, monkeypatch: Any
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"no model ' ?': 'tiny', 'smollm2-135m', a folder, or OWNER/NAME"):
        cp.load_model(name, source=source)
