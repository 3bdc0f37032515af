"""The recorded parts of a step: the table and the picture say what the files say."""

from __future__ import annotations

import copy
import json

import pytest

from benchmarks import parts as bench
from chunkprefill_course import parts_recording as recording
from chunkprefill_course.parts_recording import host_parts, host_picture, idle_table, step_parts
from tools.parts_digest import DIGEST, SOURCE, digested


def test_the_digest_is_what_the_recording_says():
    assert SOURCE.is_file() and json.loads(DIGEST.read_text()) == digested(json.loads(SOURCE.read_text()))
    document = json.loads(SOURCE.read_text())
    assert document["provenance"]["dirty"] is False
    assert document["tokens"]["equal"] == document["tokens"]["of"], "the two engines did the same work"
    assert all(row["n"] >= bench.FEWEST for row in document["rows"])


def test_another_number_in_the_recording_is_another_number_in_the_table():
    document = copy.deepcopy(recording.parts_digest())
    before = str(step_parts(document))
    assert "vLLM 0." in before and "recorded run" in before
    next(row for row in document["rows"] if "chunk" in row["step"])["parts_s"]["inputs"] *= 3
    assert str(step_parts(document)) != before
    assert step_parts({}).table is None and str(step_parts({})) == ""


def test_launching_is_shown_and_the_parts_make_up_the_run():
    for model in ("Llama-3-8B", "Qwen3-0.6B", "SmolLM2-135M"):
        rows = {row["way"]: row for row in idle_table(model).rows}
        for way, parts in host_parts(model).items():
            assert sum(parts.values()) * rows[way]["steps"] == pytest.approx(rows[way]["wall_s"])
            assert min(parts.values()) >= 0
    picture = host_picture()
    assert "launching" in picture.alt and "waiting for the GPU" in picture.alt
    with pytest.raises(ValueError, match="no way 'backwards' was recorded"):
        host_picture(ways=("backwards",))


def test_two_runs_have_a_mean_and_no_middle_one():
    table = idle_table().table
    assert table is not None and "mean of 2 runs" in table.caption
    assert all("–" in row[0] for row in table.rows)
