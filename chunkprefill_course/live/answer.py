"""The one function that a page calls: JSON in, JSON out, never an exception."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from chunkprefill_course.live import programs


def answer(question: str, tell: Callable[[str], Any] = lambda words: None) -> str:
    """`{"ask": "check", "id": ..., "source": ...}` and its like; the reply, or `{"error": words}`.

    tell: called with words about how far it is, where that takes long.
    """
    try:
        return json.dumps(_answer(json.loads(question), tell))
    except BaseException as error:
        return json.dumps({"error": f"{type(error).__name__}: {programs.said_by(error)}"[:500]})


def _answer(question: dict[str, Any], tell: Callable[[str], Any]) -> dict[str, Any]:
    match question["ask"]:
        case "check":
            return programs.check(str(question["id"]), str(question["source"]))
        case "lab":
            from chunkprefill_course.live import lab

            return lab.run(question["experiment"], tell)
        case "draw":
            from chunkprefill_course.live import lab

            wanted = question["with"]
            return {
                "requests": lab.drawn(
                    *(wanted[key] for key in ("chats", "rate", "documents", "tokens", "seed"))
                )
            }
        case "explorer":
            from chunkprefill_course.live import explorers

            return explorers.draw(str(question["id"]), question["settings"])
        case "case" | "diagnosis" | "replay" as asked:
            from chunkprefill_course.live import clinic

            place = question["seed"], int(question["attempt"])
            if asked == "case":
                return clinic.shown(*place)
            if asked == "diagnosis":
                return clinic.checked(*place, question["diagnosis"])
            return clinic.replayed(*place, question["changes"])
        case "advice":
            from chunkprefill_course.live import advice

            return advice.advised(question["wanted"], tell)
        case other:
            raise ValueError(f"the page asks {other!r}, which nothing here answers")
