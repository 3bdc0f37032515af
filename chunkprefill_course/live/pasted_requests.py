"""Requests out of what people paste: CSV, a spreadsheet's cells, JSON lines, traces of others, a probe's JSON.

What can be read in two ways is refused: a table that is read wrongly gives numbers that look right.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import chunkprefill as cp
from chunkprefill.servers.client import clean
from chunkprefill.strict import loads

MOST = 2000  # requests
MOST_TOKENS = 20_000_000  # of all of them together
MOST_COUNT = 10_000_000  # tokens of one prompt or answer
#: Column -> the names that it has in tables that people have, without case, blanks and signs: ours, Azure's,
#: Mooncake's, BurstGPT's, Vidur's, vLLM's, recorded runs', a probe's.
COLUMNS = {
    "arrival": [
        "arrival",
        "arrivals",
        "arrivaltime",
        "arrivedat",
        "timestamp",
        "time",
        "sent",
        "sentat",
        "start",
        "starttime",
        "starttimes",
        "requesttime",
    ],
    "n_prompt": [
        "nprompt",
        "prompttokens",
        "numprompttokens",
        "contexttokens",
        "inputlength",
        "inputtokens",
        "inputlen",
        "inputlens",
        "promptlen",
        "promptlength",
        "numprefilltokens",
        "prefilltokens",
        "requesttokens",
        "tokensin",
        "isl",
        "prompt",
        "input",
    ],
    "n_output": [
        "noutput",
        "outputtokens",
        "numoutputtokens",
        "generatedtokens",
        "outputlength",
        "outputlen",
        "outputlens",
        "completiontokens",
        "responsetokens",
        "responselength",
        "numdecodetokens",
        "decodetokens",
        "tokensout",
        "osl",
        "output",
        "completion",
    ],
    "most_output": ["maxtokens", "maxcompletiontokens"],
    "rid": ["rid", "name", "id", "request", "requestid"],
    "kind": ["kind", "class", "role", "type"],
    "priority": ["priority"],
}
ONCE = ("arrival", "n_prompt", "n_output")  # columns of which a table may have one
WORDS = {"arrival": "arrivals", "n_prompt": "prompt tokens", "n_output": "output tokens"}
#: Names that in some files hold a text, and in others how many tokens it has.
CONTENT = ("prompt", "input", "output", "completion")
UNITS = {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "milliseconds": 1e-3, "us": 1e-6, "µs": 1e-6}
_NESTS = re.compile(
    r'"(?:[^"\\\n]|\\.)*"?|[\[\]{}]'
)  # what opens or closes, and strings, in which nothing does
DEEPEST = 50  # a probe's JSON needs five
_DATE = re.compile(
    r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,](\d+))?\s*(Z|[+-]\d\d:?\d\d)?", re.IGNORECASE
)
_GROUPED = re.compile(r"\d{1,3}(?:[,'’ \u00a0\u2009\u202f_]\d{3})+")
_COMMA = re.compile(r"[+-]?\d+,\d+")  # a decimal comma, or one that groups thousands
_TWO_WAYS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
# a cell that says its unit: 300 ms
_SAID = re.compile(r"([+-]?[\d.,]+(?:e[+-]?\d+)?)\s*([a-zµ]+)", re.IGNORECASE)
_UNIT = re.compile(r"^(.*?)[\s_]*(?:[(\[]\s*(\w+)\s*[)\]]|(?<=[\s_])(\w+))\s*$")


class LabError(ValueError):
    """What is wrong with an experiment, in one line for the reader."""


def read_requests(text: str) -> tuple[list[cp.Request], dict[Any, str]]:
    """Requests and their classes from pasted text: a table with a header, JSON lines, or one JSON document.

    LabError names the row and the rule. Arrivals are moved so that the first comes at 0 s.
    """
    rows = _rows(text.lstrip("\ufeff"))
    if not rows:
        raise LabError(
            "no requests: a line each, such as `chat 1, 0.0, 200, 60` under `name, arrival, prompt, output`"
        )
    if len(rows) > MOST:
        raise LabError(f"{len(rows):,} requests, the laboratory takes at most {MOST:,}")
    read: list[tuple[str, float, int, int, int]] = []
    kinds: dict[Any, str] = {}
    for number, row in rows:
        one, kind = _request(number, row, len(read))
        if one[0] in kinds:
            raise LabError(f"row {number}: {one[0]!r} is there already; each request needs a name of its own")
        read.append(one)
        kinds[one[0]] = kind
    if (n_tokens := sum(one[2] + one[3] for one in read)) > MOST_TOKENS:
        raise LabError(
            f"{n_tokens:,} tokens in {len(read):,} requests, the laboratory takes at most {MOST_TOKENS:,}"
        )
    _refuse_two_clocks(rows)
    first = min(arrival for _, arrival, *_ in read)
    _refuse_dates_as_durations(first, {row.get("unit") for _, row in rows})
    return [cp.Request(rid, at - first, n, m, None, urgent) for rid, at, n, m, urgent in read], kinds


def short(value: Any) -> str:
    """The beginning of what a reader gave, for a message."""
    return clean(value, 40)


def _rows(text: str) -> list[tuple[int, dict[str, Any]]]:
    return _json_rows(text) if text.lstrip()[:1] in ("{", "[") else _table_rows(text)


def _plain(name: str) -> str:
    """A column's name without case, blanks and signs."""
    return re.sub(r"[\W_]+", "", name.lower())


def column_of(name: str) -> tuple[str, float] | None:
    """The column that a header names and its unit in s; None for one that says nothing here."""
    found = next((column for column, names in COLUMNS.items() if _plain(name) in names), None)
    if found:
        return found, 1.0
    parted = _UNIT.match(name.strip())
    unit = (parted[2] or parted[3] or "").lower() if parted else ""
    if parted and (unit in UNITS or unit in ("tokens", "token")):
        found = next((column for column, names in COLUMNS.items() if _plain(parted[1]) in names), None)
        if found and (found == "arrival") == (unit in UNITS):
            return found, UNITS.get(unit, 1.0)
    return None


def _table_rows(text: str) -> list[tuple[int, dict[str, Any]]]:
    lines = [(i, line) for i, line in enumerate(re.split(r"\r\n|\r|\n", text), 1) if line.strip()]
    lines = [(i, line) for i, line in lines if not line.lstrip().startswith("#")]
    if lines and re.fullmatch(r"sep=.", lines[0][1].strip()):  # as a spreadsheet writes it
        del lines[0]
    if not lines:
        return []
    lines, delimiter = _cells_apart(lines)
    records: list[tuple[int, list[str]]] = []
    reader, begin = (
        csv.reader(
            io.StringIO("\n".join(line for _, line in lines)),
            delimiter=delimiter,
            skipinitialspace=True,
            strict=True,
        ),
        0,
    )
    try:
        for record in reader:
            records.append((lines[begin][0], record))
            begin = min(reader.line_num, len(lines) - 1)
    except csv.Error as error:
        raise LabError(f"row {lines[begin][0]}: this is no table that can be read: {error}") from None
    if not records:  # a table of rules alone
        return []
    (number, first), *rest = records
    header = _header(number, first)
    plain = {_plain(name) for name in first}
    of_trace = {"timestamp", "inputlength"} <= plain and "chatid" not in plain
    if of_trace and "hashids" in plain:  # as Mooncake's lines have them
        header = [("arrival", 1e-3) if _plain(name) == "timestamp" else at for name, at in zip(first, header)]
    elif of_trace:
        raise LabError(
            f"row {number}: timestamp beside input_length can be read in two ways, as Mooncake's milliseconds or as "
            "seconds; call it timestamp_ms or timestamp_s"
        )
    # empty rows are left out, as empty lines are
    filled = [(i, record) for i, record in rest if any(cell.strip() for cell in record)]
    rows = [(i, _cells(i, header, record, first)) for i, record in filled]
    arrivals = [str(row.get("arrival", "")) for _, row in rows]
    for (number, _), arrival in zip(rows, arrivals):
        if of_trace and not arrival.isdecimal():
            raise LabError(f"row {number}: timestamp {short(arrival)} is no whole number of milliseconds")
    if any(_COMMA.fullmatch(text) and not _TWO_WAYS.fullmatch(text) for text in arrivals):
        rows = [(i, {**row, "decimal comma": True}) for i, row in rows]
    return rows


def _cells_apart(lines: list[tuple[int, str]]) -> tuple[list[tuple[int, str]], str]:
    """The lines, and what stands between their cells."""
    head = lines[0][1]
    delimiter = "|" if head.lstrip().startswith("|") else max("\t;,|", key=head.count)
    if delimiter == "|":  # a table of Markdown, with or without signs at its edges
        lines = [(i, line.strip().strip("|")) for i, line in lines if not re.fullmatch(r"[\s|:-]+", line)]
    if delimiter not in head:  # by blanks, if these are names
        return [(i, ",".join(line.split())) for i, line in lines], ","
    return lines, delimiter


def _header(number: int, first: Sequence[str]) -> list[tuple[str, float] | None]:
    header = [column_of(name) for name in first]
    if not any(header):
        raise LabError(
            f"row {number}: no known column among {short(', '.join(first))}; "
            "name them, such as name, arrival, prompt, output"
        )
    for column in ONCE:
        there = [name for name, known in zip(first, header) if known and known[0] == column]
        if len(there) > 1:
            both = " and ".join(short(name.strip()) for name in there)
            raise LabError(f"row {number}: the columns {both} both say {WORDS[column]}; keep one of them")
    return header


def _cells(
    number: int, header: Sequence[tuple[str, float] | None], record: Sequence[str], first: Sequence[str]
) -> dict[str, Any]:
    """One row by column. LabError for one with more cells than the header: its numbers would be shifted."""
    while len(record) > len(first) and not record[-1].strip():
        record = record[:-1]
    if len(record) > len(first):
        raise LabError(
            f"row {number}: {len(record)} cells under {len(first)} columns; a decimal comma or a name with a "
            "comma needs quotation marks, or another sign between cells, such as ;"
        )
    row: dict[str, Any] = {}
    for known, cell in zip(header, record):
        if known and cell.strip():
            row.setdefault(known[0], cell.strip())
            if known[0] == "arrival":
                row["unit"] = known[1]
    return row


def _json_rows(text: str) -> list[tuple[int, dict[str, Any]]]:
    if (row := _too_deep_in(text)) is not None:
        raise LabError(f"row {row}: the JSON is nested too deeply: a list of requests is needed")
    try:
        whole = loads(text)
    except ValueError:
        found = []
        for i, line in enumerate(text.splitlines(), 1):
            if line.strip():
                try:
                    found.append((i, loads(line)))
                except ValueError as error:
                    raise LabError(f"row {i}: no JSON: {short(error)}") from None
    else:
        found = list(enumerate(_listed(whole), 1))
    for i, row in found:
        if not isinstance(row, dict):
            raise LabError(f"row {i}: {short(row)!r} is no object with arrival, prompt and output tokens")
    return [(i, _json_row(i, row)) for i, row in found]


def _too_deep_in(text: str) -> int | None:
    """The row in which JSON is nested more than DEEPEST times; None if it never is.

    In a page the interpreter itself breaks down on what Python elsewhere refuses with RecursionError.
    """
    depth = 0
    for part in _NESTS.finditer(text):
        if part[0] in "[{":
            depth += 1
            if depth > DEEPEST:
                return text.count("\n", 0, part.start()) + 1
        elif part[0] in "]}":
            depth -= 1
    return None


def _listed(whole: Any) -> list[Any]:
    """The list of requests in a document: itself, or under a name that the usual ones have."""
    if isinstance(whole, dict):
        if isinstance(whole.get("streams"), list):
            return _of_probe(whole["streams"])
        if columns := _columns(whole):
            return columns
        if any((column_of(str(name)) or ("",))[0] in ONCE for name in whole):
            return [whole]
        whole = whole.get("requests", whole.get("served", whole))
    if not isinstance(whole, list):
        raise LabError("the JSON holds no list of requests")
    return whole


def _columns(whole: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The requests of a document that lists each column apart, as vLLM's and SGLang's benchmarks do; [] for others.

    LabError for columns that are not of one length, for requests that failed, and where no arrivals are told.
    """
    known = {name: column_of(str(name)) for name in whole}
    lists = {name: whole[name] for name, column in known.items() if column and isinstance(whole[name], list)}
    told = {column[0] for name, column in known.items() if column and name in lists}
    if not {"n_prompt", "n_output"} <= told:
        return []
    if "arrival" not in told:
        if not any(_plain(str(name)) == "inputlens" for name in lists):
            return []
        raise LabError(
            "a benchmark's lengths without start_times: when its requests came is not told; vLLM's benchmark tells it "
            "with --save-detailed"
        )
    lengths = {name: len(values) for name, values in lists.items()}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{n} {short(name)}" for name, n in lengths.items())
        raise LabError(f"columns of one length are needed: {said}")
    for i, error in enumerate(whole["errors"] if isinstance(whole.get("errors"), list) else (), 1):
        if error:
            raise LabError(f"row {i}: this request failed ({short(error)}), so that its answer has no length")
    return [dict(zip(lists, values)) for values in zip(*lists.values())]


def _of_probe(streams: list[Any]) -> list[Any]:
    """The requests of a probe's last round with a document, as its server answered them."""
    rows = [row for row in streams if isinstance(row, dict)]
    rounds = [row.get("round") for row in rows if row.get("kind") == "document"]
    if not rounds:
        raise LabError("this probe holds no round with a document")
    return [
        {
            "name": row.get("name"),
            "kind": row.get("kind"),
            "arrival": row.get("sent"),
            "n_prompt": row.get("n_prompt"),
            "n_output": len(row["tokens"]) if isinstance(row.get("tokens"), list) else row.get("n_output"),
        }
        for row in rows
        if row.get("round") == rounds[-1]
    ]


def _json_row(number: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """One object by column. LabError where two of its keys say one thing, and not the same."""
    plain = {_plain(str(name)) for name in given}
    found: dict[str, list[tuple[str, Any, float]]] = {}
    for name, value in given.items():
        known = column_of(str(name))
        if known and value not in (None, ""):
            unit = known[1]
            if _plain(str(name)) == "timestamp" and "inputlength" in plain:
                unit = _unit_of_trace(number, value, "chatid" in plain)
            found.setdefault(known[0], []).append((str(name), value, unit))
    row: dict[str, Any] = {}
    for column, there in found.items():
        counts = [each for each in there if not _is_content(number, *each[:2])] or there
        _, row[column], unit = counts[0]
        if column == "arrival":
            row["unit"] = unit
        if column in ONCE:
            _refuse_two_answers(number, column, counts)
    return row


def _is_content(number: int, name: str, value: Any) -> bool:
    """Whether a key holds a text itself, or messages, in place of its number of tokens or their ids."""
    if _plain(name) not in CONTENT or not isinstance(value, str | list):
        return False
    try:
        _count(number, value, name)
    except LabError:
        return True
    return False


def _are_numbers(values: list[Any]) -> bool:
    return all(isinstance(each, int | float) and not isinstance(each, bool) for each in values)


def _refuse_two_answers(number: int, column: str, there: Sequence[tuple[str, Any, float]]) -> None:
    if len(there) < 2:
        return
    read = [
        _seconds(number, {"arrival": value, "unit": unit})
        if column == "arrival"
        else _count(number, value, WORDS[column])
        for _, value, unit in there
    ]
    if len(set(read)) > 1:
        both = " and ".join(f"{short(name)} {short(value)}" for name, value, _ in there[:2])
        raise LabError(f"row {number}: {both} both say {WORDS[column]}, and not the same; keep one of them")


def _unit_of_trace(number: int, value: Any, of_bailian: bool) -> float:
    """s of a `timestamp` beside an input_length: Mooncake's lines count whole milliseconds, Bailian's seconds."""
    if of_bailian:
        return 1.0
    if isinstance(value, float) and value % 1:
        raise LabError(
            f"row {number}: timestamp {short(value)} can be read in two ways, because traces with an input_length "
            "count whole milliseconds or, beside a chat_id, seconds; call it timestamp_ms or timestamp_s"
        )
    return 1e-3


def _request(number: int, row: Mapping[str, Any], index: int) -> tuple[tuple[str, float, int, int, int], str]:
    """Name, arrival in s, prompt and output tokens, priority; and the class."""
    rid = clean(row.get("rid", ""), 24) or f"r{index + 1}"  # no control or format characters in a picture
    kind = clean(row.get("kind") or rid.rstrip("0123456789").strip(" -_#") or "requests", 24)
    arrival = _seconds(number, row)
    priority = row.get("priority", 0)
    try:
        urgent = int(str(priority))
    except ValueError:
        raise LabError(f"row {number}: priority {short(priority)!r} is no whole number") from None
    n_prompt = _count(number, row.get("n_prompt"), "prompt tokens")
    n_output = _count(number, row.get("n_output", row.get("most_output")), "output tokens")
    return (rid, arrival, n_prompt, n_output, urgent), kind


def _count(number: int, value: Any, words: str) -> int:
    if value is None:
        raise LabError(f"row {number}: no {words}")
    if isinstance(value, list):  # a prompt's tokens, a server's token times
        if not _are_numbers(value):
            raise LabError(
                f"row {number}: {words} {short(value)} are no tokens but texts or messages; their number is needed"
            )
        value = len(value)
    text = str(value).strip()
    if isinstance(value, str):
        text = re.sub(r"\s*tok(?:en)?s?$", "", text, flags=re.IGNORECASE)  # as the column says anyway
    if isinstance(value, str) and re.fullmatch(r"\d{1,3}(?:\.\d{3})+", text):
        bare = text.replace(".", "")
        raise LabError(
            f"row {number}: {words} {short(text)} can be read in two ways; write {short(bare)} if that is it"
        )
    text = re.sub(r"\D", "", text) if _GROUPED.fullmatch(text) else text
    try:
        n = int(text) if text.lstrip("-").isdigit() else _whole(float(text))
    except (ValueError, OverflowError):
        raise LabError(f"row {number}: {words} {short(value)!r} is no whole number") from None
    if not 1 <= n <= MOST_COUNT:
        raise LabError(f"row {number}: {words} {short(n)}; 1 to {MOST_COUNT:,} are possible")
    return n


def _whole(number: float) -> int:
    if number != int(number):
        raise ValueError("not whole")
    return int(number)


def _seconds(number: int, row: Mapping[str, Any]) -> float:
    value = row.get("arrival")
    if value is None:
        raise LabError(f"row {number}: no arrival; seconds, or a date with a time")
    text, unit = str(value).strip(), row.get("unit", 1.0)
    if (said := _SAID.fullmatch(text)) and said[2].lower() in UNITS:
        if unit not in (1.0, UNITS[said[2].lower()]):
            raise LabError(f"row {number}: arrival {short(text)!r} says another unit than its column")
        text, unit = said[1], UNITS[said[2].lower()]
    if _COMMA.fullmatch(text):
        if _TWO_WAYS.fullmatch(text) and not row.get("decimal comma"):
            two = f"{text.replace(',', '.')} or {text.replace(',', '')}"
            raise LabError(f"row {number}: arrival {short(text)} can be read in two ways; write {short(two)}")
        text = text.replace(",", ".")
    try:
        seconds = float(text) * unit if not isinstance(value, bool) else _date(text)
    except ValueError:
        try:
            seconds = _date(text)
        except ValueError:
            raise LabError(
                f"row {number}: arrival {short(text)!r} is neither seconds nor a date with a time"
            ) from None
    if not 0 <= abs(seconds) < 1e12:
        raise LabError(
            f"row {number}: arrival {short(text)} s is out of range; milliseconds stand under arrival_ms"
        )
    return seconds


def _refuse_two_clocks(rows: Sequence[tuple[int, Mapping[str, Any]]]) -> None:
    """LabError where one arrival is told otherwise than the first: between the two no time can be told."""
    told = ""
    for number, row in rows:
        text = str(row["arrival"]).strip()
        found = _DATE.fullmatch(text)
        number_form = "a number with its unit"
        if not _SAID.fullmatch(text):
            number_form = "a number" if row.get("unit", 1.0) == 1.0 else f"a number of {row['unit']:g} s"
        form = ("a date with a zone" if found[4] else "a date without a zone") if found else number_form
        told = told or form
        if form != told:
            raise LabError(f"row {number}: arrival {short(text)!r} is {form}, and the first one is {told}")


def _refuse_dates_as_durations(first: float, units: set[Any]) -> None:
    """LabError for milliseconds that all begin where seconds since 1970 are a date of today."""
    if units == {1e-3} and 1e9 <= first / 1e-3 < 1e10:
        raise LabError(
            f"arrivals from {first / 1e-3:.0f} on can be read in two ways: as milliseconds, {first / 86_400:.0f} days "
            "after the beginning, or as a date in seconds; write them in seconds, under arrival"
        )


def _date(text: str) -> float:
    """s since 2000 of a date with a time, in UTC where it names no zone. ValueError for what is none."""
    if not (found := _DATE.fullmatch(text)):
        raise ValueError("no date with a time")
    day, clock, decimals, zone = found.groups()
    when = datetime.fromisoformat(f"{day}T{clock}{(zone or 'Z').upper().replace('Z', '+00:00')}")
    return (when - datetime(2000, 1, 1, tzinfo=UTC)).total_seconds() + float(f"0.{decimals or 0}")
