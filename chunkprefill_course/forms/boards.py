"""Boards of labelled cells, in the house style: what the exercises draw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from chunkprefill.plots.style import Canvas

CELL, GAP, TYPE = 30, 3, 16  # user units, about a pixel each
#: kind of a cell -> (fill, opacity, edge, dash, ink, the word that the alt text has for it)
LOOKS = {
    "new": ("prefill", 1.0, "none", "", "#fff", "new"),
    "old": ("prefill", 0.3, "none", "", "ink", "cached"),
    "token": ("decode", 1.0, "none", "", "#000", "output token"),
    "prefill": ("prefill", 1.0, "none", "", "#fff", "prefills"),
    "decode": ("decode", 1.0, "none", "", "#000", "decodes"),
    "next": ("none", 1.0, "ink", "", "ink", "next"),
    "idle": ("none", 1.0, "ink", "2 5", "ink", "waits"),
    "empty": ("none", 1.0, "ink", "", "ink", "empty"),
    "wrong": ("trouble", 1.0, "none", "", "#000", "wrong"),
    "missing": ("none", 1.0, "trouble", "4 3", "ink", "missing"),
}
Cell = tuple[str, str]  # kind, text


def board(
    rows: Iterable[tuple[str, Sequence[Cell]]],
    *,
    title: str,
    columns: Sequence[str] = (),
    note: str = "",
    words: Mapping[str, str] = {},
) -> str:
    """Rows of cells with a name each, as one `<svg>`, no wider than it needs, with its own alt text.

    words: what the alt text calls a kind of cell, where not what `LOOKS` calls it
    """
    words = {kind: words.get(kind, look[-1]) for kind, look in LOOKS.items()}
    lines = list(rows)
    n_columns = max([len(columns), *(len(cells) for _, cells in lines)], default=0)
    left = 8 + max((len(name) for name, _ in lines), default=0) * TYPE * 0.56
    top = TYPE * 1.6 + (TYPE * 1.4 if columns else 0)
    width = max(left + n_columns * (CELL + GAP), len(title) * TYPE * 0.56, len(note) * TYPE * 0.56)
    canvas = Canvas(top + len(lines) * (CELL + GAP) + (TYPE * 1.6 if note else 4), width=width)
    canvas.text(0, TYPE, title, size=TYPE, bold=True)
    for i, name in enumerate(columns):
        canvas.text(left + i * (CELL + GAP) + CELL / 2, top - 6, name, size=TYPE, anchor="middle")
    for i, (name, cells) in enumerate(lines):
        y = top + i * (CELL + GAP)
        canvas.text(left - 8, y + CELL * 0.7, name, size=TYPE, anchor="end")
        for j, (kind, text) in enumerate(cells):
            fill, opacity, edge, dash, ink, _ = LOOKS[kind]
            x = left + j * (CELL + GAP)
            canvas.rect(x, y, CELL, CELL, fill, stroke=edge, opacity=opacity, radius=4, dash=dash)
            canvas.text(x + CELL / 2, y + CELL * 0.7, text, size=TYPE, anchor="middle", fill=ink)
    if note:
        canvas.text(0, canvas.height - 6, note, size=TYPE)
    alt = f"{title}. " + "; ".join(f"{name}: {_said(cells, columns, words)}" for name, cells in lines)
    svg = canvas.svg.replace(
        "<svg ", f'<svg role="img" aria-label="{escape(alt + (f". {note}" if note else ""))}" ', 1
    )
    return f'<div style="max-width:{width:.0f}px">{svg}</div>'


def table(
    got: Sequence[Sequence[object]], right: Sequence[Sequence[object]], *, rows: Sequence[str], title: str
) -> str:
    """A table of yes and no, marked where it should be otherwise; one of another shape is drawn alone."""
    fits = len(got) == len(right) and {len(r) for r in got} == {len(r) for r in right}
    lines = []
    for i, row in enumerate(got):
        pairs = zip(row, right[i]) if fits else ((cell, cell) for cell in row)
        name = rows[i] if i < len(rows) else str(i)
        lines.append((name, [_verdict(bool(cell), bool(wanted)) for cell, wanted in pairs]))
    columns = [str(j) for j in range(max(map(len, got), default=0))]
    note = "× seen, and should not be · ? should be seen" if fits and _differ(got, right) else ""
    return board(lines, title=title, columns=columns, note=note)


def _differ(got: Sequence[Sequence[object]], right: Sequence[Sequence[object]]) -> bool:
    return any(bool(a) != bool(b) for x, y in zip(got, right) for a, b in zip(x, y))


def _verdict(seen: bool, wanted: bool) -> Cell:
    if seen:
        return ("new", "•") if wanted else ("wrong", "×")
    return ("missing", "?") if wanted else ("empty", "")


def _said(cells: Sequence[Cell], columns: Sequence[str], words: Mapping[str, str]) -> str:
    names = [columns[i] if i < len(columns) else text for i, (_, text) in enumerate(cells)]
    said = [f"{name} {words[kind]}".strip() for name, (kind, _) in zip(names, cells) if kind != "empty"]
    return ", ".join(said) or "empty"
