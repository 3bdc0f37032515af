"""Folders of weights: right ones in every form, wrong ones refused by name before memory is taken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import chunkprefill as cp
from chunkprefill.configs import LLAMA3_8B, TINY
from chunkprefill.model import weights
from chunkprefill.model.config import Config
from tests.library.model.equality import FEATURES, small_model

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 12,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 6,
    "vocab_size": 31,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
}


def tensors_for(raw: dict[str, Any]) -> dict[str, torch.Tensor]:
    from chunkprefill.model.families import config_of

    generator = torch.Generator().manual_seed(0)
    shapes = dict(part for _, parts in weights.layout(config_of(raw)) for part in parts)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    save_file(tensors_for(CONFIG), tmp_path / "model.safetensors")
    return tmp_path


def change(folder: Path, how: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    how(tensors)
    save_file(tensors, folder / "model.safetensors")


def configure(folder: Path, **changes: Any) -> None:
    raw = {k: v for k, v in (CONFIG | changes).items() if v is not ...}
    (folder / "config.json").write_text(json.dumps(raw))


def shard(folder: Path, n: int = 3) -> dict[str, str]:
    """Cut model.safetensors into n files with an index; returns the index's map."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    where = {}
    for i in range(n):
        part = {name: t for j, (name, t) in enumerate(tensors.items()) if j % n == i}
        save_file(part, folder / f"model-{i}.safetensors")
        where |= dict.fromkeys(part, f"model-{i}.safetensors")
    write_index(folder, where)
    return where


def write_index(folder: Path, where: Any) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


def run(folder: Path) -> torch.Tensor:
    model = cp.load_model(folder)
    return cp.prefill(model, [1, 2, 3], cp.KVCache(model.config, 3), 2)


UP, NORM = "model.layers.1.mlp.up_proj.weight", "model.norm.weight"


def renamed(tensors: dict[str, torch.Tensor], how: Callable[[str], str]) -> None:
    """Give every tensor another name, as a wrapper does."""
    for name in list(tensors):
        tensors[how(name)] = tensors.pop(name)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda t: t.pop(UP), rf"{UP} is missing.*\[20, 12\]"),
        (lambda t: t.pop("lm_head.weight"), r"lm_head.weight is missing.*\[31, 12\]"),
        (lambda t: t.update({UP: torch.zeros(20, 11)}), rf"{UP} is \[20, 11\].*\[20, 12\]"),
        (lambda t: t.update({UP: torch.zeros(12, 20)}), rf"{UP} is \[12, 20\].*\[20, 12\]"),
        (lambda t: t.update({NORM: torch.zeros(1, 12)}), rf"{NORM} is \[1, 12\].*\[12\]"),
        (lambda t: t.update({"score.weight": torch.zeros(2, 12)}), r"score.weight \[2, 12\] is surplus"),
        (
            lambda t: t.update({"model.layers.2.mlp.up_proj.weight": torch.zeros(20, 12)}),
            r"layers.2.mlp.up_proj.weight \[20, 12\] is surplus",
        ),
        (
            lambda t: t.update({"model.layers.0.self_attn.q_proj.bias": torch.zeros(18)}),
            r"q_proj.bias \[18\] is surplus",
        ),
        (lambda t: t.update({UP: torch.zeros(20, 12, dtype=torch.int8)}), rf"{UP} is I8"),
        (lambda t: t.update({UP: torch.zeros(20, 12, dtype=torch.float8_e4m3fn)}), rf"{UP} is F8_E4M3"),
        (lambda t: t.update({NORM: torch.tensor(1.0)}), rf"{NORM} is \[\].*\[12\]"),
        (
            lambda t: renamed(t, lambda n: f"module.{n}"),
            r"is missing.*There is module\.model\.embed_tokens\.w",
        ),
        (
            lambda t: renamed(t, lambda n: n.replace("model.norm", "x.model.norm")),
            r"tensor model\.norm\.weight is missing.*There is x\.model\.norm\.weight",
        ),
        (lambda t: renamed(t, str.upper), r"embed_tokens.weight is missing; the config asks for \[31, 12\]$"),
    ],
)
def test_a_wrong_tensor_is_named_with_both_shapes(folder: Path, how: Any, message: str) -> None:
    change(folder, how)
    with pytest.raises(ValueError, match=message):
        cp.load_model(folder)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_tensor_with_a_number_that_is_none_is_named(folder: Path, number: float) -> None:
    change(folder, lambda t: t[UP].__setitem__((7, 3), number))
    with pytest.raises(ValueError, match=f"tensor {UP} holds numbers that are not finite"):
        cp.load_model(folder)


def test_a_tensor_that_overflows_the_dtype_asked_for_is_named(folder: Path) -> None:
    change(folder, lambda t: t[UP].__setitem__((7, 3), 1e6))
    cp.load_model(folder)
    with pytest.raises(ValueError, match=rf"tensor {UP} overflows torch\.float16"):
        cp.load_model(folder, dtype=torch.float16)


def test_an_adapter_and_a_file_in_place_of_a_folder_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.safetensors is a file: the folder"):
        cp.load_model(folder / "model.safetensors")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"adapter_config\.json: adapters are not applied"):
        cp.load_model(folder)


def test_old_buffers_are_passed_over(folder: Path) -> None:
    expected = run(folder)
    change(folder, lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(3)}))
    assert torch.equal(run(folder), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2", "architectures": ...}, "model_type 'gpt2' is unknown"),
        ({"architectures": ["MixtralForCausalLM"]}, "'MixtralForCausalLM' is unknown"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "'LlamaForSequenceClassification'"),
        ({"model_type": ..., "architectures": ...}, "model_type None is unknown"),
        ({"architectures": "LlamaForCausalLM"}, "a list is needed"),
        ({"architectures": [["x"]]}, "unknown"),
        ({"model_type": ["llama"], "architectures": ...}, "unknown"),
        ({"model_type": "mistral"}, "model_type is 'mistral' and architectures names 'LlamaForCausalLM'"),
        ({"hidden_size": ...}, "hidden_size is None"),
        ({"hidden_size": "12"}, "hidden_size is '12'"),
        ({"hidden_size": 12.0}, "hidden_size is 12.0"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True"),
        ({"num_hidden_layers": 10**9}, "layers.2.*missing"),  # at once, and without the memory
        ({"vocab_size": 10**15}, r"embed_tokens.weight is \[31, 12\].*\[1000000000000000, 12\]"),
        ({"num_key_value_heads": 2}, "3 query heads cannot share 2"),
        ({"head_dim": 5}, "head_dim is 5"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps is 'small'"),
        ({"rms_norm_eps": None}, "rms_norm_eps is None"),
        ({"hidden_act": "gelu"}, "'gelu'"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes'"),
        (
            {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
            "'dynamic'.*length of the whole sequence",
        ),
        ({"rope_scaling": {"type": "longrope", "factor": 2.0}}, "'longrope'.*length of the whole sequence"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor is None"),
        ({"rope_scaling": [1]}, "an object is needed"),
        (
            {"rope_parameters": {"rope_type": "default", "rope_theta": -1.0}},
            "rope_theta must be a finite number above 0, got -1",
        ),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"model_type": "mistral", "architectures": ..., "sliding_window": 8}, "sliding_window is 8"),
        (
            {"model_type": "qwen2", "architectures": ..., "use_sliding_window": True, "sliding_window": 8},
            "sliding_window is 8",
        ),
        (
            {
                "model_type": "qwen3",
                "architectures": ...,
                "layer_types": ["full_attention", "sliding_attention"],
            },
            "sliding_attention",
        ),
    ],
)
def test_a_wrong_config_is_refused_by_file_and_key(folder: Path, changes: Any, message: str) -> None:
    configure(folder, **changes)
    with pytest.raises(ValueError, match=message) as error:
        cp.load_model(folder)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000, '{"a": ' + "9" * 5000 + "}", "\xff"])
def test_a_config_that_is_no_json_object_is_one_clear_line(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"config\.json"):
        cp.load_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"config\.json"):
        cp.load_model(folder)


@pytest.mark.parametrize("content", [b"", b"x", b"\xff" * 64, (2**62).to_bytes(8, "little") + b"{}"])
def test_a_file_that_is_no_safetensors(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        cp.load_model(folder)


def test_a_truncated_file_and_pickled_weights_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        cp.load_model(folder)
    path.rename(folder / "model-00001-of-00001.safetensors")
    with pytest.raises(ValueError, match=r"nor model\.safetensors\.index\.json beside model-00001-of-00001"):
        cp.load_model(folder)
    (folder / "model-00001-of-00001.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="pickled weights are not read"):
        cp.load_model(folder)


def test_shards_load_and_wrong_indices_are_refused(folder: Path) -> None:
    expected = run(folder)
    where = shard(folder)
    assert torch.equal(run(folder), expected)

    for name in ("../model-0.safetensors", "/etc/passwd", "model-0.bin", 7, ""):
        write_index(folder, where | {UP: name})
        with pytest.raises(ValueError, match="is not the name of a safetensors file"):
            cp.load_model(folder)
    for wrong in ([], {}, None, "x"):
        write_index(folder, wrong)
        with pytest.raises(ValueError, match="weight_map"):
            cp.load_model(folder)
    write_index(folder, where | {"model.extra": "model-0.safetensors"})
    with pytest.raises(ValueError, match=r"model\.extra is not in model-0"):
        cp.load_model(folder)
    other = next(file for file in set(where.values()) if file != where[UP])
    write_index(folder, where | {UP: other})
    with pytest.raises(ValueError, match=f"{UP} is not in {other}"):
        cp.load_model(folder)

    write_index(folder, where)
    shutil.copy(folder / "model-0.safetensors", folder / "twin.safetensors")
    write_index(
        folder, where | {next(n for n, f in where.items() if f == "model-0.safetensors"): "twin.safetensors"}
    )
    with pytest.raises(ValueError, match="is in two files"):
        cp.load_model(folder)
    write_index(folder, where)
    (folder / "model-1.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model-1\.safetensors"):
        cp.load_model(folder)


def test_one_file_beside_shards_of_another_model_is_refused(folder: Path) -> None:
    """transformers would read model.safetensors, and vLLM what the index names."""
    shutil.copy(folder / "model.safetensors", folder / "kept")
    where, expected = shard(folder), run(folder)
    shutil.copy(folder / "kept", folder / "model.safetensors")
    with pytest.raises(
        ValueError, match=r"index\.json: it names model-0\.safetensors, and there is model\.safetensors"
    ):
        cp.load_model(folder)
    for name in set(where.values()):
        (folder / name).unlink()
    assert torch.equal(run(folder), expected)  # an index of files that are gone tells nothing
    write_index(folder, dict.fromkeys(where, "model.safetensors"))
    assert torch.equal(run(folder), expected)


@pytest.mark.parametrize("stored", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_are_cast_to_the_dtype_asked_for(folder: Path, stored: torch.dtype) -> None:
    change(folder, lambda t: t.update({name: x.to(stored) for name, x in t.items()}))
    model = cp.load_model(folder)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert {p.dtype for p in cp.load_model(folder, dtype=torch.bfloat16).parameters()} == {torch.bfloat16}
    with pytest.raises(ValueError, match="int64"):
        cp.load_model(folder, dtype=torch.int64)


@pytest.mark.parametrize("family", list(FEATURES))
@pytest.mark.parametrize("more", [{}, {"mlp_bias": True, "o_bias": True}])
def test_counts_are_those_of_the_parameters(family: str, more: dict[str, bool]) -> None:
    model = small_model(family, **more)
    assert sum(p.numel() for p in model.parameters()) == model.config.n_params
    kv = cp.KVCache(model.config, 7, dtype=model.dtype)
    cp.prefill(model, [1, 2, 3, 4, 5, 6, 7], kv)
    assert kv.n_bytes == model.config.kv_bytes(7, 8) == 2 * kv.keys.numel() * 8


def test_published_counts() -> None:
    assert LLAMA3_8B.n_params == 8_030_261_248
    assert LLAMA3_8B.kv_bytes(1, 2) == 131_072


def test_tiny_is_the_same_each_time_and_has_room_for_lessons() -> None:
    a, b = cp.load_model("tiny"), cp.load_model("tiny", dtype=torch.float64)
    assert all(torch.equal(x.double(), y) for x, y in zip(a.parameters(), b.parameters()))
    assert a.config == TINY and a.config.max_positions >= 1024
    # written down once: the same bits on every machine
    assert float(a.embedding.double().sum()) == pytest.approx(21.359937576, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("gpt-9", None, "no model 'gpt-9'"),
        ("./nowhere/at-all", None, "no model"),
        ("/nowhere/at-all", None, "no model"),
        ("tiny", "folder", "no such folder"),
        ("tiny", "wheel", "not 'tiny'"),
        ("tiny", "web", "no source 'web'"),
    ],
)
def test_a_name_that_is_unknown(name: str, source: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cp.load_model(name, source=source)


@pytest.mark.parametrize("name", ["tiny", "smollm2-135m"])
def test_a_folder_with_a_name_of_ours_is_not_passed_over(folder: Path, monkeypatch: Any, name: str) -> None:
    """Of two models with one name neither is taken without a word."""
    kept = folder / "kept"
    kept.mkdir()
    monkeypatch.chdir(kept)
    (kept / name).mkdir()
    assert name != "tiny" or cp.load_model("tiny").config == TINY  # a folder without a model has no say
    for file in ("config.json", "model.safetensors"):
        shutil.copy(folder / file, kept / name)
    for load in (cp.load_model, cp.load_tokenizer):
        with pytest.raises(ValueError, match=rf"'{name}' names a model of this package.*say './{name}'"):
            load(name)
    for way in (f"./{name}", Path(name), Path(f"./{name}")):
        assert cp.load_model(way).config.d_model == CONFIG["hidden_size"]
    assert cp.load_model(name, source="folder").config.d_model == CONFIG["hidden_size"]


def test_the_hub_is_asked_for_what_it_holds_and_failure_lists_the_ways(
    folder: Path, monkeypatch: Any
) -> None:
    import huggingface_hub

    asked, patterns = [], {}

    def download(name: str, **more: Any) -> str:
        asked.append(name)
        patterns.update(more)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    cp.load_model("someone/something")
    cp.load_model("smollm2-135m", source="hub")
    assert asked == ["someone/something", "HuggingFaceTB/SmolLM2-135M-Instruct"]

    from huggingface_hub.utils import filter_repo_objects

    there = {
        "config.json": True,
        "model-00001-of-00002.safetensors": True,
        "model.safetensors.index.json": True,
        "chat_template.jinja": True,
        "additional_chat_templates/tool_use.jinja": True,
        "consolidated.safetensors": False,
        "original/params.json": False,
        "onnx/config.json": False,
        "adapters/adapter_config.json": False,
        "additional/model.safetensors": False,
        "pytorch_model.bin": False,
        "README.md": False,
    }
    assert list(filter_repo_objects(there, **patterns)) == [name for name, kept in there.items() if kept]

    def refuse(name: str, **more: Any) -> str:
        raise OSError("no route to host\nand a second line")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(RuntimeError, match=r"no route to host.*PyPI.*FOLDER.*tiny") as error:
        cp.load_model("someone/something")
    assert "\n" not in str(error.value) and error.value.__suppress_context__


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_layers": 0},
        {"n_heads": 3},
        {"head_dim": 7},
        {"vocab_size": -1},
        {"norm_eps": -1.0},
        {"n_layers": 2.0},
    ],
)
def test_a_config_that_no_model_has(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\d"):
        Config(**({"n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "head_dim": 8, "vocab_size": 61} | wrong))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
KEYS = [
    *CONFIG,
    "rope_scaling",
    "rope_parameters",
    "rope_theta",
    "sliding_window",
    "use_sliding_window",
    "layer_types",
    "tie_word_embeddings",
    "attention_bias",
    "mlp_bias",
    "partial_rotary_factor",
    "quantization_config",
]


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(key=st.sampled_from(KEYS), value=JSON, family=st.sampled_from(["llama", "qwen2", "qwen3", "mistral"]))
def test_any_value_in_a_config_loads_or_is_a_value_error(
    folder: Path, key: str, value: Any, family: str
) -> None:
    configure(folder, **({"model_type": family, "architectures": ...} | {key: value}))
    try:
        cp.load_model(folder)
    except ValueError as error:
        assert str(folder) in str(error)


@settings(max_examples=100, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_damage_to_a_file_loads_or_is_a_value_error(folder: Path, data: st.DataObject) -> None:
    path = folder / data.draw(st.sampled_from(["model.safetensors", "config.json"]))
    good = path.read_bytes()
    damaged = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, min(len(good), 1500) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged)
    try:
        cp.load_model(folder)
    except ValueError as error:
        assert str(folder) in str(error)
    finally:
        path.write_bytes(good)


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(content=JSON)
def test_any_index_loads_or_is_a_value_error(folder: Path, content: Any) -> None:
    if (folder / "model.safetensors").exists():
        shard(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="index"):
        cp.load_model(folder)
