"""What a key's notebook held when it was handed out, beside what came back: texts, and what is marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from chunkprefill_grading.marking.mark import Mark
from chunkprefill_grading.problems.key import SETS, sheet_of
from chunkprefill_grading.problems.notebook import notebook
from chunkprefill_grading.submission.written_texts import Candidate, Handout

FLAG = "has text, no answer"


def handout_of(key: Mapping[str, Any]) -> Handout:
    """The questions and texts of a key's notebook; of a set that is not known here, the questions alone."""
    if key.get("problem_set") in SETS:
        return _handout(key["problem_set"], key["secret"])
    rows = key["questions"]
    return Handout(
        tuple(row["name"] for row in rows if row.get("written")),
        tuple(row["name"] for row in rows if not row.get("written")),
    )


@lru_cache(maxsize=8)
def _handout(name: str, secret: str) -> Handout:
    sheet = sheet_of(name, secret)
    cells = notebook(sheet)["cells"]
    return Handout(
        tuple(question.name for question in sheet.questions if question.written),
        tuple(question.name for question in sheet.questions if not question.written),
        tuple(cell["source"] for cell in cells if cell["cell_type"] != "code"),
    )


def rubric_of(key: Mapping[str, Any]) -> dict[str, tuple[tuple[str, float], ...]]:
    """What is marked in each question, with its points."""
    if key.get("problem_set") not in SETS:
        return {}
    sheet = sheet_of(key["problem_set"], key["secret"])
    return {q.name: tuple((what, float(points)) for what, points in q.table) for q in sheet.questions}


def flagged(marks: Sequence[Mark], candidates: Mapping[str, Candidate]) -> list[Mark]:
    """The marks, with a person asked for where there is a text and no answer."""
    made = []
    for mark in marks:
        candidate = candidates.get(mark.question)
        if candidate is not None and mark.status in ("no answer", "needs manual") and candidate.doubt:
            mark = replace(mark, points=0.0, status="needs manual", reason=f"{FLAG}: {candidate.doubt}")
        made.append(mark)
    return made
