"""Who comes when, and with how much: recorded traces, and seeded generators of the same shapes."""

from __future__ import annotations

import codecs
import csv
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import count
from statistics import NormalDist
from typing import Any

import numpy as np

from chunkprefill.scheduling.core import Request
from chunkprefill.strict import instead, loads
from chunkprefill.whole import as_real, as_whole, real_number, whole_number

Lengths = Callable[[np.random.Generator, int], np.ndarray] | int | tuple[int, int]
Segments = tuple[tuple[str, int], ...] | None  # of a prompt, as `Request` has them
Row = tuple[float, int, int, Segments]  # arrival in s, prompt tokens, output tokens
MOONCAKE_BLOCK, BAILIAN_BLOCK = 512, 16  # prompt tokens that one of `hash_ids` stands for
Path = str | os.PathLike[str]
# A date, perhaps a time, perhaps a zone. Other forms of ISO 8601 are not read: among them are all the digits
# of a count of milliseconds, which would pass for a year, a month, a day, an hour and a minute.
_STAMP = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[ Tt](\d\d:\d\d(?::\d\d)?)(?:(?<=:\d\d:\d\d)\.(\d+))?"
    r"\s*([Zz]|[+-](?:[01]\d|2[0-3])(?::?[0-5]\d)?)?)?",
    re.ASCII,
)
_DIGITS = re.compile(r"\s*[+-]?\d+\s*", re.ASCII)

# Azure's 2023 traces (Splitwise, ISCA'24): tokens at these quantiles of prompt and output.
AZURE_QUANTILES = (0, 0.01, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99, 1)
CONVERSATION = (
    (2, 29, 181, 207, 396, 1020, 1189, 2734, 4083, 4142, 14050),
    (7, 16, 41, 54, 85, 129, 395, 424, 451, 601, 1000),
)
CODE = (
    (3, 17, 75, 147, 578, 1469, 2744, 5187, 7303, 7436, 7437),
    (6, 6, 6, 7, 9, 13, 24, 55, 90, 251, 1899),
)
CONVERSATION_RATE, CODE_RATE = 19_366 / 3_502, 8_819 / 3_436  # requests/s


def read_azure(path: Path) -> list[Request]:
    """Requests of an Azure trace (CSV: TIMESTAMP, ContextTokens, GeneratedTokens), to the µs, from 0 s.

    All times have a zone or none has. A malformed row is refused (ValueError) with file and line.
    Source: Azure/AzurePublicDataset, CC BY 4.0.
    """
    first: str | None = None

    def row(cells: dict[str, str]) -> Row:
        nonlocal first
        stamp = cells["TIMESTAMP"]
        at, first = seconds_of(stamp), first or stamp
        if _has_zone(stamp) != _has_zone(first):
            raise ValueError(
                f"one of {first.strip()!r} and {stamp.strip()!r} has a zone, and the other has none"
            )
        return at, _int(cells["ContextTokens"]), _int(cells["GeneratedTokens"]), None

    return _requests(path, _table(path, ("TIMESTAMP", "ContextTokens", "GeneratedTokens"), row))


def read_mooncake(path: Path, *, prefixes: bool = False) -> list[Request]:
    """Requests of a Mooncake trace: its JSON lines, or a CSV of timestamp_ms, input_length, output_length.

    prefixes: read from the lines' `hash_ids` what each prompt shares with others, for a `BlockPool` with
    prefix caching; without it they are ignored, and prompts share nothing.

    Lines with a chat_id are of a Qwen-Bailian trace, which has the same keys and counts seconds. First arrival
    0 s. A malformed row is refused (ValueError) with file and line, and so are times that would mean something
    else in another unit. Sources: kvcache-ai/Mooncake; alibaba-edu/qwen-bailian-usagetraces-anon.
    """
    units: set[float] = set()
    rests = count()

    def row(cells: dict[str, Any]) -> Row:
        if not isinstance(cells, dict):
            raise ValueError(f"an object is needed, this is a {type(cells).__name__}")
        if "timestamp" in cells and "timestamp_ms" in cells:
            raise ValueError("timestamp and timestamp_ms: two keys for one thing")
        key = "timestamp" if "timestamp" in cells else "timestamp_ms"
        units.add(unit := 1.0 if key == "timestamp" and "chat_id" in cells else 1e3)  # in a second
        if len(units) > 1:
            raise ValueError(
                "some lines so far have a chat_id (times in seconds) and some have none (times in ms)"
            )
        at = _time(cells[key])
        if key == "timestamp" and unit == 1e3 and at % 1:
            raise ValueError(
                f"timestamp is {cells[key]!r}, and Mooncake's count whole milliseconds: if it is one, call it "
                "timestamp_ms"
            )
        if abs(at) >= 1e11 * unit:
            raise ValueError(f"{key} {cells[key]!r} is {at / unit:g} s, which is no time since 1970 either")
        n_prompt, n_output = _int(cells["input_length"]), _int(cells["output_length"])
        size = BAILIAN_BLOCK if unit == 1.0 else MOONCAKE_BLOCK
        if prefixes and "hash_ids" not in cells:
            raise ValueError("no 'hash_ids', which say what prompts share")
        shared = _shared(cells["hash_ids"], n_prompt, size, rests) if prefixes else None
        return at / unit, n_prompt, n_output, shared

    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"{path}: no regular file, and a trace of this kind is read twice")
    with _open(path) as file:
        lines = file.buffer.read(100).removeprefix(codecs.BOM_UTF8).lstrip()[:1]
    if lines != b"{":
        rows = list(_table(path, ("timestamp_ms", "input_length", "output_length"), row))
    else:
        rows = list(_json_lines(path, row))
    line, (first, *_) = min(rows, key=lambda each: each[1][0], default=(1, (0.0, 0, 0, None)))
    if units == {1e3} and 1e6 <= first < 1e7:
        raise ValueError(
            f"{path}:{line}: the first request comes at {1e3 * first:.0f}: as milliseconds after "
            f"{first / 86_400:.0f} days, as seconds since 1970 at a date of today; write milliseconds from 0"
        )
    return _requests(path, rows)


def _shared(ids: Any, n_prompt: int, size: int, rests: Iterator[int]) -> Segments:
    """A prompt in blocks of `size` tokens, each by its id; a rest without one has a number of its own."""
    if not isinstance(ids, list) or len(ids) not in (n_prompt // size, -(-n_prompt // size)):
        given = f"{len(ids)} of them" if isinstance(ids, list) else repr(ids)
        raise ValueError(
            f"hash_ids: {given}, and {n_prompt} tokens have {-(-n_prompt // size)} blocks of {size}"
        )
    named = [(f"block {_int(each)}", min(size, n_prompt - i * size)) for i, each in enumerate(ids)]
    rest = n_prompt - sum(n for _, n in named)
    return (*named, (f"rest {next(rests)}", rest)) if rest else tuple(named)


def _int(value: Any) -> int:
    number = int(value) if isinstance(value, str) and _DIGITS.fullmatch(value) else as_whole(value)
    if number is None:
        raise ValueError(f"{value!r} is no whole number")
    return number


def _time(value: Any) -> float:
    number = float(value) if isinstance(value, str) and "_" not in value else as_real(value)
    if number is None or not math.isfinite(number):
        raise ValueError(f"{value!r} is no time")
    return number


def _has_zone(stamp: str) -> bool:
    found = _STAMP.fullmatch(stamp.strip())
    return bool(found and found[4])


def seconds_of(stamp: str) -> float:
    """s since 2000 of `2024-05-10 00:00:00.25`, with any number of decimals and perhaps a zone (`Z`, `+02:00`).

    A date alone is its midnight. ValueError for all else.
    """
    found = _STAMP.fullmatch(stamp.strip())
    if not found:
        raise ValueError(f"{stamp!r} is no time, such as 2024-05-10 00:00:00.25 or 2024-05-10T00:00:00Z")
    day, clock, decimals, zone = found.groups()
    at = datetime.fromisoformat(f"{day} {clock or '00:00'}{(zone or 'Z').upper()}")
    return (at - datetime(2000, 1, 1, tzinfo=UTC)).total_seconds() + float(f"0.{decimals or 0}")


def _open(path: Path) -> Any:
    if said := instead(path):
        raise ValueError(f"{path}:1: {said}")
    try:
        return open(path, encoding="utf-8-sig", newline="")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None


def _table(
    path: Path, columns: Sequence[str], row: Callable[[dict[str, str]], Row]
) -> Iterator[tuple[int, Row]]:
    with _open(path) as file:
        reader, empty = csv.reader(file), 0
        try:
            header = [cell.strip() for cell in next(reader, [])]
            if missing := [name for name in columns if name not in header]:
                raise ValueError(f"no column {', '.join(missing)} in {header}")
            if twice := [name for name in columns if header.count(name) > 1]:
                raise ValueError(f"column {', '.join(twice)} is there twice in {header}")
            for cells in reader:
                if not any(map(str.strip, cells)):  # at the end it is no row, before that it is a damaged one
                    empty = empty or reader.line_num
                    continue
                if empty:
                    raise ValueError("an empty row")
                if len(cells) != len(header):
                    raise ValueError(f"{len(cells)} cells in a row of {len(header)}")
                yield reader.line_num, row(dict(zip(header, cells)))
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}:{empty or reader.line_num + 1}: {error}") from None
        except (ValueError, csv.Error, OverflowError) as error:
            raise ValueError(f"{path}:{empty or max(1, reader.line_num)}: {error}") from None


def _json_lines(path: Path, row: Callable[[dict[str, Any]], Row]) -> Iterator[tuple[int, Row]]:
    with _open(path) as file:
        number = 0
        try:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, row(loads(line))
        except KeyError as error:
            raise ValueError(f"{path}:{number}: no {error}") from None
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}:{number + 1}: {error}") from None
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError(f"{path}:{number}: {error}") from None


def _requests(path: Path, rows: Iterable[tuple[int, Row]]) -> list[Request]:
    found = list(rows)
    if not found:
        raise ValueError(f"{path}:1: no requests in it")
    first = min(row[0] for _, row in found)
    requests = []
    for rid, (line, (arrival, n_prompt, n_output, shared)) in enumerate(found):
        try:
            requests.append(Request(rid, round(arrival - first, 6), n_prompt, n_output, segments=shared))
        except ValueError as error:
            raise ValueError(f"{path}:{line}: {error}") from None
    return requests


def poisson(
    n: int, rate: float, *, prompt: Lengths = 512, output: Lengths = 128, seed: int = 0
) -> list[Request]:
    """`n` requests at `rate` a second, gaps exponential.

    prompt, output: tokens; a number, (least, most) drawn evenly, or a function (generator, n) -> lengths.
    """
    random = _generator(n, rate, seed)
    return _drawn(random, np.cumsum(random.exponential(1 / rate, n)), prompt, output)


def bursty(
    n: int, rate: float, *, burst: int = 10, prompt: Lengths = 512, output: Lengths = 128, seed: int = 0
) -> list[Request]:
    """As `poisson`, but in bursts of `burst` requests on average (geometric) that come at one moment.

    `rate` is requests a second over the whole, as there.
    """
    random = _generator(n, rate, seed)
    if burst < 1:
        raise ValueError(f"burst must be at least 1 request, got {burst}")
    begins = random.random(n) < 1 / burst  # whether a request opens a new burst
    gaps = np.where(begins, random.exponential(burst / rate, n), 0.0)
    return _drawn(random, np.cumsum(gaps), prompt, output)


def conversation(n: int, rate: float = CONVERSATION_RATE, *, seed: int = 0) -> list[Request]:
    """Poisson arrivals with lengths from the published quantiles of Azure's 2023 conversation trace."""
    return _like(n, rate, CONVERSATION, 0.07, seed)


def code(n: int, rate: float = CODE_RATE, *, seed: int = 0) -> list[Request]:
    """Poisson arrivals with lengths from the published quantiles of Azure's 2023 code trace, drawn apart."""
    return _like(n, rate, CODE, 0.0, seed)


def documents_and_chats(
    *,
    n_documents: int = 1,
    n_chats: int = 8,
    n_late: int = 8,
    document: int = 16_384,
    chat: tuple[int, int] = (50, 200),
    output: int = 200,
    at: float = 1.0,
    window: float = 1.0,
    seed: int = 0,
) -> list[Request]:
    """Chats that decode when documents come, and chats that come behind them.

    "chat0"... arrive at 0 s and answer with `output` tokens; "doc0"... arrive at `at` s with `document`
    prompt tokens each; "late0"... arrive evenly at random within `window` s after. Documents have priority 1,
    chats 0.
    """
    for name, n in (("n_documents", n_documents), ("n_chats", n_chats), ("n_late", n_late)):
        whole_number(name, n, 0)
    random = _generator(n_documents + n_chats + n_late, 1.0, seed)
    prompts = iter(_lengths(random, n_chats + n_late, chat, "chat").tolist())
    late = np.sort(at + window * random.random(n_late))
    return [
        *(Request(f"chat{i}", 0.0, next(prompts), output) for i in range(n_chats)),
        *(Request(f"doc{i}", at, document, output, priority=1) for i in range(n_documents)),
        *(Request(f"late{i}", float(t), next(prompts), output) for i, t in enumerate(late)),
    ]


def _generator(n: int, rate: float, seed: int) -> np.random.Generator:
    whole_number("n", n, 1)
    real_number("rate, in requests/s,", rate, above=True)
    if as_whole(seed) is None:
        raise ValueError(f"seed must be a whole number, got {seed!r}")
    return np.random.default_rng(seed)


def _lengths(random: np.random.Generator, n: int, lengths: Lengths, what: str) -> np.ndarray:
    if callable(lengths):
        return np.asarray(lengths(random, n))
    low, high = lengths if isinstance(lengths, tuple) and len(lengths) == 2 else (lengths, lengths)
    if as_whole(low) is None or as_whole(high) is None:
        two = "one whole number of tokens, or (least, most) as a tuple"
        raise ValueError(f"{what} must be {two}, got {lengths!r}")
    if not 1 <= low <= high:
        raise ValueError(f"{what} must be at least 1 token, least before most, got {lengths!r}")
    return random.integers(low, high, n, endpoint=True)


def _drawn(
    random: np.random.Generator, arrivals: np.ndarray, prompt: Lengths, output: Lengths
) -> list[Request]:
    prompts = _lengths(random, len(arrivals), prompt, "prompt").tolist()
    outputs = _lengths(random, len(arrivals), output, "output").tolist()
    rows = zip(arrivals.tolist(), prompts, outputs)
    return [Request(rid, arrival, p, o) for rid, (arrival, p, o) in enumerate(rows)]


def _like(n: int, rate: float, quantiles: tuple[Sequence[int], ...], rank: float, seed: int) -> list[Request]:
    """Lengths by inverse quantiles of two normal numbers whose ranks correlate (Spearman) by `rank`."""
    random = _generator(n, rate, seed)
    arrivals = np.cumsum(random.exponential(1 / rate, n))
    rho = 2 * np.sin(np.pi * rank / 6)
    first, other = random.standard_normal((2, n))
    normals = first, rho * first + np.sqrt(1 - rho**2) * other
    cdf = np.vectorize(NormalDist().cdf, otypes=[float])
    p, o = (
        np.rint(np.interp(cdf(z), AZURE_QUANTILES, q)).astype(int).tolist()
        for z, q in zip(normals, quantiles)
    )
    return [Request(rid, t, p, o) for rid, (t, p, o) in enumerate(zip(arrivals.tolist(), p, o))]
