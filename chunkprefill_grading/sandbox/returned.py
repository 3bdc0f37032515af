"""What student code returned, made fit to travel; and the state that its policy is shown."""

from __future__ import annotations

import importlib
from math import isfinite
from struct import pack, unpack
from typing import Any

from chunkprefill_grading.sandbox import wire
from chunkprefill_grading.sandbox.reader import UNREADABLE, Unusable, plain_parts

MAX_PART = 1_000  # items or characters of a part, in an answer that is too long
MAX_WORDS = 300  # characters of an error that are told
_FORMATS = {"float64": "d", "float32": "f", "int64": "q", "bool": "?"}


def words(error: BaseException) -> str:
    """What an error says, in a line of a limited length; its own methods may fail."""
    try:
        said = str(error)
    except BaseException:
        return "(its words cannot be read)"
    return " ".join(said[: 4 * MAX_WORDS].split())[:MAX_WORDS] if type(said) is str else ""


def _home(value: Any) -> str:
    return str(getattr(type(value), "__module__", "")).partition(".")[0]


def simple(value: Any, depth: int = 0) -> Any:
    """Numbers of numpy and torch as Python's own, arrays as lists; everything else as it is."""
    if _home(value) in ("numpy", "torch") and hasattr(value, "tolist"):
        size = value.numel() if _home(value) == "torch" else value.size
        if size > wire.MAX_ITEMS:
            raise wire.BadValue("items")
        return value.tolist()
    if depth > wire.MAX_DEPTH or type(value) not in (list, tuple, dict, range):
        return value  # `wire.encode_value` says what is wrong with it
    if len(value) > wire.MAX_ITEMS:
        raise wire.BadValue("items")
    if type(value) is dict:
        return {simple(key, depth + 1): simple(each, depth + 1) for key, each in value.items()}
    return [simple(each, depth + 1) for each in value]


def readable(value: Any) -> Any:
    """An answer in plain types, whatever library or class it is of, as the notebook's check reads it.

    A number that cannot travel becomes a text, which is no number to its reader: it costs itself alone, as
    does what is too long beside shorter parts.
    """
    try:
        read = _sendable(plain_parts(value))
    except Unusable:
        raise wire.BadValue("type") from None
    if _travels(read):
        return read
    if isinstance(read, dict):
        return {key: _short(each) for key, each in read.items()}
    return [_short(each) for each in read] if isinstance(read, list) else read


def _travels(value: Any) -> bool:
    try:
        wire.encode_value(value)
    except wire.BadValue:
        return False
    return True


def _short(part: Any) -> Any:
    """A part of an answer, or UNREADABLE for one that no question asks for, it is so long."""
    long = isinstance(part, (list, dict, str)) and len(part) > MAX_PART
    return part if not long and _travels(part) else UNREADABLE


def _sendable(value: Any) -> Any:
    if isinstance(value, dict):
        return {_key(key): _sendable(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_sendable(each) for each in value]
    if type(value) is float and not isfinite(value):
        return str(value)
    return "a large number" if type(value) is int and abs(value) > wire.MAX_INT else value


def _key(key: Any) -> str | int:
    """A key that can travel: 17.0 is 17, and what is neither text nor a whole number becomes text."""
    if type(key) is float and key.is_integer():
        key = int(key)
    return key if type(key) is str or (type(key) is int and abs(key) <= wire.MAX_INT) else str(key)[:100]


def sent(value: Any, shape: tuple[int, ...], dtype: str) -> wire.Raw:
    """An array that the student's code returned, of the declared shape; wider or narrower floats pass."""
    home = _home(value)
    if home == "torch":
        torch = importlib.import_module("torch")
        value = value.detach().cpu().contiguous()
        _same_shape(tuple(value.shape), shape)
        _same_kind(
            "bool" if value.dtype == torch.bool else "float" if value.dtype.is_floating_point else "int",
            dtype,
        )
        value = value.to(getattr(torch, dtype))
        flat = value.reshape(-1).view(torch.uint8) if value.numel() else value.reshape(-1)
        return wire.Raw(shape, dtype, flat.numpy().tobytes())
    if home == "numpy":
        _same_shape(tuple(value.shape), shape)
        _same_kind({"b": "bool", "f": "float", "i": "int", "u": "int"}.get(value.dtype.kind, "?"), dtype)
        return wire.Raw(
            shape,
            dtype,
            value.astype("<" + {"bool": "?"}.get(dtype, dtype[0] + str(wire.SIZES[dtype]))).tobytes(),
        )
    numbers, found = flattened(value, len(shape))
    _same_shape(found, shape)
    kinds = {type(n) for n in numbers}
    if dtype.startswith("float"):
        kinds -= {int}  # people write `1` for a float
    for each in kinds:
        _same_kind(each.__name__, dtype)
    try:
        return wire.Raw(shape, dtype, pack(f"<{len(numbers)}{_FORMATS[dtype]}", *numbers))
    except Exception:
        raise wire.BadValue("kind") from None


def _same_shape(found: tuple[int, ...], shape: tuple[int, ...]) -> None:
    if found != shape:
        raise wire.BadValue("shape")


def _same_kind(found: str, dtype: str) -> None:
    if not dtype.startswith(found):
        raise wire.BadValue("kind")


def flattened(value: Any, depth: int) -> tuple[list[Any], tuple[int, ...]]:
    """The numbers of nested lists, and their shape; BadValue if the lists differ in length."""
    shape: list[int] = []
    level = [value]
    for _ in range(depth):
        level = [_rows(each) for each in level]
        if any(type(each) not in (list, tuple) for each in level):
            return [], tuple(shape)
        lengths = {len(each) for each in level}
        if len(lengths) > 1 or sum(map(len, level)) > wire.MAX_BYTES // 8:
            raise wire.BadValue("ragged")
        shape.append(lengths.pop() if lengths else 0)
        level = [inner for each in level for inner in each]
    for each in level:
        if type(each) not in (bool, int, float):
            if _home(each) in ("numpy", "torch") and getattr(each, "ndim", 1) == 0:
                continue
            raise wire.BadValue("number")
    return [simple(each) for each in level], tuple(shape)


def _rows(value: Any) -> Any:
    """The rows of an array that is an item of a list, as lists; everything else as it is."""
    return simple(value) if _home(value) in ("numpy", "torch") and bool(getattr(value, "ndim", 0)) else value


def rebuilt(state: dict[str, Any], seqs: dict[Any, Any]) -> Any:
    """A State of what the grader sent. A sequence stays the same object from one decision to the next."""
    from chunkprefill.scheduling.blocks import BlockPool
    from chunkprefill.scheduling.core import Sequence, set_cached, set_capacity, set_known
    from chunkprefill.scheduling.state import State

    lines: list[list[Any]] = []
    for rows in (state["waiting"], state["running"]):
        lines.append([])
        for rid, n_prompt, arrival, priority, cached, known, order in rows:
            seq = seqs.get(rid)
            if seq is None:
                seq = seqs[rid] = Sequence(rid, n_prompt, arrival, priority, order=order)
            set_cached(seq, cached)
            set_known(seq, known)
            set_capacity(seq, 0)
            lines[-1].append(seq)
    live = {seq.rid for line in lines for seq in line}
    for gone in [rid for rid in seqs if rid not in live]:
        del seqs[gone]
    n_blocks, block_size, n_used = state["pool"]
    pool = BlockPool(n_blocks, block_size)
    held = sum(pool.blocks_for(seq.cached) for seq in lines[1])
    pool.take(max(0, n_used - held))  # blocks that none of these sequences holds
    waiting, running = lines
    order = state["decoding"]  # in which they came to decode
    return State(pool, state["now"], waiting, running, n_steps=state["n_steps"], decoding=order)


def nested(array: wire.Raw) -> Any:
    """An array as nested lists, a number where it has no dimension."""
    count = len(array.data) // wire.SIZES[array.dtype]
    numbers: Any = list(unpack(f"<{count}{_FORMATS[array.dtype]}", array.data))
    for n in reversed(array.shape[1:]):
        numbers = [numbers[i : i + n] for i in range(0, len(numbers), n)] if n else []
    return numbers if array.shape else numbers[0]
