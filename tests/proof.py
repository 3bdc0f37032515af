"""How many draws a proof takes: a few in `make test`, many in `make proof` (PROOF=1), most in `make mutants` (PROOF=most)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pytest

T = TypeVar("T")

PROOF = bool(os.environ.get("PROOF"))
MOST = os.environ.get("PROOF") == "most"
SOAK = os.environ.get("TESTS_PROFILE") == "soak"


def proof_marks(why: str) -> tuple[pytest.MarkDecorator, ...]:
    """Marks of a case that takes long and says little more than a quicker test, which `why` names.

    `make test` skips it, `make proof` runs it, and `make soak` where it runs such tests at all.
    """
    return pytest.mark.proof, pytest.mark.skipif(not (PROOF or SOAK), reason=f"left to make proof: {why}")


def left_to_proof(why: str) -> Callable[[T], T]:
    """The same for a whole test."""

    def marked(test: T) -> T:
        for mark in proof_marks(why):
            test = mark(test)
        return test

    return marked


def few_of(cases: Sequence[Any], few: Sequence[Any]) -> list[Any]:
    """All of these cases, of which `make test` tries a few and `make proof` the others."""
    why = f"make test tries {len(few)} of {len(cases)}"
    rest = proof_marks(why)
    return [
        case if case in few else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=rest)
        for case in cases
    ]


def draws(few: T, many: T, most: T | None = None) -> T:
    """`few`; in `make proof` `many`: it runs each file again that asks here (tests/conftest.py). `make soak` too.

    most: what takes too long for CI, where that is more than `many`; `make mutants` draws it.
    """
    if MOST and most is not None:
        return most
    return many if PROOF or SOAK else few
