"""What the book adds to Jupyter Book: light pages, badges, and checks that a page can be read by everybody.

- A page loads what it uses: no thebe, no program for copying, no icon program (`icons.css` draws the few icons there are), the theme's menus
  when one is touched, no search index outside the search page, formulas and widgets only where there are any, `course.js` only beside an
  element of the course. Nothing comes from another host, and all of it works from `file://`.
- The role {badge}`measured` (counted, simulated, published, drawing) says where a figure comes from.
- A long cell of code starts folded, for who reads on a phone; what came out of it does not. A claim's long
  table of numbers folds behind its verdict.
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
from folds import fold_code, fold_evidence, hold_frames, hold_pictures
from sphinx.application import Sphinx
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)

BADGES = {  # kind -> (what the badge says, what it means); `chunkprefill.plots.style` draws the same ones
    "measured": ("measured here", "timed by the cell beside it, on the machine that ran it"),
    "counted": ("counted here", "counted by the cell beside it; the same on every machine"),
    "simulated": ("simulated", "computed by the course's simulator from a cost model, not timed"),
    "recorded": ("recorded run", "timed by a bench on the machine named beside it, not by this page"),
    "published": ("published", "taken from the source named beside it"),
    "drawing": ("drawing", "drawn to explain; its proportions were not measured"),
}
FORMS = re.compile(
    r'class="[^"]*\bcp-(el|explorer)\b|vnd\.jupyter\.widget-view'
)  # marks of what course.js serves
LIVE = re.compile(
    r"data-starter=|data-lab|data-advice|class=\"cp-(explorer|clinic)\""
)  # what live.js serves: code, explorers, the clinic, the laboratory
OPTIONAL = {  # part of a script's or a style sheet's name -> what a page that uses it contains
    "thebe": re.compile(r"(?!)"),  # nothing does
    "copybutton": re.compile(r"(?!)"),  # `reader.js` has its own, made when a block comes near the screen
    "clipboard": re.compile(r"(?!)"),
    "togglebutton": re.compile(r'class="[^"]*(dropdown|toggle|tag_hide)'),
    "design-tabs": re.compile(r'class="[^"]*sd-tab-set'),
    "sphinx-design": re.compile(r'class="[^"]*sd-'),
    "mystnb": re.compile(r'class="[^"]*\bcell\b'),
    "exercise.css": re.compile(r'class="[^"]*(exercise|solution)'),
    "course.js": FORMS,
    "live.js": LIVE,
    "lab.js": re.compile(r"data-lab"),
    "live.css": LIVE,
    "elements.css": FORMS,
}
FIRST = Path(__file__).with_name("first.js")  # a page's first script: storage and colours
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


NO_BREAK = "\N{NO-BREAK SPACE}"
_DIGITS = r"[≈~<>≤≥±+−–-]{0,2}\s?\d[\d,.  ]*(?:e[+−-]?\d+)?"
_NAMED = r"(?:\s?(?:[%×°]|[^\W\d]\w*(?:/\w+)?){1,2})?"  # a unit, a word such as tokens, or none
NUMBER = re.compile(rf"{_DIGITS}{_NAMED}(?:\s?[–/-]\s?{_DIGITS}{_NAMED}){{0,2}}(?:\s?\([^)]{{1,24}}\))?")
NOTHING = re.compile(r"(?:[–—-]|none|never)?")  # in a column of numbers, where there is none
UNIT = re.compile(r"(?<=\d) (?=(?:%|×|[µmn]?s|min|[kMGT]i?B(?:/s)?|B)(?![\w-]))")
OPTION = re.compile(r"(?<![\w-])-{1,2}\w+")  # of a command
HYPHEN = re.compile(r"(?:(?<=[\s,(≈>])|^)-(?=\d)")  # of a negative number
LONG = 28  # letters: more than a narrow column holds in two lines
SHORT = 12  # letters: a cell with no more is one line, and a row's name with more gets some room
ROW = re.compile(r"(<tr\b[^>]*>)(.*?)(</tr>)", re.S)
CELL = re.compile(r"<(t[dh])\b([^>]*)>((?:(?!</t[dh]>).)*)</t[dh]>", re.S)


def aligned(html: str) -> str:
    """Columns of numbers are right-aligned, heads included, and no number is broken in two or parted from its unit.

    A column is one of numbers if more than half of its cells are. A cell with more words than a line holds gets a
    class, and so does a row's name, so that on a phone a table scrolls and they are no columns of single words.
    """
    return re.sub(r"<table\b.*?</table>", lambda found: _aligned_table(found[0]), html, flags=re.S)


def _aligned_table(table: str) -> str:
    columns: dict[int, list[bool]] = {}
    for row in ROW.finditer(table):
        for k, (tag, _, inner) in enumerate(CELL.findall(row[2])):
            if tag == "td" and not NOTHING.fullmatch(_said(inner)):
                columns.setdefault(k, []).append(bool(NUMBER.fullmatch(_said(inner))))
    numbers = {k for k, are in columns.items() if 2 * sum(are) > len(are)}
    if "colspan" in table:  # a cell's place in its row does not tell its column
        numbers = set()

    def row(found: re.Match[str]) -> str:
        places = iter(range(found[2].count("<t")))
        return (
            found[1]
            + CELL.sub(lambda cell: _aligned_cell(cell, next(places) in numbers), found[2])
            + found[3]
        )

    return ROW.sub(row, table)


def _aligned_cell(cell: re.Match[str], is_right: bool) -> str:
    tag, attributes, inner = cell.groups()
    text, classes = _said(inner), []
    is_head = 'scope="col"' in attributes or 'class="head' in attributes
    if tag == "td":
        inner = HYPHEN.sub("\N{MINUS SIGN}", inner) if "<code" not in inner else inner
        inner = OPTION.sub(r'<span class="cp-whole">\g<0></span>', inner) if "<" not in inner else inner
        inner = UNIT.sub(NO_BREAK, inner)
    if tag == "td" and (NUMBER.fullmatch(text) or 0 < len(text) <= SHORT):
        classes.append("cp-whole")
    elif not is_head and len(text) > LONG:
        classes.append("cp-words")
    elif tag == "th" and not is_head and len(text) > SHORT:
        classes.append("cp-row")
    if is_right and (tag == "td" or is_head):
        classes.append("cp-right")
    if classes and "class=" in attributes:  # of the table's own, such as Markdown's text-right
        attributes = attributes.replace('class="', f'class="{" ".join(classes)} ', 1)
    elif classes:
        attributes += f' class="{" ".join(classes)}"'
    return f"<{tag}{attributes}>{inner}</{tag}>"


def _said(inner: str) -> str:
    return re.sub(r"<[^>]+>", "", inner).strip()


INLINE_CODE = re.compile(r"<pre\b.*?</pre>|(<code\b[^>]*>)(.*?)(</code>)", re.S)
LONG_WORD = re.compile(r"[\w./:]{21,}")  # a name that takes more than half a line of a phone
JOINT = re.compile(r"(?<=\w[_/.:])(?=\w)")


def breakable(html: str) -> str:
    """A long name in code breaks where it is put together, `max_num_|batched_tokens`, and no option after `--`."""

    def joints(found: re.Match[str]) -> str:
        if found[1] is None:
            return found[0]
        parts = re.split(r"(<[^>]*>)", found[2])
        for k, words in enumerate(parts[::2]):
            words = LONG_WORD.sub(lambda word: JOINT.sub("<wbr>", word[0]), words)
            parts[2 * k] = OPTION.sub(r'<span class="cp-whole">\g<0></span>', words)
        return found[1] + "".join(parts) + found[3]

    return INLINE_CODE.sub(joints, html)


def named_frames(html: str) -> str:
    """A scrolling frame is called by its caption, or by its columns: "table" names nothing."""

    def name(found: re.Match[str]) -> str:
        frame, table = found.groups()
        caption = re.search(r"<caption[^>]*>(.*?)</caption>", table, re.S)
        heads = re.findall(r"<th[^>]*>(.*?)</th>", table.partition("</thead>")[0], re.S)
        words = caption[1] if caption else ", ".join(heads)
        label = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", words)).strip(" ,") or "table"
        frame = re.sub(r' (?:role|tabindex|aria-label)="[^"]*"', "", frame)
        label = label.replace('"', "&quot;")[:120]
        return f'{frame[:-1]} role="group" tabindex="0" aria-label="Table: {label}">{table}'

    frames = r'(<div class="(?:pst-scrollable-table-container|cp-table)"[^>]*>)\s*(<table.*?</table>)'
    return re.sub(frames, name, html, flags=re.S)


def with_letters(html: str) -> str:
    """A glossary with its letters above it: each leads to the first term that begins so."""
    first: dict[str, str] = {}
    for id, term in re.findall(r'<dt id="(term-[^"]+)"[^>]*>(.*?)</dt>', html, re.S):
        letter = re.sub(r"<[^>]+>", "", term).strip()[:1].upper()
        if letter.isalpha():
            first.setdefault(letter, id)
    links = "".join(f'<a href="#{id}">{letter}</a>' for letter, id in sorted(first.items()))
    bar = f'<nav class="cp-az" aria-label="Letters">{links}</nav>'
    return (
        html.replace('<dl class="simple glossary">', f'{bar}<dl class="simple glossary">', 1)
        if first
        else html
    )


def drop_what_needs_a_kernel(app: Sphinx, doctree: Any) -> None:
    """A page has no kernel: no setup cell, no check that says that nothing was attempted."""
    for cell in list(doctree.findall(nodes.container)):
        if "cell" not in cell.get("classes", ()) or cell.parent is None:
            continue
        text = cell.astext()
        if "written by tools/colab.py" in text or "○ Not attempted." in text:
            cell.parent.remove(cell)


def light_head(head: str) -> str:
    """The head as a phone needs it.

    It has no fontawesome.js (1.5 MB), because `icons.css` draws the dozen icons that the theme uses, and no call for
    bootstrap.js, which comes with the first touch of what it serves. The colours are settled at once.
    """
    head = re.sub(r"<script[^>]*scripts/fontawesome\.js[^>]*></script>", "", head)
    head = re.sub(r"<link[^>]*scripts/bootstrap\.js[^>]*>", "", head)
    theirs = r'(<script data-cfasync="false">)\s*document\.documentElement\.dataset\.mode.*?(</script>)'
    return re.sub(theirs, lambda found: found[1] + FIRST.read_text("utf8") + found[2], head, flags=re.S)


def later_bootstrap(end: str) -> str:
    """The scripts at a page's end: bootstrap.js (menus and hints of the header) waits until `reader.js` fetches it."""
    return re.sub(
        r'<script defer src=("[^"]*scripts/bootstrap\.js)', r'<script type="text/plain" data-later=\1', end
    )


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

    The sidebar becomes a landmark, and its folds say whose pages they hold. The search button loses its
    printed shortcut, which its name does not hold (the keys still work).
    """
    page = re.sub(
        r'(<li class="toctree-l1[^"]*has-children"><a [^>]*>([^<]*)</a><details[^>]*>)<summary>',
        r'\1<summary aria-label="Pages below \2">',
        page,
    )
    page = page.replace(
        '<div id="pst-primary-sidebar"',
        '<div role="complementary" aria-label="Book" id="pst-primary-sidebar"',
    )
    button = (
        r'(<button class="btn search-button-field.*?)<span class="search-button__kbd-shortcut">.*?</span>'
    )
    return re.sub(button, r"\1", page, flags=re.S)


def styled_once(html: str) -> str:
    """A page's forms each bring their style, for a cell that stands alone; in a page each style is sent once.

    Twenty equal style sheets make a phone match twenty times as many rules, at load and at each tap.
    """
    seen: set[str] = set()

    def once(found: re.Match[str]) -> str:
        if found[0] in seen:
            return ""
        seen.add(found[0])
        return found[0]

    return re.sub(r"<style>[^<]*</style>", once, html)


def tab_stops(html: str) -> str:
    """A block of code can be reached by keyboard from the start; `reader.js` takes back what need not scroll."""
    return re.sub(r'(<div class="highlight">)<pre>', r'\1<pre tabindex="0">', html)


THEME = "_static/scripts/pydata-sphinx-theme.js"
MEASURES_ALL = ".forEach(e=>{e.tabIndex=e.scrollWidth>e.clientWidth||e.scrollHeight>e.clientHeight?0:-1})"


def calm_theme(app: Sphinx, exception: Exception | None) -> None:
    """Take out of the theme's script what measures every box of a page at load and after each change.

    It reads and writes in turn, which lays a long page out again for each box; `reader.js` does it in time.
    """
    script = Path(app.outdir, THEME)
    if exception is not None or app.builder.name != "html":
        return
    text = script.read_text("utf8") if script.is_file() else ""
    if MEASURES_ALL in text:
        script.write_text(text.replace(MEASURES_ALL, ""), "utf8")
    elif "scrollHeight>e.clientHeight" in text or not text:
        LOGGER.warning("%s is not the script that calm_theme knows", THEME, type="coursebook")


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
    context["light_head"] = light_head
    context["later_bootstrap"] = later_bootstrap
    context["without_search_index"] = without_search_index
    body = context.get("body", "")
    if body:
        if pagename.endswith("/glossary"):
            body = with_letters(body)
        body = styled_once(body)
        body = fold_evidence(fold_code(named_frames(aligned(frame_tables(spoken(body))))))
        context["body"] = body = hold_pictures(hold_frames(tab_stops(breakable(body))))
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
    app.connect("doctree-read", drop_what_needs_a_kernel)
    app.connect("env-get-outdated", outdated_look)
    app.connect("html-page-context", lighten_page, priority=999)
    app.connect("build-finished", calm_theme, priority=998)
    app.connect("build-finished", forget_warned, priority=999)
    sources = (Path(__file__), FIRST, Path(__file__).with_name("folds.py"))
    edition = zlib.crc32(b"".join(path.read_bytes() for path in sources))  # changed: read every page again
    return {"version": "1", "env_version": edition, "parallel_read_safe": True, "parallel_write_safe": True}
