"""The course's reader of answers; inside the sandbox that module itself lies here, and no more of it."""

from __future__ import annotations

from chunkprefill_course.forms.answers import UNREADABLE, Unusable, plain_parts

__all__ = ["UNREADABLE", "Unusable", "plain_parts"]
