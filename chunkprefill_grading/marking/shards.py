"""A class in parts, each graded on a machine of its own, and put together again."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from chunkprefill_grading.marking import log
from chunkprefill_grading.marking.log import Event
from chunkprefill_grading.marking.results import Result, load, paths_of, write
from chunkprefill_grading.marking.settle import decided
from chunkprefill_grading.submission.collect import Student


@dataclass(frozen=True)
class GradingShard:
    """Part `n` of `of`, from 1."""

    n: int = 1
    of: int = 1

    def part(self, students: Sequence[Student]) -> list[Student]:
        """The students of this part: every one is in exactly one part, whatever machine asks."""
        return sorted(students, key=lambda student: student.slug)[self.n - 1 :: self.of]


WHOLE = GradingShard()


def read_shard(text: str) -> GradingShard:
    """ "3/8" as a shard. ValueError for anything else."""
    found = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text.strip())
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError(f"{text!r} is no part such as 3/8")
    return GradingShard(int(found[1]), int(found[2]))


@dataclass
class Merged:
    """What was put together. added: new ones; same: equal ones; notes: what is worth telling."""

    added: int = 0
    same: int = 0
    notes: list[str] = field(default_factory=list)


def merge(out: Path, parts: Iterable[Path], students: Sequence[Student] = ()) -> Merged:
    """Copy the results of the parts into `out`. Nothing is written unless all fit together.

    students: of the whole class, to see who is in no part. Raises ValueError, which names all that is wrong:
    broken files, folders without results, two different results of one student, parts that were graded by
    different keys or graders.
    """
    waiting: dict[str, Result] = {}
    origin: dict[str, Path] = {}
    wrong: list[str] = []
    if out.is_dir() and list(out.glob("*.json")):
        for result in _sound(out, wrong):
            waiting[result.slug], origin[result.slug] = result, out
    before = set(waiting)
    made = Merged()
    events: list[Event] = []
    lates: dict[Path, Event] = {}
    for part in parts:
        if part.resolve() == out.resolve():
            raise ValueError(f"{part}: a part cannot be merged into itself")
        for result in _sound(part, wrong):
            slug = result.slug
            if slug not in waiting:
                waiting[slug], origin[slug] = result, part
                made.added += 1
            elif _as_judged(waiting[slug]) == _as_judged(result):
                made.same += 1
            else:
                wrong.append(f"{result.student}: {origin[slug]} and {part} have different results")
        with contextlib.suppress(ValueError):  # `_sound` has named a log that cannot be read
            events += log.in_order(log.read(part).events)
            if (late := decided(part).late) is not None:
                lates[part] = late
    for name, what in (("key", "keys"), ("grader", "versions of the grader")):
        found = {result.hashes.get(name, "") for result in waiting.values()}
        if len(found) > 1:
            wrong.append(f"these parts were graded by {len(found)} different {what}")
    for_all = _lateness(lates, wrong)
    if wrong:
        more = f" (and {len(wrong) - 20} more)" if len(wrong) > 20 else ""
        raise ValueError(f"nothing is merged: {'; '.join(wrong[:20])}{more}")
    for slug, result in waiting.items():
        if slug not in before:
            write(out, result)
    known = {_identity(event) for event in log.in_order(log.read(out).events)}
    for event in sorted([*events, *for_all], key=lambda event: event.decided_at):
        if _identity(event) not in known:
            log.append(out, event.by, [(event.what, event.about)])
    made.notes += [f"{s.student}: in none of the parts" for s in students if s.slug not in waiting]
    slugs = {student.slug for student in students}
    if slugs:
        made.notes += [f"{r.student}: not in this class" for slug, r in waiting.items() if slug not in slugs]
    return made


def _identity(event: Event) -> tuple[str, ...]:
    """What makes an event of a part's log and one of the log of all the same."""
    return event.by, event.what, json.dumps(dict(event.about), sort_keys=True)


def _lateness(lates: Mapping[Path, Event], wrong: list[str]) -> list[Event]:
    """One event for all parts in place of one for each, of which the last alone would count."""
    rules = {
        tuple(str(each.about.get(name)) for name in ("due", "grace_s", "penalty")) for each in lates.values()
    }
    if len(rules) > 1:
        names = ", ".join(map(str, lates))
        wrong.append(f"{names} were told of {len(rules)} different deadlines or penalties: ask `late` anew")
        return []
    if len(lates) < 2:
        return []
    late: dict[str, float] = {}
    notebooks: dict[str, str] = {}
    for part, event in lates.items():
        for slug, seconds in event.about.get("late", {}).items():
            if late.setdefault(slug, seconds) != seconds:
                wrong.append(f"{slug}: {part} and another part know different dates of it: ask `late` anew")
        notebooks |= event.about.get("notebooks", {})
    last = max(lates.values(), key=lambda event: event.decided_at)
    about = {**last.about, "late": late, "notebooks": notebooks}
    about["last"] = max(float(event.about["last"]) for event in lates.values())
    return [replace(last, about=about)] if about != last.about else []


def _sound(folder: Path, wrong: list[str]) -> list[Result]:
    """The results of a folder that can be read; what is said of the others, and of their log, goes to `wrong`."""
    made = []
    try:
        paths = paths_of(folder)
        log.read(folder)
    except ValueError as error:
        wrong.append(str(error))
        return []
    for path in paths:
        try:
            made.append(load(path))
        except ValueError as error:
            wrong.append(f"{error}; run that part again, or take the file away")
    return made


def _as_judged(result: Result) -> tuple[object, ...]:
    return result.status, result.marks, dict(result.hashes), result.student
