"""key.json: the secret and what it draws, and nothing that could come to differ from it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import chunkprefill
from chunkprefill_grading.problems.draw import check_secret
from chunkprefill_grading.problems.sheet import Sheet

VERSION = 1
WORDS = ("package", "words")  # fields that may differ from what is drawn here
SETS = {"PS1": "ps1", "PS2": "ps2", "PS3": "ps3"}
#: Of what a secret draws. Raise one when a secret draws other numbers or answers than before;
#: leave it when a word is mended: keys, and what was handed out by them, stay good.
SET_VERSIONS = {"PS1": 3, "PS2": 3, "PS3": 3}
CODE = ("arrays", "decisions")  # answers that are judged by what they do: their solution is only an example
MOST_BYTES = 100_000
Key = dict[str, Any]


@lru_cache(maxsize=64)
def sheet_of(name: str, secret: str) -> Sheet:
    """The problem set `name` as drawn from a secret. ValueError for an unknown name or a weak secret."""
    if name not in SETS:
        raise ValueError(f"there is no problem set {name!r}; there are {', '.join(SETS)}")
    draw: Callable[[str], Sheet] = import_module(f"chunkprefill_grading.problems.{SETS[name]}").sheet
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
        "set_version": SET_VERSIONS[name],
        "secret": check_secret(secret),
        "needs_torch": sheet.needs_torch,
        "max_score": sheet.max_score,
        "questions": rows,
        "digest": digest(sheet),
        "words": words(sheet),
    }


def digest(sheet: Sheet) -> str:
    """A hash of what was drawn: names, points, numbers and right answers, and no word of a text."""
    rows = []
    for q in sheet.questions:
        drawn = "" if q.written or q.form.get("kind") in CODE else q.solution
        shown = numbers_in(f"{q.text}\n{q.given}\n{q.starter}\n{q.public}")
        rows.append([q.name, q.kind, [points for _, points in q.table], q.form, shown, drawn])
    return hashlib.sha256(json.dumps([numbers_in(sheet.setup), rows]).encode()).hexdigest()


def words(sheet: Sheet) -> str:
    """A hash of every word that students are given."""
    seen = [[q.name, q.title, q.text, q.given, q.starter, q.public] for q in sheet.questions]
    return hashlib.sha256(json.dumps([sheet.intro, sheet.setup, seen]).encode()).hexdigest()


def numbers_in(text: str) -> list[str]:
    """The numbers of a text, in order."""
    return re.findall(r"\d[\d.,]*", text)


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
    made, here = str(key.get("package"))[:20], chunkprefill.__version__
    name, version = key["problem_set"], key.get("set_version", 1)
    if name in SET_VERSIONS and version != SET_VERSIONS[name]:
        raise ValueError(
            f"the key is of version {version!r} of {name}, this package draws version {SET_VERSIONS[name]}: "
            f"mark with chunkprefill {made}, which made the key, or draw anew"
        )
    due = make(name, key["secret"])
    for field, value in due.items():
        if field not in WORDS and _unworded(key.get(field)) != _unworded(value):
            why = (
                "the key was changed"
                if made == here
                else f"the key was made by version {made}, this is {here}"
            )
            raise ValueError(f"{field} is not what this secret draws here: {why}")
    kept = {name: key[name] for name in ("limits",) if name in key}  # of the sandbox, which checks them
    return due | {"package": str(key.get("package"))[:20]} | kept


def _unworded(value: Any) -> Any:
    """A field of a key without the titles in it."""
    if isinstance(value, list):
        return [_unworded(each) for each in value]
    if isinstance(value, dict):
        return {name: each for name, each in value.items() if name != "title"}
    return value


def verdict(path: str | os.PathLike[str]) -> tuple[bool, list[str]]:
    """(whether this package would mark with the key in a file, what it would do, in lines)."""
    try:
        key = read(path)
        kept = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        return False, [str(error), "This package would mark nothing with it."]
    rows = ", ".join(f"{row['name']} {row['points']:g}" for row in key["questions"])
    by_hand = [row["name"] for row in key["questions"] if row["written"]]
    lines = [
        f"{key['problem_set']}, version {key['set_version']}, made by chunkprefill {key['package']}; "
        f"this is {chunkprefill.__version__}",
        f"{key['max_score']:g} points: {rows}",
        f"Marked by a person: {', '.join(by_hand) or 'nothing'}.",
        "Its secret draws the same numbers and the same right answers here as where it was made.",
    ]
    if kept.get("words") != key["words"]:
        lines.append("Some words of the questions were mended since: that changes no mark.")
    return True, [*lines, "This package would mark with it."]


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
