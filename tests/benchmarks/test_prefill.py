"""The prefill bench: it runs on torch and numpy alone, compares equal weights, and its JSON adds up."""

from __future__ import annotations

import importlib.util
import json
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import prefill as bench
from chunkprefill.model.config import Config
from chunkprefill.model.weights import random_model
from tests.needs import ROOT, need

QUICK = ["--prompts", "40", "--chunks", "16", "0", "--layers", "1", "--repeats", "2", "--threads", "1"]
RESULTS = ROOT / "benchmarks" / "results"


def check(document: dict[str, Any]) -> None:
    """Every figure follows from the raw samples beside it."""
    assert set(document["provenance"]) >= {"commit", "dirty", "machine", "device", "torch", "seed", "threads"}
    for cell in document["cells"]:
        for name, seconds in cell["median"].items():
            assert seconds == statistics.median(cell["samples"][name]) > 0
        rivals = [s for name, s in cell["median"].items() if name != "chunkprefill"]
        if rivals:
            assert cell["ratio"] == pytest.approx(min(rivals) / cell["median"]["chunkprefill"])
        assert 0 < cell["fraction_of_peak"] < 1.5
    for row in document["summary"]:
        ratios = [cell["ratio"] for cell in document["cells"] if cell["prompt"] == row["prompt"]]
        assert row["geometric_mean"] == pytest.approx(math.prod(ratios) ** (1 / len(ratios)))
        assert row["least"] == min(ratios)


def test_it_compares_both_on_the_same_weights(tmp_path: Path, capsys: Any) -> None:
    need(
        "transformers",
        importlib.util.find_spec("transformers"),
        "pip install transformers",
    )
    threads = torch.get_num_threads()
    try:
        assert bench.main([*QUICK, "--out", str(tmp_path / "x.json")]) == 0
    finally:
        torch.set_num_threads(threads)
    document = json.loads((tmp_path / "x.json").read_text())
    check(document)
    assert [(c["prompt"], c["chunk"]) for c in document["cells"]] == [(40, 16), (40, 40)]
    assert all(c["fastest_transformers"].startswith("transformers-") for c in document["cells"])
    assert "geometric mean" in capsys.readouterr().err


def test_it_needs_only_torch_and_numpy_and_says_what_it_skips() -> None:
    missing = [
        "transformers",
        "safetensors",
        "tokenizers",
        "tqdm",
        "gguf",
        "matplotlib",
        "ipywidgets",
        "huggingface_hub",
    ]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({missing!r}));"
        f"from benchmarks.__main__ import main; sys.exit(main(['prefill', *{QUICK!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "MISSING transformers" in done.stderr
    document = json.loads(done.stdout)
    check(document)
    assert document["summary"] == [] and document["cells"][0]["ratio"] is None


def test_other_weights_are_not_compared() -> None:
    one, other = (random_model(_config(), seed=seed) for seed in (0, 1))
    tokens = torch.arange(30)
    with pytest.raises(RuntimeError, match="other weights"):
        runs = {"chunkprefill": bench.ours(one), "rival": bench.ours(other)}
        bench.measure(runs, one, tokens, 8, 1, time.perf_counter)


def _config() -> Config:
    return Config(n_layers=2, n_heads=4, n_kv_heads=2, head_dim=16, vocab_size=61)


@pytest.mark.parametrize("lengths", [[20], [8, 8, 4], [1] * 5])
def test_operations_are_those_that_torch_counts(lengths: list[int]) -> None:
    """Matrix products as torch counts them; attention, which it counts without the mask, apart."""
    from torch.utils.flop_counter import FlopCounterMode

    config, n = _config(), sum(lengths)
    model = random_model(config)
    with FlopCounterMode(display=False) as counter:
        bench.ours(model)(torch.arange(n), lengths)
    counts = counter.get_flop_counts()["Global"]
    products = sum(n for op, n in counts.items() if "attention" not in str(op) and "bmm" not in str(op))
    assert bench.flops(config, lengths) - config.attention_flops(n * (n + 1) // 2) == products


@pytest.mark.parametrize("path", sorted(RESULTS.glob("prefill-*.json")), ids=lambda path: path.name)
def test_committed_results_add_up(path: Path) -> None:
    document = json.loads(path.read_text())
    check(document)
    assert document["bench"] == "prefill" and document["provenance"]["dirty"] is False
