"""From `config.json` to the `Config` that a price needs: dense models, and mixtures of experts, which are not run.

A mixture is read as the dense family with the same attention; its experts are read apart. What the price
would leave out (a compressed cache, experts that every token passes, dense layers between) is refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from chunkprefill.configs import table
from chunkprefill.model.config import Config
from chunkprefill.model.families import FAMILIES, config_of
from chunkprefill.strict import shown
from chunkprefill.whole import as_whole


@dataclass(frozen=True)
class Mixture:
    """What a `model_type` of a mixture means: its dense relative, and its values where a file is silent."""

    architecture: str
    dense: str  # model_type of the family with the same attention
    width: str  # the key that tells how wide an expert is
    defaults: dict[str, Any]


MIXTURES = {
    "mixtral": Mixture(
        "MixtralForCausalLM",
        "mistral",
        "intermediate_size",
        {"num_key_value_heads": 8, "num_local_experts": 8, "num_experts_per_tok": 2, "sliding_window": None},
    ),
    "qwen3_moe": Mixture(
        "Qwen3MoeForCausalLM",
        "qwen3",
        "moe_intermediate_size",
        {
            "num_key_value_heads": 4,
            "num_local_experts": 128,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 768,
        },
    ),
}
# Keys of the router: they choose among experts, or train the choice, and cost nothing that a price counts.
_ROUTING = ("norm_topk_prob", "output_router_logits", "router_aux_loss_coef", "router_jitter_noise")
_UNPRICED = table("config_keys.json")["unpriced"]


def priced_of(raw: dict[str, Any]) -> Config:
    """The `Config` of a parsed `config.json` for a price: as `config_of`, and mixtures of experts.

    Raises ValueError as `config_of`, and with the reason for what a price would leave out.
    """
    for key, why in _UNPRICED.items():
        if raw.get(key):
            raise ValueError(f"{key} is {shown(raw[key])}: {why}")
    architectures = raw.get("architectures")
    named = {mixture.architecture: name for name, mixture in MIXTURES.items()}
    first = architectures[0] if isinstance(architectures, list) and len(architectures) == 1 else None
    name = raw.get("model_type", named.get(first) if isinstance(first, str) else None)
    if not isinstance(name, str) or name not in MIXTURES:
        for key in ("num_local_experts", "num_experts", "n_routed_experts"):
            if raw.get(key):
                raise ValueError(
                    f"{key} is {shown(raw[key])}: of mixtures only {', '.join(named)} are priced"
                )
        return config_of(raw)
    mixture = MIXTURES[name]
    if architectures and first != mixture.architecture:
        raise ValueError(f"model_type is {shown(name)} and architectures is {shown(architectures)}")
    return _mixture_of(raw, mixture)


def _mixture_of(raw: dict[str, Any], mixture: Mixture) -> Config:
    """A mixture's `Config`: its attention as that of its dense relative, all its layers with experts."""
    if raw.get("mlp_only_layers") or raw.get("decoder_sparse_step", 1) != 1:
        key = "mlp_only_layers" if raw.get("mlp_only_layers") else "decoder_sparse_step"
        raise ValueError(
            f"{key} is {shown(raw[key])}: dense layers between those with experts are not priced"
        )
    kept = ("sliding_window", *mixture.defaults)  # of which null is a value of its own
    there = {key: value for key, value in raw.items() if value is not None or key in kept}
    old = there.pop("num_experts", None)  # transformers 5 writes num_local_experts
    if old is not None and there.setdefault("num_local_experts", old) != old:
        both = f"num_experts is {shown(old)} and num_local_experts is {shown(there['num_local_experts'])}"
        raise ValueError(f"{both}: two keys for one thing, and they disagree")
    there = mixture.defaults | there
    width_of_all, n_heads = (as_whole(there.get(key)) for key in ("hidden_size", "num_attention_heads"))
    if "head_dim" not in there and width_of_all and n_heads:  # a dense Qwen3 that is silent has heads of 128
        there["head_dim"] = width_of_all // n_heads
    n_experts, n_active = there.pop("num_local_experts"), there.pop("num_experts_per_tok")
    width = there.get(mixture.width)
    apart = (*_ROUTING, "mlp_only_layers", "decoder_sparse_step", "moe_intermediate_size")
    dense = {key: value for key, value in there.items() if key not in apart}
    dense |= {"model_type": mixture.dense, "architectures": [FAMILIES[mixture.dense].architecture]}
    config = config_of(dense | {"intermediate_size": width})
    if not n_experts:
        raise ValueError(f"num_local_experts is {shown(n_experts)}: a mixture has at least 1 expert")
    try:
        return replace(config, n_experts=n_experts, n_active=n_active)
    except ValueError as error:
        told = f"num_local_experts is {shown(n_experts)}, num_experts_per_tok is {shown(n_active)}"
        raise ValueError(f"{told}: {error}") from None
