"""A check in a process of its own, so that a notebook outlives the program that it checks.

An alarm reaches a program between two steps of the interpreter. `sum(itertools.repeat(1))` is one step that
never ends, and `os._exit(0)` ends whatever process it runs in. In a notebook the check therefore runs in a
forked copy of the kernel, which can be killed. Elsewhere (tests, scripts, a page) it runs where it was called.
"""

from __future__ import annotations

import json
import math
import os
import select
import signal
import struct
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict

from chunkprefill_course.forms.feedback import Feedback
from chunkprefill_course.forms.stopping import PATIENCE

GRACE_S = 5.0  # of computing, for the words about a program that an alarm did stop
LENGTH = struct.Struct("!Q")  # of the reply, in bytes


def in_notebook() -> bool:
    """Whether this is a kernel that can be copied. CUDA does not survive a copy, and no copy is made then."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    copies = sys.platform == "linux" and threading.current_thread() is threading.main_thread()
    kernel = "ipykernel.ipkernel" in sys.modules  # what only starts kernels loads other modules of it
    return kernel and copies and not (cuda and cuda.is_initialized())


def apart(work: Callable[[], Feedback], seconds: float, name: str) -> Feedback:
    """What `work()` says in a copy of this process, or what became of the copy.

    seconds: the time that `work` allows the program itself, as `stopping` counts it
    name:    of the program, for the words
    """
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of threads; the copy starts none
        pid = os.fork()
    if pid == 0:
        _answer(work, reading, writing, seconds + GRACE_S)
    os.close(writing)
    status = 0
    try:
        reply = _read(reading, time.monotonic() + PATIENCE * (seconds + GRACE_S))
    finally:  # a Ctrl-C ends the copy too
        os.close(reading)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            status = os.waitpid(pid, 0)[1]
    if reply is None or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU):
        return _late(seconds, name)
    with suppress(ValueError, TypeError):
        return Feedback(**json.loads(reply))
    return _ended(status, name)


def _answer(work: Callable[[], Feedback], reading: int, writing: int, most_s: float) -> None:
    """The copy's whole life, at most `most_s` of computing. It leaves without any of the kernel's own farewells."""
    import resource  # where processes can be copied, there is one

    try:
        os.close(reading)
        most = math.ceil(most_s)
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        if hard == resource.RLIM_INFINITY or most < hard:
            resource.setrlimit(resource.RLIMIT_CPU, (most, hard))
        reply = json.dumps(asdict(work())).encode()
        message = memoryview(LENGTH.pack(len(reply)) + reply)
        while message:
            message = message[os.write(writing, message) :]
        os._exit(0)
    finally:
        os._exit(1)


def _read(reading: int, end: float) -> bytes | None:
    """The reply; b"" if the copy ended without one, None if it has not come by `end` (a reading of `monotonic`)."""
    got = b""
    while len(got) < LENGTH.size or len(got) < LENGTH.size + LENGTH.unpack_from(got)[0]:
        left = end - time.monotonic()
        if left <= 0 or not select.select([reading], [], [], left)[0]:
            return None
        if not (more := os.read(reading, 1 << 16)):
            return b""
        got += more
    return got[LENGTH.size :]


def _late(seconds: float, name: str) -> Feedback:
    return Feedback(
        ok=False,
        message=f"`{name}` had not finished after {seconds:g} s, and nothing could interrupt it: it stands "
        "inside one call, such as `sum` or `max` over an iterator that never ends.",
    )


def _ended(status: int, name: str) -> Feedback:
    how = "called `os._exit` or the like"
    if os.WIFSIGNALED(status):
        with suppress(ValueError):
            how = f"ended by signal {signal.Signals(os.WTERMSIG(status)).name}"
    return Feedback(
        ok=False,
        message=f"`{name}` ended the Python that it ran in ({how}). Return a value instead. "
        "The notebook goes on: checks run in a copy of it.",
    )
