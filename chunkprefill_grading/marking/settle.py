"""What people decided about marks: points for written answers, overrides, excused questions, lateness.

Decisions are events of the log. A result is read as the machine left it, and they are put on top each time,
so that nothing is lost when a submission is run again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from chunkprefill_grading.marking import log
from chunkprefill_grading.marking.log import Event
from chunkprefill_grading.marking.mark import Mark
from chunkprefill_grading.marking.results import Result, answer_id, load_all, total
from chunkprefill_grading.submission.lateness import Deadline, read_penalty

#: Statuses of a mark that say that there are no points yet.
OPEN = ("needs manual", "timeout", "memory", "crashed", "unreadable", "another set")
EVERYONE = ""
BY_HAND = "Set by hand"  # how the comment of an override begins
REST = "rest"  # in place of a question: all that have no points yet


@dataclass
class Decided:
    """The decisions that stand: of several about one thing, the last."""

    points: dict[tuple[str, str], Event] = field(default_factory=dict)  # (slug, question)
    overrides: dict[tuple[str, str], Event] = field(default_factory=dict)
    excuses: dict[tuple[str, str], Event] = field(default_factory=dict)  # (slug or EVERYONE, question)
    late: Event | None = None
    faults: tuple[str, ...] = ()


def decided(folder: Path) -> Decided:
    """What the log of a folder of results says. ValueError for a log that cannot be read."""
    history = log.read(folder)
    made = Decided(faults=history.faults)
    for event in log.in_order(history.events):
        about = event.about
        place = str(about.get("slug", EVERYONE)), str(about.get("question", ""))
        if event.what in ("points", "override", "excuse"):
            kept = {"points": made.points, "override": made.overrides, "excuse": made.excuses}[event.what]
            kept[place] = event
            if about.get("points", about.get("how")) is None:
                del kept[place]
        elif event.what == "late":
            made.late = event
    return made


def read_all(folder: Path) -> list[Result]:
    """Every sound result of a folder, by student, with what people decided. ValueError if there is none."""
    return read_folder(folder)[0]


def read_folder(folder: Path) -> tuple[list[Result], list[str]]:
    """`read_all`, and what is said of each broken file, whose student is left out."""
    decisions = decided(folder)
    found, broken = load_all(folder)
    return [settled(result, decisions) for result in found], broken


def settled(result: Result, decisions: Decided) -> Result:
    """A result with the decisions about it; its status and its score follow, less what being late costs."""
    made = _with_marks(result, decisions)
    rule = str(decisions.late.about.get("penalty", "")) if decisions.late else ""
    if not rule or not made.late_s or made.score is None:
        return made
    off = read_penalty(rule).points(made.late_s, made.score, made.max_score)
    return replace(made, score=round(made.score - off, 6), late_points=off, late_rule=rule)


def _with_marks(result: Result, decisions: Decided) -> Result:
    marks: list[Mark] = []
    by_hand = False
    for mark in result.marks:
        made = _with_points(result, mark, decisions)
        override = decisions.overrides.get((result.slug, mark.question))
        if override is not None:
            points = min(float(override.about["points"]), mark.max_points)
            made = replace(mark, points=points, status="ok", reason="", comment=_said(mark, override))
            by_hand = True
        marks.append(_excused(result, made, decisions))
    done = replace(
        result, marks=tuple(marks), max_score=_most(marks, result), late_s=_late(result, decisions)
    )
    still_open = any(mark.status in OPEN for mark in marks)
    if result.status == "ok" or (result.status == "needs manual" and not still_open):
        return replace(done, status="ok", score=total(marks), reason="")
    if by_hand and not still_open:
        return replace(
            done, status="ok", score=total(marks), reason=f"settled by hand; it was: {result.status}"
        )
    if result.status == "needs manual":
        waiting = [mark.question for mark in marks if mark.status == "needs manual"]
        return replace(done, reason=f"to be marked by a person: {', '.join(waiting)}")
    return done


def _with_points(result: Result, mark: Mark, decisions: Decided) -> Mark:
    event = decisions.points.get((result.slug, mark.question))
    text = result.written.get(mark.question)
    if event is None or text is None or mark.status != "needs manual":
        return mark
    if event.about.get("answer") != answer_id(result.slug, mark.question, text):
        return mark  # the points belong to a text that was replaced
    points = min(float(event.about["points"]), mark.max_points)
    return replace(mark, points=points, status="ok", reason="", comment=str(event.about.get("comment", "")))


def _said(mark: Mark, override: Event) -> str:
    why = str(override.about.get("why", ""))
    return f"{BY_HAND}: {why}" + (f" Before: {mark.comment}" if mark.comment else "")


def _excused(result: Result, mark: Mark, decisions: Decided) -> Mark:
    event = decisions.excuses.get((result.slug, mark.question)) or decisions.excuses.get(
        (EVERYONE, mark.question)
    )
    if event is None:
        return mark
    why = str(event.about.get("why", ""))
    if event.about["how"] == "full":
        said = f"Excused, full points: {why}"
        return replace(mark, points=mark.max_points, status="ok", reason="", comment=said)
    said = f"Excused, it does not count: {why}"
    return replace(mark, points=0.0, max_points=0.0, status="excused", reason="", comment=said)


def _most(marks: Sequence[Mark], result: Result) -> float:
    dropped = math.fsum(was.max_points for was, now in zip(result.marks, marks) if now.status == "excused")
    return round(result.max_score - dropped, 6)


def _late(result: Result, decisions: Decided) -> float | None:
    if decisions.late is None:
        return None
    seconds = decisions.late.about.get("late", {}).get(result.slug)
    return None if seconds is None else float(seconds)


# --- taking decisions --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reason:
    """Who decides, and why. An empty reason is none."""

    by: str
    why: str

    def __post_init__(self) -> None:
        if not self.why.strip():
            raise ValueError("a reason is needed: --why says it")


def override(folder: Path, result: Result, question: str, points: float | None, reason: Reason) -> list[str]:
    """Give a question these points, whatever the machine or a table said; None takes that back.

    question: a name, or "rest" for all that have no points yet. Returns what was done, in words.
    Raises ValueError for an unknown question and for points that it cannot have.
    """
    wanted = [mark for mark in result.marks if mark.question == question]
    if question == REST and not wanted:
        wanted = [mark for mark in result.marks if mark.status in OPEN]
        if not wanted and result.score is None:  # such as a cell that ran out of memory
            wanted = [mark for mark in result.marks if mark.status == "no answer"]
        if not wanted:
            raise ValueError(f"{result.student}: no question is without points")
    if not wanted:
        names = ", ".join(mark.question for mark in result.marks)
        raise ValueError(f"there is no question {question!r}; there are {names}")
    events: list[tuple[str, Mapping[str, Any]]] = []
    said = []
    for mark in wanted:
        if points is not None and not 0 <= points <= mark.max_points:
            raise ValueError(f"{mark.question}: {points:g} points; it has from 0 to {mark.max_points:g}")
        about = {"slug": result.slug, "question": mark.question, "points": points, "why": reason.why}
        events.append(("override", {**about, "was": mark.points}))
        now = "its own points again" if points is None else f"{points:g} of {mark.max_points:g}"
        said.append(f"{result.student}, {mark.question}: {now} (was {mark.points:g}): {reason.why}")
    log.append(folder, reason.by, events)
    return said


def excuse(
    folder: Path,
    results: Sequence[Result],
    question: str,
    how: str | None,
    reason: Reason,
    whom: Result | None = None,
) -> list[str]:
    """Let a faulty question not count ("drop"), or pay it in full ("full"); None takes that back.

    whom: only this student; None: the whole class, and who is graded later. Returns what was done, in words.
    """
    known = dict.fromkeys(mark.question for result in results for mark in result.marks)
    if question not in known:
        raise ValueError(f"there is no question {question!r}; there are {', '.join(known)}")
    about = {"question": question, "how": how, "why": reason.why}
    log.append(folder, reason.by, [("excuse", {**about, "slug": whom.slug} if whom else about)])
    done = {"drop": "does not count", "full": "is paid in full", None: "counts again"}[how]
    return [f"{question} {done} for {whom.student if whom else 'the whole class'}: {reason.why}"]


def keep_lateness(
    folder: Path, by: str, deadline: Deadline, seconds: Mapping[str, float | None], penalty: str = ""
) -> None:
    """Keep who was late, by what deadline, and by what rule it costs points ("": none).

    The results say with which notebook each of them was in time or late.
    """
    known = {slug: each for slug, each in seconds.items() if each is not None}
    about = {"due": deadline.due, "last": deadline.last, "grace_s": deadline.grace_s, "late": known}
    about["notebooks"] = {result.slug: _notebook(result) for result in load_all(folder)[0]}
    log.append(folder, by, [("late", {**about, "penalty": penalty} if penalty else about)])


def _notebook(result: Result) -> str:
    return result.hashes.get("notebook", "")


def since_lateness(results: Sequence[Result], decisions: Decided) -> list[str]:
    """Who handed in after `late` was last asked, so that it does not know when."""
    known = decisions.late.about.get("notebooks") if decisions.late else None
    if known is None:
        return []
    return [
        f"{each.student}: handed in since `late` was asked, which knows no date of it: ask it again"
        for each in results
        if known.get(each.slug) != _notebook(each)
    ]


def last_deadline(folder: Path) -> float | None:
    """When the last extension ends, in s since 1970; None where no deadline was told."""
    event = decided(folder).late
    return None if event is None else float(event.about["last"])


def shown(event: Event, name_of: Callable[[str], str]) -> str:
    """An event in a line, for a person."""
    about = event.about
    where = ", ".join(filter(None, (name_of(str(about.get("slug", ""))), str(about.get("question", "")))))
    what = event.what
    if what in ("points", "override"):
        points = about.get("points")
        said = "taken back" if points is None else f"{points:g} points"
    elif what == "excuse":
        said = {"drop": "does not count", "full": "paid in full"}.get(str(about.get("how")), "counts again")
    elif what == "late":
        late = [s for s in about.get("late", {}).values() if s]
        due = time.strftime("%Y-%m-%d %H:%M", time.localtime(about.get("due", 0)))
        rule = str(about.get("penalty", ""))
        said = f"due {due}; {len(late)} late{f', which costs {rule}' if rule else ''}"
    else:
        said = f"{about.get('before')} -> {about.get('after')} points"
    why = about.get("why") or about.get("comment") or ""
    return f"{event.n:4d}  {event.decided_at}  {event.by}: {what} {where}: {said}{f' ({why})' if why else ''}"
