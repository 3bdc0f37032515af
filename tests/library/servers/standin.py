"""A server for tests: speaks the OpenAI protocol on loopback, schedules with our own policies, in real time.

Requests join a `State` when they arrive; each step's plan is the policy's, and a step
sleeps for what `cost` says. Faults are planted by name.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.core import Batch, Request
from chunkprefill.scheduling.state import State

HOSTILE = "\x1b[31m\x1b]0;owned\x07<script>alert(1)</script>\u202e"


def linear(base_s: float = 0.006, token_s: float = 0.00006) -> Callable[[Batch], float]:
    """A step of so many seconds, and so many more a token."""
    return lambda batch: base_s + token_s * sum(batch.length)


@dataclass
class StandIn:
    """The server, while its `with` block runs. `door`: "ids", "text" or "chat": what it takes at most."""

    policy: Any
    cost: Callable[[Batch], float] = field(default_factory=linear)
    fault: str = ""
    door: str = "ids"
    extras: bool = True  # takes ignore_eos and continuous_usage_stats
    counts: bool = True  # says usage
    models: tuple[str, ...] | None = ("smol",)
    context: int | None = 8192
    noise: float = 0.0  # share of a step's time, either way
    pause: float = 0.0  # s that one step in fifty lasts longer
    apart: bool = False  # documents are prefilled on another machine
    key: str | None = None
    metrics: str = ""
    seen: list[dict[str, Any]] = field(default_factory=list)

    def __enter__(self) -> StandIn:
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)
        self._thread.start()
        assert self._ready.wait(120)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(120)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _main(self) -> None:
        self._loop, self._over, self._work = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
        self._queues: dict[int, asyncio.Queue[int]] = {}
        self._state, self._n, self._rng = State(BlockPool(None)), 0, random.Random(7)
        self._loading = 2
        server = await asyncio.start_server(self._client, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        engine = asyncio.ensure_future(self._engine())
        self._ready.set()
        await self._over.wait()
        engine.cancel()
        server.close()

    async def _engine(self) -> None:
        now = self._loop.time
        while True:
            while not self._state:
                self._work.clear()
                await self._work.wait()
            begun = now()
            batch = self._state.apply(self._state.ask(self.policy))
            seconds = self.cost(batch) * (1 + self._rng.uniform(-self.noise, self.noise))
            seconds += self.pause * (self._rng.random() < 0.02)
            await asyncio.sleep(max(0.0, begun + seconds - now()))
            self._state.commit(batch)
            for rid, emits in zip(batch.rid, batch.emits):
                if emits and rid in self._queues:
                    self._queues[rid].put_nowait(1)

    def _join(self, n_prompt: int, n_output: int) -> int:
        self._n += 1
        self._queues[self._n] = asyncio.Queue()
        self._state.arrive(Request(self._n, 0.0, n_prompt, n_output))
        self._work.set()
        return self._n

    def _abort(self, rid: int) -> None:
        """The request finishes with its next token."""
        books = self._state._books
        if rid in books.live:
            books.last_known[rid] = books.live[rid].known + 1
            books.next_finish = 0
        self._queues.pop(rid, None)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._answer(reader, writer)
        with suppress(ConnectionError):
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, path, _ = (await reader.readline()).decode().split(" ", 2)
        headers = {}
        while line := (await reader.readline()).decode().strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))) or b"{}")
        if self.key and headers.get("authorization") != f"Bearer {self.key}":
            said = f"bad key {headers.get('authorization', '')} {HOSTILE}"
            return _reply(writer, 401, {"error": {"message": said}})
        if method == "GET":
            return self._get(path, writer)
        self.seen.append(body)
        await self._post(path, body, reader, writer)

    def _get(self, path: str, writer: asyncio.StreamWriter) -> None:
        if path == "/v1/models" and self.models is not None:
            card = {"max_model_len": self.context} if self.context else {}
            _reply(writer, 200, {"data": [{"id": name, **card} for name in self.models]})
        elif path == "/metrics" and self.metrics:
            _reply(writer, 200, self.metrics)
        else:
            _reply(writer, 404, {"error": {"message": "Not Found"}})

    def _refuses(self, path: str, body: dict[str, Any], n_prompt: int) -> tuple[int, str] | None:
        """Status and words for a request that is not taken."""
        if self.fault == "401":
            return 401, f"no key {HOSTILE}"
        if self.fault == "500" or (self.fault == "500-document" and n_prompt > 2000 and self._n > 8):
            return 500, f"broken {HOSTILE}"
        if self.fault == "loading" and self._loading:
            self._loading -= 1
            return 503, "Loading model"
        takes = {"ids": ("/v1/completions",), "text": ("/v1/completions",), "chat": ("/v1/chat/completions",)}
        if path not in takes[self.door]:
            return 404, "Not Found"
        if self.models and body.get("model") not in self.models:
            return 404, f"The model `{body.get('model')}` does not exist."
        if isinstance(body.get("prompt"), list) and self.door != "ids":
            return 400, "prompt must be a string"
        if not self.extras and "ignore_eos" in body:
            return 400, "Unrecognized request argument supplied: ignore_eos"
        if self.context and n_prompt + body["max_tokens"] > self.context:
            return 400, f"This model's maximum context length is {self.context} tokens"
        return None

    async def _post(
        self, path: str, body: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        prompt = body.get("prompt", "") or " ".join(m["content"] for m in body.get("messages", ()))
        n_prompt = len(prompt) if isinstance(prompt, list) else max(1, len(prompt.split()))
        n_output = body.get("max_tokens") or body["max_completion_tokens"]
        if refused := self._refuses(path, body, n_prompt):
            return _reply(writer, refused[0], {"error": {"message": refused[1]}})
        if self.fault == "no-stream":
            return _reply(writer, 200, {"choices": [{"text": "all at once"}]})
        rid = self._join(n_prompt if not (self.apart and n_prompt > 500) else 16, n_output)
        if self.apart and n_prompt > 500:
            await asyncio.sleep(0.0003 * n_prompt)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        gone = asyncio.ensure_future(_end_of(reader))
        held = b""
        chat = path.endswith("chat/completions")
        if chat:
            writer.write(_event({"choices": [{"delta": {"role": "assistant", "content": ""}}]}))
        for i in range(n_output):
            token = asyncio.ensure_future(self._queues[rid].get())
            await asyncio.wait({token, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not token.done():
                token.cancel()
                return self._abort(rid)
            event = self._event(body, chat, n_prompt, i + 1, n_output)
            if self.fault == "buffered":
                held += event
                continue
            writer.write(event)
            if i == {"cut": 5, "cut-document": 1 if n_prompt > 2000 else -1}.get(self.fault):
                return self._abort(rid)
            if self.fault == "hang" and i == 6:
                await self._over.wait()
            await writer.drain()
        writer.write(held + b"data: [DONE]\n\n")
        gone.cancel()
        await writer.drain()

    def _event(self, body: dict[str, Any], chat: bool, n_prompt: int, n: int, n_output: int) -> bytes:
        words = HOSTILE if self.fault == "hostile" else "word "
        finish = "length" if n == n_output else None
        choice = {"delta": {"content": words}} if chat else {"text": words}
        document: dict[str, Any] = {"choices": [{**choice, "finish_reason": finish}]}
        options = body.get("stream_options") or {}
        if self.counts and options.get("continuous_usage_stats"):
            document["usage"] = {"prompt_tokens": n_prompt, "completion_tokens": n}
        out = _event(document)
        if finish and self.counts and options.get("include_usage"):
            out += _event({"choices": [], "usage": {"prompt_tokens": n_prompt, "completion_tokens": n}})
        return out


async def _end_of(reader: asyncio.StreamReader) -> None:
    """Until the client has gone."""
    with suppress(ConnectionError):
        await reader.read(1)


def _event(document: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def _reply(writer: asyncio.StreamWriter, status: int, document: dict[str, Any] | str) -> None:
    kind = "text/plain" if isinstance(document, str) else "application/json"
    text = (document if isinstance(document, str) else json.dumps(document)).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(text)}\r\n"
    writer.write(head.encode() + b"Connection: close\r\n\r\n" + text)
