"""Cells in rows: the mask of a chunk, and a cache that fills. They only draw."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

from chunkprefill.plots.checks import a_word_each, few_enough
from chunkprefill.plots.style import WIDTH, Canvas, Edge, Picture, Table
from chunkprefill.whole import whole_number

HEAD = 116  # user units that a head of two or three words takes, with room beside it


def mask_picture(
    start: int,
    length: int,
    allowed: Sequence[Sequence[bool]] | None = None,
    *,
    caption: str = "",
    words: Sequence[str] = (),
) -> Picture:
    """Which cached positions each query of a chunk may look at: rows are queries, columns are keys.

    start, length: the chunk covers positions [start, start + length)
    allowed:       [length][start + length] booleans; default: the right mask, key j for query i where j <= i.
                   Cells that differ from the right one are drawn as trouble.
    words:         the tokens' texts, if the columns should show them
    Raises ValueError for an empty chunk, a negative start, a mask of another shape, or too many cells to read.
    """
    start, length = whole_number("start", start, 0), whole_number("length", length, 1)
    end = start + length
    few_enough(length * end, f"{length:,} queries by {end:,} keys")
    a_word_each("words", words, end)
    right = [[j <= start + i for j in range(end)] for i in range(length)]
    mask = right if allowed is None else [[bool(cell) for cell in row] for row in allowed]
    if len(mask) != length or any(len(row) != end for row in mask):
        raise ValueError(
            f"the mask must be {length} rows of {end}, it is {len(mask)} rows of {set(map(len, mask))}"
        )

    left, top = 84.0, 58.0
    cell = min(48.0, (WIDTH - left) / end)
    canvas = Canvas(top + length * cell + 34)
    if start and end * cell < 2 * HEAD:  # no room for each in the middle of its columns
        border = min(left + start * cell, WIDTH - HEAD)
        canvas.text(border - 10, 18, "in the cache", anchor="end")
        canvas.text(border, 18, "this chunk", bold=True)
    else:
        if start:
            canvas.text(left + start * cell / 2, 18, "in the cache", anchor="middle")
        canvas.text(left + (start + length / 2) * cell, 18, "this chunk", anchor="middle", bold=True)
    canvas.line(left + start * cell, 24, left + end * cell, 24, "prefill", width=4)
    for j in range(end):
        canvas.text(left + (j + 0.5) * cell, top - 8, words[j] if words else str(j), anchor="middle")
    n_ahead = n_missing = 0
    for i in range(length):
        name = words[start + i] if words else f"query {start + i}"
        canvas.text(left - 10, top + (i + 0.5) * cell + 6, name, anchor="end")
        for j in range(end):
            x, y, sees, may = left + j * cell + 1.5, top + i * cell + 1.5, mask[i][j], right[i][j]
            fill = ("prefill" if may else "trouble") if sees else "none"
            look = Edge(stroke="none" if sees else "ink", radius=3, dash="" if sees == may else "4 3")
            look["opacity"] = 0.55 if sees and may and j < start else 1.0
            canvas.rect(x, y, cell - 3, cell - 3, fill, **look)
            if sees != may:
                n_ahead, n_missing = n_ahead + (not may), n_missing + may
                mark, ink = ("×", "#000") if sees else ("?", "ink")
                x, y = x + cell / 2 - 1.5, y + cell / 2 + 5
                canvas.text(x, y, mark, anchor="middle", bold=True, fill=ink)
    n_seen = sum(map(sum, mask))
    canvas.text(left, top + length * cell + 26, f"{n_seen} of {length * end} pairs are computed")
    rows = [(start + i, _spans(row), sum(row)) for i, row in enumerate(mask)]
    many = f"{length} queries at positions {start} to {end - 1}"
    alt = f"Mask of a chunk of {many if length > 1 else f'1 query at position {start}'}"
    alt += f", over {end} {'keys' if end > 1 else 'key'}. "
    alt += " ".join(f"Query {query} sees {spans}." for query, spans, _ in rows)
    alt += f" {n_ahead} cells look ahead of their query." if n_ahead else ""
    alt += f" {n_missing} cells are missing." if n_missing else ""
    return canvas.picture(
        alt=alt,
        caption=caption
        or f"Query i may look at keys 0 to i: all {start} cached ones and its own chunk up to itself.",
        badge="counted",
        table=Table(header=("query", "sees keys", "pairs"), rows=rows),
    )


def filling_picture(
    lengths: Sequence[int],
    step: int | None = None,
    *,
    caption: str = "",
    words: Sequence[str] = (),
    n_prompt: int | None = None,
) -> Picture:
    """A cache that fills: one row a forward pass, one cell a position.

    lengths:  tokens in each chunk, in order; step: passes done so far (default: all of them)
    words:    the tokens' texts, for the columns
    n_prompt: tokens of the prompt; what comes after them was decoded (default: all are the prompt's)
    Raises ValueError for an empty or negative chunk, a step that is not in 0..len(lengths), or too many passes.
    """
    if not lengths:
        raise ValueError("chunk lengths must be at least 1, they are []")
    lengths = [whole_number(f"chunk {i}", length, 1) for i, length in enumerate(lengths)]
    few_enough(len(lengths) * min(sum(lengths), 3 * len(lengths)), f"{len(lengths):,} passes")
    a_word_each("words", words, sum(lengths))
    step = len(lengths) if step is None else step
    if not 0 <= step <= len(lengths):
        raise ValueError(f"step {step} of {len(lengths)} passes")
    ends = list(accumulate(lengths))
    n, n_rows = ends[-1], len(lengths)
    left, top, tall = 78.0, 34.0, 40.0
    cell = (WIDTH - left) / n
    canvas = Canvas(top + n_rows * tall + 30)
    every = 1 if cell >= 26 else 4 if cell >= 8 else 16
    for j in range(0, n, every):
        canvas.text(left + (j + 0.5) * cell, top - 10, words[j] if words else str(j), anchor="middle")
    said, table = f"A cache of {n} positions after {step} of {n_rows} passes.", list[Sequence[object]]()
    for k, (begin, end) in enumerate(pairwise([0, *ends]), 1):
        y = top + (k - 1) * tall
        canvas.text(left - 10, y + 25, f"pass {k}", anchor="end", bold=k == step)
        if k > step:
            canvas.rect(left, y + 3, n * cell - 2, tall - 8, stroke="ink", dash="2 5", radius=3)
            table.append((k, "to come", "", "", ""))
            continue
        # One box a position; where they would be hairlines, one box for each of the three stretches.
        kind = "prefill" if n_prompt is None or begin < n_prompt else "decode"
        places = [(j, j + 1) for j in range(n)] if cell >= 14 else [(0, begin), (begin, end), (end, n)]
        for a, b in places:
            if a == b:
                continue
            fill, low, look = "none", 6, Edge(stroke="ink", opacity=0.3, radius=2)  # not known yet
            if a < begin:
                fill, look["stroke"] = "ink", "none"
            elif a < end:
                fill, low, look = kind, 0, Edge(radius=2)
            canvas.rect(left + a * cell, y + 3 + low, (b - a) * cell - 2, tall - 8 - 2 * low, fill, **look)
        if (end - begin) * cell > 26:
            name, ink = (f"P{k}", "#fff") if kind == "prefill" else ("D", "#000")
            middle = left + (begin + end) * cell / 2 - 1
            canvas.text(middle, y + 26, name, anchor="middle", fill=ink, bold=True)
        span = f"{begin}–{end - 1}" if end - begin > 1 else f"{begin}"
        said += f" Pass {k}: computes positions {span}, reads {begin} cached, leaves {end}."
        table.append((k, span, begin, end, "yes" if end >= (n_prompt or n) else "no"))
    done = ends[step - 1] if step else 0
    canvas.text(left, top + n_rows * tall + 22, f"after pass {step}: {done} of {n} positions cached")
    return canvas.picture(
        alt=said,
        caption=caption or "Tall: computed in this pass. Low grey: cached, read again. Empty: not known yet.",
        badge="counted",
        table=Table(header=("pass", "computes", "cached before", "after", "emits"), rows=table),
    )


def _spans(row: Sequence[bool]) -> str:
    """`0–3, 5`: the true places of a row, as ranges."""
    places = [j for j, sees in enumerate(row) if sees]
    spans: list[list[int]] = []
    for j in places:
        if spans and j == spans[-1][1] + 1:
            spans[-1][1] = j
        else:
            spans.append([j, j])
    return ", ".join(f"{a}–{b}" if b > a else f"{a}" for a, b in spans) or "nothing"
