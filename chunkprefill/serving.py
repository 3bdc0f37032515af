"""A model under a scheduler: the loop with real passes, their tokens and their seconds."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from chunkprefill.model.graphs import DecodeGraphs
from chunkprefill.model.paged import PagedKVCache, PagedWindow
from chunkprefill.model.ragged import moved
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
    as in `KVCache`. graphs: play decoding steps back from CUDA graphs; `varlen` attention only. timed: record
    the parts of each measured step (`Trace.parts`).
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
        backend: str | None = None,
        graphs: bool = False,
        timed: bool = True,
    ) -> None:
        self.model, self.policy, self.pool = model, policy, pool
        self.cost, self.overlap, self.timed = cost, overlap, timed
        self.scheduling = scheduling or (None if cost is None else lambda batch: 0.0)
        self.cache = PagedKVCache(model.config, pool, dtype=model.dtype, device=model.device, backend=backend)
        self.graphs = DecodeGraphs(model, self.cache) if graphs else None

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
        return Executor(self.model, self.cache, prompts, cost, ahead, self.timed, self.graphs)


class Executor(AbstractContextManager):
    """Runs batches on a model. Building a batch's inputs is scheduling; the pass itself is execution.

    A step may be launched before the one ahead of it has been read back: what that one emits is taken on the
    device. On a GPU launching returns at once by itself; on a CPU a thread works the steps off, if `ahead`.
    The pass of a CPU is not launched but run: what torch does to start its kernels is counted as execution,
    and `launch` is next to nothing.
    """

    def __init__(
        self,
        model: Transformer,
        cache: PagedKVCache,
        prompts: Mapping[Rid, Iterable[int]],
        cost: Cost | None,
        ahead: bool,
        timed: bool = True,
        graphs: DecodeGraphs | None = None,
    ) -> None:
        self.model, self.cache, self.cost, self.timed, self.graphs = model, cache, cost, timed, graphs
        self.known = {rid: list(prompt) for rid, prompt in prompts.items()}  # prompt and outputs read back
        self.measured = cost is None
        self.flying: Pass | None = None  # launched, and not yet read back
        self.ended: Any = None  # the event at the end of the step read back last
        self._stack = ExitStack()
        self._thread: ThreadPoolExecutor | None = None
        if ahead and model.device.type == "cpu":
            self._thread = self._stack.enter_context(ThreadPoolExecutor(1))

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def launch(self, batch: Batch, tables: Mapping[Rid, list[int]]) -> Pass:
        """Build the strip of tokens and the window of the cache, and start where that needs no waiting."""
        began = perf_counter()
        strip: list[int] = []
        missing = []  # rows of the strip whose token is still being made, by the step ahead
        for rid, start, length in zip(batch.rid, batch.start, batch.length):
            chunk = self.known[rid][start : start + length]
            strip += chunk
            if len(chunk) < length:
                missing.append((len(strip), rid))
                strip.append(0)
        device = self.model.device
        run = Pass(self, batch, moved([strip], device)[0], self.cache.window(batch, tables))
        if missing and self.flying:
            place = {rid: i for i, rid in enumerate(self.flying.emitting)}
            rows, sources = zip(*((row, place[rid]) for row, rid in missing))
            there, source = moved([rows, sources], device)
            run.missing = self.flying, there, source
        self.flying = run
        built = perf_counter()
        if self._thread:
            run.future = self._thread.submit(run.execute)
        elif device.type == "cuda":
            run.execute()
            run.underway = perf_counter() - built
        run.timings = {"inputs": built - began, "launch": perf_counter() - built}
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
    read: Tensor | None = None  # the same, in memory of the host, where the model is on a GPU
    seconds: float = 0.0
    events: tuple[Any, Any] | None = None
    underway: float = 0.0  # s between the first kernel's launch and the last one's, where a device runs them
    sampling: float = 0.0  # s of the pass that went into choosing tokens, where that is known
    timings: dict[str, float] = field(default_factory=dict)  # s, see `PARTS` and `BESIDE`

    def __post_init__(self) -> None:
        self.emitting = [rid for rid, emits in zip(self.batch.rid, self.batch.emits) if emits]

    def execute(self) -> None:
        """Fill in the tokens of the step ahead, run every chunk, make a token of each emitting row."""
        cuda = self.strip.is_cuda
        if cuda:
            self.events = (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
            self.events[0].record()
        began = computed = perf_counter()
        with torch.inference_mode():
            if self.missing:
                ahead, rows, sources = self.missing
                assert ahead.tokens is not None  # executed before this one
                self.strip[rows] = ahead.tokens[sources]
                self.missing = None  # or each step would keep all those before it
            graphs = self.executor.graphs
            self.tokens = None if graphs is None else graphs(self.strip, self.window)
            if self.tokens is None:
                logits = self.executor.model(self.strip, self.window)
                computed = perf_counter()
                self.tokens = logits.argmax(-1)
            if cuda:  # at once, and not behind the next step
                there = torch.empty(self.tokens.shape, dtype=self.tokens.dtype, pin_memory=True)
                self.read = there.copy_(self.tokens, non_blocking=True)
        if self.events:
            self.events[1].record()
        self.seconds = perf_counter() - began
        self.sampling = perf_counter() - computed

    def wait(self) -> tuple[float, dict[Rid, int]]:
        """Seconds of the pass (or its price), and the tokens that it made."""
        began, sampling = perf_counter(), 0.0
        if self.future:
            self.future.result()
        elif self.events:
            self.events[1].synchronize()
        else:
            self.execute()
            sampling = self.sampling  # elsewhere it is done by the device or by another thread
        waited = perf_counter()
        executor, tokens = self.executor, self.tokens if self.read is None else self.read
        assert tokens is not None
        made = dict(zip(self.emitting, tokens.tolist()))
        if self.events:  # both have come to pass: asking them waits for nothing
            self.seconds = self.events[0].elapsed_time(self.events[1]) / 1e3
            self.timings["gap"] = executor.ended.elapsed_time(self.events[0]) / 1e3 if executor.ended else 0.0
            executor.ended = self.events[1]
        for rid, token in made.items():
            executor.known[rid].append(token)
        self.timings |= {"wait": waited - began - sampling, "execution": self.seconds - sampling}
        self.timings["read"] = perf_counter() - waited + sampling
        return self.seconds if executor.cost is None else executor.cost(self.batch), made


def replay(trace: Trace, engine: Engine, *, decide: bool = False) -> Trace:
    """Run the batches of `trace` once more, on `engine`, and measure how long each takes; nothing is decided.

    Measured seconds would move arrivals and so change the batches of a second run; here they are given.
    decide: ask the engine's policy at each step all the same, so as to time it, and leave its plan aside.
    Serial. ScheduleError if the engine's pool cannot hold them.
    """
    left: dict[Rid, int] = {}
    for step in trace.steps:
        for chunk in step.batch:
            left[chunk.rid] = left.get(chunk.rid, 0) + chunk.emits
    arrivals = {request.rid: request for request in trace.requests}
    state, again = State(engine.pool), Trace(trace.requests, label=trace.label)
    todo = [(step.batch, Plan(dict(zip(step.batch.rid, step.batch.length)), step.batch.preempted))
            for step in trace.steps]  # fmt: skip
    skipped = now = 0.0
    with engine._executor(trace.requests, None, False) as executor:
        landed = zero = perf_counter()
        for batch, plan in todo:
            for rid in batch.rid:
                if rid in arrivals:
                    request = arrivals.pop(rid)
                    state.arrive(request, left[rid] or None)
                    if request.arrival > now:
                        now, skipped = request.arrival, skipped + request.arrival - now
            checked, arrived = state.check_s, perf_counter()
            if decide:
                state.ask(engine.policy, now)
            decided = perf_counter()
            batch = state.apply(plan)
            applied, check = perf_counter(), state.check_s - checked
            used, handle = state.pool.n_used, executor.launch(batch, state.tables)
            start = perf_counter() - zero + skipped - handle.underway
            timings = {"decide": decided - arrived, "blocks": applied - decided - check, "check": check}
            timings["book"] = arrived - landed
            _, tokens = handle.wait()
            landed = perf_counter()
            end = landed - zero + skipped
            both = timings | handle.timings if engine.timed else None
            again.record(batch, (now, max(now, start - check), start, end), used, both)
            state.commit(batch)
            for rid, token in tokens.items():
                again.outputs.setdefault(rid, []).append(token)
            now = end
    return again
