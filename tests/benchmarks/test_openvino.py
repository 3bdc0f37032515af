"""The bench that runs OpenVINO's continuous batching: what of it needs no OpenVINO."""

from __future__ import annotations

import json
import sys

import pytest

from benchmarks import openvino as bench
from benchmarks.runner import ROOT
from tools import measured_engines

FAKE = """
import json, sys
job = json.loads(sys.stdin.read())
seen = [{"name": r["name"], "sent": 0.1 * i, "tokens": [0.1 * i + 0.5] + [0.1 * i + 0.75] * (r["n_output"] - 1)}
        for i, r in enumerate(job["requests"])]
print("noise")
print(json.dumps({"version": "1", "requests": seen}))
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A worker that answers at once, in this Python."""
    worker = tmp_path / "worker.py"
    worker.write_text(FAKE)
    monkeypatch.setattr(bench, "WORKER", worker)
    monkeypatch.setattr(bench, "gguf_path", lambda: tmp_path / "model.gguf")
    monkeypatch.setattr(bench, "openvino_python", lambda root: sys.executable)
    return worker


def test_it_writes_what_was_seen(fake, tmp_path):
    out = tmp_path / "openvino.json"
    options = ["--document", "50", "--answer", "5", "--commit", "x", "--dirty", "false"]
    assert bench.main([*options, "--out", str(out)]) == 0
    document = json.loads(out.read_text())
    assert [row["settings"] for row in document["rows"]] == list(bench.SETTINGS)
    for row in document["rows"]:
        assert row["s"]["document"] == pytest.approx(0.5) and row["s"]["gap"] == pytest.approx(0.25)


def test_a_worker_that_fails_says_why(fake):
    fake.write_text("import sys; sys.exit('no such device')")
    with pytest.raises(RuntimeError, match="OpenVINO ended with 1: no such device"):
        bench.run(sys.executable, {}, [])


def test_requests_are_a_function_of_the_seed():
    assert bench.requests(1, 50, 5) == bench.requests(1, 50, 5) != bench.requests(2, 50, 5)
    assert [len(r["ids"]) for r in bench.requests(1, 50, 5)] == [48, 48, 50, 64]


def test_without_an_environment_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CHUNKPREFILL_OPENVINO", str(tmp_path))
    assert bench.main([]) == 1
    assert "pip install openvino-genai" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("worker", "words"),
    [
        ("import sys; sys.exit('no such device')", "OpenVINO ended with 1: no such device"),
        ("print('noise')", "ended without an answer: 'noise'"),
        ("", "ended without an answer: ''"),
        (FAKE.replace('(r["n_output"] - 1)', "1"), "chat 1: 2 tokens came, 5 were asked for"),
    ],
)
def test_a_run_that_fails_is_one_line_and_writes_nothing(fake, tmp_path, capsys, worker, words):
    fake.write_text(worker)
    out = tmp_path / "openvino.json"
    assert bench.main(["--document", "50", "--answer", "5", "--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert (
        said.startswith("OpenVINO was not recorded: ")
        and words in said
        and said.count("\n") == 1
        and not out.exists()
    )


def test_the_recorded_runs_show_what_chapter_8_says_of_them():
    """A small budget: short gaps, and the newcomer waits for the document. A large one: one long gap."""
    document = json.loads((ROOT / "benchmarks/results/openvino-cpu.json").read_text())
    rows = {row["settings"]: row for row in document["rows"]}
    small, large = rows["budget 256"], rows["budget 4096"]
    assert 2 * small["s"]["gap"] < large["s"]["gap"] == pytest.approx(large["s"]["document"], rel=0.05)
    seen = {request["name"]: request for request in small["tokens_s"]}
    read = (seen["document"]["sent"], seen["document"]["tokens"][0])
    assert read[0] < seen["late"]["sent"] < read[1] <= seen["late"]["tokens"][0]
    text = "\n".join(measured_engines.openvino_blocks(document))
    assert "while it was read, answered after it" in text and "after the document was read" in text
