"""Lines of measured points, each named beside its end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, Unpack

from chunkprefill.measure import measured
from chunkprefill.plots.style import COLOURS, Picture, Table, WordsAndAlt, figure, picture, plain
from chunkprefill.whole import briefly

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
