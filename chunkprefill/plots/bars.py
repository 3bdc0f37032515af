"""Bars in groups, all to one scale, each with its number beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from chunkprefill.measure import measured
from chunkprefill.plots.style import WIDTH, Canvas, Picture, Table
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

    Amounts are in the unit itself, a share of 0.25 for 25% (`measured` writes them so too). Raises ValueError
    for amounts that are negative or all 0, and for groups whose series differ.
    """
    if not isinstance(groups, Mapping) or not all(isinstance(each, Mapping) for each in groups.values()):
        raise ValueError(f"groups is {briefly(groups)}: {{group: {{series: amount}}}} is needed")
    series = list(next(iter(groups.values()), {}))
    amounts = [amount for each in groups.values() for amount in each.values()]
    if not series or len(series) > len(LOOKS) or any(list(each) != series for each in groups.values()):
        raise ValueError(f"1 to {len(LOOKS)} series, the same in each group, are needed: {dict(groups)}")
    if not all(math.isfinite(amount) and amount >= 0 for amount in amounts) or not max(amounts) > 0:
        raise ValueError(f"amounts of at least 0, and not all 0, are needed: {amounts}")

    def write(amount: float) -> str:
        if badge == "measured":
            return measured(amount, unit)
        if unit == "%":
            return f"{100 * amount:,.0f}%" if amount >= 0.1 else f"{100 * amount:.2g}%"
        return f"{f'{amount:,.0f}' if amount >= 100 else f'{amount:.3g}'} {unit}".strip()

    high, head = 24.0, 30.0
    tall = head + high * len(series) + 10
    top = 26.0 * len(series) + 6 if len(series) > 1 else 0.0
    canvas = Canvas(top + tall * len(groups))
    for k, name in enumerate(series if top else ()):
        canvas.rect(0, 26 * k, 18, 18, LOOKS[k][0], opacity=LOOKS[k][1], stroke="scheduling", radius=3)
        canvas.text(26, 26 * k + 15, name)
    for k, (group, each) in enumerate(groups.items()):
        y = top + k * tall
        canvas.text(0, y + 20, group, bold=True)
        for i, amount in enumerate(each.values()):
            wide = (WIDTH - 80) * amount / max(amounts)
            fill, opacity = LOOKS[i]
            at = y + head + high * i
            canvas.rect(0, at, max(wide, 1), high - 5, fill, opacity=opacity, stroke=fill, radius=2)
            canvas.text(max(wide, 1) + 8, at + 16, write(amount))
    rows = [(group, *map(write, each.values())) for group, each in groups.items()]
    table = Table(header=("", *series), rows=rows)
    return canvas.picture(alt=alt, caption=caption, badge=badge, source=source, table=table)
