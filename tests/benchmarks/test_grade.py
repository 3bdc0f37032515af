"""The bench of grading runs, small, and says what it could not measure."""

from __future__ import annotations

import json

import pytest

from benchmarks import __main__ as bench
from benchmarks import grade
from tests.needs import ROOT

RESULT = ROOT / "benchmarks" / "results" / "grade-cpu.json"


def test_it_measures_ours_and_says_that_nbgrader_was_not_asked_for(walls, tmp_path):
    out = tmp_path / "grade.json"
    options = ["--submissions", "2", "--repeats", "1", "--sets", "PS2", "--out", str(out)]
    assert bench.main(["grade", *options]) == 0
    rows = {row["case"]: row for row in json.loads(out.read_text())["rows"]}
    for case in ("ours, three questions", "ours, PS2"):
        assert (
            rows[case]["per_minute"] > 0 and rows[case]["cpu_s_each"] > 0 and rows[case]["submissions"] == 2
        )
    assert "--nbgrader installs it" in rows["nbgrader, three questions"]["not_run"]
    assert json.loads(out.read_text())["verdict"]["met"] is None


def test_a_nbgrader_that_does_not_work_is_a_row(walls, tmp_path):
    out = tmp_path / "grade.json"
    options = ["--submissions", "1", "--repeats", "1", "--sets", "--venv", str(tmp_path), "--out", str(out)]
    assert bench.main(["grade", *options]) == 0
    row = json.loads(out.read_text())["rows"][1]
    assert row["case"].startswith("nbgrader") and row["not_run"]


def test_the_verdict_is_a_ratio():
    rows = [
        {"case": "ours, three questions", "wall_s_each": 0.1, "cpu_s_each": 0.2},
        {"case": "nbgrader, three questions", "wall_s_each": 0.9, "cpu_s_each": 3.0},
    ]
    made = grade.verdict(rows)
    assert made["times_as_fast"] == pytest.approx({"wall": 9.0, "cpu": 15.0}) and made["met"] is False
    assert grade.verdict(rows[:1])["met"] is None


@pytest.mark.skipif(not RESULT.exists(), reason="not yet recorded")
def test_what_is_recorded_holds_what_it_says():
    document = json.loads(RESULT.read_text())
    assert document["verdict"] == json.loads(json.dumps(grade.verdict(document["rows"])))
