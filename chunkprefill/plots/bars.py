"""Bars in groups, all to one scale, each with its number beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

from chunkprefill.plots.checks import amounts
from chunkprefill.plots.style import WIDTH, Canvas, Picture, Table, WordsAndAlt, writer
from chunkprefill.whole import briefly

LOOKS = (("scheduling", 1.0), ("scheduling", 0.55), ("scheduling", 0.25))


def bars_picture(
    groups: Mapping[str, Mapping[str, float]], *, unit: str = "%", **words: Unpack[WordsAndAlt]
) -> Picture:
    """One bar a number: {group: {series: amount}}, up to three series, the same in each group.

    unit:  of the amounts, which are in the unit itself: a share of 0.25 for 25%, as `measured` takes it
    words: the `alt` text and `caption`; `badge` ("simulated" unless given) and `source` say where the numbers come from
    Raises ValueError for amounts that are negative or all 0, and for groups whose series differ.
    """
    if not isinstance(groups, Mapping) or not all(isinstance(each, Mapping) for each in groups.values()):
        raise ValueError(f"groups is {briefly(groups)}: {{group: {{series: amount}}}} is needed")
    series = list(next(iter(groups.values()), {}))
    if not series or len(series) > len(LOOKS) or any(list(each) != series for each in groups.values()):
        raise ValueError(f"1 to {len(LOOKS)} series, the same in each group, are needed: {dict(groups)}")
    longest = max(max(amounts(f"group {group!r}", each.values())) for group, each in groups.items())
    if not longest > 0:
        raise ValueError(f"amounts that are not all 0 are needed: {dict(groups)}")
    write = writer(words, "simulated")
    high, head = 24.0, 30.0
    tall = head + high * len(series) + 10
    top = 26.0 * len(series) + 6 if len(series) > 1 else 0.0
    canvas = Canvas(top + tall * len(groups))
    for k, name in enumerate(series if top else ()):
        canvas.key(0, 26 * k, name, LOOKS[k][0], opacity=LOOKS[k][1], stroke="scheduling")
    for k, (group, each) in enumerate(groups.items()):
        y = top + k * tall
        canvas.text(0, y + 20, group, bold=True)
        for i, amount in enumerate(each.values()):
            wide = (WIDTH - 80) * amount / longest
            fill, opacity = LOOKS[i]
            at = y + head + high * i
            canvas.rect(0, at, max(wide, 1), high - 5, fill, opacity=opacity, stroke=fill, radius=2)
            canvas.text(max(wide, 1) + 8, at + 16, write(amount, unit))
    rows = [(group, *(write(amount, unit) for amount in each.values())) for group, each in groups.items()]
    return canvas.picture(table=Table(header=("", *series), rows=rows), **words)
