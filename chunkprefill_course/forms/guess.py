"""A guess that is a number: how far off it was. `book/_static/course.js` says the same in the page."""

from __future__ import annotations

import re
from collections.abc import Sequence

NEAR = 1.05  # a factor that is close enough to be called close
Found = float | str | Sequence[float] | None  # a number, words such as `≈2.13×`, or the ends of a range


def ends(found: Found) -> tuple[float, float] | None:
    """The lowest and the highest number of what was found; None without a number above 0."""
    if found is None:
        return None
    if isinstance(found, str):
        numbers = [float(n.replace(",", "")) for n in re.findall(r"\d[\d,]*(?:\.\d+)?", found)]
    else:
        numbers = list(map(float, [found] if isinstance(found, int | float) else found))
    return (min(numbers), max(numbers)) if numbers and min(numbers) > 0 else None


def words_of(found: Found) -> str:
    """What was found, as the page carries it: `≈2.13×` as it is, numbers to three figures."""
    if found is None or isinstance(found, str):
        return found or ""
    return " to ".join(f"{n:.3g}" for n in ([found] if isinstance(found, int | float) else found))


def off_by(guess: float, found: Found) -> str:
    """`off by 3.2×`, `close` or `within the range`; "" where nothing can be compared."""
    span = ends(found)
    if span is None or not 0 < guess < float("inf"):
        return ""
    low, high = span
    if low <= guess <= high and low < high:
        return "within the range"
    factor = low / guess if guess < low else guess / high
    if factor <= NEAR:
        return "close"
    return f"off by {factor:.1f}×" if factor < 9.95 else f"off by {factor:,.0f}×"
