"""Measured numbers are written in one form, and nbval's sanitiser knows that form wherever it stands."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from nbval.plugin import get_sanitize_patterns

import chunkprefill as cp
from tests.needs import ROOT

UNITS = ("s", "B", "B/s", "FLOP/s", "%", "×", "", "tokens/s", "steps/s")
PATTERNS = get_sanitize_patterns((ROOT / "tests/nbval-sanitize.cfg").read_text(encoding="utf-8"))
numbers = st.floats(min_value=-1e18, max_value=1e18)


def sanitise(text: str) -> str:
    """As nbval does it: a dict of patterns, so that a regex given twice would be lost."""
    assert len(dict(PATTERNS)) == len(PATTERNS)
    for regex, replace in dict(PATTERNS).items():
        text = re.sub(regex, replace, text)
    return text


@given(numbers, st.sampled_from(UNITS), st.integers(1, 8))
@example(0.0, "s", 3)
@example(1e-300, "s", 3)
@example(1.2345e17, "", 3)
def test_the_sanitiser_takes_the_whole_number_and_nothing_else(value, unit, digits):
    text = cp.measured(value, unit, digits=digits)
    assert sanitise(text) == sanitise(cp.measured(1.0, "s"))
    for around in ("a pass takes {}.", "<td>{}</td>", "({}, 3 chunks)", 'aria-label="from {} on"', "{}\n"):
        assert sanitise(around.format(text)) == sanitise(around.format("≈1"))


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=4))
def test_a_text_table_of_measured_numbers_keeps_its_words_only(rows):
    def table(rows):
        lines = [
            ("chunk", "time", "share"),
            *((str(i), cp.measured(a), cp.measured(b, "%")) for i, (a, b) in rows),
        ]
        widths = [max(map(len, column)) for column in zip(*lines)]
        ruled = ["  ".join(cell.rjust(w) for cell, w in zip(line, widths)) for line in lines]
        return "\n".join([ruled[0], "-" * len(ruled[0]), *ruled[1:]])

    assert sanitise(table([*enumerate(rows)])) == sanitise(table([(i, (1.0, 1.0)) for i in range(len(rows))]))


@pytest.mark.parametrize(
    "text", ["507 ms", "12 chunks", "1.94×", "cache: 2.2 MiB", "chunk 2 of 3", "x = 0.5 s"]
)
def test_a_number_without_the_mark_is_compared(text):
    other = re.sub(r"\d", lambda m: str((int(m[0]) + 1) % 10), text)
    assert sanitise(text) != sanitise(other)


def test_a_word_beside_a_measured_number_is_compared():
    assert sanitise("≈1.2 ms faster") != sanitise("≈1.2 ms slower")
    assert sanitise("≈12 chunks") != sanitise("≈12 steps")


def test_only_a_figure_that_says_so_is_left_out():
    def figure(mark, x):
        svg = f'<svg role="img" {mark} aria-label="{x}"><path d="M0 {x}"/></svg>'
        return f"<figure>{svg}caption</figure><svg>2</svg>"

    assert sanitise(figure("data-measured", 1)) == sanitise(figure("data-measured", 2))
    assert sanitise(figure('class="counted"', 1)) != sanitise(figure('class="counted"', 2))
    assert sanitise(figure("data-measured", 1)) != sanitise(
        figure("data-measured", 1).replace("<svg>2", "<svg>3")
    )


@pytest.mark.parametrize(
    "value, unit, text",
    [
        (0.0123, "s", "≈12.3 ms"),
        (0.99999, "s", "≈1.00 s"),
        (123.4, "s", "≈2.05 min"),
        (-0.01, "s", "≈−10.0 ms"),
        (2.2 * 2**20, "B", "≈2.20 MiB"),
        (0.25, "%", "≈25.0%"),
        (1.944, "×", "≈1.94×"),
        (0.0, "", "≈0"),
        (7.98e14, "FLOP/s", "≈798 TFLOP/s"),
        (1234.5, "tokens/s", "≈1,230 tokens/s"),
        (2**70, "B", "≈1,070,000,000 TiB"),
    ],
)
def test_how_it_reads(value, unit, text):
    assert cp.measured(value, unit) == text


@pytest.mark.parametrize(
    "value, unit, digits", [(float("nan"), "s", 3), (float("inf"), "B", 3), (1, "hours", 3), (1, "s", 0)]
)
def test_what_cannot_be_written_is_refused(value, unit, digits):
    with pytest.raises(ValueError, match=r"measured|unit|digits"):
        cp.measured(value, unit, digits=digits)
