"""A learning system's own table comes back with the grades in it, and every other byte as it was."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chunkprefill_grading import cli
from chunkprefill_grading.marking import results
from chunkprefill_grading.marking.mark import Mark
from chunkprefill_grading.reports import gradebooks
from chunkprefill_grading.submission.roster import RosterColumns, read_roster
from chunkprefill_grading.submission.spreadsheet import DELIMITERS, parse_table
from tests.grading.test_reports import result

#: system -> its table, with ⟦before|after⟧ where something of ours goes. Number 7 has 5 of 10 points and number
#: 8 has 7.5. Blank lines, quotes, odd numbers, lines above and short rows are not ours to change.
TABLES = {
    "moodle": (
        '"Identifier","Full name","ID number","Grade","Maximum Grade","Feedback comments"\n'
        '"Participant 7","Ada ""A"" Roe","007","⟦|5⟧","10.00","⟦|q 5 of 10⟧"\n'
        "\n"
        'Participant 8, Zoë ,1.23E+05,⟦3|7.5⟧,10.00,⟦"old, and said"|"q 7.5 of 10"⟧\n'
        'Participant 9,=Bob,\'0012,"",10.00,""'
    ),
    "moodle, no comments": (
        "sep=;\nIdentifikator;Navn;Karakter;Maximum\n\n"
        "Deltager 7;Søren;⟦|5⟧;10,00⟦|;q 5 of 10⟧\nDeltager 9;Bob;3,00;10,00⟦|;⟧\n"
        "Deltager 8;Åse;⟦2,50|7,5⟧;10,00⟦|;q 7.5 of 10⟧\nDeltager 10;Eve;;⟦|;⟧\n"
    ).replace("Maximum\n", "Maximum⟦|;Feedback comments⟧\n"),
    "moodle, merged titles": (
        "Kurs 7;;;;\nTeilnehmer;;Bewertung;;\nID;Vollständiger Name;Bewertung;Bestwertung;Kommentar\n"
        "Teilnehmer/in7;Ada;⟦|5⟧;10,00;⟦|q 5 of 10⟧\nTeilnehmer/in8;Zoë;⟦|7,5⟧;10,00;⟦|q 7.5 of 10⟧\n"
    ),
    "canvas": (
        "Student,ID,SIS User ID,SIS Login ID,Section,PS3 (4401)\n,,,,,Manual Posting\n"
        '    Points Possible,,,,,10.00\n"Roe, Ada",7,0007,ada,"S, 1",⟦|5⟧\n"Zoë",8,"00,8",z,S2,⟦9.0|7.5⟧\n'
        '"Roe, Bob",1.23E+05,0009,b,S2,3\n"Student, Test",99,,t,S1,\n'
    ),
    "gradescope": (
        '"First Name","Last Name","SID","Email","Total Score","Max Points","Status"\n'
        '"Ada","Roe","0007","7@UNI.edu","⟦|5⟧","10.0","Ungraded"\nZoë,X,1E+10,8@uni.edu,⟦|7.5⟧,10.0,\n'
        "Bob,Y,0012,bob@uni.edu,,10.0,Missing\n"
    ),
    "gradescope, a course": (
        "First Name,Last Name,SID,Email,PS3,PS3 - Max Points,PS3 - Submission Time,PS4,PS4 - Max Points\n"
        "Ada,Roe,0007,7@uni.edu,⟦|50⟧,100.0,,,10.0\nZoë,X,8,8@uni.edu,⟦6|75⟧,100.0,,9,10.0\n"
    ),
    "brightspace": (
        "OrgDefinedId,Username,Last Name,First Name,Email,PS3 Points Grade <Numeric MaxPoints:10>,"
        "End-of-Line Indicator\n#007,#ada,Roe,Ada,7@uni.edu,⟦|5⟧,#\n#008,#zoe,X,Zoë,8@uni.edu,⟦|7.5⟧,#\n"
    ),
    "blackboard": (
        '"Last Name"\t"First Name"\t"Username"\t"PS3 [Total Pts: 10 Score] |55"\n'
        '"Roe"\t"Ada"\t"7"\t"⟦|5⟧"\n"X"\t"Zoë"\t"8"\t"⟦|7.5⟧"\n"Y"\t"Bob"\t"9"\t""\n'
    ),
}


def of(text: str, which: int) -> str:
    """A table before (0) or after (1)."""
    return re.sub(r"⟦(.*?)\|(.*?)⟧", lambda found: found[which + 1], text)


def graded(folder: Path, system: str) -> Path:
    """Results of the two who have some, and of one who stands in no table."""
    for number, points in (("7", 5.0), ("8", 7.5), ("70", 1.0)):
        made = result(number, marks=(Mark("q", points, 10.0),), max_score=10.0, problem_set="PS3")
        document = {**vars(made), "name": f"number {number}", "lms": system, "lms_id": number}
        results.write(folder, results.Result(**{**document, "email": f"{number}@uni.edu"}))
    return folder


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize(
    ("encoding", "mark"),
    [("utf-8", ""), ("utf-8", "\ufeff"), ("utf-16-le", "\ufeff"), ("utf-16-be", "\ufeff"), ("cp1252", "")],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_byte_but_a_grade_s_is_as_it_was(tmp_path, capsys, kind, encoding, mark, end):
    before, after = ((mark + of(TABLES[kind], i).replace("\n", end)).encode(encoding) for i in (0, 1))
    (tmp_path / "w.csv").write_bytes(before)
    system = kind.partition(",")[0]
    words = ["export", graded(tmp_path / "r", system), "--format", system, "--worksheet", tmp_path / "w.csv"]
    if encoding == "cp1252":
        words += ["--encoding", encoding]
    assert cli.main([*map(str, words), "--out", str(tmp_path / "out.csv")]) == 0, capsys.readouterr().err
    assert (tmp_path / "out.csv").read_bytes() == after
    said = capsys.readouterr().err
    assert "70: not in the worksheet" in said
    for name, number in {"moodle": (("Zoë", "1.23E+05"),), "canvas": (("Roe, Bob", "1.23E+05"),)}.get(
        kind, ()
    ):
        assert f"{name}: a spreadsheet has damaged the number '{number}'" in said


#: Moodle's word for a participant, and its titles of number, name, grade, maximum and comments
LANGUAGES = {
    "Italian": "Partecipante ,Identificatore,Nome completo,Valutazione,Valutazione massima,Commenti al feedback",
    "Dutch": "Deelnemer ,Identificatie,Volledige naam,Cijfer,Maximumcijfer,Feedback opmerkingen",
    "Russian": "Участник ,Идентификатор,Полное имя,Оценка,Максимальная оценка,Отзыв в виде комментария",
    "Ukrainian": "Учасник ,Ідентифікатор,Повне ім'я,Оцінка,Максимальна оцінка,Коментар відгуку",
    "Czech": "Účastník ,Identifikátor,Celé jméno,Známka,Maximální známka,Komentář",
    "Turkish": "Katılımcı ,Tanımlayıcı,Ad Soyad,Not,Maksimum Not,Geribildirim yorumları",
    "Chinese": "参与者,编号,全名,成绩,最高分,反馈评论",
    "Chinese of Taiwan": "參與者,編號,全名,評分,最高分,回饋評語",
    "Korean": "참여자 ,식별자,성명,성적,최고 성적,피드백 의견",
    "Arabic": "مشارك ,المعرف,الاسم الكامل,الدرجة,الدرجة القصوى,تعليقات",
    "Hebrew": "משתתף ,מזהה,שם מלא,ציון,ציון מירבי,הערות משוב",
    "Greek": "Συμμετέχων ,Αναγνωριστικό,Ονοματεπώνυμο,Βαθμός,Μέγιστος βαθμός,Σχόλια",
    "Swedish": "Deltagare ,Identifierare,Fullständigt namn,Betyg,Maxbetyg,Kommentarer",
    "Finnish": "Osallistuja ,Tunniste,Koko nimi,Arvosana,Maksimiarvosana,Palautekommentit",
    "Norwegian": "Deltaker ,Identifikator,Fullt navn,Karakter,Maksimum karakter,Tilbakemeldinger",
    "Romanian": "Participant ,Identificator,Nume complet,Notă,Notă maximă,Comentarii feedback",
    "Catalan": "Participant ,Identificador,Nom complet,Qualificació,Qualificació màxima,Comentaris de retroacció",
    "one that is not known": "Rannpháirtí ,Aitheantóir,Ainm iomlán,Grade,Uasghrád,Feedback comments",
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_worksheet_in_any_language_is_scaled_to_its_own_maximum(tmp_path, language):
    word, number, name, grade, most, said = LANGUAGES[language].split(",")
    rows = [f"{word}{n},Name {n},,20.00,\n" for n in (7, 8, 9)]
    table = parse_table(f"{number},{name},{grade},{most},{said}\n{''.join(rows)}".encode())
    mine = [results.load(path) for path in sorted(graded(tmp_path / "r", "moodle").glob("*.json"))]
    done, notes = gradebooks.filled(mine, table, "moodle")
    assert [row[2:4] for row in done.rows] == [("10", "20.00"), ("15", "20.00"), ("", "20.00")]
    assert [row[4] for row in done.rows] == ["q 5 of 10", "q 7.5 of 10", ""] and done.header == table.header
    assert notes == ["70: not in the worksheet"]


def test_a_table_that_says_no_maximum_is_filled_and_that_is_said(tmp_path):
    mine = [results.load(path) for path in sorted(graded(tmp_path / "r", "moodle").glob("*.json"))]
    table = parse_table(b"Identifier,Full name,Grade\nParticipant 7,Ada,\n")
    done, notes = gradebooks.filled(mine, table, "moodle")
    assert done.rows[0][2] == "5" and "the table says no maximum: grades go into it as points of 10" in notes
    assert "no column is known to hold comments: they stand in a new one, 'Feedback comments'" in notes


def test_of_canvas_s_other_assignments_nothing_goes_back(tmp_path):
    """Their grades may have changed since: what is sent back is as it was written, and no more than Canvas needs."""
    text = of(TABLES["canvas"], 0)
    wide = "\r\n".join(f"{line}," + ("PS4 (9)" if not i else "4") for i, line in enumerate(text.splitlines()))
    table, _ = gradebooks.filled(results_of(tmp_path), parse_table(wide.encode()), "canvas")
    assert table.encoded().decode() == of(TABLES["canvas"], 1).replace("\n", "\r\n").removesuffix("\r\n")


def results_of(folder: Path) -> list[results.Result]:
    return [results.load(path) for path in sorted(graded(folder / "r", "canvas").glob("*.json"))]


def test_a_row_with_more_cells_than_titles_is_left_and_named(tmp_path):
    """An unquoted comma in a name moves every cell of the row."""
    text = "Student,ID,PS3\nRoe, Ada,7,\nZoë,8,\n"
    table, notes = gradebooks.filled(results_of(tmp_path), parse_table(text.encode()), "canvas")
    assert table.text() == "Student,ID,PS3\nRoe, Ada,7\nZoë,8,7.5\n"
    assert "Roe: this row has more cells than the header: it is left as it is" in notes
    assert "7: not in the worksheet" in notes
    padded = "Student,ID,PS3\nRoe,7,,\nZoë,8,,\n"
    table, notes = gradebooks.filled(results_of(tmp_path), parse_table(padded.encode()), "canvas")
    assert [row[2] for row in table.rows] == ["5", "7.5"] and "more cells" not in " ".join(notes)


def test_numbers_that_a_spreadsheet_damaged_are_no_ids_of_a_roster(tmp_path):
    (tmp_path / "r.csv").write_text("Name;ID\nAda;1.23E+05\nBob;1,23E+05\nEve;0012\n")
    read = read_roster(tmp_path / "r.csv")
    assert [(person.name, person.ids) for person in read.people] == [
        ("Ada", ()),
        ("Bob", ()),
        ("Eve", ("0012",)),
    ]
    assert [note.partition(":")[0] for note in read.notes] == ["Ada", "Bob"]


@pytest.mark.parametrize(
    ("text", "people"),
    [
        ("Class of 2026,,\nLast Name,First Name,Email\nRoe,Ada,a@x\n", ["Ada Roe"]),
        ("Student,,Marks,\nFirst name,Last name,PS1,PS2\nAda,Roe,1,2\n", ["Ada Roe"]),
        ("Name,Email,Marks,\n,,PS1,PS2\nAda Roe,a@x,1,2\n", ["Ada Roe"]),
        (
            "Course,CS 101,,\n,,,\nStudent,,Contact,\nVorname,Nachname,E-Mail,Kennung\nAda,Roe,a@x,7\n",
            ["Ada Roe"],
        ),
        ("Name,Email,\n,x@y,absent\nAda Roe,a@x,1\n", ["Ada Roe"]),
    ],
)
def test_merged_cells_above_a_table_are_no_students(tmp_path, text, people):
    for delimiter in ",;\t":
        (tmp_path / "r.csv").write_text(text.replace(",", delimiter))
        assert read_roster(tmp_path / "r.csv").names == people


def test_a_merged_title_over_two_columns_of_a_name(tmp_path):
    (tmp_path / "r.csv").write_text("Name;;Matrikel\nRoe;Ada;1\nRoe;Bob;2\n")
    read = read_roster(tmp_path / "r.csv")
    assert read.names == ["Roe Ada", "Roe Bob"] and "'Name'" in read.notes[0]
    assert read_roster(tmp_path / "r.csv", RosterColumns(name=("Name",))).names == ["Roe", "Roe"]


cells = st.text(st.sampled_from("aZ7 \"',;\t|é=\n\r"), max_size=6)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.lists(st.tuples(cells, st.booleans()), min_size=1, max_size=5), min_size=1, max_size=6),
    st.sampled_from(DELIMITERS),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.booleans(),
)
def test_any_table_that_is_read_is_written_as_it_was(rows, delimiter, end, is_ended):
    out = io.StringIO()
    for i, row in enumerate([[("Name", False), ("Grade", False)], *rows]):
        one = io.StringIO()
        csv.writer(one, delimiter=delimiter, lineterminator="").writerow([cell for cell, _ in row])
        written = [f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell, _ in row]
        text = delimiter.join(written) if any(quoted for _, quoted in row) else one.getvalue()
        out.write(text + (end if is_ended or i < len(rows) else ""))
    data = out.getvalue().encode()
    try:
        table = parse_table(data, "utf-8")
    except ValueError:
        return
    assert table.encoded() == data
    column = len(table.header) - 1
    changed = table.with_rows([[*row[:-1], "12,5"] for row in table.rows])
    back = parse_table(changed.encoded(), "utf-8")
    if back.delimiter == table.delimiter and back.header == table.header:
        assert [row[:column] for row in back.rows] == [row[:column] for row in table.rows]
