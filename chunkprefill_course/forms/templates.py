"""Texts of more than a few lines, kept as Markdown beside the code that fills them in."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from string import Template


def filler(folder: Path) -> Callable[..., str]:
    """`fill(name, **values)`: the template `name`.md of `folder`, each `$value` in its place.

    A paragraph is a line of the file. `fill` raises KeyError for a value that is missing.
    """

    @cache
    def template(name: str) -> Template:
        return Template((folder / f"{name}.md").read_text(encoding="utf-8").strip())

    def fill(name: str, **values: object) -> str:
        return template(name).substitute({key: str(value) for key, value in values.items()})

    return fill
