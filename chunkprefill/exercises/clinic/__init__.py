"""The diagnosis clinic: servers with a fault planted, or none, and a dashboard to find it by.

    case = cp.clinic.case(seed=7)        # any seed; the same each time
    print(case.text())                   # or `case`, with its picture; `form(case)` asks
    case.replay(token_budget=512)        # the same load under other settings: before and after
    case.check(cause="...", evidence=["..."], fix="...")     # CAUSES, ROWS and REMEDIES have the keys

`read` makes the same rows of any trace, one of a real engine too.
"""

from __future__ import annotations

from chunkprefill.exercises.clinic.case import Case
from chunkprefill.exercises.clinic.faults import CAUSES, FAULTS, FIX_FOR, FIXES, REMEDIES, TELLING
from chunkprefill.exercises.clinic.forms import Form, form
from chunkprefill.exercises.clinic.make import case
from chunkprefill.exercises.clinic.replay import Replay
from chunkprefill.exercises.clinic.rows import PROMISES, ROWS, Dashboard, read
from chunkprefill.exercises.clinic.server import Machine, Rules, Settings
from chunkprefill.exercises.clinic.signs import marks

__all__ = [
    "CAUSES", "FAULTS", "FIXES", "FIX_FOR", "PROMISES", "REMEDIES", "ROWS", "TELLING", "Case", "Dashboard",
    "Form",
    "Machine", "Replay", "Rules", "Settings", "case",
    "form",
    "marks", "read",
]  # fmt: skip
