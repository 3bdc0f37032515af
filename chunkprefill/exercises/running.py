"""Running a reader's function: within a time limit, with its prints held back, its answer made plain."""

from __future__ import annotations

import contextlib
import io
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

Program = Callable[..., Any]
Plain = Any  # None, bool, int, float, str, and lists and dicts of these: safe to compare, whoever made it
MOST = 100_000  # an answer with more items is not looked at


class Unusable(Exception):
    """The reader's function gave an answer that no exercise asks for; the message says which."""


class _Late(BaseException):
    """Raised in a function that runs too long; no Exception, so `except Exception` lets it through."""


@dataclass(frozen=True)
class Outcome:
    """What came of one call: a plain value, or the words for why there is none; and what it printed."""

    value: Plain = None
    trouble: str = ""
    kind: str = ""  # name of the exception
    printed: str = ""

    @property
    def untried(self) -> bool:
        return self.kind == "NotImplementedError"


def attempt(work: Callable[[], Any], *, seconds: float = 2.0) -> Outcome:
    """Call `work()` and make its result plain; what it raises becomes words. A real Ctrl-C goes through."""
    out = _Paper()
    try:
        with time_limit(seconds), contextlib.redirect_stdout(out):
            return Outcome(plain(work()), printed=out.getvalue())
    except KeyboardInterrupt:
        raise
    except _Late:
        return Outcome(trouble=f"it had not finished after {seconds:g} s: does a loop ever end?", kind="Late")
    except Unusable as error:
        return Outcome(trouble=str(error), kind="Unusable", printed=out.getvalue())
    except BaseException as error:  # SystemExit too: a reader's exit() must not end the notebook
        name, words = type(error).__name__, _words(error)
        return Outcome(trouble=f"it raised {name}: {words}", kind=name, printed=out.getvalue())


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Stop what runs too long, where the system has alarms and in the main thread; elsewhere, no limit."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(*_: object) -> None:
        raise _Late

    before = signal.signal(signal.SIGALRM, ring)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds, 0.1)  # again and again: one ring can be swallowed
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left)
        signal.signal(signal.SIGALRM, before)


def plain(value: Any) -> Plain:
    """Tensors, arrays, tuples, ranges and finite generators as lists; numpy scalars as numbers.

    Nothing of the reader's own classes is left, so their `__eq__` has no say. Raises Unusable for the rest.
    """
    kind = type(value)
    if value is ...:
        return None  # a cell that is not written yet
    if value is None or kind in (bool, int, float, str):
        return value
    if kind.__module__.partition(".")[0] in ("torch", "numpy") and hasattr(value, "tolist"):
        n_items = value.numel() if hasattr(value, "numel") else int(value.size)
        if n_items > MOST:
            raise Unusable(f"it returned {n_items:,} numbers, more than any answer has")
        return plain(value.tolist())
    if kind is dict:
        return {plain(key): plain(item) for key, item in islice(value.items(), MOST)}
    if kind in (list, tuple, range) or hasattr(kind, "__next__"):
        items = list(islice(value, MOST + 1))
        if len(items) > MOST:
            raise Unusable(f"it returned more than {MOST:,} items: does the generator ever end?")
        return [plain(item) for item in items]
    raise Unusable(f"it returned something of type {kind.__name__}, which this exercise does not ask for")


def shape(value: Plain) -> tuple[int, ...] | None:
    """The shape of a rectangular nested list; None if it is not one."""
    if not isinstance(value, list):
        return ()
    inner = {shape(item) for item in value}
    if len(inner) > 1 or None in inner:
        return None
    return (len(value), *(inner.pop() or ())) if inner else (0,)


def _words(error: BaseException) -> str:
    try:
        text = " ".join(str(error).split())
    except Exception:  # an error whose own text fails
        return "(no message)"
    return text[:200] or "(no message)"


class _Paper(io.StringIO):
    """Keeps the first thousand characters."""

    def write(self, text: str) -> int:
        super().write(text[: max(0, 1000 - self.tell())])
        return len(text)
