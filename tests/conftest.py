"""Settings that all tests share: quiet threads, a reproducible Hypothesis, loud skips."""

from __future__ import annotations

import os

# One thread a process, because each core has a worker already: with two, four threads wait for each other on two
# cores, and passes of small models take many times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


import pytest
from hypothesis import HealthCheck, settings

from tests.clock import clock  # noqa: F401

# The same cases in every run of `make test`: what fails for a newcomer fails for everyone. `make soak` draws
# anew in each of its rounds, fewer cases a round.
settings.register_profile(
    "fixed",
    deadline=None,
    database=None,
    print_blob=True,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("soak", settings.get_profile("fixed"), derandomize=False)
PROFILE = os.environ.get("TESTS_PROFILE", "fixed")
settings.load_profile(PROFILE)

# What `make soak` repeats, beside every Hypothesis test that is not slow: a browser that is driven, processes
# that are started and may die, servers that are timed, exercises that draw their cases.
SOAKED_FILES = (
    "tests/book/test_elements.py",
    "tests/grading/test_session.py",
    "tests/grading/test_wire.py",
    "tests/library/test_env.py",
)
# Those that leave an exercise's seed to chance, set an alarm, or kill a process.
SOAKED_NAMES = (
    "test_the_solution_passes[None-",
    "test_each_wrong_answer_passes_the_example_and_fails_with_its_own_hint[None-",
    "test_a_right_answer_written_otherwise_passes",
    "test_not_attempted_is_not_an_error",
    "test_every_loop_is_stopped",
    "test_a_policy_may_be_any_object_with_schedule",
    "test_what_the_contract_refuses_is_told_in_its_words",
    "test_a_dead_worker_process_loses_no_result",
    "test_a_killed_sweep_resumes",
)
SOAK_EXAMPLES = 10


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make soak` repeats; in a soak draw anew, and run what is left so many times."""
    for item in items:
        test = getattr(item, "obj", None)
        drawn = getattr(test, "is_hypothesis_test", False)
        named = item.name.startswith(SOAKED_NAMES) or item.nodeid.startswith(SOAKED_FILES)
        if item.get_closest_marker("slow") is None and (drawn or named):
            item.add_marker("soak")
        if drawn and PROFILE == "soak":
            draw_anew(test)
    items[:] = items * int(os.environ.get("TESTS_ROUNDS", "1"))


def draw_anew(test: object) -> None:
    """A few examples, also where a test sets how many; one that fixes its own draws (what holds mostly) keeps them."""
    name = "_hypothesis_internal_use_settings"
    own = getattr(test, name)
    setattr(test, name, settings(own, max_examples=min(own.max_examples, SOAK_EXAMPLES)))


def pytest_terminal_summary(terminalreporter) -> None:
    """Say once more, where it cannot be missed, what was not tried."""
    reasons = {
        str(r.longrepr[2]) for r in terminalreporter.stats.get("skipped", []) if isinstance(r.longrepr, tuple)
    }
    missing = sorted(r.removeprefix("Skipped: ") for r in reasons if "MISSING" in r)
    if missing:
        terminalreporter.section("NOT TRIED ON THIS MACHINE", sep="!", red=True, bold=True)
        for reason in missing:
            terminalreporter.write_line(reason)
