"""The same load on several engines, drawn: a panel a measure, a row a setting, a mark an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chunkprefill.plots.style import COLOURS, WIDTH, Canvas, Picture, Table, plain


def columns_picture(
    runs: Mapping[str, Mapping[str, Sequence[float | None]]],
    *,
    measures: Sequence[str],
    caption: str,
    source: str = "",
    badge: str = "recorded",
) -> Picture:
    """The same load on several engines: {settings: {engine: one number of seconds a measure}}, up to three.

    A panel a measure, a row a setting, a mark an engine: a disc, a square and a cross, on one axis from 0.
    None leaves a mark out. The table beneath has all of the numbers. Raises ValueError for settings whose
    engines differ.
    """
    engines = list(next(iter(runs.values()), {}))
    if not 1 <= len(engines) <= 3 or any(list(each) != engines for each in runs.values()):
        raise ValueError(f"1 to 3 engines, the same for each of the settings, are needed: {list(runs)}")
    row, head = 54.0, 34.0
    top = 26.0 * len(engines) + 10
    panel = head + row * len(runs) + 14
    canvas = Canvas(top + panel * len(measures))
    for k, engine in enumerate(engines):
        _mark(canvas, k, 9, 26 * k + 10)
        canvas.text(26, 26 * k + 16, engine)
    told: list[tuple[str, ...]] = []
    for m, measure in enumerate(measures):
        y0 = top + m * panel
        values = [each[e][m] for each in runs.values() for e in engines]
        most = max([v for v in values if v is not None] or [1.0])
        canvas.text(0, y0 + 20, f"{measure}, up to {plain(most)}", bold=True)
        for i, (settings, each) in enumerate(runs.items()):
            y = y0 + head + row * i
            canvas.text(0, y + 14, settings)
            canvas.line(0, y + 35, WIDTH, y + 35, opacity=0.25, width=1)
            for k, engine in enumerate(engines):
                if (value := each[engine][m]) is not None:
                    _mark(canvas, k, 8 + (WIDTH - 16) * value / most, y + 35)
            told.append((measure, settings, *(plain(each[e][m]) for e in engines)))
    table = Table(header=("measure", "settings", *engines), rows=told)
    said = "; ".join(f"{r[0]}, {r[1]}: " + ", ".join(map(" ".join, zip(engines, r[2:]))) for r in told)
    return canvas.picture(alt=said, caption=caption, badge=badge, source=source, table=table)


def _mark(canvas: Canvas, k: int, x: float, y: float) -> None:
    """A disc, a square, a cross: told apart by shape as well as by colour."""
    colour = COLOURS[("prefill", "decode", "scheduling")[k]]
    if k == 0:
        canvas.rect(x - 7, y - 7, 14, 14, colour, radius=7)
    elif k == 1:
        canvas.rect(x - 6, y - 6, 12, 12, "none", stroke=colour)
        canvas.rect(x - 6, y - 6, 12, 12, colour, opacity=0.35)
    else:
        canvas.line(x - 6, y - 6, x + 6, y + 6, colour, width=3)
        canvas.line(x - 6, y + 6, x + 6, y - 6, colour, width=3)
