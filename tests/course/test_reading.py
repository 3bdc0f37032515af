"""The clinic reads real servers: rows and a diagnosis, right where rows suffice, unknown where they do not."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from math import isnan, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chunkprefill as cp
import chunkprefill_course as course
from chunkprefill_course.clinic import reading
from chunkprefill_course.clinic.faults import CAUSES, FAULTS
from chunkprefill_course.clinic.rows import ROWS
from tests.library.servers.seen import World, probe_of
from tests.library.servers.standin import linear

read = course.clinic.read
case = cache(course.clinic.case)  # made once for all tests
COST = linear(0.006, 0.0002)


def read_case(made, **more):
    known = {"token_budget": made.settings.token_budget, "n_blocks": made.settings.n_blocks}
    known |= (
        {"cost": made.scene.machine.step(made.settings)} | {"bounds": made.bounds, "limit": made.limit} | more
    )
    return read(made.trace, **known)


@pytest.mark.parametrize("cause", CAUSES)
def test_with_all_rows_a_planted_fault_is_named_plainly(cause):
    found = read_case(case(1, cause))
    assert found.diagnosis.causes == (cause,) and found.diagnosis.certainty == "plain", found
    assert found.diagnosis.evidence and not found.diagnosis.undecided
    assert cause in str(found.diagnosis)


@pytest.mark.parametrize("cause", FAULTS)
def test_without_the_machine_or_the_settings_it_is_right_or_unknown_and_says_what_is_missing(cause):
    made = case(1, cause)
    for less in ({"cost": None}, {"token_budget": None}, {"bounds": None}, {"cost": None, "bounds": None}):
        found = read_case(made, **less).diagnosis
        assert found.causes in ((cause,), ()), (less, found)
        assert found.undecided, "what cannot be told is said"
        assert found.certainty in ("likely", "unknown")
        assert "healthy" not in found.causes


def test_two_faults_at_once_are_both_named():
    """Prompts go first, and the pool is too small: rows of both speak, and neither hides the other."""
    made = case(1, "pool-too-small")
    trace = made.replay(first="prompts").trace
    known = {"token_budget": made.settings.token_budget, "n_blocks": made.settings.n_blocks}
    known |= {"cost": made.scene.machine.step(made.settings), "bounds": made.bounds, "limit": made.limit}
    found = read(trace, **known).diagnosis
    assert set(found.causes) == {"pool-too-small", "prefill-first"}, found
    assert found.cause == "two faults" and found.certainty == "plain"


@settings(max_examples=200, deadline=None, derandomize=True)
@given(data=st.data())
def test_whatever_rows_are_missing_there_is_an_answer_and_nothing_is_healthy_without_promises(data):
    values = {row: data.draw(st.one_of(st.just(nan), st.floats(0, 1e3))) for row in ROWS}
    promises = ("tbt_p99", "ttft_short_p90", "ttft_long_p90")
    bounds = {row: data.draw(st.floats(0.001, 10)) for row in promises if data.draw(st.booleans())}
    found = reading.diagnose(values, bounds)
    assert set(found.causes) <= set(CAUSES) and len(found.causes) <= 2
    assert (found.certainty == "unknown") == (not found.causes)
    for cause in found.causes:
        assert cause not in found.undecided
    if "healthy" in found.causes:
        assert bounds and not found.undecided and not any(values[row] > bounds[row] for row in bounds)
    assert all(not isnan(values[row]) for row in found.evidence)
    assert str(found)


@pytest.mark.parametrize(
    ("policy", "causes"),
    [
        (cp.PrefillFirst(4096), ("prefill-first",)),
        (cp.PrefillFirst(4096, chunk=512), ("prefill-first",)),
        (cp.ChunkedPrefill(8192), ("budget-too-large",)),
        (cp.ChunkedPrefill(400), ("long-head",)),
        (cp.ChunkedPrefill(400, order="shortest"), ()),
        (cp.RequestLevel(8), ()),
    ],
    ids=repr,
)
def test_a_probe_is_read_as_far_as_it_tells(policy, causes):
    found = read(probe_of(World(policy, COST)))
    assert found.diagnosis.causes == causes, found
    assert found.diagnosis.certainty == ("likely" if causes else "unknown")
    assert "gpu_idle" in found.missing and "slow-inputs" in found.diagnosis.undecided
    assert found["tbt_max"] > 0 and isnan(found["evictions"])


def test_metrics_of_a_server_are_rows():
    probe = probe_of(World(cp.ChunkedPrefill(400), COST))
    seen = {"before": {"preemptions": 3.0}, "after": {"preemptions": 20.0}}
    found = read(replace(probe, metrics=seen))
    assert found["evictions"] == 17 and "pool-too-small" in found.diagnosis.undecided
    quiet = read(replace(probe, metrics={"before": {"preemptions": 3.0}, "after": {"preemptions": 3.0}}))
    assert quiet["evictions"] == 0 and "pool-too-small" not in quiet.diagnosis.undecided
    anew = read(replace(probe, metrics={"before": {"preemptions": 30.0}, "after": {"preemptions": 2.0}}))
    assert isnan(anew["evictions"]) and "pool-too-small" in anew.diagnosis.undecided
    half = read(replace(probe, metrics={"before": {}, "after": {"preemptions": 3.0}}))
    assert isnan(half["evictions"]), "a counter that is on one page alone has not grown from 0"


def test_a_reading_is_a_mapping_of_rows():
    made = case(1, "prefill-first")
    found = read_case(made)
    assert dict(found) == dict(made.dashboard.values) and len(found) == len(ROWS)
    assert found.dashboard.broken == made.dashboard.broken and "diagnosis: prefill-first" in str(found)


@pytest.mark.parametrize(
    ("lengths", "limit"), [([30, 50, 60, 4000], 60), ([100, 110, 120], 120), ([7], 7), ([10, 25, 400], 25)]
)
def test_classes_part_at_the_largest_step(lengths, limit):
    assert reading.between_classes(lengths) == limit


def test_other_sources_and_bounds_are_refused():
    with pytest.raises(TypeError, match="a reading is of a Trace or of a probe, got a dict"):
        read({})
    with pytest.raises(ValueError, match="no promise 'tbt_p50'"):
        read(probe_of(World(cp.ChunkedPrefill(400), COST)), bounds={"tbt_p50": 1.0})
