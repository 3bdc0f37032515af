"""One page a student: points and words for each question. No key, no hidden workload, nothing that runs."""

from __future__ import annotations

import builtins
import html
import io
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

from chunkprefill.grading.marking import Mark
from chunkprefill.grading.results import Result, replace_file

# No script, no image, no address: whatever a student wrote, the page fetches and runs nothing.
_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --line: #8a8a8a; --soft: #f1f3f5; }}
@media (prefers-color-scheme: dark) {{ :root {{ --soft: #24282d; }} }}
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 46rem; margin: 0 auto; padding: 1rem;
       overflow-wrap: anywhere; }}
h1 {{ font-size: 1.4rem; }} h2 {{ font-size: 1.1rem; margin: 0; }}
.score {{ font-size: 1.2rem; padding: .6rem .8rem; background: var(--soft);
          border-left: 4px solid var(--line); }}
section {{ border-top: 1px solid var(--line); padding: .8rem 0; }}
.points {{ margin: .1rem 0; }} pre {{ white-space: pre-wrap; background: var(--soft); padding: .6rem; }}
</style>
</head>
<body>
<main>
"""
_WORDS = {
    "ok": "",
    "no answer": "No answer.",
    "bad answer": "The answer cannot be read.",
    "raised": "Your code stopped with an error.",
    "timeout": "Not reached: the time was over.",
    "memory": "Not reached: the memory was full.",
    "crashed": "Not reached: your process had ended.",
    "needs manual": "A person will read this answer.",
}
_STATUS = {
    "unreadable": "Your file could not be read as a notebook.",
    "timeout": "Your notebook ran out of time.",
    "memory": "Your notebook ran out of memory.",
    "crashed": "Your notebook's process ended before it had answered.",
    "no answer": "No question is answered.",
    "needs manual": "Some answers are still to be read by a person.",
}
_PLACE = re.compile(r"\(code (cell \d{1,4}, line \d{1,5})\)$")
_TYPE = r"(?:int|float|str|bool|list|tuple|dict|set|NoneType|function|type|ndarray|Tensor|generator|complex)"
_FORMS = (
    rf"a value of type {_TYPE}(?:: not a number, a string, a list or a dict| is no function|"
    r" where a number is asked for| is no policy: it has no method schedule)?",
    r"an array of shape \[[\d, ]{0,24}\], \[[\d, ]{0,24}\] is asked for",
    r"an array of (?:int|float|bool) numbers, \w{3,8} is asked for",
    r"more than \d{1,9} (?:items|characters)|nested deeper than \d levels",
    r"(?:nan|inf|-inf) is not a finite number|\d{1,9} numbers, and not all of them are finite",
)


def page(result: Result) -> str:
    """The page of one student. Everything that came from a notebook is escaped."""
    esc = html.escape
    title = f"{result.problem_set}: {result.student}"
    parts = [_HEAD.format(title=esc(title)), f"<h1>{esc(title)}</h1>\n"]
    if result.score is not None:
        parts.append(f'<p class="score">{result.score:g} of {result.max_score:g} points</p>\n')
    else:
        words = f"{_STATUS[result.status]} There is no score yet, and none is not zero. "
        parts.append(f'<p class="score">{esc(words)}Reason: {esc(result.reason)}</p>\n')
    for mark in result.marks:
        points = "" if mark.status == "needs manual" else f"{mark.points:g} of {mark.max_points:g} points. "
        said = " ".join(filter(None, (_WORDS.get(mark.status, ""), mark.comment, shown(mark))))
        parts.append(f"<section>\n<h2>{esc(mark.question)}</h2>\n")
        parts.append(f'<p class="points"><strong>{points}</strong>{esc(said)}</p>\n</section>\n')
    if result.cells:
        parts.append(
            "<section>\n<h2>Cells that stopped with an error</h2>\n<p>The cells after them ran.</p>\n"
        )
        for cell, words in result.cells[:20]:
            place = "" if "(code cell" in words else f" (code cell {cell})"
            parts.append(f"<pre>{esc(words + place)}</pre>\n")
        parts.append("</section>\n")
    return "".join([*parts, "</main>\n</body>\n</html>\n"])


def shown(mark: Mark) -> str:
    """Why an answer could not be judged, in words of ours alone.

    What the student's process said while it was asked hidden questions may quote them, so nothing of it is
    shown but the kind of a known exception and its place, or a sentence that this program itself writes.
    """
    if mark.status == "raised":
        kind = mark.reason.partition(":")[0]
        known = isinstance(getattr(builtins, kind, None), type) and kind.endswith(
            ("Error", "Exception", "Exit")
        )
        place = _PLACE.search(mark.reason)
        return f"{kind if known else 'An exception'}{f' in {place[1]}' if place else ''}."
    if mark.status == "bad answer":
        return next((f"It is {mark.reason}." for form in _FORMS if re.fullmatch(form, mark.reason)), "")
    return "" if mark.status != "no answer" or mark.reason == "not answered" else mark.reason


def write(results: Sequence[Result], out: Path, *, moodle: bool = False) -> list[Path]:
    """Write the pages into `out`; moodle: also a zip that Moodle's "Upload multiple feedback files" takes.

    Raises ValueError where Moodle's names are not known for all.
    """
    if moodle and (unknown := [result.student for result in results if not result.moodle_id]):
        names = ", ".join(unknown[:5])
        raise ValueError(f"no Moodle number for {names}: collect them from Moodle's own zip")
    paths = []
    for result in results:
        paths.append(out / f"{result.slug}.html")
        replace_file(paths[-1], page(result))
    if moodle:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for result in results:
                name = re.sub(r"[_/\\]", " ", result.name)  # Moodle counts the underscores
                folder = f"{name}_{result.moodle_id}_assignsubmission_file_"
                info = zipfile.ZipInfo(f"{folder}/feedback.html", (1980, 1, 1, 0, 0, 0))
                archive.writestr(info, page(result))
        paths.append(out / "moodle-feedback.zip")
        replace_file(paths[-1], packed.getvalue())
    return paths
