"""The templates that exercises ask with: each is used, and each that is asked for is there, with its values."""

from __future__ import annotations

import re

import pytest

from chunkprefill_course.exercises.texts import prose
from tests.needs import ROOT

FOLDER = ROOT / "chunkprefill_course/exercises"


def test_each_template_is_used_and_each_that_is_used_is_there():
    sources = "".join(path.read_text("utf8") for path in FOLDER.glob("ch*/*.py"))
    used = re.findall(r"""prose\(\s*"([^"]+)\"""", sources)
    assert sorted(used) == sorted(path.stem for path in (FOLDER / "texts").glob("*.md"))


def test_a_value_that_is_missing_is_named():
    with pytest.raises(KeyError, match="before"):
        prose("overhead-in-words")
