"""The house stands: three packages, each knowing only those before it; no cycle; low floors."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.needs import ROOT

# Each package may import itself and those before it. Benchmarks and tools may import all of them.
PACKAGES = ("chunkprefill", "chunkprefill_course", "chunkprefill_grading")

# What loads on each floor, by the longest prefix that fits; a floor may import itself and those before it.
STDLIB = (
    "chunkprefill.lazy",
    "chunkprefill.measure",
    "chunkprefill.configs",
    "chunkprefill.model.config",
    "chunkprefill.model.rope",
    "chunkprefill.splitting",
    "chunkprefill.metrics.tally",
    "chunkprefill.metrics.tasks",
    "chunkprefill.metrics.timelines",
    "chunkprefill.servers.advise",
    "chunkprefill.scheduling",
    "chunkprefill.simulation.cost",
    "chunkprefill.simulation.cuda_graphs",
    "chunkprefill.simulation.kernels",
    "chunkprefill.simulation.layout",
    "chunkprefill.simulation.pipeline",
    "chunkprefill.simulation.price",
    "chunkprefill.simulation.published",
    "chunkprefill.simulation.simulate",
    "chunkprefill.plots",
    "chunkprefill_course.clinic",
    "chunkprefill_course.exercises",
    "chunkprefill_course.forms",
    "chunkprefill_course.live",
)
NEEDS_MORE = {  # of those, what still needs more, and what it needs
    "chunkprefill.plots.comparisons": "numpy",
    "chunkprefill.plots.dashboard": "numpy",
    "chunkprefill.plots.fits": "numpy",
    "chunkprefill.plots.parts": "numpy",
    "chunkprefill.plots.profile": "numpy",
}
NUMPY = ("chunkprefill.metrics", "chunkprefill.simulation")
BLOCKED = {"stdlib": ("numpy", "torch", "matplotlib", "ipywidgets"), "numpy": ("torch", "ipywidgets")}


def modules() -> dict[str, Path]:
    """Dotted name -> file, of the three packages."""
    names = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def under(name: str, entries: tuple[str, ...]) -> bool:
    return any(name == entry or name.startswith(entry + ".") for entry in entries)


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """Modules of the three packages that `path` imports, at the top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports hide where a name comes from"
            wanted = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for dotted in wanted:
            while dotted and dotted not in known:
                dotted = dotted.rpartition(".")[0]
            if dotted:
                found.add(dotted)
    return found


KNOWN = modules()
IMPORTS = {name: imports(path, KNOWN) - {name} for name, path in KNOWN.items()}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_knows_only_those_before_it(package):
    later = PACKAGES[PACKAGES.index(package) + 1 :]
    for name, wanted in IMPORTS.items():
        if under(name, (package,)):
            wrong = {other for other in wanted if under(other, later)}
            assert not wrong, f"{name} imports {wrong}: {package} does not know {', '.join(later)}"


def test_the_library_does_not_speak_of_the_others():
    """Neither in its code nor in the data that it carries."""
    for path in (ROOT / "chunkprefill").rglob("*"):
        if path.suffix in (".py", ".json", ".pyi", ".txt"):
            text = path.read_text("utf8")
            for other in PACKAGES[1:]:
                assert other not in text, f"{path.relative_to(ROOT)} speaks of {other}"


def test_no_package_needs_the_benches():
    for name, path in KNOWN.items():
        for node in ast.walk(ast.parse(path.read_text())):
            module = getattr(node, "module", "") or ""
            assert not module.startswith("benchmarks"), f"{name} imports {module}, which is not installed"


def test_no_cycles():
    graph = {name: wanted for name, wanted in IMPORTS.items() if KNOWN[name].name != "__init__.py"}
    TopologicalSorter(graph).prepare()  # raises CycleError, naming the cycle


def test_no_private_name_crosses_a_border():
    for name, path in KNOWN.items():
        own = name.partition(".")[0]
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom):
                continue
            package = (node.module or "").partition(".")[0]
            private = [alias.name for alias in node.names if alias.name.startswith("_")]
            assert not private or package not in PACKAGES or package == own, (
                f"{name}: {node.module} {private}"
            )


def floor(name: str) -> str:
    if under(name, STDLIB) and name not in NEEDS_MORE:
        return "stdlib"
    return "numpy" if under(name, NUMPY) or NEEDS_MORE.get(name) == "numpy" else "all"


@pytest.mark.parametrize("kind", BLOCKED)
def test_floors_load_without_what_they_do_not_need(kind):
    low = [n for n, p in KNOWN.items() if floor(n) == kind and p.name != "__init__.py"]
    assert len(low) > 5
    script = f"import sys\nfor m in {BLOCKED[kind]!r}: sys.modules[m] = None\n"
    script += "".join(f"import {name}\n" for name in low)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_what_is_said_to_need_numpy_needs_it():
    """Else it stands on the lowest floor, and a page may use it."""
    higher = [n for n, p in KNOWN.items() if floor(n) == "numpy" and p.name != "__init__.py"]
    script = "import importlib, sys\nsys.modules['numpy'] = None\n"
    script += f"for name in {higher!r}:\n    try: importlib.import_module(name)\n"
    script += "    except ImportError: continue\n    print(name)\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and not done.stdout, f"these do without: {done.stdout}{done.stderr}"


def test_importing_the_packages_imports_nothing():
    script = f"import sys, {', '.join(PACKAGES)}\n"
    script += "print([m for m in ('numpy', 'torch', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
