"""Running a reader's program: within a time limit, with its prints held back, its answer made plain."""

from __future__ import annotations

import contextlib
import io
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from chunkprefill_course.forms.answers import Plain, Unusable, plain
from chunkprefill_course.forms.lines import place_of
from chunkprefill_course.forms.stopping import Late, Limit

Program = Callable[..., Any]
Case = dict[str, Any]  # what a program is called with, by name
SLOW = "does a loop never end, or take far too many steps?"
ROOM = 2 << 30  # bytes that a program may take on top of what is taken


@dataclass(frozen=True)
class Outcome:
    """What came of one call: a plain value, or the words for why there is none; and what it printed."""

    value: Plain = None
    trouble: str = ""
    kind: str = ""  # name of the exception
    printed: str = field(default="", compare=False)

    @property
    def untried(self) -> bool:
        return self.kind == "NotImplementedError"

    @property
    def unanswered(self) -> bool:
        """Nothing was returned, and nothing went wrong."""
        value = self.value
        nothing = value is None or (isinstance(value, dict) and value.get("returned", 0) is None)
        return nothing and not self.trouble

    @property
    def late(self) -> bool:
        return self.kind == "Late"


def attempt(work: Callable[[], Any], *, seconds: float = 2.0) -> Outcome:
    """Call `work()` and make its result plain; what it raises becomes words. A real Ctrl-C goes through."""
    out = _Paper()
    keyboard = _Keyboard()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), keyboard, _Unheard():
            outcome = next(_with_errors_of_its_own(work, seconds))
    except BaseException as error:  # the program has put something of its own in sys.stdout's place
        outcome = _raised(error)
    if keyboard.pressed:
        raise KeyboardInterrupt
    return Outcome(outcome.value, outcome.trouble, outcome.kind, out.getvalue())


def _with_errors_of_its_own(work: Callable[[], Any], seconds: float) -> Iterator[Outcome]:
    """The outcome, from a generator: Python keeps the exception that a generator handles apart from its caller's.

    Before 3.12 a stop in the middle of an `except` or a `with` leaves `Late` behind as the exception that is being
    handled, and every later error of the notebook would say that it happened "during handling" of it.
    """
    yield _limited(work, seconds)


def _limited(work: Callable[[], Any], seconds: float) -> Outcome:
    """The call, its result and the words of its errors: all of it may be the program's own code."""
    limit, deepest, undo = Limit(seconds), sys.getrecursionlimit(), _bound_memory()
    try:
        try:
            limit.on()
            try:
                return Outcome(plain(work()))
            except Unusable as error:
                return Outcome(trouble=str(error), kind="Unusable")
            except Late:
                raise
            except BaseException as error:  # SystemExit too: a reader's exit() must not end the notebook
                return _raised(error)
        finally:
            limit.off()
            undo()
            sys.setrecursionlimit(deepest)
    except Late:
        said = f"it had not finished after {seconds:.2g} s: {SLOW}"
        return Outcome(trouble=said, kind="Late")


def _raised(error: BaseException) -> Outcome:
    """What was raised, where, in words."""
    name = type(error).__name__
    place = place_of(error)
    where = f", in {place}" if place else ""
    if isinstance(error, RecursionError):
        return Outcome(
            trouble=f"it calls itself too deeply for Python ({name}){where}: does that end?", kind=name
        )
    if isinstance(error, MemoryError):
        return Outcome(trouble=f"it asked for more than {ROOM >> 30} GB of memory ({name}){where}", kind=name)
    if isinstance(error, SystemExit):
        return Outcome(trouble=f"it ended the program ({name}){where}; return a value instead", kind=name)
    return Outcome(trouble=f"it raised {name}: {_words(error)}{where}", kind=name)


def _words(error: BaseException) -> str:
    try:
        text = " ".join(str(error).split())
    except Late:
        raise
    except BaseException:  # an error whose own text fails
        return "(no message)"
    return text[:200] or "(no message)"


class _Keyboard:
    """Tells a real Ctrl-C from a program that raises KeyboardInterrupt itself."""

    def __init__(self) -> None:
        self.pressed = False
        self._before: Any = None

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.getsignal(signal.SIGINT)
        if callable(self._before):
            signal.signal(signal.SIGINT, self._press)

    def _press(self, number: int, frame: FrameType | None) -> None:
        self.pressed = True
        self._before(number, frame)

    def __exit__(self, *_: object) -> None:
        if callable(self._before):
            signal.signal(signal.SIGINT, self._before)


class _Unheard:
    """Silences what is raised where nothing can catch it: in a callback of the garbage collector, say.

    A time limit raises there too, because the interpreter runs such code between two lines of the program. The
    hook is a built-in function: a Python function would be stopped too, and fail at the end of the stack. It is the
    process's own, as standard output is: one program at a time.
    """

    def __enter__(self) -> None:
        self._before, sys.unraisablehook = sys.unraisablehook, id

    def __exit__(self, *_: object) -> None:
        sys.unraisablehook = self._before


def _bound_memory() -> Callable[[], None]:
    """Where the system can, refuse what would take more than ROOM; returns what lifts the bound again."""
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    try:
        import resource

        with open("/proc/self/statm") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        most = taken + ROOM
        if soft != resource.RLIM_INFINITY and soft <= most:
            return lambda: None
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    except (ImportError, OSError, ValueError):
        return lambda: None
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


class _Paper(io.StringIO):
    """Keeps the first thousand characters."""

    def write(self, text: str) -> int:
        super().write(text[: max(0, 1000 - self.tell())])
        return len(text)
