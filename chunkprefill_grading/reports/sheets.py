"""The sheet of written answers: out to a person, and back with points, in parts and by several people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chunkprefill_grading.marking import log
from chunkprefill_grading.marking.log import Event
from chunkprefill_grading.marking.results import Result, answer_id
from chunkprefill_grading.marking.settle import Decided
from chunkprefill_grading.reports.score_tables import csv_text
from chunkprefill_grading.submission.spreadsheet import SavedTable

COLUMNS = ("student", "file", "question", "max_points", "answer_id", "answer", "points", "comment")
MORE = ("note", "marked_by", "marked_points", "criteria")
CRITERION = "criterion"  # and its number


@dataclass(frozen=True)
class Imported:
    """What became of a sheet. marked: rows with points; open: answers of the sheet that have none."""

    marked: int = 0
    open: int = 0
    taken_back: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()  # another person's points that were not replaced
    no_answers: tuple[str, ...] = ()  # rows that are of no answer, such as a sum


@dataclass
class _Reading:
    decisions: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    taken_back: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    no_answers: list[str] = field(default_factory=list)
    seen: dict[str, tuple[str, ...]] = field(default_factory=dict)
    marked: int = 0
    open: int = 0


@dataclass(frozen=True)
class _Answer:
    result: Result
    question: str
    most: float
    number: str
    rubric: tuple[tuple[str, float], ...]


def answers_of(results: Sequence[Result]) -> dict[str, _Answer]:
    """Every text that a person marks, by its answer_id."""
    made = {}
    for result in results:
        for question, text in result.written.items():
            mark = result.mark(question)
            if mark is None or mark.status == "excused":
                continue
            number = answer_id(result.slug, question, text)
            rubric = tuple(result.rubric.get(question, ()))
            made[number] = _Answer(result, question, mark.max_points, number, rubric)
    return made


def written_answers(results: Sequence[Result], decisions: Decided) -> str:
    """The sheet that people fill in: one row a written answer, with the points given before, and by whom.

    Points go into `points`, or criterion by criterion into the last columns, whose meaning `criteria` tells.
    """
    answers = answers_of(results)
    most = max((len(each.rubric) for each in answers.values()), default=0)
    most = most if most > 1 else 0
    rows: list[Sequence[Any]] = [[*COLUMNS, *MORE, *(f"{CRITERION} {i}" for i in range(1, most + 1))]]
    for number, each in answers.items():
        result, question = each.result, each.question
        event = _standing(decisions, each)
        about = event.about if event else {}
        parts = list(about.get("criteria") or [])
        told = "; ".join(f"{i}: {what} ({points:g})" for i, (what, points) in enumerate(each.rubric, 1))
        rows.append(
            [
                result.student,
                result.slug,
                question,
                float(each.most),
                number,
                result.written[question],
                about.get("points"),
                about.get("comment", ""),
                result.doubts.get(question, ""),
                event.by if event else "",
                about.get("points"),
                told if most else "",
                *(parts + [None] * most)[:most],
            ]
        )
    return csv_text(rows)


def _standing(decisions: Decided, answer: _Answer) -> Event | None:
    event = decisions.points.get((answer.result.slug, answer.question))
    return event if event is not None and event.about.get("answer") == answer.number else None


def import_points(
    folder: Path,
    results: Sequence[Result],
    decisions: Decided,
    table: SavedTable,
    *,
    by: str,
    replace: bool = False,
) -> Imported:
    """Take a filled sheet, under the name `by`: all of it or, with ValueError, none.

    Points belong to the text that was read: a row for another text is refused, and says so. A blank takes
    back what the same person gave before, and what stood in the sheet. Points of another person stay, unless
    `replace` says otherwise.
    """
    header = [title.casefold() for title in table.header]
    if absent := [name for name in ("question", "answer_id", "points") if name not in header]:
        raise ValueError(f"no column {absent[0]!r}: fill in what `manual export` wrote")
    answers = answers_of(results)
    made = _Reading()
    for line, cells in enumerate(table.rows, 2):
        row = {title: _plain(cell) for title, cell in zip(header, cells)}
        answer = answers.get(row["answer_id"].casefold())
        if not (row["answer_id"] or row["question"] or row.get("file")):
            said = ", ".join(cell for cell in cells if cell.strip())[:60]
            made.no_answers.append(f"row {line}: {said}")
            continue
        try:
            if answer is None:
                raise ValueError(_unknown(row, results))
            _check_row(row, answer)
            _read_row(row, answer, _standing(decisions, answer), made, by, replace)
        except ValueError as error:
            made.wrong.append(f"row {line}: {error}")
    if made.wrong:
        more = f" (and {len(made.wrong) - 10} more)" if len(made.wrong) > 10 else ""
        raise ValueError(f"nothing imported: {'; '.join(made.wrong[:10])}{more}")
    log.append(folder, by, made.decisions)
    return Imported(made.marked, made.open, *map(tuple, (made.taken_back, made.kept, made.no_answers)))


def _plain(cell: str) -> str:
    return cell.strip().removeprefix("'").strip()


def _unknown(row: Mapping[str, str], results: Sequence[Result]) -> str:
    slug, question = row.get("file", ""), row["question"]
    result = next((each for each in results if each.slug == slug), None)
    if result is None or question not in result.written:
        return f"no written answer {question!r} of {slug!r}"
    return f"{result.student} has handed in another text since, or the answer_id was changed: export again"


def _check_row(row: Mapping[str, str], answer: _Answer) -> None:
    """Whether the row's other cells are those of its answer: sorting one column alone mixes up a sheet."""
    if row["question"] != answer.question:
        raise ValueError(f"no written answer {row['question']!r} has this answer_id")
    slug = row.get("file", answer.result.slug)
    mangled = answer.result.slug[:1].isdigit() or not answer.result.slug.isascii()
    if slug and slug != answer.result.slug and not mangled:
        raise ValueError(f"no written answer of {slug!r} has this answer_id")


def _read_row(
    row: Mapping[str, str],
    answer: _Answer,
    standing: Event | None,
    made: _Reading,
    by: str,
    replace: bool,
) -> None:
    parts = [row.get(f"{CRITERION} {i}", "") for i in range(1, len(answer.rubric) + 1)]
    said = (row["points"], row.get("comment", ""), *parts)
    if made.seen.setdefault(answer.number, said) != said:
        raise ValueError(f"{answer.result.student}: two rows, and they do not say the same")
    who = f"{answer.result.student}, {answer.question}"
    points, criteria = _points(row["points"], parts, answer)
    if points is None:
        known = standing is not None and (standing.by == by or row.get("marked_points", "") != "")
        if standing is None or not known:
            made.open += standing is None
            return
        made.open += 1
        made.taken_back.append(f"{who}: {standing.about['points']:g} points of {standing.by}")
    elif standing is not None and _same(standing, points, row.get("comment", ""), criteria):
        made.marked += 1
        return
    elif standing is not None and standing.by != by and not replace:
        made.kept.append(
            f"{who}: {standing.about['points']:g} points of {standing.by} ({standing.at}); yours: {points:g}"
        )
        return
    else:
        made.marked += 1
    about = {"slug": answer.result.slug, "question": answer.question, "answer": answer.number}
    given = {"points": points, "criteria": criteria, "comment": row.get("comment", "")}
    made.decisions.append(("points", {**about, **given}))


def _same(standing: Event, points: float, comment: str, criteria: list[float] | None) -> bool:
    about = standing.about
    parts = about.get("criteria") if criteria is not None else None
    return about["points"] == points and about.get("comment", "") == comment and parts == criteria


def _points(text: str, parts: Sequence[str], answer: _Answer) -> tuple[float | None, list[float] | None]:
    """(points, by criterion); None for blanks. ValueError for what are no points of this answer."""
    whole = _number(text, answer.most, "points") if text else None
    if not any(parts) or len(answer.rubric) < 2:
        return whole, None
    if not all(parts):
        raise ValueError(f"{CRITERION} {[*map(bool, parts)].index(False) + 1} is blank, and others are not")
    given = [
        _number(part, most, f"{CRITERION} {i}")
        for i, (part, (_, most)) in enumerate(zip(parts, answer.rubric), 1)
    ]
    added = round(math.fsum(given), 6)
    if whole is not None and abs(whole - added) > 1e-9:
        raise ValueError(
            f"points {whole:g}, and its criteria add up to {added:g}: leave one of the two blank"
        )
    return added, given


def _number(text: str, most: float, what: str) -> float:
    try:
        points = float(text.replace(",", ".").replace("\u00a0", ""))
    except ValueError:
        points = math.nan
    if not 0 <= points <= most:  # NaN fails both
        raise ValueError(f"{what} {text!r}: a number from 0 to {most:g} is asked for")
    return points
