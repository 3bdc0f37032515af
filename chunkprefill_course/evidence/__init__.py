"""Evidence for the book's claims: functions that run, return numbers and a verdict, and can be turned round.

    course.evidence.same_cache()                    # Evidence: whether it holds, where, by which numbers
    course.evidence.same_cache(changed=True)        # the same with one condition changed: the verdict flips
    course.evidence.both_sides(course.evidence.same_cache)   # the two beside each other, for a page

`book/claims.yml` names the claims, their cards and conditions; `tools/ledger.py` makes the page of them;
`python -m benchmarks evidence` records what all of them found, and where.
"""

from __future__ import annotations

from chunkprefill.lazy import door

# module -> the public names it holds; same_cache is the evidence for the claim same-cache
_PUBLIC = {
    "evidence": "Evidence Number BothSides both_sides",
    "prefilling": "bytes_a_token final_at_once products_first",
    "counting": "same_cache passes reread peak_memory activation_bytes",
    "timing": "slower_prefill weights_again",
    "scheduling": "BREAKS Gap no_stall not_by_itself preempted_passes who_is_protected widest_gaps",
    "tradeoff": "BUDGETS added bubbles document_wait fairness gains mixed mixing_loses piggyback throughput_of "
    "throughput_when ttft_price "
    "waits_by_class",
    "engines": "Frozen Kinds Rates always_a_prompt beside_a_prompt equal_steps first_chunk_only "
    "first_difference frozen job let_in moment proposals recordings replayed same_decisions "
    "stream_of_prompts threshold_passes token_a_step who_still_decodes",
    "beyond": "LOOSE TIGHT after_prefix apart no_budget prefix_passes prompt_seconds together two_cards",
    "chunk_size": "LAYER_US Load as_long_as_decoding balance carries full_step keeps_up largest_that_fits tiles",
    "small_chunks": "launch_floor passes_table prefilled riding_rows saturation split_table",
    "overhead": "CITED_SHARES MODELS VLLM_VISIT documents_beside_chats kept more_tasks overhead_share "
    "overlap overlapped priced_shares shares_table step_seconds visit_cost",
    "launching": "graph_rows graph_table lost_graphs padding",
    "on_vllm": "vllm_bounds_gaps vllm_newcomers vllm_prefix vllm_priority vllm_threshold",
    "diagnosis": "busy_not_full crowded mending",
    "designs": "Design grid",
    "parts": "CITED_SCHEDULING_MS cost_per_visit measure measured_shares not_the_decision our_breakdown visit_fits",
}
__getattr__, __dir__, _names = door(__name__, _PUBLIC)
__all__ = [*_names]  # noqa: PLE0604  (every entry is a str)
