"""A text that may be an answer is never taken for none, wherever a student put it."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest

from chunkprefill_grading.marking.handout import flagged, handout_of
from chunkprefill_grading.marking.mark import mark
from chunkprefill_grading.problems import key
from chunkprefill_grading.problems.notebook import as_json, notebook
from chunkprefill_grading.sandbox.session import LocalSession
from chunkprefill_grading.submission import load
from chunkprefill_grading.submission.load import parse
from chunkprefill_grading.submission.written_texts import find
from tests.grading.submissions import secrets

MARKER = "<!-- answer: advice -->"
SAID = "Cut into larger chunks: share_small is 0.4, share_large 0.05."


@cache
def drawn() -> dict[str, Any]:
    return key.make("PS3", secrets(1)[0])


def blank() -> dict[str, Any]:
    return json.loads(as_json(notebook(key.sheet_of("PS3", secrets(1)[0]))))


def place(book: dict[str, Any], words: str) -> int:
    return next(i for i, cell in enumerate(book["cells"]) if words in "".join(cell["source"]))


def text(source: str, kind: str = "markdown") -> dict[str, Any]:
    return {"cell_type": kind, "source": source, "metadata": {}}


def edited(how: str) -> dict[str, Any]:
    """The notebook handed out, with an answer put where a student may put it."""
    book = blank()
    cells, at, question = book["cells"], place(book, MARKER), place(book, "An operator asks")
    if how == "below":
        cells[at] = text(f"{MARKER}\n\n{SAID}")
    elif how == "above":
        cells[at] = text(f"{SAID}\n\n{MARKER}\n")
    elif how == "on its line":
        cells[at] = text(f"{MARKER} {SAID}")
    elif how == "marker deleted":
        cells[at] = text(SAID)
    elif how == "cell deleted, text after the question":
        cells[question]["source"].append(f"\n\n{SAID}")
        del cells[at]
    elif how == "in the question":
        cells[question]["source"].append(f"\n\n{SAID}")
    elif how in ("raw", "code"):
        cells[at] = text(f"{MARKER}\n{SAID}", how)
    elif how == "raw without marker":
        cells[at] = text(SAID, "raw")
    elif how == "next cell":
        cells.insert(at + 1, text(SAID))
    elif how == "next raw cell":
        cells.insert(at + 1, text(SAID, "raw"))
    elif how == "cell before":
        cells.insert(at, text(SAID))
    elif how == "under a heading of one's own":
        cells.insert(at + 1, text(f"## My answer\n\n{SAID}"))
    elif how == "at the top":
        cells.insert(0, text(f"Name: Ada\n\n{SAID}"))
    elif how == "at the end":
        cells.append(text(SAID))
    elif how == "marker altered":
        cells[at] = text(f"<!-- Answer advice\n{SAID}")
    elif how == "in two cells":
        half = len(SAID) // 2
        cells[at] = text(f"{MARKER}\n{SAID[:half]}")
        cells.insert(at + 1, text(SAID[half:]))
    return book


SURE = ("below", "on its line", "in two cells")
UNSURE = (
    "above",
    "marker deleted",
    "cell deleted, text after the question",
    "in the question",
    "raw",
    "code",
    "raw without marker",
    "next cell",
    "next raw cell",
    "cell before",
    "under a heading of one's own",
    "at the top",
    "at the end",
    "marker altered",
)


@pytest.mark.parametrize("how", [*SURE, *UNSURE])
def test_a_written_answer_reaches_a_person_wherever_it_stands(how):
    found = find(parse(json.dumps(edited(how)).encode()), handout_of(drawn()))
    candidate = found["advice"]
    words = "".join(candidate.text.split())
    assert "".join(SAID.split()) in words and bool(candidate.doubt) == (how in UNSURE)
    assert "An operator asks" not in candidate.text, "not what was handed out"
    marks = mark(drawn(), LocalSession([]), {name: each.text for name, each in found.items()})
    (advice,) = [each for each in flagged(marks, found) if each.question == "advice"]
    assert advice.status == "needs manual"
    assert ("has text, no answer" in advice.reason) == (how in UNSURE)


def test_a_blank_notebook_and_one_of_another_draw_hold_no_answer():
    for secret in secrets(3):
        book = as_json(notebook(key.sheet_of("PS3", secret)))
        assert (
            find(parse(book.encode()), handout_of(drawn())).get("advice") is None or secret != secrets(1)[0]
        )
    assert find(parse(json.dumps(blank()).encode()), handout_of(drawn())) == {}
    moved = blank()
    moved["cells"].reverse()
    assert find(parse(json.dumps(moved).encode()), handout_of(drawn())) == {}


@pytest.mark.parametrize("kind", ["markdown", "raw"])
def test_an_answers_cell_that_is_no_code_any_more_is_flagged(kind):
    book = blank()
    at = place(book, "# Answer: tasks")
    book["cells"][at] = text('# Answer: tasks\ntasks = {"tasks": 3, "between": 4}', kind)
    submission = parse(json.dumps(book).encode())
    found = find(submission, handout_of(drawn()))
    assert '"between": 4' in found["tasks"].text and "text in place of code" in found["tasks"].doubt
    marks = flagged(mark(drawn(), LocalSession([]), {}), found)
    assert {each.question: each.status for each in marks}["tasks"] == "needs manual"
    book["cells"].append(text('# Answer: tasks\ntasks = {"tasks": 3, "between": 4}', "code"))
    assert "tasks" not in find(parse(json.dumps(book).encode()), handout_of(drawn())), "answered after all"


def test_what_parsing_costs_is_bounded_before_it_is_parsed():
    keys = b'{"cells": [], "metadata": {' + b",".join(b'"%d":1' % i for i in range(900_000)) + b"}}"
    with pytest.raises(ValueError, match="commas and colons"):
        parse(keys)
    assert parse(as_json(notebook(key.sheet_of("PS3", secrets(1)[0]))).encode("utf-16")).cells


def test_no_text_takes_more_than_linear_time():
    """Each of these took the square of its length, hours at this size."""
    blanks, dots = "\n" * 1_500_000, "." * 1_500_000
    cells = [text(blanks, "code"), text(f"{MARKER}\n{dots}{blanks}!")]
    found = parse(json.dumps({"cells": cells, "nbformat": 4, "metadata": {}}).encode())
    assert "advice" in find(found, handout_of(drawn()))
    assert find(parse(json.dumps({"cells": [text(dots)]}).encode()), handout_of(drawn()))


def test_an_answers_cell_may_begin_with_blank_lines():
    found = parse(json.dumps({"cells": [text("\n \n  # Answer: tasks \ntasks = {}", "code")]}).encode())
    assert set(found.answers) == {"tasks"}


def test_more_text_than_a_person_could_read_is_said_to_be_too_much(monkeypatch):
    monkeypatch.setattr(load, "MAX_TEXT", 9)
    with pytest.raises(load.Unreadable, match="more than 9 characters of text"):
        parse(json.dumps({"cells": [text("a" * 5), text("b" * 5)]}).encode())


def test_a_picture_in_the_text_does_not_push_the_answer_out():
    """Colab writes the bytes of a pasted picture into the cell."""
    picture = f"![](data:image/png;base64,{'iVBORw0KGgo' * 200_000}=)"
    for source in (f"{MARKER}\n{picture}\n{SAID}", f"{picture}\n{SAID}\n{MARKER}"):
        book = blank()
        book["cells"][place(book, MARKER)] = text(source)
        found = find(parse(json.dumps(book).encode()), handout_of(drawn()))["advice"]
        assert SAID in found.text and "a picture" in found.text and len(found.text) < 200
