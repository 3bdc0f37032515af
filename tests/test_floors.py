"""The house stands: imports go down, nothing goes round, and the lower floors need no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.needs import ROOT

PACKAGE = ROOT / "chunkprefill"

# The floors of DESIGN.md, bottom first: a module may import from its own floor and from those beneath.
FLOORS = [
    ("scheduling.core", "scheduling.blocks", "scheduling.trace", "model.config"),
    (
        "scheduling.contract",
        "scheduling.views",
        "scheduling.state",
        "scheduling.serve",
        "scheduling.policies",
        "scheduling.vllm",
        "simulation.workloads",
        "analysis.events",
        "analysis.metrics",
        "analysis.summary",
    ),
    ("simulation", "scheduling.parity", "scheduling"),
    ("model",),
    ("engine", "serving", "calibration", "env", "measure"),
    ("analysis", "exercises", "evidence"),
    ("grading", "bench", "demo", "__main__"),
]
TORCH_FREE = 3  # floors 0 to 2


def modules() -> dict[str, Path]:
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    del names[""]  # chunkprefill/__init__ has its own test
    return names


def floor(name: str) -> int:
    """The floor of the longest entry that `name` is or lies under."""
    fits = [(len(entry), i) for i, floor in enumerate(FLOORS) for entry in floor
            if name == entry or name.startswith(entry + ".")]  # fmt: skip
    assert fits, (
        f"chunkprefill/{name.replace('.', '/')}.py stands on no floor: add it to FLOORS and DESIGN.md"
    )
    return max(fits)[1]


def imports(path: Path) -> set[str]:
    """Modules of the package that `path` imports, at the top or inside a function."""
    known, found = modules(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports hide where a name comes from"
            wanted = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for dotted in wanted:
            head, _, tail = dotted.partition(".")
            while head == "chunkprefill" and tail and tail not in known:
                tail = tail.rpartition(".")[0]
            if head == "chunkprefill" and tail:
                found.add(tail)
    return found


@pytest.mark.parametrize("name", modules())
def test_imports_go_down(name):
    if modules()[name].name == "__init__.py":
        return  # a room's door names what is inside
    for other in imports(modules()[name]):
        assert floor(other) <= floor(name), (
            f"{name} (floor {floor(name)}) imports {other} (floor {floor(other)}): imports go down"
        )


def test_no_cycles():
    graph = {n: imports(p) - {n} for n, p in modules().items() if p.name != "__init__.py"}
    TopologicalSorter(graph).prepare()  # raises CycleError, naming the cycle


def test_lower_floors_need_no_torch_and_no_matplotlib():
    low = [n for n, p in modules().items() if floor(n) < TORCH_FREE and p.name != "__init__.py"]
    assert "model.config" in low
    script = (
        "import sys\nfor m in ('torch', 'matplotlib', 'ipywidgets', 'transformers'): sys.modules[m] = None\n"
    )
    script += "import chunkprefill\n" + "".join(f"import chunkprefill.{name}\n" for name in low)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_imports_nothing():
    script = (
        "import sys, chunkprefill; print([m for m in ('numpy', 'torch', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
