"""What each bench that needs no GPU puts on book/measurements.md: a table or two of its file."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from chunkprefill.plots.style import Table  # noqa: E402
from chunkprefill_course.parts_recording import STEP_WORDS  # noqa: E402

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
    yield f"{document['requests']['n']} requests, all waiting at the start; the outputs are compared."
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
    earlier = {row["case"]: row for row in document.get("before", ())}
    rows = []
    for row in document["rows"]:
        before = earlier.get(row["case"])
        rows.append(
            (
                row["case"],
                f"{row['steps_a_second']:,.0f}",
                f"{row['chunks_a_step']:.1f}",
                f"{row['us_a_chunk']:.2f} µs",
                f"{before['us_a_chunk']:.2f} µs" if before else "",
                f"{row['peak_mb']:,.0f} MB",
                _all_met(row["met"]),
            )
        )
    header = ("case", "steps/s", "chunks a step", "a chunk", "a chunk before", "peak", "targets")
    yield html(Table(header=header, rows=rows, caption="the simulator"))


def analysis_blocks(document: Document) -> Iterator[str]:
    rows = [
        (row["case"], f"{row['seconds']:.3g} s", f"at most {row['target_s']:g} s", word(row["met"]))
        for row in document["rows"]
    ]
    yield html(Table(header=("what", "took", "target", "verdict"), rows=rows, caption="looking at runs"))


def kernels_blocks(document: Document) -> Iterator[str]:
    yield (
        "How far the priced kernels are from published timings: the mean of |priced / published − 1|, and, "
        "since a mean hides on which side a price errs, the two regimes with the largest signed means."
    )
    rows = []
    for name, device in document["devices"].items():
        for of, error in device["errors"].items():
            regimes = sorted(error.get("signed", {}).items(), key=lambda one: one[1]["mean"])
            ends = [regimes[0], regimes[-1]] if len(regimes) > 1 else []
            leaning = "; ".join(f"{row['mean']:+.1%} {regime}" for regime, row in ends)
            rows.append((f"{name}, {of.replace('_', ' ')}", f"{error['mean']:.1%}", leaning))
    if rows:
        header = ("kernels of", "error", "leaning most")
        yield html(Table(header=header, rows=rows, caption="priced kernels"))


def accuracy_blocks(document: Document) -> Iterator[str]:
    yield (
        "The simulator against runs of vLLM that others measured (LLMServingSim, CASYS Lab at KAIST, MIT): "
        "true arrivals and lengths, prefix caching and asynchronous scheduling on. No constant of a price was "
        "fitted to them; the form of the price, which terms it has, was chosen with these two runs in view, so "
        f"they are not a blind test of it. Each figure is predicted / measured − 1; the aim is {document['bound']:.0%} in every "
        "cell. The last column is LLMServingSim's own error; it counts the first token from the engine's "
        "queue."
    )
    for run in document["rows"]:
        theirs = run["llmservingsim"] or {}
        rows = []
        for metric, row in run["error"].items():
            for statistic, off in row.items():
                other = theirs.get(metric, {}).get(statistic)
                name = metric if statistic == "all" else f"{metric}, {statistic}"
                met = run["within_bound"][metric][statistic]
                rows.append(
                    (
                        name,
                        f"{run['measured'][metric][statistic]:.4g}",
                        f"{run['predicted'][metric][statistic]:.4g}",
                        f"{off:+.1%}",
                        word(met),
                        "" if other is None else f"{other:+.1%}",
                    )
                )
        header = ("", "measured", "predicted", "error", f"within {document['bound']:.0%}", "LLMServingSim")
        device = run["engine"]["device"]
        yield html(Table(header=header, rows=rows, caption=f"{run['model']} on {device}; s, tokens/s"))
        yield (
            f"Simulated {run['steps']:,} steps at {run['steps_a_second']:,} a second. With other choices the mean TTFT, "
            "TPOT and makespan would be off by:"
        )
        otherwise = [
            (
                name,
                f"{off['TTFT']['mean']:+.1%}",
                f"{off['TPOT']['mean']:+.1%}",
                f"{off['makespan']['all']:+.1%}",
            )
            for name, off in run["otherwise"].items()
        ]
        columns = ("with", "TTFT", "TPOT", "makespan")
        yield html(Table(header=columns, rows=otherwise, caption=f"what the error is made of, {device}"))


def overhead_blocks(document: Document) -> Iterator[str]:
    yield f"What is timed: {document['what']}."
    rows = [
        (
            f"{row['model']}, {row['chunk']:,}",
            f"{row['visits']:,}",
            f"{row['scheduling_us']:,.0f} µs",
            f"{row['share']:.1%}",
        )
        for row in document["by_chunk"]["rows"]
    ]
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


def parts_blocks(document: Document) -> Iterator[str]:
    """A step's parts in vLLM and in ours: for each kind of step a column an engine, medians with quartiles."""
    tokens = document["tokens"]
    yield (
        f"{document['what'][0].upper()}{document['what'][1:]}. {document['model']} in {document['dtype']}; vLLM "
        f"{document['vllm']}, `{document['runner']}`. {tokens['equal']} of {tokens['of']} answers are the same in both."
    )
    for kind in dict.fromkeys(row["step"] for row in document["rows"]):
        both = {row["engine"]: row for row in document["rows"] if row["step"] == kind}
        names = dict.fromkeys(name for row in both.values() for name in row["parts_s"])
        cells = [
            (STEP_WORDS.get(name, "the pass"), *(_of_part(row, name) for row in both.values()))
            for name in sorted(names, key=[*STEP_WORDS, "pass"].index)
        ]
        counts = " and ".join(f"{row['n']}" for row in both.values())
        caption = f"{kind}: medians of {counts} steps (quartiles)"
        yield html(Table(header=("part", *both), rows=cells, caption=caption))


def _of_part(row: Mapping[str, Any], name: str) -> str:
    if name not in row["parts_s"]:
        return "–"
    low, high = row["quartiles_s"][name]
    return f"{1e6 * row['parts_s'][name]:,.0f} µs ({1e6 * low:,.0f}–{1e6 * high:,.0f})"


def profile_blocks(document: Document) -> Iterator[str]:
    yield (
        f"{document['what'][0].upper()}{document['what'][1:]}: {len(document['traceEvents']):,} spans, "
        "a trace that a browser's profiler opens."
    )


def evidence_blocks(document: Document) -> Iterator[str]:
    sound = sum(bool(row["sound"]) for row in document["rows"])
    yield (
        f"{len(document['rows'])} claims of the book were run under their conditions and with one of them "
        f"changed; for {sound} the verdict flips, as it must: see {{doc}}`the ledger </book/claims>`."
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


def pageweight_blocks(document: Document) -> Iterator[str]:
    """The heaviest pages of the book; the file has all."""
    rows = sorted(document["rows"], key=lambda row: -row["kB"])[:8]
    yield (
        f"The {len(rows)} heaviest of {len(document['rows'])} pages of this book, on a phone of 390 pixels, slow 4G, a "
        f"processor slowed four times: medians of {document['visits']} visits with an empty cache. `make pageweight` "
        "records it."
    )
    said = [
        (
            row["page"].rpartition("/")[2].replace("_", " "),  # may break on a phone
            f"{row['kB']:.0f} kB",
            *(f"{row[f'{what}_ms']:.0f} ms" for what in ("paint", "blocked", "tap")),
        )
        for row in rows
    ]
    header = ("page", "on the wire", "first paint", "blocked", "slowest tap")
    yield html(Table(header=header, rows=said, caption="what a page weighs before anything is run"))
