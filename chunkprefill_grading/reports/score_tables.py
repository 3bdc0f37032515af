"""Scores as CSV, and cells that no spreadsheet runs, whatever it takes for a delimiter."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

from chunkprefill_grading.marking.results import Result

COLUMNS = ("student", "status", "score", "max_score", "reason")
LATE = ("late_hours",)
PENALTY = ("late_points",)
BOM = "\ufeff"  # without it a spreadsheet takes UTF-8 for something else
_SIGNS = "=+\\-@|%＝＋－＠"
# A spreadsheet with another delimiter or other quotes may begin a cell in the middle of one of ours.
# The sign is optional, so that a run of blanks without one is passed over once and not tried from each blank.
_INSIDE = re.compile(rf"((?:[;\t\r\n][\s\"']*|,[\"']*))([{_SIGNS}]?)")
_START = re.compile(rf"^[\s\"']*[{_SIGNS}]")


def safe(value: Any) -> str:
    """A cell that a spreadsheet shows and does not run: what begins like a formula gets an apostrophe."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:.6g}" if isinstance(value, float) else str(value)
    text = "" if value is None else str(value)
    text = "".join(c if c.isprintable() or c in "\n\t" else " " for c in text)
    text = _INSIDE.sub(lambda found: f"{found[1]}'{found[2]}" if found[2] else found[1], text)
    return f"'{text}" if _START.match(text) else text


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([safe(cell) for cell in row] for row in rows)
    return out.getvalue()


def scores(results: Sequence[Result]) -> str:
    """One row a submission: `COLUMNS`, then the points of each question; what is not ok has no score.

    Hours after the deadline stand in a last column, where `late` was told of a deadline; and the points that
    they cost, which the score lacks already, where it was told of a penalty.
    """
    questions = list(dict.fromkeys(mark.question for result in results for mark in result.marks))
    timed = any(result.late_s is not None for result in results)
    costly = any(result.late_points for result in results)
    rows: list[list[Any]] = [[*COLUMNS, *questions, *(LATE if timed else ()), *(PENALTY if costly else ())]]
    for result in results:
        open_marks = result.status in ("ok", "needs manual")
        done: dict[str, Any] = {}
        for mark in result.marks:
            if mark.status == "excused":
                done[mark.question] = "excused"
            elif open_marks and mark.status != "needs manual":
                done[mark.question] = float(mark.points)
        row = [result.student, result.status, result.score, float(result.max_score), noted(result)]
        late = None if result.late_s is None else round(result.late_s / 3600, 2)
        row += [done.get(question) for question in questions]
        rows.append([*row, *([late] if timed else []), *([result.late_points] if costly else [])])
    return csv_text(rows)


def noted(result: Result) -> str:
    """The reason, and that there was no sandbox where there was none."""
    unsafe = "" if result.sandbox == "bubblewrap" else f"sandbox {result.sandbox}"
    return "; ".join(filter(None, (result.reason, unsafe)))
