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


def words(number: int, kind: str = "markdown") -> str:
    notebook = nbformat.read(CHAPTERS[number], as_version=4)
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == kind)


@pytest.mark.parametrize("number", CHAPTERS)
def test_the_parts_come_in_order(number):
    text = words(number)
    parts = ["After this chapter you can", "**Time:**", "**You need:**", "**Cards:**", "## Guess first",
             "## On real systems", "## Measure it yourself", "Recorded GPU run", "## Before you go",
             "## Limits, takeaway, next", "**Limits.**", "Takeaway", "**Next:**"]  # fmt: skip
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
    text, code = words(number), words(number, "code")
    for claim in LEDGER["claims"]:
        if claim["chapter"] != number or "evidence" not in claim:
            continue
        assert f"(claim-{claim['id']})=" in text, claim["id"]
        assert claim["sentence"] in text and claim["conditions"] in text, f"{claim['id']}: not in these words"
        name = claim["evidence"].rsplit(".", 1)[1]
        assert re.search(rf"cp\.evidence\.{name}[)(]", code), f"{claim['id']}: evidence not shown"


@pytest.mark.parametrize("number", CHAPTERS)
def test_each_guess_comes_back_and_each_exercise_can_be_read_without_a_kernel(number):
    code = words(number, "code")
    guesses = set(re.findall(r"cp\.exercises\.(guess_\w+)", code))
    assert guesses
    for guess in guesses:
        assert re.search(rf"recall\(\s*cp\.exercises\.{guess},\s*answer=(?![\"']\w+[\"'],\n)", code), (
            f"{guess} never comes back, or its answer is written down"
        )
    for exercise in re.findall(r"cp\.exercises\.(\w+)\.check\((?![\"'])", code):
        assert f"cp.exercises.{exercise}.twin(" in code, f"{exercise} has no twin"


@pytest.mark.parametrize("number", CHAPTERS)
def test_prose_is_plain(number):
    text = re.sub(r"`[^`]*`", "", words(number))
    assert not re.findall(r"\b(?:simply|just|obviously|of course|easily)\b", text, re.I)
