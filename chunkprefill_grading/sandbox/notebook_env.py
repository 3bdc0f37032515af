"""Around student code in the sandbox: limits for good, cells without magics, modules that are missing."""

from __future__ import annotations

import ast
import contextlib
import os
import re
import sys
import types
from typing import Any

from chunkprefill_grading.sandbox.stand_ins import Absent, Nothing, StandIns

# `%time x = 1` runs what follows; `x = !ls` and `x = %magic` have nothing to give
_TIMED = re.compile(r"^(\s*)%time\b[ \t]*(?=\S)")
_ASSIGNED = re.compile(r"^(\s*)([\w.\[\]'\", ]+?\s*=)\s*[!%](?!=).*$")
_ALONE = re.compile(r"^(\s*)(?:[%!?].*|.*[^\s#].*\?{1,2}\s*)$")
AWAITING = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
IS_COROUTINE = 0x80  # `inspect.CO_COROUTINE`
_KEPT_CELLS = ("%%time", "%%timeit", "%%capture", "%%prun")  # magics of a cell that run the rest of it


def plain_python(source: str) -> str:
    """The cell without what only a notebook understands; its lines stay where they are.

    Only a line that Python itself stumbles over is looked at: what looks like a magic may stand in a text.
    """
    lines = source.split("\n")
    first = next((i for i, line in enumerate(lines) if line.strip()), 0)
    if lines[first].lstrip().startswith("%%"):
        words = lines[first].split()
        if words[0] in ("%%writefile", "%%file") and words[1:]:
            return _writing(
                words[-1], "\n".join(lines[first + 1 :]), "a" if "-a" in words[1:-1] else "w", first
            )
        if words[0] not in _KEPT_CELLS:
            return "pass"  # a cell of another language
        lines[first] = f"{words[1]} = None" if words[0] == "%%capture" and words[1:] else "pass"
    for _ in range(len(lines)):
        try:
            ast.parse("\n".join(lines))
        except SyntaxError as error:
            at = (error.lineno or 0) - 1
            if not 0 <= at < len(lines) or (plain := _plain_line(lines[at])) is None:
                break
            lines[at] = plain
        except (ValueError, RecursionError, MemoryError):
            break
        else:
            break
    return "\n".join(lines)


def _writing(name: str, text: str, mode: str, n_above: int) -> str:
    """The cell that writes the rest of itself into a file, which a later cell may import."""
    return (
        "\n" * n_above
        + f"with open({name.strip(chr(39) + chr(34))!r}, {mode!r}) as _: _.write({text + chr(10)!r})"
    )


def _plain_line(line: str) -> str | None:
    """A line without its magic; None for one that holds none."""
    if _TIMED.match(line):
        return _TIMED.sub(r"\1", line)
    if found := _ASSIGNED.match(line):
        return f"{found[1]}{found[2]} {'[]' if '!' in line[found.end(2) :][:2] else 'None'}"
    if found := _ALONE.match(line):
        return f"{found[1]}pass"
    return None


def blocks(source: str, name: str) -> list[tuple[types.CodeType, str | None]]:
    """The cell in pieces, and of each import of one thing the name that it binds.

    A module that students have and the sandbox has not must cost them that import and not the rest of a cell.
    """
    tree = ast.parse(plain_python(source), name)
    pieces: list[tuple[list[ast.stmt], str | None]] = [([], None)]
    for node in tree.body:
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            pieces[-1][0].append(node)
        elif isinstance(node, ast.ImportFrom) and node.module == "__future__":
            return [(compile(tree, name, "exec", AWAITING), None)]  # holds for the whole cell
        else:
            for alias in node.names:
                alone: ast.stmt = ast.Import([alias])
                if isinstance(node, ast.ImportFrom):
                    alone = ast.ImportFrom(node.module, [alias], node.level)
                bound = alias.asname or alias.name.partition(".")[0]
                pieces.append(([ast.copy_location(alone, node)], bound))
            pieces.append(([], None))
    return [(compile(ast.Module(body, []), name, "exec", AWAITING), bound) for body, bound in pieces if body]


def run(code: types.CodeType, names: dict[str, Any]) -> None:
    """Run a piece of a cell; one that awaits, in an event loop, which every notebook has."""
    if not code.co_flags & IS_COROUTINE:
        exec(code, names)
        return
    lone_event_loops()
    import asyncio  # takes a while to load, and few cells await

    asyncio.run(eval(code, names))


def lone_event_loops() -> None:
    """Event loops without the pair of sockets by which other threads would wake them: there are neither."""
    from asyncio.selector_events import BaseSelectorEventLoop

    def none(loop: Any) -> None:
        loop._ssock = loop._csock = None

    BaseSelectorEventLoop._make_self_pipe = none  # type: ignore[attr-defined]
    BaseSelectorEventLoop._close_self_pipe = none  # type: ignore[attr-defined]


def missing_module(error: ImportError, bound: str) -> dict[str, Any]:
    """What stands under the name of a module that is not here: it says so where it is used."""
    return {} if bound == "*" else {bound: Absent(str(error.name or bound).partition(".")[0])}


def limit(memory_bytes: int, data_bytes: int, cpu_s: int, file_bytes: int, n_files: int) -> bool:
    """Bind this process, for good: bytes of address space and of data in all, CPU seconds from now.

    True: it holds. A negative number: unknown here, and not bound.
    """
    try:
        import resource
    except ImportError:  # not a Unix: only without a sandbox
        return False
    times = resource.getrusage(resource.RUSAGE_SELF)
    used = int(times.ru_utime + times.ru_stime) + 1
    bounds = {
        "AS": memory_bytes,
        "DATA": data_bytes,
        "CORE": 0,
        "FSIZE": file_bytes,
        "NOFILE": n_files,
        "STACK": 16 << 20,
        "MEMLOCK": 0,
        "SIGPENDING": 32,  # each that waits is a record of the kernel's, for all programs of one user
        "MSGQUEUE": 0,
    }
    bounds = {name: most for name, most in bounds.items() if hasattr(resource, "RLIMIT_" + name)}
    for name, most in bounds.items():
        if most < 0:
            continue
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(getattr(resource, "RLIMIT_" + name), (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (used + cpu_s, used + cpu_s + 1))
    held = {name: resource.getrlimit(getattr(resource, "RLIMIT_" + name)) for name in bounds}
    return all(max(held[name]) <= most and min(held[name]) >= 0 for name, most in bounds.items() if most >= 0)


def notebook_env() -> None:
    """What a notebook expects around it and no answer needs."""
    import builtins

    sys.meta_path.insert(0, StandIns())
    sys.path.append(os.getcwd())  # for what `%%writefile` wrote; last, so it hides nothing
    builtins.display = lambda *things, **kwargs: None  # type: ignore[attr-defined]
    builtins.get_ipython = Nothing  # type: ignore[attr-defined]
