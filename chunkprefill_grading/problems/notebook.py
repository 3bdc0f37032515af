"""The notebook of a problem set, to be handed out or solved: plain JSON that opens wherever notebooks do."""

from __future__ import annotations

import json
import pprint
from typing import Any

import chunkprefill
from chunkprefill_grading.problems.check_cell import check_cell
from chunkprefill_grading.problems.sheet import Question, Sheet
from chunkprefill_grading.submission.stamps import KEY, LINE

HOME, BRANCH = "https://github.com/OWNER/chunkprefill", "main"  # tests hold them to _config.yml

# How a notebook that is opened on Colab fetches the package: part of the chapters' setup cell (tools/colab.py), and
# of SETUP below.
FETCH = """\
import importlib.util
import sys
import urllib.request

if "google.colab" in sys.modules and importlib.util.find_spec("chunkprefill") is None:
    archives = "{url}/archive/refs"
    for ref in ("tags/v{version}", "heads/{branch}"):  # the release; the branch, until there is one
        archive = f"{{archives}}/{{ref}}.tar.gz"
        try:
            urllib.request.urlopen(archive).close()
        except OSError:
            continue
        %pip install -q --no-deps "chunkprefill @ {{archive}}"
        break
    else:
        sys.exit(f"chunkprefill is not at {{archives}}: neither release v{version} nor branch {branch}")
"""
SETUP = f"""\
# Setup: on Colab it fetches the package, elsewhere it does nothing.
{FETCH}
import chunkprefill as cp
"""

RULES = """\
How this works:

- Answer in the cells that begin with `# Answer:`, under the names that stand there. Cells may be added, and moved.
- The check beneath an answer says whether it is **well formed**. It never says whether it is right.
- Your notebook is run from top to bottom by a program, without a network and with limits on time and memory. What it prints is not looked at. Only the answers count.
- Where it runs there are the standard library, numpy, `chunkprefill`{torch}, and no other package. Plots, progress bars and magics are let pass and do nothing. A cell that ends the program, or never ends, is left out.
- The ways to solve these questions are public, and so are the programs that draw them. What is drawn for you is not: numbers, rules, workloads, the form in which a function is called, the labels of a choice. A set of another draw is good practice, and its answers do not fit this one.
"""


def marker(name: str) -> str:
    """The line that a written answer stands below."""
    return f"<!-- answer: {name} -->"


def notebook(sheet: Sheet, *, solved: bool = False) -> dict[str, Any]:
    """The notebook as JSON: to be filled in, or with the solutions (a written one has its rubric)."""
    words = {"url": HOME, "branch": BRANCH, "version": chunkprefill.__version__}
    total = f"{sheet.max_score:g} points in {len(sheet.questions)} questions."
    rules = RULES.format(torch=" and torch" if sheet.needs_torch else "")
    drawn = f"\n\n{LINE.format(stamp=sheet.stamp)}" if sheet.stamp else ""
    cells = [
        _text(f"# {sheet.title}{' (solution)' * solved}\n\n{sheet.intro} {total}{drawn}\n\n{rules}"),
        _code(SETUP.format(**words).rstrip("\n")),
        _code(check_cell()),
    ]
    if sheet.setup:
        cells.append(_code(sheet.setup))
    for number, question in enumerate(sheet.questions, 1):
        cells += _question(number, question, solved)
    forms = {question.name: _form(question) for question in sheet.questions}
    text = pprint.pformat(forms, width=100, sort_dicts=False)
    cells.append(_text("## What is answered\n\nRun this last. Then save the notebook, and hand it in."))
    cells.append(_code(f"for name, form in {text}.items():\n    print(look(globals(), name, form))"))
    for i, cell in enumerate(cells):
        cell["id"] = f"{sheet.name.lower()}-{i:02d}"
    return {
        "cells": cells,
        "metadata": {
            KEY: {"draw": sheet.stamp},
            "colab": {"provenance": []},
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"file_extension": ".py", "name": "python", "pygments_lexer": "ipython3"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def as_json(notebook: dict[str, Any]) -> str:
    """As Jupyter writes it: lines as lists, so that it can be compared."""
    cells = [cell | {"source": cell["source"].splitlines(keepends=True)} for cell in notebook["cells"]]
    return json.dumps(notebook | {"cells": cells}, indent=1, ensure_ascii=False) + "\n"


def _question(number: int, question: Question, solved: bool) -> list[dict[str, Any]]:
    table = "\n".join(f"| {what} | {points:g} |" for what, points in question.table)
    head = (
        f"## {number}. {question.title}\n\n{question.text}\n\n"
        f"| {question.points:g} points | |\n|---|---|\n{table}"
    )
    if question.written:
        body = question.solution if solved else ""
        return [_text(head), _text(f"{marker(question.name)}\n\n{body}".rstrip() + "\n")]
    cells = [
        _text(head),
        *([_code(question.given.rstrip("\n"))] if question.given else []),
        _code(f"# Answer: {question.name}\n{question.solution if solved else question.starter}"),
        _code(f"print(look(globals(), {question.name!r}, {json.dumps(_form(question))}))"),
    ]
    return cells + ([_code(question.public.rstrip("\n"))] if question.public else [])


def _form(question: Question) -> dict[str, Any]:
    return {"kind": "written"} if question.written else question.form


def _text(source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": "", "metadata": {}, "source": source}


def _code(source: str) -> dict[str, Any]:
    kept: dict[str, Any] = {"execution_count": None, "metadata": {}, "outputs": []}
    return {"cell_type": "code", "id": "", "source": source, **kept}
