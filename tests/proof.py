"""How many draws a proof takes: a few in `make test`, many in `make proof` (PROOF=1), most in `make mutants` (PROOF=most)."""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T")

PROOF = bool(os.environ.get("PROOF"))
MOST = os.environ.get("PROOF") == "most"
SOAK = os.environ.get("TESTS_PROFILE") == "soak"


def draws(few: T, many: T, most: T | None = None) -> T:
    """`few`; in `make proof` `many`: it runs each file again that asks here (tests/conftest.py). `make soak` too.

    most: what takes too long for CI, where that is more than `many`; `make mutants` draws it.
    """
    if MOST and most is not None:
        return most
    return many if PROOF or SOAK else few
