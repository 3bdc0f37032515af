"""Who ran when, to scale: a trace as rows of boxes, chunks and decoding steps told apart by height too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from chunkprefill.metrics.timelines import RequestTimeline, request_timelines
from chunkprefill.plots.checks import ends_after, runs
from chunkprefill.plots.grid import task
from chunkprefill.plots.style import WIDTH, Canvas, Picture, Scale, Table, ticks, writer
from chunkprefill.scheduling.core import Rid
from chunkprefill.scheduling.trace import Trace

HEIGHTS = {"prefill": 26.0, "decode": 13.0, "recompute": 20.0}  # user units
ROW, TITLE, MARK, AXIS = 34.0, 36.0, 20.0, 44.0  # user units: a row, a title, room for a mark, the axis
N_ROWS = 60  # more cannot be told apart, and make a page heavy
LETTER = 9.8  # user units, a letter's mean width


def milliseconds(seconds: float) -> str:
    """`12 ms`: a number that was priced or counted."""
    return f"{seconds * 1e3:,.0f} ms"


def timeline_table(traces: Mapping[str, Trace], *, say: Callable[[float], str] = milliseconds) -> Table:
    """What the timelines show, in numbers: each request's wait for its first token, and its longest gap."""
    runs(traces)
    return _table({name: request_timelines(trace) for name, trace in traces.items()}, say)


def _table(told: Mapping[str, Mapping[Rid, RequestTimeline]], say: Callable[[float], str]) -> Table:
    alone = len(told) == 1
    rows = [
        (rid, *(() if alone else (name,)), say(rows[rid].first_token), say(rows[rid].longest))
        for rid in next(iter(told.values()))
        for name, rows in told.items()
    ]
    header = ("request", *(() if alone else ("policy",)), "first token after", "longest gap")
    return Table(header=header, rows=rows)


def timeline_picture(
    traces: Mapping[str, Trace],
    *,
    caption: str,
    mark: Sequence[Rid] = (),
    badge: str = "simulated",
    source: str = "",
    until: float | None = None,
) -> Picture:
    """Timelines of the same requests under each other, on one time axis: {title: trace}.

    A row is a request, a box a step that it took part in, as wide as it took. Tall: a chunk of its prompt. Low:
    a decoding step. With a broken edge: computed again after an eviction. A thin line is waiting, from arrival
    to the first box. The table has all numbers.

    mark:  requests of which the one with the longest gap gets an arrow with its length
    until: where the axis ends, s
    ValueError names what cannot be drawn: no trace, an empty one, an unknown request, too many requests.
    """
    if isinstance(mark, str):
        mark = (mark,)
    told = _checked(traces, mark, until)
    say = writer(badge, milliseconds)
    end = until or max(trace.steps[-1].end for trace in traces.values())
    names = [str(rid) for rid in next(iter(told.values()))]
    scale = Scale(0.0, end, min(0.4 * WIDTH, 14 + LETTER * max(map(len, names))), WIDTH - 8)
    tall = TITLE + (MARK if mark else 0) + ROW * len(names)
    canvas = Canvas(tall * len(told) + AXIS)
    for i, (title, rows) in enumerate(told.items()):
        canvas.text(0, i * tall + 24, title, bold=True)
        top = i * tall + TITLE + (MARK if mark else 0)
        _draw(canvas, rows, scale, top)
        if mark:
            _draw_mark(canvas, rows, scale, top, mark, say)
    _draw_axis(canvas, scale, tall * len(told) + 4)
    said = " ".join(f"{title}: {_said(rows, say)}." for title, rows in told.items())
    alt, table = f"Timelines to scale. {said}", _table(told, say)
    return canvas.picture(alt=alt, caption=caption, badge=badge, source=source, table=table)


def _checked(
    traces: Mapping[str, Trace], mark: Sequence[Rid], until: float | None
) -> dict[str, dict[Rid, RequestTimeline]]:
    """The timelines by title; ValueError for what cannot be drawn."""
    runs(traces)
    ends_after(until)
    told = {}
    for title, trace in traces.items():
        if len(trace.requests) > N_ROWS:
            raise ValueError(
                f"trace {title!r}: {len(trace.requests)} requests, at most {N_ROWS} rows can be read"
            )
        told[title] = request_timelines(trace)
        if unknown := [rid for rid in mark if rid not in told[title]]:
            there = ", ".join(map(repr, told[title]))
            raise ValueError(f"mark: no request {unknown[0]!r} in trace {title!r}; there are {there}")
    return told


def _draw(canvas: Canvas, rows: Mapping[Rid, RequestTimeline], scale: Scale, top: float) -> None:
    for i, (rid, line) in enumerate(rows.items()):
        y = top + (i + 0.5) * ROW
        canvas.text(scale.left - 8, y + 6, str(rid), anchor="end")
        canvas.line(scale.x(line.arrival), y, scale.x(line.boxes[0][1]), y, "trouble")
        canvas.line(scale.x(line.arrival), y - 7, scale.x(line.arrival), y + 7, "trouble", width=2)
        for kind, height in HEIGHTS.items():
            boxes = [(a, b) for of, a, b in line.boxes if of == kind and a < scale.end]
            spans = [(scale.x(a), scale.x(b)) for a, b in boxes]
            # A sliver of ground between two boxes, so that steps can be counted where they are wide enough.
            places = [
                (a, y - height / 2, max(0.6, b - a - min(0.12 * (b - a), 1.0)), height) for a, b in spans
            ]
            canvas.boxes(places, kind, dash="3 2" if kind == "recompute" else "")
        chunks = [(a, b) for kind, a, b in line.boxes if kind == "prefill"]
        for k, (a, b) in enumerate(chunks, 1):
            name = task("P", k) if len(chunks) > 1 else "P"
            if scale.x(b) - scale.x(a) > LETTER * len(name) + 4 and b <= scale.end:
                canvas.text((scale.x(a) + scale.x(b)) / 2, y + 6, name, anchor="middle", fill="#fff")


def _draw_mark(
    canvas: Canvas,
    rows: Mapping[Rid, RequestTimeline],
    scale: Scale,
    top: float,
    mark: Sequence[Rid],
    say: Callable[[float], str],
) -> None:
    """The longest gap of the requests marked, above its row, with its length."""
    line = max((rows[rid] for rid in mark), key=lambda line: line.longest)
    a, b = map(scale.x, line.longest_gap)
    y = top + list(rows).index(line.rid) * ROW - 2
    canvas.line(a, y, b, y, "trouble", width=2)
    for x in (a, b):
        canvas.line(x, y - 5, x, y + 5, "trouble", width=2)
    words = f"gap {say(line.longest)}"
    fits = b + 8 + LETTER * len(words) < WIDTH
    canvas.text(
        b + 8 if fits else max(a - 8, LETTER * len(words)), y + 6, words, anchor="start" if fits else "end"
    )


def _draw_axis(canvas: Canvas, scale: Scale, y: float) -> None:
    marks = {time: f"{time:.6g}" for time in ticks(scale.end, 5, (1, 2, 2.5, 5))}
    canvas.axis(scale, y, marks, width=1.5, drop=22, inside=18)
    canvas.text((scale.left + WIDTH) / 2, y + 39, "time, s", anchor="middle")


def _said(rows: Mapping[Rid, RequestTimeline], say: Callable[[float], str]) -> str:
    return "; ".join(
        f"{rid} waits {say(line.first_token)} for its first token, its longest gap is {say(line.longest)}"
        for rid, line in rows.items()
    )
