"""One page a student: points, what was marked, their own answer, and hints. No key, no hidden workload."""

from __future__ import annotations

import html
import io
import re
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from chunkprefill_grading.marking.mark import Mark
from chunkprefill_grading.marking.results import Result
from chunkprefill_grading.reports.gradebooks import late_words
from chunkprefill_grading.sandbox.session import KINDS
from chunkprefill_grading.sandbox.wire import FORMS
from chunkprefill_grading.submission.archives import readable
from chunkprefill_grading.submission.files import replace_file

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
ul {{ margin: .3rem 0; }}
</style>
</head>
<body>
<main>
"""
_WORDS = {
    "ok": "",
    "excused": "",
    "no answer": "No answer.",
    "bad answer": "The answer cannot be read.",
    "raised": "Your code stopped with an error.",
    "timeout": "Not reached: the time was over.",
    "memory": "Not reached: the memory was full.",
    "crashed": "Not reached: your process had ended.",
    "unreadable": "",
    "another set": "",
    "needs manual": "A person will read this answer.",
}
_STATUS = {
    "unreadable": "Your file could not be read as a notebook.",
    "another set": "Your notebook answers another draw of the problem set.",
    "timeout": "Your notebook ran out of time.",
    "memory": "Your notebook ran out of memory.",
    "crashed": "Your notebook's process ended before it had answered.",
    "no answer": "No question is answered.",
    "needs manual": "Some answers are still to be read by a person.",
}
MOST_SHOWN = 4_000  # characters of an answer
_RAISED = re.compile(r"it raised (\w+|an error of its own)(?: \(code cell \d{1,4}, line \d{1,7}: `.*`\))?")


def page(result: Result) -> str:
    """The page of one student. Everything that came from a notebook is escaped."""
    title = f"{result.problem_set}: {result.student}"
    parts = [_HEAD.format(title=_esc(title)), f"<h1>{_esc(title)}</h1>\n"]
    if result.score is not None:
        parts.append(f'<p class="score">{result.score:g} of {result.max_score:g} points</p>\n')
    else:
        words = f"{_STATUS[result.status]} There is no score yet, and none is not zero. "
        parts.append(f'<p class="score">{_esc(words)}Reason: {_esc(result.reason)}</p>\n')
    if late := late_words(result):
        parts.append(f"<p>Handed in {_esc(late)}.</p>\n")
    parts += [_question(result, mark) for mark in result.marks]
    if result.cells:
        parts.append(
            "<section>\n<h2>Cells that stopped with an error</h2>\n<p>The cells after them ran.</p>\n"
        )
        for cell, words in result.cells[:20]:
            place = "" if "(code cell" in words else f" (code cell {cell})"
            parts.append(f"<pre>{_esc(words + place)}</pre>\n")
        parts.append("</section>\n")
    return "".join([*parts, "</main>\n</body>\n</html>\n"])


def _esc(text: str) -> str:
    """For a page: markup as text, and what no page can show as a sign for it."""
    clean = "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in readable(text))
    return html.escape(clean)


def _question(result: Result, mark: Mark) -> str:
    """One question: its points, what was said of it, what was marked, and the student's own answer."""
    waits = mark.status == "needs manual"
    points = "" if waits else f"{mark.points:g} of {mark.max_points:g} points. "
    said = " ".join(filter(None, (_WORDS.get(mark.status, ""), mark.comment, shown(mark))))
    parts = [f"<section>\n<h2>{_esc(mark.question)}</h2>\n"]
    parts.append(f'<p class="points"><strong>{points}</strong>{_esc(said)}</p>\n')
    if (lines := earned(result, mark)) and not waits:
        rows = "".join(f"<li>{_esc(what)}: {_esc(got)}</li>\n" for what, got in lines)
        parts.append(f"<ul>\n{rows}</ul>\n")
    own = result.written.get(mark.question) or result.answers.get(mark.question, "")
    if own:
        cut = "\n[…]" if len(own) > MOST_SHOWN else ""
        parts.append(f"<p>Your answer:</p>\n<pre>{_esc(own[:MOST_SHOWN] + cut)}</pre>\n")
    parts.append("</section>\n")
    return "".join(parts)


def earned(result: Result, mark: Mark) -> list[tuple[str, str]]:
    """(what is marked, what it earned) of a question, as far as the mark tells them apart."""
    rows = result.rubric.get(mark.question, ())
    if mark.status == "excused" or not rows:
        return []
    if mark.points >= mark.max_points:
        return [(what, f"{points:g} of {points:g}") for what, points in rows]
    if mark.points == 0:
        return [(what, f"0 of {points:g}") for what, points in rows]
    missed = {each.strip().strip("`").casefold() for each in mark.reason.split(",")}
    right = [what.strip("`").casefold() not in missed for what, _ in rows]
    added = sum(points for (_, points), got in zip(rows, right) if got)
    if not all(right) and abs(added - mark.points) < 1e-9:
        return [(what, f"{points if got else 0:g} of {points:g}") for (what, points), got in zip(rows, right)]
    return [(what, f"{points:g} at most") for what, points in rows]


def shown(mark: Mark) -> str:
    """Why an answer could not be judged, in words of ours alone.

    What the student's process said while it was asked hidden questions may quote them. The grader has replaced
    it by sentences of its own; a result that holds any other, from wherever it came, is not believed.
    """
    if mark.status == "raised":
        found = _RAISED.fullmatch(mark.reason)
        known = found and (found[1] in KINDS or found[1] == "an error of its own")
        return f"{mark.reason[0].upper()}{mark.reason[1:]}." if known else "An exception."
    if mark.status == "bad answer":
        return f"{mark.reason[0].upper()}{mark.reason[1:]}." if mark.reason in FORMS.values() else ""
    return "" if mark.status != "no answer" or mark.reason == "not answered" else mark.reason


def release(due: float | None) -> str:
    """When the pages may be given out. due: s since 1970, of the last extension; None: not known."""
    why = "a student who may still hand in learns from a page what to change"
    if due is None:
        return f"Give these pages out when no student can hand in any more: {why}. `late` keeps the deadline."
    said = time.strftime("%Y-%m-%d %H:%M", time.localtime(due))
    return f"Do not give these pages out before {said}, when the last deadline ends: {why}."


def write(results: Sequence[Result], out: Path, *, pack: str = "") -> list[Path]:
    """Write the pages into `out`; pack: also a zip that "moodle" or "canvas" takes back.

    The zip has the pages of those whom that system knows; ValueError where it knows none (`not_packed`).
    """
    if pack and len(not_packed(results, pack)) == len(results):
        raise ValueError(
            f"{pack.title()} knows none of these students: collect them from {pack.title()}'s own zip"
        )
    paths = []
    for result in results:
        paths.append(out / f"{result.slug}.html")
        replace_file(paths[-1], page(result))
    if pack:
        paths.append(out / f"{pack}-feedback.zip")
        replace_file(paths[-1], _zip(results, pack))
    return paths


def not_packed(results: Sequence[Result], pack: str) -> list[str]:
    """What is said of each student whose page cannot be in the zip for a learning system."""
    what = "number" if pack == "moodle" else "file name"
    return [
        f"{result.student}: not in the zip, because no {what} of {pack.title()}'s is known"
        for result in results
        if _packed_name(result, pack) is None
    ]


def _zip(results: Sequence[Result], pack: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for result in results:
            if (name := _packed_name(result, pack)) is not None:
                info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                archive.writestr(info, page(result).encode("utf-8", "backslashreplace"))
    return packed.getvalue()


def _packed_name(result: Result, pack: str) -> str | None:
    """What the file of a student is called in the zip; None where the learning system would not know it."""
    if pack == "moodle" and result.moodle_id:
        name = re.sub(r"[_/\\\0]", " ", readable(result.name))  # Moodle counts the underscores
        return f"{name}_{result.moodle_id}_assignsubmission_file_/feedback.html"
    if pack == "canvas" and result.lms.startswith("canvas"):  # Canvas finds both of its numbers in the name
        return PurePosixPath(readable(result.source)).name.removesuffix(".ipynb") + ".html"
    return None
