"""Notebooks that open on Colab: their link and setup cell, and a rehearsal of what happens there.

    python tools/colab.py stamp [--check]    write the link and the setup cell; --check: only compare
    python tools/colab.py check              would the course install and run on Colab?

The one address that everything is made from is `repository` in `_config.yml`.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import nbformat
import yaml
from nbformat import NotebookNode
from normal_form import normalise

from notebooks import ROOT, NotebookError, all_notebooks, kind, read, shown, write

sys.path.insert(0, str(ROOT))  # the text of this checkout, not of one that is installed

from chunkprefill_grading.problems.notebook import FETCH

WHAT = {
    "chapter": "A chapter",
    "practice": "A practice page",
    "further": "Further reading",
}  # kind of notebook
OPEN, CLOSE = "<!-- colab -->", "<!-- /colab -->"
STAMP = re.compile(rf"{OPEN}.*?{CLOSE}\n*", re.S)
SETUP_MARK = "# Setup, written by tools/colab.py"

SETUP = f"""\
# NBVAL_IGNORE_OUTPUT
{SETUP_MARK}: on Colab it fetches the package, elsewhere it does nothing.
{FETCH}
import chunkprefill as cp
import chunkprefill_course as course

here = cp.env.setup()
"""


@dataclass(frozen=True, kw_only=True)
class Home:
    """Where the project is published: what links and the setup cell are made from."""

    url: str
    branch: str
    colab: str
    version: str

    def notebook(self, path: Path) -> str:
        """The address that opens this notebook on Colab."""
        place = quote(path.resolve().relative_to(ROOT).as_posix())
        return (
            f"{self.colab}/github/{self.url.removeprefix('https://github.com/')}/blob/{self.branch}/{place}"
        )

    @property
    def setup_cell(self) -> str:
        words = {"url": self.url, "branch": self.branch, "version": self.version}
        return SETUP.format(**words).strip("\n")


def home(root: Path = ROOT) -> Home:
    """Read from `_config.yml` and the package. Raises NotebookError for an address that Colab cannot open."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    url = str(config["repository"]["url"]).rstrip("/")
    if not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", url):
        raise NotebookError(
            f"_config.yml: repository.url is {url!r}; Colab opens https://github.com/OWNER/NAME"
        )
    found = re.search(r'^__version__ = "([^"]+)"', (root / "chunkprefill/__init__.py").read_text(), re.M)
    if not found:
        raise NotebookError("chunkprefill/__init__.py has no __version__")
    return Home(
        url=url,
        branch=str(config["repository"].get("branch", "main")),
        colab=str(config["launch_buttons"]["colab_url"]).rstrip("/"),
        version=found[1],
    )


def stamped(notebook: NotebookNode, path: Path, here: Home) -> NotebookNode:
    """A copy whose first cell says what the notebook is and links to Colab, and whose second sets it up."""
    notebook = normalise(notebook)
    cells = notebook.cells
    if not cells or cells[0].cell_type != "markdown" or not cells[0].source.lstrip().startswith("# "):
        raise NotebookError(f"{shown(path)}: the first cell is its title, markdown that begins with `# `")
    what = WHAT[kind(path)]
    link = (
        f"*{what} of [Chunked prefilling]({here.url}), a course to read or to run. To run it, "
        f"[open it in Colab]({here.notebook(path)}): it requests a GPU but runs without one.*"
    )
    title, _, rest = cells[0].source.lstrip().partition("\n")
    cells[0].source = "\n\n".join(
        filter(None, [title, f"{OPEN}\n{link}\n{CLOSE}", STAMP.sub("", rest).strip("\n")])
    )
    at = [i for i, cell in enumerate(cells) if cell.cell_type == "code" and SETUP_MARK in cell.source]
    kept = cells.pop(at[0]) if at else nbformat.v4.new_code_cell()
    if kept.source != here.setup_cell:
        kept.source, kept.outputs, kept.execution_count = here.setup_cell, [], None
    kept.id, kept.metadata = "setup", {"tags": ["hide-input"]}
    cells.insert(1, kept)
    return normalise(notebook)


def stamp_all(paths: list[Path], *, check: bool) -> int:
    """Stamp each notebook, or say which is not as it would be stamped."""
    here, stale = home(), []
    for path in paths:
        old = read(path)
        new = stamped(old, path, here)
        if new == normalise(old):
            continue
        stale.append(shown(path))
        if not check:
            write(path, new)
    if check and stale:
        print(
            f"stale Colab link or setup cell, run `make stamp notebooks`: {', '.join(stale)}", file=sys.stderr
        )
        return 1
    print(
        f"{len(paths)} notebooks, {len(stale)} stamped anew with {here.url}"
        if stale
        else f"{len(paths)} notebooks carry {here.url}"
    )
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    stamp = commands.add_parser("stamp", help="write the link and the setup cell")
    stamp.add_argument("--check", action="store_true", help="change nothing; exit 1 if something is stale")
    stamp.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="default: notebooks/*.ipynb")
    commands.add_parser("check", help="rehearse what happens on Colab")
    args = parser.parse_args(argv)
    try:
        if args.command == "stamp":
            return stamp_all(args.paths or all_notebooks(), check=args.check)
        from colab_check import check

        return check()
    except NotebookError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
