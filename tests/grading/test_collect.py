"""Whose notebook is it, and which one counts: Moodle's zips, plain zips, folders, and second tries."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from chunkprefill_grading import cli
from chunkprefill_grading.submission import layouts
from chunkprefill_grading.submission.collect import How, collect, named, read_list, slug
from chunkprefill_grading.submission.roster import Person, Roster, name_keys, read_roster
from tests.grading.hostile import world


def book(n: int) -> bytes:
    return json.dumps(world.notebook(f"number = {n}")).encode()


def packed(path: Path, *entries: tuple[str, int, tuple[int, ...]]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, n, when in entries:
            archive.writestr(zipfile.ZipInfo(name, (*when, *(2026, 1, 1, 0, 0, 0)[len(when) :])), book(n))
    return path


def counted(out: Path) -> dict[str, int]:
    """Which notebook counts for each student."""
    made = {}
    for student in read_list(out).students:
        if student.file:
            cell = json.loads((out / student.file).read_text())["cells"][0]["source"]
            made[student.student] = int(cell.split()[-1])
    return made


DAY = (2026, 3, 1)


@pytest.mark.parametrize(
    ("entry", "name", "number"),
    [
        ("Ada Lovelace_123_assignsubmission_file_/PS1.ipynb", "Ada Lovelace", "123"),
        ("Ada Lovelace_123_assignsubmission_file_PS1.ipynb", "Ada Lovelace", "123"),
        ("Eve/Ada Lovelace_123_assignsubmission_file_/PS1.ipynb", "Eve", ""),
        ("O'Neil, Zoë_7_assignsubmission_file_/x.ipynb", "O'Neil, Zoë", "7"),
        ("a_b_9_assignsubmission_file_/x.ipynb", "a_b", "9"),
        ("Participant_55_assignsubmission_file_/x.ipynb", "Participant", "55"),
        ("Ada.ipynb", "Ada", ""),
        ("Ada/PS1.ipynb", "Ada", ""),
        ("Ada/week 1/PS1.ipynb", "Ada", ""),
        ("Copy of Ada.ipynb", "Ada", ""),
        ("Ada (2).ipynb", "Ada", ""),
        ("Ada-Copy1.ipynb", "Ada", ""),
        ("Copy of Copy of Ada (1).ipynb", "Ada", ""),
        ("Copy of .ipynb", "Copy of", ""),
    ],
)
def test_whose_it_is(entry, name, number):
    parts = tuple(entry.split("/"))
    kind = layouts.detected([parts])
    (owner,) = layouts.plan([parts], {}, Roster(), layout=kind, strip=0).owners(parts)
    assert (owner.name, owner.id) == (name, number)


def test_a_group_before_the_name_is_told_by_the_roster():
    assert layouts.without_group("Group A-Anne-Marie Roe", Roster()) == "Group A-Anne-Marie Roe"
    roster = Roster((Person("Anne-Marie Roe"), Person("Roe")))
    assert layouts.without_group("Group A-Anne-Marie Roe", roster) == "Anne-Marie Roe"


def test_a_moodle_zip(tmp_path):
    path = packed(
        tmp_path / "moodle.zip",
        ("Ada Lovelace_1_assignsubmission_file_/PS1.ipynb", 1, DAY),
        ("Wei Zhang_2_assignsubmission_file_/PS1.ipynb", 2, DAY),
        ("Wei Zhang_3_assignsubmission_file_/PS1.ipynb", 3, DAY),
        ("Max Mustermann_4_assignsubmission_file_/PS1.ipynb", 4, DAY),
        ("Max Mustermann_4_assignsubmission_file_/Copy of PS1.ipynb", 5, DAY),
        ("No Body_5_assignsubmission_onlinetext_/onlinetext.html", 0, DAY),
    )
    roster = tmp_path / "roster.csv"
    roster.write_text("First name,Last name,id\nAda,Lovelace,1\nWei,Zhang,2\nGone,Away,9\n")
    done = collect([path], tmp_path / "out", How(read_roster(roster)))
    assert counted(tmp_path / "out") == {
        **{"Ada Lovelace": 1, "Wei Zhang (2)": 2, "Wei Zhang (3)": 3, "Max Mustermann": 5},
    }
    assert done.missing == ["Gone Away"]
    assert set(done.unknown) == {"Max Mustermann", "No Body"}
    lost = next(student for student in done.students if student.student == "No Body")
    assert lost.file is None and "not a notebook" in lost.problem
    copies = next(student for student in done.students if student.student == "Max Mustermann")
    assert copies.aside == ("Max Mustermann_4_assignsubmission_file_/PS1.ipynb",)
    assert [student.lms_id for student in done.students if student.name == "Wei Zhang"] == ["2", "3"]


def test_the_last_one_counts(tmp_path):
    early, late = (2026, 3, 1), (2026, 3, 2)
    path = packed(
        tmp_path / "a.zip",
        ("Ada/new.ipynb", 1, late),
        ("Ada/Copy of old.ipynb", 2, early),
        ("Bob/PS1.ipynb", 3, early),
        ("Bob/PS1 (1).ipynb", 4, early),
        ("Bob/PS1 (10).ipynb", 5, early),
        ("Bob/PS1 (9).ipynb", 6, early),
        ("Eve.ipynb", 7, early),
        ("Copy of Eve.ipynb", 8, early),
    )
    collect([path], tmp_path / "out")
    assert counted(tmp_path / "out") == {"Ada": 1, "Bob": 5, "Eve": 8}


def test_a_problem_set_counts_before_any_other_notebook(tmp_path):
    text = json.dumps(world.notebook("# Answer: number\nnumber = 1"))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo("Ada/PS1.ipynb", (2026, 3, 1, 0, 0, 0)), text)
        archive.writestr(zipfile.ZipInfo("Ada/scratch.ipynb", (2026, 3, 9, 0, 0, 0)), book(2))
    collect([tmp_path / "a.zip"], tmp_path / "out")
    assert counted(tmp_path / "out") == {"Ada": 1}


def test_collected_again_the_newer_one_stays_whatever_the_order(tmp_path):
    early = packed(tmp_path / "1.zip", ("Ada.ipynb", 1, (2026, 3, 1)), ("Bob.ipynb", 3, (2026, 3, 1)))
    late = packed(tmp_path / "2.zip", ("Ada.ipynb", 2, (2026, 3, 2)))
    for number, order in enumerate(((early, late), (late, early))):
        out = tmp_path / f"out{number}"
        for source in order:
            collect([source], out)
        assert counted(out) == {"Ada": 2, "Bob": 3}
    collect([early, late], tmp_path / "both")
    assert counted(tmp_path / "both") == {"Ada": 2, "Bob": 3}
    before = (tmp_path / "both" / "collected.json").read_text()
    collect([early, late], tmp_path / "both")
    assert (tmp_path / "both" / "collected.json").read_text() == before


def test_one_entry_twice_in_a_zip_the_last_counts(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate"):
        path = packed(tmp_path / "a.zip", ("Ada.ipynb", 1, DAY), ("Ada.ipynb", 2, DAY))
    collect([path], tmp_path / "out")
    assert counted(tmp_path / "out") == {"Ada": 2}


def test_a_class_zipped_as_a_whole(tmp_path):
    path = packed(
        tmp_path / "a.zip",
        ("class/Ada/a.ipynb", 1, DAY),
        ("class/Bob/b.ipynb", 2, DAY),
        ("class/Eve.ipynb", 3, DAY),
    )
    collect([path], tmp_path / "out")
    assert counted(tmp_path / "out") == {"Ada": 1, "Bob": 2, "Eve": 3}
    one = packed(tmp_path / "b.zip", ("Ada/a.ipynb", 1, DAY), ("Ada/b.ipynb", 2, (2026, 3, 2)))
    collect([one], tmp_path / "one")
    assert counted(tmp_path / "one") == {"Ada": 2}
    flat = packed(tmp_path / "c.zip", ("class/Ada.ipynb", 1, DAY), ("class/Bob.ipynb", 2, DAY))
    collect([flat], tmp_path / "named", How(Roster((Person("Ada"), Person("Bob")))))
    assert counted(tmp_path / "named") == {"Ada": 1, "Bob": 2}


def test_folders_are_read_as_they_are_too(tmp_path):
    (tmp_path / "Bob").mkdir()
    (tmp_path / "Bob" / "PS1.ipynb").write_bytes(book(2))
    (tmp_path / "Bob" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "Bob" / ".ipynb_checkpoints" / "PS1-checkpoint.ipynb").write_bytes(book(9))
    (tmp_path / "Ada.ipynb").write_bytes(book(1))
    (tmp_path / "notes.txt").write_text("mine")
    assert counted(tmp_path) == {"Ada": 1, "Bob": 2}
    assert read_list(tmp_path).refused == [["notes.txt", "not a notebook"]]
    with pytest.raises(ValueError, match="no such folder"):
        read_list(tmp_path / "nowhere")
    (tmp_path / "collected.json").write_text('{"format": "x"')
    with pytest.raises(ValueError, match="broken list"):
        read_list(tmp_path)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("student\nAda\nBob\n", ["Ada", "Bob"]),
        ("Ada\nBob\n", ["Ada", "Bob"]),
        ('id;Full name;e-mail\n1;"Lovelace; Ada";a@x\n', ["Lovelace; Ada"]),
        ("\ufeffSurname,First name\nLovelace,Ada\n\n", ["Ada Lovelace"]),
        ("Name\tId\nAda\t3\nAda\t3\n", ["Ada"]),
    ],
)
def test_rosters(tmp_path, text, names):
    (tmp_path / "r.csv").write_text(text, encoding="utf-8")
    assert read_roster(tmp_path / "r.csv").names == names


def test_a_roster_that_is_none(tmp_path):
    (tmp_path / "r.csv").write_bytes(b"PK\x03\x04x")
    (tmp_path / "empty.csv").write_text("\n")
    for name in ("r.csv", "empty.csv", "none.csv"):
        with pytest.raises(ValueError, match=name):
            read_roster(tmp_path / name)


def test_names_as_two_lists_spell_them():
    assert name_keys("Lovelace,  ADA") == name_keys("Ada Lovelace") == name_keys("ada_lovelace")
    assert slug("Ada Lovelace", "3") == "Ada Lovelace_3"
    for name in ("../x", "=cmd", "<b>", "con", "a/b", "ä" * 300, ".hidden", "x\n", "\u202egnp"):
        made = slug(name)
        assert made not in ("", ".", "..") and not set(made) & set('/\\<>:"|?*\n\0') and len(made) < 90
    assert slug("a:b") != slug("a|b")


def test_students_who_cannot_be_told_apart_get_numbers(tmp_path):
    path = packed(tmp_path / "a.zip", ("ada/x.ipynb", 1, DAY), ("Ada/x.ipynb", 2, DAY))
    done = collect([path], tmp_path / "out")
    assert len({s.student for s in done.students}) == len({s.slug.casefold() for s in done.students}) == 2
    assert named(done.students, {}) == done.students


def test_thousands_of_files_that_are_no_notebooks_take_a_few_lines(tmp_path, capsys):
    entries = [(f"Eve/{i}.txt", b"") for i in range(5_000)] + [(f"{i}.pdf", b"") for i in range(63)]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, data in [("Ada.ipynb", book(1)), *entries]:
            archive.writestr(name, data)
    assert cli.main(["collect", str(tmp_path / "a.zip"), "--out", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert (
        "refused: 4994 more in Eve: not a notebook" in lines
        and "refused: 3 more at the top: not a notebook" in lines
    )
    assert len(lines) < 80 and len(read_list(tmp_path / "out").refused) == 5_063
