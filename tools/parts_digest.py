"""Write the package's digest of a step's recorded parts from benchmarks/results/parts-cpu.json.

`python tools/parts_digest.py [--check]`. Nothing is typed: no recording, no digest.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))  # so that tests may import this file
from digest_writer import ROOT, write

SOURCE = ROOT / "benchmarks" / "results" / "parts-cpu.json"
DIGEST = ROOT / "chunkprefill_course" / "data" / "parts.json"


def digested(document: dict[str, Any]) -> dict[str, Any]:
    """The recording without the seconds of single steps."""
    rows = [{key: value for key, value in row.items() if key != "samples_s"} for row in document["rows"]]
    return {key: value for key, value in document.items() if key != "rows"} | {"rows": rows}


def main(argv: list[str]) -> int:
    return write(SOURCE, DIGEST, digested, check="--check" in argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
