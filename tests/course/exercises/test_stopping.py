"""Nothing that a program catches keeps it running, in the main thread and in others; nothing it does escapes."""

# ruff: noqa: B012, E722, SIM105 (this is what programs are made of)
from __future__ import annotations

import contextlib
import gc
import importlib
import signal
import sys
import threading
import time

import pytest

from chunkprefill_course import exercises
from chunkprefill_course.forms.running import attempt
from chunkprefill_course.forms.stopping import PATIENCE, Limit, Spent
from chunkprefill_course.forms.trial import ProgramTrial


def catches_all():
    while True:
        try:
            sum(range(1000))
        except:
            pass


def catches_in_catching():
    while True:
        try:
            while True:
                try:
                    x = 1  # noqa: F841
                except BaseException:
                    continue
        except:
            with contextlib.suppress(BaseException):
                sum(range(10))


def suppresses():
    while True:
        with contextlib.suppress(BaseException):
            while True:
                pass


def finally_goes_on():
    while True:
        try:
            pass
        finally:
            continue


def generates():
    def endless():
        while True:
            try:
                yield 1
            except:
                pass

    for _ in endless():
        pass


def at_the_end_of_the_stack():
    def deeper(n):
        try:
            return deeper(n + 1)
        except RecursionError:
            return deeper(n)

    while True:
        try:
            deeper(0)
        except Exception:
            pass


def floods():
    while True:
        print("x" * 1000)


LOOPS = [
    catches_all,
    catches_in_catching,
    suppresses,
    finally_goes_on,
    generates,
    at_the_end_of_the_stack,
    floods,
]


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.__name__)
@pytest.mark.parametrize("where", ["main", "thread"])
def test_every_loop_is_stopped(loop, where, capsys):
    outcomes = []

    def run():
        outcomes.append((attempt(loop, seconds=0.15), sys.exc_info()[0]))

    if where == "main":
        run()
    else:
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(60)
    ((outcome, handled),) = outcomes
    assert outcome.late and handled is None, "no later error may say that it came while handling this one"
    assert sys.gettrace() is None or "coverage" in repr(sys.gettrace())
    assert capsys.readouterr().out == ""


def test_a_stop_inside_what_others_run_between_its_lines_is_not_heard_of(monkeypatch):
    """Hypothesis has a callback of the garbage collector, and pytest fails the test in which one raised."""
    heard = []
    monkeypatch.setattr(sys, "unraisablehook", heard.append)
    begun = time.thread_time()

    def callback(*_):
        while time.thread_time() < begun + 0.3:
            pass

    def collects():
        while True:
            try:
                gc.collect(0)
            except BaseException:
                pass

    gc.callbacks.append(callback)
    try:
        outcome = attempt(collects, seconds=0.1)
    finally:
        gc.callbacks.remove(callback)
    assert outcome.late and heard == [] and sys.unraisablehook == heard.append


def test_a_limit_that_is_lifted_leaves_the_thread_alone():
    limit = Limit(0.05)
    limit.on()
    limit.off()
    time.sleep(0.1)
    assert sum(range(1000)) == 499500


def test_who_waits_for_a_processor_is_not_late_and_who_sleeps_is(monkeypatch):
    """First a second in which it computes most of the time, then eleven in which it computes nothing."""
    clock, computed = [100.0], [5.0]
    monkeypatch.setattr("chunkprefill_course.forms.stopping._PASSED", lambda: clock[0])
    monkeypatch.setattr("chunkprefill_course.forms.stopping._COMPUTED", lambda: computed[0])
    spent = Spent()
    clock[0], computed[0] = 101.0, 5.9
    assert spent() == pytest.approx(0.9), "what it computed"
    clock[0], computed[0] = 112.0, 5.9
    assert spent() == pytest.approx(12 / PATIENCE), "what has passed"


def test_a_program_that_sleeps_is_stopped():
    assert attempt(lambda: time.sleep(600), seconds=0.05).late


@pytest.mark.parametrize(
    "raised", [KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError, RecursionError]
)
def test_what_a_program_raises_becomes_words(raised):
    def program():
        raise raised

    outcome = attempt(program)
    assert outcome.kind == raised.__name__ and "line " in outcome.trouble


def test_a_program_that_catches_all_is_refused_within_its_time():
    def program(*_):
        catches_all()

    feedback = exercises.vllm_step.check(program, seconds=0.4)
    assert feedback.ok is False and "0.4 s" in str(feedback)


def test_more_memory_than_there_is_room_for_is_refused():
    outcome = attempt(lambda: list(range(10**10)))
    assert outcome.kind == "MemoryError"


def test_a_loop_is_stopped_where_the_check_itself_runs_in_an_import(tmp_path, monkeypatch):
    (tmp_path / "checks_itself.py").write_text(
        "from chunkprefill_course.forms.running import attempt\n"
        "def endless():\n    n = 0\n    while n < 3 * 10**7:\n        n += 1\n"
        "outcome = attempt(endless, seconds=0.1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert importlib.import_module("checks_itself").outcome.late


def test_the_line_of_an_answer_is_looked_for_within_the_time_too():
    calls = []

    def program(name, n):
        calls.append(n)
        if len(calls) > 4:
            print("noise")
            while True:
                pass
        if n:
            return 1
        return 2

    class Form:
        run = staticmethod(lambda asked, case: asked(*case.values()))

    trial = ProgramTrial(Form(), program, 0, 0.2)
    place = trial._place({"name": "a", "n": 1})
    assert "return 1" in place
    calls += [0] * 9
    assert trial._place({"name": "a", "n": 1}) == "", "it ends, and says nothing"
    assert sys.gettrace() is None or "coverage" in repr(sys.gettrace())

    def interrupted(name, n):
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a worker of pytest's may ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            ProgramTrial(Form(), interrupted, 0, 0.2)._place({"name": "a", "n": 1})
    finally:
        signal.signal(signal.SIGINT, before)
