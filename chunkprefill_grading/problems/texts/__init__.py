"""The words of the problem sets: templates with `$names`, filled in with what a secret draws."""

from __future__ import annotations

from pathlib import Path

from chunkprefill_course.forms.templates import filler

fill = filler(Path(__file__).parent)
