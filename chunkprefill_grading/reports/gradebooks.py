"""Grades into the tables of learning systems: Moodle's worksheet, and the gradebooks of Canvas and others."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from chunkprefill_grading.marking.results import Result
from chunkprefill_grading.reports.score_tables import safe
from chunkprefill_grading.submission.lateness import duration
from chunkprefill_grading.submission.layouts import is_blind
from chunkprefill_grading.submission.roster import damage, name_keys
from chunkprefill_grading.submission.spreadsheet import SavedTable, folded, is_damaged, unguarded

KINDS = ("moodle", "canvas", "gradescope", "blackboard", "brightspace", "classroom")
COMMENTS = "Feedback comments"
#: The five columns that Canvas wants back beside the one that is filled in.
CANVAS = ("student", "id", "sis user id", "sis login id", "section")
_MAXIMUM = re.compile(r"(?:Total Pts:\s*(?:up to )?|MaxPoints:\s*)([\d.,]+)", re.I)
_DIGITS = re.compile(r"\d+$")


@dataclass(frozen=True)
class Titles:
    """What a person says of a gradebook. assignment: the title of the column to fill in."""

    assignment: str = ""
    identifier: str = ""
    name: str = ""
    grade: str = ""


NO_TITLES = Titles()


@dataclass
class _Columns:
    """Where a table has what; None where it has it not."""

    grade: int
    numbers: list[int] = field(default_factory=list)
    users: list[int] = field(default_factory=list)
    emails: list[int] = field(default_factory=list)
    names: list[int] = field(default_factory=list)
    maximum: int | None = None
    comment: int | None = None


def filled(
    results: Sequence[Result], table: SavedTable, kind: str, titles: Titles = NO_TITLES
) -> tuple[SavedTable, list[str]]:
    """The table with grades, and comments where it has room for them; and what is worth telling.

    A student is found by the learning system's number, else by login name or address, else by a full name
    that only one has. Grades are scaled to the table's maximum. What is not ok gets no grade and its reason.
    ValueError for a table without a column for the grades.
    """
    too_long = table.too_long
    was = len(table.header)
    table, columns = _columns(table, kind, titles, results)
    heads = _heads(table, columns, kind)
    matches, notes = _matched(results, table, columns, kind, heads | too_long)
    notes = [*_odd_rows(table, columns, too_long), *notes]
    most = _possible(table, columns, heads)
    if columns.maximum is None and not most:
        notes.append(f"the table says no maximum: grades go into it as points of {results[0].max_score:g}")
    if len(table.header) > was:
        notes.append(f"no column is known to hold comments: they stand in a new one, {COMMENTS!r}")
    rows, commas = [list(row) for row in table.rows], _has_commas(table, columns)
    for i, result in matches.items():
        row = rows[i]
        said = row[columns.maximum] if columns.maximum is not None else most
        points = grade(result, said)
        row[columns.grade] = points.replace(".", ",") if commas else points
        if columns.comment is not None:
            row[columns.comment] = safe(comment(result))
    done = table.with_rows(rows)
    return (_for_canvas(done, columns.grade) if kind == "canvas" else done), notes


def made(results: Sequence[Result], kind: str, title: str) -> tuple[SavedTable, list[str]]:
    """A gradebook where there is none to fill in: of Canvas's ids, or of addresses; and who is left out."""
    if kind == "canvas":
        header: tuple[str, ...] = ("Student", "ID", "SIS User ID", "SIS Login ID", "Section", title)
        known = [result for result in results if result.lms == "canvas"]
        most = f"{results[0].max_score:g}"
        rows: list[tuple[str, ...]] = [("Points Possible", "", "", "", "", most)]
        rows += [(safe(r.name), r.lms_id, "", "", "", grade(r, most)) for r in known]
        left = [f"{r.student}: no number of Canvas's" for r in results if r.lms != "canvas"]
        return SavedTable(header, tuple(rows)), left
    if kind in ("gradescope", "classroom"):
        header = ("Name", "Email", title, "Max Points", "Status")
        known = [result for result in results if result.email]
        rows = [(safe(r.name), safe(r.email), grade(r, ""), f"{r.max_score:g}", r.status) for r in known]
        return SavedTable(header, tuple(rows)), [f"{r.student}: no address" for r in results if not r.email]
    raise ValueError(f"--format {kind} needs --worksheet FILE: the table that {kind.title()} exports")


def _columns(
    table: SavedTable, kind: str, titles: Titles, results: Sequence[Result]
) -> tuple[SavedTable, _Columns]:
    numbers = _number_columns(table, kind, titles)
    names = [i for i in [table.column("name", titles.name)] if i is not None] if titles.name else []
    first, last = table.columns("first"), table.columns("last")
    if not names:
        whole = table.columns("name")
        names = whole[:1] if whole and not (first and last) else [*first[:1], *last[:1]] or whole[:1]
    if kind == "moodle":
        grade_column = table.column("grade", titles.grade)
        if grade_column is None:
            there = ", ".join(map(repr, table.header))
            raise ValueError(
                f"no column 'Grade': is this Moodle's grading worksheet? There are {there}; --grade-column "
                "says which it is"
            )
        comments = table.column("comment")
        if comments is None:
            table = table.with_column(COMMENTS)
            comments = len(table.header) - 1
        maximum = _maximum(table, grade_column)
    else:
        grade_column = _assignment(table, kind, titles, results)
        beside = (
            f"{folded(table.header[grade_column])} - max points"  # as Gradescope's table of a course has it
        )
        own = next((i for i, title in enumerate(table.header) if folded(title) == beside), None)
        comments, maximum = None, own
        if kind == "gradescope" and own is None and grade_column == table.column("grade"):
            maximum = table.column("maximum")
    columns = _Columns(
        grade=grade_column,
        numbers=numbers,
        users=table.columns("username"),
        emails=table.columns("email"),
        names=names,
        maximum=maximum,
        comment=comments,
    )
    if not (columns.numbers or columns.users or columns.emails or columns.names):
        there = ", ".join(map(repr, table.header))
        raise ValueError(
            f"no column 'Identifier', nor any that says whose a row is: there are {there}; --id-column or "
            "--name-column says which"
        )
    return table, columns


def _maximum(table: SavedTable, grade_column: int) -> int | None:
    """The column of what a grade may be at most; in a language that is not known, the one beside the grades."""
    known, beside = table.column("maximum"), grade_column + 1
    if known is not None or beside >= len(table.header):
        return known
    cells = {row[beside].strip().lstrip("'") for row in table.rows} - {""}
    is_most = len(cells) == 1 and all(re.fullmatch(r"\d+(?:[.,]\d+)?", cell) for cell in cells)
    return beside if is_most else None


def _number_columns(table: SavedTable, kind: str, titles: Titles) -> list[int]:
    """Columns of the numbers that this very system gives: another's may be equal by chance."""
    if titles.identifier:
        return [i for i in [table.column("identifier", titles.identifier)] if i is not None]
    known = table.columns("identifier")
    if kind == "moodle":
        told = [i for i in range(len(table.header)) if _tells_participants(table, i)]
        return told or [i for i in known if folded(table.header[i]) != "id"]
    if kind == "canvas":
        return known
    return [] if kind == "brightspace" else known + table.columns("number")


def _tells_participants(table: SavedTable, column: int) -> bool:
    """Whether a column holds "Participant 123"; the first column, in any language."""
    cells = [row[column].strip().lstrip("'") for row in table.rows if row[column].strip()]
    if not cells or not all(map(_DIGITS.search, cells)):
        return False
    words = {folded(_DIGITS.sub("", cell)) for cell in cells}
    return all(map(is_blind, cells)) or (column == 0 and len(cells) > 1 and len(words) == 1 and words != {""})


def _assignment(table: SavedTable, kind: str, titles: Titles, results: Sequence[Result]) -> int:
    """The column of the assignment: the one that is named, or the one that has the problem set's name."""
    wanted = folded(titles.assignment or titles.grade or results[0].problem_set)
    plain = [folded(re.sub(r"\s*(?:\(\d+\)|\[.*|<.*|\|.*)$", "", title)) for title in table.header]
    for same in (
        [i for i, title in enumerate(table.header) if folded(title) == wanted],
        [i for i, title in enumerate(plain) if title == wanted],
        [i for i, title in enumerate(plain) if re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", title)],
    ):
        if len(same) == 1:
            return same[0]
        if same:
            shown = ", ".join(repr(table.header[i]) for i in same)
            raise ValueError(f"{len(same)} columns may be {wanted!r}: {shown}; --assignment says which")
    if kind == "gradescope" and (column := table.column("grade")) is not None:
        return column
    shown = ", ".join(map(repr, table.header))
    raise ValueError(f"no column {wanted!r}; there are {shown}; --assignment says which")


def _heads(table: SavedTable, columns: _Columns, kind: str) -> set[int]:
    """Rows of no student: "Points Possible" and the like."""
    words = ("points possible", "manual posting", "points", "date", "student, test")
    heads = set()
    for i, row in enumerate(table.rows[:6]):
        first = folded(" ".join(row[c] for c in columns.names[:1]) or row[0])
        if first in words and kind in ("canvas", "classroom"):
            heads.add(i)
    return heads


def _odd_rows(table: SavedTable, columns: _Columns, too_long: set[int]) -> list[str]:
    """What is wrong with rows, by the names in them."""
    notes = []
    ids = sorted({*columns.numbers, *columns.users, *table.columns("number")})
    for i, row in enumerate(table.rows):
        name = " ".join(row[c] for c in columns.names).strip() or row[0].strip()
        if i in too_long:
            notes.append(f"{name}: this row has more cells than the header: it is left as it is")
        notes += [f"{name}: {damage(row[c])}" for c in ids if is_damaged(row[c])]
    return notes


def _possible(table: SavedTable, columns: _Columns, heads: set[int]) -> str:
    said = _MAXIMUM.search(table.header[columns.grade])
    if said:
        return said[1]
    for i in sorted(heads):
        row = table.rows[i]
        if any(folded(cell) in ("points possible", "points") for cell in row):
            return row[columns.grade]
    return ""


def _matched(
    results: Sequence[Result], table: SavedTable, columns: _Columns, kind: str, heads: set[int]
) -> tuple[dict[int, Result], list[str]]:
    """Row -> its student. Where two rows or two students claim each other, neither is guessed."""
    numbered = {r.lms_id.casefold(): r for r in results if r.lms == kind and r.lms_id}
    mailed: dict[str, list[Result]] = {}
    called: dict[str, list[Result]] = {}
    for result in results:
        if result.email:
            mailed.setdefault(result.email.casefold(), []).append(result)
        for key in name_keys(result.name):
            called.setdefault(key, []).append(result)

    def name_of(row: Sequence[str]) -> str:
        return " ".join(" ".join(unguarded(row[i]) for i in columns.names).split()).lstrip("'")

    listed = Counter(
        key for i, row in enumerate(table.rows) if i not in heads for key in name_keys(name_of(row))
    )
    claims: dict[int, Result] = {}
    for i, row in enumerate(table.rows):
        if i in heads:
            continue
        found = _by_cells(row, columns.numbers, numbered, _number_of if kind == "moodle" else _bare)
        found = found or _by_cells(row, columns.users, numbered, _bare)
        if found is None:
            same = [r for c in (*columns.emails, *columns.users) for r in mailed.get(_bare(row[c]), [])]
            found = same[0] if len({r.slug for r in same}) == 1 else None
        if found is None:
            keys = name_keys(name_of(row))
            same = [
                r for key in keys for r in called.get(key, []) if not _is_elsewhere(r, table, columns, kind)
            ]
            alone = len(same) == 1 and all(listed[key] == 1 for key in keys)
            found = same[0] if alone else None
        if found is not None:
            claims[i] = found
    twice = {slug for slug, n in Counter(r.slug for r in claims.values()).items() if n > 1}
    matches = {i: result for i, result in claims.items() if result.slug not in twice}
    seen = {result.slug for result in matches.values()}
    notes = []
    for result in results:
        if result.slug in seen:
            continue
        n = max((listed[key] for key in name_keys(result.name)), default=0)
        if result.slug in twice:
            notes.append(
                f"{result.student}: several rows of the worksheet are this student's: none is filled"
            )
        else:
            many = f"{n} of that name in the worksheet" if n > 1 else "not in the worksheet"
            notes.append(f"{result.student}: {many}")
    return matches, notes


def _is_elsewhere(result: Result, table: SavedTable, columns: _Columns, kind: str) -> bool:
    """Whether a student has a number of this very system: then a name alone proves nothing."""
    return (
        result.lms == kind and bool(result.lms_id) and bool(columns.numbers) and kind in ("moodle", "canvas")
    )


def _by_cells(
    row: Sequence[str], columns: Sequence[int], known: dict[str, Result], read: Callable[[str], str]
) -> Result | None:
    found = {known[key].slug: known[key] for i in columns if (key := read(row[i])) in known}
    return next(iter(found.values())) if len(found) == 1 else None


def _bare(cell: str) -> str:
    return unguarded(cell).lstrip("'#").strip().casefold()


def _number_of(cell: str) -> str:
    digits = _DIGITS.search(unguarded(cell))
    return digits[0] if digits else ""


def _has_commas(table: SavedTable, columns: _Columns) -> bool:
    """Whether the table writes "12,50", in its grades or in what they may be at most."""
    places = [columns.grade, *([columns.maximum] if columns.maximum is not None else [])]
    return any(re.fullmatch(r"\s*'?\d+,\d{1,2}\s*", row[i]) for row in table.rows for i in places)


def _for_canvas(table: SavedTable, column: int) -> SavedTable:
    """The columns that Canvas reads, and no other assignment's: their grades may have changed meanwhile."""
    kept = [i for i, title in enumerate(table.header) if folded(title) in CANVAS]
    return table.only([*kept, *([column] if column not in kept else [])])


def grade(result: Result, maximum: str) -> str:
    """The score on the table's scale; blank for what has none."""
    if result.score is None:
        return ""
    said = maximum.strip().lstrip("'")
    if re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", said):
        said = said.replace(",", "")  # a thousand points
    try:
        most = float(said.replace(",", "."))
    except ValueError:
        most = result.max_score
    if not math.isfinite(most) or most <= 0:
        most = result.max_score
    return f"{result.score / result.max_score * most:.5g}" if result.max_score else ""


def comment(result: Result) -> str:
    """What stands beside a grade: the reason, or the points by question; and that it came late."""
    late = f"; {late_words(result)}" if result.late_s else ""
    if result.status != "ok":
        return f"Not graded yet: {result.reason or result.status}{late}"
    parts = [
        f"{mark.question} excused"
        if mark.status == "excused"
        else f"{mark.question} {mark.points:g} of {mark.max_points:g}"
        for mark in result.marks
    ]
    return "; ".join(parts) + late


def late_words(result: Result) -> str:
    """ "26.5 h late", with what that costs, or "" where it is not."""
    if not result.late_s:
        return ""
    said = f"{duration(result.late_s)} late"
    return f"{said}, {result.late_points:g} points less ({result.late_rule})" if result.late_points else said
