"""The recorded vLLM runs as tables and a picture; without a recording it is said."""

from __future__ import annotations

import json
from copy import deepcopy

import pytest

from chunkprefill_course import vllm_recording as rv
from chunkprefill_course.evidence import on_vllm
from tools.vllm_digest import DIGEST, SOURCE, digested

PROVENANCE = {"device": "a CPU", "commit": "abcdef0123", "dirty": False, "date": "2026-11-29 20:00 UTC"}


def row(settings: str, gap: float, late: float, **more) -> dict:
    first = {"document": 3.5, "late": 1.3 + late}
    column = {"s": {"gap": gap, "document": 2.5, "late": late, **more}, "preemptions": 0.0, "why": ""}
    column["first_s"] = first
    columns = {name: deepcopy(column) for name in rv.COLUMNS}
    columns["simulator"]["s"].pop("late")
    verdict = {"name": "newcomers pass", "step": "about 128 tokens a step", "expected": "newcomers pass"}
    return {"settings": settings, "flags": "--x 1", "policy": "p", "verdict": verdict, "columns": columns}


DOCUMENT = {
    "vllm": "0.32.0 on torch 2.13.0",
    "vllm_mode": "eager",
    "model": "SmolLM2",
    "document": 3500,
    "provenance": PROVENANCE,
    "rows": [row("budget 4096", 2.4, 2.3), row("budget 256", 0.25, 2.5)],
}
BOTH = ("budget 4096", "budget 256")


def test_a_measure_is_a_table_of_three_columns_badged():
    found = rv.recorded_vllm("gap", BOTH, document=DOCUMENT)
    assert found.table.header == ("vLLM's settings", "vLLM", "our engine", "simulator")
    assert [r[1] for r in found.table.rows] == ["2.4 s", "250 ms"]
    assert "vLLM 0.32.0" in found.where and "a CPU" in found.where and "recorded run" in str(found)
    assert rv.recorded_vllm("late", BOTH, document=DOCUMENT).table.rows[0][3] == "–"
    assert [r[1] for r in rv.recorded_vllm("behind", BOTH, document=DOCUMENT).table.rows] == [
        "100 ms",
        "300 ms",
    ]
    assert rv.recorded_vllm("preemptions", BOTH, document=DOCUMENT).table.rows[0][1:] == ("0", "0", "0")
    assert rv.recorded_vllm("own", BOTH, document=DOCUMENT).table.rows[0][1] == "–", "no document came again"
    assert rv.vllm_verdicts(document=DOCUMENT).table.rows[0][2] == "newcomers pass"


def test_the_picture_has_a_mark_for_each_number_and_its_table_has_them_all():
    picture = rv.vllm_picture(BOTH, document=DOCUMENT)
    assert len(picture.table.rows) == 3 * len(BOTH)
    assert picture.badge == "recorded" and "chats' longest gap, budget 256: vLLM 250 ms" in picture.alt
    assert picture._repr_html_()


def test_without_a_recording_nothing_is_shown(monkeypatch):
    assert str(rv.recorded_vllm(document={"rows": []})) == ""
    with pytest.raises(ValueError, match="no run of vLLM is recorded"):
        rv.vllm_picture(document={"rows": []})
    monkeypatch.setattr(on_vllm, "vllm_rows", lambda *_: {})
    with pytest.raises(ValueError, match="no run of vLLM is recorded"):
        on_vllm.vllm_newcomers()


def test_what_was_not_recorded_is_refused_by_name():
    with pytest.raises(ValueError, match="no measure 'speed'; there are gap"):
        rv.recorded_vllm("speed", document=DOCUMENT)
    with pytest.raises(
        ValueError, match="'budget 7' was not recorded; there are 'budget 4096', 'budget 256'"
    ):
        rv.vllm_rows(("budget 7",), DOCUMENT)


@pytest.mark.skipif(not SOURCE.exists(), reason="NOTHING IS RECORDED: python -m benchmarks vllm")
def test_the_digest_is_the_recordings():
    assert json.loads(DIGEST.read_text("utf-8")) == digested(json.loads(SOURCE.read_text("utf-8")))


@pytest.mark.skipif(not rv.vllm_digest(), reason="NOTHING IS RECORDED: python -m benchmarks vllm")
@pytest.mark.parametrize(
    "evidence",
    [
        on_vllm.vllm_bounds_gaps,
        on_vllm.vllm_newcomers,
        on_vllm.vllm_prefix,
        on_vllm.vllm_priority,
        on_vllm.vllm_threshold,
    ],
)
def test_recorded_evidence_bears_its_claim_out_and_flips(evidence):
    claimed, changed = evidence(), evidence(changed=True)
    assert claimed.holds, str(claimed)
    assert not changed.holds, str(changed)
    assert {number.how for number in claimed.numbers} == {"recorded"} and "vLLM 0.32" in claimed.setting
