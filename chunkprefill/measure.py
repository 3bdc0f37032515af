"""How a measured number is written: `≈12.3 ms`, the mark telling it from a counted, priced or cited one."""

from __future__ import annotations

import math

from chunkprefill.whole import as_real, briefly

MARK = "≈"  # "about": another run, or your machine, gives another number
#: An attribute that a figure whose geometry was measured carries on its `<svg>`: nbval leaves that out too.
MEASURED_SVG = "data-measured"

_SECONDS = ((60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_BYTES = ((2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B"))
_SI = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def measured(value: float, unit: str = "s", *, digits: int = 3) -> str:
    """A measured number as text, such as `≈12.3 ms`, for prints, tables, captions and alt texts alike.

    value:  the number, in the unit itself: seconds, bytes; a share of 0.25 reads `≈25.0%`
    unit:   "s" (read in ns to min), "B" (in KiB to TiB), "B/s", "FLOP/s" (in k to P), "%", "×", "" or
            "tokens/s", "steps/s"
    digits: significant digits, at least 1; the rest is rounded away, before the point too

    Every measured number on a page goes through here: the reader sees from the mark that theirs will
    differ, and nbval's sanitiser (`tests/nbval-sanitize.cfg`) knows this one form.
    Raises ValueError for a number that is not finite, or a unit that is not listed.
    """
    if as_real(value) is None:
        raise ValueError(f"measured {briefly(value)}: a number is needed, in {unit or 'no unit'}")
    if not math.isfinite(value):
        raise ValueError(f"measured {value} {unit}: a measured number is finite")
    if digits < 1:
        raise ValueError(f"{digits} significant digits, at least 1 wanted")
    sign = "−" if value < 0 else ""
    size = float(f"{abs(value):.{digits - 1}e}")  # rounded first: 0.99999 s is 1.00 s, not 1,000 ms
    match unit:
        case "s":
            size, unit = _scale(size, _SECONDS)
        case "B":
            size, unit = _scale(size, _BYTES)
        case "B/s" | "FLOP/s":
            size, prefix = _scale(size, _SI)
            unit = prefix + unit
        case "%":
            size *= 100
        case "×" | "" | "tokens/s" | "steps/s":
            pass
        case _:
            raise ValueError(
                f"unit {unit!r} is unknown; use s, B, B/s, FLOP/s, %, ×, tokens/s, steps/s or ''"
            )
    gap = "" if unit in ("%", "×", "") else " "
    return f"{MARK}{sign}{_digits(size, digits)}{gap}{unit}"


def _scale(size: float, scale: tuple[tuple[float, str], ...]) -> tuple[float, str]:
    """In the largest unit that leaves at least 1 before the point, else in the smallest."""
    step, name = next((pair for pair in scale if size >= pair[0]), scale[-1])
    return size / step, name


def _digits(size: float, digits: int) -> str:
    if size == 0:
        return "0"
    if not 1e-6 <= size < 1e15:
        return f"{size:.{digits - 1}e}"
    size = float(f"{size:.{digits - 1}e}")
    before = math.floor(math.log10(size)) + 1
    return f"{size:,.{max(0, digits - before)}f}"
