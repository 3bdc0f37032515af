"""A question to answer in one's own words: rubric and model answer lie behind folds, the reader marks it."""

from __future__ import annotations

from dataclasses import dataclass

from chunkprefill_course.forms.feedback import element, fold, heading, inline


@dataclass(frozen=True, kw_only=True)
class Written:
    """An open question. Nothing here judges prose: the rubric says what an answer must have, for how much.

    id, title: unique in the book; a few words
    prompt:    the question
    rubric:    (points, what earns them), one row a point of substance
    answer:    a model answer, paragraphs parted by an empty line
    minutes, level: how long it takes; Bloom's level

    Raises ValueError for a rubric without points, or one that asks for the same thing twice.
    """

    id: str
    title: str
    prompt: str
    rubric: tuple[tuple[int, str], ...]
    answer: str
    minutes: int = 10
    level: str = "evaluate"

    def __post_init__(self) -> None:
        wanted = [words for _, words in self.rubric]
        if not self.rubric or min(points for points, _ in self.rubric) < 1:
            raise ValueError(f"{self.id}: a rubric needs rows of at least 1 point, it has {self.rubric}")
        if len(set(wanted)) < len(wanted):
            raise ValueError(f"{self.id}: the rubric asks for the same thing twice")

    @property
    def points(self) -> int:
        """The most that an answer can earn."""
        return sum(points for points, _ in self.rubric)

    def __str__(self) -> str:
        return f"{self.title} ({self.minutes} min, {self.level}, {self.points} points)\n{self.prompt}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = f"{heading(self, f'{self.points} points')}<p>{inline(self.prompt)}</p>"
        rows = "".join(
            f'<li><input type="checkbox" id="cp-{self.id}-{i}"> <label for="cp-{self.id}-{i}">'
            f"{inline(words)} ({points})</label></li>"
            for i, (points, words) in enumerate(self.rubric)
        )
        marks = f'<ul style="list-style:none;padding-left:0">{rows}</ul>'
        paragraphs = "".join(f"<p>{inline(part)}</p>" for part in self.answer.split("\n\n"))
        folds = fold("Rubric: mark your own answer", marks) + fold("A model answer", paragraphs)
        return element(head + folds, kind="written", id=f"cp-{self.id}")
