"""Questions that answer back: choices, predictions, functions to write, steps to put in order.

In a notebook, `from chunkprefill import exercises`, show a form as a cell's last line, and try it:

    exercises.chunk_mask                          # the prompt, three graded hints, the solution behind a fold
    exercises.chunk_mask.check(my_function)       # Feedback: ok, message, the smallest failing case, its picture
    exercises.chunk_mask.twin(case, guilty=0)     # "which wrong program drew this picture?", for the page
    exercises.why_chunk.check("b")                # Choice: works in the page too, with no script
    exercises.guess_text                          # Choice(predict=True): kept by the browser
    exercises.recall(exercises.guess_text, answer="same", measured="…")     # and shown again, further down
    exercises.cache_order.check("split room c1 c2 c3 first")                # Order: plays the order it is given

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
    "mask": "chunk_mask",
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
