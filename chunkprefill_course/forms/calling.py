"""Calling a reader's function with things of its own, and seeing that it leaves them as they were."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from chunkprefill_course.forms.answers import Unusable, told
from chunkprefill_course.forms.running import Program


def call(program: Program, given: Mapping[str, Any]) -> Any:
    """Call it by position with fresh copies. Raises Unusable that names an argument which it changed."""
    fresh = {name: copy.deepcopy(value) for name, value in given.items()}
    returned = program(*fresh.values())
    if hasattr(type(returned), "__next__"):
        returned = list(returned)  # what a generator does to its arguments, it does now
    for name, value in given.items():
        if fresh[name] != value:
            raise Unusable(changed(name, fresh[name]))
    return returned


def shared_list(parts: Any) -> tuple[int, int] | None:
    """The numbers of two parts of an answer that are one and the same list; None if there are no two."""
    seen: dict[int, int] = {}
    for i, part in enumerate(parts if type(parts) in (list, tuple) else ()):
        if type(part) is list and (first := seen.setdefault(id(part), i)) != i:
            return first, i
    return None


def changed(name: str, now: Any = None) -> str:
    """The reply to a function that changes what it was given to read."""
    became = "" if now is None else f" (now {told(now)})"
    return f"it changed `{name}`{became}, which is not its to change: work on a copy"
