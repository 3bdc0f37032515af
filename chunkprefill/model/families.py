"""From `config.json` to `Config`: which families load, and what is refused for it would run wrongly."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from chunkprefill.model.config import Config, Llama3Scaling

FAMILIES = ("llama", "qwen2", "qwen3", "mistral")  # SmolLM2 is a llama
_ARCHITECTURES = {f"{name.capitalize()}ForCausalLM": name for name in FAMILIES}
_MAX_JSON_BYTES = 64 << 20
_MISTRAL_WINDOW = 4096  # what transformers takes where a mistral config names no sliding_window


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; ValueError names the file if there is none."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for, and a device need not end
            raise ValueError("no regular file")
        with path.open("rb") as file:
            content = file.read(_MAX_JSON_BYTES + 1)
        if len(content) > _MAX_JSON_BYTES:
            raise ValueError(f"larger than {_MAX_JSON_BYTES} bytes")
        value = json.loads(content.decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path}: a JSON object is needed, this is a {type(value).__name__}")
    return value


def config_of(raw: dict[str, Any]) -> Config:
    """The `Config` of a parsed `config.json`, as transformers 4 or 5 writes it.

    Raises ValueError naming the key for another architecture, a missing or mistyped value, a sliding window,
    quantised weights, or a scaling of RoPE other than Llama 3's.
    """
    family = _family(raw)
    _refuse_what_would_run_wrongly(raw, family)
    n_heads = _whole(raw, "num_attention_heads")
    d_model = _whole(raw, "hidden_size")
    max_positions = _whole(raw, "max_position_embeddings", 2048)
    if family == "mistral" and "sliding_window" not in raw:
        max_positions = min(max_positions, _MISTRAL_WINDOW)  # up to here a window changes nothing
    theta, scaling = _rope(raw)
    biased = _flag(raw, "attention_bias") if family in ("llama", "qwen3") else False
    return Config(
        n_layers=_whole(raw, "num_hidden_layers"),
        n_heads=n_heads,
        n_kv_heads=_whole(raw, "num_key_value_heads", n_heads),
        head_dim=_whole(raw, "head_dim", 128 if family == "qwen3" else d_model // max(n_heads, 1)),
        vocab_size=_whole(raw, "vocab_size"),
        d_model=d_model,
        d_ff=_whole(raw, "intermediate_size"),
        max_positions=max_positions,
        rope_theta=theta,
        rope_scaling=scaling,
        norm_eps=_number(raw, "rms_norm_eps", 1e-6),
        tied=_flag(raw, "tie_word_embeddings"),
        qkv_bias=biased or family == "qwen2",
        o_bias=biased,
        mlp_bias=_flag(raw, "mlp_bias") if family == "llama" else False,
        qk_norm=family == "qwen3",
        family=family,
    )


def _family(raw: dict[str, Any]) -> str:
    named = raw.get("model_type")
    architectures = raw.get("architectures") or []
    if not isinstance(architectures, list):
        raise ValueError(f"architectures is {architectures!r}, a list is needed")
    for architecture in architectures:
        if not isinstance(architecture, str) or architecture not in _ARCHITECTURES:
            raise ValueError(
                f"architecture {architecture!r} is unknown; there are {', '.join(_ARCHITECTURES)}"
            )
    if named is None and architectures:
        named = _ARCHITECTURES[architectures[0]]
    if named not in FAMILIES:
        raise ValueError(f"model_type {named!r} is unknown; there are {', '.join(FAMILIES)}")
    return named


def _refuse_what_would_run_wrongly(raw: dict[str, Any], family: str) -> None:
    window = raw.get("sliding_window")
    on = family == "mistral" or _flag(raw, "use_sliding_window")
    if family != "llama" and on and window is not None:
        raise ValueError(f"sliding_window is {window!r}: attention over a window is not implemented")
    kinds = raw.get("layer_types") or []
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        if kind != "full_attention":
            raise ValueError(f"layer_types holds {kind!r}: only full_attention is implemented")
    if raw.get("hidden_act", "silu") not in ("silu", "swish"):
        raise ValueError(f"hidden_act is {raw['hidden_act']!r}: only silu is implemented")
    if raw.get("quantization_config"):
        raise ValueError("quantization_config is set: quantised weights are not implemented")


def _rope(raw: dict[str, Any]) -> tuple[float, Llama3Scaling | None]:
    """Base and scaling; transformers 5 keeps both in `rope_parameters`, older files in two keys."""
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise ValueError(f"rope_scaling is {rope!r}, an object is needed")
    theta = _number(rope, "rope_theta", _number(raw, "rope_theta", 10_000.0))
    part = _number(rope, "partial_rotary_factor", _number(raw, "partial_rotary_factor", 1.0))
    if part != 1:
        raise ValueError(f"partial_rotary_factor is {part}: only whole heads are turned")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise ValueError(f"rope_type {kind!r} is not implemented; there are 'default' and 'llama3'")
    original = "original_max_position_embeddings"
    return theta, Llama3Scaling(
        factor=_number(rope, "factor"),
        low_freq_factor=_number(rope, "low_freq_factor"),
        high_freq_factor=_number(rope, "high_freq_factor"),
        original_positions=_whole(rope if original in rope else raw, original),
    )


def _whole(raw: dict[str, Any], key: str, default: int | None = None) -> int:
    value = raw.get(key)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{key} is {value!r}, a whole number of at least 1 is needed")
    return value


def _number(raw: dict[str, Any], key: str, default: float | None = None) -> float:
    value = raw.get(key)
    value = default if value is None else value
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) < 1e300:
        raise ValueError(f"{key} is {value!r}, a finite number is needed")
    return float(value)


def _flag(raw: dict[str, Any], key: str) -> bool:
    value = raw.get(key)
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"{key} is {value!r}, true or false is needed")
    return bool(value)
