"""What a test needs and may miss: skip loudly, or fail where `REQUIRE` names it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
REQUIRED = frozenset(filter(None, os.environ.get("REQUIRE", "").replace(" ", "").split(",")))


def need(what: str, ok: object, why: str) -> None:
    """Go on if `ok`; else skip, saying what is missing, or fail if `REQUIRE` names it."""
    if ok:
        return
    if what in REQUIRED:
        pytest.fail(f"REQUIRE names {what}, and it is missing: {why}", pytrace=False)
    pytest.skip(f"MISSING {what}: {why}")


def shared_dir() -> Path | None:
    """The folder of recorded decisions, traces and profiles beside the checkout, if it is there."""
    for folder in (Path(os.environ.get("CHUNKPREFILL_SHARED", "")), ROOT.parent / "shared"):
        if (folder / "parity").is_dir():
            return folder
    return None
