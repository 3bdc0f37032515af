"""Settings that all tests share: quiet threads, a reproducible Hypothesis, loud skips."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from hypothesis import HealthCheck, settings

settings.register_profile(
    "here", deadline=None, database=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("ci", settings.get_profile("here"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


def pytest_terminal_summary(terminalreporter) -> None:
    """Say once more, where nobody can miss it, what was not tried."""
    reasons = {
        str(r.longrepr[2]) for r in terminalreporter.stats.get("skipped", []) if isinstance(r.longrepr, tuple)
    }
    missing = sorted(r.removeprefix("Skipped: ") for r in reasons if "MISSING" in r)
    if missing:
        terminalreporter.section("NOT TRIED ON THIS MACHINE", sep="!", red=True, bold=True)
        for reason in missing:
            terminalreporter.write_line(reason)
