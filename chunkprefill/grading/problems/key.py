"""key.json: the secret and what it draws, and nothing that could come to differ from it."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import chunkprefill
from chunkprefill.grading.problems.draw import check_secret
from chunkprefill.grading.problems.sheet import Sheet

VERSION = 1
SETS = {"PS1": "ps1", "PS2": "ps2", "PS3": "ps3"}
MOST_BYTES = 100_000
Key = dict[str, Any]


@lru_cache(maxsize=64)
def sheet_of(name: str, secret: str) -> Sheet:
    """The problem set `name` as drawn from a secret. ValueError for an unknown name or a weak secret."""
    if name not in SETS:
        raise ValueError(f"there is no problem set {name!r}; there are {', '.join(SETS)}")
    draw: Callable[[str], Sheet] = import_module(f"chunkprefill.grading.problems.{SETS[name]}").sheet
    return draw(check_secret(secret))


def make(name: str, secret: str) -> Key:
    """The key of a problem set: its secret, and the list of questions with their points."""
    sheet = sheet_of(name, secret)
    rows = [
        {"name": q.name, "title": q.title, "points": q.points, "kind": q.kind, "written": q.written}
        for q in sheet.questions
    ]
    return {
        "version": VERSION,
        "package": chunkprefill.__version__,
        "problem_set": name,
        "secret": check_secret(secret),
        "needs_torch": sheet.needs_torch,
        "max_score": sheet.max_score,
        "questions": rows,
        "digest": digest(sheet),
    }


def digest(sheet: Sheet) -> str:
    """A hash of what students are given: another version of the package may draw something else."""
    seen = [[q.name, q.points, q.text, q.given, q.starter, q.public] for q in sheet.questions]
    return hashlib.sha256(json.dumps([sheet.setup, seen]).encode()).hexdigest()


def checked(key: Any) -> Key:
    """`key` if it is one, and what its own secret draws. ValueError says what is wrong."""
    if not isinstance(key, dict):
        raise ValueError(f"a key is an object, this is a {type(key).__name__}")
    if missing := [name for name in ("version", "problem_set", "secret") if name not in key]:
        raise ValueError(f"no {missing[0]} in the key")
    if key["version"] != VERSION:
        raise ValueError(f"the key is of version {key['version']!r}, this program reads version {VERSION}")
    if not isinstance(key["problem_set"], str):
        raise ValueError(f"problem_set must be text, got {key['problem_set']!r}")
    due = make(key["problem_set"], key["secret"])
    for name, value in due.items():
        if key.get(name) != value and name != "package":
            made, here = str(key.get("package"))[:20], chunkprefill.__version__
            why = (
                "the key was changed"
                if made == here
                else f"the key was made by version {made}, this is {here}"
            )
            raise ValueError(f"{name} is not what this secret draws here: {why}")
    kept = {name: key[name] for name in ("limits",) if name in key}  # of the sandbox, which checks them
    return due | {"package": str(key.get("package"))[:20]} | kept


def read(path: str | os.PathLike[str]) -> Key:
    """The key in a file. ValueError names the file and what is wrong with it."""
    try:
        if os.path.getsize(path) > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES:,} bytes is no key")
        return checked(json.loads(Path(path).read_text(encoding="utf-8")))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from None


def write(path: str | os.PathLike[str], key: Key) -> None:
    """Write a key for its owner's eyes only, all of it or nothing."""
    put(Path(path), json.dumps(checked(key), indent=1) + "\n", mode=0o600)


def put(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Replace a file by another one in a single step."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(name, mode)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
