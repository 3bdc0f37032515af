"""What a reader's schedule runs, as a board of P and D."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chunkprefill.plots.grid import task
from chunkprefill_course.forms.boards import Cell, board

Row = Sequence[Any]  # rid, start, length, emits: what one request does in one step; a Chunk is one


def grid(
    steps: Sequence[Sequence[Row]],
    n_prompt: dict[Any, int],
    *,
    title: str,
    note: str = "",
    most: int = 10,
    tokens: bool = False,
) -> str:
    """Iterations as columns, requests as rows, P and D in the cells: one `<svg>`.

    n_prompt: {rid: prompt tokens}, in the order of the rows; a row of a step that starts beyond them decodes.
    tokens: write how many tokens a chunk has in place of its number. most: iterations drawn.
    """
    shown = min(len(steps), most)
    lines: dict[Any, list[Cell]] = {rid: [] for rid in n_prompt}
    counts: dict[tuple[Any, str], int] = {}
    for rows in steps[:shown]:
        lengths = {row[0]: (row[1], row[2]) for row in rows}
        for rid, cells in lines.items():
            if rid not in lengths:
                cells.append(("idle", ""))
                continue
            start, length = lengths[rid]
            kind = "D" if start >= n_prompt[rid] else "P"
            counts[rid, kind] = counts.get((rid, kind), 0) + 1
            text = str(length) if tokens else task(kind, counts[rid, kind])
            cells.append(("prefill" if kind == "P" else "decode", text))
    more = f"The first {shown} of {len(steps)} iterations." if shown < len(steps) else ""
    return board(
        [(str(rid), cells) for rid, cells in lines.items()],
        title=title,
        columns=[str(i + 1) for i in range(shown)],
        note=" ".join(filter(None, (note, more))),
    )
