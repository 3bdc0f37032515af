"""Who ran when, to scale: a trace as rows of boxes, chunks and decoding steps told apart by height too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from chunkprefill.analysis.grid import task
from chunkprefill.analysis.style import COLOURS, LOOK, WIDTH, Picture, Table, picture
from chunkprefill.measure import measured
from chunkprefill.scheduling.core import Rid
from chunkprefill.scheduling.trace import Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEIGHTS = {"prefill": 0.72, "decode": 0.36, "recompute": 0.56}  # of a row


@dataclass(frozen=True)
class Life:
    """One request's: its boxes as (kind, start, end in s), and the times of its tokens."""

    rid: Rid
    arrival: float  # s
    boxes: tuple[tuple[str, float, float], ...]
    tokens: tuple[float, ...]  # s

    @property
    def first_token(self) -> float:
        """Seconds from arrival to the first token."""
        return self.tokens[0] - self.arrival

    @property
    def silence(self) -> tuple[float, float]:
        """The longest gap between two tokens, (from, to) in s; nothing long where there are not two."""
        gaps = list(pairwise(self.tokens)) or [(self.tokens[-1], self.tokens[-1])]
        return max(gaps, key=lambda gap: gap[1] - gap[0])

    @property
    def longest(self) -> float:
        """Seconds of that gap."""
        return self.silence[1] - self.silence[0]


def lives(trace: Trace) -> dict[Rid, Life]:
    """The same trace by request: what ran for each, and when its tokens were there."""
    n_prompt = {request.rid: request.n_prompt for request in trace.requests}
    boxes: dict[Rid, list[tuple[str, float, float]]] = {rid: [] for rid in n_prompt}
    tokens: dict[Rid, list[float]] = {rid: [] for rid in n_prompt}
    reached = dict.fromkeys(n_prompt, 0)  # positions that were cached once
    for step in trace.steps:
        for rid, start, length, emits in step.batch:
            again = start < reached[rid]
            kind = "recompute" if again else "prefill" if start < n_prompt[rid] else "decode"
            boxes[rid].append((kind, step.start, step.end))
            reached[rid] = max(reached[rid], start + length)
            if emits:
                tokens[rid].append(step.end)
    return {
        request.rid: Life(request.rid, request.arrival, tuple(boxes[request.rid]), tuple(tokens[request.rid]))
        for request in trace.requests
    }


def same_moments(planned: Trace, measured: Trace) -> Trace:
    """A replayed trace with each arrival at the same moment of the run as in the trace that was replayed.

    A replay takes its batches from one clock and its durations from another. What arrived in the middle of a
    planned step arrives in the middle of that step here, so that waiting can be read off.
    """
    then, now = (
        [0.0, *(t for step in trace.steps for t in (step.start, step.end))] for trace in (planned, measured)
    )
    arrivals = np.interp([request.arrival for request in planned.requests], then, now)
    moved = (replace(request, arrival=float(t)) for request, t in zip(planned.requests, arrivals))
    trace = Trace(moved, label=measured.label)
    trace.columns, trace.outputs, trace.preempted = measured.columns, measured.outputs, measured.preempted
    return trace


def milliseconds(seconds: float) -> str:
    """`12 ms`: a number that was priced or counted."""
    return f"{seconds * 1e3:,.0f} ms"


def timeline(
    trace: Trace, ax: Axes, *, mark: Sequence[Rid] = (), say: Callable[[float], str] = milliseconds,
    until: float | None = None, show_x: bool = True,
) -> None:  # fmt: skip
    """Draw a trace on `ax`: a row a request, a box a step that it took part in, as wide as it took.

    Tall: a chunk of its prompt. Low: a decoding step. Hatched: computed again after an eviction. A thin line
    is waiting, from arrival to the first box. mark: requests of which the one with the longest silence gets
    an arrow, its length written by `say`. until: where the axis ends, s.
    """
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    rows = lives(trace)
    end = until or max(life.boxes[-1][2] for life in rows.values())
    for y, life in enumerate(rows.values()):
        ax.plot([life.arrival, life.boxes[0][1]], [y, y], color=COLOURS["trouble"], linewidth=1.5)
        ax.plot([life.arrival], [y], marker="|", color=COLOURS["trouble"], markersize=9)
        chunks = [box for box in life.boxes if box[0] == "prefill"]
        for kind, height in HEIGHTS.items():
            vertices: list[tuple[float, float]] = []
            for _, a, b in (box for box in life.boxes if box[0] == kind):
                low, high, gap = y - height / 2, y + height / 2, min(0.12 * (b - a), end / WIDTH)
                vertices += [(a, low), (a, high), (b - gap, high), (b - gap, low), (a, low)]
            if vertices:  # one path for all boxes of a kind: a page holds many frames
                codes = [Path.MOVETO, *[Path.LINETO] * 3, Path.CLOSEPOLY] * (len(vertices) // 5)
                hatch = "////" if kind == "recompute" else None
                ax.add_patch(
                    PathPatch(Path(vertices, codes), facecolor=COLOURS[kind], linewidth=0, hatch=hatch)
                )
        for k, (_, a, b) in enumerate(chunks, 1):
            if b - a > 0.05 * end and b < end:
                name = task("P", k) if len(chunks) > 1 else "P"
                ax.text((a + b) / 2, y, name, color="white", ha="center", va="center_baseline")
    if mark:
        life = max((rows[rid] for rid in mark), key=lambda life: life.longest)
        a, b = life.silence
        y = list(rows).index(life.rid)
        ax.plot([a, b], [y - 0.62] * 2, color=COLOURS["trouble"], linewidth=2, marker="|", markersize=8,
                clip_on=False)  # fmt: skip
        left = b < 0.66 * end
        ax.text(b + 0.01 * end if left else a - 0.01 * end, y - 0.62, f"silent {say(b - a)}",
                ha="left" if left else "right", va="center")  # fmt: skip
    ax.set_yticks(range(len(rows)), [str(rid) for rid in rows])
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(rows) - 0.5, -1.0 if mark else -0.5)
    ax.set_xlim(0, end)
    ax.spines["left"].set_visible(False)
    if show_x:
        ax.set_xlabel("time, s")
    else:
        ax.tick_params(axis="x", labelbottom=False, length=0)


def timeline_table(traces: Mapping[str, Trace], *, say: Callable[[float], str] = milliseconds) -> Table:
    """What the timelines show, in numbers: first token after arrival, and the longest silence, by request."""
    told = {name: lives(trace) for name, trace in traces.items()}
    alone = len(told) == 1
    rows = [
        (rid, *(() if alone else (name,)), say(rows[rid].first_token), say(rows[rid].longest))
        for rid in next(iter(told.values()))
        for name, rows in told.items()
    ]
    header = ("request", *(() if alone else ("policy",)), "first token after", "longest silence")
    return Table(header=header, rows=rows)


def timeline_picture(
    traces: Mapping[str, Trace], *, caption: str, mark: Sequence[Rid] = (), badge: str = "simulated",
    source: str = "", until: float | None = None,
) -> Picture:  # fmt: skip
    """Timelines of the same requests under each other, on one time axis: {title: trace}.

    badge "measured" writes its numbers as measured ones. The table beneath has them all.
    """
    import matplotlib
    from matplotlib.figure import Figure

    say: Any = measured if badge == "measured" else milliseconds
    end = until or max(trace.steps[-1].end for trace in traces.values())
    n_rows = len(next(iter(traces.values())).requests)
    high = 0.36 * n_rows + 0.62
    with matplotlib.rc_context(LOOK):
        fig = Figure(figsize=(WIDTH / 100, high * len(traces) + 0.45), layout="constrained")
        axes = fig.subplots(len(traces), squeeze=False)[:, 0]
        for i, (ax, (title, trace)) in enumerate(zip(axes, traces.items())):
            timeline(trace, ax, mark=mark, say=say, until=end, show_x=i == len(traces) - 1)
            ax.set_title(title, x=0)
        words = " ".join(f"{title}: {_said(trace, say)}." for title, trace in traces.items())
        return picture(fig, alt=f"Timelines to scale. {words}", caption=caption, badge=badge, source=source,
                       table=timeline_table(traces, say=say))  # fmt: skip


def _said(trace: Trace, say: Callable[[float], str]) -> str:
    return "; ".join(
        f"{rid} waits {say(life.first_token)} for its first token, is silent for at most {say(life.longest)}"
        for rid, life in lives(trace).items()
    )
