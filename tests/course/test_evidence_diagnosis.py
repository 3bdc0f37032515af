"""Chapter 7's claim: both sides of it, and what would make it a fluke."""

from __future__ import annotations

import pytest

import chunkprefill_course as course
from chunkprefill_course.evidence import diagnosis
from chunkprefill_course.evidence.evidence import both_sides
from tests.proof import few_of


def test_the_claim_holds_under_its_conditions_and_not_without():
    both = both_sides(diagnosis.busy_not_full)
    assert both.sound, str(both)
    busy = [side.numbers[0].value for side in (both.claimed, both.changed)]
    assert abs(busy[0] - busy[1]) < 3, "as busy in the one as in the other"


@pytest.mark.parametrize("seed", few_of(range(3), [0]))
def test_it_is_no_fluke_of_one_case(seed):
    """A busy server with too small a chunk is mended by a setting, and by none under a load far too large."""
    case = course.clinic.case(f"busy {seed}", "chunk-too-small")
    assert case.metric("gpu_idle") < 1 - diagnosis.BUSY and diagnosis.mending(case)["larger-chunk"]
    crowded = diagnosis.crowded(case, 8)
    assert [r.n_prompt for r in crowded.requests] == [r.n_prompt for r in case.requests]
    assert crowded.requests[-1].arrival == pytest.approx(case.requests[-1].arrival / 8)
    assert not any(diagnosis.mending(crowded).values())
