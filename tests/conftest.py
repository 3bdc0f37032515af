"""Settings that all tests share: quiet threads, a reproducible Hypothesis, loud skips."""

from __future__ import annotations

import os

# One thread a process, because each core has a worker already: with two, four threads wait for each other on two
# cores, and passes of small models take many times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["PYTHON_COLORS"] = "0"  # of the tracebacks and usages that tests read, where FORCE_COLOR is set


import pytest
from hypothesis import HealthCheck, settings

from tests import proof
from tests.clock import clock  # noqa: F401

# The same cases in every run of `make test`: what fails for a newcomer fails for everyone. `make soak` draws
# anew in each of its rounds, fewer cases a round; `make proof` draws as many as each test sets.
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

# What `make soak` repeats in each round, beside every Hypothesis test that is not slow: processes that are started
# and may die, servers that are timed, exercises that draw their cases or set an alarm, pages asked as they load.
SOAKED_FILES = (
    "tests/grading/test_session.py",
    "tests/grading/test_wire.py",
    "tests/library/test_env.py",
)
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
    "test_a_prediction_survives_a_reload",
    "test_a_tap_answers_a_question",
    "test_keys_alone_",
    "test_cards_can_be_dragged",
    "test_an_explorer_is_moved_by_keys_and_by_touch",
)
# All others that drive a browser, a sandbox, node or the real model would take hours twenty times: each round runs
# another share of them, so that the busy machine sees each of them once.
SHARED_FIXTURES = {"browser", "walls", "stage"}
SHARED_FILES = (
    "tests/grading/test_judging_processes.py",
    "tests/house/test_pyodide.py",
    "tests/library/test_demo.py",
)
SOAK_EXAMPLES = 5  # of each test that Hypothesis draws, in each of twenty rounds
ROUNDS = [int(number) for number in os.environ.get("TESTS_ROUNDS", "0").split(",")]  # of this session
N_ROUNDS = int(os.environ.get("TESTS_OF_ROUNDS", "1"))  # of all sessions

# What a Hypothesis test sets is what `make proof` draws. `make test` draws a third of that.
SHARE, LEAST_EXAMPLES = 3, 12


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make soak` and `make proof` repeat; set how often Hypothesis draws."""
    tests = {id(test): test for item in items if is_drawn(test := getattr(item, "obj", None))}
    for test in tests.values():
        draw_at_most(most_examples(examples(test)), test)
    for item in items:
        drawn = is_drawn(getattr(item, "obj", None))
        named = item.name.startswith(SOAKED_NAMES) or item.nodeid.startswith(SOAKED_FILES)
        if item.get_closest_marker("slow") is None and (drawn or named):
            item.add_marker("soak")
        elif SHARED_FIXTURES & {*item.fixturenames} or item.nodeid.startswith(SHARED_FILES):  # type: ignore[attr-defined]
            item.add_marker("soak_share")
        if drawn or getattr(getattr(item, "module", None), "draws", None) is proof.draws:
            item.add_marker("proof")
    if PROFILE == "soak":
        items[:] = [item for number in ROUNDS for item in of_round(number, items)]


def of_round(number: int, items: list[pytest.Item]) -> list[pytest.Item]:
    """What this round of `make soak` runs: all that is repeated, and one in N_ROUNDS of what is shared out."""
    repeated = [item for item in items if item.get_closest_marker("soak")]
    shared = [item for item in items if item.get_closest_marker("soak_share")]
    return repeated + shared[number::N_ROUNDS]


SETTINGS = "_hypothesis_internal_use_settings"


def is_drawn(test: object) -> bool:
    """Whether Hypothesis draws its cases."""
    return getattr(test, "is_hypothesis_test", False)


def examples(test: object) -> int:
    """How many examples a test sets, or the profile for it."""
    return getattr(test, SETTINGS).max_examples


def most_examples(own: int) -> int:
    """How many of them this run draws."""
    if PROFILE == "soak":
        return SOAK_EXAMPLES
    return own if proof.PROOF else max(LEAST_EXAMPLES, own // SHARE)


def draw_at_most(n: int, test: object) -> None:
    """So many examples, also where a test sets more; one that fixes its own draws (what holds mostly) keeps them."""
    own = getattr(test, SETTINGS)
    setattr(test, SETTINGS, settings(own, max_examples=min(own.max_examples, n)))


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
