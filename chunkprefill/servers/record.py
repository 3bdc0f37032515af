"""The record of a probe: every request as its client saw it, saved as JSON and read back with care."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

from chunkprefill.measure import measured
from chunkprefill.plots.style import Picture, Table
from chunkprefill.servers.client import clean
from chunkprefill.servers.judge import Verdict, judge, usual_gap
from chunkprefill.servers.pictures import seen_picture
from chunkprefill.servers.stream import Stream
from chunkprefill.strict import loads
from chunkprefill.whole import real_number, whole_number

FORMAT, VERSION = "chunkprefill-probe", 1
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem}"
    "h1{overflow-wrap:anywhere}td,th{padding:.2rem .6rem;text-align:start}"
    "@media(prefers-color-scheme:dark){body{background:#121212;color:#eee}}"
)
MOST_FILE = 1 << 26  # bytes
KINDS = ("chat", "document", "late", "stand-in", "warm-up", "alone")  # of requests, see `Stream`
COMPARISON = "without"  # the name of the round without a document


@dataclass(frozen=True)
class ProbeRecord:
    """One probe of one server. `print(probe)` says the verdict, its evidence and the table.

    server, model, engine: what was probed, in words that are safe to print; engine "" where it is not known
    door:     how its requests were sent
    streams:  every request of every round, with the time of every token (s since the probe began)
    alone:    (tokens of a document, s until its first token), with nothing else running
    metrics:  {"before": {row: number}, "after": {...}} from /metrics, {} where there is none
    notes:    what did not go as planned
    """

    server: str
    model: str
    engine: str = ""
    door: str = ""
    streams: tuple[Stream, ...] = ()
    alone: tuple[tuple[int, float], ...] = ()
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    date: str = ""

    @property
    def rounds(self) -> tuple[str, ...]:
        """The rounds with a document."""
        return tuple(dict.fromkeys(s.round for s in self.streams if s.kind == "document"))

    def of(self, round: str, kind: str) -> list[Stream]:
        """The requests of a kind in a round."""
        return [s for s in self.streams if s.round == round and s.kind == kind]

    @cached_property
    def verdict(self) -> Verdict:
        """How this server schedules, as far as its clients can tell."""
        return judge(self)

    def table(self) -> Table:
        """Longest gap of the early chats, first tokens of the document and of the late chats, by round."""
        usual, rows = usual_gap(self), []
        for name in (COMPARISON, *self.rounds):
            longest = max((gap for s in self.of(name, "chat") for gap in s.gaps), default=None)
            times = f"{longest / usual:.3g}×" if usual and longest is not None else "–"
            row = [name, _said(longest), times]
            for kind in ("document", "late"):
                firsts = (s.ttft for s in self.of(name, kind) if s.ttft is not None)
                row.append(_said(max(firsts, default=None)))
            rows.append(row)
        header = ["document", "chats' longest gap", "of the usual gap", "document's first token"]
        header.append("late chats' first token, the latest")
        usual_words = f"; the usual gap is {measured(usual)}" if usual else ""
        return Table(header=header, rows=rows, caption=f"{self.model} at {self.server}{usual_words}")

    def picture(self, caption: str = "") -> Picture:
        """The last round, to scale: a row a request, a tick a token, the longest gap marked."""
        source = f"{self.engine or 'a server'}, {self.date}"
        return seen_picture(self, verdict=self.verdict.name, source=source, caption=caption)

    def page(self) -> str:
        """All of it as an HTML page that stands alone: no script, nothing of the server's unescaped."""
        title = escape(f"Probe of {self.server}")
        return (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f"<style>{STYLE}</style></head><body><h1>{title}</h1>{self._repr_html_()}</body></html>\n"
        )

    def __str__(self) -> str:
        parts = [self.verdict, self.table()]
        if self.metrics:
            parts.append(self._metrics_table())
        return "\n\n".join([*map(str, parts), *(f"note: {note}" for note in self.notes)])

    __repr__ = __str__

    def _metrics_table(self) -> Table:
        before, after = self.metrics.get("before", {}), self.metrics.get("after", {})
        rows = [(name, _number(before.get(name)), _number(after.get(name))) for name in {**before, **after}]
        return Table(header=("/metrics", "before", "after"), rows=rows)

    def _repr_html_(self) -> str:
        drawn = self.picture()._repr_html_() if self.rounds else ""
        return f"{self.verdict._repr_html_()}{drawn}{self.table()._repr_html_()}"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write JSON with a schema version. It holds no key and no text that a server sent as an answer."""
        text = json.dumps(self.document(), separators=(",", ":"), allow_nan=False)
        Path(path).write_text(text + "\n", encoding="utf-8")

    def document(self) -> dict[str, Any]:
        """The object that `save` writes."""
        document: dict[str, Any] = {"format": FORMAT, "version": VERSION, **asdict(self)}
        for stream in document["streams"]:
            del stream["ids"]  # answers are not kept
        return document

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ProbeRecord:
        """Read what `save` wrote. ValueError naming the file and what is wrong with it."""
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read(MOST_FILE + 1)
            if len(text) > MOST_FILE:
                raise ValueError(f"more than {MOST_FILE:,} characters")
            return cls.of_document(loads(text))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"{path}: not a probe, or a broken one: {clean(error)}") from None

    @classmethod
    def of_document(cls, document: Any) -> ProbeRecord:
        """From the object that `save` writes. ValueError for what a probe cannot have left."""
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT!r}")
        if document.get("version") != VERSION:
            raise ValueError(f"version {document.get('version')!r}, this reads {VERSION}")
        return cls(
            server=_text(document["server"]),
            model=_text(document["model"]),
            engine=_text(document["engine"]),
            door=_text(document["door"]),
            streams=tuple(map(_stream, document["streams"])),
            alone=tuple((_whole(n), _seconds(s)) for n, s in document["alone"]),
            metrics={
                clean(when): {clean(name): real_number("a reading", value) for name, value in rows.items()}
                for when, rows in document["metrics"].items()
            },
            notes=tuple(map(clean, document["notes"])),
            date=_text(document["date"]),
        )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{clean(value)} is no text")
    return clean(value)


def _stream(row: Any) -> Stream:
    if row["kind"] not in KINDS:  # it would be counted nowhere
        raise ValueError(
            f"stream {clean(row['name'])}: kind {clean(row['kind'])}; there are {', '.join(KINDS)}"
        )
    tokens = [_seconds(t) for t in row["tokens"]]
    counts = [_whole(n) for n in row["counts"]]
    if tokens != sorted(tokens) or len(counts) != len(tokens):
        raise ValueError(f"stream {clean(row['name'])}: tokens go backwards, or lack counts")
    sent = _seconds(row["sent"])
    if tokens and tokens[0] < sent:
        raise ValueError(f"stream {clean(row['name'])}: a token before it was sent")
    return Stream(
        name=_text(row["name"]),
        kind=row["kind"],
        round=_text(row["round"]),
        n_prompt=_whole(row["n_prompt"]),
        n_output=_whole(row["n_output"]),
        sent=sent,
        tokens=tokens,
        counts=counts,
        reads=_whole(row["reads"]),
        ended=None if row["ended"] is None else _seconds(row["ended"]),
        error=_text(row["error"]),
    )


def _whole(value: Any) -> int:
    return whole_number("a count", value, 0, 1 << 40)


def _seconds(value: Any) -> float:
    return real_number("a time in s", value, below=1e9)


def _said(seconds: float | None) -> str:
    return "–" if seconds is None else measured(seconds)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.4g}"
