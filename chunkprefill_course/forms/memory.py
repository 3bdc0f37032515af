"""What a program keeps between its calls: remembered before the first one, so that it can be put back."""

from __future__ import annotations

import copy
import dis
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from types import CodeType, FunctionType, ModuleType
from typing import Any

_put = setattr
GLOBALS = ("LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_NAME")
LARGEST = 5_000  # values that are copied of one variable


class Snapshot:
    """Defaults, attributes, closures and globals of a function or a class, and of the functions it calls."""

    def __init__(self, program: Any) -> None:
        self._put_back: list[Callable[[], object]] = []
        self._seen: set[int] = set()
        with suppress(Exception):  # what cannot be copied is not remembered
            self._keep(program)

    def restore(self) -> None:
        """Put everything back as it was."""
        for put in self._put_back:
            with suppress(Exception):
                put()

    def _keep(self, program: Any) -> None:
        if id(program) in self._seen or len(self._seen) > 200:
            return
        self._seen.add(id(program))
        if isinstance(program, FunctionType):
            self._keep_function(program)
        elif isinstance(program, type):
            self._keep_class(program)
        elif hasattr(program, "__func__"):
            self._keep(program.__func__)
            self._keep_attributes(program.__self__)
        elif hasattr(program, "__wrapped__"):  # a cache around a function
            self._keep(program.__wrapped__)
            if callable(clear := getattr(program, "cache_clear", None)):
                self._put_back.append(clear)
        elif callable(program):
            self._keep_attributes(program)
            self._keep(type(program))

    def _keep_function(self, function: FunctionType) -> None:
        for name in ("__defaults__", "__kwdefaults__", "__dict__"):
            value = getattr(function, name)
            if value:
                self._later(value, partial(_put, function, name))
        for cell in function.__closure__ or ():
            with suppress(ValueError):  # an empty cell
                self._keep_value(cell.cell_contents, partial(_put, cell, "cell_contents"))
        space = function.__globals__
        if _is_library(space.get("__name__")):
            return
        for name in _names(function.__code__):
            if name in space:
                self._keep_value(space[name], partial(space.__setitem__, name))
            else:
                self._put_back.append(partial(space.pop, name, None))

    def _keep_class(self, kind: type) -> None:
        if _is_library(kind.__module__):
            return
        for name, value in list(vars(kind).items()):
            if isinstance(value, FunctionType):
                self._keep(value)
            elif not name.startswith("__"):
                self._keep_value(value, partial(_put, kind, name))

    def _keep_attributes(self, thing: Any) -> None:
        if attributes := getattr(thing, "__dict__", None):
            self._later(dict(attributes), thing.__dict__.update)

    def _keep_value(self, value: Any, put: Callable[[Any], object]) -> None:
        if isinstance(value, FunctionType | type) or hasattr(value, "__wrapped__"):
            self._keep(value)
        elif not isinstance(value, ModuleType):
            self._later(value, put)

    def _later(self, value: Any, put: Callable[[Any], object]) -> None:
        with suppress(Exception):  # what cannot be copied is not remembered; the next thing may be
            if _is_light(value, [LARGEST]):
                kept = copy.deepcopy(value)
                self._put_back.append(lambda: put(copy.deepcopy(kept)))


def _is_light(value: Any, left: list[int]) -> bool:
    """Plain values, and not too many of them: a model in a global is no memory of earlier calls."""
    left[0] -= 1
    if left[0] < 0:
        return False
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return True
    if isinstance(value, Mapping):
        return all(_is_light(each, left) for row in value.items() for each in row)
    if isinstance(value, list | tuple | set | frozenset | deque):
        return all(_is_light(each, left) for each in value)
    return type(value).__module__ in ("builtins", "itertools") and hasattr(value, "__next__")


def _names(code: CodeType) -> Iterator[str]:
    """Globals that a function reads or writes; `co_names` has the names of attributes too."""
    yield from dict.fromkeys(step.argval for step in dis.get_instructions(code) if step.opname in GLOBALS)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _is_library(name: Any) -> bool:
    first = str(name).partition(".")[0]
    return first in ("chunkprefill", "torch", "numpy") or first in sys.stdlib_module_names - {"__main__"}
