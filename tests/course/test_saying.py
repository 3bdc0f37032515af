"""A sentence stands only while its numbers bear it out."""

from __future__ import annotations

import pytest

import chunkprefill_course as course


def test_a_sentence_is_prose_while_it_is_so():
    said = course.the_text_says("Chunks of 64 took *longer*.", so=2 > 1)
    assert said._repr_markdown_() == str(said) == repr(said) == "Chunks of 64 took *longer*."


def test_a_sentence_that_its_numbers_contradict_stops_the_page():
    with pytest.raises(ValueError, match=r"no longer bear it out: Chunks of 64 took less\."):
        course.the_text_says("Chunks of 64 took less.", so=1 > 2)
