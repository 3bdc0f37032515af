"""A class is graded once, whatever happens in between: resumed, regraded, crowded, killed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chunkprefill_grading.marking import run as runs
from chunkprefill_grading.marking.results import load, write
from chunkprefill_grading.marking.run import Grader, Judging, run, status_of
from chunkprefill_grading.marking.settle import read_all
from chunkprefill_grading.sandbox import limits as sandbox
from chunkprefill_grading.sandbox.limits import Limits, SandboxError
from chunkprefill_grading.submission.collect import Student
from chunkprefill_grading.submission.load import parse
from tests.grading.hostile import world
from tests.needs import ROOT
from tests.processes import killed_at
from tests.proof import draws

linux = pytest.mark.skipif(sys.platform != "linux", reason="names what Linux lacks")
LIMITS = Limits(memory_mb=512)
HALF = (world.NUMBER, world.DOUBLE.replace("2 *", "3 *"))


def a_class(folder: Path, n: int) -> dict[str, tuple[str, float | None]]:
    """n submissions of six kinds, and what each must get."""
    kinds: list[tuple[tuple[str, ...], str, float | None]] = [
        (world.HONEST, "ok", 3.0),
        (HALF, "ok", 1.0),
        (("number = None",), "no answer", None),
        ((*world.HONEST, "import os; os._exit(3)"), "ok", 3.0),  # that cell is left out
        (world.HONEST[1:], "ok", 2.0),
    ]
    due: dict[str, tuple[str, float | None]] = {}
    for i in range(n):
        cells, status, points = kinds[i % 6] if i % 6 < 5 else ((), "unreadable", None)
        world.hand_in(folder, f"s{i:02d}", *cells)
        if status == "unreadable":
            (folder / f"s{i:02d}.ipynb").write_text("{")
        due[f"s{i:02d}"] = status, points
    return due


def graded(submitted: Path, out: Path, **how) -> list:
    limits, safe = how.pop("limits", LIMITS), how.pop("safe", True)
    by = Judging(how.pop("key", world.KEY), limits, safe, marker=world.mark)
    return run(submitted, out, by, quiet=True, **how)


def outcomes(out: Path) -> dict[str, tuple[str, float | None]]:
    return {result.student: (result.status, result.score) for result in read_all(out)}


def test_a_class(walls, tmp_path):
    due = a_class(tmp_path / "in", 12)
    made = graded(tmp_path / "in", tmp_path / "out", jobs=3)
    assert outcomes(tmp_path / "out") == due
    assert [result.student for result in made] == sorted(due)
    assert all(result.sandbox == "bubblewrap" and len(result.marks) == 3 for result in made)
    assert (result := made[5]).status == "unreadable" and "cut off" in result.reason
    assert made[3].cells == ((4, "left out, because it ended the program: the process ended itself"),)

    assert graded(tmp_path / "in", tmp_path / "out") == [], "who is graded is not graded again"
    world.hand_in(tmp_path / "in", "s01", *world.HONEST)  # handed in anew
    world.hand_in(tmp_path / "in", "late", *HALF)
    (tmp_path / "out" / "s02.json").write_text((tmp_path / "out" / "s02.json").read_text()[:200])  # cut off
    assert [result.student for result in graded(tmp_path / "in", tmp_path / "out")] == ["late", "s01", "s02"]
    due |= {"s01": ("ok", 3.0), "late": ("ok", 1.0)}
    assert outcomes(tmp_path / "out") == due

    other = {**world.KEY, "max_score": 3.5}
    assert len(graded(tmp_path / "in", tmp_path / "out", key=other)) == 13, "another key, all again"
    assert {result.max_score for result in read_all(tmp_path / "out")} == {3.5}
    (tmp_path / "in" / "late.ipynb").unlink()
    students = runs.read_list(tmp_path / "in").students
    assert runs.left_over(tmp_path / "out", students) == ["late"]


def test_another_grader_grades_again(walls, tmp_path, monkeypatch):
    a_class(tmp_path / "in", 1)
    assert len(graded(tmp_path / "in", tmp_path / "out")) == 1
    monkeypatch.setattr(runs, "grader_hash", lambda: "another")
    assert len(graded(tmp_path / "in", tmp_path / "out")) == 1
    assert graded(tmp_path / "in", tmp_path / "out") == []


def test_many_jobs_harm_no_submission(walls, tmp_path):
    """Ten at a time need seven seconds of CPU between them: each waits far longer than a program may sleep."""
    work = "import time\nend = time.process_time() + 0.7\nwhile time.process_time() < end: pass"
    for i in range(10):
        world.hand_in(tmp_path / "in", f"s{i}", *world.HONEST, work)
    limits = Limits(idle_s=1.0, memory_mb=512)
    made = graded(tmp_path / "in", tmp_path / "out", jobs=10, limits=limits)
    assert {(result.status, result.score) for result in made} == {("ok", 3.0)}, [r.reason for r in made]


SCRIPT = """
import sys
from pathlib import Path
from chunkprefill_grading.marking.run import Judging, run
from chunkprefill_grading.sandbox.limits import Limits
from tests.grading.hostile import world
folder = Path(sys.argv[1])
by = Judging(world.KEY, Limits(memory_mb=512), marker=world.mark)
run(folder / "in", folder / sys.argv[2], by, quiet=True, jobs=2)
"""


def alive(folder: Path) -> list[str]:
    """Command lines that name the folder."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(folder) in words and int(path.parent.name) != os.getpid():
            lines.append(words)
    return lines


@pytest.mark.slow
def test_killed_at_random_moments_and_run_again(walls, tmp_path):
    due = a_class(tmp_path / "in", draws(20, 60))
    (tmp_path / "tmp").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": str(ROOT)}

    def start(out: str) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path), out], cwd=ROOT, env=environment)

    assert start("undisturbed").wait() == 0
    assert outcomes(tmp_path / "undisturbed") == due
    moments, n_seen = random.Random(7), [0]
    while killed_at(
        start("killed"), tmp_path / "killed", n_seen[-1] + moments.randint(1, 15), moments.uniform(0, 0.1)
    ):
        n_seen.append(len(list((tmp_path / "killed").glob("*.json"))))
    assert start("killed").wait() == 0
    assert len(n_seen) > 2, f"killed after {n_seen} results: it means nothing"
    assert n_seen == sorted(n_seen), "what was finished is kept"
    names = sorted(path.name for path in (tmp_path / "undisturbed").glob("*.json"))
    assert names == sorted(path.name for path in (tmp_path / "killed").glob("*.json"))
    for name in names:
        one, other = load(tmp_path / "undisturbed" / name), load(tmp_path / "killed" / name)
        assert (one.status, one.score, one.marks, one.reason) == (
            other.status,
            other.score,
            other.marks,
            other.reason,
        )
    deadline = time.monotonic() + 60
    while (left := alive(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left, "a killed grader leaves no process behind"


def test_two_runs_at_once_are_one_too_many(walls, tmp_path):
    a_class(tmp_path / "in", 1)
    (tmp_path / "out").mkdir()
    with runs.locked(tmp_path / "out"), pytest.raises(ValueError, match="another run"):
        graded(tmp_path / "in", tmp_path / "out")
    assert len(graded(tmp_path / "in", tmp_path / "out")) == 1


def test_without_a_sandbox_every_result_says_so(tmp_path):
    due = a_class(tmp_path / "in", 6)
    made = graded(tmp_path / "in", tmp_path / "out", safe=False, jobs=2)
    assert outcomes(tmp_path / "out") == due
    assert {result.sandbox for result in made} == {"none: --unsafe-no-sandbox"}


@linux
def test_a_safe_run_grades_again_what_was_graded_unsafely(walls, tmp_path):
    a_class(tmp_path / "in", 1)
    graded(tmp_path / "in", tmp_path / "out", safe=False)
    assert [result.sandbox for result in graded(tmp_path / "in", tmp_path / "out")] == ["bubblewrap"]


@linux
@pytest.mark.parametrize(
    "said",
    [
        "bwrap: setting up uid map: Permission denied",
        "bwrap: No permissions to create new namespace, likely because the kernel does not allow it",
        "bwrap: Creating new namespace failed: Operation not permitted",
    ],
)
def test_forbidden_user_namespaces_are_named(tmp_path, monkeypatch, said):
    fake = tmp_path / "bwrap"
    fake.write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    a_class(tmp_path / "in", 1)
    with pytest.raises(SandboxError, match="user namespaces are forbidden"):
        graded(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists(), "refused before anything runs"


@linux
def test_other_causes_are_named(tmp_path, monkeypatch):
    a_class(tmp_path / "in", 1)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxError, match="not installed: apt-get"):
        graded(tmp_path / "in", tmp_path / "out")
    monkeypatch.setattr(sandbox.platform, "machine", lambda: "riscv64")
    with pytest.raises(SandboxError, match="riscv64"):
        graded(tmp_path / "in", tmp_path / "out")
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(SandboxError, match="not Linux"):
        graded(tmp_path / "in", tmp_path / "out")


@linux
def test_an_environment_that_only_the_superuser_may_read_is_refused_by_name(walls, tmp_path, monkeypatch):
    """As one that was made with umask 077: else each student's code would fail to start, and be said to crash."""
    package, python = tmp_path / "numpy", tmp_path / "python"
    package.mkdir()
    for file in (package / "__init__.py", python, tmp_path / "os.py"):
        file.touch()
    a_class(tmp_path / "in", 1)
    monkeypatch.setattr(sandbox, "libraries", lambda names: [(str(package), "/site/numpy")])
    monkeypatch.setattr(sandbox.sys, "executable", str(python))
    monkeypatch.setattr(sandbox.os, "__file__", str(tmp_path / "os.py"))
    for closed, mode in (
        (package / "__init__.py", 0o600),
        (package, 0o744),
        (python, 0o744),
        (tmp_path, 0o700),
    ):
        for path in (tmp_path, package, package / "__init__.py", python, tmp_path / "os.py"):
            path.chmod(0o755)
        assert sandbox.closed_to_others() is None
        closed.chmod(mode)
        assert sandbox.closed_to_others() == str(closed)
        if sandbox.runs_as_root():
            with pytest.raises(SandboxError, match=f"may not read {closed}: chmod -R"):
                graded(tmp_path / "in", tmp_path / "out")
            assert not (tmp_path / "out").exists(), "refused before anything runs"


def test_a_bug_of_the_graders_own_stops_no_other_and_tells_students_nothing(walls, tmp_path, capfd):
    world.hand_in(tmp_path / "in", "Ada", *world.HONEST)
    world.hand_in(tmp_path / "in", "Bob", "number = 13", *world.HONEST[1:])

    def marker(key, answers, written):
        if answers.value("number") == 13:
            raise KeyError(world.SECRET)
        return world.mark(key, answers, written)

    made = run(tmp_path / "in", tmp_path / "out", Judging(world.KEY, LIMITS, marker=marker), quiet=True)
    assert [(result.student, result.status, result.score) for result in made] == [
        ("Ada", "ok", 3.0),
        ("Bob", "crashed", None),
    ]
    assert world.SECRET not in json.dumps([str(result) for result in made])
    assert "the grader itself failed" in made[1].reason and world.SECRET in capfd.readouterr().err


def test_a_status_is_no_score():
    mark = runs.Mark
    full, silent = mark("a", 1.0, 1.0), mark("b", 0.0, 1.0, "no answer")
    manual = mark("c", 0.0, 2.0, "needs manual")
    assert status_of([full, silent], [])[0] == "ok"
    assert status_of([silent, silent], [])[0] == "no answer"
    assert status_of([full, manual], []) == ("needs manual", "to be marked by a person: c")
    assert status_of([full, silent], [[3, "MemoryError", True]])[0] == "memory"
    assert status_of([full, full], [[3, "MemoryError", True]])[0] == "ok"
    assert (
        "code cell 4 stopped and said “NameError: x”" in status_of([silent], [[4, "NameError: x", False]])[1]
    )


def test_no_submission_makes_a_result_that_cannot_be_read_back(tmp_path):
    names = [row["name"] for row in world.KEY["questions"]]
    cells = [f"# Answer: {name}\n{'€' * 7_900}" for name in (*names, *(f"more{i}" for i in range(240)))]
    book = {"cells": [{"cell_type": "code", "source": cell} for cell in cells]}
    found = parse(json.dumps(book).encode())
    troubles = [[i, "ModuleNotFoundError: " + "€" * 500, False] for i in range(3_000)]
    grader = Grader(Judging(world.KEY, LIMITS), tmp_path)
    marks = [runs.Mark(name, 0.0, 1.0) for name in names]
    made = grader._result(Student("Ada", "Ada", "Ada.ipynb"), "ok", "", marks, found, troubles)
    write(tmp_path, made)
    assert load(tmp_path / "Ada.json") == made
    assert set(made.answers) == set(names) and len(made.cells) == runs.MAX_TROUBLES


def test_limits_are_numbers():
    for wrong in ({"cpu_s": 0}, {"memory_mb": True}, {"idle_s": float("nan")}, {"n_files": "9"}):
        with pytest.raises(ValueError, match="limit"):
            Limits(**wrong)
    assert sandbox.limits_of({"needs_torch": True}).memory_mb > sandbox.limits_of({}).memory_mb
    with pytest.raises(ValueError, match="limits must be"):
        sandbox.limits_of({"limits": {"x": 1}})


def test_an_empty_folder_is_an_error(walls, tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match="no submissions"):
        graded(tmp_path / "in", tmp_path / "out")


def test_a_machine_that_is_short_for_a_moment_gets_another_try(walls, tmp_path, monkeypatch):
    student = world.hand_in(tmp_path, "Ada", *world.HONEST)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with sandbox.staged(tmp_path / "stage") as stage:
        grader = Grader(Judging(world.KEY, LIMITS, marker=world.mark), stage)
        started, tries = grader._started, []

        def sometimes(*how):
            tries.append(1)
            if len(tries) < 3:
                raise SandboxError("no more processes")
            return started(*how)

        monkeypatch.setattr(grader, "_started", sometimes)
        assert grader.grade(student, grader.read(student, tmp_path)).score == 3
        monkeypatch.setattr(grader, "_started", lambda *how: (_ for _ in ()).throw(SandboxError("never")))
        result = grader.grade(student, grader.read(student, tmp_path))
        assert result.status == "crashed" and "could not be run: never" in result.reason
