"""What a page weighs before anything is pressed: held to the record of `make pageweight`."""

from __future__ import annotations

import gzip
import json
import re
from functools import cache
from pathlib import Path

import pytest

from tests.book.conftest import pages
from tests.needs import ROOT

RECORD = ROOT / "benchmarks/results/pageweight.json"
recorded = pytest.mark.skipif(
    not RECORD.is_file(), reason="no record yet: `make pageweight`, on a machine that does nothing else"
)
MORE_KB = 20  # that a page may weigh above its record
MOST_BLOCKED_MS, MOST_TAP_MS = 600, 200


@cache
def rows() -> dict[str, dict]:
    return {row["page"]: row for row in json.loads(RECORD.read_text("utf8"))["rows"]}


@cache
def zipped_kb(path: Path) -> float:
    return len(gzip.compress(path.read_bytes(), 6)) / 1e3


def weight_kb(page: Path) -> float:
    """The page and the scripts and style sheets that it names, compressed."""
    html = page.read_text("utf8")
    named = re.findall(r'<(?:script|link)\b[^>]*?(?:src|href)="([^"#?]+\.(?:js|mjs|css))', html)
    files = {(page.parent / name).resolve() for name in named if "//" not in name}
    return zipped_kb(page) + sum(zipped_kb(file) for file in files if file.is_file())


@recorded
@pytest.mark.parametrize("name", pages())
def test_no_page_weighs_much_more_than_its_record(site_dir, name):
    row = rows().get(name)
    assert row, f"{name} is not in the record: make pageweight"
    assert weight_kb(site_dir / f"{name}.html") <= row["kB"] + MORE_KB


@recorded
def test_the_recorded_pages_do_not_keep_a_reader_waiting():
    for name, row in rows().items():
        assert row["blocked_ms"] < MOST_BLOCKED_MS, f"{name} blocked for {row['blocked_ms']} ms"
        assert row["tap_ms"] < MOST_TAP_MS, f"{name}: a tap took {row['tap_ms']} ms"


def test_nothing_of_python_is_named_by_a_page(site_dir):
    for name in pages():
        html = (site_dir / f"{name}.html").read_text("utf8")
        assert "pyodide" not in html and "packages.zip" not in html, name
