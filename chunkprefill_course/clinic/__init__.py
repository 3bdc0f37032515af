"""The diagnosis clinic: servers with a fault planted, or none, and a dashboard to find it by.

    case = course.clinic.case(seed=7)        # any seed; the same each time
    print(case.text())                   # or `case`, with its picture; `form(case)` asks
    case.replay(token_budget=512)        # the same load under other settings: before and after
    case.check(cause="...", evidence=["..."], fix="...")     # CAUSES, ROWS and REMEDIES have the keys
    course.clinic.case(7, course.clinic.PAIRS[0])     # two faults at once

`read` makes the same rows of any trace, and of a probe of a real server, with a diagnosis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chunkprefill.lazy import door
from chunkprefill_course.clinic.case import Case
from chunkprefill_course.clinic.case_form import Form, form
from chunkprefill_course.clinic.faults import CAUSES, FAULTS, FIX_FOR, FIXES, PAIRS, REMEDIES, TELLING
from chunkprefill_course.clinic.make import case
from chunkprefill_course.clinic.replay import Replay
from chunkprefill_course.clinic.rows import PROMISES, ROWS, Dashboard
from chunkprefill_course.clinic.server import Machine, Rules, Settings
from chunkprefill_course.clinic.signs import marks

if TYPE_CHECKING:
    from chunkprefill_course.clinic.reading import CERTAINTY, Diagnosis, Reading, read

# Reading a real server takes what asks one; a case in a page does without.
__getattr__, __dir__, _ = door(__name__, {"reading": "CERTAINTY Diagnosis Reading read"})
__all__ = [
    "CAUSES",
    "CERTAINTY",
    "FAULTS",
    "FIXES",
    "FIX_FOR",
    "PAIRS",
    "PROMISES",
    "REMEDIES",
    "ROWS",
    "TELLING",
    "Case",
    "Dashboard",
    "Diagnosis",
    "Form",
    "Machine",
    "Reading",
    "Replay",
    "Rules",
    "Settings",
    "case",
    "form",
    "marks",
    "read",
]
