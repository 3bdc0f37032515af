"""A class of 20 (60 in `make proof`), killed at random moments, with two graders and overrides in between, equals one in peace."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chunkprefill_grading import cli
from chunkprefill_grading.marking import log
from chunkprefill_grading.marking.mark import Mark
from chunkprefill_grading.marking.run import Judging, run
from chunkprefill_grading.marking.settle import read_all
from chunkprefill_grading.sandbox.limits import Limits
from tests.grading.hostile import world
from tests.needs import ROOT
from tests.processes import killed_at
from tests.proof import draws

LIMITS = Limits(memory_mb=512)
KEY = {
    **world.KEY,
    "max_score": 5.0,
    "questions": [
        *world.KEY["questions"],
        {"name": "note", "points": 2.0, "kind": "written", "written": True},
    ],
}
ENDS = "import os; os._exit(3)"
SCRIPT = "import sys; from tests.grading.test_class import grade; grade(sys.argv[1], sys.argv[2])"
#: (student, question, points) by a third person
OVERRIDES = (("s03", "number", 0.5), ("s04", "double", 0.25), ("s07", "rest", 0.0), ("s11", "Policy", 0.75))


def mark(key, answers, written) -> list[Mark]:
    """The three questions of `world`, and a text that a person reads."""
    said = "needs manual" if written.get("note") else "no answer"
    return [*world.mark(key, answers, written), Mark("note", 0.0, 2.0, said)]


def grade(folder: str, out: str) -> None:
    by = Judging(KEY, LIMITS, marker=mark)
    run(Path(folder) / "in", Path(folder) / out, by, quiet=True, jobs=2)


def hand_in(folder: Path, n: int) -> None:
    kinds = [
        world.HONEST,
        world.HONEST[1:],
        (*world.HONEST, "number = 41"),
        (*world.HONEST, ENDS),
        ("x = 1",),
    ]
    for i in range(n):
        note = (f"<!-- answer: note -->\n\nwords of s{i:02d}",) if i % 2 == 0 else ()
        world.hand_in(folder, f"s{i:02d}", *kinds[i % 5], markdown=note)


def points_of(slug: str) -> float:
    return int(slug[1:]) % 5 / 2


def marked_by(folder: Path, out: str, by: str, mine: int) -> list[list[str]]:
    """The commands of a person who marks every other answer that there is."""
    sheet = folder / f"{out}-{by}.csv"
    assert cli.main(["manual", "export", str(folder / out), str(sheet)]) == 0
    rows = list(csv.DictReader(sheet.open(encoding="utf-8-sig", newline="")))
    for row in rows:
        if int(row["file"][1:]) // 2 % 2 == mine:
            row["points"] = str(points_of(row["file"]))
    with sheet.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0]] if rows else ["question", "answer_id", "points"])
        writer.writeheader()
        writer.writerows(rows)
    return [["manual", "import", str(folder / out), str(sheet), "--by", by]]


def decisions(folder: Path, out: str) -> list[list[str]]:
    there = {path.stem for path in (folder / out).glob("*.json")}
    if not there:
        return []
    words = [*marked_by(folder, out, "ben", 0), *marked_by(folder, out, "cleo", 1)]
    for student, question, points in OVERRIDES:
        if student in there:
            words.append(
                [
                    "override",
                    student,
                    question,
                    str(points),
                    "--why",
                    "looked",
                    "--by",
                    "dora",
                    "--results",
                    str(folder / out),
                ]
            )
    return words


def outcomes(folder: Path) -> list[tuple]:
    return [(r.student, r.status, r.score, r.max_score, r.marks, dict(r.hashes)) for r in read_all(folder)]


@pytest.mark.slow
def test_killed_with_people_at_work_in_between(walls, tmp_path, capsys):
    hand_in(tmp_path / "in", draws(20, 60))
    grade(str(tmp_path), "peace")  # in this very process
    for words in decisions(tmp_path, "peace"):
        assert cli.main(words) in (0, 1)
    moments = random.Random(18)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def started(*words: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, *words], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL
        )

    def killed_or_done(process: subprocess.Popen, seconds: float) -> bool:
        try:
            process.wait(seconds)
            return False
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return True

    n_killed, n_results = 0, []
    for _ in range(40):
        again = started("-c", SCRIPT, str(tmp_path), "war")
        n_results.append(len(list((tmp_path / "war").glob("*.json"))))
        due = n_results[-1] + moments.randint(1, 15)
        n_killed += killed_at(again, tmp_path / "war", due, moments.uniform(0, 0.1))
        words_of_people = decisions(tmp_path, "war")
        for words in moments.sample(words_of_people, min(3, len(words_of_people))):
            n_killed += killed_or_done(
                started("-m", "chunkprefill_grading", *words), moments.uniform(0.2, 1.2)
            )
        if again.returncode == 0:
            break
    grade(str(tmp_path), "war")
    for words in decisions(tmp_path, "war"):
        assert cli.main(words) in (0, 1)
    assert n_killed >= 2 and n_results == sorted(n_results), (n_killed, n_results)
    assert outcomes(tmp_path / "war") == outcomes(tmp_path / "peace")
    history = log.read(tmp_path / "war")
    assert {event.by for event in history.events} == {"ben", "cleo", "dora"}
    assert not [fault for fault in history.faults if "changed" in fault]
    assert json.dumps([dict(event.about) for event in history.events])
