"""The page as people use it: drawers, print, search, progress, previews, answers kept and cleared, no scripts."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from chunkprefill_course.forms.guess import off_by
from tests.book.conftest import pages, soon
from tests.needs import need

CHAPTER = "notebooks/04_throughput_and_latency"
# What a reader types, and the page (and where it matters the section) that the first results must hold.
QUERIES = {
    "max_num_batched_tokens": "notebooks/",
    "enable_chunked_prefill": "notebooks/08_real_engines",
    "batched tokens": "notebooks/",
    "KV cache": "book/glossary",
    "kv cahce": "",
    "rope positions": "notebooks/02_",
    "tile": "notebooks/05_choosing_the_chunk_size",
    "preemption": "notebooks/0",
    "schedulng overhead": "",
    "shortest first": "notebooks/0",
    "how to grade": "book/instructors/",
    "moodle": "book/instructors/",
    "glossary": "book/glossary",
    "prefix": "notebooks/08_",
    "sandbox": "book/instructors/",
}


@pytest.fixture
def chapter(new_page, site_url):
    def opened(width=1440, scheme="light", *, page=CHAPTER, **kind):
        one = new_page(width, scheme, **kind)
        one.goto(f"{site_url}/{page}.html")
        one.wait_for_load_state("load")
        return one

    return opened


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_finds_its_section(new_page, site_url, query):
    page = new_page(390)
    page.goto(f"{site_url}/search.html?q={query}")
    page.wait_for_selector("#cp-found li")
    found = page.evaluate("query => courseSearch(query)", query)[:3]
    assert any(place.startswith(QUERIES[query]) for place, _, _ in found), found
    assert page.locator("#cp-found li p").first.inner_text().strip()


def test_an_abbreviation_is_no_beginning_of_another_word(new_page, site_url):
    page = new_page(390)
    page.goto(f"{site_url}/search.html")
    for place, id, _ in page.evaluate("() => courseSearch('SLO')"):
        text = page.evaluate(
            "([place, id]) => courseSections.find((row) => row[0] === place && row[1] === id).join(' ')",
            [place, id],
        )
        assert re.search(r"\bSLOs?\b", text), f"{place}#{id} holds no SLO"


def test_nothing_found_is_said(new_page, site_url):
    page = new_page(390)
    page.goto(f"{site_url}/search.html?q=zzzzqqqq")
    page.get_by_text("Nothing found for “zzzzqqqq”").wait_for()


def test_a_search_without_its_index_says_so(new_page, site_url):
    page = new_page(390)
    page.route("**/sections.js", lambda route: route.abort())
    page.goto(f"{site_url}/search.html?q=chunk")
    page.get_by_text("sections.js could not be fetched").wait_for()


def test_a_book_pasted_into_the_search_is_answered(new_page, site_url):
    """The first words of it are looked for; none of it becomes part of the page."""
    page = new_page(390)
    page.goto(f"{site_url}/search.html")
    page.locator("#cp-query").fill("<img src=x onerror=window.caught=1> " + "prefix caching " * 100_000)
    page.locator("#cp-found li").first.wait_for()
    assert page.evaluate("() => window.caught") is None and not page.problems


def test_the_phones_contents_close_after_a_tap(chapter):
    page = chapter(390, touch=True)
    page.locator(".secondary-toggle:visible").first.click()
    dialog = page.locator("dialog[open]")
    dialog.wait_for()
    assert dialog.locator(".cp-close").is_visible()
    dialog.locator("a[href^='#']").nth(2).click()
    page.wait_for_function("() => !document.querySelector('dialog[open]')")
    page.locator(".secondary-toggle:visible").first.click()
    page.locator("dialog[open] .cp-close").click()
    assert page.locator("dialog[open]").count() == 0 and not page.problems


def test_a_choice_is_kept_and_cleared(chapter):
    page = chapter()
    page.locator(".cp-choice label").first.click()
    page.reload()
    page.wait_for_function("() => document.querySelector('.cp-choice input:checked')")
    page.locator(".cp-clear").click()
    page.wait_for_function("() => !document.querySelector('.cp-choice input:checked')")


def test_a_page_open_twice_has_one_set_of_answers(browser, site_url):
    """What is typed or chosen in one tab is shown by the other, which would overwrite it unseen."""
    context = browser.new_context(viewport={"width": 390, "height": 844})
    first, second = context.new_page(), context.new_page()
    for page in (first, second):
        page.goto(f"{site_url}/notebooks/03_practice.html")
    first.locator(".cp-editor textarea").first.click()
    first.locator(".cp-editor .cm-content").wait_for()
    first.keyboard.type("# mine ")
    first.locator(".cp-choice label").first.click()
    # all of it: a last letter that comes later would replace what is typed here meanwhile
    second.wait_for_function("() => document.querySelector('.cp-editor textarea').value.includes('# mine ')")
    second.wait_for_function("() => document.querySelector('.cp-choice input:checked')")
    first.evaluate(
        """() => {
            window.kept = [];
            const keep = Storage.prototype.setItem;
            Storage.prototype.setItem = function (key, text) { window.kept.push(key); return keep.call(this, key, text); };
        }"""
    )
    second.locator(".cp-editor textarea").first.click()
    second.locator(".cp-editor .cm-content").wait_for()
    second.keyboard.type("# hers ")
    text = "() => document.querySelector('.cp-editor').innerText"
    soon(first.locator(".cp-editor").first).to_contain_text("# hers ", use_inner_text=True)
    kept = [key for key in first.evaluate("window.kept") if "code" in key]
    assert not kept, "what is followed is not kept again: the other tab may have typed more by now"
    assert "# mine" in first.evaluate(text) and "# mine" in second.evaluate(text)
    second.locator(".cp-reset").first.click()
    first.wait_for_function("() => !document.querySelector('.cp-editor').innerText.includes('# mine')")
    context.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_code_can_be_copied_and_its_button_covers_none_of_it(browser, site_url, width):
    context = browser.new_context(
        viewport={"width": width, "height": 844}, permissions=["clipboard-read", "clipboard-write"]
    )
    page = context.new_page()
    page.goto(f"{site_url}/book/setup.html")
    button = page.locator(".cp-copy").first
    code = page.locator(".highlight:has(> .cp-copy) > pre").first
    assert code.bounding_box()["x"] + code.bounding_box()["width"] <= button.bounding_box()["x"] + 1
    button.click()
    page.locator(".cp-copied").wait_for()
    assert page.evaluate("() => navigator.clipboard.readText()") == code.text_content()
    context.close()


def test_a_measured_answer_is_covered_until_predicted(chapter):
    page = chapter()
    box = page.locator(".cp-recall").first
    assert box.locator(".cp-cover").is_visible() and not box.locator(".cp-mine").is_visible()
    box.locator(".cp-cover button").first.click()
    assert box.locator(".cp-mine").is_visible() and box.locator(".cp-cover").count() == 0
    assert "You predicted" in box.locator(".cp-mine").inner_text()


@pytest.mark.parametrize("guess", ["4", "2.1", "900"])
def test_a_number_says_how_far_off_it_was(chapter, guess):
    """Typed with the prediction, shown beside what was measured, kept over a reload: words as in a notebook."""
    page = chapter(390, page="notebooks/01_prefilling")
    asked, told = (
        page.locator(".cp-predict[data-number]").first,
        page.locator(".cp-recall[data-number]").first,
    )
    found, unit = told.get_attribute("data-value"), told.get_attribute("data-number")
    asked.locator(".cp-number input").fill(guess)
    asked.locator(".cp-number input").press("Tab")
    words = f"{guess} {unit}, {off_by(float(guess), found)}."
    assert words in told.locator(".cp-mine").text_content()
    page.reload()
    soon(told.locator(".cp-mine")).to_contain_text(words)
    assert not page.problems


def test_an_unanswered_prediction_is_asked_again_with_its_number(chapter):
    page = chapter(390, page="notebooks/01_prefilling")
    box = page.locator(".cp-recall[data-number]").first
    box.locator(".cp-cover input").fill("4")
    box.locator(".cp-show").click()
    assert "4 times as long, off by" in box.locator(".cp-mine").inner_text()
    assert box.locator("li").first.is_visible() and not page.problems


def test_show_me_uncovers_without_a_guess(chapter):
    page = chapter()
    box = page.locator(".cp-recall").first
    box.locator(".cp-show").click()
    assert box.locator(".cp-mine").is_visible() and "no prediction" in box.locator(".cp-mine").inner_text()


def test_one_is_told_where_one_stopped(chapter):
    page = chapter()
    page.evaluate("document.querySelectorAll('.bd-article h2')[3].scrollIntoView()")
    page.wait_for_function("() => Object.keys(localStorage).some((key) => key.includes('place:'))")
    page.reload()
    page.locator(".cp-resume a").wait_for()


def test_a_glossary_word_shows_what_it_means(chapter):
    page = chapter()
    page.locator(".bd-article a[href*='glossary.html#']").first.focus()
    page.wait_for_function(
        "() => { const card = document.getElementById('cp-preview'); return card && !card.hidden; }"
    )
    assert len(page.locator("#cp-preview").inner_text()) > 20
    page.keyboard.press("Escape")
    assert not page.locator("#cp-preview").is_visible() and not page.problems


COLUMNS = """() => [...document.querySelectorAll('.bd-article table')].filter((table) => table.offsetParent && !table.querySelector('[colspan]'))
  .flatMap((table) => [...table.rows[table.rows.length - 1].cells].map((_, k) => [...table.rows].map((row) => row.cells[k])
    .filter((cell) => cell?.localName === 'td' && cell.textContent.trim())))
  .filter((cells) => cells.length).map((cells) => cells.map((cell) => {
    const letters = document.createRange();
    letters.selectNodeContents(cell);
    const tops = new Set([...letters.getClientRects()].map(({ top }) => Math.round(top / 8)));
    return [cell.textContent.trim(), getComputedStyle(cell).textAlign, tops.size];
  }))"""


@pytest.mark.parametrize("page", [CHAPTER, "notebooks/01_prefilling", "notebooks/02_chunk_by_chunk"])
def test_numbers_stand_under_each_other_and_beside_their_units(chapter, page):
    """One column, one side. `1.12 s (686 ms–1.16 s)` stood on the other side than its neighbours, and in two lines."""
    columns = chapter(390, page=page).evaluate(COLUMNS)
    number = re.compile(r"[≈−]?[\d.,]+(e-\d+)?( ?(ms|s|%|×|positions|G?FLOP))?( \([^)]+\))?")
    n_numbers = 0
    for cells in columns:
        assert len({align for _, align, _ in cells}) == 1, cells
        are = [bool(number.fullmatch(text)) for text, _, _ in cells]
        assert not all(are) or cells[0][1] == "right", cells
        assert all(lines == 1 for is_number, (*_, lines) in zip(are, cells) if is_number), cells
        n_numbers += sum(are)
    assert n_numbers > 10


def test_every_scrolling_table_has_a_name_of_its_own(chapter):
    names = chapter().evaluate(
        "() => [...document.querySelectorAll('.bd-article [role=group][tabindex]')].map((box) => box.getAttribute('aria-label'))"
    )
    assert names and all(name and name != "Table: table" for name in names)


def test_a_picture_behind_a_fold_is_read_when_the_fold_is_opened_and_printed(chapter, browser, site_url):
    page = chapter(390, page="notebooks/07_cases", touch=True)
    folds = page.locator(".bd-article details:has(noscript)")
    n_held = folds.count()
    assert n_held >= 10 and page.locator(".bd-article details svg").count() == 0
    folds.first.locator("summary").first.tap()
    page.locator(".bd-article details[open] svg").first.wait_for()
    page.evaluate("() => dispatchEvent(new Event('beforeprint'))")
    assert page.locator(".bd-article details[open] svg").count() == n_held and not page.problems
    context = browser.new_context(java_script_enabled=False)
    plain = context.new_page()
    plain.goto(f"{site_url}/notebooks/07_cases.html")
    assert plain.locator(".bd-article details svg").count() == n_held, "without scripts nothing is held back"
    context.close()


def drawn(page):
    """Wait until each picture has its room, near or not: until then the page may grow or shrink above a reader."""
    page.wait_for_function("""() => [...document.querySelectorAll(".bd-article figure.cp-figure")]
        .every((figure, _, figures) => figures.length > 0 && getComputedStyle(figure).contentVisibility === "visible")""")


def test_pictures_far_down_are_drawn_while_the_page_rests(chapter):
    drawn(chapter(390))


def test_without_scripts_there_are_contents_and_a_ground(browser, site_url):
    context = browser.new_context(java_script_enabled=False, viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto(f"{site_url}/{CHAPTER}.html")
    assert page.locator(".cp-nojs a").first.is_visible()
    covered = page.locator(".cp-recall .cp-mine").first
    assert covered.is_visible(), "without scripts everything can be seen"
    context.close()


def test_print_loses_nothing(browser, site_url, tmp_path):
    """Each fold's words are in the PDF, from a dark page too; code wraps; buttons are gone."""
    need("pdftotext", shutil.which("pdftotext"), "pdftotext (poppler-utils) is not on PATH")
    page = browser.new_context(color_scheme="dark").new_page()
    page.goto(f"{site_url}/{CHAPTER}.html")
    page.wait_for_load_state("load")
    folded = page.evaluate(
        "() => [...document.querySelectorAll('.bd-article details :is(p, pre)')].map((p) => p.textContent.trim()).filter((t) => t.length > 60)"
    )
    assert len(folded) > 5
    path = tmp_path / "chapter.pdf"
    page.pdf(path=str(path), print_background=True)
    text = subprocess.run(["pdftotext", "-raw", path, "-"], capture_output=True, text=True, check=True).stdout
    flat = re.sub(r"\W+", "", text)
    lost = [words for words in folded if re.sub(r"\W+", "", words)[:50] not in flat]
    assert not lost, lost[:3]
    assert "Clear my answers" not in text and "Back to top" not in text


def test_what_search_engines_read(site_dir):
    titles, words = set(), set()
    for name in pages():
        path = site_dir / f"{name}.html"
        html = path.read_text("utf8")
        titles.add(re.search(r"<title>(.*?)</title>", html, re.S)[1].strip())
        words.add(re.search(r'<meta name="description" content="([^"]+)">', html)[1])
        assert 'rel="canonical"' in html and 'property="og:image"' in html, path
    assert len(titles) == len(words) > 20 and not any(
        t == "Chunked prefilling — Chunked prefilling" for t in titles
    )
    assert (site_dir / "sitemap.xml").is_file() and (site_dir / "404.html").is_file()
    assert "Sitemap:" in (site_dir / "robots.txt").read_text("utf8")


def test_the_glossary_has_its_letters(chapter):
    page = chapter(390, page="book/glossary")
    letters = page.locator(".cp-az a")
    assert letters.count() > 10
    place = letters.nth(4).get_attribute("href")
    assert page.locator(f"dt[id='{place.removeprefix('#')}']").count() == 1


def test_a_cell_of_a_table_is_no_column_of_single_words(new_page, site_url):
    """On a phone, cells with flags of a server had thirteen lines."""
    page = new_page(390)
    page.goto(f"{site_url}/book/your-server.html")
    lines = page.evaluate(
        """() => [...document.querySelectorAll(".bd-article td")].map((cell) =>
        Math.round((cell.clientHeight - 8) / parseFloat(getComputedStyle(cell).lineHeight)))"""
    )
    assert len(lines) > 20 and max(lines) <= 7, lines
    page.context.close()


def test_what_scrolls_sideways_can_be_reached_by_keyboard_and_nothing_else_stops_it(chapter):
    """Measured when it comes near the screen: after a walk down the page every box has what it needs."""
    page = chapter(390)
    page.evaluate(
        """async () => { for (let y = 0; y < document.documentElement.scrollHeight; y += 700) {
        scrollTo(0, y); await new Promise((go) => setTimeout(go, 60)); } }"""
    )
    boxes = page.evaluate(
        """() => [...document.querySelectorAll(".bd-article :is(pre, .pst-scrollable-table-container, .cp-table)")]
        .filter((box) => box.getClientRects().length && !box.closest("details:not([open])"))
        .map((box) => [box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight, box.tabIndex])"""
    )
    assert len(boxes) > 5 and any(scrolls for scrolls, _ in boxes)
    assert all((stop == 0) == scrolls for scrolls, stop in boxes), boxes


def test_a_style_is_sent_once(site_dir):
    for name in pages():
        styles = re.findall(r"<style>[^<]*</style>", (site_dir / f"{name}.html").read_text("utf8"))
        assert len(styles) == len(set(styles)), name


def test_the_theme_measures_no_whole_page(site_dir):
    script = (site_dir / "_static/scripts/pydata-sphinx-theme.js").read_text("utf8")
    assert "scrollHeight>e.clientHeight" not in script


def test_what_another_page_of_the_origin_left_behind_breaks_nothing(chapter):
    page = chapter()
    place = page.url.rsplit("/", 1)[-1]
    page.evaluate("([place]) => localStorage.setItem(`chunkprefill:place:${place}`, '{\"id\": 7')", [place])
    page.reload()
    assert page.locator(".cp-clear").count() == 1 and not page.problems


# --- a phone's time ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_colours_are_settled_before_the_theme_runs(new_page, site_url, scheme):
    """Settled afterwards, each element of a page is styled twice, and a dark page flashes."""
    page = new_page(390, scheme)
    page.route("**/pydata-sphinx-theme.js*", lambda route: route.abort())
    page.goto(f"{site_url}/{CHAPTER}.html")
    assert page.locator("html").get_attribute("data-theme") == scheme


def test_a_page_loaded_again_opens_where_the_reader_was(chapter):
    """The browser restores a height alone, which names another place while the pictures above are guessed at."""
    page = chapter(390)
    heading = page.locator(".bd-article > section > section > h2").nth(5)
    for _ in range(2):  # the pictures on the way take their true heights
        for title in page.locator(".bd-article > section > section > h2").all()[:6]:
            title.evaluate("(n) => n.scrollIntoView()")
            page.evaluate("() => new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))")
    page.evaluate("scrollBy(0, 150)")
    was = heading.evaluate("(n) => n.getBoundingClientRect().top")
    page.reload()
    place = "([n, was]) => Math.abs(n.getBoundingClientRect().top - was) < 5"
    page.wait_for_function(place, arg=[heading.element_handle(), was])
    assert not page.problems


def test_the_header_s_menus_come_with_the_first_touch(chapter):
    page = chapter(1440)
    assert not any("bootstrap.js" in address for address in page.requested)
    page.locator(".dropdown-source-buttons button, .dropdown-download-buttons button").first.click()
    page.wait_for_selector(".dropdown-menu.show a")
    assert sum("bootstrap.js" in address for address in page.requested) == 1 and not page.problems


def test_the_way_back_to_the_top_is_offered_to_who_scrolls_up(chapter):
    page = chapter(390)
    drawn(page)
    button = page.locator("#pst-back-to-top")
    page.evaluate("scrollTo(0, 3000)")
    page.wait_for_timeout(100)
    assert not button.is_visible()
    page.evaluate("scrollBy(0, -200)")
    button.click()
    page.wait_for_function("() => scrollY === 0")
