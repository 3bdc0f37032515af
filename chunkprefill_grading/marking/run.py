"""Run a class: each submission in a sandbox of its own, marked from outside, one result file each."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from chunkprefill_grading.marking.handout import flagged, handout_of, rubric_of
from chunkprefill_grading.marking.judging import grader_hash
from chunkprefill_grading.marking.lasting import PURSE, LastingSession
from chunkprefill_grading.marking.mark import Mark, mark
from chunkprefill_grading.marking.pool import Died, judged
from chunkprefill_grading.marking.results import Result, hash_of, load, total, write
from chunkprefill_grading.marking.shards import WHOLE, GradingShard
from chunkprefill_grading.problems.draw import stamp
from chunkprefill_grading.problems.key import checked
from chunkprefill_grading.sandbox import limits as sandbox
from chunkprefill_grading.sandbox.limits import Limits, SandboxError
from chunkprefill_grading.sandbox.process import PipeSession
from chunkprefill_grading.sandbox.session import SessionEnded
from chunkprefill_grading.submission.collect import Student, read_list
from chunkprefill_grading.submission.load import MAX_ANSWER, Submission, Unreadable
from chunkprefill_grading.submission.load import load as load_notebook
from chunkprefill_grading.submission.stamps import refusal
from chunkprefill_grading.submission.written_texts import find as find_texts

MAX_TROUBLES = 50  # cells that failed, in a result: it must stay far below what `results.load` reads
ENDINGS = ("timeout", "memory", "crashed")  # of a question whose process ended
FAILED = "failed"  # in place of the grader's hash: the next run tries again
SAFE, UNSAFE = "bubblewrap", "none: --unsafe-no-sandbox"
Marker = Callable[..., list[Mark]]


@dataclass(frozen=True)
class Judging:
    """By what submissions are judged: whatever the machine, the same submission gets the same marks.

    limits: of the sandbox; None: those of the key. safe: in a sandbox, or not at all. marker: asks the questions
    """

    key: dict[str, Any]
    limits: Limits | None = None
    safe: bool = True
    marker: Marker = mark


class Grader:
    """Judges submissions, with `stage` mounted into each sandbox: `grade(student, found)` gives a `Result`."""

    def __init__(self, by: Judging, stage: Path) -> None:
        key, limits, safe = by.key, by.limits or sandbox.limits_of(by.key), by.safe
        self.key, self.stage, self.limits, self.safe, self.marker = key, stage, limits, safe, by.marker
        self.stamp = stamp(key["problem_set"], key.get("secret", ""))
        self.key_hash = hash_of({"key": judged_by(key), "limits": asdict(limits), "safe": safe})

    def hashes(self, notebook: str) -> dict[str, str]:
        """What a result is a function of."""
        return {"notebook": notebook, "key": self.key_hash, "grader": grader_hash(), "draw": self.stamp}

    def prepare(self) -> None:
        """Draw the problem set and hash the grader once, before there are judges: it may take seconds."""
        if self.marker is mark:
            checked(self.key)
        grader_hash()

    def read(self, student: Student, folder: Path) -> Submission | str:
        """The notebook, or why it is none."""
        if student.file is None:
            return student.problem or "no notebook was handed in"
        try:
            return load_notebook(folder / student.file)
        except Unreadable as error:
            return str(error)

    def grade(self, student: Student, found: Submission | str) -> Result:
        """One result, whatever becomes of the submission."""
        if isinstance(found, str):
            return self._unjudged(student, "unreadable", found, found)
        if why := refusal(found.stamps, self.stamp):
            return self._unjudged(student, "another set", why, found)
        marks: list[Mark] = []
        troubles: list[list[Any]] = []
        texts = find_texts(found, handout_of(self.key))
        try:
            with LastingSession(partial(self._started, found), self.limits) as answers:
                marks = self.marker(self.key, answers, {name: each.text for name, each in texts.items()})
                troubles = answers.troubles
            marks = flagged(marks, texts)
            status, reason = status_of(marks, troubles)
        except SessionEnded as error:  # the cells leave no process to ask, or the marker is another one
            marks = self._completed(getattr(error, "marks", []), error)
            status, reason = error.status, error.why or str(error)
            if error.name:
                reason += f" (while {error.name} was asked for)"
        except SandboxError as error:
            return self.failed(student, found, f"its code could not be run: {error}")
        except Exception as error:  # ours, and no reason to leave the others ungraded
            words = f"the grader itself failed with a {type(error).__name__}"
            return self.failed(student, found, words, traceback.format_exc())
        return self._result(student, status, reason, marks, found, troubles)

    def failed(self, student: Student, found: Submission | str, words: str, notes: str = "") -> Result:
        """A result that is none: no fault of the submission's, and tried again by the next run."""
        if notes:
            tell_instructor(f"{student.student}: {words}: {notes}")
        made = self._unjudged(student, "crashed", f"{words}: not the student's fault; run again", found)
        return replace(made, hashes={**made.hashes, "grader": FAILED})

    def _unjudged(self, student: Student, status: str, reason: str, found: Submission | str) -> Result:
        marks = [Mark(row["name"], 0.0, row["points"], status) for row in self.key["questions"]]
        return self._result(student, status, reason, marks, found)

    def _started(self, found: Submission, limits: Limits, skip: Collection[int]) -> PipeSession:
        return PipeSession(
            found.cells,
            stage=self.stage,
            limits=limits,
            needs_torch=bool(self.key["needs_torch"]),
            safe=self.safe,
            skip=skip,
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
        texts = {} if isinstance(found, str) else find_texts(found, handout_of(self.key))
        answers: dict[str, str] = {}
        if not isinstance(found, str):
            names = [row["name"] for row in self.key["questions"] if row["name"] in found.answers]
            answers = {name: found.answers[name][:MAX_ANSWER] for name in names}
        return Result(
            student=student.student,
            slug=student.slug,
            name=student.name,
            lms=student.lms,
            lms_id=student.lms_id,
            email=student.email,
            problem_set=self.key["problem_set"],
            status=status,
            score=total(marks) if status == "ok" else None,
            max_score=float(self.key["max_score"]),
            reason=reason,
            marks=tuple(marks),
            cells=tuple((row[0], row[1]) for row in (troubles or [])[:MAX_TROUBLES]),
            written={name: each.text for name, each in texts.items() if name in manual},
            doubts={name: each.doubt for name, each in texts.items() if name in manual and each.doubt},
            answers=answers,
            rubric=rubric_of(self.key),
            sandbox=SAFE if self.safe else UNSAFE,
            source=student.source,
            hashes=self.hashes(hash_of(found) if isinstance(found, str) else found.sha),
        )


def judged_by(key: dict[str, Any]) -> dict[str, Any]:
    """What of a key a mark depends on: not its words, nor who made it."""
    kept = {name: value for name, value in key.items() if name not in ("package", "words", "questions")}
    return {**kept, "questions": [[row["name"], row["points"]] for row in key["questions"]]}


def tell_instructor(words: str) -> None:
    """What no student is shown. A judge is a process of its own: what it says goes to standard error."""
    tqdm.write(printed(words), file=sys.stderr)


def printed(words: str) -> str:
    """Words of several lines without what moves a terminal's cursor."""
    return "\n".join("".join(c if c.isprintable() else " " for c in line) for line in words.splitlines())


def status_of(marks: list[Mark], troubles: list[list[Any]]) -> tuple[str, str]:
    """The status of a submission that was asked everything, and its reason.

    A question that ended its process costs its own points. Where no question got further than that, the whole
    submission has the status of the first one.
    """
    silent = [each.question for each in marks if each.status == "no answer"]
    ended = [each for each in marks if each.status in ENDINGS]
    if silent and any(memory for _, _, memory in troubles):
        return "memory", f"a cell ran out of memory, and these have no answer: {', '.join(silent)}"
    if len(silent) == len(marks):
        cells = f"; code cell {troubles[0][0]} stopped and said “{troubles[0][1]}”" if troubles else ""
        return "no answer", f"no question is answered{cells}"
    if ended and len(silent) + len(ended) == len(marks):
        return ended[0].status, f"{ended[0].question}: {ended[0].reason}"
    manual = [each.question for each in marks if each.status == "needs manual"]
    if manual:
        return "needs manual", f"to be marked by a person: {', '.join(manual)}"
    return "ok", "; ".join(f"{each.question}: {each.reason}" for each in ended)


def run(
    submitted: Path,
    out: Path,
    by: Judging,
    *,
    jobs: int = 1,
    shard: GradingShard = WHOLE,
    quiet: bool = False,
) -> list[Result]:
    """Grade who is not graded yet, or from another notebook, key or grader; returns the new results.

    shard: the part of the class that this machine grades.

    Each submission is judged in a process that takes one at a time: whatever ends it, the others go on.
    Raises SandboxError before anything runs where there is no sandbox, and ValueError for a folder that holds
    no submissions, and for results of another key.
    """
    limits = by.limits or sandbox.limits_of(by.key)
    if by.safe:
        sandbox.require_sandbox(limits)
    students = read_list(submitted).students
    if not students:
        raise ValueError(f"{submitted}: no submissions here")
    students = shard.part(students)
    out.mkdir(parents=True, exist_ok=True)
    made: list[Result] = []
    with locked(out), sandbox.staged(out / ".stage") as stage, contextlib.ExitStack() as stack:
        grader = Grader(by, stage)
        refuse_other_key(out, grader)
        grader.prepare()

        def one(student: Student) -> Result | None:
            found = grader.read(student, submitted)
            if is_done(out, student, grader.hashes(hash_of(found) if isinstance(found, str) else found.sha)):
                return None
            result = grader.grade(student, found)
            write(out, result)
            return result

        most_s = (PURSE + 1) * limits.wall_s
        outcomes = stack.enter_context(contextlib.closing(judged(students, one, jobs=jobs, most_s=most_s)))
        bar = stack.enter_context(
            tqdm(total=len(students), desc="grading", unit="submission", file=sys.stderr, disable=quiet)
        )
        for number, outcome in outcomes:
            bar.update()
            if isinstance(outcome, Died):
                outcome = grader.failed(students[number], outcome.why, outcome.why)
                write(out, outcome)
            if outcome is not None:
                made.append(outcome)
    return sorted(made, key=lambda result: result.student)


def refuse_other_key(out: Path, grader: Grader) -> None:
    """ValueError for a folder with results of another draw: they are marks that count, and are kept."""
    for path in sorted(out.glob("*.json")):
        try:
            draw = load(path).hashes.get("draw", grader.stamp)
        except ValueError:
            continue
        if draw != grader.stamp:
            raise ValueError(
                f"{out} holds results of draw {draw}, this key is of draw {grader.stamp}: give another folder"
            )


def is_done(out: Path, student: Student, hashes: dict[str, str]) -> bool:
    """Whether there is a whole result of the same notebook, key and grader, under the same name."""
    try:
        result = load(out / f"{student.slug}.json")
    except ValueError:
        return False
    return dict(result.hashes) == hashes and (result.student, result.name) == (student.student, student.name)


def left_over(out: Path, students: list[Student]) -> list[str]:
    """Results of students who are not in the list of submissions."""
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
