"""Bring submissions together: zips of any learning system and folders become one folder and a list.

A student is who the learning system's number says, else who the name says; a notebook that is replaced, two
names that are one student, and a file that is no notebook are all reported.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from chunkprefill_grading.submission import layouts
from chunkprefill_grading.submission.archives import (
    CHECKPOINT,
    EMPTY_FOLDER,
    NO_NOTEBOOK,
    NOTEBOOK,
    Found,
    Refusal,
    Source,
    look,
)
from chunkprefill_grading.submission.files import replace_file
from chunkprefill_grading.submission.layouts import COPY, Owner, ReadingPlan
from chunkprefill_grading.submission.load import Unreadable, read_bytes
from chunkprefill_grading.submission.roster import Roster
from chunkprefill_grading.submission.spreadsheet import folded

LIST = "collected.json"
FORMAT, VERSION = "chunkprefill-collected", 2
MAX_TRIES = 20  # notebooks of one student that may count
MAX_LIST = 64 << 20  # bytes
MAX_NAME = 80  # bytes of a file name, without its number and its ending
_SLUG = re.compile(r"^[\w()+@][\w .()+@-]{0,119}$")
NO_ROSTER = Roster()
_RESERVED = re.compile(r"(?i)^(?:con|prn|aux|nul|com\d|lpt\d|collected\.json|log|manual)(?:\..*)?$")


@dataclass(frozen=True)
class Student:
    """One who handed something in. file: beside the list, or None where nothing could be taken."""

    student: str  # as exports name them: unique
    slug: str  # as files name them: unique, whatever a disk makes of cases
    name: str
    lms: str = ""  # the learning system that gave `lms_id`
    lms_id: str = ""
    email: str = ""
    file: str | None = None
    source: str = ""  # where the notebook lay
    when: float = 0.0  # s since 1970, as far as the archive knows; 0.0: unknown
    problem: str = ""  # why there is none
    aside: tuple[str, ...] = ()  # other notebooks of the same student
    tag: str = ""  # "LATE", where the learning system says so

    @property
    def key(self) -> tuple[str, str]:
        """See `Owner.key`."""
        return Owner(self.name, self.lms, self.lms_id).key


@dataclass(frozen=True)
class How:
    """How sources are read. layout, strip: what a person says of them; now: s since 1970."""

    roster: Roster = NO_ROSTER
    layout: str = "auto"
    strip: int | None = None
    now: float | None = None


@dataclass
class Collected:
    """The list of a class, and what is worth telling of how it came about."""

    students: list[Student] = field(default_factory=list)
    refused: list[list[str]] = field(default_factory=list)  # [entry, why]
    missing: list[str] = field(default_factory=list)  # on the roster and not here
    unknown: list[str] = field(default_factory=list)  # here and not on the roster
    changes: list[str] = field(default_factory=list)  # replaced, merged, kept: of the last time

    def write(self, folder: Path) -> None:
        """Replace the list in a folder."""
        document = {"format": FORMAT, "version": VERSION, **asdict(self)}
        del document["changes"]
        replace_file(folder / LIST, json.dumps(document, indent=1))


# --- reading a list back -----------------------------------------------------------------------------


def read_list(folder: Path, how: How | None = None) -> Collected:
    """The list in a folder, or one made by looking into it. ValueError for a folder that holds neither.

    A list is looked at as closely as a submission: who gives `run` a folder of strangers' files may have been
    given a list with them.
    """
    path = folder / LIST
    if not path.is_file():
        if not folder.is_dir():
            raise ValueError(f"{folder}: no such folder")
        how = how or How()
        source = look(folder, how.now)
        pairs, plan = chosen(source, how)
        students = named([student for student, _ in pairs])
        placed = [
            replace(student, file=None if item is None or item.path is None else str(item.path.absolute()))
            for student, (_, item) in zip(students, pairs)
        ]
        return Collected(
            placed, [[each.entry, each.why] for each in source.refused], changes=list(plan.notes)
        )
    try:
        return _checked(json.loads(read_bytes(path, MAX_LIST).decode("utf-8")), folder)
    except (KeyError, TypeError, ValueError, OSError, RecursionError) as error:
        raise ValueError(f"{path}: a broken list of submissions: {error}") from None


def _checked(document: Any, folder: Path) -> Collected:
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError("not a list of submissions")
    if document.get("version") != VERSION:
        raise ValueError(f"not a list of version {VERSION}: collect again, from the first sources on")
    lines = [document[name] for name in ("missing", "unknown")]
    if not all(isinstance(line, list) and all(isinstance(each, str) for each in line) for line in lines):
        raise ValueError("missing and unknown are lists of names")
    refused = document["refused"]
    if not all(
        isinstance(row, list) and len(row) == 2 and all(isinstance(x, str) for x in row) for row in refused
    ):
        raise ValueError("refused is a list of pairs")
    students = [_student(row, folder) for row in document["students"]]
    for what, values in (
        ("slug", [student.slug.casefold() for student in students]),
        ("name", [student.student for student in students]),
        ("number", [student.key for student in students]),
    ):
        twice = [value for value, n in Counter(values).items() if n > 1]
        if twice:
            raise ValueError(f"two students have the same {what}: {twice[0]!r}")
    return Collected(students, refused, *lines)


def _student(row: Any, folder: Path) -> Student:
    kinds = {each.name for each in fields(Student)}
    if not isinstance(row, dict) or not {"student", "slug", "name"} <= row.keys() <= kinds:
        raise ValueError("a student with other fields than a student has")
    when, aside, file = row.get("when", 0.0), row.get("aside", ()), row.get("file")
    texts = [value for name, value in row.items() if name not in ("when", "aside", "file")]
    if not all(isinstance(text, str) for text in [*texts, *aside]):
        raise ValueError("a student's field is no text")
    if isinstance(when, bool) or not isinstance(when, int | float) or not math.isfinite(when) or when < 0:
        raise ValueError(f"{row['student']!r}: a date of {when!r}")
    if not _SLUG.match(row["slug"]) or _RESERVED.match(row["slug"]) or row["slug"].endswith((".", " ")):
        raise ValueError(f"{row['slug']!r} is no file name that `collect` gives")
    if file is not None and file != f"{row['slug']}/{row['slug']}.ipynb":
        raise ValueError(f"{file!r} is not where `collect` puts the notebook of {row['student']!r}")
    if file is not None and ((folder / row["slug"]).is_symlink() or (folder / file).is_symlink()):
        raise ValueError(f"{file!r} is a link")
    return Student(**{**row, "when": float(when), "aside": tuple(aside)})


# --- collecting --------------------------------------------------------------------------------------


def collect(sources: Iterable[Path], out: Path, how: How | None = None) -> Collected:
    """Copy each student's notebook into `out` and list them; what was collected before stays, if not newer.

    Raises ValueError for a source that is neither a zip nor a folder. What lies inside a source never stops
    the others: it is refused by name.
    """
    how = how or How()
    how = replace(how, now=time.time() if how.now is None else how.now)
    before = read_list(out) if (out / LIST).is_file() else Collected()
    kept: dict[tuple[str, str], Student] = {student.key: student for student in before.students}
    waiting: dict[tuple[str, str], Found] = {}
    refused: list[Refusal] = []
    changes: list[str] = []
    for path in sources:
        source = look(path, how.now)
        pairs, plan = chosen(source, how)
        refused += source.refused
        changes += [f"{path.name}: {note}" for note in plan.notes]
        for student, item in pairs:
            key = student.key
            old = kept.get(key)
            if old is None:
                key, old = _same_person(student, kept, how.roster, changes)
            if old is None:
                kept[key] = student
            else:
                old_bytes = partial(_bytes_of, out, old, waiting.get(key))
                merged, taken = _merged(old, student, item, old_bytes, changes)
                kept[key] = merged
                item = item if taken else None
            if item is not None:
                waiting[key] = item
    out.mkdir(parents=True, exist_ok=True)
    students = named(kept.values(), {student.key: student.slug for student in before.students})
    changes += _look_alike(students)
    for i, student in enumerate(students):
        if (found := waiting.get(student.key)) is not None:
            file = f"{student.slug}/{student.slug}.ipynb"
            students[i] = replace(student, file=file)
            (out / student.slug).mkdir(exist_ok=True)
            replace_file(out / file, found.read())
    listed = [[each.entry, each.why] for each in refused]
    collected = Collected(
        students, before.refused + [row for row in listed if row not in before.refused], changes=changes
    )
    if how.roster.people:
        _compare(collected, how.roster)
    collected.write(out)
    return collected


def _bytes_of(out: Path, student: Student, found: Found | None) -> bytes:
    if found is not None:
        return found.read()
    return read_bytes(out / student.file) if student.file else b""


def _same_person(
    student: Student, kept: dict[tuple[str, str], Student], roster: Roster, changes: list[str]
) -> tuple[tuple[str, str], Student | None]:
    """Whether the student is here under another key: two sources, of which one has numbers and one has names.

    Only a roster on which the name stands once makes the two one; else both stay, and that is said.
    """
    alike = [
        (key, other)
        for key, other in kept.items()
        if folded(other.name) == folded(student.name) and other.lms != student.lms
    ]
    if len(alike) != 1:
        return student.key, None
    key, other = alike[0]
    if roster.find(student.name) is not None and "" in (student.lms, other.lms):
        changes.append(
            f"{student.name}: one student, with and without a number ({_number(other)}, {_number(student)})"
        )
        return key, other
    changes.append(
        f"{student.name}: two students of that name, from two sources ({_number(other)}, {_number(student)})"
    )
    return student.key, None


def _look_alike(students: Iterable[Student]) -> list[str]:
    """Names without a number that a person reads as one, such as "Ada" and "ada": each is a student."""
    alike: dict[str, list[str]] = {}
    for student in students:
        if not student.lms_id:
            seen = "".join(c for c in student.name if unicodedata.category(c) != "Cf")
            alike.setdefault(folded(seen), []).append(repr(student.name))
    return [
        f"{', '.join(names)}: {len(names)} students by name, and the names look alike"
        for names in alike.values()
        if len(names) > 1
    ]


def _number(student: Student) -> str:
    return f"{student.lms} {student.lms_id}" if student.lms_id else "by name"


def _merged(
    old: Student, new: Student, item: Found | None, old_bytes: Any, changes: list[str]
) -> tuple[Student, bool]:
    """The student after both, and whether the new notebook is the one that counts."""
    named_old = replace(old, email=old.email or new.email, tag=new.tag or old.tag)
    if old.name != new.name and not layouts.is_blind(new.name):
        changes.append(f"{new.name}: was {old.name!r} before, the same {_number(new)}")
        named_old = replace(named_old, name=new.name)
    if item is None:
        return named_old, False
    taken = replace(
        named_old,
        source=new.source,
        when=new.when,
        problem="",
        file=None,
        aside=tuple(dict.fromkeys([*old.aside, *new.aside])),
        tag=new.tag,
    )
    if not old.source:
        return taken, True
    data, before = item.read(), old_bytes()
    if data == before:
        return replace(named_old, aside=taken.aside), False
    older, less = new.when < old.when, _is_answered(before) and not _is_answered(data)
    if older or less:
        why = "it is older" if older else "it holds no answers of a problem set"
        changes.append(f"{named_old.name}: {new.source} is put aside: {why} ({_day(new)}, {_day(old)})")
        aside = tuple(dict.fromkeys([*old.aside, *new.aside, new.source]))
        return replace(named_old, aside=aside), False
    changes.append(f"{named_old.name}: {new.source} ({_day(new)}) replaces {old.source} ({_day(old)})")
    return replace(taken, aside=tuple(dict.fromkeys([*taken.aside, old.source]))), True


def _day(student: Student) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(student.when)) if student.when else "no date"


def _compare(collected: Collected, roster: Roster) -> None:
    """Who is missing, and who is not on the roster."""
    here = set()
    for student in collected.students:
        owner = Owner(student.name, student.lms, student.lms_id, student.email)
        person = layouts.person_of(owner, roster)
        if person is not None:
            here.add(person)
        elif not roster.has(student.name):
            collected.unknown.append(student.student)
    names = {folded(student.name) for student in collected.students}
    collected.missing = [
        person.name for person in roster.people if person not in here and folded(person.name) not in names
    ]


def chosen(source: Source, how: How) -> tuple[list[tuple[Student, Found | None]], ReadingPlan]:
    """Each student of a source with the notebook that counts, and how the source was read.

    A problem set before any other notebook, then the newest; of the same age the copy, since that is the one
    that is worked on.
    """
    stray = [each for each in source.refused if each.parts]
    places = [item.parts for item in source.found] or [each.parts for each in stray]
    plan = layouts.plan(places, source.notes, how.roster, layout=how.layout, strip=how.strip)
    mine: dict[tuple[str, str], list[tuple[Owner, Found]]] = {}
    spelt: dict[tuple[str, str], set[str]] = {}
    reasons: dict[tuple[str, str], tuple[Owner, list[Refusal]]] = {}
    for item in source.found:
        for owner in plan.owners(item.parts[plan.stripped :] or item.parts[-1:]):
            as_named, owner = owner.name, layouts.with_person(owner, how.roster)
            mine.setdefault(owner.key, []).append((owner, item))
            spelt.setdefault(owner.key, set()).add(as_named)
    for each in [*stray, *source.hidden]:
        inside = each.parts[plan.stripped :]
        if not inside or (each.why == CHECKPOINT and inside[0].startswith(".")):
            continue
        for owner in plan.owners(inside):
            owner = layouts.with_person(owner, how.roster)
            known = bool(owner.id) or how.roster.has(owner.name)
            alone = len(inside) == 1 and each.why == NO_NOTEBOOK
            if known or not (alone or each.why == EMPTY_FOLDER):  # a stray file or folder is no student
                reasons.setdefault(owner.key, (owner, []))[1].append(each)
    said = list(plan.notes)
    rows: list[tuple[Student, Found | None]] = []
    for key in sorted({*mine, *reasons}):
        items = sorted(mine.get(key, []), key=_rank)
        if not items:
            owner, why = reasons[key]
            rows.append((_from(owner, problem=_problem(why)), None))
            continue
        if len(items) > 1:  # a student may have handed in thousands: the last ones are looked into
            items = items[:-MAX_TRIES] + sorted(
                items[-MAX_TRIES:], key=lambda pair: _is_answered(pair[1].read())
            )
        owner, last = items[-1]
        names = sorted({each.name for each, _ in items})
        if len(names) > 1:
            shown = [name for name in names if not layouts.is_blind(name)] or names
            owner = replace(owner, name=owner.name if owner.name in shown else shown[0])
        if len(spelt[key]) > 1:
            by = f"{owner.lms} {owner.id}" if owner.id else f"on the roster as {owner.name}"
            said.append(f"{', '.join(sorted(spelt[key]))} are one student, {by}")
        if last.doubt:
            said.append(f"{owner.name}: {last.entry} is dated {last.doubt}: its date does not count")
        aside = tuple(
            f"another entry of the name {item.entry}" if item.entry == last.entry else item.entry
            for _, item in items[:-1]
        )
        when = last.when if owner.when is None else min(owner.when, how.now or time.time())
        rows.append((_from(owner, source=last.entry, when=when, aside=aside), last))
    return rows, replace(plan, notes=tuple(said))


def _problem(refused: Sequence[Refusal]) -> str:
    """Why a student has no notebook; where there are only other files, which ones, since that is what to mend."""
    if first := next((each.why for each in refused if each.why not in (NO_NOTEBOOK, EMPTY_FOLDER)), ""):
        return first
    others = [each.parts[-1][:60] for each in refused if each.why == NO_NOTEBOOK]
    if not others:
        return EMPTY_FOLDER
    more = f" and {len(others) - 3} more" if len(others) > 3 else ""
    return f"{', '.join(others[:3])}{more}: not a notebook, whose name ends in .ipynb"


def _from(owner: Owner, **more: Any) -> Student:
    return Student(
        student=owner.name,
        slug=slug(owner.name, owner.id if owner.lms in ("moodle", "canvas", "brightspace") else ""),
        name=owner.name,
        lms=owner.lms,
        lms_id=owner.id,
        email=owner.email,
        tag=owner.tag,
        **more,
    )


def _is_answered(data: bytes) -> bool:
    """Whether it holds the marks of a problem set's answers: a second notebook may be anything."""
    return b"# Answer: " in data or b"<!-- answer: " in data


def _rank(pair: tuple[Owner, Found]) -> tuple[Any, ...]:
    owner, item = pair
    stem = NOTEBOOK.sub("", item.parts[-1])
    digits = re.findall(r"\d+", stem[len(COPY.sub("", stem)) :])
    again = re.search(r"-(\d{1,3})$", stem) if owner.lms.startswith("canvas") else None
    copied = COPY.search(stem) is not None
    when = owner.when if owner.when is not None else item.when
    number = int(digits[-1][:9]) if digits else 0
    return when, owner.attempt, int(again[1]) if again else 0, copied, number, item.order


# --- names -------------------------------------------------------------------------------------------


def slug(name: str, number: str = "") -> str:
    """A file name for a student: safe on every system, and short enough for each."""
    text = unicodedata.normalize("NFKC", name)
    plain = re.sub(r"[^\w .()+@-]", "_", text)
    while len(plain.encode("utf-8", "replace")) > MAX_NAME:
        plain = plain[:-1]
    plain = plain.strip(" .-") or "student"
    if _RESERVED.match(plain):
        plain = f"_{plain}"
    if plain != name:
        plain += "-" + _short(name)
    return f"{plain}_{re.sub(r'[^A-Za-z0-9]', '-', number)[:24]}" if number else plain


def _short(text: str, n: int = 8) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:n]


def named(students: Iterable[Student], given: dict[tuple[str, str], str] | None = None) -> list[Student]:
    """The same students, with names and file names that tell any two of them apart, in the order of names.

    given: file names that stand already: a student keeps one, because results are kept under it.
    """
    rows = list(students)
    taken = dict(given or {})
    used = {name.casefold() for name in taken.values()}
    many = Counter(folded(row.name) for row in rows)
    titles: set[str] = set()
    made = []
    for row in rows:
        title = row.name
        if many[folded(row.name)] > 1:
            title = f"{row.name} ({row.lms_id or _short(row.name, 4)})"
        if title in titles:
            title = f"{row.name} ({_number(row)}, {_short(repr(row.key), 6)})"
        titles.add(title)
        file_name = taken.get(row.key, "")
        if not file_name:
            file_name = row.slug
            if file_name.casefold() in used:  # a disk may not tell cases apart
                file_name += "-" + _short(repr(row.key))
            used.add(file_name.casefold())
        made.append(replace(row, student=title, slug=file_name))
    return made if given is None else sorted(made, key=lambda each: (each.name, each.lms_id))


def files_of(folder: Path, students: Sequence[Student]) -> dict[str, bytes]:
    """The notebooks of a class by slug; who has none, or one that cannot be read, is left out."""
    made = {}
    for student in students:
        if student.file is None:
            continue
        try:
            made[student.slug] = read_bytes(folder / PurePosixPath(student.file))
        except Unreadable:
            continue
    return made
