"""Who is in the class: a roster of any registrar's office, and which of its people a name means."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from chunkprefill_grading.submission.spreadsheet import SavedTable, folded, is_damaged, read_table, unguarded

#: What stands in place of a name in rows that gradebooks add.
NO_STUDENTS = frozenset(("points possible", "manual posting", "student, test", "test student"))
#: What stands there in rows that spreadsheets add: no student's where all others have a number or an address.
SUMS = frozenset(
    (
        *("total", "totals", "sum", "count", "average", "mean", "median", "maximum", "minimum", "max", "min"),
        *("summe", "gesamt", "anzahl", "durchschnitt", "mittelwert", "somme", "moyenne", "suma", "promedio"),
        *("media", "totale", "totaal", "gemiddelde", "średnia", "итого", "среднее", "合计", "平均", "合計"),
    )
)
_WITH_ADDRESS = re.compile(r"([^<>]+?) ?<([^<>@ ]+@[^<>@ ]+)>$")


@dataclass(frozen=True)
class Person:
    """A row of a roster. ids: numbers, login names and addresses, whatever the roster has."""

    name: str
    ids: tuple[str, ...] = ()
    email: str = ""


@dataclass(frozen=True)
class RosterColumns:
    """What a person says of a roster: titles of its columns. name: one title, or first and last name."""

    name: tuple[str, ...] = ()
    id: str = ""
    email: str = ""
    encoding: str = ""  # of the file


@dataclass(frozen=True)
class Roster:
    """The people of a class, and what was guessed in reading them."""

    people: tuple[Person, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """The names, in the roster's order."""
        return [person.name for person in self.people]

    def find(self, name: str = "", ids: Iterable[str] = ()) -> Person | None:
        """The one person with one of these ids, else the one with this name; None where there are several."""
        wanted = {folded(each) for each in ids if each.strip()}
        same = [p for p in self.people if wanted & {folded(each) for each in (*p.ids, p.email) if each}]
        if len(same) == 1:
            return same[0]
        keys = name_keys(name)
        alike = [p for p in self.people if keys & name_keys(p.name)]
        return alike[0] if len(alike) == 1 else None

    def has(self, name: str) -> bool:
        """Whether the name, or the id, stands on the roster."""
        keys = name_keys(name)
        return any(
            keys & name_keys(p.name) or folded(name) in {folded(each) for each in (*p.ids, p.email)}
            for p in self.people
        )


def name_keys(name: str) -> set[str]:
    """The spellings under which two lists may have the same name; "Last, First" is one."""
    plain = folded(name)
    keys = {plain}
    if plain.count(",") == 1:
        last, first = plain.split(",")
        keys = {" ".join(f"{first} {last}".split())}
    return {key for key in keys if key}


def read_roster(path: Path, columns: RosterColumns | None = None) -> Roster:
    """The class in a table: of any encoding and delimiter, its headers in one of many languages, or none.

    columns: titles that a person names, before what the titles are known to mean. Raises ValueError for a
    file that holds no name, and for a title that is not there.
    """
    columns = columns or RosterColumns()
    table = read_table(path, columns.encoding)
    try:
        return _people(table, columns)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _people(table: SavedTable, columns: RosterColumns) -> Roster:
    where, notes = _name_columns(table, columns)
    rows: Sequence[Sequence[str]] = table.rows
    if where is None:  # no title that is known: a list of names alone, or a header in another language
        where = [0]
        titled = len(table.header) > 1 and not any("@" in cell or cell.isdigit() for cell in table.header)
        if titled or table.n_titles:
            notes.append(
                f"no column of this roster is known to hold names: its first row is taken for titles, and "
                f"{table.header[0]!r} for the names; --name-column says which"
            )
        else:
            rows = [table.header, *table.rows]
    ids = [i for kind in ("identifier", "number", "username") for i in table.columns(kind)]
    if columns.id:
        ids = [index for index in [table.column("number", columns.id)] if index is not None]
    address = table.column("email", columns.email)
    people = []
    for row in rows:
        name = " ".join(" ".join(unguarded(row[i]) for i in where).split())
        if not name:
            continue
        cells = [*dict.fromkeys(filter(None, (unguarded(row[i]) for i in ids)))]
        numbers = tuple(cell for cell in cells if not is_damaged(cell))
        notes += [f"{name}: {damage(cell)}" for cell in cells if is_damaged(cell)]
        email = unguarded(row[address]) if address is not None else ""
        if said := _WITH_ADDRESS.match(name):
            name, email = said[1], email or said[2]
        people.append(Person(name, numbers, email))
    found = list(dict.fromkeys(people))
    people = _without_sums(found)
    notes += [
        f"the roster's row {each.name!r} is taken for no student" for each in found if each not in people
    ]
    if not people:
        raise ValueError("no name in this roster")
    return Roster(tuple(people), (*table.notes, *notes))


def damage(cell: str) -> str:
    """What to say of a number that lost its digits."""
    return f"a spreadsheet has damaged the number {unguarded(cell)!r}: export the table again"


def _without_sums(people: Sequence[Person]) -> list[Person]:
    """Who of these rows is a person."""
    n_known = sum(bool(person.ids or person.email) for person in people)

    def is_sum(person: Person) -> bool:
        word = folded(person.name).rstrip(": ")
        return word in NO_STUDENTS or (word in SUMS and not person.email and n_known > len(people) // 2)

    return [person for person in people if not is_sum(person)]


def _name_columns(table: SavedTable, columns: RosterColumns) -> tuple[list[int] | None, list[str]]:
    if columns.name:
        named = [table.column("name", title) for title in columns.name]
        return [i for i in named if i is not None], []
    first, last = table.columns("first"), table.columns("last")
    pairs = [(a, b) for a in first for b in last if a != b]
    if pairs and not table.columns("name"):
        return list(pairs[0]), []
    if pairs:  # "Name" beside "Vorname" is the last name
        whole = [i for i in table.columns("name") if folded(table.header[i]) not in ("name", "naam", "namn")]
        return (whole[:1] or list(pairs[0])), []
    if whole := table.columns("name"):
        bare = folded(table.header[whole[0]]) in ("name", "naam", "namn", "navn", "nimi")
        if bare and (first or last):  # beside "Vorname" it is the last name, beside "Surname" the first
            return ([first[0], whole[0]] if first else [whole[0], last[0]]), []
        return _with_untitled(table, whole[0])
    if first or last:
        return [*first[:1], *last[:1]], []
    return None, []


def _with_untitled(table: SavedTable, name: int) -> tuple[list[int], list[str]]:
    """The column of names; and the one beside it, where their title is merged over both."""
    beside = [row[name + 1].strip() for row in table.rows] if name + 1 < len(table.header) else []
    has_words = sum(bool(cell) and not re.search(r"[\d@]", cell) for cell in beside) > len(beside) // 2
    if not has_words or table.header[name + 1]:
        return [name], []
    said = f"the column beside {table.header[name]!r} has no title and is taken for a part of the name"
    return [name, name + 1], [f"{said}; --name-column says which it is"]
