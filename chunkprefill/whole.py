"""What counts as a number: Python's own and any library's, and no bool of either."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable
from numbers import Real
from operator import index
from typing import Any

from chunkprefill.strict import shown

MOST = sys.float_info.max  # an int can be larger, and then it is no float


def briefly(value: Any) -> str:
    """A value in a refusal: as Python writes it, or of which kind it is where that is long."""
    text = repr(value)
    if len(text) <= 60 and "\n" not in text:
        return text
    name = type(value).__name__
    size = f" of {len(value)}" if isinstance(value, list | tuple | dict | set | frozenset) else ""
    return f"{article(name)} {name}{size}"


def article(noun: str) -> str:
    """`a` or `an`, as the noun begins."""
    return "an" if noun[:1] in "AEIOaeio" else "a"


def needed(what: str, value: Any, kind: type, such_as: str = "") -> None:
    """ValueError for a value of another kind. such_as: where one comes from."""
    if not isinstance(value, kind):
        need = f"{article(kind.__name__)} {kind.__name__} is needed" + (f", {such_as}" if such_as else "")
        raise ValueError(f"{what} is {briefly(value)}: {need}")


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
    """`value` as a number; None for what is none: True, "2", None. ints are left as they are.

    An array or a tensor of one number without an axis is that number.
    """
    if type(value) is float:
        return value
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    if type(value).__name__ in ("bool", "bool_") or not isinstance(value, Real):
        return None
    return value if isinstance(value, int) else float(value)


def as_flag(value: Any) -> bool | None:
    """`value` as a bool, Python's own or numpy's; None for what is neither: 1, "no", None."""
    return bool(value) if type(value).__name__ in ("bool", "bool_") else None


def whole_number(what: str, value: Any, least: int, most: int | None = None) -> int:
    """`value` as an int from `least` to `most`; numpy's integers pass, and bools, floats and texts do not."""
    number = as_whole(value)
    if number is None or number < least or (most is not None and number > most):
        bounds = f"of at least {least:,}" if most is None else f"from {least:,} to {most:,}"
        raise ValueError(f"{what} must be a whole number {bounds}, got {shown(value)}")
    return number


def flag(what: str, value: Any) -> bool:
    """`value` as a bool; ValueError for anything else, because to Python "false" is true."""
    known = as_flag(value)
    if known is None:
        raise ValueError(f"{what} must be True or False, got {value!r}")
    return known


def real_number(what: str, value: Any, *, above: bool = False, below: float = math.inf) -> float:
    """`value` as a finite number of at least 0 (or `above` it), `below` a bound; texts do not pass."""
    number = as_real(value)
    if number is None or not 0 <= number < below or number > MOST or (above and number == 0):
        bounds = "above 0" if above else "of at least 0"
        bounds += f" and below {below:,g}" if below < math.inf else ""
        raise ValueError(f"{what} must be a finite number {bounds}, got {shown(value)}")
    return number


def check_fields(
    record: Any, check: Callable[..., Any], names: Iterable[str], *, of: str = "", **bounds: Any
) -> None:
    """Hold fields of a frozen dataclass to one of the checks above, and keep what it makes of them.

    of: whose fields they are, for the message.
    """
    for name in names:
        value = check(f"{of}{name}", getattr(record, name), **bounds)
        object.__setattr__(record, name, value)
