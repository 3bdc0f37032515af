"""Programs that differ from a shown solution, and what every check must say of a wrong one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from chunkprefill_course import exercises
from chunkprefill_course.forms.variants import Variant


def solved(name: str) -> Callable[..., Any]:
    """The shown solution."""
    return getattr(exercises, name).solution


def changed(name: str, *swaps: tuple[str, str]) -> Variant:
    """The shown solution with texts replaced."""
    return Variant(solved(name), *swaps)


def refused_in_every_check(name: str, program: Any, said: str, seeds: Iterable[int]) -> None:
    """A wrong program is refused for what it does wrong, and not for a memory that it has not."""
    for seed in seeds:
        feedback = getattr(exercises, name).check(program, seed=seed)
        assert feedback.ok is False and said in str(feedback), str(feedback)
        assert "remembers" not in str(feedback) and len(str(feedback)) < 900, "words, not pages"
