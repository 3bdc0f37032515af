"""What real engines call their settings, each with its source; and decisions of two schedulers, drawn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib import resources
from typing import Any

from chunkprefill.plots.style import WIDTH, Canvas, Picture, Table
from chunkprefill.scheduling.parity import RecordedCase, ReplayedCase, decisions

NOT_FOUND = "not found"


@dataclass(frozen=True)
class Setting:
    """What one engine calls one idea, its default, and where that was read."""

    idea: str
    engine: str
    name: str
    default: str
    version: str
    source: str


class Folded(Table):
    """A long table that waits behind its caption."""

    def _repr_html_(self) -> str:
        summary = f"<summary>{escape(self.caption)}: {len(self.rows)} rows</summary>"
        return f'<details class="cp-numbers">{summary}{super()._repr_html_()}</details>'


@cache
def settings() -> tuple[Setting, ...]:
    """All that was looked up, idea by idea; `engines.json` holds it. What was not found says so."""
    return tuple(
        Setting(row["idea"], engine, **cell)
        for row in _data()["ideas"]
        for engine, cell in row["cells"].items()
    )


def engine_names() -> list[str]:
    """The engines of the tables, in their order."""
    return list(dict.fromkeys(one.engine for one in settings()))


def settings_table(engine: str) -> Folded:
    """One engine's names and defaults, idea by idea, folded; the last column is the row of `sources_table`.

    Raises ValueError for an engine that was not looked up.
    """
    rows = [
        (one.idea, one.name, one.default, f"[{number}]")
        for number, one in _numbered()
        if one.engine == engine
    ]
    if not rows:
        raise ValueError(f"no settings of {engine!r}; there are those of {', '.join(engine_names())}")
    header = ("what", f"in {engine}", "unless set", "source")
    return Folded(header=header, rows=rows, caption=f"Settings of {engine} {_versions()[engine]}")


def sources_table() -> Folded:
    """Where each cell was read: number, engine, version, source; folded."""
    rows = [(f"[{number}]", one.engine, one.version, one.source) for number, one in _numbered()]
    header = ("", "engine", "version", "source")
    return Folded(header=header, rows=rows, caption="Where we read the names and defaults")


def _numbered() -> list[tuple[int, Setting]]:
    """Counted engine by engine."""
    return list(enumerate((one for name in engine_names() for one in settings() if one.engine == name), 1))


@cache
def _data() -> dict[str, Any]:
    return json.loads(resources.files(__package__).joinpath("engines.json").read_text("utf-8"))


def _versions() -> dict[str, str]:
    return _data()["versions"]


def decisions_picture(
    case: RecordedCase, replay: ReplayedCase, *, caption: str, engine: str = "vLLM"
) -> Picture:
    """A recording above our decisions on the same requests: a row a request, a column a step.

    Each cell has two bands, the upper one recorded and the lower one ours. Filled: it ran, with several
    tokens (blue) or one (orange); hollow: it did not. A step that differs in any field gets a mark beneath.
    """
    names, n_steps = [request.rid for request in case.requests], len(case.steps)
    left, top, tall = 18 + max(len(str(name)) for name in names) * 10.0, 58.0, 38.0
    wide = (WIDTH - left) / n_steps
    canvas = Canvas(top + tall * len(names) + 56)
    canvas.text(left, 20, f"upper band: {engine}, recorded; lower: ours")
    canvas.text(left - 10, top - 10, "step", anchor="end")
    every = 1 if wide > 30 else 5
    for i in range(0, n_steps, every):
        canvas.text(left + (i + 0.5) * wide, top - 10, str(i), anchor="middle")
    same, rows = [], []
    for i, (recorded, mine) in enumerate(_paired(case, replay)):
        same.append(recorded == mine)
        sides = [dict(side["scheduled"]) if side else {} for side in (recorded, mine)]
        for k, name in enumerate(names):
            for band, tokens in enumerate(sides):
                n, y = tokens.get(name, 0), top + k * tall + 3 + 16 * band
                if n:
                    canvas.rect(left + i * wide + 0.5, y, wide - 1, 14, "prefill" if n > 1 else "decode")
        if not same[-1]:
            canvas.rect(left + i * wide, top + tall * len(names) + 2, wide - 1, 8, "trouble")
        rows.append((i, *(_told(tokens) for tokens in sides), "yes" if same[-1] else "no"))
    for k, name in enumerate(names):
        canvas.text(left - 10, top + k * tall + 24, str(name), anchor="end")
        canvas.line(left, top + (k + 1) * tall, WIDTH, top + (k + 1) * tall, opacity=0.2, width=1)
    verdict = f"{sum(same)} of {n_steps} steps are equal"
    canvas.text(left, top + tall * len(names) + 36, verdict, bold=True)
    seen = "; ".join(_stretches(names, case))
    return canvas.picture(
        alt=f"Decisions recorded from {engine} beside ours, step by step: {verdict}. {seen}.",
        caption=caption,
        badge="counted",
        table=Table(header=("step", f"{engine} ran", "we ran", "equal"), rows=rows),
    )


def _paired(
    case: RecordedCase, replay: ReplayedCase
) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
    mine = decisions(case, replay)
    for recorded in case.steps:
        yield recorded, next(mine, None)


def _told(tokens: dict[Any, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in tokens.items()) or "nothing"


def _stretches(names: list[Any], case: RecordedCase) -> Iterator[str]:
    """For each request, the steps in which the recording ran it with several tokens, and with one."""
    for name in names:
        ran = {i: dict(step["scheduled"]).get(name, 0) for i, step in enumerate(case.steps)}
        parts = (
            f"{words} in {_first_and_last([i for i, n in ran.items() if (n > 1) is several and n])}"
            for words, several in (("several tokens", True), ("one token", False))
            if any((n > 1) is several and n for n in ran.values())
        )
        yield f"{name}: {', '.join(parts)}"


def _first_and_last(steps: list[int]) -> str:
    if len(steps) == 1:
        return f"step {steps[0]}"
    whole = len(steps) == steps[-1] - steps[0] + 1
    return f"{'steps' if whole else f'{len(steps)} of the steps'} {steps[0]} to {steps[-1]}"
