"""The page on a server of your own has every part that the package makes; `make pages-check` compares the text."""

from __future__ import annotations

from tools import your_server


def test_every_part_is_on_the_page_once():
    text = your_server.PAGE.read_text("utf-8")
    assert all(text.count(f"<!-- made: {name} -->") == 1 for name in your_server.PARTS)
