"""What a test needs and may miss: skip loudly, or fail where `REQUIRE` names it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from chunkprefill.recording import git

ROOT = Path(__file__).resolve().parents[1]
REQUIRED = frozenset(filter(None, os.environ.get("REQUIRE", "").replace(" ", "").split(",")))


def need(what: str, ok: object, why: str) -> None:
    """Go on if `ok`; else skip, saying what is missing, or fail if `REQUIRE` names it."""
    if ok:
        return
    if what in REQUIRED:
        pytest.fail(f"REQUIRE names {what}, and it is missing: {why}", pytrace=False)
    pytest.skip(f"MISSING {what}: {why}")


def need_smollm2() -> None:
    """The real model's weights. No test fetches them: where they cannot be had, each would wait for it anew."""
    from chunkprefill.model import smollm2  # it needs torch, and some tests run where none is

    why = "its weights are not here, and `python -m chunkprefill fetch` was not run or could not get them"
    need("smollm2", smollm2.is_fetched(), why)


def tracked(*patterns: str) -> list[Path]:
    """The files that this checkout keeps, by git's patterns."""
    listed = git("ls-files", "-z", *patterns)
    why = (
        "git is not on PATH"
        if shutil.which("git") is None
        else "git finds no checkout here that belongs to this user (see safe.directory)"
    )
    need("git", listed is not None, why)
    return [ROOT / name for name in (listed or "").split("\0") if name and (ROOT / name).is_file()]


def shared_dir() -> Path | None:
    """The folder of recorded decisions, traces and profiles beside the checkout, if it is there."""
    named = os.environ.get("CHUNKPREFILL_SHARED")
    for folder in (Path(named) if named else None, ROOT.parent / "shared"):
        if folder is not None and (folder / "parity").is_dir():
            return folder
    return None
