"""What the tests of grading share."""

from __future__ import annotations

import pytest

from chunkprefill_grading.sandbox import limits as sandbox
from chunkprefill_grading.sandbox.limits import Limits, SandboxError
from tests.needs import need


@pytest.fixture(scope="session")
def walls() -> None:
    """Skips, or fails where REQUIRE names it, without bubblewrap."""
    try:
        sandbox.require_sandbox(Limits())
    except SandboxError as error:
        need("bwrap", False, str(error))
