"""The first page's picture is the simulator's: fresh, and what it says follows from the steps."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import pairwise

import pytest

from tests.needs import ROOT
from tools import front


def test_intro_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools/front.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_sentence_says_what_the_steps_say() -> None:
    """Counted again from the boxes: the chat's silence is the longest stretch between two of its tokens."""
    said = [int(n) for n in re.findall(r"(\d+) ms", front.sentence())]
    again = []
    for run in front.runs():
        ends = sorted(end for rid, _, end, _ in run.boxes if rid == front.CHAT)
        again.append(round(max(b - a for a, b in pairwise(ends)) * 1e3))
    whole, cut = front.runs()
    found = front.recorded_pass()
    recorded = [round(found[key] * 1e3) for key in ("s", "s_least", "s_most")]
    assert said == [*again, round(cut.wait * 1e3), round(whole.wait * 1e3), *recorded]
    assert recorded[1] <= recorded[0] <= recorded[2] and f"{found['runs']} runs" in front.sentence()
    assert again[0] > again[1] and cut.wait > whole.wait, "the page's claim and its price, both"


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(ValueError, match="no part is called 'nothing'"):
        front.filled("<!-- made: nothing -->\n<!-- end -->")
