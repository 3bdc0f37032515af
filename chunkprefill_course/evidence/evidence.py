"""What a claim's evidence is: a verdict, its numbers, its setting, and the change that turns it round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from chunkprefill.measure import MEASURED_SVG, measured
from chunkprefill.plots.style import BADGES, Table
from chunkprefill_course.forms.feedback import inline

TIMED_VERDICTS = {True: "✓ Timed here, the claim holds.", False: "✗ Timed here, the claim does not hold."}


@dataclass(frozen=True)
class Number:
    """One number of the evidence.

    `how` is a key of `BADGES`: "counted" and "simulated" ones are exact and the same at every run; "measured"
    ones are written with a mark, and left out when outputs are compared.
    """

    label: str
    value: float
    unit: str = ""
    how: str = "counted"

    @property
    def text(self) -> str:
        """The number as it stands on a page."""
        if self.how == "measured":
            return measured(self.value, self.unit)
        if self.unit == "B":
            return (
                f"{self.value / 2**20:,.1f} MiB" if self.value >= 2**20 else f"{self.value / 2**10:,.1f} KiB"
            )
        whole = f"{self.value:,.0f}" if float(self.value).is_integer() else f"{self.value:,.3g}"
        return whole + {"": "", "×": "×", "%": "%"}.get(self.unit, f" {self.unit}")


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What running a claim's evidence found.

    claim:     the claim's id in the ledger
    holds:     whether the numbers bear the claim out
    setting:   what was run, in words
    numbers:   what came of it
    otherwise: the changed configuration under which the verdict flips: what `changed=True` runs
    timed:     whether the verdict asks a clock: another machine, or a busy one, may find otherwise
    """

    claim: str
    holds: bool
    setting: str
    numbers: tuple[Number, ...]
    otherwise: str
    timed: bool = False

    @property
    def verdict(self) -> str:
        """The verdict in words. nbval's sanitiser knows those of a timed verdict, and leaves them out."""
        if self.timed:
            return TIMED_VERDICTS[self.holds]
        return "✓ The claim holds here." if self.holds else "✗ The claim does not hold here."

    @property
    def badges(self) -> list[str]:
        """Where the numbers come from, each way once, in the order of `BADGES`."""
        return [name for name in BADGES if any(number.how == name for number in self.numbers)]

    @property
    def sentence(self) -> str:
        """The setting as it is shown: with a capital, unless its first word is a name such as vLLM."""
        first = self.setting.partition(" ")[0]
        return self.setting[:1].upper() + self.setting[1:] if first.islower() else self.setting

    def table(self) -> Table:
        """The numbers, as a table."""
        rows = [(number.label, number.text) for number in self.numbers]
        return Table(header=("what", "found"), rows=rows)

    def as_json(self) -> dict[str, Any]:
        """Plain data, for the record."""
        numbers = [vars(number) | {"text": number.text} for number in self.numbers]
        fields = ("claim", "holds", "timed", "setting", "otherwise", "badges")
        words = {name: getattr(self, name) for name in fields}
        return words | {"numbers": numbers}

    def __str__(self) -> str:
        lines = [f"{self.claim}: {self.verdict}", self.sentence]
        return "\n".join([*lines, *(f"  {number.label}: {number.text}" for number in self.numbers)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        badges = " ".join(f'<span class="cp-badge cp-badge-{b}">{BADGES[b]}</span>' for b in self.badges)
        return (
            f'<div class="cp-evidence"{f" {MEASURED_SVG}" if self.timed else ""} style="border-left:4px solid {"#009E73" if self.holds else "#D55E00"};'
            f'padding:.1rem .8rem;margin:.8rem 0"><p style="margin:.3rem 0"><strong>{self.verdict}</strong> '
            f'{badges}</p><p style="margin:.3rem 0">{inline(self.sentence)}</p>'
            f"{self.table()._repr_html_()}</div>"
        )


@dataclass(frozen=True)
class BothSides:
    """A claim's evidence under its conditions, and with one of them changed; made by `both_sides`."""

    claimed: Evidence
    changed: Evidence

    @property
    def sound(self) -> bool:
        """The claim holds under its conditions, and only because of them."""
        return self.claimed.holds and not self.changed.holds

    def __str__(self) -> str:
        return f"{self.claimed}\nChanged: {self.claimed.otherwise}\n{self.changed}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return (
            f"{self.claimed._repr_html_()}<details><summary><strong>One condition changed:</strong> "
            f"{inline(self.claimed.otherwise)}</summary>{self.changed._repr_html_()}</details>"
        )


def both_sides(evidence: Callable[..., Evidence], **given: Any) -> BothSides:
    """Run a claim's evidence twice: as claimed, and with the change that should turn the verdict round."""
    return BothSides(evidence(**given), evidence(changed=True, **given))
