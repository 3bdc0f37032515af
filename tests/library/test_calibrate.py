"""Calibration: a known cost is found again, steps held out are predicted, and files are not trusted."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chunkprefill import measuring as calibration
from chunkprefill.scheduling.core import Batch, Plan, Request
from chunkprefill.scheduling.policies import ChunkedPrefill
from chunkprefill.scheduling.state import State
from chunkprefill.simulation.calibration import (
    TERMS,
    Calibrated,
    counts,
    fit,
    fit_host,
    nonnegative,
    prediction_errors,
    reprice,
)
from chunkprefill.simulation.cost import Roofline, SchedulerCost
from chunkprefill.simulation.simulate import simulate
from chunkprefill.simulation.workloads import poisson

TRUTH = Calibrated(
    tokens=(1, 64, 128, 512),
    seconds=(2e-3, 3e-3, 5e-3, 2e-2),
    chunk=1e-4,
    chunk_keys=2e-7,
    chunk_pairs=3e-9,
    decode=5e-5,
    decode_keys=1e-7,
    emit=2e-5,
    host=SchedulerCost(1e-4, 2e-5, 3e-5, 1e-7),
)


class FakeEngine:
    """Has the shape of an engine; its seconds are a known cost with noise."""

    class model:
        class config:
            max_positions = 4096


def priced_replay(truth, noise, seed=0):
    draw = random.Random(seed)

    def replay(trace, engine):
        priced = reprice(trace, lambda batch: truth(batch) * draw.uniform(1 - noise, 1 + noise))
        c = priced.columns
        for i, step in enumerate(trace.steps):  # the host's time before each step
            c["dispatched"][i] = c["scheduled"][i] + truth.host(step.batch)
        return priced

    return replay


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_a_known_cost_is_found_again(monkeypatch, noise):
    monkeypatch.setattr(calibration, "replay", priced_replay(TRUTH, noise))
    found = calibration.calibrate(FakeEngine(), progress=False, max_context=512)
    errors = {error.of: error for error in found.held_out}
    assert {"mixed steps", "decodes alone", "all steps", "mean TTFT", "mean TBT"} <= set(errors)
    assert errors["all steps"].median <= 0.005 + noise and errors["all steps"].p95 <= 0.02 + 1.5 * noise
    assert errors["mean TBT"].median <= 0.01 + noise
    for trace in (simulate(poisson(20, 50.0, seed=s), ChunkedPrefill(200)) for s in range(3)):
        for step in trace.steps:
            assert found(step.batch) == pytest.approx(TRUTH(step.batch), rel=0.03 + 2 * noise)
            assert found.host(step.batch) == pytest.approx(TRUTH.host(step.batch), rel=0.01)


def test_a_real_engine_is_predicted_on_steps_held_out():
    """Timings of a loaded machine prove little: that every step was measured, and that more tokens cost more."""
    import chunkprefill as cp

    engine = cp.Engine(cp.load_model("tiny"), cp.ChunkedPrefill(128))
    found = calibration.calibrate(engine, max_tokens=256, max_context=256, max_decodes=8, progress=False)
    errors = {error.of: error for error in found.held_out}
    assert errors["all steps"].n > 20
    assert all(math.isfinite(error.largest) for error in found.held_out)
    assert found.linear(256) > found.linear(1) > 0


def test_designs_are_plans_that_the_contract_holds():
    designs = [
        *calibration.token_sweep([1, 7, 128]),
        *calibration.chunk_sweep(100, 333),
        *calibration.decode_sweep(5, 64),
    ]
    for trace in designs:
        state = State()
        for request in trace.requests:
            state.arrive(request)
        for step in trace.steps:
            batch = state.apply(Plan(dict(zip(step.batch.rid, step.batch.length))))
            assert batch == step.batch
            state.commit(batch)
        assert not state  # all finished
    varied = {tuple(counts(step.batch)[i] for i in (0, 3)) for trace in designs for step in trace.steps}
    assert {(0, 1), (0, 4), (0, 5), (1, 0)} <= varied  # decodes and chunks vary apart


def test_sizes_stand_on_both_sides_of_each_tile():
    sizes = calibration.token_sizes(600)
    assert {1, 127, 128, 129, 255, 256, 257, 511, 512, 513, 600} <= set(sizes) and max(sizes) == 600


@pytest.mark.parametrize(
    "wrong", [{"max_tokens": 4}, {"max_context": 5000}, {"repeats": 0}, {"max_decodes": 0}]
)
def test_sizes_that_cannot_be_measured_are_refused(wrong):
    with pytest.raises(ValueError, match=str(next(iter(wrong)))):
        calibration.calibrate(FakeEngine(), progress=False, **wrong)


# --- the fit ------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 12))
def test_nonnegative_least_squares_meets_its_conditions(seed, n, m):
    """No step along any axis that keeps x ≥ 0 lowers the error (Karush, Kuhn and Tucker)."""
    random_ = np.random.default_rng(seed)
    a, b = random_.normal(size=(m, n)), random_.normal(size=m)
    x = nonnegative(a, b)
    slope = a.T @ (b - a @ x)
    assert (x >= 0).all() and slope.max(initial=0) < 1e-6
    assert abs(slope[x > 1e-9]).max(initial=0) < 1e-6


@settings(max_examples=25)
@given(st.integers(0, 1000))
def test_fit_reproduces_any_cost_of_its_own_form(seed):
    draw = random.Random(seed)
    rises = [draw.uniform(1e-4, 1e-2) for _ in range(4)]
    truth = replace(
        TRUTH,
        seconds=tuple(np.cumsum(rises)),
        **{name: draw.choice([0, draw.uniform(1e-8, 1e-5)]) for name in TERMS},
    )
    batches = []
    for _ in range(150):
        rows = [(draw.randrange(0, 500), draw.choice([1, 1, 16, 64, 130])) for _ in range(draw.randint(1, 6))]
        start, length = zip(*rows)
        batches.append(
            Batch(tuple(range(len(rows))), start, length, tuple(draw.random() < 0.7 for _ in rows))
        )
    found = fit([(batch, truth(batch)) for batch in batches], truth.tokens)
    for batch in batches:
        assert found(batch) == pytest.approx(truth(batch), rel=1e-3)


def test_host_time_is_told_apart_when_its_parts_vary():
    def batch(decodes, chunks, length):
        rows = [(9, 1, True)] * decodes + [(0, length, False)] * chunks
        start, lengths, emits = zip(*rows)
        return Batch(tuple(range(len(rows))), start, lengths, emits)

    truth = SchedulerCost(1e-4, 2e-5, 3e-5, 1e-7)
    steps = [batch(d, c, n) for d in (0, 1, 8) for c in (0, 1, 3) for n in (16, 128) if d + c]
    found = fit_host((b, truth(b)) for b in steps)
    assert vars_of(found) == pytest.approx(vars_of(truth), rel=1e-6)


def vars_of(cost):
    return [cost.s0, cost.per_decode, cost.per_chunk, cost.per_token]


def test_a_cost_that_made_the_trace_has_no_error():
    trace = simulate(poisson(10, 20.0), ChunkedPrefill(64), Roofline())
    assert all(error.largest < 1e-9 for error in prediction_errors(trace, Roofline()))
    assert reprice(trace, Roofline()).steps == trace.steps or np.allclose(
        reprice(trace, Roofline()).columns["end"], trace.columns["end"]
    )
    double = {e.of: e for e in prediction_errors(trace, lambda batch: 2 * Roofline()(batch))}
    assert double["all steps"].median == pytest.approx(1)


def test_fit_refuses_what_it_cannot_use():
    one = Batch((0,), (0,), (8,), (True,))
    with pytest.raises(ValueError, match="2 are needed"):
        fit([(one, 1.0)])
    with pytest.raises(ValueError, match=r"step 1: its seconds must be a finite number above 0, got 0\.0"):
        fit([(one, 1.0), (one, 0.0)], [1, 8])


# --- files --------------------------------------------------------------------------------------------


def test_saved_and_loaded_is_the_same(tmp_path):
    trace = simulate(poisson(5, 20.0), ChunkedPrefill(64))
    cost = replace(TRUTH, held_out=prediction_errors(trace, TRUTH), about="this machine")
    cost.save(tmp_path / "cost.json")
    assert Calibrated.load(tmp_path / "cost.json") == cost
    assert simulate([Request(0, 0.0, 99, 5)], ChunkedPrefill(64), cost).steps


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(seconds=[-1, 1, 2, 3]),
        lambda d: d.update(seconds=[3, 2, 1, 0]),
        lambda d: d.update(tokens=[1, 1, 2, 3]),
        lambda d: d.update(chunk="many"),
        lambda d: d.update(held_out=[1]),
        lambda d: d.update(version=99),
        lambda d: d.update(more=1),
        lambda d: d.pop("host"),
        lambda d: d.update(emit=1e999),
    ],
)
def test_a_file_that_was_tampered_with_is_refused(tmp_path, change):
    path = tmp_path / "cost.json"
    TRUTH.save(path)
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"cost\.json: not a calibration"):
        Calibrated.load(path)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"format": "chunkprefill-calibrated"}'])
def test_a_foreign_file_is_refused(tmp_path, text):
    path = tmp_path / "cost.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"cost\.json: not a calibration"):
        Calibrated.load(path)


def test_calibrate_is_public():
    import chunkprefill as cp

    assert cp.Calibrated is Calibrated and cp.calibrate is calibration.calibrate


def prompt(n):
    return Batch(("p",), (0,), (n,), (True,))


def decodes(n, context):
    names = tuple(f"d{i}" for i in range(n))
    return Batch(names, (context,) * n, (1,) * n, (True,) * n)


def test_prompts_alone_do_not_say_what_a_decode_costs():
    """In place of decodes that are free, which would show no gaps at all."""
    steps = [(prompt(n), 1e-3 + 1e-6 * n) for n in (16, 64, 256, 1024)]
    with pytest.raises(ValueError, match="no step of 4 has a decode: what one costs cannot be known"):
        fit(steps)
    fit([*steps, *((decodes(n, c), 1e-3 + 1e-5 * n) for n in (1, 4) for c in (9, 99))])


def test_decodes_alone_do_not_say_what_a_chunk_costs():
    steps = [(decodes(n, c), 1e-3 + 1e-5 * n) for n in (1, 4, 16) for c in (9, 99)]
    with pytest.raises(ValueError, match="no step of 6 has a chunk"):
        fit(steps, [1, 4, 16])


def test_a_corner_beyond_every_step_cannot_be_known():
    steps = [(prompt(n), 1e-3 + 1e-6 * n) for n in (16, 64, 256)]
    steps += [(decodes(n, c), 1e-3 + 1e-5 * n) for n in (1, 4) for c in (9, 99)]
    with pytest.raises(ValueError, match="largest step has 256 tokens: the corner at 4096 cannot be known"):
        fit(steps, [16, 256, 4096])


def test_what_always_goes_together_is_named_with_a_warning(tmp_path):
    """Decodes of one context: a cost a decode and a cost a key fit as well, and part at other contexts."""
    partial = [(Batch(("p",), (s,), (n,), (False,)), 1e-3 + 1e-6 * n) for s in (0, 64, 512) for n in (16, 64)]
    steps = [*((prompt(n), 1e-3 + 1e-6 * n) for n in (16, 64, 256)), *partial]
    one = [*steps, *((decodes(n, 99), 1e-3 + 1e-5 * n) for n in (1, 4, 9))]
    with pytest.warns(UserWarning, match="do not tell decode, decode_keys.* apart"):
        found = fit(one)
    assert {"decode", "decode_keys"} <= set(found.entangled) and "chunk_pairs" not in found.entangled
    found.save(tmp_path / "cost.json")
    assert Calibrated.load(tmp_path / "cost.json") == found
