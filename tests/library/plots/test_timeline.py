"""Timelines draw the trace: every box, every token, the longest gap; and say it in a table."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chunkprefill as cp
from chunkprefill.metrics.timelines import align_arrivals, request_timelines
from chunkprefill.plots.style import round_step

REQUESTS = [cp.Request("chat", 0, 4, 9), cp.Request("document", 2.5, 40, 3)]


def run(policy=None, pool=None, requests=REQUESTS):
    return cp.simulate(
        requests, policy or cp.ChunkedPrefill(8), lambda batch: 1.0 + 0.1 * sum(batch.length), pool
    )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 40), st.integers(1, 6)), min_size=1, max_size=5),
    st.sampled_from([cp.ChunkedPrefill(8), cp.PrefillFirst(16, chunk=8), cp.SerialChunks(5)]),
    st.sampled_from([None, 12]),
)
def test_timelines_hold_every_row_and_every_token(lines, policy, n_blocks):
    requests = [cp.Request(rid, *numbers) for rid, numbers in enumerate(lines)]
    trace = run(policy, n_blocks and cp.BlockPool(n_blocks, 4), requests)
    told = request_timelines(trace)
    for rid, life in told.items():
        rows = [(s.start, s.end, c) for s in trace.steps for c in s.batch if c.rid == rid]
        assert [(a, b) for _, a, b in life.boxes] == [(a, b) for a, b, _ in rows]
        assert list(life.tokens) == [b for _, b, c in rows if c.emits]
        assert len(life.tokens) == requests[rid].n_output
        gaps = [b - a for a, b in pairwise(life.tokens)] or [0]
        assert life.longest == pytest.approx(max(gaps)) and life.first_token > 0
        ends = [c.end for _, _, c in rows]
        again = sum(kind == "recompute" for kind, _, _ in life.boxes)
        assert again == sum(c.start < max(ends[:i], default=0) for i, (_, _, c) in enumerate(rows))
    if not n_blocks:
        assert not any(kind == "recompute" for life in told.values() for kind, _, _ in life.boxes)


def test_it_draws_a_box_a_row_and_marks_the_longest_gap():
    trace = run(cp.PrefillFirst(64))
    picture = cp.timeline_picture({"x": trace}, caption="c", mark=["chat"])
    n_boxes = sum(path.count("M") for path in re.findall(r'<path d="([^"]*)"', picture.svg))
    assert n_boxes == sum(len(step.batch) for step in trace.steps)
    words = re.findall(r"<text[^>]*>([^<]*)</text>", picture.svg)
    assert f"gap {1e3 * request_timelines(trace)['chat'].longest:,.0f} ms" in words
    assert {"chat", "document", "time, s", "x"} <= set(words)


def test_boxes_are_as_wide_as_their_steps_took():
    trace = run(cp.PrefillFirst(64))
    picture = cp.timeline_picture({"x": trace}, caption="c")
    wide = [float(w) for w in re.findall(r"M[\d.]+ [\d.]+h([\d.]+)v26", picture.svg)]
    took = [
        b - a for line in request_timelines(trace).values() for kind, a, b in line.boxes if kind == "prefill"
    ]
    assert max(wide) / min(wide) == pytest.approx(max(took) / min(took), rel=0.15)


def test_what_is_computed_again_has_an_edge_of_its_own():
    requests = [cp.Request(rid, 0.0, 6, 12) for rid in range(3)]
    trace = run(cp.ChunkedPrefill(32), cp.BlockPool(9, 4), requests)
    assert any(kind == "recompute" for line in request_timelines(trace).values() for kind, *_ in line.boxes)
    assert "stroke-dasharray" in cp.timeline_picture({"x": trace}, caption="c").svg


@pytest.mark.parametrize(
    ("traces", "words", "match"),
    [
        ({}, {}, "no traces to draw"),
        ({"x": cp.Trace(REQUESTS)}, {}, "trace 'x' has no steps"),
        ({"x": run()}, {"mark": "chat 1"}, "no request 'chat 1' in trace 'x'; there are 'chat', 'document'"),
        ({"x": run()}, {"until": -1}, "until=-1: the axis ends after 0 s"),
        (
            {"x": run(requests=[cp.Request(i, 0, 4, 2) for i in range(61)])},
            {},
            "61 requests, at most 60 rows",
        ),
    ],
)
def test_what_cannot_be_drawn_is_said(traces, words, match):
    with pytest.raises(ValueError, match=match):
        cp.timeline_picture(traces, caption="c", **words)


@pytest.mark.parametrize("end", [1e-4, 0.013, 0.5, 1.0, 7.7, 42.0, 86_400.0])
def test_axes_have_a_handful_of_round_numbers(end):
    step = round_step(end / 4, (1, 2, 2.5, 5))
    assert 2 <= end / step <= 4.001 and f"{step:e}"[0] in "125"


def test_the_picture_has_words_for_what_it_shows_and_a_table_of_its_numbers():
    traces = {"prompts first": run(cp.PrefillFirst(64)), "decodes first": run()}
    picture = cp.timeline_picture(traces, caption="c", mark=["chat"])
    for title, trace in traces.items():
        for rid, life in request_timelines(trace).items():
            assert f"{1e3 * life.longest:,.0f} ms" in picture.alt
            row = (rid, title, f"{1e3 * life.first_token:,.0f} ms", f"{1e3 * life.longest:,.0f} ms")
            assert row in [tuple(r) for r in picture.table.rows]
    assert picture.badge_text == "simulated" and "≈" not in str(picture)
    assert "≈" in str(cp.timeline_picture(traces, caption="c", badge="measured"))


def test_the_same_trace_gives_the_same_bytes():
    assert cp.timeline_picture({"x": run()}, caption="c") == cp.timeline_picture({"x": run()}, caption="c")


def test_arrivals_are_moved_with_the_steps_that_they_fell_into():
    planned = run()
    slower = cp.reprice(planned, lambda batch: 3.0 + 0.3 * sum(batch.length))
    moved = align_arrivals(planned, planned)
    assert [r.arrival for r in moved.requests] == pytest.approx([r.arrival for r in REQUESTS])
    later = align_arrivals(planned, slower)
    assert later.requests[1].arrival == pytest.approx(3 * REQUESTS[1].arrival, rel=1e-9)
