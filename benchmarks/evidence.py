"""Run every claim's evidence, under its conditions and with one of them changed; record what it found."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.runner import options, provenance_of, write
from chunkprefill_course import evidence
from chunkprefill_course.evidence.evidence import Evidence, both_sides

OUT = Path("benchmarks/results/evidence.json")


def functions() -> dict[str, Callable[..., Evidence]]:
    """Claim id -> the function that is its evidence, for all that the evidence room offers."""
    offered = {name: getattr(evidence, name) for name in evidence.__all__}
    return {
        name.replace("_", "-"): function
        for name, function in offered.items()
        if inspect.isfunction(function) and "changed" in inspect.signature(function).parameters
    }


def main(argv: list[str] | None = None) -> int:
    """Exit status 1 if a claim does not hold, or holds whatever is changed."""
    parser = options("evidence", __doc__)
    parser.set_defaults(out=OUT)
    parser.add_argument("--only", nargs="*", help="ids of claims; those not named keep their last record")
    args = parser.parse_args(argv)
    todo = functions()
    if unknown := set(args.only or ()) - set(todo):
        parser.error(f"no evidence for {', '.join(sorted(unknown))}; there is {', '.join(todo)}")
    rows: dict[str, Any] = _recorded(args.out) if args.only else {}
    where = provenance_of(args)
    for claim in tqdm(args.only or todo, desc="evidence", unit="claim"):
        found = both_sides(todo[claim])
        # Torch may have been loaded on the way: ask for the machine again.
        where = provenance_of(args)
        rows[claim] = {
            "claim": claim,
            "sound": found.sound,
            "claimed": found.claimed.as_json(),
            "changed": found.changed.as_json(),
            "where": where,
        }
    write({"provenance": where, "rows": [rows[claim] for claim in sorted(rows)]}, args.out)
    unsound = [claim for claim, row in rows.items() if not row["sound"]]
    for claim in unsound:
        print(
            f"{claim}: holds {rows[claim]['claimed']['holds']}, changed {rows[claim]['changed']['holds']}",
            file=sys.stderr,
        )
    return 1 if unsound else 0


def _recorded(path: Path) -> dict[str, Any]:
    try:
        return {row["claim"]: row for row in json.loads(path.read_text("utf-8"))["rows"]}
    except FileNotFoundError:
        return {}
