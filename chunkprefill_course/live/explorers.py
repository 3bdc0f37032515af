"""An explorer's frame for a value that was not recorded, drawn by the notebook's own code.

`tools/slices.py` takes that code out of the notebook; it comes with the packages into the page.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

from chunkprefill_course.forms.explorer import Explorer

PROGRAMS = "explorers.json"  # beside this module, in the page's zip: {id: program}


@cache
def programs() -> dict[str, str]:
    """{id: the program that makes the explorer under the name `explorer`}."""
    return dict(json.loads(resources.files(__package__).joinpath(PROGRAMS).read_text("utf-8")))


@cache
def made(program: str) -> Explorer:
    """The explorer that a program makes; what the notebook prints on the way is not shown."""
    names: dict[str, Any] = {"__name__": "__main__"}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(program, "the notebook", "exec"), names)
    explorer: Explorer = names["explorer"]
    return explorer


def draw(id: str, settings: Sequence[Mapping[str, Any]], program: str | None = None) -> dict[str, Any]:
    """The frame of explorer `id`: html, and text, which says what there is to see.

    settings: for each parameter {"at": the index of a recorded value} or {"value": a number between them}.
    ValueError names the parameter, and what it may be.
    """
    explorer = made(program if program is not None else programs()[id])
    if len(settings) != len(explorer.parameters):
        raise ValueError(f"{id} has {len(explorer.parameters)} parameters, {len(settings)} were given")
    chosen = [
        _value(label, values, one) for (label, values), one in zip(explorer.parameters.items(), settings)
    ]
    picture = explorer.frame(*chosen)
    return {"html": picture._repr_html_(), "text": picture.alt}


def _value(label: str, recorded: Sequence[Any], setting: Mapping[str, Any]) -> Any:
    if "at" in setting:
        return recorded[int(setting["at"])]
    number = setting["value"]
    low, high, whole = min(recorded), max(recorded), all(isinstance(v, int) for v in recorded)
    if isinstance(number, bool) or not isinstance(number, int | float) or not low <= number <= high:
        raise ValueError(f"{label}: {number!r}; a number from {low:,} to {high:,} can be drawn")
    if whole and number != int(number):
        raise ValueError(f"{label}: {number!r}; a whole number is needed")
    return int(number) if whole else number
