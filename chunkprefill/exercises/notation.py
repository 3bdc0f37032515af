"""P and D with two small numbers: the textbook's names for what a scheduler puts in order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from chunkprefill.exercises.draw import Cell, board
from chunkprefill.scheduling.core import Chunk, Rid

SMALL = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
Row = Sequence  # rid, start, length, emits: what one request does in one step


def task(kind: str, sequence: int, k: int) -> str:
    """`P₁₂`: the second chunk of sequence 1; `D₂₁`: the first decoding step of sequence 2. From 10 on, with a comma."""
    both = f"{sequence}{',' if max(sequence, k) > 9 else ''}{k}"
    return kind + both.translate(SMALL)


def is_decode(chunk: Chunk | Row, n_prompt: int) -> bool:
    """Does this row write on, rather than build the cache of the prompt?"""
    return chunk[1] >= n_prompt


def numbered(steps: Iterable[Iterable[Row]], n_prompt: dict[Rid, int]) -> list[dict[Rid, tuple[str, int]]]:
    """Each step as {rid: (kind, k)}, chunks and decoding steps of a request counted from 1.

    A request that was evicted builds its cache again: its chunks go on counting.
    """
    seen: dict[tuple[Rid, str], int] = {}
    told = []
    for rows in steps:
        here = {}
        for row in rows:
            kind = "D" if is_decode(row, n_prompt[row[0]]) else "P"
            seen[row[0], kind] = seen.get((row[0], kind), 0) + 1
            here[row[0]] = (kind, seen[row[0], kind])
        told.append(here)
    return told


def grid(
    steps: Sequence[Sequence[Row]], n_prompt: dict[Rid, int], *, title: str, note: str = "", most: int = 10,
    tokens: bool = False,
) -> str:  # fmt: skip
    """Iterations as columns, requests as rows, P and D in the cells: one `<svg>`.

    tokens: write how many tokens a chunk has in place of its number. most: iterations drawn.
    """
    told, shown = numbered(steps, n_prompt), min(len(steps), most)
    lines: list[tuple[str, list[Cell]]] = []
    for rid in n_prompt:
        cells: list[Cell] = []
        for rows, names in zip(steps[:shown], told):
            length = next((row[2] for row in rows if row[0] == rid), 0)
            if rid not in names:
                cells.append(("empty", ""))
                continue
            kind, k = names[rid]
            text = str(length) if tokens else kind + str(k).translate(SMALL)
            cells.append(("new" if kind == "P" else "token", text))
        lines.append((str(rid), cells))
    more = f"The first {shown} of {len(steps)} iterations." if shown < len(steps) else ""
    words = {"new": "prefills", "token": "decodes"}
    return board(lines, title=title, columns=[str(i + 1) for i in range(shown)],
                 note=" ".join(filter(None, (note, more))), words=words)  # fmt: skip
