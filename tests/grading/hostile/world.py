"""A problem set of three questions that tests can read at a glance: honest answers, and who marks them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

import chunkprefill as cp
from chunkprefill.scheduling.core import ScheduleError
from chunkprefill_grading.marking.mark import Mark
from chunkprefill_grading.sandbox.session import ArraySpec, Refused, Session
from chunkprefill_grading.submission.collect import Student

SECRET = "c0ffee5ec2e7c0ffee5ec2e7c0ffee5e"
LAST_ARRIVAL = 73.8125  # s; what no policy may come to know before
QUESTIONS = ("number", "double", "Policy")
KEY: dict[str, Any] = {
    **{"version": 1, "problem_set": "T1", "needs_torch": False, "max_score": 3.0, "secret": SECRET},
    "questions": [{"name": name, "points": 1.0, "kind": "x", "written": False} for name in QUESTIONS],
}
NUMBER = "number = 42"
DOUBLE = "def double(x):\n    return [2 * each for each in x]"
POLICY = """
import chunkprefill as cp

class Policy:
    def schedule(self, state):
        tokens = state.decoding.each(1)
        for seq in [*state.prefilling, *state.waiting][:1]:
            tokens[seq.rid] = min(64, seq.pending)
        return cp.Plan(tokens)
"""
HONEST = (NUMBER, DOUBLE, POLICY)


def notebook(*cells: str, markdown: tuple[str, ...] = ()) -> dict[str, Any]:
    """A notebook as little as can be."""
    code = [{"cell_type": "code", "source": source} for source in cells]
    return {"cells": code + [{"cell_type": "markdown", "source": text} for text in markdown], "nbformat": 4}


def hand_in(folder: Path, name: str, *cells: str, **more: Any) -> Student:
    """Write NAME.ipynb and say whose it is."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.ipynb").write_text(json.dumps(notebook(*cells, **more)), encoding="utf-8")
    return Student(student=name, slug=name, name=name, file=f"{name}.ipynb")


def requests() -> list[cp.Request]:
    """The hidden workload."""
    late = cp.Request(9, LAST_ARRIVAL, 120, 5)
    return [*(cp.Request(rid, 0.25 * rid, 40 + 13 * rid, 3 + rid) for rid in range(5)), late]


def mark(key: dict[str, Any], answers: Session, written: dict[str, str]) -> list[Mark]:
    """One point each, by comparison out here."""
    marks: list[Mark] = []
    for question, judge in zip(QUESTIONS, (_number, _double, _policy)):
        try:
            marks.append(Mark(question, float(judge(answers)), 1.0))
        except ScheduleError as error:
            marks.append(Mark(question, 0.0, 1.0, comment=str(error)))
        except Refused as refused:
            marks.append(Mark(question, 0.0, 1.0, refused.status, refused.why))
    return marks


def _number(answers: Session) -> bool:
    value = answers.value("number")
    return type(value) is int and value == 42


def _double(answers: Session) -> bool:
    x = np.array([1.5, -2.0, 3.25, 0.0])
    (y,) = answers.call("double", [x], [ArraySpec((4,), "float64")])
    return bool(np.array_equal(y, 2 * x))


def _policy(answers: Session) -> bool:
    trace = cp.simulate(requests(), answers.policy("Policy", ()), pool=cp.BlockPool(200))
    wanted = {request.rid: request.n_output for request in requests()}
    emitted = dict.fromkeys(wanted, 0)
    for step in trace.steps:
        for chunk in step.batch:
            emitted[chunk.rid] += chunk.emits
    return emitted == wanted
