"""What each bench that needs no GPU puts on book/measurements.md: a table or two of its file."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from chunkprefill.analysis.style import Table  # noqa: E402

Document = Mapping[str, Any]


def prefill_blocks(document: Document) -> Iterator[str]:
    yield (
        "Seconds of `transformers` over ours, the same weights and threads; and the share of the machine's "
        "matrix-product peak that ours reaches."
    )
    rows = [
        (f"{cell['prompt']:,} in {cell['chunk']:,}", _times(cell["ratio"]), f"{cell['fraction_of_peak']:.0%}")
        for cell in document["cells"]
    ]
    yield html(
        Table(header=("prompt in chunks", "ratio", "of the peak"), rows=rows, caption="chunked prefilling")
    )


def serve_blocks(document: Document) -> Iterator[str]:
    yield f"{document['requests']['n']} requests, all there at the start; outputs compared."
    rows = [
        (row["server"], f"{row['tokens_a_second']:,.0f}", _times(row["over_ours"]), f"{row['equal_outputs']}")
        for row in document["rows"]
    ]
    header = ("server", "tokens/s", "time over ours", "equal outputs")
    yield html(Table(header=header, rows=rows, caption="a served workload"))


def schedule_blocks(document: Document) -> Iterator[str]:
    yield f"What is timed: {document['what']}."
    rows = [
        (f"{row['case']}, {row['running']}", f"{row['step_us']:,.1f} µs", f"{row['request_us']:,.2f} µs")
        for row in document["rows"]
    ]
    yield html(Table(header=("case, running", "a step", "a request"), rows=rows, caption="scheduling"))


def simulate_blocks(document: Document) -> Iterator[str]:
    yield f"What is timed: {document['what']}."
    rows = [
        (row["case"], f"{row['steps_a_second']:,.0f}", f"{row['peak_mb']:,.0f} MB", _all_met(row["met"]))
        for row in document["rows"]
    ]
    yield html(Table(header=("case", "steps/s", "peak", "targets"), rows=rows, caption="the simulator"))


def analysis_blocks(document: Document) -> Iterator[str]:
    rows = [
        (row["case"], f"{row['seconds']:.3g} s", f"at most {row['target_s']:g} s", word(row["met"]))
        for row in document["rows"]
    ]
    yield html(Table(header=("what", "took", "target", "verdict"), rows=rows, caption="looking at runs"))


def kernels_blocks(document: Document) -> Iterator[str]:
    yield "How far the priced kernels are from published timings: the mean of |priced / published − 1|."
    rows = []
    for name, device in document["devices"].items():
        for of, error in device["errors"].items():
            if isinstance(error, int | float):
                rows.append((f"{name}, {of.replace('_', ' ')}", f"{error:.1%}"))
            elif isinstance(error, Mapping) and isinstance(error.get("mean"), int | float):
                rows.append((f"{name}, {of.replace('_', ' ')}", f"{error['mean']:.1%}"))
    if rows:
        yield html(Table(header=("kernels of", "error"), rows=rows, caption="priced kernels"))


def overhead_blocks(document: Document) -> Iterator[str]:
    yield f"What is timed: {document['what']}."
    rows = [
        (f"{row['model']}, {row['chunk']:,}", f"{row['visits']:,}", f"{row['scheduling_us']:,.0f} µs",
         f"{row['share']:.1%}")
        for row in document["by_chunk"]["rows"]
    ]  # fmt: skip
    header = ("model, chunk", "visits", "scheduling", "share of the time")
    yield html(Table(header=header, rows=rows, caption="what one prompt's scheduling takes"))


def grade_blocks(document: Document) -> Iterator[str]:
    ran = [row for row in document["rows"] if "not_run" not in row]
    rows = [
        (
            row["case"],
            f"{row['per_minute']:,.3g}",
            f"{row['wall_s_each']:.3g} s",
            f"{row['cpu_s_each']:.3g} s",
        )
        for row in ran
    ]
    if rows:
        header = ("what is graded", "a minute", "each", "of processor time")
        yield html(Table(header=header, rows=rows, caption="submissions"))
    for row in document["rows"]:
        if "not_run" in row:
            yield f"Not run: {row['case']}."
    found = document["verdict"]
    if found["met"] is not None:
        yield (
            f"Times as fast as nbgrader, by the wall clock: {found['times_as_fast']['wall']:.2f}; "
            f"the target is {found['target']:g}: {word(found['met'])}."
        )


def profile_blocks(document: Document) -> Iterator[str]:
    yield (
        f"{document['what'][0].upper()}{document['what'][1:]}: {len(document['traceEvents']):,} spans, "
        "a trace that a browser's profiler opens."
    )


def evidence_blocks(document: Document) -> Iterator[str]:
    sound = sum(bool(row["sound"]) for row in document["rows"])
    yield (
        f"{len(document['rows'])} claims of the book were run under their conditions and with one of them "
        f"changed; for {sound} the verdict turns round, as it must: see {{doc}}`the ledger </book/claims>`."
    )


def html(table: Table) -> str:
    """A table as the page's own HTML, on one line, so that Markdown leaves it alone."""
    return table._repr_html_().replace("\n", " ")


def word(met: bool | None) -> str:
    return {True: "✓ met", False: "✗ missed", None: "not measured"}[met]


def _times(ratio: float | None) -> str:
    return f"{ratio:.2f}×" if ratio else "–"


def _all_met(met: Mapping[str, bool]) -> str:
    return (
        " ".join(f"{'✓' if ok else '✗'} {name.replace('_', ' ')}" for name, ok in met.items()) or "none set"
    )
