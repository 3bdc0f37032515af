"""The forms in a built page: by mouse, touch and keyboard, with and without scripts, kept over a reload."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import ipywidgets
import nbformat
import pytest
from ipywidgets.embed import embed_data
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import chunkprefill as cp
import chunkprefill_course as course
from chunkprefill_course import exercises
from tests.book.conftest import little_book, pages, soon
from tests.book.test_pages import OVERFLOW, findings, open_page
from tests.proof import few_of
from tools.serve import server

GUESS, QUESTION, ORDER = exercises.guess_text, exercises.what_for, exercises.cache_order
SOLUTION = [step.key for step in ORDER.steps]


def mask(start: int, length: int) -> cp.Picture:
    return cp.mask_picture(start, length, caption=f"{length} queries after {start} cached tokens.")


EXPLORER = course.Explorer(
    id="mask",
    title="How does the mask of a chunk grow?",
    parameters={"tokens cached": [0, 2, 4], "chunk length": [1, 3]},
    frame=mask,
    start=(1, 0),
)
SLIDER = course.Explorer(
    id="slid",
    title="The same on a slider",
    parameters={"tokens cached": [0, 1, 2, 3]},
    frame=lambda s: mask(s, 2),
)
SHOWN = [
    GUESS,
    QUESTION,
    ORDER,
    exercises.chunk_mask,
    exercises.chunk_mask.as_choice(1),
    exercises.chunk_loop.as_choice(3),
    exercises.chunk_mask.check(exercises.chunk_mask.wrong[0].program),
    EXPLORER,
    course.recall(GUESS, answer="same", measured=f"all 40 tokens are equal, in {cp.measured(0.5)}"),
    course.evidence.both_sides(course.evidence.reread),
]


@pytest.fixture(scope="session")
def elements_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A book of one notebook that shows every form."""
    cells = [new_markdown_cell("# Forms\n\nOne of each.")]
    for form in SHOWN:
        output = new_output(
            "execute_result", {"text/html": form._repr_html_(), "text/plain": str(form)}, execution_count=1
        )
        cells.append(new_code_cell("form", outputs=[output], execution_count=1))
    widget = SLIDER.widget()
    state = embed_data(views=[widget])
    view = {"model_id": widget.model_id, "version_major": 2, "version_minor": 0}
    data = {"application/vnd.jupyter.widget-view+json": view, "text/plain": str(SLIDER)}
    cells.append(new_code_cell("widget", outputs=[new_output("display_data", data)]))
    saved = {"state": state["manager_state"]["state"], "version_major": 2, "version_minor": 0}
    notebook = new_notebook(
        cells=cells, metadata={"widgets": {"application/vnd.jupyter.widget-state+json": saved}}
    )
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    ipywidgets.Widget.close_all()
    root = tmp_path_factory.mktemp("elements")
    done = little_book(root, {"forms.ipynb": nbformat.writes(notebook)})
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return root / "_build/html"


@pytest.fixture(scope="session")
def elements_url(elements_dir: Path) -> Iterator[str]:
    """The address of that book, served: axe-core reads the style sheets, which file:// forbids."""
    with server(elements_dir) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


@pytest.fixture
def forms(elements_dir: Path, elements_url: str, new_page: Callable) -> Iterator[Callable]:
    """`forms(width, scheme, touch=False, served=False)`: the page of forms, open from its file or served."""
    opened = []

    def make(width: int = 390, scheme: str = "light", *, touch: bool = False, served: bool = False):
        page = new_page(width, scheme, touch=touch)
        opened.append(page)
        home = elements_url if served else elements_dir.as_uri()
        assert open_page(page, f"{home}/forms.html") == []
        return page

    yield make
    for page in opened:
        assert page.problems == []
        page.context.close()


@pytest.fixture
def plain(elements_dir: Path, browser) -> Iterator:
    """The page with scripts switched off."""
    context = browser.new_context(viewport={"width": 390, "height": 800}, java_script_enabled=False)
    page = context.new_page()
    page.goto((elements_dir / "forms.html").as_uri())
    yield page
    context.close()


def visible(page, selector: str) -> bool:
    return page.locator(selector).first.is_visible()


# --- choices ------------------------------------------------------------------------------------------


def test_every_option_answers_without_a_script(plain):
    for option in QUESTION.options:
        plain.locator(f"label[for=cp-{QUESTION.id}-{option.key}]").click()
        replies = plain.locator(f"#cp-{QUESTION.id} .cp-why:visible")
        assert replies.count() == 1
        text = replies.inner_text()
        assert option.reply.replace("*", "")[:40] in text and ("✓" in text) == option.ok


def test_a_prediction_gives_nothing_away_without_a_script(plain):
    for option in GUESS.options:
        plain.locator(f"label[for=cp-{GUESS.id}-{option.key}]").click()
        assert "further down" in plain.locator(f"#cp-{GUESS.id} .cp-why:visible").inner_text()
    assert "the question above" in plain.locator(".cp-recall .cp-mine").inner_text()


def test_keys_alone_answer_a_question_and_the_reply_is_spoken(forms):
    page = forms()
    page.locator(f"#cp-{QUESTION.id} input").first.focus()
    page.keyboard.press("Space")
    for option in QUESTION.options[1:]:
        page.keyboard.press("ArrowDown")
        reply = option.reply.replace("*", "")[:40]
        assert reply in page.locator(f"#cp-{QUESTION.id} .cp-why:visible").inner_text()
        page.wait_for_function(
            "reply => [...document.querySelectorAll('.cp-voice')].some("
            "each => each.textContent.includes(reply))",
            arg=reply,
        )
    assert page.get_attribute(".cp-voice", "role") == "status"


def test_a_tap_answers_a_question(forms):
    page = forms(touch=True)
    page.tap(f"label[for=cp-{QUESTION.id}-c]")
    assert "✓" in page.locator(f"#cp-{QUESTION.id} .cp-why:visible").inner_text()


def test_a_twin_shows_its_programs_and_answers(forms):
    page = forms()
    twin = exercises.chunk_mask.as_choice(1)
    for option in twin.options:
        page.click(f"label[for=cp-{twin.id}-{option.key}]")
        assert ("✓" in page.locator(f"#cp-{twin.id} .cp-why:visible").inner_text()) == option.ok
    assert page.locator(f"#cp-{twin.id} pre").count() == len(twin.options)


# --- predictions --------------------------------------------------------------------------------------


@pytest.mark.parametrize("served", [True, False], ids=["served", "folder"])
@pytest.mark.parametrize("key", ["same", "close"])
def test_a_prediction_survives_a_reload_and_is_shown_again(forms, key, served):
    page = forms(served=served)
    mine = page.locator(".cp-recall .cp-mine")
    assert "no prediction" in mine.inner_text()
    page.check(f"#cp-{GUESS.id}-{key}")
    words = GUESS.option(key).text
    assert words in mine.inner_text(), "at once, without a reload"
    other = page.context.new_page()  # once another tab shows it, the browser has stored it
    other.goto(page.url)
    soon(other.locator(f"#cp-{GUESS.id}-{key}")).to_be_checked()
    page.reload()
    soon(page.locator(f"#cp-{GUESS.id}-{key}")).to_be_checked()
    soon(mine).to_contain_text(words, use_inner_text=True)
    assert ("That is what was measured" in mine.inner_text()) == (key == "same")
    assert page.locator(".cp-recall li.cp-yours").get_attribute("data-key") == key


def test_a_page_from_a_folder_asks_for_no_storage_before_it_has_been_read(elements_dir, browser):
    """Asked in its head, Chromium gives such a page an empty storage now and then: 5 of 88 on a busy machine."""
    context = browser.new_context()
    page = context.new_page()
    page.add_init_script(
        """window.asked = [];
        for (const name of ['localStorage', 'sessionStorage']) {
            const { get } = Object.getOwnPropertyDescriptor(window, name);
            Object.defineProperty(window, name, {configurable: true, get() {
                window.asked.push(document.readyState);
                return get.call(window);
            }});
        }"""
    )
    page.goto((elements_dir / "forms.html").as_uri())
    asked = page.evaluate("window.asked")
    assert asked and "loading" not in asked, asked
    context.close()


def test_who_made_no_prediction_is_led_to_the_question(forms):
    page = forms()
    page.click(".cp-recall .cp-show")  # the answer is covered until then
    page.click(".cp-recall .cp-mine a")
    assert page.url.endswith(f"#cp-{GUESS.id}")


def test_a_browser_that_keeps_nothing_says_so(elements_dir, browser):
    context = browser.new_context()
    page = context.new_page()
    page.add_init_script(
        """for (const name of ['localStorage', 'sessionStorage'])
        Object.defineProperty(window, name, {configurable: true, get() { throw new Error('blocked'); }})"""
    )
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto((elements_dir / "forms.html").as_uri())
    page.check(f"#cp-{GUESS.id}-close")
    assert "until you leave this page" in page.locator(f"#cp-{GUESS.id} .cp-why:visible").inner_text()
    assert page.locator(".cp-recall .cp-mine").first.text_content().startswith("You predicted")
    themes = {page.locator("html").get_attribute("data-theme")}
    for _ in range(3):
        page.evaluate("document.querySelector('.theme-switch-button').click()")
        themes.add(page.locator("html").get_attribute("data-theme"))
    assert themes == {"light", "dark"} and not problems
    context.close()


# --- orders -------------------------------------------------------------------------------------------


def keys_of(page) -> list[str]:
    return page.eval_on_selector_all(
        ".cp-order .cp-steps > li", "cards => cards.map(card => card.dataset.key)"
    )


def card(key: str) -> str:
    return f".cp-order .cp-steps > li[data-key={key}]"


def put_in_order(page, wanted: list[str], press: Callable) -> None:
    """Bring each card to its place with the button that moves it up."""
    for place, key in enumerate(wanted):
        while keys_of(page).index(key) > place:
            press(f"{card(key)} .cp-up")


def said(page) -> str:
    return page.inner_text(".cp-order .cp-said")


def test_an_order_that_breaks_off_says_which_rule(forms):
    page = forms(1440)
    wanted = ["split", "room", "c2", "c1", "c3", "first", "decode"]
    put_in_order(page, wanted, page.click)
    page.click(".cp-play")
    page.wait_for_selector(f"{card('c2')}.cp-broken")
    assert "chunk 2 reads positions 0–3, which are not in the cache yet" in said(page)
    assert page.locator(".cp-order .cp-done").count() == 2
    page.click(f"{card('c2')} .cp-down")
    assert page.locator(".cp-order .cp-done, .cp-order .cp-broken").count() == 0, "a move begins anew"


@pytest.mark.parametrize(
    "wanted", [SOLUTION, ["room", "split", *SOLUTION[2:]]], ids=["as given", "the other"]
)
def test_every_order_that_works_is_accepted_by_touch(forms, wanted):
    page = forms(touch=True)
    put_in_order(page, wanted, page.tap)
    page.tap(".cp-play")
    page.wait_for_function("() => document.querySelector('.cp-order .cp-said').textContent.startsWith('✓')")
    assert page.locator(".cp-order .cp-done").count() == len(wanted)
    assert ORDER.check(wanted).message.split(". ", 1)[1] in said(page), "the words of the notebook"


def test_the_page_and_the_notebook_agree_on_many_orders(forms):
    page = forms()
    for tried in itertools.islice(itertools.permutations(SOLUTION), 0, 5040, 611):
        page.evaluate(
            """order => { const list = document.querySelector('.cp-order .cp-steps');
                order.forEach(key => list.append(list.querySelector(`li[data-key=${key}]`)));
                list.closest('.cp-order').querySelector('.cp-said').textContent = ''; }""",
            list(tried),
        )
        page.click(".cp-play")
        verdict = ORDER.check(tried)
        page.wait_for_function("() => /^[✓✗]/.test(document.querySelector('.cp-order .cp-said').textContent)")
        assert said(page).startswith("✓" if verdict else "✗")
        if not verdict:
            assert verdict.message.split(": ", 1)[1] in said(page)


def test_keys_alone_order_the_cards_and_each_move_is_spoken(forms):
    page = forms()
    key = keys_of(page)[0]
    page.locator(f"{card(key)} .cp-grip").focus()
    for place in (2, 3):
        page.keyboard.press("ArrowDown")
        assert keys_of(page).index(key) == place - 1
        page.wait_for_function(
            "place => [...document.querySelectorAll('.cp-voice')].some("
            "each => each.textContent.includes(`is now number ${place} of 7`))",
            arg=place,
        )
        assert page.evaluate("document.activeElement.className") == "cp-grip", "the focus stays with the card"
    page.keyboard.press("ArrowUp")
    assert keys_of(page).index(key) == 1
    page.locator(f"{card(key)} .cp-up").focus()
    page.keyboard.press("Enter")
    assert keys_of(page).index(key) == 0
    page.locator(".cp-play").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("() => /^[✓✗]/.test(document.querySelector('.cp-order .cp-said').textContent)")


def test_cards_can_be_dragged(forms):
    page = forms(1440)
    before = keys_of(page)
    page.locator(".cp-order").scroll_into_view_if_needed()
    grip = page.locator(f"{card(before[0])} .cp-grip").bounding_box()
    target = page.locator(card(before[3])).bounding_box()
    page.mouse.move(grip["x"] + 5, grip["y"] + 5)
    page.mouse.down()
    page.mouse.move(grip["x"] + 5, target["y"] + target["height"] / 2, steps=8)
    page.mouse.up()
    assert keys_of(page) == [*before[1:4], before[0], *before[4:]]


def test_without_a_script_the_order_tells_what_to_do(plain):
    assert ".check(" in plain.inner_text(".cp-order .cp-nojs")
    assert plain.locator(".cp-order .cp-steps code").count() == len(SOLUTION)
    plain.click(".cp-order > details:last-of-type > summary")
    assert plain.locator(".cp-order > details:last-of-type li").count() == len(SOLUTION)


# --- explorers ----------------------------------------------------------------------------------------


def frame(page) -> str:
    frames = page.locator("#cp-mask .cp-frame:visible")
    assert frames.count() == 1
    return frames.locator("figcaption").text_content()  # far off the screen it has no rendered text


def test_every_setting_shows_its_frame_without_a_script(plain):
    assert "1 queries after 2 cached" in frame(plain), "the start that was asked for"
    for i, j in EXPLORER.settings():
        plain.locator(f"label[for=cp-mask-0-{i}]").click(force=True)
        plain.locator(f"label[for=cp-mask-1-{j}]").click(force=True)
        assert EXPLORER.at((i, j)).caption in frame(plain)


def test_an_explorer_is_moved_by_keys_and_by_touch(forms):
    page = forms()
    page.locator("#cp-mask-0-1").focus()
    page.keyboard.press("ArrowRight")
    assert "1 queries after 4 cached" in frame(page)
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert "3 queries after 4 cached" in frame(page)
    phone = forms(touch=True)
    phone.locator("label[for=cp-mask-0-0]").tap(force=True)
    assert "1 queries after 0 cached" in frame(phone)


def test_a_saved_slider_turns_the_frames_with_no_kernel(forms):
    page = forms(1440)
    handle = page.locator(".noUi-handle, .ui-slider-handle").first
    handle.wait_for(timeout=60_000)
    captions = page.locator(".jupyter-widgets figcaption:visible")
    assert SLIDER.at((0,)).caption in captions.text_content()
    handle.focus()
    for place in (1, 2, 3):
        page.keyboard.press("ArrowRight")
        page.wait_for_function(
            """caption => [...document.querySelectorAll('.jupyter-widgets figcaption')].some(
                   c => c.offsetParent && c.textContent.includes(caption))""",
            arg=SLIDER.at((place,)).caption,
        )
    page.wait_for_function(
        "() => document.querySelector('.noUi-handle').getAttribute('aria-label') === 'tokens cached'"
    )


# --- all of them --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1440, "light")])
def test_forms_are_accessible_and_fit_with_everything_open(forms, width, scheme):
    page = forms(width, scheme, served=True)
    page.wait_for_selector(".noUi-handle", timeout=60_000)
    page.wait_for_function("() => document.querySelector('.noUi-handle').getAttribute('aria-label')")
    for key in ("a", "c"):
        page.check(f"#cp-{QUESTION.id}-{key}")
    page.check(f"#cp-{GUESS.id}-close")
    page.click(".cp-play")
    page.wait_for_selector(".cp-broken")
    assert findings(page) == []
    assert page.evaluate(OVERFLOW) == ""


def test_what_is_touched_is_large_enough(forms):
    page = forms(touch=True)
    small = page.evaluate(
        """() => [...document.querySelectorAll('.cp-opt > label, .cp-pill, .cp-order button, .cp-el summary')]
            .filter(e => e.offsetParent)
            .map(e => [e.className || e.tagName, e.getBoundingClientRect()])
            .filter(([name, box]) => box.height < 43.5 || box.width < (name === 'cp-grip' ? 31.5 : 43.5))
            .map(([name, box]) => `${name} ${box.width} x ${box.height}`)"""
    )
    assert small == []


def test_focus_is_seen(forms):
    page = forms()
    for selector in (
        f"#cp-{QUESTION.id} input",
        ".cp-order .cp-up",
        ".cp-order .cp-play",
        ".cp-exercise summary",
    ):
        page.locator(selector).first.focus()
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Tab")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        width = page.evaluate("parseFloat(getComputedStyle(document.activeElement).outlineWidth)")
        assert outline != "none" and width >= 2, selector


def test_each_hint_is_inside_the_one_before(forms):
    page = forms()
    box = page.locator(".cp-exercise")
    for n in (1, 2, 3):
        assert box.get_by_text(f"Hint {n} of 3").is_visible()
        box.get_by_text(f"Hint {n} of 3").click()
        if n < 3:
            assert box.get_by_text(f"Hint {n + 1} of 3").is_visible()
    assert not visible(page, ".cp-exercise > details:last-of-type pre")


# --- the forms of the chapters themselves -------------------------------------------------------------

CHAPTERS = [name for name in pages() if name.startswith("notebooks/")]
CHOICES = """box => {  // every answer of a question, by its label: how many replies are seen then?
  const seen = [];
  for (const label of box.querySelectorAll('.cp-opt > label')) {
    label.click();
    const replies = [...box.querySelectorAll('.cp-why')];
    seen.push(replies.filter(reply => reply.offsetParent && reply.textContent).length);
  }
  return seen;
}"""
EXPLORERS = """box => {  // every setting of an explorer: how many frames are seen then?
  const groups = [...box.querySelectorAll('fieldset')].map(set => [...set.querySelectorAll('input')]);
  const seen = [];
  const walk = (depth) => {
    if (depth === groups.length) {
      seen.push([...box.querySelectorAll('.cp-frame')].filter(frame => frame.offsetParent && frame.querySelector('svg')).length);
      return;
    }
    for (const input of groups[depth]) { input.click(); walk(depth + 1); }
  };
  walk(0);
  return seen;
}"""
ORDERS = """box => {  // an order that the table of states allows, put in place
  const { states } = JSON.parse(box.querySelector('.cp-states').textContent);
  const list = box.querySelector('.cp-steps');
  const total = list.children.length;
  const find = (name, keys) => {
    if (keys.length === total) return keys;
    for (const [key, next] of Object.entries(states[name].next)) {
      const rest = typeof next === 'string' && find(next, [...keys, key]);
      if (rest) return rest;
    }
    return null;
  };
  const order = find('', []);
  order.forEach(key => list.append(list.querySelector(`li[data-key="${key}"]`)));
  return order.length === total;
}"""


@pytest.mark.parametrize("name", few_of(CHAPTERS, CHAPTERS[::3]))
def test_every_form_of_a_chapter_answers(site_url: str, new_page: Callable, name: str) -> None:
    page = new_page(390, touch=True)
    assert open_page(page, f"{site_url}/{name}.html") == []
    ids = page.eval_on_selector_all("[id]", "nodes => nodes.map(node => node.id)")
    assert len(set(ids)) == len(ids), [one for one in set(ids) if ids.count(one) > 1]
    for box in page.query_selector_all(".cp-choice, .cp-predict"):
        assert set(box.evaluate(CHOICES)) == {1}, box.get_attribute("id")
    for box in page.query_selector_all(".cp-explorer"):
        assert set(box.evaluate(EXPLORERS)) == {1}, box.get_attribute("id")
    for box in page.query_selector_all(".cp-order"):
        box.query_selector(".cp-play").tap()  # cards are dealt in an order that breaks off
        page.wait_for_function("box => box.querySelector('.cp-said').textContent.includes('✗')", arg=box)
        assert box.evaluate(ORDERS)
        box.query_selector(".cp-play").tap()
        page.wait_for_function("box => box.querySelector('.cp-said').textContent.startsWith('✓')", arg=box)
    guesses = page.eval_on_selector_all(".cp-predict", "boxes => boxes.map(box => box.dataset.id)")
    recalled = page.eval_on_selector_all(".cp-recall", "boxes => boxes.map(box => box.dataset.recall)")
    assert sorted(guesses) == sorted(recalled), "each prediction is shown again, once"
    page.reload()
    soon(page.locator(".cp-predict input:checked")).to_have_count(len(guesses))  # they survive a reload
    soon(page.locator(".cp-recall li.cp-yours")).to_have_count(len(guesses))
    assert page.problems == []
    page.context.close()


def test_chapters_have_what_their_readers_need(site_url: str, new_page: Callable) -> None:
    page, lacking = new_page(390), []
    for name in CHAPTERS:
        if name.endswith(("_practice", "_cases", "_further")):  # what a chapter leaves to a page of its own
            continue
        open_page(page, f"{site_url}/{name}.html")
        for kind in ("predict", "recall", "choice", "explorer", "evidence"):
            if not page.locator(f".cp-{kind}").count():
                lacking.append(f"{name}: no {kind}")
    page.context.close()
    assert lacking == []
