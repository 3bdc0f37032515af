"""Write the package's digest of the recorded vLLM runs from benchmarks/results/vllm-cpu.json.

`python tools/vllm_digest.py [--check]`. Nothing is typed: no recording, no digest.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))  # so that tests may import this file
from digest_writer import ROOT, write

SOURCE = ROOT / "benchmarks" / "results" / "vllm-cpu.json"
DIGEST = ROOT / "chunkprefill_course" / "data" / "vllm.json"
KEPT = ("vllm", "vllm_mode", "model", "document", "provenance")
ROW = ("settings", "load", "flags", "policy", "same_tokens", "verdict", "metrics")


def digested(document: dict[str, Any]) -> dict[str, Any]:
    """The recording without the times of single tokens, the first of each request excepted: what a chapter needs."""
    rows = []
    for row in document["rows"]:
        columns = {
            name: {key: column[key] for key in ("s", "preemptions", "why")} | {"first_s": firsts(column)}
            for name, column in row["columns"].items()
        }
        rows.append({key: row[key] for key in ROW if key in row} | {"columns": columns})
    return {key: document[key] for key in KEPT} | {"rows": rows}


def firsts(column: dict[str, Any]) -> dict[str, float]:
    """{request: when its first token came, s from the start of the run}."""
    return {rid: times[1] for rid, times in column["tokens_s"].items() if len(times) > 1}


def main(argv: list[str]) -> int:
    return write(SOURCE, DIGEST, digested, check="--check" in argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
