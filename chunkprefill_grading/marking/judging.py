"""A hash of what judges: the code that a mark is a function of, and no plot, no comment, no docstring."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import re
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import chunkprefill
from chunkprefill_grading.submission.files import replace_file

ROOT = Path(chunkprefill.__file__).resolve().parents[1]
#: Where judging begins; what these import, judges too.
ROOTS = (
    "chunkprefill_grading/marking/mark.py",
    "chunkprefill_grading/marking/run.py",
    "chunkprefill_grading/submission/load.py",
    "chunkprefill_grading/submission/written_texts.py",
)
FOLDERS = ("chunkprefill_grading/problems", "chunkprefill_grading/sandbox")
#: What modules that judge read: a price hangs on it.
TABLES = tuple(f"chunkprefill/data/{name}.json" for name in ("devices", "models"))
#: Imported on the way, and no part of a mark: who handed in, what is drawn, who is told.
NOT_JUDGES = (
    "chunkprefill_grading/submission/collect.py",
    "chunkprefill_grading/submission/layouts.py",
    "chunkprefill_grading/submission/roster.py",
    "chunkprefill_grading/submission/spreadsheet.py",
    "chunkprefill_grading/submission/encodings.py",
    "chunkprefill_grading/submission/archives.py",
    "chunkprefill_grading/submission/files.py",
    "chunkprefill_grading/marking/judging.py",
    "chunkprefill_grading/reports/",
    "chunkprefill/plots/",
    "chunkprefill/servers/",
)


_ALONE = threading.Lock()  # Python 3.11 parses in one thread at a time, or raises SystemError


def grader_hash() -> str:
    """Of the judging code of this installation: another grader may judge otherwise."""
    with _ALONE:
        return _hash_here()


@cache
def _hash_here() -> str:
    """Kept beside the compiled modules: to read the meaning of all of them takes half a second."""
    raw = hashlib.sha256()
    for place in sorted(ROOT.glob("chunkprefill*/**/*")):
        if place.suffix in (".py", ".json", ".md", ".txt") and place.parent.name != "__pycache__":
            raw.update(f"{place.relative_to(ROOT)}\0".encode() + place.read_bytes() + b"\0")
    kept = Path(__file__).parent / "__pycache__" / f"judging-{raw.hexdigest()}.txt"
    with contextlib.suppress(OSError):
        if re.fullmatch(r"[0-9a-f]{64}", found := kept.read_text()):
            return found
    made = hash_under(ROOT)
    with contextlib.suppress(OSError):
        kept.parent.mkdir(exist_ok=True)
        replace_file(kept, made)
    return made


def hash_under(root: Path) -> str:
    """Of the judging code of the packages under `root`."""
    digest = hashlib.sha256()
    for place in judges(root):
        data = (root / place).read_bytes()
        code = meaning(data) if place.endswith(".py") else data
        digest.update(place.encode() + b"\0" + code + b"\0")
    return digest.hexdigest()


def judges(root: Path) -> list[str]:
    """The files that judge, in order: the roots, what they import, and the data beside the problems."""
    waiting = [*ROOTS, *TABLES]
    waiting += [
        path.relative_to(root).as_posix()
        for folder in FOLDERS
        for path in (root / folder).rglob("*")
        if path.is_file() and path.suffix in (".py", ".json", ".md", ".txt")
    ]
    found: set[str] = set()
    while waiting:
        place = waiting.pop()
        if place in found or place.startswith(NOT_JUDGES) or not (root / place).is_file():
            continue
        found.add(place)
        if place.endswith(".py"):
            waiting += imported(ast.parse((root / place).read_bytes()))
    return sorted(found)


def imported(tree: ast.Module) -> Iterator[str]:
    """The files of our packages that a module imports; a package's table of names is not one of them."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            if name.partition(".")[0].startswith("chunkprefill"):
                yield name.replace(".", "/") + ".py"


def meaning(source: bytes) -> bytes:
    """A module without its comments, its docstrings and its layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree).encode("utf-8", "backslashreplace")
