"""What people decide: points by several graders, overrides, excuses, lateness, regrading; kept in a log that grows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chunkprefill_grading import cli
from chunkprefill_grading.marking import judging, log, regrade, results, settle, shards
from chunkprefill_grading.marking.mark import Mark
from chunkprefill_grading.marking.settle import Reason, read_all
from chunkprefill_grading.reports import class_summary, gradebooks, score_tables, sheets, student_pages
from chunkprefill_grading.submission import lateness
from chunkprefill_grading.submission.collect import Student
from tests.grading.test_reports import filled, manual, result, rows, taken, written
from tests.needs import ROOT

WHY = Reason("ben", "the text was unclear")
RUBRIC = {"w": (("names it", 1.0), ("says when", 1.0), ("decides", 2.0))}


def put(folder: Path, *found: results.Result) -> None:
    for each in found:
        results.write(folder, each)


def one(folder: Path, student: str = "Ada") -> results.Result:
    return results.find(read_all(folder), student)


def closed(status: str = "timeout", student: str = "Ada") -> results.Result:
    marks = (Mark("a", 2.0, 2.0), Mark("b", 0.0, 1.0, status, "time"), Mark("c", 0.0, 3.0, status))
    return result(student, status, marks=marks, max_score=6.0, reason="60 s")


# --- overrides and excuses ---------------------------------------------------------------------------


def test_an_override_counts_and_the_machines_mark_stays(tmp_path):
    put(tmp_path, result("Ada"), result("Bob"))
    assert "1 of 1 (was 0.5)" in settle.override(tmp_path, one(tmp_path), "b", 1.0, WHY)[0]
    assert (one(tmp_path).score, one(tmp_path, "Bob").score) == (3.0, 2.5)
    assert "the text was unclear" in one(tmp_path).marks[1].comment
    assert results.load(tmp_path / "Ada.json").score == 2.5
    put(tmp_path, result("Ada", marks=(Mark("a", 0.0, 2.0), Mark("b", 0.0, 1.0))))  # marked again
    assert one(tmp_path).score == 1.0, "an override outlives a run"
    settle.override(tmp_path, one(tmp_path), "b", None, WHY)
    assert one(tmp_path).score == 0.0


@pytest.mark.parametrize(
    ("question", "points"), [("z", 1), ("b", 1.1), ("b", -1), ("b", float("nan")), ("rest", 0)]
)
def test_an_override_that_cannot_be(tmp_path, question, points):
    put(tmp_path, result("Ada"))
    with pytest.raises(ValueError, match=r"question|points"):
        settle.override(tmp_path, one(tmp_path), question, points, WHY)
    with pytest.raises(ValueError, match="reason"):
        Reason("ben", " ")
    assert not log.read(tmp_path).events


@pytest.mark.parametrize("status", ["timeout", "memory", "crashed", "unreadable", "another set"])
def test_partial_credit_after_a_submission_that_died(tmp_path, status):
    put(tmp_path, closed(status))
    settle.override(tmp_path, one(tmp_path), "b", 0.5, WHY)
    assert (one(tmp_path).status, one(tmp_path).score) == (status, None), "c is still open"
    settle.override(tmp_path, one(tmp_path), "rest", 0, WHY)
    assert (one(tmp_path).status, one(tmp_path).score) == ("ok", 2.5)
    assert status in one(tmp_path).reason


def test_a_faulty_question_is_excused_for_all_or_one(tmp_path):
    put(tmp_path, result("Ada"), result("Bob"), closed())
    found = read_all(tmp_path)
    settle.excuse(tmp_path, found, "b", "drop", WHY)
    bob = one(tmp_path, "Bob")
    assert (bob.score, bob.max_score, bob.marks[1].status) == (2.0, 2.0, "excused")
    assert rows(score_tables.scores(read_all(tmp_path)))[1]["b"] == "excused"
    put(tmp_path, result("Late"))
    assert one(tmp_path, "Late").max_score == 2.0, "who is graded later, too"
    settle.excuse(tmp_path, found, "b", "full", WHY, whom=bob)
    assert (one(tmp_path, "Bob").score, one(tmp_path, "Bob").max_score) == (3.0, 3.0)
    settle.excuse(tmp_path, found, "b", None, WHY)
    assert (one(tmp_path, "Late").score, one(tmp_path, "Late").max_score) == (2.5, 3.0)
    with pytest.raises(ValueError, match="no question 'x'"):
        settle.excuse(tmp_path, found, "x", "drop", WHY)


def test_the_last_open_question_excused_settles_a_result(tmp_path):
    put(tmp_path, manual("Ada"))
    settle.excuse(tmp_path, read_all(tmp_path), "w", "drop", WHY)
    assert one(tmp_path).status == "ok" and one(tmp_path).score == 2.0


def test_a_student_is_found_by_what_is_known_of_him(tmp_path):
    put(tmp_path, result("Ada Lovelace", slug="ada_7", moodle_id="7", email="Ada@uni.edu"), result("Bob"))
    found = read_all(tmp_path)
    for words in ("Ada Lovelace", "ada_7", "7", "ada@UNI.edu", " ada  lovelace "):
        assert results.find(found, words).slug == "ada_7"
    for words in ("Ada", "", "../x"):
        with pytest.raises(ValueError, match="no result"):
            results.find(found, words)
    put(tmp_path, result("Wei (8)", slug="w8", name="Wei"), result("Wei (9)", slug="w9", name="Wei"))
    with pytest.raises(ValueError, match="2 students"):
        results.find(read_all(tmp_path), "wei")


def test_a_result_edited_by_hand_keeps_its_sum(tmp_path):
    put(tmp_path, result("Ada"))
    document = json.loads((tmp_path / "Ada.json").read_text())
    document["marks"][1]["points"] = 1.0
    (tmp_path / "Ada.json").write_text(json.dumps(document))
    assert one(tmp_path).score == 3.0
    for broken in (
        {"slug": "Bob"},
        {"marks": [{**document["marks"][0], "points": "2"}]},
        {"written": {"a": 3}},
    ):
        (tmp_path / "Ada.json").write_text(json.dumps({**document, **broken}))
        with pytest.raises(ValueError, match="broken result"):
            read_all(tmp_path)


# --- the log -----------------------------------------------------------------------------------------


def test_the_log_only_grows_and_shows_what_was_changed(tmp_path):
    put(tmp_path, result("Ada"))
    before = b""
    for points in (0.0, 1.0, 0.25):
        settle.override(tmp_path, one(tmp_path), "b", points, WHY)
        data = (tmp_path / "log.jsonl").read_bytes()
        assert data.startswith(before) and len(data) > len(before)
        before = data
    history = log.read(tmp_path)
    assert [event.n for event in history.events] == [1, 2, 3] and not history.faults
    assert {event.by for event in history.events} == {"ben"}
    assert one(tmp_path).score == 2.25
    lines = before.splitlines(keepends=True)
    (tmp_path / "log.jsonl").write_bytes(lines[0] + lines[1].replace(b"1.0", b"0.9") + lines[2])
    assert "line 3 does not follow" in log.read(tmp_path).faults[0]
    (tmp_path / "log.jsonl").write_bytes(lines[0] + lines[2])
    assert "line 2 does not follow" in log.read(tmp_path).faults[0]


@pytest.mark.parametrize("cut", [1, 20, -1])
def test_a_line_that_a_crash_cut_off_costs_that_line(tmp_path, cut):
    put(tmp_path, result("Ada"))
    for points in (0.0, 1.0):
        settle.override(tmp_path, one(tmp_path), "b", points, WHY)
    first, second = (tmp_path / "log.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "log.jsonl").write_bytes(first + second[:cut])
    whole = cut == -1
    assert one(tmp_path).score == (3.0 if whole else 2.0)
    settle.override(tmp_path, one(tmp_path), "a", 1.0, WHY)
    history = log.read(tmp_path)
    assert len(history.events) == (3 if whole else 2) and len(history.faults) == (not whole)
    assert one(tmp_path).score == (2.0 if whole else 1.0)


def test_many_writers_lose_nothing(tmp_path):
    script = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from chunkprefill_grading.marking import log
for i in range(20):
    log.append(Path({str(tmp_path)!r}), sys.argv[1], [("override", {{"i": i}})])
"""
    writers = [subprocess.Popen([sys.executable, "-c", script, name]) for name in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    history = log.read(tmp_path)
    assert not history.faults and len(history.events) == 60
    assert [event.n for event in history.events] == list(range(1, 61))


# --- written answers ---------------------------------------------------------------------------------


def test_two_people_mark_and_neither_overwrites_the_other(tmp_path):
    put(tmp_path, manual("Ada"), manual("Bob"))
    sheet = written(tmp_path)
    taken(tmp_path, filled(tmp_path / "1.csv", sheet, Ada="3"), by="ben")
    done = taken(tmp_path, filled(tmp_path / "2.csv", sheet, Ada="1", Bob="2"), by="cleo")
    assert done.marked == 1 and len(done.kept) == 1 and "3 points of ben" in done.kept[0]
    assert (one(tmp_path).score, one(tmp_path, "Bob").score) == (5.0, 4.0)
    done = taken(tmp_path, filled(tmp_path / "3.csv", sheet, Bob=""), by="ben")
    assert one(tmp_path, "Bob").score == 4.0, "a blank of ben's takes back no point of cleo's"
    assert [row["marked_by"] for row in rows(written(tmp_path))] == ["", "cleo"]
    done = taken(tmp_path, filled(tmp_path / "2.csv", sheet, Ada="1", Bob="2"), by="cleo", replace=True)
    assert one(tmp_path).score == 3.0
    assert [(e.by, e.about["points"]) for e in log.read(tmp_path).events] == [
        *(("ben", 3.0), ("cleo", 2.0), ("ben", None), ("cleo", 1.0)),
    ]


def test_a_blank_takes_a_mark_back(tmp_path):
    put(tmp_path, manual("Ada"), manual("Bob"))
    taken(tmp_path, filled(tmp_path / "s.csv", written(tmp_path), Ada="3", Bob="2"))
    done = taken(tmp_path, filled(tmp_path / "s.csv", written(tmp_path), Ada="", Bob="2"))
    assert (done.marked, done.open) == (1, 1) and "3 points of ben" in done.taken_back[0]
    assert one(tmp_path).status == "needs manual" and one(tmp_path, "Bob").score == 4.0
    n = len(log.read(tmp_path).events)
    taken(tmp_path, filled(tmp_path / "s.csv", written(tmp_path), Ada="", Bob="2"))
    assert len(log.read(tmp_path).events) == n, "nothing new is no event"


def test_points_by_criterion(tmp_path):
    put(tmp_path, manual("Ada", rubric=RUBRIC), manual("Bob", rubric=RUBRIC))
    sheet = rows(written(tmp_path))
    assert sheet[0]["criteria"] == "1: names it (1); 2: says when (1); 3: decides (2)"
    text = written(tmp_path)

    def with_parts(**parts: str) -> Path:
        path = filled(tmp_path / "s.csv", text, Bob="2")
        table = rows(path.read_text())
        table[0] |= {f"criterion {i}": parts[f"p{i}"] for i in (1, 2, 3)}
        table[0]["points"] = parts.get("points", "")
        path.write_text(score_tables.csv_text([list(table[0]), *(list(row.values()) for row in table)]))
        return path

    for bad in (
        {"p1": "1", "p2": "", "p3": "2"},
        {"p1": "2", "p2": "0", "p3": "0"},
        {"p1": "1", "p2": "1", "p3": "1", "points": "4"},
    ):
        with pytest.raises(ValueError, match=r"criterion|add up"):
            taken(tmp_path, with_parts(**bad))
    assert not log.read(tmp_path).events
    taken(tmp_path, with_parts(p1="1", p2="0,5", p3="2"))
    assert one(tmp_path).marks[1].points == 3.5
    again = rows(written(tmp_path))[0]
    assert (again["criterion 2"], again["points"]) == ("0.5", "3.5")


ENCODINGS = {
    "as it is": lambda text: text.encode("utf-8"),
    "a byte order mark": lambda text: text.encode("utf-8-sig"),
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16 of Excel": lambda text: text.replace(",", "\t").encode("utf-16"),
    "western Windows": lambda text: text.encode("cp1252"),
    "semicolons": lambda text: text.replace(",", ";").encode("cp1252"),
    "sep=": lambda text: ("sep=;\r\n" + text.replace(",", ";")).encode("cp1252"),
    "tabs": lambda text: text.replace(",", "\t").encode("utf-8"),
    "carriage returns": lambda text: text.replace("\n", "\r\n").encode("utf-8"),
}


@pytest.mark.parametrize("how", ENCODINGS)
def test_a_sheet_survives_a_spreadsheet(tmp_path, how):
    """The encodings and delimiters of spreadsheets, a column of numbers mangled, rows sorted and columns added."""
    put(tmp_path, manual("Zoë", slug="0012345"), manual("Bob", slug="211088641e32"))
    table = rows(written(tmp_path))
    assert all(row["answer_id"].startswith("t-") for row in table)
    for row in table:
        row["file"] = {"0012345": "12345", "211088641e32": "2.11E+40"}[row["file"]]
        row["points"], row["answer"] = "3", "x"
    head = [*table[0], ""]
    text = (
        "\n".join(",".join([*row.values(), ""]) for row in [dict(zip(head, head)), *reversed(table)])
        + "\n,,\n"
        + ",".join({"student": "Total", "points": "6"}.get(title, "") for title in head)
        + "\n"
    )
    (tmp_path / "s.csv").write_bytes(ENCODINGS[how](text))
    done = taken(tmp_path, tmp_path / "s.csv")
    assert done.marked == 2 and done.no_answers == ("row 4: Total, 6",), "a row of sums is of no answer"
    assert {each.score for each in read_all(tmp_path)} == {5.0}


def test_a_sorted_column_and_a_double_row_are_found(tmp_path):
    put(tmp_path, manual("Ada"), manual("Bob", "another"))
    table = rows(filled(tmp_path / "s.csv", written(tmp_path), Ada="1", Bob="2").read_text())
    mixed = [
        {**table[0], "answer_id": table[1]["answer_id"]},
        {**table[1], "answer_id": table[0]["answer_id"]},
    ]
    for wrong, why in ((mixed, "has this answer_id"), ([*table, {**table[0], "points": "3"}], "two rows")):
        (tmp_path / "s.csv").write_text(
            score_tables.csv_text([list(table[0]), *(list(row.values()) for row in wrong)])
        )
        with pytest.raises(ValueError, match=why):
            taken(tmp_path, tmp_path / "s.csv")
    assert sheets.answers_of(read_all(tmp_path))


# --- late --------------------------------------------------------------------------------------------


def test_who_was_late(tmp_path):
    due = lateness.moment("2026-03-01 23:59")
    students = [
        Student("Ada", "Ada", "Ada", file="x", when=due - 1),
        Student("Bob", "Bob", "Bob", file="x", when=due + 3 * 3600, email="bob@x"),
        Student("Cleo", "Cleo", "Cleo", file="x", when=due + 30 * 3600),
        Student("Dan", "Dan", "Dan", file="x", tag="LATE"),
        Student("Eve", "Eve", "Eve", file="x"),
        Student("Fay", "Fay", "Fay"),
    ]
    (tmp_path / "e.csv").write_text("student;due\nCleo;+1 day\nStranger;2026-03-09\n", encoding="utf-8")
    extensions, unknown = lateness.read_extensions(tmp_path / "e.csv", students, due)
    assert unknown == ["Stranger: not here"] and extensions == {"Cleo": due + 86_400}
    deadline = lateness.Deadline(due, 600, extensions)
    assert [deadline.late_s(each) for each in students] == [0.0, 10_800.0, 21_600.0, 1.0, None, None]
    assert deadline.last == due + 86_400
    assert lateness.moment("2026-03-01") == due + 59
    assert lateness.moment("01.03.2026 23:59") == lateness.moment("2026/03/01 23:59") == due
    assert lateness.moment("01.03.2026 23:59:30") == lateness.moment("2026/03/01 23:59:30") == due + 30
    for bad in ("soon", "", "2026-13-01", "1e9"):
        with pytest.raises(ValueError, match="no date"):
            lateness.moment(bad)
    put(tmp_path / "r", result("Bob"), result("Ada"))
    settle.keep_lateness(tmp_path / "r", "ben", deadline, {"Bob": 10_800.0, "Ada": 0.0})
    assert [row["late_hours"] for row in rows(score_tables.scores(read_all(tmp_path / "r")))] == ["0", "3"]
    assert settle.last_deadline(tmp_path / "r") == due + 86_400
    assert "   1  late" in class_summary.text(read_all(tmp_path / "r"))


@pytest.fixture
def in_berlin(monkeypatch):
    """Where the clocks go forward on March 29, 2026, at 2:00, and back on October 25, at 3:00."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("said", "due"),
    [
        ("2026-03-29", "2026-03-29T21:59:59Z"),
        ("29.03.2026", "2026-03-29T21:59:59Z"),
        ("2026/10/25", "2026-10-25T22:59:59Z"),
        ("29.3.2026 23:59", "2026-03-29T21:59:00Z"),
        ("2026-03-28 23:59", "2026-03-28T22:59:00Z"),
        ("2026-03-28T23:59-05:00", "2026-03-29T04:59:00Z"),
    ],
)
def test_a_date_is_of_the_clock_on_the_wall(in_berlin, said, due):
    assert lateness.moment(said) == lateness.moment(due)


@pytest.mark.parametrize(
    ("cell", "due", "until"),
    [
        ("+1 day", "2026-03-28 23:59", "2026-03-29 23:59"),
        ("+3 Tage", "2026-10-24 12:00", "2026-10-27 12:00"),
        ("24 h", "2026-03-28 23:59", "2026-03-30 00:59"),
        ("+1,5 days", "2026-03-28 12:00", "2026-03-30 00:00"),
    ],
)
def test_days_of_an_extension_end_at_the_time_of_the_deadline(in_berlin, tmp_path, cell, due, until):
    ada = Student("Ada", "Ada", "Ada", file="x")
    (tmp_path / "e.csv").write_text(f'student;due\nAda;"{cell}"\n', encoding="utf-8")
    made, notes = lateness.read_extensions(tmp_path / "e.csv", [ada], lateness.moment(due))
    assert made == {"Ada": lateness.moment(until)} and not notes


def test_an_extension_takes_no_time_away_and_two_are_told(tmp_path):
    ada, bob = (Student(name, name, name, file="x") for name in ("Ada", "Bob"))
    text = "student;due\nAda;2025-03-09\nBob;2026-03-09 12:00\nBob;2026-03-05 12:00\n"
    (tmp_path / "e.csv").write_text(text, encoding="utf-8")
    due = lateness.moment("2026-03-01 23:59")
    made, notes = lateness.read_extensions(tmp_path / "e.csv", [ada, bob], due)
    assert made == {"Ada": due, "Bob": lateness.moment("2026-03-09 12:00")}
    assert notes == [
        "Ada: 2025-03-09 23:59 is before the deadline, and does not count",
        "Bob: two rows, 2026-03-09 12:00 and 2026-03-05 12:00; the later of them counts",
    ]


def test_in_time_is_up_to_the_second_and_a_date_that_canvas_does_not_confirm_is_doubted():
    due = lateness.moment("2026-03-01 23:59")
    deadline = lateness.Deadline(due, 120)
    at = {n: Student("A", "A", "A", lms="canvas", lms_id="7", file="x", when=due + n) for n in (0, 120, 121)}
    assert [deadline.late_s(each) for each in at.values()] == [0.0, 0.0, 121.0]
    assert lateness.told(at[120], deadline) == []
    assert lateness.told(at[121], deadline)[0].startswith("A: 2 min late; Canvas does not say LATE")
    assert [*map(lateness.duration, (1, 59, 3599, 3600, 95_400, 345_600))] == [
        *("1 s", "59 s", "60 min", "1.0 h", "26.5 h", "4.0 days")
    ]


@pytest.mark.parametrize(
    ("rule", "hours", "off"),
    [
        ("10%/day", 1, 2.0),
        ("10%/day", 24, 2.0),
        ("10%/day", 24.01, 4.0),
        ("10 % per day", 1000, 15.0),  # no more than was earned
        ("10%/day, at most 50%", 1000, 10.0),
        ("2 points/day", 30, 4.0),
        ("2/day", 30, 4.0),
        ("1 point per day", 1, 1.0),
        ("0,5%/h", 2.5, 0.3),
        ("1% / 30 min at most 5 %", 1, 0.4),
        ("25%", 1, 5.0),
        ("3", 500, 3.0),
    ],
)
def test_what_being_late_costs(rule, hours, off):
    assert lateness.read_penalty(rule).points(3600 * hours, 15.0, 20.0) == pytest.approx(off)


@pytest.mark.parametrize(
    "rule",
    ["", "much", "-1%", "10%/week", "101%", "0%", "10%/0 days", "5/day, at most 120%", "nan", "1e3%", "10%%"],
)
def test_what_is_no_penalty(rule):
    with pytest.raises(ValueError, match=r"is no rule|taken off|no time"):
        lateness.read_penalty(rule)


def test_a_penalty_is_taken_off_where_the_instructor_asks_for_one_and_nowhere_else(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "results", result("Ada"), result("Bob"), closed(student="Eve"))
    for name in ("Ada", "Bob", "Eve"):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{name}.ipynb").write_text('{"cells": []}')
        os.utime(tmp_path / "in" / f"{name}.ipynb", (1.7e9, 1.7e9 - 86_400 * (name == "Ada")))
    due = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(1.7e9 - 7200))
    late = ["late", "in", "--due", due]
    assert cli.main(late) == 0
    found = read_all(tmp_path / "results")
    assert one(tmp_path / "results", "Bob").score == 2.5 and "late_points" not in score_tables.scores(found)
    assert cli.main([*late, "--penalty", "10%/day"]) == 0
    assert "being late costs 10%/day" in capsys.readouterr().err
    by_name = {each.student: each for each in read_all(tmp_path / "results")}
    ada, bob, eve = by_name.values()
    assert (ada.score, bob.score, eve.score) == (2.5, 2.2, None)
    assert (bob.late_points, bob.late_rule, bob.late_s) == (0.3, "10%/day", 7200.0)
    assert [row["late_points"] for row in rows(score_tables.scores([ada, bob, eve]))] == ["0", "0.3", "0"]
    assert "2.0 h late, 0.3 points less (10%/day)" in student_pages.page(bob)
    assert "2.2 of 3 points" in student_pages.page(bob) and "late" not in student_pages.page(ada)
    assert gradebooks.comment(bob).endswith("2.0 h late, 0.3 points less (10%/day)")
    assert "2  late, which costs them 0.3 points in all" in class_summary.text([ada, bob, eve])
    assert cli.main(["log", "results"]) == 0 and "2 late, which costs 10%/day" in capsys.readouterr().out
    settle.override(tmp_path / "results", eve, "rest", 0.0, WHY)
    assert one(tmp_path / "results", "Eve").score == 2.0 - 0.6, "of the most that can be earned"
    assert "late" not in (tmp_path / "results" / "Bob.json").read_text()
    n = len(log.read(tmp_path / "results").events)
    assert cli.main([*late, "--penalty", "lots"]) == 1 and len(log.read(tmp_path / "results").events) == n
    assert cli.main(late) == 0
    assert one(tmp_path / "results", "Bob").score == 2.5, "the last word counts"


# --- one question anew, and parts --------------------------------------------------------------------


def test_one_question_is_marked_anew_and_the_others_stay(tmp_path):
    put(
        tmp_path,
        result("Ada", hashes={"notebook": "1", "grader": "old"}),
        result("Bob", hashes={"notebook": "2"}),
        result("Eve", hashes={"notebook": "old"}),
    )
    settle.override(tmp_path, one(tmp_path), "a", 1.5, WHY)

    def grade(out: Path) -> list[results.Result]:
        marks = (Mark("a", 0.0, 2.0), Mark("b", 1.0, 1.0))
        return [
            result(name, marks=marks, hashes={"notebook": sha, "grader": "new"})
            for name, sha in (("Ada", "1"), ("Bob", "2"), ("Eve", "new"), ("New", "4"))
        ]

    done = regrade.regrade(tmp_path, "b", grade, WHY)
    assert (done.n, done.changed) == (2, ["Ada, b: 0.5 -> 1 points", "Bob, b: 0.5 -> 1 points"])
    assert done.notes == ["Eve: has handed in another notebook since: run", "New: not graded yet: run"]
    ada = one(tmp_path)
    assert (ada.score, ada.hashes["grader"]) == (2.5, "new"), "overridden a, b anew"
    assert (one(tmp_path, "Bob").score, one(tmp_path, "Eve").score) == (3.0, 2.5)
    assert [e.what for e in log.read(tmp_path).events] == ["override", "regrade", "regrade"]
    with pytest.raises(ValueError, match="no question 'z'"):
        regrade.regrade(tmp_path, "z", grade, WHY)
    assert not list(tmp_path.glob(".regrade*"))


def test_another_draws_key_changes_no_mark(tmp_path):
    put(
        tmp_path,
        *(
            result(name, hashes={"notebook": "1", "draw": draw})
            for name, draw in (("Ada", "x"), ("Bob", "y"))
        ),
    )
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.json")}

    def grade(out: Path) -> list[results.Result]:
        marks = (Mark("a", 0.0, 2.0), Mark("b", 1.0, 1.0))
        return [result(name, marks=marks, hashes={"notebook": "1", "draw": "x"}) for name in ("Ada", "Bob")]

    with pytest.raises(ValueError, match="Bob: the results are of draw y"):
        regrade.regrade(tmp_path, "b", grade, WHY)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.json")} == before
    assert not log.read(tmp_path).events


def test_no_mark_changes_that_the_log_does_not_tell_of(tmp_path, monkeypatch):
    put(tmp_path, result("Ada", hashes={"notebook": "1"}))
    monkeypatch.setattr(log, "append", lambda *args: 1 / 0)
    fresh = [result("Ada", marks=(Mark("a", 0.0, 2.0), Mark("b", 1.0, 1.0)), hashes={"notebook": "1"})]
    with pytest.raises(ZeroDivisionError):
        regrade.regrade(tmp_path, "b", lambda out: fresh, WHY)
    assert one(tmp_path).score == 2.5


def test_parts_are_put_together(tmp_path):
    students = [Student(f"s{i}", f"s{i}", f"s{i}") for i in range(7)]
    parts = [shards.GradingShard(n, 3).part(students) for n in (1, 2, 3)]
    assert sorted(s.slug for part in parts for s in part) == [s.slug for s in students]
    for n, part in enumerate(parts, 1):
        put(tmp_path / str(n), *(result(s.slug, hashes={"key": "k", "grader": "g"}) for s in part))
    settle.override(tmp_path / "1", one(tmp_path / "1", "s0"), "b", 1.0, WHY)
    folders = [tmp_path / str(n) for n in (1, 2, 3)]
    done = shards.merge(tmp_path / "all", folders, [*students, Student("gone", "gone", "gone")])
    assert (done.added, done.same, done.notes) == (7, 0, ["gone: in none of the parts"])
    assert one(tmp_path / "all", "s0").score == 3.0 and len(read_all(tmp_path / "all")) == 7
    assert shards.merge(tmp_path / "all", folders).added == 0
    assert len(log.read(tmp_path / "all").events) == 1
    put(tmp_path / "4", result("s1", marks=(Mark("a", 0.0, 2.0),), hashes={"key": "k", "grader": "g"}))
    put(tmp_path / "5", result("s9", hashes={"key": "other", "grader": "g"}))
    for bad, why in (("4", "different results"), ("5", "different keys")):
        with pytest.raises(ValueError, match=why):
            shards.merge(tmp_path / "all", [tmp_path / bad])
    assert len(read_all(tmp_path / "all")) == 7
    for name in ("s2", "s5"):
        (tmp_path / "3" / f"{name}.json").write_text("{")
    (tmp_path / "2" / "s1.json").write_bytes(b"")
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="nothing is merged") as error:
        shards.merge(tmp_path / "new", [*folders, tmp_path / "none", tmp_path / "4", tmp_path / "5"])
    for word in ("2/s1.json", "3/s2.json", "3/s5.json", "none: no results", "2 different keys"):
        assert word in str(error.value), "all that is wrong is named at once"
    assert not (tmp_path / "new").exists()
    for text in ("0/3", "4/3", "1", "a/b", "1/0", ""):
        with pytest.raises(ValueError, match="no part"):
            shards.read_shard(text)


def in_parts(folder: Path) -> list[Path]:
    for part, names in (("1", ("Ada", "Bob")), ("2", ("Cleo", "Dan"))):
        put(
            folder / part,
            *(result(name, hashes={"key": "k", "grader": "g", "notebook": name}) for name in names),
        )
    return [folder / "1", folder / "2"]


def test_what_parts_know_of_lateness_is_put_together(tmp_path):
    """The later part's word would else be the last, and let the other's students off."""
    parts = in_parts(tmp_path)
    due = lateness.Deadline(1.7e9)
    settle.keep_lateness(parts[0], "ben", due, {"Ada": 7200.0, "Bob": 0.0}, "10%/day")
    settle.keep_lateness(parts[1], "cleo", due, {"Cleo": 90_000.0}, "10%/day")
    shards.merge(tmp_path / "all", parts)
    found = {each.student: each for each in read_all(tmp_path / "all")}
    assert {name: each.late_s for name, each in found.items()} == {
        **{"Ada": 7200.0, "Bob": 0.0, "Cleo": 90_000.0, "Dan": None}
    }
    assert (found["Ada"].late_points, found["Cleo"].late_points) == (0.3, 0.6)
    n = len(log.read(tmp_path / "all").events)
    shards.merge(tmp_path / "all", parts)
    assert len(log.read(tmp_path / "all").events) == n
    settle.keep_lateness(parts[1], "cleo", lateness.Deadline(1.8e9), {"Cleo": 0.0})
    with pytest.raises(ValueError, match="2 different deadlines or penalties"):
        shards.merge(tmp_path / "new", parts)
    assert not (tmp_path / "new").exists()


def test_of_decisions_in_parts_the_latest_counts_whatever_part_is_named_first(tmp_path, monkeypatch):
    parts = in_parts(tmp_path)
    clock = iter(f"2026-03-01T10:0{n}:00Z" for n in range(9))
    write = log.append

    def append(folder, by, decisions):
        at = next(clock)
        write(folder, by, [(what, {**about, log.DECIDED_AT: at}) for what, about in decisions])

    monkeypatch.setattr(settle.log, "append", append)
    everyone = [read_all(part) for part in parts]
    settle.excuse(parts[1], everyone[1], "b", "drop", WHY)
    settle.override(parts[0], one(parts[0]), "b", 1.0, WHY)
    settle.override(parts[0], one(parts[0]), "b", 0.5, WHY)
    settle.override(parts[0], one(parts[0]), "b", 1.0, WHY)
    settle.excuse(parts[0], everyone[0], "b", None, WHY)
    monkeypatch.setattr(settle.log, "append", write)
    for name, order in (("all", parts), ("other", parts[::-1])):
        shards.merge(tmp_path / name, order)
        assert {each.max_score for each in read_all(tmp_path / name)} == {3.0}, "the excuse was taken back"
        assert one(tmp_path / name).score == 3.0, "1, then 0.5, then 1 again"


def test_a_clock_that_goes_back_puts_no_decision_before_an_earlier_one(tmp_path):
    put(tmp_path, result("Ada"))
    times = iter(("2026-03-01T12:00:00Z", "2026-03-01T09:00:00Z", "2026-03-01T09:00:01Z"))
    for points in (1.0, 0.5, 0.25):
        settle.override(tmp_path, one(tmp_path), "b", points, WHY)
    rows = [
        {**json.loads(line), "at": next(times)} for line in (tmp_path / "log.jsonl").read_text().splitlines()
    ]
    (tmp_path / "log.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert one(tmp_path).mark("b").points == 0.25, "the last line is the last word"


def test_who_hands_in_after_lateness_was_asked_is_named(tmp_path, capsys):
    put(tmp_path, result("Ada", hashes={"notebook": "1"}), result("Bob", hashes={"notebook": "2"}))
    settle.keep_lateness(tmp_path, "ben", lateness.Deadline(1.7e9), {"Ada": 0.0, "Bob": 0.0}, "50%")
    assert cli.main(["export", str(tmp_path)]) == 0 and "since `late`" not in capsys.readouterr().err
    put(tmp_path, result("Ada", hashes={"notebook": "3"}), result("Eve", hashes={"notebook": "4"}))
    assert cli.main(["export", str(tmp_path)]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "since `late`" in line]
    assert [line.partition(":")[0] for line in said] == ["Ada", "Eve"]


# --- what judges -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> tuple[Path, str]:
    """A copy of what is installed, and its hash."""
    folder = tmp_path_factory.mktemp("packages")
    left_out = shutil.ignore_patterns("__pycache__", "*.safetensors")
    for name in ("chunkprefill", "chunkprefill_course", "chunkprefill_grading"):
        shutil.copytree(ROOT / name, folder / name, ignore=left_out)
    return folder, judging.hash_under(folder)


@pytest.mark.parametrize(
    ("place", "old", "new", "same"),
    [
        ("chunkprefill/plots/board.py", None, "\nMORE = 1\n", True),
        ("chunkprefill_grading/reports/class_summary.py", None, "\nMORE = 1\n", True),
        ("chunkprefill_grading/marking/mark.py", None, "\n# a comment\n", True),
        (
            "chunkprefill_grading/problems/sheet.py",
            "The most that can be earned.",
            "What can be earned.",
            True,
        ),
        ("chunkprefill_grading/marking/mark.py", "MOST_COMMENT = 1200", "MOST_COMMENT = 1300", False),
        ("chunkprefill_grading/sandbox/wire.py", None, "\nMORE = 1\n", False),
        ("chunkprefill/scheduling/state.py", None, "\nMORE = 1\n", False),
        ("chunkprefill/data/devices.json", '"link": 450', '"link": 451', False),
        ("chunkprefill/data/kernels.json", '"t_linear": 2e-05', '"t_linear": 3e-05', True),
        ("chunkprefill/data/accuracy.json", "{", "{ ", True),
        ("chunkprefill_course/forms/answers.py", None, "\nMORE = 1\n", False),
    ],
)
def test_results_depend_on_what_judges_and_on_nothing_else(packages, place, old, new, same):
    folder, before = packages
    path = folder / place
    if not path.is_file():
        path = next((folder / place).parent.glob("*.py"))
    text = path.read_text("utf8")
    assert old is None or old in text
    path.write_text(text + new if old is None else text.replace(old, new), "utf8")
    try:
        assert (judging.hash_under(folder) == before) is same
    finally:
        path.write_text(text, "utf8")


def test_the_commands(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHUNKPREFILL_GRADER", "cleo")
    put(tmp_path / "results", result("Ada"), result("Bob"), closed(student="Eve"))
    for words, said in (
        ("override Ada b 1 --why regraded", "Ada, b: 1 of 1 (was 0.5)"),
        ("override Ada b back --why sorry --by ben", "its own points again"),
        ("excuse b --why faulty --student Bob --full", "b is paid in full for Bob"),
        ("excuse a --why faulty", "a does not count for the whole class"),
        ("excuse a --why fine --back", "a counts again"),
        ("override Eve rest 0 --why looked", "Eve, c: 0 of 3"),
        ("export results", ""),
        ("items results --out items.csv", "wrote items.csv"),
    ):
        assert cli.main(words.split()) == 0
        assert said in capsys.readouterr().err
    assert cli.main(["log", "results"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7 and "cleo: override Ada, b: 1 points (regraded)" in lines[0] and "ben:" in lines[1]
    for words in (
        "override Ada b 9 --why x",
        "override Tom b 1 --why x",
        "override Ada b x --why x",
        "excuse q --why x",
        "log nowhere",
    ):
        assert cli.main(words.split()) == 1
    assert (tmp_path / "items.csv").read_bytes().startswith(b"\xef\xbb\xbfquestion,n,open")
