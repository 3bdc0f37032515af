"""A case of the clinic in a page: its form, and what comes of a diagnosis; the words are the notebook's."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import isnan
from typing import Any

from chunkprefill_course.clinic.case import Case
from chunkprefill_course.clinic.faults import CAUSES, REMEDIES
from chunkprefill_course.clinic.make import again
from chunkprefill_course.clinic.rows import ROWS
from chunkprefill_course.clinic.server import WORDS

KEPT = 4  # cases at once


@lru_cache(KEPT)
def case_of(seed: int | str, attempt: int) -> Case:
    """The case, made once."""
    return again(seed, attempt)


def shown(seed: int | str, attempt: int) -> dict[str, Any]:
    """What the form offers: causes, rows with their values, fixes with their numbers, settings and their words."""
    case = case_of(seed, attempt)
    board = case.dashboard
    rows = {key: f"{board.words(key)}: {board.say(key)}" for key in ROWS if not isnan(board.values[key])}
    return {
        "causes": CAUSES,
        "rows": rows,
        "fixes": {key: case.offer(key) for key in REMEDIES},
        "settings": vars(case.settings),
        "words": WORDS,
    }


def checked(seed: int | str, attempt: int, diagnosis: Mapping[str, Any]) -> dict[str, Any]:
    """What `Case.check` says to a diagnosis. fix: a key, or {setting: value} of those that the reader changed."""
    case = case_of(seed, attempt)
    fix, given = diagnosis.get("fix"), diagnosis.get("evidence")
    feedback = case.check(diagnosis.get("cause") or None, given or None, None if fix in ("", None) else fix)
    return {"ok": feedback.ok, "text": str(feedback), "html": feedback._repr_html_()}


def replayed(seed: int | str, attempt: int, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Each promise before and after some settings are changed, whatever the cause is."""
    case = case_of(seed, attempt)
    replay = case.replay(**{str(name): value for name, value in changes.items()})
    words = "Every promise is kept." if replay.restored else "A promise is still broken."
    return {
        "ok": replay.restored,
        "text": f"{words}\n{replay}",
        "html": f"<p>{words}</p>{replay._repr_html_()}",
    }
