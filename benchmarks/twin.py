"""The same weights in `transformers`, for every bench that runs beside it, on any device."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from chunkprefill.model.config import Config
from chunkprefill.model.transformer import Transformer
from chunkprefill.model.weights import layout

Prefill = Callable[[Tensor, Sequence[int]], Tensor]  # tokens, the chunks' lengths -> last logits, [vocab]


def published_config(config: Config) -> dict[str, Any]:
    """A Llama's `config.json`, as transformers and vLLM read it."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tied,
        "torch_dtype": "float32",
    }


def transformers_twin(model: Transformer) -> Any:
    """A model of `transformers` whose parameters are views of `model`'s: no second copy of the weights.

    Llama's class, or Qwen3's where heads are normed; attention by sdpa, no token that ends a text.
    Raises ImportError where `transformers` is missing.
    """
    import transformers

    c = model.config
    kind = "Qwen3" if c.qk_norm else "Llama"
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=c.vocab_size,
        hidden_size=c.d_model,
        intermediate_size=c.d_ff,
        num_hidden_layers=c.n_layers,
        num_attention_heads=c.n_heads,
        num_key_value_heads=c.n_kv_heads,
        head_dim=c.head_dim,
        max_position_embeddings=c.max_positions,
        rms_norm_eps=c.norm_eps,
        tie_word_embeddings=c.tied,
        rope_parameters={"rope_type": "default", "rope_theta": c.rope_theta},
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    config._attn_implementation = "sdpa"
    with torch.device("meta"):
        twin: Any = getattr(transformers, f"{kind}ForCausalLM")(config)
    twin.load_state_dict(published_weights(model), assign=True, strict=True)
    # RoPE's buffers are not part of the state. They are made anew: the empty model's hold nothing.
    with torch.device(model.device):
        twin.model.rotary_emb = type(twin.model.rotary_emb)(config)
    return twin.eval().requires_grad_(False)


def published_weights(model: Transformer) -> dict[str, Tensor]:
    """The model's weights under their published names, the head included: views, not copies."""
    parameters, published = dict(model.named_parameters()), dict[str, Tensor]()
    for name, parts in layout(model.config):
        pieces = parameters[name].split([shape[0] for _, shape in parts])
        published |= {theirs: piece for (theirs, _), piece in zip(parts, pieces)}
    published.setdefault("lm_head.weight", published["model.embed_tokens.weight"])
    return published


def twin_prefills(twin: Any) -> dict[str, Prefill]:
    """Prefilling in chunks with each of their caches: inference mode, logits of the last token alone."""
    from transformers import DynamicCache, StaticCache

    def run(make_cache: Callable[[int], Any], tokens: Tensor, lengths: Sequence[int]) -> Tensor:
        with torch.inference_mode():
            cache, logits = make_cache(len(tokens)), None
            for strip in tokens.split(list(lengths)):
                logits = twin(strip[None], past_key_values=cache, use_cache=True, logits_to_keep=1).logits
            assert logits is not None
            return logits[0, -1]

    config = twin.config
    return {
        "dynamic": partial(run, lambda n: DynamicCache(config=config)),
        "static": partial(run, lambda n: StaticCache(config=config, max_cache_len=n)),
    }


def quiet() -> None:
    """Silence their warnings, which would drown ours, and keep them from looking for files on a network."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    for name in ("transformers", "ContinuousBatchingLogger"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="transformers")
