"""Iterations as columns, requests as rows: chunks and decoding steps in the textbook's notation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chunkprefill.plots.checks import a_word_each, few_enough, ran
from chunkprefill.plots.style import WIDTH, Canvas, Picture, Table
from chunkprefill.scheduling.core import Rid
from chunkprefill.scheduling.trace import Trace
from chunkprefill.whole import whole_number

SMALL = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def task(kind: str, *numbers: int) -> str:
    """`P₁₂`: the second chunk of sequence 1; `D₂₁`: the first decoding step of sequence 2.

    With a number of 10 or more the two are set apart: `P₁ ₁₂`. Along a row of one sequence, one number: `P₂`.
    """
    gap = " " if len(numbers) > 1 and max(numbers) > 9 else ""
    return kind + gap.join(map(str, numbers)).translate(SMALL)


def step_tasks(trace: Trace) -> list[dict[Rid, tuple[str, int, int]]]:
    """What each step ran: {rid: (P or D, its number, tokens)}.

    P is a chunk that has prompt tokens in it; they go on counting when an evicted cache is built again.
    """
    n_prompt = {request.rid: request.n_prompt for request in trace.requests}
    counts: dict[tuple[Rid, str], int] = {}
    told = []
    for step in trace.steps:
        row: dict[Rid, tuple[str, int, int]] = {}
        for rid, start, length, _ in step.batch:
            kind = "P" if start < n_prompt[rid] else "D"
            counts[rid, kind] = counts.get((rid, kind), 0) + 1
            row[rid] = (kind, counts[rid, kind], length)
        told.append(row)
    return told


def grid_picture(
    trace: Trace,
    *,
    caption: str,
    names: Sequence[str] = (),
    most: int = 9,
    badge: str = "counted",
    source: str = "",
) -> Picture:
    """The first `most` iterations of a trace, a column each; a request's tasks stand in its row.

    names: of the requests, if not their rids; they are numbered from 1 in the order of the trace
    Raises ValueError for a trace without a step, or with more cells than can be read.
    """
    ran(trace)
    most = whole_number("most", most, 1)
    a_word_each("names", names, len(trace.requests))
    few_enough(min(most, len(trace.steps)) * len(trace.requests), f"{len(trace.requests):,} requests")
    told, n_shown = step_tasks(trace), min(most, len(trace.steps))
    rows = [request.rid for request in trace.requests]
    labels = list(names) or [str(rid) for rid in rows]
    left, top, tall = 18 + max(map(len, labels)) * 9.0, 56.0, 46.0
    wide = min(64.0, (WIDTH - left) / n_shown)
    canvas = Canvas(top + tall * len(rows) + 4)
    canvas.text(left, 20, "iteration")
    for i in range(n_shown):
        canvas.text(left + (i + 0.5) * wide, top - 10, str(i + 1), anchor="middle")
    cells: dict[Any, list[str]] = {rid: [] for rid in rows}
    for k, (rid, label) in enumerate(zip(rows, labels)):
        y = top + k * tall
        canvas.text(left - 10, y + 27, label, anchor="end")
        for i in range(n_shown):
            x, here = left + i * wide + 1.5, told[i].get(rid)
            if here is None:
                canvas.rect(x, y + 17, wide - 3, 8, stroke="ink", opacity=0, dash="2 5", radius=4)
                cells[rid].append("–")
                continue
            name, inset = task(here[0], k + 1, here[1]), 0 if here[0] == "P" else 5
            fill, ink = ("prefill", "#fff") if here[0] == "P" else ("decode", "#000")
            canvas.rect(x, y + 2 + inset, wide - 3, tall - 8 - 2 * inset, fill, radius=3)
            canvas.text(x + wide / 2 - 1.5, y + 27, name, anchor="middle", fill=ink, bold=True)
            cells[rid].append(name)
    lines = [(i + 1, *(cells[rid][i] for rid in rows)) for i in range(n_shown)]
    said = " ".join(
        f"Iteration {i}: {', '.join(f'{name} {cell}' for name, cell in zip(labels, row) if cell != '–')}."
        for i, *row in lines
    )
    more = f" {len(trace.steps) - n_shown} more iterations follow." if n_shown < len(trace.steps) else ""
    table = Table(header=("iteration", *labels), rows=lines)
    return canvas.picture(alt=f"{said}{more}", caption=caption, badge=badge, source=source, table=table)
