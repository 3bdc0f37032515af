"""What a run leaves behind: columns inside, steps to read, JSON on disk."""

from __future__ import annotations

import json
import math
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from typing import Any, overload

from chunkprefill.scheduling.arguments import as_requests
from chunkprefill.scheduling.core import Batch, Request, Rid, Step
from chunkprefill.strict import loads

FORMAT, VERSION = "chunkprefill-trace", 1
TIMES = ("scheduled", "dispatched", "start", "end")  # s
CHUNK = ("request", "first", "length", "emits")
#: How the processor's time of a step divides. decide: the policy's plan; blocks: taking memory and deriving
#: the batch; inputs: the strip of tokens and what attention must know; launch: handing the pass over; read:
#: sampling and reading tokens back; book: recording and committing the step before, arrivals.
PARTS = ("decide", "blocks", "inputs", "launch", "read", "book")
#: Timed beside them. check: the contract; wait: the loop stands still for the pass; execution: the pass
#: itself, by the device's clock; gap: the device's idle time before it.
BESIDE = ("check", "wait", "execution", "gap")


class Trace:
    """Requests, steps and outputs of one run; metrics, plots and grading read this and nothing else.

    `steps` reads as a sequence of `Step`, made when looked at: inside, a chunk is 11 bytes. `columns`: one
    entry a chunk, "request" (index into `requests`), "first" (position), "length", "emits"; one a step,
    "scheduled", "dispatched", "start", "end" (s), "blocks_used" and "offset" (of its first chunk; one more at
    the end). `outputs`: {rid: [token, ...]}, empty where nothing was computed. `host`: seconds that the loop
    itself took, by part ("check": the contract's). `timings`: s, one a step, by the names of `PARTS` and
    `BESIDE`; empty where nothing was measured. Neither is part of a comparison.
    """

    def __init__(
        self,
        requests: Iterable[Request],
        steps: Iterable[Step] = (),
        outputs: Mapping[Rid, Iterable[int]] | None = None,
        label: str = "",
    ) -> None:
        self.requests = as_requests(requests)
        self.label = label
        self.outputs = {rid: list(tokens) for rid, tokens in (outputs or {}).items()}
        self.host: dict[str, float] = {}
        self.timings: dict[str, array] = {}
        index = "H" if len(self.requests) < 1 << 16 else "I"  # two bytes a chunk, or four
        self.columns: dict[str, array] = {"request": array(index), "first": array("I"), "length": array("I")}
        self.columns |= {"emits": array("B"), "offset": array("Q", [0]), "blocks_used": array("Q")}
        self.columns |= {name: array("d") for name in TIMES}
        self.preempted: dict[int, tuple[Rid, ...]] = {}  # step -> whom it evicted, where it did
        self._rids: tuple[Rid, ...] = ()
        self._rows = array(index)
        self._index: dict[Rid, int] = {}
        for i, request in enumerate(self.requests):
            if self._index.setdefault(request.rid, i) != i:
                raise ValueError(
                    f"request {request.rid}: name used twice among {len(self.requests)} requests"
                )
        for step in steps:
            times = (step.scheduled, step.dispatched, step.start, step.end)
            self.record(step.batch, times, step.blocks_used)

    def record(
        self,
        batch: Batch,
        times: tuple[float, float, float, float],
        blocks_used: int,
        timings: Mapping[str, float] | None = None,
    ) -> None:
        """Append a step; the loop's to call, with the same names of timings at every step, or none."""
        columns = self.columns
        if batch.rid != self._rids:  # mostly they are those of the step before
            rows = map(self._index.__getitem__, batch.rid)
            self._rids, self._rows = batch.rid, array(self._rows.typecode, rows)
        columns["request"].extend(self._rows)
        columns["first"].fromlist(list(batch.start))
        columns["length"].fromlist(list(batch.length))
        columns["emits"].frombytes(bytes(batch.emits))
        if batch.preempted:
            self.preempted[len(columns["end"])] = batch.preempted
        for name, time in zip(TIMES, times):
            columns[name].append(time)
        columns["blocks_used"].append(blocks_used)
        columns["offset"].append(len(columns["length"]))
        if timings:
            if not self.timings:
                self.timings = {name: array("d") for name in timings}
            for name, column in self.timings.items():  # a step that only evicts has no pass to time
                column.append(timings.get(name, 0.0))

    @property
    def parts(self) -> dict[str, array]:
        """Seconds of processor time of each step, by the names of `PARTS`; {} where nothing was measured."""
        return {name: self.timings[name] for name in PARTS if name in self.timings}

    @property
    def gaps(self) -> array:
        """Seconds that the GPU was idle before each step, by its own clock; empty where there was none.

        From the end of the step before to the beginning of this one; copies of inputs fall in it, idle
        moments between the kernels of a step do not. The first is 0.
        """
        return self.timings.get("gap", array("d"))

    @property
    def steps(self) -> Steps:
        """The steps, in order."""
        return Steps(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trace) and _compared(self) == _compared(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        name = f"{self.label}: " if self.label else ""
        chunks = len(self.columns["length"])
        return f"<Trace {name}{len(self.requests)} requests, {len(self.steps)} steps, {chunks} chunks>"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write JSON with a schema version; floats survive exactly."""
        fields = ("rid", "arrival", "n_prompt", "n_output", "prompt", "priority", "segments", "blocks")
        requests = [[getattr(request, name) for name in fields] for request in self.requests]
        document = {
            "format": FORMAT,
            "version": VERSION,
            "label": self.label,
            "requests": {"fields": fields, "rows": requests},
            "outputs": list(self.outputs.items()),
            "host": self.host,
            "preempted": [[step, *rids] for step, rids in self.preempted.items()],
            "columns": {name: column.tolist() for name, column in self.columns.items()},
            "timings": {name: column.tolist() for name, column in self.timings.items()},
        }
        text = json.dumps(document, separators=(",", ":"), allow_nan=False)
        Path(path).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Trace:
        """Read what `save` wrote. ValueError naming the file and what is wrong with it."""
        try:
            document = loads(Path(path).read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: not a trace, or cut off: {error}") from None
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ValueError(f"{path}: not a trace (its format is not {FORMAT!r})")
        if document.get("version") != VERSION:
            raise ValueError(f"{path}: trace of version {document.get('version')!r}, this reads {VERSION}")
        try:
            return cls._read(document)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise ValueError(f"{path}: a broken trace: {type(error).__name__}: {error}") from None

    @classmethod
    def _read(cls, document: dict[str, Any]) -> Trace:
        fields = document["requests"]["fields"]
        trace = cls(Request(**dict(zip(fields, row, strict=True))) for row in document["requests"]["rows"])
        trace.label = str(document["label"])
        trace.host = {str(part): float(seconds) for part, seconds in document["host"].items()}
        for rid, tokens in document["outputs"]:
            _require(rid in trace._index, f"outputs of request {rid!r}, which is not among the requests")
            trace.outputs[rid] = array("Q", tokens).tolist()
        trace.columns = {
            name: array(empty.typecode, document["columns"][name]) for name, empty in trace.columns.items()
        }
        trace.timings = {name: array("d", column) for name, column in document.get("timings", {}).items()}
        trace.preempted = {step: tuple(rids) for step, *rids in document["preempted"]}
        trace._check()
        return trace

    def _check(self) -> None:
        """Rules that a recorded run keeps by construction, and that a file can break."""
        c, n_chunks, n_steps = self.columns, len(self.columns["length"]), len(self.columns["end"])
        _require(all(len(c[name]) == n_chunks for name in CHUNK), "columns of chunks differ in length")
        _require(all(len(c[name]) == n_steps for name in (*TIMES, "blocks_used")), "columns of steps differ")
        offset = c["offset"]
        _require(len(offset) == n_steps + 1 and offset[0] == 0 and offset[-1] == n_chunks, "bad offsets")
        _require(all(a <= b for a, b in pairwise(offset)), "offsets go backwards")
        _require(max(c["request"], default=-1) < len(self.requests), "a chunk of a request that is not there")
        _require(min(c["length"], default=1) > 0 and max(c["emits"], default=0) < 2, "a chunk of no token")
        most = [request.n_prompt + request.n_output for request in self.requests]
        fits = (s + n <= most[r] for r, s, n in zip(c["request"], c["first"], c["length"]))
        _require(all(fits), "a chunk beyond the end of its request")
        for i, times in enumerate(zip(*(c[name] for name in TIMES))):
            _require(
                all(map(math.isfinite, times)) and list(times) == sorted(times), f"times of step {i}: {times}"
            )
        _require(
            all(a <= b for a, b in zip(c["end"], c["start"][1:])), "a step starts before the last one ends"
        )
        for name, column in self.timings.items():
            good = name in (*PARTS, *BESIDE) and len(column) == n_steps
            _require(good and all(0 <= s < math.inf for s in column), f"timings of {name!r}")
        for step, rids in self.preempted.items():
            known = isinstance(step, int) and 0 <= step < n_steps and all(rid in self._index for rid in rids)
            _require(known, f"evictions {rids} at step {step!r}")


_compared = attrgetter("requests", "label", "outputs", "steps")


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(what)


class Steps(Sequence[Step]):
    """The steps of a trace as a sequence; compares by value."""

    __slots__ = ("_trace",)

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def __len__(self) -> int:
        return len(self._trace.columns["end"])

    @overload
    def __getitem__(self, i: int) -> Step: ...
    @overload
    def __getitem__(self, i: slice) -> list[Step]: ...
    def __getitem__(self, i: int | slice) -> Step | list[Step]:
        if isinstance(i, slice):
            return [self._step(j) for j in range(*i.indices(len(self)))]
        if not -len(self) <= i < len(self):
            raise IndexError(f"step {i} of {len(self)}")
        return self._step(i % len(self))

    def __iter__(self) -> Iterator[Step]:
        return map(self._step, range(len(self)))

    def _step(self, i: int) -> Step:
        c, requests = self._trace.columns, self._trace.requests
        rows = slice(c["offset"][i], c["offset"][i + 1])
        rids = tuple(requests[r].rid for r in c["request"][rows])
        emits = tuple(map(bool, c["emits"][rows]))
        evicted = self._trace.preempted.get(i, ())
        batch = Batch(rids, tuple(c["first"][rows]), tuple(c["length"][rows]), emits, evicted)
        scheduled, dispatched, start, end = (c[name][i] for name in TIMES)
        return Step(scheduled, dispatched, start, end, batch, c["blocks_used"][i])

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Steps) and self._trace.requests == other._trace.requests:
            mine, other_s = self._trace, other._trace
            return mine.columns == other_s.columns and mine.preempted == other_s.preempted
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(Step.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"[{', '.join(map(repr, self))}]"
