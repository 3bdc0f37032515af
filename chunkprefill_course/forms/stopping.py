"""Stopping a program that runs too long, whatever it catches, wherever it runs.

An alarm raises `Late` once, and a bare `except:` may swallow it. From then on every line that the program
runs raises again, its `except` lines too, so that no loop survives. Where the system has no alarms (a worker
thread, Windows, Python in a page) the program is watched from its first line instead.

What counts is the processor time of the program's own thread, because on a busy machine every program is late
by the clock. The clock counts too, at a third, because a program that sleeps computes nothing.
"""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

if not hasattr(sys, "monitoring"):
    import ctypes  # now: when the alarm rings it is too late to import anything

OURS = tuple(str(Path(__file__).with_name(name)) for name in ("stopping.py", "running.py"))
EVERY = 64  # events between two looks at the clock
DEEPER = 50  # calls that the stop itself may need
AGAIN = 0.05  # s between two alarms: the first one may have been swallowed, or come too early
NO_LIMIT = math.inf  # s; a constant, because a program may put something else in the place of `math.inf`
PATIENCE = 3  # a program may take this many times as long by the clock as it may compute
# Held here, and no built-in function below, because the program may put others in their places.
_PASSED = time.monotonic
_COMPUTED = getattr(time, "thread_time", _PASSED)  # not every system tells threads apart


class Late(BaseException):
    """Raised in a program that runs too long; no Exception, so `except Exception` lets it through."""


class Spent:
    """Called in the thread that made it: the seconds that this thread has computed since, or its share of the clock."""

    def __init__(self) -> None:
        self._begun = _COMPUTED(), _PASSED()

    def __call__(self) -> float:
        computed, passed = _COMPUTED() - self._begun[0], (_PASSED() - self._begun[1]) / PATIENCE
        return computed if computed > passed else passed


class Limit:
    """`on`, run the program, `off`: what is late gets `Late`, again and again, until `off`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = max(seconds, 0.01)
        self._thread = threading.get_ident()  # other threads of the process go on
        self._over = False  # set before anything else is undone: an alarm that rings late does nothing
        self._undo: list[Callable[[], object]] = []
        self._insisting = self._busy = False
        self._imports = 0

    def on(self) -> None:
        if self.seconds == NO_LIMIT:
            return
        self._spent = Spent()
        self._imports = _imports(sys._getframe(1))  # the check itself may be part of an import
        main = threading.current_thread() is threading.main_thread()
        if main and hasattr(signal, "setitimer"):
            before = signal.signal(signal.SIGALRM, self._ring)
            left, _ = signal.setitimer(signal.ITIMER_REAL, self.seconds, AGAIN)
            self._undo.append(lambda: signal.signal(signal.SIGALRM, before))
            self._undo.append(lambda: signal.setitimer(signal.ITIMER_REAL, left))
        else:
            self._watch()

    def off(self) -> None:
        """Undo everything. What rings meanwhile is swallowed here."""
        while True:
            try:
                self._over = True
                while self._undo:
                    self._undo[-1]()
                    self._undo.pop()
                return
            except Late:
                continue

    def _importing(self, frame: FrameType | None) -> bool:
        """Whether the program is importing a module: cut short it would stay broken, and C code may not survive."""
        return _imports(frame) > self._imports

    def _ring(self, _: int, frame: FrameType | None) -> None:
        if self._over or self._busy or self._spent() < self.seconds or self._importing(frame):
            return
        if not self._insisting:  # the program may stand at the end of its stack
            sys.setrecursionlimit(sys.getrecursionlimit() + DEEPER)
        self._busy = True
        try:
            self._insist()
        finally:  # at the end of the stack it may fail half-way: the next alarm tries again
            self._busy = False
        raise Late

    def _insist(self) -> None:
        """From now on every line of this thread raises."""
        if self._insisting:
            return
        if tool := _free_tool():
            self._monitor(tool, self._raise_at, lines=True)
        else:
            self._trace(_Raising(self))
        self._insisting = True

    # --- Python 3.12 and newer: callbacks that may raise, and stay ---

    def _monitor(self, tool: int, callback: Callable[..., Any], *, lines: bool) -> None:
        watch: Any = sys.monitoring  # type: ignore[attr-defined]
        events = [watch.events.JUMP, watch.events.PY_START, watch.events.PY_RESUME]
        events += [watch.events.LINE] if lines else []
        watch.use_tool_id(tool, "chunkprefill time limit")
        self._undo.append(lambda: watch.free_tool_id(tool))
        for event in events:
            watch.register_callback(tool, event, callback)
            self._undo.append(partial(watch.register_callback, tool, event, None))
        self._undo.append(lambda: watch.set_events(tool, 0))
        watch.set_events(tool, sum(events))

    def _raise_at(self, code: CodeType, *_: object) -> None:
        if not self._over and threading.get_ident() == self._thread and not _is_ours(code):
            raise Late

    # --- before 3.12: `sys.settrace` drops a function that raises, the interpreter's own call does not ---

    def _trace(self, asked: _Raising | _Watching) -> None:
        api, before = ctypes.pythonapi, sys.gettrace()
        set_trace = api.PyEval_SetTrace
        set_trace.argtypes, set_trace.restype = (ctypes.c_void_p, ctypes.py_object), None
        # Called at every line with `asked` first: -1, and the exception that `__bool__` raises, or 0.
        at_line = ctypes.cast(api.PyObject_IsTrue, ctypes.c_void_p)
        self._asked = asked  # kept: the interpreter holds on to it while it is in place
        self._undo.append(lambda: sys.settrace(before))
        set_trace(at_line, asked)

    # --- no alarms: look at the clock while the program runs ---

    def _watch(self) -> None:
        left = EVERY

        def late() -> bool:
            nonlocal left
            left -= 1
            if left > 0:
                return False
            left = EVERY
            return self._spent() > self.seconds

        if not (tool := _free_tool()):
            self._trace(_Watching(self, late))
            return

        def look(code: CodeType, *_: object) -> None:
            if self._over or threading.get_ident() != self._thread or _is_ours(code) or not late():
                return
            if self._importing(sys._getframe(1)):
                return
            sys.setrecursionlimit(sys.getrecursionlimit() + DEEPER)
            self._insist()
            raise Late

        self._monitor(tool, look, lines=False)


class _Raising:
    """True or false, as C asks, is never answered: code that asks at a line of the program gets `Late`."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit

    def __bool__(self) -> bool:
        if self.limit._over or _is_ours(sys._getframe(1).f_code):
            return False
        raise Late


class _Watching:
    """The same, once it is `late`."""

    def __init__(self, limit: Limit, late: Callable[[], bool]) -> None:
        self.limit, self.late, self.over = limit, late, False

    def __bool__(self) -> bool:
        frame = sys._getframe(1)
        if self.limit._over or _is_ours(frame.f_code):
            return False
        frame.f_trace_opcodes = True  # a line that jumps to itself is one line for ever
        if not self.over and self.late() and not self.limit._importing(frame):
            sys.setrecursionlimit(sys.getrecursionlimit() + DEEPER)
            self.over = True
        if self.over:
            raise Late
        return False


def _imports(frame: FrameType | None) -> int:
    """Frames of the import system on the stack."""
    n = 0
    while frame is not None:
        n += frame.f_code.co_filename == "<frozen importlib._bootstrap>"
        frame = frame.f_back
    return n


def _is_ours(code: CodeType) -> bool:
    """The lines that end a check must be able to run."""
    return code.co_filename in OURS


def _free_tool() -> int | None:
    """A tool number of `sys.monitoring` that no tool uses; None before Python 3.12."""
    watch: Any = getattr(sys, "monitoring", None)
    if watch is None:
        return None
    return next((n for n in (4, 3, 5, 2) if watch.get_tool(n) is None), None)
