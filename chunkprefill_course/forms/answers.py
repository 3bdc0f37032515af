"""One reader of answers: what a program returns, in whatever style, as plain values that are safe to compare.

Exercises and grading both read answers here, so that an answer that one accepts, the other accepts too. The
module needs the standard library alone; arrays and tensors are recognised by what they can do.

What is read, and as what:

- *not answered*: `None` and `...` stay None, in every reader.
- `number`: int, float, Fraction, Decimal, an IntEnum, numpy and torch scalars, arrays and tensors of one
  element. A bool is no number, NaN is none either.
- `whole`: every number that has no fraction, as an int (`4.0`, `Fraction(8, 2)`, `numpy.int64(4)`).
- `truth`: True and False, and every number by its truth, as Python's `and`, `or` and `if` take it; so is an
  object of a class with `__bool__`. Text and containers are refused: `"False"` is true in Python, and no writer
  means that.
- `items`: list, tuple, range, deque, arrays and tensors, dict views, generators and every other iterable that
  ends. Text, bytes, mappings and sets are refused: they have no order that was chosen.
- `mapping`: every Mapping (dict, OrderedDict, Counter, defaultdict, ChainMap, MappingProxyType, UserDict, …)
  and whatever has `keys` and `[key]`.
- `plain`: any of these, nested, without asking for a kind: what remains is None, bool, int, float, str, and
  lists and dicts of these (`plain_parts`: also where a part of it is none of these). Of classes that a stranger wrote nothing is left, so their `__eq__` has no say.

Each raises `Unusable`, with words for the person who wrote the program, and nothing else: neither endless
generators, nor structures that contain themselves, nor whole numbers of ten thousand digits raise more. (An
answer's own methods may: run the readers where a program's errors are caught, see `running.attempt`.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from itertools import islice
from numbers import Integral, Real
from operator import index
from typing import Any

Plain = Any  # None, bool, int, float, str, and lists and dicts of these: safe to compare, whatever made it
PLAIN = frozenset({bool, int, float, str})  # types of values that are read as they stand
MOST = 100_000  # an answer with more items is not looked at
DEEPEST = 12  # lists in lists


UNREADABLE = "(?)"  # stands in `plain_parts` for what cannot be read: no number, no truth, no letter


class Unusable(Exception):
    """The answer is of a kind that no question asks for; the message says which."""


def plain(value: Any) -> Plain:
    """The value in plain types, nested as it was. Raises Unusable for what cannot be read as such."""
    return _Reader().read(value)


def plain_parts(value: Any) -> Plain:
    """As `plain`, but what of a list or a dict cannot be read becomes UNREADABLE, and costs itself alone."""
    return _Reader(forgiving=True).read(value)


def number(value: Any, of: str = "a number") -> int | float | None:
    """The value as an int or a float. `of` says in the refusal what was wanted ("a number of bytes")."""
    read = _single(value)
    if read is None:
        return None
    if isinstance(read, bool) or not isinstance(read, int | float) or read != read:
        raise Unusable(f"it returned {told(value)}; expected {of}")
    return read


def whole(value: Any, of: str = "a whole number") -> int | None:
    """The value as an int, if it has no fraction."""
    read = number(value, of)
    if read is None:
        return None
    if isinstance(read, float) and not (math.isfinite(read) and read.is_integer()):
        raise Unusable(f"it returned {told(value)}; expected {of}")
    return int(read)


def truth(value: Any) -> bool | None:
    """The value as Python's `if` would take it."""
    if _says_itself(value):
        return bool(value)
    read = _single(value)
    if read is None:
        return None
    if not isinstance(read, int | float) or read != read:
        raise Unusable(f"it returned {told(value)}; expected True or False")
    return bool(read)


def items(value: Any, of: str = "a list") -> list[Plain] | None:
    """The value as a list of plain values."""
    if value is None or value is ...:
        return None
    if isinstance(value, Mapping | set | frozenset):
        raise Unusable(f"it returned {told(value)}; expected {of}, in order")
    read = plain(value)
    if not isinstance(read, list):
        raise Unusable(f"it returned {told(value)}; expected {of}")
    return read


def sets_as_lists(value: Any, depth: int = 3) -> Any:
    """A list or tuple with the sets in it as lists, for an answer in which their order does not matter."""
    if not isinstance(value, list | tuple) or not depth:
        return value
    out = []
    for each in value:
        if isinstance(each, set | frozenset):
            try:
                out.append(sorted(each))
            except TypeError:  # of several kinds
                out.append(list(each))
        else:
            out.append(sets_as_lists(each, depth - 1))
    return out


def mapping(value: Any, of: str = "a dict", key: Callable[[Any], Any] | None = None) -> dict | None:
    """The value as a dict. `key` reads a key; by default keys become plain values."""
    if value is None or value is ...:
        return None
    if not is_mapping(value):
        raise Unusable(f"it returned {told(value)}; expected {of}")
    reader, names = _Reader(), islice(value.keys(), MOST)
    return {(key or _key)(name): reader.read(value[name]) for name in names}


def is_mapping(value: Any) -> bool:
    """Whether a value has keys and gives what belongs to each."""
    kind = type(value)
    return isinstance(value, Mapping) or (hasattr(kind, "keys") and hasattr(kind, "__getitem__"))


def is_array(value: Any) -> bool:
    """Whether a value is an array or a tensor: it has a shape, and turns into lists."""
    return hasattr(type(value), "tolist") and hasattr(value, "shape")


def shape(value: Plain) -> tuple[int, ...] | None:
    """The shape of a rectangular nested list; None if it is not one."""
    if not isinstance(value, list):
        return ()
    if not any(isinstance(item, list) for item in value):
        return (len(value),)
    inner = {shape(item) for item in value}
    if len(inner) > 1 or None in inner:
        return None
    return (len(value), *(inner.pop() or ()))


# --- saying what was returned -------------------------------------------------------------------------


def told(value: Any, most: int = 60) -> str:
    """A value in a few words, as code: safe for whole numbers of any size, deep lists and odd objects."""
    text = _written(value, 3)
    if text is None:
        return _kind(value)
    return f"`{shortened(text, most)}`"


def shortened(text: str, most: int = 60) -> str:
    """A text on one line, cut to `most` characters."""
    text = " ".join(text[: 4 * most].split()).replace("`", "'")
    return text if len(text) <= most else text[: most - 1] + "…"


def figure(value: float, *, digits: int = 6) -> str:
    """A number for a sentence: `1,234`, `0.00008`, `about 1e5000`."""
    if isinstance(value, int) and not isinstance(value, bool):
        n_digits = math.ceil(value.bit_length() * math.log10(2)) if value else 1
        return f"{value:,}" if n_digits <= 18 else f"about {'-' if value < 0 else ''}1e{n_digits - 1}"
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size >= 1e15 or 0 < size < 1e-9:
        return f"{value:.{digits}g}"
    places = digits if not size else max(0, digits - 1 - math.floor(math.log10(size)))
    text = f"{value:,.{min(places, 15)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def apart(one: float, other: float, *, digits: int = 3) -> tuple[str, str]:
    """Two numbers with as many digits as tell them apart: never "0.15 in place of 0.15"."""
    for n in range(digits, 18):
        texts = figure(one, digits=n), figure(other, digits=n)
        if texts[0] != texts[1] or one == other:
            return texts
    return repr(one), repr(other)


# --- how they are read --------------------------------------------------------------------------------


class _Reader:
    """Reads one answer, and counts its items: nested generators cannot make it endless."""

    def __init__(self, *, forgiving: bool = False) -> None:
        self.left, self.forgiving = MOST, forgiving

    def read(self, value: Any, depth: int = 0) -> Plain:
        kind = type(value)
        if value is None or value is ...:
            return None  # `...` is a cell that is not written yet
        if kind in PLAIN:
            return value
        if depth > DEEPEST:
            raise Unusable(f"it returned lists in lists, more than {DEEPEST} deep")
        if is_array(value) or kind.__module__ == "array":
            self._count(int(value.numel()) if hasattr(value, "numel") else _n_items(value))
            return self.read(value.tolist(), depth + 1)
        if isinstance(value, str):
            return str.__str__(value)
        if (read := _as_number(value)) is not None:
            return read
        if is_mapping(value):
            names = self._taken(value.keys())
            return {self._name(name): self._part(value[name], depth + 1) for name in names}
        if isinstance(value, bytes | bytearray | set | frozenset):
            raise Unusable(f"it returned {told(value)}, which is not what is asked for")
        if isinstance(value, Iterable) or (hasattr(kind, "__getitem__") and hasattr(kind, "__len__")):
            taken = self._taken(value)
            if PLAIN.issuperset(map(type, taken)):  # a mask has thousands of rows and cells
                return taken
            return [self._part(each, depth + 1) for each in taken]
        raise Unusable(f"it returned {_kind(value)}, which is not what is asked for")

    def _part(self, value: Any, depth: int) -> Plain:
        try:
            return self.read(value, depth)
        except Unusable:
            if not self.forgiving:
                raise
            return UNREADABLE

    def _name(self, value: Any) -> Any:
        try:
            return _key(value)
        except Unusable:
            if not self.forgiving:
                raise
            return UNREADABLE

    def _taken(self, value: Any) -> list[Any]:
        taken = list(islice(iter(value), self.left + 1))
        if len(taken) > self.left:
            endless = "" if hasattr(type(value), "__len__") else ": does the generator ever end?"
            raise Unusable(f"it returned more than {MOST:,} items{endless}")
        self.left -= len(taken)
        return taken

    def _count(self, n_items: int) -> None:
        if n_items > MOST:
            raise Unusable(f"it returned {n_items:,} numbers, more than any answer has")


def _single(value: Any) -> Plain:
    """A plain value; of an array or a tensor with one element, that element."""
    read = plain(value)
    while is_array(value) and isinstance(read, list) and len(read) == 1:
        (read,) = read
    return read


def _says_itself(value: Any) -> bool:
    """Whether it is an object of a class of its own that says whether it is true."""
    kind = type(value)
    if kind.__module__ == "builtins" or hasattr(kind, "__index__") or is_array(value) or is_mapping(value):
        return False
    return hasattr(kind, "__bool__") and not isinstance(value, Real | Decimal | str | bytes | list | tuple)


def _as_number(value: Any) -> int | float | None:
    exact: Any = value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real | Decimal):
        read = _as_float(exact)
        is_whole = not isinstance(value, float) and math.isfinite(read) and exact == int(exact)
        return int(exact) if is_whole else read
    if isinstance(value, complex) and not value.imag:  # a root that happens to be real
        return value.real
    kind = type(value)
    if hasattr(kind, "__index__") and not isinstance(value, Iterable):
        return index(value)
    return None


def _as_float(value: Any) -> float:
    """The value as a float: infinite where it is too large for one, NaN where it is none."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except ValueError:  # a signalling NaN
        return math.nan


def _n_items(value: Any) -> int:
    return int(value.size) if hasattr(value, "size") else len(value)


def _key(value: Any) -> Any:
    """A key in plain types: lists, which cannot be keys, as tuples."""
    read = plain(value)
    return _frozen(read)


def _frozen(value: Plain) -> Any:
    if isinstance(value, list):
        return tuple(map(_frozen, value))
    return repr(value) if isinstance(value, dict) else value


def _written(value: Any, depth: int) -> str | None:
    """The value as Python writes it, the first few items of it; None for what has no such text."""
    kind = type(value)
    if kind is int and abs(value) >= 10**30:
        return figure(value)
    if value is None or value is ... or kind in (bool, int, float, str, bytes, complex):
        return repr(value[:200] if kind in (str, bytes) else value)
    if is_array(value):
        try:
            return " ".join(str(value).split()) if _n_elements(value) <= 1000 else None
        except Exception:  # a stranger's class that only looks like an array
            return None
    if depth == 0:
        return "…"
    if kind in (list, tuple, set, frozenset):
        inner = [_written(each, depth - 1) or "…" for each in islice(value, 12)]
        more = [*inner, "…"] if len(value) > 12 else inner
        left, right = "[]" if kind is list else "()" if kind is tuple else "{}"
        comma = "," if kind is tuple and len(value) == 1 else ""
        return (
            f"{left}{', '.join(more)}{comma}{right}"
            if more or kind in (list, tuple)
            else f"{kind.__name__}()"
        )
    if kind is dict:
        rows = [
            f"{_written(name, depth - 1) or '…'}: {_written(each, depth - 1) or '…'}"
            for name, each in islice(value.items(), 12)
        ]
        return "{" + ", ".join([*rows, "…"] if len(value) > 12 else rows) + "}"
    if kind is range or kind.__module__ in ("fractions", "decimal", "collections", "datetime"):
        try:
            return repr(value)
        except Exception:  # a container of things that cannot be written
            return None
    return None


def _n_elements(value: Any) -> int:
    return int(value.numel()) if hasattr(value, "numel") else _n_items(value)


def _kind(value: Any) -> str:
    """`a generator`, `an Answer`."""
    kind = type(value)
    if kind.__name__ == "coroutine":
        return "a coroutine (a function that begins with `async def`; write `def`)"
    if callable(value) and hasattr(value, "__name__"):
        return f"the function `{shortened(str(value.__name__), 40)}` itself, not called"
    if is_array(value):
        return f"a large {kind.__name__}"
    name = shortened(kind.__name__, 40)
    return f"{'an' if name[:1] in 'AEIOaeio' else 'a'} {name}"
