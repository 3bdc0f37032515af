"""What a whole run makes once: the workers of xdist share it, where each makes a session's fixture again."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """One process at a time (where the system has file locks)."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "w") as file:
        try:
            import fcntl
        except ImportError:
            yield
        else:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder `name` of this run, filled by `make` in the first worker that asks; the others wait for it.

    Where `make` fails nothing is kept: each worker that asks tries again, and fails by itself.
    """
    shared = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / f"once-{name}"
    with alone(shared / f"once-{name}.lock"):
        if not folder.exists():
            being_made = Path(tempfile.mkdtemp(prefix=f"once-{name}-", dir=shared))
            make(being_made)
            being_made.rename(folder)
    return folder
