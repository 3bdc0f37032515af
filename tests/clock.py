"""A clock that tests wind: what takes long takes as long as the test says, however busy the machine is."""

from __future__ import annotations

import threading

import pytest

TICK = 1e-6  # s between two readings
CLOCKED = ("chunkprefill.scheduling.loop", "chunkprefill.scheduling.state", "chunkprefill.engine")


class Clock:
    """Reads as `perf_counter`; each reading is a tick later than the last."""

    def __init__(self) -> None:
        self.now, self._lock = 0.0, threading.Lock()

    def __call__(self) -> float:
        return self.advance(TICK)

    def advance(self, seconds: float) -> float:
        """Let so many seconds pass."""
        with self._lock:
            self.now += seconds
            return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    """The clock of the loop, the state and the engine, in this test's hands."""
    made = Clock()
    for module in CLOCKED:
        monkeypatch.setattr(f"{module}.perf_counter", made)
    return made
