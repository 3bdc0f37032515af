"""Checkpoints as transformers writes them, what others make of them, and transformers as a float64 oracle.

The table: variants that must give the logits of transformers, and variants that must be refused by name.
In float64, transformers still computes norms, RoPE and softmax in float32: 5e-7 from the truth. While
`widened` is in force, what it calls float32 is float64, and the two implementations agree to 1e-14.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import chunkprefill as cp

try:
    import transformers
except ImportError:
    transformers = None  # type: ignore[assignment]

SHAPE = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
N_TOKENS = 130


@contextmanager
def widened() -> Iterator[None]:
    """Within: every float32 that transformers names is float64, and so is what it builds without a dtype."""
    kept: list[tuple[Any, str, Any]] = [(torch, "float32", torch.float32), (torch, "float", torch.float32)]
    kept.append((torch.Tensor, "float", torch.Tensor.float))
    default = torch.get_default_dtype()
    try:
        torch.float32 = torch.float = torch.float64
        torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
        torch.set_default_dtype(torch.float64)
        yield
    finally:
        for owner, name, value in kept:
            setattr(owner, name, value)
        torch.set_default_dtype(default)


def written(folder: Path, family: str, **more: Any) -> dict[str, Any]:
    """The `config.json` that transformers writes for a small model of a family, as an object and a file."""
    if family == "Mistral":
        more = {"sliding_window": None} | more
    config = getattr(transformers, f"{family}Config")(**(SHAPE | more))
    config.architectures = [f"{family}ForCausalLM"]
    config.save_pretrained(folder)
    return json.loads((folder / "config.json").read_text())


def write(folder: Path, raw: dict[str, Any]) -> None:
    (folder / "config.json").write_text(json.dumps(raw))


def logits_of_transformers(folder: Path, tokens: torch.Tensor, family: str) -> torch.Tensor:
    """The last token's logits of the model that transformers makes of the folder's `config.json`.

    Its random weights, biases and norms included, are saved beside it. `family` must be what the file says.
    """
    config = transformers.AutoConfig.from_pretrained(folder)
    config._attn_implementation = "eager"
    generator = torch.Generator().manual_seed(0)
    with widened(), torch.inference_mode():
        model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
            weight.copy_(1 + 0.2 * noise if "norm" in name else 0.2 * noise)
        logits = model(tokens[None], use_cache=False).logits[0, -1].clone()
    tensors = {name: x.clone() for name, x in model.state_dict().items()}
    if config.tie_word_embeddings:
        del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors")
    return logits


FAMILIES = ("Llama", "Qwen2", "Qwen3", "Mistral")
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}


def rope(kind: str, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10_000.0} | more}


def yarn(**more: Any) -> dict[str, Any]:
    return rope("yarn", **({"factor": 4.0, "original_max_position_embeddings": 64} | more))


FEATURES: dict[str, dict[str, Any]] = {
    "plain": {},
    "tied": {"tie_word_embeddings": True},
    "one key head": {"num_key_value_heads": 1},
    "every head its own keys": {"num_key_value_heads": 4},
    "more heads": {"num_attention_heads": 8, "num_key_value_heads": 4},
    "one layer": {"num_hidden_layers": 1},
    "three layers, wide": {"num_hidden_layers": 3, "intermediate_size": 100, "vocab_size": 97},
    "large epsilon": {"rms_norm_eps": 1e-2},
    "large base": rope("default", rope_theta=1e6),
    "base below one": rope("default", rope_theta=0.5),
    "many positions": {"max_position_embeddings": 100_000},
    "llama3": rope("llama3", factor=8.0, **LLAMA3),
    "linear": rope("linear", factor=3.0),
    "linear, large base": rope("linear", factor=2.5, rope_theta=5e5),
    "yarn": yarn(),
    "yarn, not truncated": yarn(truncate=False),
    "yarn, a given amplitude": yarn(attention_factor=1.5),
    "yarn, as DeepSeek writes it": yarn(mscale=0.7, mscale_all_dim=1.3, beta_fast=16, beta_slow=2),
    "yarn, one weight of two": yarn(mscale=0.7),
    "yarn, ends that meet": yarn(original_max_position_embeddings=4, beta_fast=8.0),
    "yarn, slower": yarn(beta_fast=4, beta_slow=0.25, rope_theta=1e6, factor=16.0),
}
OWN: list[tuple[str, str, dict[str, Any]]] = [
    ("Llama", "biased attention", {"attention_bias": True}),
    ("Llama", "biased MLP", {"mlp_bias": True}),
    ("Llama", "both biases, tied", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    ("Llama", "wide heads", {"head_dim": 20}),
    ("Llama", "wide heads, biased, yarn", {"head_dim": 20, "attention_bias": True} | yarn()),
    ("Llama", "sizes of SmolLM2", {"num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 72}),
    ("Qwen2", "a window switched off", {"use_sliding_window": False, "sliding_window": 4}),
    ("Qwen2", "all layers named full", {"layer_types": ["full_attention"] * 2}),
    ("Qwen3", "default heads of 128", {}),
    ("Qwen3", "small heads, biased", {"head_dim": 6, "attention_bias": True}),
    ("Qwen3", "wide heads, yarn", {"head_dim": 24, "tie_word_embeddings": True} | yarn()),
    ("Qwen3", "a window switched off", {"use_sliding_window": False, "sliding_window": 4}),
    ("Mistral", "heads of 10", {"head_dim": 10}),
    ("Mistral", "wide heads", {"head_dim": 40, "num_key_value_heads": 1} | rope("linear", factor=2)),
]
AGREE = [(family, name, more) for family in FAMILIES for name, more in FEATURES.items()] + OWN

# What others add to a file, or take out of it, without changing what it means.
OLD_ROPE = {"rope_parameters": ..., "rope_theta": 10_000.0}
EDITS: list[tuple[str, dict[str, Any]]] = [
    ("Llama", {"rope_parameters": ..., "rope_theta": 50_000.0, "rope_scaling": None}),
    ("Llama", OLD_ROPE | {"rope_scaling": {"type": "linear", "factor": 2.0}}),
    ("Qwen2", OLD_ROPE | {"rope_scaling": {"type": "yarn", "factor": 4.0}}),
    ("Qwen3", OLD_ROPE | {"rope_scaling": {"rope_type": "yarn", "factor": None, "type": "yarn"}}),
    ("Llama", OLD_ROPE | {"rope_scaling": {"rope_type": "llama3", "factor": 8.0} | LLAMA3}),
    ("Llama", {"rope_scaling": {"rope_type": "default", "rope_theta": 10_000.0}}),
    ("Llama", {"rope_theta": 10_000}),
    ("Llama", {"rope_parameters": ...}),
    ("Llama", {"rope_parameters": {}}),
    ("Mistral", {"rope_parameters": {"rope_theta": 20_000.0}}),
    ("Qwen2", {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1e4, "truncate": None}}),
    ("Llama", {"original_max_position_embeddings": 32} | rope("yarn", factor=8.0)),
    ("Llama", {"partial_rotary_factor": 1.0}),
    ("Llama", {"is_causal": True, "is_decoder": True, "use_cache": False}),
    ("Llama", {"torch_dtype": "bfloat16", "dtype": ...}),
    ("Llama", {"torch_dtype": "float16", "dtype": "float16"}),
    ("Llama", {"architectures": ...}),
    ("Llama", {"is_llama_config": True, "rope_interleaved": False, "pretraining_tp": 1}),  # SmolLM2's file
    ("Llama", {"num_key_value_heads": None}),
    ("Llama", {"head_dim": ..., "attention_bias": ..., "mlp_bias": ..., "rms_norm_eps": ...}),
    ("Llama", {"head_dim": None, "hidden_act": "swish"}),
    ("Llama", {"attention_dropout": 0.3, "initializer_range": 0.5, "pad_token_id": 3}),
    ("Llama", {"temperature": 0.6, "top_p": 0.9, "do_sample": True, "max_length": 50}),
    ("Llama", {"id2label": {"0": "a", "1": "b", "2": "c"}, "problem_type": None}),
    ("Llama", {"unsloth_version": "2026.1", "_name_or_path": "x", "transformers_version": "4.40"}),
    ("Qwen2", {"max_window_layers": 1, "use_sliding_window": False}),
    ("Qwen2", {"layer_types": ..., "use_sliding_window": ..., "sliding_window": 16}),
    ("Qwen2", {"use_mrope": False, "mlp_bias": False}),
    ("Qwen3", {"layer_types": ..., "max_window_layers": 1}),
    ("Qwen3", {"logit_scale": None, "attn_logit_softcapping": None}),
    ("Mistral", {"num_key_value_heads": 4, "attention_bias": False, "mlp_bias": False}),
    ("Mistral", {"sliding_window": ..., "max_position_embeddings": 300}),
]


FACTOR2 = {"rope_type": "linear", "factor": 2.0}
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    # Two keys for one thing.
    ("Qwen2", {"rope_scaling": {"type": "yarn", "factor": 4.0}}, r"rope_parameters is .* rope_scaling is"),
    ("Llama", {"rope_scaling": FACTOR2}, r"rope_parameters is .* and rope_scaling is .*disagree"),
    ("Llama", rope("linear", factor=2.0) | {"rope_scaling": FACTOR2 | {"factor": 4.0}}, "disagree"),
    ("Llama", rope("linear", factor=2.0, rope_theta=1e6) | {"rope_scaling": FACTOR2}, "disagree"),
    ("Llama", {"rope_theta": 1e6}, r"rope_theta is 1000000\.0 and rope_parameters\.rope_theta is 10000"),
    ("Llama", rope("linear", factor=2.0, type="yarn"), r"rope_type is 'linear' and rope_parameters\.type"),
    ("Llama", {"original_max_position_embeddings": 32} | yarn(), "original_max_position_embeddings is 32"),
    ("Llama", {"partial_rotary_factor": 0.5} | rope("default", partial_rotary_factor=1.0), "partial_rotary"),
    ("Llama", {"dtype": "float32", "torch_dtype": "bfloat16"}, "dtype is 'float32' and torch_dtype is"),
    ("Llama", {"model_type": "mistral"}, "model_type is 'mistral' and architectures names"),
    ("Llama", {"architectures": ["LlamaForCausalLM", "Qwen2ForCausalLM"]}, "architectures names 'Qwen2"),
    ("Llama", {"num_kv_heads": 4}, "num_kv_heads is 4"),
    ("Llama", {"n_head_kv": 4}, "n_head_kv is 4"),
    ("Llama", {"layer_types": ["full_attention"]}, "layer_types is .* and num_hidden_layers is 2"),
    ("Llama", {"layer_types": "full_attention"}, "layer_types is 'full_attention'"),
    ("Llama", {"tie_word_embeddings": True}, r"lm_head\.weight is not the embedding"),
    ("Llama", {"head_dim": 16}, r"q_proj\.weight is \[32, 32\], the config asks for \[64, 32\]"),
    ("Llama", {"attention_bias": True}, r"q_proj\.bias is missing"),
    ("Llama", {"mlp_bias": True}, r"gate_proj\.bias is missing"),
    ("Mistral", {"num_key_value_heads": ...}, "4 query heads cannot share 8"),
    # Attention of another kind.
    ("Qwen2", {"is_causal": False}, "is_causal is False"),
    ("Qwen3", {"is_causal": None}, "is_causal is None"),
    ("Llama", {"is_causal": 0}, "is_causal is 0"),
    ("Llama", {"use_bidirectional_attention": True}, "use_bidirectional_attention is True"),
    ("Qwen2", {"use_sliding_window": True, "sliding_window": ...}, "sliding_window is 4096, the default"),
    ("Qwen3", {"use_sliding_window": True, "sliding_window": ...}, "sliding_window is 4096, the default"),
    ("Qwen3", {"use_sliding_window": True, "sliding_window": 8}, "sliding_window is 8"),
    ("Qwen2", {"layer_types": ["full_attention", "sliding_attention"]}, "'sliding_attention'"),
    ("Llama", {"layer_types": ["chunked_attention"] * 2}, "'chunked_attention'"),
    ("Llama", {"sliding_window": 16}, "sliding_window is 16"),
    ("Mistral", {"sliding_window": 16}, "sliding_window is 16"),
    ("Mistral", {"sliding_window": 16, "use_sliding_window": False}, "sliding_window is 16"),
    ("Llama", {"attention_chunk_size": 16}, "attention_chunk_size is 16"),
    ("Llama", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping is 50"),
    ("Llama", {"final_logit_softcapping": 30.0}, "final_logit_softcapping is 30"),
    ("Llama", {"query_pre_attn_scalar": 16}, "query_pre_attn_scalar is 16"),
    ("Llama", {"attention_multiplier": 0.5}, "attention_multiplier is 0.5"),
    ("Llama", {"embedding_multiplier": 12.0}, "embedding_multiplier is 12"),
    ("Llama", {"residual_multiplier": 0.2}, "residual_multiplier is 0.2"),
    ("Llama", {"logits_scaling": 8.0}, "logits_scaling is 8"),
    ("Llama", {"logit_scale": 0.0625}, "logit_scale is 0.0625"),
    ("Llama", {"use_qk_norm": True}, "use_qk_norm is True"),
    ("Llama", {"qk_layernorm": False}, "qk_layernorm is False"),
    ("Llama", {"clip_qkv": 8.0}, "clip_qkv is 8"),
    ("Llama", {"alibi": True}, "alibi is True"),
    ("Llama", {"no_rope_layers": [1, 0]}, "no_rope_layers is"),
    ("Llama", {"no_rope_layer_interval": 4}, "no_rope_layer_interval is 4"),
    ("Llama", {"num_local_experts": 8}, "num_local_experts is 8"),
    ("Llama", {"dual_chunk_attention_config": {"chunk_size": 8}}, "dual_chunk_attention_config is"),
    ("Llama", {"per_layer_config": {"0": {"hidden_act": "gelu"}}}, "per_layer_config is"),
    ("Llama", {"rope_interleaved": True}, "rope_interleaved is True"),
    ("Llama", {"add_cross_attention": True}, "add_cross_attention is True"),
    ("Llama", {"parallel_attn": True}, "parallel_attn is True"),
    ("Llama", {"layer_norm_eps": 1e-5}, "layer_norm_eps is 1e-05"),
    ("Llama", {"text_config": {"hidden_size": 8}}, "text_config is"),
    ("Llama", {"auto_map": {"AutoModelForCausalLM": "modeling.X"}}, "auto_map is"),
    ("Llama", {"transformers_weights": "other.safetensors"}, "transformers_weights is"),
    ("Llama", {"a_key_of_next_year": False}, "a_key_of_next_year is False"),
    # Other values of keys that are known.
    ("Llama", {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
    ("Llama", {"hidden_act": None}, "hidden_act is None"),
    ("Qwen2", {"attention_bias": True}, "attention_bias is True"),
    ("Qwen2", {"attention_bias": False}, "attention_bias is False"),
    ("Mistral", {"attention_bias": True}, "attention_bias is true"),
    ("Qwen3", {"mlp_bias": True}, "mlp_bias is true"),
    ("Llama", {"quantization_config": {"quant_method": "fp8"}}, "quantization_config is {'quant_method'"),
    ("Llama", {"quantization_config": {}}, "quantization_config is {}"),
    # RoPE of another kind.
    ("Llama", rope("dynamic", factor=2.0), "'dynamic' is refused: its angles depend on the length"),
    ("Llama", rope("longrope", factor=2.0), "'longrope' is refused: its angles depend on the length"),
    ("Llama", OLD_ROPE | {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "'dynamic' is refused"),
    ("Llama", OLD_ROPE | {"rope_scaling": {"type": "su"}}, "'su' is refused"),
    ("Llama", rope("proportional"), "'proportional' is not implemented"),
    ("Llama", rope("mrope", mrope_section=[1, 2, 1]), "'mrope' is not implemented"),
    ("Llama", rope("default", mrope_section=[1, 2, 1]), r"rope_parameters\.mrope_section is \[1, 2, 1\]"),
    ("Llama", rope("default", factor=2.0), r"rope_parameters\.factor is 2"),
    ("Llama", rope("linear", factor=2.0, beta_fast=3), r"rope_parameters\.beta_fast is 3"),
    ("Llama", rope("linear"), "factor is None"),
    ("Llama", rope("linear", factor=0.0), "factor above 0"),
    ("Llama", rope("default", partial_rotary_factor=0.5), "partial_rotary_factor is 0.5"),
    ("Qwen3", {"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "full_attention is"),
    ("Llama", yarn(beta_fast=1, beta_slow=2), "beta_slow <= beta_fast"),
    ("Llama", yarn(rope_theta=1.0), r"rope_theta is 1\.0"),
    ("Llama", yarn(truncate="no"), "truncate is 'no'"),
    ("Llama", yarn(original_max_position_embeddings=64.5), "original_max_position_embeddings is 64.5"),
]


def edited(raw: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in (raw | changes).items() if value is not ...}


def largest_gap(folder: Path, family: str, chunks: tuple[int | None, ...] = (None, 7, 64)) -> float:
    """How far our logits are from those of transformers, relative to the largest, whole and in chunks."""
    tokens = torch.randint(0, 61, (N_TOKENS,), generator=torch.Generator().manual_seed(1))
    expected = logits_of_transformers(folder, tokens, family)
    if expected.dtype != torch.float64 or not expected.std() > 0.1:  # else any answer would pass
        raise ValueError(f"the oracle's logits are {expected.dtype} and spread by {expected.std()}")
    model = cp.load_model(folder, dtype=torch.float64)
    worst = 0.0
    for chunk in chunks:
        logits = cp.prefill(model, tokens, cp.KVCache(model.config, N_TOKENS, dtype=torch.float64), chunk)
        gap = float((logits - expected).abs().max() / expected.abs().max())
        worst = max(worst, gap if gap == gap else float("inf"))
    return worst
