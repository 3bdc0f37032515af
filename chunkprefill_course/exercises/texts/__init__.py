"""What exercises ask: templates with `$names`, filled in with the numbers that an exercise computes."""

from __future__ import annotations

from pathlib import Path

from chunkprefill_course.forms.templates import filler

prose = filler(Path(__file__).parent)
