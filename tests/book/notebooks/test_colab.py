"""Each notebook says what it is and where it opens, from one address; its setup cell does what it says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import colab
import colab_env
import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from normal_form import normalise

import notebooks
from tests.needs import ROOT, need, shared_dir

HERE = colab.Home(
    url="https://github.com/ada/engine", branch="dev", colab="https://colab.example", version="1.2.3"
)
PATH = ROOT / "notebooks/02_x.ipynb"


def book(*cells, title="# Can it?\n\nObjectives"):
    return new_notebook(cells=[new_markdown_cell(title), *cells])


def test_committed_notebooks_carry_the_address_of_the_configuration():
    config = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]
    owner = config["url"].removeprefix("https://github.com/")
    assert notebooks.all_notebooks()
    for path in notebooks.all_notebooks():
        cells = notebooks.read(path).cells
        link = (
            f"https://colab.research.google.com/github/{owner}/blob/{config['branch']}/notebooks/{path.name}"
        )
        assert link in cells[0].source and "<img" not in cells[0].source
        assert f'archives = "{config["url"]}/archive/refs"' in cells[1].source
    assert colab.stamp_all(notebooks.all_notebooks(), check=True) == 0


def test_stamping_adds_link_and_setup_under_the_title():
    stamped = colab.stamped(book(new_code_cell("x")), PATH, HERE)
    first = stamped.cells[0].source
    assert first.startswith("# Can it?\n\n<!-- colab -->") and first.endswith("<!-- /colab -->\n\nObjectives")
    assert "https://colab.example/github/ada/engine/blob/dev/notebooks/02_x.ipynb" in first
    assert [c.id for c in stamped.cells[1:2]] == ["setup"] and stamped.cells[2].source == "x"
    assert "NBVAL_IGNORE_OUTPUT" in stamped.cells[1].source.splitlines()[0]


def test_stamping_twice_changes_nothing_and_a_new_address_replaces_the_old():
    once = colab.stamped(book(new_code_cell("x")), PATH, HERE)
    assert colab.stamped(once, PATH, HERE) == once
    moved = colab.Home(url="https://github.com/bob/other", branch="main", colab=HERE.colab, version="2.0")
    again = colab.stamped(once, PATH, moved)
    assert "ada/engine" not in nbformat.writes(again) and "1.2.3" not in nbformat.writes(again)
    assert len(again.cells) == len(once.cells) and colab.stamped(again, PATH, HERE) == once


def test_a_setup_cell_that_did_not_change_keeps_its_output():
    stamped = colab.stamped(book(), PATH, HERE)
    stamped.cells[1].execution_count = 1
    stamped.cells[1].outputs = [nbformat.v4.new_output("stream", name="stdout", text="runs on cpu\n")]
    assert colab.stamped(stamped, PATH, HERE).cells[1].outputs


@pytest.mark.parametrize("title", ["", "No title", "## Too deep", "#no space"])
def test_a_notebook_without_a_title_is_refused(title):
    with pytest.raises(notebooks.NotebookError, match="title"):
        colab.stamped(book(title=title), PATH, HERE)
    with pytest.raises(notebooks.NotebookError, match="title"):
        colab.stamped(new_notebook(cells=[new_code_cell("# x")]), PATH, HERE)


def test_check_finds_what_is_stale_and_changes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(colab, "home", lambda: HERE)
    monkeypatch.setattr(colab, "ROOT", tmp_path)
    path = tmp_path / "a.ipynb"
    notebooks.write(path, normalise(book(new_code_cell("x"))))
    before = path.read_bytes()
    assert colab.stamp_all([path], check=True) == 1 and path.read_bytes() == before
    assert "a.ipynb" in capsys.readouterr().err
    assert colab.stamp_all([path], check=False) == 0
    assert colab.stamp_all([path], check=True) == 0
    path.write_text(path.read_text().replace("ada/engine/archive", "eve/engine/archive"))
    assert colab.stamp_all([path], check=True) == 1


@pytest.mark.parametrize(
    "url", ["https://gitlab.com/a/b", "https://github.com/a", "github.com/a/b", "https://github.com/a/b?x"]
)
def test_an_address_that_colab_cannot_open_is_refused(tmp_path, url):
    (tmp_path / "chunkprefill").mkdir()
    (tmp_path / "chunkprefill/__init__.py").write_text('__version__ = "1"\n')
    config = {"repository": {"url": url}, "launch_buttons": {"colab_url": "https://c"}}
    (tmp_path / "_config.yml").write_text(yaml.safe_dump(config))
    with pytest.raises(notebooks.NotebookError, match=re.escape(repr(url))):
        colab.home(tmp_path)


# --- the setup cell, played with a Colab that is not there; `make colab-check` plays it with real archives --


def play(monkeypatch, *, served=(), colab_there=True, installed=False):
    """Run the setup cell; the archives that it asked for and the one that pip was given."""
    asked, given = [], []

    def urlopen(address):
        asked.append(address)
        if address not in served:
            raise OSError("404")
        return open(Path(__file__), "rb")

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if installed else None)
    if colab_there:
        monkeypatch.setitem(__import__("sys").modules, "google.colab", object())
    magic = re.search(r"^( *)%pip (.*)$", HERE.setup_cell, re.M)
    source = HERE.setup_cell.replace(magic[0], f"{magic[1]}pip(f'''{magic[2]}''')")
    source = source[: source.index("import chunkprefill")]
    ast.parse(source)
    exec(source, {"pip": given.append})
    return asked, given


RELEASE = "https://github.com/ada/engine/archive/refs/tags/v1.2.3.tar.gz"
BRANCH = "https://github.com/ada/engine/archive/refs/heads/dev.tar.gz"


def test_on_colab_the_release_comes_first_then_the_branch(monkeypatch):
    asked, given = play(monkeypatch, served={RELEASE, BRANCH})
    assert asked == [RELEASE] and given == [f'install -q --no-deps "chunkprefill @ {RELEASE}"']
    asked, given = play(monkeypatch, served={BRANCH})
    assert asked == [RELEASE, BRANCH] and given == [f'install -q --no-deps "chunkprefill @ {BRANCH}"']


def test_with_neither_a_clear_line(monkeypatch):
    with pytest.raises(
        SystemExit, match=r"https://github\.com/ada/engine.*neither release v1\.2\.3 nor branch dev"
    ):
        play(monkeypatch)


def test_elsewhere_and_the_second_time_it_does_nothing(monkeypatch):
    assert play(monkeypatch, served={RELEASE}, colab_there=False) == ([], [])
    assert play(monkeypatch, served={RELEASE}, installed=True) == ([], [])


# --- Colab's lists ------------------------------------------------------------------------------------------


def test_every_line_of_colabs_lists_is_read():
    folder = shared_dir()
    need("shared", folder and (folder / "colab").is_dir(), "Colab's package lists, ../shared/colab")
    for path in sorted((folder / "colab").glob("pip-freeze*.txt")):
        lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
        has = dict(colab_env.read_freeze(path))
        assert len(has) == len(lines)
        assert all(re.match(r"\d", version) for _, version in has.values())
        assert has["ipywidgets"][1] == "7.7.1" and has["numpy"][1].startswith("2.1")


def test_the_front_end_pins_are_those_of_the_lists():
    folder = shared_dir()
    need("shared", folder and (folder / "colab").is_dir(), "Colab's package lists, ../shared/colab")
    has = dict(colab_env.read_freeze(folder / "colab/pip-freeze.gpu.txt"))
    pins = re.findall(r"^([\w-]+)==(\S+)", colab_env.PINS.read_text(), re.M)
    assert {"ipywidgets", "ipython", "ipykernel", "matplotlib", "numpy"} <= {name for name, _ in pins}
    assert [(name, has[name][1]) for name, _ in pins] == pins


def test_a_line_that_cannot_be_read_is_said(tmp_path):
    path = tmp_path / "pip-freeze.txt"
    path.write_text("numpy==1\n# a comment\nsix @ file:///x/six-1.16.0-py3-none-any.whl\nwhat is this\n")
    with pytest.raises(colab_env.Failed, match="what is this"):
        dict(colab_env.read_freeze(path))
