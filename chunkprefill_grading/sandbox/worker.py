"""The program inside the sandbox: runs a notebook's cells, then answers what the grader asks.

Nothing here is secret and nothing here is trusted: student code shares this process and can change all of it.
Whatever it sends is an answer like any other, to be read with limits and compared outside.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import linecache
import os
import sys
import types
from collections.abc import Callable
from typing import Any

from chunkprefill_grading.sandbox import wire
from chunkprefill_grading.sandbox.enclosure import enclose, lift_soft_limit, seal
from chunkprefill_grading.sandbox.notebook_env import (
    blocks,
    limit,
    lone_event_loops,
    missing_module,
    notebook_env,
    run,
)
from chunkprefill_grading.sandbox.returned import nested, readable, rebuilt, sent, simple, words

UNANSWERED = (None, Ellipsis)
SHORT_OF_MEMORY = "can't allocate memory"  # torch raises a RuntimeError that says so


class Unanswered(Exception):
    """The name is not there, or still holds what the notebook began with."""


class Worker:
    """The student's names, and what can be asked of them; one method a question, all JSON in and out."""

    def __init__(self, needs_torch: bool) -> None:
        self.needs_torch = needs_torch
        self.module = types.ModuleType("__main__")
        self.policies: dict[int, tuple[Any, dict[Any, Any]]] = {}

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """`{"ok": ...}`, or `{"error": ...}` with what the grader has words for."""
        try:
            return {"ok": getattr(self, "ask_" + question["ask"])(**question["with"])}
        except (Unanswered, NotImplementedError):
            return {"error": "no answer"}
        except wire.BadValue as error:
            return {"error": "bad answer", "form": error.form}
        except BaseException as error:
            if is_memory(error):
                return {"error": "memory"}
            cell, line = where(error)
            return {"error": "raised", "kind": type(error).__name__, "cell": cell, "line": line}

    def ask_cell(self, number: int, source: str) -> list[list[Any]]:
        """Run a cell; [words, cell, line, was it memory] of each import that failed, and of what ended it."""
        name = f"<cell {number}>"
        troubles: list[list[Any]] = []
        try:
            lines = [*map("{}\n".format, source.split("\n"))]
            with contextlib.suppress(Exception):  # it is for what a notebook prints of its own errors
                linecache.cache[name] = (len(source), None, lines, name)
            if "asyncio" in source:
                lone_event_loops()
            for code, bound in blocks(source, name):
                try:
                    run(code, self.module.__dict__)
                except ImportError as error:
                    if bound is None:
                        raise
                    troubles.append(told(error))
                    self.module.__dict__.update(missing_module(error, bound))
        except BaseException as error:
            troubles.append(told(error))
        return troubles

    def ask_names(self, names: list[str]) -> list[str]:
        """Those of `names` that the notebook defines."""
        return [name for name in names if name in self.module.__dict__]

    def ask_value(self, name: str) -> Any:
        value = self._get(name)
        if any(value is empty for empty in UNANSWERED):
            raise Unanswered(name)
        return wire.encode_value(readable(value))

    def ask_call(self, name: str, args: list[Any], returns: list[Any] | None) -> Any:
        function = self._function(name)
        result = function(*[self._received(wire.decode_value(arg)) for arg in args])
        if returns is None:
            return wire.encode_value(readable(result))
        results = [result] if len(returns) == 1 else result
        if not isinstance(results, (list, tuple)) or len(results) != len(returns):
            raise wire.BadValue("count")
        return [
            wire.encode_value(sent(each, tuple(shape), dtype))
            for each, (shape, dtype) in zip(results, returns)
        ]

    def ask_policy(self, name: str, args: list[Any] | None, handle: int) -> bool:
        """Build the policy under a number. A class or a function that builds one, or the thing itself."""
        policy = self._get(name)
        if isinstance(policy, type) or not hasattr(policy, "schedule"):
            if not callable(policy):
                raise wire.BadValue("policy")
            if args is not None or isinstance(policy, type):
                policy = policy(*[wire.decode_value(arg) for arg in args or ()])
        if not hasattr(policy, "schedule"):
            raise wire.BadValue("policy")
        self.policies[handle] = policy, {}
        return True

    def ask_schedule(self, handle: int, state: dict[str, Any]) -> Any:
        """One decision: tokens as pairs, in order, and who is evicted."""
        policy, seqs = self.policies[handle]
        plan = policy.schedule(rebuilt(state, seqs))
        tokens, preempted = getattr(plan, "tokens", None), getattr(plan, "preempted", ())
        if not isinstance(tokens, dict) or not isinstance(preempted, (tuple, list)):
            raise wire.BadValue("plan")
        pairs = [[simple(rid), simple(n)] for rid, n in tokens.items()]
        return wire.encode_value([pairs, [simple(rid) for rid in preempted]])

    def _get(self, name: str) -> Any:
        if name not in self.module.__dict__:
            raise Unanswered(name)
        return self.module.__dict__[name]

    def _function(self, name: str) -> Callable[..., Any]:
        function = self._get(name)
        if any(function is empty for empty in UNANSWERED):
            raise Unanswered(name)
        if not callable(function):
            raise wire.BadValue("function")
        return function

    def _received(self, value: Any) -> Any:
        """An array as a tensor of its own, or as nested lists; lists may hold arrays."""
        if isinstance(value, list):
            return [self._received(each) for each in value]
        if not isinstance(value, wire.Raw):
            return value
        if not self.needs_torch:
            return nested(value)
        torch: Any = importlib.import_module("torch")
        dtype = getattr(torch, value.dtype)
        data = bytearray(value.data)
        flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return flat.reshape(value.shape)


def is_memory(error: BaseException) -> bool:
    """Whether memory ran out, in Python's words or in torch's."""
    return isinstance(error, MemoryError) or SHORT_OF_MEMORY in words(error)


def told(error: BaseException) -> list[Any]:
    """[words, cell, line, was it memory] of what a cell raised, perhaps in a function of an earlier cell."""
    return [f"{type(error).__name__}: {words(error)}", *where(error), is_memory(error)]


def where(error: BaseException) -> tuple[int, int]:
    """The cell and the line of the notebook in which it happened; 0 where it is none of the notebook's."""
    cell = line = 0
    if isinstance(error, SyntaxError) and str(error.filename).startswith("<cell "):
        return cell_number(str(error.filename)), error.lineno or 0
    trace = error.__traceback__
    while trace is not None:
        if number := cell_number(trace.tb_frame.f_code.co_filename):
            cell, line = number, trace.tb_lineno
        trace = trace.tb_next
    return cell, line


def cell_number(file: str) -> int:
    """3 of "<cell 3>"; 0 of any other file."""
    number = file.removeprefix("<cell ").removesuffix(">")
    return int(number) if file.startswith("<cell ") and number.isdecimal() and len(number) < 9 else 0


def main() -> None:
    """Serve on the pipes that were standard input and output; those are put out of the way of print."""
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):
        os.dup2(null, descriptor)
    sys.stdin, sys.stdout = io.StringIO(), open(1, "w")  # noqa: SIM115
    hello = wire.loads(source.readline())
    lift_soft_limit()
    enclosure = hello["enclosure"]  # None where there is no sandbox
    bounded = enclosure is not None and enclose(**enclosure)
    worker = Worker(bool(hello["needs_torch"]))
    if worker.needs_torch:
        torch: Any = importlib.import_module("torch")
        torch.set_num_threads(1)
        # no thread can start here, and a library that was promised some ends the program when it finds out
        torch.set_num_threads = torch.set_num_interop_threads = lambda n: None
    notebook_env()
    sys.modules["__main__"] = worker.module
    tell(sink, {"id": hello["id"], "ok": bounded})
    bounds = wire.loads(source.readline())
    held = limit(**bounds["with"])
    os.dup2(null, 2)  # until here it is the grader's, who is told why a start fails
    if enclosure is not None:
        seal()
    tell(sink, {"id": bounds["id"], "ok": held})
    for line in source:
        question = wire.loads(line)
        tell(sink, {"id": question["id"], **worker.answer(question)})
    os._exit(0)  # no question is left: what student code wants done at the end is not done


def tell(sink: io.RawIOBase | io.FileIO, answer: dict[str, Any]) -> None:
    """Write a whole line, however small the pipe."""
    rest = memoryview(wire.dumps(answer))
    while rest:
        rest = rest[sink.write(rest) or 0 :]


if __name__ == "__main__":
    main()
