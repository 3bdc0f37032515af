"""Explorers drawn live: the notebook's own code, cut down to what a frame hangs on, on the floor of a page."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from chunkprefill_course.live import explorers
from tests.needs import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import slices

ALL, LIVE = slices.all_explorers(), slices.live()
ALONE = """
import json, sys
for name in ("numpy", "torch", "matplotlib", "ipywidgets"):
    sys.modules[name] = None
names = {}
exec(sys.stdin.read(), names)
explorer = names["explorer"]
print(json.dumps([isinstance(v, (int, float)) for values in explorer.parameters.values() for v in values]))
explorer.frame(*(values[0] for values in explorer.parameters.values()))
"""


def alone(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", ALONE], input=program, capture_output=True, text=True, cwd=ROOT, timeout=120
    )


def outputs() -> str:
    """All HTML that the notebooks hold."""
    cells = (
        cell
        for path in (ROOT / "notebooks").glob("*.ipynb")
        for cell in json.loads(path.read_text("utf8"))["cells"]
        if cell["cell_type"] == "code"
    )
    shown = (out.get("data", {}).get("text/html", "") for cell in cells for out in cell["outputs"])
    return "\n".join("".join(html) for html in shown)


def test_each_explorer_is_live_or_it_is_said_why_not():
    assert {*slices.NOT_LIVE, *slices.NO_NUMBER} < set(ALL) and len(LIVE) >= 5
    for id in LIVE:
        assert slices.asked(explorers.made(ALL[id])), f"{id} has no number to choose: name it in NO_NUMBER"


@pytest.mark.parametrize("id", LIVE)
def test_a_live_explorer_stands_on_the_floor(id):
    done = alone(LIVE[id])
    assert done.returncode == 0, done.stderr[-1500:]


@pytest.mark.parametrize("id", [*slices.NOT_LIVE, *slices.NO_NUMBER])
def test_what_is_not_live_cannot_be(id):
    """It needs what a page does not have, or there is no number to choose."""
    done = alone(ALL[id])
    assert done.returncode or not any(json.loads(done.stdout)), f"{id} could be drawn live"


@pytest.mark.parametrize("id", LIVE)
def test_at_a_recorded_value_it_draws_the_recorded_frame(id):
    """The program does what the notebook did: each of its frames is in the notebook, to the letter."""
    explorer, held = explorers.made(LIVE[id]), outputs()
    for setting in explorer.settings()[:12]:
        drawn = explorers.draw(id, [{"at": i} for i in setting], LIVE[id])
        assert drawn["html"] in held, f"{id} at {setting}"


@pytest.mark.parametrize("id", LIVE)
def test_between_recorded_values_it_draws_too(id):
    explorer = explorers.made(LIVE[id])
    asked = slices.asked(explorer)
    settings = [
        {"value": (asked[label][0] + asked[label][1]) // 2} if label in asked else {"at": 0}
        for label in explorer.parameters
    ]
    drawn = explorers.draw(id, settings, LIVE[id])
    assert drawn["html"].count("<svg") == 1 and drawn["text"]


@pytest.mark.parametrize("number", [0, 10**9, 300.5, True, "7", None, float("nan")])
def test_a_number_out_of_range_is_refused_by_name(number):
    settings = [{"at": 0}, {"value": number}]
    with pytest.raises(ValueError, match="tokens an iteration: "):
        explorers.draw("who-waits", settings, LIVE["who-waits"])


def cut(tmp_path, *cells: str) -> str:
    """The program of the one explorer in a notebook of these cells."""
    path = tmp_path / "one.ipynb"
    path.write_text(json.dumps({"cells": [{"cell_type": "code", "source": cell} for cell in cells]}))
    return slices.explorers(path)["x"]


SHOWN = "course.Explorer(id='x', title='t', parameters={'n': [1, 2]}, frame=frame)"


def test_what_a_frame_does_not_use_is_left_out(tmp_path):
    program = cut(tmp_path, "a = 1\nb = 2", "%matplotlib inline", f"def frame(n):\n    return a + n\n{SHOWN}")
    assert "a = 1" in program and "b = 2" not in program


def test_what_a_function_reads_is_what_was_bound_last(tmp_path):
    program = cut(tmp_path, "a = 1", "def twice(n):\n    return 2 * a", "a = 5", f"frame = twice\n{SHOWN}")
    names: dict = {}
    exec(program.replace("course.Explorer", "dict"), names)
    assert names["frame"](0) == 10


def test_what_is_bound_inside_is_not_looked_for_outside(tmp_path):
    program = cut(
        tmp_path,
        "n = 7\nfor i in range(3):\n    pass",
        f"def frame(n):\n    return [i for i in range(n)]\n{SHOWN}",
    )
    assert "n = 7" not in program and "for i in range(3)" not in program


def test_a_table_that_is_filled_later_is_filled_here_too(tmp_path):
    program = cut(
        tmp_path, "table = {}", "table['a'] = 1", f"def frame(n):\n    return table['a'] + n\n{SHOWN}"
    )
    assert "table['a'] = 1" in program
