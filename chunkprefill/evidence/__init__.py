"""Evidence for the book's claims: functions that run, return numbers and a verdict, and can be turned round.

    cp.evidence.same_cache()                    # Evidence: does it hold, in what setting, by which numbers
    cp.evidence.same_cache(changed=True)        # the same with one condition changed: the verdict flips
    cp.evidence.both_sides(cp.evidence.same_cache)   # the two beside each other, for a page

`book/claims.yml` names the claims, their cards and conditions; `tools/ledger.py` makes the page of them;
`python -m chunkprefill.bench evidence` records what all of them found, and where.
"""

from __future__ import annotations

import importlib
from typing import Any

# module -> the public names it holds; same_cache is the evidence for the claim same-cache
_PUBLIC = {
    "evidence": "Evidence Number BothSides both_sides",
    "prefilling": "bytes_a_token final_at_once products_first",
    "counting": "same_cache passes reread peak_memory activation_bytes",
    "timing": "slower_prefill weights_again",
    "scheduling": "BREAKS Gap no_stall not_by_itself preempted_passes who_is_protected widest_gaps",
    "tradeoff": "bubbles document_wait fairness mixed piggyback throughput_of throughput_when ttft_price "
    "waits_by_class",
    "engines": "Frozen Kinds Rates always_a_prompt beside_a_prompt equal_steps first_chunk_only "
    "first_difference frozen job let_in moment proposals recordings replayed same_decisions "
    "stream_of_prompts threshold_passes token_a_step who_still_decodes",
    "beyond": "LOOSE TIGHT after_prefix apart no_budget prefix_passes prompt_seconds together two_cards",
    "chunk_size": "Load as_long_as_decoding balance carries full_step keeps_up largest_that_fits tiles",
    "overhead": "CITED_SHARES MODELS VLLM_VISIT documents_beside_chats kept more_tasks overhead_share "
    "overlap overlapped priced_shares step_seconds visit_cost",
    "graphs": "lost_graphs padding",
    "diagnosis": "busy_not_full crowded mending",
    "designs": "Design grid",
    "parts": "CITED_MS cost_per_visit measure measured_shares not_the_decision our_breakdown visit_fits",
}
_HOME = {name: module for module, names in _PUBLIC.items() for name in names.split()}
__all__ = [*_HOME]  # noqa: PLE0604  (every entry is a str)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"no evidence {name!r}; there is {', '.join(sorted(_HOME))}")
    value = getattr(importlib.import_module(f"chunkprefill.evidence.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
