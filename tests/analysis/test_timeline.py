"""Timelines draw the trace: every box, every token, the longest silence; and say it in a table."""

from __future__ import annotations

from itertools import pairwise

import matplotlib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

import chunkprefill as cp
from chunkprefill.analysis.timeline import lives, timeline

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
def test_lives_hold_every_row_and_every_token(lines, policy, n_blocks):
    requests = [cp.Request(rid, *numbers) for rid, numbers in enumerate(lines)]
    trace = run(policy, n_blocks and cp.BlockPool(n_blocks, 4), requests)
    told = lives(trace)
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


def test_it_draws_on_any_axes_a_box_a_row_and_marks_the_longest_silence():
    trace = run(cp.PrefillFirst(64))
    ax = Figure().subplots()
    timeline(trace, ax, mark=["chat"])
    n_boxes = sum(len(patch.get_path().codes) // 5 for patch in ax.patches)
    assert n_boxes == sum(len(step.batch) for step in trace.steps)
    words = [text.get_text() for text in ax.texts]
    assert f"silent {1e3 * lives(trace)['chat'].longest:,.0f} ms" in words
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["chat", "document"]


def test_the_picture_has_words_for_what_it_shows_and_a_table_of_its_numbers():
    traces = {"prompts first": run(cp.PrefillFirst(64)), "decodes first": run()}
    picture = cp.timeline_picture(traces, caption="c", mark=["chat"])
    for title, trace in traces.items():
        for rid, life in lives(trace).items():
            assert f"{1e3 * life.longest:,.0f} ms" in picture.alt
            row = (rid, title, f"{1e3 * life.first_token:,.0f} ms", f"{1e3 * life.longest:,.0f} ms")
            assert row in [tuple(r) for r in picture.table.rows]
    assert picture.badge_text == "simulated" and "≈" not in str(picture)
    assert "≈" in str(cp.timeline_picture(traces, caption="c", badge="measured"))


def test_the_same_trace_gives_the_same_bytes_and_settings_are_left_alone():
    before = dict(matplotlib.rcParams)
    assert cp.timeline_picture({"x": run()}, caption="c") == cp.timeline_picture({"x": run()}, caption="c")
    assert dict(matplotlib.rcParams) == before
