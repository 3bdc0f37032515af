"""What can be wrong with the clinic's servers, how it is planted, and what is offered against it."""

from __future__ import annotations

import random
from collections.abc import Mapping

from chunkprefill_course.clinic.healthy import Scene
from chunkprefill_course.clinic.server import Settings

#: cause: what it is, and behind the colon how it does harm.
FAULTS = {
    "chunk-too-small": "The chunk is too small: each step reads all the weights for a few prompt tokens.",
    "budget-too-large": "The token budget is too large: steps full of prompts hold up every decoding request.",
    "prefill-first": "Prompts go first: decodes sit out the steps in which prompts run.",
    "pool-too-small": "The cache has too few blocks: requests lose theirs, and are computed again.",
    "long-head": "A long prompt is at the head of the line: short ones wait behind it.",
    "budget-below-decodes": "The token budget is below the number of decodes: nothing is left for prompts.",
    "slow-inputs": "Inputs are built slowly: the GPU waits while the CPU prepares a step.",
    "launch-bound": "Kernels are launched one by one: the GPU is done before the next one comes.",
    "tile-unfriendly": "The token budget lies a little above a multiple of the tile: full steps pay for "
    "a whole tile more.",
}
HEALTHY = "healthy"
CAUSES = FAULTS | {HEALTHY: "Nothing is wrong: every promise is kept."}
#: cause: the same in a few words, as chapter 7's table has it.
SHORT = {cause: words.partition(":")[0] + "." for cause, words in CAUSES.items()}

#: fix: what is done, in words; `Case.changes(fix)` has the numbers.
FIXES = {
    "larger-chunk": "Raise the chunk",
    "smaller-budget": "Lower the token budget",
    "decodes-first": "Let decodes go first",
    "more-blocks": "Give the cache more blocks",
    "shortest-first": "Let the shortest prompt go first",
    "larger-budget": "Raise the token budget",
    "inputs-at-once": "Build the inputs of all rows at once",
    "graphs": "Replay each step as CUDA graphs",
    "whole-tiles": "Round the token budget down to whole tiles",
}
NOTHING = "nothing"
REMEDIES = FIXES | {NOTHING: "Leave it as it is"}
#: cause: the fix for it.
FIX_FOR = {
    "chunk-too-small": "larger-chunk",
    "budget-too-large": "smaller-budget",
    "prefill-first": "decodes-first",
    "pool-too-small": "more-blocks",
    "long-head": "shortest-first",
    "budget-below-decodes": "larger-budget",
    "slow-inputs": "inputs-at-once",
    "launch-bound": "graphs",
    "tile-unfriendly": "whole-tiles",
    HEALTHY: NOTHING,
}

#: What a seed alone draws from; one time in ten it is launch-bound instead (a fault that came to the clinic late).
FIRST_NINE = tuple(cause for cause in CAUSES if cause != "launch-bound")

#: Two faults that a server can have at once, with both still to be read off its rows.
PAIRS = (
    ("slow-inputs", "prefill-first"),
    ("slow-inputs", "budget-too-large"),
    ("slow-inputs", "pool-too-small"),
    ("long-head", "slow-inputs"),
    ("prefill-first", "pool-too-small"),
    ("long-head", "pool-too-small"),
)

#: cause: the rows that speak for it. Promises are symptoms: several causes break the same ones.
TELLING = {
    "chunk-too-small": ("prompt_tokens", "prompt_step_tokens", "prompt_steps", "step_p50", "again"),
    "budget-too-large": ("step_p99", "prompt_tokens", "prompt_step_tokens", "again"),
    "prefill-first": ("all_left_out", "left_out"),
    "pool-too-small": ("evictions", "recomputed", "blocks_peak"),
    "long-head": ("ttft_behind", "ttft_not_behind"),
    "budget-below-decodes": ("decodes_fill", "budget_full", "prompt_tokens"),
    "slow-inputs": ("gpu_idle", "cpu_step"),
    "launch-bound": ("launch",),
    "tile-unfriendly": ("again", "again_less", "prompt_step_tokens"),
    HEALTHY: ("tbt_p99", "ttft_short_p90", "ttft_long_p90"),
}


def plant(rng: random.Random, fault: str, scene: Scene, run: Mapping[str, float]) -> dict[str, object]:
    """Settings changed for the worse. run: rows of the healthy server."""
    healthy, size = scene.healthy, scene.size
    if fault == "chunk-too-small":
        return {"chunk": rng.choice((24, 32, 48, 64, 80, 96))}
    if fault == "budget-too-large":
        budget = size * rng.choice((6, 8, 12, 16))
        return {"token_budget": budget, "chunk": max(healthy.chunk, rng.choice((8192, 16_384)))}
    if fault == "prefill-first":
        return {"first": "prompts"}
    if fault == "pool-too-small":
        return {"n_blocks": int(rng.uniform(0.35, 0.75) * run["blocks_peak"] * healthy.n_blocks)}
    if fault == "long-head":
        return {"order": "arrival"}
    if fault == "budget-below-decodes":
        return {"token_budget": max(4, int(rng.uniform(0.5, 0.85) * run["decodes"]))}
    if fault == "slow-inputs":
        return {"inputs": "row by row"}
    if fault == "launch-bound":
        return {"launching": "one by one"}
    if fault == "tile-unfriendly":
        return {"token_budget": size + rng.randint(1, max(2, size // 16))}
    return {}


def remedies(rng: random.Random, fault: str, scene: Scene, now: Settings) -> dict[str, dict[str, object]]:
    """What each fix would set here. The right one goes back to the healthy setting."""
    healthy, tile = scene.healthy, scene.machine.tile
    whole = now.token_budget // tile * tile or now.token_budget  # below one tile there is nothing to round
    offers: dict[str, dict[str, object]] = {
        "larger-chunk": {"chunk": now.chunk * rng.choice((2, 4, 8))},
        "smaller-budget": {"token_budget": max(1, now.token_budget // rng.choice((2, 3, 4)))},
        "decodes-first": {"first": "decodes"},
        "more-blocks": {"n_blocks": now.n_blocks * rng.choice((2, 3))},
        "shortest-first": {"order": "shortest"},
        "larger-budget": {"token_budget": now.token_budget * rng.choice((2, 3, 4))},
        "inputs-at-once": {"inputs": "at once"},
        "graphs": {"launching": "graphs"},
        "whole-tiles": {"token_budget": whole},
        NOTHING: {},
    }
    if fault != HEALTHY:
        fix = FIX_FOR[fault]
        offers[fix] = {name: getattr(healthy, name) for name in offers[fix]}
        if fault == "budget-too-large":  # it was planted in the chunk too, and must do without it
            offers[fix] = {"token_budget": scene.size}
    return offers
