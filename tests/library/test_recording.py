"""Provenance: the commit is this checkout's, whatever stands around it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from chunkprefill import recording
from tests.needs import tracked

NAMED = {f"GIT_{who}_{what}": "ada" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
PLAIN = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}  # nothing is signed, no hook runs


def another_checkout(folder: Path) -> str:
    """Make one with an empty commit; its name."""
    # of what a hook has set nothing may be left: the commit would go into the checkout that is tested
    own = {name: value for name, value in os.environ.items() if name not in recording.OTHERS}
    said = ""
    for words in ("init -q .", "commit -q --allow-empty -m other", "rev-parse HEAD"):
        command = ["git", "-C", str(folder), *words.split()]
        done = subprocess.run(command, env=own | NAMED | PLAIN, capture_output=True, text=True, check=True)
        said = done.stdout
    return said.strip()


def test_a_hook_s_settings_name_another_checkout(tmp_path: Path, monkeypatch: Any) -> None:
    tracked("pyproject.toml")
    ours = recording.provenance(seed=0)["commit"]
    theirs = another_checkout(tmp_path)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path))
    assert recording.provenance(seed=0)["commit"] == ours != theirs


def test_an_installed_package_has_no_commit_of_the_project_around_it(
    tmp_path: Path, monkeypatch: Any
) -> None:
    tracked("pyproject.toml")
    theirs = another_checkout(tmp_path)
    monkeypatch.setattr(recording, "ROOT", tmp_path)
    assert recording.provenance(seed=0)["commit"] == theirs
    installed = tmp_path / ".venv/lib/site-packages"
    installed.mkdir(parents=True)
    monkeypatch.setattr(recording, "ROOT", installed)
    found = recording.provenance(seed=0)
    assert found["commit"] == "unknown" and found["dirty"] == "unknown"


def test_without_git_nothing_is_known(monkeypatch: Any) -> None:
    monkeypatch.setenv("PATH", "")
    found = recording.provenance(seed=0)
    assert found["commit"] == "unknown" and found["dirty"] == "unknown"
