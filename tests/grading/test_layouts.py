"""Whose it is, out of every learning system's zip; and no student is merged, lost, or ends the others."""

from __future__ import annotations

import io
import json
import re
import struct
import time
import unicodedata
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from chunkprefill_grading.submission import archives, layouts
from chunkprefill_grading.submission.archives import look
from chunkprefill_grading.submission.collect import MAX_TRIES, How, collect, read_list
from chunkprefill_grading.submission.roster import Person, Roster, RosterColumns, read_roster
from chunkprefill_grading.submission.spreadsheet import read_table
from tests.grading.shapes import DAY, SHAPES, book, packed


def counted(out: Path) -> dict[str, int]:
    """Which notebook counts for each student."""
    made = {}
    for student in read_list(out).students:
        if student.file:
            cell = json.loads((out / student.file).read_text())["cells"][0]["source"]
            made[student.student] = int(cell.split()[-1])
    return made


def roster(*names: str) -> How:
    return How(Roster(tuple(Person(name) for name in names)))


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("wrapped", [False, True])
def test_each_systems_zip(tmp_path, kind, wrapped):
    entries, due = SHAPES[kind]
    if wrapped:
        entries = [(f"all of it/{name}", *rest) for name, *rest in entries]
    path = packed(tmp_path / "a.zip", entries)
    done = collect([path], tmp_path / "out")
    assert counted(tmp_path / "out") == due
    told = {entry for entry, _ in done.refused} | {each for s in done.students for each in s.aside}
    told |= {student.source for student in done.students} | set(look(path).notes)
    assert told >= {name for name, *_ in entries}, "every entry is taken, put aside, or refused by name"


@pytest.mark.parametrize("kind", SHAPES)
def test_an_unpacked_folder_is_the_same_class(tmp_path, kind):
    entries, due = SHAPES[kind]
    with zipfile.ZipFile(packed(tmp_path / "a.zip", entries)) as archive:
        archive.extractall(tmp_path / "folder")
    assert set(counted(tmp_path / "folder")) == set(due)
    collect([tmp_path / "folder"], tmp_path / "out")
    assert set(counted(tmp_path / "out")) == set(due)


def test_what_a_system_tells_is_kept(tmp_path):
    made = {}
    for kind in ("canvas", "gradescope", "blackboard", "brightspace"):
        done = collect([packed(tmp_path / f"{kind}.zip", SHAPES[kind][0])], tmp_path / kind)
        made[kind] = {student.name: student for student in done.students}
    late = made["canvas"]["oneilzoë"]
    assert (late.lms, late.lms_id, late.tag, late.aside) == (
        *("canvas", "1002", "LATE"),
        ("oneilzoë_1002_71950_PS3.ipynb",),
    )
    ada = made["gradescope"]["Ada Lovelace"]
    assert (ada.email, ada.lms, ada.when) == ("ada@uni.edu", "gradescope", 1772362800.0)
    assert made["gradescope"]["Zoë O'Neil"].when == 1772467200.0
    assert made["blackboard"]["Ada Lovelace"].lms_id == "alovelace"
    assert time.localtime(made["brightspace"]["Zoë O'Neil-Smith"].when)[:5] == (2026, 3, 1, 23, 45)


# --- identity ----------------------------------------------------------------------------------------


def moodle(name: str, number: int, n: int, *when: int) -> tuple:
    return f"{name}_{number}_assignsubmission_file_/PS3.ipynb", n, (*when, *DAY[len(when) :])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Participant", "Ada Lovelace"),
        ("Teilnehmer", "Ada Lovelace"),
        ("Ada Lovelace", "Participant"),
        ("Ada Lovelace", "Group 1-Ada Lovelace"),
        ("Ada Byron", "Ada Lovelace"),
        (unicodedata.normalize("NFC", "Zoë"), unicodedata.normalize("NFD", "Zoë")),
        ("ada lovelace", "Ada Lovelace"),
    ],
)
@pytest.mark.parametrize("newer_first", [False, True])
def test_moodles_number_is_the_student(tmp_path, before, after, newer_first):
    one = packed(tmp_path / "1.zip", [moodle(before, 12, 1, 2026, 3, 1), moodle("Bob", 13, 3)])
    two = packed(tmp_path / "2.zip", [moodle(after, 12, 2, 2026, 3, 2), moodle("Bob", 13, 3)])
    for source in [two, one] if newer_first else [one, two]:
        done = collect([source], tmp_path / "out")
    assert sorted(counted(tmp_path / "out").values()) == [2, 3]
    if unicodedata.normalize("NFC", before) != unicodedata.normalize("NFC", after):
        assert (
            any(before in each or after in each for each in done.changes) or "Participant" in before + after
        )


def test_composed_and_decomposed_names_are_one(tmp_path):
    nfc, nfd = (unicodedata.normalize(form, "Zoë Å") for form in ("NFC", "NFD"))
    collect([packed(tmp_path / "1.zip", [(f"{nfc}.ipynb", 1), ("Bob.ipynb", 3)])], tmp_path / "out")
    later = packed(tmp_path / "2.zip", [(f"{nfd}.ipynb", 2, (2026, 3, 2, 0, 0, 0)), ("Bob.ipynb", 3)])
    done = collect([later], tmp_path / "out")
    assert counted(tmp_path / "out") == {nfc: 2, "Bob": 3}
    assert len(done.changes) == 1 and "replaces" in done.changes[0]


def test_a_students_own_folders_set_no_other_students_grade(tmp_path):
    path = packed(
        tmp_path / "a.zip",
        [
            ("Ada Lovelace_12_assignsubmission_file_/PS3.ipynb", 1),
            ("Eve_13_assignsubmission_file_/Ada Lovelace_12_assignsubmission_file_/PS3.ipynb", 2),
            ("Eve_13_assignsubmission_file_/lovelaceada_12_99_PS3.ipynb", 3, (2025, 1, 1, 0, 0, 0)),
        ],
    )
    collect([path], tmp_path / "out")
    assert counted(tmp_path / "out") == {"Ada Lovelace": 1, "Eve": 2}
    plain = packed(
        tmp_path / "b.zip",
        [("Eve/Ada Lovelace_12_assignsubmission_file_/PS3.ipynb", 4), ("Bob/PS3.ipynb", 5)],
    )
    collect([plain], tmp_path / "out")
    assert counted(tmp_path / "out")["Ada Lovelace"] == 1


@pytest.mark.parametrize(
    "name", ["Ada Lovelace_12", "Ada Lovelace_12_assignsubmission_file_", "ADA LOVELACE", "Ada Lovelace_12 "]
)
def test_a_name_from_a_second_source_overwrites_no_file(tmp_path, name):
    collect([packed(tmp_path / "1.zip", [moodle("Ada Lovelace", 12, 1)])], tmp_path / "out")
    second = packed(tmp_path / "2.zip", [(f"{name}.ipynb", 2, (2026, 9, 9, 0, 0, 0)), ("Bob.ipynb", 3)])
    collect([second], tmp_path / "out")
    found = counted(tmp_path / "out")
    assert sorted(found.values()) == [1, 2, 3]
    listed = read_list(tmp_path / "out").students
    assert next(s for s in listed if s.lms_id == "12").slug == "Ada Lovelace_12"
    assert len({student.slug.casefold() for student in listed}) == 3


def test_a_zip_of_the_future_supersedes_nothing(tmp_path):
    ahead = packed(tmp_path / "1.zip", [("Ada.ipynb", 9, (2100, 1, 1, 0, 0, 0)), ("Bob.ipynb", 3)])
    today = packed(tmp_path / "2.zip", [("Ada.ipynb", 1, (2026, 3, 1, 0, 0, 0)), ("Bob.ipynb", 3)])
    for order in ([ahead, today], [today, ahead]):
        out = tmp_path / order[0].stem
        for source in order:
            done = collect([source], out)
        assert counted(out) == {"Ada": 1, "Bob": 3}
        assert all(0 <= student.when <= time.time() for student in done.students)
    assert any("2100" in each for each in collect([ahead], tmp_path / "alone").changes)


def test_each_replacement_is_reported(tmp_path):
    collect([packed(tmp_path / "1.zip", [("Ada.ipynb", 1), ("Bob.ipynb", 3)])], tmp_path / "out")
    later = packed(tmp_path / "2.zip", [("Ada/x.ipynb", 2, (2026, 3, 5, 0, 0, 0)), ("Bob/x.ipynb", 3)])
    done = collect([later], tmp_path / "out")
    assert [each for each in done.changes if "replaces" in each] == [
        "Ada: Ada/x.ipynb (2026-03-05 00:00) replaces Ada.ipynb (2026-03-01 12:00)"
    ]
    (ada,) = (student for student in done.students if student.name == "Ada")
    assert ada.aside == ("Ada.ipynb",)


@pytest.mark.parametrize("n", [3, 150])
@pytest.mark.parametrize("shape", ["class/{}.ipynb", "class/{}/PS3.ipynb", "a/b/{}.ipynb"])
def test_one_wrapping_folder_is_no_student(tmp_path, n, shape):
    path = packed(tmp_path / "a.zip", [(shape.format(f"Student {i:03d}"), i) for i in range(n)])
    done = collect([path], tmp_path / "out")
    assert len(counted(tmp_path / "out")) == n
    assert any("holds everything" in each for each in done.changes)


def test_one_student_in_a_wrapping_folder(tmp_path):
    """A folder that is called like a problem set is no student's; Eve's own folder stays hers, and that is said."""
    inner = "Ada_12_assignsubmission_file_/PS3.ipynb"
    collect([packed(tmp_path / "a.zip", [(f"PS3-Abgabe-77/{inner}", 1)])], tmp_path / "out")
    assert [student.lms_id for student in read_list(tmp_path / "out").students] == ["12"]
    done = collect([packed(tmp_path / "b.zip", [(f"Eve/{inner}", 2)])], tmp_path / "eve")
    assert [student.name for student in done.students] == ["Eve"] and "--strip 1" in done.changes[0]


def test_a_person_says_how_to_read_a_source(tmp_path):
    path = packed(tmp_path / "a.zip", [("two/a.ipynb", 1), ("two/b.ipynb", 2)])
    assert "--strip 1" in " ".join(collect([path], tmp_path / "guessed").changes)
    collect([path], tmp_path / "told", How(strip=1))
    assert counted(tmp_path / "told") == {"a": 1, "b": 2}
    one = packed(tmp_path / "b.zip", [("x_12_assignsubmission_file_.ipynb", 1)])
    collect([one], tmp_path / "plain", How(layout="plain"))
    assert [s.lms_id for s in read_list(tmp_path / "plain").students] == [""]
    with pytest.raises(ValueError, match="no layout"):
        collect([one], tmp_path / "none", How(layout="x"))


def test_a_roster_joins_what_has_a_number_and_what_has_none(tmp_path):
    how = roster("Ada Lovelace", "Bob", "Gone")
    collect([packed(tmp_path / "1.zip", [moodle("Ada Lovelace", 12, 1)])], tmp_path / "out", how)
    mailed = packed(tmp_path / "2.zip", [("Ada Lovelace.ipynb", 2, (2026, 3, 9, 0, 0, 0)), ("Bob.ipynb", 3)])
    done = collect([mailed], tmp_path / "out", how)
    assert counted(tmp_path / "out") == {"Ada Lovelace": 2, "Bob": 3}
    assert any("one student, with and without a number" in each for each in done.changes)
    assert done.missing == ["Gone"] and not done.unknown


def test_moodles_own_worksheet_tells_two_of_one_name_apart(tmp_path):
    """Its numbers are those of the zip; a number of another system's is none of them."""
    text = "ID;Vollständiger Name\nTeilnehmer/in11;Ada Roe\nTeilnehmer/in12;Ada Roe\nTeilnehmer/in13;Bob\n"
    (tmp_path / "w.csv").write_text(text, encoding="utf-8")
    entries = [moodle("Gruppe A-Ada Roe", 11, 1), moodle("Gruppe B-Ada Roe", 12, 2)]
    done = collect(
        [packed(tmp_path / "a.zip", entries)], tmp_path / "out", How(read_roster(tmp_path / "w.csv"))
    )
    assert counted(tmp_path / "out") == {"Ada Roe (11)": 1, "Ada Roe (12)": 2}
    assert done.missing == ["Bob"] and not done.unknown
    (tmp_path / "w.csv").write_text("Matrikel;Name\n11;Ada Roe\n12;Eve\n", encoding="utf-8")
    done = collect([tmp_path / "a.zip"], tmp_path / "other", How(read_roster(tmp_path / "w.csv")))
    assert {s.name for s in done.students} == {"Ada Roe"} and done.missing == ["Eve"]


@pytest.mark.parametrize(
    ("top", "people"),
    [("2026-03-01", ()), ("01.03.2026", ()), ("Section 2", ()), ("late", ()), ("misc", ("Ada", "Bob"))],
)
def test_a_folder_of_several_students_is_not_taken_for_one_in_silence(tmp_path, top, people):
    entries = [(f"{top}/Ada.ipynb", 1), (f"{top}/Bob.ipynb", 2), ("Eve/PS3.ipynb", 3), ("Eve/draft.ipynb", 4)]
    done = collect([packed(tmp_path / "a.zip", entries)], tmp_path / "out", roster(*people))
    said = [each for each in done.changes if "taken for ONE student" in each]
    assert len(said) == 1 and repr(top) in said[0] and "Ada, Bob" in said[0] and "--strip 1" in said[0]


def test_names_that_look_alike_are_several_students_and_said_to_be(tmp_path):
    names = ["Ada", "ada", "Ada\u200b", "Bob", "Bob\u202e", "Eve"]
    entries = [(f"{name}/x.ipynb", i) for i, name in enumerate(names)]
    done = collect([packed(tmp_path / "a.zip", entries)], tmp_path / "out", How(strip=0))
    assert len(done.students) == 6 and sorted(counted(tmp_path / "out").values()) == [*range(6)]
    assert [each.partition(":")[2] for each in done.changes if "look alike" in each] == [
        " 3 students by name, and the names look alike",
        " 2 students by name, and the names look alike",
    ]


def test_canvas_names_are_found_on_a_roster(tmp_path):
    how = roster("Ada Lovelace", "O'Neil, Zoë", "Wei Zhang")
    done = collect([packed(tmp_path / "a.zip", SHAPES["canvas"][0])], tmp_path / "out", how)
    assert {student.name for student in done.students} >= {"Ada Lovelace", "O'Neil, Zoë", "Wei Zhang"}
    assert done.missing == []


# --- what may lie in a zip ---------------------------------------------------------------------------


def test_what_is_no_notebook_is_listed(tmp_path):
    (tmp_path / "in" / "Bob").mkdir(parents=True)
    for name in ("Ada.ipynb", "Bob/PS3.ipynb"):
        (tmp_path / "in" / name).write_bytes(book(1))
    for name in ("Eve.pdf", "notes.txt", "Bob/photo.heic", "grades.csv"):
        (tmp_path / "in" / name).write_bytes(b"x")
    done = collect([tmp_path / "in"], tmp_path / "out", roster("Ada", "Bob", "Eve"))
    assert {entry for entry, _ in done.refused} == {"Eve.pdf", "notes.txt", "Bob/photo.heic", "grades.csv"}
    assert [s.name for s in done.students if s.file] == ["Ada", "Bob"]
    assert {s.name for s in done.students} <= {"Ada", "Bob", "Eve.pdf"}


@pytest.mark.parametrize("as_folder", [False, True])
def test_who_has_nothing_but_what_is_passed_over_is_listed_all_the_same(tmp_path, as_folder):
    owned = "{}_{}_assignsubmission_file_/{}"
    kept = [
        ("PS3.ipynb", 1),
        (".ipynb_checkpoints/PS3-checkpoint.ipynb", 9),
        (".DS_Store", b"x"),
        ("old/", b""),
    ]
    entries = [(owned.format("Ada", 1, name), content) for name, content in kept]
    for number, (name, *rest) in enumerate((*kept[1:], ("PS3.py", b"x"), ("", b"")), 2):
        entries.append((owned.format(f"S{number}", number, name), *rest))
    entries.append(("__MACOSX/Ada_1_assignsubmission_file_/._PS3.ipynb", b"x"))
    path = packed(tmp_path / "a.zip", entries)
    if as_folder:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(tmp_path / "folder")
        path = tmp_path / "folder"
    done = collect([path], tmp_path / "out")
    assert counted(tmp_path / "out") == {"Ada": 1}
    assert {student.name: student.problem for student in done.students} == {
        "Ada": "",
        "S2": "nothing but a copy that Jupyter keeps for itself, in .ipynb_checkpoints",
        "S3": "an empty folder",
        "S4": "an empty folder",
        "S5": "PS3.py: not a notebook, whose name ends in .ipynb",
        "S6": "an empty folder",
    }
    assert [entry for entry, _ in done.refused] == [owned.format("S5", 5, "PS3.py")]


def test_a_folder_that_is_empty_makes_no_student_where_no_number_says_so(tmp_path):
    entries = [
        ("Ada.ipynb", 1),
        ("Bob.ipynb", 2),
        ("data/", b""),
        (".ipynb_checkpoints/Ada-checkpoint.ipynb", 3),
    ]
    done = collect([packed(tmp_path / "a.zip", entries)], tmp_path / "out")
    assert [student.name for student in done.students] == ["Ada", "Bob"] and not done.refused
    known = collect(
        [packed(tmp_path / "b.zip", [*entries, ("Eve/", b"")])], tmp_path / "known", roster("Eve")
    )
    assert [student.problem for student in known.students] == ["", "", "an empty folder"]


def test_a_zip_of_a_students_own_is_opened_one_level_deep(tmp_path):
    inner = packed(tmp_path / "inner.zip", [("PS3/PS3.ipynb", 1), ("PS3/data.csv", b"1")])
    nested = packed(tmp_path / "nested.zip", [("inner.zip", inner.read_bytes())])
    path = packed(
        tmp_path / "a.zip",
        [
            ("Ada_1_assignsubmission_file_/PS3.zip", inner.read_bytes()),
            ("Bob_2_assignsubmission_file_/PS3.zip", nested.read_bytes()),
            ("Eve_3_assignsubmission_file_/PS3.zip", b"PK\x03\x04 broken"),
            ("Tom_4_assignsubmission_file_/PS3.ipynb", 4),
        ],
    )
    done = collect([path], tmp_path / "out")
    assert counted(tmp_path / "out") == {"Ada": 1, "Tom": 4}
    assert {s.name: s.problem for s in done.students if not s.file} == {
        "Bob": "a zip without a notebook",
        "Eve": "a zip that cannot be opened: File is not a zip file",
    }


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_every_way_to_pack_is_read_and_none_is_trusted(tmp_path, method):
    data = book(1)
    path = packed(
        tmp_path / "a.zip", [("Ada.ipynb", 1), ("Bob.ipynb", 2), ("Eve.ipynb", b" " * (64 << 20))], method
    )
    done = collect([path], tmp_path / "out")
    assert counted(tmp_path / "out") == {"Ada": 1, "Bob": 2}
    eve = next(student for student in done.students if student.name == "Eve")
    assert eve.problem.startswith(("a bomb", "more than"))
    raw = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        offset = archive.getinfo("Ada.ipynb").header_offset
    n = struct.unpack("<HH", raw[offset + 26 : offset + 30])
    raw[offset + 30 + sum(n) + 12] ^= 0x55
    (tmp_path / "b.zip").write_bytes(raw)
    done = collect([tmp_path / "b.zip"], tmp_path / "damaged")
    assert counted(tmp_path / "damaged") == {"Bob": 2}
    assert "cannot be unpacked" in next(s.problem for s in done.students if s.name == "Ada"), data


def test_entries_that_share_their_bytes_are_a_bomb(tmp_path):
    path = packed(tmp_path / "a.zip", [("Ada.ipynb", 1), ("Bob.ipynb", 2)])
    with zipfile.ZipFile(path) as archive:
        one, other = archive.infolist()
        where = archive.start_dir
    raw = bytearray(path.read_bytes())
    second = raw.index(b"PK\x01\x02", where + 4)
    raw[second + 42 : second + 46] = struct.pack("<I", one.header_offset)
    (tmp_path / "b.zip").write_bytes(raw)
    done = collect([tmp_path / "b.zip"], tmp_path / "out")
    assert not any(student.file for student in done.students), other


def test_of_four_thousand_entries_each_is_unpacked_once_and_the_list_read_once(tmp_path, monkeypatch):
    """The archive was opened anew for each, which reads the list of all: 42 s for this one."""
    done: Counter[str] = Counter()

    class Counted(archives._Opened):
        def __init__(self, source):
            done["opened"] += 1
            super().__init__(source)

        def unpacked(self, info, most=archives.MAX_BYTES):
            done["unpacked"] += 1
            return super().unpacked(info, most)

    monkeypatch.setattr(archives, "_Opened", Counted)
    names = [f"Eve_7_assignsubmission_file_/{i}.ipynb" for i in range(4000)]
    collect([packed(tmp_path / "a.zip", [(name, b"{}") for name in names])], tmp_path / "out")
    assert done["opened"] == 1 and 4000 <= done["unpacked"] < 4000 + 2 * MAX_TRIES


@pytest.mark.parametrize(
    "name",
    [
        "collected.json",
        "collected.json.ipynb",
        "ä" * 61,
        "𝕎" * 61,
        "李" * 120,
        ".hidden",
        "con",
        "nul.txt",
        "a" * 300,
        "-rf",
        "x\u202egnp",
        "tab\there",
        "\ud800",
        "log.jsonl",
        "manual",
        "~",
        "$HOME",
        "..ipynb",
    ],
)
def test_no_name_ends_collecting_for_all(tmp_path, name):
    entries = [(f"{name}.ipynb".encode("utf-8", "replace").decode(), 1), ("Bob.ipynb", 2)]
    collect([packed(tmp_path / "a.zip", entries)], tmp_path / "out")
    assert sorted(counted(tmp_path / "out").values()) == [1, 2]
    again = collect([packed(tmp_path / "a.zip", entries)], tmp_path / "out")
    assert len(again.students) == 2


def planted(**fields: object) -> str:
    row = {"student": "Ada", "slug": "Ada", "name": "Ada", "file": "Ada/Ada.ipynb", "when": 1.0, **fields}
    return json.dumps(
        {
            "format": "chunkprefill-collected",
            "version": 2,
            "students": [row],
            "refused": [],
            "missing": [],
            "unknown": [],
        }
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"slug": "../../x", "file": "../../x/x.ipynb"},
        {"slug": "a/b"},
        {"slug": ".."},
        {"slug": "con"},
        {"slug": "collected.json"},
        {"file": "/etc/passwd"},
        {"file": "Bob/Bob.ipynb"},
        {"when": 1e999},
        {"when": -1},
        {"when": "x"},
        {"when": True},
        {"name": 3},
        {"aside": [3]},
        {"more": 1},
        {"slug": "x\n"},
        {"file": "Ada/../../x.ipynb"},
        {"slug": "x" * 400},
        {"file": 7},
    ],
)
def test_a_planted_list_is_refused(tmp_path, fields):
    (tmp_path / "Ada").mkdir()
    (tmp_path / "Ada" / "Ada.ipynb").write_bytes(book(1))
    (tmp_path / "collected.json").write_text(planted())
    assert len(read_list(tmp_path).students) == 1
    (tmp_path / "collected.json").write_text(planted(**fields))
    with pytest.raises(ValueError, match="broken list"):
        read_list(tmp_path)


def test_a_planted_list_of_links_and_doubles_is_refused(tmp_path):
    (tmp_path / "Ada").symlink_to("/etc")
    (tmp_path / "collected.json").write_text(planted())
    with pytest.raises(ValueError, match="link"):
        read_list(tmp_path)
    document = json.loads(planted(file=None))
    document["students"] *= 2
    (tmp_path / "collected.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match="two students"):
        read_list(tmp_path)


# --- anything at all ---------------------------------------------------------------------------------

letters = st.text(st.characters(codec="utf-8", exclude_characters="/\\\0:"), min_size=1, max_size=20)
names = letters.filter(lambda text: text.strip(" .") and not text.startswith(("._", "__MACOSX", ".")))
shapes = st.sampled_from(
    [
        "{name}.ipynb",
        "{name}/PS3.ipynb",
        "{name}/a/b/{name}.ipynb",
        "{name}_{id}_assignsubmission_file_/x.ipynb",
        "{name}_{id}_assignsubmission_file_x.ipynb",
        "class/{name}.ipynb",
        "{id}-9 - {name} - Mar 1, 2026 130 PM/x.ipynb",
        "{name} - PS3.ipynb",
        "PS3_{name}_attempt_2026-03-01-11-00-00_x.ipynb",
        "submission_{id}/x.ipynb",
        "x_{id}_9_{name}.ipynb",
        "{name}.txt",
        "{name}/x.pdf",
        "{name}.zip",
        "../{name}.ipynb",
    ]
)
dates = st.tuples(
    st.integers(1980, 2107),
    st.integers(0, 15),
    st.integers(0, 31),
    st.integers(0, 31),
    st.integers(0, 63),
    st.integers(0, 62),
)
entries = st.lists(st.tuples(shapes, names, st.integers(1, 9), dates), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries, entries)
@example([("{name}.ipynb", "A", 1, DAY)], [("{name}.ipynb", "a", 1, DAY)])
def test_any_zips_no_crash_and_no_notebook_lost(tmp_path_factory, first, second):
    """Each notebook that can be read is a student's, or put aside and named; who was there is there still."""
    folder = tmp_path_factory.mktemp("any")
    before: set[str] = set()
    for number, rows in enumerate((first, second)):
        made = {}
        for i, (shape, name, number_of, when) in enumerate(rows):
            made.setdefault(shape.format(name=name, id=number_of), (100 * number + i, when))
        path = packed(folder / f"{number}.zip", [(entry, n, when) for entry, (n, when) in made.items()])
        done = collect([path], folder / "out")
        assert read_list(folder / "out").students == done.students
        sources = {s.source for s in done.students} | {each for s in done.students for each in s.aside}
        refused = {entry for entry, _ in done.refused}
        for found in look(path).found:
            assert found.entry in sources | refused, (found.entry, sources)
        for field in ("student", "slug"):
            values = [
                getattr(student, field).casefold() if field == "slug" else getattr(student, field)
                for student in done.students
            ]
            assert len(set(values)) == len(values)
        keys = {repr(student.key) for student in done.students}
        assert keys >= before, "no student is lost"
        before = keys
        assert not list(folder.parent.glob("*.ipynb"))


@settings(max_examples=60, deadline=None)
@given(st.lists(names, min_size=2, max_size=6, unique_by=lambda name: " ".join(name.split())))
def test_two_names_are_two_students(tmp_path_factory, people):
    folder = tmp_path_factory.mktemp("names")
    people = [name for name in people if layouts.COPY.sub("", name).strip() == name.strip()]
    plain = {unicodedata.normalize("NFC", name).strip() for name in people}
    rows = [(f"{name}/x.ipynb", i) for i, name in enumerate(people)]
    collect(
        [packed(folder / "a.zip", [*rows, ("One More/x.ipynb", 99)])],
        folder / "out",
        How(layout="plain", strip=0),
    )
    assert len(counted(folder / "out")) == len({" ".join(name.split()) for name in plain}) + 1


# --- rosters -----------------------------------------------------------------------------------------

ROSTERS = {
    "German": "Vorname;Nachname;E-Mail-Adresse\nAda;Lovelace;ada@x\n",
    "German, name first": "Name;Vorname;Matrikelnummer\nLovelace;Ada;0012\n",
    "French": "Prénom;Nom;Adresse de courriel\nAda;Lovelace;ada@x\n",
    "Spanish": "Apellidos,Nombre\nLovelace,Ada\n",
    "Italian": "Cognome;Nome;Matricola\nLovelace;Ada;7\n",
    "Portuguese": "Nome completo;Nº\nAda Lovelace;7\n",
    "Dutch": "Voornaam;Achternaam\nAda;Lovelace\n",
    "Polish": "Imię;Nazwisko\nAda;Lovelace\n",
    "Chinese": "学号,姓名\n7,Ada Lovelace\n",
    "Japanese": "氏名,学籍番号\nAda Lovelace,7\n",
    "Korean": "학번,이름\n7,Ada Lovelace\n",
    "Russian": "Имя;Фамилия\nAda;Lovelace\n",
    "Turkish": "Ad;Soyad\nAda;Lovelace\n",
    "Arabic": "الاسم الكامل,البريد الإلكتروني\nAda Lovelace,a@x\n",
    "Canvas": 'Student,ID,SIS User ID\n    Points Possible,,\n"Lovelace, Ada",1,2\n',
    "sep=": "sep=;\nStudent;x\nAda Lovelace;1\n",
    "quoted": '"Full name","ID number"\n"Ada Lovelace","00012"\n',
}


@pytest.mark.parametrize("language", ROSTERS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_rosters_of_many_languages(tmp_path, language, encoding):
    (tmp_path / "r.csv").write_bytes(ROSTERS[language].encode(encoding))
    assert Roster(read_roster(tmp_path / "r.csv").people).find("Ada Lovelace") is not None


def test_rosters_of_western_windows_and_of_none_that_is_known(tmp_path):
    (tmp_path / "r.csv").write_bytes("Prénom;Nom\nZoë;Müller\n".encode("cp1252"))
    assert read_roster(tmp_path / "r.csv").names == ["Zoë Müller"]
    (tmp_path / "r.csv").write_text("Ainm;Sloinne;x\nAda;Lovelace;1\n", encoding="utf-8")
    guessed = read_roster(tmp_path / "r.csv")
    assert guessed.names == ["Ada"] and "--name-column" in guessed.notes[0]
    told = read_roster(tmp_path / "r.csv", RosterColumns(name=("Ainm", "Sloinne")))
    assert told.names == ["Ada Lovelace"] and not told.notes
    with pytest.raises(ValueError, match="no column 'Nombre'"):
        read_roster(tmp_path / "r.csv", RosterColumns(name=("Nombre",)))


NAMES = {
    "cp1250": ("Jiří Dvořák", "Lucie Černá", "Łukasz Żak", "Kovács Őrs", "Ivan Đurić"),
    "cp1251": ("Иван Петров", "Ольга Щукина"),
    "cp1252": ("José García", "François Lefèvre", "Jürgen Müßig", "Søren Åkesson", "João Gonçalves"),
    "cp1253": ("Γιώργος Παπαδόπουλος", "Ελένη Νικολάου"),
    "cp1254": ("Ayşe Yılmaz", "Çağrı Öztürk", "İbrahim Şahin"),
    "cp1255": ("משה כהן", "שרה לוי"),
    "cp1256": ("محمد علي", "فاطمة حسن"),
    "cp1257": ("Ģirts Bērziņš", "Rūta Žukauskaitė"),
    "cp932": ("山田太郎", "すずき花子"),
    "cp949": ("김민수", "박지영"),
    "gb18030": ("王小明", "李娜"),
    "mac_roman": ("José García", "François Lefèvre", "Jürgen Müßig"),  # Excel's "CSV (Macintosh)"
}


@pytest.mark.parametrize("encoding", NAMES)
def test_a_roster_whose_header_tells_nothing_is_read_by_its_names_and_said_to_be_a_guess(tmp_path, encoding):
    """Titles of plain letters above names of old encodings; and a person who knows better is believed."""
    path = tmp_path / "r.csv"
    path.write_bytes(
        ("name;id\n" + "".join(f"{name};7{i}\n" for i, name in enumerate(NAMES[encoding]))).encode(encoding)
    )
    read = read_roster(path)
    assert read.names == [*NAMES[encoding]]
    (note,) = read.notes
    assert "r.csv: not UTF-8, and read as" in note and NAMES[encoding][0] in note and "--encoding" in note
    named = read_roster(path, RosterColumns(encoding=encoding))
    assert (named.names, named.notes) == ([*NAMES[encoding]], ())
    with pytest.raises(ValueError, match=r"r\.csv.*no encoding 'cp9999'"):
        read_roster(path, RosterColumns(encoding="cp9999"))


#: Names that each may stand alone in a table; some of them are as good a name in another encoding.
ALONE = {
    "cp1252": (
        "Françoise",
        "Zoë",
        "Peña",
        "Müller",
        "Søren",
        "Åsa",
        "João",
        "Hélène",
        "Sævar Þórsson",
        "O’Neil",
    ),
    "cp1250": ("Dvořák", "Łukasz", "Kovács Őrs", "Đurić", "Novák", "Ionuţ", "Żak"),
    "cp1251": ("Иван Петров", "Ольга"),
    "cp1253": ("Ελένη", "Γιώργος"),
    "cp1254": ("Ayşe", "Yılmaz", "Çağrı", "İbrahim"),
    "cp1255": ("משה כהן",),
    "cp1256": ("محمد علي",),
    "cp1257": ("Ģirts", "Žukauskaitė"),
    "koi8-r": ("Иван Петров", "Ольга"),
    "mac_roman": ("José", "François", "Müller", "O’Neil"),
    "mac_cyrillic": ("Иван", "Ольга"),
    "mac_latin2": ("Dvořák", "Łukasz"),
    "iso8859-2": ("Beneš", "Ľuboš"),
    "iso8859-5": ("Иван", "Ольга"),
    "cp850": ("José", "François", "Müller"),
    "cp852": ("Dvořák",),
    "cp866": ("Иван", "Ольга"),
    "cp932": ("山田太郎", "佐藤", "すずき"),
    "euc_jp": ("山田太郎", "佐藤"),
    "gb18030": ("王小明", "李娜", "张伟", "辛弃疾", "卢"),
    "big5": ("王小明", "陳大文"),
    "cp949": ("김민수",),
}
ASKED = "several ways|no encoding that is tried"


@pytest.mark.parametrize("encoding", ALONE)
def test_one_name_of_an_old_encoding_is_read_as_it_is_or_asked_about(tmp_path, encoding):
    """Never misread: where two encodings make names of it, both are shown, and `--encoding` decides."""
    path = tmp_path / "r.csv"
    for name in ALONE[encoding]:
        path.write_bytes(f"name;id\n{name};7\n".encode(encoding))
        try:
            assert read_roster(path).names == [name]
        except ValueError as error:
            assert re.search(ASKED, str(error)) and "r.csv" in str(error) and "--encoding" in str(error)
        assert read_roster(path, RosterColumns(encoding=encoding)).names == [name]
        known = read_table(path, names=[f"{name} of another table", "Ada"])
        assert known.rows[0][0] == name, "who is in the class tells how a table is spelt"


@pytest.mark.parametrize(
    ("encoding", "names", "as_well"),
    [
        ("cp1252", ["Peña"], "'Peńa;7' in cp1250"),
        ("cp1254", ["Ayşe", "Müller"], "'Ayþe;7' in cp1252"),
        ("cp1250", ["Đurić"], "'Ðuriæ;7' in cp1252"),
        ("mac_roman", ["Müller"], "'Mźller;7' in cp1250"),
        ("cp1252", ["Jákup Høgnadóttir"], "'Jákup Hřgnadóttir;7' in cp1250"),
    ],
)
def test_names_that_two_encodings_spell_are_not_guessed(tmp_path, encoding, names, as_well):
    rows = "".join(f"{name};7\n" for name in names)
    (tmp_path / "r.csv").write_bytes(f"name;id\n{rows}".encode(encoding))
    with pytest.raises(ValueError, match="several ways") as caught:
        read_roster(tmp_path / "r.csv")
    assert as_well in str(caught.value) and f"'{names[0]};7' in {encoding}" in str(caught.value)


def test_more_names_tell_what_one_does_not(tmp_path):
    names = ["Peña", "François", "Søren Åkesson"]
    rows = "".join(f"{name};7\n" for name in names)
    (tmp_path / "r.csv").write_bytes(f"name;id\n{rows}".encode("cp1252"))
    assert read_roster(tmp_path / "r.csv").names == names


@pytest.mark.parametrize("name", ["rot13", "zlib", "hex", "cp9999"])
def test_what_is_no_encoding_of_text_is_refused_by_name(tmp_path, name):
    (tmp_path / "r.csv").write_bytes(b"name;id\nAda;7\n")
    with pytest.raises(ValueError, match=rf"no encoding '{name}'; there are utf-8"):
        read_roster(tmp_path / "r.csv", RosterColumns(encoding=name))


@pytest.mark.parametrize(
    ("header", "encoding"),
    [
        ("Jméno a příjmení;x", "cp1250"),
        ("JMENO A PRIJMENI;x", "utf-8"),
        ("ADI SOYADI;x", "utf-8"),
        ("Adı Soyadı;Öğrenci No", "cp1254"),
        ("Фамилия, имя;Группа", "cp1251"),
        ("Họ tên;x", "utf-8"),
        ("Név;x", "cp1250"),
        ("Apellidos y nombre;x", "utf-8"),
        ("氏名;学籍番号", "cp932"),
        ("姓名;学号", "gb18030"),
        ("Name, Vorname;Matrikelnummer", "utf-8"),
    ],
)
def test_rosters_of_old_encodings_and_more_titles(tmp_path, header, encoding):
    (tmp_path / "r.csv").write_bytes(f"{header}\nLovelace, Ada;123\nHopper, Grace;124\n".encode(encoding))
    read = read_roster(tmp_path / "r.csv")
    assert read.names == ["Lovelace, Ada", "Hopper, Grace"] and not read.notes


@pytest.mark.parametrize(
    ("text", "due", "left_out"),
    [
        (
            'Student,ID,SIS User ID\n    Points Possible,,\nLovelace; Ada,1,S1\nBob Roe,2,S2\n"Student, Test",3,\n',
            ["Lovelace; Ada", "Bob Roe"],
            ["Points Possible", "Student, Test"],
        ),
        (
            "Name;Matrikel\nAda;0012\nBob;0013\n\nSumme;2\nDurchschnitt:;\n",
            ["Ada", "Bob"],
            ["Summe", "Durchschnitt:"],
        ),
        ("name,email\nAda,a@x\nSuma,s@x\nMax,m@x\nTOTAL,\n", ["Ada", "Suma", "Max"], ["TOTAL"]),
        ("name\nAda\nSuma\nMax\n", ["Ada", "Suma", "Max"], []),
    ],
)
def test_rows_that_gradebooks_and_spreadsheets_add_are_no_students(tmp_path, text, due, left_out):
    """A row of sums is named and left out; who is called like a sum, and has what others have, stays."""
    (tmp_path / "r.csv").write_text(text, encoding="utf-8")
    read = read_roster(tmp_path / "r.csv")
    assert read.names == due
    assert [*read.notes] == [f"the roster's row {each!r} is taken for no student" for each in left_out]


@pytest.mark.parametrize(
    ("text", "due"),
    [
        (
            "University of X\nCourse: CS 101\n\nLast Name,First Name,Email\nRoe,Ada,a@x\n",
            ("Ada Roe", (), "a@x"),
        ),
        ("Kurs 7\n\nName;Matrikelnummer\nRoe, Ada;0012\n", ("Roe, Ada", ("0012",), "")),
        ('Name,ID\n"=""Ada Roe""","=""0012"""\n', ("Ada Roe", ("0012",), "")),
        ("Name,Student ID\n'Ada Roe,'0012\n", ("Ada Roe", ("0012",), "")),
        ("sep=;\nName,ID\nAda Roe,0012\n", ("Ada Roe", ("0012",), "")),
        ('sep=;\nName;ID\n"Roe, Ada";0012\n', ("Roe, Ada", ("0012",), "")),
        ("Email\na@x\n", ("a@x", (), "a@x")),
    ],
)
def test_what_spreadsheets_and_offices_put_around_a_roster(tmp_path, text, due):
    (tmp_path / "r.csv").write_text(text, encoding="utf-8")
    (person,) = read_roster(tmp_path / "r.csv").people
    assert (person.name, person.ids, person.email) == due


def test_what_is_not_seen_makes_no_other_name(tmp_path):
    assert Roster((Person("\u200bAda\u00a0Roe\u200b"),)).find("Ada Roe") is not None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<html><table><tr><td>Name</td></tr></table></html>", "a web page or XML"),
        ("\ufeff\n<?xml version='1.0'?><Workbook/>", "a web page or XML"),
        ('Name,ID\n"Ada,1\nBob,2\n', "a quotation mark opens a cell and is never closed"),
    ],
)
def test_what_is_called_a_table_and_is_none(tmp_path, text, why):
    (tmp_path / "r.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=f"r.csv: cannot be read as a table: .*{why}"):
        read_roster(tmp_path / "r.csv")


def test_a_first_name_under_name_beside_a_surname(tmp_path):
    (tmp_path / "r.csv").write_text("Name;Surname\nAda;Lovelace\n")
    assert read_roster(tmp_path / "r.csv").names == ["Ada Lovelace"]


def test_czech_names_are_read_as_they_were_written(tmp_path):
    (tmp_path / "r.csv").write_bytes("Jméno;Příjmení\nJiří;Dvořák\n".encode("cp1250"))
    assert read_roster(tmp_path / "r.csv").names == ["Jiří Dvořák"]


# --- zips of zips, folders of folders ----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["canvas", "classroom"])
def test_one_student_who_hands_in_a_zip_costs_no_identity(tmp_path, kind):
    entries, due = SHAPES[kind]
    inner = packed(tmp_path / "inner.zip", [("PS3.ipynb", 1), ("old/draft.ipynb", 9, (2020, 1, 1, 0, 0, 0))])
    (name, *_), *rest = entries
    zipped = (name.replace(".ipynb", ".zip"), inner.read_bytes())
    collect([packed(tmp_path / "a.zip", [zipped, *rest])], tmp_path / "out")
    made = counted(tmp_path / "out")
    assert set(made) == set(due)
    plain, _ = SHAPES["plain"]
    collect([packed(tmp_path / "b.zip", [*plain, ("Eve.zip", inner.read_bytes())])], tmp_path / "plain")
    assert "Eve" in counted(tmp_path / "plain")


@pytest.mark.parametrize("shape", ["submissions/submissions/{}.ipynb", "PS3/notebooks/{}.ipynb"])
def test_two_wrapping_folders_are_no_student(tmp_path, shape):
    path = packed(
        tmp_path / "a.zip", [(shape.format(name), i) for i, name in enumerate(("Ada", "Bob", "Eve"))]
    )
    collect([path], tmp_path / "out")
    assert counted(tmp_path / "out") == {"Ada": 0, "Bob": 1, "Eve": 2}
    two = packed(tmp_path / "b.zip", [(shape.format(name), i) for i, name in enumerate(("Ada", "Bob"))])
    assert "--strip 2" in " ".join(collect([two], tmp_path / "two").changes)


def test_a_students_own_folder_of_notebooks_stays_one_students(tmp_path):
    path = packed(tmp_path / "a.zip", [(f"Ada/notebooks/{name}.ipynb", 1) for name in ("x", "y", "z")])
    done = collect([path], tmp_path / "out")
    assert set(counted(tmp_path / "out")) == {"Ada"} and "'Ada'" in done.changes[0]


def test_groups_that_hold_a_systems_folders_are_no_students(tmp_path):
    entries = [
        ("Group A/Ada_101_assignsubmission_file_/PS3.ipynb", 1),
        ("Group A/Bob_102_assignsubmission_file_/PS3.ipynb", 2),
        ("Group B/Eve_103_assignsubmission_file_/PS3.ipynb", 3),
    ]
    done = collect([packed(tmp_path / "a.zip", entries)], tmp_path / "out")
    assert counted(tmp_path / "out") == {"Ada": 1, "Bob": 2, "Eve": 3}
    assert "'Group A', 'Group B'" in done.changes[0]
    mixed = [*entries[:2], ("Zoe/PS3.ipynb", 4)]
    done = collect([packed(tmp_path / "b.zip", mixed)], tmp_path / "mixed")
    assert set(counted(tmp_path / "mixed")) == {"Group A", "Zoe"}, "one folder does not speak for another"


def test_a_class_beside_one_notebook_is_said_to_be_taken_for_one_student(tmp_path):
    entries = [("PS3.ipynb", 0), *((f"class/{name}.ipynb", 1) for name in ("Ada", "Bob", "Eve"))]
    done = collect([packed(tmp_path / "a.zip", entries)], tmp_path / "out")
    assert any(
        "'class' is taken for ONE student" in each and "Ada, Bob, Eve" in each for each in done.changes
    )


# --- the learning system's own files -----------------------------------------------------------------


@pytest.mark.parametrize("as_folder", [False, True])
def test_gradescopes_file_with_all_results_is_read(tmp_path, as_folder):
    entries, due = SHAPES["gradescope"]
    text = entries[0][1].decode()
    text = text.replace(
        "  :status:", f"  :history:\n{'  - :output: what a student printed ☃' * 4_000}\n  :status:"
    )
    assert len(text) > 200_000
    path = packed(tmp_path / "a.zip", [(entries[0][0], text.encode()), *entries[1:]], zipfile.ZIP_STORED)
    if as_folder:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(tmp_path / "folder")
        path = tmp_path / "folder"
    collect([path], tmp_path / "out")
    assert set(counted(tmp_path / "out")) == set(due)


def test_gradescopes_file_as_ruby_writes_it(tmp_path):
    """Long names go on in the next line, the keys come in any order, and what a student printed is no submitter."""
    text = """\
---
submission_1:
  :results:
    output: |
      submission_2:
        :submitters:
        - :name: Evil
  :submitters:
  - :sid: '0044'
    :role: student
    :email: Ada@uni.edu
    :name: Ada Maria Antonia Josepha Johanna Wilhelmine Friederike Charlotte von und zu
      Lovelace
  - :name: 'Anna ''Anni''
      Müller'
    :email:
    :sid: '45'
submission_2:
  :submitters:
  - :name:
    :email: b@uni.edu
"""
    entries = [("submission_metadata.yml", text.encode())]
    entries += [(f"submission_{n}/PS3.ipynb", n) for n in (1, 2)]
    done = collect([packed(tmp_path / "a.zip", entries)], tmp_path / "out")
    assert {(student.name, student.lms_id) for student in done.students} == {
        (
            "Ada Maria Antonia Josepha Johanna Wilhelmine Friederike Charlotte von und zu Lovelace",
            "ada@uni.edu",
        ),
        ("Anna 'Anni' Müller", "45"),
        ("submission_2", "2"),
    }


def test_a_systems_file_that_is_too_large_is_no_student(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_NOTES", 10)
    entries, _ = SHAPES["gradescope"]
    done = collect([packed(tmp_path / "a.zip", entries)], tmp_path / "out")
    assert any("submission_metadata.yml" in entry for entry, _ in done.refused)
    assert {student.name for student in done.students} == {"submission_301", "submission_302"}
    monkeypatch.setattr(archives, "MAX_NOTES", 1 << 20)
    monkeypatch.setattr(archives, "MAX_ALL_NOTES", 1000)
    many = [(f"{i}/submission_metadata.yml", b"x" * 400) for i in range(9)]
    assert len(look(packed(tmp_path / "b.zip", many)).notes) == 2


@pytest.mark.parametrize("ending", [".ipynb", ".ipynb.txt", ".ipynb.json", ".IPYNB", ".ipynb.TXT"])
@pytest.mark.parametrize("as_folder", [False, True])
def test_a_notebook_that_a_browser_gave_another_ending_is_one(tmp_path, ending, as_folder):
    data = packed(
        tmp_path / "1.zip", [(f"Ada{ending}", 1), (f"Bob/PS3 (1){ending}", 2), ("Eve/readme.txt", 3)]
    )
    if as_folder:
        with zipfile.ZipFile(data) as archive:
            archive.extractall(tmp_path / "in")
        data = tmp_path / "in"
    done = collect([data], tmp_path / "out")
    assert [(s.student, s.file is not None) for s in done.students] == [
        ("Ada", True),
        ("Bob", True),
        ("Eve", False),
    ]
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr(f"work/PS3{ending}", book(4))
    with zipfile.ZipFile(tmp_path / "2.zip", "w") as archive:
        archive.writestr("Zoe.zip", inner.getvalue())
    assert [s.student for s in collect([tmp_path / "2.zip"], tmp_path / "more").students if s.file] == ["Zoe"]


@pytest.mark.parametrize(
    ("text", "people"),
    [
        ("Last,First,ID\nLovelace,Ada,1\n", [Person("Ada Lovelace", ("1",))]),
        (
            "Course 101, spring\n\n,\nName,Email\nAda,a@x\nBob,b@x\n",
            [Person("Ada", (), "a@x"), Person("Bob", (), "b@x")],
        ),
        (
            "Ada Lovelace <ada@x.org>\nBob <b@x.org>\n",
            [Person("Ada Lovelace", (), "ada@x.org"), Person("Bob", (), "b@x.org")],
        ),
        ("Name\rAda Lovelace\rBob Roe\r", [Person("Ada Lovelace"), Person("Bob Roe")]),
    ],
)
def test_rosters_with_short_titles_words_above_or_addresses_beside_names(tmp_path, text, people):
    (tmp_path / "r.csv").write_text(text, newline="")
    assert list(read_roster(tmp_path / "r.csv").people) == people
