"""Doors of packages: a table of public names, each imported when it is first used."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def door(
    package: str, table: Mapping[str, str], rooms: Mapping[str, str] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of `package`.

    table: module within the package -> its public names, separated by blanks. rooms: attribute -> module that
    is reached as a whole (`course.exercises`). AttributeError for another name lists those there are.
    """
    rooms = rooms or {}
    home = {name: module for module, names in table.items() for name in names.split()}

    def get(name: str) -> Any:
        if name in rooms:
            return importlib.import_module(f"{package}.{rooms[name]}")
        if name not in home:
            there = ", ".join(sorted([*home, *rooms]))
            raise AttributeError(f"module {package!r} has no attribute {name!r}; it has {there}")
        value = getattr(importlib.import_module(f"{package}.{home[name]}"), name)
        setattr(importlib.import_module(package), name, value)  # the next use does not come here
        return value

    def names() -> list[str]:
        return sorted({*vars(importlib.import_module(package)), *home, *rooms})

    return get, names, list(home)
