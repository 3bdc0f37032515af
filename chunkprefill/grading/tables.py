"""Tables out and in: CSV that no spreadsheet runs, Moodle's worksheet, and the sheet of written answers."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from chunkprefill.grading.results import POINTS, Result, answer_id, read_points, replace_file

COLUMNS = ("student", "status", "score", "max_score", "reason")
MANUAL = ("student", "file", "question", "max_points", "answer_id", "answer", "points", "comment")
MAX_BYTES = 20 << 20  # of a table that is read
IDENTIFIER, FULL_NAME, GRADE, MAXIMUM = "Identifier", "Full name", "Grade", "Maximum Grade"
COMMENTS = "Feedback comments"


def safe(value: Any) -> str:
    """A cell that a spreadsheet shows and does not run: what begins like a formula gets an apostrophe."""
    text = "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    text = "".join(c if c.isprintable() or c in "\n\t" else " " for c in text)
    number = isinstance(value, (int, float))
    return f"'{text}" if not number and text.lstrip(" '\t\n")[:1] in ("=", "+", "-", "@", "|", "%") else text


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([safe(cell) for cell in row] for row in rows)
    return out.getvalue()


def scores(results: Sequence[Result]) -> str:
    """One row a submission: `COLUMNS`, then the points of each question; what is not ok has no score."""
    questions = list(dict.fromkeys(mark.question for result in results for mark in result.marks))
    rows: list[list[Any]] = [[*COLUMNS, *questions]]
    for result in results:
        open_marks = result.status in ("ok", "needs manual")
        done = {mark.question: mark.points for mark in result.marks
                if open_marks and mark.status != "needs manual"}  # fmt: skip
        row = [result.student, result.status, result.score, float(result.max_score), noted(result)]
        rows.append([*row, *(_float(done.get(question)) for question in questions)])
    return csv_text(rows)


def _float(points: float | None) -> float | None:
    return None if points is None else float(points)


def noted(result: Result) -> str:
    """The reason, and that there was no sandbox where there was none."""
    unsafe = "" if result.sandbox == "bubblewrap" else f"sandbox {result.sandbox}"
    return "; ".join(filter(None, (result.reason, unsafe)))


def read_csv(path: Path) -> tuple[list[str], list[dict[str, str]], str]:
    """(header, rows, delimiter) of a table from a spreadsheet or from Moodle. ValueError for what is none."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES >> 20} MB")
        text = path.read_text(encoding="utf-8-sig")
        first = text.partition("\n")[0]
        delimiter = max(",;\t", key=first.count)
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as CSV: {error}") from None
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    if not rows:
        raise ValueError(f"{path}: an empty table")
    header = [cell.strip() for cell in rows[0]]
    return header, [dict(zip(header, [*row, *[""] * len(header)])) for row in rows[1:]], delimiter


def worksheet(results: Sequence[Result], path: Path) -> tuple[str, list[str]]:
    """Moodle's grading worksheet with grades and comments filled in, and what is worth telling.

    Students are found by Moodle's number ("Participant 123"), else by a full name that only one has. Grades
    are scaled to the worksheet's maximum. What is not ok gets no grade and its reason. ValueError for a table
    that is no worksheet.
    """
    header, rows, _ = read_csv(path)
    if absent := [name for name in (IDENTIFIER, GRADE) if name not in header]:
        raise ValueError(f"{path}: no column {absent[0]!r}: is this Moodle's grading worksheet?")
    if COMMENTS not in header:
        header = [*header, COMMENTS]
    by_number = {result.moodle_id: result for result in results if result.moodle_id}
    names: dict[str, list[Result]] = {}
    for result in results:
        if not result.moodle_id:
            names.setdefault(result.name.casefold(), []).append(result)
    listed = Counter(row.get(FULL_NAME, "").strip().casefold() for row in rows)
    notes, seen = [], set()
    table: list[list[str]] = [header]
    for row in rows:
        number = row[IDENTIFIER].strip().lstrip("'")
        number = number[len(number.rstrip("0123456789")) :]  # "Participant 123", in any language
        name = row.get(FULL_NAME, "").strip().casefold()
        same = names.get(name, [])
        found = by_number.get(number) or (same[0] if len(same) == listed[name] == 1 else None)
        if found is not None:
            seen.add(found.slug)
            row[GRADE], row[COMMENTS] = grade(found, row.get(MAXIMUM, "")), safe(comment(found))
        table.append([row.get(name, "") for name in header])
    for result in results:
        if result.slug not in seen:
            n = listed[result.name.casefold()]
            many = f"{n} of that name in the worksheet" if n > 1 else "not in the worksheet"
            notes.append(f"{result.student}: {many}")
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(table)
    return out.getvalue(), notes


def grade(result: Result, maximum: str) -> str:
    """The score on the worksheet's scale; blank for what has none."""
    if result.score is None:
        return ""
    try:
        most = float(maximum.replace(",", "."))
    except ValueError:
        most = result.max_score
    if not math.isfinite(most) or most <= 0:
        most = result.max_score
    return f"{result.score / result.max_score * most:.5g}"


def comment(result: Result) -> str:
    """Moodle's comment: the reason, or the points by question."""
    if result.status != "ok":
        return f"Not graded yet: {result.reason or result.status}"
    return "; ".join(f"{mark.question} {mark.points:g} of {mark.max_points:g}" for mark in result.marks)


def written_answers(results: Sequence[Result], given: Mapping[str, Any]) -> str:
    """The sheet that a person fills in: one row a written answer, with the points given before."""
    rows: list[Sequence[Any]] = [MANUAL]
    for result in results:
        if result.status not in ("ok", "needs manual"):
            continue  # no points by hand would give it a score
        most = {mark.question: float(mark.max_points) for mark in result.marks}
        for question, text in result.written.items():
            number, before = answer_id(text), given.get(result.slug, {}).get(question, {})
            mine = before if before.get("answer") == number else {}
            row = [result.student, result.slug, question, most[question], number, text]
            rows.append([*row, mine.get("points"), mine.get("comment", "")])
    return csv_text(rows)


def import_points(folder: Path, results: Sequence[Result], path: Path) -> tuple[int, int]:
    """Take a filled sheet: (answers marked, still without points). All of it or, with ValueError, none.

    Points belong to the text that was read: a row for another text is refused, and says so.
    """
    header, rows, _ = read_csv(path)
    if absent := [name for name in ("file", "question", "answer_id", "points") if name not in header]:
        raise ValueError(f"{path}: no column {absent[0]!r}: fill in what `manual export` wrote")
    by_slug = {result.slug: result for result in results}
    given, wrong = read_points(folder), []
    n_marked = n_open = 0
    for line, row in enumerate(rows, 2):
        slug, question = row["file"].removeprefix("'"), row["question"]
        result = by_slug.get(slug)
        text = None if result is None else result.written.get(question)
        if result is None or text is None:
            wrong.append(f"row {line}: no written answer {question!r} of {slug!r}")
        elif row["answer_id"] != answer_id(text):
            wrong.append(f"row {line}: {result.student} has handed in another text since: export again")
        elif not row["points"].strip():
            n_open += 1
        else:
            most = next(mark.max_points for mark in result.marks if mark.question == question)
            points = _points(row["points"], most)
            if points is None:
                wrong.append(
                    f"row {line}: points {row['points']!r}: a number from 0 to {most:g} is asked for"
                )
                continue
            said = row.get("comment", "").strip()
            entry = {"points": points, "comment": said, "answer": answer_id(text)}
            given.setdefault(slug, {})[question] = entry
            n_marked += 1
    if wrong:
        more = f" (and {len(wrong) - 10} more)" if len(wrong) > 10 else ""
        raise ValueError(f"{path}: nothing imported: {'; '.join(wrong[:10])}{more}")
    replace_file(folder / POINTS, json.dumps(given, indent=1, sort_keys=True) + "\n")
    return n_marked, n_open


def _points(text: str, most: float) -> float | None:
    try:
        points = float(text.strip().removeprefix("'").replace(",", "."))
    except ValueError:
        return None
    return points if 0 <= points <= most else None  # NaN fails both
