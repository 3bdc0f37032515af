"""Run a reader's program and check it, as a notebook would: same words, same smallest case, same picture."""

from __future__ import annotations

import builtins
import contextlib
import io
import linecache
import sys
import traceback
import warnings
from collections.abc import Iterator
from html import escape
from types import ModuleType
from typing import Any

import chunkprefill as cp
import chunkprefill_course as course
from chunkprefill_course.forms.feedback import code_block, element
from chunkprefill_course.forms.stopping import NO_LIMIT

FILE = "your code"  # the name under which tracebacks show the reader's lines
PRINTED = 4000  # characters of output that are shown
#: What a program may change for the next one, beside what the course loads: it is put back.
SHARED = (
    "builtins",
    "math",
    "random",
    "itertools",
    "functools",
    "collections",
    "heapq",
    "bisect",
    "operator",
)
OURS = ("chunkprefill", "chunkprefill_course")


class Printed(io.TextIOBase):
    """What a program prints: the beginning is kept, the rest is counted; it cannot be closed."""

    def __init__(self) -> None:
        self.kept, self.n = "", 0

    def write(self, text: str) -> int:
        self.n += len(text)
        self.kept += text[: PRINTED - len(self.kept)]
        return len(text)

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        """Nothing: the next line is shown too."""

    def __str__(self) -> str:
        more = self.n - len(self.kept)
        return self.kept + (f"\n… {more} characters more" if more else "")


class NoKeyboard(io.TextIOBase):
    """Standard input of a program in a page: says that there is none."""

    def readable(self) -> bool:
        return True

    def readline(self, *_: Any) -> str:  # type: ignore[override]
        raise EOFError(
            "there is no keyboard to read from: write the value into your code, in place of input()"
        )

    read = readlines = __next__ = readline  # type: ignore[assignment]


@contextlib.contextmanager
def alone(printed: Printed) -> Iterator[None]:
    """Within it prints are kept and nothing can be read; after it all is as it was for the next program.

    A reader who writes `len = …` into builtins, or `cp.Plan = …`, would else spoil every run that follows.
    """
    place, builtin = vars(builtins), dict(vars(builtins))
    modules = [
        vars(module)
        for name, module in list(sys.modules.items())
        if isinstance(module, ModuleType) and (name in SHARED or name.split(".")[0] in OURS)
    ]
    before = [(names, dict(names)) for names in modules]
    limit, stdin = sys.getrecursionlimit(), sys.stdin
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "coroutine .* was never awaited")
        sys.stdin = NoKeyboard()
        try:
            yield
        finally:
            place.update(builtin)  # first of all: what follows needs them
            for names, then in before:
                names.update({key: value for key, value in then.items() if names.get(key) is not value})
                for key in names.keys() & {*then.get("__all__", ())} - then.keys():
                    del names[key]  # a name that the package finds when it is used: it is found anew
            sys.stdin = stdin
            sys.setrecursionlimit(limit)


def said_by(error: BaseException) -> str:
    """An exception's words; its class alone where its own methods fail."""
    try:
        said = str(error.args[0]) if isinstance(error, SyntaxError) and error.args else str(error)
    except Exception:
        return "(its message cannot be shown)"
    return said


def exercise_of(id: str) -> Any:
    """The exercise with this id: a function to write, or a plan. KeyError for one that there is not.

    Its name in the course is its id with underscores: no other exercise is loaded to find it.
    """
    name = id.replace("-", "_")
    form = getattr(course.exercises, name) if name in course.exercises.__all__ else None
    if form is None or form.id != id or not getattr(form, "starter", ""):
        raise KeyError(f"no exercise {id!r}")
    return form


def check(id: str, source: str) -> dict[str, Any]:
    """Run `source`, check what it defines. Returns ok (None: not attempted), text, html, printed."""
    exercise = exercise_of(id)
    source = source.removeprefix("\ufeff")  # which comes along with a paste
    linecache.cache[FILE] = (len(source), None, source.splitlines(keepends=True), FILE)
    names: dict[str, Any] = {"__name__": "__main__", "cp": cp, "course": course}
    printed = Printed()
    failed: BaseException | None = None
    with alone(printed):
        try:
            exec(compile(source, FILE, "exec"), names)
        except BaseException as error:
            failed = error
    if failed:
        return raised(failed, source, str(printed))
    if exercise.name not in names:
        words = f"○ Not attempted. Your code defines no `{exercise.name}`."
        return _reply(None, words, element(f"<p>{escape(words)}</p>", role="status"), str(printed))
    with alone(printed):
        feedback = exercise.check(names[exercise.name], seconds=NO_LIMIT)  # the page ends what takes too long
    return _reply(feedback.ok, str(feedback), feedback._repr_html_(), str(printed))


def _reply(ok: bool | None, text: str, html: str, printed: str) -> dict[str, Any]:
    return {"ok": ok, "text": text, "html": html, "printed": printed}


def raised(error: BaseException, source: str, printed: str) -> dict[str, Any]:
    """The line of the reader's code where it was raised, and what it says."""
    number = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else None
    number = number or _line_of_odd_letter(error, source)
    if number is None:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == FILE]
        number = frames[-1].lineno if frames else None
    what = f"{type(error).__name__}: {said_by(error)}"[:500]
    lines = source.splitlines()
    where = f"line {number}" if number else "your code"
    line = lines[number - 1].strip() if number and number <= len(lines) else ""
    text = f"✗ Not yet. {where[:1].upper()}{where[1:]} raises {what}" + (f"\n{line}" if line else "")
    shown = code_block(f"{number}  {line}") if line else ""
    head = f'<p><span class="cp-verdict">✗ Not yet.</span> {escape(where[:1].upper() + where[1:])} raises '
    html = element(f"{head}<code>{escape(what)}</code></p>{shown}", role="status")
    return _reply(False, text, html, printed)


def _line_of_odd_letter(error: BaseException, source: str) -> int | None:
    """The line of a letter that no program may hold: NUL, or half of a pair (a paste can bring either)."""
    place = -1
    if isinstance(error, SyntaxError):
        place = source.find("\0")
    elif isinstance(error, UnicodeEncodeError) and error.object == source:
        place = error.start
    return source.count("\n", 0, place) + 1 if place >= 0 else None
