"""The chapters keep the shape of a chapter, and say what the ledger says."""

from __future__ import annotations

import re

import nbformat
import pytest
import yaml

from tests.needs import ROOT

LEDGER = yaml.safe_load((ROOT / "book" / "claims.yml").read_text("utf8"))
CHAPTERS = {
    number: ROOT / f"{LEDGER['chapters'][number]['page']}.ipynb" for number in (1, 2, 3, 4, 5, 6, 7, 8)
}


PRACTICE, FURTHER = (
    {
        number: ROOT / f"{entry[beneath]}.ipynb"
        for number, entry in LEDGER["chapters"].items()
        if beneath in entry
    }
    for beneath in ("practice", "further")
)


def words(number: int, kind: str = "markdown", *, pages: dict = CHAPTERS) -> str:
    if number not in pages:
        return ""
    notebook = nbformat.read(pages[number], as_version=4)
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == kind)


@pytest.mark.parametrize("number", CHAPTERS)
def test_the_parts_come_in_order(number):
    text = words(number)
    parts = [
        "After this chapter you can",
        "**Time:**",
        "**You need:**",
        "**Study cards",
        "## Guess first",
        "## On real systems",
        "## Measure it yourself",
        *(["Recorded GPU run"] if number != 7 else []),  # the clinic has none
        "## Before you go",
        "## Limits, takeaway, next",
        "**Limits.**",
        "Takeaway",
        "**Next:**",
    ]
    places = [text.find(part) for part in parts]
    assert -1 not in places and places == sorted(places), dict(zip(parts, places))
    assert text.startswith(f"# {LEDGER['chapters'][number]['title']}")


@pytest.mark.parametrize("number", CHAPTERS)
def test_each_objective_has_its_level(number):
    head = words(number).split("**Time:**")[0]
    objectives = re.findall(r"^- .*$", head.split("you can")[1], re.M)[:4]
    levels = ("remember", "understand", "apply", "analyse", "evaluate", "create")
    assert 3 <= len(objectives) <= 4
    assert all(re.search(rf"\*\(({'|'.join(levels)})\)\*[;.]$", line) for line in objectives), objectives


@pytest.mark.parametrize("number", CHAPTERS)
def test_each_claim_stands_in_the_ledgers_words_with_its_evidence_after_it(number):
    """In the chapter, or in its further reading."""
    text, code = (words(number, kind) + words(number, kind, pages=FURTHER) for kind in ("markdown", "code"))
    for claim in LEDGER["claims"]:
        if claim["chapter"] != number or "evidence" not in claim:
            continue
        assert f"(claim-{claim['id']})=" in text, claim["id"]
        assert claim["sentence"] in text and claim["conditions"] in text, f"{claim['id']}: not in these words"
        name = claim["evidence"].rsplit(".", 1)[1]
        assert re.search(rf"course\.evidence\.{name}[)(]", code), f"{claim['id']}: evidence not shown"


@pytest.mark.parametrize("number", CHAPTERS)
def test_each_guess_comes_back_and_each_exercise_can_be_read_without_a_kernel(number):
    """A guess comes back on the page that asks for it."""
    code, further = words(number, "code"), words(number, "code", pages=FURTHER)
    assert "course.exercises.guess_" in code
    for text in (code, further):
        for guess in set(re.findall(r"course\.exercises\.(guess_\w+)", text)):
            assert re.search(
                rf"recall\(\s*course\.exercises\.{guess},\s*answer=(?![\"']\w+[\"'],\n)", text
            ), f"{guess} never comes back, or its answer is written down"
    for text in (code, further, words(number, "code", pages=PRACTICE)):
        for exercise in re.findall(r"course\.exercises\.(\w+)\.check\((?![\"'])", text):
            assert f"course.exercises.{exercise}.as_choice(" in text, f"{exercise} has no twin"


@pytest.mark.parametrize("number", PRACTICE)
def test_practice_and_chapter_lead_to_each_other(number):
    chapter, practice = words(number), words(number, pages=PRACTICE)
    assert f"]({PRACTICE[number].name})" in chapter and f"]({CHAPTERS[number].name})" in practice
    assert practice.startswith(f"# Practice {number}: ")
    for part in ("**Time:**", "**You need:**", "**Next:**", LEDGER["chapters"][number]["title"]):
        assert part in practice, part


@pytest.mark.parametrize("number", FURTHER)
def test_further_reading_and_chapter_lead_to_each_other(number):
    chapter, further = words(number), words(number, pages=FURTHER)
    assert f"]({FURTHER[number].name}" in chapter.split("**You need:**")[1], "more than the line about time"
    assert f"]({CHAPTERS[number].name})" in further
    assert further.startswith(f"# Further {number}: ")
    for part in ("**Time:**", "**You need:**", "**Next:**", LEDGER["chapters"][number]["title"]):
        assert part in further, part


@pytest.mark.parametrize("number", PRACTICE)
def test_a_program_is_written_on_the_practice_page_alone(number):
    written = re.compile(r"^def \w+\(.*\.\.\.$", re.M)
    assert not written.findall(words(number, "code"))
    assert "## Try it" not in words(number)


def test_every_notebook_is_a_chapter_or_stands_beneath_one():
    there = set(ROOT.glob("notebooks/*.ipynb"))
    assert there == {*CHAPTERS.values(), *PRACTICE.values(), *FURTHER.values()}


@pytest.mark.parametrize("number", CHAPTERS)
def test_prose_is_plain(number):
    text = re.sub(
        r"`[^`]*`", "", words(number) + words(number, pages=PRACTICE) + words(number, pages=FURTHER)
    )
    assert not re.findall(r"\b(?:simply|just|obviously|of course|easily)\b", text, re.I)
