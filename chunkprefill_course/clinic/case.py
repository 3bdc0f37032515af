"""A case: a server that may have a fault, its dashboard, and what comes of a diagnosis."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import isnan
from typing import Any, ClassVar

from chunkprefill.plots.style import Picture
from chunkprefill.scheduling.core import Request
from chunkprefill.scheduling.trace import Trace
from chunkprefill_course.clinic.faults import CAUSES, FIX_FOR, REMEDIES, TELLING
from chunkprefill_course.clinic.healthy import Scene
from chunkprefill_course.clinic.replay import Replay
from chunkprefill_course.clinic.rows import ROWS, Dashboard, measured_rows, say
from chunkprefill_course.clinic.server import Settings, run_server
from chunkprefill_course.clinic.verdict import check
from chunkprefill_course.forms.feedback import Feedback, fold, inline

KEPT = 24  # replays of a case, so that looking twice costs once


@dataclass(frozen=True, kw_only=True)
class Case:
    """A server under its load, as its operator finds it. Made by `clinic.case`; a function of seed and fault.

    requests:  the workload: `Request`s, the long ones have more than `limit` prompt tokens
    settings:  the configuration, what a person could change; `replay(**changes)` takes its fields
    bounds:    {row: s}: what has been promised
    trace:     the run; `dashboard`: its rows; `text()`, `picture()`: what a reader gets to see
    FAULTS:    {cause: words}, "healthy" among them; FIXES: {fix: words}, "nothing" among them

    A case may have two faults at once (`causes` has both); then a diagnosis names both, and both are mended.

    To mark an answer: `case.cause` is the cause, `case.right_fix` the fix for it, `case.tells()` the rows
    that are evidence; a number read off the dashboard is `case.metric(row)`, s, shares of 1 or counts, of
    which the text shows three figures (two of a share): 5% either way is a fair tolerance. A fix is worth
    what its replay is: `case.replay(**case.changes(fix)).restored`, or any settings in place of a named fix.
    """

    FAULTS: ClassVar[Mapping[str, str]] = CAUSES
    FIXES: ClassVar[Mapping[str, str]] = REMEDIES

    seed: int | str
    cause: str = field(repr=False)
    scene: Scene = field(repr=False)
    settings: Settings = field(repr=False)
    bounds: Mapping[str, float] = field(repr=False)
    offers: Mapping[str, Mapping[str, object]] = field(repr=False)
    second: str = field(default="", repr=False)  # a second cause, where there is one
    attempt: int = field(default=0, repr=False, compare=False)  # at which its seed found it
    _runs: dict[Settings, tuple[Trace, Dashboard]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def requests(self) -> tuple[Request, ...]:
        """The workload."""
        return self.scene.requests

    @property
    def limit(self) -> int:
        """Prompt tokens above which a request is of the long class."""
        return self.scene.load.limit

    @property
    def causes(self) -> tuple[str, ...]:
        """The cause, or both."""
        return (self.cause, self.second) if self.second else (self.cause,)

    @property
    def right_fix(self) -> str:
        """The key of the fix for the cause, for the first one if there are two."""
        return FIX_FOR[self.cause]

    @cached_property
    def trace(self) -> Trace:
        """The run."""
        return run_server(self.requests, self.settings, self.scene.machine)

    @cached_property
    def dashboard(self) -> Dashboard:
        """Its rows."""
        return board(self.scene, self.settings, self.trace, self.bounds)

    def metric(self, row: str) -> float:
        """A row of the dashboard, unrounded: s, a share of 1, or a count. ValueError for an unknown row."""
        if row not in ROWS:
            raise ValueError(f"no row {row!r}; there are {', '.join(ROWS)}")
        return self.dashboard.values[row]

    def tells(self) -> tuple[str, ...]:
        """The rows that speak for its cause, or for either of two, as keys."""
        rows = dict.fromkeys(row for cause in self.causes for row in TELLING[cause])
        return tuple(row for row in rows if not isnan(self.dashboard.values[row]))

    def changes(self, fix: str) -> dict[str, object]:
        """The settings that a fix of FIXES would set here. ValueError for an unknown fix."""
        if fix not in self.offers:
            raise ValueError(f"no fix {fix!r}; there are {', '.join(self.offers)}")
        return dict(self.offers[fix])

    def offer(self, fix: str) -> str:
        """A fix in words, with its numbers: `Raise the chunk from 64 to 512`."""
        words = REMEDIES[fix]
        for name, value in self.offers[fix].items():
            if isinstance(value, int):
                now = getattr(self.settings, name)
                words += f" from {now:,} to {value:,}" if value != now else f" (it stays {now:,})"
                break
        return f"{words}."

    @cached_property
    def mended(self) -> Dashboard:
        """The rows with the right fix, or both."""
        changes: dict[str, object] = {}
        for cause in self.causes:
            changes |= self.changes(FIX_FOR[cause])
        return self.replay(**changes).after

    def replay(self, **changes: Any) -> Replay:
        """The same requests on the same machine with these settings changed.

        Raises ValueError for an unknown setting or value, and where a request could never fit the pool.
        """
        known = vars(self.settings)
        if unknown := [name for name in changes if name not in known]:
            raise ValueError(f"no setting {', '.join(unknown)}; there are {', '.join(known)}")
        settings = replace(self.settings, **changes)
        if settings not in self._runs:
            if len(self._runs) >= KEPT:
                self._runs.pop(next(iter(self._runs)))
            same = _binding(settings) == _binding(self.settings)
            trace = self.trace if same else run_server(self.requests, settings, self.scene.machine)
            self._runs[settings] = trace, board(self.scene, settings, trace, self.bounds)
        trace, after = self._runs[settings]
        return Replay(self.dashboard, after, changes, trace)

    def text(self) -> str:
        """The dashboard as rounded text: all that a reader without a kernel sees, and all that is needed."""
        return f"{self.about()}\n\n{self.dashboard.text()}"

    def about(self) -> str:
        """The server, its load and the settings that are numbers. How it schedules, its steps tell."""
        load, s = self.scene.load, self.settings
        return (
            f"{self.scene.machine.name}\n"
            f"load: {load.rate:.2g} requests a second; {_kinds(self.requests, load.names, load.limit)}\n"
            f"settings: token budget {s.token_budget:,} a step; chunk (prompt tokens a step) at most "
            f"{s.chunk:,}; {s.n_blocks:,} cache blocks of 16 tokens"
        )

    def check(self, cause: object = None, evidence: object = None, fix: object = None) -> Feedback:
        """What comes of a diagnosis; never raises.

        cause: a key of FAULTS, or two of them. evidence: rows of the dashboard that speak for it. fix: a key
        of FIXES, several of them, or {setting: value} of your own; it is replayed. None or `...`: not said yet.
        """
        return check(self, cause, evidence, fix)

    def picture(self, caption: str = "") -> Picture:
        """The run over time, as an operator's dashboard draws it."""
        from chunkprefill.plots.dashboard import PANELS, WAITS, dashboard_picture

        short, long = self.scene.load.names
        return dashboard_picture(
            self.trace,
            panels=(*WAITS, *PANELS),
            caption=caption or "The run over time. What is wrong, if anything is, is not marked.",
            n_blocks=self.settings.n_blocks if self.metric("blocks_peak") > 0.5 else None,
            by=lambda request: long if request.n_prompt > self.limit else short,
            source=self.scene.machine.name,
        )

    def __str__(self) -> str:
        return self.text()

    def html(self, *, folded: bool = False) -> str:
        """What `text` and `picture` show, as a page; if wished, all but the promises in folds, for a phone."""
        about = self.about().splitlines()
        head = "".join(f"<p>{inline(line[:1].upper() + line[1:])}.</p>" for line in about)
        drawn = self.picture()._repr_html_()
        if not folded:
            return f"{head}{drawn}{self.dashboard.html()}"
        first, *others = self.dashboard.groups
        rows = "".join(fold(f"Rows: {group}", self.dashboard.html([group])) for group in others)
        return f"{head}{self.dashboard.html([first])}{fold('The run over time, as a picture', drawn)}{rows}"

    def _repr_html_(self) -> str:
        return self.html()


def board(scene: Scene, settings: Settings, trace: Trace, bounds: Mapping[str, float]) -> Dashboard:
    """The rows of a run of a scene."""
    values = measured_rows(
        trace,
        limit=scene.load.limit,
        token_budget=settings.token_budget,
        n_blocks=settings.n_blocks,
        cost=scene.machine.step(settings),
    )
    return Dashboard(values, bounds, *scene.load.names)


def _binding(settings: Settings) -> Settings:
    """The same server, with a chunk that could ever be reached."""
    return replace(settings, chunk=min(settings.chunk, settings.token_budget))


def _kinds(requests: Iterable[Request], names: tuple[str, str], limit: int) -> str:
    """Each class that there is: how many, and how long."""
    said = []
    for i, name in enumerate(names):
        mine = [r for r in requests if (r.n_prompt > limit) == bool(i)]
        if mine:
            means = (
                say(sum(getattr(r, f"n_{w}") for r in mine) / len(mine), "") for w in ("prompt", "output")
            )
            said.append("{} {} of {} prompt and {} output tokens on average".format(len(mine), name, *means))
    return "; ".join(said)
