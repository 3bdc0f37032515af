"""The real problem sets in the sandbox: honest work gets its points, and cheating gets none."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from chunkprefill_grading.marking.results import Result
from chunkprefill_grading.marking.run import Judging, run
from chunkprefill_grading.problems import key as keys
from chunkprefill_grading.problems import new
from chunkprefill_grading.sandbox.limits import Limits, SandboxError, require_sandbox
from tests.grading.hostile.attacks import EQUAL
from tests.needs import need
from tests.once import once

SECRET = "5d07c1b29ea84f36b1c07e58d2936fa4"
FULL = {"PS1": 20.0, "PS2": 20.0, "PS3": 17.0}  # PS3: a person gives the other three
ANYTHING = "import builtins\nbuiltins.isinstance = lambda *a: True\n"

# What `decide` of PS2 may try in place of deciding; `honest` is the solution's.
PEEKING = """
import gc
public = {arrival for _, arrival, _, _ in (*stream, *row)}
def decide(*told):
    for thing in gc.get_objects():
        if type(thing).__name__ == "Request" and thing.arrival not in public:
            raise RuntimeError(f"found {thing}")
    return honest(*told)
"""
CHEATS = {
    "PS1": {
        "tensors that equal everything": EQUAL.format(base="torch.Tensor")
        + """
def chunk_attention(q, k, v, start): return Equal()
def store(*args): return Equal()
order = counts = Equal()
""",
        "a torch that always agrees": "torch.equal = torch.allclose = lambda *a, **k: True\n"
        "chunk_attention = lambda q, k, v, start: torch.zeros_like(q)\nstore = lambda *a: None\n"
        "order, counts = '', {}\n",
    },
    "PS2": {
        "a plan that equals everything": EQUAL.format(base="")
        + "plan = statements = Equal()\ndecide = Equal\n",
        "patching the contract": ANYTHING + "from chunkprefill.scheduling import state\n"
        "state.State.apply = lambda *a: None\nplan, statements = [], {}\n"
        "decide = lambda *a: []\n",
    },
    "PS3": {
        "numbers that equal everything": EQUAL.format(base="float")
        + "tasks = overhead = report = fault = fix = consequence = Equal()\n",
        "reports of no numbers": "report = {k: float('nan') for k in report}\n"
        "overhead = {k: 10 ** 400 for k in overhead}\ntasks = {k: [] for k in tasks}\n"
        "fault = consequence = ['a', 'b', 'c', 'd']\nfix = {'first': object()}\n",
    },
}


@pytest.fixture(scope="module", params=["PS1", "PS2", "PS3"])
def graded(request: Any, tmp_path_factory: Any) -> tuple[str, dict[str, Result]]:
    """Solved, blank, and every cheat, of one set."""
    try:
        require_sandbox(Limits())
    except SandboxError as error:
        need("bwrap", False, str(error))
    name = request.param
    folder = once(tmp_path_factory, f"graded-{name}", lambda folder: grade(name, folder))
    return name, pickle.loads((folder / "results").read_bytes())


def grade(name: str, folder: Path) -> None:
    """Draw the set, hand in and grade."""
    new(name, folder / "key", SECRET)
    (folder / "in").mkdir()
    blank = json.loads((folder / "key" / f"{name}.ipynb").read_text(encoding="utf-8"))
    solved = json.loads((folder / "key" / "solution.ipynb").read_text(encoding="utf-8"))
    hand_in(folder / "in" / "solved.ipynb", solved)
    hand_in(folder / "in" / "blank.ipynb", blank)
    for cheat, code in CHEATS[name].items():
        hand_in(folder / "in" / f"{cheat}.ipynb", blank, code)
    if name == "PS2":
        hand_in(folder / "in" / "peeking.ipynb", solved, "honest = decide", PEEKING)
    key = keys.read(folder / "key" / "key.json")
    results = run(folder / "in", folder / "out", Judging(key), jobs=2, quiet=True)
    (folder / "results").write_bytes(pickle.dumps({result.student: result for result in results}))


def hand_in(path: Path, book: dict[str, Any], *cells: str) -> None:
    extra = [{"cell_type": "code", "source": cell, "metadata": {}, "outputs": []} for cell in cells]
    path.write_text(json.dumps({**book, "cells": [*book["cells"], *extra]}), encoding="utf-8")


def test_honest_work_gets_its_points_in_the_sandbox(graded: tuple[str, dict[str, Result]]) -> None:
    name, results = graded
    solved = results["solved"]
    assert sum(mark.points for mark in solved.marks) == FULL[name], solved.marks
    assert solved.status == ("needs manual" if name == "PS3" else "ok")
    assert solved.cells == (), "a cell of the notebook fails in the sandbox"
    assert results["blank"].status == "no answer" and results["blank"].score is None


def test_cheats_get_nothing(graded: tuple[str, dict[str, Result]]) -> None:
    name, results = graded
    for cheat in CHEATS[name]:
        result = results[cheat]
        assert sum(mark.points for mark in result.marks) == 0, (cheat, result.marks)
        assert SECRET not in json.dumps([str(result)])


def test_a_policy_finds_nothing_to_peek_at(graded: tuple[str, dict[str, Result]]) -> None:
    name, results = graded
    if name == "PS2":
        assert results["peeking"].score == 20.0, results["peeking"].marks
