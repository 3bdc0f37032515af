"""A control group for each submission, where the machine lets the grader make one (cgroup v2)."""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
PREFIX = "chunkprefill-"
_NUMBERS = itertools.count()


class Group:
    """A group with a bound on its memory, the kernel's own for it included, and on its processes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, pid: int) -> bool:
        """Put a process and what it starts from now on into the group. False where the kernel refuses."""
        return _written(self.path / "cgroup.procs", str(pid))

    def close(self) -> None:
        """Remove the group; its processes are gone by then, or are ended."""
        _written(self.path / "cgroup.kill", "1")
        with contextlib.suppress(OSError):
            self.path.rmdir()


def group(memory_bytes: int, n_processes: int, *, root: Path = ROOT) -> Group | None:
    """A new group beside or below the grader's own; None where there is no cgroup v2, or no right to one."""
    for parent in _parents(root):
        if not {"memory", "pids"} <= set(_read(parent / "cgroup.subtree_control").split()):
            continue
        path = parent / f"{PREFIX}{os.getpid()}-{next(_NUMBERS)}"
        try:
            path.mkdir()
        except OSError:
            continue
        made = Group(path)
        _written(path / "memory.swap.max", "0")
        bounded = _written(path / "memory.max", str(memory_bytes))
        if bounded and _written(path / "pids.max", str(n_processes)):
            return made
        made.close()
    return None


def _parents(root: Path) -> list[Path]:
    """The grader's own group and the one above it, where they may have groups below them."""
    own = [line.partition("::")[2] for line in _read(Path("/proc/self/cgroup")).splitlines() if "::" in line]
    if not own or not (root / "cgroup.controllers").is_file():
        return []
    here = root / own[0].strip("/")
    return [here] if here == root else [here, here.parent]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _written(path: Path, text: str) -> bool:
    try:
        path.write_text(text)
    except OSError:
        return False
    return True
