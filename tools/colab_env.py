"""Environments that stand in for Colab: its front end beside this torch, and a layer to install into."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from notebooks import ROOT

sys.path.insert(0, str(ROOT))

from chunkprefill.recording import git

PINS = ROOT / "requirements/colab.txt"
VENV = ROOT / ".venv-colab"


class Unavailable(Exception):
    """Something that a step needs is not on this machine: what REQUIRE calls it, and what to do."""

    def __init__(self, what: str, how: str) -> None:
        super().__init__(how)
        self.what = what


class Failed(Exception):
    """A step's finding."""


# --- environments -----------------------------------------------------------------------------------------


def make_venv(folder: Path, python: str, *options: str) -> Path:
    """A fresh virtual environment of that interpreter."""
    run([python, "-m", "venv", *options, str(folder)])
    return folder


def python_of(venv: Path) -> Path:
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def site_packages(venv: Path) -> Path:
    """Where that environment keeps what is installed."""
    return next(venv.glob("Lib/site-packages" if os.name == "nt" else "lib/python3*/site-packages"))


def run(command: list[str], folder: Path | None = None) -> str:
    """What the command prints. Raises Failed with the end of what it said."""
    quiet = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    quiet.pop("PYTHONPATH", None)
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=quiet, check=False)
    except OSError as error:
        raise Failed(f"{command[0]}: {error}") from None
    if done.returncode:
        said = (done.stdout[-3000:] + done.stderr[-3000:]).strip()
        raise Failed(f"`{' '.join(command[:6])} ...` ended with {done.returncode}:\n{said}")
    return done.stdout


def front_end() -> Path:
    """An environment with Colab's pins and this environment's torch, made again when either changes."""
    torch = importlib.metadata.version("torch")
    key = hashlib.sha256(f"{PINS.read_text()}{torch}{sys.version}{sys.prefix}".encode()).hexdigest()
    ready = VENV / ".ready"
    if ready.exists() and ready.read_text() == key:
        return VENV
    shutil.rmtree(VENV, ignore_errors=True)
    make_venv(VENV, sys.executable)
    run([str(python_of(VENV)), "-m", "pip", "install", "--quiet", "-r", str(PINS)])
    links = VENV / "torch"
    links.mkdir()
    link_distribution("torch", links, have={path.name for path in site_packages(VENV).iterdir()})
    (site_packages(VENV) / "torch_of_dev.pth").write_text(f"{links}\n")
    ready.write_text(key)
    return VENV


def link_distribution(name: str, links: Path, have: set[str]) -> None:
    """Link an installed distribution and what it requires into `links`, except what is there already."""
    todo, done = [name], set()
    while todo:
        name = todo.pop()
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # an extra for another machine
        done.add(canonicalize_name(name))
        for top in {
            file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")
        }:
            if top not in have and not (links / top).exists():
                (links / top).symlink_to(Path(str(distribution.locate_file(top))))
        for line in distribution.requires or ():
            needed = Requirement(line)
            if canonicalize_name(needed.name) not in done and (
                not needed.marker or needed.marker.evaluate({"extra": ""})
            ):
                todo.append(needed.name)


def colab_layer(venv: Path) -> Path:
    """A fresh environment on top of the front end's: what the setup cell may install into."""
    shutil.rmtree(venv, ignore_errors=True)
    make_venv(venv, sys.executable)
    below = site_packages(front_end())
    (site_packages(venv) / "front_end.pth").write_text(f"{below}\n{VENV / 'torch'}\n")
    return venv


def colab_python() -> str:
    """The interpreter of Colab's version: `COLAB_PYTHON`, or a python3.13 found here."""
    if named := os.environ.get("COLAB_PYTHON"):
        candidates = [named]
    else:
        pyenv = sorted(
            Path(os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")).glob(
                "versions/3.13*/bin/python"
            )
        )
        candidates = [*map(str, pyenv), *filter(None, [shutil.which("python3.13")])]
    for candidate in candidates:
        try:
            if run([candidate, "-c", "import sys; print(*sys.version_info[:2])"]).split() == ["3", "13"]:
                return candidate
        except Failed:
            continue
    raise Unavailable(
        "colab",
        f"Python 3.13, which is Colab's: COLAB_PYTHON names it (tried {', '.join(candidates) or 'none'})",
    )


# --- lists and trees --------------------------------------------------------------------------------------


def shared() -> Path:
    """The folder beside the checkout that holds Colab's lists. They are never copied into the project."""
    for folder in (os.environ.get("CHUNKPREFILL_SHARED"), ROOT.parent / "shared"):
        if folder and (Path(folder) / "colab").is_dir():
            return Path(folder)
    raise Unavailable("shared", "Colab's lists, ../shared/colab (CHUNKPREFILL_SHARED names another place)")


def read_freeze(path: Path) -> Iterator[tuple[str, tuple[str, str]]]:
    """`(canonical, (name, version))` of each line; the version of a direct reference is in its file name."""
    for raw in path.read_text(encoding="utf-8").splitlines():
        line = raw.split("#")[0].strip()
        name, _, place = line.partition("@")
        if pinned := re.fullmatch(r"([\w.-]+)==(\S+)", line):
            yield canonicalize_name(pinned[1]), (pinned[1], pinned[2])
        elif place and re.fullmatch(r"[\w.-]+", name.strip()):
            stem = re.sub("[-_.]+", "[-_.]", name.strip())
            file = unquote(place.strip()).rpartition("/")[2]
            version = re.match(rf"(?i){stem}-(\d[\w.+!]*)", file)
            yield (
                canonicalize_name(name.strip()),
                (name.strip(), version[1].removesuffix(".tar") if version else "0"),
            )
        elif line:
            raise Failed(f"{path.name}: cannot read {line!r}")


def pack_tree(archive: Path, top: str) -> None:
    """The files of this checkout, as they lie here, the way GitHub packs them: under one folder."""
    listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if listed is None:
        raise Failed(
            "git cannot list the files of this checkout: is it one, does it belong to this user, and is git installed?"
        )
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:gz") as tar:
        for name in sorted(set(filter(None, listed.split("\0")))):
            if (ROOT / name).is_file():
                tar.add(ROOT / name, f"{top}/{name}", recursive=False)
