"""What leaves the grader: tables that no spreadsheet runs, pages that run nothing, and no word of a key."""

from __future__ import annotations

import csv
import html.parser
import io
import os
import subprocess
import sys
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunkprefill_grading.marking import log, results, settle
from chunkprefill_grading.marking.mark import Mark
from chunkprefill_grading.marking.results import Result
from chunkprefill_grading.reports import class_summary, gradebooks, score_tables, sheets, student_pages
from chunkprefill_grading.submission.spreadsheet import read_table
from tests.grading.hostile import world
from tests.needs import ROOT

EVIL = "=cmd|' /C calc'!A0"
SCRIPT = '<script>alert(1)</script><img src=x onerror="alert(2)">'


def result(student: str = "Ada", status: str = "ok", **more) -> Result:
    marks = more.pop("marks", (Mark("a", 2.0, 2.0), Mark("b", 0.5, 1.0, comment="one is missing")))
    given = {
        **{
            "student": student,
            "slug": more.pop("slug", student),
            "name": student,
            "lms": "moodle" if "moodle_id" in more else "",
            "lms_id": more.pop("moodle_id", ""),
            "status": status,
        },
        **{"problem_set": "T1", "score": results.total(marks) if status == "ok" else None, "max_score": 3.0},
        **{"reason": "", "marks": marks, "cells": (), "written": {}, "sandbox": "bubblewrap", "source": "x"},
        "hashes": {},
    }
    return Result(**{**given, **more})


def manual(student: str = "Ada", text: str = "my answer", **more) -> Result:
    marks = (Mark("a", 2.0, 2.0), Mark("w", 0.0, 4.0, "needs manual", "a person"))
    return result(student, "needs manual", marks=marks, written={"w": text}, reason="by a person: w", **more)


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_scores_as_csv():
    closed = result(
        "Bob", "timeout", reason="60 s", marks=(Mark("a", 2.0, 2.0), Mark("b", 0.0, 1.0, "timeout"))
    )
    text = score_tables.scores(
        [result(), closed, manual("Eve"), result("Tom", sandbox="none: --unsafe-no-sandbox")]
    )
    assert text.splitlines() == [
        "student,status,score,max_score,reason,a,b,w",
        "Ada,ok,2.5,3,,2,0.5,",
        "Bob,timeout,,3,60 s,,,",
        "Eve,needs manual,,3,by a person: w,2,,",
        "Tom,ok,2.5,3,sandbox none: --unsafe-no-sandbox,2,0.5,",
    ]


@given(st.sampled_from(results.STATUSES), st.floats(0, 3))
def test_what_is_not_ok_has_no_score(status, points):
    one = result(status=status, marks=(Mark("a", points, 3.0),))
    (row,) = rows(score_tables.scores([one]))
    assert (row["score"] == "") == (status != "ok")
    with pytest.raises(ValueError, match="score"):
        result(status=status, score=None if status == "ok" else 0.0)


@given(st.text(max_size=40))
def test_no_cell_begins_like_a_formula(text):
    made = score_tables.safe(text)
    assert made.lstrip("\t \n")[:1] not in ("=", "+", "-", "@", "|", "%")
    (row,) = rows(score_tables.scores([result(text or "x", reason=text)]))
    assert row["student"].strip()[:1] not in ("=", "+", "-", "@") and None not in row
    assert score_tables.safe(-2.5) == "-2.5"


class Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data):
        self.text += data


@given(st.text(max_size=60) | st.just(SCRIPT) | st.just("</style></title><svg onload=x>"))
def test_nothing_that_a_student_wrote_is_part_of_the_page(text):
    one = result(
        text or "x",
        "crashed",
        slug="x",
        reason=text,
        cells=((3, text),),
        marks=(Mark(text or "q", 0.0, 1.0, "raised", text, text), Mark("b", 0.0, 1.0, "bad answer", text)),
    )
    tags = Tags()
    tags.feed(student_pages.page(one))
    known = {
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "h1",
        "h2",
        "p",
        "section",
        "strong",
        "pre",
    }
    assert set(tags.tags) <= known and set(tags.attributes) <= {
        "lang",
        "charset",
        "name",
        "content",
        "class",
        "http-equiv",
    }


def test_a_page_says_what_happened(tmp_path):
    page = student_pages.page(result(cells=((4, "NameError: name 'x' is not defined"),)))
    assert "2.5 of 3 points" in page and "one is missing" in page
    assert "NameError: name &#x27;x&#x27; is not defined (code cell 4)" in page
    closed = student_pages.page(result(status="timeout", reason="more than 60 s of CPU time"))
    assert "none is not zero" in closed and "more than 60 s" in closed
    paths = student_pages.write([result(), result("Bob")], tmp_path)
    assert sorted(path.name for path in paths) == ["Ada.html", "Bob.html"]


@pytest.mark.parametrize(
    ("status", "reason", "told"),
    [
        (
            "raised",
            "it raised TypeError (code cell 3, line 7: `x = [<`)",
            "It raised TypeError (code cell 3, line 7: `x = [<`).",
        ),
        ("raised", "it raised an error of its own", "It raised an error of its own."),
        ("raised", "it raised hidden_12345 (code cell 3, line 7: `x`)", "An exception."),
        ("raised", "TypeError: hidden 12345 (code cell 3, line 7)", "An exception."),
        ("raised", "it raised TypeError (code cell 123456789, line 1: `hidden`)", "An exception."),
        ("raised", "hidden 12345", "An exception."),
        ("bad answer", "a value of type hidden_12345: not a number, a string, a list or a dict", ""),
        ("bad answer", "an array of another shape is asked for", "An array of another shape is asked for."),
        ("bad answer", "hidden 12345", ""),
    ],
)
def test_what_a_process_says_of_hidden_questions_is_not_shown(status, reason, told):
    mark = Mark("q", 0.0, 1.0, status, reason)
    assert student_pages.shown(mark) == told
    assert "hidden" not in student_pages.page(result(marks=(mark,)))


def test_a_zip_for_moodle(tmp_path):
    students = [result("Ada", moodle_id="7"), result("Ada B", moodle_id="8")]
    paths = student_pages.write(students, tmp_path, pack="moodle")
    with zipfile.ZipFile(paths[-1]) as archive:
        names = archive.namelist()
        assert names == [
            "Ada_7_assignsubmission_file_/feedback.html",
            "Ada B_8_assignsubmission_file_/feedback.html",
        ]
        assert b"2.5 of 3" in archive.read(names[0])
    before = paths[-1].read_bytes()
    assert student_pages.write(students, tmp_path, pack="moodle")[-1].read_bytes() == before
    paths = student_pages.write([*students, result("Eve")], tmp_path, pack="moodle")
    assert paths[-1].read_bytes() == before and (tmp_path / "Eve.html").is_file()
    (said,) = student_pages.not_packed([*students, result("Eve")], "moodle")
    assert said == "Eve: not in the zip, because no number of Moodle's is known"
    with pytest.raises(ValueError, match="Moodle knows none of these"):
        student_pages.write([result("Eve")], tmp_path, pack="moodle")


WORKSHEET = """\ufeffIdentifier,Full name,Email address,Status,Grade,Maximum Grade,Feedback comments
Participant 7,Ada,ada@x,Submitted,,100,
Participant 8,"Zhang, Wei",w1@x,Submitted,55,100,old
Participant 9,"Zhang, Wei",w2@x,Submitted,,100,
Participant 10,Bob,b@x,No submission,,100,
"""


def worksheet(students, path):
    table, notes = gradebooks.filled(students, read_table(path), "moodle")
    return table.text(), notes


def test_moodles_worksheet(tmp_path):
    (tmp_path / "w.csv").write_text(WORKSHEET, encoding="utf-8")
    students = [
        result("Ada", moodle_id="7"),
        result("Zhang, Wei (8)", "timeout", moodle_id="8", reason=EVIL, slug="8"),
        result("Zhang, Wei (9)", moodle_id="9", slug="9", marks=(Mark("a", 3.0, 3.0),)),
        result("Gone", moodle_id="99"),
    ]
    text, notes = worksheet(students, tmp_path / "w.csv")
    ada, wei, other, bob = rows(text)
    assert text.splitlines()[0] == WORKSHEET.splitlines()[0].removeprefix("\ufeff")
    assert (ada["Grade"], other["Grade"], bob["Grade"]) == ("83.333", "100", "")
    assert wei["Grade"] == "" and wei["Feedback comments"] == f"Not graded yet: {EVIL}"
    assert ada["Feedback comments"] == "a 2 of 2; b 0.5 of 1" and ada["Email address"] == "ada@x"
    assert notes == ["Gone: not in the worksheet"]
    for spoilt in ("a,b\n1,2\n", "", "Identifier\nParticipant 1\n"):
        (tmp_path / "w.csv").write_text(spoilt)
        with pytest.raises(ValueError, match=r"cannot be read|no column"):
            worksheet(students, tmp_path / "w.csv")


def test_a_worksheet_is_joined_by_names_where_there_are_no_numbers(tmp_path):
    (tmp_path / "w.csv").write_text(WORKSHEET, encoding="utf-8")
    text, notes = worksheet([result("Ada"), result("Zhang, Wei")], tmp_path / "w.csv")
    assert [row["Grade"] for row in rows(text)] == ["83.333", "55", "", ""], (
        "two of that name: neither is guessed"
    )
    assert notes == ["Zhang, Wei: 2 of that name in the worksheet"]


def filled(path, text, **points):
    table = rows(text)
    for row in table:
        row["points"] = points.get(row["student"].strip("'"), "")
        row["comment"] = "well said"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)
    return path


def written(folder) -> str:
    return sheets.written_answers(settle.read_all(folder), settle.decided(folder))


def taken(folder, path, by="ben", **how) -> sheets.Imported:
    found, decisions = settle.read_all(folder), settle.decided(folder)
    table = read_table(path, names=[each.name for each in found])
    return sheets.import_points(folder, found, decisions, table, by=by, **how)


def test_points_by_hand(tmp_path):
    for one in (manual("Ada"), manual("Bob", EVIL), manual("Eve"), result("Tom")):
        results.write(tmp_path, one)
    found = settle.read_all(tmp_path)
    sheet = written(tmp_path)
    assert [row["student"] for row in rows(sheet)] == ["Ada", "Bob", "Eve"]
    assert rows(sheet)[1]["answer"] == f"'{EVIL}"
    done = taken(tmp_path, filled(tmp_path / "s.csv", sheet, Ada="3", Bob="0,5"))
    assert (done.marked, done.open) == (2, 1)
    found = {one.student: one for one in settle.read_all(tmp_path)}
    assert (found["Ada"].status, found["Ada"].score) == ("ok", 5.0)
    assert (found["Bob"].score, found["Bob"].marks[1].comment) == (2.5, "well said")
    assert (found["Eve"].status, found["Eve"].score) == ("needs manual", None)

    results.write(tmp_path, manual("Ada", "another text"))
    again = {one.student: one for one in settle.read_all(tmp_path)}
    assert again["Ada"].status == "needs manual", "points belong to the text that was read"
    assert again["Bob"].score == 2.5, "and stay with the others"
    new = written(tmp_path)
    assert [row["points"] for row in rows(new)] == ["", "0.5", ""]


@pytest.mark.parametrize(
    ("column", "value", "why"),
    [
        ("points", "5", "from 0 to 4"),
        ("points", "-1", "from 0 to 4"),
        ("points", "nan", "from 0 to 4"),
        ("points", "inf", "from 0 to 4"),
        ("points", "good", "from 0 to 4"),
        ("file", "../x", "no written answer"),
        ("question", "q", "no written answer"),
        ("answer_id", "t-" + "0" * 12, "another text"),
    ],
)
def test_a_sheet_with_a_mistake_is_taken_not_at_all(tmp_path, column, value, why):
    for one in (manual("Ada"), manual("Bob")):
        results.write(tmp_path, one)
    path = filled(tmp_path / "s.csv", written(tmp_path), Ada="1", Bob="2")
    table = rows(path.read_text())
    table[1][column] = value
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)
    with pytest.raises(ValueError, match=f"row 3: .*{why}"):
        taken(tmp_path, path)
    assert not log.read(tmp_path).events


def test_a_result_survives_its_file_and_a_broken_one_is_named(tmp_path):
    one = manual("Ada", "ä\ud800 =x", cells=((2, "x"),), slug="ada")
    results.write(tmp_path, one)
    assert results.load(tmp_path / "ada.json") == one
    for spoilt in ("", "{}", "[]", '{"format": "chunkprefill-result", "version": 9}'):
        (tmp_path / "ada.json").write_text(spoilt)
        with pytest.raises(ValueError, match=r"ada\.json"):
            settle.read_all(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no results"):
        settle.read_all(tmp_path / "empty")


def test_all_but_run_works_where_nothing_is_a_unix(tmp_path):
    """On a system without fcntl, resource and Linux's name, in a process of its own."""
    results.write(tmp_path / "results", manual("Ada"))
    world.hand_in(tmp_path / "in", "Ada", *world.HONEST)
    lines = [
        ["collect", "in", "--out", "sub"],
        ["manual", "export", "results", "w.csv"],
        ["export", "results"],
    ]
    lines += [
        ["feedback", "results", "--out", "pages"],
        ["summary", "results"],
        ["new", "PS2", "--out", "set"],
    ]
    script = f"""
import sys
import sysconfig
sysconfig.get_config_vars()  # what a real Windows reads elsewhere
sys.modules.update(fcntl=None, resource=None)
sys.platform = "win32"
import os
os.O_NOFOLLOW = os.O_NONBLOCK = 0
from chunkprefill_grading.cli import main
for line in {lines!r}:
    assert main(line) == 0, line
assert main(["run", "sub", "--key", "set/key.json", "--out", "out"]) == 1
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "this is win32, not Linux" in done.stderr


def test_a_summary(tmp_path):
    found = [
        result("Ada", marks=(Mark("a", 2.0, 2.0), Mark("b", 1.0, 1.0))),
        result("Bob"),
        result("Eve"),
        result(
            "Tom",
            marks=(Mark("a", 0.0, 2.0, "no answer", "not answered"), Mark("b", 0.0, 1.0, "raised", "E: x")),
        ),
        result("Zoe", "memory", reason="much\x1b[31m"),
    ]
    assert class_summary.bins(found) == [1, 0, 0, 0, 0, 0, 0, 0, 2, 1]
    assert class_summary.questions(found) == [("a", 1.5, 2.0, 3, 1, 4), ("b", 0.5, 1.0, 1, 0, 4)]
    assert class_summary.mistakes(found) == [(3, "b", "one is missing"), (1, "b", "E: x")]
    text = class_summary.text(found)
    assert "5 submissions, 4 with a score" in text and "Zoe: memory: much [31m" in text and "\x1b" not in text
    assert "   3  b: one is missing" in text
    class_summary.plot(found, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert "0 with a score" in class_summary.text([result(status="crashed")])
    class_summary.plot([result(status="crashed")], tmp_path / "none.png")
