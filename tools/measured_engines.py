"""The measurements page's parts on what others made: their engines beside ours, and their checkpoints."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# So that tests may import this file as tools.measured_engines.
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from measured_benches import html, word  # noqa: E402

from chunkprefill.plots.style import Table  # noqa: E402
from chunkprefill_course.vllm_recording import (  # noqa: E402
    COLUMNS,
    MEASURES,
    vllm_picture,
    vllm_verdicts,
)

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
        if rows:
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
    """What its clients would see, by settings, and whether the late chat ever met the document."""
    yield (
        f"{document['what'][0].upper()}{document['what'][1:]}. {document['model']}; OpenVINO GenAI "
        f"{document['openvino_genai']}; a document of {document['document']:,} tokens. The late chat is sent "
        "once the first chat has a number of tokens, so a step that reads the whole document comes before it."
    )
    kinds = ("gap", "document", "late")
    rows = [
        (row["settings"], *(_s(row["s"].get(kind)) for kind in kinds), _met_the_document(row))
        for row in document["rows"]
    ]
    header = ("settings", *(MEASURES[kind] for kind in kinds), "the late chat was sent")
    yield html(Table(header=header, rows=rows, caption="a document among chats"))


def _met_the_document(row: Mapping[str, Any]) -> str:
    """When the late chat was sent and answered, relative to the document's first token."""
    seen = {request["name"]: request for request in row["tokens_s"]}
    answered = seen["document"]["tokens"][0]
    if seen["late"]["sent"] >= answered:
        return "after the document was read"
    before = seen["late"]["tokens"][0] < answered
    return "while it was read, answered " + ("before it" if before else "after it")


def work_of(row: Mapping[str, Any]) -> str:
    """What a row of the engines' bench measured, in words."""
    if row["work"] == "prefill":
        whole = row["chunk"] >= row["prompt"]
        return f"one prompt of {row['prompt']:,}, " + ("whole" if whole else f"chunk {row['chunk']:,}")
    if row["work"] == "serve":
        tokens = f"{row['prompt_tokens']:,} + {row['output_tokens']:,} tokens"
        return f"{row['requests']} requests, {tokens}, budget {row['budget']:,}"
    return f"{row['sequences']} sequences decode at context {row['context']:,}"


def engine_ratios(documents: Sequence[Document]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table: each engine's time over ours, a row for each piece of work."""
    ratios: dict[str, dict[tuple[str, str], float]] = {}
    for row in (row for document in documents for row in document["rows"]):
        for engine, ratio in row["ratios"].items():
            ratios.setdefault(work_of(row), {})[engine, row["dtype"]] = ratio
    columns = sorted(
        {key for found in ratios.values() for key in found}, key=lambda key: (key[0], key[1] != "float32")
    )
    rows = [
        [work, *(f"{found[key]:.2f}" if key in found else "–" for key in columns)]
        for work, found in ratios.items()
    ]
    return ["work", *(f"{engine}, {dtype}" for engine, dtype in columns)], rows


def engines_blocks(document: Document) -> Iterator[str]:
    """Ratios, the range of each engine's samples, whose outputs are equal, and where our time goes."""
    header, rows = engine_ratios([document])
    yield (
        f"{document['model']}: each engine's time over ours, so above 1 ours is faster; medians of "
        f"{min(len(s) for row in document['rows'] for s in row['samples_s'].values())} runs, interleaved."
    )
    yield html(Table(header=header, rows=rows, caption="other engines' time over ours"))
    rows = []
    for row in document["rows"]:
        for engine, samples in row["samples_s"].items():
            equal = row["outputs"].get(engine)
            rows.append(
                [
                    f"{row['dtype']}: {work_of(row)}",
                    engine,
                    f"{row['median_s'][engine]:.2f} s",
                    f"{min(samples):.2f} to {max(samples):.2f} s",
                    f"{equal['equal']} of {equal['of']}" if equal else "–",
                ]
            )
    header = ["work", "engine", "median", "range", "outputs equal to ours"]
    yield html(Table(header=header, rows=rows, caption="seconds, their range, and the outputs"))
    if parted := _parted(document):
        yield parted
    targets = [
        [
            f"{row['dtype']}: {work_of(row)}",
            f"{row['ratios']['vllm']:.2f}",
            f"{row['target']:g}",
            word(row["met"]),
        ]
        for row in document["rows"]
        if "target" in row
    ]
    if targets:
        yield html(Table(header=["work", "vLLM's over ours", "target", ""], rows=targets, caption="targets"))
    for dtype, profiles in document["profiles"].items():
        for engine, operators in profiles.items():
            rows = [[name, f"{share:.0%}", f"{calls:,}"] for name, share, calls in operators[:6]]
            caption = f"where the time of serving goes: {engine}, {dtype}"
            yield html(Table(header=["operator", "share", "calls"], rows=rows, caption=caption))


def _parted(document: Document) -> str:
    """How close the first tokens were at which outputs part from ours; "" where none parts."""
    margins = [
        place["margin"]
        for row in document["rows"]
        for compared in row["outputs"].values()
        for place in compared["parted"]
    ]
    if not margins:
        return ""
    return (
        "Where an output parts from ours, the two tokens at the first such place are at most "
        f"{max(map(abs, margins)):.2g} of a logit apart for our model ({len(margins)} places looked at)."
    )


def loading_blocks(document: Document) -> Iterator[str]:
    """By family: how many variants load with which error, how many are refused."""
    families = dict.fromkeys(row["family"] for row in document["rows"])
    yield (
        f"{len(document['rows'])} variants of checkpoints as `transformers` writes them, with small random "
        "weights, in float64: each gives `transformers`' logits to "
        f"{document['bound']:g}, whole and in chunks, or is refused by name."
    )
    rows = []
    for family in families:
        mine = [row for row in document["rows"] if row["family"] == family]
        errors = [row["error"] for row in mine if "error" in row]
        largest = f"{max(errors):.1e}" if errors else "–"
        rows.append([family, f"{len(errors)}", largest, f"{len(mine) - len(errors)}"])
    header = ["family", "loaded", "largest error", "refused"]
    yield html(Table(header=header, rows=rows, caption="checkpoints that others write"))
