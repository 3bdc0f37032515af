"""JSON as others write it, read strictly: a key that is there twice with two values is refused.

A byte order mark before it, as Windows' editors leave one, means nothing and is passed over.
"""

from __future__ import annotations

import json
import os
import reprlib
from typing import Any


def loads(text: str | bytes) -> Any:
    """What `json.loads` gives. ValueError for a key that an object repeats with another value."""
    text = text.decode("utf-8") if isinstance(text, bytes) else text
    return json.loads(text.removeprefix("\ufeff"), object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; json would take the last of a key's values."""
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: dict[str, Any] = {}
        for key, item in pairs:
            if _spelt(seen.setdefault(key, item)) != _spelt(item):
                raise ValueError(f"the key {key!r} is there twice, as {shown(seen[key])} and {shown(item)}")
    return value


def _spelt(value: Any) -> str:
    """A value as JSON spells it: in Python 1 equals true and 1.0."""
    return json.dumps(value, sort_keys=True)


def instead(path: str | os.PathLike[str]) -> str:
    """What a file is, where that is a known stand-in for what its name promises; else ""."""
    if not os.path.isfile(path):  # what is read from a pipe is gone
        return ""
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except OSError:
        return ""
    kinds = {
        b"version https://git-lfs": "it is a pointer of git-lfs: fetch the file itself, with `git lfs pull`",
        b"\x1f\x8b": "it is compressed by gzip: unpack it",
        b"PK\x03\x04": "it is a zip archive: unpack it",
        b"\xff\xfe": "it is text in UTF-16, as some shells write it: UTF-8 is read",
        b"\xfe\xff": "it is text in UTF-16, as some shells write it: UTF-8 is read",
        b"<!doctype html": "it is a web page, and not the file that it shows",
        b"<html": "it is a web page, and not the file that it shows",
    }
    return next((said for begin, said in kinds.items() if head.lower().startswith(begin.lower())), "")


def shown(value: Any) -> str:
    """A value of a file in a message: one line, and not longer than a line."""
    brief = reprlib.Repr()
    brief.maxstring = brief.maxother = brief.maxlong = 60
    brief.maxdict = brief.maxlist = 6
    return brief.repr(value).replace("\n", " ")


def words(text: str) -> frozenset[str]:
    """A list of names written as a text."""
    return frozenset(text.split())


def first_line(error: BaseException) -> str:
    """The beginning of an error, which may be pages; its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


def printable(text: str) -> str:
    """`text` without what would steer a terminal; line ends stay."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
