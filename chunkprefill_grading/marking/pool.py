"""Judges: processes that take one submission at a time, so that what ends one ends that submission alone."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

MEMORY_BYTES = 4 << 30  # of a judge, beyond what it begins with: for a notebook that is all brackets
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Died:
    """A judge's process ended, and its task has no result."""

    why: str


@dataclass
class Judge:
    """A process, the pipe to it, and the task that it has."""

    process: BaseProcess
    pipe: Connection
    task: int | None = None
    since: float = field(default_factory=time.monotonic)


def judged(
    tasks: Sequence[Any], judge: Callable[[Any], Any], *, jobs: int, most_s: float
) -> Generator[tuple[int, Any], None, None]:
    """(number of the task, what `judge` returned or `Died`), in the order in which they are finished.

    judge runs in a forked process, and what it returns is pickled. most_s: for one task, after which its
    judge is ended. An exception of `judge` goes through; then, and when the caller stops, all judges are
    ended.
    """
    if not hasattr(os, "fork"):  # Windows, which has no sandbox either
        for number, task in enumerate(tasks):
            yield number, judge(task)
        return
    from multiprocessing.connection import wait

    todo = iter(range(len(tasks)))
    judges = [_hired(tasks, judge) for _ in range(min(jobs, len(tasks)))]
    try:
        judges = [each for each in judges if _give(each, todo)]
        while judges:
            ready = wait([each.pipe for each in judges], timeout=1.0)
            for each in list(judges):
                late = time.monotonic() - each.since > most_s
                if each.pipe not in ready and not late:
                    continue
                assert each.task is not None
                number = each.task
                outcome: Any = Died(f"it was judged for more than {most_s:g} s")
                if each.pipe in ready:
                    outcome = _received(each)
                if isinstance(outcome, Died):
                    judges.remove(each)
                    _dismiss(each)
                    each = _hired(tasks, judge)
                    judges.append(each)
                if not _give(each, todo):
                    judges.remove(each)
                    _dismiss(each)
                if isinstance(outcome, BaseException):
                    raise outcome
                yield number, outcome
    finally:
        for each in judges:
            _dismiss(each)


def _hired(tasks: Sequence[Any], judge: Callable[[Any], Any]) -> Judge:
    import multiprocessing

    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(tasks, judge, there, here), daemon=False)
    process.start()
    there.close()
    return Judge(process, here)


def _give(judge: Judge, todo: Iterator[int]) -> bool:
    judge.task = next(todo, None)
    judge.since = time.monotonic()
    if judge.task is None:
        return False
    with contextlib.suppress(OSError):  # it has died already: reading will tell
        judge.pipe.send(judge.task)
    return True


def _received(judge: Judge) -> Any:
    try:
        return judge.pipe.recv()
    except (EOFError, OSError):
        return Died("the process that judged it ended")


def _dismiss(judge: Judge) -> None:
    """One that is at work is ended with its sandbox; one that waits is told that nothing is left."""
    if judge.task is None:
        with contextlib.suppress(OSError):
            judge.pipe.send(None)
    else:
        judge.process.kill()
    judge.process.join()
    judge.pipe.close()


def _serve(tasks: Sequence[Any], judge: Callable[[Any], Any], pipe: Connection, other: Connection) -> None:
    """The life of a judge."""
    other.close()
    _end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and ends its judges
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _bound_memory()
    while True:
        try:
            number = pipe.recv()
        except (EOFError, OSError):
            number = None
        if number is None:
            os._exit(0)
        try:
            outcome = judge(tasks[number])
        except MemoryError:
            outcome = Died("more memory than judging may take")
        except Exception as error:
            outcome = error
        try:
            pipe.send(outcome)
        except OSError:
            os._exit(0)
        except Exception as error:  # what cannot be pickled
            pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))


def _end_with_parent() -> None:
    """A killed grader leaves no judge behind, and a judge no sandbox."""
    with contextlib.suppress(Exception):
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _bound_memory() -> None:
    with contextlib.suppress(Exception):
        import resource

        with open("/proc/self/statm") as file:
            most = int(file.read().split()[0]) * resource.getpagesize() + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))
