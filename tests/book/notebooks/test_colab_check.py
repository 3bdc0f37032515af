"""The rehearsal of Colab is honest: it fails where something fails, and says what it did not try."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import colab_check
import colab_env
import pytest

from tests.needs import REQUIRED, ROOT, need, tracked

STEPS = ("resolver", "widget_tables", "setup_cell", "notebooks", "torch_free")
FREEZE = """
numpy=={numpy}
torch @ https://download.example/whl/cu128/torch-2.11.0%2Bcu128-cp313-cp313-manylinux_2_28_x86_64.whl
ipywidgets=={ipywidgets}
matplotlib==3.10.0
safetensors==0.8.0
tokenizers==0.22.2
tqdm==4.67.3
PyYAML==6.0.3
requests==2.32.4
"""


@pytest.fixture
def steps(monkeypatch):
    """Every step replaced by one that passes; the names of those that ran."""
    ran = []
    for name in STEPS:
        monkeypatch.setattr(
            colab_check, name, lambda folder, name=name: ran.append(name) or f"{name} is well"
        )
    monkeypatch.delenv("REQUIRE", raising=False)
    return ran


def failing(error):
    def step(folder):
        raise error

    return step


def test_all_well(steps, capsys):
    assert colab_check.check() == 0
    assert steps == list(STEPS)
    told = capsys.readouterr().out.splitlines()
    assert len(told) == len(STEPS) and all(line.startswith("ok") for line in told)


@pytest.mark.parametrize("name", STEPS)
def test_one_failure_fails_and_the_others_still_run(steps, capsys, monkeypatch, name):
    monkeypatch.setattr(colab_check, name, failing(colab_env.Failed("numpy: 2.1.3 -> 2.4")))
    assert colab_check.check() == 1
    assert len(steps) == len(STEPS) - 1
    assert "FAILED" in (out := capsys.readouterr().out) and "numpy: 2.1.3 -> 2.4" in out


@pytest.mark.parametrize(
    "require, what, status",
    [
        ("", "colab", 0),
        ("chromium,bwrap", "shared", 0),
        ("colab", "colab", 1),
        ("colab", "shared", 1),
        ("bwrap, shared", "shared", 1),
        ("shared", "colab", 0),
    ],
)
def test_what_is_missing_is_said_and_fails_where_required(steps, capsys, monkeypatch, require, what, status):
    monkeypatch.setattr(colab_check, "resolver", failing(colab_env.Unavailable(what, "get it there")))
    monkeypatch.setenv("REQUIRE", require)
    assert colab_check.check() == status
    out = capsys.readouterr().out
    assert f"MISSING {what}: get it there" in out and ("FAILED" in out) == bool(status)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """A package index that pip reaches: it fetches what this package is built with, and looks up the rest."""
    builder = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"][0]
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check", builder]
    if "index" not in REQUIRED:  # where none is expected, it is not waited for
        command += ["--retries", "0"]
    done = subprocess.run(command, cwd=tmp_path_factory.mktemp("index"), capture_output=True, text=True)
    said = (done.stderr.strip().splitlines() or ["?"])[-1]
    need("index", done.returncode == 0, f"pip cannot download {builder}: {said}")


@pytest.mark.parametrize(
    "numpy, widgets, told", [("2.1.3", "7.7.1", ""), ("1.25.2", "7.7.1", "numpy 1.25.2 ->")]
)
def test_pip_says_what_installing_would_change(index, tmp_path, monkeypatch, numpy, widgets, told):
    """A list on which everything is new enough passes; one with an old numpy does not."""
    tracked("pyproject.toml")
    (tmp_path / "shared/colab").mkdir(parents=True)
    text = FREEZE.format(numpy=numpy, ipywidgets=widgets)
    (tmp_path / "shared/colab/pip-freeze.txt").write_text(text)
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("CHUNKPREFILL_SHARED", str(tmp_path / "shared"))
    monkeypatch.setattr(colab_check, "colab_python", lambda: sys.executable)
    if not told:
        assert re.search(r": new .*chunkprefill", colab_check.resolver(tmp_path / "work"))
        return
    with pytest.raises(colab_env.Failed, match=told):
        colab_check.resolver(tmp_path / "work")


def test_a_python_of_another_version_is_missing(monkeypatch):
    if sys.version_info[:2] == (3, 13):
        pytest.skip("this is Python 3.13")
    monkeypatch.setenv("COLAB_PYTHON", sys.executable)
    with pytest.raises(colab_env.Unavailable, match="COLAB_PYTHON"):
        colab_env.colab_python()
    monkeypatch.setenv("COLAB_PYTHON", "/no/such/python")
    with pytest.raises(colab_env.Unavailable, match="no/such/python"):
        colab_env.colab_python()


def test_an_archive_holds_the_files_as_they_lie_here(tmp_path):
    tracked("pyproject.toml")
    colab_env.pack_tree(tmp_path / "a/b.tar.gz", top="chunkprefill-main")
    done = subprocess.run(["tar", "tzf", tmp_path / "a/b.tar.gz"], capture_output=True, text=True)
    listed = done.stdout.split()
    assert {"chunkprefill-main/pyproject.toml", "chunkprefill-main/chunkprefill/__init__.py"} <= set(listed)
    assert all(name.startswith("chunkprefill-main/") for name in listed)
    assert not [name for name in listed if ".venv" in name or "/.git/" in name]
