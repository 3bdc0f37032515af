"""An instructor's sitting: a Moodle zip of mixed submissions, from collecting to the worksheet."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chunkprefill_grading import cli, problems
from chunkprefill_grading.marking import run as runs
from chunkprefill_grading.marking.settle import read_all
from chunkprefill_grading.problems import key as keys
from chunkprefill_grading.sandbox.limits import Limits
from tests.grading.hostile.attacks import EQUAL
from tests.once import once
from tests.proof import draws

SECRET, OTHER = "3b9f0c1a7d5e24688f1b6c0d9e7a4f25", "c41e8b72f03d9a655e17b8c20f6d4a93"
KINDS = ("full", "half", "blank", "other", "corrupt", "equal", "loop", "exit", "memory", "silent")
STATUS = {
    "full": "needs manual",
    "half": "ok",
    "blank": "no answer",
    "other": "another set",
    "corrupt": "unreadable",
    "equal": "needs manual",
    "loop": "needs manual",  # the cell that hangs is left out
    "exit": "needs manual",
    "memory": "memory",
    "silent": "no answer",
}
NAMES = (
    "Ada Lovelace",
    "Zoë O'Neil",
    "李 明",
    "=1+1",
    "<b>Bob</b>",
    "Wei Zhang",
    "Wei Zhang",
    "Anne-Marie Roe",
)
LIMITS = Limits(cpu_s=5, memory_mb=512)  # honest answers take half a second, on a busy machine two
ATTACKS = {
    "loop": "while True: pass",
    "exit": "import os\nos._exit(0)",
    "memory": "tasks = bytearray(8 << 30)",
}


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> dict[str, Path]:
    """PS3 drawn from two secrets."""
    drawn = {"mine": SECRET, "other": OTHER}

    def draw(folder: Path) -> None:
        for name, secret in drawn.items():
            problems.new("PS3", folder / name, secret)

    folder = once(tmp_path_factory, "sitting", draw)
    return {name: folder / name for name in drawn}


def kind_of(i: int) -> str:
    """The kind of student i; a few that loop are as good as many, and each takes seconds."""
    kind = KINDS[i % 10]
    return "full" if kind == "loop" and i >= 20 else kind


def notebook(sets: dict[str, Path], kind: str) -> bytes:
    """What a student of that kind hands in."""
    blank = json.loads((sets["mine"] / "PS3.ipynb").read_text(encoding="utf-8"))
    solved = json.loads((sets["mine"] / "solution.ipynb").read_text(encoding="utf-8"))
    if kind == "other":
        return (sets["other"] / "solution.ipynb").read_bytes()
    if kind == "corrupt":
        return json.dumps(solved).encode()[:-500]
    cells = blank["cells"] if kind in ("blank", "half", "silent") else solved["cells"]
    if kind == "half":  # the first three questions
        wanted = ("# Answer: tasks\n", "# Answer: consequence\n", "# Answer: overhead\n")
        for i, cell in enumerate(solved["cells"]):
            if "".join(cell["source"]).startswith(wanted):
                cells[i] = cell
    if kind == "silent":
        cells = [cell for cell in cells if "# Answer:" not in "".join(cell["source"])]
    extra = ATTACKS.get(kind, "")
    if kind == "equal":
        names = ("tasks", "consequence", "overhead", "report", "fault", "fix")
        extra = EQUAL.format(base="") + "".join(f"{name} = Equal()\n" for name in names)
    if kind == "memory":
        cells = [cell for cell in cells if "# Answer: tasks" not in "".join(cell["source"])]
    if extra:
        cells = [*cells, {"cell_type": "code", "source": extra}]
    return json.dumps({"cells": [{k: cell[k] for k in ("cell_type", "source")} for cell in cells]}).encode()


def moodle_zip(sets: dict[str, Path], path: Path, n: int) -> dict[str, tuple[str, str]]:
    """n students as Moodle packs them, and traps; {Moodle's number: (name, kind)}."""
    books = {kind: notebook(sets, kind) for kind in KINDS}
    due = {}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(n):
            name, kind, number = f"{NAMES[i % 8]}{'' if i < 8 else f' {i}'}", kind_of(i), str(1000 + i)
            folder = f"{name.replace('/', '')}_{number}_assignsubmission_file_"  # as Moodle cleans names
            due[number] = name, kind
            if i % 7 == 3:  # a first try, put aside
                archive.writestr(
                    zipfile.ZipInfo(f"{folder}/PS3.ipynb", (2026, 1, 1, 0, 0, 0)), books["blank"]
                )
            title = "Copy of PS3" if i % 3 else "PS3 (1)"
            archive.writestr(zipfile.ZipInfo(f"{folder}/{title}.ipynb", (2026, 1, 2, 0, 0, 0)), books[kind])
        archive.writestr("../../slip.ipynb", books["full"])
        archive.writestr("Eve_9999_assignsubmission_file_/notes.pdf", b"%PDF")
    return due


@contextmanager
def command(capsys, *words: object) -> Iterator[tuple[str, str]]:
    assert cli.main([*map(str, words)]) == 0, capsys.readouterr().err
    yield capsys.readouterr()


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("n", draws([10], [10, 60]))
def test_a_sitting(walls, sets, tmp_path, capsys, monkeypatch, n):
    monkeypatch.setattr(runs.sandbox, "limits_of", lambda key: LIMITS)
    key, submitted, out = sets["mine"] / "key.json", tmp_path / "submitted", tmp_path / "results"
    due = moodle_zip(sets, tmp_path / "moodle.zip", n)
    roster = tmp_path / "roster.csv"
    roster.write_text(
        "name\nNobody Yet\n" + "".join(f'"{name}"\n' for name, _ in due.values()), encoding="utf-8"
    )

    with command(capsys, "collect", tmp_path / "moodle.zip", "--roster", roster, "--out", submitted) as said:
        assert said.out == "" and "slip.ipynb: a path that leads out" in said.err
        assert "missing: Nobody Yet" in said.err and "not on the roster: Eve" in said.err
    assert not list(tmp_path.rglob("slip.ipynb"))

    with command(capsys, "run", submitted, "--key", key, "--out", out, "--jobs", 2) as said:
        assert said.out == "" and f"{n + 1} graded now" in said.err
    results = {result.moodle_id: result for result in read_all(out)}
    assert results.pop("9999").status == "unreadable"
    assert {number: results[number].status for number in due} == {
        n: STATUS[kind] for n, (_, kind) in due.items()
    }
    machine = {
        kind: {sum(m.points for m in results[n].marks) for n in due if due[n][1] == kind} for kind in KINDS
    }
    assert machine["full"] == {17.0} and machine["half"] == {7.0} and machine["equal"] == {0.0}
    assert machine["loop"] == machine["exit"] == {17.0} and machine["other"] == {0.0}

    sheet = tmp_path / "written.csv"
    with command(capsys, "manual", "export", out, sheet):
        rows = table(sheet.read_text(encoding="utf-8"))
    marked_by_hand = ("full", "loop", "exit", "equal", "memory")
    assert len(rows) == sum(kind in marked_by_hand for _, kind in due.values())
    for row in rows:
        row["points"] = "2.5"
    with sheet.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    with command(capsys, "manual", "import", out, sheet) as said:
        assert f"{len(rows)} answers marked, 0 without" in said.err

    with command(capsys, "export", out, "--format", "csv") as said:
        assert said.err == ""
        scores = table(said.out)
    assert [*scores[0]][:6] == ["student", "status", "score", "max_score", "reason", "tasks"]
    assert len(scores) == n + 1
    by_kind: dict[str, set[str]] = {}
    numbers = {result.student: number for number, result in results.items()}
    for row in scores:
        number = numbers.get(row["student"].removeprefix("'"), "9999")
        by_kind.setdefault(due.get(number, ("", "Eve"))[1], set()).add(row["score"])
        assert (row["score"] == "") == (row["status"] != "ok") and (row["status"] == "ok" or row["reason"])
        assert row["student"][0] not in "=+-@"
    assert by_kind["full"] == {"19.5"} and by_kind["half"] == {"7"} and by_kind["equal"] == {"2.5"}
    assert all(by_kind[kind] == {""} for kind in ("blank", "corrupt", "other", "memory", "silent", "Eve"))

    worksheet = "Identifier,Full name,Grade,Maximum Grade,Feedback comments\n" + "".join(
        f'Participant {number},"{name}",,100,\n' for number, (name, _) in due.items()
    )
    (tmp_path / "w.csv").write_text(worksheet, encoding="utf-8")
    with command(capsys, "export", out, "--format", "moodle", "--worksheet", tmp_path / "w.csv") as said:
        grades = {row["Identifier"].split()[1]: row["Grade"] for row in table(said.out)}
    assert {grades[number] for number in due if due[number][1] == "full"} == {"97.5"}
    assert {grades[number] for number in due if due[number][1] == "blank"} == {""}

    with command(capsys, "feedback", out, "--out", tmp_path / "feedback", "--zip", "moodle"):
        pages = sorted((tmp_path / "feedback").glob("*.html"))
    assert len(pages) == n + 1
    secrets = keys.read(key)["secret"], SECRET
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not any(secret in text for secret in secrets) and "<script" not in text and "<b>" not in text
    with zipfile.ZipFile(tmp_path / "feedback" / "moodle-feedback.zip") as archive:
        assert "Ada Lovelace_1000_assignsubmission_file_/feedback.html" in archive.namelist()

    with command(capsys, "summary", out) as said:
        assert f"PS3: {n + 1} submissions" in said.out and "Common mistakes" in said.out
    assert (out / "summary.png").is_file()
    with command(capsys, "run", submitted, "--key", key, "--out", out, "--jobs", 2) as said:
        assert "0 graded now" in said.err
    with command(capsys, "export", out) as said:
        assert table(said.out) == scores


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["run", "nowhere", "--key", "none.json", "--out", "out"], 1),
        (["collect", "none.zip", "--out", "out"], 1),
        (["export", "nowhere"], 1),
        (["summary", "nowhere"], 1),
        (["feedback", "nowhere", "--out", "x"], 1),
        (["manual", "export", "nowhere", "x.csv"], 1),
        (["new", "PS9", "--out", "x"], 1),
        (["new", "PS1", "--out", "x", "--secret", "1234"], 1),
        (["run", "in", "--key", "k", "--out", "o", "--jobs", "0"], 2),
        (["run", "in"], 2),
        (["dance"], 2),
        ([], 2),
    ],
)
def test_what_cannot_be_done_says_so_and_writes_nothing(tmp_path, monkeypatch, capsys, words, status):
    monkeypatch.chdir(tmp_path)
    try:
        found = cli.main(words)
    except SystemExit as stop:
        found = stop.code
    said = capsys.readouterr()
    assert found == status and said.out == "" and said.err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def canvas_zip(sets: dict[str, Path], folder: Path, n: int) -> dict[str, tuple[str, str]]:
    """n students as Canvas packs them, with resubmissions and late tags; {Canvas's id: (name, kind)}."""
    books = {kind: notebook(sets, kind) for kind in KINDS}
    due, rows = {}, ["Student,ID,SIS User ID,SIS Login ID,Section,PS3 (4401)", "    Points Possible,,,,,40"]
    with zipfile.ZipFile(folder / "canvas.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(n):
            number, kind, name = (
                str(2000 + i),
                kind_of(i),
                f"Student {chr(65 + i // 26)}{chr(65 + i % 26)}",
            )
            due[number] = name, kind
            plain = "".join(reversed(name.lower().split()))
            late = "_LATE" * (i % 5 == 1)
            if i % 7 == 3:  # an earlier try
                entry = f"{plain}_{number}_{70000 + i}_PS3.ipynb"
                archive.writestr(zipfile.ZipInfo(entry, (2026, 3, 1, 10, 0, 0)), books["blank"])
            entry = f"{plain}{late}_{number}_{71000 + i}_PS3{'-1' * (i % 7 == 3)}.ipynb"
            day = 3 if late else 1
            archive.writestr(zipfile.ZipInfo(entry, (2026, 3, day, 12, 0, 0)), books[kind])
            first, last = name.split()
            rows.append(f'"{last}, {first}",{number},{9000 - i},{plain},1,')
        archive.writestr("textonly_2999_text.html", b"<p>")
    (folder / "gradebook.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return due


@pytest.mark.parametrize("n", draws([10], [10, 60]))
def test_a_week_with_canvas(walls, sets, tmp_path, capsys, monkeypatch, n):
    """Collected, run, marked by two, overridden, late, given back, exported, and read back."""
    monkeypatch.setattr(runs.sandbox, "limits_of", lambda key: LIMITS)
    monkeypatch.chdir(tmp_path)
    due = canvas_zip(sets, tmp_path, n)
    key = sets["mine"] / "key.json"
    with command(capsys, "collect", "canvas.zip", "--out", "submitted") as said:
        assert (
            f"{n} notebooks of {n} students" in said.err
            and "textonly_2999_text.html: not a notebook" in said.err
        )
    with command(capsys, "run", "submitted", "--key", key, "--out", "results", "--jobs", 2) as said:
        assert f"{n} graded now" in said.err
    machine = {result.lms_id: result for result in read_all(tmp_path / "results")}
    assert {number: machine[number].status for number in due} == {
        number: STATUS[kind] for number, (_, kind) in due.items()
    }

    for by, mine in (("ben", 0), ("cleo", 1)):
        with command(capsys, "manual", "export", "results", "written.csv"):
            rows = table((tmp_path / "written.csv").read_text(encoding="utf-8-sig"))
        for i, row in enumerate(rows):
            if i % 2 == mine:
                row |= {"criterion 1": "1", "criterion 2": "0.5", "criterion 3": "1"}
        head = list(rows[0])
        lines = [";".join(f'"{row[name]}"'.replace("\n", " ") for name in head) for row in rows]
        (tmp_path / "back.csv").write_text(";".join(head) + "\n" + "\n".join(lines) + "\n", encoding="utf-16")
        with command(capsys, "manual", "import", "results", "back.csv", "--by", by) as said:
            assert "kept" not in said.err and "taken back" not in said.err
    with command(capsys, "late", "submitted", "--due", "2026-03-01 23:59", "--by", "ben") as said:
        assert f"late: {sum(i % 5 == 1 for i in range(n))}" in said.err
    half = next(number for number, (_, kind) in due.items() if kind == "half")
    memory = next(number for number, (_, kind) in due.items() if kind == "memory")
    with command(capsys, "override", half, "fix", 2, "--why", "right idea", "--by", "cleo"):
        pass
    with command(capsys, "override", memory, "rest", 0, "--why", "looked at", "--by", "cleo"):
        pass
    with command(capsys, "feedback", "results", "--out", "pages", "--zip", "canvas") as said:
        assert "Do not give these pages out before 2026-03-01 23:59" in said.err
    with zipfile.ZipFile(tmp_path / "pages" / "canvas-feedback.zip") as archive:
        assert len(archive.namelist()) == n and any("_LATE_" in name for name in archive.namelist())
    with command(
        capsys, "export", "results", "--format", "canvas", "--worksheet", "gradebook.csv", "--out", "g.csv"
    ):
        grades = {
            row["ID"]: row["PS3 (4401)"]
            for row in table((tmp_path / "g.csv").read_text(encoding="utf-8-sig"))
        }
    by_kind: dict[str, set[str]] = {}
    for number, (_, kind) in due.items():
        if number not in (half, memory):
            by_kind.setdefault(kind, set()).add(grades[number])
    assert by_kind["full"] == {"39"} and by_kind.get("half", {"14"}) == {"14"} and by_kind["blank"] == {""}
    assert grades[half] == "18" and grades[memory] != ""
    with command(capsys, "log", "results") as said:
        names = {line.split()[2] for line in said.out.splitlines()}
    assert names == {"ben:", "cleo:"}
