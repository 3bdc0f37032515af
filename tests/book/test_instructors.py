"""The instructors' pages: plans add up, tables are the grader's own, and the session can be run again."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import yaml

from chunkprefill_course import exercises
from chunkprefill_grading.sandbox import limits as sandbox
from tests.needs import ROOT, need
from tools import instructors

PAGES = sorted((ROOT / "book/instructors").glob("*.md"))
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text("utf8"))


def text() -> str:
    return "\n".join(page.read_text("utf8") for page in PAGES)


def test_generated_stretches_are_as_the_program_makes_them():
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools/instructors.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_every_part_is_on_a_page_and_every_page_in_the_book():
    names = re.findall(r"<!-- made: (\S+) -->", text())
    assert sorted(names) == sorted(instructors.PARTS)
    files = re.findall(r"book/instructors/(\w[\w-]*)", str(TOC))
    assert sorted(files) == sorted(page.stem for page in PAGES)
    with pytest.raises(ValueError, match="no part is called 'nothing'"):
        instructors.filled("<!-- made: nothing --><!-- end -->")


@pytest.mark.parametrize("name", instructors.LESSONS)
def test_a_lesson_is_as_long_as_it_says_and_leaves_no_student_idle(name):
    slots = instructors.lesson(name)
    assert sum(slot["minutes"] for slot in slots) == (120 if name == "lab" else 90)
    assert all(slot["minutes"] >= 5 and slot["what"] for slot in slots)
    since = 0
    for slot in slots:
        since = 0 if slot["what"] == "A break." else since + slot["minutes"]
        assert since <= 62, "more than an hour without a break"
    assert f"<!-- made: {name} -->" in text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda slot: slot.update(minutes=slot["minutes"] + 1), "is 90 minutes long, its slots are 91"),
        (lambda slot: slot.update(exercises=["order_pd"]), "order_pd is not in chapter 1"),
        (lambda slot: slot.update(exercises=["nonsense"]), "no [a-z ]+ 'nonsense'"),
    ],
)
def test_a_plan_that_does_not_hold_is_refused(tmp_path, monkeypatch, change, words):
    plan = yaml.safe_load((ROOT / "book/instructors/plan.yml").read_text("utf8"))
    change(plan["lesson1"]["slots"][0])
    (tmp_path / "plan.yml").write_text(yaml.safe_dump(plan))
    monkeypatch.setattr(instructors, "FOLDER", tmp_path)
    with pytest.raises((ValueError, AttributeError), match=words):
        instructors.lesson("lesson1")


def test_a_slot_shorter_than_its_exercise_is_refused(tmp_path, monkeypatch):
    plan = yaml.safe_load((ROOT / "book/instructors/plan.yml").read_text("utf8"))
    slots = plan["lab"]["slots"]
    (name,) = slots[1]["exercises"]
    short = getattr(exercises, name).minutes - 1
    slots[0]["minutes"], slots[1]["minutes"] = slots[0]["minutes"] + slots[1]["minutes"] - short, short
    (tmp_path / "plan.yml").write_text(yaml.safe_dump(plan))
    monkeypatch.setattr(instructors, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match=f"{name} takes longer than its {short} minutes"):
        instructors.lesson("lab")


def test_points_add_up_and_the_fault_is_worth_a_tenth_at_most():
    for name in instructors.SETS:
        drawn = instructors.sheet(name)
        assert sum(question.points for question in drawn.questions) == drawn.max_score
        assert drawn.title in text()
    (fault,) = (q for q in instructors.sheet("PS3").questions if q.name == "fault")
    assert fault.points <= instructors.sheet("PS3").max_score / 10


def test_no_key_and_no_solution_stands_on_a_page():
    page = text() + instructors.SESSION.read_text("utf8")
    assert instructors.SHOWN not in text(), "a secret on a page would be used"
    for name in instructors.SETS:
        for question in instructors.sheet(name).questions:
            assert question.solution.strip() not in page


def test_every_file_that_travels_says_where_it_comes_from():
    made = instructors.session()["made"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", made["date"]) and re.fullmatch(r"[0-9a-f]{7,}", made["commit"])
    assert made["date"] in text() and made["commit"] in text()


def test_the_session_is_what_the_commands_say_now(tmp_path):
    """Run again from the start: every word but ids and places in a file, which hang on the grader's own text."""
    try:
        sandbox.require_sandbox(sandbox.Limits())
    except sandbox.SandboxError as error:
        need("bwrap", False, str(error))

    def plain(words: str) -> str:
        words = re.sub(r"\b[0-9a-f]{12}\b", "ID", words)
        words = re.sub(r"\d{4}-\d\d-\d\dT[\d:]{8}Z", "TIME", words)
        words = re.sub(r"line \d+ column \d+ \(char \d+\)", "PLACE", words)
        return re.sub(r"chunkprefill \d[\w.]*\w", "VERSION", words)

    recorded = {each["name"]: plain(each["output"]) for each in instructors.session()["steps"]}
    now = {each["name"]: plain(each["output"]) for each in instructors.sitting(tmp_path)}
    assert {name: sorted(words.splitlines()) for name, words in now.items()} == {
        name: sorted(words.splitlines()) for name, words in recorded.items()
    }, "run python tools/instructors.py record"
