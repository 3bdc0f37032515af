"""The page of measurements and the package's own recording say what the files say, and nothing else."""

from __future__ import annotations

import copy
import json
import re
import statistics
from pathlib import Path
from typing import Any

import pytest

import chunkprefill_course as course
from chunkprefill_course.gpu_recording import VIEWS, digest, recorded_picture
from tests.miniature import recording
from tests.needs import ROOT
from tools import measurements as tool

RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A recording of a CPU, in which the tiny model stands for itself."""
    document = json.loads(recording(tmp_path_factory).read_text())
    for row in document["rows"]:  # the view of one prompt asks for this length
        if row["section"] == "prefilling":
            row["prompt"] = 8192
    return document


def test_page_and_digest_are_what_the_recordings_make() -> None:
    assert tool.main(["--check"]) == 0


def test_without_a_recording_nothing_is_shown_and_that_is_said() -> None:
    page = tool.page({})
    assert "Not yet recorded." in page and not re.search(r"\d+\.\d+ ?(?:ms|s|×|%)", page)
    nothing = course.recorded("chunks", document={})
    assert nothing.rows == () and str(nothing) == nothing._repr_html_() == ""  # elsewhere it is not mentioned
    with pytest.raises(ValueError, match="nothing is recorded"):
        recorded_picture("chunks", "s", document={}, y_label="s", alt="a", caption="c")


def test_another_number_in_the_file_is_another_number_on_the_page(miniature: dict[str, Any]) -> None:
    """Nothing is typed: change any recorded second, and the page changes."""
    before = tool.page({"gpu.json": miniature})
    assert "abcdef01" in before and "recorded run" in before and "in miniature" in before
    shown = dict.fromkeys(("prefilling", "tiles", "mixed", "decodes"), "s")
    shown |= {"piggyback": "added_s", "policies": "chat_tbt_max", "scheduling": "wall_s"}
    shown |= {"equality": "difference", "ceilings": "flops"}
    seen = set()
    for i, row in enumerate(miniature["rows"]):
        key = shown.get(row["section"], "")
        if row.get(key) and row.get("blocks") != "scattered":
            other = copy.deepcopy(miniature)
            other["rows"][i][key] *= 7
            assert tool.page({"gpu.json": other}) != before, (row["section"], key)
            seen.add(row["section"])
    assert seen == set(shown)


def test_what_failed_or_was_left_out_is_on_the_page(miniature: dict[str, Any]) -> None:
    document = copy.deepcopy(miniature)
    document["sections"][3]["error"] = "RuntimeError: a fault"
    document["sections"][4]["left_out"] = "the longest prompt"
    page = tool.page({"gpu.json": document})
    assert "RuntimeError: a fault" in page and "the longest prompt" in page


def test_targets_and_profiles_are_shown_with_their_verdicts(miniature: dict[str, Any]) -> None:
    document = copy.deepcopy(miniature)
    document["targets"][0] |= {"value": 0.5, "met": False}
    document["targets"][1] |= {"value": 0.61, "met": True}
    page = tool.page({"gpu.json": document})
    assert "✗ missed" in page and "✓ met" in page and "not measured" in page
    assert page.count("Profile of the step") == len(document["profiles"]) > 3


@pytest.mark.parametrize("what", [name for name in VIEWS if name not in ("transformers",)])
def test_each_view_shows_a_row_for_each_that_was_measured(what: str, miniature: dict[str, Any]) -> None:
    found = course.recorded(what, document=tool.digested(miniature))
    assert found.rows and found.table is not None
    assert len(found.table.rows) == len(found.rows) and len(found.table.header) <= 4, (
        "four columns fit a phone"
    )
    html = found._repr_html_()
    assert "cp-badge-recorded" in html and "abcdef01" in html
    assert "≈" not in html, "a recorded number is the same at every run of the page"


def test_the_readers_own_numbers_stand_beside_never_in_place(miniature: dict[str, Any]) -> None:
    plain = course.recorded("chunks", document=miniature)
    both = course.recorded("chunks", document=miniature, mine={16: 0.5, 24: 0.25})
    for alone, beside in zip(plain.table.rows, both.table.rows):
        assert list(alone) == list(beside)[:-1]
    assert [row[-1] for row in both.table.rows] == ["≈500 ms", "–", "–", "≈250 ms"]
    assert both.table.rows[-1][0] == "24" and set(both.table.rows[-1][1:-1]) == {"–"}
    assert both.table.header[-1] == "yours"


def test_a_time_can_carry_its_runs_and_fewer_than_ten_have_no_median(miniature: dict[str, Any]) -> None:
    document = copy.deepcopy(miniature)
    row = next(r for r in document["rows"] if r["section"] == "prefilling" and r["model"] == "tiny")
    document["rows"] = [row | {"s": 0.3, "samples_s": [0.2, 0.3, 1.5]}]
    shown = {}
    for runs in ([0.3], [0.2, 0.4], [0.2, 0.3, 1.5], [0.2] + [0.3] * 9):
        document["rows"][0]["samples_s"] = runs
        found = course.recorded("chunks", document=document, spread=True)
        assert found.table is not None and str(course.recorded("chunks", document=tool.digested(document)))
        shown[len(runs)] = found.table.rows[0][1], found.table.caption
    assert [cell for cell, _ in shown.values()] == [
        "300 ms (one run)",
        "300 ms (200–400 ms)",
        "300 ms (200 ms–1.5 s)",
        "300 ms (200–300 ms)",
    ]
    assert ["median" in caption for _, caption in shown.values()] == [False, False, False, True]
    assert "(" not in course.recorded("chunks", document=document).table.rows[0][1]


def test_the_digest_keeps_the_range_of_every_kind_of_sample(miniature: dict[str, Any]) -> None:
    small = tool.digested(miniature)["rows"]
    for section, key in {"prefilling": "s", "scheduling": "wall_s", "policies": "chat_tbt_max"}.items():
        row = next(r for r in small if r["section"] == section)
        assert row["runs"] >= 1 and row[f"{key}_least"] <= row[key] <= row[f"{key}_most"], section


def test_unknown_names_are_refused(miniature: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="there are prompts"):
        course.recorded("speed")
    with pytest.raises(ValueError, match="no column speed; there is chunk"):
        course.recorded("chunks", columns=("speed",))
    left_out = copy.deepcopy(miniature) | {"models": ["small", "tiny"]}
    assert course.recorded("chunks", model="small", document=left_out).rows == (), "left out for want of time"
    few = course.recorded("chunks", columns=("time",), document=miniature)
    assert list(few.table.header) == ["chunk", "time"]
    with pytest.raises(ValueError, match="Llama-9"):
        course.recorded("chunks", model="Llama-9", document=miniature)


def test_the_digest_has_no_raw_samples_and_all_that_views_read(miniature: dict[str, Any]) -> None:
    small = tool.digested(miniature)
    assert "samples" not in json.dumps(small)
    for what in VIEWS:
        assert str(course.recorded(what, document=small)) == str(course.recorded(what, document=miniature))


def test_the_committed_recording_is_the_one_that_travels() -> None:
    recordings = tool.gpu_recordings(tool.read(RESULTS))
    if not recordings:
        assert digest() == {}
        return
    assert digest() == json.loads(json.dumps(tool.digested(recordings[0])))
    for row in recordings[0]["rows"]:
        if isinstance(row.get("samples_s"), list) and "s" in row:
            assert row["s"] == statistics.median(row["samples_s"])


def test_a_file_that_is_no_recording_is_named(tmp_path: Path) -> None:
    (tmp_path / "odd.json").write_text("[1, 2]")
    with pytest.raises(ValueError, match=r"odd\.json"):
        tool.read(tmp_path)


def test_a_bench_that_the_page_does_not_know_is_listed_all_the_same() -> None:
    where = json.loads((RESULTS / "prefill-cpu.json").read_text())["provenance"]
    page = tool.page({"new-cpu.json": {"bench": "new", "provenance": where}})
    assert "`bench new`" in page and "new-cpu.json" in page


def test_when_the_document_came_again_is_what_the_recording_says() -> None:
    from measured_engines import came_again  # beside the tool, which put its folder on the path

    def said(again: list[float], document: list[float]) -> str:
        columns = {"vLLM": {"tokens_s": {"again": again, "document": document}}}
        return came_again({"rows": [{"load": "again", "columns": columns}]})

    assert "sent when its first sending had been answered" in said([8.0, 9.0], [1.0, 7.0, 8.0])
    assert "sent at 6.0 s by the clock" in said([6.0, 9.0], [1.0, 7.0, 8.0])
    assert said([6.0], [1.0, 7.0]) == "" == came_again({"rows": []})
