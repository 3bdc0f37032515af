"""The bench of a step's parts: nothing is counted twice, kinds of steps are told apart, vLLM's methods are there."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import chunkprefill as cp
from benchmarks import parts as bench
from benchmarks.vllm_worker import PARTS, PartsMeter
from chunkprefill_course import parts_recording as recording


class Clock:
    """Each look at it takes a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


class Engine:
    def outer(self) -> str:
        return self.inner() + self.inner()

    def inner(self) -> str:
        return "x"

    def fails(self) -> None:
        self.inner()
        raise KeyError("nothing")


def test_a_part_within_a_part_is_counted_once():
    engine, meter = Engine(), PartsMeter(Clock())
    meter.wrap(engine, "outer", "a")
    meter.wrap(engine, "inner", "b")
    assert engine.outer() == "xx"
    assert meter.seconds == {"a": 5.0 - 2.0, "b": 2.0}
    assert meter.inside == []


def test_a_call_that_fails_is_timed_and_leaves_nothing_behind():
    engine, meter = Engine(), PartsMeter(Clock())
    meter.wrap(engine, "fails", "a")
    with pytest.raises(KeyError):
        engine.fails()
    assert meter.inside == [] and meter.seconds["a"] > 0


def steps_of(n: int, tokens: list[int], seconds: float = 0.01) -> list[dict[str, Any]]:
    return [
        {"tokens": tokens, "seconds": seconds + i * 1e-4, "parts": {"pass": 0.008, "decide": 1e-4}}
        for i in range(n)
    ]


def test_only_the_steps_that_are_compared_are_kept_and_the_first_warm_up():
    steps = (
        steps_of(20, [1, 1, 1]) + steps_of(14, [1, 1, 1, 8]) + steps_of(9, [1, 1, 1, 5]) + steps_of(3, [1, 1])
    )
    found = bench.kinds_of(steps, n_chats=3, chunk=8)
    assert [len(some) for some in found.values()] == [20 - bench.SKIP, 14 - bench.SKIP]


def test_fewer_than_ten_steps_have_no_median():
    with pytest.raises(ValueError, match="a median takes 10"):
        bench.kinds_of(steps_of(30, [1, 1, 1]) + steps_of(11, [1, 1, 1, 8]), n_chats=3, chunk=8)


def test_parts_and_the_rest_make_up_a_step():
    row = bench.row_of("ours", "3 decodes", steps_of(11, [1, 1, 1]))
    assert row["n"] == 11 and row["step_s"] == pytest.approx(0.0105)
    assert sum(row["parts_s"].values()) == pytest.approx(row["step_s"])
    low, high = row["quartiles_s"]["rest"]
    assert low < row["parts_s"]["rest"] < high


def test_our_steps_have_every_part_and_chats_decode_beside_each_chunk():
    torch.manual_seed(0)
    model = cp.random_model(cp.Config(1, 2, 1, 16, 256, d_ff=64, max_positions=4096))
    requests = bench.requests_of(4, 8, 6, 14)
    steps, tokens = bench.our_steps(model, requests, 10)
    assert [len(out) for out in tokens] == [r.n_output for r in requests]
    found = bench.kinds_of(steps, 4, 6)
    assert all(len(some) >= bench.FEWEST for some in found.values())
    for step in steps:
        assert {*cp.PARTS, "pass"} <= set(step["parts"])
        assert sum(step["parts"].values()) <= step["seconds"] * 1.5 + 1e-3


def test_vllms_methods_are_named_by_owner_and_no_part_has_none():
    assert all(methods and all("." in path for path in methods) for methods in PARTS.values())
    assert set(PARTS) - {"pass"} <= set(recording.STEP_WORDS)
