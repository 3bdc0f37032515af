"""What the clinic's rows count with the standard library alone, held to what numpy counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunkprefill.metrics.overtime import count_over
from chunkprefill_course.clinic.rows import mean_open


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 5)), max_size=20))
def test_open_intervals_are_counted_as_over_time_does(spans):
    edges = [0.0, 2.5, 5.0, 10.0]
    opened, closed = [a for a, _ in spans], [a + n for a, n in spans]
    mine = mean_open(edges, opened, closed)
    assert mine == pytest.approx(count_over(np.array(edges), np.array(opened), np.array(closed)), abs=1e-9)
