"""One file for each submission, replaced in one step; what people decided is kept apart, in the log."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from chunkprefill_grading.marking.mark import Mark
from chunkprefill_grading.submission.files import replace_file

FORMAT, VERSION = "chunkprefill-result", 2
STATUSES = (
    "ok",
    "unreadable",
    "another set",
    "timeout",
    "memory",
    "crashed",
    "no answer",
    "needs manual",
)
MAX_BYTES = 4 << 20  # of one result
DECIDED = ("late_s", "late_points", "late_rule")  # by people: in the log, and never in a file


@dataclass(frozen=True)
class Result:
    """What became of one submission. score: None unless the status is "ok"; then the sum of its points.

    written: texts that a person marks. doubts: why such a text may be no answer. answers: the student's own
    cells, for the feedback page. rubric: what is marked in each question, with its points. late_s: seconds
    after the deadline, None where that is not known; late_points: what they cost by late_rule, and are taken
    off the score already.
    """

    student: str
    slug: str
    name: str
    problem_set: str
    status: str
    score: float | None
    max_score: float
    reason: str
    marks: tuple[Mark, ...]
    cells: tuple[tuple[int, str], ...]  # cells that failed, and their words
    written: Mapping[str, str]
    sandbox: str  # "bubblewrap", or what stood in for it
    source: str
    hashes: Mapping[str, str]  # of notebook, key and grader: what the result is a function of
    lms: str = ""
    lms_id: str = ""
    email: str = ""
    doubts: Mapping[str, str] = field(default_factory=dict)
    answers: Mapping[str, str] = field(default_factory=dict)
    rubric: Mapping[str, tuple[tuple[str, float], ...]] = field(default_factory=dict)
    late_s: float | None = None  # by a person's table: these three are never in the file
    late_points: float = 0.0
    late_rule: str = ""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status {self.status!r} is not one of {', '.join(STATUSES)}")
        if (self.score is None) == (self.status == "ok"):
            raise ValueError(f"{self.student}: status {self.status!r} with a score of {self.score!r}")

    @property
    def moodle_id(self) -> str:
        """Moodle's number, where Moodle gave one."""
        return self.lms_id if self.lms == "moodle" else ""

    def mark(self, question: str) -> Mark | None:
        """The mark of a question; None where there is no such question."""
        return next((mark for mark in self.marks if mark.question == question), None)


def write(folder: Path, result: Result) -> None:
    """Replace the file of one submission."""
    document = {"format": FORMAT, "version": VERSION, **asdict(result)}
    for name in DECIDED:
        del document[name]
    replace_file(folder / f"{result.slug}.json", json.dumps(document, indent=1, allow_nan=False) + "\n")


def load(path: Path) -> Result:
    """Read one. ValueError for a file that is no result, was cut off, or does not say what its name says.

    A score is always the sum of the marks, whatever stands in the file.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES >> 20} MB")
        document = json.loads(path.read_text(encoding="utf-8"))
        if document.pop("format") != FORMAT or document.pop("version") != VERSION:
            raise ValueError(f"not a result of version {VERSION}: run again")
        if document.keys() & set(DECIDED):
            raise ValueError("it says how late it was, which the log alone says")
        document["marks"] = tuple(_mark(row) for row in document["marks"])
        document["cells"] = tuple((int(n), str(words)) for n, words in document["cells"])
        rubric = document.get("rubric", {})
        document["rubric"] = {
            str(name): tuple((str(what), float(points)) for what, points in rows)
            for name, rows in rubric.items()
        }
        if document["status"] == "ok":
            document["score"] = total(document["marks"])
        if document["slug"] != path.stem:
            raise ValueError(f"it is the result of {document['slug']!r}")
        for name in ("written", "doubts", "answers", "hashes"):
            texts = document.get(name, {})
            if not all(isinstance(k, str) and isinstance(v, str) for k, v in texts.items()):
                raise ValueError(f"{name} must be texts by name")
        return Result(**document)
    except (KeyError, TypeError, ValueError, AttributeError, OSError, RecursionError) as error:
        raise ValueError(f"{path}: a broken result: {error}") from None


def _mark(row: Mapping[str, Any]) -> Mark:
    mark = Mark(**row)
    for name in (mark.points, mark.max_points):
        if isinstance(name, bool) or not isinstance(name, int | float) or not math.isfinite(name) or name < 0:
            raise ValueError(f"{mark.question}: points of {name!r}")
    return mark


def paths_of(folder: Path) -> list[Path]:
    """The files of results in a folder. ValueError if there is none."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise ValueError(f"{folder}: no results here; `run` makes them")
    return paths


def load_all(folder: Path) -> tuple[list[Result], list[str]]:
    """(every result of a folder as the machine left it, by student; what is said of each broken file).

    The rest of the class goes on without the broken ones. ValueError if none can be read.
    """
    made: list[Result] = []
    broken: list[str] = []
    for path in paths_of(folder):
        try:
            made.append(load(path))
        except ValueError as error:
            broken.append(str(error))
    if not made:
        raise ValueError("; ".join(broken[:5]))
    return sorted(made, key=lambda result: (result.student, result.slug)), broken


def answer_id(slug: str, question: str, text: str) -> str:
    """A short name of one student's written answer: points belong to the text that was read.

    It begins with a letter that no spreadsheet takes for a number, a date or a formula.
    """
    said = "\0".join((slug, question, text)).encode("utf-8", "backslashreplace")
    return "t-" + hashlib.sha256(said).hexdigest()[:12]


def total(marks: Sequence[Mark]) -> float:
    """The sum of points."""
    return round(math.fsum(mark.points for mark in marks), 6)


def hash_of(document: Any) -> str:
    """Of a JSON document, however it is laid out."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def find(results: Sequence[Result], student: str) -> Result:
    """The one result that is meant: by name, file name, number or address. ValueError if it is not one."""
    wanted = _plain(student)
    for same in (
        [r for r in results if student in (r.slug, r.student)],
        [
            r
            for r in results
            if wanted and wanted in map(_plain, (r.slug, r.student, r.name, r.lms_id, r.email))
        ],
    ):
        if len(same) == 1:
            return same[0]
        if same:
            raise ValueError(f"{len(same)} students are {student!r}: {', '.join(r.slug for r in same)}")
    raise ValueError(f"no result of {student!r}")


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().casefold()
