"""Read a notebook that may be anything: its code in order, its answers' cells, and its texts."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chunkprefill_grading.submission.stamps import stamps_of

MAX_BYTES = 32 << 20  # of a notebook, its pictures included
MAX_BRACKETS = 1_000_000  # a notebook of brackets alone would fill the memory
MAX_PARTS = 1_500_000  # commas and colons: what bounds the time and the memory of a parser
MAX_CELLS = 5_000
MAX_CODE = 2_000_000  # characters
MAX_TEXT = 16_000_000  # characters of cells that are not code, pasted pictures included
MAX_WRITTEN = 20_000
MAX_ANSWER = 8_000  # characters of a cell that are shown beside its mark
MARKER = re.compile(r"<!--\s*answer:\s*([\w.-]{1,80})\s*-->")
ANSWER_CELL = re.compile(r"^[ \t]*# Answer: ([\w.-]{1,80})[ \t]*$", re.M)  # \s would try each newline anew


#: What files begin with that are called like a notebook and are none.
OTHER_FILES = {
    b"<<<<<<< ": "a file with the marks of a merge that was not finished",
    b"<": "a web page and no notebook",
    b"%PDF": "a PDF and no notebook",
    b"PK\x03\x04": "a zip, or a document, called like a notebook",
    b"\x1f\x8b": "a packed file called like a notebook",
    b"\x89PNG": "a picture and no notebook",
    b"\xff\xd8\xff": "a picture and no notebook",
}
#: Colab writes a pasted picture into the text; without this it would fill what is kept of an answer.
PICTURE = re.compile(r"data:[\w/.+-]{1,60};base64,[A-Za-z0-9+/=]*")
A_PICTURE = "[a picture: see the notebook]"


class Unreadable(ValueError):
    """No notebook can be made of this; the message says why, for an instructor."""


@dataclass(frozen=True)
class Text:
    """A cell that is not code. after: how many code cells come before it."""

    source: str
    after: int
    place: int  # among all cells, from 1


@dataclass(frozen=True)
class Submission:
    """What counts of a notebook.

    cells: the sources of its code cells. written: the text below each marker of a written answer. answers:
    the cell that begins with `# Answer: NAME`, by name. texts: all cells that are not code, and the code
    cells that hold a marker.
    """

    cells: tuple[str, ...]
    written: dict[str, str]
    sha: str  # of the file
    answers: Mapping[str, str] = field(default_factory=dict)
    texts: tuple[Text, ...] = ()
    stamps: frozenset[str] = frozenset()  # draws that it says it belongs to


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


def _document(data: bytes) -> Any:
    """The JSON, after a look at what parsing it would cost."""
    if not data.strip():
        raise Unreadable("the file is empty")
    if b"\0" in data[:4]:  # UTF-16 or 32: `json` knows either, with a mark or without
        try:
            data = data.decode(json.detect_encoding(data)).encode()
        except UnicodeError:
            raise Unreadable("no text in UTF-8") from None
    if data.count(b"[") + data.count(b"{") > MAX_BRACKETS:
        raise Unreadable(f"more than {MAX_BRACKETS:,} brackets: no notebook has so many")
    if data.count(b",") + data.count(b":") > MAX_PARTS:
        raise Unreadable(f"more than {MAX_PARTS:,} commas and colons: clear the outputs and save it again")
    try:
        return json.loads(data.decode("utf-8-sig"))
    except RecursionError:
        raise Unreadable("no notebook: brackets nested without end") from None
    except ValueError as error:
        known = next((what for begin, what in OTHER_FILES.items() if data.lstrip().startswith(begin)), "")
        if known:
            raise Unreadable(f"{known}: save the notebook itself, as a file that ends in .ipynb") from None
        if isinstance(error, UnicodeDecodeError):
            raise Unreadable("no text in UTF-8") from None
        raise Unreadable(f"no JSON, or cut off: {error}") from None


def parse(data: bytes) -> Submission:
    """A notebook of format 4 or 3, whatever its metadata say. Unreadable says what is wrong with the rest."""
    document = _document(data)
    if not isinstance(document, dict):
        raise Unreadable("no list of cells")
    if "cells" not in document and isinstance(document.get("worksheets"), list):
        document = _of_format_3(document)
    cells = document.get("cells")
    if not isinstance(cells, list):
        raise Unreadable("no list of cells")
    if len(cells) > MAX_CELLS:
        raise Unreadable(f"{len(cells)} cells, {MAX_CELLS} is the most")
    code: list[str] = []
    written: dict[str, str] = {}
    answers: dict[str, str] = {}
    texts: list[Text] = []
    for number, cell in enumerate(cells, 1):
        if not isinstance(cell, dict):
            raise Unreadable(f"cell {number} is no cell")
        source = _source(cell.get("source", ""), number)
        if cell.get("cell_type") == "code":
            code.append(source)
            if found := ANSWER_CELL.search(source):
                answers[found[1]] = source[:MAX_ANSWER]
            if not MARKER.search(source):
                continue
        source = PICTURE.sub(A_PICTURE, source)
        texts.append(Text(source, len(code), number))
        if cell.get("cell_type") == "markdown":
            for name, text in _answers(source):
                if text or name not in written:  # of several copies, the last that says something
                    written[name] = text
    if sum(map(len, code)) > MAX_CODE:
        raise Unreadable(f"more than {MAX_CODE:,} characters of code")
    if sum(len(text.source) for text in texts) > MAX_TEXT:
        raise Unreadable(f"more than {MAX_TEXT:,} characters of text: take the pictures out of it")
    sha = hashlib.sha256(data).hexdigest()
    return Submission(tuple(code), written, sha, answers, tuple(texts), stamps_of(document))


def _of_format_3(document: dict[str, Any]) -> dict[str, Any]:
    """The same notebook in format 4, as far as it is read here: Jupyter wrote format 3 until 2015.

    Its cells lie in worksheets, one after the other; code lies in `input`, and a heading is a cell of its own.
    """
    cells: list[Any] = []
    for sheet in document["worksheets"]:
        found = sheet.get("cells") if isinstance(sheet, dict) else None
        if not isinstance(found, list):
            raise Unreadable("a notebook of format 3 with a worksheet that has no list of cells")
        for number, cell in enumerate(found, len(cells) + 1):
            if not isinstance(cell, dict):
                raise Unreadable(f"cell {number} is no cell")
            kind = cell.get("cell_type")
            if kind == "code":
                cell = {"cell_type": "code", "source": cell.get("input", "")}
            elif kind == "heading":
                level = cell.get("level", 1)
                level = level if type(level) is int and 0 < level < 7 else 1
                cell = {
                    "cell_type": "markdown",
                    "source": "#" * level + " " + _source(cell.get("source", ""), number),
                }
            elif kind == "html":
                cell = {**cell, "cell_type": "markdown"}
            cells.append(cell)
    return {**document, "cells": cells}


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
