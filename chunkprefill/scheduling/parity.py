"""Recorded decisions of the real vLLM scheduler, replayed: `python -m chunkprefill parity FILE...`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.core import Batch, Request, ScheduleError
from chunkprefill.scheduling.serve import serve
from chunkprefill.scheduling.trace import Trace
from chunkprefill.scheduling.vllm import VllmV1

FIELDS = ("scheduled", "preempted", "sampled", "finished", "num_running", "num_waiting", "free_blocks")
MOST_TOKENS = 10_000_000  # of all requests of a case: a recording is not larger, a hostile file may be


@dataclass(frozen=True)
class Case:
    """One recording: what was asked, under which settings, and what was decided at each step."""

    name: str
    policy: VllmV1
    pool: BlockPool
    requests: tuple[Request, ...]
    steps: list[dict[str, Any]]  # FIELDS of each; "scheduled" as pairs, for its order counts


class Unit:
    """An executor under which every step takes one second: step t is second t."""

    def launch(self, batch: Batch, tables: object) -> Unit:
        """Nothing to do."""
        return self

    def wait(self) -> tuple[float, dict]:
        """One second, no token."""
        return 1.0, {}


def load(path: str) -> list[Case]:
    """The cases of a file (one, or under "cases"). ValueError naming the file, the case and what is wrong."""
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read as JSON: {error}") from None
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


def _case(name: str, case: dict[str, Any]) -> Case:
    config = dict(case["config"])
    pool = BlockPool(config.pop("num_blocks"), config.pop("block_size"))
    requests = tuple(
        Request(
            r["id"], r["arrival_step"], r["prompt_tokens"], r["output_tokens"], None, r.get("priority", 0)
        )
        for r in case["requests"]
    )
    if any(r.arrival % 1 for r in requests):
        raise ValueError("arrival_step must be whole")
    if sum(r.n_prompt + r.n_output for r in requests) > MOST_TOKENS:
        raise ValueError(f"more than {MOST_TOKENS} tokens")
    Trace(requests)  # refuses a name that is used twice
    steps = []
    for i, step in enumerate(case["steps"]):
        if step.get("step", i) != i:
            raise ValueError(f"step {i} calls itself {step['step']!r}")
        row = {field: step[field] for field in FIELDS}
        steps.append({**row, "scheduled": list(row["scheduled"].items())})
    return Case(name, VllmV1(**config), pool, requests, steps)


def decisions(trace: Trace, n_blocks: int) -> Iterator[dict[str, Any]]:
    """A trace of unit steps as vLLM's scheduler would log it, second by second, idle ones too.

    Counts are those after scheduling, before what finished is freed.
    """
    last = {rid: i for i, step in enumerate(trace.steps) for rid in step.batch.rid}
    running: set = set()
    gone: set = set()
    idle: dict[str, Any] = {"scheduled": [], "preempted": [], "sampled": [], "finished": []}
    second = 0
    for i, step in enumerate(trace.steps):
        while second < step.scheduled:
            second += 1
            yield {**idle, "num_running": 0, "num_waiting": 0, "free_blocks": n_blocks}
        batch = step.batch
        running = running.difference(batch.preempted).union(batch.rid)
        sampled = [chunk.rid for chunk in batch if chunk.emits]
        finished = [rid for rid in sampled if last[rid] == i]
        n_arrived = sum(request.arrival <= second for request in trace.requests)
        yield {
            "scheduled": list(zip(batch.rid, batch.length)),
            "preempted": list(batch.preempted),
            "sampled": sampled,
            "finished": finished,
            "num_running": len(running),
            "num_waiting": n_arrived - len(gone) - len(running),
            "free_blocks": n_blocks - step.blocks_used,
        }
        gone.update(finished)
        running.difference_update(finished)
        second += 1


def compare(case: Case) -> str | None:
    """None if every step is equal, field by field; else the first that differs, with both decisions."""
    try:
        trace = serve(case.requests, case.policy, Unit(), case.pool, scheduling=lambda batch: 0.0)
    except ScheduleError as error:
        return f"cannot be replayed: {error}"
    replayed = decisions(trace, case.pool.n_blocks or 0)
    for i, recorded in enumerate(case.steps):
        mine = next(replayed, None)
        if mine != recorded:
            return _difference(i, recorded, mine)
    if (mine := next(replayed, None)) is not None:
        return _difference(len(case.steps), None, mine)
    return None


def _difference(i: int, recorded: dict[str, Any] | None, replayed: dict[str, Any] | None) -> str:
    def line(step: dict[str, Any] | None) -> str:
        if step is None:
            return "no such step, all is finished"
        step = {**step, "scheduled": dict(step["scheduled"])}
        return ", ".join(f"{field} {step[field]}" for field in FIELDS)

    fields = [f for f in FIELDS if recorded and replayed and recorded[f] != replayed[f]]
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
            print(" ".join(str(error).split()), file=sys.stderr)
            continue
        for case in cases:
            difference = compare(case)
            print(f"{case.name}: {difference or f'equal, {len(case.steps)} steps'}")
            n_cases, n_steps = n_cases + 1, n_steps + len(case.steps)
            n_differences += difference is not None
    print(f"{n_cases} cases, {n_steps} steps, {n_differences} differences")
    return 1 if n_differences else 2 if n_malformed else 0
