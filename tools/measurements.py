"""Write book/measurements.md and the package's own recording from benchmarks/results/*.json.

`python tools/measurements.py [--check]`. Nothing on the page is typed: no recording, no number.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]  # so that tests may import this file as tools.measurements

from measured_benches import (  # noqa: E402
    analysis_blocks,
    evidence_blocks,
    html,
    kernels_blocks,
    overhead_blocks,
    prefill_blocks,
    schedule_blocks,
    serve_blocks,
    simulate_blocks,
    word,
)

from chunkprefill.analysis.recorded import VIEWS, recorded, recorded_picture, where_from  # noqa: E402
from chunkprefill.analysis.style import BADGES, Picture, Table  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "book" / "measurements.md"
DIGEST = ROOT / "chunkprefill" / "data" / "recorded.json"
Document = Mapping[str, Any]
HEAD = (
    "# Measurements\n\nWhat was measured, on which machine, when, and at which commit of this course. This "
    "page is made from the files under `benchmarks/results`, which hold the raw samples; nothing on it is "
    "typed by hand. Each file was written by one command, which you can run on your own machine: "
    "`python -m chunkprefill.bench NAME --out FILE`.\n\n"
    "Take the ratios for what they say, and the seconds for that machine alone."
)
NOT_YET = "Not yet recorded."


# --- the recording of a GPU -----------------------------------------------------------------------------


def digested(document: Document) -> dict[str, Any]:
    """A recording without its raw samples: what a chapter needs."""
    bulky = ("operators_s", "by_split", "traceback", "warm_s")
    rows = [
        {key: value for key, value in row.items() if "sample" not in key and key not in bulky}
        for row in document["rows"]
        if row["section"] != "equality"
    ]
    kept = ("provenance", "dtype", "size", "models", "targets")
    return {key: document[key] for key in kept} | {"rows": rows}


def gpu_recordings(documents: Mapping[str, Document]) -> list[Document]:
    """Recordings of `bench gpu`, the newest first, miniatures last."""
    found = [document for document in documents.values() if document.get("bench") == "gpu"]
    return sorted(found, key=lambda d: (d["size"] == "full", d["provenance"]["date"]), reverse=True)


def gpu_blocks(document: Document) -> Iterator[str]:
    """The page's part on one recording of `bench gpu`."""
    ceilings = [row for row in document["rows"] if row["section"] == "ceilings"]
    if ceilings:
        rows = [
            ("matrix product", f"{row['side']:,} wide", f"{row['flops'] / 1e12:,.4g} TFLOP/s")
            if "flops" in row
            else ("copy", f"{row['bytes'] / 2**30:,.3g} GiB", f"{row['bytes_a_second'] / 1e12:,.3g} TB/s")
            for row in ceilings
        ]
        yield "### The two ceilings\n\nWhat the card reached in the same run; fractions below are of these."
        yield html(Table(header=("what", "size", "reached"), rows=rows, caption="ceilings"))
    if document["targets"]:
        yield (
            "### Targets\n\nSet for an H100 in bfloat16 and the shapes of Llama-3-8B, before anything was "
            "measured."
        )
        verdicts = [
            (one["what"] + _blocks(one["target"]), one["bound"], _short(one["value"]), word(one["met"]))
            for one in document["targets"]
        ]
        yield html(Table(header=("what", "target", "found", "verdict"), rows=verdicts, caption="targets"))
    yield from gpu_pictures(document)
    yield from equality_block(document)
    for what, view in VIEWS.items():
        tables = [recorded(what, model=name, document=document).table for name in models_of(document, view)]
        shown = [html(table) for table in tables if table is not None]
        if shown:
            yield f"### {view.caption[0].upper()}{view.caption[1:]}"
            yield "\n\n".join(shown)
    for name, rows in document["profiles"].items():
        yield profile_block(name, rows)
    yield from gaps_block(document)


def _blocks(target: str) -> str:
    """What a target's name adds to its words: how the cache's blocks lie."""
    return "; " + target.split(", ")[1] if ", blocks" in target else ""


def models_of(document: Document, view: Any) -> list[str]:
    """The models that have rows of this view, the largest first."""
    names = {row.get("model") for row in document["rows"] if row["section"] == view.section}
    return [name for name in document["models"][::-1] if name in names]


def gpu_pictures(document: Document) -> Iterator[str]:
    """Prefilling by chunk with the operator roofline drawn in, as far as it was measured."""
    found = recorded("chunks", document=document)
    if len(found.rows) < 2:
        return
    model, n = found.rows[0]["model"], found.rows[0]["prompt"]
    words = "; ".join(
        f"chunk {row['chunk']:,}: {1e3 * row['s']:,.0f} ms, roofline {1e3 * row['roofline_s']:,.0f}"
        for row in found.rows
    )
    yield "### Prefilling in chunks, beside what the card allows"
    yield picture(
        recorded_picture(
            "chunks",
            "s",
            document=document,
            y_label="seconds of the whole prompt",
            alt=f"{model}, {n:,} tokens, by chunk. {words}.",
            caption=f"{model}, {n:,} tokens prefilled alone. The operator roofline is the sum over operators "
            "of the longer of two times: arithmetic at the measured rate of matrix products, bytes at the "
            "measured rate of a copy.",
        )
    )


def equality_block(document: Document) -> Iterator[str]:
    """Chunked against standard caches on the device."""
    tried = [row for row in document["rows"] if row["section"] == "equality"]
    if not tried:
        return
    rows = [
        (
            f"{row['dtype']}, {row['backend']}" + (f", {row['cache']}" if "cache" in row else ""),
            f"{row['difference']:.1e}" if row.get("difference") is not None else "not tried",
            f"{row['tolerance']:.0e}",
            word(row["equal"]),
        )
        for row in tried
    ]
    yield (
        "### The same cache, on the device\n\nThe largest difference between a cache built in chunks and one "
        "built in one pass by the definition of attention, relative to the largest number; over five ways to "
        "cut a prompt, logits included."
    )
    yield html(
        Table(header=("type, backend", "differs by", "allowed", "verdict"), rows=rows, caption="equality")
    )
    refused = sorted(
        {f"{row['backend']} in {row['dtype']}: {row['refused']}" for row in tried if "refused" in row}
    )
    if refused:
        yield "Not tried: " + "; ".join(refused) + "."


def profile_block(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Where the device's time went in the step behind a target, folded."""
    total = sum(row["device_us"] for row in rows) or sum(row["host_us"] for row in rows)
    key = "device_us" if any(row["device_us"] for row in rows) else "host_us"
    shown = sorted(rows, key=lambda row: -row[key])[:10]
    cells = [
        (_kernel(row["name"]), f"{row[key] / 1e3:,.2f} ms", f"{row[key] / total:.0%}", f"{row['calls']:,}")
        for row in shown
        if row[key] > 0
    ]
    table = Table(header=("kernel or operator", "time", "share", "calls"), rows=cells, caption=name)
    return f"<details><summary>Profile of the step: {escape(name)}</summary>\n{html(table)}\n</details>"


def _kernel(name: str) -> str:
    """A kernel's name without its template arguments, which fill a screen."""
    plain = name.removeprefix("void ").split("<")[0].split("(")[0]
    return plain[:48] or name[:48]


def gaps_block(document: Document) -> Iterator[str]:
    """What was left out, skipped or failed: said as loudly as what was found."""
    said = []
    for section in document["sections"]:
        for key, said_of in (
            ("error", "failed"),
            ("skipped", "skipped"),
            ("left_out", "left out for want of time"),
        ):
            if section.get(key):
                said.append(f"- `{section['section']}` {said_of}: {section[key]}")
    if said:
        yield "### What is not here\n\n" + "\n".join(said)


BLOCKS: dict[str, tuple[str, Callable[[Document], Iterator[str]]]] = {
    "gpu": ("On a GPU", gpu_blocks),
    "prefill": ("Chunked prefilling on a CPU", prefill_blocks),
    "serve": ("A served workload on a CPU", serve_blocks),
    "overhead": ("What scheduling costs", overhead_blocks),
    "schedule": ("vLLM's rules, step by step", schedule_blocks),
    "simulate": ("The simulator's speed", simulate_blocks),
    "analysis": ("Looking at long runs", analysis_blocks),
    "kernels": ("Priced kernels against published timings", kernels_blocks),
    "evidence": ("The claims of the book", evidence_blocks),
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
                parts.append(
                    f"## {title}\n\n{NOT_YET} `python -m chunkprefill.bench gpu --out FILE` records it."
                )
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


def picture(shown: Picture) -> str:
    return shown._repr_html_()


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


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
