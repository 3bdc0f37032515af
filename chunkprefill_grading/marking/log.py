"""What people decided, in a file that only grows: who, when, what, and why.

Each line is a JSON object that names the hash of the line before it, so that a line that was changed or taken
out later shows. A line that a crash cut off is left where it is, and read over.
"""

from __future__ import annotations

import contextlib
import datetime
import getpass
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

LOG = "log.jsonl"  # in the folder of results
FIRST = "0" * 16
DECIDED_AT = "decided_at"  # of an event that comes from a part's log


@dataclass(frozen=True)
class Event:
    """One decision. what: "points", "override", "excuse", "late" or "regrade"; about: its fields."""

    n: int
    at: str  # UTC
    by: str
    what: str
    about: Mapping[str, Any]

    @property
    def decided_at(self) -> str:
        """When it was decided, UTC: in a log that was put together of parts, before it was written."""
        return str(self.about.get(DECIDED_AT, self.at))


@dataclass(frozen=True)
class History:
    """All decisions, in order, and what is wrong with the file."""

    events: tuple[Event, ...] = ()
    faults: tuple[str, ...] = ()


def who() -> str:
    """The name under which decisions are kept, where none is given."""
    name = os.environ.get("CHUNKPREFILL_GRADER", "")
    with contextlib.suppress(KeyError, OSError, ImportError):
        name = name or getpass.getuser()
    return name or "unknown"


def read(folder: Path) -> History:
    """The log of a folder of results. ValueError for one that cannot be read at all."""
    path = folder / LOG
    if not path.exists():
        return History()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    events: list[Event] = []
    faults: list[str] = []
    before = FIRST
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            event = _event(json.loads(line))
            said = json.loads(line)["before"]
        except (ValueError, KeyError, TypeError, RecursionError):
            faults.append(f"{path}: line {number} is cut off, and counts for nothing")
            continue
        if said != before:
            faults.append(f"{path}: line {number} does not follow on the line before it: the log was changed")
        before = _hash(line)
        events.append(event)
    return History(tuple(events), tuple(faults))


def in_order(events: Iterable[Event]) -> list[Event]:
    """Events in the order in which they were decided, each with that time in `about`.

    Those of one log stay in its order, whatever its clock did; only those that come from a part's log go by
    the time at which they were decided there.
    """
    made: list[Event] = []
    latest = ""
    for event in events:
        at = event.decided_at
        if DECIDED_AT not in event.about:
            at = latest = max(latest, event.at)
        made.append(replace(event, about={**event.about, DECIDED_AT: at}))
    return sorted(made, key=lambda event: event.decided_at)


def _event(row: Any) -> Event:
    if not all(isinstance(row[name], str) for name in ("at", "by", "what", "before")):
        raise ValueError("no event")
    if not isinstance(row["n"], int) or not isinstance(row["about"], dict):
        raise ValueError("no event")
    return Event(row["n"], row["at"], row["by"], row["what"], row["about"])


def _hash(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()[:16]


def append(folder: Path, by: str, decisions: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Add decisions (what, about) under one name and time: on the disk, all of them, when this returns."""
    if not decisions:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOG).open("ab+") as file, _alone(file):
        file.seek(0)
        lines = file.read().split(b"\n")
        whole = [line for line in lines if line.strip() and _is_event(line)]
        before = _hash(whole[-1]) if whole else FIRST
        out = b"" if not lines[-1] else b"\n"  # after a line that was cut off
        at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        for n, (what, about) in enumerate(decisions, len(whole) + 1):
            row = {"n": n, "at": at, "by": by, "what": what, "about": dict(about), "before": before}
            line = json.dumps(row, allow_nan=False).encode()
            before = _hash(line)
            out += line + b"\n"
        file.write(out)
        file.flush()
        os.fsync(file.fileno())


def _is_event(line: bytes) -> bool:
    try:
        _event(json.loads(line))
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
    return True


@contextlib.contextmanager
def _alone(file: IO[bytes]) -> Iterator[None]:
    """One writer at a time."""
    try:
        import fcntl
    except ImportError:  # Windows: one person at one machine
        yield
        return
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)
