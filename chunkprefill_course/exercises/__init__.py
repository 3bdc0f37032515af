"""Questions that answer back: choices, predictions, functions to write, steps to put in order.

In a notebook, after `import chunkprefill_course as course`, show a form as a cell's last line, and try it:

    course.exercises.chunk_mask  # the prompt, three graded hints, the solution behind a fold
    course.exercises.chunk_mask.check(my_function)  # Feedback: ok, message, smallest failing case, picture
    course.exercises.chunk_mask.as_choice(guilty=0)  # "which wrong program drew this picture?", for the page
    course.exercises.what_for.check ("b")  # Choice: works in the page too, with no script
    course.exercises.guess_text  # Choice(predict=True): kept by the browser
    course.recall(course.exercises.guess_text, answer="same", measured="…")  # and shown again, further down
    course.exercises.cache_order.check("split room c1 c2 c3 first")  # Order: plays what it is given

`...`, None or an unwritten function is "not attempted", never an error. To add a
program to write, add one file and what it asks, `texts/ID.md`; to add a question, write it in its chapter's
`questions.py`; name either in the table below, and show it in the chapter's practice notebook.
"""

from __future__ import annotations

from chunkprefill.lazy import door

# module -> the exercises it holds
_PUBLIC = {
    "ch01.cache_bytes": "kv_bytes",
    "ch01.questions": "guess_twice guess_share what_is_built cache_size who_waits why_one_row",
    "ch02.branch": "branch_on_t",
    "ch02.cache_steps": "cache_order",
    "ch02.cache_write": "cache_write",
    "ch02.chunk_loop": "chunk_loop",
    "ch02.emit": "who_emits",
    "ch02.mask": "chunk_mask",
    "ch02.questions": "guess_text guess_speed guess_price how_many_passes why_it_works when_causal "
    "first_token pairs_in_chunks what_for",
    "ch02.rope": "rope_positions",
    "ch03.first_iterations": "first_iterations",
    "ch03.mixed_batch": "mixed_batch",
    "ch03.order_pd": "order_pd",
    "ch03.questions": "guess_waits guess_cut_alone why_still_waiting which_condition decode_is who_is_next",
    "ch03.starvation": "starve write_aging",
    "ch03.write_chunked_prefill": "write_chunked_prefill",
    "ch03.write_prefill_first": "write_prefill_first",
    "ch03.write_shortest_first": "write_shortest_first",
    "ch04.largest_gap": "largest_gap",
    "ch04.refute_claim": "refute_claim",
    "ch04.questions": "guess_p99 guess_throughput trade_off which_number ride_along whose_order",
    "ch05.choose_budget": "choose_budget",
    "ch05.tile_cliff": "tile_cliff",
    "ch05.questions": "guess_budget guess_depth what_thumb_forgets loose_bound over_tile "
    "why_slower_days whose_price",
    "ch06.count_visits": "count_visits",
    "ch06.make_room": "make_room",
    "ch06.order_overlap": "order_overlap",
    "ch06.questions": "guess_visits guess_part guess_model many_small overhead_in_words what_to_fix "
    "lost_graphs when_hidden which_grows why_smaller_dear",
    "ch06.write_linear": "write_linear",
    "ch07.questions": "guess_second_gpu same_symptom one_change who_was_protected",
    "ch08.questions": "guess_threshold guess_two_cards whose_rules smaller_chunks threshold_above "
    "what_prefix_saves who_pays_for_budget",
    "ch08.vllm_step": "vllm_step",
}
__getattr__, __dir__, _names = door(__name__, _PUBLIC)
__all__ = [*_names]  # noqa: PLE0604  (every entry is a str)
