"""How plainly a dashboard speaks for each fault: 1 and above is plain, up to 0.6 is silence."""

from __future__ import annotations

from collections.abc import Mapping

from chunkprefill.plots.style import Table

PLAIN, SILENT = 1.0, 0.6
# Where a row begins to speak plainly.
FEW = 0.4  # prompt tokens in a step that carries any, of those that make a step take twice as long
CARRY, SELDOM = 0.8, 0.5  # steps that carry prompt tokens, at least and at most
OVER = 0.75  # by how much the longest steps pass the promise between tokens
LEFT = 0.04  # steps that left all decodes out
EVICTED, AGAIN = 10, 0.04  # requests, and tokens computed again
APART = 4.0  # first tokens of those behind a long prompt / of the others
FILL = 0.6  # steps that decodes fill to three quarters
IDLE = 0.3  # of the GPU
LAUNCHING = 0.8  # of a step: the CPU's time to launch it
SAVED, NATURAL = 0.15, 0.06  # of a step's time by a tenth fewer tokens; the second is no sign at all


def signs(v: Mapping[str, float], bounds: Mapping[str, float]) -> dict[str, float]:
    """{fault: strength} from rows and promises. The generator keeps what is plain for one fault and for no
    other; it is shown to no reader.
    """
    n = v["evictions"]
    late = any(v[key] > bounds[key] for key in ("ttft_short_p90", "ttft_long_p90") if key in bounds)
    few = FEW * v["twice"] / max(v["prompt_tokens"], 1)
    often = PLAIN - (PLAIN - SILENT) * (CARRY - v["prompt_steps"]) / (CARRY - SELDOM)
    apart = v["ttft_behind"] / max(v["ttft_not_behind"], 1e-9)  # nan where there are no long requests
    short = bounds["ttft_short_p90"]
    blocked = v["ttft_short_p90"] > short >= v["ttft_not_behind"]
    saved = 1 - v["again_less"] / (
        v["again"] or 1.0
    )  # by a tenth fewer tokens: a tenth at most, but for a tile
    return {
        "chunk-too-small": min(few, often) * (v["budget_full"] < 0.3) * late,
        "budget-too-large": (v["step_p99"] / bounds["tbt_p99"] - 1) / OVER,
        "prefill-first": v["all_left_out"] / LEFT,
        "pool-too-small": min(n / EVICTED, v["recomputed"] / AGAIN) if n >= EVICTED else min(0.35 * n, 0.95),
        "long-head": apart / APART if blocked else 0.0,
        "budget-below-decodes": v["decodes_fill"] / FILL,
        "slow-inputs": v["gpu_idle"] / IDLE,
        "launch-bound": v["launch"] / max(v["step_p50"], 1e-9) / LAUNCHING,
        "tile-unfriendly": (saved - NATURAL) / (SAVED - NATURAL),
    }


def marks() -> Table:
    """How much is much: where each row speaks plainly and where it is silent, in all cases with a fault."""
    few, none = f"from {FEW / SILENT:.0%} on", SILENT * LEFT
    quiet = NATURAL + SILENT * (SAVED - NATURAL)
    rows = [
        ("prompt tokens in a step, as a share of those that double its time", f"up to {FEW:.0%}", few),
        ("and steps that carry any", f"from {CARRY:.0%} on", f"or up to {SELDOM:.0%}"),
        ("steps (P99) longer than promised between tokens", *_pair(f"{OVER:.0%}", f"{SILENT * OVER:.0%}")),
        (
            "steps in which no decode ran though some were ready",
            *_pair(f"{LEFT:.0%}", f"{none:.1%}"),
        ),
        ("requests that lost their cache", *_pair(EVICTED, 1)),
        ("first tokens behind a long prompt / behind none", *_pair(f"{APART:g}×", f"{SILENT * APART:.2g}×")),
        ("steps that decodes fill to three quarters", *_pair(f"{FILL:.0%}", f"{SILENT * FILL:.0%}")),
        ("GPU idle while there was work", *_pair(f"{IDLE:.0%}", f"{SILENT * IDLE:.0%}")),
        (
            "CPU time to launch a step, of the step",
            *_pair(f"{LAUNCHING:.0%}", f"{SILENT * LAUNCHING:.0%}"),
        ),
        ("time saved by a tenth fewer tokens", *_pair(f"{SAVED:.0%}", f"{quiet:.0%}")),
    ]
    return Table(header=("row", "plain", "silent"), rows=rows)


def _pair(plain: object, silent: object) -> tuple[str, str]:
    return f"from {plain} on", f"up to {silent}"
