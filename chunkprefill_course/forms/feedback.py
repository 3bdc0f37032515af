"""What an exercise answers, and the few lines of HTML that all the forms share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib import resources
from typing import Any

from chunkprefill_course.forms.answers import figure


@dataclass(frozen=True, kw_only=True)
class Feedback:
    """An answer to an attempt; true in a condition only if the attempt is right.

    ok:      True, False, or None for "not attempted yet"
    message: what happened, in a sentence or two; `code`, **bold** and *italic* are marked up
    case:    the smallest case that fails, as text
    picture: one inline `<svg>` of that case, or ""

    `str(feedback)` is plain text, the same at every run; Jupyter shows the picture too.
    """

    ok: bool | None
    message: str
    case: str = ""
    picture: str = ""

    def __bool__(self) -> bool:
        return self.ok is True

    @property
    def verdict(self) -> str:
        """The verdict in words: never by colour alone."""
        return {True: "✓ Right.", False: "✗ Not yet.", None: "○ Not attempted."}[self.ok]

    def __str__(self) -> str:
        lines = [f"{self.verdict} {plain_text(self.message)}"]
        if self.case:
            lines.append(f"Smallest case that fails: {plain_text(self.case)}")
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        case = f"<p>Smallest case that fails: {inline(self.case)}</p>" if self.case else ""
        head = f'<p><span class="cp-verdict">{self.verdict}</span> {inline(self.message)}</p>'
        return element(head + case + self.picture, role="status")


@cache
def stylesheet() -> str:
    """The style of every form, sent along with each: an output cell may stand alone on Colab."""
    return resources.files(__package__).joinpath("elements.css").read_text("utf-8").replace("\n", "")


def element(inner: str, *, kind: str = "", **attributes: str) -> str:
    """One form as HTML: a box, its style, its attributes (`data_id` becomes `data-id`)."""
    pairs = "".join(f' {k.replace("_", "-")}="{escape(v)}"' for k, v in attributes.items())
    name = f"cp-el cp-{kind}" if kind else "cp-el"
    return f'<div class="{name}"{pairs}><style>{stylesheet()}</style>{inner}</div>'


def inline(text: str) -> str:
    """Escaped HTML of text with `code`, **bold**, *italic*; an empty line parts paragraphs."""
    parts = re.split(r"(`[^`]+`)", text)
    star = "&#42;"  # of code: no mark, while a mark may go around code
    whole = "".join(
        f"<code>{escape(part[1:-1]).replace('*', star)}</code>"
        if part[:1] == "`" and len(part) > 1
        else escape(part)
        for part in parts
    )
    return _marks(whole).replace(star, "*").replace("\n\n", "<br><br>")


def _marks(text: str) -> str:
    text = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", text)
    return re.sub(r"(?<![\w*])\*(?!\s)([^*]+?)\*", r"<em>\1</em>", text)


def plain_text(text: str) -> str:
    """The same text without its marks."""
    return re.sub(
        r"`([^`]+)`|\*\*(.+?)\*\*|(?<![\w*])\*(?!\s)([^*]+?)\*",
        lambda m: m[1] or plain_text(m[2] or m[3]),  # a mark may go around code
        text,
    )


def fold(summary: str, inner: str, *, name: str = "") -> str:
    """A closed `<details>`."""
    kind = f' class="{name}"' if name else ""
    return f"<details{kind}><summary>{inline(summary)}</summary>{inner}</details>"


def heading(form: Any, *more: str) -> str:
    """A form's title, with what a reader wants to know before beginning: minutes, level, rung, `more`."""
    told = [f"{form.minutes} min", form.level, *filter(None, [getattr(form, "rung", "")]), *more]
    return f'<p class="cp-ask">{inline(form.title)} <small>({escape(" · ".join(told))})</small></p>'


def hint_folds(hints: Sequence[str]) -> str:
    """Hints from faint to plain, each inside the fold of the one before it."""
    nested = ""
    for i, hint in reversed(list(enumerate(hints, 1))):
        nested = fold(f"Hint {i} of {len(hints)}", f"<p>{inline(hint)}</p>{nested}")
    return nested


def code_block(source: str) -> str:
    """Source as a block that scrolls inside itself and can be reached by keyboard."""
    return f'<pre tabindex="0"><code>{escape(source.strip())}</code></pre>'


def counted(n: float, noun: str, several: str = "") -> str:
    """`1 token`, `2 tokens`, `1,024 tokens`; several: the plural where it takes more than an s."""
    return f"{figure(n)} {noun if n == 1 else several or noun + 's'}"
