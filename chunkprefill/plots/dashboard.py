"""A whole run in panels on one time axis, with its table."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, cycle
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from chunkprefill.metrics import waits as metrics
from chunkprefill.metrics.events import Events
from chunkprefill.metrics.overtime import max_over, over_time
from chunkprefill.metrics.summary import Spread
from chunkprefill.plots.checks import ran
from chunkprefill.plots.style import COLOURS, Picture, Table, Words, figure, picture, plain, writer
from chunkprefill.scheduling.core import Request
from chunkprefill.scheduling.trace import Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def batches(trace: Trace, ax: Axes) -> None:
    """Tokens in a step over time: decodes below, chunks on them, what was computed again on top."""
    t = over_time(trace)
    bottom = np.zeros(len(t.prefill))
    for kind, hatch in (("decode", None), ("prefill", None), ("recompute", "////")):
        top = bottom + getattr(t, kind)
        if (top > bottom).any():
            ax.stairs(top, t.edges, baseline=bottom, fill=True, color=COLOURS[kind], linewidth=0, hatch=hatch)
        bottom = top
    names = {"decode": "decodes", "prefill": "chunks", "recompute": "again"}
    _finish(ax, "tokens in a step", [(names[k], COLOURS[k]) for k in names if getattr(t, k).any()])


def step_times(trace: Trace, ax: Axes) -> None:
    """How long steps took, ms: the longest in each stretch of time as a line, the mean filled."""
    t = over_time(trace)
    ax.stairs(1e3 * t.step_mean, t.edges, fill=True, color="black", alpha=0.25, linewidth=0)
    ax.stairs(1e3 * t.step_max, t.edges, color="black", linewidth=1.5, baseline=None)
    _finish(ax, "step, ms", [("longest", "black"), ("mean (grey)", "black")])


def queue(trace: Trace, ax: Axes) -> None:
    """Requests over time: waiting for their first step (filled), begun and not ended (line)."""
    t = over_time(trace)
    ax.stairs(t.waiting, t.edges, fill=True, color=COLOURS["trouble"], linewidth=0)
    ax.stairs(t.running, t.edges, color="black", linewidth=1.5, baseline=None)
    _finish(ax, "requests", [("waiting", COLOURS["trouble"]), ("running (line)", "black")])


def kv_blocks(trace: Trace, ax: Axes, n_blocks: int | None = None) -> None:
    """Cache blocks in use over time, evictions marked; a broken line at the pool's `n_blocks`."""
    t = over_time(trace)
    ax.stairs(t.blocks, t.edges, fill=True, color="black", alpha=0.35, linewidth=0)
    words = [("in use", "black")]
    if n_blocks:
        ax.axhline(n_blocks, color=COLOURS["trouble"], linestyle="--", linewidth=1.5)
        ax.set_ylim(top=1.1 * n_blocks)
    if t.evictions.any():
        at = (t.edges[:-1] + t.edges[1:])[t.evictions > 0] / 2
        ax.plot(at, t.blocks[t.evictions > 0], "v", color=COLOURS["trouble"], markersize=5)
        words.append(("▼ evicted", COLOURS["trouble"]))
    _finish(ax, "cache blocks", words)


def scheduling(trace: Trace, ax: Axes) -> None:
    """The share of time that passes between a step's scheduling and its dispatch, %."""
    t = over_time(trace)
    ax.stairs(100 * t.scheduling, t.edges, fill=True, color=COLOURS["scheduling"], linewidth=0)
    _finish(ax, "scheduling, % of time", [])


def first_tokens(trace: Trace, ax: Axes, by: Callable[[Request], str] | None = None) -> None:
    """Time to first token, s, at the moment of arrival: one mark a request, one shape a class."""
    e = Events.of(trace)
    waits, names = metrics.ttft(e), np.array([by(r) if by else "" for r in trace.requests], dtype=object)
    words, looks = [], cycle((("o", "none", "○"), ("^", "black", "▲"), ("s", "none", "□")))
    for name, (mark, inside, sign) in zip(dict.fromkeys(names), looks):
        x, y = e.arrivals[names == name], waits[names == name]
        ax.plot(x, y, mark, color="black", markerfacecolor=inside, markersize=4, markeredgewidth=1)
        words.append((f"{sign} {name}", "black"))
    _finish(ax, "first token, s", words if by else [])


def gaps(trace: Trace, ax: Axes, by: Callable[[Request], str] | None = None) -> None:
    """The longest gap between tokens that ended in each stretch of time, ms: one class as a line, others as marks."""
    e, edges = Events.of(trace), over_time(trace).edges
    last = e.tokens[e.decoded]
    ends, long = e.ended[last], metrics.tbt(e)
    names = np.array([by(r) if by else "" for r in trace.requests], dtype=object)
    words, looks = [], chain((("", "―"),), cycle((("^", "▲"), ("s", "■"))))
    for name, (mark, sign) in zip(dict.fromkeys(names), looks):
        mine = (names == name)[e.request[last]]
        value = 1e3 * max_over(edges, ends[mine], ends[mine], long[mine])
        if mark:
            there = value > 0
            middles = (edges[1:] + edges[:-1])[there] / 2
            ax.plot(middles, value[there], mark, color="black", markersize=4)
        else:
            ax.stairs(value, edges, color="black", linewidth=1.5, baseline=None)
        words.append((f"{sign} {name}", "black"))
    _finish(ax, "longest gap, ms", words if by else [])


PANELS: dict[str, Callable[[Trace, Any], None]] = {
    "steps": step_times,
    "batches": batches,
    "queue": queue,
    "blocks": kv_blocks,
    "scheduling": scheduling,
}


#: What the users of a server notice.
WAITS = ("first tokens", "gaps")


def run_table(trace: Trace, n: int = 8, *, say: Callable[[float, str], str] | None = None) -> Table:
    """What the panels show, in `n` stretches of time. say: writes (value, unit); default: plain numbers."""
    t, say = over_time(trace, n), say or plain
    header = ("until", "longest step", "in chunks", "decodes", "waiting", "running", "blocks", "evicted")
    rows = []
    for i in range(n):
        counts = t.prefill[i] + t.recompute[i], t.decode[i], t.waiting[i], t.running[i]
        times = say(t.edges[i + 1], "s"), say(t.step_max[i], "s")
        rows.append((*times, *(say(x, "") for x in counts), f"{t.blocks[i]:,.0f}", str(t.evictions[i])))
    return Table(header=header, rows=rows, caption="tokens are those of an average step; 0 where none ran")


def dashboard_picture(
    trace: Trace,
    *,
    panels: Sequence[str] = tuple(PANELS),
    n_blocks: int | None = None,
    by: Callable[[Request], str] | None = None,
    **words: Unpack[Words],
) -> Picture:
    """Small multiples of one run on one time axis; `panels` are keys of PANELS or WAITS.

    words: the `caption`; the `badge` ("simulated" unless given) and `source` say where the numbers come from.
    by: names a request's class, for the panels of WAITS. The table has what PANELS show. ValueError for an
    unknown panel and for a trace without a step.
    """
    known = ", ".join([*PANELS, *WAITS])
    if isinstance(panels, str) or not panels:
        raise ValueError(f"panels is {panels!r}: a list of one or more is needed, out of {known}")
    if unknown := [name for name in panels if name not in {*PANELS, *WAITS}]:
        raise ValueError(f"panels {unknown}: choose from {known}")
    ran(trace)
    say = writer(words.setdefault("badge", "simulated"))
    with figure(1.25 * len(panels) + 0.5) as fig:
        axes = fig.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
        own = {"first tokens": partial(first_tokens, by=by), "gaps": partial(gaps, by=by)}
        own["blocks"] = partial(kv_blocks, n_blocks=n_blocks)
        for name, ax in zip(panels, axes):
            (PANELS | own)[name](trace, ax)
        axes[-1].set_xlabel("time, s")
        axes[-1].set_xlim(left=0)
        table = run_table(trace, say=say)
        spread, silences = Spread.of([s.end - s.start for s in trace.steps]), Spread.of(metrics.tbt(trace))
        alt = (
            f"A run of {len(trace.requests):,} requests in {len(trace.steps):,} steps and "
            f"{say(trace.steps[-1].end, 's')}, over time: {', '.join(panels)}. The median step takes "
            f"{say(spread.p50, 's')}, the longest {say(spread.max, 's')}"
        )
        alt += f"; the longest gap between tokens is {say(silences.max, 's')}." if silences.n else "."
        made = picture(fig, alt=alt, table=table, **words)
        return replace(made, svg=re.sub(r"(\d\.\d)\d+", r"\1", made.svg))  # a tenth of a unit is enough


def _finish(ax: Axes, title: str, words: Sequence[tuple[str, str]]) -> None:
    """A panel's title on the left, what its marks mean on the right, in their own colours; y from 0."""
    ax.set_title(title, fontweight="normal")
    ax.set_ylim(bottom=0)
    ax.margins(x=0)
    right = 1.0
    for word, colour in reversed(words):
        ax.annotate(word, (right, 1.02), xycoords="axes fraction", ha="right", va="bottom", color=colour)
        right -= 0.026 * len(word) + 0.02
