"""A check in a copy of the process: what no alarm interrupts, and what ends Python, costs the check alone."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
import types
from collections.abc import Iterator

import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

import chunkprefill_course as course
from chunkprefill_course.forms.apart import apart, in_notebook
from chunkprefill_course.forms.feedback import Feedback

EXERCISE = course.exercises.kv_bytes


@pytest.fixture(autouse=True)
def a_kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a notebook; afterwards no copy is left."""
    monkeypatch.setitem(sys.modules, "ipykernel.ipkernel", types.ModuleType("ipykernel.ipkernel"))
    made, fork = [], os.fork

    def counted() -> int:
        pid = fork()
        if pid:
            made.append(pid)
        return pid

    monkeypatch.setattr(os, "fork", counted)
    if not in_notebook():
        pytest.skip("no copy can be made of this process")
    yield
    assert made, "the check ran in this process"
    for pid in made:
        with pytest.raises(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def test_a_kernel_is_told_from_a_program_that_starts_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest loads parts of ipykernel through nbval, and ran each check in a copy of itself."""
    monkeypatch.delitem(sys.modules, "ipykernel.ipkernel")
    import ipykernel  # noqa: F401

    assert not in_notebook()
    ask = "from chunkprefill_course.forms.apart import in_notebook\nassert in_notebook()"
    NotebookClient(new_notebook(cells=[new_code_cell(ask)]), timeout=120, kernel_name="python3").execute()
    assert not in_notebook(), "a kernel that was started here is another process"
    monkeypatch.setitem(sys.modules, "ipykernel.ipkernel", types.ModuleType("ipykernel.ipkernel"))
    assert EXERCISE.check(EXERCISE.solution).ok


def test_the_words_are_those_of_a_check_that_ran_here(monkeypatch: pytest.MonkeyPatch) -> None:
    programs = [
        EXERCISE.solution,
        *(wrong.program for wrong in EXERCISE.wrong),
        lambda *_: None,
        lambda *_: 1 / 0,
    ]
    there = [EXERCISE.check(program, seed=3) for program in programs]
    monkeypatch.delitem(sys.modules, "ipykernel.ipkernel")
    assert there == [EXERCISE.check(program, seed=3) for program in programs]


@pytest.mark.parametrize(
    "endless",
    [lambda *_: sum(itertools.repeat(0)), lambda *_: max(itertools.repeat(0))],
    ids=["sum", "max"],
)
def test_what_no_alarm_interrupts_is_ended_and_said(endless, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chunkprefill_course.forms.apart.GRACE_S", 1.0)
    got = EXERCISE.check(endless, seed=1, seconds=0.5)
    assert got.ok is False and "nothing could interrupt it" in got.message and "0.5 s" in got.message


def test_a_loop_that_an_alarm_interrupts_gets_the_usual_words() -> None:
    def endless(*_):
        while True:
            pass

    got = EXERCISE.check(endless, seed=1, seconds=0.5)
    assert got.ok is False and "had not finished" in got.message and "nothing could" not in got.message


@pytest.mark.parametrize(
    ("ends", "how"),
    [(lambda *_: os._exit(0), "os._exit"), (lambda *_: os.kill(os.getpid(), signal.SIGKILL), "SIGKILL")],
    ids=["exit", "kill"],
)
def test_a_program_that_ends_python_costs_the_check_alone(ends, how: str) -> None:
    got = EXERCISE.check(ends, seed=1)
    assert got.ok is False and how in got.message and "ended the Python" in got.message


def test_a_reply_longer_than_a_pipe_arrives_whole() -> None:
    long = Feedback(ok=True, message="ä" * 300_000, picture="<svg/>" * 50_000)
    assert apart(lambda: long, 5.0, "f") == long


def test_an_error_of_ours_in_the_copy_is_no_right_answer() -> None:
    assert apart(lambda: 1 / 0, 5.0, "f").ok is False  # type: ignore[arg-type,return-value]


def test_ctrl_c_ends_the_copy_too() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def pressed_then_endless() -> Feedback:
        time.sleep(0.1)
        os.kill(os.getppid(), signal.SIGINT)  # the copy is there, and at work
        time.sleep(600)
        raise AssertionError

    try:
        with pytest.raises(KeyboardInterrupt):
            apart(pressed_then_endless, 60.0, "f")
    finally:
        signal.signal(signal.SIGINT, before)
