"""Pictures: true to their numbers, accessible, in the page's ink, the same bytes each time."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunkprefill.plots.bars import passes_picture, share_picture
from chunkprefill.plots.cells import filling_picture, mask_picture
from chunkprefill.plots.curve import curve_picture
from chunkprefill.plots.style import BADGES, Canvas, Picture, Scale, Table, plain

PICTURES = {
    "mask": lambda: mask_picture(3, 3),
    "wrong mask": lambda: mask_picture(2, 2, [[True] * 4] * 2),
    "filling": lambda: filling_picture([2, 2, 2], 2),
    "long filling": lambda: filling_picture([100, 28]),
    "shares": lambda: share_picture({"a": {"x": 3, "y": 1}, "b": {"x": 1, "y": 0}}, alt="3, 1", caption="c"),
    "passes": lambda: passes_picture({"in one": [0.5], "in four": [0.2] * 4}, alt="a", caption="c"),
    "curve": lambda: curve_picture(
        {"one": ([1, 2, 4], [3, 2, 1]), "two": ([1, 2, 4], [1, 1, 1])},
        x_label="chunk, tokens",
        y_label="time, s",
        alt="falls",
        caption="c",
    ),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_well_formed_named_captioned_and_badged(name):
    made = PICTURES[name]()
    root = ET.fromstring(made.image().replace(" data-measured", ""))
    assert root.attrib["role"] == "img" and root.attrib["aria-label"] == made.alt
    html = made._repr_html_()
    ET.fromstring(html.replace(" data-measured", ""))  # every tag closed, every attribute quoted
    assert made.caption.split("&")[0] in html and made.badge_text in html and "</table>" in html


@pytest.mark.parametrize("name", PICTURES)
def test_ink_follows_the_page(name):
    svg = PICTURES[name]().svg
    assert "currentColor" in svg
    assert not re.search(r"(?<!\w)(#000000|#ffffff|black|white)\b", svg)
    assert "http" not in re.sub(r'xmlns(:xlink)?="[^"]*"', "", svg) and "<style" not in svg
    assert not re.search(r'<svg[^>]* (width|height)="', svg), "a fixed size would not shrink on a phone"


@pytest.mark.parametrize("name", PICTURES)
def test_text_is_nine_points_on_a_phone(name):
    svg = PICTURES[name]().svg
    sizes = [float(a or b) for a, b in re.findall(r'font-size="([\d.]+)"|font-size: ([\d.]+)px', svg)]
    wide = float(re.search(r'viewBox="0 0 ([\d.]+)', svg)[1])
    assert sizes and min(sizes) * 358 / wide >= 12  # CSS pixels; a page 390 wide leaves 358


@pytest.mark.parametrize("name", PICTURES)
def test_the_same_numbers_give_the_same_bytes_and_ids_are_a_figures_own(name):
    one, other = PICTURES[name]().svg, PICTURES["curve"]().svg
    assert one == PICTURES[name]().svg
    ids = set(re.findall(r'\bid="([^"]+)"', one))
    assert name == "curve" or not ids & set(re.findall(r'\bid="([^"]+)"', other))
    assert {ref for pair in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', one) for ref in pair if ref} <= ids


@given(st.integers(0, 9), st.integers(1, 5))
def test_the_right_mask_counts_its_pairs(start, length):
    made = mask_picture(start, length)
    pairs = sum(start + i + 1 for i in range(length))
    assert [row[2] for row in made.table.rows] == [start + i + 1 for i in range(length)]
    assert f">{pairs} of {length * (start + length)} pairs" in made.svg
    assert "missing" not in made.alt and "ahead" not in made.alt


@given(st.integers(1, 19), st.integers(1, 5))
def test_the_heads_over_a_mask_are_apart(start, length):
    """Over narrow stretches `in the cache` and `this chunk` were written into each other."""
    spans = []
    for words in ("in the cache", "this chunk"):
        x, anchor = re.search(
            rf'<text x="([-\d.]+)"[^>]*text-anchor="(\w+)"[^>]*>{words}<', mask_picture(start, length).svg
        ).groups()
        width = 0.5 * 18 * len(words)  # at least so much
        left = float(x) - {"start": 0, "middle": 0.5, "end": 1}[anchor] * width
        spans.append((left, left + width))
    assert spans[0][0] >= 0 and spans[0][1] + 5 < spans[1][0] and spans[1][1] <= 540, spans


@given(st.data(), st.integers(0, 5), st.integers(1, 4))
def test_a_wrong_mask_is_told_cell_by_cell(data, start, length):
    end = start + length
    mask = data.draw(
        st.lists(st.lists(st.booleans(), min_size=end, max_size=end), min_size=length, max_size=length)
    )
    ahead = sum(mask[i][j] for i in range(length) for j in range(end) if j > start + i)
    missing = sum(not mask[i][j] for i in range(length) for j in range(end) if j <= start + i)
    made = mask_picture(start, length, mask)
    assert made.svg.count(">×<") == ahead and made.svg.count(">?<") == missing
    assert (f" {ahead} cells look ahead" in made.alt) == bool(ahead)
    assert (f" {missing} cells are missing" in made.alt) == bool(missing)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.data())
def test_a_filling_cache_covers_every_position_once_and_emits_last(lengths, data):
    step = data.draw(st.integers(0, len(lengths)))
    made = filling_picture(lengths, step)
    assert len(made.table.rows) == len(lengths) and {row[1] for row in made.table.rows[step:]} <= {"to come"}
    rows = made.table.rows[:step]
    assert all(row[3] - row[2] == length for row, length in zip(rows, lengths))
    assert [row[4] for row in rows] == ["yes" if k == len(lengths) - 1 else "no" for k in range(step)]
    assert f"after pass {step}: {sum(lengths[:step])} of {sum(lengths)} positions" in made.svg


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: mask_picture(-1, 2), "start must be a whole number of at least 0, got -1"),
        (lambda: mask_picture(1, 0), "length must be a whole number of at least 1, got 0"),
        (lambda: mask_picture(1, 1, [[True]]), "1 rows of 2"),
        (lambda: filling_picture([]), "at least 1"),
        (lambda: filling_picture([2, 0]), "at least 1"),
        (lambda: filling_picture([2], 2), "step 2 of 1"),
        (lambda: share_picture({"a": {"b": 1}}, alt="a", caption="c", scale="log"), "log"),
        (lambda: Table(header=("a",), rows=[(1, 2)]), "2 cells, 1 columns"),
        (lambda: Picture(svg="<svg />", alt="", caption="c"), "alt"),
        (lambda: Picture(svg="<svg />", alt="a", caption="c", badge="real"), "'real'"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_its_numbers(make, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        make()


def test_what_comes_after_the_prompt_is_decoded_and_every_such_pass_emits():
    made = filling_picture([2, 1, 1, 1], n_prompt=3)
    assert [row[4] for row in made.table.rows] == ["no", "yes", "yes", "yes"]
    assert made.svg.count("#E69F00") == 2 and made.svg.count(">D<") == 2


@given(st.lists(st.lists(st.floats(1e-4, 9), min_size=1, max_size=6), min_size=1, max_size=4))
def test_passes_are_drawn_to_scale(rows):
    made = passes_picture({f"row {k}": times for k, times in enumerate(rows)}, alt="a", caption="c")
    drawn = [float(w) + 1.5 for w in re.findall(r'height="30"|width="([\d.]+)" height="30"', made.svg) if w]
    longest = max(map(sum, rows))
    assert drawn == pytest.approx([500 * t / longest for times in rows for t in times], abs=2.1)


def test_decoding_steps_are_told_apart_and_only_chunks_are_numbered():
    made = passes_picture(
        {"r": [1, 9, 1, 9]}, kinds={"r": ["decode", "prefill", "decode", "prefill"]}, alt="a", caption="c"
    )
    assert made.svg.count("#E69F00") == 2 and re.findall(r">(P\d)<", made.svg) == ["P1", "P2"]


def test_markup_in_words_is_shown_not_run():
    canvas = Canvas(50)
    canvas.text(0, 0, "<script>&")
    made = canvas.picture(alt='"><script>', caption="<b>", table=Table(header=("<i>",), rows=[("&",)]))
    html = made._repr_html_().replace(" data-measured", "")
    ET.fromstring(html)
    assert "<script>" not in html and "<b>" not in html and "<i>" not in html


def test_a_published_picture_names_its_source():
    made = Canvas(10).picture(alt="a", caption="c", badge="published", source="SARATHI, A6000")
    assert made.badge_text == "published: SARATHI, A6000" and made.badge_text in made._repr_html_()
    assert set(BADGES) >= {"measured", "simulated", "published"}


def test_only_a_measured_picture_may_differ_in_another_run():
    measured, counted = (PICTURES[name]()._repr_html_() for name in ("curve", "mask"))
    assert " data-measured" in measured and ">≈3.00<" in measured  # what nbval's sanitiser looks for
    assert "data-measured" not in counted and "≈" not in counted


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (0.0123, "s", "12.3 ms"),
        (0.9996, "s", "1 s"),  # 1e+03 ms, once
        (12.0, "s", "12 s"),
        (1234.5, "s", "1,230 s"),  # 1.23e+03 s, once
        (0.25, "%", "25%"),
        (0.0123, "%", "1.2%"),
        (1234.5, "MiB", "1,234 MiB"),
        (1.2345, "", "1.23"),
        (None, "s", "–"),
    ],
)
def test_a_number_that_was_not_measured_is_written_in_its_unit(value, unit, words):
    assert plain(value, unit) == words


@given(st.floats(-1e6, 1e6), st.floats(0.001, 1e6), st.floats(-1e7, 1e7))
def test_a_scale_is_linear_between_its_ends_and_stops_at_them(begin, span, value):
    scale = Scale(begin, begin + span, 100.0, 400.0)
    assert (scale.x(begin), scale.x(begin + span)) == (100.0, 400.0)
    assert 100.0 <= scale.x(value) <= 400.0
    if begin <= value <= scale.end:
        assert scale.x(value) == pytest.approx(100 + 300 * (value - begin) / (scale.end - begin))


def test_an_axis_keeps_its_words_within_the_drawing():
    canvas = Canvas(50, width=200)
    canvas.axis(Scale(0.0, 2.0, 0.0, 200.0), 10, {0.0: "0", 1.0: "1", 2.0: "2"}, inside=15)
    assert re.findall(r'<text x="([\d.]+)" y="34"', canvas.svg) == ["15", "100", "185"]
    assert re.findall(r'<line x1="([\d.]+)" y1="10" x2="\1" y2="15"', canvas.svg) == ["0", "100", "200"]


def test_tables_read_as_text():
    assert str(Table(header=("chunk", "passes"), rows=[(64, 8), (512, 1)])) == (
        "chunk  passes\n   64       8\n  512       1"
    )


def test_drawing_a_mask_needs_neither_matplotlib_nor_torch():
    code = (
        "import sys; sys.modules['torch'] = sys.modules['matplotlib'] = None; "
        "from chunkprefill.plots.cells import mask_picture, filling_picture; "
        "mask_picture(2, 2); filling_picture([2])"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "ends",
    [(61.9, 43.4), (61.9, 5.0), (20.0, 43.4), (24.0, 17.0)],
    ids=["both rise", "one falls", "they cross", "level"],
)
def test_no_line_runs_through_a_name(ends):
    """The name of a line stood at its end, above it, where a steeper line ran through it."""
    sizes = [128, 512, 2048]
    series = {"measured": (sizes, [20.6, 23.4, ends[0]]), "operator roofline": (sizes, [11.2, 16.2, ends[1]])}
    svg = curve_picture(series, x_label="chunk", y_label="ms", alt="a", caption="c").svg
    paths = [re.findall(r"[ML] ([\d.]+) ([\d.]+)", path) for path in re.findall(r'<path d="([^"]+)"', svg)]
    lines = [[(float(x), float(y)) for x, y in path] for path in paths if len(path) == len(sizes)]
    lines = [line for line in lines if line[0][0] > 40]  # not the frame
    assert len(lines) == len(series)
    for name in series:
        left, right, base, size = place_of(name, svg)
        inside = [
            (left + (right - left) * k / 40, base - size * up) for k in range(41) for up in (0, 0.3, 0.6)
        ]
        assert min(distance(point, line) for point in inside for line in lines) > 1, name


def place_of(name: str, svg: str) -> tuple[float, float, float, float]:
    """Left and right edge, base line and size of a name in a picture; it is at least so wide."""
    style, x, y = re.search(rf'<text style="([^"]+)" x="([-\d.]+)" y="([-\d.]+)"[^>]*>{name}<', svg).groups()
    size = float(re.search(r"font-size: ([\d.]+)", style)[1])
    anchor = (re.search(r"text-anchor: (\w+)", style) or ["", "start"])[1]
    width = 0.45 * size * len(name)
    left = float(x) - {"start": 0, "middle": 0.5, "end": 1}[anchor] * width
    return left, left + width, float(y), size


def apart(svg: str, names: list[str]) -> None:
    """No two names are on one height and near each other, where they would read as one."""
    for one, other in combinations(names, 2):
        left, right, base, size = place_of(one, svg)
        their_left, their_right, their_base, _ = place_of(other, svg)
        aside = max(left, their_left) - min(right, their_right)
        assert abs(base - their_base) > 0.9 * size or aside > size, (one, other)


def test_names_are_not_on_one_height_beside_each_other():
    """`RTX PRO 6000` stood under its line's middle, and `H100` to the right of it on the same height."""
    depths = [0, 8, 16, 32, 64, 96, 127.488]
    series = {
        "RTX 4090": (depths, [45.0, 61.55, 78.1, 111.19, 177.38, 243.57, 308.71]),
        "RTX PRO 6000": (depths, [22.69, 33.65, 44.6, 66.52, 110.34, 154.17, 197.3]),
        "H100": (depths, [11.8, 15.51, 19.3, 26.89, 42.06, 57.23, 72.15]),
    }
    svg = curve_picture(
        series, x_label="depth", y_label="ms", height=380, log_x=False, alt="a", caption="c"
    ).svg
    apart(svg, list(series))
    right = [place_of(name, svg)[1] for name in series]
    assert max(right) - min(right) < 1, "each at the end of its line"


@given(
    st.lists(
        st.lists(st.floats(0, 100), min_size=3, max_size=3),
        min_size=2,
        max_size=4,
    )
)
def test_names_of_any_lines_are_apart(lines):
    series = {f"a line of number {k}": ([128, 512, 2048], ys) for k, ys in enumerate(lines)}
    apart(curve_picture(series, x_label="chunk", y_label="ms", alt="a", caption="c").svg, list(series))


def distance(point, line):
    """How far a point is from a line of points, measured upwards; infinite beside it."""
    x, y = point
    return min(
        (
            abs(y - (y0 + (y1 - y0) * (x - x0) / (x1 - x0)))
            for (x0, y0), (x1, y1) in pairwise(line)
            if x0 <= x <= x1
        ),
        default=float("inf"),
    )
