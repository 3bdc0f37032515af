"""What goes between grader and student's process: JSON lines with limits on size, depth and numbers.

Only the standard library, because both sides read it. A value is None, a bool, an int, a finite float, a
string, or lists and dicts of these; a dict travels as {"dict": [[key, value], ...]} so that whole numbers
stay keys, an array as {"array": base64, "shape": [...], "dtype": "..."}: raw numbers, little-endian.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

MAX_ITEMS = 10_000  # of a value, those inside included
MAX_DEPTH = 16  # beyond what the reader of answers reads
MAX_CHARS = 100_000  # of all strings of a value together
MAX_INT = 2**63
MAX_BYTES = 1 << 24  # of an array
SIZES = {"bool": 1, "int64": 8, "float32": 4, "float64": 8}  # bytes an element


# What can be wrong with an answer. A student's process names one of these and cannot word it otherwise:
# it has seen hidden inputs, and whatever it might say about them would reach a page.
FORMS = {
    "items": f"it has more than {MAX_ITEMS:,} items",
    "characters": f"it has more than {MAX_CHARS:,} characters",
    "depth": f"it is nested deeper than {MAX_DEPTH} levels",
    "key": "a key of a dict is neither text nor a whole number",
    "large": "it holds a whole number of more than 64 bits",
    "finite": "it holds a number that is not finite",
    "type": "it holds a value that is neither a number, a text, a list nor a dict",
    "array": "an array came back damaged",
    "bytes": f"it has more than {MAX_BYTES:,} bytes",
    "shape": "an array of another shape is asked for",
    "kind": "an array of another kind of numbers is asked for",
    "ragged": "lists of different lengths came back where an array is asked for",
    "number": "something that is no number stands where a number is asked for",
    "count": "another number of arrays is asked for",
    "value": "an array came back where a plain value is asked for",
    "function": "a function is asked for",
    "policy": "a policy is asked for: an object with a method `schedule`",
    "plan": "`schedule` returned no `cp.Plan` with a dict of tokens",
    "decision": "what came back is not of the form that the question asks for",
    "JSON": "what came back cannot be read",
}


class BadValue(ValueError):
    """A value that no answer may be. form: one of FORMS, which says why."""

    def __init__(self, form: str) -> None:
        self.form = form
        super().__init__(FORMS[form])


@dataclass(frozen=True)
class Room:
    """How much an answer may take before anything is parsed: bytes of its line, and items."""

    n_bytes: int
    n_items: int = 4 * MAX_ITEMS  # brackets, commas and colons


#: for a value: six bytes a character where it is escaped, a number of twenty digits an item
VALUE_ROOM = Room(8 * MAX_CHARS + 32 * MAX_ITEMS)
#: for a decision of a policy, and for what a cell reports
SMALL_ROOM = Room(1 << 19)


def array_room(specs: Sequence[ArraySpec]) -> Room:
    """For the arrays that are asked for, in base64, and a little around each."""
    n_bytes = sum(math.prod(spec.shape) * SIZES[spec.dtype] for spec in specs)
    return Room(4096 + 2 * n_bytes + 512 * len(specs), 64 + 16 * len(specs))


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


def encode_value(value: Any) -> Any:
    """`value` as it travels. BadValue for a type, a size or a number that no answer may have."""
    return _Walk(_encode_leaf, _open_plain).walk(value, 0)


def decode_value(value: Any) -> Any:
    """What `encode_value` made, read from a process that may lie. BadValue naming what is wrong."""
    return _Walk(_decode_leaf, _open_wire).walk(value, 0)


class _Walk:
    """One pass over a value that counts what it sees: both directions hold to the same limits."""

    def __init__(self, leaf: Callable[[Any], Any], opened: Callable[[Any], Any]) -> None:
        self.leaf, self.opened = leaf, opened
        self.items = self.chars = 0

    def walk(self, value: Any, depth: int) -> Any:
        self.items += 1
        if self.items > MAX_ITEMS:
            raise BadValue("items")
        kind, parts = self.opened(value)
        if kind is None:
            if type(value) is str:
                self.chars += len(value)
                if self.chars > MAX_CHARS:
                    raise BadValue("characters")
            return self.leaf(value)
        if depth >= MAX_DEPTH:
            raise BadValue("depth")
        if len(parts) > MAX_ITEMS:
            raise BadValue("items")
        if kind == "list":
            return [self.walk(part, depth + 1) for part in parts]
        pairs = [[self._key(key), self.walk(part, depth + 1)] for key, part in parts]
        return {"dict": pairs} if self.leaf is _encode_leaf else dict(pairs)

    def _key(self, key: Any) -> Any:
        if type(key) not in (str, int):
            raise BadValue("key")
        return self.walk(key, 0)


def _number(value: int | float) -> int | float:
    if type(value) is int and abs(value) > MAX_INT:
        raise BadValue("large")
    if type(value) is float and not math.isfinite(value):
        raise BadValue("finite")
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
    raise BadValue("type")


def _open_wire(value: Any) -> tuple[str | None, Any]:
    if type(value) is list:
        return "list", value
    if type(value) is dict and value.keys() == {"dict"}:
        pairs = value["dict"]
        if type(pairs) is not list or any(type(pair) is not list or len(pair) != 2 for pair in pairs):
            raise BadValue("type")
        return "dict", pairs
    return None, None


def _decode_leaf(value: Any) -> Any:
    if type(value) is dict:
        return _array(value)
    return _encode_leaf(value)


def _array(value: dict[str, Any]) -> Raw:
    if value.keys() != {"array", "shape", "dtype"}:
        raise BadValue("type")
    shape, dtype, text = value["shape"], value["dtype"], value["array"]
    if type(dtype) is not str or dtype not in SIZES:
        raise BadValue("array")
    whole = type(shape) is list and len(shape) <= MAX_DEPTH
    if not whole or any(type(n) is not int or not 0 <= n <= MAX_BYTES for n in shape):
        raise BadValue("array")
    size = math.prod(shape) * SIZES[dtype]
    if size > MAX_BYTES:
        raise BadValue("bytes")
    try:
        data = base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise BadValue("array") from None
    if len(data) != size:
        raise BadValue("array")
    return Raw(tuple(shape), dtype, data)


def dumps(document: Any) -> bytes:
    """One line of JSON, its newline included."""
    return json.dumps(document, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def loads(line: bytes, room: Room | None = None) -> dict[str, Any]:
    """The object in a line. BadValue for what is no JSON object, hides NaN, is nested without end or has no
    room; None: whatever the sender's own limits let through.
    """
    if room is not None:
        if len(line) > room.n_bytes:
            raise BadValue("bytes")
        if sum(line.count(mark) for mark in (b"[", b"{", b",", b":")) > room.n_items:
            raise BadValue("items")
    try:
        document = json.loads(line, parse_constant=_no_constant)
    except BadValue:
        raise
    except (ValueError, RecursionError):
        raise BadValue("JSON") from None
    if type(document) is not dict:
        raise BadValue("JSON")
    return document


def _no_constant(name: str) -> None:
    raise BadValue("finite")
