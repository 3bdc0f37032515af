"""The benches run, small, and say what they measured; what is committed came from them."""

from __future__ import annotations

import json

import pytest

from benchmarks import __main__ as bench
from benchmarks import simulate
from tests.needs import ROOT

RESULTS = ROOT / "benchmarks" / "results"


def test_schedule(tmp_path):
    out = tmp_path / "schedule.json"
    assert bench.main(["schedule", "--runs", "1", "--steps", "40", "--out", str(out)]) == 0
    document = json.loads(out.read_text())
    cases = {(row["case"], row["running"]) for row in document["rows"]}
    assert cases >= {("decodes", n) for n in (1, 8, 64, 256)} | {("beside a 32k prompt", 256)}
    assert all(row["step_us"] > 0 and len(row["samples_us"]) == 1 for row in document["rows"])
    assert max(row["evictions_a_step"] for row in document["rows"] if row["case"] == "with preemption") > 0
    verdict = document["verdict"]
    assert verdict["parity_cases"] >= 60 and verdict["parity_differences"] == 0


def test_simulate_skips_loudly_what_is_missing(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(simulate.CASES, "poisson-10000", 50)
    out = tmp_path / "simulate.json"
    command = ["--trace", str(tmp_path / "none.csv"), "--out", str(out)]
    row = simulate.one("poisson-10000", tmp_path / "none.csv", 0)
    assert row["requests"] == 50 and row["steps"] > 50 and row["peak_mb"] >= row["before_mb"] > 0
    assert bench.main(["simulate", "--cases", "azure-2000", "--runs", "1", *command]) == 0
    assert "SKIPPED" in capsys.readouterr().err and json.loads(out.read_text())["rows"] == []


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many"])
@pytest.mark.parametrize("option", ["schedule --steps", "schedule --runs", "simulate --runs"])
def test_a_count_below_one_is_an_error_of_usage(option, value, capsys):
    name, flag = option.split()
    with pytest.raises(SystemExit) as left:
        bench.main([name, f"{flag}={value}"])
    told = capsys.readouterr().err.splitlines()[-1]
    assert left.value.code == 2 and f"argument {flag}: " in told and value in told


def test_the_recorded_workload_is_looked_for_where_the_environment_says(tmp_path, monkeypatch):
    beside = ROOT.parent / "shared" / simulate.TRACE
    for named in ("", str(tmp_path)):  # unset, or a folder without it: the one beside the checkout
        monkeypatch.setenv("CHUNKPREFILL_SHARED", named)
        assert simulate.trace_file() == beside
    trace = tmp_path / simulate.TRACE
    trace.parent.mkdir()
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n")
    assert simulate.trace_file() == trace
    asked = []
    monkeypatch.setattr(simulate, "one", lambda *given: asked.append(given))
    simulate.main(["--one", "azure-2000"])
    assert asked == [("azure-2000", trace, 0)]


@pytest.mark.parametrize("name", ["schedule-cpu", "simulate-cpu", "serve-cpu"])
def test_committed_results_say_where_they_come_from(name):
    document = json.loads((RESULTS / f"{name}.json").read_text())
    assert document["provenance"]["commit"] != "unknown" and document["provenance"]["dirty"] is False
    if name == "schedule-cpu":
        assert document["verdict"]["met"]
    for row in document["rows"]:
        samples = next(value for key, value in row.items() if key.startswith("samples"))
        assert len(samples) >= 3 and all(sample > 0 for sample in samples)
        if name == "serve-cpu":
            assert row["equal_outputs"] == document["requests"]["n"] and row.get("met", True)
