"""Processes that came from this one: a test compares those before and after what it watches.

pytest's own process has children of others' making that live as long as it does: the tracker of shared memory
that `multiprocessing` starts, the driver of a browser. So no test may ask whether there are any at all.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from pathlib import Path


def children() -> set[int]:
    """Processes whose parent is this one, those included that have ended and were not waited for."""
    mine = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if int(stat.read_text(errors="replace").rpartition(")")[2].split()[1]) == os.getpid():
                mine.add(int(stat.parent.name))
    return mine


def killed_at(process: subprocess.Popen[bytes], folder: Path, n_files: int, then_s: float) -> bool:
    """End a program a moment after so many results lie in a folder; False if it has ended by itself before.

    By what it has done and not by a clock: a machine may be as fast or as slow as it likes.
    """
    while process.poll() is None:
        if len(list(folder.glob("*.json"))) >= n_files:
            time.sleep(then_s)
            process.kill()
            return process.wait() != 0
        time.sleep(0.005)
    return False
