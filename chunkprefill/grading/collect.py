"""Bring submissions together: Moodle zips, plain zips and folders become one folder and a list."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from chunkprefill.grading.archives import Found, Refusal, look
from chunkprefill.grading.results import replace_file

LIST = "collected.json"
FORMAT = "chunkprefill-collected"
MAX_TRIES = 20  # notebooks of one student that may count
MOODLE = re.compile(r"^(?P<name>.+?)_(?P<id>\d+)_assignsubmission_[a-z]+_?(?P<file>.*)$", re.S)
# A second copy of the same thing, as browsers, Jupyter, Colab and Windows name it
_COPY = re.compile(r"^(?:copy of |kopie van |kopie von |copie de )+|(?:[-_ ]copy\d*| \(\d+\))+$", re.I)


@dataclass(frozen=True)
class Student:
    """One who handed something in. file: beside the list, or None where nothing could be taken."""

    student: str  # as exports name them: unique
    slug: str  # as files name them
    name: str
    moodle_id: str = ""
    file: str | None = None
    source: str = ""  # where the notebook lay
    when: float = 0.0  # s since 1970, as far as the archive knows
    problem: str = ""  # why there is none
    aside: tuple[str, ...] = ()  # other notebooks of the same student


@dataclass
class Collected:
    """The list of a class."""

    students: list[Student] = field(default_factory=list)
    refused: list[list[str]] = field(default_factory=list)  # [entry, why]
    missing: list[str] = field(default_factory=list)  # on the roster and not here
    unknown: list[str] = field(default_factory=list)  # here and not on the roster

    def write(self, folder: Path) -> None:
        """Replace the list in a folder."""
        students = [asdict(student) for student in self.students]
        document = {"format": FORMAT, "version": 1, **asdict(self), "students": students}
        replace_file(folder / LIST, json.dumps(document, indent=1))


def read_list(folder: Path) -> Collected:
    """The list in a folder, or one made by looking into it. ValueError for a folder that holds neither."""
    path = folder / LIST
    if not path.is_file():
        if not folder.is_dir():
            raise ValueError(f"{folder}: no such folder")
        found, refused = look(folder)
        pairs = chosen(found, refused, [])
        listed = [_placed(student, None if item is None else item.path) for student, item in pairs]
        return Collected(listed, [[each.entry, each.why] for each in refused])
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != FORMAT or document["version"] != 1:
            raise ValueError("not a list of version 1")
        students = [Student(**{**row, "aside": tuple(row["aside"])}) for row in document["students"]]
        return Collected(students, document["refused"], document["missing"], document["unknown"])
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise ValueError(f"{path}: a broken list of submissions: {error}") from None


def _placed(student: Student, path: Path | None) -> Student:
    return replace(student, file=None if path is None else str(path.absolute()))


def collect(sources: Iterable[Path], out: Path, roster: list[str] | None = None) -> Collected:
    """Copy each student's notebook into `out` and list them; what was collected before stays, if not newer.

    Raises ValueError for a source that is neither a zip nor a folder. What lies inside a source never stops
    the others: it is refused by name.
    """
    names = roster or []
    before = read_list(out) if (out / LIST).is_file() else Collected()
    out.mkdir(parents=True, exist_ok=True)
    kept = {(s.name, s.moodle_id): s for s in before.students}
    refused: list[Refusal] = []
    for source in sources:
        found, here = look(source)
        refused += here
        for student, item in chosen(found, here, names):
            old = kept.get((student.name, student.moodle_id))
            if old and old.file and (item is None or old.when > student.when):
                continue
            file = None
            if item is not None:
                file = f"{student.slug}/{student.slug}.ipynb"
                (out / student.slug).mkdir(exist_ok=True)
                replace_file(out / file, item.read())
            kept[student.name, student.moodle_id] = replace(student, file=file)
    students = unique(kept.values())
    listed = [[each.entry, each.why] for each in refused]
    collected = Collected(students, before.refused + [row for row in listed if row not in before.refused])
    if names:
        here_now = {folded(s.name) for s in students} | {folded(s.student) for s in students}
        collected.missing = [name for name in names if folded(name) not in here_now]
        known = {folded(name) for name in names}
        collected.unknown = [s.student for s in students if folded(s.name) not in known]
    collected.write(out)
    return collected


def chosen(
    found: list[Found], refused: list[Refusal], roster: list[str]
) -> list[tuple[Student, Found | None]]:
    """Each student with the notebook that counts.

    A problem set before any other notebook, then the newest; of the same age the copy, for it is worked on.
    """
    mine: dict[tuple[str, str], list[Found]] = {}
    reasons: dict[tuple[str, str], str] = {}
    wrapped = wrapper([item.parts for item in found] + [each.parts for each in refused if each.parts], roster)
    for item in found:
        mine.setdefault(owner(item.parts[wrapped:], roster), []).append(item)
    for each in refused:
        if each.parts[wrapped:]:
            reasons.setdefault(owner(each.parts[wrapped:], roster), each.why)
    rows: list[tuple[Student, Found | None]] = []
    for name, moodle_id in sorted({*mine, *reasons}):
        items = sorted(mine.get((name, moodle_id), []), key=_rank)
        if len(items) > 1:  # a student may have handed in thousands: the last ones are looked into
            items = items[:-MAX_TRIES] + sorted(items[-MAX_TRIES:], key=_is_answered)
        last = items[-1] if items else None
        student = Student(student=name, slug=slug(name, moodle_id), name=name, moodle_id=moodle_id)
        if last is None:
            rows.append((replace(student, problem=reasons[name, moodle_id]), None))
        else:
            aside = tuple(item.entry for item in items[:-1])
            rows.append((replace(student, source=last.entry, when=last.when, aside=aside), last))
    listed = unique([student for student, _ in rows])
    return [(student, item) for student, (_, item) in zip(listed, rows)]


def _is_answered(item: Found) -> bool:
    """Whether it holds the marks of a problem set's answers: a second notebook may be anything."""
    data = item.read()
    return b"# Answer: " in data or b"<!-- answer: " in data


def _rank(item: Found) -> tuple[Any, ...]:
    stem = Path(item.parts[-1]).stem
    digits = re.findall(r"\d+", stem[len(_COPY.sub("", stem)) :])
    return item.when, _COPY.search(stem) is not None, int(digits[-1][:9]) if digits else 0, item.order


def wrapper(places: list[tuple[str, ...]], roster: list[str]) -> int:
    """How many folders at the top hold everything and name nobody: 1 where a class was zipped as a whole."""
    tops = {parts[0] for parts in places}
    if len(tops) != 1 or not all(len(parts) > 1 for parts in places):
        return 0
    if MOODLE.match(next(iter(tops))) or folded(next(iter(tops))) in {folded(name) for name in roster}:
        return 0
    inside = {parts[1] for parts in places}
    known = {folded(name) for name in roster}
    named = any(MOODLE.match(part) or folded(Path(part).stem) in known for part in inside)
    folders = {parts[1] for parts in places if len(parts) > 2}
    return 1 if named or len(folders) > 1 else 0


def owner(parts: tuple[str, ...], roster: list[str]) -> tuple[str, str]:
    """(name, Moodle's number) of whoever an entry belongs to: Moodle's names, NAME/..., or NAME.ipynb."""
    for part in parts:
        if moodle := MOODLE.match(part):
            return _without_group(moodle["name"].strip(), roster), moodle["id"]
    if len(parts) > 1:
        return parts[0].strip(), ""
    stem = parts[0].removesuffix(".ipynb").strip()
    return _COPY.sub("", stem).strip() or stem, ""


def _without_group(name: str, roster: list[str]) -> str:
    """Moodle puts "Group-" before a name where groups are on; only a roster tells a group from a name."""
    known = {folded(each): each for each in roster}
    pieces = name.split("-")
    for i in range(len(pieces)):
        tail = "-".join(pieces[i:])
        if folded(tail) in known:
            return known[folded(tail)]
    return name


def folded(name: str) -> str:
    """A name as two lists may spell it: case, accents' encoding, blanks and the order "Last, First" aside."""
    text = unicodedata.normalize("NFKC", name).casefold().replace("_", " ")
    if text.count(",") == 1:
        last, first = text.split(",")
        text = f"{first} {last}"
    return " ".join(text.split())


def slug(name: str, moodle_id: str = "") -> str:
    """A file name for a student: safe on every system, and different for different students."""
    text = unicodedata.normalize("NFKC", name)
    plain = re.sub(r"[^\w .()+@-]", "_", text).strip(" .-")[:60].strip(" .-") or "student"
    if plain != name or re.fullmatch(r"(?i)con|prn|aux|nul|com\d|lpt\d", plain):
        plain += "-" + hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:8]
    return f"{plain}_{moodle_id}" if moodle_id else plain


def unique(students: Iterable[Student]) -> list[Student]:
    """The same students, with names that tell any two of them apart, in the order of names."""
    rows = sorted(students, key=lambda s: (s.name, s.moodle_id))
    names = [folded(s.name) for s in rows]
    slugs: set[str] = set()
    made = []
    for row in rows:
        twice = names.count(folded(row.name)) > 1
        number = row.moodle_id or hashlib.sha256(row.name.encode("utf-8", "replace")).hexdigest()[:4]
        student = f"{row.name} ({number})" if twice else row.name
        file_name = row.slug
        if row.slug.casefold() in slugs:  # a disk may not tell cases apart
            file_name += "-" + hashlib.sha256(row.name.encode("utf-8", "replace")).hexdigest()[:8]
        slugs.add(file_name.casefold())
        made.append(replace(row, student=student, slug=file_name))
    return made


def read_roster(path: Path) -> list[str]:
    """The names in a CSV: a column "student", "name" or "full name", first and last names, or the first one.

    Raises ValueError for a file that holds no name.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = list(csv.reader(text.splitlines(), delimiter=_delimiter(text)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: cannot be read as a roster: {error}") from None
    rows = [[cell.strip() for cell in row] for row in rows if any(cell.strip() for cell in row)]
    if not rows:
        raise ValueError(f"{path}: no name in this roster")
    head = [folded(cell) for cell in rows[0]]
    for title in ("student", "full name", "fullname", "name", "display name"):
        if title in head:
            return _column(rows[1:], [head.index(title)])
    first = next(
        (i for i, cell in enumerate(head) if cell in ("first name", "firstname", "given name")), None
    )
    last = next((i for i, cell in enumerate(head) if cell in ("last name", "lastname", "surname")), None)
    if first is not None and last is not None:
        return _column(rows[1:], [first, last])
    return _column(rows, [0])


def _column(rows: list[list[str]], columns: list[int]) -> list[str]:
    names = (" ".join(row[i] for i in columns if i < len(row)).strip() for row in rows)
    return [name for name in dict.fromkeys(names) if name]


def _delimiter(text: str) -> str:
    first = text.partition("\n")[0]
    return max(",;\t", key=first.count) if any(mark in first for mark in ",;\t") else ","
