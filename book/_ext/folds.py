"""What of a page waits: long code and a claim's long table of numbers behind a fold, an explorer's frames unread.

HTML in, HTML out.
"""

from __future__ import annotations

import re

LONG_CODE = 12  # lines of a cell that a phone shows at once
LONG_EVIDENCE = 6  # rows of a claim's numbers that stand before a reader who asks for none


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


def fold_evidence(html: str) -> str:
    """Fold a claim's numbers behind its verdict where they are more than `LONG_EVIDENCE` rows.

    The numbers of the changed condition are in a fold already.
    """

    def fold(found: re.Match[str]) -> str:
        opening, table = found.groups()
        n_rows = table.partition("</thead>")[2].count("<tr")
        if n_rows <= LONG_EVIDENCE:
            return found[0]
        return (
            f'{opening}<details class="cp-numbers"><summary>The {n_rows} numbers</summary>{table}</details>'
        )

    return re.sub(
        r'(?<!</summary>)(<div class="cp-evidence"[^>]*>(?:<p\b.*?</p>)+)(<div class="cp-table".*?</table></div>)',
        fold,
        html,
        flags=re.S,
    )


def hold_frames(html: str) -> str:
    """Leave the frames of explorers that do not show at first unread, until `reader.js` is asked for one.

    What stands in `<noscript>` is no element where scripts run: a phone need not build four thousand of them to
    show the first frame. Where no script runs, all is as it was.
    """
    parts, at = [], 0
    for found in re.finditer(r'<div class="cp-explorer" id="([^"]+)"', html):
        end = _closed(html, found.start())
        checked = dict(re.findall(rf'id="{found[1]}-(\d+)-(\d+)" checked', html[found.start() : end]))
        shown = "cp-frame-" + "-".join(checked[p] for p in sorted(checked))
        for frame in re.finditer(r'<div class="(cp-frame [^"]*)">', html[found.start() : end]):
            begin = found.start() + frame.end()
            if shown in frame[1].split():
                continue
            close = _closed(html, found.start() + frame.start()) - len("</div>")
            parts += [html[at:begin], "<noscript>", html[begin:close], "</noscript>"]
            at = close
    return "".join([*parts, html[at:]])


def hold_pictures(html: str) -> str:
    """Leave a picture behind a closed fold unread until the fold is opened: the clinic's ten are half its page."""
    folds: list[bool] = []  # of the folds around, whether each is shut
    parts, at, svgs, held, unread = [], 0, 0, False, False
    for tag in re.finditer(r"<(/?)(details|svg|noscript)\b([^>]*)>", html):
        closes, name, rest = tag[1] == "/", tag[2], tag[3]
        if name == "noscript":
            held = not closes
        elif held:
            continue
        elif name == "details":
            if closes:
                folds.pop()
            else:
                folds.append(re.search(r"\bopen\b", rest) is None)
        elif not closes:
            if svgs == 0 and any(folds):
                parts += [html[at : tag.start()], "<noscript>"]
                at, unread = tag.start(), True
            svgs += 1
        else:
            svgs -= 1
            if svgs == 0 and unread:
                parts += [html[at : tag.end()], "</noscript>"]
                at, unread = tag.end(), False
    return "".join([*parts, html[at:]])


def _closed(html: str, start: int) -> int:
    """Where the `<div>` that begins at `start` has ended."""
    depth = 0
    for tag in re.finditer(r"<(/?)div\b", html[start:]):
        depth += -1 if tag[1] else 1
        if depth == 0:
            return html.index(">", start + tag.start()) + 1
    raise ValueError(f"a div that does not end: {html[start : start + 80]}")
