"""The GPU bench: all its sections run on a CPU, its figures follow from samples, its checks can fail."""

from __future__ import annotations

import json
import math
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.gpu import equality as gpu_equality
from benchmarks.gpu import lab as gpu_lab
from benchmarks.gpu import run as gpu
from benchmarks.gpu import targets as gpu_targets
from benchmarks.gpu.roofline import Ceilings, SequencePart, operators, pass_bytes, prefill_roofline, roofline
from benchmarks.prefill import flops
from chunkprefill.configs import LLAMA3_8B
from chunkprefill.model import attention
from chunkprefill.model.config import Config
from tests import miniature
from tests.needs import ROOT
from tests.proof import draws

H100 = Ceilings(flops=798e12, copy=3.0e12, value_bytes=2)
LAB = gpu_lab.Lab("cpu", torch.float32, None, "tiny")


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = miniature.recording(tmp_path_factory)
    assert (out.parent / "gpu-profile.txt").read_text().count("device ms") >= 6
    return json.loads(out.read_text())


def samples_of(row: dict[str, Any]) -> Iterator[tuple[str, list[float]]]:
    """Each figure of a row that is a median, with its raw samples."""
    yield from (
        (key, row[samples])
        for key, samples in (
            ("s", "samples_s"),
            ("step_s", "step_samples_s"),
            ("theirs_s", "their_samples_s"),
        )
        if isinstance(row.get(samples), list) and key in row
    )


def test_every_section_runs_in_miniature_and_says_what_it_did(document: dict[str, Any]) -> None:
    assert [section["section"] for section in document["sections"]] == list(gpu.SECTIONS)
    for section in document["sections"]:
        rows = [row for row in document["rows"] if row["section"] == section["section"]]
        assert not section.get("error"), section
        assert len(rows) == section["rows"] and (rows or section.get("skipped")), section
    where = document["provenance"]
    assert (where["commit"], where["dirty"], where["seed"]) == (miniature.COMMIT, False, 0)
    assert len(json.dumps(document)) < 1_000_000


def test_every_figure_is_the_median_of_samples_that_are_kept(document: dict[str, Any]) -> None:
    seen = 0
    for row in document["rows"]:
        for key, samples in samples_of(row):
            assert row[key] == statistics.median(samples) > 0, (row["section"], key)
            seen += 1
    assert seen > 10


def test_ratios_and_fractions_follow_from_seconds_and_ceilings(document: dict[str, Any]) -> None:
    product, copy = (row for row in document["rows"] if row["section"] == "ceilings")
    top = Ceilings(2 * product["side"] ** 3 / product["s"], 2 * copy["bytes"] / copy["s"], 4)
    tiny = gpu_lab.MODELS["tiny"]
    for row in document["rows"]:
        if row["section"] == "prefilling":
            lengths = [min(row["chunk"], row["prompt"] - at) for at in range(0, row["prompt"], row["chunk"])]
            assert row["passes"] == len(lengths)
            assert row["fraction_of_peak"] == pytest.approx(flops(tiny, lengths) / row["s"] / top.flops)
            assert row["roofline_s"] == pytest.approx(
                prefill_roofline(tiny, row["prompt"], row["chunk"], top)
            )
        if row["section"] in ("mixed", "decodes"):
            assert row["over_roofline"] == pytest.approx(row["s"] / sum(row["operators_s"].values()))
        if row["section"] == "decodes":
            assert row["fraction_of_copy"] == pytest.approx(row["bytes"] / row["s"] / top.copy)
        if row["section"] == "piggyback" and row["saves"]:
            assert row["saves"] == pytest.approx(row["decodes_s"] / (row["both_s"] - row["chunk_s"]))
        if row["section"].startswith("twin"):
            assert row["ratio"] == pytest.approx(row["theirs_s"] / row["s"])


# --- the roofline ---------------------------------------------------------------------------------------


def test_the_mixed_step_of_the_literature() -> None:
    """512 tokens beside 64 decodes at 2k on an 8B model: 16.2 ms as a sum, though one max would say 10.7."""
    rows = [SequencePart(0, 512, False), *[SequencePart(2048, 1)] * 64]
    assert roofline(LLAMA3_8B, rows, H100) == pytest.approx(16.2e-3, rel=0.02)


ROWS = st.lists(
    st.builds(SequencePart, st.integers(0, 300), st.integers(1, 40), st.booleans()), min_size=1, max_size=6
)
TOP = st.builds(Ceilings, st.floats(1e9, 1e15), st.floats(1e9, 1e13), st.just(2))
SHAPE = Config(n_layers=3, n_heads=4, n_kv_heads=2, head_dim=8, vocab_size=50, d_ff=48)


@given(ROWS, TOP)
def test_the_roofline_is_no_shorter_than_all_arithmetic_and_all_bytes(
    rows: list[SequencePart], top: Ceilings
) -> None:
    """Counted another way: operations of the whole pass, and weights and caches read once."""
    n, n_emits = sum(r.length for r in rows), sum(r.emits for r in rows)
    c = SHAPE
    late = c.linear_params - c.d_model * (
        c.d_q + 2 * c.d_kv
    )  # out, gate, up, down: in the last layer, emitting
    pairs = sum(r.start + i + 1 for r in rows for i in range(r.length))
    arithmetic = (
        c.linear_flops(n) - 2 * late * (n - n_emits) + c.attention_flops(pairs) + c.head_flops(n_emits)
    )
    seconds = roofline(c, rows, top)
    assert seconds >= arithmetic / top.flops * (1 - 1e-9)
    if n_emits:
        assert seconds >= pass_bytes(c, rows, 2) / top.copy * (1 - 1e-9)
    assert seconds <= (1 + 1e-9) * (arithmetic / top.flops + _all_values(c, rows) * 2 / top.copy)


def _all_values(c: Config, rows: list[SequencePart]) -> float:
    """Numbers that all operators move: weights, inputs and outputs of products, caches, queries, outputs."""
    n, n_emits, moved = sum(r.length for r in rows), sum(r.emits for r in rows), 0
    shapes = (
        (c.d_model, c.d_q + 2 * c.d_kv),
        (c.d_q, c.d_model),
        (c.d_model, 2 * c.d_ff),
        (c.d_ff, c.d_model),
    )
    for layer in range(c.n_layers):
        for i, (a, b) in enumerate(shapes):
            tokens = n if i == 0 or layer < c.n_layers - 1 else n_emits
            moved += (a * b + tokens * (a + b)) if tokens else 0
        moved += sum(2 * c.d_kv * (r.start + r.length) + 2 * c.d_q * r.length for r in rows)
    return moved + ((c.d_model * c.vocab_size + n_emits * (c.d_model + c.vocab_size)) if n_emits else 0)


@given(ROWS, TOP, st.floats(1.01, 4))
def test_a_faster_machine_has_a_lower_roofline(
    rows: list[SequencePart], top: Ceilings, factor: float
) -> None:
    faster = Ceilings(top.flops * factor, top.copy * factor, top.value_bytes)
    assert roofline(SHAPE, rows, faster) == pytest.approx(roofline(SHAPE, rows, top) / factor)
    assert set(operators(SHAPE, rows, top)) >= {"qkv", "down", "head", "chunk attention"}


def test_ceilings_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        Ceilings(0, 1e9, 2)


# --- equality: it can fail ------------------------------------------------------------------------------


def top_left(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """The classical mistake: a causal mask that begins in the top left corner."""
    n, s = q.shape[0], k.shape[0]
    return attention.reference(q, k[: min(n, s)], v[: min(n, s)])


def one_too_few(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """The first cached token is lost."""
    return attention.sdpa(q, k[1:], v[1:]) if len(k) > len(q) else attention.sdpa(q, k, v)


@pytest.mark.parametrize("wrong", [top_left, one_too_few])
def test_equality_finds_wrong_attention_in_every_type(wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(attention.BACKENDS, "sdpa", wrong)
    rows = [row for row in gpu_equality.equality(LAB) if row["equal"] is not None]
    assert {row["dtype"] for row in rows} == set(gpu_equality.TOLERANCES)
    for row in rows:
        assert row["equal"] is (row["backend"] != "sdpa"), row


def test_what_a_backend_refuses_is_not_called_equal(document: dict[str, Any]) -> None:
    rows = [row for row in document["rows"] if row["section"] == "equality"]
    assert all(row["equal"] for row in rows if row["backend"] != "varlen")
    varlen = [row for row in rows if row["backend"] == "varlen"]
    assert varlen and all(row["equal"] is None and "CUDA" in row["refused"] for row in varlen)


@settings(max_examples=20)
@given(st.integers(8, 300), st.integers(0, 5))
def test_splits_cut_the_whole_prompt(n: int, seed: int) -> None:
    for name, lengths in gpu_equality.splits(n, seed).items():
        assert sum(lengths) == n and min(lengths) >= 1, name


# --- the run: errors, time, kills -----------------------------------------------------------------------


def fails(lab: gpu_lab.Lab) -> Iterator[dict[str, Any]]:
    yield {"s": math.inf}
    raise RuntimeError("out of memory, say")


def slow(lab: gpu_lab.Lab) -> Iterator[dict[str, Any]]:
    for i in range(1000):
        if lab.late(f"rows from {i}"):
            return
        yield {"i": i}


def missing(lab: gpu_lab.Lab) -> Iterator[dict[str, Any]]:
    raise ImportError("No module named 'transformers'")
    yield {}


def run_with(
    sections: dict[str, Any], monkeypatch: pytest.MonkeyPatch, out: Path, budget: float
) -> dict[str, Any]:
    monkeypatch.setattr(gpu, "SECTIONS", {name: (section, 1) for name, section in sections.items()})
    found: dict[str, Any] = {"sections": [], "rows": []}
    gpu.run(gpu_lab.Lab("cpu", torch.float32, None, "tiny"), list(sections), budget, found, out)
    return json.loads(out.read_text())


def test_a_failing_section_is_written_down_and_stops_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    found = run_with({"a": fails, "b": missing, "c": slow}, monkeypatch, tmp_path / "x.json", 1e9)
    a, b, c = found["sections"]
    assert a["error"] == "RuntimeError: out of memory, say" and a["rows"] == 1
    assert "transformers" in b["skipped"] and "error" not in b
    assert c["rows"] == 1000 and not c["left_out"]
    assert found["rows"][0]["s"] is None, "JSON has no word for infinity"
    told = capsys.readouterr().err
    assert "ERROR in a" in told and "MISSING for b" in told


def test_a_section_out_of_time_stops_and_says_what_it_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = run_with({"a": slow, "b": slow}, monkeypatch, tmp_path / "x.json", 0.0)
    assert [s["rows"] for s in found["sections"]] == [0, 0]
    assert all(s["left_out"] == "rows from 0" for s in found["sections"])


def test_rounds_turn_their_order_and_run_once_however_late() -> None:
    order: list[str] = []
    work = {name: (lambda name=name: order.append(name) or name) for name in "abc"}
    lab = gpu_lab.Lab("cpu", torch.float32, None, "tiny")
    assert lab.rounds(work, 2) == {"a": ["a"] * 2, "b": ["b"] * 2, "c": ["c"] * 2}
    assert "".join(order) == "abc" + "cba" + "abc"
    lab.deadline = 0.0
    assert lab.rounds(work, 5) == {"a": ["a"], "b": ["b"], "c": ["c"]}
    assert "1 of 5" in lab.cut


# --- targets --------------------------------------------------------------------------------------------

GOOD = [
    {"section": "prefilling", "model": "Llama-3-8B", "prompt": 8192, "chunk": 2048, "fraction_of_peak": 0.7},
    {"section": "prefilling", "model": "Llama-3-8B", "prompt": 8192, "chunk": 512, "fraction_of_peak": 0.4},
    {"section": "twin_prefill", "model": "Llama-3-8B", "prompt": 8192, "chunk": 64, "ratio": 3.0},
    {"section": "twin_prefill", "model": "Llama-3-8B", "prompt": 8192, "chunk": 8192, "ratio": 1.1},
    {"section": "twin_prefill", "model": "Llama-3-8B", "prompt": 2048, "chunk": 64, "ratio": 0.9},
    {
        "section": "mixed",
        "model": "Llama-3-8B",
        "chunk": 512,
        "cached": 0,
        "decodes": 64,
        "context": 2048,
        "blocks": "scattered",
        "graphs": False,
        "over_roofline": 1.3,
    },
    {
        "section": "decodes",
        "model": "Qwen3-0.6B",
        "chunk": 0,
        "cached": 0,
        "decodes": 64,
        "context": 2048,
        "blocks": "in runs",
        "graphs": False,
        "fraction_of_copy": 0.9,
    },
    {"section": "equality", "equal": True},
    {"section": "equality", "equal": None},
]


def test_targets_are_met_missed_or_not_measured() -> None:
    met = {one["target"]: one["met"] for one in gpu_targets.targets(GOOD)}
    assert met["prefill-2048"] is True and met["prefill-512"] is False
    assert met["transformers prefill"] is False, "the least of all chunks of 8k counts"
    assert met["mixed, blocks scattered"] is True and met["mixed, blocks in runs"] is None
    assert met["decodes, blocks in runs"] is None, "another model meets no target"
    assert met["equality"] is True
    worse = [*GOOD, {"section": "equality", "equal": False}]
    assert {one["target"]: one["met"] for one in gpu_targets.targets(worse)}["equality"] is False


# --- a bare copy of the tree ----------------------------------------------------------------------------


@pytest.mark.slow
def test_it_runs_from_a_bare_copy_with_torch_and_numpy_alone(tmp_path: Path) -> None:
    """No .git, no installed package, none of the other dependencies; what is missing is said."""
    shutil.copytree(
        ROOT / "chunkprefill", tmp_path / "chunkprefill", ignore=shutil.ignore_patterns("__pycache__")
    )
    only = draws("'--only', 'equality', 'policies', 'twin_prefill', 'twin_batching'", "")
    missing_here = ["transformers", "safetensors", "tokenizers", "tqdm", "gguf", "matplotlib", "ipywidgets"]
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r});"
        f"sys.modules.update(dict.fromkeys({missing_here!r}));"
        "from benchmarks.__main__ import main;"
        f"sys.exit(main(['gpu', '--tiny', '--profile', 'none', '--out', 'x.json', '--commit', 'abc', {only}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "MISSING for twin_prefill" in done.stderr and "MISSING for twin_batching" in done.stderr
    found = json.loads((tmp_path / "x.json").read_text())
    assert (found["provenance"]["commit"], found["provenance"]["dirty"]) == ("abc", "unknown")
    by_name = {section["section"]: section for section in found["sections"]}
    assert by_name["twin_batching"]["skipped"] and by_name["policies"]["rows"] > 5
