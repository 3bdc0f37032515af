"""What student code returned, made fit to travel; and the state that its policy is shown."""

from __future__ import annotations

import importlib
from struct import pack, unpack
from typing import Any

from chunkprefill.grading import wire

MAX_WORDS = 300  # characters of an error that are told
_FORMATS = {"float64": "d", "float32": "f", "int64": "q", "bool": "?"}


def words(error: BaseException) -> str:
    """What an error says, in a line of a limited length; its own methods may fail."""
    try:
        said = str(error)
    except BaseException:
        return "(its words cannot be read)"
    return " ".join(said[: 4 * MAX_WORDS].split())[:MAX_WORDS] if type(said) is str else ""


def kind(value: Any) -> str:
    return f"a value of type {type(value).__name__}"


def _home(value: Any) -> str:
    return str(getattr(type(value), "__module__", "")).partition(".")[0]


def simple(value: Any, depth: int = 0) -> Any:
    """Numbers of numpy and torch as Python's own, arrays as lists; everything else as it is."""
    if _home(value) in ("numpy", "torch") and hasattr(value, "tolist"):
        size = value.numel() if _home(value) == "torch" else value.size
        if size > wire.MAX_ITEMS:
            raise wire.BadValue(f"more than {wire.MAX_ITEMS} items")
        return value.tolist()
    if depth > wire.MAX_DEPTH or type(value) not in (list, tuple, dict, range):
        return value  # `wire.encode` says what is wrong with it
    if len(value) > wire.MAX_ITEMS:
        raise wire.BadValue(f"more than {wire.MAX_ITEMS} items")
    if type(value) is dict:
        return {simple(key, depth + 1): simple(each, depth + 1) for key, each in value.items()}
    return [simple(each, depth + 1) for each in value]


def sent(value: Any, shape: tuple[int, ...], dtype: str) -> wire.Raw:
    """An array that the student's code returned, of the declared shape; wider or narrower floats pass."""
    home = _home(value)
    if home == "torch":
        torch = importlib.import_module("torch")
        value = value.detach().cpu().contiguous()
        _same_shape(tuple(value.shape), shape)
        _same_kind("bool" if value.dtype == torch.bool else "float" if value.dtype.is_floating_point
                   else "int", dtype)  # fmt: skip
        value = value.to(getattr(torch, dtype))
        flat = value.reshape(-1).view(torch.uint8) if value.numel() else value.reshape(-1)
        return wire.Raw(shape, dtype, flat.numpy().tobytes())
    if home == "numpy":
        _same_shape(tuple(value.shape), shape)
        _same_kind({"b": "bool", "f": "float", "i": "int", "u": "int"}.get(value.dtype.kind, "?"), dtype)
        return wire.Raw(shape, dtype, value.astype("<" + {"bool": "?"}.get(dtype, dtype[0] + str(
            wire.SIZES[dtype]))).tobytes())  # fmt: skip
    numbers, found = flattened(value, len(shape))
    _same_shape(found, shape)
    kinds = {type(n) for n in numbers}
    if dtype.startswith("float"):
        kinds -= {int}  # `1` is a float to whoever writes a list
    for each in kinds:
        _same_kind(each.__name__, dtype)
    try:
        return wire.Raw(shape, dtype, pack(f"<{len(numbers)}{_FORMATS[dtype]}", *numbers))
    except Exception as error:
        raise wire.BadValue(f"numbers that do not fit {dtype}: {words(error)}") from None


def _same_shape(found: tuple[int, ...], shape: tuple[int, ...]) -> None:
    if found != shape:
        raise wire.BadValue(f"an array of shape {list(found)}, {list(shape)} is asked for")


def _same_kind(found: str, dtype: str) -> None:
    if not dtype.startswith(found):
        raise wire.BadValue(f"an array of {found} numbers, {dtype} is asked for")


def flattened(value: Any, depth: int) -> tuple[list[Any], tuple[int, ...]]:
    """The numbers of nested lists, and their shape; BadValue if the lists differ in length."""
    shape: list[int] = []
    level = [value]
    for _ in range(depth):
        if any(type(each) not in (list, tuple) for each in level):
            return [], tuple(shape)
        lengths = {len(each) for each in level}
        if len(lengths) > 1 or sum(map(len, level)) > wire.MAX_BYTES // 8:
            raise wire.BadValue("lists of different lengths, or too long, where an array is asked for")
        shape.append(lengths.pop() if lengths else 0)
        level = [inner for each in level for inner in each]
    for each in level:
        if type(each) not in (bool, int, float):
            if _home(each) in ("numpy", "torch") and getattr(each, "ndim", 1) == 0:
                continue
            raise wire.BadValue(f"{kind(each)} where a number is asked for")
    return [simple(each) for each in level], tuple(shape)


def rebuilt(state: dict[str, Any], seqs: dict[Any, Any]) -> Any:
    """A State of what the grader sent. A sequence stays the same object from one decision to the next."""
    from chunkprefill.scheduling.blocks import BlockPool
    from chunkprefill.scheduling.contract import set_cached, set_known, set_room
    from chunkprefill.scheduling.core import Sequence
    from chunkprefill.scheduling.state import State

    lines: list[list[Any]] = []
    for rows in (state["waiting"], state["running"]):
        lines.append([])
        for rid, n_prompt, arrival, priority, cached, known, order in rows:
            seq = seqs.get(rid)
            if seq is None:
                seq = seqs[rid] = Sequence(rid, n_prompt, arrival, priority, order=order)
            set_cached(seq, cached), set_known(seq, known), set_room(seq, 0)
            lines[-1].append(seq)
    live = {seq.rid for line in lines for seq in line}
    for gone in [rid for rid in seqs if rid not in live]:
        del seqs[gone]
    n_blocks, block_size, n_used = state["pool"]
    pool = BlockPool(n_blocks, block_size)
    held = sum(pool.blocks_for(seq.cached) for seq in lines[1])
    pool.take(max(0, n_used - held))  # what somebody else holds
    made = State(pool, state["now"], lines[0], lines[1])
    object.__setattr__(made, "_n_steps", state["n_steps"])
    decoding = made._decoding
    for rid in state["decoding"]:  # in the order in which they came to it
        if rid in decoding:
            decoding[rid] = decoding.pop(rid)
    return made


def nested(array: wire.Raw) -> Any:
    """An array as nested lists, a number where it has no dimension."""
    count = len(array.data) // wire.SIZES[array.dtype]
    numbers: Any = list(unpack(f"<{count}{_FORMATS[array.dtype]}", array.data))
    for n in reversed(array.shape[1:]):
        numbers = [numbers[i : i + n] for i in range(0, len(numbers), n)] if n else []
    return numbers if array.shape else numbers[0]
