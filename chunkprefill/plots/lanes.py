"""Scheduler and device on one time axis: when a step was scheduled, when it ran, when the device waited."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Unpack

from chunkprefill.plots.checks import ends_after, runs
from chunkprefill.plots.style import Canvas, Picture, Scale, Table, Words, ticks, writer
from chunkprefill.plots.timeline import milliseconds
from chunkprefill.scheduling.core import Step
from chunkprefill.scheduling.trace import Trace
from chunkprefill.whole import whole_number

LEFT, RIGHT, LANE, GAP, HEAD = 96.0, 492.0, 30.0, 8.0, 30.0  # user units


def lanes_picture(
    traces: Mapping[str, Trace],
    *,
    first: int | Mapping[str, int] = 0,
    n_steps: int = 8,
    until: float | None = None,
    **words: Unpack[Words],
) -> Picture:
    """Some steps of each run on one time axis: what the scheduler did, and beneath it what the device ran.

    A gap between two boxes of the device is time in which it waits.

    traces:  {title: trace}. Runs need not take the same steps: an overlapped one sees an arrival later
    first:   the first step drawn, or {title: the first one of that run}; each run's axis begins with it
    n_steps: how many steps are drawn
    until:   where the axis ends, s after it begins; default: when the slowest run's last step has ended
    words:   the `caption`; the `badge` ("simulated" unless given) and `source` say where the numbers come from
    Raises ValueError for a step that the trace does not have.
    """
    runs(traces)
    ends_after(until)
    n_steps = whole_number("n_steps", n_steps, 1)
    shown: dict[str, list[Step]] = {}
    begin = first if isinstance(first, Mapping) else dict.fromkeys(traces, first)
    if unnamed := [title for title in traces if title not in begin]:
        raise ValueError(
            f"first names no step of trace {unnamed[0]!r}; it names {', '.join(map(str, begin))}"
        )
    for title, trace in traces.items():
        shown[title] = trace.steps[begin[title] : begin[title] + n_steps]
        if begin[title] < 0 or not shown[title]:
            raise ValueError(f"{title}: no step {begin[title]} among {len(trace.steps)}")
    end = until or max(steps[-1].end - steps[0].scheduled for steps in shown.values())
    say = writer(words.setdefault("badge", "simulated"), _short)
    tall = HEAD + 2 * LANE + GAP + 22
    canvas = Canvas(26 + tall * len(shown) + 46)
    keys = (("scheduling", "scheduling"), ("prefill", "with a chunk"), ("decode", "decodes alone"))
    x = 0.0
    for fill, name in keys:
        canvas.rect(x, 0, 18, 18, fill, radius=3)
        canvas.text(x + 24, 15, name)
        x += 44 + 9.4 * len(name)
    for k, (title, steps) in enumerate(shown.items()):
        scale = Scale(steps[0].scheduled, steps[0].scheduled + end, LEFT, RIGHT)
        _lane(canvas, 34 + k * tall, title, steps, scale, say)
    y = 34 + tall * len(shown) - 8
    canvas.axis(Scale(0.0, end, LEFT, RIGHT), y, {time: f"{1e3 * time:g}" for time in ticks(end, 5)})
    canvas.text(0, y + 24, "time, ms")
    rows = []
    for title, steps in shown.items():
        for i, (step, waits) in enumerate(zip(steps, _idle(steps))):
            chunks = len(step.batch.totals().chunks)
            what = f"{len(step.batch) - chunks} decodes"
            what += f", {chunks} chunk{'s' if chunks > 1 else ''}" if chunks else ""
            took = (say(step.dispatched - step.scheduled), say(step.end - step.start), say(waits))
            rows.append((title, begin[title] + i, what, *took))
    header = ("run", "step", "holds", "scheduled in", "runs for", "device waits before")
    said = " ".join(_said(title, steps, say) for title, steps in shown.items())
    return canvas.picture(
        alt=f"Two lanes for each run, to scale, {n_steps} steps. {said}",
        table=Table(header=header, rows=rows),
        **words,
    )


def _lane(canvas: Canvas, y: float, title: str, steps: list[Step], scale: Scale, say: Any) -> None:
    canvas.text(0, y + 20, title, bold=True)
    if (waited := sum(_idle(steps))) > 0:
        canvas.text(RIGHT, y + 20, f"device waits {say(waited)}", anchor="end")
    top, low = y + HEAD, y + HEAD + LANE + GAP
    canvas.text(LEFT - 10, top + 21, "scheduler", anchor="end")
    canvas.text(LEFT - 10, low + 21, "device", anchor="end")
    for step in steps:
        kind = "prefill" if step.batch.totals().chunks else "decode"
        for at, begin, stop, fill in (
            (top, step.scheduled, step.dispatched, "scheduling"),
            (low, step.start, step.end, kind),
        ):
            a, b = scale.x(begin), scale.x(stop)
            high = LANE if fill != "decode" else 0.6 * LANE
            if b > a:
                canvas.rect(a, at + LANE - high, max(b - a - 1, 0.8), high, fill, radius=1)
    for before, after in pairwise(steps):
        left, right = scale.x(before.end), scale.x(after.start)
        if right - left > 2:
            canvas.line(left, low + LANE + 4, right, low + LANE + 4, "trouble", width=4)


def _idle(steps: list[Step]) -> list[float]:
    """s for which the device stood still before each step; before the first it is not known, and 0."""
    return [0.0, *(max(0.0, after.start - before.end) for before, after in pairwise(steps))]


def _said(title: str, steps: list[Step], say: Any) -> str:
    took, waited = steps[-1].end - steps[0].scheduled, sum(_idle(steps))
    scheduling = sum(step.dispatched - step.scheduled for step in steps)
    words = f"{say(took)} in all, scheduling {say(scheduling)}, the device waits {say(waited)}"
    return f"{title}: {words} between steps."


def _short(seconds: float) -> str:
    return milliseconds(seconds) if seconds >= 0.01 else f"{1e3 * seconds:.2g} ms"
