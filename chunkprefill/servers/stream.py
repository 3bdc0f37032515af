"""An answer as the usual servers send it, in server-sent events, read into a `Stream` of its tokens' times.

What is read is bounded and hostile: nothing of it is printed here, and `Client` cleans each message.
"""

from __future__ import annotations

import json
import re
import zlib
from codecs import BOM_UTF8
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

MOST_LINE = 1 << 18  # bytes of one event
PIECE = 1 << 16  # bytes that one step of inflating may give
SPARE = 8  # tokens above those asked for that are still no error
INFLATED = ("gzip", "x-gzip", "deflate")  # encodings that are undone
_LINE_END = re.compile(rb"\r\n|\n|\r")
#: Fields of a delta that say nothing of a token.
_NO_WORDS = ("role", "id", "name", "type", "index", "refusal")


@dataclass
class Stream:
    """One request as its client saw it. Times in s since the probe began.

    kind: "chat" (early), "document", "late", "stand-in" (a short chat in the document's place) or "warm-up".
    tokens: when each event that carried tokens arrived; counts: how many tokens it carried, as far as the
    server says. n_prompt: tokens of the prompt, as the server counted them if it did.
    """

    name: str
    kind: str
    round: str
    n_prompt: int
    n_output: int  # tokens asked for, at most
    sent: float = 0.0
    tokens: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    reads: int = 0  # pieces in which the network handed the answer over
    ended: float | None = None  # when the server said that it was done
    error: str = ""  # why it ended early; what came before is kept
    ids: list[int] = field(default_factory=list)  # the tokens, where the server was asked for them

    @property
    def ttft(self) -> float | None:
        """Seconds from sending to the first token; None if none came."""
        return self.tokens[0] - self.sent if self.tokens else None

    @property
    def gaps(self) -> list[float]:
        """[events − 1] s."""
        return [b - a for a, b in pairwise(self.tokens)]


class BrokenAnswer(ValueError):
    """An answer that is no stream of events: too long a line, or bytes that cannot be inflated."""


async def pieces(response: Any, raw: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The bytes of a body as they come; gzip and deflate are undone, a bounded piece at a time.

    A server that compresses though it was asked for `identity` would else look as if it sent nothing.
    """
    if response.headers.get("content-encoding", "").strip().lower() not in INFLATED:
        async for piece in raw:
            yield piece
        return
    inflate = zlib.decompressobj(wbits=47)  # finds out by itself whether gzip or zlib
    async for piece in raw:
        while piece:
            try:
                out = inflate.decompress(piece, PIECE)
            except zlib.error:
                raise BrokenAnswer("the answer says that it is compressed, and cannot be inflated") from None
            piece = inflate.unconsumed_tail
            yield out


class Lines:
    """Cuts bytes into lines as they come: by LF, CRLF or CR, which events may all use."""

    def __init__(self) -> None:
        self.rest = b""
        self._after_cr = self._begun = False

    def __call__(self, piece: bytes) -> list[bytes]:
        """The lines that are complete with `piece`."""
        if self._after_cr and piece.startswith(b"\n"):
            piece = piece[1:]
        if not self._begun and len(self.rest + piece) >= len(BOM_UTF8):  # it may stand before the first line
            self._begun, self.rest, piece = True, b"", (self.rest + piece).removeprefix(BOM_UTF8)
        *lines, self.rest = _LINE_END.split(self.rest + piece)
        self._after_cr = piece.endswith(b"\r") if piece else self._after_cr
        if len(self.rest) > MOST_LINE:
            raise BrokenAnswer(f"an event of more than {MOST_LINE:,} bytes")
        return lines


class EventReader:
    """Reads the lines of one answer into `stream`.

    done: whether the server said so; error: its words. counted: tokens of the answer by the server's own
    count, 0 where it says none; n_tokens: those that have come, as far as the server says.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream, self.done, self.error, self.n_events, self.counted = stream, False, "", 0, 0
        self._data, self._name = b"", b""

    @property
    def n_tokens(self) -> int:
        return sum(self.stream.counts)

    def line(self, line: bytes, now: float) -> None:
        """One line, whose last byte was here at `now`. An event's data may be spread over several lines."""
        name, _, value = line.partition(b":")
        value = value.strip()
        if not line:
            if self._data:
                self._end(now, whole=True)
            self._name = b""
        elif name == b"event":
            self._name = value
        elif name == b"error":
            self.n_events += 1
            self.error = message(json_of(value)) or value.decode("utf-8", "replace")
        elif name == b"data":
            self._data += b"\n" * bool(self._data) + value
            if len(self._data) > MOST_LINE:
                raise BrokenAnswer(f"an event of more than {MOST_LINE:,} bytes")
            self._end(now, whole=False)

    def close(self, now: float) -> None:
        """The body has ended."""
        if self._data:
            self._end(now, whole=True)

    def _end(self, now: float, whole: bool) -> None:
        """Take the event in, as soon as its data is complete: the blank line may come later."""
        data = self._data
        if data == b"[DONE]":
            self.done, self._data = True, b""
            return
        document = json_of(data)
        if document is None and not whole:
            return
        self._data = b""
        self.n_events += 1
        if not isinstance(document, dict):
            self.error = f"an event that is no JSON object: {data.decode('utf-8', 'replace')}"
        elif document.get("error") or document.get("object") == "error" or self._name == b"error":
            self.error = message(document) or "an error without a message"
        else:
            self._take(document, now)

    def _take(self, document: dict[str, Any], now: float) -> None:
        stream = self.stream
        words, n_words, finished = _words(document)
        total = self._usage(document.get("usage"))
        self.done |= finished
        if (ids := _ids(document)) and len(stream.ids) + len(ids) <= stream.n_output:
            stream.ids += ids
        fresh = total - self.n_tokens if total else 0
        if total and total > stream.n_output + SPARE:
            self.error = f"{total:,} tokens by the server's count, and {stream.n_output:,} were asked for"
        elif words or (fresh > 0 and not finished and words is not None):
            stream.tokens.append(now)
            stream.counts.append(max(fresh, 1) if total else n_words)
        elif fresh > 0 and stream.tokens:  # the count of the whole answer, at its end
            each, more = divmod(total or 0, len(stream.counts))
            stream.counts[:] = [each + (i < more) for i in range(len(stream.counts))]
        if len(stream.tokens) > stream.n_output + SPARE:
            self.error = f"more than the {stream.n_output} tokens asked for"

    def _usage(self, usage: Any) -> int | None:
        """The server's count of tokens so far; None where it says none (or 0, which many mean by none)."""
        if not isinstance(usage, dict):
            return None
        self.stream.n_prompt = count(usage.get("prompt_tokens")) or self.stream.n_prompt
        total = count(usage.get("completion_tokens")) or None
        self.counted = max(self.counted, total or 0)
        return total


def _choice(document: dict[str, Any]) -> dict[str, Any]:
    choices = document.get("choices")
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}


def _words(document: dict[str, Any]) -> tuple[bool | None, int, bool]:
    """Whether an event brings words (None: it is no event of the answer), at least how many, and the end.

    An event without words may be a heartbeat, a role or a token that shows nothing: the server's count tells.
    """
    choice = _choice(document)
    delta = choice.get("delta")
    said = [choice.get("text")] + [
        value for name, value in (delta.items() if isinstance(delta, dict) else ()) if name not in _NO_WORDS
    ]
    there = [value for value in said if isinstance(value, str | list) and value]
    n_words = max((len(value.split()) for value in there if isinstance(value, str)), default=1)
    return bool(there) if choice else None, max(1, n_words), bool(choice.get("finish_reason"))


def _ids(document: dict[str, Any]) -> list[int]:
    ids = _choice(document).get("token_ids")
    return [i for i in map(count, ids) if i is not None] if isinstance(ids, list) else []


def count(value: Any) -> int | None:
    """A whole number that may count something; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31 else None


def json_of(text: str | bytes) -> Any:
    """The document, or None where there is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def message(document: Any) -> str:
    """The words of an error as the usual servers send it; "" if there are none."""
    return next(_messages(document), "")


def _messages(document: Any, depth: int = 0) -> Iterator[str]:
    """Of `{"error": {"message": …}}`, `{"detail": [{"msg": …, "loc": …}]}` and what lies between."""
    if isinstance(document, str):
        yield document
    elif isinstance(document, dict) and depth < 4:
        for name in ("error", "message", "detail", "msg"):
            for said in _messages(document.get(name), depth + 1):
                where = document.get("loc")
                yield f"{said} ({'.'.join(map(str, where))})" if isinstance(where, list) else said
    elif isinstance(document, list) and depth < 4:
        for row in document[:3]:
            yield from _messages(row, depth + 1)
