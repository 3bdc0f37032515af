"""Talk to an OpenAI-compatible server: streams with the time of every token, and errors by name.

What a server says is hostile text until it has been through `clean`: it may hold terminal escapes, HTML or
the key it was sent. Bytes, lines and times are bounded; redirects are not followed.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import ipaddress
import os
import ssl
import unicodedata
from collections.abc import AsyncIterator, Coroutine, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from chunkprefill.servers.stream import BrokenAnswer, EventReader, Lines, Stream, json_of, message, pieces
from chunkprefill.strict import words

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
MOST_STREAM = 1 << 25  # bytes of one answer
MOST_PAGE = 1 << 22  # bytes of a page such as /metrics
MOST_ERROR = 1 << 14  # bytes of an error's text
CONNECT_S = 10.0
#: Words by which servers refuse a prompt for its length.
TOO_LONG = (
    "context length",
    "context size",
    "context window",
    "too long",
    "too large",
    "max_model_len",
    "maximum input length",
    "must have less than",
)
LISTEN_S = 0.2  # between two looks for Ctrl-C


#: What can go wrong, by name.
FAILURES = words(
    """
    url nothing-listens tls unauthorized no-model no-streaming redirect refused server-error busy closed
    timeout not-openai too-long
    """
)


class ProbeError(RuntimeError):
    """Why a server could not be probed. kind: of `FAILURES`; retry_s: how long it asks to wait."""

    def __init__(self, kind: str, message: str, retry_s: float | None = None) -> None:
        super().__init__(message)
        self.kind, self.retry_s = kind, retry_s


def clean(text: object, most: int = 200, secret: str | None = None) -> str:
    """A server's text, safe to print on a terminal: one line, no control or format characters, no secret."""
    words = str(text)
    if secret:
        words = words.replace(secret, "[key]")  # before it is cut, which would leave half of a key
    words = words[: 20 * most]
    visible = "".join(" " if c.isspace() else c if unicodedata.category(c)[0] != "C" else "?" for c in words)
    line = " ".join(visible.split())
    return line if len(line) <= most else line[: most - 1] + "…"


@dataclass(frozen=True)
class Address:
    """Where a server is: `base` ends in /v1 or in what stands before it; `shown` is safe to print."""

    base: str
    loopback: bool

    @classmethod
    def of(cls, url: str) -> Address:
        """Read what a person types, with or without http:// and /v1. ProbeError where it is no such URL."""
        if not isinstance(url, str):
            raise ValueError(f"url is {url!r}: a text is needed, such as 'http://localhost:8000'")
        text = url.strip()
        if "://" not in text:
            text = "http://" + text
        try:
            parts = urlsplit(text)
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            raise ProbeError("url", f"{clean(url)} is no URL: {clean(error)}") from None
        if parts.scheme not in ("http", "https") or not host:
            raise ProbeError("url", "the URL must begin with http:// or https:// and name a host")
        if parts.username or parts.password:
            raise ProbeError("url", "the URL holds a user or a password; give a key by --key-env instead")
        if parts.query or parts.fragment:
            raise ProbeError("url", "the URL must not hold a query or a fragment: http://HOST:PORT is enough")
        path = parts.path.rstrip("/")
        for tail in ("/chat/completions", "/completions", "/models"):
            path = path.removesuffix(tail)
        path = path.removesuffix("/v1")
        return cls(f"{parts.scheme}://{parts.netloc}{path}", _is_loopback(host))

    @property
    def shown(self) -> str:
        return clean(self.base)

    def page(self, path: str) -> str:
        """The URL of a page such as `/v1/models`."""
        return self.base + path


def _library() -> Any:
    """httpx, or its successor httpx2, which has the same names. ProbeError where there is neither."""
    for name in ("httpx", "httpx2"):
        if importlib.util.find_spec(name):
            return importlib.import_module(name)
    raise ProbeError("url", "probing takes the package httpx: pip install httpx")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Door:
    """How this server takes requests: found out by trying, the richest way first."""

    path: str  # "/v1/completions" or "/v1/chat/completions"
    ids: bool  # prompts as token ids, else as text
    extras: bool  # `ignore_eos` and token counts with every event
    usage: bool = True  # token counts at the end
    limit: str = "max_tokens"  # how the answer's length is called
    cold: bool = True  # `temperature` may be set

    def body(self, model: str, prompt: list[int] | str, n_output: int) -> dict[str, Any]:
        """The JSON of a request."""
        body: dict[str, Any] = {"model": model, self.limit: n_output, "stream": True}
        if self.cold:
            body["temperature"] = 0.0
        if self.path.endswith("chat/completions"):
            body["messages"] = [{"role": "user", "content": prompt}]
        else:
            body["prompt"] = prompt
        if self.usage or self.extras:
            body["stream_options"] = {"include_usage": True}
        if self.extras:
            body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
            body |= {"ignore_eos": True, "min_tokens": n_output}
        return body

    def __str__(self) -> str:
        how = "token ids" if self.ids else "text"
        return f"POST {self.path}, prompts as {how}{', ignore_eos' if self.extras else ''}"


COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
DOORS = (
    Door(COMPLETIONS, ids=True, extras=True),
    Door(COMPLETIONS, ids=True, extras=False),
    Door(COMPLETIONS, ids=False, extras=True),
    Door(COMPLETIONS, ids=False, extras=False),
    Door(COMPLETIONS, ids=False, extras=False, usage=False),
    Door(CHAT, ids=False, extras=True),
    Door(CHAT, ids=False, extras=False),
    Door(CHAT, ids=False, extras=False, usage=False),
    Door(CHAT, ids=False, extras=False, limit="max_completion_tokens"),
    Door(CHAT, ids=False, extras=False, limit="max_completion_tokens", cold=False),
)


class Client:
    """A connection to one server. Use as `async with`; times are seconds since it was made."""

    def __init__(self, address: Address, *, key: str | None = None, read_s: float = 120.0) -> None:
        httpx = _library()
        self.address, self._key, self._httpx = address, key, httpx
        headers = {"Accept-Encoding": "identity", "User-Agent": "chunkprefill-probe"}
        if key:
            if not key.isascii() or not key.isprintable():
                raise ProbeError("unauthorized", "the key holds characters that no HTTP header may hold")
            headers["Authorization"] = f"Bearer {key}"
        self._client: Any = httpx.AsyncClient(
            headers=headers,
            verify=_trusted(),
            follow_redirects=False,  # a redirect would carry the key elsewhere
            trust_env=not address.loopback,  # no proxy between this machine and itself
            timeout=httpx.Timeout(read_s, connect=CONNECT_S),
            limits=httpx.Limits(max_connections=64, max_keepalive_connections=0),
        )
        #: What the library raises for an answer that does not come as it should; `_named` says which it is.
        self._failures = (httpx.HTTPError, httpx.InvalidURL, UnicodeError, BrokenAnswer)
        self.zero = perf_counter()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    def now(self) -> float:
        """s since the probe began."""
        return perf_counter() - self.zero

    def clean(self, text: object, most: int = 200) -> str:
        """`clean`, with the key taken out."""
        return clean(text, most, self._key)

    async def get(self, path: str) -> tuple[int, str, Mapping[str, str]]:
        """Status, text (at most MOST_PAGE bytes of it) and headers of a page. ProbeError where nothing answers."""
        try:
            async with self._client.stream("GET", self.address.page(path)) as response:
                return response.status_code, await _text(response, MOST_PAGE), response.headers
        except self._failures as error:
            raise self._named(error) from None

    async def listed(self) -> dict[str, dict[str, Any]]:
        """The models' cards by their names; none where the server has no such page.

        ProbeError, by name, for an answer that is no list of models: 401, 503, a redirect, a web page.
        """
        status, text, headers = await self.get("/v1/models")
        if status in (404, 405, 501):
            return {}
        if status != 200:
            raise self._status(status, text, headers)
        document = json_of(text)
        rows = document.get("data") if isinstance(document, dict) else None
        if not isinstance(rows, list):
            what = "a web page" if text.lstrip().startswith("<") else self.clean(text, 80) or "nothing"
            raise self._error("not-openai", f"answers /v1/models with no list of models but {what}")
        cards: dict[str, Any] = {}
        for row in rows:
            if isinstance(row, dict) and isinstance(row.get("id"), str):
                cards.setdefault(row["id"], row)  # a gateway that shares out its load may list a model twice
        return cards

    async def stream(self, stream: Stream, url_path: str, body: Mapping[str, Any]) -> None:
        """Send a request, and note in `stream` when its tokens come.

        ProbeError before the first token where the server refuses, answers without streaming, or does not
        answer. Once tokens have come, a server that closes midway or says an error is noted in
        `stream.error`, and what came is kept.
        """
        stream.sent = self.now()
        try:
            async with self._client.stream("POST", self.address.page(url_path), json=body) as response:
                if response.status_code != 200:
                    text = await _text(response, MOST_ERROR)
                    raise self._status(response.status_code, text, response.headers)
                await self._events(stream, response)
        except self._failures as error:
            named = self._named(error)
            if not stream.tokens:
                raise named from None
            stream.error = str(named)
        if not stream.tokens and stream.error:
            raise ProbeError("server-error", f"the server says: {stream.error}")

    async def _events(self, stream: Stream, response: httpx.Response) -> None:
        """Server-sent events, each with the time at which its bytes were here."""
        events, lines, n_bytes, begun = EventReader(stream), Lines(), 0, False
        body = pieces(response, response.aiter_raw())
        async for piece in body:
            now = self.now()
            stream.reads += 1
            n_bytes += len(piece)
            if n_bytes > MOST_STREAM:
                stream.error = f"more than {MOST_STREAM:,} bytes came for {stream.n_output} tokens"
                return
            if not begun and (opening := (lines.rest + piece).lstrip()):
                begun = True
                if opening[:1] in b"{[<":  # whatever its content type says, these are no events
                    raise self._unstreamed(await _rest(opening, body, MOST_ERROR))
            for line in lines(piece):
                events.line(line, now)
                if events.error:
                    stream.error = self.clean(events.error)
                    return
        for line in lines(b"\n"):
            events.line(line, self.now())
        events.close(self.now())
        self._ended(stream, events, response)

    def _ended(self, stream: Stream, events: EventReader, response: httpx.Response) -> None:
        """What the end of the body means. ProbeError where no token came."""
        if events.error:
            stream.error = self.clean(events.error)
        elif stream.tokens and (events.done or events.n_tokens >= stream.n_output):
            stream.ended = self.now()
        elif stream.tokens:
            n = events.n_tokens
            stream.error = f"the server closed the stream after {n} of {stream.n_output} tokens"
        elif events.counted:
            said = f"the server counts {events.counted:,} tokens of an answer, and none of them was streamed"
            raise ProbeError("no-streaming", said)
        elif events.done:
            raise ProbeError("not-openai", "the answer ended without a token")
        elif events.n_events or not (how := response.headers.get("content-encoding", "")):
            raise ProbeError("closed", "the server closed the stream before any token came")
        else:
            raise ProbeError("not-openai", f"the answer is encoded ({self.clean(how, 40)}), unasked")

    def _error(self, kind: str, said: str, retry_s: float | None = None) -> ProbeError:
        """A failure in a sentence that begins with the server's address."""
        return ProbeError(kind, f"{self.address.shown} {said}", retry_s)

    def _unstreamed(self, text: str) -> ProbeError:
        """What a body is that holds no events."""
        if text.startswith("<"):
            said = "answers with a web page, as a login or a gateway does, and not with a stream"
            return self._error("not-openai", said)
        lines = [json_of(line) for line in text.split("\n")[:2]]
        if len(lines) > 1 and all(isinstance(line, dict) for line in lines):
            said = "streams lines of JSON, a protocol of its own, and not OpenAI's events"
            return self._error("not-openai", said)
        document = json_of(text)
        if isinstance(document, dict) and "error" in document:
            return ProbeError("server-error", f"the server says: {self.clean(message(document))}")
        return ProbeError(
            "no-streaming",
            "the server answers all at once though `stream` is true: without the time of each token there is "
            "nothing to probe. Is a proxy in between, or streaming switched off?",
        )

    def _status(self, status: int, text: str, headers: Mapping[str, str]) -> ProbeError:
        said = self.clean(message(json_of(text)) or text, 300)
        words = f"; it says: {said}" if said else ""
        if status in (401, 403):
            hint = "the key was refused" if self._key else "it wants a key: --key-env NAME"
            return self._error("unauthorized", f"answers {status}, {hint}{words}")
        if 300 <= status < 400:
            there = self.clean(headers.get("location", "elsewhere"), 120)
            said = f"answers {status}, a redirect to {there}, which is not followed: give the address that it leads to"
            return self._error("redirect", said)
        if status == 404 and "model" in said.lower():
            return self._error("no-model", f"answers 404{words}")
        if status in (429, 503):
            retry_s = _retry_s(headers.get("retry-after", ""))
            return self._error("busy", f"answers {status}: busy, or still loading{words}", retry_s)
        if status >= 500:
            return self._error("server-error", f"answers {status}{words}")
        long = status == 413 or any(word in said.lower() for word in TOO_LONG)
        return self._error("too-long" if long else "refused", f"answers {status}{words}")

    def _named(self, error: Exception) -> ProbeError:
        """What the library's exception means."""
        h, where, said = self._httpx, self.address.shown, self.clean(error, 80)
        if isinstance(error, h.InvalidURL | UnicodeError):
            return self._error("url", f"is no URL: {self.clean(error, 120)}")
        if isinstance(error, h.ConnectTimeout):
            return self._error("nothing-listens", f"did not answer within {CONNECT_S:g} s")
        if isinstance(error, BrokenAnswer):
            return ProbeError("not-openai", f"{where}: {error}")
        if isinstance(error, h.ConnectError) and "CERTIFICATE_VERIFY" in said.upper():
            hint = "name the file of its authority in the environment variable SSL_CERT_FILE"
            return self._error("tls", f"shows a certificate that is not trusted ({said}): {hint}")
        if isinstance(error, h.ConnectError) and "SSL" in said.upper():
            return self._error("tls", f"does not speak TLS ({said}): is it http://?")
        if isinstance(error, h.ConnectError):
            return ProbeError("nothing-listens", f"nothing listens at {where} ({said})")
        if isinstance(error, h.TimeoutException):
            return self._error("timeout", f"sent nothing for a long time ({type(error).__name__})")
        if isinstance(error, h.RemoteProtocolError | h.ReadError):
            mute = not str(error) or "without sending" in str(error) or "illegal status" in str(error)
            hint = "; does it speak TLS, https://?" if mute and where.startswith("http:") else ""
            return self._error("closed", f"closed the connection midway ({said}){hint}")
        return ProbeError("not-openai", f"{where}: {type(error).__name__}: {self.clean(error, 120)}")


def _trusted() -> Any:
    """What httpx should trust: the file that SSL_CERT_FILE names, for this machine's own servers too."""
    name = os.environ.get("SSL_CERT_FILE")
    try:
        return ssl.create_default_context(cafile=name) if name else True
    except OSError as error:
        raise ProbeError("tls", f"SSL_CERT_FILE {clean(name)}: {clean(error)}") from None


def _retry_s(said: str) -> float | None:
    """Seconds that a `Retry-After` asks for: a number of them, or a date; None where it says neither."""
    try:
        if said.strip().isdigit():
            return float(said)
        when = parsedate_to_datetime(said)
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        return max(0.0, (when - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


async def _text(response: httpx.Response, most: int) -> str:
    """The body's beginning."""
    return await _rest(b"", pieces(response, response.aiter_raw()), most)


async def _rest(got: bytes, body: AsyncIterator[bytes], most: int) -> str:
    """What has come and what comes, up to `most` bytes."""
    async for piece in body:
        got += piece
        if len(got) > most:
            break
    return got[:most].decode("utf-8", "replace")


def in_thread(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` in a thread of its own and return its result: a notebook has a running loop already.

    Ctrl-C cancels the work, which closes its connections, and raises KeyboardInterrupt.
    """
    ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = Future()

    async def run() -> T:
        task = asyncio.ensure_future(work)
        ready.set_result((asyncio.get_running_loop(), task))
        return await task

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(asyncio.run, run())
        try:
            while not wait([done], LISTEN_S).done:  # some systems deliver Ctrl-C only between two waits
                pass
            return done.result()
        except KeyboardInterrupt:
            loop, task = ready.result()
            with suppress(RuntimeError):  # it has ended meanwhile
                loop.call_soon_threadsafe(task.cancel)
            raise
