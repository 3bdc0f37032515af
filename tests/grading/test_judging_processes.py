"""Judging in processes: what ends one ends one submission, and the class goes on."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from chunkprefill_grading.marking import run as runs
from chunkprefill_grading.marking.pool import Died, judged
from chunkprefill_grading.marking.results import load
from chunkprefill_grading.marking.run import Judging, run
from chunkprefill_grading.sandbox.limits import Limits, SandboxError
from tests.grading.hostile import world
from tests.processes import children

LIMITS = Limits(memory_mb=256)


def judge(task: str) -> str:
    """What a task asks for."""
    if task == "die":
        os._exit(7)
    if task == "kill":
        os.kill(os.getpid(), 9)
    if task == "hang":
        time.sleep(60)
    if task == "memory":
        return str(len(bytearray(64 << 30)))
    if task == "raise":
        raise KeyError(task)
    return task.upper()


@pytest.mark.parametrize("jobs", [1, 3])
def test_every_task_has_an_outcome_whatever_becomes_of_its_judge(jobs: int) -> None:
    tasks = ["a", "die", "b", "kill", "memory", "c", "d", "die"]
    outcomes = dict(judged(tasks, judge, jobs=jobs, most_s=60))
    assert sorted(outcomes) == list(range(len(tasks)))
    for number, task in enumerate(tasks):
        wanted = isinstance(outcomes[number], Died) if len(task) > 1 else outcomes[number] == task.upper()
        assert wanted, (task, outcomes[number])


def test_a_judge_that_hangs_is_ended_and_the_next_task_has_another() -> None:
    first, hung, last = (outcome for _, outcome in judged(["a", "hang", "b"], judge, jobs=1, most_s=10))
    assert (first, last) == ("A", "B") and isinstance(hung, Died) and "more than 10 s" in hung.why


def test_an_error_of_ours_goes_through_and_leaves_no_judge_behind() -> None:
    before = children()
    with pytest.raises(KeyError):
        list(judged(["a", "raise", "hang"], judge, jobs=2, most_s=30))
    assert children() <= before


def test_who_stops_listening_ends_the_judges() -> None:
    before = children()
    outcomes = judged(["a", "hang"], judge, jobs=2, most_s=30)
    assert next(outcomes) == (0, "A")
    assert children() > before, "the judge of the second task is at work"
    outcomes.close()  # type: ignore[attr-defined]
    assert children() <= before


def test_nothing_to_judge() -> None:
    assert list(judged([], judge, jobs=2, most_s=1)) == []


def a_class(folder: Path) -> None:
    for name in ("Ada", "Bob", "Eve"):
        world.hand_in(folder, name, *world.HONEST, f"# {name}")


def test_a_submission_that_ends_its_judge_or_has_no_sandbox_is_named_and_tried_again(
    walls: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    a_class(tmp_path / "in")
    started = runs.Grader._started

    def poisoned(self, found, limits, skip):
        if "# Bob" in found.cells[-1]:
            os._exit(3)
        if "# Eve" in found.cells[-1]:
            raise SandboxError("no such sandbox")
        return started(self, found, limits, skip)

    monkeypatch.setattr(runs.Grader, "_started", poisoned)
    monkeypatch.setattr("chunkprefill_grading.marking.lasting.PAUSES_S", (0.0, 0.0))
    by = Judging(world.KEY, LIMITS, marker=world.mark)
    made = {r.student: r for r in run(tmp_path / "in", tmp_path / "out", by, jobs=2, quiet=True)}
    assert made["Ada"].score == 3
    assert made["Bob"].status == made["Eve"].status == "crashed"
    assert "not the student's fault" in made["Bob"].reason
    assert "could not be run: no such sandbox" in made["Eve"].reason
    monkeypatch.setattr(runs.Grader, "_started", started)
    again = run(tmp_path / "in", tmp_path / "out", by, quiet=True)
    assert [(r.student, r.score) for r in again] == [("Bob", 3.0), ("Eve", 3.0)]


def test_results_of_another_draw_are_not_overwritten(walls: None, tmp_path: Path) -> None:
    a_class(tmp_path / "in")
    by = Judging(world.KEY, LIMITS, marker=world.mark)
    run(tmp_path / "in", tmp_path / "out", by, quiet=True)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.json")}
    other = replace(by, key={**world.KEY, "secret": world.SECRET[::-1]})
    with pytest.raises(ValueError, match="holds results of draw T1-"):
        run(tmp_path / "in", tmp_path / "out", other, quiet=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.json")} == before
    assert len(run(tmp_path / "in", tmp_path / "elsewhere", other, quiet=True)) == 3


def test_a_notebook_of_another_draw_is_named_and_not_run(walls: None, tmp_path: Path) -> None:
    a_class(tmp_path / "in")
    path = tmp_path / "in" / "Bob.ipynb"
    book = json.loads(path.read_text())
    path.write_text(json.dumps({**book, "metadata": {"chunkprefill": {"draw": "T1-0123456789"}}}))
    by = Judging(world.KEY, LIMITS, marker=world.mark)
    made = {r.student: r for r in run(tmp_path / "in", tmp_path / "out", by, quiet=True)}
    assert (made["Bob"].status, made["Bob"].score) == ("another set", None)
    assert "another draw" in made["Bob"].reason and "T1-0123456789" in made["Bob"].reason
    assert made["Ada"].score == made["Eve"].score == 3
    assert load(tmp_path / "out" / "Bob.json").marks[0].points == 0
