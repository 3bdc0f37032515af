"""The recordings that travel with the package, as `tools/` digested them from `benchmarks/results`."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

MAX_BYTES = 4 << 20  # of a digest; the largest is a tenth of it


@cache
def digest(name: str) -> dict[str, Any]:
    """The digest `name` of `data/`; {} if there is none. ValueError for a file that is no recording."""
    path = files("chunkprefill_course") / "data" / f"{name}.json"
    if not path.is_file():
        return {}
    text = path.read_text("utf-8")
    if len(text) > MAX_BYTES:
        raise ValueError(f"{name}.json has {len(text):,} characters, at most {MAX_BYTES:,} are read")
    document = json.loads(text)
    if not isinstance(document, dict) or not isinstance(document.get("rows", []), list):
        raise ValueError(f"{name}.json is no recording: an object with rows is needed")
    return document
