"""Texts that may be answers, wherever a student put them: below a marker, beside it, or without it."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

from chunkprefill_grading.submission.load import ANSWER_CELL, MARKER, MAX_WRITTEN, Submission, Text

MOST_LOOKED = 200_000  # characters of a cell in which an answer is looked for: more is a picture
_HEADING = re.compile(r"^\s*#{1,6} ")


@dataclass(frozen=True)
class Handout:
    """What the notebook held when it was handed out: names of written answers and of all others, texts."""

    written: tuple[str, ...]
    other: tuple[str, ...] = ()
    texts: Collection[str] = ()  # the sources of its cells that are not code

    @cached_property
    def known(self) -> set[str]:
        """Its texts, whatever became of their blanks."""
        return {_bare(text) for text in self.texts}

    @cached_property
    def lines(self) -> set[str]:
        """The lines of its texts, whatever became of their blanks and numbers: another draw has others."""
        return {_numberless(line) for text in self.texts for line in text.splitlines()}

    def added(self, source: str) -> str:
        """The lines of a text that were not handed out."""
        lines = MARKER.sub("\n", source[:MOST_LOOKED]).splitlines()
        return "\n".join(line for line in lines if _numberless(line) not in self.lines).strip()


@dataclass(frozen=True)
class Candidate:
    """A text that may be the answer to a question. doubt: "" below its marker, else where it stands."""

    text: str
    doubt: str = ""


def find(found: Submission, handout: Handout) -> dict[str, Candidate]:
    """The text of each answer that a person may have to read, by question.

    A written answer stands below its marker, in that cell and in those that follow up to code or to what was
    handed out. Where nothing stands there, it is looked for above the marker, beside it, and in every text
    that was not handed out: a text that may be an answer is never taken for none.
    """
    made: dict[str, Candidate] = {}
    used: set[int] = set()
    for name in handout.written:
        candidate = _by_marker(found, handout, name, used)
        if candidate is not None:
            made[name] = candidate
    for name in handout.other:
        cells = [text for text in found.texts if name in ANSWER_CELL.findall(text.source)]
        if cells and name not in found.answers:
            used |= {cell.place for cell in cells}
            made[name] = Candidate(_joined(cells), "the answer's cell holds text in place of code")
    lacking = [name for name in handout.written if name not in made]
    if lacking and (free := [text for text in found.texts if text.place not in used]):
        added = list(
            filter(None, (handout.added(text.source) for text in free if not ANSWER_CELL.search(text.source)))
        )
        if handout.texts and added:
            text = "\n\n".join(added)[:MAX_WRITTEN]
            for name in lacking:
                made[name] = Candidate(text, "nothing stands below the marker; this text stands elsewhere")
    return made


def _by_marker(found: Submission, handout: Handout, name: str, used: set[int]) -> Candidate | None:
    below, doubt = found.written.get(name, ""), ""
    near: list[str] = []
    for i, text in enumerate(found.texts):
        if name not in MARKER.findall(text.source):
            continue
        used.add(text.place)
        following = _following(found.texts[i + 1 :], text, handout)
        used |= {each.place for each in following}
        mine = _below(text.source, name)
        if mine and mine != below:
            near.append(mine)  # in a raw cell, or as a comment of code
        if above := _above(text.source, name, handout):
            near.append(above)
        near += [each.source.strip() for each in following]
    if below:
        more = [each for each in near if each and each not in below]
        return Candidate("\n\n".join([below, *more])[:MAX_WRITTEN], doubt)
    near = [each for each in near if each]
    if near:
        return Candidate("\n\n".join(near)[:MAX_WRITTEN], "it stands beside its marker and not below it")
    return None


def _below(source: str, name: str) -> str:
    parts = MARKER.split(source)
    return next(
        (text.strip() for each, text in zip(parts[1::2], parts[2::2]) if each == name and text.strip()), ""
    )


def _above(source: str, name: str, handout: Handout) -> str:
    """What stands before the first marker of a cell, if that marker is this one's."""
    first = MARKER.search(source)
    if first is None or first[1] != name:
        return ""
    return handout.added(source[: first.start()])


def _following(texts: Sequence[Text], marker: Text, handout: Handout) -> list[Text]:
    """The cells after the marker's that a student may have added to go on in."""
    made: list[Text] = []
    place = marker.place
    for text in texts:
        if text.place != place + 1 or MARKER.search(text.source) or ANSWER_CELL.search(text.source):
            break
        if _bare(text.source) in handout.known or (not handout.texts and _HEADING.match(text.source)):
            break
        place = text.place
        if text.source.strip():
            made.append(text)
    return made


def _bare(text: str) -> str:
    return " ".join(MARKER.sub("", text).split())


def _numberless(line: str) -> str:
    return re.sub(r"\d[\d.,]*", "0", _bare(line))


def _joined(cells: Sequence[Text]) -> str:
    return "\n\n".join(cell.source.strip() for cell in cells)[:MAX_WRITTEN]
