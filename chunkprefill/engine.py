"""A model under a scheduler: the loop with real passes, their tokens and their seconds."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from chunkprefill.model.batch_attention import to_device
from chunkprefill.model.graphs import DecodeGraphs
from chunkprefill.model.paged import PagedKVCache, PagedWindow
from chunkprefill.model.transformer import Transformer, check_model
from chunkprefill.scheduling.arguments import check_policy, check_pool
from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.clients import Clients, listed
from chunkprefill.scheduling.core import Batch, Plan, Request, Rid, ScheduleError
from chunkprefill.scheduling.loop import Cost, Policy, serve, step
from chunkprefill.scheduling.prefix_cache import block_contents
from chunkprefill.scheduling.state import State
from chunkprefill.scheduling.trace import Trace
from chunkprefill.whole import briefly, needed


def prompt_of(request: Request, vocab_size: int, block_size: int = 16) -> tuple[int, ...]:
    """The request's prompt; if it has none, n_prompt token ids: drawn, and shared where the request says so.

    Equal segments and equal block hashes (of `block_size` tokens) give equal tokens; what is neither is drawn
    from the rid. ValueError for an id outside the vocabulary, and for more or fewer block hashes than the
    prompt has whole blocks.
    """

    def drawn(source: str, n: int) -> list[int]:  # the first n of a sequence that depends on `source` alone
        return random.Random(source).choices(range(vocab_size), k=n)

    if request.segments is not None:
        return tuple([token for name, n in request.segments for token in drawn(f"segment {name}", n)])
    if request.blocks is not None:
        block_contents(request, block_size)  # ValueError where hashes and blocks do not match
        tokens = [token for each in request.blocks for token in drawn(f"block {each}", block_size)]
        return (*tokens, *drawn(f"prompt {request.rid}", request.n_prompt - len(tokens)))
    if request.prompt is None:
        return tuple(drawn(f"prompt {request.rid}", request.n_prompt))
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
        check_policy(policy)
        check_pool(pool)
        if pool is not None and pool.withdrawn_count:
            raise ValueError(
                "pool: withdrawn_count is for decisions alone, a model would read blocks never filled"
            )
        check_model(model)
        self.model, self.policy, self.pool = model, policy, pool
        self.cost, self.overlap, self.timed = cost, overlap, timed
        self.scheduling = scheduling or (None if cost is None else lambda batch: 0.0)
        self.cache = PagedKVCache(model.config, pool, dtype=model.dtype, device=model.device, backend=backend)
        self.graphs = DecodeGraphs(model, self.cache) if graphs else None

    def run(self, requests: Iterable[Request] | Clients) -> Trace:
        """Serve them all. Errors as `serve`; ValueError for a prompt or length that the model cannot take."""
        given = listed(requests)
        with self.executor(given, self.cost, ahead=self.overlap) as executor:
            return serve(
                requests if isinstance(requests, Clients) else given,
                self.policy,
                executor,
                self.pool,
                scheduling=self.scheduling,
                overlap=self.overlap,
            )

    def executor(
        self, requests: Iterable[Request], cost: Cost | None = None, *, ahead: bool = False
    ) -> ModelExecutor:
        """What runs batches of these requests on the model, without a loop around it; to be closed after use.

        cost: price the passes and do not measure them. ahead: steps are launched while others run. ValueError
        for a prompt or length that the model cannot take.
        """
        requests, most = tuple(requests), self.model.config.max_positions
        limit = getattr(self.policy, "max_model_len", None)
        for request in requests:
            total = request.n_prompt + request.n_output
            total = (total if limit is None else min(total, limit)) - 1
            if total > most:
                raise ValueError(f"request {request.rid}: {total} positions, the model has {most}")
        vocab_size, block_size = self.model.config.vocab_size, self.cache.pool.block_size
        prompts = {r.rid: prompt_of(r, vocab_size, block_size) for r in requests}
        return ModelExecutor(self, prompts, cost, ahead=ahead)


class ModelExecutor(AbstractContextManager):
    """Runs batches on a model. Building a batch's inputs is scheduling; the pass itself is execution.

    A step may be launched before the one ahead of it has been read back: what that one emits is taken on the
    device. On a GPU launching returns at once by itself; on a CPU, with `ahead`, a thread runs the steps.
    On a CPU a pass is not launched but run: what torch does to start its kernels is counted as execution, and
    `launch` is next to nothing.
    """

    def __init__(
        self, engine: Engine, prompts: Mapping[Rid, Iterable[int]], cost: Cost | None, *, ahead: bool
    ) -> None:
        self.model, self.cache, self.cost = engine.model, engine.cache, cost
        self.timed, self.graphs = engine.timed, engine.graphs
        self.known = {rid: list(prompt) for rid, prompt in prompts.items()}  # prompt and outputs read back
        self.measured = cost is None
        self.flying: InFlightStep | None = None  # launched, and not yet read back
        self.ended: Any = None  # the event at the end of the step read back last
        self._thread = ThreadPoolExecutor(1) if ahead and self.model.device.type == "cpu" else None

    def __exit__(self, *error: Any) -> None:
        if self._thread:
            self._thread.shutdown()

    def launch(self, batch: Batch, tables: Mapping[Rid, list[int]]) -> InFlightStep:
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
        run = InFlightStep(self, batch, to_device([strip], device)[0], self.cache.window(batch, tables))
        if missing and self.flying:
            place = {rid: i for i, rid in enumerate(self.flying.emitting)}
            rows, sources = zip(*((row, place[rid]) for row, rid in missing))
            there, source = to_device([rows, sources], device)
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
class InFlightStep:
    """One step on the model, under way."""

    executor: ModelExecutor
    batch: Batch
    strip: Tensor  # [T]
    window: PagedWindow
    missing: tuple[InFlightStep, Tensor, Tensor] | None = None  # step ahead, rows here, rows of its tokens
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


def check_engine(engine: Engine) -> None:
    """ValueError for what is no engine, such as a model in its place."""
    if not hasattr(engine, "model"):
        raise ValueError(f"engine is {briefly(engine)}: an Engine is needed, such as Engine(model, policy)")


def replay(trace: Trace, engine: Engine, *, decide: bool = False) -> Trace:
    """Run the batches of `trace` once more, on `engine`, and measure how long each takes; nothing is decided.

    Measured seconds would move arrivals and so change the batches of a second run; here they are given.
    decide: ask the engine's policy at each step all the same, so as to time it, and leave its plan aside.
    Serial. ScheduleError if the engine's pool cannot hold them, or makes other batches of the same plans.
    """
    needed("trace", trace, Trace, "such as simulate returns")
    check_engine(engine)
    emissions = Counter(chunk.rid for recorded in trace.steps for chunk in recorded.batch if chunk.emits)
    arrivals = {request.rid: request for request in trace.requests}
    state, again = State(engine.pool), Trace(trace.requests, label=trace.label)
    batches = [recorded.batch for recorded in trace.steps]
    plans = [Plan(dict(zip(batch.rid, batch.length)), batch.preempted) for batch in batches]
    skipped = now = 0.0
    with engine.executor(trace.requests) as executor:
        landed = zero = perf_counter()
        for plan, recorded_batch in zip(plans, batches):
            for rid in plan.tokens:
                if rid in arrivals:
                    request = arrivals.pop(rid)
                    state.arrive(request, emissions[rid] or None)
                    if request.arrival > now:
                        now, skipped = request.arrival, skipped + request.arrival - now
            launched = step(state, engine.policy if decide else None, executor, now, plan)
            _check_same(recorded_batch, launched.batch, len(again.steps))
            handle: InFlightStep = launched.handle  # type: ignore[assignment]
            start = launched.launched - zero + skipped - handle.underway
            _, tokens = handle.wait()
            timings = launched.parts(book=launched.asked - landed) | handle.timings
            landed = perf_counter()
            end = landed - zero + skipped
            times = (now, max(now, start - launched.check), start, end)
            again.record(launched.batch, times, launched.blocks_used, timings if engine.timed else None)
            state.commit(launched.batch)
            for rid, token in tokens.items():
                again.outputs.setdefault(rid, []).append(token)
            now = end
    return again


def _check_same(recorded: Batch, made: Batch, n: int) -> None:
    """ScheduleError where a pool makes another batch of a recorded step: another prefix cache, other hits."""
    if recorded == made:
        return
    rows = zip(recorded, made)
    was, now = next(((a, b) for a, b in rows if a != b), (recorded.preempted, made.preempted))
    raise ScheduleError(
        f"replay: step {n}: recorded {was}, this pool makes {now}; is its prefix cache the same?"
    )
