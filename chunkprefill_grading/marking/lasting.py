"""Answers that outlast their process: what ends it costs one question or one cell, and the rest goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from chunkprefill_grading.sandbox.limits import Limits, SandboxError
from chunkprefill_grading.sandbox.process import PipeSession
from chunkprefill_grading.sandbox.session import ArraySpec, RemotePolicy, SessionEnded, TimedOut

PURSE = 3  # times the limits of one process, for all processes of a submission
MAX_LEFT_OUT = 3  # cells that end the process, each left out when the others run again
PAUSES_S = (1.0, 3.0)  # before a machine that was short of something gets another try

#: start(limits, skip) runs the cells in a new process
Start = Callable[[Limits, Collection[int]], PipeSession]


class LastingSession:
    """A `Session` that begins anew, with all cells, after its process has ended; use with `with`.

    A question that ends the process raises `SessionEnded` once; the next one is asked in a new process. A
    cell that ends it is left out from then on, at most MAX_LEFT_OUT of them. All processes share the purse
    of CPU and idle seconds. troubles: cells that failed or were left out, as `PipeSession.troubles`.

    Raises SandboxError where no process can be started, and SessionEnded when the cells leave none to ask.
    """

    def __init__(self, start: Start, limits: Limits) -> None:
        self._start, self._limits = start, limits
        self._cpu_s, self._idle_s = float(PURSE * limits.cpu_s), PURSE * limits.idle_s
        self._skip: dict[int, list[Any]] = {}
        self._session: PipeSession | None = None
        self._spoilt: SessionEnded | None = None  # it cannot begin anew
        self._troubles: list[list[Any]] | None = None
        self._began = self._anew()

    def __enter__(self) -> LastingSession:
        return self

    def __exit__(self, *error: Any) -> None:
        self._pay()

    @property
    def troubles(self) -> list[list[Any]]:
        """Of the first process that ran all the cells that are not left out."""
        return sorted([*(self._troubles or []), *self._skip.values()], key=lambda row: row[0])

    def value(self, name: str) -> Any:
        """See `Session`."""
        return self._asked(name, lambda session: session.value(name))

    def call(self, name: str, args: Sequence[Any], returns: Sequence[ArraySpec] | None = None) -> Any:
        """See `Session`."""
        return self._asked(name, lambda session: session.call(name, args, returns))

    def policy(self, name: str, args: Sequence[Any] | None = None) -> RemotePolicy:
        """See `Session`."""
        return self._asked(name, lambda session: session.policy(name, args))

    def _asked(self, name: str, ask: Callable[[PipeSession], Any]) -> Any:
        session = self._session
        if session is not None and session.ended is not None:
            self._pay()
        if self._session is None:
            if self._spoilt is None:
                self._anew()
            if self._spoilt is not None:
                raise type(self._spoilt)(name, self._spoilt.why)
        assert self._session is not None
        return ask(self._session)

    def _anew(self) -> bool:
        """Start a process and run the cells, without those that ended an earlier one."""
        while True:
            limits = self._left()
            try:
                if limits is None:
                    raise TimedOut("", f"more than {PURSE * self._limits.cpu_s} s of time in all")
                self._session = self._tried(limits)
            except SessionEnded as error:
                self._cpu_s, self._idle_s = self._cpu_s - error.spent[0], self._idle_s - error.spent[1]
                if error.cell is None or len(self._skip) >= MAX_LEFT_OUT:
                    self._spoilt = error
                    return False
                row = [error.cell, f"left out, because it ended the program: {error.why}", False]
                self._skip[error.cell] = row
                continue
            if self._troubles is None:
                self._troubles = self._session.troubles
            return True

    def _tried(self, limits: Limits) -> PipeSession:
        for pause_s in PAUSES_S:
            try:
                return self._start(limits, tuple(self._skip))
            except SandboxError:
                time.sleep(pause_s)
        return self._start(limits, tuple(self._skip))

    def _left(self) -> Limits | None:
        """The limits of the next process, or None when the purse is empty."""
        cpu_s, idle_s = min(self._limits.cpu_s, int(self._cpu_s)), min(self._limits.idle_s, self._idle_s)
        return replace(self._limits, cpu_s=cpu_s, idle_s=idle_s) if cpu_s >= 1 and idle_s >= 1 else None

    def _pay(self) -> None:
        """Take what the process has used from the purse, and let it go."""
        if self._session is not None:
            self._session.close()
            self._cpu_s -= self._session.spent_cpu_s
            self._idle_s -= self._session.spent_idle_s
            self._session = None
