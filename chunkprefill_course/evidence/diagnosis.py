"""Evidence for chapter 7: what a busy machine says, and what it does not."""

from __future__ import annotations

from dataclasses import replace

from chunkprefill_course.clinic.case import Case
from chunkprefill_course.clinic.faults import FIXES
from chunkprefill_course.clinic.make import case
from chunkprefill_course.evidence.evidence import Evidence, Number

BUSY = 0.9  # of the time in which there is work


def crowded(made: Case, times: float) -> Case:
    """The same case with its requests so many times as often."""
    requests = tuple(replace(r, arrival=r.arrival / times) for r in made.requests)
    return replace(made, scene=replace(made.scene, requests=requests), _runs={})


def mending(made: Case) -> dict[str, bool]:
    """{fix: whether every promise is kept with it}."""
    return {fix: made.replay(**made.changes(fix)).restored for fix in FIXES}


def busy_not_full(*, changed: bool = False) -> Evidence:
    """A busy GPU and broken promises: can a setting mend it? changed: requests come four times as often.

    Could it fail? The claim says that such a server may exist, and one is enough. The clinic keeps a case only
    if one fix mends it, so that a fix mends this one is given. That its GPU is busy meanwhile is not given: the
    run says it. If small chunks left a GPU idle, `holds` would be False. The change alters the load alone: the
    settings, the machine and the fixes on offer stay.
    """
    made = case(105, "chunk-too-small")
    if changed:
        made = crowded(made, 4)
    busy, mends = 1 - made.metric("gpu_idle"), mending(made)
    after = made.replay(**made.changes(made.right_fix)).after
    chunk, words = made.settings.chunk, made.dashboard.words
    load = "four times as many requests a second" if changed else "the load it was set up for"
    return Evidence(
        claim="busy-not-full",
        holds=busy >= BUSY and bool(made.dashboard.broken) and any(mends.values()),
        setting=f"chats and documents on one machine ({made.scene.machine.name}), chunks of {chunk} tokens, "
        f"{load}; priced by published kernel timings, each of {len(FIXES)} changes replayed.",
        numbers=(
            Number("GPU busy while there is work", round(100 * busy, 1), "%", "simulated"),
            *(
                _ms(f"{words(row)}, promised {1e3 * bound:,.0f} ms", made.metric(row))
                for row, bound in made.bounds.items()
            ),
            Number(f"changes that keep every promise, of {len(FIXES)}", sum(mends.values()), "", "simulated"),
            *(_ms(f"{words(row)}, with a larger chunk", after.values[row]) for row in made.bounds),
        ),
        otherwise="let four times as many requests come: then the machine is full, and no setting mends it.",
    )


def _ms(label: str, seconds: float) -> Number:
    return Number(label, float(f"{1e3 * seconds:.3g}"), "ms", "simulated")
