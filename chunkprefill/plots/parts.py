"""A picture of where a step's time goes: its parts as bars."""

from __future__ import annotations

from collections.abc import Mapping

from chunkprefill.measure import measured
from chunkprefill.metrics.breakdown import WORDS, Breakdown, breakdown
from chunkprefill.plots.checks import amounts
from chunkprefill.plots.style import WIDTH, Canvas, Picture, Table
from chunkprefill.scheduling.trace import Trace

Amounts = Mapping[str, float]  # s of each part


def breakdown_picture(
    rows: Trace | Breakdown | Mapping[str, Trace | Breakdown | Amounts],
    *,
    caption: str = "",
    badge: str = "measured",
    source: str = "",
) -> Picture:
    """Each part of scheduling a step as a bar, the largest marked; several runs beneath each other.

    rows: a measured trace, its `breakdown`, or {title: one of them}; {title: {part: s}} for published figures
    Bars compare within a run and not between runs: each run is drawn to its own longest. The pass is not drawn.
    Raises ValueError where nothing was measured, or for amounts that are negative or all 0.
    """
    runs = rows if isinstance(rows, Mapping) else {"": rows}
    if not runs:
        raise ValueError("no runs to draw: {title: trace} is empty")
    shown = {title: _parts(title, one) for title, one in runs.items()}
    write = measured if badge == "measured" else _plain
    left, right, tall = 212.0, WIDTH - 150.0, 30.0
    canvas = Canvas(sum(tall * len(parts) + (34 if title else 6) for title, parts in shown.items()) + 4)
    table: list[tuple[object, ...]] = []
    said, y = [], 0.0
    for title, parts in shown.items():
        if title:
            canvas.text(0, y + 20, title, bold=True)
        y += 34 if title else 6
        total, longest = sum(parts.values()), max(parts.values())
        for name, seconds in parts.items():
            first = seconds == longest
            canvas.text(left - 8, y + 19, name, anchor="end", bold=first)
            wide = (right - left) * seconds / longest
            canvas.rect(left, y + 3, max(wide, 1), 20, "scheduling", opacity=1 if first else 0.55, radius=2)
            words = f"{write(seconds)} · {seconds / total:.0%}"
            canvas.text(left + max(wide, 1) + 6, y + 19, words, bold=first)
            table.append((title, name, write(seconds), write(seconds / total, "%")))
            y += tall
        each = ", ".join(f"{name} {write(seconds)} a step" for name, seconds in parts.items())
        largest = max(parts, key=lambda name: parts[name])
        said.append(f"{title + ': ' if title else ''}{each}. The largest is {largest}.")
    columns = ["run", "part", "a step", "of all parts"]
    if list(shown) == [""]:
        columns, table = columns[1:], [row[1:] for row in table]
    return canvas.picture(
        alt=" ".join(said),
        caption=caption or "Processor time of a step by part; the pass itself is not drawn.",
        badge=badge,
        source=source,
        table=Table(header=columns, rows=table),
    )


def _parts(title: str, one: Trace | Breakdown | Amounts) -> dict[str, float]:
    """Seconds of each part, by its name in words."""
    if isinstance(one, Trace):
        one = breakdown(one)
    if isinstance(one, Breakdown):
        one = {WORDS[name]: seconds for name, seconds in one.parts.items()}
    seconds = amounts(title or "the run", one.values())
    if not sum(seconds) > 0:
        raise ValueError(f"{title or 'the run'}: seconds that are not all 0 are needed: {dict(one)}")
    return dict(zip(map(str, one), seconds))


def _plain(value: float, unit: str = "s") -> str:
    if unit == "%":
        return f"{value:.0%}"
    return f"{1e3 * value:.3g} ms" if value >= 1e-3 else f"{1e6 * value:.3g} µs"
