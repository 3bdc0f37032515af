"""How plainly a dashboard speaks for each fault: 1 and above is plain, below 0.6 is silence."""

from __future__ import annotations

from collections.abc import Mapping

PLAIN, SILENT = 1.0, 0.6


def signs(v: Mapping[str, float], bounds: Mapping[str, float]) -> dict[str, float]:
    """{fault: strength} from rows and promises. The generator keeps what is plain for one fault and for no
    other; nobody is shown it.
    """
    n = v["evictions"]
    late = any(v[key] > bounds[key] for key in ("ttft_short_p90", "ttft_long_p90") if key in bounds)
    small = 0.3 * v["twice"] / max(v["prompt_tokens"], 1) * (v["prompt_steps"] / 0.8) ** 2
    apart = v["ttft_behind"] / max(v["ttft_not_behind"], 1e-9)  # nan where there are no long requests
    short = bounds["ttft_short_p90"]
    blocked = v["ttft_short_p90"] > short >= v["ttft_not_behind"]
    saved = 1 - v["again_less"] / v["again"]  # by a tenth fewer tokens: a tenth at most, but for a tile
    return {
        "chunk-too-small": small * (v["budget_full"] < 0.3) * late,
        "budget-too-large": (v["step_p99"] / bounds["tbt_p99"] - 1) / 0.75,
        "prefill-first": v["all_left_out"] / 0.04,
        "pool-too-small": min(n / 10, v["recomputed"] / 0.04) if n >= 10 else min(0.35 * n, 0.95),
        "long-head": apart / 4 if blocked else 0.0,
        "budget-below-decodes": v["decodes_fill"] / 0.6,
        "slow-inputs": v["gpu_idle"] / 0.3,
        "tile-unfriendly": (saved - 0.06) / 0.09,
    }
