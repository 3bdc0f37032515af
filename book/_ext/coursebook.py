"""What the book adds to Jupyter Book: light pages, badges, and checks that a page can be read by everybody.

- A page loads what it uses: no thebe, no icon program (the theme's web font has the same icons), no search
  index outside the search page, formulas and widgets only where there are any, `course.js` only beside an element
  of the course. Nothing comes from another host, and all of it works from `file://`.
- The role {badge}`measured here` (simulated, published, drawing) says where a figure comes from.
- Every table and code box scrolls inside its own frame; an image or a drawing without a text is a warning.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)

BADGES = {  # kind -> what the reader is told when asking
    "measured here": "timed or counted by this page's own cells, on the machine named beside it",
    "recorded": "timed on the machine named beside it, kept in the repository as JSON with its provenance",
    "simulated": "computed by the course's simulator from a cost model, not timed",
    "published": "taken from the source named beside it",
    "drawing": "drawn to explain; its proportions were not measured",
}
NEEDS_COURSE_JS = re.compile(
    r"""<cp-|class=["'][^"']*\bcp-|data-cp-"""
)  # the marks of the course's own elements
OPTIONAL_SCRIPTS = {  # script -> what a page that uses it contains
    "copybutton": re.compile(r'<div class="highlight'),
    "clipboard": re.compile(r'<div class="highlight'),
    "togglebutton": re.compile(r'class="[^"]*(dropdown|toggle|tag_hide|tag_hide-)'),
    "design-tabs": re.compile(r'class="[^"]*sd-tab-set'),
    "course.js": NEEDS_COURSE_JS,
    "elements.css": NEEDS_COURSE_JS,
}
VOID_SVG = ("aria-label", "aria-labelledby", "aria-hidden")


class _Pictures(HTMLParser):
    """Collects the pictures of a page that say nothing to who cannot see them."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.silent: list[str] = []
        self._svg_depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        have = dict(attrs)
        if tag == "img" and not have.get("alt") and have.get("role") != "presentation":
            self.silent.append(f"<img src={have.get('src', '')[:60]!r}> has no alt text")
        if tag == "svg":
            if self._svg_depth == 0 and not any(have.get(name) for name in VOID_SVG):
                self.silent.append(f"<svg {' '.join(f'{k}={v!r}' for k, v in attrs)[:80]}> has no aria-label")
            self._svg_depth += 1

    def handle_endtag(self, tag: str) -> None:
        if tag == "svg":
            self._svg_depth -= 1


def silent_pictures(html: str) -> list[str]:
    """What a screen reader would miss in `html`: a line for each image or drawing without a text."""
    parser = _Pictures()
    parser.feed(html)
    return parser.silent


def frame_tables(html: str) -> str:
    """Put each table that has no scrolling frame yet into one, so that no table widens a page."""
    framed = re.sub(
        r'<div class="pst-scrollable-table-container">\s*(<table.*?</table>)\s*</div>',
        r"\1",
        html,
        flags=re.S,
    )
    return re.sub(
        r"(<table.*?</table>)", r'<div class="pst-scrollable-table-container">\1</div>', framed, flags=re.S
    )


def without_icon_program(head: str) -> str:
    """The head without fontawesome.js (1.5 MB): the theme's style sheet draws the same icons from a font."""
    return re.sub(r"<script[^>]*scripts/fontawesome\.js[^>]*></script>", "", head)


def without_search_index(head: str) -> str:
    """The head without the search tools: the search page loads them itself, and no other page uses them."""
    return re.sub(r"<script[^>]*(searchtools|language_data|searchindex)\.js[^>]*></script>\s*", "", head)


def drop_thebe(app: Sphinx, _config: Any) -> None:
    """Silence the extension that Jupyter Book always adds: its scripts throw on each page, and no kernel is there."""
    for listeners in app.events.listeners.values():
        listeners[:] = [one for one in listeners if not one.handler.__module__.startswith("sphinx_thebe")]


def lighten_page(app: Sphinx, pagename: str, _template: str, context: dict[str, Any], doctree: Any) -> None:
    """Mend a page's body, warn of what cannot be read, and drop the scripts that it does not use."""
    context["without_icon_program"] = without_icon_program
    context["without_search_index"] = without_search_index
    body = context.get("body", "")
    if body:
        context["body"] = body = frame_tables(body)
        if doctree is not None:
            for line in silent_pictures(body):
                LOGGER.warning("%s", line, location=pagename, type="coursebook", subtype="alt")

    def used(script: Any) -> bool:
        name = str(getattr(script, "filename", script) or "")
        return "thebe" not in name and all(
            pattern.search(body) for part, pattern in OPTIONAL_SCRIPTS.items() if part in name
        )

    for key in ("script_files", "css_files"):
        context[key] = [script for script in context[key] if used(script)]


def badge(name: str, rawtext: str, text: str, lineno: int, inliner: Any, *_: Any) -> tuple[list, list]:
    """The role {badge}`measured here`: where a figure or a number comes from, in a word."""
    if text not in BADGES:
        problem = inliner.reporter.error(f"badge {text!r}: it is one of {', '.join(BADGES)}", line=lineno)
        return [inliner.problematic(rawtext, rawtext, problem)], [problem]
    kind = text.split()[0]
    html = f'<span class="badge-source badge-{kind}" title="{BADGES[text]}">{text}</span>'
    return [nodes.raw("", html, format="html")], []


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect all of it; called by Sphinx."""
    app.add_role("badge", badge)
    app.connect("config-inited", drop_thebe, priority=999)
    app.connect("html-page-context", lighten_page, priority=999)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
