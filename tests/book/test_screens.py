"""A chapter is to be read in one sitting: about 35 screens of a phone, every fold shut."""

from __future__ import annotations

import pytest

from tests.book.conftest import pages
from tools.look import screens

MOST = 35
CHAPTERS = [
    page
    for page in pages()
    if page.startswith("notebooks/") and not page.endswith(("_practice", "_cases", "_further"))
]


@pytest.mark.parametrize("page", CHAPTERS)
def test_a_chapter_is_one_sitting(site_url, browser, page):
    found = screens(browser, f"{site_url}/{page}.html")
    tallest = sorted(found["sections"], key=lambda one: -one["screens"])[:4]
    assert found["screens"] <= MOST, f"{page}: {found['screens']} screens, at most {MOST}; {tallest}"


def test_the_measure_grows_with_the_page_and_ignores_what_is_folded(browser, tmp_path):
    def measured(inner: str) -> dict:
        path = tmp_path / "page.html"
        path.write_text(
            '<!doctype html><meta name="viewport" content="width=device-width"><body style="margin:0">'
            f'<article class="bd-article"><section><h1>A</h1><section><h2>B</h2>{inner}</section></section>'
        )
        return screens(browser, path.as_uri())

    block = '<div style="height:1688px"></div>'
    one, two = measured(block), measured(block * 2)
    assert two["screens"] == pytest.approx(one["screens"] + 2, abs=0.11)
    folded = measured(f"{block}<details><summary>more</summary>{block * 9}</details>")
    assert folded["screens"] < one["screens"] + 0.2
    assert [section["title"] for section in two["sections"]] == ["B"]
