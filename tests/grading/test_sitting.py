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

from chunkprefill.grading import cli, problems
from chunkprefill.grading import run as runs
from chunkprefill.grading.problems import key as keys
from chunkprefill.grading.results import read_all
from chunkprefill.grading.sandbox import Limits
from tests.hostile.attacks import EQUAL

SECRET, OTHER = "3b9f0c1a7d5e24688f1b6c0d9e7a4f25", "c41e8b72f03d9a655e17b8c20f6d4a93"
KINDS = ("full", "half", "blank", "other", "corrupt", "equal", "loop", "exit", "memory", "silent")
STATUS = {
    **{"full": "needs manual", "half": "ok", "blank": "no answer", "other": "needs manual"},
    **{"corrupt": "unreadable", "equal": "needs manual", "loop": "timeout", "exit": "crashed"},
    **{"memory": "memory", "silent": "no answer"},
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
ATTACKS = {
    "loop": "while True: pass",
    "exit": "import os\nos._exit(0)",
    "memory": "tasks = bytearray(8 << 30)",
}


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> dict[str, Path]:
    """PS3 drawn from two secrets."""
    made = {}
    for name, secret in (("mine", SECRET), ("other", OTHER)):
        made[name] = tmp_path_factory.mktemp("set") / name
        problems.new("PS3", made[name], secret)
    return made


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
            name, kind, number = f"{NAMES[i % 8]}{'' if i < 8 else f' {i}'}", KINDS[i % 10], str(1000 + i)
            folder = f"{name}_{number}_assignsubmission_file_"
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


@pytest.mark.parametrize("n", [10, pytest.param(60, marks=pytest.mark.slow)])
def test_a_sitting(walls, sets, tmp_path, capsys, monkeypatch, n):
    monkeypatch.setattr(runs.sandbox, "limits_of", lambda key: Limits(cpu_s=2, idle_s=5.0, memory_mb=512))
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
    assert max(machine["other"]) < 17

    sheet = tmp_path / "written.csv"
    with command(capsys, "manual", "export", out, sheet):
        rows = table(sheet.read_text(encoding="utf-8"))
    assert len(rows) == sum(kind in ("full", "other", "equal") for _, kind in due.values())
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
    assert all(
        by_kind[kind] == {""} for kind in ("blank", "corrupt", "loop", "exit", "memory", "silent", "Eve")
    )

    worksheet = "Identifier,Full name,Grade,Maximum Grade,Feedback comments\n" + "".join(
        f'Participant {number},"{name}",,100,\n' for number, (name, _) in due.items()
    )
    (tmp_path / "w.csv").write_text(worksheet, encoding="utf-8")
    with command(capsys, "export", out, "--format", "moodle", "--worksheet", tmp_path / "w.csv") as said:
        grades = {row["Identifier"].split()[1]: row["Grade"] for row in table(said.out)}
    assert {grades[number] for number in due if due[number][1] == "full"} == {"97.5"}
    assert {grades[number] for number in due if due[number][1] == "loop"} == {""}

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
