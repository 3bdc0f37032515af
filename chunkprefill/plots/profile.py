"""A profiler's trace, read with care and drawn: two steps to scale, and what lies between their passes."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from chunkprefill.measure import measured
from chunkprefill.metrics.breakdown import WORDS
from chunkprefill.plots.style import WIDTH, Canvas, Picture, Scale, Table

MOST_BYTES, MOST_EVENTS = 5_000_000, 50_000
PROFILED = {**WORDS, "pass": "the pass", "wait": "waiting for the GPU"}
Span = tuple[str, float, float]  # name, beginning and end, µs


def profile_spans(source: str | os.PathLike[str] | Mapping[str, Any]) -> dict[str, list[Span]]:
    """Lane -> spans in order, of a file (or its JSON) that `bench profile` wrote: parts, operators, GPU.

    Raises ValueError for anything else, and says what is wrong with it.
    """
    name, document = "trace", source
    if not isinstance(source, Mapping):
        name = os.fspath(source)
        if (size := Path(source).stat().st_size) > MOST_BYTES:
            raise ValueError(f"{name}: {size:,} bytes, at most {MOST_BYTES:,} are read")
        try:
            document = json.loads(Path(source).read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{name}: no JSON, or cut off: {error}") from None
    events = document.get("traceEvents") if isinstance(document, Mapping) else None
    if not isinstance(events, list) or len(events) > MOST_EVENTS:
        raise ValueError(f"{name}: a list traceEvents of at most {MOST_EVENTS:,} events is needed")
    lanes: dict[int, str] = {}
    spans: dict[str, list[Span]] = {}
    for i, event in enumerate(events):
        try:
            if event["ph"] == "M":
                lanes[event["tid"]] = str(event["args"]["name"])
                continue
            begin, took = float(event["ts"]), float(event["dur"])
            if not (0 <= begin < math.inf and 0 <= took < math.inf):
                raise ValueError(f"from {begin} µs for {took} µs")
            spans.setdefault(lanes[event["tid"]], []).append((str(event["name"]), begin, begin + took))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{name}: event {i}: {type(error).__name__}: {error}") from None
    if not spans.get("parts"):
        raise ValueError(f"{name}: no lane of parts; `python -m benchmarks profile` writes one")
    return {lane: sorted(found, key=lambda span: span[1]) for lane, found in spans.items()}


def between_passes(parts: list[Span], which: int = -1) -> tuple[float, float]:
    """The `which`-th time between two passes, µs: from the end of one, or of waiting for it, to the next one's start.

    Raises ValueError for fewer than two passes.
    """
    passes = [span for span in parts if span[0] in ("pass", "wait")]
    found = [(a[2], b[1]) for a, b in pairwise(passes)]
    if not found:
        raise ValueError(f"{len(passes)} passes: two are needed, to look between them")
    return found[which]


def profile_picture(
    source: str | os.PathLike[str] | Mapping[str, Any], *, which: int = -1, caption: str = "", about: str = ""
) -> Picture:
    """Two steps of a profiler's trace to scale, and beneath, what lies between their passes, larger.

    source: what `bench profile` wrote, as a path or as its JSON. which: the gap between passes to enlarge.
    The profiler slows what it watches: trust proportions, not times. Raises ValueError for any other file.
    """
    spans = profile_spans(source)
    begin, end = between_passes(spans["parts"], which)
    around = [s for s in spans["parts"] if s[0] in ("pass", "wait") and (s[2] == begin or s[1] == end)]
    first, last = around[0][1], around[-1][2]
    inside = [s for s in spans["parts"] if s[1] >= begin - 1e-6 and s[2] <= end + 1e-6]
    lanes = [lane for lane in ("parts", "operators", "GPU") if lane in spans]
    left, tall = 100.0, 34.0
    names = list(dict.fromkeys(name for name, *_ in inside))
    top = 30 + tall * len(lanes) + 34
    canvas = Canvas(top + 34 + 30 * len(names) + 34)
    two, between = Scale(first, last, left), Scale(begin, end, left + 76, WIDTH - 90)
    canvas.text(0, 18, "two steps, to scale", bold=True)
    for k, lane in enumerate(lanes):
        y = 30 + tall * k
        canvas.text(left - 8, y + 21, lane, anchor="end")
        for name, a, b in spans[lane]:
            if a < last and b > first and name != "wait":
                fill = "prefill" if lane != "parts" or name == "pass" else "scheduling"
                canvas.rect(two.x(a), y + 4, max(two.x(b) - two.x(a), 0.4), 24, fill)
    middle = next((s for s in around if s[0] == "pass"), None)
    if middle and two.x(middle[2]) - two.x(middle[1]) > 90:
        x = (two.x(middle[1]) + two.x(middle[2])) / 2
        canvas.text(x, 30 + 21, "the pass", anchor="middle", fill="#fff")
    y = 30 + tall * len(lanes) + 2  # what is enlarged, and where it comes from
    for at, to in ((begin, between.left), (end, between.right)):
        canvas.line(two.x(at), y, to, top, "scheduling", opacity=0.7, dash="4 3")
    canvas.text(0, top + 20, f"between two passes: {measured((end - begin) / 1e6)}", bold=True)
    rows: list[tuple[object, ...]] = []
    for k, name in enumerate(names):
        y, words, right = top + 34 + 30 * k, PROFILED.get(name, name), between.left
        mine = [(a, b) for other, a, b in inside if other == name]
        canvas.text(between.left - 8, y + 19, "reading back" if name == "read" else words, anchor="end")
        for a, b in mine:
            right = max(between.x(b), between.x(a) + 1)
            canvas.rect(between.x(a), y + 4, right - between.x(a), 20, "scheduling", radius=1)
        took = sum(b - a for a, b in mine)
        canvas.text(right + 6, y + 19, measured(took / 1e6))
        rows.append((words, measured(took / 1e6), measured(took / (end - begin), "%")))
    n_ops = sum(a >= begin and b <= end for _, a, b in spans.get("operators", ()))
    parts = ", ".join(f"{words} {took}" for words, took, _ in rows)
    return canvas.picture(
        alt=f"Two steps by torch's profiler, {measured((last - first) / 1e6)} in all. Between their passes lie "
        f"{measured((end - begin) / 1e6)}: {parts}. Operators in that time: {measured(n_ops, '', digits=2)}.",
        caption=caption or "Blue: the model computes. Green: the parts of scheduling, enlarged beneath.",
        badge="measured",
        source=about,
        table=Table(header=("part", "took", "of the time between"), rows=rows),
    )
