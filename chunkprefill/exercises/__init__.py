"""Questions that answer back: choices, predictions, functions to write, steps to put in order.

In a notebook, `from chunkprefill import exercises`, show a form as a cell's last line, and try it:

    exercises.chunk_mask                          # the prompt, three graded hints, the solution behind a fold
    exercises.chunk_mask.check(my_function)       # Feedback: ok, message, smallest failing case, picture
    exercises.chunk_mask.twin(guilty=0)           # "which wrong program drew this picture?", for the page
    exercises.what_for.check ("b")                # Choice: works in the page too, with no script
    exercises.guess_text                          # Choice(predict=True): kept by the browser
    exercises.recall(exercises.guess_text, answer="same", measured="…")   # and shown again, further down
    exercises.cache_order.check("split room c1 c2 c3 first")         # Order: plays what it is given

`...`, None or an unwritten function is "not attempted", never an error. To add an exercise, add one file.
"""

from __future__ import annotations

import importlib
from typing import Any

# module -> the public names it holds: the forms, then the exercises, one file each
_PUBLIC = {
    "feedback": "Feedback",
    "choice": "Choice Option recall",
    "exercise": "Exercise Wrong",
    "order": "Order",
    "cache_steps": "cache_order",
    "cache_bytes": "kv_bytes",
    "mask": "chunk_mask",
    "rope": "rope_positions",
    "write": "cache_write",
    "loop": "chunk_loop",
    "emit": "who_emits",
    "branch": "branch_on_t",
    "chapter1": "guess_twice guess_share what_is_built cache_size who_waits why_one_row",
    "playback": "Playback WrongPlan",
    "order_pd": "order_pd",
    "first_iterations": "first_iterations",
    "write_prefill_first": "write_prefill_first",
    "write_chunked_prefill": "write_chunked_prefill",
    "write_shortest_first": "write_shortest_first",
    "chapter3": "guess_waits guess_cut_alone why_still_waiting which_condition decode_is who_is_next",
    "largest_gap": "largest_gap",
    "chapter4": "guess_p99 guess_throughput trade_off which_number ride_along whose_order",
    "choose_budget": "choose_budget",
    "chapter5": "guess_budget guess_depth what_thumb_forgets loose_bound over_tile why_slower_days "
    "whose_price",
    "written": "Written",
    "count_visits": "count_visits",
    "write_linear": "write_linear",
    "order_overlap": "order_overlap",
    "chapter6": "guess_visits guess_part guess_model many_small overhead_in_words what_to_fix lost_graphs "
    "when_hidden which_grows why_smaller_dear",
    "vllm_step": "vllm_step",
    "chapter7": "guess_second_gpu same_symptom one_change who_was_protected",
    "chapter8": "guess_threshold guess_two_cards whose_rules smaller_chunks threshold_above "
    "what_prefix_saves who_pays_for_budget",
    "chapter2": "guess_text guess_speed guess_price how_many_passes why_it_works when_causal first_token "
    "pairs_in_chunks what_for",
}
_HOME = {name: module for module, names in _PUBLIC.items() for name in names.split()}
__all__ = [*_HOME]  # noqa: PLE0604  (every entry is a str)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"no exercise or form {name!r}; there are {', '.join(sorted(_HOME))}")
    value = getattr(importlib.import_module(f"chunkprefill.exercises.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
