"""The grid of P and D tells the trace, each row of each batch once."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

import chunkprefill as cp
from chunkprefill.plots.grid import step_tasks

workloads = st.lists(
    st.tuples(st.integers(0, 4), st.integers(1, 30), st.integers(1, 6)), min_size=1, max_size=5
)
policies = st.sampled_from(
    [cp.SerialChunks(4), cp.ChunkedPrefill(8), cp.PrefillFirst(16), cp.RequestLevel(2)]
)


@settings(max_examples=60, deadline=None)
@given(workloads, policies, st.sampled_from([None, 12]))
def test_every_row_of_every_batch_is_told_once(lines, policy, n_blocks):
    requests = [cp.Request(rid, *numbers) for rid, numbers in enumerate(lines)]
    pool = n_blocks and cp.BlockPool(n_blocks, 4)
    trace = cp.simulate(requests, policy, lambda batch: 1.0, pool)
    told = step_tasks(trace)
    assert [{rid: n for rid, (_, _, n) in row.items()} for row in told] == [
        dict(zip(step.batch.rid, step.batch.length)) for step in trace.steps
    ]
    for rid in range(len(lines)):
        for kind in "PD":
            numbers = [row[rid][1] for row in told if rid in row and row[rid][0] == kind]
            assert numbers == list(range(1, len(numbers) + 1))


def test_the_textbook_s_example():
    requests = [cp.Request("a", 1, 12, 3), cp.Request("b", 0, 4, 6)]
    trace = cp.simulate(requests, cp.SerialChunks(4), lambda batch: 1.0)
    picture = cp.grid_picture(trace, caption="c")
    assert picture.table.rows[2] == (3, "P₁₂", "D₂₂")
    assert "Iteration 3: a P₁₂, b D₂₂." in picture.alt and "more iterations" not in picture.alt
    short = cp.grid_picture(trace, caption="c", most=2)
    assert (
        short.alt.endswith(f"{len(trace.steps) - 2} more iterations follow.") and len(short.table.rows) == 2
    )


def test_a_long_row_stays_within_the_drawing():
    trace = cp.simulate([cp.Request(1, 0, 90, 3)], cp.SerialChunks(5), lambda batch: 1.0)
    picture = cp.grid_picture(trace, caption="c", most=20)
    ends = [
        float(x) + float(w)
        for x, w in re.findall(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', picture.svg)
    ]
    assert max(ends) <= picture.width
