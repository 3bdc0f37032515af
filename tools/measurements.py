"""Write book/measurements.md and the package's own recording from benchmarks/results/*.json.

`python tools/measurements.py [--check]`. Nothing on the page is typed: no recording, no number.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]  # so that tests may import this file as tools.measurements

from measured_benches import (  # noqa: E402
    Document,
    accuracy_blocks,
    analysis_blocks,
    evidence_blocks,
    grade_blocks,
    kernels_blocks,
    overhead_blocks,
    pageweight_blocks,
    parts_blocks,
    prefill_blocks,
    profile_blocks,
    schedule_blocks,
    serve_blocks,
    simulate_blocks,
)
from measured_engines import engines_blocks, loading_blocks, openvino_blocks, vllm_blocks  # noqa: E402
from measured_gpu import gpu_blocks  # noqa: E402

from chunkprefill.plots.style import BADGES  # noqa: E402
from chunkprefill_course.gpu_recording import ranges, where_from  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "book" / "measurements.md"
DIGEST = ROOT / "chunkprefill_course" / "data" / "recorded.json"
HEAD = (
    "# Measurements\n\nWhat was measured, on which machine, when, and at which commit of this course. This "
    "page is made from the files under `benchmarks/results`, which hold the raw samples; nothing on it is "
    "typed by hand. Each file was written by one command, which you can run on your own machine: "
    "`python -m benchmarks NAME --out FILE`.\n\n"
    "The ratios carry over to other machines better than the seconds do."
)
NOT_YET = "Not yet recorded."


# --- the recording of a GPU -----------------------------------------------------------------------------


def digested(document: Document) -> dict[str, Any]:
    """A recording without its raw samples, but with their range: what a chapter needs."""
    bulky = ("operators_s", "by_split", "traceback", "warm_s")
    rows = [
        {key: value for key, value in row.items() if "sample" not in key and key not in bulky} | ranges(row)
        for row in document["rows"]
        if row["section"] != "equality"
    ]
    kept = ("provenance", "dtype", "size", "models", "targets")
    return {key: document[key] for key in kept} | {"rows": rows}


def gpu_recordings(documents: Mapping[str, Document]) -> list[Document]:
    """Recordings of `bench gpu`, the newest first, miniatures last."""
    found = [document for document in documents.values() if document.get("bench") == "gpu"]
    return sorted(found, key=lambda d: (d["size"] == "full", d["provenance"]["date"]), reverse=True)


BLOCKS: dict[str, tuple[str, Callable[[Document], Iterator[str]]]] = {
    "gpu": ("On a GPU", gpu_blocks),
    "prefill": ("Chunked prefilling on a CPU", prefill_blocks),
    "serve": ("A served workload on a CPU", serve_blocks),
    "engines": ("The same work on other engines, on a CPU", engines_blocks),
    "vllm": ("vLLM on a CPU, our engine, the simulator", vllm_blocks),
    "openvino": ("OpenVINO on a CPU", openvino_blocks),
    "overhead": ("What scheduling costs", overhead_blocks),
    "parts": ("The parts of a step, in vLLM and in our engine", parts_blocks),
    "profile": ("Steps under a profiler", profile_blocks),
    "schedule": ("vLLM's rules, step by step", schedule_blocks),
    "simulate": ("The simulator's speed", simulate_blocks),
    "analysis": ("Looking at long runs", analysis_blocks),
    "kernels": ("Priced kernels against published timings", kernels_blocks),
    "loading": ("Checkpoints that others write", loading_blocks),
    "accuracy": ("The simulator against measured runs", accuracy_blocks),
    "grade": ("Grading", grade_blocks),
    "evidence": ("The claims of the book", evidence_blocks),
    "pageweight": ("The pages of the book", pageweight_blocks),
}


# --- the page -------------------------------------------------------------------------------------------


def page(documents: Mapping[str, Document]) -> str:
    """The whole page: {file name: its content} -> Markdown. A bench of no known name is listed too."""
    parts = [HEAD]
    order = list(BLOCKS)
    known = [d.get("bench", _bench_of(name)) for name, d in documents.items()]
    for bench in [*order, *sorted(set(known) - set(order))]:
        title, blocks = BLOCKS.get(bench, (f"`bench {bench}`", lambda document: iter(())))
        mine = {name: d for (name, d), kind in zip(documents.items(), known) if kind == bench}
        if not mine:
            if bench == "gpu":
                parts.append(f"## {title}\n\n{NOT_YET} `python -m benchmarks gpu --out FILE` records it.")
            continue
        parts.append(f"## {title}")
        for name, document in mine.items():
            parts.append(badge_line(name, document))
            parts += blocks(document)
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _bench_of(name: str) -> str:
    return name.removesuffix(".json").split("-")[0]


def badge_line(name: str, document: Document) -> str:
    """Whose numbers these are."""
    p = document["provenance"]
    badge = f'<span class="cp-badge cp-badge-recorded">{BADGES["recorded"]}</span>'
    more = [f"torch {p['torch']}", p["machine"], f"seed {p['seed']}"]
    if p.get("driver", "none") != "none":
        more.insert(0, f"driver {p['driver']}")
    if p["dirty"] == "unknown":
        more.append("whether the tree was clean is not known")
    where = f"{escape(where_from(document))}; {escape('; '.join(more))}"
    return f"{badge} {where}. Raw: `benchmarks/results/{name}`."


def read(folder: Path) -> dict[str, Document]:
    """The recordings of a folder by file name. Raises ValueError, naming the file, for one that is none."""
    documents: dict[str, Document] = {}
    for path in sorted(folder.glob("*.json")):
        document = json.loads(path.read_text("utf-8"))
        if not isinstance(document, dict) or "provenance" not in document:
            raise ValueError(f"{path.name}: no recording, it names no provenance")
        documents[path.name] = document
    return documents


def main(args: list[str]) -> int:
    """Write page and digest, or with --check say whether they are what the recordings make."""
    documents = read(RESULTS)
    made = {PAGE: page(documents)}
    recordings = gpu_recordings(documents)
    if recordings:
        made[DIGEST] = json.dumps(digested(recordings[0]), separators=(",", ":"), sort_keys=True) + "\n"
    stale = [path for path, text in made.items() if not path.is_file() or path.read_text("utf-8") != text]
    if "--check" in args:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is stale: run python tools/measurements.py", file=sys.stderr)
        return 1 if stale else 0
    for path, text in made.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
