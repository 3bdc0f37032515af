"""The program inside the sandbox: runs a notebook's cells, then answers what the grader asks.

Nothing here is secret and nothing here is trusted: student code shares this process and can change all of it.
Whatever it sends is an answer like any other, to be read with limits and compared outside.
"""

from __future__ import annotations

import importlib
import io
import linecache
import os
import sys
import types
from collections.abc import Callable
from typing import Any

from chunkprefill.grading import wire
from chunkprefill.grading.answers import kind, nested, rebuilt, sent, simple, words
from chunkprefill.grading.surroundings import blocks, furnish, limit

UNANSWERED = (None, Ellipsis)


class Unanswered(Exception):
    """The name is not there, or still holds what the notebook began with."""


class Worker:
    """The student's names, and what can be asked of them; one method a question, all JSON in and out."""

    def __init__(self, needs_torch: bool) -> None:
        self.needs_torch = needs_torch
        self.module = types.ModuleType("__main__")
        self.policies: dict[int, tuple[Any, dict[Any, Any]]] = {}

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """`{"ok": ...}`, or `{"error": kind, "why": words}`."""
        try:
            return {"ok": getattr(self, "ask_" + question["ask"])(**question["with"])}
        except Unanswered:
            return {"error": "no answer", "why": ""}
        except NotImplementedError:
            return {"error": "no answer", "why": ""}
        except wire.BadValue as error:
            return {"error": "bad answer", "why": words(error)}
        except MemoryError:
            return {"error": "memory", "why": ""}
        except BaseException as error:
            kind = "memory" if "can't allocate memory" in words(error) else "raised"
            return {"error": kind, "why": f"{type(error).__name__}: {words(error)}{self._where(error)}"}

    def ask_cells(self, sources: list[str]) -> list[list[Any]]:
        """Run every cell, whatever became of the one before; returns [cell, words, was it memory]."""
        troubles: list[list[Any]] = []
        for i, source in enumerate(sources, 1):
            name = f"<cell {i}>"
            lines = [*map("{}\n".format, source.split("\n"))]
            linecache.cache[name] = (len(source), None, lines, name)
            try:
                for code, is_import in blocks(source, name):
                    try:
                        exec(code, self.module.__dict__)
                    except ImportError as error:
                        if not is_import:
                            raise
                        troubles.append(
                            [i, f"{type(error).__name__}: {words(error)}{self._where(error)}", False]
                        )
            except MemoryError:
                troubles.append([i, "MemoryError", True])
            except BaseException as error:
                memory = "can't allocate memory" in words(error)
                troubles.append([i, f"{type(error).__name__}: {words(error)}{self._where(error)}", memory])
        return troubles

    def ask_names(self, names: list[str]) -> list[str]:
        """Those of `names` that the notebook defines."""
        return [name for name in names if name in self.module.__dict__]

    def ask_value(self, name: str) -> Any:
        value = self._get(name)
        if any(value is empty for empty in UNANSWERED):
            raise Unanswered(name)
        return wire.encode(simple(value))

    def ask_call(self, name: str, args: list[Any], returns: list[Any] | None) -> Any:
        function = self._function(name)
        result = function(*[self._received(wire.decode(arg)) for arg in args])
        if returns is None:
            return wire.encode(simple(result))
        results = [result] if len(returns) == 1 else result
        if not isinstance(results, (list, tuple)) or len(results) != len(returns):
            raise wire.BadValue(f"{kind(results)} came back, {len(returns)} arrays are asked for")
        return [
            wire.encode(sent(each, tuple(shape), dtype)) for each, (shape, dtype) in zip(results, returns)
        ]

    def ask_policy(self, name: str, args: list[Any] | None, handle: int) -> bool:
        """Build the policy under a number. A class or a function that builds one, or the thing itself."""
        policy = self._get(name)
        if isinstance(policy, type) or not hasattr(policy, "schedule"):
            if not callable(policy):
                raise wire.BadValue(f"{kind(policy)} is no policy: it has no method schedule")
            if args is not None or isinstance(policy, type):
                policy = policy(*[wire.decode(arg) for arg in args or ()])
        if not hasattr(policy, "schedule"):
            raise wire.BadValue(f"{kind(policy)} is no policy: it has no method schedule")
        self.policies[handle] = policy, {}
        return True

    def ask_schedule(self, handle: int, state: dict[str, Any]) -> Any:
        """One decision: tokens as pairs, in order, and who is evicted."""
        policy, seqs = self.policies[handle]
        plan = policy.schedule(rebuilt(state, seqs))
        tokens, preempted = getattr(plan, "tokens", None), getattr(plan, "preempted", ())
        if not isinstance(tokens, dict) or not isinstance(preempted, (tuple, list)):
            raise wire.BadValue(f"schedule returned {kind(plan)}, not a Plan of a dict")
        pairs = [[simple(rid), simple(n)] for rid, n in tokens.items()]
        return wire.encode([pairs, [simple(rid) for rid in preempted]])

    def _get(self, name: str) -> Any:
        if name not in self.module.__dict__:
            raise Unanswered(name)
        return self.module.__dict__[name]

    def _function(self, name: str) -> Callable[..., Any]:
        function = self._get(name)
        if any(function is empty for empty in UNANSWERED):
            raise Unanswered(name)
        if not callable(function):
            raise wire.BadValue(f"{kind(function)} is no function")
        return function

    def _received(self, value: Any) -> Any:
        """An array as a tensor of its own, or as nested lists; lists may hold arrays."""
        if isinstance(value, list):
            return [self._received(each) for each in value]
        if not isinstance(value, wire.Raw):
            return value
        if self.needs_torch:
            torch = importlib.import_module("torch")
            flat = torch.frombuffer(bytearray(value.data), dtype=getattr(torch, value.dtype)) if (
                value.data) else torch.empty(0, dtype=getattr(torch, value.dtype))  # fmt: skip
            return flat.reshape(value.shape)
        return nested(value)

    def _where(self, error: BaseException) -> str:
        """The line of the notebook in which it happened."""
        place, trace = "", error.__traceback__
        while trace is not None:
            file = trace.tb_frame.f_code.co_filename
            if file.startswith("<cell "):
                place = f" (code {file[1:-1]}, line {trace.tb_lineno})"
            trace = trace.tb_next
        return place


def main() -> None:
    """Serve on the pipes that were standard input and output; those are put out of the way of print."""
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    sys.stdin, sys.stdout, sys.stderr = io.StringIO(), open(1, "w"), open(2, "w")  # noqa: SIM115
    hello = wire.loads(source.readline())
    worker = Worker(bool(hello["needs_torch"]))
    if worker.needs_torch:
        importlib.import_module("torch").set_num_threads(1)
    furnish()
    sys.modules["__main__"] = worker.module
    tell(sink, {"id": hello["id"], "ok": os.getpid()})
    bounds = wire.loads(source.readline())
    tell(sink, {"id": bounds["id"], "ok": limit(**bounds["with"])})
    for line in source:
        question = wire.loads(line)
        tell(sink, {"id": question["id"], **worker.answer(question)})
    os._exit(0)  # nobody asks any more: what student code wants done at the end is not done


def tell(sink: io.RawIOBase | io.FileIO, answer: dict[str, Any]) -> None:
    """Write a whole line, however small the pipe."""
    rest = memoryview(wire.dumps(answer))
    while rest:
        rest = rest[sink.write(rest) or 0 :]


if __name__ == "__main__":
    main()
