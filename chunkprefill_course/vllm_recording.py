"""The recorded runs of vLLM on a CPU, beside our engine and the simulator: three columns, badged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from chunkprefill.plots.style import Picture, Table
from chunkprefill_course.columns import columns_picture
from chunkprefill_course.digests import digest as read_digest
from chunkprefill_course.gpu_recording import RecordedRows, where_from

COLUMNS = ("vLLM", "our engine", "simulator")
#: What a column's numbers are, in words; s.
MEASURES = {
    "gap": "chats' longest gap",
    "document": "document's first token",
    "late": "late chat's first token",
    "other": "second document's first token",
    "again": "the same document again, its first token",
    "behind": "late chat's first token, after the document's",
    "own": "the same document again, its first token after the first one's",
    "preemptions": "caches taken away",
}
#: Measures that are differences: a request's first token after another's, s.
_AFTER = {"behind": ("late", "document"), "own": ("again", "document")}
DOCUMENT_RUNS = (
    "chunked prefill off",
    "budget 4096",
    "budget 1024",
    "budget 256",
    "budget 64",
    "budget 256, threshold 128",
)


def vllm_digest() -> dict[str, Any]:
    """The recording that travels with the package, made by `tools/vllm_digest.py`; {} if there is none."""
    return read_digest("vllm")


def vllm_rows(
    settings: Sequence[str] = (), document: Mapping[str, Any] | None = None
) -> dict[str, Mapping[str, Any]]:
    """{settings: row} of the recorded runs, those named or all; {} where nothing was recorded.

    A row has "flags", "policy", "verdict" (of a probe that was told nothing), and "columns": {engine: {"s": {what:
    s}, "first_s": {request: s from the start}, "preemptions", "why"}}. ValueError for settings that were not
    recorded.
    """
    found = vllm_digest() if document is None else document
    rows = {row["settings"]: row for row in found.get("rows", ())}
    if not rows:
        return {}
    if unknown := [name for name in settings if name not in rows]:
        raise ValueError(f"{unknown[0]!r} was not recorded; there are {', '.join(map(repr, rows))}")
    return {name: rows[name] for name in (settings or rows)}


def vllm_number(column: Mapping[str, Any], what: str) -> float | None:
    """A measure of MEASURES in a row's column: s, or a count of preemptions; None where it has none."""
    if what in _AFTER:
        late, early = (column.get("first_s", {}).get(rid) for rid in _AFTER[what])
        if late is None or early is None:
            return None
        waited = column["s"].get("again") if what == "own" else None  # since it was sent, which may be later
        return float(late - early) if waited is None else float(min(late - early, waited))
    found: float | None = column["preemptions"] if what == "preemptions" else column["s"].get(what)
    return found


def vllm_where(document: Mapping[str, Any] | None = None) -> str:
    """Which vLLM, on which machine, when, at which commit."""
    found = vllm_digest() if document is None else document
    return f"vLLM {found['vllm']} ({found['vllm_mode']}), {where_from(found)}" if found else ""


def recorded_vllm(
    what: str = "gap",
    settings: Sequence[str] = DOCUMENT_RUNS,
    *,
    document: Mapping[str, Any] | None = None,
) -> RecordedRows:
    """One measure of the recorded runs, three columns beside each other, badged.

    what: a key of MEASURES. settings: of the runs; the six with one document, unless named. Where nothing was
    recorded it says so. ValueError for an unknown measure or settings.
    """
    if what not in MEASURES:
        raise ValueError(f"no measure {what!r}; there are {', '.join(MEASURES)}")
    rows = vllm_rows(settings, document)
    if not rows:
        return RecordedRows(rows=(), table=None, where="")
    said = _count if what == "preemptions" else _s
    cells = [
        (name, *(said(vllm_number(row["columns"][c], what)) for c in COLUMNS)) for name, row in rows.items()
    ]
    table = Table(header=("vLLM's settings", *COLUMNS), rows=cells, caption=f"{MEASURES[what]}; one run each")
    return RecordedRows(rows=tuple(rows.values()), table=table, where=vllm_where(document))


def vllm_verdicts(*, document: Mapping[str, Any] | None = None) -> RecordedRows:
    """What a probe, told nothing, said of each of the recorded servers."""
    rows = {n: r for n, r in vllm_rows(document=document).items() if "verdict" in r}
    if not rows:
        return RecordedRows(rows=(), table=None, where="")
    cells = [(n, r["flags"], r["verdict"]["name"], r["verdict"]["step"] or "–") for n, r in rows.items()]
    header = ("server", "its flags", "the probe's verdict", "a step")
    table = Table(
        header=header, rows=cells, caption="What the probe said of each server; it did not know the flags"
    )
    return RecordedRows(rows=tuple(rows.values()), table=table, where=vllm_where(document))


def vllm_picture(
    settings: Sequence[str] = DOCUMENT_RUNS,
    measures: Sequence[str] = ("gap", "document", "late"),
    *,
    caption: str = "",
    document: Mapping[str, Any] | None = None,
) -> Picture:
    """The three columns as one picture: a panel a measure, a row a setting, a mark an engine.

    ValueError where nothing was recorded, or for settings or measures that were not.
    """
    rows = vllm_rows(settings, document)
    if not rows:
        raise ValueError("no run of vLLM is recorded with this package")
    if unknown := [name for name in measures if name not in MEASURES]:
        raise ValueError(f"no measure {unknown[0]!r}; there are {', '.join(MEASURES)}")
    runs = {
        name: {c: [vllm_number(row["columns"][c], m) for m in measures] for c in COLUMNS}
        for name, row in rows.items()
    }
    return columns_picture(
        runs,
        measures=[MEASURES[m] for m in measures],
        caption=caption
        or "The same requests on vLLM, on our engine under the same rules, and in the simulator with costs "
        "calibrated on that machine. One run each.",
        source=vllm_where(document),
    )


def _s(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    sign, seconds = "−" if round(1e3 * seconds, 1) < 0 else "", abs(seconds)
    if seconds < 0.0095:
        return f"{sign}{1e3 * seconds:.0f} ms"
    return f"{sign}{1e3 * seconds:,.3g} ms" if seconds < 0.9995 else f"{sign}{seconds:.3g} s"


def _count(n: float | None) -> str:
    return "–" if n is None else f"{n:,.0f}"
