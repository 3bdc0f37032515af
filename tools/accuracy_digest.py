"""Write the package's error bar from benchmarks/results/accuracy.json: `python tools/accuracy_digest.py [--check]`.

`advise` says by it how far predictions were off on runs that nothing was fitted to.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from digest_writer import write  # noqa: E402

from chunkprefill.configs import find_device  # noqa: E402

SOURCE = ROOT / "benchmarks" / "results" / "accuracy.json"
DIGEST = ROOT / "chunkprefill" / "data" / "accuracy.json"


def digested(document: dict[str, Any]) -> dict[str, Any]:
    """{"rows": a row a cell of its tables: device, model, run, metric, error (predicted / measured − 1)}."""
    rows = [
        {
            "device": find_device(row["engine"]["device"]).name,
            "model": row["model"],
            "run": row["run"],
            "metric": f"{metric} {statistic}",
            "error": error,
        }
        for row in document["rows"]
        for metric, cells in row["error"].items()
        for statistic, error in cells.items()
    ]
    kept = {key: document["provenance"][key] for key in ("date", "commit", "dirty")}
    return {"what": document["what"], "provenance": kept, "rows": rows}


def main(argv: list[str]) -> int:
    files = [Path(a) for a in argv if not a.startswith("-")]
    return write(files[0] if files else SOURCE, DIGEST, digested, check="--check" in argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
