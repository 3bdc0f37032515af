"""The same weights in `transformers`, for benches that run beside it."""

from __future__ import annotations

from typing import Any

import torch

from chunkprefill.model.transformer import Transformer
from chunkprefill.model.weights import layout


def transformers_twin(model: Transformer, **more: Any) -> Any:
    """A `LlamaForCausalLM` with sdpa and the weights of `model`; more: further fields of its config.

    Raises ImportError where `transformers` is missing.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    c = model.config
    config = LlamaConfig(
        vocab_size=c.vocab_size, hidden_size=c.d_model, intermediate_size=c.d_ff,
        num_hidden_layers=c.n_layers, num_attention_heads=c.n_heads, num_key_value_heads=c.n_kv_heads,
        head_dim=c.head_dim, max_position_embeddings=c.max_positions, rms_norm_eps=c.norm_eps,
        tie_word_embeddings=c.tied, rope_parameters={"rope_type": "default", "rope_theta": c.rope_theta},
        **more,
    )  # fmt: skip
    config._attn_implementation = "sdpa"
    twin: Any = LlamaForCausalLM(config)
    twin = twin.to(device=model.device, dtype=model.dtype).eval()
    parameters, published = dict(model.named_parameters()), dict[str, torch.Tensor]()
    for name, parts in layout(c):
        pieces = parameters[name].split([shape[0] for _, shape in parts])
        published |= {theirs: piece for (theirs, _), piece in zip(parts, pieces)}
    twin.load_state_dict(published, strict=False)  # the tied head is the only one not named
    twin.tie_weights()
    return twin
