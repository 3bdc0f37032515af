"""Before and after: what a change of settings comes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from chunkprefill.plots.style import Table, Tabular
from chunkprefill.scheduling.trace import Trace
from chunkprefill_course.clinic.rows import Dashboard

NAMES = {
    "token_budget": "token budget",
    "n_blocks": "cache blocks",
    "first": "who goes first",
    "order": "prompts by",
    "launching": "kernels launched",
}


@dataclass(frozen=True, repr=False)
class Replay(Tabular):
    """The same requests on the same machine with some settings changed: before and after."""

    before: Dashboard
    after: Dashboard
    changes: Mapping[str, object]
    trace: Trace = field(repr=False)

    @property
    def restored(self) -> bool:
        """Whether every promise is kept now."""
        return not self.after.broken

    @property
    def worst(self) -> str:
        """The promise that fares worst now, as a key of PROMISES."""
        return max(self.after.bounds, key=lambda key: self.after.values[key] / self.after.bounds[key])

    def table(self) -> Table:
        """Each promise before and after."""
        rows = [
            (self.after.words(key), self.before.say(key), self.after.say(key), self.after.promise(key))
            for key in self.after.bounds
        ]
        return Table(header=("promise", "before", "after", "promised"), rows=rows, caption=self.words)

    @property
    def words(self) -> str:
        """The settings changed, in words."""
        said = (f"{NAMES.get(name, name)}: {_n(value)}" for name, value in self.changes.items())
        return ", ".join(said) or "nothing changed"


def _n(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
