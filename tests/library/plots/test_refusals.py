"""What cannot be drawn is refused in one clear line, and a picture never grows without bound."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

import chunkprefill as cp

EMPTY = cp.Trace([cp.Request("a", 0, 4, 2)])
RUN = cp.simulate([cp.Request("a", 0, 4, 2)], cp.ChunkedPrefill(8), lambda batch: 1.0)
FREE = cp.simulate([cp.Request("a", 0, 4, 2)], cp.ChunkedPrefill(8), lambda batch: 0.0)
WORDS: dict[str, Any] = {"alt": "x", "caption": "x"}
SAY: dict[str, Any] = {"caption": "x"}

REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: cp.mask_picture(1000, 1000), "1,000 queries by 2,000 keys are 2,000,000 cells"),
    (lambda: cp.mask_picture(1.5, 2), "start must be a whole number of at least 0, got 1.5"),
    (lambda: cp.mask_picture(-1, 2), "start must be a whole number of at least 0, got -1"),
    (lambda: cp.mask_picture(0, 0), "length must be a whole number of at least 1, got 0"),
    (lambda: cp.mask_picture(1, 2, words=["a"]), "words has 1 words for 3"),
    (lambda: cp.filling_picture([]), "chunk lengths must be at least 1"),
    (lambda: cp.filling_picture([3, 1.5]), "chunk 1 must be a whole number of at least 1, got 1.5"),
    (lambda: cp.filling_picture([100] * 500), "500 passes are 750,000 cells"),
    (lambda: cp.share_picture({}, **WORDS), "0 parts in 0 rows"),
    (lambda: cp.share_picture({"r": dict.fromkeys("abcde", 1)}, **WORDS), "5 parts in 1 rows"),
    (lambda: cp.share_picture({"r": {"a": 0}}, **WORDS), "row 'r' has nothing to share"),
    (lambda: cp.share_picture({"r": {"a": -1}}, **WORDS), "row 'r' has -1"),
    (lambda: cp.share_picture({"r": {"a": 1}}, scale="x", **WORDS), "no scale 'x'; there are each, all"),
    (lambda: cp.timeline_picture({"free": FREE}, **SAY), "an axis from 0 to 0 has no length"),
    (lambda: cp.lanes_picture({"free": FREE}, **SAY), "an axis from 0 to 0 has no length"),
    (lambda: cp.passes_picture({}, **WORDS), "no rows to draw"),
    (lambda: cp.passes_picture({"a": []}, **WORDS), "row 'a' has 0 numbers"),
    (lambda: cp.passes_picture({"a": [0.0]}, **WORDS), "all passes took 0 s"),
    (lambda: cp.curve_picture({}, x_label="", y_label="", **WORDS), "no series to draw"),
    (lambda: cp.curve_picture({"a": ([], [])}, x_label="", y_label="", **WORDS), "series 'a' has 0 xs"),
    (lambda: cp.curve_picture({"a": ([1], [])}, x_label="", y_label="", **WORDS), "has 1 xs and 0 ys"),
    (lambda: cp.bars_picture({}, **WORDS), "1 to 3 series"),
    (lambda: cp.cdf_picture({}, **SAY), "no traces to draw"),
    (lambda: cp.cdf_picture({"a": RUN}, "tbtt", **SAY), "no metric 'tbtt'; there are ttft, tbt, tpot"),
    (lambda: cp.cdf_picture(RUN, **SAY), "traces is a Trace: {title: trace} is needed"),
    (lambda: cp.spread_table({"a": 5}, "tbt"), "trace 'a' is 5: a Trace is needed"),
    (lambda: cp.frontier_picture([], **SAY), "no rows to draw"),
    (lambda: cp.frontier_table([{"policy": "x"}]), "row 0 has no 'output_tokens_per_s'; it has policy"),
    (lambda: cp.dashboard_picture(EMPTY, **SAY), "the trace has no steps: nothing ran"),
    (lambda: cp.dashboard_picture(None, **SAY), "the trace is None: a Trace is needed"),
    (lambda: cp.dashboard_picture(RUN, panels=["x"], **SAY), r"panels \['x'\]: choose from"),
    (lambda: cp.lanes_picture({}, **SAY), "no traces to draw"),
    (lambda: cp.lanes_picture({"a": EMPTY}, **SAY), "trace 'a' has no steps"),
    (lambda: cp.lanes_picture({"a": RUN}, until=-1, **SAY), "until=-1: the axis ends after 0 s"),
    (
        lambda: cp.lanes_picture({"a": RUN}, n_steps=0, **SAY),
        "n_steps must be a whole number of at least 1, got 0",
    ),
    (lambda: cp.lanes_picture({"a": RUN}, first={"b": 0}, **SAY), "first names no step of trace 'a'"),
    (lambda: cp.grid_picture(EMPTY, **SAY), "the trace has no steps"),
    (lambda: cp.grid_picture(RUN, most=0, **SAY), "most must be a whole number of at least 1, got 0"),
    (lambda: cp.grid_picture(RUN, names=["a", "b"], **SAY), "names has 2 words for 1"),
    (lambda: cp.breakdown_picture({}, **SAY), "no runs to draw"),
    (lambda: cp.fit_picture({}, **SAY), "no fits to draw"),
    (lambda: cp.timeline_picture({}, **SAY), "no traces to draw"),
    (lambda: cp.timeline_picture(RUN, **SAY), "traces is a Trace"),
    (lambda: cp.timeline_picture({"x": EMPTY}, **SAY), "trace 'x' has no steps"),
    (lambda: cp.timeline_picture({"x": RUN}, mark="chat 1", **SAY), "no request 'chat 1' in trace 'x'"),
    (lambda: cp.timeline_picture({"x": RUN}, until=-1, **SAY), "until=-1"),
    (lambda: cp.timeline_picture({"x": RUN}, until=float("nan"), **SAY), "until=nan"),
    (lambda: cp.timeline_table({}), "no traces to draw"),
]


@pytest.mark.parametrize(("draw", "message"), REFUSED, ids=[message[:40] for _, message in REFUSED])
def test_what_cannot_be_drawn_is_one_clear_line(draw: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        draw()
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_the_largest_mask_that_is_drawn_is_a_page_one_can_load() -> None:
    assert len(cp.mask_picture(60, 80)._repr_html_()) < 2_000_000


def test_an_amount_is_in_its_unit_itself():
    """A share of 0.25 is 25%, and fractions are numbers too, as in every picture of amounts."""
    shares = cp.share_picture({"r": {"a": Fraction(1, 4), "b": 0.75}}, unit="%", **WORDS)
    assert [row[1:] for row in shares.table.rows] == [("25%", "75%")]
    assert "25%" in cp.bars_picture({"g": {"a": Fraction(1, 4)}}, **WORDS).svg
    assert "333" in str(cp.breakdown_picture({"run": {"a": Fraction(1, 3)}}, **SAY).table)
