"""The primer's numbers are the package's, and its worked example is attention."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tools import primer


def test_the_committed_page_is_what_the_package_makes():
    page = primer.PAGE.read_text()
    assert primer.filled(page) == page
    assert page.count("<!-- made:") == len(primer.PARTS) == page.count("<!-- end -->")


def test_an_unknown_part_is_named():
    with pytest.raises(ValueError, match="'nothing'"):
        primer.filled("<!-- made: nothing -->\n<!-- end -->")


pair = st.tuples(*[st.floats(-3, 3)] * 2)


@given(pair, st.lists(st.tuples(pair, pair), min_size=1, max_size=5))
def test_looking_back_is_attention(query, known):
    keys, values = zip(*known)
    _, shares, mixed = primer.look_back(query, keys, values)
    q, k, v = (torch.tensor(x, dtype=torch.float64) for x in ([query], keys, values))
    right = torch.nn.functional.scaled_dot_product_attention(q[None], k[None], v[None])[0, 0]
    assert sum(shares) == pytest.approx(1)
    assert mixed == pytest.approx(right.tolist(), abs=1e-12)
