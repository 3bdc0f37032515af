"""What a recording of `bench gpu` puts on book/measurements.md."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from measured_benches import Document, html, word  # noqa: E402

from benchmarks.gpu.equality import TOLERANCES as TYPES  # noqa: E402
from chunkprefill.plots.curve import curve_picture  # noqa: E402
from chunkprefill.plots.style import Picture, Table  # noqa: E402
from chunkprefill_course.gpu_recording import VIEWS, recorded, recorded_picture, where_from  # noqa: E402


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
        yield "### The two ceilings\n\nWhat the GPU reached in the same run; the fractions below refer to these."
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
    yield from mixed_picture(document)
    yield from equality_block(document)
    for what, view in VIEWS.items():
        tables = [recorded(what, model=name, document=document).table for name in models_of(document, view)]
        shown = [html(table) for table in tables if table is not None]
        if shown:
            yield f"### {view.caption[0].upper()}{view.caption[1:]}"
            yield shown[0]
            if shown[1:]:
                yield folded("Smaller models", *shown[1:])
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
    yield "### Prefilling in chunks, beside what the GPU allows"
    yield picture_lines(
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


def mixed_picture(document: Document) -> Iterator[str]:
    """Steps of a chunk beside the most decodes measured with several chunks, with their roofline drawn in."""
    loads: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
    for row in recorded("mixed", document=document).rows:
        loads.setdefault((row["decodes"], row["context"]), []).append(row)
    load, rows = max(loads.items(), key=lambda item: (len(item[1]), item[0]), default=((0, 0), []))
    if len(rows) < 2:
        return
    rows = sorted(rows, key=lambda row: row["chunk"])
    chunks = [row["chunk"] for row in rows]
    words = "; ".join(
        f"chunk {row['chunk']:,}: {1e3 * row['s']:.1f} ms, roofline {1e3 * row['roofline_s']:.1f}"
        for row in rows
    )
    shown = curve_picture(
        {
            "measured": (chunks, [1e3 * row["s"] for row in rows]),
            "operator roofline": (chunks, [1e3 * row["roofline_s"] for row in rows]),
        },
        x_label="chunk",
        y_label="ms of a step",
        badge="recorded",
        source=where_from(document),
        alt=f"{rows[0]['model']}, a chunk beside {load[0]} decodes at {load[1]:,}. {words}.",
        caption=f"{rows[0]['model']}: a chunk and {load[0]} decodes with {load[1]:,} tokens cached.",
    )
    yield "### A chunk beside decodes, and what the GPU allows"
    yield picture_lines(shown)


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
    worst = [_worst([row for row in tried if row["dtype"] == dtype]) for dtype in TYPES]
    header = ("type", "differs by at most", "allowed", "verdict")
    yield html(Table(header=header, rows=[row for row in worst if row], caption="equality"))
    header = ("type, backend", "differs by", "allowed", "verdict")
    yield folded("Case by case", html(Table(header=header, rows=rows, caption="equality, case by case")))
    refused = sorted(
        {f"{row['backend']} in {row['dtype']}: {row['refused']}" for row in tried if "refused" in row}
    )
    if refused:
        yield "Not tried: " + "; ".join(refused) + "."


def _worst(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """One type's largest difference over all cases that were tried."""
    tried = [row for row in rows if row["equal"] is not None]
    if not tried:
        return (rows[0]["dtype"], "not tried", f"{rows[0]['tolerance']:.0e}", word(None)) if rows else ()
    gaps = [row["difference"] for row in tried]
    shown = "no number" if None in gaps else f"{max(gaps):.1e}"  # None: there was a NaN, or an infinity
    return tried[0]["dtype"], shown, f"{tried[0]['tolerance']:.0e}", word(all(row["equal"] for row in tried))


def folded(title: str, *blocks: str) -> str:
    """Blocks of HTML that open on demand."""
    return "\n".join((f"<details><summary>{escape(title)}</summary>", *blocks, "</details>"))


def profile_block(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Where the device's time went in the step behind a target, folded."""
    key = "device_us" if any(row["device_us"] for row in rows) else "host_us"
    shown = sorted(rows, key=lambda row: -row[key])[:10]
    cells = [
        (_kernel(row["name"]), f"{row[key] / 1e3:,.2f} ms", f"{row['share']:.0%}", f"{row['calls']:,}")
        for row in shown
        if row[key] > 0
    ]
    table = Table(header=("kernel or operator", "time", "share", "calls"), rows=cells, caption=name)
    return folded(f"Profile of the step: {name}", html(table))


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


def picture_lines(shown: Picture) -> str:
    return shown._repr_html_()


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
