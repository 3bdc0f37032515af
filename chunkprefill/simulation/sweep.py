"""Many simulations at once, on any `concurrent.futures.Executor`, that survive being killed."""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, as_completed
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from chunkprefill.metrics.summary import summary
from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.core import Request
from chunkprefill.scheduling.trace import Trace
from chunkprefill.simulation.cost import Roofline
from chunkprefill.simulation.simulate import simulate
from chunkprefill.whole import briefly

Row = dict[str, Any]


class Task(NamedTuple):
    """One simulation: everything it needs, so that it runs anywhere."""

    workload: str
    policy: str
    requests: Sequence[Request]
    scheduler: Any
    cost: Any
    options: Mapping[str, Any]
    reduce: Callable[[Trace], Mapping[str, Any]]


def summarise(trace: Trace) -> dict[str, Any]:
    """What a sweep keeps of a trace by default: `summary(trace)`, flat."""
    return summary(trace).as_dict()


def simulated(task: Task) -> dict[str, Any]:
    """One simulation, reduced to what is kept; the function that workers call."""
    trace = simulate(task.requests, task.scheduler, task.cost, **task.options)
    return dict(task.reduce(trace))


def sweep(
    workloads: Mapping[str, Iterable[Request]],
    policies: Mapping[str, Any] | Iterable[Any],
    cost: Any = None,
    *,
    executor: Executor | int | None = None,
    out: str | os.PathLike[str] | None = None,
    reduce: Callable[[Trace], Mapping[str, Any]] | None = None,
    pool: BlockPool | None = None,
    scheduling: Any = None,
    overlap: bool = False,
    progress: bool = True,
) -> list[Row]:
    """Simulate each workload under each policy; one row each, in that order, whichever ends first.

    workloads: {label: requests}. policies: {label: policy}, or policies (labelled by their repr).
    cost, pool, scheduling, overlap: as in `simulate`. reduce: Trace -> what to keep, of JSON's types
    (default: all of `summary`). A row is that with "workload" and "policy" in front.
    executor: None runs here; a whole number starts that many processes; any `concurrent.futures.Executor` is
    used and left open, such as Dask's `Client(...).get_executor()`.
    out: a file that gets a line of JSON as each simulation ends. A sweep that is started again with it runs
    only what is missing: a line counts if workload, policy, cost, options and `reduce` are the same, their
    source code included. A last line that was cut off is dropped.

    What a dead process had in hand is run again, twice at most (Dask does so by itself). Raises ValueError
    for an `out` that is no such file, RuntimeError if workers keep dying, and what a simulation raised, when
    the others have ended. What landed is kept.
    """
    from tqdm import tqdm

    if not isinstance(workloads, Mapping):
        raise ValueError(f"workloads is {briefly(workloads)}: {{label: requests}} is needed")
    if not isinstance(policies, Iterable):
        raise ValueError(f"policies is {briefly(policies)}: a list of them, or {{label: policy}}, is needed")
    named = policies.items() if isinstance(policies, Mapping) else [(repr(p), p) for p in policies]
    options = {"pool": pool, "scheduling": scheduling, "overlap": overlap}
    each = [
        Task(str(w), str(p), tuple(requests), policy, cost or Roofline(), options, reduce or summarise)
        for (w, requests), (p, policy) in product([(w, tuple(r)) for w, r in workloads.items()], named)
    ]
    shared: dict[int, str] = {}  # what the requests of a workload hash to, once
    keys = [_key(task, shared) for task in each]
    if len(set(keys)) < len(keys):
        raise ValueError("two tasks of the sweep are the same: give each workload and policy its own label")
    store = _Store(out)
    missing = [i for i, key in enumerate(keys) if key not in store.rows]
    done = len(each) - len(missing)
    with tqdm(total=len(each), initial=done, desc="simulations", disable=not progress) as bar:
        for i, row in _results(each, missing, executor):
            store.add(keys[i], {"workload": each[i].workload, "policy": each[i].policy, **row})
            bar.update()
    return [store.rows[key] for key in keys]


def _results(
    tasks: list[Task], missing: list[int], executor: Executor | int | None
) -> Iterable[tuple[int, Row]]:
    """(index, row) of each missing task, as they finish."""
    if executor is None:
        for i in missing:
            yield i, simulated(tasks[i])
        return
    left, lives = set(missing), 3
    while left:
        pool = ProcessPoolExecutor(executor) if isinstance(executor, int) else executor
        died: BrokenExecutor | None = None
        failed: Exception | None = None
        futures: dict[Future[Row], int] = {}
        try:
            try:
                futures |= {pool.submit(simulated, tasks[i]): i for i in sorted(left)}
            except BrokenExecutor as error:  # while the last ones were handed over
                died = error
            for future in as_completed(futures):  # whatever becomes of one, the others land
                i = futures[future]
                try:
                    row = future.result()
                except BrokenExecutor as error:
                    died = error
                    continue
                except Exception as error:
                    error.add_note(f"in the simulation of {tasks[i].workload} under {tasks[i].policy}")
                    failed = failed or error
                else:
                    yield i, row
                left.discard(i)
        finally:
            for future in futures:
                future.cancel()
            if isinstance(executor, int):
                pool.shutdown(cancel_futures=True)
        if failed:
            raise failed
        lives -= died is not None
        if died and not (lives and isinstance(executor, int)):
            raise RuntimeError(f"workers died, {len(left)} of {len(tasks)} simulations are missing") from died
        if died:
            print(f"a worker died; {len(left)} simulations are run again", file=sys.stderr)


class _Store:
    """Rows by key, each on disk before it counts."""

    def __init__(self, out: str | os.PathLike[str] | None) -> None:
        self.path, self.rows = None if out is None else Path(out), dict[str, Row]()
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = self.path.read_bytes() if self.path.exists() else b""
        whole, _, cut = text.rpartition(b"\n")
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                entry = json.loads(line)
                self.rows[str(entry["key"])] = dict(entry["row"])
            except (ValueError, KeyError, TypeError, RecursionError):
                raise ValueError(f"{self.path}, line {number}: not a result of a sweep") from None
        if cut:  # killed while it was written
            if not cut.startswith(b'{"key"'[: len(cut)]):
                raise ValueError(f"{self.path}: not a file of a sweep's results")
            with self.path.open("r+b") as file:
                file.truncate(len(text) - len(cut))

    def add(self, key: str, row: Row) -> None:
        """Keep a row; what JSON cannot hold raises ValueError before anything is written."""
        try:
            line = json.dumps({"key": key, "row": row}, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{row['workload']}, {row['policy']}: `reduce` must give JSON's types: {error}"
            ) from None
        self.rows[key] = json.loads(line)["row"]  # the same whether it was run now or read back
        if self.path:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())


def _key(task: Task, shared: dict[int, str]) -> str:
    """What a result depends on, hashed: the same key, the same result."""
    if id(task.requests) not in shared:
        shared[id(task.requests)] = sha256(repr(task.requests).encode()).hexdigest()
    pool = task.options["pool"]
    parts = [task.workload, task.policy, shared[id(task.requests)], task.options["overlap"]]
    parts += [repr(pool and (pool.n_blocks, pool.block_size, pool.n_used))]
    parts += [
        _identity(thing) for thing in (task.scheduler, task.cost, task.options["scheduling"], task.reduce)
    ]
    return sha256("\n".join(map(str, parts)).encode()).hexdigest()[:24]


def _identity(thing: Any) -> str:
    """Its values and its source: a policy that was edited in a notebook is another policy."""
    kind = thing if inspect.isfunction(thing) else type(thing)
    try:
        source = inspect.getsource(kind)
    except (OSError, TypeError):
        source = ""
    captured = [repr(cell.cell_contents) for cell in getattr(thing, "__closure__", None) or ()]
    values = "" if inspect.isfunction(thing) else repr(thing)
    return repr((kind.__module__, kind.__qualname__, values, captured, source))
