"""Out of the grader and into each learning system: collected from its zip, filled into its own table."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import pytest

from chunkprefill_grading import cli
from chunkprefill_grading.marking import results, settle
from chunkprefill_grading.marking.mark import Mark
from chunkprefill_grading.marking.settle import read_all
from chunkprefill_grading.reports import class_summary, gradebooks, score_tables, similarity, student_pages
from chunkprefill_grading.submission.collect import collect
from chunkprefill_grading.submission.spreadsheet import parse_table
from tests.grading.hostile import world
from tests.grading.shapes import SHAPES, packed
from tests.grading.test_reports import EVIL, SCRIPT, result

#: format -> (shape of the zip, the system's own table, {whose row by its first cells: grade})
TABLES: dict[str, tuple[str, str, str, dict[str, str]]] = {
    "moodle": (
        "moodle",
        "moodle",
        "\ufeffIdentifier,Full name,Email address,Status,Grade,Maximum Grade,Feedback comments\n"
        "Participant 101,Ada Lovelace,ada@x,Submitted,,100,\n"
        "Participant 102,Zoë O'Neil,z@x,Submitted,,100,\n"
        "Participant 104,Wei Zhang,w@x,Submitted,,100,\n"
        "Participant 105,Wei Zhang,w2@x,Submitted,,100,\n"
        "Participant 199,Tom Absent,t@x,No submission,,100,\n",
        {
            "Participant 101": "5",
            "Participant 102": "15",
            "Participant 104": "25",
            "Participant 105": "30",
            "Participant 199": "",
        },
    ),
    "moodle in German": (
        "moodle",
        "moodle",
        "ID;Vollständiger Name;E-Mail-Adresse;Status;Bewertung;Bestwertung;Feedback als Kommentar\n"
        "Teilnehmer/in101;Ada Lovelace;ada@x;Abgegeben;;20,00;\n"
        "Teilnehmer/in102;Zoë O'Neil;z@x;Abgegeben;17,50;20,00;\n",
        {"Teilnehmer/in101": "1", "Teilnehmer/in102": "3"},
    ),
    "moodle without numbers": (
        "moodle",
        "moodle",
        "Nom complet;Adresse de courriel;Note;Note maximale\nAda Lovelace;ada@x;;20\nWei Zhang;w@x;;20\n"
        "Zoë O'Neil;z@x;;20\n",
        {"Ada Lovelace": "1", "Wei Zhang": "", "Zoë O'Neil": "3"},
    ),
    "moodle blind": (
        "moodle blind",
        "moodle",
        "Identifier,Status,Grade,Maximum Grade,Feedback comments\nParticipant 101,Submitted,,20,\n"
        "Participant 102,Submitted,,20,\n",
        {"Participant 101": "1", "Participant 102": "2"},
    ),
    "canvas": (
        "canvas",
        "canvas",
        "Student,ID,SIS User ID,SIS Login ID,Section,PS2 (4400),PS3 (4401),Final Score\n"
        "    Points Possible,,,,,10,40,(read only)\n"
        '"Lovelace, Ada",1001,1002,ada,S1,9,,80\n"O\'Neil, Zoë",1002,1001,zoe,S1,9,,80\n'
        '"Zhang, Wei",1003,77,w,S1,9,,80\n"Zhang, Wei",1004,78,w2,S1,,,80\n"Student, Test",9999,,t,S1,,,\n',
        {"Lovelace, Ada": "2", "O'Neil, Zoë": "4", "Zhang, Wei": "10", "Student, Test": ""},
    ),
    "gradescope": (
        "gradescope",
        "gradescope",
        "First Name,Last Name,SID,Email,Total Score,Max Points,Status\nAda,Lovelace,1001,ADA@uni.edu,,20,\n"
        "Zoë,O'Neil,1002,zoe@uni.edu,,20,\nMax,Müller,,max@uni.edu,,20,\nA,Other,1003,other@uni.edu,,20,\n",
        {"Ada": "1", "Zoë": "2", "Max": "2", "A": ""},
    ),
    "blackboard": (
        "blackboard",
        "blackboard",
        '"Last Name"\t"First Name"\t"Username"\t"Student ID"\t"Availability"\t"PS3 [Total Pts: 20 Score] |55"\n'
        '"Lovelace"\t"Ada"\t"alovelace"\t"1"\t"Yes"\t""\n"ONeil"\t"Zoë"\t"z_oneil"\t"2"\t"Yes"\t""\n',
        {"Lovelace": "1", "ONeil": "3"},
    ),
    "brightspace": (
        "brightspace",
        "brightspace",
        "OrgDefinedId,Username,Last Name,First Name,Email,PS3 Points Grade <Numeric MaxPoints:40>,End-of-Line Indicator\n"
        "#5012,#ada,Lovelace,Ada,a@x,,#\n#5011,#zoe,O'Neil-Smith,Zoë,z@x,,#\n",
        {"#5012": "2", "#5011": "4"},
    ),
    "classroom": (
        "classroom",
        "classroom",
        "Last Name,First Name,Email Address,PS3\nDate,,,2026-03-01\nPoints,,,20\nLovelace,Ada,a@x,\nO'Neil,Zoë,z@x,\n",
        {"Lovelace": "1", "O'Neil": "2", "Points": "20"},
    ),
}


def graded(folder: Path, shape: str) -> Path:
    """The class of a system's zip, each with the number of the notebook as points, of 20."""
    done = collect([packed(folder / "in.zip", SHAPES[shape][0])], folder / "submitted")
    for student in done.students:
        if student.file is None:
            continue
        n = int((folder / "submitted" / student.file).read_text().split("number = ")[1].split('"')[0])
        mark = Mark("q", float(n), 20.0)
        made = result(
            student.student,
            slug=student.slug,
            marks=(mark,),
            max_score=20.0,
            problem_set="PS3",
            source=student.source,
            email=student.email,
        )
        document = {**vars(made), "name": student.name, "lms": student.lms, "lms_id": student.lms_id}
        results.write(folder / "results", results.Result(**document))
    return folder / "results"


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_round_trip_through_each_system(tmp_path, capsys, kind, encoding):
    shape, system, text, due = TABLES[kind]
    (tmp_path / "w.csv").write_bytes(text.lstrip("\ufeff").encode(encoding))
    folder = graded(tmp_path, shape)
    words = [
        "export",
        folder,
        "--format",
        system,
        "--worksheet",
        tmp_path / "w.csv",
        "--out",
        tmp_path / "out.csv",
    ]
    assert cli.main([*map(str, words)]) == 0, capsys.readouterr().err
    given, back = (
        parse_table(text.lstrip("\ufeff").encode()),
        parse_table((tmp_path / "out.csv").read_bytes()),
    )
    assert back.delimiter == given.delimiter and len(back.rows) == len(given.rows)
    column = back.header.index(
        next(
            title for title in back.header if title.startswith(("PS3", "Grade", "Bewertung", "Note", "Total"))
        )
    )
    found = {row[0].strip(): row[column] for row in back.rows}
    assert {name: found[name].replace(",", ".") for name in due} == due
    for row, before in zip(back.rows, given.rows):
        assert row[0] == before[0], "whose a row is, is left as it was"


def test_canvas_gets_back_its_five_columns_and_the_points_possible(tmp_path, capsys):
    _, _, text, _ = TABLES["canvas"]
    (tmp_path / "w.csv").write_text(text, encoding="utf-8")
    folder = graded(tmp_path, "canvas")
    assert (
        cli.main(["export", str(folder), "--format", "canvas", "--worksheet", str(tmp_path / "w.csv")]) == 0
    )
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert rows[0] == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "PS3 (4401)"]
    assert rows[1] == ["    Points Possible", "", "", "", "", "40"]
    assert [row[5] for row in rows[4:6]] == ["8", "10"], "two of one name, told apart by their ids"
    assert cli.main(["export", str(folder), "--format", "canvas"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {row["ID"]: row["PS3"] for row in rows} == {
        "": "20",
        "1001": "1",
        "1002": "2",
        "1003": "4",
        "1004": "5",
    }
    assert (
        cli.main(
            [
                "export",
                str(folder),
                "--format",
                "canvas",
                "--worksheet",
                str(tmp_path / "w.csv"),
                "--assignment",
                "PS9",
            ]
        )
        == 1
    )
    assert "no column 'ps9'" in capsys.readouterr().err


def test_two_rows_that_claim_one_student_get_nothing(tmp_path):
    table = parse_table(b"Identifier,Full name,Grade\nParticipant 7,Ada,\nParticipant 7,Bob,\n")
    filled, notes = gradebooks.filled([result("Ada", moodle_id="7")], table, "moodle")
    assert [row[2] for row in filled.rows] == ["", ""] and "several rows" in notes[0]


def test_pages_zips_and_tables_of_hostile_names(tmp_path):
    name = "<b>\ud800\x1b[31m=1+1;=cmd|x"
    one = result(
        name,
        slug="x",
        moodle_id="7",
        reason=EVIL,
        lms="moodle",
        answers={"a": SCRIPT},
        cells=((1, f"{name}\x1b]0;x\x07"),),
    )
    results.write(tmp_path / "r", one)
    paths = student_pages.write(read_all(tmp_path / "r"), tmp_path / "pages", pack="moodle")
    with zipfile.ZipFile(paths[-1]) as archive:
        (entry,) = archive.namelist()
        assert archive.read(entry).decode()
        assert entry.endswith("_7_assignsubmission_file_/feedback.html")
    page = paths[0].read_text(encoding="utf-8")
    assert "<b>" not in page and "<script" not in page and "\x1b" not in page + score_tables.scores([one])
    for delimiter in ",;\t":
        for row in csv.reader(io.StringIO(score_tables.scores([one])), delimiter=delimiter):
            assert not [
                cell
                for cell in row
                if cell.strip(" \"'\n\t")[:1] in "=+@|%"
                and cell.strip()[:1] != "'"
                and cell.strip(" \"'\n\t")
            ], row


@pytest.mark.parametrize(
    "text",
    [
        "=1",
        "x;=1",
        "x; =1",
        "x\t=1",
        "x\n=1",
        'x;"=1',
        "x;'+1",
        "x;-1",
        "x;@a",
        "x,=1",
        ";;=1",
        "＝1",
        "x;|a",
    ],
)
def test_no_formula_begins_a_cell_whatever_the_delimiter(text):
    made = score_tables.csv_text([["Ada", text, "3"]])
    for delimiter in ",;\t":
        for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE):
            for row in csv.reader(io.StringIO(made), delimiter=delimiter, quoting=quoting):
                for cell in row:
                    assert cell.lstrip(' "\n\t')[:1] not in tuple("=+-@|%＝"), (row, made)


def test_a_page_shows_ones_own_answer_what_it_earned_and_when_it_may_go_out(tmp_path):
    marks = (Mark("a", 1.0, 2.0, "ok", "reread", "`reread` is wrong."), Mark("b", 1.0, 1.0))
    one = result(
        "Ada",
        marks=marks,
        answers={"a": "# Answer: a\na = {1: '<i>'}"},
        late_s=7200.0,
        rubric={"a": (("passes", 1.0), ("reread", 1.0)), "b": (("all", 1.0),)},
    )
    page = student_pages.page(one)
    assert "passes: 1 of 1" in page and "reread: 0 of 1" in page and "all: 1 of 1" in page
    assert "&lt;i&gt;" in page and "2.0 h late" in page
    assert "2026" in student_pages.release(1772362800.0) and "Do not" in student_pages.release(1772362800.0)
    assert "no student can hand in any more" in student_pages.release(None)


def test_six_that_make_one_mistake_are_one_kind():
    said = "Chats: over the limit in {} of 5 hidden workloads, by a factor of {:.2f} at worst."
    found = [
        result(f"s{i}", marks=(Mark("p", 3.0, 6.0, "ok", "chats", said.format(i, 1 + i / 7)),))
        for i in range(6)
    ]
    found += [
        result(
            "x",
            marks=(Mark("p", 0.0, 6.0, "raised", f"NameError: name 'v{i}' is not defined (code cell {i})"),),
        )
        for i in range(3)
    ]
    waiting = result(
        "w",
        "needs manual",
        marks=(Mark("p", 3.0, 6.0, "ok", "chats", "x"), Mark("w", 0.0, 3.0, "needs manual")),
    )
    kinds = class_summary.mistakes([*found, waiting])
    assert [n for n, *_ in kinds] == [7, 3] and kinds[1][2].startswith("NameError: name …")
    (row, *_) = class_summary.questions([*found, waiting])
    assert row[0] == "p" and row[5] == 10, "also of those whose written answer waits"


def test_item_statistics():
    good = [(1.0, 2.0), (1.0, 3.0), (1.0, 4.0), (0.0, 0.0), (0.0, 1.0), (0.0, 1.0), (1.0, 3.0), (0.0, 0.0)]
    found = [
        result(f"s{i}", marks=(Mark("a", a, 1.0), Mark("b", b, 4.0), Mark("c", 1.0, 1.0)))
        for i, (a, b) in enumerate(good)
    ]
    table = {row["question"]: row for row in csv.DictReader(io.StringIO(class_summary.items(found)))}
    assert (table["a"]["difficulty"], table["a"]["n"], table["a"]["full"]) == ("0.5", "8", "4")
    assert float(table["a"]["discrimination"]) > 0.8 and table["a"]["upper_lower"] == "1"
    assert table["c"]["discrimination"] == "" and table["c"]["difficulty"] == "1"


LONG = """
def attend(q, k, v, start):
    out = []
    for i, row in enumerate(q):
        scores = [sum(a * b for a, b in zip(row, key)) / len(row) ** 0.5 for key in k[: start + i + 1]]
        most = max(scores)
        weights = [2.718281828 ** (s - most) for s in scores]
        total = sum(weights)
        out.append([sum(w * x for w, x in zip(weights, column)) / total for column in zip(*v)])
    return out
"""
RENAMED = (
    LONG.replace("out", "result")
    .replace("row", "query")
    .replace("weights", "w8")
    .replace("total", "norm")
    .replace("scores", "dots")
    .replace("        most", "        # the largest\n\n        most")
)
OTHER = """
import numpy as np
def attend(q, k, v, start):
    t, s = len(q), len(k)
    mask = np.arange(s)[None] <= start + np.arange(t)[:, None]
    a = np.where(mask, np.array(q) @ np.array(k).T / np.sqrt(len(q[0])), -np.inf)
    e = np.exp(a - a.max(axis=-1, keepdims=True))
    return (e / e.sum(axis=-1, keepdims=True)) @ np.array(v)
"""


def test_same_code_up_to_names_and_layout(tmp_path):
    codes = [
        similarity.code_of(name, [cell]) for name, cell in (("ada", LONG), ("bob", RENAMED), ("eve", OTHER))
    ]
    (pair,) = similarity.pairs(codes)
    assert {pair.one, pair.other} == {"ada", "bob"} and pair.share == 1.0
    assert not similarity.pairs(codes, similarity.code_of("handout", [LONG])), (
        "what was handed out is no student's"
    )
    (tmp_path / "public").mkdir()
    (tmp_path / "public" / "solution.py").write_text(f'"""Public."""\n{OTHER}')
    found = similarity.pairs([*codes, *similarity.read_public([tmp_path / "public"])])
    assert any(each.other.endswith("solution.py") and each.one == "eve" for each in found)
    short = [similarity.code_of(name, ["x = {'a': 1, 'b': 2}"]) for name in "abc"]
    assert not similarity.pairs(short), "equal numbers are right numbers"
    for text in ("def (", "'" * 3, "\t\n x", "x = \x00", "(" * 5000, "é = 1\n" * 3):
        similarity.code_of("x", [text])


def test_a_cell_of_blanks_takes_linear_time():
    assert score_tables.safe("x" + "\n" * 1_500_000 + "=1").endswith("\n'=1")
    assert score_tables.safe("\n" * 1_500_000 + "a") == "\n" * 1_500_000 + "a"


def test_a_broken_result_is_named_and_costs_no_other(tmp_path, capsys):
    for name in ("Ada", "Bob"):
        results.write(tmp_path, result(name))
    (tmp_path / "Bob.json").write_text("{")
    assert [each.student for each in read_all(tmp_path)] == ["Ada"]
    capsys.readouterr()
    assert "Bob.json" in settle.read_folder(tmp_path)[1][0]
    world.hand_in(tmp_path / "in", "Ada", *world.HONEST)
    for words in (
        "export RESULTS",
        "summary RESULTS",
        "items RESULTS",
        "log RESULTS",
        "feedback RESULTS --out RESULTS/pages",
        "manual export RESULTS RESULTS/w.csv",
        "late RESULTS/in --results RESULTS --due 2026-01-01",
        "override Ada a 1 --results RESULTS --why x",
    ):
        line = [word.replace("RESULTS", str(tmp_path)) for word in words.split()]
        assert cli.main(line) == cli.INCOMPLETE == 3, words
        said = capsys.readouterr().err
        assert "Bob.json" in said and "LEFT OUT" in said and "done without 1 of the class" in said
    assert cli.main(["override", "Bob", "a", "1", "--results", str(tmp_path), "--why", "x"]) == 1
    assert "Bob.json" in capsys.readouterr().err
    (tmp_path / "Ada.json").write_text("{")
    with pytest.raises(ValueError, match="broken result"):
        read_all(tmp_path)


@pytest.mark.parametrize(
    ("row", "filled"),
    [
        ('Ada;;"20,00"', "16,667"),  # no grade yet: the maximum tells
        ("Ada;3,5;20", "16,667"),
        ("Ada;3.5;20.00", "16.667"),
        ("Ada;;1,000", "833.33"),  # a thousand, and no decimal comma
    ],
)
def test_points_are_written_with_the_tables_own_decimal_sign(row, filled):
    for delimiter in ";,\t":
        cells = next(csv.reader([row], delimiter=";"))
        out = io.StringIO()
        csv.writer(out, delimiter=delimiter).writerows(
            [["Vollständiger Name", "Bewertung", "Bestwertung"], cells]
        )
        table, _ = gradebooks.filled([result("Ada")], parse_table(out.getvalue().encode()), "moodle")
        assert table.rows[0][1] == filled, delimiter
