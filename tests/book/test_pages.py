"""Every page in a real browser: at three widths, light and dark, over http and from files."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.book.conftest import little_book, pages
from tests.book.test_build import PLAIN_LIMIT, weight
from tests.proof import draws

WIDTHS = (390, 768, 1440)
LOADED_AT = draws({390}, {390, 1440})  # elsewhere the page is laid out anew, and not loaded anew
AXE_AT = ((390, "light"), (1440, "dark"))  # each width of layout and each scheme of colours once
EXTRA = ("search", "genindex")  # pages that Sphinx adds
AXE = Path(__file__).parent / "vendor/axe-core/axe.min.js"

# What axe-core finds in the stock theme and the book cannot mend: (rule, part of the selector) -> the reason.
KNOWN: dict[tuple[str, str], str] = {}

OVERFLOW = """() => {
  const width = document.documentElement.clientWidth, wide = [];
  if (document.documentElement.scrollWidth <= width) return "";
  const scrolls = (e) => e && (getComputedStyle(e).overflowX !== "visible" || scrolls(e.parentElement));
  for (const e of document.querySelectorAll("body *"))
    if (e.getBoundingClientRect().right > width + 1 && !scrolls(e.parentElement))
      wide.push(e.outerHTML.slice(0, 90));
  return `${document.documentElement.scrollWidth - width} px wider than the window: ${wide.slice(0, 3)}`;
}"""
PLAIN_CODE = """() => {
  for (const code of [...document.querySelectorAll(".highlight pre")].slice(10))
    code.textContent = code.textContent;
}"""
FRAME = "() => new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn)))"
SETTLED = "() => !window.MathJax?.startup?.promise || window.MathJax.startup.promise.then(() => true)"


@cache
def axe() -> str:
    """The source of axe-core."""
    return AXE.read_text("utf8")


def open_page(page, address: str) -> list[str]:
    """Open `address`; what breaks the rule of every page: silent, and asking nothing of another host."""
    page.problems.clear()
    page.requested.clear()
    page.goto(address, wait_until="load")
    page.wait_for_function(SETTLED)
    home = address.split("/", 3)[:3]
    foreign = [
        a for a in page.requested if not a.startswith(("data:", "blob:")) and a.split("/", 3)[:3] != home
    ]
    return page.problems + [f"foreign: {address}" for address in foreign]


def findings(page) -> list[str]:
    """What axe-core finds on an open page, every fold opened, less what is known of the theme.

    All code is coloured alike: the first ten blocks keep their colours, the others are plain, for axe takes
    milliseconds over each of thousands of words.
    """
    page.evaluate("() => document.querySelectorAll('details').forEach(d => d.open = true)")
    page.evaluate(PLAIN_CODE)
    page.evaluate(axe())
    report = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    found = []
    for violation in report["violations"]:
        for node in violation["nodes"]:
            selector = json.dumps(node["target"])
            if not any(rule == violation["id"] and part in selector for rule, part in KNOWN):
                why = [check["message"] for key in ("any", "all", "none") for check in node[key]]
                found.append(f"{violation['id']}: {selector} {why[:1]}")
    return found


@pytest.mark.parametrize("name", [*pages(), *EXTRA])
def test_page_is_silent_self_contained_fits_and_is_accessible(
    site_url: str, new_page: Callable, name: str
) -> None:
    page, wrong = new_page(WIDTHS[0]), []
    number = [*pages(), *EXTRA].index(name)
    one = AXE_AT[number % 6 // 3]  # `make test` asks axe about every third page, half of them at each
    looked_at = draws(() if number % 3 else (one,), AXE_AT)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        if width in LOADED_AT:
            page.emulate_media(color_scheme="light")
            wrong += [f"{width}: {line}" for line in open_page(page, f"{site_url}/{name}.html")]
        else:
            page.evaluate(FRAME)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)  # the page follows without being loaded again
            page.wait_for_function(f"document.documentElement.dataset.theme === '{scheme}'", timeout=60_000)
            here = [page.evaluate(OVERFLOW)]
            if (width, scheme) in looked_at:
                here += findings(page)
            wrong += [f"{width} {scheme}: {line}" for line in here if line]
    wrong += page.problems
    page.context.close()
    assert not wrong, "\n".join(dict.fromkeys(wrong))


@pytest.mark.parametrize("name", [*draws(pages()[::3], pages()), *EXTRA])
def test_page_works_from_a_file(site_dir: Path, new_page: Callable, name: str) -> None:
    page = new_page(390, "dark")
    wrong = open_page(page, (site_dir / f"{name}.html").as_uri())
    wrong += filter(None, [page.evaluate(OVERFLOW)])
    page.context.close()
    assert not wrong, "\n".join(wrong)


def test_search_finds_from_a_file(site_dir: Path, new_page: Callable) -> None:
    page = new_page(390)
    wrong = open_page(page, (site_dir / "search.html").as_uri() + "?q=cache")
    page.wait_for_selector("#cp-found li a", timeout=60_000)
    assert not wrong + page.problems
    page.context.close()


@pytest.mark.parametrize("served", [True, False], ids=["served", "folder"])
def test_the_theme_switch_is_kept(site_url: str, site_dir: Path, new_page: Callable, served: bool) -> None:
    page = new_page(1440)
    home = site_url if served else site_dir.as_uri()
    open_page(page, f"{home}/{pages()[0]}.html")
    page.click(".theme-switch-button")
    chosen = page.evaluate("document.documentElement.dataset.theme")
    open_page(page, f"{home}/{pages()[1]}.html")
    assert page.evaluate("document.documentElement.dataset.theme") == chosen == "dark"
    page.context.close()


def test_the_menu_opens_on_a_phone_and_leads_on(site_url: str, new_page: Callable) -> None:
    page = new_page(390, touch=True)
    open_page(page, f"{site_url}/{pages()[0]}.html")
    page.tap(".primary-toggle")
    link = page.locator("nav.bd-links a", has_text="Set up").first
    link.wait_for(state="visible")
    link.tap()
    page.wait_for_url("**/setup.html")
    assert not page.problems
    page.context.close()


SLIDER = {  # what ipywidgets saves for IntSlider(value=2, max=3, description="chunk")
    "layout": {"model_module": "@jupyter-widgets/base", "model_name": "LayoutModel", "state": {}},
    "style": {"model_module": "@jupyter-widgets/controls", "model_name": "SliderStyleModel", "state": {}},
    "slider": {
        "model_module": "@jupyter-widgets/controls",
        "model_name": "IntSliderModel",
        "state": {
            "value": 2,
            "max": 3,
            "description": "chunk",
            "layout": "IPY_MODEL_layout",
            "style": "IPY_MODEL_style",
        },
    },
}


@pytest.fixture(scope="session")
def parts_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A little book with a page of formulas and a notebook with a saved slider."""
    view = {
        "application/vnd.jupyter.widget-view+json": {
            "model_id": "slider",
            "version_major": 2,
            "version_minor": 0,
        }
    }
    for model in SLIDER.values():
        model["model_module_version"] = "2.0.0" if "controls" in model["model_module"] else "1.2.0"
    cell = {
        "cell_type": "code",
        "execution_count": 1,
        "id": "a",
        "metadata": {},
        "source": "slider",
        "outputs": [{"output_type": "execute_result", "data": view, "metadata": {}, "execution_count": 1}],
    }
    widgets = {
        "application/vnd.jupyter.widget-state+json": {"state": SLIDER, "version_major": 2, "version_minor": 0}
    }
    language = {
        "kernelspec": {"name": "python3", "display_name": "Python 3"},
        "language_info": {"name": "python"},
    }
    title = {"cell_type": "markdown", "id": "t", "metadata": {}, "source": "# A slider"}
    notebook = {
        "cells": [title, cell],
        "metadata": {**language, "widgets": widgets},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    formulas = "# Formulas\n\nIn line, $\\lceil n/c \\rceil$, and apart:\n\n$$\n\\frac{n(n - c)}{2c}\n$$\n"
    root = tmp_path_factory.mktemp("parts")
    done = little_book(root, {"formulas.md": formulas, "slider.ipynb": json.dumps(notebook)})
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    return root / "_build/html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_formulas_and_saved_widgets_work_from_a_file(
    parts_dir: Path, new_page: Callable, scheme: str
) -> None:
    page = new_page(390, scheme)
    wrong = open_page(page, (parts_dir / "formulas.html").as_uri())
    assert page.locator("mjx-container").count() == 2
    assert page.locator("mjx-container math").count() == 2, "spoken as MathML"
    assert sum(weight(parts_dir, "formulas").values()) <= PLAIN_LIMIT
    assert not any("embed.js" in address for address in page.requested)
    wrong += open_page(page, (parts_dir / "slider.html").as_uri())
    page.wait_for_selector(".jupyter-widgets .widget-readout, .jupyter-widgets .noUi-handle", timeout=60_000)
    assert not any("mathjax" in address for address in page.requested)
    wrong += page.problems
    page.context.close()
    assert not wrong


def test_the_first_tab_skips_to_the_text(site_url: str, new_page: Callable) -> None:
    page = new_page(1440)
    open_page(page, f"{site_url}/{pages()[0]}.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent").strip() == "Skip to main content"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#main-content"
    page.context.close()
