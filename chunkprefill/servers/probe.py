"""Probe a real server: chats decode, a document arrives, more chats follow. Which of them wait shows how it schedules.

`probe` sends a small, bounded workload to any OpenAI-compatible server, once without the document and then
with it, and keeps the time of every token. `judge` makes a verdict of the times.
"""

from __future__ import annotations

import asyncio
import datetime
import math
import os
import random
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any, TypeVar

from chunkprefill.measure import measured
from chunkprefill.servers import prometheus
from chunkprefill.servers.client import DOORS, Address, Client, Door, ProbeError, clean, in_thread
from chunkprefill.servers.judge import in_bursts
from chunkprefill.servers.record import COMPARISON, ProbeRecord
from chunkprefill.servers.stream import Stream, count
from chunkprefill.whole import check_fields, whole_number

T = TypeVar("T")
Say = Callable[[str], None]
#: Failures of a way in, after which the next is tried.
PASSED_OVER = ("refused", "too-long", "no-model", "server-error", "no-streaming", "not-openai")
FIRST_TRY = 1024  # tokens of the first document that is sent alone
USUAL_DOCUMENT, LONGEST_DOCUMENT = 4096, 16_384  # tokens, unless the model's context is shorter
LEAST_S = 0.5  # a document's prefilling that can be timed
LEAST_GAPS = 24  # usual gaps that it should last
LEAD, TAIL = 12, 6  # tokens of each early chat before the document comes, and after it is through
LATE_TOKENS, STAND_IN_TOKENS = 4, 32
LATE_AT = (0.15, 0.35, 0.25, 0.45, 0.55)  # of the document's prefilling, when the late chats come
POLL_S = 0.004
METRICS_S = 5.0  # that the metrics may take when the probe is over
PAUSE_S = 1.0  # between two tries of a server that is busy
PATIENCE_S = 60.0  # that a server which still loads its model is waited for
NO_TALK = ("embed", "rerank", "whisper", "tts")  # in names of models that write no text
TEXT = """
time year people way day man thing woman life child world school state family student group country
problem hand part place case week company system program question work number night point home water
room mother area money story fact month lot right study book eye job word business issue side kind head
"""
WORDS = tuple(TEXT.split())  # common ones: about a token each


@dataclass(frozen=True)
class ProbePlan:
    """What a probe may send. Raises ValueError for a number out of range.

    chats, late: early chats that decode, and late ones that follow the document
    prompt:      tokens of a chat's prompt
    document:    tokens of the document; None: by the model's context, until its prefilling can be timed
    answer:      tokens of an early chat's answer, at most
    rounds:      rounds with a document
    seconds:     for the whole probe
    seed:        of the prompts; None: drawn afresh, so that no prefix cache has seen them
    """

    chats: int = 3
    late: int = 2
    prompt: int = 32
    document: int | None = None
    answer: int = 768
    rounds: int = 2
    seconds: float = 180.0
    seed: int | None = None

    def __post_init__(self) -> None:
        ranges = {"chats": (1, 16), "late": (1, len(LATE_AT)), "prompt": (4, 1024), "rounds": (1, 8)}
        ranges["answer"] = (32, 4096)
        if self.document is not None:
            ranges["document"] = (64, 1_000_000)
        for name, (least, most) in ranges.items():
            check_fields(self, whole_number, (name,), least=least, most=most)
        if not 1 <= self.seconds <= 3600:
            raise ValueError(f"seconds must be from 1 to 3,600, got {self.seconds!r}")

    @property
    def most_prompt_tokens(self) -> int:
        """Prompt tokens that are sent at most."""
        longest = self.document or LONGEST_DOCUMENT
        alone = longest if self.document else FIRST_TRY + 2 * longest
        chats = (self.rounds + 1) * (self.chats + self.late) + 1
        return 4 * self.prompt + alone + self.rounds * longest + chats * self.prompt

    @property
    def most_answer_tokens(self) -> int:
        """Answer tokens that are asked for at most."""
        chats = (self.rounds + 1) * (self.chats * self.answer + self.late * STAND_IN_TOKENS)
        return chats + 200 + 8 * (self.rounds + 4)

    def text(self, where: str, model: str | None) -> str:
        """What would be sent, in words."""
        longest = f"{self.document:,}" if self.document else f"up to {LONGEST_DOCUMENT:,}"
        each = f"{self.chats} chats of {self.prompt} prompt tokens"
        return "\n".join(
            [
                f"to {where}, model {clean(model) if model else '(the first that it lists and that writes text)'}:",
                "  GET /v1/models, /version, /metrics",
                f"  warm-up: 2 or 3 chats of {self.prompt} prompt tokens",
                f"  alone: a document of {longest} tokens (random words; shorter ones first)",
                f"  without a document: {each} decode; a short chat and {self.late} late chats follow",
                f"  with the document, {self.rounds} times: {each} decode; the document arrives, and "
                f"{self.late} late chats follow",
                f"  at most {self.most_prompt_tokens:,} prompt and {self.most_answer_tokens:,} answer "
                f"tokens and {self.seconds:g} s; answers are not kept, chats are stopped when the round is over",
            ]
        )


@dataclass
class _Run:
    """A probe under way."""

    client: Client
    plan: ProbePlan
    model: str
    say: Say
    rng: random.Random
    door: Door = DOORS[0]
    context: int | None = None  # tokens of the model, where the server says
    streams: list[Stream] = field(default_factory=list)
    alone: list[tuple[int, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    waits_for: str = ""  # what is under way

    def prompt(self, n: int, *, chat: bool = False) -> list[int] | str:
        """`n` tokens that no prefix cache has seen: ids that every vocabulary has, or common words."""
        if self.door.ids:
            return [self.rng.randrange(100, 1000) for _ in range(n)]
        words = " ".join(self.rng.choice(WORDS) for _ in range(max(4, n - 12 * chat)))
        ask = "Continue this list of words, and do not stop for a long time: " if chat else ""
        return ask + words

    async def patient(self, stream: Stream) -> None:
        """`send`, repeated while the server is busy or loads its model, for as long as the probe may last."""
        await patient(lambda: self.send(stream), self.client, self.plan, self.say)

    async def send(self, stream: Stream) -> None:
        """One request; a failure after its first token stays in the stream."""
        prompt = self.prompt(stream.n_prompt, chat=stream.kind != "document")
        body = self.door.body(self.model, prompt, stream.n_output)
        await self.client.stream(stream, self.door.path, body)

    def start(self, stream: Stream) -> asyncio.Task[None]:
        """`send` in a task of its own; a failure is noted in the stream, whenever it comes."""

        async def sent() -> None:
            try:
                await self.send(stream)
            except ProbeError as error:
                stream.error = str(error)

        self.streams.append(stream)
        return asyncio.ensure_future(sent())


def probe(
    url: str,
    model: str | None = None,
    plan: ProbePlan | None = None,
    *,
    key: str | None = None,
    say: Say | None = None,
) -> ProbeRecord:
    """Probe the server at `url` and return what its clients saw, with a verdict.

    url:   of an OpenAI-compatible server, such as `http://127.0.0.1:8000`
    model: the name that requests give; None: the first that the server lists
    plan:  what may be sent: see `ProbePlan`. It is always said (to `say`) before anything is sent
    key:   sent as a bearer token, never printed or stored
    say:   takes each line of progress; None: standard error

    Raises ProbeError, by name, where nothing can be probed: nothing listens, a key is needed, the model is
    not there (the message lists those that are), no streaming, a key that would travel unencrypted. A server
    that fails midway makes the verdict `unknown`, and what came is kept.
    """
    plan = plan or ProbePlan()
    address, say = Address.of(url), say or partial(print, file=sys.stderr, flush=True)
    refuse_open_key(address, key)
    say(plan.text(address.shown, model))
    return in_thread(_probe(address, model, plan, key, say))


async def patient(ask: Callable[[], Coroutine[Any, Any, T]], client: Client, plan: ProbePlan, say: Say) -> T:
    """The answer to `ask`. A server that is busy is asked again: when it says, or after a while.

    Raises the server's ProbeError once waiting would last longer than `PATIENCE_S`, or than the probe may.
    """
    waited = 0.0
    while True:
        try:
            return await ask()
        except ProbeError as error:
            if error.kind != "busy":
                raise
            pause = max(PAUSE_S, error.retry_s or 0.0)
            waited += pause
            if waited > PATIENCE_S or client.now() + pause > plan.seconds:
                after = f"; it asks to be left alone for {error.retry_s:,.0f} s" if error.retry_s else ""
                raise ProbeError("busy", f"{error}{after}", error.retry_s) from None
            say(f"{error}; waiting {pause:.3g} s")
            await asyncio.sleep(pause)


async def _listed(client: Client, plan: ProbePlan, asked: str | None, say: Say) -> dict[str, dict[str, Any]]:
    """The models' cards; a page of them that is broken is no hindrance where the model's name was given."""
    try:
        return await patient(client.listed, client, plan, say)
    except ProbeError as error:
        if asked is None or error.kind not in ("not-openai", "redirect", "refused", "server-error"):
            raise
        say(f"{error}; {clean(asked)} is asked for all the same")
        return {}


async def _probe(
    address: Address, model: str | None, plan: ProbePlan, key: str | None, say: Say
) -> ProbeRecord:
    seed = plan.seed if plan.seed is not None else int.from_bytes(os.urandom(8), "big")
    async with Client(address, key=key) as client:
        try:
            async with asyncio.timeout(plan.seconds):
                listed = await _listed(client, plan, model, say)
                run = _Run(client, plan, _model(client, listed, model), say, random.Random(seed))
                run.context = _context(listed.get(run.model, {}))
                if model is None and len(listed) > 1:
                    others = f"of {len(listed):,} models; --model NAME asks for another"
                    say(f"{client.clean(run.model, 60)} is asked for, {others}")
                before, engine = await _server(client, run.model)
        except TimeoutError:
            said = f"{address.shown} had not listed its models and metrics after {plan.seconds:g} s"
            raise ProbeError("timeout", said) from None
        try:
            async with asyncio.timeout(max(plan.seconds - client.now(), 0.0)):
                await _workload(run)
        except TimeoutError:
            during = f" during {run.waits_for}" if run.waits_for else ""
            run.notes.append(f"stopped after {plan.seconds:g} s{during}; what came is kept")
        after: dict[str, float] = {}
        with suppress(TimeoutError):
            async with asyncio.timeout(METRICS_S):
                after, _ = await _server(client, run.model, again=True)
    metrics = {"before": before, "after": after} if before or after else {}
    return ProbeRecord(
        server=address.shown,
        model=client.clean(run.model),
        engine=engine,
        door=str(run.door),
        streams=tuple(run.streams),
        alone=tuple(run.alone),
        metrics=metrics,
        notes=tuple(run.notes),
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _model(client: Client, listed: Iterable[str], asked: str | None) -> str:
    """The model to ask for. ProbeError for one that the server does not list."""
    names = list(listed)
    if asked is None:
        if not names:
            raise ProbeError("no-model", f"{client.address.shown} lists no models; name one: --model NAME")
        return next((name for name in names if not any(word in name.lower() for word in NO_TALK)), names[0])
    if names and asked not in names:
        there = ", ".join(client.clean(name, 60) for name in names[:20])
        raise ProbeError("no-model", f"{client.address.shown} has no model {clean(asked)!r}; it has {there}")
    return asked


def _context(card: Mapping[str, Any]) -> int | None:
    """Tokens that a prompt and its answer may have, where the model's card says."""
    meta = card.get("meta")
    n_ctx = meta.get("n_ctx") if isinstance(meta, dict) else None
    return count(card.get("max_model_len")) or count(n_ctx) or None


async def _server(client: Client, model: str, again: bool = False) -> tuple[dict[str, float], str]:
    """The server's rows of /metrics on a model, and its name and version; empty where it does not say."""
    try:
        status, page, _ = await client.get("/metrics")
        rows = prometheus.rows(page, model) if status == 200 else {}
        name = prometheus.engine(page) if status == 200 else ""
        if not again and name == "vLLM":
            status, text, _ = await client.get("/version")
            version = text.partition('"version":')[2].strip(' "}\n') if status == 200 else ""
            name = client.clean(f"{name} {version}".strip(), 60)
    except ProbeError:
        return {}, ""
    return rows, name


async def _workload(run: _Run) -> None:
    """Everything that is sent, in order. ProbeError where not even the first chat is answered."""
    if not await _warm_up(run):
        return
    try:
        await _rounds(run)
    except ProbeError as error:  # what came before it is kept
        run.notes.append(f"{error.kind}: {error}")


async def _rounds(run: _Run) -> None:
    plan = run.plan
    alone = await _size_document(run)
    run.say("without a document")
    await _round(run, COMPARISON, None, alone)
    for i in range(plan.rounds):
        run.say(f"with the document, round {i + 1} of {plan.rounds}")
        document = await _round(run, f"with, round {i + 1}", run.alone[-1][0], alone)
        if document.error:
            return


async def _warm_up(run: _Run) -> bool:
    """Send the first chats: find the door, let a cold server warm up. Whether tokens come one at a time.

    Where the server refuses a request, or breaks over it, the next door is tried. Any other failure ends the
    probe, and so does a refusal at every door.
    """
    refusal: ProbeError | None = None
    for door in DOORS:
        run.door = door
        stream = Stream("warm-up", "warm-up", "warm-up", run.plan.prompt, 24)
        run.waits_for = f"{stream.name} ({door})"
        try:
            await run.patient(stream)
            run.streams.append(stream)
            break
        except ProbeError as error:
            if error.kind not in PASSED_OVER:
                raise
            if refusal is None or "answers 404" in str(refusal):  # a path that is not there tells least
                refusal = error
    else:
        raise refusal or ProbeError("refused", f"{run.client.address.shown} takes no requests")
    for name in ("warm-up again", "warm-up once more"):  # the first may have met a cold server
        again = Stream(name, "warm-up", "warm-up", run.plan.prompt, 24)
        run.waits_for = again.name
        run.streams.append(again)
        try:
            await run.patient(again)
        except ProbeError as error:
            again.error = str(error)
            break
        if not in_bursts(again):
            break
    else:
        run.notes.append(
            f"the stream is buffered: {len(again.tokens)} tokens came in {again.reads} pieces, most of them "
            "together. A proxy or gateway keeps them back; probe the server behind it"
        )
        return False
    if again.error:
        run.notes.append(f"{again.name}: {again.error}")
    return True


async def _size_document(run: _Run) -> float:
    """Send documents alone, longer each time, until one's prefilling can be timed. s of the last."""
    plan = run.plan
    usual = median([gap for s in run.streams for gap in s.gaps] or [0.0])
    most = plan.document or USUAL_DOCUMENT
    if run.context:
        most = min(most, run.context - LATE_TOKENS - 1)
        if plan.document and most < plan.document:
            run.notes.append(f"the model has room for a document of {most:,} tokens")
    n = most if plan.document else min(FIRST_TRY, most)
    while True:
        took, counted, sent = await _alone(run, n)
        run.say(f"a document of {counted:,} tokens alone: {measured(took)}")
        run.alone.append((sent, took))
        if sent < n:  # the model takes no longer one
            return took
        wanted = max(LEAST_S, LEAST_GAPS * usual)
        limit = min(LONGEST_DOCUMENT, run.context - LATE_TOKENS - 1) if run.context else LONGEST_DOCUMENT
        if plan.document or n >= limit or (n >= most and took >= wanted):
            return took
        longer = most if n < most else min(2 * n, limit)
        if took * longer / n * (plan.rounds + 2) > 0.6 * plan.seconds:  # no time for it
            return took
        n = longer


async def _alone(run: _Run, n: int) -> tuple[float, int, int]:
    """s until the first token of a document of `n` tokens; its tokens as the server counts them; tokens sent.

    A document that is too long for the model is halved, so that fewer than `n` may be sent.
    """
    for _ in range(5):
        stream = Stream("document alone", "alone", "alone", n, LATE_TOKENS)
        run.waits_for = f"a document of {n:,} tokens alone"
        try:
            await run.patient(stream)
        except ProbeError as error:
            if error.kind != "too-long" or n < 256:
                stream.error = str(error)
                run.streams.append(stream)
                raise
            run.notes.append(f"a document of {n:,} tokens is too long for the model; half of it is sent")
            n //= 2
            continue
        run.streams.append(stream)
        return stream.ttft or math.nan, stream.n_prompt, n
    raise ProbeError("too-long", "every document is too long for the model; give --document N")


async def _round(run: _Run, name: str, document: int | None, lasts: float) -> Stream:
    """Chats decode, a document (or in its place a short chat) arrives, late chats follow; then all stop.

    document: its tokens; lasts: s that its prefilling takes. Returns the document's stream, or the short chat's.
    """
    run.waits_for = f"the round {name}" if document else "the round without a document"
    plan = run.plan
    usual = median([gap for s in run.streams if s.kind != "alone" for gap in s.gaps] or [0.02])
    answer = min(plan.answer, max(96, LEAD + TAIL + 32 + math.ceil(4 * lasts / max(usual, 1e-4))))
    if run.context:
        answer = max(1, min(answer, run.context - 2 * plan.prompt))  # text may be more tokens than words
    chats = [Stream(f"chat {i + 1}", "chat", name, plan.prompt, answer) for i in range(plan.chats)]
    tasks = [run.start(chat) for chat in chats]
    try:
        await _until(lambda: all(len(c.tokens) >= LEAD for c in chats) or any(map(_over, chats)))
        if document is None:
            main = Stream("stand-in", "stand-in", name, plan.prompt, STAND_IN_TOKENS)
        else:
            main = Stream("document", "document", name, document, LATE_TOKENS)
        tasks.append(run.start(main))
        begun = run.client.now()
        late = []
        for i, at in enumerate(sorted(LATE_AT[: plan.late])):
            await asyncio.sleep(max(0.0, begun + at * lasts - run.client.now()))
            n_output = LATE_TOKENS if document else STAND_IN_TOKENS
            late.append(Stream(f"late chat {i + 1}", "late", name, plan.prompt, n_output))
            tasks.append(run.start(late[-1]))
        await _until(lambda: all(s.tokens or _over(s) for s in (main, *late)))
        seen = [len(chat.tokens) for chat in chats]
        await _until(
            lambda: (
                all(len(c.tokens) >= n + TAIL or _over(c) for c, n in zip(chats, seen))
                and all(s.ended is not None or s.error for s in late)
            )
        )
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(min(0.5, 0.1 + 4 * usual))  # the server notices that the chats are gone
    return main


def _over(stream: Stream) -> bool:
    return stream.ended is not None or bool(stream.error)


async def _until(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(POLL_S)


def refuse_open_key(address: Address, key: str | None) -> None:
    """ProbeError for a key that would be sent to another machine without encryption."""
    if key and not address.loopback and address.base.startswith("http://"):
        raise ProbeError("url", "a key would travel unencrypted: use https://")
