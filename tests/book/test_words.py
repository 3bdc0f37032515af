"""Turns of phrase that readers had to read twice, and that do not come back: in pages, notebooks, exercises.

Each entry of BANISHED is a pattern and what is wrong with it. A pattern joins the list once the whole repository is
free of it. Code is not searched; comments and names may use these words.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from tests.needs import ROOT

ACTOR = "name the actor: the policy, the scheduler, a server, a chat, a reader"
BANISHED = {
    r"\bsomebody\b": ACTOR,
    r"\bwhoever\b": ACTOR,
    r"\b(?:is|are|there is) to be seen\b": "say what the reader should notice",
    r"\bTwo things are to\b": "say: notice two things",
    r"\btokens? walks?\b": "tokens go through the model, or run",
    r"\btakes? home\b": "a token collects a mix of values",
    r"\bwhat else runs there\b": "say: other programs",
    r"\bdisturbs? (?:it )?little\b": "say: barely affects",
    r"\basks for a GPU, and does without\b": "say: requests a GPU but runs without one",
    r"\bfor somebody trained\b|\bweights that someone trained\b": "say: its weights were trained on a lot of text",
    r"\bways? to cut the prompt gave\b": "say: all cuts gave the same text",
    r"\bbefore the door\b": "say: waits outside",
    r"\bsay for what\b(?=\.)": "say what each waits for",
    r"\btells of stalls\b": "say: reveals stalls",
    r"\bmakes never\b": "say: never makes",
    r"\bthe length in all\b": "say: the total length",
    r"\bbring them into an order\b": "say: put them into an order",
    r"\bshorter longest silence\b": "say: a shorter longest gap",
    r"\bbut for rounding\b": "say: apart from rounding",
    r"\beverybody\b": ACTOR,
    r"\bof (?:whomever|whichever)\b": ACTOR,
    r"\bas it comes\b": "say: by default",
    r"\banyhow\b": "say: anyway, or leave it out",
    r"\bfor ever\b": "one word",
    r"\bas long as ever\b": "say: as long as before",
    r"\btaken off (?:the|what)\b": "say: subtracted from",
    r"\bpaid whole\b": "say: paid for as a whole",
    r"\bst(?:ands?|ood) in line\b": "a prompt waits in line",
    r"\bfirst word\b": "say: first token",
    r"\b(?:is|are) let in\b": "say: admitted",
    r"\btwo cards\b": "cards are what one studies; say: two GPUs",
    r"\bIt is the rule itself\b": "say what the rule explains, and what it does not",
}


def notebook_texts() -> Iterator[tuple[str, str]]:
    """What a reader reads of the notebooks: markdown, and the strings of the code cells."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            where = f"{path.name}, cell {cell.id}"
            if cell.cell_type == "markdown":
                yield where, cell.source
            else:
                yield from ((where, text) for text in strings(cell.source))


def strings(code: str) -> Iterator[str]:
    """The strings of a piece of code, without the docstrings of what it defines."""
    tree = ast.parse(re.sub(r"^( *)[%!].*$", r"\1pass", code, flags=re.M))
    silent = {
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
        and isinstance(node.body[0].value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in silent:
            yield node.value


def texts() -> Iterator[tuple[str, str]]:
    """Everything that a reader is shown, with where it stands."""
    pages = [*(ROOT / "book").rglob("*.md"), *(ROOT / "book").glob("*.yml"), ROOT / "README.md"]
    for path in sorted(pages):
        yield str(path.relative_to(ROOT)), path.read_text("utf8")
    yield from notebook_texts()
    for package in ("chunkprefill_course", "chunkprefill_grading"):
        for path in sorted((ROOT / package).rglob("*.md")):
            yield str(path.relative_to(ROOT)), path.read_text("utf8")
        for path in sorted((ROOT / package).rglob("*.py")):
            for text in strings(path.read_text("utf8")):
                yield str(path.relative_to(ROOT)), text


def found(pattern: str, shown: list[tuple[str, str]]) -> list[str]:
    """Where a turn stands; a line break in the middle does not hide it."""
    turn = re.compile(pattern.replace(" ", r"\s+"), re.I)
    return [
        f"{where}: …{text[max(0, m.start() - 30) : m.end() + 30]}…"
        for where, text in shown
        for m in turn.finditer(text)
    ]


@pytest.fixture(scope="module")
def shown() -> list[tuple[str, str]]:
    return list(texts())


@pytest.mark.parametrize("pattern", BANISHED)
def test_a_banished_turn_does_not_come_back(pattern, shown):
    assert not found(pattern, shown), BANISHED[pattern]


def test_the_search_sees_pages_notebooks_and_exercises(shown):
    """And finds a turn that is there, across a line break."""
    for text in ("A forward pass", "Standard prefilling", "counts from 0 again in this chunk"):
        assert found(re.escape(text).replace(r"\ ", " "), shown), text
    assert found(r"\btokens? walks?\b", [("a page", "All tokens\nwalk together.")])
    assert Path(ROOT / "book/glossary.md").is_file()


def test_each_source_says_what_was_read_of_it():
    """What the bibliography promises: page, figure, hardware, model, or that no figure of the source is cited."""
    sources = re.findall(
        r"^@\w+\{(\w+),(.*?)^\}$", (ROOT / "book/references.bib").read_text("utf8"), flags=re.M | re.S
    )
    assert len(sources) > 50
    silent = [
        key
        for key, fields in sources
        if not re.search(r"^  note = \{.*\b(Read|Cited|Chapter)\b", fields, flags=re.M)
    ]
    assert not silent, f"references.bib: no note of what was read: {', '.join(silent)}"
