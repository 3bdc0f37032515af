"""Two faults at once: both can be read off the rows, and it takes both fixes."""

from __future__ import annotations

from functools import cache

import pytest

import chunkprefill_course as course
from chunkprefill_course.clinic import CAUSES, FAULTS, FIX_FOR, FIXES, PAIRS, TELLING, Case
from chunkprefill_course.clinic.signs import PLAIN, SILENT, signs
from tests.proof import draws

SEEDS = draws((1,), (1, 2))


@cache
def drawn(pair: tuple[str, str], seed: int) -> Case:
    return course.clinic.case(f"two {seed}", pair)


ALL = [pytest.param(pair, seed, id=f"{pair[0]}+{pair[1]}-{seed}") for pair in PAIRS for seed in SEEDS]


@pytest.mark.parametrize(("pair", "seed"), ALL)
def test_the_rows_speak_for_both_and_for_no_other(pair: tuple[str, str], seed: int) -> None:
    case = drawn(pair, seed)
    assert case.causes == pair and case.dashboard.broken
    speaks = signs(case.dashboard.values, case.bounds)
    for fault in FAULTS:
        assert speaks[fault] >= PLAIN if fault in pair else not speaks[fault] > SILENT, (fault, speaks[fault])


@pytest.mark.parametrize(("pair", "seed"), ALL)
def test_it_takes_both_fixes(pair: tuple[str, str], seed: int) -> None:
    case = drawn(pair, seed)
    for fix in FIXES:
        try:
            assert not case.replay(**case.changes(fix)).restored, fix
        except ValueError:  # this change would make some request impossible
            continue
    both = [FIX_FOR[cause] for cause in pair]
    rows = list(case.tells())
    assert case.check(list(pair), rows, both).ok is True, str(case.check(list(pair), rows, both))
    assert case.check(list(reversed(pair)), rows, both[::-1]).ok is True
    for fix in both:
        assert case.check(list(pair), rows, fix).ok is False


@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
def test_half_a_diagnosis_is_told_that_it_is_half(pair: tuple[str, str]) -> None:
    case = drawn(pair, SEEDS[0])
    first, second = pair
    for cause in pair:
        half = case.check(cause)
        assert half.ok is None and "one of two" in str(half) and "replayed" in str(half)
    one_sided = [row for row in case.tells() if row in TELLING[first] and row not in TELLING[second]]
    told = case.check(list(pair), one_sided)
    assert told.ok is None and f"Which row shows {second}?" in str(told)
    wrong = next(cause for cause in CAUSES if cause not in pair)
    assert case.check([first, wrong]).ok is False


def test_a_pair_is_the_same_whichever_is_named_first() -> None:
    first, second = PAIRS[0]
    assert course.clinic.case(5, (second, first)).text() == course.clinic.case(5, (first, second)).text()


@pytest.mark.parametrize("pair", [("slow-inputs", "slow-inputs"), ("healthy", "slow-inputs"), ("a", "b"), ()])
def test_what_is_no_pair_is_refused_with_those_there_are(pair: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"no pair of faults.*slow-inputs \+ prefill-first"):
        course.clinic.case(1, pair)  # type: ignore[arg-type]


def test_a_form_asks_for_one_cause() -> None:
    with pytest.raises(ValueError, match="has two"):
        course.clinic.form(drawn(PAIRS[0], SEEDS[0]))
