"""Checkpoints as transformers writes and reads them: each gives the same logits, or is refused by name.

The oracle reads the very `config.json` that we read, in float64 (see `benchmarks.checkpoints`), so a key that one of the two
honours and the other passes over shows as a difference.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import chunkprefill as cp
from benchmarks.checkpoints import (
    AGREE,
    EDITS,
    FAMILIES,
    REFUSED,
    SHAPE,
    edited,
    largest_gap,
    logits_of_transformers,
    transformers,
    write,
    written,
)
from chunkprefill.model import families
from tests.needs import need


@pytest.fixture(autouse=True)
def oracle() -> None:
    need("transformers", transformers, "pip install transformers")


@pytest.mark.parametrize(("family", "name", "more"), AGREE, ids=[f"{f}-{n}" for f, n, _ in AGREE])
def test_what_transformers_writes_gives_its_logits(
    tmp_path: Path, family: str, name: str, more: dict[str, Any]
) -> None:
    written(tmp_path, family, **more)
    assert largest_gap(tmp_path, family) < 1e-9


@pytest.mark.parametrize(("family", "changes"), EDITS, ids=[f"{f}-{'-'.join(c)}" for f, c in EDITS])
def test_what_others_write_gives_the_logits_of_transformers(
    tmp_path: Path, family: str, changes: dict[str, Any]
) -> None:
    write(tmp_path, edited(written(tmp_path, family), changes))
    assert largest_gap(tmp_path, family) < 1e-9


@pytest.mark.parametrize(
    ("family", "changes", "message"), REFUSED, ids=[f"{f}-{m[:40]}" for f, _, m in REFUSED]
)
def test_what_would_run_wrongly_is_refused_by_key_value_and_file(
    tmp_path: Path, family: str, changes: dict[str, Any], message: str
) -> None:
    raw = written(tmp_path, family)
    logits_of_transformers(tmp_path, torch.tensor([1, 2]), family)
    cp.load_model(tmp_path)  # before the change it loads
    write(tmp_path, edited(raw, changes))
    with pytest.raises(ValueError, match=message) as error:
        cp.load_model(tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_the_table_is_as_large_as_it_says() -> None:
    assert len(AGREE) + len(EDITS) + len(REFUSED) >= 200
    assert len(AGREE) + len(EDITS) >= 100


RELATIVES = (
    "Apertus",
    "Arcee",
    "Bamba",
    "BitNet",
    "Bloom",
    "Cohere",
    "Cohere2",
    "DeepseekV3",
    "DiffLlama",
    "Dots1",
    "Ernie4_5",
    "Exaone4",
    "Falcon",
    "Gemma",
    "Gemma2",
    "Glm",
    "Glm4",
    "GPT2",
    "GPTNeoX",
    "Granite",
    "GraniteMoe",
    "Helium",
    "JetMoe",
    "Lfm2",
    "Ministral",
    "Mixtral",
    "Nemotron",
    "Olmo",
    "Olmo2",
    "Olmo3",
    "Olmoe",
    "Persimmon",
    "Phi",
    "Phi3",
    "Qwen2Moe",
    "Qwen3Moe",
    "Qwen3Next",
    "SeedOss",
    "SmolLM3",
    "StableLm",
    "Starcoder2",
)


@pytest.mark.parametrize("family", RELATIVES)
def test_near_relatives_are_refused_by_name_even_under_the_name_of_llama(tmp_path: Path, family: str) -> None:
    if not hasattr(transformers, f"{family}Config"):
        pytest.skip(f"this transformers has no {family}")
    config = getattr(transformers, f"{family}Config")()
    config.architectures = [f"{family}ForCausalLM"]
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"architecture '{family}ForCausalLM' is unknown"):
        cp.load_model(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    write(tmp_path, edited(raw, {"architectures": ...}))
    with pytest.raises(ValueError, match=f"model_type '{config.model_type}' is unknown"):
        cp.load_model(tmp_path)
    write(tmp_path, raw | {"architectures": ["LlamaForCausalLM"], "model_type": "llama"})
    with pytest.raises(ValueError):
        cp.load_model(tmp_path)


def test_every_key_that_the_code_of_transformers_reads_is_honoured_or_refused() -> None:
    """A harmless key is one that neither the four families' models nor the masks read, but for training."""
    home = Path(transformers.__file__).parent
    files = [home / f"models/{name}/modeling_{name}.py" for name in families.FAMILIES]
    read = set()
    for path in [*files, home / "masking_utils.py", home / "modeling_rope_utils.py"]:
        text = path.read_text(encoding="utf-8")
        read |= set(re.findall(r"config\.([a-z]\w*)\b(?!\()", text))
        read |= set(re.findall(r"""getattr\((?:self\.)?config, ["'](\w+)["']""", text))
    assert {"is_causal", "sliding_window", "hidden_act"} <= read
    only_for_training_or_padding = {"attention_dropout", "pad_token_id"}
    assert read & families._HARMLESS <= only_for_training_or_padding, read & families._HARMLESS


@pytest.mark.parametrize("family", FAMILIES)
def test_every_field_that_transformers_writes_is_known(tmp_path: Path, family: str) -> None:
    raw = written(tmp_path, family)
    known = families._HONOURED | families._HARMLESS | set(families._FIXED)
    assert set(raw) <= known, set(raw) - known
    assert set(SHAPE) <= set(raw)


def test_a_key_that_a_file_repeats_with_another_value_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "Llama")
    text = (tmp_path / "config.json").read_text().rstrip().removesuffix("}")
    (tmp_path / "config.json").write_text(text + ', "rms_norm_eps": 0.5}')
    with pytest.raises(ValueError, match=r"config\.json.*'rms_norm_eps' is there twice, as 1e-06 and 0\.5"):
        cp.load_model(tmp_path)
