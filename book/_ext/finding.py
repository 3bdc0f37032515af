"""What readers find by: a search over sections, previews of words and sources; both made from the built pages.

The index and the previews are scripts that set one variable, because a page opened from a folder may load
scripts and nothing else. They are loaded by the search page, and when a reader first points at a word.
"""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

SKIP = {"script", "style", "svg", "nav", "button", "template"}
BLOCK = {
    "p",
    "li",
    "td",
    "th",
    "tr",
    "div",
    "pre",
    "dt",
    "dd",
    "br",
    "h1",
    "h2",
    "h3",
    "h4",
    "figcaption",
    "summary",
    "caption",
    "legend",
    "label",
    "span",
}
HEADS = {"h1", "h2", "h3"}
VOID = {"br", "wbr", "img", "input", "hr", "meta", "link", "path", "rect", "line", "use", "circle"}
LONG = 4000  # characters kept of a section


class Sections(HTMLParser):
    """Cuts a page's article at its headings: (id, heading, text)."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[list[Any]] = []
        self._ids: list[str] = []  # of the sections that are open
        self._inside = self._skipped = 0
        self._heading: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        have = dict(attrs)
        if tag == "article" and "bd-article" in (have.get("class") or ""):
            self._inside = 1
        if not self._inside or tag in VOID:
            return
        if tag in SKIP or (self._skipped and tag not in VOID):
            self._skipped += 1
            return
        if tag == "section":
            self._ids.append(have.get("id") or "")
        if tag == "a" and "headerlink" in (have.get("class") or ""):
            self._skipped += 1
            return
        if (tag in HEADS and self._ids) or (tag == "dt" and (have.get("id") or "").startswith("term-")):
            self.found.append([have.get("id") or self._ids[-1], "", ""])
            self._heading = tag
        elif tag in BLOCK and self.found:
            self.found[-1][2] += " "  # neighbours are two words, not one

    def handle_endtag(self, tag: str) -> None:
        if not self._inside or tag in VOID:
            return
        if self._skipped:
            self._skipped -= 1
            return
        if tag == "article":
            self._inside = 0
        elif tag == "section" and self._ids:
            self._ids.pop()
        elif tag == self._heading:
            self._heading = None

    def handle_data(self, data: str) -> None:
        if not self._inside or self._skipped or not self.found:
            return
        self.found[-1][1 if self._heading else 2] += data


def sections(html: str) -> list[tuple[str, str, str]]:
    """(id, heading, text) of each section of a page, white space folded."""
    parser = Sections()
    parser.feed(html)
    return [(id, _folded(head), _folded(text)[:LONG]) for id, head, text in parser.found]


def _folded(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def previews(glossary: str, bibliography: str) -> dict[str, str]:
    """`page#id` -> what a card says of it: a term's definition, a source's entry."""
    found: dict[str, str] = {}
    for id, definition in re.findall(r'<dt id="([^"]+)"[^>]*>.*?</dt>\s*<dd>(.*?)</dd>', glossary, re.S):
        found[f"glossary.html#{id}"] = _said(definition)
    for id, entry in re.findall(r'<div class="citation" id="([^"]+)"[^>]*>(.*?)</div>', bibliography, re.S):
        found[f"bibliography.html#{id}"] = _said(entry)
    return found


def _said(html: str) -> str:
    text = _folded(re.sub(r"<[^>]+>", "", html))
    for escaped, plain in (
        ("&amp;", "&"),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", '"'),
        ("&#x27;", "'"),
        ("&#39;", "'"),
    ):
        text = text.replace(escaped, plain)
    return text if len(text) <= 420 else text[:417].rsplit(" ", 1)[0] + " …"


def write(app: Sphinx, exception: Exception | None) -> None:
    """After a build: `sections.js` and `previews.js` beside the pages' other scripts."""
    if exception is not None or app.builder.name != "html":
        return
    out = Path(app.outdir)
    index = []
    for name in sorted(app.env.found_docs):
        path = out / f"{name}.html"
        if path.is_file():
            parts = sections(path.read_text("utf8"))
            title = parts[0][1] if parts else name
            index += [[f"{name}.html", id, title, head, text] for id, head, text in parts]
    static = out / "_static"
    _put(static / "sections.js", "courseSections", index)
    pages = [out / "book" / f"{name}.html" for name in ("glossary", "bibliography")]
    texts = [path.read_text("utf8") if path.is_file() else "" for path in pages]
    _put(static / "previews.js", "coursePreviews", previews(*texts))


def _put(path: Path, name: str, value: Any) -> None:
    # "</" would end a script element if a page ever held this text itself
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")
    path.write_text(f"window.{name}={text};\n", encoding="utf8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("build-finished", write)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
