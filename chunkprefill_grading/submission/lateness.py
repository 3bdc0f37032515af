"""Who was late, by dates and by a table of extensions."""

from __future__ import annotations

import datetime
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chunkprefill_grading.submission.collect import Student
from chunkprefill_grading.submission.roster import name_keys
from chunkprefill_grading.submission.spreadsheet import SavedTable, folded, read_table

_FORMS = (
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d",
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d %H:%M",
    "%Y/%m/%d",
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y",
)
_LATER = re.compile(r"^\+?\s*(\d+(?:[.,]\d+)?)\s*(d|days?|h|hours?|tage?|stunden?|jours?|heures?)$", re.I)


_RULE = re.compile(
    r"""\s*(?P<amount>\d+(?:[.,]\d+)?)\s*(?P<unit>%|points?|)
        (?:\s*(?:/|\bper\b)\s*(?P<n>\d{1,4})?\s*(?P<each>d|days?|h|hours?|min|minutes?))?
        (?:[\s,]*\bat\s+most\s+(?P<most>\d+(?:[.,]\d+)?)\s*%)?\s*""",
    re.I | re.X,
)
_SECONDS = {"d": 86_400, "h": 3_600, "m": 60}


@dataclass(frozen=True)
class Penalty:
    """What being late costs: points, or percent of all that the set has; for each stretch begun, or once.

    each_s: the stretch, 0.0: once. most: percent of the set's points beyond which it costs no more.
    """

    amount: float
    in_percent: bool = False
    each_s: float = 0.0
    most: float = 100.0

    def points(self, late_s: float, score: float, max_score: float) -> float:
        """What is taken off a score: never more than there is."""
        n = math.ceil(late_s / self.each_s) if self.each_s else 1
        off = self.amount * n * (max_score / 100 if self.in_percent else 1.0)
        return round(max(0.0, min(off, score, max_score * self.most / 100)), 6)


def read_penalty(text: str) -> Penalty:
    """A rule such as "10%/day", "2 points per day", "1%/h, at most 50%", "25%". ValueError for what is none."""
    found = _RULE.fullmatch(text)
    if found is None:
        raise ValueError(
            f"{text!r} is no rule; write '10%/day', '2 points/day', '1%/h, at most 50%' or '25%'"
        )
    amount, most = (float((found[name] or "100").replace(",", ".")) for name in ("amount", "most"))
    in_percent = found["unit"] == "%"
    if most > 100 or (in_percent and amount > 100) or not amount:
        raise ValueError(f"{text!r}: from 0 to 100% can be taken off, and more than nothing")
    each_s = float(_SECONDS[found["each"][0].lower()] * int(found["n"] or 1)) if found["each"] else 0.0
    if found["n"] and not int(found["n"]):
        raise ValueError(f"{text!r}: a stretch of no time")
    return Penalty(amount, in_percent, each_s, most)


@dataclass(frozen=True)
class Deadline:
    """When a set was due. extensions: other times for some, by slug; grace_s: what is let pass."""

    due: float  # s since 1970
    grace_s: float = 0.0
    extensions: dict[str, float] | None = None

    def late_s(self, student: Student) -> float | None:
        """Seconds after this student's own deadline, 0.0 for who was in time; None where no date is known.

        Where only the learning system's tag says so, it is late by a second.
        """
        if student.file is None:
            return None
        if not student.when:
            return 1.0 if student.tag == "LATE" else None
        due = (self.extensions or {}).get(student.slug, self.due)
        over = student.when - due
        return round(over, 1) if over > self.grace_s else 0.0

    @property
    def last(self) -> float:
        """When the last extension ends."""
        return max([self.due, *(self.extensions or {}).values()])


def moment(text: str) -> float:
    """Seconds since 1970 of a date as people write it; a date alone is the end of that day.

    Without a zone it is local time, as the dates in a zip are. ValueError for what is no date.
    """
    said = text.strip()
    try:
        found = datetime.datetime.fromisoformat(said)
        if len(said) <= 10:
            found = found.replace(hour=23, minute=59, second=59)
        return found.timestamp()
    except (ValueError, OverflowError, OSError):
        pass
    for form in _FORMS:
        try:
            parts = time.strptime(said, form)
        except ValueError:
            continue
        last = (23, 59, 59) if "%H" not in form else parts[3:6]
        return datetime.datetime(*parts[:3], *last).timestamp()
    raise ValueError(f"{text!r} is no date; write 2026-03-01 23:59")


def read_extensions(
    path: Path, students: Sequence[Student], due: float, encoding: str = ""
) -> tuple[dict[str, float], list[str]]:
    """(extensions by slug, who of the table is not here), of a table of names or addresses and dates.

    A cell of the date may be a date, or "+3 days", or "+12 h". Of two rows for a student the later date
    counts, and none takes time away; both are told. ValueError for a cell that is neither.
    """
    table = read_table(path, encoding, [student.name for student in students])
    when = table.column("due")
    if when is None:
        raise ValueError(
            f"{path}: no column for the date: call it 'due'; there are {', '.join(table.header)}"
        )
    made: dict[str, float] = {}
    unknown = list(table.notes)
    for line, row in enumerate(table.rows, 2):
        if not row[when].strip():
            continue
        later = _LATER.match(row[when].strip())
        try:
            until = _later(due, later) if later else moment(row[when])
        except ValueError as error:
            raise ValueError(f"{path}: row {line}: {error}") from None
        whose = _whose(table, row, students)
        if len(whose) == 1:
            unknown += _extended(made, whose[0], until, due)
        else:
            cells = " ".join(cell for i, cell in enumerate(row) if i != when and cell)
            unknown.append(f"{cells}: {f'{len(whose)} students may be meant' if whose else 'not here'}")
    return made, unknown


def _extended(made: dict[str, float], student: Student, until: float, due: float) -> list[str]:
    """Enter an extension; what is odd about it."""
    said = []
    if until < due:
        said.append(f"{student.student}: {_shown(until)} is before the deadline, and does not count")
        until = due
    before = made.get(student.slug, until)
    if before != until:
        said.append(
            f"{student.student}: two rows, {_shown(before)} and {_shown(until)}; the later of them counts"
        )
    made[student.slug] = max(before, until)
    return said


def _shown(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _later(due: float, later: re.Match[str]) -> float:
    """The deadline and so many days or hours: at the same time of the clock, whatever the clock did meanwhile."""
    number = float(later[1].replace(",", "."))
    if later[2][:1].casefold() not in "dtj":
        return due + 3_600 * number
    days = math.floor(number)
    then = datetime.datetime.fromtimestamp(due) + datetime.timedelta(days=days)
    return then.timestamp() + 86_400 * (number - days)


def _whose(table: SavedTable, row: Sequence[str], students: Sequence[Student]) -> list[Student]:
    ids = [
        row[i].strip().casefold()
        for kind in ("email", "username", "identifier", "number")
        for i in table.columns(kind)
    ]
    same = [
        s
        for s in students
        if {s.email.casefold(), s.lms_id.casefold()} & {each for each in ids if each} - {""}
    ]
    if same:
        return same
    whole = table.columns("name") or [*table.columns("first")[:1], *table.columns("last")[:1]]
    name = " ".join(row[i] for i in whole).strip().lstrip("'")
    exact = [s for s in students if folded(name) in (folded(s.student), folded(s.slug))]
    return exact or [s for s in students if name_keys(name) & name_keys(s.name)]


def duration(seconds: float) -> str:
    """So long, in the unit in which it is not nothing: "40 s", "12 min", "26.5 h", "4.0 days"."""
    if seconds < 3_600:
        return f"{seconds:.0f} s" if seconds < 60 else f"{seconds / 60:.0f} min"
    return f"{seconds / 3_600:.1f} h" if seconds < 72 * 3_600 else f"{seconds / 86_400:.1f} days"


def told(student: Student, deadline: Deadline) -> list[str]:
    """What is worth saying of a student's date: how late, or that none is known."""
    seconds = deadline.late_s(student)
    if student.file is None:
        return []
    extended = student.slug in (deadline.extensions or {})
    said = []
    if not student.when:
        tag = "; the learning system says LATE" if student.tag else ""
        said.append(f"{student.student}: no date is known{tag}")
    elif seconds:
        past = " after an extension" if extended else ""
        if student.lms.startswith("canvas") and not student.tag and not extended:
            past = "; Canvas does not say LATE: is its date the one of the download?"
        said.append(f"{student.student}: {duration(seconds)} late{past}")
    elif student.tag == "LATE" and not extended:
        said.append(f"{student.student}: in time by its date, and the learning system says LATE")
    return said
