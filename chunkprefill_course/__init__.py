"""What the notebooks and pages use beside the library: questions that answer back, the clinic, the evidence.

import chunkprefill_course as course

course.exercises.chunk_mask.check(my_function)    # an exercise
course.clinic.case(seed=7)                        # a server with a fault planted
course.evidence.same_cache()                      # the evidence for a claim
course.Explorer, course.Choice, course.recall     # the forms
"""

from __future__ import annotations

from chunkprefill.lazy import door

# module -> the public names it holds
_PUBLIC = {
    "forms.feedback": "Feedback",
    "forms.choice": "Choice Option recall",
    "forms.exercise": "Exercise Wrong",
    "forms.order": "Order",
    "forms.playback": "Playback WrongPlan",
    "forms.written": "Written",
    "forms.explorer": "Explorer",
    "gpu_recording": "recorded recorded_picture",
    "saying": "the_text_says",
    "parts_recording": "host_parts host_picture idle_table parts_digest step_parts",
    "vllm_recording": "recorded_vllm vllm_picture vllm_rows vllm_verdicts",
    "real_engines": "decisions_picture settings_table sources_table",
}
_ROOMS = {"exercises": "exercises", "evidence": "evidence", "clinic": "clinic", "forms": "forms"}
__getattr__, __dir__, _names = door(__name__, _PUBLIC, _ROOMS)
__all__ = [*_names]  # noqa: PLE0604  (every entry is a str)
