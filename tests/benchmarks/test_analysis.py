"""The bench of summary and sweep runs small, and says what it skipped."""

from __future__ import annotations

import json

from benchmarks import analysis


def test_it_runs_small_and_says_what_it_skips(tmp_path, capsys):
    out = tmp_path / "analysis.json"
    options = ["--requests", "5", "--workers", "1", "--trace", str(tmp_path / "none.csv"), "--out", str(out)]
    assert analysis.main(options) == 0
    recorded = json.loads(out.read_text())
    assert [row["case"] for row in recorded["rows"]] == ["sweep"]
    row = recorded["rows"][0]
    assert row["runs"] == 5 * len(analysis.BUDGETS) and row["met"] == (row["seconds"] <= row["target_s"])
    assert "MISSING" in capsys.readouterr().err
    assert {"device", "commit", "dirty", "date", "seed"} <= set(recorded["provenance"])
