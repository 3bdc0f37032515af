"""A run read as a clinic reads one: its rows, and a diagnosis that says how certain it is.

A trace of ours has nearly all rows. A probe of a real server has what its clients saw and what `/metrics`
told; the rest is missing, and what hangs on a missing row is `unknown`, not absent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf, isnan, nan

from chunkprefill.metrics.tally import quantile
from chunkprefill.scheduling.core import Batch
from chunkprefill.scheduling.trace import Trace
from chunkprefill.servers.record import COMPARISON, ProbeRecord
from chunkprefill.servers.stream import Stream
from chunkprefill_course.clinic.faults import CAUSES, FAULTS, FIX_FOR, HEALTHY, REMEDIES, TELLING
from chunkprefill_course.clinic.rows import ROWS, Dashboard, measured_rows
from chunkprefill_course.clinic.signs import APART, PLAIN, SILENT, signs

UNKNOWN = "unknown"
#: How certain a diagnosis is.
CERTAINTY = {
    "plain": "its rows speak plainly, and no row that another cause would need is missing",
    "likely": "its rows speak plainly, but rows that could speak for another cause are missing",
    UNKNOWN: "the rows that are there do not tell",
}


@dataclass(frozen=True)
class Diagnosis:
    """What a reading says. causes: keys of CAUSES, two where two faults speak plainly; () for unknown.

    certainty: a key of CERTAINTY. evidence: the rows that speak for it. undecided: causes that cannot be told,
    with the rows that are missing for it. why: a sentence.
    """

    causes: tuple[str, ...]
    certainty: str
    evidence: tuple[str, ...] = ()
    undecided: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    why: str = ""

    @property
    def cause(self) -> str:
        """The one cause, or `unknown`."""
        return self.causes[0] if len(self.causes) == 1 else UNKNOWN if not self.causes else "two faults"

    def __str__(self) -> str:
        lines = [
            f"diagnosis: {' and '.join(self.causes) or UNKNOWN} ({self.certainty}: {CERTAINTY[self.certainty]})"
        ]
        lines += [f"  {CAUSES[cause]} Fix: {REMEDIES[FIX_FOR[cause]].lower()}." for cause in self.causes]
        if self.why:
            lines.append(f"  {self.why}")
        if self.evidence:
            lines.append(f"  evidence: {', '.join(self.evidence)}")
        for cause, rows in self.undecided.items():
            lines.append(f"  cannot tell {cause}: {', '.join(rows) or 'a promise'} missing")
        return "\n".join(lines)

    __repr__ = __str__


class Reading(Mapping[str, float]):
    """{row: value}, nan where a row is missing, with a `diagnosis` of them; a `dashboard` to look at.

    Compares and reads as a mapping of rows.
    """

    def __init__(
        self, values: Mapping[str, float], bounds: Mapping[str, float], diagnosis: Diagnosis
    ) -> None:
        self._values, self.bounds, self.diagnosis = dict(values), dict(bounds), diagnosis

    def __getitem__(self, row: str) -> float:
        return self._values[row]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def missing(self) -> tuple[str, ...]:
        """The rows that this run does not tell."""
        return tuple(row for row, value in self._values.items() if isnan(value))

    @property
    def dashboard(self) -> Dashboard:
        """The rows as a dashboard."""
        return Dashboard(self._values, {k: v for k, v in self.bounds.items() if not isnan(self._values[k])})

    def __str__(self) -> str:
        return f"{self.dashboard.text()}\n{self.diagnosis}"

    __repr__ = __str__


def read(
    source: Trace | ProbeRecord,
    *,
    limit: int | None = None,
    token_budget: int | None = None,
    n_blocks: int | None = None,
    cost: Callable[[Batch], float] | None = None,
    bounds: Mapping[str, float] | None = None,
) -> Reading:
    """Rows and a diagnosis of a run: a trace, measured or simulated, or a probe of a real server.

    limit:        of a trace: prompt tokens above which a request is one of the long class; None: the largest
                  step between two prompt lengths that follow each other divides them
    token_budget, n_blocks: of the server, for the rows that compare with them
    cost:         Batch -> s, for the rows of the machine alone; None: they are missing. `CudaGraphs`: what
                  launching takes, too
    bounds:       {row of PROMISES: s}: what was promised; without them nothing can be called healthy
    Raises ValueError for a bound on a row that is no promise, TypeError for another source.
    """
    promised = dict(bounds or {})
    if unknown := [row for row in promised if row not in ("tbt_p99", "ttft_short_p90", "ttft_long_p90")]:
        raise ValueError(f"no promise {unknown[0]!r}; there are tbt_p99, ttft_short_p90 and ttft_long_p90")
    if isinstance(source, ProbeRecord):
        values = probe_rows(source)
        return Reading(values, promised, diagnose(values, promised, of_probe(source)))
    if not isinstance(source, Trace):
        raise TypeError(f"a reading is of a Trace or of a probe, got a {type(source).__name__}")
    if limit is None:
        limit = between_classes([r.n_prompt for r in source.requests])
    values = measured_rows(source, limit=limit, token_budget=token_budget, n_blocks=n_blocks, cost=cost)
    return Reading(values, promised, diagnose(values, promised))


def between_classes(lengths: Sequence[int]) -> int:
    """Where the lengths of prompts part: below the largest relative step between neighbours.

    The longest of them where no step doubles: all are of one class.
    """
    ordered = sorted(set(lengths))
    steps = [(b / a, a) for a, b in pairwise(ordered)]
    ratio, low = max(steps, default=(1.0, 0))
    return low if ratio >= 2 else (ordered[-1] if ordered else 0)


# --- what a fault needs to be told ----------------------------------------------------------------------

#: cause: rows, and promises (by row), without which its sign says nothing.
NEEDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "chunk-too-small": (
        ("twice", "prompt_tokens", "prompt_steps", "budget_full"),
        ("ttft_short_p90", "ttft_long_p90"),
    ),
    "budget-too-large": (("step_p99",), ("tbt_p99",)),
    "prefill-first": (("all_left_out",), ()),
    "pool-too-small": (("evictions", "recomputed"), ()),
    "long-head": (("ttft_behind", "ttft_not_behind", "ttft_short_p90"), ("ttft_short_p90",)),
    "budget-below-decodes": (("decodes_fill",), ()),
    "slow-inputs": (("gpu_idle",), ()),
    "launch-bound": (("launch",), ()),
    "tile-unfriendly": (("again", "again_less"), ()),
}


def diagnose(
    values: Mapping[str, float],
    bounds: Mapping[str, float],
    seen: Mapping[str, tuple[float, str]] | None = None,
) -> Diagnosis:
    """The diagnosis of rows, under promises.

    seen: {cause: (strength, sentence)} that is known in another way; it stands in place of the rows.
    A run without long prompts cannot have one at its head: rows that do not apply are no missing ones.
    """
    seen = seen or {}
    filled = {row: bounds.get(row, inf) for row in ("tbt_p99", "ttft_short_p90", "ttft_long_p90")}
    strengths = signs(values, filled)
    undecided: dict[str, tuple[str, ...]] = {}
    for cause, (rows, promises) in NEEDS.items():
        if cause in seen:
            strengths[cause] = seen[cause][0]
            continue
        absent = [row for row in rows if isnan(values[row]) and _applies(cause, values)]
        unpromised = [row for row in promises if row not in bounds and not isnan(values[row])]
        if absent or (promises and len(unpromised) == len(promises)):
            undecided[cause] = (*absent, *(f"a promise on {row}" for row in unpromised if not absent))
            strengths[cause] = nan
    plain = [cause for cause, strength in strengths.items() if strength >= PLAIN]
    between_both = [cause for cause, strength in strengths.items() if SILENT < strength < PLAIN]
    evidence = tuple(row for cause in plain for row in TELLING[cause] if not isnan(values[row]))
    why = " ".join(seen[cause][1] for cause in plain if cause in seen)
    if plain and not between_both and len(plain) <= 2:
        certainty = "likely" if undecided else "plain"
        return Diagnosis(tuple(plain), certainty, tuple(dict.fromkeys(evidence)), undecided, why)
    if plain or between_both:
        words = f"several causes could be it: {', '.join((*plain, *between_both))}"
        return Diagnosis((), UNKNOWN, tuple(dict.fromkeys(evidence)), undecided, words)
    broken = [row for row, bound in bounds.items() if values[row] > bound]
    if broken:
        return Diagnosis((), UNKNOWN, tuple(broken), undecided, "a promise is broken, and no row says why")
    if undecided or not bounds:
        words = "nothing speaks for a fault among the rows that are there"
        return Diagnosis((), UNKNOWN, (), undecided, words)
    return Diagnosis((HEALTHY,), "plain", tuple(row for row in bounds), {}, "")


def _applies(cause: str, values: Mapping[str, float]) -> bool:
    """Whether a missing row is missing, or has nothing to be of: no long prompt, no step with prompts."""
    if cause == "long-head" and not isnan(values["ttft_not_behind"]):
        return isnan(values["ttft_short_p90"])  # no request came behind a long prompt
    if cause == "long-head":
        return isnan(values["tbt_p50"]) or not isnan(values["ttft_long_p90"])
    return True


# --- a probe's rows ---------------------------------------------------------------------------------------


def probe_rows(probe: ProbeRecord) -> dict[str, float]:
    """{row: value} of what a probe's clients saw and `/metrics` told; nan for all else.

    Short requests are its chats, the long one is its document, all rounds together.
    """
    values = dict.fromkeys(ROWS, nan)
    gaps = [gap for s in probe.streams if s.kind == "chat" and s.round in probe.rounds for gap in s.gaps]
    if gaps:
        values |= {"tbt_p50": quantile(gaps, 0.5), "tbt_p99": quantile(gaps, 0.99), "tbt_max": max(gaps)}
    behind = [s for name in probe.rounds for s in probe.of(name, "late")]
    alone = probe.of(COMPARISON, "late")
    documents = [s for name in probe.rounds for s in probe.of(name, "document")]
    values |= {
        "ttft_short_p90": _quantile(behind, 0.9),
        "ttft_long_p90": _quantile(documents, 0.9),
        "ttft_behind": _quantile(behind, 0.5),
        "ttft_not_behind": _quantile(alone, 0.5),
    }
    before, after = (probe.metrics.get(when, {}).get("preemptions", nan) for when in ("before", "after"))
    values["evictions"] = after - before if after >= before else nan  # fallen: the server was started anew
    if values["evictions"] == 0:
        values["recomputed"] = 0.0  # nothing is computed again unless a cache was lost
    return values


def _quantile(streams: Sequence[Stream], q: float) -> float:
    return quantile((s.ttft for s in streams if s.ttft is not None), q)


def of_probe(probe: ProbeRecord) -> dict[str, tuple[float, str]]:
    """What a probe's verdict says of causes: {cause: (strength, sentence)}."""
    verdict = probe.verdict
    if not verdict.known:
        return {}
    if verdict.name == "prompts first":
        if verdict.step is None:
            return {"prefill-first": (PLAIN, f"The probe says {verdict.name}: {verdict.evidence[-1]}.")}
        said = f"The probe says {verdict.name}, and one step held the whole document."
        return {"budget-too-large": (PLAIN, said), "prefill-first": (0.0, "")}
    calm: dict[str, tuple[float, str]] = {"prefill-first": (0.0, "")}
    values = probe_rows(probe)
    apart = values["ttft_behind"] / values["ttft_not_behind"] / APART
    if verdict.name == "stall-free by arrival" and apart >= PLAIN:
        calm["long-head"] = (apart, "The probe says that newcomers wait until the document is prefilled.")
    elif verdict.name == "newcomers pass":
        calm["long-head"] = (0.0, "")
    return calm


assert set(NEEDS) == set(FAULTS)
