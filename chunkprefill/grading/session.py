"""What a submission can be asked, and how it may fail to answer; the same in a sandbox and without one."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from chunkprefill.grading import wire
from chunkprefill.grading.wire import ArraySpec, BadValue
from chunkprefill.grading.worker import Worker
from chunkprefill.scheduling.core import Plan

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
    """The student's code raised; `why` has type, words and place."""

    status = "raised"


class SessionEnded(Refused):
    """Nothing more can be asked."""

    status = "crashed"


class TimedOut(SessionEnded):
    """CPU time, or the wall clock behind it, ran out."""

    status = "timeout"


class OutOfMemory(SessionEnded):
    """More memory than a submission may have."""

    status = "memory"


class Crashed(SessionEnded):
    """The process is gone, or speaks nonsense."""


class Session(Protocol):
    """A notebook that has run. Every method may raise a `Refused`."""

    def value(self, name: str) -> Any:
        """What the notebook calls `name`: None, bool, int, finite float, str, lists and dicts of these."""

    def call(self, name: str, args: Sequence[Any], returns: Sequence[ArraySpec] | None = None) -> Any:
        """Call a function. args: JSON values and numpy arrays. returns: what must come back, as a list of
        numpy arrays; None: a JSON value."""

    def policy(self, name: str, args: Sequence[Any] | None = None) -> RemotePolicy:
        """A policy whose decisions are the submission's, one state at a time. args: to build it with."""


class Asking:
    """`Session` on top of one method: `ask(what, about, **with) -> JSON`, or a `Refused`."""

    _n_policies = 0

    def ask(self, what: str, about: str = "", /, **how: Any) -> Any:
        raise NotImplementedError

    def value(self, name: str) -> Any:
        """See `Session`."""
        return read(name, self.ask("value", name, name=name))

    def call(self, name: str, args: Sequence[Any], returns: Sequence[ArraySpec] | None = None) -> Any:
        """See `Session`."""
        specs = None if returns is None else [[list(spec.shape), spec.dtype] for spec in returns]
        back = self.ask("call", name, name=name, args=[sendable(arg) for arg in args], returns=specs)
        if returns is None:
            return read(name, back)
        if type(back) is not list or len(back) != len(returns):
            raise BadAnswer(name, f"{len(returns)} arrays are asked for")
        return [array(name, each, spec) for each, spec in zip(back, returns)]

    def policy(self, name: str, args: Sequence[Any] | None = None) -> RemotePolicy:
        """See `Session`."""
        self._n_policies += 1
        sent = None if args is None else [sendable(arg) for arg in args]
        self.ask("policy", name, name=name, args=sent, handle=self._n_policies)
        return RemotePolicy(self, name, self._n_policies)


class RemotePolicy:
    """Decides by asking the submission: it sees this state and no other, and never what is still to come."""

    def __init__(self, session: Asking, name: str, handle: int) -> None:
        self._session, self._name, self._handle = session, name, handle

    def schedule(self, state: Any) -> Plan:
        """The submission's plan for this state; BadAnswer if it is none. The contract is checked outside."""
        back = self._session.ask("schedule", self._name, handle=self._handle, state=seen(state))
        value = read(self._name, back)
        try:
            pairs, preempted = value
            tokens = dict(pairs)
            whole = all(type(each) in (int, float, bool, str) for each in tokens.values())
        except (TypeError, ValueError):
            raise BadAnswer(self._name, "schedule returned no plan") from None
        if not whole or type(preempted) is not list or len(tokens) != len(pairs):
            raise BadAnswer(self._name, "schedule returned no plan")
        return Plan(tokens, tuple(preempted))

    def __str__(self) -> str:
        return self._name


def seen(state: Any) -> dict[str, Any]:
    """All that a policy may look at, as JSON."""

    def rows(line: Iterable[Any]) -> list[list[Any]]:
        return [[s.rid, s.n_prompt, s.arrival, s.priority, s.cached, s.known, s.order] for s in line]

    pool = state.pool
    return {
        **{"now": state.now, "n_steps": state.n_steps},
        **{
            "pool": [pool.n_blocks, pool.block_size, pool.n_used],
            "decoding": [s.rid for s in state.decoding],
        },
        **{"waiting": rows(state.waiting), "running": rows(state.running)},
    }


def sendable(value: Any) -> Any:
    """A JSON value or a numpy array (or a list of them) as it travels."""
    return wire.encode(_raw(value))


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
        value = wire.decode(back)
        _no_arrays(value)
    except BadValue as error:
        raise BadAnswer(name, str(error)) from None
    return value


def _no_arrays(value: Any) -> None:
    if isinstance(value, wire.Raw):
        raise BadValue("an array where a value is asked for")
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _no_arrays(each)


def array(name: str, back: Any, spec: ArraySpec) -> np.ndarray:
    """What came back as the array that was declared, finite, or BadAnswer."""
    try:
        raw = wire.decode(back)
    except BadValue as error:
        raise BadAnswer(name, str(error)) from None
    if not isinstance(raw, wire.Raw) or (raw.shape, raw.dtype) != (tuple(spec.shape), spec.dtype):
        raise BadAnswer(name, f"no array of shape {list(spec.shape)} and dtype {spec.dtype}")
    if raw.dtype == "bool":
        return np.frombuffer(raw.data, dtype="u1").reshape(raw.shape) != 0
    made = np.frombuffer(raw.data, dtype=np.dtype(raw.dtype).newbyteorder("<")).reshape(raw.shape)
    if raw.dtype.startswith("float") and not np.isfinite(made).all():
        raise BadAnswer(name, f"{math.prod(raw.shape)} numbers, and not all of them are finite")
    return made.astype(raw.dtype)


ERRORS = {"no answer": NoAnswer, "bad answer": BadAnswer, "raised": Raised, "memory": OutOfMemory}
MAX_WHY = 600  # characters that are kept of what a submission says


def result(name: str, answer: dict[str, Any]) -> Any:
    """The JSON of an answer, or the `Refused` that it names."""
    if "ok" in answer:
        return answer["ok"]
    error, why = answer.get("error"), answer.get("why")
    if type(error) is not str or error not in ERRORS or type(why) is not str:
        raise Crashed(name, "the process sent what is no answer")
    raise ERRORS[error](name, printable(why))


def printable(text: str) -> str:
    """A student's words in one line of limited length, without what moves a terminal's cursor."""
    return "".join(c if c.isprintable() else " " for c in text[:MAX_WHY])


class LocalSession(Asking):
    """A session in this very process, with no protection at all: for tests of honest code."""

    def __init__(self, cells: Sequence[str], *, needs_torch: bool = False) -> None:
        self.worker = Worker(needs_torch)
        self.troubles = self.ask("cells", sources=list(cells))

    def ask(self, what: str, about: str = "", /, **how: Any) -> Any:
        """As over a pipe: through JSON in both directions."""
        question = wire.loads(wire.dumps({"id": secrets.token_hex(8), "ask": what, "with": how}))
        return result(about, wire.loads(wire.dumps(self.worker.answer(question))))
