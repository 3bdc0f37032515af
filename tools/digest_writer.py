"""What the writers of digests share: a recording of benchmarks/results, made small for a package's `data/`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def write(
    source: Path, digest: Path, digested: Callable[[dict[str, Any]], dict[str, Any]], *, check: bool
) -> int:
    """Write `digest`, or `check` that it is not stale: the exit status. No recording, no digest."""
    if not source.exists():
        print(f"nothing recorded: {source} is not there", file=sys.stderr)
        return 0
    text = json.dumps(digested(json.loads(source.read_text("utf-8"))), indent=1, ensure_ascii=False) + "\n"
    if not check:
        digest.parent.mkdir(exist_ok=True)
        digest.write_text(text, "utf-8")
        return 0
    stale = not digest.exists() or digest.read_text("utf-8") != text
    if stale:
        print(f"stale, run `make pages`: {digest.relative_to(ROOT)}", file=sys.stderr)
    return int(stale)
