"""The bench of engines: its figures follow from its samples, outputs that part are found, vLLM is driven."""

from __future__ import annotations

import json
import re
import statistics
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import chunkprefill as cp
from benchmarks import engines as bench
from tests.needs import ROOT, need
from tests.proof import draws
from tools import readme

TINY = ["--model", "tiny", "--prompt", "64", "--chunks", "16", "64", "--requests", "3", "--output", "4"]
TINY += ["--budgets", "16", "--steps", "2", "--repeats", "2", "--threads", "1", "--dtypes", "float32"]

# Speaks as benchmarks/vllm_worker.py does, and answers with this package's own tokens.
STAND_IN = """
import json, sys, torch
import chunkprefill as cp
start = json.loads(sys.stdin.readline())
model = cp.load_model(start["model"], dtype=getattr(torch, start["dtype"]))
print(json.dumps({"vllm": "0.0", "torch": "0.0", "threads": 1, "preloaded": []}), flush=True)
for line in sys.stdin:
    work = json.loads(line)
    assert work["budget"] <= start["most"]
    lengths = work.get("lengths") or [work["steps"]] * len(work["prompts"])
    tokens = [cp.generate(model, prompt, n) for prompt, n in zip(work["prompts"], lengths)]
    wrong = WRONG
    if wrong is not None and "lengths" in work and len(tokens) > 1:
        tokens[1][wrong] = (tokens[1][wrong] + 1) % 256
    if FAILS:
        print(json.dumps({"error": "ValueError: no such thing"}), flush=True)
        continue
    print(json.dumps({"seconds": 5.0, "tokens": tokens}), flush=True)
"""


def stand_in(folder: Path, *, wrong: int | None = None, fails: bool = False) -> Path:
    """A program that takes the place of the interpreter with vLLM."""
    code = STAND_IN.replace("WRONG", repr(wrong)).replace("FAILS", repr(fails))
    (folder / "stand_in.py").write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}")
    program = folder / "python"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{folder / "stand_in.py"}"\n')
    program.chmod(0o755)
    return program


def run(*options: str, out: Path) -> dict[str, Any]:
    threads = torch.get_num_threads()
    try:
        assert bench.main([*TINY, *options, "--out", str(out)]) == 0
    finally:
        torch.set_num_threads(threads)
    return json.loads(out.read_text())


def check(document: dict[str, Any]) -> None:
    """Every figure follows from the raw samples beside it."""
    for row in document["rows"]:
        for name, seconds in row["median_s"].items():
            assert seconds == statistics.median(row["samples_s"][name]) > 0
        for engine, ratio in row["ratios"].items():
            theirs = [s for name, s in row["median_s"].items() if name.split(",")[0] == engine]
            assert ratio == min(theirs) / row["median_s"]["chunkprefill"]
        if "target" in row:
            assert row["met"] == (row["ratios"]["vllm"] >= row["target"])


def test_without_vllm_its_part_is_skipped_and_said(tmp_path: Path, capsys: Any) -> None:
    nowhere = str(tmp_path / "no-python")
    document = run("--vllm", nowhere, "--without", "transformers", out=tmp_path / "x.json")
    said = capsys.readouterr().err
    assert "MISSING vLLM" in said and nowhere in said and "make engines" in said
    check(document)
    assert [row["work"] for row in document["rows"]] == ["prefill", "prefill", "serve", "decode"]
    assert all(row["ratios"] == {} and "met" not in row for row in document["rows"])


def test_all_three_run_the_same_weights(tmp_path: Path) -> None:
    try:
        import transformers  # noqa: F401
    except ImportError:
        need("transformers", False, "pip install transformers")
    document = run("--vllm", str(stand_in(tmp_path)), out=tmp_path / "x.json")
    check(document)
    assert document["engines"]["vllm"]["vllm"] == "0.0"
    for row in document["rows"]:
        assert set(row["ratios"]) == {"transformers", "vllm"} and "target" in row
        for name, outputs in row["outputs"].items():
            assert outputs == {"equal": outputs["of"], "of": outputs["of"], "parted": []}, (row["work"], name)
    table = readme.engines_table(tmp_path / "x.json")
    shown = [float(x) for x in re.findall(r"(?<=\| )\d+\.\d\d(?= \|)", table)]
    assert sorted(shown) == sorted(round(r, 2) for row in document["rows"] for r in row["ratios"].values())
    assert "vLLM 0.0" in table and "one prompt of 64, whole" in table


@pytest.mark.parametrize("wrong", draws([0], [0, 2]))
def test_an_output_that_parts_is_recorded_with_its_place_and_margin(tmp_path: Path, wrong: int) -> None:
    program = stand_in(tmp_path, wrong=wrong)
    document = run("--vllm", str(program), "--without", "transformers", out=tmp_path / "x.json")
    row = next(row for row in document["rows"] if row["work"] == "serve")
    outputs = row["outputs"]["vllm"]
    assert (outputs["equal"], outputs["of"]) == (2, 3)
    (parted,) = outputs["parted"]
    assert (parted["output"], parted["token"]) == (1, wrong) and parted["margin"] > 0


def test_an_error_of_vllm_stops_the_bench_with_its_words(tmp_path: Path) -> None:
    program = stand_in(tmp_path, fails=True)
    with pytest.raises(RuntimeError, match="vLLM: ValueError: no such thing"):
        run("--vllm", str(program), "--without", "transformers", out=tmp_path / "x.json")


def test_a_vllm_that_does_not_start_is_told_with_its_log(tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho 'no module named vllm' >&2\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(RuntimeError, match="no module named vllm"):
        run("--vllm", str(program), "--without", "transformers", out=tmp_path / "x.json")


def test_what_vllm_loads_are_the_same_weights(tmp_path: Path) -> None:
    model = cp.load_model("tiny")
    bench.write_folder(model, tmp_path)
    again = cp.load_model(tmp_path)
    tokens = [3, 1, 4, 1, 5]
    logits = [cp.prefill(m, tokens, cp.KVCache(m.config, 8)) for m in (model, again)]
    torch.testing.assert_close(*logits, rtol=1e-5, atol=1e-5)


def test_the_recorded_figures_follow_from_their_samples() -> None:
    paths = sorted((ROOT / "benchmarks/results").glob("engines-*.json"))
    for path in paths:
        check(json.loads(path.read_text()))
    table = readme.engines_table(*paths)
    assert table.count("commit ") == len(paths) and ("Not yet recorded" in table) == (not paths)


def test_the_worker_knows_nothing_of_this_repository() -> None:
    """It runs with another interpreter, where neither package is installed."""
    text = (ROOT / "benchmarks/vllm_worker.py").read_text()
    assert not re.search(r"^\s*(import|from) (chunkprefill|benchmarks)", text, re.M)
