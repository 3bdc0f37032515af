"""What crosses the pipe: the same on both sides, within limits, and never more than data."""

from __future__ import annotations

import contextlib
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunkprefill_grading.sandbox import wire
from chunkprefill_grading.sandbox.returned import nested, sent, simple
from chunkprefill_grading.sandbox.session import ArraySpec, BadAnswer, array, sendable
from chunkprefill_grading.sandbox.wire import BadValue, Raw

numbers = st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
leaves = st.none() | st.booleans() | numbers | st.text(max_size=20)
keys = st.integers(-(2**63), 2**63) | st.text(max_size=9)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(keys, inner, max_size=5),
    max_leaves=30,
)


def depth(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


@given(values)
def test_a_value_comes_out_as_it_went_in_or_is_refused(value):
    if depth(value) > wire.MAX_DEPTH:
        with pytest.raises(BadValue):
            wire.encode_value(value)
        return
    there = wire.loads(wire.dumps({"ok": wire.encode_value(value)}))["ok"]
    back = wire.decode_value(there)
    assert back == value and repr(back) == repr(value)


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_bytes_are_an_object_or_refused(line):
    with contextlib.suppress(BadValue):
        assert type(wire.loads(line)) is dict


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["dict", "array", "shape", "dtype", "x"]), inner, max_size=4)
    ),
    max_leaves=25,
)


@given(json_values)
def test_whatever_a_liar_sends_is_plain_data_or_refused(value):
    try:
        back = wire.decode_value(value)
    except BadValue:
        return
    stack = [back]
    while stack:
        each = stack.pop()
        assert type(each) in (type(None), bool, int, float, str, list, dict, Raw)
        assert type(each) is not float or math.isfinite(each)
        stack += each.values() if type(each) is dict else each if type(each) is list else ()


@pytest.mark.parametrize(
    "value",
    [
        [[0] * 101] * 100,
        "x" * (wire.MAX_CHARS + 1),
        ["x" * 1000] * 101,
        2**63 + 1,
        -(2**64),
        math.inf,
        math.nan,
        {1.5: 2},
        {(1, 2): 3},
        {True: 1},
        1j,
        b"bytes",
        {1, 2},
        object(),
        np.float64(1),
        type("Int", (int,), {})(3),
        type("List", (list,), {})([1]),
    ],
)
def test_what_no_answer_may_be(value):
    with pytest.raises(BadValue):
        wire.encode_value(value)


@pytest.mark.parametrize(
    "line",
    [b"", b"[]", b"3", b"{", b'{"a": NaN}', b'{"a": Infinity}', b"[" * 10**6, b'{"a": ' * 50_000, b"\xff{}"],
)
def test_lines_that_are_no_answer(line):
    with pytest.raises(BadValue):
        wire.loads(line)


@pytest.mark.parametrize(
    "spoilt",
    [
        {"shape": [3]},
        {"shape": [2, 2, 2]},
        {"shape": [-4]},
        {"shape": [10**12, 0]},
        {"shape": [True, 4]},
        {"shape": "4"},
        {"shape": [1] * 50},
        {"dtype": "object"},
        {"dtype": "float16"},
        {"dtype": ["float64"]},
        {"array": "not base64!"},
        {"array": None},
        {"array": ""},
        {"more": 1},
    ],
)
def test_arrays_that_are_none(spoilt):
    good = wire.encode_value(Raw((4,), "float64", bytes(32)))
    assert wire.decode_value(good) == Raw((4,), "float64", bytes(32))
    with pytest.raises(BadValue):
        wire.decode_value({**good, **spoilt})


@given(
    st.sampled_from(["float64", "float32", "int64", "bool"]),
    st.lists(st.integers(0, 4), max_size=3),
    st.data(),
)
def test_arrays_arrive_as_nested_lists_and_return(dtype, shape, data):
    there = (
        np.array(data.draw(st.lists(st.integers(0, 1), min_size=math.prod(shape), max_size=math.prod(shape))))
        .astype(dtype)
        .reshape(shape)
    )
    raw = wire.decode_value(json.loads(json.dumps(sendable(there))))
    if 0 not in shape:
        assert nested(raw) == there.tolist()
    for value in (there, nested(raw)) if 0 not in shape else (there,):
        back = array("f", wire.encode_value(sent(value, tuple(shape), dtype)), ArraySpec(tuple(shape), dtype))
        assert back.dtype == there.dtype and back.shape == there.shape and np.array_equal(back, there)


def test_an_array_must_be_finite_and_as_declared():
    spec = ArraySpec((2,), "float64")
    for value in ([1.0, math.nan], [math.inf, 1.0]):
        with pytest.raises(BadAnswer, match="finite"):
            array("f", wire.encode_value(sent(value, (2,), "float64")), spec)
    for raw in (
        Raw((1, 2), "float64", bytes(16)),
        Raw((2,), "float32", bytes(8)),
        Raw((4,), "float64", bytes(32)),
    ):
        with pytest.raises(BadAnswer):
            array("f", wire.encode_value(raw), spec)
    with pytest.raises(BadAnswer):
        array("f", [1.0, 2.0], spec)


@pytest.mark.parametrize("dtype", ["int64", "bool"])
def test_floats_are_no_whole_numbers_and_no_truth_values(dtype):
    with pytest.raises(BadValue, match="is asked for"):
        sent([1.0, 0.0], (2,), dtype)
    with pytest.raises(BadValue, match="is asked for"):
        sent(np.array([1.0, 0.0]), (2,), dtype)


def test_numbers_of_numpy_are_numbers():
    value = {"a": np.int64(3), "b": [np.float32(0.5), (np.bool_(True),)], 4: np.arange(3)}
    assert wire.encode_value(simple(value)) == wire.encode_value({"a": 3, "b": [0.5, [True]], 4: [0, 1, 2]})
    with pytest.raises(BadValue, match="items"):
        simple(np.zeros(10**6))
