"""What of a page waits behind a fold: long code, and a claim's long table of numbers. HTML in, HTML out."""

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
