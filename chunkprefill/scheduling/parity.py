"""Recorded decisions of the real vLLM scheduler, replayed: `python -m chunkprefill parity FILE...`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.core import Batch, Plan, Request, ScheduleError
from chunkprefill.scheduling.loop import NO_BATCH, Known, Policy, output_lengths, serve
from chunkprefill.scheduling.state import State
from chunkprefill.scheduling.trace import Trace
from chunkprefill.scheduling.vllm import VllmV1
from chunkprefill.strict import loads, printable, shown
from chunkprefill.whole import as_flag

FIELDS = ("scheduled", "preempted", "sampled", "finished", "num_running", "num_waiting", "free_blocks")
WITH_HITS = (*FIELDS, "hits")  # of a recording with prefix caching
MOST_TOKENS = 10_000_000  # of all requests of a case: a recording is not larger, a hostile file may be


@dataclass(frozen=True)
class RecordedCase:
    """One recording: what was asked, under which settings, and what was decided at each step."""

    name: str
    policy: VllmV1
    pool: BlockPool
    requests: tuple[Request, ...]
    steps: list[dict[str, Any]]  # FIELDS of each, perhaps `hits`; "scheduled" as pairs: its order counts
    overlap: bool = False  # asynchronous scheduling


def one_second(batch: Batch) -> float:
    """The price of scheduling a step, which takes all of its time: step t is decided at second t."""
    return 1.0


class NoTime:
    """An executor that takes no time, because a recording counts steps, not seconds."""

    def launch(self, batch: Batch, tables: object) -> Known:
        """Nothing to do."""
        return Known()


class Logged:
    """A policy that writes down what the other one was shown and what it decided, at every question."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.max_model_len = getattr(policy, "max_model_len", None)
        self.max_prompt = getattr(policy, "max_prompt", None)
        self.log: list[dict[str, Any]] = []

    def schedule(self, state: State) -> Plan:
        """The policy's plan."""
        plan = self.policy.schedule(state)
        waiting = {rid for rid in plan.tokens if rid not in state.running}
        change = len(waiting) - len(plan.preempted)
        self.log.append(
            {
                "second": state.now,
                "plan": plan,
                "num_running": len(state.running) + change,
                "num_waiting": len(state.waiting) - change,
                "free_blocks": state.pool.n_free,  # as long as the plan takes none
                "admitted": waiting,
            }
        )
        return plan


def load(path: str) -> list[RecordedCase]:
    """The cases of a file (one, or under "cases"). ValueError naming the file, the case and what is wrong."""
    try:
        with open(path, encoding="utf-8") as file:
            document = loads(file.read())
    except OSError as error:
        raise ValueError(f"{path}: cannot be opened: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read as JSON: {error}") from None
    return cases_of(document, path)


def cases_of(document: Any, path: str) -> list[RecordedCase]:
    """The cases of a recording that was read. Errors: `load`."""
    raw = document.get("cases", [document]) if isinstance(document, dict) else document
    if not isinstance(raw, list) or not raw:
        raise ValueError(f"{path}: no cases in it")
    cases = []
    for i, case in enumerate(raw):
        name = str(case.get("name", f"case {i}")) if isinstance(case, dict) else f"case {i}"
        try:
            cases.append(_case(name, case))
        except KeyError as error:
            raise ValueError(f"{path}: {name}: {error} is missing") from None
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ValueError(f"{path}: {name}: malformed: {error}") from None
    return cases


def _case(name: str, case: dict[str, Any]) -> RecordedCase:
    config = dict(case["config"])
    caching, overlap = _flag(config, "prefix_caching"), _flag(config, "async_scheduling")
    pool = BlockPool(config.pop("num_blocks"), config.pop("block_size"), caching)
    pool.withdrawn_count = True
    requests = tuple(_request(row) for row in case["requests"])
    if any(r.arrival % 1 for r in requests):
        raise ValueError("arrival_step must be whole")
    if sum(r.n_prompt + r.n_output for r in requests) > MOST_TOKENS:
        raise ValueError(f"more than {MOST_TOKENS} tokens")
    Trace(requests)  # refuses a name that is used twice
    steps = []
    for i, step in enumerate(case["steps"]):
        if step.get("step", i) != i:
            raise ValueError(f"step {i} calls itself {step['step']!r}")
        row = {field: step[field] for field in (WITH_HITS if caching else FIELDS)}
        steps.append({**row, "scheduled": list(row["scheduled"].items())})
    return RecordedCase(name, VllmV1(**config), pool, requests, steps, overlap)


def _flag(config: dict[str, Any], name: str) -> bool:
    """A setting that older recordings do not have, taken out of `config`: then it is off."""
    value = config.pop(name, None)
    flag = False if value is None else as_flag(value)
    if flag is None:
        raise ValueError(f"{name} is {shown(value)}, true or false is needed")
    return flag


def _request(row: dict[str, Any]) -> Request:
    """A recorded request: its prompt is a number of tokens, or segments that others may share."""
    segments = row.get("segments")
    if segments is not None:
        segments = tuple((str(name), n) for name, n in segments)
    n_prompt = row["prompt_tokens"] if segments is None else sum(n for _, n in segments)
    if row.get("prompt_tokens", n_prompt) != n_prompt:
        raise ValueError(
            f"request {row['id']}: prompt_tokens is {shown(row['prompt_tokens'])} and its segments hold {n_prompt}"
        )
    return Request(
        row["id"],
        row["arrival_step"],
        n_prompt,
        row["output_tokens"],
        priority=row.get("priority", 0),
        segments=segments,
    )


@dataclass(frozen=True)
class ReplayedCase:
    """A case served by our loop: the trace, and what was decided at each question, in seconds that are steps."""

    policy: Policy
    trace: Trace
    log: list[dict[str, Any]]


def replayed(case: RecordedCase, policy: Policy | None = None) -> ReplayedCase:
    """Serve the requests of a case, step t at second t. policy: in place of the recorded settings."""
    logged = Logged(policy or case.policy)
    trace = serve(case.requests, logged, NoTime(), case.pool, scheduling=one_second, overlap=case.overlap)
    return ReplayedCase(logged, trace, logged.log)


def decisions(case: RecordedCase, replay: ReplayedCase) -> Iterator[dict[str, Any]]:
    """What `serve` decided, as vLLM's scheduler would log it, step by step, idle ones too.

    Counts are those after scheduling. Without asynchronous scheduling a step's tokens are known in the same
    step; with it they land after the next one has been scheduled, and what finishes is freed then.
    """
    steps = {step.scheduled: step for step in replay.trace.steps}
    log = {entry["second"]: entry for entry in replay.log}
    emitted: dict[Any, int] = {}
    last = output_lengths(case.requests, replay.policy, case.pool)
    n_seconds = int(max(log, default=-1)) + 1
    n_blocks = case.pool.n_blocks or 0
    idle = {"num_running": 0, "num_waiting": 0, "free_blocks": n_blocks, "admitted": ()}
    in_flight: list[Any] = []  # requests whose token is on its way
    for second in range(n_seconds):
        entry, step = log.get(second, idle), steps.get(second)
        batch = step.batch if step else NO_BATCH
        emits = [chunk.rid for chunk in batch if chunk.emits]
        sampled, in_flight = (in_flight, emits) if case.overlap else (emits, [])
        for rid in sampled:
            emitted[rid] = emitted.get(rid, 0) + 1
        row = {
            "scheduled": list(zip(batch.rid, batch.length)),
            "preempted": list(batch.preempted),
            "sampled": sampled,
            "finished": [rid for rid in sampled if emitted[rid] == last[rid]],
            "num_running": entry["num_running"],
            "num_waiting": entry["num_waiting"],
            "free_blocks": n_blocks - step.blocks_used if step else entry["free_blocks"],
        }
        if case.pool.prefix_caching:
            row["hits"] = {chunk.rid: chunk.start for chunk in batch if chunk.rid in entry["admitted"]}
        yield row


def compare(case: RecordedCase) -> str | None:
    """None if every step is equal, field by field; else the first that differs, with both decisions."""
    try:
        rows = decisions(case, replayed(case))
    except ScheduleError as error:
        return f"cannot be replayed: {error}"
    for i, recorded in enumerate(case.steps):
        mine = next(rows, None)
        if mine != recorded:
            return _difference(i, recorded, mine)
    if (mine := next(rows, None)) is not None:
        return _difference(len(case.steps), None, mine)
    return None


def _difference(i: int, recorded: dict[str, Any] | None, replayed: dict[str, Any] | None) -> str:
    def line(step: dict[str, Any] | None) -> str:
        if step is None:
            return "no such step, all is finished"
        step = {**step, "scheduled": dict(step["scheduled"])}
        return ", ".join(f"{field} {step[field]}" for field in step)

    fields = [f for f in WITH_HITS if recorded and replayed and recorded.get(f) != replayed.get(f)]
    where = f" in {', '.join(fields)}" if fields else ""
    return f"step {i} differs{where}\n  recorded: {line(recorded)}\n  replayed: {line(replayed)}"


def main(paths: Iterable[str]) -> int:
    """Replay the files, a line a case; 0 if all is equal, 1 if something differs, 2 for a malformed file."""
    n_cases = n_steps = n_differences = n_malformed = 0
    for path in paths:
        try:
            cases = load(str(path))
        except ValueError as error:
            n_malformed += 1
            print(printable(" ".join(str(error).split())), file=sys.stderr)
            continue
        for case in cases:
            difference = compare(case)
            name = " ".join(case.name.split())
            print(printable(f"{name}: {difference or f'equal, {len(case.steps)} steps'}"))
            n_cases, n_steps = n_cases + 1, n_steps + len(case.steps)
            n_differences += difference is not None
    print(f"{n_cases} cases, {n_steps} steps, {n_differences} differences")
    return 1 if n_differences else 2 if n_malformed else 0
