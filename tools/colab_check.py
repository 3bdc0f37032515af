"""A rehearsal of Colab on this machine: its package lists, its front end, its Python, its setup cell."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
from colab import home
from colab_env import (
    PINS,
    VENV,
    Failed,
    Unavailable,
    colab_layer,
    colab_python,
    front_end,
    make_venv,
    pack_tree,
    python_of,
    read_freeze,
    run,
    shared,
    site_packages,
)
from lint_notebooks import IN_BOTH, ONLY_7_ARGUMENTS, ONLY_8, ONLY_8_ARGUMENTS, lint
from normal_form import normalise
from packaging.utils import canonicalize_name
from tqdm import tqdm

from notebooks import ROOT, NotebookError, all_notebooks, execute, shown

DEV = ROOT / "requirements/dev.txt"
TORCH_FREE_TESTS = (
    "tests/library/scheduling",
    "tests/library/simulation",
    "tests/library/metrics/test_metrics.py",
    "tests/house/test_floors.py",
)
FAKE_COLAB = "import sys, types\nsys.modules['google.colab'] = types.ModuleType('google.colab')\n"


def check() -> int:
    """Run each step, go on after a failure, print what passed; 0 if nothing failed and nothing was missed."""
    if not VENV.exists():
        print("making an environment with Colab's front end (once)", file=sys.stderr)
    required = {name.strip() for name in os.environ.get("REQUIRE", "").split(",")}
    n_bad = 0
    with tempfile.TemporaryDirectory() as folder:
        steps: list[tuple[str, Callable[[Path], str]]] = [
            ("installing changes nothing that Colab has", resolver),
            ("the lint knows ipywidgets 7.7.1", widget_tables),
            ("the setup cell installs from an archive", setup_cell),
            ("every notebook runs under Colab's front end", notebooks),
            ("the torch-free tests pass on Colab's Python", torch_free),
        ]
        for title, step in steps:
            start = time.monotonic()
            try:
                word, told = "ok     ", step(Path(folder))
            except Unavailable as missing:
                word = "FAILED " if required & {"colab", missing.what} else "SKIPPED"
                told = f"MISSING {missing.what}: {missing}"
            except (Failed, NotebookError) as failed:
                word, told = "FAILED ", str(failed)
            n_bad += word == "FAILED "
            print(f"{word} {title} ({time.monotonic() - start:.0f} s): {told}", flush=True)
    return 1 if n_bad else 0


# --- by pip's resolver: what would installing change? -----------------------------------------------------


def resolver(folder: Path) -> str:
    """For each list of what Colab has, pip itself says what the package and its setup cell would install."""
    lists = sorted((shared() / "colab").glob("pip-freeze*.txt"))
    if not lists:
        raise Unavailable("shared", "no pip-freeze*.txt in ../shared/colab")
    archive, told = folder / "chunkprefill.tar.gz", []
    pack_tree(archive, top="chunkprefill")
    for freeze in lists:
        has = dict(read_freeze(freeze))
        venv = make_venv(folder / freeze.stem, colab_python(), "--without-pip")
        for written, version in has.values():
            stub = site_packages(venv) / f"{re.sub('[-_.]+', '_', written)}-{version}.dist-info"
            stub.mkdir(exist_ok=True)
            (stub / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {written}\nVersion: {version}\n")
            (stub / "INSTALLER").write_text("pip\n")
            (stub / "RECORD").write_text("")
        new: set[str] = set()
        for arguments in (["--no-deps", str(archive)], [str(archive)]):
            installed = would_install(venv, arguments, folder / "report.json")
            changed = {name: version for name, version in installed.items() if name in has}
            if changed:
                what = ", ".join(f"{name} {has[name][1]} -> {version}" for name, version in changed.items())
                raise Failed(f"{freeze.name}: `pip install {' '.join(arguments)}` changes {what}")
            new |= set(installed)
        told.append(f"{freeze.name} ({len(has)} packages): new {', '.join(sorted(new))}")
    return "; ".join(told)


def would_install(venv: Path, arguments: list[str], report: Path) -> dict[str, str]:
    """What `pip install` would put into this environment, name to version; nothing is installed."""
    pip = [sys.executable, "-m", "pip", "--python", str(python_of(venv)), "install", "--dry-run", "--quiet"]
    run([*pip, "--report", str(report), *arguments])
    items = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {canonicalize_name(i["metadata"]["name"]): i["metadata"]["version"] for i in items}


# --- the front end, the setup cell, the notebooks ---------------------------------------------------------


def widget_tables(folder: Path) -> str:
    """What the lint calls new in ipywidgets 8 is not in Colab's, and what it allows is in both."""
    traits = json.loads(run([str(python_of(front_end())), "-W", "ignore", "-c", WIDGET_TRAITS]))
    known = {(cls, argument) for cls, arguments in traits.items() for argument in arguments}
    wrong = sorted(ONLY_8 & set(traits)) + sorted(IN_BOTH - known)
    wrong += sorted(f"{c}({a}=)" for c, a in known - IN_BOTH if a in ONLY_8_ARGUMENTS)
    wrong += sorted(ONLY_7_ARGUMENTS - {argument for _, argument in known})
    if wrong:
        raise Failed(f"Colab's ipywidgets disagrees with lint_notebooks about {wrong}")
    return f"{len(ONLY_8)} classes and {len(ONLY_8_ARGUMENTS)} arguments are not in its {len(traits)} widgets"


WIDGET_TRAITS = """
import ipywidgets, json
classes = {name: c for name, c in vars(ipywidgets).items() if isinstance(c, type)}
widgets = {name: c for name, c in classes.items() if issubclass(c, ipywidgets.Widget)}
print(json.dumps({name: sorted(widget.class_traits()) for name, widget in widgets.items()}))
"""


def setup_cell(folder: Path) -> str:
    """Without an archive a clear line; from the branch; from the release, which goes first."""
    here, told = home(), []
    served = folder / "served"
    cell = here.setup_cell.replace(f"{here.url}/archive/refs", served.as_uri())
    layer = colab_layer(folder / "layer")
    try:
        run_cells(layer, folder, [FAKE_COLAB, cell])
        raise Failed("with no archive to be had, the setup cell goes on")
    except NotebookError as error:
        if f"neither release v{here.version} nor branch {here.branch}" not in str(error):
            raise Failed(f"with no archive to be had, the setup cell says something else: {error}") from None
    for ref in (f"heads/{here.branch}", f"tags/v{here.version}"):
        layer = colab_layer(folder / "layer")
        pack_tree(served / f"{ref}.tar.gz", top=f"chunkprefill-{ref.rpartition('/')[2]}")
        seen = run_cells(layer, folder, [FAKE_COLAB, cell, "print(cp.__file__, cp.__version__)"])
        if not seen.startswith(str(layer)) or here.version not in seen:
            raise Failed(f"{ref}: the package that the setup cell imports is {seen}")
        told.append(ref)
    return f"{', '.join(told)}, and a clear line where neither is"


def notebooks(folder: Path) -> str:
    """Each notebook from its top, with the package as the setup cell installed it, far from the checkout."""
    layer = folder / "layer"
    if not any((site_packages(layer)).glob("chunkprefill-*.dist-info")):
        raise Failed("the setup cell did not install the package")
    (site_packages(layer) / "fake_colab.pth").write_text(FAKE_COLAB.replace("\n", "; ").rstrip("; ") + "\n")
    found, versions = [], run_cells(layer, folder, [VERSIONS])
    pins = dict(line.split("==") for line in PINS.read_text().splitlines() if re.fullmatch(r"\w+==\S+", line))
    if wrong := {name: v for name, v in json.loads(versions).items() if pins[name] != v}:
        raise Failed(f"not Colab's front end: {wrong}")
    (folder / "content").mkdir()
    if not (paths := all_notebooks()):
        raise Failed("there is no notebook to run")
    for path in tqdm(paths, unit="notebook", desc="under Colab's front end", leave=False, disable=None):
        notebook = execute(path, python=str(python_of(layer)), folder=folder / "content", checkout=False)
        found += [f"{shown(path)}, {finding}" for finding in lint(normalise(notebook))]
    if found:
        raise Failed("\n  " + "\n  ".join(found))
    return f"{len(paths)} notebooks; " + ", ".join(f"{k} {v}" for k, v in json.loads(versions).items())


VERSIONS = """
import importlib.metadata, json
names = "ipywidgets", "ipython", "ipykernel", "matplotlib", "numpy"
print(json.dumps({name: importlib.metadata.version(name) for name in names}))
"""


def run_cells(venv: Path, folder: Path, sources: list[str]) -> str:
    """What the last of these cells prints, run in a kernel of this environment, outside the checkout."""
    path = folder / "cells.ipynb"
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    notebook = execute(path, python=str(python_of(venv)), folder=folder, checkout=False)
    return "".join(
        o.text for o in notebook.cells[-1].outputs if o.output_type == "stream" and o.name == "stdout"
    )


# --- Colab's Python ---------------------------------------------------------------------------------------


def torch_free(folder: Path) -> str:
    """The tests of scheduler, simulator and metrics, in an environment that has no torch to fall back on."""
    tests = [test for test in TORCH_FREE_TESTS if (ROOT / test).exists()]
    if not tests:
        raise Failed(f"none of {', '.join(TORCH_FREE_TESTS)} is there")
    python = colab_python()
    venv = make_venv(folder / "torch-free", python)
    pins = {line.partition("==")[0]: line for path in (DEV, PINS) for line in path.read_text().splitlines()}
    wanted = [pins[name] for name in ("numpy", "tqdm", "pytest", "hypothesis", "distributed")]
    run([str(python_of(venv)), "-m", "pip", "install", "--quiet", *wanted])
    print(f"  {' '.join(tests)} on {python}", flush=True)
    quiet = ["-q", "-x", "-p", "no:cacheprovider"]
    told = run([str(python_of(venv)), "-m", "pytest", *quiet, *tests], folder=ROOT)
    return (
        f"{told.strip().splitlines()[-1].strip('= ')}, Python {run([str(python_of(venv)), '-V']).split()[1]}"
    )
