"""What a price reads out of a `config.json`: mixtures of experts, sized as transformers builds them, or a reason."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import chunkprefill as cp
from benchmarks.checkpoints import SHAPE, edited, transformers
from chunkprefill.configs import MODELS
from chunkprefill.model.mixtures import MIXTURES, priced_of
from chunkprefill.servers.commands import read_model
from tests.needs import need


@pytest.fixture(autouse=True)
def oracle() -> None:
    need("transformers", transformers, "pip install transformers")


def written(name: str, **more: Any) -> tuple[dict[str, Any], int]:
    """The file that transformers writes for a small model of this name, and the parameters of its model."""
    config = getattr(transformers, f"{name}Config")(**(SHAPE | more))
    config.architectures = [f"{name}ForCausalLM"]
    model = getattr(transformers, f"{name}ForCausalLM")(config)
    return json.loads(config.to_json_string(use_diff=False)), sum(x.numel() for x in model.parameters())


EXPERTS = {
    "Mixtral": {"num_local_experts": 5, "num_experts_per_tok": 3},
    "Qwen3Moe": {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "head_dim": 10},
}


@pytest.mark.parametrize("name", EXPERTS)
@pytest.mark.parametrize("more", [{}, {"tie_word_embeddings": True}, {"num_key_value_heads": 4}])
def test_a_mixture_has_as_many_parameters_as_transformers_builds(name: str, more: dict[str, Any]) -> None:
    raw, n_params = written(name, **(EXPERTS[name] | more))
    config = priced_of(raw)
    assert config.n_params == n_params
    assert (config.n_experts, config.n_active) == {"Mixtral": (5, 3), "Qwen3Moe": (6, 2)}[name]
    old = edited(raw, {"num_local_experts": ..., "num_experts": raw["num_local_experts"]})
    assert priced_of(old) == config  # transformers 4's key
    assert priced_of(edited(raw, {"architectures": ...})) == config


@pytest.mark.parametrize("name", EXPERTS)
@pytest.mark.parametrize("bias", [False, True])
def test_silence_on_a_heads_size_is_not_that_of_the_dense_relative(name: str, bias: bool) -> None:
    """Of Qwen3 it is 128, of its mixture what a head's share of the width is."""
    more = {"attention_bias": True} if bias and name == "Qwen3Moe" else {}
    silent = {key: value for key, value in EXPERTS[name].items() if key != "head_dim"}
    raw, n_params = written(name, **(silent | more))
    config = priced_of(edited(raw, {"head_dim": ...}))
    assert (
        config.n_params == n_params
        and config.head_dim == SHAPE["hidden_size"] // SHAPE["num_attention_heads"]
    )


@pytest.mark.parametrize("name", EXPERTS)
def test_null_is_no_silence(name: str) -> None:
    raw, _ = written(name, **EXPERTS[name])
    shared = priced_of(edited(raw, {"num_key_value_heads": None}))
    assert shared.n_kv_heads == SHAPE["num_attention_heads"]  # as of a dense model; silence: the usual number
    for key in ("num_local_experts", "num_experts_per_tok", "hidden_size", "num_attention_heads"):
        with pytest.raises(ValueError, match=f"{key} is None"):
            priced_of(edited(raw, {key: None}))


def test_silence_means_what_it_means_to_transformers() -> None:
    for name, mixture in MIXTURES.items():
        usual = transformers.AutoConfig.for_model(name)
        for key, value in mixture.defaults.items():
            assert getattr(usual, key, None) == value or key == "sliding_window"


def test_the_published_file_of_qwen3_30b_is_the_shape_of_that_name() -> None:
    sizes = {
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 48,
        "num_attention_heads": 32,
    }
    more = {
        "num_key_value_heads": 4,
        "head_dim": 128,
        "vocab_size": 151_936,
        "max_position_embeddings": 40_960,
    }
    experts = {"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768}
    routing = {"decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True, "rope_theta": 1e6}
    named = {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "rms_norm_eps": 1e-6}
    windows = {"sliding_window": None, "use_sliding_window": False, "max_window_layers": 48}
    config = priced_of(sizes | more | experts | routing | named | windows)
    assert config == MODELS["qwen3-30b-a3b"]
    assert cp.price(config, "h100").source.endswith("by its sheet: experts")


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("Mixtral", {"num_local_experts": 0}, "num_local_experts is 0: a mixture has at least 1 expert"),
        ("Mixtral", {"num_experts": 7}, "num_experts is 7 and num_local_experts is 5: two keys"),
        ("Mixtral", {"num_experts_per_tok": 6}, "num_local_experts is 5, num_experts_per_tok is 6"),
        ("Mixtral", {"num_experts_per_tok": "2"}, "num_experts_per_tok is '2'"),
        ("Mixtral", {"sliding_window": 16}, "sliding_window is 16"),
        ("Mixtral", {"architectures": ["LlamaForCausalLM"]}, "model_type is 'mixtral' and architectures"),
        ("Mixtral", {"intermediate_size": ...}, "intermediate_size is None"),
        ("Mixtral", {"a_key_of_next_year": 1}, "a_key_of_next_year is 1"),
        (
            "Mixtral",
            {"quantization_config": {"quant_method": "fp8"}},
            "quantization_config is .*leave this key",
        ),
        ("Qwen3Moe", {"mlp_only_layers": [0]}, r"mlp_only_layers is \[0\]: dense layers"),
        ("Qwen3Moe", {"decoder_sparse_step": 2}, "decoder_sparse_step is 2: dense layers"),
        (
            "Qwen3Moe",
            {"shared_expert_intermediate_size": 8},
            "shared_expert_intermediate_size is 8: an expert",
        ),
        ("Qwen3Moe", {"kv_lora_rank": 8}, r"kv_lora_rank is 8: latent attention \(MLA\)"),
        (
            "Qwen3Moe",
            {"architectures": ["OlmoeForCausalLM"], "model_type": "olmoe"},
            "of mixtures only Mixtral",
        ),
    ],
)
def test_what_a_price_would_leave_out_is_refused_by_key_value_and_file(
    tmp_path: Path, name: str, changes: dict[str, Any], words: str
) -> None:
    raw, _ = written(name, **EXPERTS[name])
    path = tmp_path / "config.json"
    path.write_text(json.dumps(raw))
    assert isinstance(read_model(str(path)), cp.Config)
    path.write_text(json.dumps(edited(raw, changes)))
    with pytest.raises(ValueError, match=words) as error:
        read_model(str(path))
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name", ["DeepseekV2", "DeepseekV3", "Qwen2Moe", "Glm4Moe", "Olmoe", "GptOss", "Jamba"]
)
def test_other_mixtures_are_refused_with_the_reason(name: str) -> None:
    config = getattr(transformers, f"{name}Config")()
    config.architectures = [f"{name}ForCausalLM"]
    with pytest.raises(ValueError, match=r"(not priced|not known here|of mixtures only Mixtral)"):
        priced_of(json.loads(config.to_json_string(use_diff=False)))


def test_a_mixture_is_priced_and_not_run(tmp_path: Path) -> None:
    raw, _ = written("Mixtral", **EXPERTS["Mixtral"])
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(ValueError, match=re.escape("architecture 'MixtralForCausalLM' is unknown")):
        cp.load_model(tmp_path)
    with pytest.raises(ValueError, match="can be priced, not run"):
        cp.random_model(replace(priced_of(raw), d_ff=16))


def test_a_byte_order_mark_changes_nothing(tmp_path: Path) -> None:
    raw, _ = written("Llama")
    for text in (json.dumps(raw), "\ufeff" + json.dumps(raw)):
        (tmp_path / "config.json").write_text(text, encoding="utf-8")
        assert read_model(str(tmp_path)) == priced_of(raw)
