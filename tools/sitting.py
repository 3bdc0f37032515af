"""How long a chapter and its practice take: `python tools/sitting.py [--check]` writes the headers' minutes.

The minutes are the sum of what is there: what a reader sees, at 200 words a minute, and the exercises' own times.
Seen are prose, code that is not folded, captions, tables and verdicts; what waits behind a fold is not.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from html.parser import HTMLParser
from math import ceil
from pathlib import Path

from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
# beside each other, so that tests may import this file as tools.sitting
sys.path[:0] = [str(ROOT), str(ROOT / "book/_ext"), str(ROOT / "tools")]

from folds import LONG_CODE, fold_evidence  # noqa: E402

from chunkprefill_course import exercises  # noqa: E402
from notebooks import all_notebooks, kind, read, shown, write  # noqa: E402

WORDS_A_MINUTE = 200
QUESTION_MINUTES = 1  # of a question, a guess or an explorer: none has a time of its own
CASE_MINUTES = 5  # of a case of the clinic: a dashboard and three questions
STEP_MINUTES = 5  # headers are rounded up to full steps: no reader plans to the minute
WORD = re.compile(r"[^\W\d_]{2,}")
BENEATH = {"practice": "the practice", "further": "further reading"}  # kind of page -> as a header names it
TIME = re.compile(
    rf"- \*\*Time:\*\* \d+ minutes(?:(?:, and|,) \d+ for \[(?:{'|'.join(BENEATH.values())})\]\([^)]*\))*\."
)
MARKUP = (  # what stands in the markdown, and what of it is read
    (re.compile(r"<!--.*?-->", re.S), " "),
    (re.compile(r"^\([\w-]+\)=$|^:{3,}.*$|^\|[-:| ]+\|$", re.M), " "),
    (re.compile(r"\{\w+(?::\w+)?\}`([^`<]*)(?:<[^`]*>)?`"), r"\1"),
    (re.compile(r"\]\([^)]*\)"), "] "),
    (re.compile(r"<[^>]+>"), " "),
)


@dataclass(frozen=True)
class Sitting:
    """What a notebook asks of a reader: words to read, and minutes of exercises."""

    words: int
    exercise_minutes: int

    @property
    def minutes(self) -> float:
        return self.words / WORDS_A_MINUTE + self.exercise_minutes

    @property
    def told(self) -> int:
        """The minutes of a header."""
        return STEP_MINUTES * ceil(self.minutes / STEP_MINUTES)


def sitting(notebook: NotebookNode) -> Sitting:
    """Of all cells that a page shows."""
    words = minutes = 0
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", ())
        if cell.id == "setup" or "remove-cell" in tags:
            continue
        if cell.cell_type == "markdown":
            words += count(plain(cell.source))
            continue
        if ".as_choice(" in cell.source:  # for who does not write the program: one of the two
            continue
        form = form_minutes(cell.source)
        minutes += form
        if not tags and cell.source.count("\n") < LONG_CODE:
            words += count(cell.source)
        if not form and not {"hide-output", "hide-cell"} & set(tags):
            html = [output.get("data", {}).get("text/html", "") for output in cell.outputs]
            words += sum(map(count, map(seen, html)))
            minutes += QUESTION_MINUTES * sum("cp-explorer" in text for text in html)
    return Sitting(words, minutes)


def form_minutes(source: str) -> int:
    """What the form shown by a cell takes; 0 for a cell that shows none, or one that stands in for another."""
    if re.fullmatch(r"course\.clinic\.form\(.*\)", source.strip()):
        return CASE_MINUTES
    if found := re.fullmatch(r"course\.exercises\.(\w+)", source.strip()):
        return getattr(getattr(exercises, found[1]), "minutes", QUESTION_MINUTES)
    return 0


def plain(markdown: str) -> str:
    """Markdown as it is read: no comments, no targets of links, no names of roles."""
    for pattern, instead in MARKUP:
        markdown = pattern.sub(instead, markdown)
    return markdown


def count(text: str) -> int:
    """Words; a number is looked at, not read."""
    return len(WORD.findall(text))


class _Seen(HTMLParser):
    """Collects the words of an output that stand before a reader who opens nothing."""

    HIDDEN = ("details", "svg", "style", "script", "template")
    VOID = ("area", "br", "col", "hr", "img", "input", "link", "meta", "wbr")

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.words: list[str] = []
        self._open: list[bool] = []  # for each open element: is it hidden?

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            hidden = tag in self.HIDDEN or "cp-explorer" in (dict(attrs).get("class") or "")
            self._open.append(hidden or (bool(self._open) and self._open[-1]))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID and self._open:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if not (self._open and self._open[-1]):
            self.words.append(data)


def seen(html: str | list[str]) -> str:
    """The words of an output in HTML, without what is folded, drawn, or one frame of an explorer."""
    parser = _Seen()
    parser.feed(fold_evidence(html if isinstance(html, str) else "".join(html)))
    return " ".join(parser.words)


def header(path: Path, notebook: NotebookNode, all_paths: list[Path]) -> str:
    """The line about time that a notebook should carry; the words about its cells' time are the author's."""
    line = f"- **Time:** {sitting(notebook).told} minutes"
    if kind(path) == "chapter":
        beneath = [
            f"{sitting(read(other)).told} for [{BENEATH[kind(other)]}]({other.name})"
            for other in all_paths
            if kind(other) in BENEATH and other.name[:2] == path.name[:2]
        ]
        line += "".join(
            f"{', and' if i == len(beneath) else ','} {words}" for i, words in enumerate(beneath, 1)
        )
    return f"{line}."


def stamped(path: Path, notebook: NotebookNode, all_paths: list[Path]) -> str:
    """The source of a notebook's first cell with its minutes. ValueError where it has no line about time."""
    source = notebook.cells[0].source
    if len(TIME.findall(source)) != 1:
        raise ValueError(f"{shown(path)}: its first cell needs one line `- **Time:** N minutes.`")
    return TIME.sub(lambda _: header(path, notebook, all_paths), source)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a header is stale")
    args = parser.parse_args(argv)
    paths, stale = all_notebooks(), []
    for path in paths:
        notebook = read(path)
        found, source = sitting(notebook), stamped(path, notebook, paths)
        print(
            f"{shown(path)}: {found.words:,} words, {found.exercise_minutes} min of exercises: {found.told} min"
        )
        if source != notebook.cells[0].source:
            stale.append(shown(path))
            notebook.cells[0].source = source
            if not args.check:
                write(path, notebook)
    if args.check and stale:
        print(f"stale minutes, run tools/sitting.py: {', '.join(stale)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
