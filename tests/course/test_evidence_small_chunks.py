"""What small chunks cost: the split adds up, and the claim is borne out by the recorded rows alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

import chunkprefill as cp
from chunkprefill_course.evidence import launching, small_chunks
from chunkprefill_course.evidence import overhead as shares
from chunkprefill_course.evidence.evidence import both_sides
from chunkprefill_course.evidence.tradeoff import mixed
from chunkprefill_course.gpu_recording import digest


def test_the_claim_holds_for_short_chunks_and_not_for_long_ones():
    assert both_sides(small_chunks.launch_floor).sound


def test_a_host_that_launches_fast_would_break_the_claim(monkeypatch):
    """The verdict reads the recording: let the small model's passes take a fifth, and it fails."""
    inner = small_chunks.prefilled

    def fast(model=small_chunks.LARGE):
        share = 1.0 if model == small_chunks.LARGE else 0.2
        return [replace(row, seconds=row.seconds * share) for row in inner(model)]

    monkeypatch.setattr(small_chunks, "prefilled", fast)
    assert not small_chunks.launch_floor().holds


def test_the_split_is_of_the_recorded_rows_and_its_prices_of_the_published_kernels():
    rows = small_chunks.prefilled()
    recorded = {
        r["chunk"]: r
        for r in digest()["rows"]
        if r["section"] == "prefilling" and r["model"] == "Llama-3-8B" and r["prompt"] == 8192
    }
    assert [r.chunk for r in rows] == sorted(recorded)
    for row in rows:
        assert row.seconds == recorded[row.chunk]["s"] and row.least <= row.seconds <= row.most
        assert row.passes * row.chunk == small_chunks.N_PROMPT
        weights, cache = small_chunks.priced_parts("Llama-3-8B", row.chunk)
        assert weights > row.weights > -0.002 and cache > row.cache >= 0
        assert row.weights + row.cache + row.rest(rows[-1]) == pytest.approx(row.seconds - rows[-1].seconds)
    assert rows[-1].weights == rows[-1].cache == 0
    price = cp.published("h100")
    for row in rows[:-1]:  # what the two parts add is what whole passes add
        whole = sum(price(mixed(chunk=row.chunk, start=start)) for start in range(0, 8192, row.chunk))
        assert row.weights + row.cache == pytest.approx(whole - price(mixed(chunk=8192)), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("dtype, share", [("bf16", 1.0), ("fp8", 1.0), ("int4", 0.26)])
def test_the_saturation_point_is_where_arithmetic_overtakes_reading(dtype, share):
    n = small_chunks.saturation("llama-3.1-8b", "h100", dtype)
    assert n == pytest.approx(266 * share, rel=0.02)


def test_experts_move_the_saturation_point_up_by_what_they_leave_idle():
    moe = cp.MODELS["qwen3-30b-a3b"]
    dense = small_chunks.saturation("llama-3.1-8b")
    assert dense * 4 < small_chunks.saturation("qwen3-30b-a3b") < dense * moe.n_experts / moe.n_active


def test_riding_along_is_the_recordings_and_the_prices_directions_differ():
    rows = small_chunks.riding_rows()
    assert [chunk for chunk, *_ in rows] == sorted(chunk for chunk, *_ in rows)
    assert rows[0][1] < rows[-1][1] and rows[0][2] > rows[-1][2]


def test_graph_rows_are_ten_runs_each_with_their_range():
    table = launching.graph_table()
    assert "medians of 10 passes" in table.caption and all(
        "–" in row[1] and "–" in row[2] for row in table.rows
    )


def test_cited_shares_are_shown_a_workload_a_row():
    table = shares.shares_table()
    assert [row[0] for row in table.rows] == list(shares.CITED_SHARES) and table.rows[3][1] == "–"
