"""The loop: ask, check, launch, wait, record, commit, for a model and for a simulator alike.

`serve` chooses between `serial_loop` and `overlap_loop`; both are made of the same `step` and `ServingRun`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from time import perf_counter
from typing import Any, Protocol

from chunkprefill.scheduling.arguments import as_seconds, check_executor, check_policy, check_pool
from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.clients import Clients, Sending, listed
from chunkprefill.scheduling.core import Batch, Plan, Request, Rid, ScheduleError
from chunkprefill.scheduling.prefix_cache import block_contents
from chunkprefill.scheduling.state import State
from chunkprefill.scheduling.trace import Trace
from chunkprefill.whole import flag

Cost = Callable[[Batch], float]  # s
get_arrival = attrgetter("arrival")


class Policy(Protocol):
    """Decides which requests run next. May have `max_model_len` and `max_prompt` (tokens; None: no limit)."""

    def schedule(self, state: State) -> Plan:
        """A plan for the next step; looks at the state, changes nothing."""


class Handle(Protocol):
    """A batch under way. Of a `timed` executor, `timings` holds the executor's parts of the step, in s."""

    def wait(self) -> tuple[float, Mapping[Rid, int]]:
        """Seconds of execution, and the token of each emitting row (none where nothing is computed)."""


class Executor(Protocol):
    """Runs a batch or prices it. An executor that really takes time has a true attribute `measured`.

    Where its attribute `timed` is true as well, the parts of each step are recorded.
    """

    def launch(self, batch: Batch, tables: Mapping[Rid, list[int]]) -> Handle:
        """Begin; the tables (block ids by request) are true only during this call."""


@dataclass(slots=True, eq=False)
class Launched:
    """A step that was handed to the executor. The marks are readings of `perf_counter`, in s."""

    batch: Batch
    handle: Handle
    blocks_used: int
    check: float  # s that checking the contract took
    asked: float  # mark: the policy begins
    decided: float  # mark: the plan is there
    applied: float  # mark: the plan is a batch, and its blocks are taken
    launched: float  # mark: the executor has it
    scheduled: float = 0.0  # s from the start of the run
    dispatched: float = 0.0  # s from the start of the run
    ready: float = 0.0  # s from the start of the run: its earliest start
    timings: dict[str, float] | None = None  # s of the loop's own parts

    @property
    def seconds(self) -> float:
        """Scheduling, from the question to the policy up to the launch, without the check of the contract."""
        return self.launched - self.asked - self.check

    def parts(self, book: float) -> dict[str, float]:
        """The loop's own parts of the step (`PARTS`), in s. book: recording and committing the last one."""
        decide, blocks = self.decided - self.asked, self.applied - self.decided - self.check
        return {"decide": decide, "blocks": blocks, "check": self.check, "book": book}


NO_BATCH = Batch((), (), (), ())


class Known:
    """The handle of a step whose duration is known before it runs: a price; 0 s where it only evicts."""

    __slots__ = ("seconds",)
    timings: Mapping[str, float] = {}
    underway = 0.0

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def wait(self) -> tuple[float, dict[Rid, int]]:
        """Its seconds, and no token."""
        return self.seconds, {}


def step(
    state: State, policy: Policy | None, executor: Executor, now: float, plan: Plan | None = None
) -> Launched:
    """One step up to its launch: ask the policy, apply its plan, hand the batch to the executor.

    plan: what to apply in place of the policy's answer; policy=None: it is not even asked. While another step
    is in flight the plan may be empty, and then so is the batch, and nothing has changed. Errors: `State`.
    """
    checked, asked = state.check_s, perf_counter()
    answer = Plan() if policy is None else state.ask(policy, now)
    decided = perf_counter()
    answer = answer if plan is None else plan
    idle = state.n_in_flight and not answer.tokens and not answer.preempted
    batch = NO_BATCH if idle else state.apply(answer)
    applied = perf_counter()
    blocks_used = state.pool.n_used
    handle = executor.launch(batch, state.tables) if batch.rid else Known()
    launched = perf_counter()
    check = state.check_s - checked
    return Launched(batch, handle, blocks_used, check, asked, decided, applied, launched)


class ServingRun:
    """Requests being served: what has arrived (`state`), what is still to come, the clock, and the `trace`.

    scheduling: Batch -> s prices the scheduling of a step; None measures it.
    """

    def __init__(
        self,
        requests: Iterable[Request] | Clients,
        policy: Policy,
        executor: Executor,
        pool: BlockPool | None = None,
        scheduling: Cost | None = None,
    ) -> None:
        check_policy(policy)
        check_pool(pool)
        check_executor(executor)
        self.policy, self.executor, self.scheduling = policy, executor, scheduling
        self.trace = Trace(listed(requests), label=str(policy))
        if pool is not None and pool.prefix_caching:
            for request in self.trace.requests:
                if request.blocks is not None:
                    block_contents(request, pool.block_size)  # ValueError now, and not when it arrives
        self.state = State(pool)
        self.n_outputs = output_lengths(self.trace.requests, policy, pool)
        closed = isinstance(requests, Clients)
        self.sending = Sending(requests, self.n_outputs) if closed else None  # type: ignore[arg-type]
        first = self.sending.first if self.sending else self.trace.requests
        self.coming = deque(sorted(first, key=get_arrival))
        self.measured = scheduling is None and bool(getattr(executor, "measured", False))
        self.timed = self.measured and bool(getattr(executor, "timed", False))
        self.trace.host = dict.fromkeys(("commit", "decide", "apply", "launch", "check"), 0.0)
        self.skipped = 0.0  # s of idle time that the clock did not wait for
        self.zero = self.idle_since = perf_counter()  # marks: the beginning; the last launch or landing

    def clock(self) -> float:
        """s from the start where execution is measured: the wall clock less the idle time skipped."""
        return perf_counter() - self.zero + self.skipped if self.measured else 0.0

    def arrive(self, now: float) -> None:
        """The requests that have come by `now` join the queue."""
        while self.coming and self.coming[0].arrival <= now:
            request = self.coming.popleft()
            self.state.arrive(request, self.n_outputs[request.rid])

    def skip_idle(self, now: float) -> float:
        """Nothing is left to do: the clock moves on to the next arrival."""
        arrival = self.coming[0].arrival
        self.skipped += arrival - now
        self.idle_since = perf_counter()
        return arrival

    def step(self, now: float) -> Launched:
        """Schedule and launch a step at `now`, and say when it could start."""
        launched = step(self.state, self.policy, self.executor, now)
        book = launched.asked - self.idle_since
        self.idle_since = launched.launched
        host = self.trace.host
        host["commit"] += book
        host["decide"] += launched.decided - launched.asked
        host["apply"] += launched.applied - launched.decided
        host["launch"] += launched.launched - launched.applied
        host["check"] += launched.check
        launched.scheduled = now
        if self.measured:  # what a device runs already while its kernels are being launched is execution
            begun = launched.launched - getattr(launched.handle, "underway", 0.0)
            launched.ready = max(now, begun - self.zero + self.skipped)
            launched.dispatched = max(now, launched.ready - launched.check)
            launched.timings = launched.parts(book) if self.timed else None
        else:
            seconds = book + launched.seconds if self.scheduling is None else self.scheduling(launched.batch)
            seconds = as_seconds(self.state.n_steps - 1, "scheduling", seconds)
            launched.ready = launched.dispatched = now + seconds
        return launched

    def land(self, launched: Launched, free_at: float, *, overlapped: bool = False) -> float:
        """Wait for a step, record it, and say when it ended. free_at: when the step before it ended, in s."""
        seconds, tokens = launched.handle.wait()
        seconds = as_seconds(len(self.trace.steps), "execution", seconds)
        self.idle_since = landed = perf_counter()
        start = max(launched.ready, free_at)
        end = start + seconds
        if self.measured:
            clock = landed - self.zero + self.skipped
            end = max(start, min(end, clock) if overlapped else clock)
        timings = launched.timings
        if timings:
            timings |= launched.handle.timings  # type: ignore[attr-defined]
        times = (launched.scheduled, launched.dispatched, start, end)
        self.trace.record(launched.batch, times, launched.blocks_used, timings)
        for rid, token in tokens.items():
            self.trace.outputs.setdefault(rid, []).append(token)
        if self.sending:
            self.coming.extend(self.sending.answered(launched.batch, end))
            self.coming = deque(sorted(self.coming, key=get_arrival))
        return end

    def served(self) -> Trace:
        """The trace of a run that has ended, each request with the moment at which its client sent it."""
        if self.sending:
            sent = self.sending.sent
            self.trace.requests = tuple(sent.get(request.rid, request) for request in self.trace.requests)
        return self.trace


def serial_loop(run: ServingRun) -> None:
    """Schedule a step, run it, count what it emitted; only then the next one."""
    now = 0.0
    while True:
        run.arrive(now)
        if run.state:
            launched = run.step(now)
            now = run.land(launched, now)
            run.state.commit(launched.batch)
        elif run.coming:
            now = run.skip_idle(now)
        else:
            return


def overlap_loop(run: ServingRun) -> None:
    """Schedule a step while the one before it runs: it begins when that one starts."""
    ahead: Launched | None = None  # launched, and not landed yet
    now = ended = 0.0
    while True:
        run.arrive(now)
        if run.state:
            launched = run.step(now)
            runs = launched.batch is not NO_BATCH
            if runs:
                run.state.commit(launched.batch, landed=False)
            if ahead:
                ended = run.land(ahead, ended, overlapped=True)
                run.state.land(ahead.batch)
            ahead = launched if runs else None
            now = max(launched.ready, ended, run.clock())
        elif run.coming:
            now = run.skip_idle(now)
        else:
            return


def serve(
    requests: Iterable[Request] | Clients,
    policy: Policy,
    executor: Executor,
    pool: BlockPool | None = None,
    *,
    scheduling: Cost | None = None,
    overlap: bool = False,
) -> Trace:
    """Serve `requests`, or what `clients` send, to their end and return the trace.

    Serial: a step is scheduled when the last one has ended. Overlapped, as in vLLM's asynchronous scheduling:
    a step is scheduled while the one before it runs. A request that arrives meanwhile is seen one step later,
    and a request that finishes holds its seat and its blocks one step longer, because its last token is not
    known yet when the next step is scheduled. Both decide as vLLM does (`python -m chunkprefill parity`).

    scheduling: Batch -> s prices the scheduling; None measures it. Where execution is measured too, time is
    the wall clock less the idle time that was skipped. Checking the contract lies between `dispatched` and
    `start`: it is no part of scheduling (`trace.host` has the sums).

    Raises ScheduleError for a request that could never finish, before anything runs, and for a plan that
    breaks the contract; ValueError for two requests of one name, and for arguments of a wrong kind.
    """
    loop = overlap_loop if flag("overlap", overlap) else serial_loop
    run = ServingRun(requests, policy, executor, pool, scheduling)
    loop(run)
    return run.served()


def output_lengths(requests: Iterable[Request], policy: Any, pool: BlockPool | None) -> dict[Rid, int]:
    """Tokens that each request will emit; ScheduleError for one that could never finish."""
    max_len, max_prompt = getattr(policy, "max_model_len", None), getattr(policy, "max_prompt", None)
    lengths: dict[Rid, int] = {}
    for request in requests:
        name, n_prompt, n_output = f"request {request.rid}", request.n_prompt, request.n_output
        if max_len is not None:
            n_output = min(n_output, max_len - n_prompt)
            if n_output < 1:
                raise ScheduleError(f"{name}: {n_prompt} prompt tokens, max_model_len is {max_len}")
        if max_prompt is not None and n_prompt > max_prompt:
            raise ScheduleError(f"{name}: {n_prompt} prompt tokens, the policy takes at most {max_prompt}")
        if pool is not None and (need := pool.blocks_for(n_prompt + n_output - 1)) > pool.n_free:
            tokens = f"{n_prompt} + {n_output} - 1 tokens need {need} blocks of {pool.block_size}"
            raise ScheduleError(f"{name}: could never finish, {tokens}, the pool has {pool.n_free}")
        lengths[request.rid] = n_output
    return lengths
