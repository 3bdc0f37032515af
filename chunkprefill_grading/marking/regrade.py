"""Mark one question anew, and leave the marks of all others as they were."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from chunkprefill_grading.marking import log
from chunkprefill_grading.marking.mark import Mark
from chunkprefill_grading.marking.results import Result, load, total, write
from chunkprefill_grading.marking.run import locked
from chunkprefill_grading.marking.settle import OPEN, Reason

#: grade(out): grades the class into `out`, and returns the results
Grade = Callable[[Path], Sequence[Result]]


@dataclass
class Regraded:
    """changed: what each mark was and is, in words; notes: who was left as he was, and why."""

    n: int = 0
    changed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def regrade(
    folder: Path, question: str, grade: Grade, reason: Reason, only: Collection[str] = ()
) -> Regraded:
    """Run the class again beside its results, and take over the marks of one question.

    only: slugs; empty: all. Points that people gave stand on top, as before. Raises ValueError for a question
    that there is not, and for the key of another draw; then nothing is changed.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".regrade-") as beside:
        fresh = grade(Path(beside))
    with locked(folder):
        return _taken_over(folder, question, fresh, reason, only)


def _taken_over(
    folder: Path, question: str, fresh: Sequence[Result], reason: Reason, only: Collection[str]
) -> Regraded:
    """Nothing is written before all is known to fit; the log says it first, so no mark changes unsaid."""
    made = Regraded()
    events: list[tuple[str, Mapping[str, Any]]] = []
    pairs: list[tuple[Result, Result]] = []
    waiting: list[Result] = []
    for new in fresh:
        if only and new.slug not in only:
            continue
        path = folder / f"{new.slug}.json"
        if not path.is_file():
            made.notes.append(f"{new.student}: not graded yet: run")
            continue
        old = load(path)
        if old.hashes.get("draw") != new.hashes.get("draw"):
            raise ValueError(
                f"{new.student}: the results are of draw {old.hashes.get('draw')}, this key is of draw "
                f"{new.hashes.get('draw')}: nothing is changed"
            )
        if old.hashes.get("notebook") != new.hashes.get("notebook"):
            made.notes.append(f"{new.student}: has handed in another notebook since: run")
            continue
        pairs.append((old, new))
    if fresh and not any(new.mark(question) for new in fresh):
        names = ", ".join(mark.question for mark in fresh[0].marks)
        raise ValueError(f"there is no question {question!r}; there are {names}")
    for old, new in pairs:
        before, after = old.mark(question), new.mark(question)
        if after is None or (after.status in OPEN and after.status != "needs manual"):
            made.notes.append(f"{new.student}: {question} was not reached this time: {new.reason}")
            continue
        made.n += 1
        was = before.points if before else 0.0
        about = {"slug": new.slug, "question": question, "why": reason.why}
        events.append(("regrade", {**about, "before": was, "after": after.points}))
        if before != after:
            made.changed.append(f"{new.student}, {question}: {was:g} -> {after.points:g} points")
        waiting.append(_with(old, new, question, after))
    log.append(folder, reason.by, events)
    for result in waiting:
        write(folder, result)
    return made


def _with(old: Result, new: Result, question: str, mark: Mark) -> Result:
    """The old result with the new mark of one question."""
    marks = tuple(mark if each.question == question else each for each in old.marks)
    texts = {name: {**getattr(old, name)} for name in ("written", "doubts", "answers")}
    for name, kept in texts.items():
        kept.pop(question, None)
        if question in getattr(new, name):
            kept[question] = getattr(new, name)[question]
    status, reason = old.status, old.reason
    if status in ("ok", "needs manual"):
        waiting = [each.question for each in marks if each.status == "needs manual"]
        status = "needs manual" if waiting else "ok"
        reason = f"to be marked by a person: {', '.join(waiting)}" if waiting else ""
    elif status == "no answer" and any(each.status != "no answer" for each in marks):
        waiting = [each.question for each in marks if each.status == "needs manual"]
        status, reason = (
            ("needs manual", f"to be marked by a person: {', '.join(waiting)}") if waiting else ("ok", "")
        )
    return replace(
        old,
        marks=marks,
        status=status,
        reason=reason,
        score=total(marks) if status == "ok" else None,
        hashes=new.hashes,
        rubric=new.rubric,
        written=texts["written"],
        doubts=texts["doubts"],
        answers=texts["answers"],
    )
