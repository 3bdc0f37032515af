"""Every family against transformers, from folders that transformers itself saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import chunkprefill as cp
from chunkprefill.generation import prefill
from tests.needs import need

try:
    import transformers
except ImportError:
    transformers = None

FAMILIES = ("Llama", "Qwen2", "Qwen3", "Mistral")
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,  # so short that the test's positions cross all three bands
}


def save(folder: Path, family: str, *, seed: int = 0, scale: float = 1.0, **more: Any) -> Any:
    """A small model of a family with random weights, biases and norms included, saved by transformers."""
    need("transformers", transformers, "pip install transformers")
    shape = {
        "vocab_size": 97,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
    }
    if family == "Mistral":
        more.setdefault("sliding_window", None)
    config = getattr(transformers, f"{family}Config")(**(shape | more))
    config._attn_implementation = "eager"
    torch.manual_seed(seed)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn_like(weight) * scale
            weight.copy_(1 + 0.2 * noise if "norm" in name else noise * 0.2)
    model.save_pretrained(folder)
    return model


def theirs(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(tokens[None]).logits[0, -1].clone()


def ours(folder: Path, tokens: torch.Tensor, chunk: Any = None, backend: str = "sdpa") -> torch.Tensor:
    model = cp.load_model(folder)
    return prefill(model, tokens, cp.KVCache(model.config, len(tokens), backend=backend), chunk)


@pytest.mark.parametrize("backend", ["reference", "sdpa"])
@pytest.mark.parametrize(
    ("family", "more"),
    [
        *((family, {}) for family in FAMILIES),
        ("Llama", {"rope_parameters": LLAMA3}),
        ("Llama", {"tie_word_embeddings": True}),  # SmolLM2
        ("Llama", {"attention_bias": True, "mlp_bias": True}),
        ("Llama", {"num_key_value_heads": 4, "head_dim": 6}),
        ("Qwen2", {"tie_word_embeddings": True, "num_attention_heads": 8, "num_key_value_heads": 1}),
        ("Qwen2", {"use_sliding_window": False, "sliding_window": 4}),
        ("Qwen3", {"head_dim": 24, "tie_word_embeddings": True}),
        ("Qwen3", {"head_dim": 16, "attention_bias": True, "rms_norm_eps": 1e-3}),
        ("Mistral", {"head_dim": 10, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    ],
)
def test_logits_equal_transformers(tmp_path: Path, family: str, more: dict, backend: str) -> None:
    model = save(tmp_path, family, **more)
    tokens = torch.randint(0, 97, (75,))
    expected = theirs(model, tokens)
    assert expected.std() > 0.1  # else any answer would pass
    for chunk in (None, 1, 7, [40, 1, 34]):
        torch.testing.assert_close(ours(tmp_path, tokens, chunk, backend), expected, atol=1e-4, rtol=1e-4)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_shape_of_any_family(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    family = data.draw(st.sampled_from(FAMILIES))
    kv_heads, group = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    more = {
        "num_key_value_heads": kv_heads,
        "num_attention_heads": kv_heads * group,
        "hidden_size": kv_heads * group * 4,
        "num_hidden_layers": data.draw(st.integers(1, 3)),
        "intermediate_size": data.draw(st.integers(1, 50)),
        "tie_word_embeddings": data.draw(st.booleans()),
        "rope_parameters": data.draw(st.sampled_from([LLAMA3, {"rope_type": "default", "rope_theta": 1e4}])),
    }
    if family != "Qwen2":
        more["head_dim"] = 2 * data.draw(st.integers(1, 40))
    folder = tmp_path_factory.mktemp("model")
    model = save(folder, family, seed=data.draw(st.integers(0, 99)), **more)
    tokens = torch.tensor(data.draw(st.lists(st.integers(0, 96), min_size=1, max_size=40)))
    expected = theirs(model, tokens)
    chunk = data.draw(st.integers(1, 50))
    torch.testing.assert_close(ours(folder, tokens, chunk), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_generate_gives_the_tokens_of_transformers(tmp_path: Path, family: str) -> None:
    reference = save(tmp_path, family)
    tokens = torch.randint(0, 97, (20,), generator=torch.Generator().manual_seed(3))
    known = tokens.tolist()
    for _ in range(12):
        known.append(int(theirs(reference, torch.tensor(known)).argmax()))
    model = cp.load_model(tmp_path)
    for chunk in (None, 1, 6, 99):
        assert cp.generate(model, tokens, 12, chunk_size=chunk) == known[20:]


def test_shards_and_files_of_old_versions_load_the_same(tmp_path: Path) -> None:
    """Shards; and the two keys in which transformers 4 kept what `rope_parameters` holds now."""
    model = save(tmp_path / "whole", "Llama", rope_parameters=LLAMA3)
    model.save_pretrained(tmp_path / "shards", max_shard_size="30KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    tokens = torch.randint(0, 97, (33,))
    whole = ours(tmp_path / "whole", tokens, 5)
    assert torch.equal(ours(tmp_path / "shards", tokens, 5), whole)

    config = tmp_path / "whole" / "config.json"
    raw = json.loads(config.read_text())
    rope = raw.pop("rope_parameters")
    raw |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
    for key in ("head_dim", "tie_word_embeddings", "mlp_bias", "attention_bias"):
        raw.pop(key)
    config.write_text(json.dumps(raw))
    assert torch.equal(ours(tmp_path / "whole", tokens, 5), whole)


def test_a_tied_model_may_repeat_its_embedding(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save(tmp_path, "Llama", tie_word_embeddings=True)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, tmp_path / "model.safetensors")
    cp.load_model(tmp_path)
    tensors["lm_head.weight"][0, 0] += 1
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"lm_head\.weight is not the embedding"):
        cp.load_model(tmp_path)


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_may_be_saved_without_what_is_around_it(tmp_path: Path, tied: bool) -> None:
    """Qwen3's embeddings are: their tensors have no `model.` before them. transformers reads them."""
    from safetensors.torch import load_file, save_file

    save(tmp_path, "Qwen3", tie_word_embeddings=tied)
    tokens = torch.tensor([1, 2, 3])
    before = ours(tmp_path, tokens)
    tensors = load_file(tmp_path / "model.safetensors")
    bare = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    save_file(bare, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(ours(tmp_path, tokens), before)
    again = transformers.Qwen3ForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    torch.testing.assert_close(theirs(again, tokens), before, atol=1e-4, rtol=1e-4)
    save_file(bare | {"norm.weight": torch.ones(3)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"tensor norm\.weight is \[3\], the config asks for \[32\]"):
        cp.load_model(tmp_path)


def test_yarn_reaches_as_far_as_it_stretches(tmp_path: Path) -> None:
    """As the model cards of Qwen say it: the key is added, and the length stays what it was before."""
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 96}
    save(tmp_path, "Qwen2", max_position_embeddings=96)
    raw = json.loads((tmp_path / "config.json").read_text())
    theta = raw.pop("rope_parameters")["rope_theta"]
    for more, reach in (
        ({}, 96),
        ({"rope_scaling": yarn}, 384),
        ({"rope_scaling": yarn | {"factor": 0.5}}, 96),
    ):
        (tmp_path / "config.json").write_text(json.dumps(raw | {"rope_theta": theta} | more))
        assert cp.load_model(tmp_path).config.max_positions == reach
    (tmp_path / "config.json").write_text(json.dumps(raw | {"rope_theta": theta, "rope_scaling": yarn}))
    tokens = torch.randint(0, 97, (300,))
    model = transformers.Qwen2ForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    torch.testing.assert_close(ours(tmp_path, tokens, 64), theirs(model, tokens), atol=1e-4, rtol=1e-4)


def test_a_tied_model_may_be_kept_under_the_name_of_its_head(tmp_path: Path) -> None:
    """As `safetensors.torch.save_model` keeps a shared tensor; transformers reads such a file."""
    from safetensors.torch import load_file, save_model

    model, tokens = save(tmp_path, "Llama", tie_word_embeddings=True), torch.tensor([1, 2, 3])
    before = ours(tmp_path, tokens)
    save_model(model, str(tmp_path / "model.safetensors"), metadata={"format": "pt"})
    names = set(load_file(tmp_path / "model.safetensors"))
    assert "lm_head.weight" in names and "model.embed_tokens.weight" not in names
    assert torch.equal(ours(tmp_path, tokens), before)
    again = transformers.LlamaForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    torch.testing.assert_close(theirs(again, tokens), before, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes_load_and_give_logits_in_float32_or_wider(tmp_path: Path, dtype: torch.dtype) -> None:
    save(tmp_path, "Qwen3")
    tokens = torch.randint(0, 97, (30,))
    exact = ours(tmp_path, tokens)
    model = cp.load_model(tmp_path, dtype=dtype)
    logits = prefill(model, tokens, cp.KVCache(model.config, 30, dtype=dtype), 7)
    assert logits.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    tolerance = {torch.float64: 1e-5, torch.float16: 0.02, torch.bfloat16: 0.15}[dtype]
    assert (logits - exact).abs().max() < tolerance * exact.abs().max()
