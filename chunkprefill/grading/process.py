"""A session over pipes: a process answers one question at a time, and is believed nothing."""

from __future__ import annotations

import os
import secrets
import selectors
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

from chunkprefill.grading import sandbox, wire
from chunkprefill.grading.sandbox import Limits, SandboxError
from chunkprefill.grading.session import Asking, Crashed, OutOfMemory, SessionEnded, TimedOut, result

MAX_LINE = 2 * wire.MAX_BYTES  # bytes of an answer
MAX_ALL = 8 * MAX_LINE  # of all answers of a submission
NAP_S = 0.5  # s of doing nothing within one answer, beyond which it counts as sleep
FAREWELL_S = 0.5  # for a process that is asked to end
PATIENCE = 15  # times as long may it seem to sleep where the system does not say who waits
TICK = 0.1  # s between two looks at the limits
START_S = 300.0  # to import the libraries, on a busy machine with a cold disk
_TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


class PipeSession(Asking):
    """A notebook that runs in a process of its own; use with `with`. `troubles`: cells that failed.

    stage: the folder of `sandbox.staged`. safe=False: a plain process, limited as far as the system can.
    Raises SandboxError where the process cannot be started, and `SessionEnded` when the cells end it.
    """

    def __init__(
        self,
        cells: Sequence[str],
        *,
        stage: Path,
        limits: Limits,
        needs_torch: bool = False,
        safe: bool = True,
    ) -> None:
        self.limits, self.safe = limits, safe
        self.ended: SessionEnded | None = None
        self.troubles: list[list[Any]] = []
        self._buffer, self._n_lines, self._n_read, self._cpu = bytearray(), 0, 0, 0.0
        self._asked = self._slept = self._napped = (
            0.0  # s: with a question open; doing nothing, long or short
        )
        self._words = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the session)
        self._begun_cpu = 0.0  # CPU seconds that the libraries took
        self._most_idle = limits.idle_s
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        try:
            self._start(stage, needs_torch)
        except OSError as error:
            raise SandboxError(f"no process can be started: {error}") from None
        try:
            self._exchange({"needs_torch": needs_torch}, START_S)
            self._pid = self._worker_pid()
            self._bind()
        except SessionEnded as error:
            self._words.seek(0)
            said = self._words.read(2000).decode(errors="replace").strip()
            self.close()
            raise SandboxError(f"student code cannot be started: {said or error}") from None
        self._most_idle = self._patience()
        self._begun_cpu, self._asked, self._slept, self._napped = self._times()[0], 0.0, 0.0, 0.0
        self.troubles = self._read_troubles(self.ask("cells", sources=list(cells)))

    def __enter__(self) -> PipeSession:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def ask(self, what: str, about: str = "", /, **how: Any) -> Any:
        """The answer's JSON, or a `Refused`; after a `SessionEnded`, that one again."""
        if self.ended is not None:
            raise type(self.ended)(about, self.ended.why)
        try:
            answer = self._exchange({"ask": what, "with": how}, self.limits.wall_s)
            return result(about, answer)
        except SessionEnded as error:
            error.name = about
            self.ended = error
            self.close()
            raise

    def close(self) -> None:
        """End the process and everything in its namespace; one that ends by itself is asked to first."""
        if self.ended is None and self._process.poll() is None:
            with suppress(OSError, subprocess.TimeoutExpired):
                self._process.stdin.close()  # type: ignore[union-attr]
                self._process.wait(FAREWELL_S)
        with suppress(ProcessLookupError):
            if self.safe:
                self._process.kill()  # what is inside dies with it
            else:
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                pipe.close()  # type: ignore[union-attr]
        self._words.close()
        if self._folder:
            self._folder.cleanup()

    def _start(self, stage: Path, needs_torch: bool) -> None:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._words}
        if self.safe:
            with sandbox.filter_file(stage).open("rb") as program:
                command = [
                    sandbox.bwrap(),
                    *sandbox.walls(self.limits),
                    *sandbox.furniture(stage, needs_torch),
                ]
                command += ["--seccomp", str(program.fileno()), *sandbox.python_command()]
                self._process = subprocess.Popen(command, pass_fds=[program.fileno()], **pipes)
        else:
            self._folder = tempfile.TemporaryDirectory(prefix="chunkprefill-unsafe-")
            paths = [str(stage), *(str(Path(here).parent) for here, _ in sandbox.libraries(
                sandbox.WITH_TORCH if needs_torch else sandbox.ALWAYS))]  # fmt: skip
            home = {"HOME": self._folder.name, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
            self._process = subprocess.Popen(
                sandbox.python_command(), cwd=self._folder.name, env={**sandbox.ENVIRONMENT, **home},
                start_new_session=True, **pipes,
            )  # fmt: skip
        self._pid = self._process.pid
        for pipe in (self._process.stdin, self._process.stdout):
            os.set_blocking(pipe.fileno(), False)  # type: ignore[union-attr]

    def _bind(self) -> None:
        """Its limits, counted from what the libraries have taken."""
        limits, size = self.limits, 0
        with suppress(OSError, ValueError, IndexError):
            size = int(Path(f"/proc/{self._pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        most = {"memory_bytes": size + (limits.memory_mb << 20) if size else -1, "cpu_s": limits.cpu_s}
        most |= {"file_bytes": limits.tmp_mb << 19, "n_files": limits.n_files}
        if self.safe and not size:
            raise Crashed("", "its memory cannot be measured: /proc tells nothing of it")
        if self._exchange({"with": most}, START_S).get("ok") is not True and self.safe:
            raise Crashed("", "its limits could not be set")

    def _exchange(self, question: dict[str, Any], wall_s: float) -> dict[str, Any]:
        """Send a line, wait for the line with the same number. SessionEnded when there will be none."""
        number = secrets.token_hex(16)
        rest = memoryview(wire.dumps({"id": number, **question}))
        source, sink = self._process.stdout.fileno(), self._process.stdin.fileno()  # type: ignore[union-attr]
        begun, times = monotonic(), self._times()
        with selectors.DefaultSelector() as ready:
            ready.register(source, selectors.EVENT_READ)
            ready.register(sink, selectors.EVENT_WRITE)
            looked = begun
            while not self._n_lines:
                for key, _ in ready.select(TICK):
                    if key.fd == source:
                        self._receive(source)
                    else:
                        rest = self._send(sink, rest)
                        if not rest:
                            ready.unregister(sink)
                if monotonic() - looked >= TICK:
                    looked = monotonic()
                    self._look(begun, times, wall_s)
        end = self._buffer.index(b"\n")
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._n_lines -= 1
        self._asked += monotonic() - begun
        idle = monotonic() - begun - sum(self._times()) + sum(times)
        if idle > NAP_S:
            self._slept += idle
        else:  # mostly the grader's own doing
            self._napped += max(0.0, idle)
        try:
            answer = wire.loads(line)
        except wire.BadValue as error:
            raise Crashed("", f"the process sent what is no answer: {error}") from None
        if answer.get("id") != number:
            raise Crashed("", "the process sent an answer to another question")
        return answer

    def _send(self, sink: int, rest: memoryview) -> memoryview:
        try:
            return rest[os.write(sink, rest[: 1 << 16]) :]
        except BlockingIOError:
            return rest
        except OSError:
            raise self._gone() from None

    def _receive(self, source: int) -> None:
        try:
            data = os.read(source, 1 << 20)
        except BlockingIOError:
            return
        if not data:
            raise self._gone()
        self._n_read += len(data)
        self._n_lines += data.count(b"\n")
        self._buffer += data
        if len(self._buffer) > MAX_LINE or self._n_read > MAX_ALL:
            raise Crashed(
                "",
                f"the process sent more than {MAX_LINE if len(self._buffer) > MAX_LINE else MAX_ALL} bytes",
            )

    def _look(self, begun: float, times: tuple[float, float], wall_s: float) -> None:
        """Does it still work, or sleep? Time in which it waits for a processor is nobody's fault."""
        now, wall = self._times(), monotonic() - begun
        if self._asked + wall > wall_s:
            raise TimedOut("", f"it has not finished after {wall_s:g} s")
        if wall_s == START_S:
            return  # it has not begun
        self._count_files()
        idle, most = max(0.0, wall - sum(now) + sum(times)), self._most_idle
        if self._slept + idle > most or self._napped > 10 * most:
            raise TimedOut("", f"it did nothing for {most:g} s: asleep, or waiting for somebody")

    def _count_files(self) -> None:
        """Files of no bytes fill the kernel's memory, and no limit of a process counts them."""
        with suppress(OSError):  # not in a sandbox, or a kernel that lets nobody look
            there = os.statvfs(Path("/proc", str(self._pid), "root", "tmp"))
            if self.safe and there.f_files - there.f_ffree > self.limits.n_made:
                raise OutOfMemory("", f"more than {self.limits.n_made} files")

    def _times(self) -> tuple[float, float]:
        """CPU seconds of the process, and seconds in which it was ready and had no processor."""
        try:
            ran, waited = Path(f"/proc/{self._pid}/schedstat").read_text().split()[:2]
            now = int(ran) / 1e9, int(waited) / 1e9
        except (OSError, ValueError):  # a kernel that does not tell who waits
            now = self._cpu_time(), 0.0
        self._cpu = max(self._cpu, now[0])
        return now

    def _cpu_time(self) -> float:
        try:
            fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
        except (OSError, ValueError, IndexError):
            return 0.0

    def _patience(self) -> float:
        """Seconds of doing nothing: many where waiting for a processor cannot be told from it."""
        known = os.path.exists(f"/proc/{self._pid}/schedstat")
        return self.limits.idle_s if known else PATIENCE * self.limits.idle_s

    def _worker_pid(self) -> int:
        """The process inside: the last of the line that begins with bubblewrap."""
        pid = self._process.pid
        if not self.safe:
            return pid
        with suppress(OSError, ValueError):
            while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                pid = int(children[0])
            return pid
        parents: dict[int, int] = {}  # a kernel that does not list children
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError, ValueError, IndexError):
                parents[int(stat.read_text().rpartition(")")[2].split()[1])] = int(stat.parent.name)
        while pid in parents:
            pid = parents[pid]
        return pid

    def _gone(self) -> SessionEnded:
        """Why the process is no more."""
        try:
            status = self._process.wait(10)
        except subprocess.TimeoutExpired:
            return Crashed("", "the process closed its pipes")
        number = -status if status < 0 else status - 128 if status > 128 else 0
        spent = self._cpu - self._begun_cpu
        if number == getattr(signal, "SIGXCPU", -1) or (number == 9 and spent > self.limits.cpu_s - 1):
            return TimedOut("", f"more than {self.limits.cpu_s} s of CPU time")
        if not number:
            return Crashed("", f"the process ended itself with status {status}")
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = str(number)
        return Crashed("", f"the process was ended by signal {name}")

    @property
    def cpu_s(self) -> float:
        """Processor seconds of the process when it last answered, its start included."""
        return self._cpu

    @staticmethod
    def _read_troubles(answer: Any) -> list[list[Any]]:
        """[cell, words, memory] of each cell that failed, as far as that can be read."""
        rows = answer if type(answer) is list else []
        good = [row for row in rows[:200] if type(row) is list and [*map(type, row)] == [int, str, bool]]
        return [[row[0], row[1][:400], row[2]] for row in good]
