"""Who may import whom among the model's modules."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests.needs import ROOT

MODEL = ROOT / "chunkprefill" / "model"


def imported(name: str) -> set[str]:
    """Modules of this package that a module of the model room names, anywhere in its text."""
    tree = ast.parse((MODEL / f"{name}.py").read_text(encoding="utf-8"))
    named: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            named |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
    return {name for name in named if name.startswith("chunkprefill")}


@pytest.mark.parametrize("cache", ["cache", "paged"])
def test_the_model_and_its_caches_do_not_know_each_other(cache: str) -> None:
    assert "chunkprefill.model.transformer" not in imported(cache)
    assert not any(name.startswith(f"chunkprefill.model.{cache}") for name in imported("transformer"))


@pytest.mark.parametrize("name", ["config", "families"])
def test_shapes_need_nothing_but_the_standard_library(name: str) -> None:
    gone = dict.fromkeys(["torch", "numpy", "matplotlib", "tqdm", "safetensors", "tokenizers"])
    code = f"import sys; sys.modules.update({gone!r}); import chunkprefill.model.{name}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
