"""Which draw a notebook says it belongs to: in its metadata and in its first text, where either is left."""

from __future__ import annotations

import re
from typing import Any

KEY = "chunkprefill"  # of the notebook's metadata: {"chunkprefill": {"draw": "PS1-3f9a21bc04"}}
STAMP = re.compile(r"\b[A-Z]{1,4}\d{1,3}-[0-9a-f]{10}\b")
LINE = "*This is draw `{stamp}`. It goes with one key alone: hand in this notebook, and no other's.*"
_SHOWN = re.compile(r"draw `([^`\n]{1,40})`")
N_TEXTS = 3  # cells of text that are looked at: people put their names above the title


def stamps_of(document: dict[str, Any]) -> frozenset[str]:
    """The stamps in a notebook's metadata and in its first texts."""
    found: set[str] = set()
    metadata = document.get("metadata")
    ours = metadata.get(KEY) if isinstance(metadata, dict) else None
    if isinstance(ours, dict) and isinstance(ours.get("draw"), str):
        found |= set(STAMP.findall(ours["draw"][:100]))
    texts = [cell for cell in document["cells"] if cell.get("cell_type") == "markdown"]
    for cell in texts[:N_TEXTS]:
        source = cell.get("source", "")
        text = "".join(source) if isinstance(source, list) else source
        for shown in _SHOWN.findall(text):
            found |= set(STAMP.findall(shown))
    return frozenset(found)


def refusal(stamps: frozenset[str], due: str) -> str:
    """Why a notebook is not marked with the key of draw `due`, or ""; one without stamps is believed."""
    if not stamps or due in stamps:
        return ""
    mine = ", ".join(sorted(stamps)[:3])
    sets = {each.partition("-")[0] for each in stamps}
    what = "another problem set" if due.partition("-")[0] not in sets else "another draw of this problem set"
    return f"this notebook is of {what}: it is of draw {mine}, the key of draw {due}"
