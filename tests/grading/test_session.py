"""A policy behind a pipe decides what it would decide at home; answers are told from what is none."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chunkprefill as cp
from chunkprefill_grading.sandbox.limits import Limits
from chunkprefill_grading.sandbox.notebook_env import plain_python
from chunkprefill_grading.sandbox.process import Clock, PipeSession, fields_of
from chunkprefill_grading.sandbox.returned import rebuilt
from chunkprefill_grading.sandbox.session import (
    ArraySpec,
    BadAnswer,
    LocalSession,
    NoAnswer,
    OutOfMemory,
    Raised,
    Refused,
    TimedOut,
    seen,
)

POLICIES = {
    "RequestLevel": "cp.RequestLevel(4)",
    "PrefillFirst": "cp.PrefillFirst(64)",
    "PrefillFirst in chunks": "cp.PrefillFirst(64, chunk=16)",
    "mixed": "cp.PrefillFirst(64, mixed=True)",
    "Alternate": "cp.Alternate(16)",
    "SerialChunks": "cp.SerialChunks(16)",
    "ChunkedPrefill": "cp.ChunkedPrefill(24)",
    "shortest": "cp.ChunkedPrefill(24, order='shortest')",
    "priority": "cp.ChunkedPrefill(24, order='priority')",
    "VllmV1": "cp.VllmV1(32)",
}


@settings(max_examples=8)
@given(
    st.lists(
        st.tuples(st.floats(0, 0.5), st.integers(1, 90), st.integers(1, 12), st.integers(0, 2)),
        min_size=1,
        max_size=12,
    ),
    st.integers(14, 40),
)
@pytest.mark.parametrize("name", POLICIES)
def test_the_same_decisions_on_both_sides_of_the_pipe(name, rows, n_blocks):
    requests = [cp.Request(f"r{i}", a, p, o, priority=q) for i, (a, p, o, q) in enumerate(rows)]
    session = LocalSession([f"import chunkprefill as cp\npolicy = {POLICIES[name]}"])
    pool = cp.BlockPool(n_blocks, 8)
    at_home = eval(POLICIES[name])
    try:
        expected = cp.simulate(requests, at_home, pool=pool)
    except cp.ScheduleError as error:
        with pytest.raises(cp.ScheduleError, match=r"request|plan"):
            cp.simulate(requests, session.policy("policy"), pool=pool)
        assert "prompt tokens" not in str(error)
        return
    assert cp.simulate(requests, session.policy("policy"), pool=pool).steps == expected.steps


def test_all_that_a_policy_may_look_at_arrives_and_nothing_else():
    looked = []

    class Watch:
        def __init__(self):
            self.inner, self.seqs = cp.ChunkedPrefill(24), {}

        def schedule(self, state):
            copy = rebuilt(seen(state), self.seqs)
            for name in ("now", "n_steps"):
                assert getattr(copy, name) == getattr(state, name)
            for name in ("n_blocks", "block_size", "n_used", "n_free"):
                assert getattr(copy.pool, name) == getattr(state.pool, name)
            for name in ("waiting", "running", "decoding", "prefilling"):
                rows = [
                    [getattr(seq, field) for field in cp.Sequence.__slots__] for seq in getattr(state, name)
                ]
                assert [
                    [getattr(s, field) for field in cp.Sequence.__slots__] for s in getattr(copy, name)
                ] == rows
            looked.append(seen(state))
            return self.inner.schedule(state)

    requests = [cp.Request(i, 0.02 * i, 20 + 7 * i, 4 + i) for i in range(8)]
    cp.simulate(requests, Watch(), pool=cp.BlockPool(14, 8))
    assert len(looked) > 20
    assert {len(row) for state in looked for row in state["waiting"] + state["running"]} == {7}
    first = {row[0]: row for row in looked[0]["waiting"]}
    assert first.keys() == {0}, "who has not arrived is not told of"


def test_a_sequence_stays_the_same_object():
    code = """
class Policy:
    def __init__(self): self.seen = {}
    def schedule(self, state):
        for seq in [*state.running, *state.waiting]:
            assert self.seen.setdefault(seq.rid, seq) is seq
        import chunkprefill as cp
        return cp.Plan({seq.rid: 1 for seq in [*state.running, *state.waiting]})
"""
    session = LocalSession([code])
    requests = [cp.Request(i, 0.0, 3, 3) for i in range(3)]
    assert len(cp.simulate(requests, session.policy("Policy")).steps) == 5


def test_answers_and_what_is_none():
    session = LocalSession(
        [
            "x = {'a': (1, 2.5), 3: [None, True]}\nempty = None\ndots = ...\nthing = object()",
            "def f(a, b=1): return a * b\ndef todo(a): raise NotImplementedError\ndef bad(a): return 1 / 0",
            "def greedy(a): return bytearray(1 << 62)\nclass NoPolicy: pass\nnumber = 3",
        ]
    )
    assert session.value("x") == {"a": [1, 2.5], 3: [None, True]}
    assert session.call("f", [3, 4]) == 12
    for name in ("nobody", "empty", "dots"):
        with pytest.raises(NoAnswer):
            session.value(name)
    with pytest.raises(NoAnswer):
        session.call("todo", [1])
    with pytest.raises(Raised, match=r"raised ZeroDivisionError \(code cell 2, line 3: `def bad"):
        session.call("bad", [1])
    with pytest.raises(Raised, match="TypeError"):
        session.call("f", [])
    with pytest.raises(OutOfMemory):
        session.call("greedy", [1])
    for ask in (
        lambda: session.value("thing"),
        lambda: session.call("number", [1]),
        lambda: session.call("f", [[1]], [ArraySpec((2,), "float64")]),
        lambda: session.policy("NoPolicy"),
        lambda: session.policy("number"),
    ):
        with pytest.raises(BadAnswer):
            ask()


def test_arrays_are_tensors_where_the_key_says_so():
    code = (
        "def kind(a): return type(a).__name__\ndef both(a): return a + a, a > 1\ndef of(xs): return len(xs)"
    )
    x = np.array([[0.5, 1.5]], dtype="float32")
    assert LocalSession([code]).call("kind", [x]) == "list"
    session = LocalSession([code], needs_torch=True)
    assert session.call("kind", [x]) == "Tensor"
    assert session.call("of", [[x, x]]) == 2
    doubled, above = session.call("both", [x], [ArraySpec((1, 2), "float32"), ArraySpec((1, 2), "bool")])
    assert doubled.tolist() == [[1.0, 3.0]] and above.tolist() == [[False, True]]
    (wide,) = LocalSession(["import torch\ndef f(a): return a.double() + a.half()"], needs_torch=True).call(
        "f", [x], [ArraySpec((1, 2), "float32")]
    )
    assert wide.dtype == np.float32


def test_cells_go_on_after_one_that_failed():
    session = LocalSession(
        ["a = 1", "b = 1 / 0", "%pip install x\nif a:\n    !ls\nc = 3", "this is not", "d = 4"]
    )
    assert [session.value(name) for name in "acd"] == [1, 3, 4]
    assert [row[0] for row in session.troubles] == [2, 4]


def test_a_missing_module_costs_its_own_import_and_nothing_else():
    cell = """
import no_such_module, math
from math import no_such_name, pi
from chunkprefill import Plan
import os.path as path
def area(r):
    return pi * r * math.floor(1.5)
"""
    session = LocalSession(
        [cell, "from __future__ import annotations\ndef f(x: Whatever): return 2 * x", "import x; y = 1"]
    )
    assert session.call("area", [2.0]) == pytest.approx(6.283185307)
    assert session.call("f", [3]) == 6 and session.value("y") == 1
    assert [(cell, words.partition(" (")[0]) for cell, words, _ in session.troubles][::2] == [
        (1, "ModuleNotFoundError: No module named 'no_such_module'"),
        (3, "ModuleNotFoundError: No module named 'x'"),
    ]
    within = LocalSession(
        ["try:\n    import x\nexcept ImportError:\n    y = 2\ndef g():\n    import x\ng()\nz = 3"]
    )
    assert within.value("y") == 2
    with pytest.raises(NoAnswer):
        within.value("z")  # an error in the middle of a cell ends the cell, as in a notebook


@pytest.mark.parametrize(
    ("source", "plain"),
    [
        ("a = 5\nb = (a\n % 3)", "a = 5\nb = (a\n % 3)"),
        ("if x:\n    %pip install y\n", "if x:\n    pass\n"),
        ("!ls\nx = 1", "pass\nx = 1"),
        ("len?", "pass"),
        ("%%bash\nrm -rf x", "pass"),
        ("%%time\nx = 1\n%matplotlib inline", "pass\nx = 1\npass"),
        ("%%capture out\nx = 1", "out = None\nx = 1"),
        ("%time x = f(\n    2)", "x = f(\n    2)"),
        ("if x:\n    %time y = 2", "if x:\n    y = 2"),
        ("files = !ls *.py\nn = 3", "files = []\nn = 3"),
        ("a['b'] = %who_ls", "a['b'] = None"),
        ('t = """\n!not\n"""\n!ls\nu = 7 % 4', 't = """\n!not\n"""\npass\nu = 7 % 4'),
        ("%load_ext autoreload\n%autoreload 2\nx = 1", "pass\npass\nx = 1"),
        ("np.quantile??\nx = 1", "pass\nx = 1"),
        ("text = '''\n%not magic\n'''", "text = '''\n%not magic\n'''"),
    ],
)
def test_magics_become_pass(source, plain):
    assert plain_python(source) == plain


@given(st.sampled_from(["value", "call", "policy"]), st.text(max_size=12))
def test_any_name_may_be_asked_for(what, name):
    session = LocalSession(["x = 1"])
    ask = {"value": session.value, "call": lambda n: session.call(n, []), "policy": session.policy}[what]
    if name == "x" and what == "value":
        assert ask(name) == 1
        return
    with pytest.raises(Refused):
        ask(name)


class Watched(PipeSession):
    """A session without a process: its clock and the process's state are told."""

    def __init__(self, tells_waits: bool) -> None:
        self.limits, self.safe, self._bound = Limits(idle_s=5.0), False, True
        self._asked = self._idle = self._cpu = self._begun_cpu = 0.0
        self._most_idle, self._tells_waits = 5.0, tells_waits
        self._begun_bytes, self._answered = 0, None
        self.now, self.state, self._has_ended = Clock(0.0, 0.0, 0.0), "S", False

    def _clock(self) -> Clock:
        return self.now

    def _state(self) -> str:
        return self.state

    def _private_bytes(self) -> int:
        return 0

    def look(self, wall: float, process: float, state: str) -> None:
        self.now, self.state = Clock(wall, process, 0.0), state
        self._answered = self._check_limits(self._last)


@pytest.mark.parametrize(("tells_waits", "idle"), [(True, 1.7), (False, 0.0)])
def test_who_is_awake_at_every_look_has_slept_in_between(tells_waits, idle):
    session = Watched(tells_waits)
    session._last = session.now
    session.look(1.0, 0.1, "R")
    session.look(2.0, 0.3, "R")  # answered here
    assert session._idle == 0.0
    session._settle(
        Clock(9.0, 0.3, 0.0)
    )  # seven seconds pass until the next question: those are the grader's
    assert session._idle == pytest.approx(idle)


def test_a_wait_for_a_processor_is_no_sleep_however_late_it_is_told():
    session = Watched(True)
    session._last = session.now
    session.look(1.0, 0.1, "R")  # it waits for a processor, and the kernel does not say so yet
    session.look(2.0, 2.0, "S")
    session.look(3.0, 2.0, "R")
    session._settle(Clock(3.5, 3.0, 0.0))
    assert session._idle == pytest.approx(0.0)
    session.look(4.0, 2.5, "S")
    assert session._idle == pytest.approx(1.5)


@pytest.mark.parametrize("over", ["", "Z", "X"])
def test_a_loop_that_the_kernel_ended_did_not_sleep(over):
    """Between its end and the pipe's word of it, nothing says how long the process had run."""
    session = Watched(True)
    session._last = session.now
    for second in range(1, 8):
        session.look(float(second), 0.0, "R")  # it runs, and the kernel has not told how long
    session.look(8.0, 0.0, over)
    session.look(8.5, 0.0, over)
    assert session._idle == pytest.approx(0.5)
    with pytest.raises(TimedOut, match="it did nothing for 5 s"):  # another process holds its pipe open
        session.look(14.0, 0.0, over)


def test_seconds_of_a_process_that_is_no_more_are_the_last_that_were_told():
    session = Watched(True)
    session._pid, session._seconds = os.getpid(), 0.0
    before = session._process_seconds()
    session._pid = 2**22 + 1  # above the largest number that the kernel gives
    assert before > 0 and session._process_seconds() == before and PipeSession._state(session) == ""


def test_a_name_that_is_no_text_hides_nothing_of_a_process(tmp_path):
    """Student code may name its process; its state is read behind the last bracket."""
    (tmp_path / "stat").write_bytes(b"7 (\xff) R 1 \x80) S 1 7")
    assert fields_of(tmp_path / "stat") == ["S", "1", "7"]
