"""Pictures of a chunk's mask, a filling cache, shares of a whole, measured curves. They only draw."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise, product
from typing import Any, Unpack

from chunkprefill.measure import measured
from chunkprefill.plots.checks import a_word_each, amounts, few_enough, one_of
from chunkprefill.plots.style import (
    COLOURS,
    WIDTH,
    Canvas,
    Picture,
    Scale,
    Table,
    WordsAndAlt,
    figure,
    picture,
    plain,
    round_step,
    writer,
)
from chunkprefill.whole import briefly, whole_number

HEAD = 116  # user units that a head of two or three words takes, with room beside it


def mask_picture(
    start: int,
    length: int,
    allowed: Sequence[Sequence[bool]] | None = None,
    *,
    caption: str = "",
    words: Sequence[str] = (),
) -> Picture:
    """Which cached positions each query of a chunk may look at: rows are queries, columns are keys.

    start, length: the chunk covers positions [start, start + length)
    allowed:       [length][start + length] booleans; default: the right mask, key j for query i where j <= i.
                   Cells that differ from the right one are drawn as trouble.
    words:         the tokens' texts, if the columns should show them
    Raises ValueError for an empty chunk, a negative start, a mask of another shape, or too many cells to read.
    """
    start, length = whole_number("start", start, 0), whole_number("length", length, 1)
    end = start + length
    few_enough(length * end, f"{length:,} queries by {end:,} keys")
    a_word_each("words", words, end)
    right = [[j <= start + i for j in range(end)] for i in range(length)]
    mask = right if allowed is None else [[bool(cell) for cell in row] for row in allowed]
    if len(mask) != length or any(len(row) != end for row in mask):
        raise ValueError(
            f"the mask must be {length} rows of {end}, it is {len(mask)} rows of {set(map(len, mask))}"
        )

    left, top = 84.0, 58.0
    cell = min(48.0, (WIDTH - left) / end)
    canvas = Canvas(top + length * cell + 34)
    border = min(
        left + start * cell, WIDTH - HEAD
    )  # between the two heads, where they have no room in the middle
    if start and end * cell < 2 * HEAD:
        canvas.text(border - 10, 18, "in the cache", anchor="end")
        canvas.text(border, 18, "this chunk", bold=True)
    else:
        if start:
            canvas.text(left + start * cell / 2, 18, "in the cache", anchor="middle")
        canvas.text(left + (start + length / 2) * cell, 18, "this chunk", anchor="middle", bold=True)
    canvas.line(left + start * cell, 24, left + end * cell, 24, "prefill", width=4)
    for j in range(end):
        canvas.text(left + (j + 0.5) * cell, top - 8, words[j] if words else str(j), anchor="middle")
    n_ahead = n_missing = 0
    for i in range(length):
        name = words[start + i] if words else f"query {start + i}"
        canvas.text(left - 10, top + (i + 0.5) * cell + 6, name, anchor="end")
        for j in range(end):
            x, y, sees, may = left + j * cell + 1.5, top + i * cell + 1.5, mask[i][j], right[i][j]
            fill = ("prefill" if may else "trouble") if sees else "none"
            opacity = 0.55 if sees and may and j < start else 1.0
            canvas.rect(
                x,
                y,
                cell - 3,
                cell - 3,
                fill,
                stroke="ink" if not sees else "none",
                opacity=opacity,
                radius=3,
                dash="" if sees == may else "4 3",
            )
            if sees != may:
                n_ahead, n_missing = n_ahead + (not may), n_missing + may
                mark = "×" if sees else "?"
                canvas.text(
                    x + cell / 2 - 1.5,
                    y + cell / 2 + 5,
                    mark,
                    anchor="middle",
                    bold=True,
                    fill="#000" if sees else "ink",
                )
    n_seen = sum(map(sum, mask))
    many = (
        f"{length} queries at positions {start} to {end - 1}"
        if length > 1
        else f"1 query at position {start}"
    )
    canvas.text(left, top + length * cell + 26, f"{n_seen} of {length * end} pairs are computed")
    alt = (
        f"Mask of a chunk of {many}, over {end} {'keys' if end > 1 else 'key'}. "
        + " ".join(f"Query {start + i} sees {_spans(row)}." for i, row in enumerate(mask))
        + (f" {n_ahead} cells look ahead of their query." if n_ahead else "")
        + (f" {n_missing} cells are missing." if n_missing else "")
    )
    rows = [(start + i, _spans(row), sum(row)) for i, row in enumerate(mask)]
    return canvas.picture(
        alt=alt,
        caption=caption
        or f"Query i may look at keys 0 to i: all {start} cached ones and its own chunk up to itself.",
        badge="counted",
        table=Table(header=("query", "sees keys", "pairs"), rows=rows),
    )


def filling_picture(
    lengths: Sequence[int],
    step: int | None = None,
    *,
    caption: str = "",
    words: Sequence[str] = (),
    n_prompt: int | None = None,
) -> Picture:
    """A cache that fills: one row a forward pass, one cell a position.

    lengths:  tokens in each chunk, in order; step: passes done so far (default: all of them)
    words:    the tokens' texts, for the columns
    n_prompt: tokens of the prompt; what comes after them was decoded (default: all are the prompt's)
    Raises ValueError for an empty or negative chunk, a step that is not in 0..len(lengths), or too many passes.
    """
    if not lengths:
        raise ValueError("chunk lengths must be at least 1, they are []")
    lengths = [whole_number(f"chunk {i}", length, 1) for i, length in enumerate(lengths)]
    few_enough(len(lengths) * min(sum(lengths), 3 * len(lengths)), f"{len(lengths):,} passes")
    a_word_each("words", words, sum(lengths))
    step = len(lengths) if step is None else step
    if not 0 <= step <= len(lengths):
        raise ValueError(f"step {step} of {len(lengths)} passes")
    ends = list(accumulate(lengths))
    n, n_rows = ends[-1], len(lengths)
    left, top, tall = 78.0, 34.0, 40.0
    cell = (WIDTH - left) / n
    canvas = Canvas(top + n_rows * tall + 30)
    every = 1 if cell >= 26 else 4 if cell >= 8 else 16
    for j in range(0, n, every):
        canvas.text(left + (j + 0.5) * cell, top - 10, words[j] if words else str(j), anchor="middle")
    for k, (begin, end) in enumerate(pairwise([0, *ends])):
        y = top + k * tall
        canvas.text(left - 10, y + 25, f"pass {k + 1}", anchor="end", bold=k == step - 1)
        if k >= step:
            canvas.rect(left, y + 3, n * cell - 2, tall - 8, stroke="ink", dash="2 5", radius=3)
            continue
        # One box a position; where they would be hairlines, one box for each of the three stretches.
        kind = "prefill" if n_prompt is None or begin < n_prompt else "decode"
        places = [(j, j + 1) for j in range(n)] if cell >= 14 else [(0, begin), (begin, end), (end, n)]
        for a, b in places:
            new, held = begin <= a < end, a < begin
            if a == b:
                continue
            fill, low = kind if new else "ink" if held else "none", 0 if new else 6
            edge = "ink" if fill == "none" else "none"
            canvas.rect(
                left + a * cell,
                y + 3 + low,
                (b - a) * cell - 2,
                tall - 8 - 2 * low,
                fill,
                opacity=1 if new else 0.3,
                stroke=edge,
                radius=2,
            )
        if (end - begin) * cell > 26:
            name, ink = (f"P{k + 1}", "#fff") if kind == "prefill" else ("D", "#000")
            middle = left + (begin + end) * cell / 2 - 1
            canvas.text(middle, y + 26, name, anchor="middle", fill=ink, bold=True)
    done = ends[step - 1] if step else 0
    canvas.text(left, top + n_rows * tall + 22, f"after pass {step}: {done} of {n} positions cached")
    table: list[tuple[object, ...]] = []
    said = f"A cache of {n} positions after {step} of {n_rows} passes."
    for k, (begin, end) in enumerate(pairwise([0, *ends]), 1):
        if k > step:
            table.append((k, "to come", "", "", ""))
            continue
        span = f"{begin}–{end - 1}" if end - begin > 1 else f"{begin}"
        said += f" Pass {k}: computes positions {span}, reads {begin} cached, leaves {end}."
        table.append((k, span, begin, end, "yes" if end >= (n_prompt or n) else "no"))
    return canvas.picture(
        alt=said,
        caption=caption or "Tall: computed in this pass. Low grey: cached, read again. Empty: not known yet.",
        badge="counted",
        table=Table(header=("pass", "computes", "cached before", "after", "emits"), rows=table),
    )


def share_picture(
    bars: Mapping[str, Mapping[str, float]],
    *,
    unit: str = "",
    scale: str = "each",
    **words: Unpack[WordsAndAlt],
) -> Picture:
    """Horizontal bars cut into parts, each part labelled in or under its bar.

    bars:  {row: {part: amount >= 0}}, up to four parts, from the darkest to the faintest
    scale: "each": every bar is as long as the page (shares); "all": lengths compare between rows
    words: the `alt` text and `caption`; `badge` ("counted" unless given) and `source` say where the numbers come from
    Raises ValueError for no row, a row whose sum is 0, or more than four parts.
    """
    one_of("scale", scale, ("each", "all"))
    write = writer(words, "counted")
    names = list(dict.fromkeys(part for parts in bars.values() for part in parts))
    tints = (("prefill", 1.0), ("prefill", 0.4), ("ink", 0.25), ("ink", 0.1))
    if not 1 <= len(names) <= len(tints):
        raise ValueError(f"{len(names)} parts in {len(bars)} rows: 1 to {len(tints)} parts can be drawn")
    for row, parts in bars.items():
        if not sum(amounts(f"row {row!r}", parts.values())) > 0:
            raise ValueError(f"row {row!r} has nothing to share: its parts add up to 0")
    looks = dict(zip(names, tints))
    totals = {row: sum(parts.values()) for row, parts in bars.items()}
    longest = max(totals.values())
    tall, top = 74.0, 8.0 + 26 * len(names)
    canvas = Canvas(top + tall * len(bars))
    for k, name in enumerate(names):  # a key above the bars: part names are too long to sit inside
        canvas.key(0, 26 * k, name, looks[name][0], opacity=looks[name][1])
    for k, (row, parts) in enumerate(bars.items()):
        y, x = top + k * tall, 0.0
        canvas.text(0, y + 22, row, bold=True)
        canvas.text(WIDTH, y + 22, write(totals[row], unit), anchor="end")
        for name, amount in parts.items():
            wide = WIDTH * amount / (totals[row] if scale == "each" else longest)
            fill, opacity = looks[name]
            canvas.rect(x, y + 32, max(wide - 1.5, 0.5), 30, fill, opacity=opacity, radius=2)
            if wide > 52:
                ink = "#fff" if opacity == 1 else "ink"
                canvas.text(x + wide / 2, y + 53, f"{amount / totals[row]:.0%}", anchor="middle", fill=ink)
            x += wide
    table = Table(
        header=("", *names),
        rows=[(row, *(write(parts.get(name, 0), unit) for name in names)) for row, parts in bars.items()],
    )
    return canvas.picture(table=table, **words)


def passes_picture(
    rows: Mapping[str, Sequence[float]],
    *,
    kinds: Mapping[str, Sequence[str]] | None = None,
    unit: str = "s",
    **words: Unpack[WordsAndAlt],
) -> Picture:
    """Forward passes to scale: one bar a row, one box a pass, as wide as it took.

    rows:  {name: seconds of each pass, in order}, all from 0; widths compare between rows
    kinds: {name: "prefill" or "decode" for each pass}; default: all prefill
    words: the `alt` text and `caption`; `badge` ("measured" unless given) and `source` say where the numbers come from
    Raises ValueError for no row, an empty one, or times that are all 0.
    """
    if not rows:
        raise ValueError("no rows to draw: {name: seconds of each pass} is empty")
    if not max(sum(amounts(f"row {name!r}", times)) for name, times in rows.items()) > 0:
        raise ValueError("all passes took 0 s: there is no length to draw")
    totals = {name: sum(times) for name, times in rows.items()}
    longest, tall = max(totals.values()), 70.0
    canvas = Canvas(tall * len(rows) + 54)
    for k, (name, times) in enumerate(rows.items()):
        x, y, n_chunks = 0.0, tall * k, 0
        canvas.text(0, y + 20, name, bold=True)
        canvas.text(WIDTH, y + 20, measured(totals[name], unit), anchor="end")
        for i, seconds in enumerate(times):
            wide = WIDTH * seconds / longest
            kind = kinds[name][i] if kinds else "prefill"
            low, n_chunks = 0 if kind == "prefill" else 5, n_chunks + (kind == "prefill")
            canvas.rect(x, y + 29 + low, max(wide - 1.5, 0.5), 30 - 2 * low, kind, radius=2)
            if wide > 34 and kind == "prefill":
                canvas.text(x + wide / 2, y + 50, f"P{n_chunks}", anchor="middle", fill="#fff")
            x += wide
    y = tall * len(rows) + 4
    step = round_step(longest / 6)
    times = [i * step for i in range(int(longest / step) + 1)]
    canvas.axis(Scale(0.0, longest), y, {time: f"{time:g}" for time in times})
    canvas.text(WIDTH, y + 46, f"time, {unit}", anchor="end")
    table = Table(
        header=("", "passes", "all", "the longest"),
        rows=[(n, len(t), measured(totals[n], unit), measured(max(t), unit)) for n, t in rows.items()],
    )
    return canvas.picture(table=table, **words)


Points = tuple[Sequence[float], Sequence[float]]  # x, y


def curve_picture(
    series: Mapping[str, Points],
    *,
    x_label: str,
    y_label: str,
    title: str = "",
    unit: str = "",
    log_x: bool = True,
    log_y: bool = False,
    height: int = 300,
    **words: Unpack[WordsAndAlt],
) -> Picture:
    """Lines of measured points, each named at its end.

    series: {name: (x, y)}; markers and dashes differ as well as colours. Units belong in the labels.
    unit:   of y, as `measured` takes it, for the table of a measured picture
    words: the `alt` text and `caption`; `badge` ("measured" unless given) and `source` say where the numbers come from
    Raises ValueError for no series, or one without a point or with more xs than ys.
    """
    if not series:
        raise ValueError("no series to draw: {name: (x, y)} is empty")
    for name, points in series.items():
        if (
            not hasattr(points, "__len__")
            or len(points) != 2
            or not all(hasattr(p, "__len__") for p in points)
        ):
            raise ValueError(f"series {name!r} is {briefly(points)}: two lists are needed, its xs and its ys")
    for name, (x, y) in series.items():
        if not len(x) or len(x) != len(y):
            raise ValueError(f"series {name!r} has {len(x)} xs and {len(y)} ys: as many of each are needed")
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    with figure(height / 100) as fig:
        ax = fig.add_subplot()
        looks = zip(COLOURS.values(), "os^Dv", ("-", "--", ":", "-.", "-"))
        for (x, y), (colour, marker, dash) in zip(series.values(), looks):
            ax.plot(x, y, dash, color=colour, marker=marker)
        xs = sorted({value for x, _ in series.values() for value in x})
        if log_x:
            ax.set_xscale("log", base=2)
        if log_y:
            ax.set_yscale("log", base=2)
            ax.yaxis.set_minor_locator(NullLocator())
        else:
            ax.set_ylim(bottom=0)
        if log_x:
            ax.xaxis.set_major_locator(FixedLocator(xs if len(xs) <= 7 else xs[:: -(-len(xs) // 7)]))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        ax.margins(x=0.06, y=0.16)
        ax.set_xlabel(x_label)
        ax.set_title(f"{title}\n{y_label}" if title else y_label, fontweight="normal")
        if len(series) > 1:
            fig.draw_without_rendering()  # the layout says where on the page a point is
            _name_lines(ax, series)
        table = [[dict(zip(*points)).get(value) for points in series.values()] for value in xs]
        is_measured = words.get("badge", "measured") == "measured"
        rows = [
            (
                # a size that was chosen is whole; another x was measured
                measured(x, "") if is_measured and x != int(x) else plain(x, ""),
                *(measured(y, unit) if is_measured and y is not None else plain(y, "") for y in ys),
            )
            for x, ys in zip(xs, table)
        ]
        return picture(fig, table=Table(header=(x_label, *series), rows=rows, caption=y_label), **words)


#: Where a name may stand beside a point of its line, the best first: points to the right and up, and the edge
#: of the name that is there.
BESIDE = (
    (-4, 9, "right"),
    (-4, -19, "right"),
    (0, 9, "center"),
    (0, -19, "center"),
    (4, 9, "left"),
    (4, -19, "left"),
    (-4, 3, "right"),
)
APART = 36  # pixels of the figure between two names on one height: four letters
ROW = 22  # pixels from one name to the one beneath it


def _name_lines(ax: Any, series: Mapping[str, Points]) -> None:
    """Write each name near the end of its line: at the last point and in the first place that is free.

    A place is free if it is inside the axes, no line crosses it, no other name is in it or close by on the same
    height, where two would read as one, and no line is nearer than the name's own. Where a name finds no place,
    all stand to the right of the axes, in the order of the ends.
    """
    from matplotlib.path import Path

    lines = {name: Path(ax.transData.transform(list(zip(*points)))) for name, points in series.items()}
    inside = ax.get_window_extent()
    written: list[Any] = []
    taken: list[Any] = []

    def is_free(box: Any, name: str) -> bool:
        fits = inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0
        return fits and not box.count_overlaps(taken) and _nearest(box, lines) == name

    by_end = sorted(series.items(), key=lambda item: max(zip(*item[1]))[1], reverse=True)
    for name, points in by_end:  # from the top: of two that end close together, the lower is named beneath
        for point, (right, up, edge) in product(sorted(zip(*points), reverse=True), BESIDE):
            words = ax.annotate(name, point, (right, up), textcoords="offset points", ha=edge)
            box = words.get_window_extent()
            if is_free(box, name):
                written.append(words)
                taken.append(box.from_extents(box.x0 - APART, box.y0, box.x1 + APART, box.y1))
                break
            words.remove()
        else:
            for words in written:
                words.remove()
            to_axes = ax.transData - ax.transAxes
            _name_at_the_right(ax, {name: to_axes.transform(max(zip(*line)))[1] for name, line in by_end})
            return


def _name_at_the_right(ax: Any, ends: Mapping[str, float]) -> None:
    """Names from the top, each at the height of its line's end, a part of the axes, or beneath the name before."""
    row = ROW / ax.get_window_extent().height
    heights: list[float] = []
    for end in ends.values():
        heights.append(min([end, *(height - row for height in heights[-1:])]))
    lift = max(0.0, -heights[-1])
    for name, height in zip(ends, heights):
        ax.annotate(
            name,
            (1, height + lift),
            (4, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            va="center",
        )


def _nearest(box: Any, lines: Mapping[str, Any]) -> str | None:
    """Whose line comes nearest to a box; None if a line crosses it."""
    if any(line.intersects_bbox(box, filled=False) for line in lines.values()):
        return None
    away = {}
    for name, line in lines.items():
        spots = line.interpolated(40).vertices  # some pixels apart
        away[name] = min(
            math.hypot(max(box.x0 - x, 0, x - box.x1), max(box.y0 - y, 0, y - box.y1)) for x, y in spots
        )
    return min(away, key=lambda name: away[name])


def _spans(row: Sequence[bool]) -> str:
    """`0–3, 5`: the true places of a row, as ranges."""
    places = [j for j, sees in enumerate(row) if sees]
    spans: list[list[int]] = []
    for j in places:
        if spans and j == spans[-1][1] + 1:
            spans[-1][1] = j
        else:
            spans.append([j, j])
    return ", ".join(f"{a}–{b}" if b > a else f"{a}" for a, b in spans) or "nothing"
