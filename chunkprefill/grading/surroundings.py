"""Around student code inside the sandbox: limits for good, stand-ins for what draws, cells without magics."""

from __future__ import annotations

import ast
import contextlib
import re
import sys
import types
from collections.abc import Iterable
from typing import Any

_MAGIC = re.compile(r"^(\s*)([%!?].*|.*\?)$", re.M)


def plain_python(source: str) -> str:
    """The cell without what only a notebook understands: magics become `pass`, at their own indent."""
    try:
        ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        pass
    else:
        return source
    if source.lstrip().startswith("%%"):
        first, _, rest = source.lstrip().partition("\n")
        if first.split()[0] not in ("%%time", "%%timeit", "%%capture"):
            return "pass"  # a cell of another language
        source = rest
    return _MAGIC.sub(r"\1pass", source)


def blocks(source: str, name: str) -> list[tuple[types.CodeType, bool]]:
    """The cell in pieces, and of each whether it is an import of one thing.

    A module that students have and the sandbox has not must cost them that import and not the rest of a cell.
    """
    tree = ast.parse(plain_python(source), name)
    pieces: list[list[ast.stmt]] = [[]]
    for node in tree.body:
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            pieces[-1].append(node)
        elif isinstance(node, ast.ImportFrom) and node.module == "__future__":
            return [(compile(tree, name, "exec"), False)]  # holds for the whole cell
        else:
            for alias in node.names:
                alone = ast.Import([alias]) if isinstance(node, ast.Import) else ast.ImportFrom(
                    node.module, [alias], node.level)  # fmt: skip
                pieces.append([ast.copy_location(alone, node)])
            pieces.append([])
    made = []
    for piece in filter(None, pieces):
        is_import = isinstance(piece[0], (ast.Import, ast.ImportFrom))
        made.append((compile(ast.Module(piece, []), name, "exec"), is_import))
    return made


def limit(memory_bytes: int, cpu_s: int, file_bytes: int, n_files: int) -> bool:
    """Bind this process, for good: bytes of address space in all, CPU seconds from now. True: it holds."""
    try:
        import resource
    except ImportError:  # not a Unix: only without a sandbox
        return False
    times = resource.getrusage(resource.RUSAGE_SELF)
    used = int(times.ru_utime + times.ru_stime) + 1
    bounds = {"AS": memory_bytes, "CORE": 0, "FSIZE": file_bytes, "NOFILE": n_files, "STACK": 16 << 20}
    for name, most in bounds.items():
        if most < 0:  # unknown here
            continue
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(getattr(resource, "RLIMIT_" + name), (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (used + cpu_s, used + cpu_s + 1))
    held = {name: resource.getrlimit(getattr(resource, "RLIMIT_" + name)) for name in bounds}
    return all(max(held[name]) <= most and min(held[name]) >= 0 for name, most in bounds.items() if most >= 0)


def stand_in(name: str, **names: Any) -> None:
    """A module that draws nothing, so that a cell with a picture still defines its answers."""
    module = types.ModuleType(name)
    module.__dict__.update(names)
    module.__path__ = []
    module.__getattr__ = _nothing  # type: ignore[method-assign]
    sys.modules[name] = module


class Nothing:
    """Takes every call and every attribute, and does nothing."""

    def __call__(self, *args: Any, **kwargs: Any) -> Nothing:
        return self

    def __getattr__(self, name: str) -> Nothing:
        return _nothing(name)

    def __iter__(self) -> Any:
        return iter((self, self))  # fig, ax = plt.subplots()

    def __getitem__(self, key: Any) -> Nothing:
        return self

    def __setitem__(self, key: Any, value: Any) -> None:
        return None

    def __enter__(self) -> Nothing:
        return self

    def __exit__(self, *error: Any) -> None:
        return None


def _nothing(name: str) -> Nothing:
    if name.startswith("__"):
        raise AttributeError(name)
    return Nothing()


def _same(items: Iterable[Any] = (), *args: Any, **kwargs: Any) -> Iterable[Any]:
    return items


def furnish() -> None:
    """What a notebook expects around it and no answer needs."""
    for name in ("matplotlib", "matplotlib.pyplot", "IPython", "IPython.display", "ipywidgets"):
        stand_in(name)
    sys.modules["matplotlib"].pyplot = sys.modules["matplotlib.pyplot"]  # type: ignore[attr-defined]
    sys.modules["IPython"].display = sys.modules["IPython.display"]  # type: ignore[attr-defined]
    for name in ("tqdm", "tqdm.auto", "tqdm.notebook"):
        stand_in(name, tqdm=_same, trange=lambda *n, **kwargs: range(*n))
    import builtins

    builtins.display = lambda *things, **kwargs: None  # type: ignore[attr-defined]
    builtins.get_ipython = Nothing  # type: ignore[attr-defined]
