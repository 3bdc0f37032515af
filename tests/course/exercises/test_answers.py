"""Answers are read in every style that says the same thing, and nothing that is returned raises."""

from __future__ import annotations

import array
import collections
import decimal
import fractions
import itertools
import types

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chunkprefill_course.forms import answers
from chunkprefill_course.forms.answers import Unusable

FIVES = [
    5,
    5.0,
    np.int64(5),
    np.float32(5),
    np.array(5),
    np.array([5]),
    torch.tensor(5),
    torch.tensor([[5.0]]),
    fractions.Fraction(10, 2),
    decimal.Decimal("5.0"),
    torch.tensor(5, dtype=torch.bfloat16),
]


@pytest.mark.parametrize("five", FIVES, ids=lambda v: type(v).__name__)
def test_every_kind_of_number_is_the_number_that_it_is(five):
    assert answers.number(five) == 5 and answers.truth(five) is True
    assert answers.whole(five) == 5 and type(answers.whole(five)) is int


@pytest.mark.parametrize("no", [0, 0.0, False, np.bool_(False), torch.tensor(False), torch.tensor([0])])
def test_every_kind_of_no_is_no(no):
    assert answers.truth(no) is False


@pytest.mark.parametrize("odd", ["False", "yes", [], [True], {}, {1}, float("nan"), 1j, b"1", object, print])
def test_what_is_neither_yes_nor_no_nor_a_number_is_refused_with_words(odd):
    for read in (answers.truth, answers.number, answers.whole):
        with pytest.raises(Unusable, match="it returned "):
            read(odd)


class OddNumber(float):
    """A number of a student's own class."""


class OddText(str):
    """A text that says that it is true."""

    def __bool__(self) -> bool:
        return True


def test_what_a_class_of_its_own_is_made_of_decides():
    assert answers.truth(OddNumber(0.0)) is False and answers.truth(OddNumber(2.0)) is True
    for odd in (OddNumber("nan"), OddText("False")):
        with pytest.raises(Unusable, match="expected True or False"):
            answers.truth(odd)


def test_a_fraction_is_no_whole_number_and_a_bool_no_number():
    for odd in (2.5, fractions.Fraction(1, 3), decimal.Decimal("0.1"), float("inf"), True):
        with pytest.raises(Unusable, match="whole"):
            answers.whole(odd)
    assert answers.number(fractions.Fraction(1, 2)) == 0.5


class Pairs:
    """Ends by IndexError, as sequences did before `__iter__`."""

    def __len__(self):
        return 3

    def __getitem__(self, i):
        return (1, 2, 3)[i]


@pytest.mark.parametrize(
    "three",
    [
        [1, 2, 3],
        (1, 2, 3),
        range(1, 4),
        collections.deque([1, 2, 3]),
        np.arange(1, 4),
        torch.arange(1, 4),
        (i for i in (1, 2, 3)),
        {1: 0, 2: 0, 3: 0}.keys(),
        map(int, "123"),
        array.array("i", [1, 2, 3]),
        collections.UserList([1, 2, 3]),
        Pairs(),
    ],
    ids=lambda v: type(v).__name__,
)
def test_every_kind_of_sequence_is_a_list(three):
    assert answers.items(three) == [1, 2, 3]


@pytest.mark.parametrize("odd", [{1, 2}, {1: 2}, "123", b"123", 5])
def test_what_has_no_order_is_no_list(odd):
    with pytest.raises(Unusable):
        answers.items(odd)


@pytest.mark.parametrize(
    "one",
    [
        {"a": 1},
        collections.OrderedDict(a=1),
        collections.Counter(a=1),
        types.MappingProxyType({"a": 1}),
        collections.defaultdict(int, a=1),
        collections.ChainMap({"a": 1}),
        collections.UserDict(a=1),
        {"a": np.int64(1)},
        {"a": torch.tensor(1)},
    ],
    ids=lambda v: type(v).__name__,
)
def test_every_mapping_is_a_dict(one):
    assert answers.mapping(one) == {"a": 1} and answers.plain(one) == {"a": 1}


def test_nothing_is_no_answer():
    for read in (answers.plain, answers.number, answers.whole, answers.truth, answers.items, answers.mapping):
        assert read(None) is None and read(...) is None


def test_what_never_ends_is_refused_and_told_in_few_words():
    inside: list = []
    inside.append(inside)
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    for odd in (itertools.count(), (itertools.count() for _ in itertools.count()), inside, deep):
        with pytest.raises(Unusable):
            answers.plain(odd)
        assert len(answers.told(odd)) < 90
    assert answers.told(10**5000) == "`about 1e5000`" and answers.plain(10**5000) == 10**5000


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_numbers_that_differ_are_told_apart(one, other):
    texts = answers.apart(one, other)
    assert (texts[0] == texts[1]) is (one == other), texts


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=8,
)


@given(values)
def test_no_value_raises_anything_else(value):
    for read in (answers.plain, answers.number, answers.whole, answers.truth, answers.items, answers.mapping):
        try:
            read(value)
        except Unusable as refused:
            assert 10 < len(str(refused)) < 300 and "\n" not in str(refused)
