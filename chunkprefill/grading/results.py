"""One file for each submission, replaced in one step; points that a person gave are kept apart from it."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import chunkprefill
from chunkprefill.grading.marking import Mark

FORMAT, VERSION = "chunkprefill-result", 1
STATUSES = ("ok", "unreadable", "timeout", "memory", "crashed", "no answer", "needs manual")
POINTS = Path("manual", "points.json")  # in the folder of results


@dataclass(frozen=True)
class Result:
    """What became of one submission. score: None unless the status is "ok"; then the sum of its points."""

    student: str
    slug: str
    name: str
    moodle_id: str
    problem_set: str
    status: str
    score: float | None
    max_score: float
    reason: str
    marks: tuple[Mark, ...]
    cells: tuple[tuple[int, str], ...]  # cells that failed, and their words
    written: Mapping[str, str]  # answers that a person marks
    sandbox: str  # "bubblewrap", or what stood in for it
    source: str
    hashes: Mapping[str, str]  # of notebook, key and grader: what the result is a function of

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status {self.status!r} is not one of {', '.join(STATUSES)}")
        if (self.score is None) == (self.status == "ok"):
            raise ValueError(f"{self.student}: status {self.status!r} with a score of {self.score!r}")


def replace_file(path: Path, data: str | bytes) -> None:
    """Write a whole file or none: a killed program leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".part-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write(folder: Path, result: Result) -> None:
    """Replace the file of one submission."""
    document = {"format": FORMAT, "version": VERSION, **asdict(result)}
    replace_file(folder / f"{result.slug}.json", json.dumps(document, indent=1, allow_nan=False) + "\n")


def load(path: Path) -> Result:
    """Read one. ValueError for a file that is no result, or was cut off."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document.pop("format") != FORMAT or document.pop("version") != VERSION:
            raise ValueError(f"not a result of version {VERSION}")
        document["marks"] = tuple(Mark(**mark) for mark in document["marks"])
        document["cells"] = tuple((int(n), str(words)) for n, words in document["cells"])
        return Result(**document)
    except (KeyError, TypeError, ValueError, AttributeError, OSError, RecursionError) as error:
        raise ValueError(f"{path}: a broken result: {error}") from None


def read_all(folder: Path) -> list[Result]:
    """Every result of a folder, by student, with a person's points in it. ValueError if there is none."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    results = [load(path) for path in sorted(folder.glob("*.json"))]
    if not results:
        raise ValueError(f"{folder}: no results here; `run` makes them")
    given = read_points(folder)
    merged = [with_points(result, given.get(result.slug, {})) for result in results]
    return sorted(merged, key=lambda result: (result.student, result.slug))


def read_points(folder: Path) -> dict[str, dict[str, Any]]:
    """{slug: {question: {"points", "comment", "answer"}}}, as imported. ValueError for a broken file."""
    path = folder / POINTS
    if not path.exists():
        return {}
    try:
        points = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: broken: {error}") from None
    if not isinstance(points, dict):
        raise ValueError(f"{path}: broken: no object")
    return points


def answer_id(text: str) -> str:
    """A short name of a written answer's text: points belong to the text that was read."""
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:12]


def with_points(result: Result, given: Mapping[str, Any]) -> Result:
    """The result with a person's points for the very texts that it has; its status follows."""
    marks = []
    for mark in result.marks:
        row = given.get(mark.question)
        text = result.written.get(mark.question)
        if mark.status == "needs manual" and row and text is not None and row["answer"] == answer_id(text):
            mark = replace(mark, points=float(row["points"]), status="ok", reason="", comment=row["comment"])
        marks.append(mark)
    if result.status != "needs manual" or any(mark.status == "needs manual" for mark in marks):
        return replace(result, marks=tuple(marks))
    return replace(result, marks=tuple(marks), status="ok", score=total(marks), reason="")


def total(marks: list[Mark] | tuple[Mark, ...]) -> float:
    """The sum of points."""
    return round(math.fsum(mark.points for mark in marks), 6)


@cache
def grader_hash() -> str:
    """Of every source file of the package: another grader may judge otherwise."""
    root = Path(chunkprefill.__file__).resolve().parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def hash_of(document: Any) -> str:
    """Of a JSON document, however it is laid out."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
