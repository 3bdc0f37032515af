"""The loop: ask, check, launch, wait, record, commit, for a model and for a simulator alike."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from time import perf_counter
from typing import Any, NamedTuple, Protocol

from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.core import Batch, Plan, Request, Rid, ScheduleError
from chunkprefill.scheduling.state import State
from chunkprefill.scheduling.trace import Trace


class Policy(Protocol):
    """Decides who runs next. It may have `max_model_len` and `max_prompt`, in tokens (None: no limit)."""

    def schedule(self, state: State) -> Plan:
        """A plan for the next step; looks at the state, changes nothing."""


class Handle(Protocol):
    """A batch under way. Where the executor is `timed` it has `timings`: s of what the two did (`PARTS`)."""

    def wait(self) -> tuple[float, Mapping[Rid, int]]:
        """Seconds of execution, and the token of each emitting row (none where nothing is computed)."""


class Executor(Protocol):
    """Runs a batch or prices it. An executor with a true attribute `measured` takes the time that it says.

    Where `timed` is true too, the parts of each step are recorded.
    """

    def launch(self, batch: Batch, tables: Mapping[Rid, list[int]]) -> Handle:
        """Begin; the tables (block ids by request) are true only during this call."""


class _Flight(NamedTuple):
    """A batch that was handed over and has not landed."""

    batch: Batch
    handle: Handle
    scheduled: float
    dispatched: float
    ready: float  # earliest start
    blocks_used: int
    timings: dict[str, float] | None  # s, of the loop's own parts


def serve(
    requests: Iterable[Request],
    policy: Policy,
    executor: Executor,
    pool: BlockPool | None = None,
    *,
    scheduling: Callable[[Batch], float] | None = None,
    overlap: bool = False,
    label: str = "",
) -> Trace:
    """Serve `requests` to their end and return the trace.

    Serial: a step is scheduled when the last one has ended. Overlapped: while it runs, so that a request that
    arrives meanwhile is seen one step later. scheduling: Batch -> s prices the scheduling; None measures it.
    Where execution is measured too, time is the wall clock less the idle time that was skipped. Checking the
    contract lies between `dispatched` and `start`: it is no part of scheduling (`trace.host` has the sums).

    Raises ScheduleError for a request that could never finish, before anything runs, and for a plan that
    breaks the contract; ValueError for two requests of one name.
    """
    trace = Trace(requests, label=label)
    state = State(pool)
    last = _output_lengths(trace.requests, policy, state)
    queue = deque(sorted(trace.requests, key=lambda request: request.arrival))
    measured = scheduling is None and getattr(executor, "measured", False)
    timed = measured and getattr(executor, "timed", False)
    host = dict.fromkeys(("commit", "decide", "apply", "launch"), 0.0)
    flight: _Flight | None = None
    batch: Batch | None = None
    now = skipped = recording = 0.0  # s
    zero = perf_counter()

    def land(flight: _Flight, now: float) -> float:
        """Wait for a step, record it, and say when it ended. `now`: the end of the step before."""
        nonlocal recording
        seconds, tokens = flight.handle.wait()
        if not 0 <= seconds < float("inf"):
            raise ValueError(f"step {len(trace.steps)}: execution took {seconds} s")
        start = max(flight.ready, now)
        end = start + seconds
        landed = perf_counter() if measured else 0.0
        if measured:
            clock = landed - zero + skipped
            end = max(start, min(end, clock) if overlap else clock)
        timings = flight.timings and flight.timings | flight.handle.timings  # type: ignore[attr-defined]
        times = (flight.scheduled, flight.dispatched, start, end)
        trace.record(flight.batch, times, flight.blocks_used, timings)
        for rid, token in tokens.items():
            trace.outputs.setdefault(rid, []).append(token)
        if timed:
            recording += perf_counter() - landed
        return end

    ended = 0.0  # end of the last step that has landed
    while True:
        began = perf_counter()
        if batch is not None:
            state.commit(batch)
        while queue and queue[0].arrival <= now:
            request = queue.popleft()
            state.arrive(request, last[request.rid])
        committed = perf_counter()
        if not state:
            batch = None
            if flight:  # nothing to schedule: let it land
                now = ended = land(flight, ended)
                flight = None
            elif queue:  # nothing to do until somebody comes
                skipped += queue[0].arrival - now
                now = queue[0].arrival
            else:
                break
            continue
        checked = state.check_s
        plan = state.ask(policy, now)
        decided = perf_counter()
        batch = state.apply(plan)
        applied = perf_counter()
        used, handle = state.pool.n_used, executor.launch(batch, state.tables)
        launched = perf_counter()
        check = state.check_s - checked
        timings = None
        if timed:
            timings = {"decide": decided - committed, "blocks": applied - decided - check, "check": check}
            timings["book"], recording = committed - began + recording, 0.0
        host["commit"] += committed - began
        host["decide"] += decided - committed
        host["apply"] += applied - decided
        host["launch"] += launched - applied

        if measured:  # what a device runs already while its kernels are being launched is execution
            launched -= getattr(handle, "underway", 0.0)
            ready = max(now, launched - zero + skipped)
            dispatched = max(now, ready - check)
        else:
            seconds = launched - began - check if scheduling is None else scheduling(batch)
            if not 0 <= seconds < float("inf"):
                raise ValueError(f"step {state.n_steps}: scheduling took {seconds} s")
            ready = dispatched = now + seconds
        previous, flight = flight, _Flight(batch, handle, now, dispatched, ready, used, timings)
        if overlap:  # the next step is scheduled while this one runs: it begins when this one starts
            if previous:
                ended = land(previous, ended)
            now = max(ready, ended, perf_counter() - zero + skipped if measured else 0.0)
        else:
            now = ended = land(flight, ended)
            flight = None
    trace.host = host | {"check": state.check_s}
    return trace


def _output_lengths(requests: Iterable[Request], policy: Any, state: State) -> dict[Rid, int]:
    """Tokens that each request will emit; ScheduleError for one that could never finish."""
    max_len, max_prompt = getattr(policy, "max_model_len", None), getattr(policy, "max_prompt", None)
    pool, lengths = state.pool, {}
    for request in requests:
        name, n_prompt, n_output = f"request {request.rid}", request.n_prompt, request.n_output
        if max_len is not None:
            n_output = min(n_output, max_len - n_prompt)
            if n_output < 1:
                raise ScheduleError(f"{name}: {n_prompt} prompt tokens, max_model_len is {max_len}")
        if max_prompt is not None and n_prompt > max_prompt:
            raise ScheduleError(f"{name}: {n_prompt} prompt tokens, the policy takes at most {max_prompt}")
        need = pool.blocks_for(n_prompt + n_output - 1)
        if pool.n_blocks is not None and need > pool.n_free:
            tokens = f"{n_prompt} + {n_output} - 1 tokens need {need} blocks of {pool.block_size}"
            raise ScheduleError(f"{name}: could never finish, {tokens}, the pool has {pool.n_free}")
        lengths[request.rid] = n_output
    return lengths
