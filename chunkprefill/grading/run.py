"""Run a class: each submission in a sandbox of its own, marked from outside, one result file each."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from chunkprefill.grading import sandbox
from chunkprefill.grading.collect import Student, read_list
from chunkprefill.grading.marking import Mark, mark
from chunkprefill.grading.process import PipeSession
from chunkprefill.grading.results import Result, grader_hash, hash_of, load, total, write
from chunkprefill.grading.sandbox import Limits, SandboxError
from chunkprefill.grading.session import Crashed, SessionEnded
from chunkprefill.grading.submission import Submission, Unreadable
from chunkprefill.grading.submission import load as load_notebook

ABSENT = "No module named 'chunkprefill."  # a cell that tries what the sandbox does not mount: nobody's fault
SAFE, UNSAFE = "bubblewrap", "none: --unsafe-no-sandbox"
Marker = Callable[..., list[Mark]]


class Grader:
    """How submissions of one key are judged: `grade(student, folder)` gives a `Result`."""

    def __init__(
        self, key: dict[str, Any], *, stage: Path, limits: Limits, safe: bool = True, marker: Marker = mark
    ) -> None:
        self.key, self.stage, self.limits, self.safe, self.marker = key, stage, limits, safe, marker
        self.key_hash = hash_of({"key": key, "limits": asdict(limits), "safe": safe})

    def hashes(self, notebook: str) -> dict[str, str]:
        """What a result is a function of."""
        return {"notebook": notebook, "key": self.key_hash, "grader": grader_hash()}

    def read(self, student: Student, folder: Path) -> Submission | str:
        """The notebook, or why it is none."""
        if student.file is None:
            return student.problem or "no notebook was handed in"
        try:
            return load_notebook(folder / student.file)
        except Unreadable as error:
            return str(error)

    def grade(self, student: Student, found: Submission | str) -> Result:
        """One result. Raises SandboxError where nobody's code can be run."""
        if isinstance(found, str):
            marks = [Mark(row["name"], 0.0, row["points"], "unreadable") for row in self.key["questions"]]
            return self._result(student, "unreadable", found, marks, found)
        marks = []
        troubles: list[list[Any]] = []
        try:
            with self._session(found) as session:
                troubles = [row for row in session.troubles if ABSENT not in row[1]]
                marks = self.marker(self.key, session, found.written)
            status, reason = status_of(marks, troubles)
        except SessionEnded as error:
            marks = self._completed(getattr(error, "marks", []), error)
            status, reason = error.status, error.why or str(error)
            if error.status == "memory":
                reason = error.why or f"more than {self.limits.memory_mb} MB of memory"
            if error.name:
                reason += f" (while {error.name} was asked for)"
        except SandboxError:
            raise
        except Exception as error:  # ours, and no reason to leave the others ungraded
            tell_instructor(f"{student.student}: the grader itself failed: {traceback.format_exc()}")
            marks = self._completed([], Crashed("", "the grader itself failed"))
            status, reason = (
                "crashed",
                f"the grader itself failed with a {type(error).__name__}: not your fault",
            )
        return self._result(student, status, reason, marks, found, troubles)

    def _session(self, found: Submission) -> PipeSession:
        """The notebook in its process; a machine that is short of something for a moment gets another try."""
        for pause_s in (1.0, 3.0):
            try:
                return self._started(found)
            except SandboxError:
                time.sleep(pause_s)
        return self._started(found)

    def _started(self, found: Submission) -> PipeSession:
        return PipeSession(
            found.cells,
            stage=self.stage,
            limits=self.limits,
            needs_torch=bool(self.key["needs_torch"]),
            safe=self.safe,
        )

    def _completed(self, marks: list[Mark], error: SessionEnded) -> list[Mark]:
        """The marks so far, and no points for what could not be asked any more."""
        done = {each.question for each in marks}
        left = [row for row in self.key["questions"] if row["name"] not in done]
        why = error.why or error.status
        return [*marks, *(Mark(row["name"], 0.0, row["points"], error.status, why) for row in left)]

    def _result(
        self,
        student: Student,
        status: str,
        reason: str,
        marks: list[Mark] | tuple[Mark, ...],
        found: Submission | str,
        troubles: list[list[Any]] | None = None,
    ) -> Result:
        manual = {each.question for each in marks if each.status == "needs manual"}
        texts, sha = ({}, hash_of(found)) if isinstance(found, str) else (found.written, found.sha)
        return Result(
            **{"student": student.student, "slug": student.slug, "name": student.name},
            **{"moodle_id": student.moodle_id, "problem_set": self.key["problem_set"], "status": status},
            score=total(marks) if status == "ok" else None,
            max_score=float(self.key["max_score"]),
            reason=reason,
            marks=tuple(marks),
            cells=tuple((row[0], row[1]) for row in troubles or []),
            written={name: text for name, text in texts.items() if name in manual},
            sandbox=SAFE if self.safe else UNSAFE,
            source=student.source,
            hashes=self.hashes(sha),
        )


def tell_instructor(words: str) -> None:
    """What no student is shown."""
    tqdm.write(words, file=sys.stderr)


def status_of(marks: list[Mark], troubles: list[list[Any]]) -> tuple[str, str]:
    """The status of a submission whose process lived to the end, and its reason."""
    silent = [each.question for each in marks if each.status == "no answer"]
    if silent and any(memory for _, _, memory in troubles):
        return "memory", f"a cell ran out of memory, and there is no {' and no '.join(silent)}"
    if len(silent) == len(marks):
        cells = f"; code cell {troubles[0][0]} failed: {troubles[0][1]}" if troubles else ""
        return "no answer", f"no question is answered{cells}"
    manual = [each.question for each in marks if each.status == "needs manual"]
    if manual:
        return "needs manual", f"to be marked by a person: {', '.join(manual)}"
    return "ok", ""


def run(
    submitted: Path,
    out: Path,
    key: dict[str, Any],
    *,
    jobs: int = 1,
    safe: bool = True,
    limits: Limits | None = None,
    marker: Marker = mark,
    quiet: bool = False,
) -> list[Result]:
    """Grade who is not graded yet, or from another notebook, key or grader; returns the new results.

    Raises SandboxError before anything runs where there is no sandbox, and ValueError for a folder that holds
    no submissions.
    """
    limits = limits or sandbox.limits_of(key)
    if safe:
        sandbox.probe(limits)
    students = read_list(submitted).students
    if not students:
        raise ValueError(f"{submitted}: no submissions here")
    out.mkdir(parents=True, exist_ok=True)
    made: list[Result] = []
    with locked(out), sandbox.staged(out / ".stage") as stage, contextlib.ExitStack() as stack:
        grader = Grader(key, stage=stage, limits=limits, safe=safe, marker=marker)
        bar = stack.enter_context(
            tqdm(total=len(students), desc="grading", unit="submission", file=sys.stderr, disable=quiet)
        )
        stop = threading.Event()

        def one(student: Student) -> Result | None:
            if stop.is_set():
                return None
            found = grader.read(student, submitted)
            if is_done(out, student, grader.hashes(hash_of(found) if isinstance(found, str) else found.sha)):
                return None
            result = grader.grade(student, found)
            write(out, result)
            return result

        pool = stack.enter_context(ThreadPoolExecutor(jobs))
        futures = [pool.submit(one, student) for student in students]
        try:
            for future in as_completed(futures):
                result = future.result()
                bar.update()
                if result is not None:
                    made.append(result)
        except BaseException:
            stop.set()
            raise
    return sorted(made, key=lambda result: result.student)


def is_done(out: Path, student: Student, hashes: dict[str, str]) -> bool:
    """Whether there is a whole result of the same notebook, key and grader, under the same name."""
    try:
        result = load(out / f"{student.slug}.json")
    except ValueError:
        return False
    return dict(result.hashes) == hashes and (result.student, result.name) == (student.student, student.name)


def left_over(out: Path, students: list[Student]) -> list[str]:
    """Results of nobody who is in the list of submissions."""
    slugs = {student.slug for student in students}
    return sorted(path.stem for path in out.glob("*.json") if path.stem not in slugs)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One run at a time in a folder; a killed one holds no lock. ValueError if there is another."""
    with (folder / ".lock").open("w") as file:
        try:
            import fcntl
        except ImportError:  # Windows: it runs no submissions either
            yield
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"{folder}: another run is at work here") from None
        yield
