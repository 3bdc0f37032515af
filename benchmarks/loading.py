"""Checkpoints of other people: which variants give the logits of transformers, and which are refused, and how.

Each variant is a `config.json` that transformers wrote, or what others make of one, with small random weights.
Agreement is measured in float64, whole and in chunks of 7 and 64.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import checkpoints
from benchmarks.runner import options, provenance_of, write
from chunkprefill.model.weights import load_model

BOUND = 1e-9  # of the largest logit


def variants() -> Iterator[tuple[str, str, Callable[[Path], dict[str, Any]]]]:
    """Family, name, and what tries the variant in an empty folder."""
    for family, name, more in checkpoints.AGREE:
        yield family, name, partial(agreement, family=family, more=more, changes={})
    for family, changes in checkpoints.EDITS:
        yield family, ", ".join(changes), partial(agreement, family=family, more={}, changes=changes)
    for family, changes, _ in checkpoints.REFUSED:
        yield family, ", ".join(changes), partial(refusal, family=family, changes=changes)


def agreement(folder: Path, *, family: str, more: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The error beside transformers, or the line with which we refuse."""
    raw = checkpoints.written(folder, family, **more)
    checkpoints.write(folder, checkpoints.edited(raw, changes))
    return tried(folder, lambda: checkpoints.largest_gap(folder, family))


def refusal(folder: Path, *, family: str, changes: dict[str, Any]) -> dict[str, Any]:
    """The line with which we refuse a changed file beside the weights of the unchanged one; else the error."""
    raw = checkpoints.written(folder, family)
    checkpoints.largest_gap(folder, family)
    checkpoints.write(folder, checkpoints.edited(raw, changes))

    def load() -> float:
        load_model(folder)
        return checkpoints.largest_gap(folder, family)

    return tried(folder, load)


def tried(folder: Path, measure: Callable[[], float]) -> dict[str, Any]:
    try:
        return {"error": measure()}
    except ValueError as error:
        return {"refused": str(error).replace(f"{folder}/", "").replace(f"{folder}: ", "")}


def main(argv: list[str] | None = None) -> int:
    parser = options("loading", __doc__)
    args = parser.parse_args(argv)
    if checkpoints.transformers is None:
        print("MISSING transformers: pip install transformers", file=sys.stderr)
        return 1
    rows = []
    for family, name, attempt in variants():
        with tempfile.TemporaryDirectory() as folder:
            rows.append({"family": family, "variant": name} | attempt(Path(folder)))
    errors = [row["error"] for row in rows if "error" in row]
    wrong = [row for row in rows if row.get("error", 0.0) >= BOUND]
    print(
        f"{len(rows)} variants: {len(errors) - len(wrong)} agree within {BOUND:g} (largest error "
        f"{max(errors):.1e}), {len(rows) - len(errors)} refused by name, {len(wrong)} silently wrong",
        file=sys.stderr,
    )
    about = provenance_of(args)
    write({"provenance": about, "bound": BOUND, "rows": rows}, args.out)
    return 1 if wrong else 0
