"""The measurements page's parts on other engines: vLLM beside ours and the simulator, and OpenVINO."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from measured_benches import html

from chunkprefill.plots.style import Table
from chunkprefill_course.vllm_recording import COLUMNS, MEASURES, vllm_picture, vllm_verdicts

Document = Mapping[str, Any]


def _s(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds:.3g} s"


def vllm_blocks(document: Document) -> Iterator[str]:
    """Three columns, one picture; every measure as a table; what the probe said."""
    same = sum(row["same_tokens"] for row in document["rows"])
    yield (
        f"{document['what'][0].upper()}{document['what'][1:]}. {document['model']}; vLLM {document['vllm']}, "
        f"{document['vllm_mode']}; a document of {document['document']:,} tokens. {same:,} tokens of vLLM's and of "
        "our engine's answers were compared, and are the same."
    )
    shown = [row["settings"] for row in document["rows"] if row["load"] == "document"]
    yield vllm_picture(shown, document=document)._repr_html_()
    for what, words in MEASURES.items():
        rows = [
            (row["settings"], *(_s(row["columns"][c]["s"].get(what)) for c in COLUMNS))
            for row in document["rows"]
            if any(what in row["columns"][c]["s"] for c in COLUMNS)
        ]
        yield html(Table(header=("settings", *COLUMNS), rows=rows, caption=words))
    lost = [
        (row["settings"], *(f"{row['columns'][c]['preemptions'] or 0:,.0f}" for c in COLUMNS))
        for row in document["rows"]
        if row["load"] == "many chats"
    ]
    yield html(Table(header=("settings", *COLUMNS), rows=lost, caption="requests that lost their cache"))
    if said := came_again(document):
        yield said
    if (verdicts := vllm_verdicts(document=document)).table:
        yield html(verdicts.table)


def came_again(document: Document) -> str:
    """When the document that comes twice was sent the second time, as the recording has it; "" if none did."""
    runs = [
        column["tokens_s"]
        for row in document["rows"]
        if row["load"] == "again"
        for column in row["columns"].values()
    ]
    runs = [times for times in runs if len(times.get("again", ())) > 1 and len(times.get("document", ())) > 1]
    if not runs:
        return ""
    if all(times["again"][0] >= times["document"][-1] for times in runs):
        return "The document that comes again was sent when its first sending had been answered, in every column."
    at = sorted({round(times["again"][0], 1) for times in runs})
    when = " to ".join(f"{t:.1f}" for t in dict.fromkeys((at[0], at[-1])))
    return (
        f"The document that comes again was sent at {when} s by the clock, whether or not its first sending had "
        "been answered. Its own wait is therefore counted from the first one's first token, where that came later."
    )


def openvino_blocks(document: Document) -> Iterator[str]:
    """What its clients would see, by settings."""
    yield (
        f"{document['what'][0].upper()}{document['what'][1:]}. {document['model']}; OpenVINO GenAI "
        f"{document['openvino_genai']}; a document of {document['document']:,} tokens."
    )
    kinds = ("gap", "document", "late")
    rows = [(row["settings"], *(_s(row["s"].get(kind)) for kind in kinds)) for row in document["rows"]]
    header = ("settings", *(MEASURES[kind] for kind in kinds))
    yield html(Table(header=header, rows=rows, caption="a document among chats"))
