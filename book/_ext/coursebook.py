"""What the book adds to Jupyter Book: light pages, badges, and checks that a page can be read by everybody.

- A page loads what it uses: no thebe, no icon program (`icons.css` draws the few icons there are), no search
  index outside the search page, formulas and widgets only where there are any, `course.js` only beside an
  element of the course. Nothing comes from another host, and all of it works from `file://`.
- The role {badge}`measured` (counted, simulated, published, drawing) says where a figure comes from.
- A long cell of code starts folded, for who reads on a phone; what came out of it does not.
- Every table scrolls inside its own frame; an image or a drawing without a text is a warning.
- A build that warned is not remembered: the next one reads every page again and warns again.
"""

from __future__ import annotations

import re
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)

BADGES = {  # kind -> (what the badge says, what it means); `chunkprefill.analysis.style` draws the same ones
    "measured": ("measured here", "timed by the cell beside it, on the machine that ran it"),
    "counted": ("counted here", "counted by the cell beside it; the same on every machine"),
    "simulated": ("simulated", "computed by the course's simulator from a cost model, not timed"),
    "recorded": ("recorded run", "timed by a bench on the machine named beside it, not by this page"),
    "published": ("published", "taken from the source named beside it"),
    "drawing": ("drawing", "drawn to explain; its proportions were not measured"),
}
LONG_CODE = 12  # lines of a cell that a phone shows at once
FORMS = re.compile(
    r'class="[^"]*\bcp-(el|explorer)\b|vnd\.jupyter\.widget-view'
)  # marks of what course.js serves
OPTIONAL = {  # part of a script's or a style sheet's name -> what a page that uses it contains
    "thebe": re.compile(r"(?!)"),  # nothing does
    "copybutton": re.compile(r'<div class="highlight'),
    "clipboard": re.compile(r'<div class="highlight'),
    "togglebutton": re.compile(r'class="[^"]*(dropdown|toggle|tag_hide)'),
    "design-tabs": re.compile(r'class="[^"]*sd-tab-set'),
    "sphinx-design": re.compile(r'class="[^"]*sd-'),
    "mystnb": re.compile(r'class="[^"]*\bcell\b'),
    "exercise.css": re.compile(r'class="[^"]*(exercise|solution)'),
    "course.js": FORMS,
    "elements.css": FORMS,
}
SPEAKS = ("aria-label", "aria-labelledby", "aria-hidden")


class _Pictures(HTMLParser):
    """Collects the pictures of a page that say nothing to who cannot see them."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.silent: list[str] = []
        self._svg_depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        have = dict(attrs)
        alt, src = have.get("alt") or "", have.get("src") or ""
        named = alt.rpartition("/")[2] == src.rpartition("/")[2]  # what Sphinx writes where a page gives none
        if tag == "img" and (not alt or named) and have.get("role") != "presentation":
            self.silent.append(f"<img src={src[:60]!r}> has no alt text")
        if tag == "svg":
            if self._svg_depth == 0 and not any(have.get(name) for name in SPEAKS):
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
    frame = '<div class="pst-scrollable-table-container">'
    pattern = r'(<div class="(?:pst-scrollable-table-container|cp-table)"[^>]*>\s*)?(<table.*?</table>)'
    return re.sub(pattern, lambda m: m[0] if m[1] else f"{frame}{m[2]}</div>", html, flags=re.S)


def without_icon_program(head: str) -> str:
    """The head without fontawesome.js (1.5 MB): `icons.css` draws the dozen icons that the theme uses."""
    return re.sub(r"<script[^>]*scripts/fontawesome\.js[^>]*></script>", "", head)


def fold_code(html: str) -> str:
    """Fold each cell of more than `LONG_CODE` lines behind a line that says how many they are."""

    def fold(found: re.Match[str]) -> str:
        opening, code = found.groups()
        n_lines = code[code.index("<pre>") : code.index("</pre>")].count("\n")
        if n_lines <= LONG_CODE:
            return found[0]
        states = (("collapsed", "Show"), ("expanded", "Hide"))
        names = "".join(
            f'<p class="{state} admonition-title">{verb} the code, {n_lines} lines</p>'
            for state, verb in states
        )
        summary = f'<details class="admonition hide above-input"><summary>{names}</summary>'
        return f"{opening}{summary}{code}</details>"

    cell = r'(<div class="cell\b[^"]*">\s*)(<div class="cell_input\b[^"]*">.*?</pre></div>\s*</div>\s*</div>)'
    return re.sub(cell, fold, html, flags=re.S)


def spoken(html: str) -> str:
    """A page's text with what screen readers stumble over put right.

    A bibliography's entries are list items (the role they come with is deprecated), an empty corner of a
    table heads nothing, and the fold over a hidden cell is called what is written on it.
    """
    html = html.replace('role="doc-biblioentry"', 'role="listitem"')
    html = html.replace('<th scope="col"></th>', "<td></td>")
    return html.replace('<summary aria-label="Toggle hidden content">', "<summary>")


def mended(page: str) -> str:
    """The page's frame with what axe-core finds wrong in the theme put right.

    The sidebar becomes a landmark. The search button loses its printed shortcut, which its name does not hold
    (the keys still work).
    """
    page = page.replace(
        '<div id="pst-primary-sidebar"',
        '<div role="complementary" aria-label="Book" id="pst-primary-sidebar"',
    )
    button = (
        r'(<button class="btn search-button-field.*?)<span class="search-button__kbd-shortcut">.*?</span>'
    )
    return re.sub(button, r"\1", page, flags=re.S)


def without_search_index(head: str) -> str:
    """The head without the search tools: the search page loads them itself, and no other page uses them."""
    return re.sub(r"<script[^>]*(searchtools|language_data|searchindex)\.js[^>]*></script>\s*", "", head)


def drop_thebe(app: Sphinx, _config: Any) -> None:
    """Silence an extension that Jupyter Book always adds: its scripts throw, and no kernel is there."""
    for listeners in app.events.listeners.values():
        listeners[:] = [one for one in listeners if not one.handler.__module__.startswith("sphinx_thebe")]


def lighten_page(app: Sphinx, pagename: str, _template: str, context: dict[str, Any], doctree: Any) -> None:
    """Mend a page's body, warn of what cannot be read, and drop the scripts that it does not use."""
    context["mended"] = mended
    context["without_icon_program"] = without_icon_program
    context["without_search_index"] = without_search_index
    body = context.get("body", "")
    if body:
        context["body"] = body = fold_code(frame_tables(spoken(body)))
        if doctree is not None:
            for line in silent_pictures(body):
                LOGGER.warning("%s", line, location=pagename, type="coursebook", subtype="alt")

    def used(script: Any) -> bool:
        name = str(getattr(script, "filename", script) or "")
        return all(pattern.search(body) for part, pattern in OPTIONAL.items() if part in name)

    for key in ("script_files", "css_files"):
        context[key] = [script for script in context[key] if used(script)]


def badge(name: str, rawtext: str, text: str, lineno: int, inliner: Any, *_: Any) -> tuple[list, list]:
    """The role {badge}`measured`: where a figure or a number comes from, in a word."""
    if text not in BADGES:
        problem = inliner.reporter.error(f"badge {text!r}: it is one of {', '.join(BADGES)}", line=lineno)
        return [inliner.problematic(rawtext, rawtext, problem)], [problem]
    says, means = BADGES[text]
    html = f'<span class="cp-badge cp-badge-{text}" title="{means}">{says}</span>'
    return [nodes.raw("", html, format="html")], []


def forget_warned(app: Sphinx, exception: Exception | None) -> None:
    """Mark a clean build with the file `.clean`; after a build that warned, let the next one start over.

    Sphinx warns about a page only when it reads it, so without this a second `make html` would pass.
    """
    if app.builder.name != "html":
        return
    clean = exception is None and app._warncount == 0
    mark = Path(app.outdir, ".clean")
    if clean:
        mark.touch()
    else:
        mark.unlink(missing_ok=True)
        Path(app.doctreedir, "environment.pickle").unlink(missing_ok=True)


def outdated_look(app: Sphinx, env: Any, *_: Any) -> list[str]:
    """Every page if a style sheet or script is younger than the last clean build: Sphinx would copy none."""
    mark = Path(app.outdir, ".clean")
    static = (p for folder in app.config.html_static_path for p in Path(app.confdir, folder).rglob("*"))
    youngest = max((p.stat().st_mtime for p in static), default=0.0)
    return sorted(env.found_docs) if mark.is_file() and youngest > mark.stat().st_mtime else []


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect all of it; called by Sphinx."""
    app.add_role("badge", badge)
    app.connect("config-inited", drop_thebe, priority=999)
    app.connect("env-get-outdated", outdated_look)
    app.connect("html-page-context", lighten_page, priority=999)
    app.connect("build-finished", forget_warned, priority=999)
    edition = zlib.crc32(Path(__file__).read_bytes())  # a changed extension reads every page again
    return {"version": "1", "env_version": edition, "parallel_read_safe": True, "parallel_write_safe": True}
