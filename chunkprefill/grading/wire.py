"""What goes between grader and student's process: JSON lines with limits on size, depth and numbers.

Only the standard library, for it is read on both sides. A value is None, a bool, an int, a finite float, a
string, or lists and dicts of these; a dict travels as {"dict": [[key, value], ...]} so that whole numbers
stay keys, an array as {"array": base64, "shape": [...], "dtype": "..."}: raw numbers, little-endian.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MAX_ITEMS = 10_000  # of a value, those inside included
MAX_DEPTH = 8
MAX_CHARS = 100_000  # of all strings of a value together
MAX_INT = 2**63
MAX_BYTES = 1 << 24  # of an array
SIZES = {"bool": 1, "int64": 8, "float32": 4, "float64": 8}  # bytes an element


class BadValue(ValueError):
    """A value that no answer may be; the message says why."""


@dataclass(frozen=True)
class ArraySpec:
    """What an array must be that comes back: its shape, and its dtype ("float32", "int64", "bool", ...)."""

    shape: tuple[int, ...]
    dtype: str = "float64"

    def __post_init__(self) -> None:
        if self.dtype not in SIZES:
            raise ValueError(f"dtype {self.dtype!r} is not one of {', '.join(SIZES)}")


@dataclass(frozen=True)
class Raw:
    """An array as it travels: `data` has the elements, row by row, little-endian."""

    shape: tuple[int, ...]
    dtype: str
    data: bytes


def encode(value: Any) -> Any:
    """`value` as it travels. BadValue for a type, a size or a number that no answer may have."""
    return _Walk(_encode_leaf, _open_plain).walk(value, 0)


def decode(value: Any) -> Any:
    """What `encode` made, read from somebody who may lie. BadValue naming what is wrong."""
    return _Walk(_decode_leaf, _open_wire).walk(value, 0)


class _Walk:
    """One pass over a value that counts what it sees: both directions hold to the same limits."""

    def __init__(self, leaf: Callable[[Any], Any], opened: Callable[[Any], Any]) -> None:
        self.leaf, self.opened = leaf, opened
        self.items = self.chars = 0

    def walk(self, value: Any, depth: int) -> Any:
        self.items += 1
        if self.items > MAX_ITEMS:
            raise BadValue(f"more than {MAX_ITEMS} items")
        kind, parts = self.opened(value)
        if kind is None:
            if type(value) is str:
                self.chars += len(value)
                if self.chars > MAX_CHARS:
                    raise BadValue(f"more than {MAX_CHARS} characters")
            return self.leaf(value)
        if depth >= MAX_DEPTH:
            raise BadValue(f"nested deeper than {MAX_DEPTH} levels")
        if len(parts) > MAX_ITEMS:
            raise BadValue(f"more than {MAX_ITEMS} items")
        if kind == "list":
            return [self.walk(part, depth + 1) for part in parts]
        pairs = [[self._key(key), self.walk(part, depth + 1)] for key, part in parts]
        return {"dict": pairs} if self.leaf is _encode_leaf else dict(pairs)

    def _key(self, key: Any) -> Any:
        if type(key) not in (str, int):
            raise BadValue(f"a key of type {type(key).__name__}: keys are strings or whole numbers")
        return self.walk(key, 0)


def _number(value: int | float) -> int | float:
    if type(value) is int and abs(value) > MAX_INT:
        raise BadValue("a whole number of more than 64 bits")
    if type(value) is float and not math.isfinite(value):
        raise BadValue(f"{value} is not a finite number")
    return value


def _open_plain(value: Any) -> tuple[str | None, Any]:
    # `type(...) is`, never isinstance: a subclass brings methods of its own
    if type(value) in (list, tuple):
        return "list", value
    return ("dict", list(value.items())) if type(value) is dict else (None, None)


def _encode_leaf(value: Any) -> Any:
    if value is None or type(value) in (bool, str):
        return value
    if type(value) in (int, float):
        return _number(value)
    if type(value) is Raw:
        return {"array": base64.b64encode(value.data).decode(), "shape": [*value.shape], "dtype": value.dtype}
    raise BadValue(f"a value of type {type(value).__name__}: not a number, a string, a list or a dict")


def _open_wire(value: Any) -> tuple[str | None, Any]:
    if type(value) is list:
        return "list", value
    if type(value) is dict and value.keys() == {"dict"}:
        pairs = value["dict"]
        if type(pairs) is not list or any(type(pair) is not list or len(pair) != 2 for pair in pairs):
            raise BadValue("a dict that is not a list of pairs")
        return "dict", pairs
    return None, None


def _decode_leaf(value: Any) -> Any:
    if type(value) is dict:
        return _array(value)
    return _encode_leaf(value)


def _array(value: dict[str, Any]) -> Raw:
    if value.keys() != {"array", "shape", "dtype"}:
        raise BadValue("an object that is neither a dict nor an array")
    shape, dtype, text = value["shape"], value["dtype"], value["array"]
    if type(dtype) is not str or dtype not in SIZES:
        raise BadValue("an array of an unknown dtype")
    whole = type(shape) is list and len(shape) <= MAX_DEPTH
    if not whole or any(type(n) is not int or not 0 <= n <= MAX_BYTES for n in shape):
        raise BadValue("an array whose shape is not a short list of whole numbers")
    size = math.prod(shape) * SIZES[dtype]
    if size > MAX_BYTES:
        raise BadValue(f"an array of {size} bytes, {MAX_BYTES} is the most")
    try:
        data = base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise BadValue("an array that is not base64") from None
    if len(data) != size:
        raise BadValue(f"an array of {len(data)} bytes, its shape and dtype ask for {size}")
    return Raw(tuple(shape), dtype, data)


def dumps(document: Any) -> bytes:
    """One line of JSON, its newline included."""
    return json.dumps(document, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def loads(line: bytes) -> dict[str, Any]:
    """The object in a line. BadValue for what is no JSON object, or hides NaN, or is nested without end."""
    if line.count(b"[") + line.count(b"{") > 10 * MAX_ITEMS:
        raise BadValue("more brackets than any answer has")
    try:
        document = json.loads(line, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadValue(f"no JSON: {type(error).__name__}") from None
    if type(document) is not dict:
        raise BadValue("JSON, but no object")
    return document


def _no_constant(name: str) -> None:
    raise BadValue(f"{name} is not a finite number")
