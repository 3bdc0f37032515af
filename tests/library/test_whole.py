"""One answer to "is this a whole number?", whatever library made it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import chunkprefill as cp
from chunkprefill.strict import loads
from chunkprefill.whole import as_flag, as_real, as_whole


@pytest.mark.parametrize("value", [4, np.int64(4), np.uint8(4)])
def test_whole_numbers_are_read(value: Any) -> None:
    assert as_whole(value) == 4 and type(as_whole(value)) is int


@pytest.mark.parametrize(
    "value", [True, np.bool_(True), 4.0, np.float64(4), "4", None, [4], np.array([4, 5]), np.array(4.0)]
)
def test_what_is_none_is_refused_by_name_everywhere(value: Any) -> None:
    assert as_whole(value) is None
    with pytest.raises(ValueError, match="priority must be a whole number"):
        cp.Request(1, 0.0, 8, 8, priority=value)
    if not isinstance(value, str):
        with pytest.raises(ValueError, match="rid must be a whole number or a string"):
            cp.Request(value, 0.0, 8, 8)


SHAPE: dict[str, Any] = {"n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "head_dim": 8, "vocab_size": 61}
CARD: dict[str, Any] = {
    "name": "card",
    "flops": 1e12,
    "bandwidth": 1e11,
    "n_sms": 10,
    "memory": 1e9,
    "source": "",
}


@pytest.mark.parametrize(
    "value", [4, 4.0, np.int64(4), np.float32(4), np.float64(4), np.array(4), torch.tensor(4.0)]
)
def test_numbers_are_read_and_kept_as_pythons_own(value: Any) -> None:
    assert as_real(value) == 4 and type(as_real(value)) in (int, float)
    device = cp.Device(**(CARD | {"memory": value, "n_sms": np.int64(4)}))
    assert device.memory == 4 and type(device.n_sms) is int
    assert type(cp.Config(**SHAPE, rope_theta=value).rope_theta) in (int, float)
    assert cp.SchedulerCost(s0=value)(cp.Batch((), (), (), ())) == 4
    assert cp.Mix(chats_per_s=value).requests() == cp.Mix(chats_per_s=4).requests()
    assert cp.Layout(tp=np.int64(2)).tp == 2 and type(cp.Layout(tp=np.int64(2)).tp) is int


@pytest.mark.parametrize(
    "value", [True, np.bool_(True), "4", None, [4], {}, 4j, np.array([4]), np.array(True), np.array("4")]
)
def test_what_is_no_number_is_refused_by_name_everywhere(value: Any) -> None:
    assert as_real(value) is None
    for name in ("memory", "n_sms", "link"):
        with pytest.raises(ValueError, match=f"device 'card': {name} must be a "):
            cp.Device(**(CARD | {name: value}))
    for name in ("rope_theta", "norm_eps"):
        with pytest.raises(ValueError, match=f"{name} must be a finite number"):
            cp.Config(**SHAPE, **{name: value})
    with pytest.raises(ValueError, match="request 1: arrival, in s, must be"):
        cp.Request(1, value, 8, 8)
    with pytest.raises(ValueError, match="watermark must be"):
        cp.VllmV1(watermark=value)
    with pytest.raises(ValueError, match="utilisation must be"):
        cp.Serving(512, utilisation=value)
    with pytest.raises(ValueError, match="chats_per_s must be a finite number"):
        cp.Mix(chats_per_s=value)
    with pytest.raises(ValueError, match="a promise: bound must be"):
        cp.Promise("tbt", "", "p99", value)
    with pytest.raises(ValueError, match="tbt_bound must be a number above 0"):
        cp.capacity(cp.poisson(20, 1.0), cp.VllmV1(256), tbt_bound=value)
    batch = cp.Batch((0,), (0,), (8,), (True,))
    with pytest.raises(ValueError, match="step 0: its seconds must be a finite number above 0"):
        cp.fit([(batch, value)])


def test_an_int_that_no_float_holds_is_not_finite() -> None:
    for refused in (lambda: cp.Request(0, 10**400, 1, 1), lambda: cp.Config(**SHAPE, rope_theta=10**400)):
        with pytest.raises(ValueError, match=r"must be a finite number .*, got 100000.*"):
            refused()


@pytest.mark.parametrize("value", [1, 0, None, "no", "false", [True]])
def test_what_is_neither_true_nor_false_is_refused_by_name(value: Any) -> None:
    assert as_flag(value) is None and as_flag(np.bool_(False)) is False
    for name in ("tied", "qkv_bias", "o_bias", "mlp_bias", "qk_norm"):
        with pytest.raises(ValueError, match=f"{name} must be True or False, got"):
            cp.Config(**SHAPE, **{name: value})
    with pytest.raises(ValueError, match="prompt_logprobs must be True or False"):
        cp.Serving(512, prompt_logprobs=value)
    for name in ("enable_chunked_prefill", "scheduler_reserve_full_isl"):
        with pytest.raises(ValueError, match=f"VllmV1: {name} must be True or False"):
            cp.VllmV1(**{name: value})
    with pytest.raises(ValueError, match="prefix_caching must be True or False"):
        cp.BlockPool(9, prefix_caching=value)
    with pytest.raises(ValueError, match="PrefillFirst: mixed must be True or False"):
        cp.PrefillFirst(64, mixed=value)
    with pytest.raises(ValueError, match="overlap must be True or False"):
        cp.simulate(cp.poisson(3, 1.0), cp.VllmV1(64), overlap=value)


@pytest.mark.parametrize(
    ("steps", "tokens", "message"),
    [
        ([1], None, "step 0 is 1: a Batch and its seconds are needed"),
        ([([8], 1.0)], None, r"step 0 is .*: a Batch and its seconds"),
        ([], [8.5, 16], r"a corner of the curve must be .* got 8\.5"),
        ([], ["8", 16], "a corner of the curve must be .* got '8'"),
        (
            [(cp.Batch((0,), (0,), (8,), (True,)), float("inf"))],
            None,
            "step 0: its seconds must be a finite number above 0, got inf",
        ),
    ],
)
def test_steps_that_are_none_are_not_fitted(steps: Any, tokens: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cp.fit(steps, tokens)


def test_a_scaling_that_is_none_is_refused_where_it_is_given() -> None:
    with pytest.raises(ValueError, match=r"rope_scaling is \{'factor': 8\}: Llama3Scaling"):
        cp.Config(**SHAPE, rope_scaling={"factor": 8})  # type: ignore[arg-type]


@pytest.mark.parametrize("other", ["true", "1.0", '"1"'])
def test_a_key_that_is_there_twice_is_compared_as_json_spells_it(other):
    assert loads('{"a": 1, "a": 1}') == {"a": 1}
    with pytest.raises(ValueError, match="the key 'a' is there twice"):
        loads(f'{{"a": 1, "a": {other}}}')
