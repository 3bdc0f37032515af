"""The ledger: every claim is run both ways, the record is true, and what is wrong with it is found."""

from __future__ import annotations

import copy
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from benchmarks import evidence as bench
from chunkprefill_course.evidence.evidence import Evidence, Number, both_sides
from tests.needs import ROOT
from tests.proof import proof_marks
from tools import ledger as pages
from tools.claims import Ledger, defines, exercise_ids

FUNCTIONS = bench.functions()


@pytest.fixture
def ledger() -> Ledger:
    return copy.deepcopy(Ledger.read())


def test_nothing_is_wrong_with_the_ledger(ledger):
    assert ledger.problems() == []


@pytest.mark.parametrize("name", ["claims", "map"])
def test_generated_pages_are_up_to_date(ledger, name):
    assert (ROOT / f"book/{name}.md").read_text("utf8") == getattr(pages, f"{name}_page")(ledger)


#: Their verdicts ask a clock, so a test may not: the ledger holds the recorded ones (`problems`), and
#: test_timed_verdicts.py how they are reached.
TIMED = {"cost-per-visit", "not-the-decision", "overhead-share", "slower-prefill", "weights-again"}


#: The evidence of these takes 5 to 30 seconds.
LONG = {"balance", "busy-not-full", "no-budget", "peak-memory"}
#: Each claim; these nine take most of the time, and nbval runs them as well.
RUN = [
    pytest.param(
        claim,
        marks=proof_marks("nbval runs it in its chapter, the ledger holds its record")
        if claim in TIMED | LONG
        else (),
    )
    for claim in FUNCTIONS
]


@pytest.mark.parametrize("claim", RUN)
def test_evidence_bears_its_claim_out_flips_and_says_what_the_record_says(claim):
    """One run for all of it. In the record, exact numbers are equal, and measured ones are there."""
    sides = both_sides(FUNCTIONS[claim])
    assert sides.claimed.claim == sides.changed.claim == claim
    assert sides.claimed.otherwise and sides.claimed.numbers
    assert sides.claimed.timed == (claim in TIMED)
    assert sides.claimed.timed or sides.claimed.holds, str(sides.claimed)
    assert sides.changed.timed or not sides.changed.holds, str(sides.changed)
    row = Ledger.read().record[claim]
    for side in ("claimed", "changed"):
        new = json.loads(json.dumps(getattr(sides, side).as_json()))
        for document in (new, row[side]):
            for number in document["numbers"]:
                if number["how"] == "measured":
                    assert number["text"].startswith("≈")
                    del number["value"], number["text"]
        if new["timed"]:
            new["holds"] = row[side]["holds"]
        assert new == row[side]


@pytest.mark.parametrize("claim", FUNCTIONS)
def test_evidence_says_how_it_could_fail_and_what_its_flip_changes(claim):
    """A reviewer's two questions, answered where the evidence stands."""
    words = " ".join((FUNCTIONS[claim].__doc__ or "").split())
    assert re.search(r"ould (it )?fail\b", words) and re.search(r"The flip|broken alone|changed:", words)


def test_every_page_shows_the_verdicts_that_it_argues_from():
    """nbval leaves out a timed verdict, so the committed one is read here: first it holds, changed it does not."""
    verdict = re.compile(r"cp-evidence[^>]*><p[^>]*><strong>([✓✗])")
    seen: set[str] = set()
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text("utf8"))["cells"]:
            source = "".join(cell["source"])
            for output in cell.get("outputs", ()):
                marks = verdict.findall("".join(output.get("data", {}).get("text/html", "")))
                if marks and "both_sides(" in source:
                    assert marks == ["✓", "✗"], f"{path.name}: {source}"
                    seen |= {claim for claim in FUNCTIONS if f"evidence.{claim.replace('-', '_')}" in source}
    assert seen >= TIMED | LONG


def test_every_claim_with_evidence_is_in_the_room_and_the_other_way_round(ledger):
    assert {claim["id"] for claim in ledger.claims if "evidence" in claim} == set(FUNCTIONS)
    for claim in ledger.claims:
        if "evidence" in claim:
            module, _, name = claim["evidence"].rpartition(".")
            assert FUNCTIONS[claim["id"]].__module__ == module and FUNCTIONS[claim["id"]].__name__ == name


def test_the_card_list_is_the_curriculums(ledger):
    assert sorted(ledger.cards) == ["C1", "C2", "C3", "C4", "C5", "Q1", "Q2", "Q3", "Q4", "Q5", "Q6"]
    assert all(
        any(card in claim["cards"] for claim in ledger.claims) for card in ledger.cards if card != "Q6"
    )


def one(ledger: Ledger) -> dict:
    return next(claim for claim in ledger.claims if claim["id"] == "same-cache")


def spoil_evidence(ledger):
    one(ledger)["evidence"] = "chunkprefill_course.evidence.counting.nothing_of_that_name"


def spoil_pending(ledger):
    del one(ledger)["evidence"]


def spoil_verdict(ledger):
    ledger.record["same-cache"]["claimed"]["holds"] = False


def spoil_flip(ledger):
    ledger.record["same-cache"]["changed"]["holds"] = True


def spoil_record(ledger):
    del ledger.record["same-cache"]


def spoil_card(ledger):
    ledger.claims = [claim for claim in ledger.claims if "Q1" not in claim["cards"]]


def spoil_ids(ledger):
    ledger.claims.append(one(ledger))


def spoil_exercise(ledger):
    ledger.aims["C1"]["exercises"].append("no_such_exercise")


def spoil_practice(ledger):
    ledger.in_book.discard("notebooks/02_practice")


def spoil_map(ledger):
    del ledger.aims["C5"]


def spoil_keys(ledger):
    del one(ledger)["conditions"]


def spoil_chapter(ledger):
    one(ledger)["chapter"] = 9


def spoil_target(ledger):
    one(ledger)["id"] = "never-shown"
    ledger.record["never-shown"] = ledger.record.pop("same-cache")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            spoil_evidence,
            "same-cache: its evidence chunkprefill_course.evidence.counting.nothing_of_that_name is nowhere",
        ),
        (spoil_pending, "same-cache: a claim without evidence"),
        (spoil_verdict, "same-cache: the evidence is against it"),
        (spoil_flip, "same-cache: it holds whatever is changed"),
        (spoil_record, "same-cache: its evidence was never recorded"),
        (spoil_card, "card Q1: its chapter is written, and no claim of it has evidence"),
        (spoil_ids, "same-cache: twice"),
        (spoil_exercise, "card C1: there is no exercise no_such_exercise"),
        (spoil_practice, "chapter 2: its practice notebooks/02_practice is not in _toc.yml"),
        (spoil_map, "card C5: not in map.yml"),
        (spoil_keys, "same-cache: without conditions"),
        (spoil_chapter, "same-cache: there is no chapter 9"),
        (spoil_target, "never-shown: chapter 2 is written and has no target (claim-never-shown)="),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_wrong_is_found_and_named(ledger, spoil, words):
    spoil(ledger)
    assert any(problem.startswith(words) for problem in ledger.problems()), ledger.problems()


def test_the_command_fails_on_a_stale_page_and_mends_it(tmp_path, monkeypatch, capsys):
    for name in (
        "book",
        "notebooks",
        "benchmarks",
        "chunkprefill_course/exercises",
        "chunkprefill_course/evidence",
    ):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("_static", "__pycache__"))
    shutil.copy(ROOT / "_toc.yml", tmp_path)
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    monkeypatch.setattr(pages.Ledger, "read", classmethod(lambda cls, read=Ledger.read: read(tmp_path)))
    assert pages.main([]) == 0 and pages.main(["--check"]) == 0
    (tmp_path / "book/claims.md").write_text("stale")
    assert pages.main(["--check"]) == 1 and "book/claims.md is out of date" in capsys.readouterr().err
    assert (tmp_path / "book/claims.md").read_text() == "stale", "--check writes nothing"
    text = (tmp_path / "book/claims.yml").read_text()
    (tmp_path / "book/claims.yml").write_text(text.replace("evidence: chunkprefill", "was: chunkprefill", 1))
    assert pages.main([]) == 1 and "a claim without evidence" in capsys.readouterr().err


def test_names_are_looked_up_without_importing():
    assert defines(ROOT, "chunkprefill_course.evidence.counting.same_cache")
    assert not defines(ROOT, "chunkprefill_course.evidence.counting.Evidence") and not defines(
        ROOT, "same_cache"
    )
    assert exercise_ids(ROOT)["chunk_mask"] == "chunk-mask"
    assert "torch" not in (ROOT / "tools/claims.py").read_text().replace("torch-free", "")


def test_a_question_is_called_by_what_it_asks():
    """The map called it `many small`, by its name in the code."""
    assert (
        pages.asked("Many small ones. What follows for the scheduler?") == "What follows for the scheduler?"
    )
    assert pages.asked("Steps are long. None waits. What follows?") == "Steps are long. … What follows?"
    assert pages.asked("Why?") == "Why?"


def test_yaml_is_read_as_data():
    for name in ("claims", "map"):
        assert isinstance(yaml.safe_load((ROOT / f"book/{name}.yml").read_text("utf8")), dict)


def test_numbers_say_how_they_were_come_by():
    assert Number("x", 0.012, "s", "measured").text == "≈12.0 ms"
    assert Number("x", 1000).text == "1,000" and Number("x", 2**21, "B").text == "2.0 MiB"
    evidence = Evidence(claim="x", holds=True, setting="a <b>", otherwise="`c`", numbers=(Number("x", 1),))
    assert "A &lt;b&gt;" in evidence._repr_html_() and evidence.badges == ["counted"]
    assert "a small run" not in str(replace(evidence, setting="a small run"))
    assert "\nvLLM 0.32" in str(replace(evidence, setting="vLLM 0.32, one run"))


def test_one_claim_can_be_recorded_again_and_the_rest_stays(tmp_path: Path):
    out = tmp_path / "evidence.json"
    shutil.copy(ROOT / bench.OUT, out)
    assert bench.main(["--only", "reread", "--out", str(out)]) == 0
    before, after = (
        {row["claim"]: row for row in json.loads(path.read_text())["rows"]}
        for path in (ROOT / bench.OUT, out)
    )
    assert set(before) == set(after)
    assert all(before[claim] == after[claim] for claim in before if claim != "reread")
