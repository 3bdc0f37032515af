"""Read a notebook that may be anything: its code in order, and its written answers by their markers."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_BYTES = 32 << 20  # of a notebook, its pictures included
MAX_BRACKETS = 1_000_000  # a notebook of brackets alone would fill the memory
MAX_CELLS = 5_000
MAX_CODE = 2_000_000  # characters
MAX_WRITTEN = 20_000
MARKER = re.compile(r"<!--\s*answer:\s*([\w.-]{1,80})\s*-->")


class Unreadable(ValueError):
    """No notebook can be made of this; the message says why, for an instructor."""


@dataclass(frozen=True)
class Submission:
    """What counts of a notebook: the sources of its code cells, and its written answers by marker."""

    cells: tuple[str, ...]
    written: dict[str, str]
    sha: str  # of the file


def load(path: Path) -> Submission:
    """Read a file. Unreadable for whatever is no notebook."""
    return parse(read_bytes(path))


def read_bytes(path: Path, most: int = MAX_BYTES) -> bytes:
    """The bytes of a regular file, no link and no pipe. Unreadable if there are more than `most`."""
    try:
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        with os.fdopen(os.open(path, flags | getattr(os, "O_BINARY", 0)), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Unreadable("no regular file")
            data = file.read(most + 1)
    except OSError as error:
        reason = "a link" if os.path.islink(path) else error.strerror
        raise Unreadable(f"the file cannot be read: {reason}") from None
    if len(data) > most:
        raise Unreadable(f"more than {most >> 20} MB: clear the outputs and save it again")
    return data


def parse(data: bytes) -> Submission:
    """A notebook of format 4, whatever its metadata say. Unreadable says what is wrong with the rest."""
    if not data.strip():
        raise Unreadable("the file is empty")
    if data.count(b"[") + data.count(b"{") > MAX_BRACKETS:
        raise Unreadable(f"more than {MAX_BRACKETS:,} brackets: no notebook has so many")
    try:
        document = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise Unreadable("no text in UTF-8") from None
    except RecursionError:
        raise Unreadable("no notebook: brackets nested without end") from None
    except ValueError as error:
        raise Unreadable(f"no JSON, or cut off: {error}") from None
    cells = document.get("cells") if isinstance(document, dict) else None
    if not isinstance(cells, list):
        old = isinstance(document, dict) and "worksheets" in document
        raise Unreadable(
            "a notebook of format 3: save it with a newer Jupyter" if old else "no list of cells"
        )
    if len(cells) > MAX_CELLS:
        raise Unreadable(f"{len(cells)} cells, {MAX_CELLS} is the most")
    code, written = [], dict[str, str]()
    for number, cell in enumerate(cells, 1):
        if not isinstance(cell, dict):
            raise Unreadable(f"cell {number} is no cell")
        source = _source(cell.get("source", ""), number)
        if cell.get("cell_type") == "code":
            code.append(source)
        elif cell.get("cell_type") == "markdown":
            for name, text in _answers(source):
                if text or name not in written:  # of several copies, the last that says something
                    written[name] = text
    if sum(map(len, code)) > MAX_CODE:
        raise Unreadable(f"more than {MAX_CODE:,} characters of code")
    return Submission(tuple(code), written, hashlib.sha256(data).hexdigest())


def _source(source: Any, number: int) -> str:
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "".join(source)
    if not isinstance(source, str):
        raise Unreadable(f"cell {number} has no text")
    return source.encode("utf-8", "replace").decode()  # half a surrogate pair is no character


def _answers(source: str) -> list[tuple[str, str]]:
    """(name, text) of each marker in a cell; the text goes to the next marker, or to the end."""
    parts = MARKER.split(source)
    return [(name, text.strip()[:MAX_WRITTEN]) for name, text in zip(parts[1::2], parts[2::2])]
