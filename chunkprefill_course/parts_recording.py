"""Where a step's time goes, recorded: vLLM of today beside our engine on a CPU, and our engine on a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chunkprefill.metrics.breakdown import WORDS
from chunkprefill.plots.parts import breakdown_picture
from chunkprefill.plots.style import Picture, Table
from chunkprefill_course.digests import digest as read_digest
from chunkprefill_course.gpu_recording import RecordedRows, recorded, where_from

#: The parts of vLLM's step and of ours, and what is said of each. "pass" is drawn by neither.
STEP_WORDS = {
    "decide": WORDS["decide"],
    "blocks": WORDS["blocks"],
    "inputs": WORDS["inputs"],
    "launch": WORDS["launch"],
    "read": WORDS["read"],
    "book": WORDS["book"],
    "outputs": "handing out tokens",
    "rest": "the rest of the step",
}
WAITING = "waiting for the GPU"


def parts_digest() -> dict[str, Any]:
    """The recording that travels with the package, made by `tools/parts_digest.py`; {} if there is none."""
    return read_digest("parts")


def step_parts(document: Mapping[str, Any] | None = None) -> RecordedRows:
    """vLLM's step and ours, part by part, on the same steps: a row a part, a column an engine, badged.

    Of the steps that hold a chunk. Below the parts stand the pass, the whole step and the share that is not the pass.
    Where nothing was recorded it says so.
    """
    found = parts_digest() if document is None else document
    rows = {row["engine"]: row for row in found.get("rows", ()) if "chunk" in row["step"]}
    if len(rows) < 2:
        return RecordedRows(rows=(), table=None, where="")
    cells = []
    for part, words in STEP_WORDS.items():
        taken = [row["parts_s"].get(part) for row in rows.values()]
        if any(taken):
            cells.append((words, *(_s(s) for s in taken)))
    cells.append(("the pass", *(_s(row["parts_s"]["pass"]) for row in rows.values())))
    cells.append(("the whole step", *(_s(row["step_s"]) for row in rows.values())))
    cells.append(
        (
            "of it not the pass",
            *(f"{1 - row['parts_s']['pass'] / row['step_s']:.1%}" for row in rows.values()),
        )
    )
    first = next(iter(rows.values()))
    counts = " and ".join(str(row["n"]) for row in rows.values())
    caption = f"{first['step']}, {found['model']} in {found['dtype']}: medians of {counts} steps"
    table = Table(header=("part of a step", *rows), rows=cells, caption=caption)
    return RecordedRows(
        rows=tuple(rows.values()), table=table, where=f"vLLM {found['vllm']}, {where_from(found)}"
    )


def host_parts(model: str = "Llama-3-8B") -> dict[str, dict[str, float]]:
    """{way: {part: s a step}} of our engine on the recorded GPU: the parts, and the wait that is left of the run."""
    found = {}
    for row in recorded("scheduling", model=model).rows:
        parts = {words: row["parts_s"][name] / row["steps"] for name, words in WORDS.items()}
        found[row["way"]] = parts | {WAITING: row["wall_s"] / row["steps"] - sum(parts.values())}
    return found


def host_picture(
    model: str = "Llama-3-8B", ways: tuple[str, ...] = ("serial", "overlapped, graphs")
) -> Picture:
    """Where the processor's time of a step went on the recorded GPU, launching shown. ValueError for unknown ways."""
    found, rows = host_parts(model), recorded("scheduling", model=model)
    if unknown := [way for way in ways if way not in found]:
        raise ValueError(f"no way {unknown[0]!r} was recorded; there are {', '.join(found)}")
    share = {way: found[way][WORDS["launch"]] / sum(found[way].values()) for way in ways}
    said = ", ".join(f"{s:.0%} ({way})" for way, s in share.items())
    return breakdown_picture(
        {way: found[way] for way in ways},
        caption=f"{model}: where the processor's time of a step goes. Launching takes {said}. Once everything is "
        "launched, the processor waits for what the GPU still has to do.",
        badge="recorded",
        source=rows.where,
    )


def idle_table(model: str = "Llama-3-8B") -> RecordedRows:
    """The recorded run with its idle share beside what lies behind it: the run's seconds and the launching in them."""
    found = recorded("scheduling", model=model)
    cells = []
    for row in found.rows:
        launch = f"{row['parts_s']['launch'] / row['wall_s']:.0%}"
        cells.append((_way(row), f"{row['wall_s']:.2f} s", launch, f"{row['device_idle_share']:.1%}"))
    header = ("way (shortest–longest)", "the run", "launching", "GPU idle")
    runs = {row.get("runs", 0) for row in found.rows}
    middle = "mean" if max(runs) == 2 else "middle one"
    caption = (
        f"{model}: {middle} of {max(runs)} runs; launching, and idle between passes, as shares of the run"
    )
    return RecordedRows(
        rows=found.rows, table=Table(header=header, rows=cells, caption=caption), where=found.where
    )


def _way(row: Mapping[str, Any]) -> str:
    return f"{row['way']} ({row['wall_s_least']:.2f}–{row['wall_s_most']:.2f} s)"


def _s(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{1e3 * seconds:,.3g} ms" if seconds >= 1e-3 else f"{1e6 * seconds:,.3g} µs"
