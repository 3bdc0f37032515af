"""The recorded GPU run, for pages of those who have no such GPU: rows of `bench gpu`, badged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from math import isfinite
from typing import Any, NamedTuple

from chunkprefill.measure import measured
from chunkprefill.plots.style import BADGES, Picture, Table, plain
from chunkprefill_course.digests import digest as read_digest

Row = Mapping[str, Any]


class Column(NamedTuple):
    """A column of a view: its heading, what it reads (a key, or a function of the row), the unit."""

    header: str
    of: str | Callable[[Row], Any]
    unit: str = ""  # "s", "B", "B/s", "FLOP/s", "%", "×", "tokens/s", or "" for counts and names

    def value(self, row: Row) -> Any:
        """None where the row has no such number."""
        return self.of(row) if callable(self.of) else row.get(self.of)


@dataclass(frozen=True)
class View:
    """One question to the recording: which rows, which columns. The first column is the key."""

    section: str
    caption: str
    columns: tuple[Column, ...]
    where: Mapping[str, Any] = field(default_factory=dict)  # what a row must say
    base: Callable[[Sequence[Row]], Sequence[Row]] = list  # puts into each row what others know


def _against_one_pass(rows: Sequence[Row]) -> list[Row]:
    """Each row with its time over that of the largest chunk."""
    whole = max(rows, key=lambda row: row["chunk"], default=None)
    return [{**row, "against": row["s"] / whole["s"]} for row in rows] if whole else []


def _whole(rows: Sequence[Row]) -> list[Row]:
    """Of each prompt length the row with the largest chunk: in one pass, or nearly."""
    best = {row["prompt"]: row for row in sorted(rows, key=lambda row: row["chunk"])}
    return [best[n] for n in sorted(best)]


def _tiles(rows: Sequence[Row]) -> list[Row]:
    """Each row with its time over that of the row one token below, where there is one."""
    took = {row["tokens"]: row["s"] for row in rows}
    return [
        {**row, "step": row["s"] / took[row["tokens"] - 1] if row["tokens"] - 1 in took else None}
        for row in rows
    ]


def _load(row: Row) -> str:
    """`512 + 64 at 2,048`: a chunk, decodes beside it, their context."""
    decodes = f"{row['decodes']} at {row['context']:,}"
    return f"{row['chunk']} + {decodes}" if row.get("chunk") else decodes


def ranges(row: Row) -> dict[str, Any]:
    """Of a row with its samples: how many `runs`, and the `_least` and `_most` of each quantity in them."""
    samples = row.get("samples_s", row.get("samples"))
    if isinstance(samples, Mapping):  # of several kinds of run
        series = {f"{name}_s": values for name, values in samples.items()}
    elif isinstance(samples, list) and samples and isinstance(samples[0], Mapping):  # of whole runs
        series = {name: [one[name] for one in samples] for name in samples[0]}
    elif isinstance(samples, list) and samples:
        series = {"wall_s" if "wall_s" in row else "s": samples}
    else:
        return {}
    found: dict[str, Any] = {"runs": len(next(iter(series.values())))}
    for name, values in series.items():
        if row.get(name) is not None:
            found |= {f"{name}_least": min(values), f"{name}_most": max(values)}
    return found


def _policy(row: Row) -> str:
    """The policy's name with what was chosen, not with every setting that was left alone."""
    name, _, rest = str(row["policy"]).partition("(")
    given = [part.split("=") for part in rest.rstrip(")").split(", ") if "=" in part]
    told = ("max_tokens", "chunk", "mixed", "batch_size", "token_budget", "order", "max_num_batched_tokens")
    dull = ("None", "False", "'arrival'")
    kept = [v.strip("'") if k != "mixed" else k for k, v in given if k in told and v not in dull]
    return f"{name}({', '.join(kept)})"


#: What `recorded` can be asked for.
VIEWS = {
    "prompts": View(
        "prefilling",
        "whole prompts, one after the other",
        (
            Column("prompt", "prompt"),
            Column("time", "s", "s"),
            Column("tokens/s", "tokens_a_second"),
        ),
        base=_whole,
    ),
    "chunks": View(
        "prefilling",
        "one prompt of 8,192 tokens, prefilled in chunks",
        (
            Column("chunk", "chunk"),
            Column("time", "s", "s"),
            Column("against one pass", "against", "×"),
            Column("of the peak", "fraction_of_peak", "%"),
        ),
        {"prompt": 8192},
        _against_one_pass,
    ),
    "memory": View(
        "memory",
        "bytes besides weights and cache, at most, by chunk",
        (
            Column("chunk", "chunk"),
            Column("at most", "peak_bytes", "B"),
            Column("cache", "cache_bytes", "B"),
        ),
    ),
    "tiles": View(
        "tiles",
        "one pass over so many tokens",
        (
            Column("tokens", "tokens"),
            Column("time", "s", "s"),
            Column("one token fewer", "step", "×"),
        ),
        base=_tiles,
    ),
    "mixed": View(
        "mixed",
        "a step of a chunk + decodes at a context",
        (
            Column("chunk + decodes", _load),
            Column("time", "s", "s"),
            Column("× its roofline", "over_roofline", "×"),
        ),
        {"blocks": "in runs", "cached": 0},
    ),
    "decodes": View(
        "decodes",
        "a step of decodes alone, at a context",
        (
            Column("decodes", _load),
            Column("time", "s", "s"),
            Column("of a copy's bytes/s", "fraction_of_copy", "%"),
        ),
        {"blocks": "in runs", "graphs": False},
    ),
    "attention": View(
        "attention",
        "attention alone, one layer: the ways to read the caches of many",
        (
            Column("way, blocks", lambda row: f"{row['way']}, {row['blocks']}"),
            Column("decodes", _load),
            Column("time", "s", "s"),
            Column("of a copy's bytes/s", "fraction_of_copy", "%"),
        ),
    ),
    "piggyback": View(
        "piggyback",
        "decodes alone, over what they add to a step with a chunk",
        (
            Column("chunk + decodes", _load),
            Column("alone", "decodes_s", "s"),
            Column("added", "added_s", "s"),
            Column("saves", "saves", "×"),
        ),
    ),
    "policies": View(
        "policies",
        "a long document comes while chats decode and more chats come",
        (
            Column("policy", _policy),
            Column("chats' longest gap", "chat_tbt_max", "s"),
            Column("late chats' first token", "late_ttft_max", "s"),
            Column("output/s", "output_tokens_per_s"),
        ),
    ),
    "scheduling": View(
        "scheduling",
        "the same requests, each step scheduled before or during the last",
        (
            Column("way", "way"),
            Column("in all", "wall_s", "s"),
            Column("scheduling", "scheduling_share", "%"),
            Column("GPU idle", "device_idle_share", "%"),
        ),
    ),
    "transformers": View(
        "twin_prefill",
        "8,192 tokens in chunks, here and by transformers",
        (
            Column("chunk", "chunk"),
            Column("here", "s", "s"),
            Column("transformers", "theirs_s", "s"),
            Column("ratio", "ratio", "×"),
        ),
        {"prompt": 8192},
    ),
}


@dataclass(frozen=True, kw_only=True)
class RecordedRows:
    """Rows of the recorded run, as a table that carries its badge: which machine, when, which commit.

    rows: the raw rows, seconds and bytes; empty where nothing was recorded. table: what is shown of them,
    with a last column of the reader's own numbers where `mine` was given.
    """

    rows: tuple[Row, ...]
    table: Table | None
    where: str

    def __str__(self) -> str:
        return f"[{BADGES['recorded']}: {self.where}]\n{self.table}" if self.table else ""

    __repr__ = __str__

    def _repr_html_(self) -> str:
        if self.table is None:
            return ""
        return (
            '<div class="cp-recorded" style="margin:1em 0"><p style="margin:.3rem 0">'
            f'<span class="cp-badge cp-badge-recorded">{BADGES["recorded"]}</span> {escape(self.where)}</p>'
            f"{self.table._repr_html_()}</div>"
        )


def recorded(
    what: str,
    *,
    model: str | None = None,
    columns: Sequence[str] = (),
    mine: Mapping[Any, float] | None = None,
    mine_unit: str = "s",
    mine_header: str = "yours",
    spread: bool = False,
    document: Mapping[str, Any] | None = None,
) -> RecordedRows:
    """What was recorded on a GPU, badged: beside the reader's own numbers, never in their place.

    what:     a key of VIEWS: "prompts", "chunks", "memory", "tiles", "mixed", "decodes", "attention",
              "piggyback", "policies", "scheduling", "transformers"
    model:    the largest one recorded, unless named
    columns:  headings of the columns to show, the first always; all, unless named
    mine:     {first cell of a row: the reader's number}; keys of no recorded row get rows of their own
    spread:   write the least and the most of the runs behind each time, and how many in the caption
    document: a recording, in place of the one that travels with the package

    Where nothing was recorded it has no rows and shows nothing. Raises ValueError for an unknown `what`, model or column.
    """
    if what not in VIEWS:
        raise ValueError(f"nothing is recorded by the name {what!r}; there are {', '.join(VIEWS)}")
    view, found = VIEWS[what], document if document is not None else digest()
    if unknown := set(columns) - {column.header for column in view.columns}:
        there = ", ".join(column.header for column in view.columns)
        raise ValueError(f"{what}: no column {', '.join(sorted(unknown))}; there is {there}")
    shown = [c for i, c in enumerate(view.columns) if not i or not columns or c.header in columns]
    rows = [row for row in found.get("rows", ()) if row.get("section") == view.section]
    models = [name for name in found.get("models", ()) if any(row.get("model") == name for row in rows)]
    if model is not None and found and model not in found["models"]:  # one that time left out is no error
        raise ValueError(f"{what}: {model!r} was not measured; {', '.join(found['models'])} were")
    chosen = model or (models[-1] if models else "")
    rows = [r for r in rows if r.get("model") == chosen and all(r.get(k) == v for k, v in view.where.items())]
    rows = [{**row, **ranges(row)} for row in view.base(rows)]
    if not rows:
        return RecordedRows(rows=(), table=None, where="")
    cells = [[_cell(row, column, spread) for column in shown] for row in rows]
    header = [column.header for column in shown]
    if mine:
        header.append(mine_header)
        keys = [view.columns[0].value(row) for row in rows]
        for line, key in zip(cells, keys):
            line.append(measured(mine[key], mine_unit) if key in mine else "–")
        for key in [key for key in mine if key not in keys]:
            blank = ["–"] * (len(header) - 2)
            cells.append([_said(key, ""), *blank, measured(mine[key], mine_unit)])
    caption = f"{chosen}: {view.caption}"
    if spread and (runs := sorted({row["runs"] for row in rows if "runs" in row})):
        caption += f"; {_several(runs)}"
    table = Table(header=header, rows=cells, caption=caption)
    return RecordedRows(rows=tuple(rows), table=table, where=where_from(found))


def recorded_picture(
    what: str, y: str, *, document: Mapping[str, Any] | None = None, **words: Any
) -> Picture:
    """A recorded quantity `y` by the first column of a view, with the operator roofline where it has one.

    words: what `curve_picture` takes besides. Raises ValueError where nothing was recorded.
    """
    from chunkprefill.plots.curve import curve_picture

    found = recorded(what, document=document)
    if not found.rows:
        raise ValueError(f"{what}: nothing is recorded to draw")
    key = VIEWS[what].columns[0]
    xs = [key.value(row) for row in found.rows]
    series = {"measured": (xs, [row[y] for row in found.rows])}
    if y == "s" and all("roofline_s" in row for row in found.rows):
        series["operator roofline"] = (xs, [row["roofline_s"] for row in found.rows])
    return curve_picture(series, badge="recorded", source=found.where, x_label=key.header, **words)


def where_from(document: Mapping[str, Any]) -> str:
    """The machine, the type, the day and the commit of a recording, in one line."""
    p = document["provenance"]
    commit = str(p["commit"])[:8] + (" with uncommitted changes" if p["dirty"] is True else "")
    kind = f", {document['dtype']}" if "dtype" in document else ""
    partly = {"tiny": ", in miniature", "smoke": ", a first try"}.get(document.get("size", ""), "")
    return f"{p['device']}{kind}, {str(p['date'])[:10]}, commit {commit}{partly}"


def digest() -> dict[str, Any]:
    """The recording that travels with the package, made by `tools/measurements.py`; {} if there is none."""
    return read_digest("recorded")


def _cell(row: Row, column: Column, spread: bool) -> str:
    """A cell; with `spread` a time carries the shortest and the longest of its runs."""
    text = _said(column.value(row), column.unit)
    key = column.of
    if not spread or column.unit != "s" or f"{key}_least" not in row:
        return text
    if row["runs"] == 1:
        return f"{text} (one run)"
    least, most = (_said(row[f"{key}_{end}"], "s") for end in ("least", "most"))
    if least.split()[1:] == most.split()[1:]:  # one unit for both
        least = least.split()[0]
    return f"{text} ({least}–{most})"


def _several(runs: Sequence[int]) -> str:
    """What a time stands for: fewer than ten runs have no median worth the name."""
    n = f"{runs[0]}" if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"
    kind = "median of " if runs[0] >= 10 else "the middle of " if runs[0] >= 3 else ""
    return f"{kind}{n} runs (shortest–longest)"


def _said(value: Any, unit: str) -> str:
    """A recorded number as text; not `≈`, for it is the same at every run of the page."""
    if value is None or (isinstance(value, float) and not isfinite(value)):
        return "–"
    if isinstance(value, str):
        return value
    if unit == "%":
        return f"{value:.0%}" if abs(value) >= 0.1 else f"{value:.1%}"
    if unit == "×":
        return f"{value:.2f}×" if abs(value) < 10 else f"{value:.0f}×"
    if unit in ("B", "B/s", "FLOP/s"):
        return measured(value, unit).lstrip("≈")
    if unit == "s":
        return plain(value, "s")
    return f"{value:,.0f}" if abs(value) >= 100 or float(value).is_integer() else f"{value:,.3g}"
