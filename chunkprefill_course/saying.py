"""A sentence beside a table, held to the numbers that the table shows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sentence:
    """Markdown that a page shows as prose."""

    text: str

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        return self.text


def the_text_says(sentence: str, *, so: bool) -> Sentence:
    """`sentence`, as long as `so`: what the numbers beside it have to bear out. Markdown.

    For numbers that were recorded, counted or priced, the same at every run of the page: when they are made anew
    and say something else, the page stops there instead of contradicting its own table.
    Raises ValueError, with the sentence, unless `so`.
    """
    if not so:
        raise ValueError(f"the numbers beside this sentence no longer bear it out: {sentence}")
    return Sentence(sentence)
