"""The line of the reader's own code at which something happened."""

from __future__ import annotations

import dis
import linecache
import os
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import chunkprefill
from chunkprefill_course.forms.answers import shortened

_LIBRARIES = (
    os.path.dirname(chunkprefill.__file__) + os.sep,
    str(Path(__file__).parents[1]) + os.sep,
    sysconfig.get_path("stdlib") + os.sep,
    os.path.dirname(os.__file__) + os.sep,
)


def is_readers(code: CodeType) -> bool:
    """Whether code is neither Python's, nor a library's, nor ours."""
    name = code.co_filename
    if name.startswith(_LIBRARIES) or name.startswith("<frozen"):
        return False
    return "site-packages" not in name and "dist-packages" not in name


def place_of(error: BaseException) -> str:
    """``line 3 of your code (`x = y[0]`)``: the last line of the reader's that an error passed, or ""."""
    found, step = None, error.__traceback__
    while step is not None:
        if is_readers(step.tb_frame.f_code):
            found = step.tb_frame.f_code, step.tb_lineno
        step = step.tb_next
    if found is None and isinstance(error, SyntaxError):
        return ""
    return _place(*found) if found else ""


def _place(code: CodeType, line: int) -> str:
    text = shortened(linecache.getline(code.co_filename, line).strip(), 60)
    return f"line {line} of your code" + (f" (`{text}`)" if text else "")


def returning(work: Callable[[], Any]) -> str:
    """Call `work` and say at which `return` the reader's outermost function left it last.

    "" where there is a single one, or where the code is not the reader's.
    """
    last: tuple[CodeType, int] | None = None
    outermost: CodeType | None = None

    def watch(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal last, outermost
        code = frame.f_code
        if outermost is None and is_readers(code) and _n_returns(code) > 1:
            outermost = code
        if code is not outermost:
            return None
        if event == "return" and argument is not None:
            last = code, frame.f_lineno
        return watch

    before = sys.gettrace()
    if before is not None and not callable(before):
        return ""  # a time limit watches in this way already
    sys.settrace(watch)
    try:
        work()
    except BaseException:  # it was run before: what it raises has been told
        return ""
    finally:
        sys.settrace(before)
    return _place(*last) if last else ""


def _n_returns(code: CodeType) -> int:
    """Lines from which a function returns a value."""
    lines, line = set(), code.co_firstlineno
    for step in dis.get_instructions(code):
        here = step.starts_line
        if type(here) is bool:  # from 3.13 on a number of its own says it
            here = step.line_number  # type: ignore[attr-defined]
        line = here or line
        if step.opname in ("RETURN_VALUE", "RETURN_CONST"):  # 3.12 and 3.13 return a constant in one step
            lines.add(line)
    return len(lines)
