"""Parts of a step: they add up, cost next to nothing to record, survive a file, and change no decision."""

from __future__ import annotations

import importlib
import json
import math
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chunkprefill as cp
from tests.library.scheduling.cases import cost, runs
from tests.needs import need

torch = pytest.importorskip("torch")

BESIDE = ("check", "wait", "execution")


@pytest.fixture(scope="module")
def tiny():
    return cp.load_model("tiny")


def requests(n=6):
    return [cp.Request(i, 0.0, 20 + 7 * i, 12) for i in range(n)]


def covered(trace):
    """Of each step's wall time, the share that parts, check and the pass account for."""
    t = trace.timings
    shares = []
    for i, step in enumerate(trace.steps):
        seconds = sum(t[name][i] for name in (*cp.PARTS, "check", "wait"))
        shares.append(seconds / (step.end - step.scheduled))
    return shares


@pytest.mark.parametrize("how", ["run", "replay"])
def test_parts_check_and_pass_add_up_to_the_wall(tiny, clock, how):
    """A rule for every step, whatever is in it: nothing is counted twice, and little escapes."""
    engine = cp.Engine(tiny, cp.ChunkedPrefill(24), cp.BlockPool(30, 4))
    trace = engine.run(requests())
    if how == "replay":
        trace = cp.replay(trace, engine, decide=True)
    assert list(trace.parts) == list(cp.PARTS)
    assert all(len(column) == len(trace.steps) for column in trace.timings.values())
    shares = covered(trace)
    assert max(shares) <= 1 + 1e-9, "a part of a step lies within the step, and no two overlap"
    assert median(shares) > 0.7, "of a step of a dozen ticks, few lie between two parts"
    for i, step in enumerate(trace.steps):  # the two halves of a step, each by its own marks
        scheduling = sum(trace.parts[name][i] for name in cp.PARTS if name != "read")
        assert scheduling <= step.dispatched - step.scheduled + 1e-9
        assert trace.timings["wait"][i] + trace.parts["read"][i] <= step.end - step.start + 1e-9


EXTRA = 0.004  # s


class Slow:
    """A policy that takes its time."""

    def __init__(self, clock):
        self.inner, self.clock = cp.ChunkedPrefill(24), clock

    def schedule(self, state):
        self.clock.advance(EXTRA)
        return self.inner.schedule(state)


SLOWED = {  # part -> what is slowed down
    "blocks": ("chunkprefill.scheduling.state", "State", "apply"),
    "book": ("chunkprefill.scheduling.state", "State", "commit"),
    "inputs": ("chunkprefill.model.paged", "PagedKVCache", "window"),
    "read": ("torch", "Tensor", "argmax"),
    "execution": ("chunkprefill.model.transformer", "Transformer", "forward"),
    "decide": (),
}


@pytest.mark.parametrize("part", SLOWED)
def test_what_takes_long_is_the_part_that_grows(tiny, clock, monkeypatch, part):
    """Slow one thing down: its part grows by as much, and the others stay small."""

    def parts(policy):
        trace = cp.Engine(tiny, policy).run(requests())
        return {name: median(column) for name, column in trace.timings.items()}

    plain = parts(cp.ChunkedPrefill(24))
    assert all(plain[name] < EXTRA / 10 for name in cp.PARTS)
    policy = cp.ChunkedPrefill(24)
    if part == "decide":
        policy = Slow(clock)
    else:
        module, owner, name = SLOWED[part]
        kind = getattr(importlib.import_module(module), owner)
        inner = getattr(kind, name)

        def slow(self, *args, **kwargs):
            clock.advance(EXTRA)
            return inner(self, *args, **kwargs)

        monkeypatch.setattr(kind, name, slow)
    found = parts(policy)
    assert found[part] == pytest.approx(plain[part] + EXTRA, rel=0.01)
    for name in cp.PARTS:
        if name != part:
            assert found[name] < EXTRA / 10, (part, found)


def test_overlapped_the_loop_s_parts_are_there_too(tiny):
    trace = cp.Engine(tiny, cp.ChunkedPrefill(24), overlap=True).run(requests())
    assert list(trace.parts) == list(cp.PARTS)
    assert all(len(column) == len(trace.steps) for column in trace.timings.values())
    assert all(s >= 0 for column in trace.timings.values() for s in column)
    assert math.isnan(cp.breakdown(trace).covered), "one step's time lies within another's: nothing adds up"


def test_waiting_for_an_arrival_is_no_part(tiny, clock):
    late = [cp.Request(0, 0.0, 20, 5), cp.Request(1, 300.0, 20, 5)]
    for trace in (
        first := cp.Engine(tiny, cp.ChunkedPrefill(24)).run(late),
        cp.replay(first, cp.Engine(tiny, cp.ChunkedPrefill(24))),
    ):
        assert sum(map(sum, trace.parts.values())) < 1, "300 s were waited"
        assert max(covered(trace)) <= 1 + 1e-9


@settings(max_examples=20, deadline=None)
@given(runs(most=5))
def test_recording_changes_no_step_and_can_be_left_out(tiny, run):
    workload, policy, pool, overlap = run
    priced = cp.simulate(workload, policy, cost, pool, overlap=overlap)
    assert priced.parts == {} and priced.timings == {} and len(priced.gaps) == 0
    assert cp.Engine(tiny, policy, pool, cost=cost, overlap=overlap).run(workload).timings == {}
    again = cp.replay(priced, cp.Engine(tiny, policy, pool, timed=False))
    timed = cp.replay(priced, cp.Engine(tiny, policy, pool))
    assert again.timings == {} and list(timed.parts) == list(cp.PARTS)
    assert [s.batch for s in again.steps] == [s.batch for s in timed.steps] == [s.batch for s in priced.steps]
    assert timed.outputs == again.outputs


def test_asking_the_policy_in_a_replay_leaves_its_plan_aside(tiny, clock):
    trace = cp.simulate(requests(), cp.ChunkedPrefill(24), cost)
    asked = cp.replay(trace, cp.Engine(tiny, Slow(clock)), decide=True)
    unasked = cp.replay(trace, cp.Engine(tiny, Slow(clock)))
    assert (
        [s.batch for s in asked.steps] == [s.batch for s in unasked.steps] == [s.batch for s in trace.steps]
    )
    assert min(asked.parts["decide"]) >= EXTRA > EXTRA / 10 > max(unasked.parts["decide"])


# --- on disk ------------------------------------------------------------------------------------------


def test_parts_survive_a_file_and_an_old_file_still_loads(tiny, tmp_path):
    trace = cp.Engine(tiny, cp.ChunkedPrefill(24)).run(requests(3))
    path = tmp_path / "t.json"
    trace.save(path)
    again = cp.Trace.load(path)
    assert again == trace and again.timings == trace.timings and again.parts == trace.parts
    document = json.loads(path.read_text())
    del document["timings"]
    path.write_text(json.dumps(document))
    old = cp.Trace.load(path)
    assert old == trace and old.parts == {}, "parts are no part of a comparison"


BROKEN = {
    "an unknown part": lambda t: t.update(magic=t["decide"]),
    "a step short": lambda t: t["read"].pop(),
    "below zero": lambda t: t["read"].__setitem__(0, -1.0),
    "text": lambda t: t.update(read="fast"),
    "no number": lambda t: t["read"].__setitem__(0, None),
    "endless": lambda t: t["read"].__setitem__(0, 1e999),
    "nested": lambda t: t.update(read=[[1.0]]),
}


@pytest.mark.parametrize("spoil", BROKEN.values(), ids=BROKEN)
def test_a_file_with_broken_parts_is_refused_by_name(tiny, tmp_path, spoil):
    trace = cp.Engine(tiny, cp.ChunkedPrefill(24)).run(requests(2))
    path = tmp_path / "broken.json"
    trace.save(path)
    document = json.loads(path.read_text())
    spoil(document["timings"])
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"broken\.json: a broken trace"):
        cp.Trace.load(path)


@pytest.mark.parametrize("timings", [[], 3, "x", None])
def test_parts_that_are_no_table_are_refused(tiny, tmp_path, timings):
    trace = cp.simulate(requests(2), cp.ChunkedPrefill(24), cost)
    path = tmp_path / "broken.json"
    trace.save(path)
    document = json.loads(path.read_text()) | {"timings": timings}
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"broken\.json: a broken trace"):
        cp.Trace.load(path)


# --- the GPU's idle gap, without a GPU ----------------------------------------------------------------


class Event:
    """A CUDA event on a clock of our own, ms."""

    def __init__(self, at):
        self.at, self.waited = at, 0

    def synchronize(self):
        self.waited += 1

    def elapsed_time(self, later):
        return later.at - self.at


def test_gaps_are_from_the_end_of_one_step_to_the_start_of_the_next(tiny):
    """As on a GPU: the events are asked once the step has landed, in the order of landing, and no others."""
    from chunkprefill.engine import InFlightStep, ModelExecutor

    executor = ModelExecutor(cp.Engine(tiny, cp.ChunkedPrefill(8)), {0: (1, 2)}, None, ahead=False)
    times = [(0.0, 4.0), (4.5, 6.0), (6.0, 9.0)]
    batch = cp.Batch((0,), (0,), (1,), (True,))
    found = []
    for start, end in times:
        handle = InFlightStep(executor, batch, torch.zeros(1), None, tokens=torch.tensor([7]))
        handle.events = Event(start), Event(end)
        seconds, made = handle.wait()
        assert seconds == pytest.approx((end - start) / 1e3) and made == {0: 7}
        assert handle.events[1].waited == 1 and handle.events[0].waited == 0
        found.append(handle.timings)
    assert [t["gap"] for t in found] == pytest.approx([0.0, 0.5e-3, 0.0])
    assert [t["execution"] for t in found] == pytest.approx([4e-3, 1.5e-3, 3e-3])
    trace = cp.Trace([cp.Request(0, 0.0, 5, 9)])
    for i, timings in enumerate(found):
        trace.record(cp.Batch((0,), (i,), (1,), (True,)), (i, i, i, i + 1.0), 1, timings)
    assert list(trace.gaps) == [t["gap"] for t in found]


# --- sums and fits ------------------------------------------------------------------------------------


def made_trace(rows):
    """A trace of one decode a step whose timings are given: (parts..., check, wait) in s."""
    names = (*cp.PARTS, "check", "wait")
    trace, now = cp.Trace([cp.Request(0, 0.0, 5, 10_000)]), 0.0
    for i, row in enumerate(rows):
        times = (now, now + sum(row[:4]), now + sum(row[:4]), now + sum(row))
        trace.record(cp.Batch((0,), (5 + i,), (1,), (True,)), times, 1, dict(zip(names, row)))
        now += sum(row)
    return trace


seconds = st.floats(1e-6, 1e-2)


@given(st.lists(st.tuples(*[seconds] * 8), min_size=2, max_size=9))
def test_a_breakdown_is_the_medians_and_its_share_leaves_the_check_out(rows):
    found = cp.breakdown(made_trace(rows), skip=0)
    assert found.covered == pytest.approx(1)
    for i, name in enumerate(cp.PARTS):
        assert found.parts[name] == median(row[i] for row in rows)
    assert found.execution == median(row[7] for row in rows)
    assert found.scheduling == pytest.approx(sum(found.parts.values()))
    assert found.share == pytest.approx(found.scheduling / (found.scheduling + found.execution))
    assert found.parts[found.largest[0]] == max(found.parts.values())
    assert len(found.table().rows) == len(cp.PARTS) + 3


def test_nothing_measured_nothing_broken_down():
    trace = cp.simulate(requests(), cp.ChunkedPrefill(24), cost)
    with pytest.raises(ValueError, match="parts of 0 measured: an Engine without cost measures them"):
        cp.breakdown(trace)


coefficients = st.tuples(*[st.floats(0, 1e-3)] * 4)


def batch_of(d, k, c):
    return cp.Batch(tuple(range(d + k)), (9,) * (d + k), (1,) * d + (c,) * k, (True,) * d + (False,) * k)


@settings(max_examples=40, deadline=None)
@given(coefficients, st.floats(1e-5, 1e-3))
def test_a_fit_finds_the_costs_that_made_the_times(found, s0):
    truth = cp.SchedulerCost(s0, *found[1:])
    grid = [batch_of(d, k, c) for d in (0, 3, 9) for k in (0, 1, 4) for c in (2, 33) if d or k]
    larger = [batch_of(18, 8, 66), batch_of(0, 8, 5), batch_of(18, 0, 1)]
    fit = cp.fit_overhead([(b, truth(b)) for b in grid], [(b, truth(b)) for b in larger])
    for b in (*grid, *larger):
        assert fit.cost(b) == pytest.approx(truth(b), rel=1e-6)
    assert fit.error < 1e-6 and fit.held_out_error < 1e-6
    assert max(map(abs, fit.residuals)) < 1e-9 and len(fit.held_out) == 3
    if max(found[1:]) > 1e-9:
        assert fit.r2 > 0.999


def test_a_server_s_own_batches_cannot_tell_the_three_apart():
    """Budget 64, always full: decodes + chunk tokens are a constant, and so is one chunk a step."""
    steps = [(batch_of(d, 1, 64 - d), 1e-4 + 1e-6 * d) for d in range(2, 30)]
    with pytest.raises(ValueError, match="do not vary apart"):
        cp.fit_overhead(steps)
    with pytest.raises(ValueError, match="0 steps"):
        cp.fit_overhead([])
    apart = [(batch_of(d, k, c), 1e-4) for d in (0, 3) for k in (1, 2) for c in (2, 9)]
    with pytest.raises(ValueError, match=r"step 2: 0\.0 s"):
        cp.fit_overhead([*apart[:2], (apart[2][0], 0.0), *apart[3:]])


def test_residuals_are_measured_less_predicted():
    apart = [
        (batch_of(d, k, c), 1e-4 * (1 + 0.1 * (d == 3))) for d in (0, 3, 6) for k in (1, 2) for c in (2, 9)
    ]
    fit = cp.fit_overhead(apart)
    for (batch, took), residual in zip(apart, fit.residuals):
        assert residual == pytest.approx(took - fit.cost(batch))


# --- pictures -----------------------------------------------------------------------------------------


def test_a_breakdown_s_picture_says_its_numbers(tiny):
    trace = cp.Engine(tiny, cp.ChunkedPrefill(24)).run(requests())
    for rows in (trace, cp.breakdown(trace), {"a": trace, "b": cp.breakdown(trace)}):
        drawn = cp.breakdown_picture(rows)
        assert drawn.badge == "measured" and drawn.alt.count("The largest is") == (
            2 if isinstance(rows, dict) else 1
        )
        assert len(drawn.table.rows) == len(cp.PARTS) * (2 if isinstance(rows, dict) else 1)
    cited = cp.breakdown_picture({"x": {"deciding": 1e-3, "rest": 3e-6}}, badge="published", source="s, 2024")
    assert "deciding 1 ms" in cited.alt and "rest 3 µs" in cited.alt and "≈" not in str(cited)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({}, "x has 0 numbers, at least 1 needed"),
        ({"a": 0.0}, "x: seconds that are not all 0 are needed"),
        ({"a": -1.0}, "x has -1.0: a finite number of at least 0 is needed"),
        ({"a": float("nan")}, "x has nan: a finite number"),
        ({"a": float("inf")}, "x has inf: a finite number"),
    ],
)
def test_parts_that_cannot_be_drawn_are_refused(parts, words):
    with pytest.raises(ValueError, match=words):
        cp.breakdown_picture({"x": parts})


# --- on a GPU -----------------------------------------------------------------------------------------


def test_on_a_gpu_both_clocks_tell_the_same_story():
    """The loop's parts fill its wall; the GPU's passes and gaps fill its own; the two are of one length."""
    need("cuda", torch.cuda.is_available(), "no CUDA device")
    from benchmarks.overhead import smallest
    from benchmarks.overhead_runs import empty_pairs, quick_model

    model = quick_model(smallest("cuda"), device="cuda", dtype=torch.bfloat16)
    engine = cp.Engine(model, cp.ChunkedPrefill(24))
    trace = engine.run(requests())
    trace = cp.replay(trace, engine)  # warm
    assert median(covered(trace)) > 0.95 and max(covered(trace)) <= 1 + 1e-9
    assert len(trace.gaps) == len(trace.steps) and min(trace.gaps) >= 0 == trace.gaps[0]
    device = sum(trace.gaps[1:]) + sum(trace.timings["execution"][1:])
    wall = trace.steps[-1].end - trace.steps[0].end
    assert device == pytest.approx(wall, rel=0.05)
    assert median(trace.gaps[1:]) > 10 * 1e-6 * empty_pairs()["median_us"], "far above the method's error"
