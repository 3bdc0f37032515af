"""A trace comes back from disk as it was; a file that is cut, foreign or forged gets a clear error."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chunkprefill as cp
from tests.library.scheduling.cases import cost, runs


@settings(max_examples=80, deadline=None)
@given(runs())
def test_saved_and_loaded(tmp_path_factory, run):
    requests, policy, pool, overlap = run
    trace = cp.simulate(
        requests, policy, cost, pool, overlap=overlap, scheduling=cp.SchedulerCost(0.1, 1e-3 / 3)
    )
    path = tmp_path_factory.mktemp("trace") / "t.json"
    trace.outputs[requests[0].rid] = [3, 1, 4]
    trace.save(path)
    again = cp.Trace.load(path)
    assert again == trace and again.steps == trace.steps and again.host == trace.host
    assert list(again.steps) == list(trace.steps) and again.preempted == trace.preempted


def a_trace():
    requests = [cp.Request(i, i / 2, 9 + i, 4, tuple(range(9 + i))) for i in range(4)]
    return cp.simulate(requests, cp.ChunkedPrefill(6), cost, cp.BlockPool(6, 4))


def test_a_trace_is_made_of_steps():
    trace = a_trace()
    again = cp.Trace(trace.requests, trace.steps, {0: (1, 2)}, trace.label)
    assert again.steps == trace.steps and again.outputs == {0: [1, 2]} and again.label == trace.label


def test_steps_read_as_a_sequence():
    trace = a_trace()
    steps = trace.steps
    assert len(steps) == len(list(steps)) and steps[-1] == list(steps)[-1] and steps[1:3] == list(steps)[1:3]
    assert steps == list(steps) and steps != list(steps)[:-1] and steps[0] in steps
    with pytest.raises(IndexError, match=f"step {len(steps)} of {len(steps)}"):
        steps[len(steps)]
    with pytest.raises(AttributeError):
        steps[0].start = 3.0
    other = a_trace()
    assert other == trace and other.steps == steps
    assert cp.simulate(trace.requests, cp.ChunkedPrefill(7), cost).steps != steps


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9), st.booleans()), min_size=1, max_size=8))
def test_totals_are_the_sums_of_the_rows(rows):
    batch = cp.Batch(tuple(range(len(rows))), *map(tuple, zip(*rows)))
    t = batch.totals()
    assert t.n_tokens == sum(c.length for c in batch.chunks) and t.n_emits == sum(
        c.emits for c in batch.chunks
    )
    assert t.context == sum(c.start for c in batch.chunks)
    assert t.pairs == sum(sum(range(c.start + 1, c.end + 1)) for c in batch.chunks)
    decodes = [c for c in batch.chunks if c.length == 1 and c.emits and c.start]
    assert t.n_decodes == len(decodes) and t.decode_context == sum(c.start for c in decodes)
    assert len(t.chunks) == len(rows) - len(decodes)
    assert t.longest_decode == max((c.start for c in decodes), default=0)


def forge(change):
    """Text of a trace after `change` was made to its document."""

    def text(path):
        a_trace().save(path)
        document = json.loads(path.read_text())
        change(document)
        return json.dumps(document)

    return text


def put(*path_and_value):
    *path, last, value = path_and_value

    def change(document):
        for key in path:
            document = document[key]
        document[last] = value

    return forge(change)


BROKEN = {
    "empty": lambda path: "",
    "cut off": lambda path: (a_trace().save(path), path.read_text()[:400])[1],
    "not JSON": lambda path: "scheduled,start\n1,2\n",
    "deep": lambda path: "[" * 200_000,
    "foreign": lambda path: '{"cases": []}',
    "a list": lambda path: "[1, 2]",
    "another version": put("version", 99),
    "no columns": forge(lambda d: d.pop("columns")),
    "a column short": forge(lambda d: d["columns"]["length"].pop()),
    "a step short": forge(lambda d: d["columns"]["end"].pop()),
    "a column missing": forge(lambda d: d["columns"].pop("first")),
    "text for numbers": put("columns", "length", "long"),
    "negative length": put("columns", "length", 0, -1),
    "huge length": put("columns", "length", 0, 10**30),
    "zero length": put("columns", "length", 0, 0),
    "an unknown request": put("columns", "request", 0, 77),
    "beyond its end": put("columns", "first", 0, 1000),
    "emits twice": put("columns", "emits", 0, 2),
    "bad offset": put("columns", "offset", 1, 10_000),
    "offset from 1": put("columns", "offset", 0, 1),
    "not a number": put("columns", "start", 0, None),
    "backwards": put("columns", "end", 1, 0.0),
    "overlapping": put("columns", "end", 0, 1e9),
    "a bad request": put("requests", "rows", 0, 2, 0),
    "requests of other fields": put("requests", "fields", ["a", "b"]),
    "a request cut short": forge(lambda d: d["requests"]["rows"][0].pop()),
    "a request too long": forge(lambda d: d["requests"]["rows"][0].append(1)),
    "an arrival in words": put("requests", "rows", 0, 1, "0"),
    "two of a name": put("requests", "rows", 0, 0, 1),
    "outputs of no request": put("outputs", [[99, [1]]]),
    "outputs no tokens": put("outputs", [[0, ["x"]]]),
    "evicts no request of it": put("preempted", [[0, 99]]),
    "evicts at no step": put("preempted", [[999, 0]]),
    "preempted a number": put("preempted", 3),
}


@pytest.mark.parametrize("make", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_refused_by_name(tmp_path, make):
    path = tmp_path / "broken.json"
    path.write_text(make(path))
    with pytest.raises(ValueError, match=r"broken\.json: \S+"):
        cp.Trace.load(path)


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        cp.Trace.load(tmp_path / "none.json")


def test_binary_is_no_trace(tmp_path):
    (tmp_path / "t.json").write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match="not a trace"):
        cp.Trace.load(tmp_path / "t.json")
