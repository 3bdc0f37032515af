"""Amounts as bars to one scale, each with its name and its number: what several exercises draw."""

from __future__ import annotations

from collections.abc import Sequence

from chunkprefill.plots.style import Canvas
from chunkprefill_course.forms.answers import figure


def bars(rows: Sequence[tuple[str, float, str]], *, unit: str, title: str, badge: str = "simulated") -> str:
    """(name, amount, fill) each, from 0; one `<svg>` with its own alt text."""
    longest, canvas = max(1e-300, *(amount for _, amount, _ in rows)), Canvas(30 + 50 * len(rows))
    canvas.text(0, 20, title, bold=True)
    for k, (name, amount, fill) in enumerate(rows):
        y = 30 + 50 * k
        canvas.text(0, y + 16, name)
        canvas.text(canvas.width, y + 16, f"{figure(amount)} {unit}", anchor="end")
        canvas.rect(0, y + 22, max(canvas.width * max(amount, 0) / longest, 2), 16, fill, radius=2)
    alt = f"{title}: " + "; ".join(f"{name} {figure(amount)} {unit}" for name, amount, _ in rows) + "."
    image = canvas.picture(alt=alt, caption="To scale.", badge=badge).image()
    return f'<div style="max-width:{canvas.width:.0f}px">{image}</div>'
