"""What the package promises as a whole: its names, its size, its pins, its house rules."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
import tomllib

import pytest

import chunkprefill as cp
from tests.needs import ROOT, need

PACKAGE = ROOT / "chunkprefill"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def code_lines(path) -> int:
    return len(path.read_text().splitlines())


@pytest.mark.parametrize("name", [n for n in cp.__all__ if n != "__version__"])
def test_every_public_name_is_there_and_says_what_it_is(name):
    thing = getattr(cp, name)
    assert (getattr(thing, "__doc__", None) or "").strip(), f"cp.{name} has no docstring"


def test_an_unknown_name_is_answered_with_those_there_are():
    with pytest.raises(AttributeError, match=r"no attribute 'prefil'.*prefill"):
        cp.prefil  # noqa: B018


def test_every_module_says_in_one_line_what_it_holds():
    for path in PACKAGE.rglob("*.py"):
        doc = ast.get_docstring(ast.parse(path.read_text()))
        assert doc and doc.splitlines()[0].strip(), f"{path.relative_to(ROOT)} has no docstring"


def test_no_module_outgrows_300_lines():
    long = {str(p.relative_to(ROOT)): n for p in PACKAGE.rglob("*.py") if (n := code_lines(p)) > 300}
    assert not long, f"asking to be two: {long}"


def statements(path) -> int:
    """Lines that hold code: no blank lines, no comments, no docstrings."""
    source = path.read_text()
    skip = (
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    )
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skip:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            lines.difference_update(range(node.lineno, node.end_lineno + 1))
    return len(lines)


# What somebody reads to know how it works, in this order.
PATH = [
    *("scheduling/core", "scheduling/blocks", "scheduling/views", "scheduling/state", "scheduling/contract"),
    *("scheduling/serve", "scheduling/policies", "model/config", "model/attention", "model/cache"),
    *("model/transformer", "engine", "model/paged", "serving"),
]
AROUND = {"analysis", "exercises", "evidence", "grading", "bench"}


def test_the_package_can_be_read():
    """Lines of code; what explains itself is not counted. DESIGN.md says why these limits."""
    path = sum(statements(PACKAGE / f"{name}.py") for name in PATH)
    assert path < 1600, f"the teaching path: {path} lines of code"
    rooms = [p for p in PACKAGE.rglob("*.py") if p.relative_to(PACKAGE).parts[0] not in AROUND]
    total = sum(map(statements, rooms))
    assert total < 4300, f"model, scheduling, simulation and what joins them: {total} lines of code"


def test_versions_agree():
    assert cp.__version__ == PYPROJECT["project"]["version"]
    assert f"## {cp.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert f"version: {cp.__version__}" in (ROOT / "CITATION.cff").read_text()


def test_pins_are_plain():
    """No hashes, no addresses; torch in the development pins only."""
    for name in ("book", "dev"):
        for line in (ROOT / f"requirements/{name}.txt").read_text().splitlines():
            assert line.startswith("#") or re.fullmatch(r"[\w.-]+==[\w.]+", line), f"{name}.txt: {line!r}"
    book, dev = ((ROOT / f"requirements/{n}.txt").read_text().splitlines() for n in ("book", "dev"))
    assert "torch==2.13.0" in dev and not any(line.startswith("torch") for line in book)
    assert set(book[1:]) <= set(dev), "the two environments would build two different books"


def test_other_pythons_get_one_clear_line():
    script = (
        "import sys; sys.version_info = type('V', (tuple,), {'major': 3, 'minor': 10})((3, 10, 0))\n"
        "import chunkprefill"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr.strip().endswith("chunkprefill needs Python 3.11 to 3.13, this is 3.10")


def tracked(*patterns: str) -> list:
    done = subprocess.run(["git", "ls-files", "-z", *patterns], capture_output=True, text=True, cwd=ROOT)
    need("git", done.returncode == 0, "the tree is no git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_nothing_committed_knows_the_machine_it_was_written_on():
    home_paths = re.compile(r"(?<![\w.])/(?:wor[k]|roo[t]|home/(?!ada/)\w+|Users/\w+)/")
    for path in tracked(
        "*.py", "*.md", "*.ipynb", "*.json", "*.yml", "*.toml", "*.txt", "Makefile", ".ci/run"
    ):
        if "vendor" in path.parts:
            continue
        found = home_paths.search(path.read_text(errors="replace"))
        assert not found, f"{path.relative_to(ROOT)} holds the path {found and found.group()!r}"
