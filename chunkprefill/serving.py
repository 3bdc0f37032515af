"""A model under a scheduler: the loop with real passes, their tokens and their seconds."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from chunkprefill.model.paged import PagedKVCache, PagedWindow
from chunkprefill.model.transformer import Transformer
from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.core import Batch, Plan, Request, Rid
from chunkprefill.scheduling.serve import Policy, serve
from chunkprefill.scheduling.state import State
from chunkprefill.scheduling.trace import Trace

Cost = Callable[[Batch], float]  # s


def prompt_of(request: Request, vocab_size: int) -> tuple[int, ...]:
    """The request's prompt; if it has none, n_prompt token ids drawn from its rid.

    ValueError for an id outside the vocabulary.
    """
    if request.prompt is None:
        return tuple(random.Random(f"prompt {request.rid}").choices(range(vocab_size), k=request.n_prompt))
    if max(request.prompt) >= vocab_size:
        token = max(request.prompt)
        raise ValueError(f"request {request.rid}: token id {token} is outside the vocabulary of {vocab_size}")
    return request.prompt


class Engine:
    """Serves requests on `model` under `policy`: measured seconds, the most likely token at each emission.

    pool: blocks of the cache (None: never runs out). scheduling: a price of scheduling in s; None: it is
    measured, or free where `cost` prices execution too; then the steps are those of `simulate` with the same
    prices, while the tokens are the model's. overlap: schedule a step while the one before it runs. backend:
    as in `KVCache`.
    """

    def __init__(
        self,
        model: Transformer,
        policy: Policy,
        pool: BlockPool | None = None,
        *,
        cost: Cost | None = None,
        scheduling: Cost | None = None,
        overlap: bool = False,
        backend: str = "sdpa",
    ) -> None:
        self.model, self.policy, self.pool = model, policy, pool
        self.cost, self.overlap = cost, overlap
        self.scheduling = scheduling or (None if cost is None else lambda batch: 0.0)
        self.cache = PagedKVCache(model.config, pool, dtype=model.dtype, device=model.device, backend=backend)

    def run(self, requests: Iterable[Request]) -> Trace:
        """Serve them all. Errors as `serve`; ValueError for a prompt or length that the model cannot take."""
        requests = tuple(requests)
        with self._executor(requests, self.cost, self.overlap) as executor:
            return serve(
                requests,
                self.policy,
                executor,
                self.pool,
                scheduling=self.scheduling,
                overlap=self.overlap,
                label=str(self.policy),
            )

    def _executor(self, requests: tuple[Request, ...], cost: Cost | None, ahead: bool) -> Executor:
        most = self.model.config.max_positions
        limit = getattr(self.policy, "max_model_len", None)
        for request in requests:
            total = request.n_prompt + request.n_output
            total = (total if limit is None else min(total, limit)) - 1
            if total > most:
                raise ValueError(f"request {request.rid}: {total} positions, the model has {most}")
        prompts = {r.rid: prompt_of(r, self.model.config.vocab_size) for r in requests}
        return Executor(self.model, self.cache, prompts, cost, ahead)


class Executor(AbstractContextManager):
    """Runs batches on a model. Building a batch's inputs is scheduling; the pass itself is execution.

    A step may be launched before the one ahead of it has been read back: what that one emits is taken on the
    device. On a GPU launching returns at once by itself; on a CPU a thread works the steps off, if `ahead`.
    """

    def __init__(
        self,
        model: Transformer,
        cache: PagedKVCache,
        prompts: Mapping[Rid, Iterable[int]],
        cost: Cost | None,
        ahead: bool,
    ) -> None:
        self.model, self.cache, self.cost = model, cache, cost
        self.known = {rid: list(prompt) for rid, prompt in prompts.items()}  # prompt and outputs read back
        self.measured = cost is None
        self.flying: Pass | None = None  # launched, and not yet read back
        self._stack = ExitStack()
        self._thread: ThreadPoolExecutor | None = None
        if ahead and model.device.type == "cpu":
            self._thread = self._stack.enter_context(ThreadPoolExecutor(1))

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def launch(self, batch: Batch, tables: Mapping[Rid, list[int]]) -> Pass:
        """Build the strip of tokens and the window of the cache, and start where that needs no waiting."""
        strip: list[int] = []
        missing = []  # rows of the strip whose token is still being made, by the step ahead
        for rid, start, length in zip(batch.rid, batch.start, batch.length):
            chunk = self.known[rid][start : start + length]
            strip += chunk
            if len(chunk) < length:
                missing.append((len(strip), rid))
                strip.append(0)
        device = self.model.device
        run = Pass(self, batch, torch.tensor(strip, device=device), self.cache.window(batch, tables))
        if missing and self.flying:
            place = {rid: i for i, rid in enumerate(self.flying.emitting)}
            rows, sources = zip(*((row, place[rid]) for row, rid in missing))
            run.missing = self.flying, torch.tensor(rows, device=device), torch.tensor(sources, device=device)
        self.flying = run
        if self._thread:
            run.future = self._thread.submit(run.execute)
        elif device.type == "cuda":
            run.execute()
        return run


@dataclass(eq=False)
class Pass:
    """One step on the model, under way."""

    executor: Executor
    batch: Batch
    strip: Tensor  # [T]
    window: PagedWindow
    missing: tuple[Pass, Tensor, Tensor] | None = None  # the step ahead, rows here, rows of its tokens
    future: Future | None = None
    tokens: Tensor | None = None  # [emitting rows]
    seconds: float = 0.0
    events: tuple[Any, Any] | None = None

    def __post_init__(self) -> None:
        self.emitting = [rid for rid, emits in zip(self.batch.rid, self.batch.emits) if emits]

    def execute(self) -> None:
        """Fill in the tokens of the step ahead, run every chunk, make a token of each emitting row."""
        cuda = self.strip.is_cuda
        if cuda:
            self.events = (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
            self.events[0].record()
        began = perf_counter()
        with torch.inference_mode():
            if self.missing:
                ahead, rows, sources = self.missing
                assert ahead.tokens is not None  # executed before this one
                self.strip[rows] = ahead.tokens[sources]
                self.missing = None  # or each step would keep all those before it
            self.tokens = self.executor.model(self.strip, self.window).argmax(-1)
        if self.events:
            self.events[1].record()
        self.seconds = perf_counter() - began

    def wait(self) -> tuple[float, dict[Rid, int]]:
        """Seconds of the pass (or its price), and the tokens that it made."""
        if self.future:
            self.future.result()
        elif self.tokens is None:
            self.execute()
        assert self.tokens is not None
        made = dict(zip(self.emitting, self.tokens.tolist()))
        if self.events:
            self.seconds = self.events[0].elapsed_time(self.events[1]) / 1e3
        for rid, token in made.items():
            self.executor.known[rid].append(token)
        cost = self.executor.cost
        return self.seconds if cost is None else cost(self.batch), made


def replay(trace: Trace, engine: Engine) -> Trace:
    """Run the batches of `trace` once more, on `engine`, and measure how long each takes; nothing is decided.

    Measured seconds would move arrivals and so change the batches of a second run; here they are given.
    Serial. ScheduleError if the engine's pool cannot hold them.
    """
    left: dict[Rid, int] = {}
    for step in trace.steps:
        for chunk in step.batch:
            left[chunk.rid] = left.get(chunk.rid, 0) + chunk.emits
    arrivals = {request.rid: request for request in trace.requests}
    state, again = State(engine.pool), Trace(trace.requests, label=trace.label)
    skipped, zero = 0.0, perf_counter()
    now = 0.0
    with engine._executor(trace.requests, None, False) as executor:
        for step in trace.steps:
            batch = step.batch
            for rid in batch.rid:
                if rid in arrivals:
                    request = arrivals.pop(rid)
                    state.arrive(request, left[rid] or None)
                    if request.arrival > now:
                        now, skipped = request.arrival, skipped + request.arrival - now
            checked = state.check_s
            batch = state.apply(Plan(dict(zip(batch.rid, batch.length)), batch.preempted))
            used, handle = state.pool.n_used, executor.launch(batch, state.tables)
            start = perf_counter() - zero + skipped
            dispatched = max(now, start - (state.check_s - checked))
            _, tokens = handle.wait()
            end = perf_counter() - zero + skipped
            again.record(batch, (now, dispatched, start, end), used)
            state.commit(batch)
            for rid, token in tokens.items():
                again.outputs.setdefault(rid, []).append(token)
            now = end
    return again
