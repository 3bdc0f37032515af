"""What a submission can be asked, and how it may fail to answer; the same in a sandbox and without one."""

from __future__ import annotations

import builtins
import secrets
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from chunkprefill.scheduling.core import Plan
from chunkprefill_grading.sandbox import wire
from chunkprefill_grading.sandbox.wire import (
    FORMS,
    SMALL_ROOM,
    VALUE_ROOM,
    ArraySpec,
    BadValue,
    Room,
    array_room,
)
from chunkprefill_grading.sandbox.worker import Worker

__all__ = [
    "ArraySpec",
    "BadAnswer",
    "Crashed",
    "LocalSession",
    "NoAnswer",
    "OutOfMemory",
    "Raised",
    "Refused",
    "RemotePolicy",
    "Session",
    "SessionEnded",
    "TimedOut",
]


class Refused(Exception):
    """A submission gave no usable answer. `name`: what was asked for; `why`: words for its student."""

    status = "no answer"

    def __init__(self, name: str = "", why: str = "") -> None:
        self.name, self.why = name, why
        super().__init__(f"{name}: {why}" if name and why else name or why)


class NoAnswer(Refused):
    """The notebook does not define the name, or leaves it as it was."""


class BadAnswer(Refused):
    """There is an answer, of a kind that none can be: type, size, shape, NaN."""

    status = "bad answer"


class Raised(Refused):
    """The student's code raised; `why` has the kind of error and the line of the notebook."""

    status = "raised"


class SessionEnded(Refused):
    """Nothing more can be asked.

    cell: the number of the code cell that ended it, or None. spent: s of CPU time, and of idle time.
    """

    status = "crashed"
    cell: int | None = None
    spent: tuple[float, float] = (0.0, 0.0)


class TimedOut(SessionEnded):
    """CPU time, or the wall clock behind it, ran out."""

    status = "timeout"


class OutOfMemory(SessionEnded):
    """More memory than a submission may have."""

    status = "memory"


class Crashed(SessionEnded):
    """The process is gone, or speaks nonsense."""


class Session(Protocol):
    """A notebook that has run. Every method may raise a `Refused`, whose words are the grader's own."""

    def value(self, name: str) -> Any:
        """What the notebook calls `name`: None, bool, int, finite float, str, lists and dicts of these."""

    def call(self, name: str, args: Sequence[Any], returns: Sequence[ArraySpec] | None = None) -> Any:
        """Call a function. args: JSON values and numpy arrays. returns: what must come back, as a list of
        numpy arrays; None: a JSON value."""

    def policy(self, name: str, args: Sequence[Any] | None = None) -> RemotePolicy:
        """A policy whose decisions are the submission's, one state at a time. args: to build it with."""


class Asking:
    """`Session` on top of one method: `ask(what, about, room, **with) -> JSON`, or a `Refused`."""

    _n_policies = 0
    cells: Sequence[str] = ()

    def ask(self, what: str, about: str, room: Room, /, **how: Any) -> Any:
        raise NotImplementedError

    def run_cells(self, skip: Collection[int] = ()) -> list[list[Any]]:
        """Run the cells in order, but for those in `skip`; [cell, words, was it memory] of those that failed.

        No hidden input has been sent when cells run, so what they say about their errors may be repeated.
        """
        troubles = []
        for number, source in enumerate(self.cells, 1):
            if number in skip:
                continue
            try:
                found = self.ask("cell", "", SMALL_ROOM, number=number, source=source)
            except SessionEnded as error:
                error.cell = number
                raise
            except Refused as error:  # the cells before it have broken the program that runs them
                troubles.append([number, f"it could not be run: {error.why or error.status}", False])
                continue
            troubles += [trouble(self.cells, number, row) for row in readable(found)]
        return troubles

    def value(self, name: str) -> Any:
        """See `Session`."""
        return read(name, self.ask("value", name, VALUE_ROOM, name=name))

    def call(self, name: str, args: Sequence[Any], returns: Sequence[ArraySpec] | None = None) -> Any:
        """See `Session`."""
        specs = None if returns is None else [[list(spec.shape), spec.dtype] for spec in returns]
        room = VALUE_ROOM if returns is None else array_room(returns)
        back = self.ask("call", name, room, name=name, args=[sendable(arg) for arg in args], returns=specs)
        if returns is None:
            return read(name, back)
        if type(back) is not list or len(back) != len(returns):
            raise BadAnswer(name, FORMS["count"])
        return [array(name, each, spec) for each, spec in zip(back, returns)]

    def policy(self, name: str, args: Sequence[Any] | None = None) -> RemotePolicy:
        """See `Session`."""
        self._n_policies += 1
        sent = None if args is None else [sendable(arg) for arg in args]
        self.ask("policy", name, SMALL_ROOM, name=name, args=sent, handle=self._n_policies)
        return RemotePolicy(self, name, self._n_policies)


class RemotePolicy:
    """Decides by asking the submission: it sees this state and no other, and never what is still to come."""

    def __init__(self, session: Asking, name: str, handle: int) -> None:
        self._session, self._name, self._handle = session, name, handle

    def schedule(self, state: Any) -> Plan:
        """The submission's plan for this state; BadAnswer if it is none. The contract is checked outside."""
        back = self._session.ask("schedule", self._name, SMALL_ROOM, handle=self._handle, state=seen(state))
        value = read(self._name, back)
        try:
            pairs, preempted = value
            tokens = dict(pairs)
            whole = all(type(each) in (int, float, bool, str) for each in tokens.values())
        except (TypeError, ValueError):
            raise BadAnswer(self._name, FORMS["plan"]) from None
        if not whole or type(preempted) is not list or len(tokens) != len(pairs):
            raise BadAnswer(self._name, FORMS["plan"])
        return Plan(tokens, tuple(preempted))

    def __str__(self) -> str:
        return self._name


def seen(state: Any) -> dict[str, Any]:
    """All that a policy may look at, as JSON."""

    def rows(line: Iterable[Any]) -> list[list[Any]]:
        return [[s.rid, s.n_prompt, s.arrival, s.priority, s.cached, s.known, s.order] for s in line]

    pool = state.pool
    return {
        "now": state.now,
        "n_steps": state.n_steps,
        "pool": [pool.n_blocks, pool.block_size, pool.n_used],
        "decoding": [s.rid for s in state.decoding],
        "waiting": rows(state.waiting),
        "running": rows(state.running),
    }


def sendable(value: Any) -> Any:
    """A JSON value or a numpy array (or a list of them) as it travels."""
    return wire.encode_value(_raw(value))


def _raw(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        dtype = value.dtype.name
        if dtype not in wire.SIZES:
            raise ValueError(f"an array of {dtype} cannot be sent: {', '.join(wire.SIZES)}")
        array = np.ascontiguousarray(value)
        return wire.Raw(tuple(value.shape), dtype, array.astype(array.dtype.newbyteorder("<")).tobytes())
    if isinstance(value, (list, tuple)):
        return [_raw(each) for each in value]
    return {key: _raw(each) for key, each in value.items()} if isinstance(value, dict) else value


def read(name: str, back: Any) -> Any:
    """What came back as a value without arrays, or BadAnswer."""
    try:
        value = wire.decode_value(back)
        _no_arrays(value)
    except BadValue as error:
        raise BadAnswer(name, str(error)) from None
    return value


def _no_arrays(value: Any) -> None:
    if isinstance(value, wire.Raw):
        raise BadValue("value")
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _no_arrays(each)


def array(name: str, back: Any, spec: ArraySpec) -> np.ndarray:
    """What came back as the array that was declared, finite, or BadAnswer."""
    try:
        raw = wire.decode_value(back)
    except BadValue as error:
        raise BadAnswer(name, str(error)) from None
    if not isinstance(raw, wire.Raw) or (raw.shape, raw.dtype) != (tuple(spec.shape), spec.dtype):
        raise BadAnswer(name, FORMS["shape"])
    if raw.dtype == "bool":
        return np.frombuffer(raw.data, dtype="u1").reshape(raw.shape) != 0
    made = np.frombuffer(raw.data, dtype=np.dtype(raw.dtype).newbyteorder("<")).reshape(raw.shape)
    if raw.dtype.startswith("float") and not np.isfinite(made).all():
        raise BadAnswer(name, FORMS["finite"])
    return made.astype(raw.dtype)


MAX_WHY = 600  # characters that are kept of what a cell says
MAX_SOURCE = 160  # characters of a line of a notebook
KINDS = frozenset(
    name
    for name, each in vars(builtins).items()
    if isinstance(each, type) and issubclass(each, BaseException) and not name.startswith("_")
)


def result(name: str, answer: dict[str, Any], cells: Sequence[str]) -> Any:
    """The JSON of an answer, or the `Refused` that it names, in words that are none of the submission's.

    A kind of error counts only if Python has it, a place only if `cells` have it.
    """
    if "ok" in answer:
        return answer["ok"]
    error, form, kind = (answer.get(key) for key in ("error", "form", "kind"))
    if error == "no answer":
        raise NoAnswer(name)
    if error == "memory":
        raise OutOfMemory(name, "more memory than a submission may have")
    if error == "bad answer" and type(form) is str and form in FORMS:
        raise BadAnswer(name, FORMS[form])
    if error == "raised":
        known = kind if type(kind) is str and kind in KINDS else "an error of its own"
        raise Raised(name, f"it raised {known}{place(cells, answer.get('cell'), answer.get('line'))}")
    raise Crashed(name, "the process sent what is no answer")


def place(cells: Sequence[str], cell: Any, line: Any) -> str:
    """ " (code cell 3, line 2: `x = 1 / 0`)" where the notebook has that line, and "" where it has none."""
    if type(cell) is not int or type(line) is not int or not 1 <= cell <= len(cells):
        return ""
    lines = cells[cell - 1].split("\n")
    if not 1 <= line <= len(lines):
        return ""
    text = printable(lines[line - 1].strip())
    text = text if len(text) <= MAX_SOURCE else text[: MAX_SOURCE - 1] + "…"
    return f" (code cell {cell}, line {line}: `{text}`)"


def readable(rows: Any) -> list[list[Any]]:
    """[words, cell, line, memory] of what failed in a cell, as far as that can be read."""
    kinds = [str, int, int, bool]
    good = rows if type(rows) is list else []
    return [row for row in good[:20] if type(row) is list and [*map(type, row)] == kinds]


def trouble(cells: Sequence[str], number: int, row: Sequence[Any]) -> list[Any]:
    """[cell that ran, words with the place in the notebook, memory]."""
    words, cell, line, memory = row
    return [number, printable(words)[:400] + place(cells, cell, line), memory]


def printable(text: str, most: int = MAX_WHY) -> str:
    """A student's words in one line of limited length, without what moves a terminal's cursor."""
    return "".join(c if c.isprintable() else " " for c in text[:most])


class LocalSession(Asking):
    """A session in this very process, with no protection at all: for tests of honest code."""

    def __init__(self, cells: Sequence[str], *, needs_torch: bool = False) -> None:
        self.worker = Worker(needs_torch)
        self.cells = tuple(cells)
        self.troubles = self.run_cells()

    def ask(self, what: str, about: str, room: Room, /, **how: Any) -> Any:
        """As over a pipe: through JSON in both directions."""
        question = wire.loads(wire.dumps({"id": secrets.token_hex(8), "ask": what, "with": how}))
        try:
            answer = wire.loads(wire.dumps(self.worker.answer(question)), room)
        except BadValue as error:
            raise Crashed(about, str(error)) from None
        return result(about, answer, self.cells)
