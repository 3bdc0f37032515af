"""What counts as a number: Python's own and any library's, and no bool of either."""

from __future__ import annotations

import math
from numbers import Real
from operator import index
from typing import Any


def as_whole(value: Any) -> int | None:
    """`value` as an int; None for what is no whole number: True, 2.0, "2".

    numpy's bool is told by its name, because before numpy 2.3 it is an index like an integer.
    """
    if type(value).__name__ in ("bool", "bool_"):
        return None
    try:
        return index(value)
    except TypeError:
        return None


def as_real(value: Any) -> float | None:
    """`value` as a number; None for what is none: True, "2", None. ints are left as they are."""
    if type(value).__name__ in ("bool", "bool_") or not isinstance(value, Real):
        return None
    return value if isinstance(value, int) else float(value)


def as_flag(value: Any) -> bool | None:
    """`value` as a bool, Python's own or numpy's; None for what is neither: 1, "no", None."""
    return bool(value) if type(value).__name__ in ("bool", "bool_") else None


def flag(what: str, value: Any) -> bool:
    """`value` as a bool; ValueError for what is none: of "false" Python says that it is true."""
    known = as_flag(value)
    if known is None:
        raise ValueError(f"{what} must be True or False, got {value!r}")
    return known


def real_number(what: str, value: Any, least: float = 0.0, *, above: bool = False) -> float:
    """`value` as a finite number of at least `least`, or above it; numpy's pass, bools and texts do not."""
    number = as_real(value)
    if number is None or not least <= number < math.inf or (above and number == least):
        bound = "above" if above else "of at least"
        raise ValueError(f"{what} must be a finite number {bound} {least:g}, got {value!r}")
    return number
