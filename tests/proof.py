"""How many draws a proof takes: a few in `make test`, all of them in `make proof` (PROOF=1)."""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T")

PROOF = bool(os.environ.get("PROOF"))
SOAK = os.environ.get("TESTS_PROFILE") == "soak"


def draws(few: T, every: T) -> T:
    """`few`; in `make proof` `every`: it runs each file again that asks here (tests/conftest.py). `make soak` too."""
    return every if PROOF or SOAK else few
