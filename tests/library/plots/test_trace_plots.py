"""Pictures of runs: the numbers they draw, against a plain walk; that they draw them; and their tables."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from chunkprefill.metrics import waits as metrics
from chunkprefill.metrics.overtime import count_over, max_over, mean_over, over_time, tokens_by_kind
from chunkprefill.plots import comparisons
from chunkprefill.plots import dashboard as traceplots
from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.core import Request
from chunkprefill.scheduling.policies import ChunkedPrefill, PrefillFirst
from chunkprefill.scheduling.trace import Trace
from chunkprefill.simulation.capacity import at_rate
from chunkprefill.simulation.cost import Roofline, SchedulerCost
from chunkprefill.simulation.simulate import simulate
from chunkprefill.simulation.sweep import sweep
from chunkprefill.simulation.workloads import poisson
from tests.library.metrics.test_metrics import traces


@pytest.fixture(scope="module")
def two():
    requests, price = poisson(40, 20.0, seed=2), SchedulerCost(1e-3, 1e-5, 1e-5)
    pool = BlockPool(max(-(-(r.n_prompt + r.n_output) // 16) for r in requests) + 40)
    return {
        "prefilling first": simulate(requests, PrefillFirst(4096), Roofline(), pool, scheduling=price),
        "chunks": simulate(requests, ChunkedPrefill(256), Roofline(), pool, scheduling=price),
    }


def overlap(edges, a, b):
    """[n] s that [a, b] shares with each stretch."""
    return np.maximum(np.minimum(edges[1:], b) - np.maximum(edges[:-1], a), 0)


@settings(max_examples=40)
@given(traces(), st.integers(1, 40))
def test_averages_over_time_keep_every_token_and_second(trace, n):
    t = over_time(trace, n)
    width = np.diff(t.edges)
    kinds = tokens_by_kind(trace)
    want = {kind: np.zeros(n) for kind in kinds}
    longest, most = np.zeros(n), np.zeros(n)
    for i, step in enumerate(trace.steps):
        part = overlap(t.edges, step.start, step.end)
        for kind in kinds:
            want[kind] += kinds[kind][i] * part / width
        longest = np.maximum(longest, (part > 1e-9) * (step.end - step.start))
        most = np.maximum(most, (part > 1e-9) * step.blocks_used)
    for kind in kinds:
        np.testing.assert_allclose(getattr(t, kind), want[kind], rtol=1e-6, atol=1e-6, err_msg=kind)
    assert (t.step_max >= longest - 1e-9).all() and (t.blocks >= most - 1e-9).all()
    assert t.step_max.max() == pytest.approx(longest.max()) and t.blocks.max() == most.max()
    waiting = running = 0
    for request in trace.requests:
        mine = [step for step in trace.steps if request.rid in step.batch.rid]
        waiting = waiting + overlap(t.edges, request.arrival, mine[0].start) / width
        running = running + overlap(t.edges, mine[0].start, mine[-1].end) / width
    np.testing.assert_allclose(t.waiting, waiting, atol=1e-5)
    np.testing.assert_allclose(t.running, running, atol=1e-5)
    assert t.evictions.sum() == sum(len(step.batch.preempted) for step in trace.steps)


@settings(max_examples=40)
@given(traces())
def test_tokens_by_kind_share_out_each_step(trace):
    kinds, reached = tokens_by_kind(trace), {request.rid: 0 for request in trace.requests}
    n_prompt = {request.rid: request.n_prompt for request in trace.requests}
    for i, step in enumerate(trace.steps):
        want = {"prefill": 0, "decode": 0, "recompute": 0}
        for rid, start, length, _ in step.batch:
            for position in range(start, start + length):
                again = position < reached[rid]
                want["recompute" if again else "prefill" if position < n_prompt[rid] else "decode"] += 1
            reached[rid] = max(reached[rid], start + length)
        assert {kind: kinds[kind][i] for kind in kinds} == want


def test_small_pieces_by_hand():
    edges = np.array([0.0, 1.0, 2.0, 4.0])
    start, end, value = np.array([0.5, 3.0]), np.array([1.5, 4.0]), np.array([10.0, 4.0])
    assert mean_over(edges, start, end, value).tolist() == [5, 5, 2]
    assert max_over(edges, start, end, value).tolist() == [10, 10, 4]
    assert count_over(edges, np.array([0.0, 0.5, np.nan]), np.array([2.0, 1.0, np.nan])).tolist() == [
        1.5,
        1,
        0,
    ]
    with pytest.raises(ValueError, match="0 steps"):
        over_time(Trace([Request(0, 0.0, 1, 1)]))


# --- drawings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", traceplots.PANELS)
def test_each_panel_draws_what_over_time_says(name, two):
    trace = two["chunks"]
    ax = Figure().subplots()
    traceplots.PANELS[name](trace, ax)
    t = over_time(trace)
    heights = [patch.get_data().values for patch in ax.patches]
    top = {
        "steps": 1e3 * t.step_max,
        "batches": t.prefill + t.decode + t.recompute,
        "queue": t.waiting,
        "blocks": t.blocks,
        "scheduling": 100 * t.scheduling,
    }[name]
    assert any(np.allclose(values, top) for values in heights)
    assert ax.get_title(loc="left") or ax.get_title()
    assert ax.get_ylim()[0] == 0


def test_dashboard_is_an_accessible_picture_with_its_table(two):
    trace = two["chunks"]
    made = traceplots.dashboard_picture(trace, caption="See the queue grow.", n_blocks=500)
    ElementTree.fromstring(made.svg)
    assert len(made.svg) < 120_000
    assert str(len(trace.requests)) in made.alt and "longest" in made.alt
    assert len(made.table.rows) == 8 and made.table.rows[-1][0]
    assert made.svg == traceplots.dashboard_picture(trace, caption="See the queue grow.", n_blocks=500).svg
    as_measured = traceplots.dashboard_picture(trace, caption="x", badge="measured")
    assert "≈" in as_measured.alt and "≈" in str(as_measured.table) and "≈" not in made.alt
    with pytest.raises(ValueError, match="batches"):
        traceplots.dashboard_picture(trace, caption="x", panels=["colour"])


@pytest.mark.parametrize("metric", comparisons.METRICS)
@pytest.mark.parametrize("tail", [False, True])
def test_distribution_ends_at_the_maximum(metric, tail, two):
    ax = Figure().subplots()
    comparisons.cdf(two, ax, metric, tail=tail)
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    values = [comparisons.METRICS[metric](trace) for trace in two.values()]
    assert [dot.get_xdata()[0] for dot in dots] == [np.nanmax(v) for v in values if not np.isnan(v).all()]
    curves = [line for line in ax.lines if line.get_marker() != "o"]
    for line, v in zip(curves, (v for v in values if not np.isnan(v).all())):
        x, y = line.get_data()
        v = v[~np.isnan(v)]
        for at in (0, len(x) // 2, len(x) - 1):
            share = (v >= x[at]).mean() if tail else (v <= x[at]).mean()
            assert (y[at] <= share + 1e-9) and y[at] > 0  # equal but among equal values
    made = comparisons.cdf_picture(two, metric, caption="x", tail=tail)
    assert "maximum" in made.alt and comparisons.DEFINITIONS[metric] == made.table.caption
    assert len(made.table.rows) == 2


def test_frontier_draws_the_rows_and_shows_the_maximum_beside_a_percentile():
    requests = poisson(30, 4.0)
    rows = sweep(
        {f"{rate}/s": at_rate(requests, rate) for rate in (2, 8, 32)},
        {"first": PrefillFirst(4096), "chunks": ChunkedPrefill(256)},
        progress=False,
    )
    ax = Figure().subplots()
    comparisons.frontier(rows, ax, comparisons.Columns(), bound=0.05)
    series = [line for line in ax.lines if line.get_marker() == "o"]
    assert [line.get_label() for line in series] == ["first", "chunks"]
    for line in series:
        mine = [row for row in rows if row["policy"] == line.get_label()]
        assert line.get_xdata().tolist() == [row["output_tokens_per_s"] for row in mine]
        assert line.get_ydata().tolist() == [row["tbt_p99"] for row in mine]
    made = comparisons.frontier_picture(rows, caption="x", bound=0.05)
    assert made.table.header == ("policy", "workload", "output tokens per s", "TBT P99", "TBT max")
    assert len(made.table.rows) == 6 and "TBT P99 against output tokens per s" in made.alt


def test_ink_follows_the_page_and_type_is_large_enough(two):
    for made in (
        traceplots.dashboard_picture(two["chunks"], caption="x"),
        comparisons.cdf_picture(two, caption="x"),
    ):
        assert "currentColor" in made.svg and "#000000" not in made.svg
        assert not re.search(r"https?://(?!www\.w3\.org)", made.svg)
        sizes = [float(size) for size in re.findall(r"font(?:-size)?: ?[^;\"]*?([\d.]+)px", made.svg)]
        assert sizes and min(sizes) >= 9


def test_metrics_and_pictures_agree(two):
    rows = comparisons.spread_table(two, "tbt").rows
    for row, trace in zip(rows, two.values()):
        assert row[4] == traceplots.plain(metrics.tbt(trace).max(), "s")
