"""From `config.json` to `Config`: which families load, and what is refused because it would run wrongly.

A key of the file is honoured, or known to change nothing in what a model computes, or refused by name
(`data/config_keys.json` says which). An unknown key is refused: it may be the one that matters.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from chunkprefill.configs import table
from chunkprefill.model.config import Config
from chunkprefill.model.rope import (
    LinearScaling,
    Llama3Scaling,
    RopeScaling,
    YarnScaling,
    yarn_amplitude,
)
from chunkprefill.strict import instead, loads, shown, words

_MAX_JSON_BYTES = 64 << 20


@dataclass(frozen=True)
class Family:
    """What a `model_type` means where its `config.json` is silent, and which of its parts a key switches."""

    architecture: str
    n_kv_heads: int | None = None  # where the file does not name them; None: as many as there are heads
    head_dim: int | None = None  # None: hidden_size // num_attention_heads
    max_positions: int = 2048
    biases: tuple[str, ...] = ()  # of the keys attention_bias and mlp_bias, those that the family reads
    qkv_bias: bool = False  # always, whatever a key says
    qk_norm: bool = False
    # What sliding_window means: "always" a window, only where one is "switched" on, or "none" is known.
    window: str = "none"


FAMILIES = {
    "llama": Family("LlamaForCausalLM", biases=("attention_bias", "mlp_bias")),  # SmolLM2 is one
    "qwen2": Family(
        "Qwen2ForCausalLM", n_kv_heads=32, max_positions=32_768, qkv_bias=True, window="switched"
    ),
    "qwen3": Family(
        "Qwen3ForCausalLM",
        n_kv_heads=32,
        head_dim=128,
        max_positions=32_768,
        biases=("attention_bias",),
        qk_norm=True,
        window="switched",
    ),
    "mistral": Family("MistralForCausalLM", n_kv_heads=8, max_positions=131_072, window="always"),
}
_DEFAULT_WINDOW = 4096  # tokens, of every family here that has a window and a file that does not name it

_KEYS = table("config_keys.json")
_HONOURED, _FIXED = frozenset(_KEYS["honoured"]), _KEYS["fixed"]
_HARMLESS = frozenset(chain.from_iterable(_KEYS["harmless"].values()))


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; ValueError names the file if there is none."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for, and a device need not end
            raise ValueError("no regular file")
        with path.open("rb") as file:
            content = file.read(_MAX_JSON_BYTES + 1)
        if len(content) > _MAX_JSON_BYTES:
            raise ValueError(f"larger than {_MAX_JSON_BYTES} bytes")
        value = loads(content.decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable as JSON ({instead(path) or error})") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path}: a JSON object is needed, this is a {type(value).__name__}")
    return value


def read_config(path: Path, of: Callable[[dict[str, Any]], Config] | None = None) -> Config:
    """The `Config` of a `config.json`, as `config_of` or `of` reads it; errors name the file."""
    raw = read_json(path)
    try:
        return (of or config_of)(raw)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def config_of(raw: dict[str, Any]) -> Config:
    """The `Config` of a parsed `config.json`, as transformers 4 or 5 writes it.

    Raises ValueError naming the key and its value for another architecture, a missing or mistyped value, two
    keys that disagree, and everything that would change the computation: a sliding window, quantised weights,
    attention that is not causal, a stretched RoPE other than Llama 3's, linear and YaRN, and unknown keys.
    """
    name = _family_name(raw)
    family = FAMILIES[name]
    _refuse_unknown_keys(raw, name)
    _refuse_other_computations(raw)
    agreed("dtype", _bare_dtype(raw, "dtype"), "torch_dtype", _bare_dtype(raw, "torch_dtype"))
    n_heads, d_model, n_layers = (
        whole_at(raw, key) for key in ("num_attention_heads", "hidden_size", "num_hidden_layers")
    )
    _refuse_windows(raw, family, n_layers)
    n_kv_heads = family.n_kv_heads if "num_key_value_heads" not in raw else None
    positions = whole_at(raw, "max_position_embeddings", family.max_positions)
    theta, scaling = _rope(raw, positions)
    if isinstance(scaling, YarnScaling):  # model cards add it to a file that keeps its old length
        positions = max(positions, int(scaling.factor * scaling.original_positions))
    if family.window == "always" and "sliding_window" not in raw:
        positions = min(positions, _DEFAULT_WINDOW)  # up to here a window changes nothing
    biased = flag_at(raw, "attention_bias") and "attention_bias" in family.biases
    return Config(
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=whole_at(raw, "num_key_value_heads", n_kv_heads or n_heads),
        head_dim=whole_at(raw, "head_dim", family.head_dim or d_model // n_heads),
        vocab_size=whole_at(raw, "vocab_size"),
        d_model=d_model,
        d_ff=whole_at(raw, "intermediate_size"),
        max_positions=positions,
        rope_theta=theta,
        rope_scaling=scaling,
        norm_eps=number_at(raw, "rms_norm_eps", 1e-6 if "rms_norm_eps" not in raw else None),
        tied=flag_at(raw, "tie_word_embeddings"),
        qkv_bias=biased or family.qkv_bias,
        o_bias=biased,
        mlp_bias=flag_at(raw, "mlp_bias") and "mlp_bias" in family.biases,
        qk_norm=family.qk_norm,
        family=name,
    )


def _family_name(raw: dict[str, Any]) -> str:
    named = raw.get("model_type")
    architectures = raw.get("architectures") or []
    if not isinstance(architectures, list):
        raise ValueError(f"architectures is {shown(architectures)}, a list is needed")
    known = {family.architecture: name for name, family in FAMILIES.items()}
    for architecture in architectures:
        if not isinstance(architecture, str) or architecture not in known:
            raise ValueError(f"architecture {shown(architecture)} is unknown; there are {', '.join(known)}")
        named = known[architecture] if named is None else named
        if named != known[architecture]:
            raise ValueError(f"model_type is {shown(named)} and architectures names {architecture!r}")
    if not isinstance(named, str) or named not in FAMILIES:
        raise ValueError(f"model_type {shown(named)} is unknown; there are {', '.join(FAMILIES)}")
    return named


def _refuse_unknown_keys(raw: dict[str, Any], name: str) -> None:
    for key, value in raw.items():
        if key in _FIXED:
            if value not in _FIXED[key]["right"]:
                raise ValueError(f"{key} is {shown(value)}: {_FIXED[key]['why']}")
        elif value is not None and key not in _HONOURED | _HARMLESS:
            raise ValueError(
                f"{key} is {shown(value)}: an unknown key of a {name}, which may change what it computes"
            )
    for key in ("attention_bias", "mlp_bias"):
        if key in FAMILIES[name].biases:
            continue
        if FAMILIES[name].qkv_bias and key == "attention_bias" and raw.get(key) is not None:
            raise ValueError(
                f"{key} is {shown(raw[key])}: a {name} has biases for q, k and v, and none for o"
            )
        if flag_at(raw, key):
            raise ValueError(f"{key} is true: a {name} has no such biases")


def _refuse_other_computations(raw: dict[str, Any]) -> None:
    if raw.get("hidden_act", "silu") not in ("silu", "swish"):
        raise ValueError(f"hidden_act is {shown(raw['hidden_act'])}: only silu is implemented")
    if raw.get("quantization_config") is not None:
        raise ValueError(
            f"quantization_config is {shown(raw['quantization_config'])}: "
            "quantised weights are not implemented"
        )
    code = raw.get("auto_map")
    classes = set(code) if isinstance(code, dict) else {str(code)}
    if code is not None and not classes <= {"AutoTokenizer", "AutoProcessor"}:
        raise ValueError(f"auto_map is {shown(code)}: the code that comes with a model is not run")


def _bare_dtype(raw: dict[str, Any], key: str) -> str | None:
    return None if raw.get(key) is None else str(raw[key]).removeprefix("torch.")


def _refuse_windows(raw: dict[str, Any], family: Family, n_layers: int) -> None:
    kinds = raw.get("layer_types")
    for kind in kinds if isinstance(kinds, list) else [] if kinds is None else [kinds]:
        if kind != "full_attention":
            raise ValueError(f"layer_types holds {shown(kind)}: only full_attention is implemented")
    if isinstance(kinds, str) or (kinds is not None and len(kinds) != n_layers):
        raise ValueError(f"layer_types is {shown(kinds)} and num_hidden_layers is {n_layers}")
    on = flag_at(raw, "use_sliding_window")
    window, default = raw.get("sliding_window"), ""
    if on and "sliding_window" not in raw:
        window, default = _DEFAULT_WINDOW, ", the default, because use_sliding_window is true"
    off = not on and family.window == "switched"
    off = off or (family.window == "none" and raw.get("use_sliding_window") is False)
    if window is not None and not off:
        raise ValueError(
            f"sliding_window is {shown(window)}{default}: attention over a window is not implemented"
        )


def _rope(raw: dict[str, Any], positions: int) -> tuple[float, RopeScaling | None]:
    """Base and scaling; transformers 5 keeps both in `rope_parameters`, older files in two keys."""
    found = {}
    for key in ("rope_parameters", "rope_scaling"):
        value = raw.get(key)
        if value is not None and not isinstance(value, dict):
            raise ValueError(f"{key} is {shown(value)}, an object is needed")
        if value:
            found[key] = _rope_of(key, value, raw, positions)
    if len(set(found.values())) > 1:
        raise ValueError(
            f"rope_parameters is {shown(raw['rope_parameters'])} and rope_scaling is "
            f"{shown(raw['rope_scaling'])}: two keys for one thing, and they disagree"
        )
    return next(iter(found.values())) if found else _rope_of("rope_parameters", {}, raw, positions)


_ROPE_KEYS = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": words(
        """
        factor original_max_position_embeddings attention_factor beta_fast beta_slow mscale mscale_all_dim
        truncate
        """
    ),
}
_LENGTH_BOUND = ("dynamic", "longrope", "su")  # "su" is longrope's first name


def _rope_of(
    where: str, rope: dict[str, Any], raw: dict[str, Any], positions: int
) -> tuple[float, RopeScaling | None]:
    kind = _rope_kind(where, rope)
    for key, value in rope.items():
        known = ("rope_type", "type", "rope_theta", "partial_rotary_factor", *_ROPE_KEYS[kind])
        if key not in known and value is not None:
            raise ValueError(f"{where}.{key} is {shown(value)}: rope_type {kind!r} has no such value here")
    theta = _one_of_two(where, rope, raw, "rope_theta", 10_000.0)
    part = _one_of_two(where, rope, raw, "partial_rotary_factor", 1.0)
    if part != 1:
        raise ValueError(f"partial_rotary_factor is {part}: only whole heads are turned")
    if kind == "default":
        return theta, None
    if kind == "linear":
        return theta, LinearScaling(number_at(rope, "factor"))
    original = _one_of_two(where, rope, raw, "original_max_position_embeddings", positions)
    if original != int(original):
        raise ValueError(f"original_max_position_embeddings is {original}, a whole number is needed")
    if kind == "llama3":
        return theta, Llama3Scaling(
            factor=number_at(rope, "factor"),
            low_freq_factor=number_at(rope, "low_freq_factor"),
            high_freq_factor=number_at(rope, "high_freq_factor"),
            original_positions=int(original),
        )
    return theta, _yarn(rope, theta, int(original), positions)


def _rope_kind(where: str, rope: dict[str, Any]) -> str:
    kind = agreed(f"{where}.rope_type", rope.get("rope_type"), f"{where}.type", rope.get("type"))
    kind = "default" if kind is None else kind
    if kind in _LENGTH_BOUND:
        raise ValueError(
            f"{where}: rope_type {kind!r} is refused: its angles depend on the length of the whole sequence, "
            "so keys cached while it was shorter would be wrong, and chunks would not give the same cache"
        )
    if not isinstance(kind, str) or kind not in _ROPE_KEYS:
        raise ValueError(
            f"{where}: rope_type {shown(kind)} is not implemented; there are {', '.join(_ROPE_KEYS)}"
        )
    return kind


def _yarn(rope: dict[str, Any], theta: float, original: int, positions: int) -> YarnScaling:
    if theta <= 1:
        raise ValueError(f"rope_theta is {theta}: yarn needs one above 1")
    factor = number_at(rope, "factor", positions / original)
    mscale, all_dim = (number_at(rope, key, 0.0) for key in ("mscale", "mscale_all_dim"))
    return YarnScaling(
        factor=factor,
        original_positions=original,
        amplitude=number_at(rope, "attention_factor", yarn_amplitude(factor, mscale, all_dim)),
        beta_fast=number_at(rope, "beta_fast", 32.0) or 32.0,
        beta_slow=number_at(rope, "beta_slow", 1.0) or 1.0,
        truncate=flag_at(rope, "truncate", True),
    )


def agreed(one: str, value: Any, other: str, other_value: Any) -> Any:
    """The value of two keys that mean one thing, None without any; ValueError where they disagree."""
    if value is not None and other_value is not None and value != other_value:
        raise ValueError(
            f"{one} is {shown(value)} and {other} is {shown(other_value)}: two places for one thing, and they "
            "disagree"
        )
    return value if other_value is None else other_value


def _one_of_two(where: str, rope: dict[str, Any], raw: dict[str, Any], key: str, default: float) -> float:
    """A number that may stand in the rope's own object, beside it, or in both if they agree."""
    return number_at({key: agreed(key, raw.get(key), f"{where}.{key}", rope.get(key))}, key, default)


def whole_at(raw: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """The whole number, at least 1, that a file gives under a key; a key without a value means `default`."""
    value = raw.get(key)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{key} is {shown(value)}, a whole number of at least 1 is needed")
    return value


def number_at(raw: Mapping[str, Any], key: str, default: float | None = None) -> float:
    """The finite number that a file gives under a key; a key without a value means `default`."""
    value = raw.get(key)
    value = default if value is None else value
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) < 1e300:
        raise ValueError(f"{key} is {shown(value)}, a finite number is needed")
    return float(value)


def flag_at(raw: Mapping[str, Any], key: str, default: bool = False) -> bool:
    """The truth value that a file gives under a key; null is no, a missing key means `default`."""
    value = raw.get(key, default)
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"{key} is {shown(value)}, true or false is needed")
    return bool(value)
