"""Pages for people who enlarge them, space their text out, choose their own colours, press keys only, print, or want no motion."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.proof import few_of

FEW = ["notebooks/03_practice", "notebooks/07_diagnosis_clinic", "book/lab"]
MORE = [
    "notebooks/01_prefilling",
    "notebooks/03_iteration_level_scheduling",
    "notebooks/06_scheduling_complexity",
    "book/your-server",
]
PAGES = few_of([*FEW, *MORE], FEW)
# WCAG 1.4.12, and every section laid out
SPACED = """* { content-visibility: visible !important; line-height: 1.5 !important; letter-spacing: 0.12em !important;
  word-spacing: 0.16em !important; } p { margin-bottom: 2em !important; }"""
CUT = """() => {
  document.querySelectorAll("details").forEach((fold) => (fold.open = true));
  const wider = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  const texts = ".bd-article :is(p, li, td, th, button, label, summary, legend, h1, h2, h3, figcaption, span, div)";
  const hides = (way) => way === "hidden" || way === "clip";
  const cut = [...document.querySelectorAll(texts)].filter((box) => {
    if (!box.getClientRects().length || !box.textContent.trim() || box.closest(".cp-voice, svg")) return false;
    const style = getComputedStyle(box);
    return (hides(style.overflowY) && box.scrollHeight > box.clientHeight + 2)
      || (hides(style.overflowX) && box.scrollWidth > box.clientWidth + 2);
  });
  return [...(wider > 0 ? [`${wider} px wider than the window`] : []), ...cut.map((box) => box.outerHTML.slice(0, 90))];
}"""
FOCUS = """() => new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(() => {
  const at = document.activeElement, inside = at?.closest(".bd-article");
  if (!inside) return go(null);
  const { top, bottom, width, height } = at.getBoundingClientRect(), wrong = [];
  const outlined = (node) => node && getComputedStyle(node).outlineStyle !== "none";
  if (bottom < 0 || top > innerHeight || width * height < 1) wrong.push("off the screen");
  if (![at, at.nextElementSibling, at.closest(".cp-editor")].some(outlined)) wrong.push("no outline");
  const name = at.getAttribute("aria-label") || at.textContent.trim() || at.labels?.[0]?.textContent.trim() || at.title;
  if (!name) wrong.push("no name");
  go(wrong.length ? `${wrong.join(", ")}: ${at.outerHTML.slice(0, 90)}` : "");
})))"""


@pytest.fixture
def opened(new_page, site_url) -> Callable:
    def opened(name: str, width: int = 390):
        page = new_page(width)
        page.goto(f"{site_url}/{name}.html")
        page.wait_for_load_state("networkidle")  # alone it can come before the page's own script has run
        return page

    return opened


@pytest.mark.parametrize("name", PAGES)
def test_narrow_and_spaced_out_nothing_is_cut_off(opened, name):
    """320 px is also what a window of 1,280 px has at 400%."""
    page = opened(name, 320)
    assert page.evaluate(CUT) == []
    page.add_style_tag(content=SPACED)
    assert page.evaluate(CUT) == []


def test_what_is_cut_off_would_be_seen(opened):
    page = opened("book/your-server", 320)
    page.add_style_tag(content=".bd-article p { height: 1em; overflow: hidden }")
    assert page.evaluate(CUT)


@pytest.mark.parametrize("name", PAGES)
def test_each_stop_of_the_keyboard_is_on_the_screen_named_and_outlined(opened, name):
    page = opened(name)
    page.evaluate("""() => {
        const article = document.querySelector(".bd-article");
        article.tabIndex = -1;
        article.focus({preventScroll: true});
    }""")
    wrong, n_stops = [], 0
    for _ in range(40):
        page.keyboard.press("Tab")
        found = page.evaluate(FOCUS)
        if found is None:
            break
        n_stops += 1
        wrong += [found] if found else []
        if page.evaluate("() => Boolean(document.activeElement.closest('.cp-editor'))"):
            page.keyboard.press("Escape")  # else Tab indents
    assert n_stops >= 10 and not wrong, wrong


def test_the_reader_s_own_colours_leave_icons_and_what_is_chosen(browser, site_url):
    context = browser.new_context(forced_colors="active", viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto(f"{site_url}/notebooks/01_prefilling.html")
    ground = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    icons = page.evaluate("""() => [...document.querySelectorAll(".bd-header-article i, .bd-header-article .fa-solid")]
        .map((icon) => getComputedStyle(icon, "::before").backgroundColor)""")
    assert icons and ground not in icons
    page.locator(".cp-pill input").nth(1).click()
    borders = page.evaluate("""() => [...document.querySelector(".cp-pills").querySelectorAll("label")]
        .map((label) => getComputedStyle(label).borderTopWidth)""")
    assert borders.count("2px") == 1 and len(set(borders)) == 2
    context.close()


@pytest.mark.parametrize("name", PAGES)
def test_paper_shows_every_section_and_no_control(opened, name):
    page = opened(name)
    page.evaluate("() => dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    left = page.evaluate("""() => [...document.querySelectorAll(".bd-article button, .cp-progress, .cp-resume")]
        .filter((control) => control.getClientRects().length).map((control) => control.outerHTML.slice(0, 80))""")
    undrawn = page.evaluate("""() => [...document.querySelectorAll(".bd-article :is(section, figure, details > *)")]
        .filter((part) => getComputedStyle(part).contentVisibility !== "visible").map((part) => part.outerHTML.slice(0, 80))""")
    shut = page.locator(".bd-article details:not([open])").count()
    assert not left and not undrawn and not shut


@pytest.mark.parametrize("name", PAGES)
def test_who_wants_no_motion_sees_none(opened, name):
    page = opened(name)  # every page of these tests asks for that
    moving = page.evaluate("""() => [...document.querySelectorAll("*")].filter((node) => {
        const { transitionDuration, transitionProperty, animationName, scrollBehavior } = getComputedStyle(node);
        const moves = transitionDuration.split(", ").some((time) => parseFloat(time) > 0) && transitionProperty !== "none";
        return moves || animationName !== "none" || scrollBehavior === "smooth";
    }).map((node) => node.outerHTML.slice(0, 80))""")
    assert moving == []
