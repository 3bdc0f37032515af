"""The README's table is what the bench recorded, and its commands are there."""

from __future__ import annotations

import json
import re

from tests.needs import ROOT
from tools import readme


def test_the_table_is_what_was_recorded():
    recorded = json.loads((ROOT / "benchmarks/results/prefill-cpu.json").read_text())
    table = readme.table(ROOT / "benchmarks/results/prefill-cpu.json")
    cells = [float(x) for x in re.findall(r"(?<=\| )\d\.\d\d(?= \|)", table)]
    assert sorted(cells) == sorted(round(cell["ratio"], 2) for cell in recorded["cells"])
    assert recorded["provenance"]["commit"][:8] in table


def test_nothing_is_filled_in_where_nothing_was_recorded(tmp_path):
    assert readme.table(tmp_path / "none.json") == "Not yet recorded.\n"


def test_the_readme_names_targets_that_there_are():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", (ROOT / "README.md").read_text(), re.M))
    assert named and named <= targets, named - targets
