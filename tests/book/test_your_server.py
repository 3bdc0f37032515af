"""The page on a server of your own is as the package makes it."""

from __future__ import annotations

from tools import your_server


def test_the_page_is_up_to_date():
    text = your_server.PAGE.read_text("utf-8")
    assert your_server.filled(text) == text, "run python tools/your_server.py"


def test_every_part_is_on_the_page_once():
    text = your_server.PAGE.read_text("utf-8")
    assert all(text.count(f"<!-- made: {name} -->") == 1 for name in your_server.PARTS)
