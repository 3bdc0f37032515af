"""Bars: amounts in groups, shares of a whole, forward passes to scale. They only draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Unpack

from chunkprefill.measure import measured
from chunkprefill.plots.checks import amounts, one_of
from chunkprefill.plots.style import WIDTH, Canvas, Picture, Scale, Table, WordsAndAlt, ticks, writer
from chunkprefill.whole import briefly

LOOKS = (("scheduling", 1.0), ("scheduling", 0.55), ("scheduling", 0.25))


def bars_picture(
    groups: Mapping[str, Mapping[str, float]],
    *,
    alt: str,
    caption: str,
    unit: str = "%",
    badge: str = "simulated",
    source: str = "",
) -> Picture:
    """One bar a number: {group: {series: amount}}, up to three series, the same in each group.

    unit: of the amounts, which are in the unit itself: a share of 0.25 for 25%, as `measured` takes it
    Raises ValueError for amounts that are negative or all 0, and for groups whose series differ.
    """
    if not isinstance(groups, Mapping) or not all(isinstance(each, Mapping) for each in groups.values()):
        raise ValueError(f"groups is {briefly(groups)}: {{group: {{series: amount}}}} is needed")
    series = list(next(iter(groups.values()), {}))
    if not series or len(series) > len(LOOKS) or any(list(each) != series for each in groups.values()):
        raise ValueError(f"1 to {len(LOOKS)} series, the same in each group, are needed: {dict(groups)}")
    heights = {group: amounts(f"group {group!r}", each.values()) for group, each in groups.items()}
    longest = max(map(max, heights.values()))
    if not longest > 0:
        raise ValueError(f"amounts that are not all 0 are needed: {dict(groups)}")
    write = writer(badge)
    high, head = 24.0, 30.0
    tall = head + high * len(series) + 10
    top = 26.0 * len(series) + 6 if len(series) > 1 else 0.0
    canvas = Canvas(top + tall * len(groups))
    for k, name in enumerate(series if top else ()):
        canvas.key(0, 26 * k, name, LOOKS[k][0], opacity=LOOKS[k][1], stroke="scheduling")
    for k, (group, each) in enumerate(heights.items()):
        y = top + k * tall
        canvas.text(0, y + 20, group, bold=True)
        for i, amount in enumerate(each):
            wide = (WIDTH - 80) * amount / longest
            fill, opacity = LOOKS[i]
            at = y + head + high * i
            canvas.rect(0, at, max(wide, 1), high - 5, fill, opacity=opacity, stroke=fill, radius=2)
            canvas.text(max(wide, 1) + 8, at + 16, write(amount, unit))
    rows = [(group, *(write(amount, unit) for amount in each)) for group, each in heights.items()]
    table = Table(header=("", *series), rows=rows)
    return canvas.picture(alt=alt, caption=caption, badge=badge, source=source, table=table)


def share_picture(
    bars: Mapping[str, Mapping[str, float]],
    *,
    unit: str = "",
    scale: str = "each",
    **words: Unpack[WordsAndAlt],
) -> Picture:
    """Horizontal bars cut into parts, each part labelled in or under its bar.

    bars:  {row: {part: amount >= 0}}, up to four parts, from the darkest to the faintest
    unit:  of the amounts, which are in the unit itself: a share of 0.25 for 25%, as `measured` takes it
    scale: "each": every bar is as long as the page (shares); "all": lengths compare between rows
    words: the `alt` text and `caption`; `badge` ("counted" unless given) and `source` say where the numbers come from
    Raises ValueError for no row, a row whose sum is 0, or more than four parts.
    """
    one_of("scale", scale, ("each", "all"))
    write = writer(words.setdefault("badge", "counted"))
    names = list(dict.fromkeys(part for parts in bars.values() for part in parts))
    tints = (("prefill", 1.0), ("prefill", 0.4), ("ink", 0.25), ("ink", 0.1))
    if not 1 <= len(names) <= len(tints):
        raise ValueError(f"{len(names)} parts in {len(bars)} rows: 1 to {len(tints)} parts can be drawn")
    bars = {row: dict(zip(parts, amounts(f"row {row!r}", parts.values()))) for row, parts in bars.items()}
    for row, parts in bars.items():
        if not sum(parts.values()) > 0:
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
    canvas.axis(Scale(0.0, longest), y, {time: f"{time:g}" for time in ticks(longest, 6)})
    canvas.text(WIDTH, y + 46, f"time, {unit}", anchor="end")
    table = Table(
        header=("", "passes", "all", "the longest"),
        rows=[(n, len(t), measured(totals[n], unit), measured(max(t), unit)) for n, t in rows.items()],
    )
    return canvas.picture(table=table, **words)
