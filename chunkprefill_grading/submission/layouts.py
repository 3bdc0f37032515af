"""Whose an entry is, by the names that learning systems give: Moodle, Canvas and others, or plain ones.

Only the first folder or file name of an entry is looked at: what comes below it was named by a student.
"""

from __future__ import annotations

import calendar
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from chunkprefill_grading.submission.roster import Person, Roster
from chunkprefill_grading.submission.spreadsheet import folded

MOODLE = re.compile(r"^(?P<name>.+?)_(?P<id>\d+)_assignsubmission_[a-z]+_?(?P<file>.*)$", re.S)
# Canvas writes names in small letters; a long number of the file's tells of Canvas, too.
CANVAS = re.compile(
    r"^(?P<name>(?:(?!_LATE_)[^\s/])+?)(?P<late>_LATE)?_(?P<id>\d+)_(?P<attempt>\d+)_(?P<file>.+)$", re.S
)
CANVAS_BLIND = re.compile(
    r"^anon(?:ymous)?_(?P<id>[A-Za-z0-9]{5})(?P<late>_LATE)?_(?P<attempt>\d+)_(?P<file>.+)$", re.S
)
GRADESCOPE = re.compile(r"^submission_(?P<id>\d+)$")
BLACKBOARD = re.compile(r"^(?P<who>.+?)_attempt_(?P<date>\d{4}(?:-\d{2}){5})(?P<file>_.*|\.txt)?$", re.S)
BRIGHTSPACE = re.compile(r"^(?P<id>\d+)-(?P<folder>\d+) ?- (?P<name>.+) ?- (?P<date>[^-]*\d{4}[^-]*)$")
BLACKBOARD_NOTE = re.compile(r"^[^\n:]{1,40}: ?(?P<name>[^\n]+?) \((?P<user>[^\s()]+)\)\s*$", re.M)
METADATA = re.compile(r"(?:^|/)submission_metadata\.ya?ml$")
# A second copy of the same thing, as browsers, Jupyter, Colab and Windows name it
COPY = re.compile(
    r"^(?:copy of |kopie van |kopie von |copie de |copia de |cópia de )+"
    r"|(?:[-_ ]copy\d*| ?\(\d+\))+$",
    re.I,
)
BLIND = (
    "participant",
    "teilnehmer",
    "participante",
    "participant(e)",
    "partecipante",
    "deelnemer",
    "uczestnik",
    "deltagare",
    "deltaker",
    "deltager",
    "osallistuja",
    "участник",
    "учасник",
    "katılımcı",
    "参与者",
    "參與者",
    "参加者",
    "참여자",
    "المشارك",
    "مشارك",
    "účastník",
    "συμμετέχων",
    "משתתף",
    "résztvevő",
    "peserta",
    "partaidea",
)
#: What students and instructors call a folder that is no student's name.
_THING = re.compile(
    r"^(?:week|part|ps|problem|chapter|data|src|notebooks?|hw|homework|assignment|untitled|ex|exercise|lab|"
    r"task|solution|images?|figures?|old|new|final|submission|draft|scratch|test)s?[-_ ]?\d*\b",
    re.I,
)

#: What instructors call a folder of several students.
_SECTION = re.compile(
    r"^(?:\d{4}[-_.]\d\d?[-_.]\d\d?|\d\d?[-_.]\d\d?[-_.]\d{4}|(?:section|group|gruppe|team|tutorial|class|kurs|"
    r"cohort|grupo|groupe|late|on.?time|resubmissions?)s?\b)",
    re.I,
)


@dataclass(frozen=True)
class Owner:
    """Whose an entry is. lms: the learning system that gave `id`; "" where only a name is known."""

    name: str
    lms: str = ""
    id: str = ""
    email: str = ""
    user: str = ""  # a login name, where the learning system tells it
    when: float | None = None  # s since 1970, where the name says when it was handed in
    attempt: int = 0  # of several, the larger is the later
    tag: str = ""  # "LATE", where the learning system says so

    @property
    def key(self) -> tuple[str, str]:
        """What makes two entries one student's: the learning system's id, else the name."""
        return (self.lms, self.id) if self.id else ("", " ".join(self.name.split()))


Parts = tuple[str, ...]


class OwnerFinder(Protocol):
    """The owners of an entry; none where its name is not of this layout."""

    def __call__(self, parts: Parts) -> list[Owner]: ...


@dataclass(frozen=True)
class ReadingPlan:
    """How to read a source: its layout, how many folders at the top hold everything, what was guessed."""

    layout: str
    owners: OwnerFinder
    stripped: int = 0
    notes: tuple[str, ...] = ()


LAYOUTS = ("moodle", "canvas", "gradescope", "blackboard", "brightspace", "classroom", "plain")


def plan(
    places: Sequence[Parts],
    notes: Mapping[str, str],
    roster: Roster,
    *,
    layout: str = "auto",
    strip: int | None = None,
) -> ReadingPlan:
    """How to read a source.

    places: the notebooks' folders and files. notes: the learning system's own files. layout, strip: what a
    person says of the two, before what is guessed. ValueError for a layout that is none.
    """
    if layout != "auto" and layout not in LAYOUTS:
        raise ValueError(f"there is no layout {layout!r}; there are auto, {', '.join(LAYOUTS)}")
    said: list[str] = []
    n = 0
    while strip is None and n < 3 and (top := _wrapper([parts[n:] for parts in places], roster, said)):
        n += 1
        said.append(
            f"the folder {top!r} holds everything and is taken for no student's; --strip 0 says it is"
        )
    if strip is None and layout == "auto":
        inside = [parts[n:] for parts in places]
        if detected(inside) == "plain" and (kind := _groups(inside, roster)):
            tops = sorted({parts[0] for parts in inside})
            said.append(
                f"the folders {', '.join(map(repr, tops[:9]))} hold {kind}'s folders and are taken for no "
                f"students'; --strip {n} says they are"
            )
            n += 1
    n = n if strip is None else strip
    inside = [parts[n:] for parts in places if len(parts) > n]
    if layout == "auto":
        layout = detected(inside, notes)
    made = _layout(layout, inside, notes, n, roster)
    if layout == "plain":
        for top, names in _crowded(inside, roster):
            if not any(repr(top) in each for each in said):
                said.append(
                    f"{top!r} is taken for ONE student and holds {len(names)} names: "
                    f"{', '.join(names[:5])}; if they are students, collect that folder by itself, or --strip "
                    f"{n + 1} says so"
                )
    return ReadingPlan(layout, made, n, tuple(said))


def detected(places: Sequence[Parts], notes: Mapping[str, str] | None = None) -> str:
    """The layout that more than half of the first names are of."""
    tops = sorted({parts[0] for parts in places})
    if not tops:
        return "plain"
    folders = {parts[0] for parts in places if len(parts) > 1}

    def share(found: Iterable[object]) -> float:
        return sum(1 for each in found if each) / len(tops)

    if share(GRADESCOPE.match(top) and top in folders for top in tops) > 0.5:
        return "gradescope"
    if share(MOODLE.match(top) for top in tops) > 0.5:
        return "moodle"
    if share(BLACKBOARD.match(top) for top in tops) > 0.5:
        return "blackboard"
    if share(BRIGHTSPACE.match(top) and top in folders for top in tops) > 0.5:
        return "brightspace"
    # A zip that a student handed in stands here as a folder of the same name.
    canvas = {top for top in tops if _is_canvas(top) or CANVAS_BLIND.match(top)}
    if folders <= canvas and len(canvas) >= 0.8 * len(tops):
        return "canvas"
    title = _shared_title(tops)
    if title and len(folders) < len(tops) > 1 and folders <= {top for top in tops if _title(top) == title}:
        return "classroom"
    return "plain"


def _is_canvas(top: str) -> bool:
    found = CANVAS.match(top)
    return found is not None and (found["name"] == found["name"].lower() or len(found["attempt"]) > 4)


def _layout(
    name: str, places: Sequence[Parts], notes: Mapping[str, str], stripped: int, roster: Roster
) -> OwnerFinder:
    if name == "moodle":
        return partial(_moodle, roster)
    if name == "canvas":
        return _canvas
    if name == "gradescope":
        return partial(_gradescope, _submitters(notes, stripped))
    if name == "blackboard":
        return partial(_blackboard, _usernames(places, notes))
    if name == "brightspace":
        return _brightspace
    if name == "classroom":
        return partial(_classroom, _shared_title({parts[0] for parts in places}))
    return plain


# --- what holds everything ---------------------------------------------------------------------------


def _wrapper(places: Sequence[Parts], roster: Roster, said: list[str]) -> str:
    """The folder at the top that holds everything and names no student, or ""."""
    tops = {parts[0] for parts in places}
    if len(tops) != 1 or not all(len(parts) > 1 for parts in places):
        return ""
    (top,) = tops
    if any(shape.match(top) for shape in (MOODLE, GRADESCOPE, BRIGHTSPACE, BLACKBOARD)) or roster.has(top):
        return ""
    inside = [parts[1:] for parts in places]
    names = {parts[0] for parts in inside}
    folders = {parts[0] for parts in inside if len(parts) > 1}
    if len(names) == 1 and folders and detected(inside) == "plain":
        named = not _THING.match(min(names)) or _THING.match(top)
        if (named or detected([parts[1:] for parts in inside]) != "plain") and _wrapper(inside, roster, []):
            return top
        if len({_bare_stem(parts[-1]) for parts in inside}) > 1:
            said.append(_one_student(top, len(places), 2))
        return ""
    on_list = sum(roster.has(COPY.sub("", _stem(name)).strip()) for name in names)
    if on_list:
        return top
    kind = detected(inside)
    if kind != "plain" and (len(names) > 1 or kind == "gradescope" or _THING.match(top)):
        return top
    people = {folded(COPY.sub("", _stem(name))) for name in names if not _THING.match(_stem(name))}
    if len(people & {folded(_stem(name)) for name in folders}) > 1 or len(people) > 2:
        return top
    if (len(names) > 1 or kind != "plain") and not any("wrapping" in each for each in said):
        said.append(_one_student(top, len(places), 1))
    return ""


def _one_student(top: str, n: int, depth: int) -> str:
    return (
        f"all {n} notebooks are taken for those of one student, {top!r}; if that is a wrapping folder, "
        f"--strip {depth} says so"
    )


def _groups(places: Sequence[Parts], roster: Roster) -> str:
    """The layout inside several folders at the top, such as groups, each of which holds it; else ""."""
    inside: dict[str, list[Parts]] = {}
    for parts in places:
        inside.setdefault(parts[0], []).append(parts[1:])
    if len(inside) < 2 or not all(len(parts) > 1 for parts in places) or any(map(roster.has, inside)):
        return ""
    kinds = {detected(each) for each in inside.values()}
    return kinds.pop() if len(kinds) == 1 and not kinds & {"plain", "classroom"} else ""


def _crowded(places: Sequence[Parts], roster: Roster) -> list[tuple[str, list[str]]]:
    """Folders that are taken for one student and hold things of several names, with those names.

    Three names are several; two are where the folder is called like a date or a section, or one of them
    stands on the roster.
    """
    names: dict[str, tuple[set[str], set[str]]] = {}
    for parts in places:
        if len(parts) > 1:
            children, files = names.setdefault(parts[0], (set(), set()))
            children.add(_bare_stem(parts[1]))
            files.add(_bare_stem(parts[-1]))
    found = []
    for top, several in names.items():
        people = max(({name for name in each if not _THING.match(name)} for each in several), key=len)
        known = any(map(roster.has, people)) and not roster.has(top)
        if len(people) >= (2 if known or _SECTION.match(top) else 3):
            found.append((top, sorted(people)))
    return found


def _bare_stem(name: str) -> str:
    return COPY.sub("", _stem(name)).strip()


def _stem(name: str) -> str:
    return re.sub(r"\.(?:ipynb(?:\.(?:txt|json))?|zip)$", "", name, flags=re.I)


# --- one layout each ---------------------------------------------------------------------------------


def plain(parts: Parts) -> list[Owner]:
    """NAME/... or NAME.ipynb is student NAME's."""
    if len(parts) > 1:
        return [Owner(parts[0].strip() or "no name")]
    stem = _stem(parts[0]).strip()
    return [Owner(COPY.sub("", stem).strip() or stem or "no name")]


def _moodle(roster: Roster, parts: Parts) -> list[Owner]:
    found = MOODLE.match(parts[0])
    if not found:
        return plain(parts)
    return [Owner(without_group(found["name"].strip(), roster), "moodle", found["id"])]


def without_group(name: str, roster: Roster) -> str:
    """Moodle puts "Group-" before a name where groups are on; only a roster tells a group from a name."""
    pieces = name.split("-")
    for i in range(len(pieces)):
        person = roster.find("-".join(pieces[i:]).strip())
        if person is not None:
            return person.name
    return name


def is_blind(name: str) -> bool:
    """Whether a name is what Moodle and Canvas write in place of one."""
    word = re.sub(r"[\d\s]+$", "", folded(name)).removesuffix("/in").removesuffix("(in)")
    return word in BLIND or folded(name).startswith("anonymous ")


def _canvas(parts: Parts) -> list[Owner]:
    if blind := CANVAS_BLIND.match(parts[0]):
        tag = "LATE" if blind["late"] else ""
        number = blind["id"]
        return [
            Owner(f"anonymous {number}", "canvas-blind", number, attempt=_whole(blind["attempt"]), tag=tag)
        ]
    found = CANVAS.match(parts[0])
    if not found:
        return plain(parts)
    tag = "LATE" if found["late"] else ""
    return [Owner(found["name"], "canvas", found["id"], attempt=_whole(found["attempt"]), tag=tag)]


def _whole(digits: str) -> int:
    return int(digits[:18])


def _gradescope(submitters: Mapping[str, list[Owner]], parts: Parts) -> list[Owner]:
    found = GRADESCOPE.match(parts[0])
    if not found:
        return plain(parts)
    return submitters.get(found["id"]) or [Owner(parts[0], "gradescope-submission", found["id"])]


@dataclass
class _Entry:
    """One submission of Gradescope's file, as far as it is read."""

    number: str = ""
    section: str = ""
    people: list[dict[str, str]] = field(default_factory=list)
    when: float | None = None

    def owners(self) -> list[Owner]:
        return [
            _submitter(each, self.number, self.when) for each in self.people if _scalar(each.get("name", ""))
        ]


def _submitters(notes: Mapping[str, str], stripped: int) -> dict[str, list[Owner]]:
    """Submission -> who handed it in, from Gradescope's own file: the one beside the submissions' folders."""
    made: dict[str, list[Owner]] = {}
    for entry, text in notes.items():
        if not METADATA.search(entry) or entry.replace("\\", "/").count("/") != stripped:
            continue
        reading = _Entry()
        for line in [*text.splitlines(), "submission_:"]:
            if top := re.match(r"^['\"]?submission_(\d*)['\"]?:", line):
                if reading.number and (owners := reading.owners()):
                    made.setdefault(reading.number, owners)
                reading = _Entry(top[1])
            elif part := re.match(r"^  :?(\w+):\s*(.*)$", line):
                reading.section = part[1]
                if part[1] == "created_at":
                    reading.when = _stamp(part[2])
            elif reading.section == "submitters":
                _read_submitter(line, reading.people)
    return made


def _read_submitter(line: str, people: list[dict[str, str]]) -> None:
    said = re.match(r"^\s*(- )?\s*:?(\w+):(?:\s+(.*))?$", line)
    if said is None:
        if people and people[-1] and line.strip():  # a long text goes on in the next line
            people[-1][next(reversed(people[-1]))] += f" {line.strip()}"
        return
    if said[1]:
        people.append({})
    if people:
        people[-1][said[2]] = said[3] or ""


def _submitter(fields: Mapping[str, str], number: str, when: float | None) -> Owner:
    name, email, sid = (_scalar(fields.get(key, "")) for key in ("name", "email", "sid"))
    return Owner(
        name,
        "gradescope",
        email.casefold() or sid or name,
        email,
        sid,
        when,
        attempt=_whole(number),
    )


def _scalar(text: str) -> str:
    """A YAML scalar of one line, as Gradescope writes names."""
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] == "'":
        return text[1:-1].replace("''", "'")
    if len(text) > 1 and text[0] == text[-1] == '"':
        escaped = re.sub(
            r"\\x([0-9A-Fa-f]{2})|\\u([0-9A-Fa-f]{4})|\\U([0-9A-Fa-f]{8})", _character, text[1:-1]
        )
        return re.sub(r"\\(.)", r"\1", escaped)
    return "" if text in ("~", "null") else text


def _character(found: re.Match[str]) -> str:
    number = int(found[1] or found[2] or found[3], 16)
    return chr(number) if number < 0x110000 and not 0xD800 <= number < 0xE000 else "\ufffd"


def _stamp(text: str) -> float | None:
    """Seconds since 1970 of "2026-03-01 12:00:00.5 Z" or " -08:00"; None for anything else."""
    found = re.match(
        r"['\"]?(\d{4})-(\d\d)-(\d\d)[ T](\d\d):(\d\d):(\d\d)(?:\.\d+)?\s*(Z|UTC|[+-]\d\d:?\d\d)?", text
    )
    if not found:
        return None
    zone = found[7] or "Z"
    shift = 0
    if zone[0] in "+-":
        shift = (int(zone[1:3]) * 60 + int(zone[-2:])) * 60 * (-1 if zone[0] == "-" else 1)
    try:
        return calendar.timegm((*map(int, found.groups()[:6]), 0, 0, 0)) - shift
    except (ValueError, OverflowError):
        return None


def _blackboard(users: Mapping[str, tuple[str, str]], parts: Parts) -> list[Owner]:
    found = BLACKBOARD.match(parts[0])
    if not found:
        return plain(parts)
    user, name = users.get(found["who"]) or (found["who"], "")
    return [
        Owner(name or user, "blackboard", user, user=user, when=_local(found["date"], "%Y-%m-%d-%H-%M-%S"))
    ]


def _usernames(places: Sequence[Parts], notes: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """ "PS3_ada" -> ("ada", "Ada Lovelace"), from Blackboard's own file beside each attempt, or the names."""
    who: dict[str, str] = {}
    for parts in places:
        if found := BLACKBOARD.match(parts[0]):
            who.setdefault(found["who"], "")
    named: dict[str, tuple[str, str]] = {}
    for entry, text in notes.items():
        found = BLACKBOARD.match(entry.replace("\\", "/").rpartition("/")[2])
        first = BLACKBOARD_NOTE.search(text[:400])
        if found and found["file"] == ".txt" and first and found["who"].endswith(f"_{first['user']}"):
            named[found["who"]] = first["user"], first["name"].strip()
    prefix = _prefix(list(who)) if len(who) > 1 else next(iter(who), "").rpartition("_")[0] + "_"
    for each in who:
        named.setdefault(each, (each.removeprefix(prefix) or each, ""))
    return named


def _prefix(words: list[str]) -> str:
    """What all begin with, up to an underscore."""
    first, last = min(words), max(words)
    n = 0
    while n < min(len(first), len(last)) and first[n] == last[n]:
        n += 1
    return first[: first[:n].rfind("_") + 1]


def _brightspace(parts: Parts) -> list[Owner]:
    found = BRIGHTSPACE.match(parts[0])
    if not found:
        return plain(parts)
    date = re.sub(r"\s+", " ", found["date"]).strip()
    when = (
        _local(date, "%b %d, %Y %I%M %p")
        or _local(date, "%B %d, %Y %I%M %p")
        or _local(date, "%d %B, %Y %H%M")
    )
    return [
        Owner(found["name"].strip(), "brightspace", found["id"], when=when, attempt=_whole(found["folder"]))
    ]


def _local(text: str, form: str) -> float | None:
    if form.startswith(("%b", "%B")) and re.search(r"\b\d{3} [AP]M$", text):
        text = re.sub(r"\b(\d{3} [AP]M)$", r"0\1", text)
    try:
        return time.mktime(time.strptime(text, form))
    except (ValueError, OverflowError):
        return None


def _shared_title(tops: Iterable[str]) -> str:
    """The assignment's title where files are called "NAME - TITLE", as Google Classroom copies them."""
    titles = Counter(_title(top) for top in tops if " - " in _stem(top))
    title, n = next(iter(titles.most_common(1)), ("", 0))
    return title if n > 1 and 3 * n >= 2 * len(set(tops)) else ""


def _title(top: str) -> str:
    return folded(COPY.sub("", _stem(top)).rpartition(" - ")[2])


def _classroom(title: str, parts: Parts) -> list[Owner]:
    stem = COPY.sub("", _stem(parts[0])).strip()
    name, dash, last = stem.rpartition(" - ")
    if dash and name.strip() and folded(last) == title:
        return [Owner(name.strip())]
    return plain(parts)


def person_of(owner: Owner, roster: Roster) -> Person | None:
    """The one person on the roster that an owner is, by what both know: never by another system's number."""
    if owner.lms == "canvas":  # "lovelaceada"
        alike = [each for each in roster.people if owner.name in _run_together(each.name)]
        return alike[0] if len(alike) == 1 else next((p for p in alike if owner.id in p.ids), None)
    if owner.lms == "moodle" and owner.id:  # "Participant 11" of Moodle's own worksheet
        same = [p for p in roster.people if any(_participant(each) == owner.id for each in p.ids)]
        if len(same) == 1:
            return same[0]
    ids = [owner.email, owner.user] if owner.lms in ("gradescope", "blackboard") else []
    return roster.find(owner.name, ids)


def _participant(cell: str) -> str:
    """The number in "Participant 11", in any language; "" in any other cell."""
    digits = re.search(r"\d+$", cell.strip())
    return digits[0] if digits and is_blind(cell) else ""


def _run_together(name: str) -> set[str]:
    """A name as Canvas writes it into a file's name: without blanks and signs, the last name first."""
    words = re.sub(r"[^\w\s]", "", folded(name).replace(",", " ")).split()
    return {"".join(words[i:] + words[:i]) for i in range(len(words))}


def with_person(owner: Owner, roster: Roster) -> Owner:
    """The owner under the name, and with the address, that the roster has for the same person."""
    person = person_of(owner, roster)
    if person is None:
        return owner
    return replace(owner, name=person.name, email=owner.email or person.email)
