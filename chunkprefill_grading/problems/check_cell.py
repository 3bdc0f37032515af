"""The notebook's cell of checks: the course's reader of answers and `forms`, as text that needs neither."""

from __future__ import annotations

import textwrap
from functools import cache
from pathlib import Path

from chunkprefill_course.forms import answers
from chunkprefill_grading.problems import answer_forms

HEAD = """\
# @title Checks of form: run this cell, there is no need to read it
def checks():
    # Whether an answer is well formed. Nothing here knows whether it is right.
"""
TAIL = "\n    return look\n\n\nlook = checks()"


@cache
def check_cell() -> str:
    """The cell. All of it is inside one function: names such as `number` stay the student's."""
    parts = [
        _body(Path(str(module.__file__)).read_text(encoding="utf-8")) for module in (answers, answer_forms)
    ]
    return HEAD + textwrap.indent("\n\n".join(parts), "    ") + TAIL


def _body(source: str) -> str:
    """A module without its docstring, and without what it imports from here."""
    _, _, body = source.partition("from __future__ import annotations\n")
    lines = []
    for line in body.strip().splitlines():
        if line.startswith("from chunkprefill_course"):
            line = "plain_number = number" if line.endswith("plain_number") else ""
        lines.append(line)
    return "\n".join(lines).strip()
