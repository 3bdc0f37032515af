"""The nbval command of `make nbval`: measured numbers may change, everything else has to be equal."""

from __future__ import annotations

import os
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

import notebooks
from tests.needs import ROOT

SOURCES = [
    # each draws new numbers at each run, as a clock does
    "import random\nimport chunkprefill as cp\n"
    "x = [10 ** random.uniform(-7, 4) for _ in range(4)]\n"
    "print(f'{cp.measured(x[0]):>12} for 3 chunks')\ncp.measured(x[1], 'B')",
    "rows = [(n, cp.measured(t), cp.measured(t / x[0], '×')) for n, t in zip((64, 128, 256), x)]\n"
    "cp.Table(header=('chunk', 'time', 'of the first'), rows=rows, caption='Three chunk sizes')",
    "from IPython.display import HTML\n"
    'HTML(f\'<svg role="img" data-measured aria-label="{x[0]} s"><path d="M0 {x[1]}"/></svg><p>3 bars</p>\')',
    "import sys\nfrom tqdm import tqdm\nfor _ in tqdm(range(3)):\n    pass",
    "import ipywidgets as w\nw.VBox([w.IntSlider(max=4), w.HTML('<b>four frames</b>')])",
]


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    path = tmp_path_factory.mktemp("nbval") / "a.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(source) for source in SOURCES]), path)
    assert notebooks.execute_all([path]) == 0
    (path.parent / "conftest.py").write_text((ROOT / "notebooks/conftest.py").read_text())
    return path


def nbval(path):
    """What `make nbval` runs, on another folder."""
    config = ["--color=no", "--nbval", "--nbval-sanitize-with", str(ROOT / "tests/nbval-sanitize.cfg")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *config, str(path)]
    search = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        command, capture_output=True, text=True, cwd=path.parent, env=os.environ | {"PYTHONPATH": search}
    )


def test_other_measured_numbers_pass(executed):
    done = nbval(executed)
    assert done.returncode == 0, done.stdout
    assert f"{len(SOURCES)} passed" in done.stdout


def test_other_words_and_counts_fail(executed):
    """Three words, each in the output of another cell: all three cells fail, and no other does."""
    book = nbformat.reads(executed.read_text(), as_version=4)
    others = {"for 3 chunks": "for 4 chunks", "3 bars": "4 bars", "Three chunk sizes": "Two"}
    # in the outputs alone: the sources still say what they said
    touched = [cell_with(book, old, new) for old, new in others.items()]
    assert all(touched) and len({cell.id for cell in touched}) == 3
    changed = executed.with_name("changed.ipynb")
    notebooks.write(changed, book)
    done = nbval(changed)
    assert done.returncode == 1 and f"3 failed, {len(SOURCES) - 3} passed" in done.stdout, done.stdout


def cell_with(book, old, new):
    """The one cell whose outputs say `old`, which say `new` from now on."""
    for cell in book.cells:
        said = False
        for output in cell.outputs:
            kinds = ((output.get("data", {}), kind) for kind in output.get("data", {}))
            for holder, key in ((output, "text"), *kinds):
                if isinstance(holder.get(key), str) and old in holder[key]:
                    holder[key], said = holder[key].replace(old, new), True
        if said:
            return cell
