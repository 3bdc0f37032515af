"""Python in the page: programs are checked as a notebook checks them, and nothing that is typed gets out."""

from __future__ import annotations

import json
import math
import re
import sys
import threading
from contextlib import AbstractContextManager
from functools import cache

import pytest

import chunkprefill as cp
import chunkprefill_course as course
from chunkprefill_course.clinic.make import again
from chunkprefill_course.forms.exercise import Exercise
from chunkprefill_course.live import advice, clinic, explorers, lab, programs
from chunkprefill_course.live.answer import answer
from chunkprefill_course.live.programs import check
from tests.book.conftest import comes_and_goes, soon
from tests.needs import ROOT
from tools.serve import Handler, server

sys.path.insert(0, str(ROOT / "tools"))
import slices

from tests.proof import draws, few_of

EXERCISES = {
    name: form
    for name in course.exercises.__all__
    if isinstance(form := getattr(course.exercises, name), Exercise)
}


PLAN = course.exercises.first_iterations
CASE = {"seed": 9, "name": "A"}


@cache
def case():
    return course.clinic.case(CASE["seed"])


@cache
def drawn_live() -> dict:
    """The explorers that a page can draw, but the clinic's, whose case takes seconds to find."""
    return {id: explorers.made(program) for id, program in slices.live().items() if id != "clinic-chunk"}


# A page gives a program ten seconds by the clock. On a busy machine that is too little for a right one, and a test
# of an endless one need not wait so long: tests say what the ten are worth, and leave short waits as they are.
WOUND = """{
  window.tenSeconds = 600_000;
  const wait = window.setTimeout;
  window.setTimeout = (done, ms = 0, ...more) =>
    wait(done, ms === 10_000 ? window.tenSeconds : ms > 5_000 ? 60 * ms : ms, ...more);
}"""


@pytest.fixture(scope="module")
def live_page(browser, tmp_path_factory):
    """A page with every code exercise, at a phone's width, and `run(name, source)` on it."""
    folder = tmp_path_factory.mktemp("live")
    (folder / "_static").symlink_to(ROOT / "book/_static")
    forms = [*EXERCISES.values(), PLAN, *drawn_live().values(), course.clinic.form(case(), CASE["name"])]
    body = "".join(form._repr_html_() for form in forms)
    head = "".join(f'<link rel="stylesheet" href="_static/{name}.css">' for name in ("elements", "live"))
    (folder / "index.html").write_text(
        '<!doctype html><html lang="en" data-theme="light"><meta charset="utf-8"><title>live</title>'
        f'<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">{head}'
        f'<script defer src="_static/live.js"></script><body>{body}'
    )
    import tools.live as live

    live.main([])
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
    page = context.new_page()
    page.add_init_script(WOUND)
    page.asked = []  # what reached the server: a request that the browser refuses does not
    with server(folder) as httpd, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Handler, "log_message", lambda handler, *_: page.asked.append(handler.path))
        threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        page.address = f"http://127.0.0.1:{httpd.server_port}"
        page.goto(f"{page.address}/index.html")
        yield page
        httpd.shutdown()
    context.close()


def answered(page, id: str) -> AbstractContextManager[None]:
    """Within, ask; then wait until Python has answered in the box of this id."""
    return comes_and_goes(page, f"#{id}", "aria-busy")


def run(page, name: str, source: str) -> tuple[str, str]:
    """Type a program, press Run; the verdict and what was answered."""
    id = getattr(course.exercises, name).id
    box = page.locator(f"#cp-{id}")
    box.locator(".cp-editor :is(textarea, .cm-content)").first.click()
    page.wait_for_selector(f"#cp-{id} .cm-content")
    page.keyboard.press("Control+a")
    page.keyboard.press("Delete")
    page.keyboard.insert_text(source)
    with answered(page, f"cp-{id}"):
        box.locator(".cp-run").click()
    return box.locator(".cp-said").inner_text(), box.locator(".cp-out").inner_text()


def solved(name: str) -> str:
    return EXERCISES[name].source(EXERCISES[name].solution)


def words(text: str) -> str:
    return " ".join(text.split())


def test_nothing_is_fetched_before_the_first_run(live_page):
    assert not [url for url in live_page.asked if "pyodide" in url or "packages.zip" in url]


@pytest.mark.parametrize("name", EXERCISES)
def test_the_solution_is_right_in_the_page_too(live_page, name):
    form = EXERCISES[name]
    source = form.source(form.solution)
    verdict, said = run(live_page, name, source)
    assert verdict == "✓ Right.", said
    links = live_page.locator(f"#cp-{form.id} .cp-to-lab").count()
    assert links == ("    def schedule(" in source), "a policy can be seen at work in the laboratory"


@pytest.mark.parametrize("name", draws(list(EXERCISES)[::3], list(EXERCISES)))
def test_wrong_programs_get_the_same_hint_as_in_a_notebook(live_page, name):
    form = EXERCISES[name]
    wrong = form.wrong[0]
    verdict, said = run(live_page, name, form.source(wrong.program))
    assert verdict == "✗ Not yet."
    here = check(form.id, form.source(wrong.program))
    first = words(here["text"]).partition(" Here ")[0]
    assert first in words(said), (first, said)


def test_an_exception_shows_the_readers_line(live_page):
    _, said = run(live_page, "who_emits", "x = 1\nraise ValueError('no')\n")
    assert "Line 2 raises ValueError: no" in words(said)


def test_a_mistake_in_grammar_shows_its_line(live_page):
    _, said = run(live_page, "who_emits", "x = 1\ndef who_emits(:\n    pass\n")
    assert "Line 2 raises SyntaxError" in words(said)


def test_a_print_appears(live_page):
    _, said = run(live_page, "who_emits", "print('hello from here')\n")
    assert "hello from here" in said and "defines no" in said


def test_an_endless_loop_is_stopped_and_the_next_run_works(live_page):
    live_page.evaluate("() => (window.tenSeconds = 1_000)")
    verdict, said = run(live_page, "who_emits", "while True:\n    pass\n")
    live_page.evaluate("() => (window.tenSeconds = 600_000)")
    assert verdict == "✗ Stopped." and "does a loop never end" in said
    form = EXERCISES["who_emits"]
    assert run(live_page, "who_emits", form.source(form.solution))[0] == "✓ Right."


def test_an_interpreter_that_breaks_down_says_so_and_the_next_run_works(live_page):
    """Brackets in brackets use up the stack of the interpreter itself, which can only be started anew."""
    verdict, said = run(live_page, "kv_bytes", "(" * 20_000 + ")" * 20_000)
    assert verdict == "✗ Not run." and "Python ran out of stack" in said
    assert run(live_page, "kv_bytes", solved("kv_bytes"))[0] == "✓ Right."


def test_two_questions_at_once_are_answered_one_after_the_other(live_page):
    """The second one's time begins when it is asked: it is not stopped for the loop of the first."""
    form = EXERCISES["who_emits"]
    first, second = live_page.evaluate(
        """async ([id, right]) => {
        const asked = (source, limit) => courseLive.ask({ask: "check", id, source}, () => {}, limit);
        const both = await Promise.allSettled([asked("while True:\\n    pass\\n", 1), asked(right, 10)]);
        return both.map((one) => one.reason?.message ?? one.value.ok);
        }""",
        [form.id, form.source(form.solution)],
    )
    assert first == "late" and second is True


def test_a_question_can_be_stopped_alone(live_page):
    form = EXERCISES["who_emits"]
    first, second = live_page.evaluate(
        """async ([id, right]) => {
        const halted = new AbortController(), asked = (source, signal) => courseLive.ask({ask: "check", id, source}, () => {}, 60, signal);
        const both = Promise.allSettled([asked("while True:\\n    pass\\n", halted.signal), asked(right, null)]);
        setTimeout(() => halted.abort(), 300);
        return (await both).map((one) => one.reason?.message ?? one.value.ok);
        }""",
        [form.id, form.source(form.solution)],
    )
    assert first == "stopped" and second is True


OUTWARD = {
    "fetch": "import js\ntry:\n    js.fetch('{address}/leak')\nexcept BaseException as e:\n    print(e)",
    "import": "from pyodide.code import run_js\ntry:\n    run_js('import(\"{address}/leak.js\")')\nexcept BaseException as e:\n    print(e)",
    "xhr": "import js\ntry:\n    x = js.XMLHttpRequest.new()\n    x.open('GET', '{address}/leak', False)\n    x.send()\n"
    "except BaseException as e:\n    print(e)",
    "socket": "import js\ntry:\n    js.WebSocket.new('{socket}/leak')\nexcept BaseException as e:\n    print(e)",
    "urllib": "import urllib.request\ntry:\n    urllib.request.urlopen('{address}/leak')\nexcept BaseException as e:\n    print(e)",
}


@pytest.mark.parametrize("way", OUTWARD)
def test_nothing_typed_reaches_the_network(live_page, way):
    address = live_page.address
    run(live_page, "who_emits", OUTWARD[way].format(address=address, socket=address.replace("http", "ws")))
    live_page.wait_for_timeout(200)
    assert not [url for url in live_page.asked if "leak" in url]


def test_nothing_typed_reaches_the_page(live_page):
    source = (
        "import js, json\nprint(hasattr(js, 'document'), hasattr(js, 'localStorage'))\n"
        "from pyodide.ffi import to_js\n"
        'evil = \'<img src=x onerror="window.caught=1"><svg onload="window.caught=1"><a href="javascript:1">x</a></svg>\'\n'
        "import chunkprefill_course.forms.feedback as f\nf.Feedback._repr_html_ = lambda self: evil\n"
        "def who_emits(*a): return 1\n"
    )
    _, said = run(live_page, "who_emits", source)
    assert "False False" in said
    box = live_page.locator(f"#cp-{EXERCISES['who_emits'].id} .cp-out")
    assert live_page.evaluate("() => window.caught") is None
    assert box.locator("img, a, script, [onload], [onerror]").count() == 0
    live_page.reload()  # a Python that shows no feedback is no good to the next test


def test_what_is_typed_is_there_after_a_reload(live_page):
    run(live_page, "kv_bytes", "# kept across a reload\n")
    live_page.reload()
    typed = live_page.locator(f"#cp-{EXERCISES['kv_bytes'].id} .cp-editor textarea")
    soon(typed).to_have_value(re.compile(r"^\s*# kept across a reload\s*$"))
    live_page.locator(f"#cp-{EXERCISES['kv_bytes'].id} .cp-reset").click()
    text = live_page.locator(f"#cp-{EXERCISES['kv_bytes'].id} .cp-editor textarea").input_value()
    assert "def kv_bytes" in text


def test_from_a_folder_one_sentence_says_why(browser, tmp_path):
    (tmp_path / "_static").symlink_to(ROOT / "book/_static")
    body = EXERCISES["who_emits"]._repr_html_()
    (tmp_path / "index.html").write_text(
        f'<meta charset="utf-8">{body}<script src="_static/live.js"></script>'
    )
    page = browser.new_context().new_page()
    page.goto((tmp_path / "index.html").as_uri())
    page.locator(".cp-run").click()
    page.locator(".cp-stopped").wait_for()
    assert "from a server" in page.locator(".cp-stopped").inner_text()


def missing(page, path: str, status: int | None) -> None:
    """From now on this file is answered with `status`, or not at all."""
    page.route(f"**/{path}", lambda route: route.fulfill(status=status) if status else route.abort())


@pytest.mark.parametrize("status", [404, None], ids=["not found", "no connection"])
@pytest.mark.parametrize("path", ["live/sizes.json", "live/packages.zip", "live-worker.js"])
def test_python_that_cannot_be_fetched_says_so_and_comes_with_the_next_run(browser, live_page, path, status):
    page = browser.new_context(viewport={"width": 390, "height": 844}).new_page()
    page.add_init_script(WOUND)
    missing(page, path, status)
    page.goto(f"{live_page.address}/index.html")
    id = EXERCISES["kv_bytes"].id
    page.locator(f"#cp-{id} .cp-run").click()
    said = page.locator(f"#cp-{id} .cp-stopped")
    said.wait_for()
    assert said.inner_text().startswith("Python could not be fetched (")
    assert f"{path}: {status or ''}" in said.inner_text()
    page.unroute(f"**/{path}")
    with answered(page, f"cp-{id}"):
        page.locator(f"#cp-{id} .cp-run").click()
    assert "✗ Not run." not in page.locator(f"#cp-{id} .cp-said").inner_text()
    page.context.close()


def test_python_that_has_come_goes_on_without_a_connection(live_page):
    run(live_page, "kv_bytes", solved("kv_bytes"))
    live_page.context.set_offline(True)
    try:
        for name in ("kv_bytes", "who_emits"):
            assert run(live_page, name, solved(name))[0] == "✓ Right."
    finally:
        live_page.context.set_offline(False)


@pytest.mark.parametrize("status", [404, None], ids=["not found", "no connection"])
def test_a_laboratory_without_its_forms_says_which_file_is_missing(new_page, site_url, status):
    page = new_page(390)
    missing(page, "live/lab.json", status)
    page.goto(f"{site_url}/book/lab.html")
    for id in ("cp-lab", "cp-advice"):
        said = page.locator(f"#{id} [role=alert]")
        said.wait_for()
        assert "could not fetch live/lab.json" in said.inner_text() and "folder" not in said.inner_text()


def test_the_keyboard_gets_in_and_out(live_page):
    live_page.goto(f"{live_page.address}/index.html")
    box = live_page.locator(f"#cp-{EXERCISES['kv_bytes'].id}")
    box.locator(".cp-editor textarea").focus()
    live_page.wait_for_selector(f"#cp-{EXERCISES['kv_bytes'].id} .cm-content")
    live_page.keyboard.press("Escape")
    live_page.keyboard.press("Tab")
    assert live_page.evaluate("() => document.activeElement.className").startswith("cp-run")


def test_a_line_that_wraps_goes_on_under_its_indentation(live_page):
    """On a phone most lines of a policy wrap, and went on at the left edge, where no Python begins."""
    run(live_page, "kv_bytes", "def kv_bytes(*shape):\n    return " + " + ".join(["len(shape)"] * 9))
    code, rows = (
        live_page.locator(f"#cp-{EXERCISES['kv_bytes'].id} .cm-line")
        .nth(1)
        .evaluate(
            """line => {
          const texts = document.createTreeWalker(line, NodeFilter.SHOW_TEXT), lefts = new Map();
          const letters = document.createRange();
          let code = null;
          for (let text = texts.nextNode(); text; text = texts.nextNode()) for (let i = 0; i < text.length; i++) {
            if (!text.data[i].trim()) continue;
            letters.setStart(text, i);
            letters.setEnd(text, i + 1);
            const { left, top } = letters.getBoundingClientRect();
            code ??= left;
            const row = Math.round(top);
            lefts.set(row, Math.min(lefts.get(row) ?? left, left));
          }
          return [code, [...lefts.values()].slice(1)];
        }"""
        )
    )
    assert len(rows) > 2 and all(left > code for left in rows), (code, rows)


# --- a plan, explorers, the clinic -------------------------------------------------------------------


def plan_of(rows) -> str:
    return f"plan = {[dict(row) for row in rows]!r}\n"


def test_a_plan_is_played_in_the_page(live_page):
    verdict, said = run(live_page, "first_iterations", plan_of(PLAN.solution))
    assert verdict == "✓ Right." and words(str(PLAN.check(list(PLAN.solution)))) in words(said)


@pytest.mark.parametrize("n", range(len(PLAN.wrong)), ids=[wrong.rule for wrong in PLAN.wrong])
def test_a_wrong_plan_gets_the_notebooks_words(live_page, n):
    verdict, said = run(live_page, "first_iterations", plan_of(PLAN.wrong[n].rows))
    assert verdict == "✗ Not yet." and words(str(PLAN.check(list(PLAN.wrong[n].rows)))) in words(said)


def test_a_plan_not_yet_begun_is_told_what_a_plan_is(live_page):
    assert run(live_page, "first_iterations", "x = 1\n")[0] == "○ Not attempted."
    assert "So far it works. 1 of 4" in words(run(live_page, "first_iterations", PLAN.starter)[1])


def typed(page, id: str, number) -> str:
    """A number typed into the last field of an explorer, drawn; what a screen reader is told."""
    box = page.locator(f"#cp-{id}")
    box.locator(".cp-any input").last.fill(str(number))
    with answered(page, f"cp-{id}"):
        box.locator(".cp-any input").last.press("Enter")
    said, voice = box.locator(".cp-said").inner_text(), box.locator(".cp-any .cp-voice").text_content()
    return words(voice) if said == "Drawn." else said


def test_an_explorer_takes_a_value_that_was_not_recorded(live_page):
    id, explorer = "who-waits", drawn_live()["who-waits"]
    box = live_page.locator(f"#cp-{id}")
    label = "tokens an iteration"
    assert 777 not in explorer.parameters[label]
    name = list(explorer.parameters["scheduler"])[explorer.start[0]]
    assert typed(live_page, id, 777) == words(explorer.frame(name, 777).alt)
    assert box.locator(".cp-live-mark").is_visible() and not box.locator(".cp-frames").is_visible()
    assert box.locator(".cp-out svg").count() == 1
    box.locator(".cp-pill input").nth(1).check(force=True)  # back to what was recorded
    assert box.locator(".cp-frames").is_visible() and box.locator(".cp-out svg").count() == 0


@pytest.mark.parametrize("id", slices.live())
def test_every_live_explorer_draws_in_the_page(live_page, id):
    if id == "clinic-chunk":
        pytest.skip("its case takes seconds to find: `test_slices` draws it on the floor")
    explorer = drawn_live()[id]
    low, high, _ = list(slices.asked(explorer).values())[-1]
    assert len(typed(live_page, id, (low + high) // 2)) > 40


def test_a_value_out_of_range_is_refused_in_the_page(live_page):
    assert typed(live_page, "who-waits", 10**12) == "✗ Not run."
    said = live_page.locator("#cp-who-waits .cp-out").inner_text()
    assert "tokens an iteration: " in said and "128 to 2,048" in said


def test_a_case_is_drawn_again_without_looking_for_it():
    found = case()
    assert again(found.seed, found.attempt).text() == found.text()
    assert course.clinic.form(found, "A")._live().count("data-seed") == 1
    with pytest.raises(ValueError, match="no case at attempt"):
        [again(9, attempt) for attempt in range(40)]


def diagnosed(page, cause: str, rows: list[str], fix: str, own: dict | None = None) -> tuple[str, str]:
    """Fill in the clinic's form and press Check; the verdict and what was answered."""
    box = page.locator("#cp-clinic-a")
    if box.locator("select").count() == 0:
        box.locator(".cp-run").click()
        box.locator("select").first.wait_for(timeout=120_000)
    box.locator("select").first.select_option(cause)
    box.locator("details").evaluate("fold => (fold.open = true)")
    for tick in box.locator("input[type=checkbox]").all():
        tick.set_checked(tick.get_attribute("value") in rows)
    box.locator(":scope > label select").nth(1).select_option(fix)
    for name, value in (own or {}).items():
        field = box.locator(".cp-fields label", has_text=name.replace("_", " ")).locator("input, select")
        field.select_option(value) if field.evaluate("f => f.localName") == "select" else field.fill(
            str(value)
        )
    with answered(page, "cp-clinic-a"):
        box.get_by_role("button", name="Check").click()
    return box.locator(".cp-said").inner_text(), words(box.locator(".cp-out").inner_text())


def test_a_diagnosis_gets_the_notebooks_words(live_page):
    found = case()
    rows, fix = [found.tells()[0]], found.right_fix
    verdict, said = diagnosed(live_page, found.cause, rows, fix)
    assert verdict == "✓ Right." and said == words(str(found.check(found.cause, rows, fix)))
    for cause in found.FAULTS:
        if cause != found.cause:
            verdict, said = diagnosed(live_page, cause, rows, fix)
            assert verdict == "✗ Not yet." and said == words(str(found.check(cause, rows, fix)))


def test_settings_of_ones_own_are_replayed(live_page):
    found = case()
    changes = {"token_budget": 3 * found.settings.token_budget, "order": "shortest"}
    changes = {name: value for name, value in changes.items() if value != getattr(found.settings, name)}
    _, said = diagnosed(live_page, found.cause, [found.tells()[0]], "own", changes)
    assert said == words(str(found.check(found.cause, [found.tells()[0]], changes)))
    box = live_page.locator("#cp-clinic-a")
    with answered(live_page, "cp-clinic-a"):
        box.get_by_role("button", name="Replay").click()
    table = clinic.replayed(found.seed, found.attempt, changes)["text"]
    assert box.locator(".cp-out table").count() == 1
    for row in table.splitlines()[-len(found.bounds) :]:
        assert words(row.split("  ")[0]) in words(box.locator(".cp-out").inner_text())


def test_every_fault_can_be_diagnosed_from_what_the_page_asks():
    """The page's questions, without a page: cause, rows and fix of the form are those that `check` knows."""
    spec = clinic.shown(case().seed, case().attempt)
    assert set(spec["causes"]) == set(case().FAULTS) and set(spec["fixes"]) == set(case().FIXES)
    assert set(case().tells()) <= set(spec["rows"]) and spec["settings"] == vars(case().settings)
    nothing = {"cause": "", "evidence": [], "fix": ""}
    assert clinic.checked(case().seed, case().attempt, nothing)["ok"] is None


# --- the laboratory ---------------------------------------------------------------------------------


@pytest.fixture
def lab_page(new_page, site_url):
    def opened(address=None, width=390, **kind):
        page = new_page(width, **kind)
        page.add_init_script(WOUND)
        page.goto(address or f"{site_url}/book/lab.html")
        page.wait_for_selector("#cp-lab.cp-live")
        return page

    return opened


def served(page) -> str:
    """Press Run; the picture's words."""
    with comes_and_goes(page, "#cp-lab .cp-run", "disabled"):
        page.locator("#cp-lab .cp-run").click()
    return page.locator(".cp-lab-run svg").first.get_attribute("aria-label")


def test_a_link_holds_the_whole_experiment(lab_page):
    page = lab_page(touch=True)
    page.locator("fieldset").nth(1).locator("select").first.select_option("Written by you")
    page.locator("fieldset").nth(2).locator("select").first.select_option("qwen3-8b")
    first = served(page)
    assert "chat 1" in first and page.locator(".cp-lab-run table").count() >= 1
    page.get_by_role("button", name="Copy link").click()
    page.wait_for_function("() => location.hash.length > 10")
    other = lab_page(page.url, 1440)
    assert "Someone else wrote" in other.locator("#cp-lab .cp-said").inner_text()
    assert other.locator(".cp-foreign").is_visible()
    assert other.locator("#cp-lab .cp-run").inner_text() == "Run someone else's code"
    assert not [url for url in other.requested if "pyodide" in url], "nothing runs before Run"
    assert served(other) == first
    assert not page.problems and not other.problems


def on_screen(locator) -> bool:
    return locator.evaluate(
        "node => { const { top, bottom } = node.getBoundingClientRect(); return top >= 0 && bottom <= innerHeight; }"
    )


def test_what_came_is_said_where_the_page_opens_and_leads_to_run(lab_page, site_url):
    """On a phone the form's end is screens below the top: who follows a link would see an introduction."""
    page = lab_page(touch=True)
    assert page.locator(".cp-came").count() == 0
    experiment = {"requests": "arrival,prompt,output\n0,5,5", "policy": {"code": "# theirs"}}
    address = f"{site_url}/book/lab.html{link_of(page, json.dumps(experiment))}"
    other = lab_page(address, touch=True)
    assert "Someone else wrote its policy" in other.locator(".cp-came").inner_text()
    assert on_screen(other.locator(".cp-came")) and not on_screen(other.locator("#cp-lab .cp-run"))
    other.get_by_role("button", name="Go to Run").tap()
    assert on_screen(other.locator("#cp-lab .cp-run")) and not other.problems


PASTE = """([place, megabytes]) => {
  const into = document.querySelector(place), data = new DataTransfer();
  data.setData("text/plain", "<script>window.caught = 1</script>\\n".repeat(megabytes * 30_000));
  into.focus();
  return into.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }));
}"""


@pytest.mark.parametrize("place", ["fieldset textarea", "#cp-lab-code .cm-content"])
def test_what_is_too_large_to_paste_is_refused_and_what_was_there_stays(lab_page, place):
    """18 MB of rows stopped the page for three seconds, and were gone after a reload without a word."""
    page = lab_page()
    page.locator("fieldset").nth(1).locator("select").first.select_option("Written by you")
    rewrite(page, "# mine")
    before = page.locator("fieldset textarea").first.input_value()
    assert not page.evaluate(PASTE, [f"#cp-lab {place}", 6]), "the browser does not put it in"
    assert re.fullmatch(r"What you pasted has 6\.\d MB; at most 4 MB can be read here\.", lab_said(page))
    assert page.locator("fieldset textarea").first.input_value() == before and policy_code(page) == "# mine"
    assert page.evaluate("() => window.caught") is None and not page.problems


def test_an_experiment_that_the_browser_cannot_keep_is_said(lab_page):
    page = lab_page()
    page.evaluate(
        "() => { for (let n = 1; n < 9; n++) try { sessionStorage.setItem(`full${n}`, 'x'.repeat(9e5)); } catch {} }"
    )
    page.locator("fieldset").first.locator("textarea").fill(
        "name, arrival, prompt, output\n" + "x" * 1_000_000
    )
    soon(page.locator("#cp-lab .cp-said")).to_have_text(re.compile("save it as JSON"))


def lab_said(page) -> str:
    return page.locator("#cp-lab .cp-said").inner_text()


def test_a_policy_of_an_exercise_is_in_the_laboratory_s_form(lab_page, new_page, site_url):
    page = new_page(390, touch=True)
    page.add_init_script(WOUND)
    page.goto(f"{site_url}/notebooks/03_practice.html")
    name, id = "write_shortest_first", "cp-write-shortest-first"
    run(page, name, solved(name))
    page.locator(f"#{id} .cp-to-lab").tap()
    page.locator(".cp-came").wait_for()
    assert on_screen(page.locator(".cp-came")) and "class ShortestFirst" in policy_code(page)
    assert "chat 1" in served(page) and not page.problems


def test_what_is_cleared_stays_cleared(lab_page):
    page = lab_page()
    page.locator("fieldset").first.locator("textarea").fill("name, arrival, prompt, output\nmine, 0, 7, 3")
    page.wait_for_function("() => sessionStorage.getItem('chunkprefill:lab')")
    with page.expect_navigation():
        page.locator(".cp-clear").click()
    page.wait_for_selector("#cp-lab.cp-live")
    assert "mine" not in page.locator("fieldset").first.locator("textarea").input_value()


def test_the_run_before_stays_beside(lab_page):
    page = lab_page()
    served(page)
    page.locator("fieldset").nth(1).locator("select").first.select_option("PrefillFirst")
    served(page)
    assert page.locator(".cp-lab-before svg").count() == 1


def test_a_wrong_row_is_named(lab_page):
    page = lab_page()
    page.locator("fieldset").first.locator("textarea").fill("name, arrival, prompt, output\na, 0, many, 3")
    page.locator("#cp-lab .cp-run").click()
    page.locator(".cp-stopped").wait_for(timeout=120_000)
    assert "row 2: prompt tokens 'many' is no whole number" in page.locator(".cp-stopped").inner_text()
    page.locator("fieldset").first.locator("textarea").fill("name, arrival, prompt, output\na, 0, 9, 3")
    served(page)
    assert page.locator(".cp-lab-run h3").inner_text() == "Run 1", "what was refused was no run"


ROWS = {
    "": "no requests",
    "|---|": "no requests",
    "name,arrival,prompt,output\na,0,5,3\na,0,5,3": "row 3: 'a' is there already",
    "foo,bar\n1,2": "row 1: no known column among foo, bar",
    "name,arrival,prompt,output\na,soon,5,3": "row 2: arrival 'soon' is neither",
    "name,arrival,prompt,output\na,0,0,3": "row 2: prompt tokens 0; 1 to",
    '{"requests": [{"arrival": 0, "n_prompt": 5}]}': "row 1: no output tokens",
    "[1, 2]": "row 1: '1' is no object",
    "name,arrival,prompt,output\n" + "\n".join(f"r{i},0,5,3" for i in range(2001)): "2,001 requests",
}


@pytest.mark.parametrize("text", ROWS, ids=lambda text: text[:20])
def test_what_cannot_be_read_names_row_and_rule(text):
    assert ROWS[text] in lab.run({"requests": text})["wrong"]


def test_traces_that_people_have_are_read():
    azure = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.680590,374,44\n2023-11-16 18:15:47.180590,396,9"
    mooncake = '{"timestamp": 0, "input_length": 67, "output_length": 50}\n{"timestamp": 500, "input_length": 5, "output_length": 5}'
    recorded = '{"requests": [{"arrival": 3.0, "n_prompt": 67, "n_output": 5}, {"arrival": 3.5, "n_prompt": 7, "n_output": 5}]}'
    bailian = mooncake.replace("500,", "0.5,").replace(
        '{"t', '{"chat_id": 7, "t'
    )  # seconds, under the same keys
    columns = 'timestamp,input_length,output_length,hash_ids\n0,67,50,"[1, 2]"\n500,5,5,[3]'
    for text in (azure, mooncake, columns, bailian, recorded):
        requests, _ = lab.read_requests(text)
        assert [request.arrival for request in requests] == pytest.approx([0.0, 0.5])


TABLE = "name,arrival,prompt,output\na,1.5,1000,5\nb,3.25,20,6"
SAME = {
    "a byte-order mark": "\ufeff" + TABLE,
    "semicolons and decimal commas": TABLE.replace(",", ";").replace(".", ","),
    "a spreadsheet's cells": TABLE.replace(",", "\t").replace("\n", "\r\n"),
    "cells with decimal commas": TABLE.replace(",", "\t").replace(".", ","),
    "old line ends": TABLE.replace("\n", "\r"),
    "a spreadsheet's first line": "sep=;\n" + TABLE.replace(",", ";"),
    "blanks": TABLE.replace(",", "   "),
    "Markdown": "| name | arrival | prompt | output |\n|---|--:|---|---|\n| a | 1.5 | 1000 | 5 |\n| b | 3.25 | 20 | 6 |",
    "quotation marks": TABLE.replace("a,1.5,1000,5", '"a","1.5","1,000","5"'),
    "grouped thousands": TABLE.replace(",", ";").replace("1000", "1 000"),
    "fractions that are none": TABLE.replace("1000", "1000.0").replace(",20,", ",2e1,"),
    "names in words": TABLE.replace(
        "name,arrival,prompt,output", "Request ID,Arrival Time (s),Prompt Tokens,Output tokens"
    ),
    "vLLM's names": TABLE.replace(
        "name,arrival,prompt,output", "request_id,arrival_time,prompt_len,output_len"
    ),
    "Vidur's names": TABLE.replace(
        "name,arrival,prompt,output", "id,arrived_at,num_prefill_tokens,num_decode_tokens"
    ),
    "OpenAI's names": TABLE.replace("name,arrival,prompt,output", "id,sent,prompt_tokens,completion_tokens"),
    "milliseconds": "name,arrival (ms),prompt,output\na,1500,1000,5\nb,3250,20,6",
    "before zero": "name,arrival,prompt,output\na,-3,1000,5\nb,-1.25,20,6",
    "dates in a zone": "name,time,isl,osl\na,2024-05-10T01:00:00.5+01:00,1000,5\nb,2024-05-10 00:00:02.25Z,20,6",
    "JSON lines": '\ufeff{"name": "a", "arrival": 1.5, "prompt": 1000, "output": 5}\n\n{"name": "b", "arrival": "3.25", "prompt": 20, "output": 6}',
    "empty cells at the end": TABLE.replace("1000,5", "1000,5,,"),
    "empty rows of a spreadsheet": TABLE.replace(",", ";").replace("\n", "\n;;;\n") + "\n; ;;;\n",
    "Markdown without edges": "name | arrival | prompt | output\n---|--:|---|---\na | 1.5 | 1000 | 5\nb | 3.25 | 20 | 6",
    "units in cells": TABLE.replace("1.5,1000,5", "1500 ms,1000 tokens,5 tok").replace("3.25", "3.25 s"),
    "thousands apart by blanks that do not break": TABLE.replace("1000", "1\u202f000"),
    "texts beside their lengths": json.dumps(
        [
            {"name": "a", "prompt": "2 words", "arrival": 1.5, "prompt_tokens": 1000, "output_tokens": 5},
            {
                "name": "b",
                "arrival": 3.25,
                "arrival_ms": 3250,
                "prompt_tokens": 20,
                "output": [1] * 6,
                "osl": 6,
            },
        ]
    ),
    "a benchmark of vLLM": json.dumps(
        {
            "backend": "vllm",
            "num_prompts": 2,
            "name": ["a", "b"],
            "input_lens": [1000, 20],
            "output_lens": [5, 6],
            "start_times": [8121.5, 8123.25],
            "ttfts": [0.5, 0.25],
            "errors": ["", ""],
        }
    ),
    "columns of a data frame": '{"rid": ["a", "b"], "arrival": [0, 1.75], "n_prompt": [1000, 20], "n_output": [5, 6]}',
    "seconds by name beside a trace's keys": "name,timestamp_s,input_length,output_length\na,1.5,1000,5\nb,3.25,20,6",
}


@pytest.mark.parametrize("name", SAME)
def test_what_people_paste_is_read_as_it_is_meant(name):
    requests, kinds = lab.read_requests(SAME[name])
    assert [(r.rid, r.arrival, r.n_prompt, r.n_output) for r in requests] == [
        ("a", 0.0, 1000, 5),
        ("b", 1.75, 20, 6),
    ]
    assert kinds == {"a": "a", "b": "b"}


HEAD = "name,arrival,prompt,output\n"
TWO_WAYS = {
    HEAD + "a,0,5,10,5": "row 2: 5 cells under 4 columns; a decimal comma",
    "name;arrival;prompt;output\na;0;2.000;5": "row 2: prompt tokens 2.000 can be read in two ways",
    "name;arrival;prompt;output\na;1,500;20;5": "row 2: arrival 1,500 can be read in two ways; write 1.500 or 1500",
    "name,arrival,prompt,prompt_tokens,output\na,0,1,2,3": "row 1: the columns prompt and prompt_tokens both say",
    "name,time,arrival,prompt,output\na,0,1,2,3": "row 1: the columns time and arrival both say arrivals",
    HEAD + 'a,0,1,2\n\n# said\n"b,1,2,3': "row 5: this is no table that can be read: unexpected end",
    HEAD + "\n# said\na,0,x,2": "row 4: prompt tokens 'x' is no whole number",
    HEAD + "a,0,1.5,2": "row 2: prompt tokens '1.5' is no whole number",
    HEAD + "a,0,1k,2": "row 2: prompt tokens '1k' is no whole number",
    HEAD + "a,0,8.000 tokens,2": "row 2: prompt tokens 8.000 can be read in two ways",
    HEAD
    + "a,300 ms,1,2\nb,500,1,2": "row 3: arrival '500' is a number, and the first one is a number with its unit",
    HEAD + "a,5 m,1,2": "row 2: arrival '5 m' is neither seconds nor a date",
    "name,arrival_ms,prompt,output\na,5 s,1,2": "row 2: arrival '5 s' says another unit than its column",
    "timestamp,prompt,output\n1700000000000,1,2": "milliseconds stand under arrival_ms",
    "arrival,prompt,output\n2024-05-10 00:00:00Z,1,2\n2024-05-10 00:00:01,1,2": "a date without a zone, and the first",
    "arrival,prompt,output\n2024-05-10 00:00:00,1,2\n1,1,2": "row 3: arrival '1' is a number, and the first one is a date",
    '{"arrival": 0, "arrival": 1, "prompt": 1, "output": 2}': "row 1: no JSON: the key 'arrival' is there twice",
    '{"streams": [{"kind": "chat"}]}': "this probe holds no round with a document",
    # What is said, in place of how long it is.
    '{"arrival": 0, "prompt": ["Tell me a story"], "output": 5}': "row 1: prompt tokens ['Tell me a story'] are",
    '{"arrival": 0, "input": [{"role": "user", "content": "hi"}], "output": 5}': "no tokens but texts or messages",
    '{"arrival": 0, "prompt": [[1, 2], [3]], "output": 5}': "no tokens but texts or messages",
    '{"arrival": 0, "prompt": [true], "output": 5}': "no tokens but texts or messages",
    # Two keys for one thing.
    '{"timestamp": 0, "arrival": 5, "prompt": 1, "output": 2}': "timestamp 0 and arrival 5 both say arrivals",
    '{"arrival_ms": 5000, "arrival": 7, "prompt": 1, "output": 2}': "both say arrivals, and not the same",
    '{"arrival": 0, "prompt": [1, 2], "prompt_tokens": 30, "output": 2}': "prompt [1, 2] and prompt_tokens 30 both",
    # Columns apart.
    '{"input_lens": [1, 2], "output_lens": [1, 2], "ttfts": [0.1, 0.2]}': "without start_times: when its requests",
    '{"input_lens": [1, 2], "output_lens": [1], "start_times": [0, 1]}': "2 input_lens, 1 output_lens, 2 start_times",
    '{"input_lens": [1, 2], "output_lens": [1, 0], "start_times": [0, 0], "errors": ["", "timeout"]}': "row 2: this "
    "request failed (timeout)",
    # Seconds or milliseconds.
    "timestamp,input_length,output_length\n0,1,2": "row 1: timestamp beside input_length can be read in two ways",
    "timestamp,input_length,output_length,hash_ids\n0.5,1,2,[1]": "row 2: timestamp 0.5 is no whole number of milli",
    '{"timestamp": 0.5, "input_length": 1, "output_length": 2}': "call it timestamp_ms or timestamp_s",
    '{"timestamp": 1700000000, "input_length": 1, "output_length": 2}': "milliseconds, 20 days after the beginning",
    '{"timestamp": 0, "chat_id": 1, "input_length": 1, "output_length": 2}\n'
    '{"timestamp": 5, "input_length": 1, "output_length": 2}': "is a number of 0.001 s, and the first one is a number",
}


@pytest.mark.parametrize("text", TWO_WAYS, ids=lambda text: text[-24:])
def test_what_could_be_read_wrongly_is_refused_by_row(text):
    with pytest.raises(lab.LabError) as error:
        lab.read_requests(text)
    assert TWO_WAYS[text] in str(error.value)


def test_arrivals_are_decimal_where_one_of_them_must_be():
    requests, _ = lab.read_requests("arrival;prompt;output\n0,5;1;2\n1,500;1;2")
    assert [r.arrival for r in requests] == [0.0, 1.0]


def test_a_probes_file_is_its_last_round_as_it_was_answered():
    from tests.library.servers.test_judge import probe

    found = probe()
    requests, kinds = lab.read_requests(json.dumps(found.document()))
    streams = [s for s in found.streams if s.round == found.rounds[-1]]
    first = min(s.sent for s in streams)
    assert [(r.rid, r.n_prompt, r.n_output) for r in requests] == [
        (s.name, s.n_prompt, len(s.tokens)) for s in streams
    ]
    assert [r.arrival for r in requests] == pytest.approx([s.sent - first for s in streams])
    assert set(kinds.values()) == {"chat", "document", "late"}


def test_the_laboratory_measures_as_the_library_does():
    requests, kinds = lab.read_requests(lab.drawn(30, 20.0, 2, 3000, 5))
    trace = cp.simulate(requests, cp.ChunkedPrefill(256, order="shortest"))
    found = {kind: row for kind, *row in lab.measured_of(trace, kinds)["rows"]}
    assert max(row[-1] for row in found.values()) == pytest.approx(max(cp.largest_tbt(trace)))
    firsts = [request.first_token for request in cp.request_timelines(trace).values()]
    assert max(row[2] for row in found.values()) == pytest.approx(max(firsts))
    part = lab.only(trace, ["chat 1"])
    assert cp.request_timelines(part)["chat 1"] == cp.request_timelines(trace)["chat 1"]


@pytest.mark.parametrize(
    "name", [n for n in EXERCISES if n.startswith("write_") and "schedule" in EXERCISES[n].starter]
)
def test_a_policy_of_an_exercise_runs_as_it_is(name):
    form = EXERCISES[name]
    asked = {
        "requests": lab.SCENARIOS["A document among chats"],
        "policy": {"code": form.source(form.solution)},
    }
    assert "<svg" in lab.run(asked)["html"]


UNCLEAR = {
    "x = 1": "neither `policy` nor a class with a method",
    "class A:\n    schedule = print\nclass B(A): pass\n": "A and B: say which",
    "from dataclasses import dataclass\n@dataclass\nclass A:\n    depth: int\n    schedule = print\n": "A needs depth: make it",
}


@pytest.mark.parametrize("code", UNCLEAR, ids=lambda code: code[:12])
def test_code_that_names_no_policy_is_told_what_to_add(code):
    asked = {"requests": lab.SCENARIOS["A document among chats"], "policy": {"code": code}}
    assert UNCLEAR[code] in lab.run(asked)["wrong"]


def test_a_policy_that_breaks_the_contract_is_told_which_rule():
    code = "class Policy:\n    def schedule(self, state):\n        return cp.Plan({'ghost': 3})\n"
    said = lab.run({"requests": lab.SCENARIOS["A document among chats"], "policy": {"code": code}})["wrong"]
    assert "request ghost: 3 tokens planned" in said


# --- programs as they are typed ------------------------------------------------------------------------------

RIGHT = "def kv_bytes(n_layers, n_heads, n_kv_heads, head_dim, n_tokens, bytes_per_number):\n    return 2 * n_layers * n_kv_heads * head_dim * n_tokens * bytes_per_number\n"
TYPED = {
    "class E(Exception):\n    def __str__(self): return 1 / 0\nraise E()": "Line 3 raises E: (its message cannot be shown)",
    "class E(SyntaxError):\n    args = property(lambda self: 1 / 0)\nraise E()": "Line 3 raises E: (its message",
    "def f():\n    return f()\nf()": "Line 2 raises RecursionError",
    "x = input('how many? ')": "Line 1 raises EOFError: there is no keyboard to read from",
    "import sys\nsys.stdin.read()": "Line 2 raises EOFError",
    "import sys\nsys.stdout.close()\nprint('a')": "Not attempted",
    "import sys\nsys.stdout = None\nprint('a')": "Not attempted",
    "import builtins\nbuiltins.len = builtins.str = builtins.vars = builtins.setattr = None\nboom": "Line 3 raises NameError",
    "\ufeff" + RIGHT: "✓",
    RIGHT.replace("    ", "\t"): "✓",
    RIGHT.replace("    ", "\t") + "        x = 1\n": "Line 3 raises",
    "raise ValueError('\\ud800')": "Line 1 raises ValueError",
    "x = 1\ny = '\0'": "Line 2 raises SyntaxError",
    "x = 1\n\ny = '\ud800'": "Line 3 raises UnicodeEncodeError",
    "import js": "Line 1 raises ModuleNotFoundError",
    "raise SystemExit": "Line 1 raises SystemExit",
    "print('<b>', end='')\nraise KeyboardInterrupt": "Line 2 raises KeyboardInterrupt",
}


@pytest.mark.parametrize("source", TYPED, ids=lambda source: source[:24].encode("unicode_escape").decode())
def test_whatever_is_typed_is_answered_by_its_line(source):
    reply = json.loads(answer(json.dumps({"ask": "check", "id": "kv-bytes", "source": source})))
    assert TYPED[source] in reply["text"], reply
    assert "<b>" not in reply["html"]


SPOILERS = (
    "cp.advise = cp.Mix = None",
    "import builtins\nbuiltins.len = lambda x: 1\nbuiltins.isinstance = None",
    "import math\nmath.ceil = math.inf = None",
    "cp.Plan = cp.simulate = course.exercises = None",
    "import sys\nsys.setrecursionlimit(60)",
    "import sys\nsys.stdout.close()\nsys.stdin = sys.stdout = sys.stderr = None",
    "import chunkprefill.scheduling.core as core\ndel core.Request",
)


@pytest.mark.parametrize("spoiler", SPOILERS)
def test_no_program_spoils_the_next_one(spoiler):
    there = sys.stdout, sys.stdin, sys.getrecursionlimit()
    programs.check("kv-bytes", spoiler + "\n" + RIGHT)
    lab.run({"requests": "arrival,prompt,output\n0,5,5", "policy": {"code": spoiler}})
    assert (sys.stdout, sys.stdin, sys.getrecursionlimit()) == there
    assert all(getattr(cp, name) is not None for name in ("Plan", "simulate", "advise", "Mix"))
    assert programs.check("kv-bytes", RIGHT)["ok"] is True
    assert "numbers" in lab.run({"requests": "arrival,prompt,output\n0,5,5"})


def test_a_flood_of_prints_is_counted_and_not_kept():
    printed = programs.Printed()
    for _ in range(1000):
        printed.write("x" * 1000)
    assert len(printed.kept) == programs.PRINTED and str(printed).endswith("… 996000 characters more")


# --- a link, a file: input from outside ----------------------------------------------------------------


def link_of(page, text: str, raw: bool = False) -> str:
    """The fragment that holds this text, as the page itself packs it."""
    return page.evaluate(
        """async ([text]) => {
          const stream = new Blob([text]).stream().pipeThrough(new CompressionStream("deflate-raw"));
          const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
          let word = ""; for (const byte of bytes) word += String.fromCharCode(byte);
          return "#e=" + btoa(word).replace(/\\+/g, "-").replace(/\\//g, "_").replace(/=+$/, "");
        }""",
        [text],
    )


ODD = {
    "no object": "[1, 2]",
    "null": "null",
    "deep": "[" * 100_000,
    "deep object": '{"requests":' * 50_000,
    "requests that cannot be words": '{"requests": {"toString": 1}}',
    "a policy by the name of a prototype": '{"policy": {"name": "__proto__", "args": null}}',
    "constructor": '{"policy": {"name": "constructor", "args": {"constructor": 1}}}',
    "toString": '{"policy": {"name": "toString"}, "machine": {"toString": 1, "model": "toString"}}',
    "own proto": '{"__proto__": {"policy": {"code": "boom"}}, "policy": {"__proto__": {"code": "boom"}}}',
    "args that are words": '{"policy": {"name": "ChunkedPrefill", "args": "many"}}',
    "values that are objects": '{"policy": {"name": "ChunkedPrefill", "args": {"token_budget": {"a": 1}, "order": []}}}',
    "html": '{"requests": "<img src=x onerror=window.caught=1>", "machine": {"model": "<svg onload=window.caught=1>"}}',
    "a machine that is a list": '{"machine": [1, 2, 3]}',
    "code that is no words": '{"policy": {"code": {"toString": 1}}}',
}


@pytest.mark.parametrize("name", few_of(list(ODD), list(ODD)[1::3]))
def test_an_odd_link_leaves_a_form_that_works(lab_page, site_url, name):
    page = lab_page()
    fragment = link_of(page, ODD[name])
    other = lab_page(f"{site_url}/book/lab.html{fragment}")
    assert other.locator("#cp-lab fieldset").count() == 3 and not other.problems
    assert other.evaluate("() => window.caught") is None
    assert not other.locator(".cp-foreign").is_visible(), "nothing in it is code"
    assert other.locator("#cp-lab fieldset").nth(2).locator("select").first.input_value()


@pytest.mark.parametrize("fragment", ["#e=", "#e=%%%", "#e=AAAA", "#e=" + "A" * 50_000])
def test_a_broken_link_is_said(lab_page, site_url, fragment):
    page = lab_page(f"{site_url}/book/lab.html{fragment}")
    assert page.locator("#cp-lab fieldset").count() == 3 and not page.problems
    assert fragment == "#e=" or "cannot be read" in page.locator("#cp-lab .cp-came").inner_text()


def test_a_link_that_unpacks_to_a_hundred_megabytes_is_refused(lab_page, site_url):
    page = lab_page()
    fragment = page.evaluate(
        """async () => {
          const part = new Blob(["x".repeat(1e6)]), blob = new Blob(['{"requests": "', ...Array(100).fill(part), '"}']);
          const bytes = new Uint8Array(await new Response(blob.stream().pipeThrough(new CompressionStream("deflate-raw"))).arrayBuffer());
          let word = ""; for (const byte of bytes) word += String.fromCharCode(byte);
          return "#e=" + btoa(word).replace(/\\+/g, "-").replace(/\\//g, "_").replace(/=+$/, "");
        }"""
    )
    other = lab_page(f"{site_url}/book/lab.html{fragment}")
    assert "cannot be read" in other.locator("#cp-lab .cp-came").inner_text() and not other.problems


def test_a_file_with_code_is_someone_elses_and_does_not_run(lab_page, tmp_path):
    (tmp_path / "experiment.json").write_text(
        json.dumps({"policy": {"code": "raise SystemExit"}, "machine": {}})
    )
    page = lab_page()
    page.locator("#cp-lab input[type=file]").set_input_files(tmp_path / "experiment.json")
    page.locator(".cp-foreign").wait_for()
    page.wait_for_timeout(500)
    assert not [url for url in page.requested if "pyodide" in url] and not page.problems
    page.reload()
    page.wait_for_selector("#cp-lab.cp-live")
    assert page.locator(".cp-foreign").is_visible(), "it is still someone else's"
    assert page.locator("#cp-lab .cp-run").inner_text() == "Run someone else's code"
    assert chosen_policy(page) == "Written by someone else"
    page.get_by_role("button", name="Show my own code").click()
    assert chosen_policy(page) == "Written by you"
    assert (
        page.locator("#cp-lab .cp-run").inner_text() == "Run" and not page.locator(".cp-foreign").is_visible()
    )
    assert "class Policy" in page.locator("#cp-lab-code textarea").input_value()


def chosen_policy(page) -> str:
    """What the laboratory's list of policies shows."""
    policies = page.locator("fieldset").nth(1).locator("select").first
    return policies.evaluate("list => list.selectedOptions[0].textContent")


def policy_code(page) -> str:
    """What stands in the laboratory's editor, before and after CodeMirror has come."""
    return page.evaluate(
        """() => { const box = document.querySelector("#cp-lab-code");
        return box.querySelector("textarea")?.value ?? box.querySelector(".cm-content").innerText; }"""
    )


def rewrite(page, text: str) -> None:
    page.locator("#cp-lab-code textarea").click()
    page.locator("#cp-lab-code .cm-content").wait_for()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(text)


def test_an_experiment_not_yet_run_outlives_a_reload_and_a_link(lab_page, site_url):
    """Each tab has its own; a link replaces none of what the reader has written."""
    page = lab_page()
    page.locator("fieldset").first.locator("textarea").fill("name, arrival, prompt, output\nmine, 0, 7, 3")
    page.locator("fieldset").nth(1).locator("select").first.select_option("Written by you")
    rewrite(page, "# my own policy")
    page.reload()
    page.wait_for_selector("#cp-lab.cp-live")
    assert "mine, 0, 7, 3" in page.locator("fieldset").first.locator("textarea").input_value()
    assert policy_code(page) == "# my own policy"
    theirs = {"requests": "name, arrival, prompt, output\ntheirs, 0, 1, 1", "policy": {"code": "# theirs"}}
    other = page.context.new_page()
    other.goto(f"{site_url}/book/lab.html{link_of(page, json.dumps(theirs))}")
    other.locator(".cp-foreign").wait_for()
    assert policy_code(other) == "# theirs"
    rewrite(other, "# theirs, changed")
    other.get_by_role("button", name="Show my own code").click()
    assert policy_code(other) == "# my own policy"
    assert policy_code(page) == "# my own policy" and not page.problems


def test_code_of_someone_elses_is_so_after_a_reload_and_touches_no_later_run(lab_page, site_url):
    evil = "import chunkprefill_course.live.lab as lab\nlab.measured_of = None\nclass Policy:\n    def schedule(self, state): return cp.Plan({})\n"
    page = lab_page()
    other = lab_page(f"{site_url}/book/lab.html{link_of(page, json.dumps({'policy': {'code': evil}}))}")
    other.locator("#cp-lab .cp-run").click()
    other.locator(".cp-stopped").wait_for(timeout=120_000)
    other.locator("fieldset").nth(1).locator("select").first.select_option("ChunkedPrefill")
    assert other.locator("#cp-lab .cp-run").inner_text() == "Run"
    assert "chat 1" in served(other), "Python was started anew"
    assert not other.problems
    other.goto("about:blank")
    other.problems.clear()  # leaving the page ends its worker, which may still have been starting
    other.goto(f"{site_url}/book/lab.html")
    other.wait_for_selector("#cp-lab.cp-live")
    assert not other.locator(".cp-foreign").is_visible() and not other.problems


def test_messages_without_end_do_not_freeze_the_page(lab_page, site_url):
    """Hostile code floods the page with progress: Stop still works."""
    flood = "import js\nwhile True:\n    js.postMessage(None)\n"
    page = lab_page()
    other = lab_page(f"{site_url}/book/lab.html{link_of(page, json.dumps({'policy': {'code': flood}}))}")
    other.locator("#cp-lab .cp-run").click()
    other.wait_for_function(
        "() => /Running|Serving/.test(document.querySelector('#cp-lab .cp-said').textContent)",
        timeout=120_000,
    )
    other.wait_for_timeout(1500)
    other.locator("#cp-lab .cp-stop").click(timeout=60_000)
    other.wait_for_function(
        "() => document.querySelector('#cp-lab .cp-said').textContent === 'Stopped.'", timeout=60_000
    )


HARMFUL = [
    '<svg><rect fill="u\\72l(https://127.0.0.1:1/leak)" stroke="url(//x)"/></svg>',
    '<div style="position:fixed;top:0" class="bd-header cp-ok" onclick="window.caught=1">x</div>',
    '<svg><use href="//x"/><style>@import "//x"</style><foreignObject><iframe src="//x"></iframe></foreignObject></svg>',
    '<form action="//x"><input autofocus onfocus="window.caught=1"><button formaction="javascript:window.caught=1">b</button></form>',
    '<math><mtext><table><mglyph><style><img src=x onerror="window.caught=1">',
    '<details open ontoggle="window.caught=1"><summary id="cp-lab">x</summary></details>',
]


@pytest.mark.parametrize("html", HARMFUL)
def test_what_python_sends_back_is_harmless(live_page, html):
    shown = live_page.evaluate(
        """html => { const box = document.createElement("div"); box.append(courseLive.clean(html)); document.body.append(box);
        const out = box.innerHTML; setTimeout(() => box.remove(), 100); return out; }""",
        html,
    )
    live_page.wait_for_timeout(150)
    for word in (
        "url(",
        "\\72",
        "position",
        "bd-header",
        "href",
        "src=",
        "<style",
        "<form",
        "<input",
        " on",
        "javascript",
        'id="cp-lab"',
    ):
        assert word not in shown, (word, shown)
    assert live_page.evaluate("() => window.caught") is None


def test_html_too_large_for_a_page_is_refused(live_page):
    said = live_page.evaluate(
        "() => { try { courseLive.clean('x'.repeat(9e6)); return ''; } catch (e) { return e.message; } }"
    )
    assert "too large" in said


BIG = {
    "a thousand million requests": (
        {"requests": "name,arrival,prompt,output\n" + "\n".join(f"r{i},0,5,3" for i in range(5000))},
        "5,000 requests",
    ),
    "tokens without end": (
        {"requests": "name,arrival,prompt,output\n" + "\n".join(f"r{i},0,9999999,3" for i in range(9))},
        "the laboratory takes at most 20,000,000",
    ),
    "a prompt of 10^12": ({"requests": "name,arrival,prompt,output\na,0,1000000000000,3"}, "1 to 10,000,000"),
    "ten thousand digits": (
        {"requests": "name,arrival,prompt,output\na,0," + "9" * 10_000 + ",3"},
        "row 2: prompt tokens",
    ),
    "deep": ({"requests": "[1,\n" + "[" * 100_000}, "row 2: the JSON is nested too deeply"),
    "deep objects": ({"requests": '{"a":' * 51}, "row 1: the JSON is nested too deeply"),
    "brackets in words": ({"requests": '[{"name": "' + "[" * 99 + '"}]'}, "row 1: no arrival"),
    "a field without end": (
        {"requests": "name,arrival,prompt,output\n" + "a" * 200_000 + ",0,5,3"},
        "no table that can be read",
    ),
    "blocks": ({"machine": {"blocks": 1e300}}, "blocks: "),
    "tp": ({"machine": {"tp": 10**9}}, "tp: "),
    "tp of words": ({"machine": {"tp": "many"}}, "tp: 'many' is no number"),
    "infinite scheduling": ({"machine": {"step_us": math.inf}}, "step_us: inf"),
    "not a number": ({"machine": {"step_us": math.nan}}, "step_us: nan"),
    "a policy that is a list": ({"policy": [1]}, "an experiment is"),
    "a machine that is a word": ({"machine": "big"}, "an experiment is"),
    "an attribute of cp": ({"policy": {"name": "__class__"}}, "no policy '__class__'"),
    "an argument that is none": (
        {"policy": {"name": "ChunkedPrefill", "args": {"__class__": 1}}},
        "__class__",
    ),
}


@pytest.mark.parametrize("name", BIG)
def test_what_is_too_large_is_refused_in_one_line(name):
    experiment, said = BIG[name]
    wrong = lab.run({"requests": lab.SCENARIOS["A document among chats"]} | experiment)["wrong"]
    assert said in wrong and len(wrong) < 600, wrong
    assert "our code" not in wrong, "no code was given"


def test_a_run_without_end_is_stopped(monkeypatch):
    monkeypatch.setattr(lab, "MOST_STEPS", 50)
    assert (
        "50 steps, and the requests are not served yet"
        in lab.run({"requests": lab.SCENARIOS["Many small ones"]})["wrong"]
    )


def test_a_long_run_is_drawn_to_where_a_page_can_bear_it():
    text = "name,arrival,prompt,output\n" + "\n".join(f"r{i},0,50,3000" for i in range(10))
    reply = lab.run({"requests": text})
    assert reply["html"].count("<rect") + reply["html"].count("M") < 3 * lab.MOST_BOXES
    assert "The first " in reply["html"] and len(reply["html"]) < 2e6


def test_names_are_shown_as_they_are_and_harmless():
    evil = '<img src=x onerror="alert(1)">'
    rows = json.dumps(
        [
            {"rid": evil, "arrival": 0, "n_prompt": 9, "n_output": 3},
            {"rid": "\u202e\x00b", "arrival": 0, "n_prompt": 9, "n_output": 3},
        ]
    )
    reply = lab.run({"requests": rows, "label": evil})
    assert "<img" not in reply["html"] and "&lt;img" in reply["html"] and "\u202e" not in reply["html"]


# --- advice ---------------------------------------------------------------------------------------------------

WANTED = {
    "model": "llama-3.2-1b", "device": "rtx4090", "dtype": "bf16", "kv_dtype": "", "tp": 1, "chats_per_s": 6.0,
    "chat_prompt": 200, "chat_output": 40, "documents_per_s": 0.5, "document_prompt": 4000, "document_output": 40,
    "n": 40, "promises": "tbt p99 20ms\nttft chats p99 2s", "elsewhere": False,
}  # fmt: skip


def test_the_form_advises_as_the_command_does():
    load = cp.Mix(6.0, (200, 40), 0.5, (4000, 40), 40)
    found = cp.advise("llama-3.2-1b", "rtx4090", load, WANTED["promises"].splitlines())
    told = []
    reply = advice.advised(WANTED, told.append)
    assert (
        reply["best"] == found.best and str(found.table()) in reply["text"] and len(told) == len(found.rows)
    )
    assert f"--max-num-batched-tokens {found.best}" in reply["html"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"promises": ""}, "no promise to keep"),
        ({"promises": "tbt p99"}, "no promise 'tbt p99'"),
        ({"model": "gpt-9"}, "gpt-9"),
        ({"n": 10**9}, "20 to 20,000"),
        ({"n": 1001}, "at most 1,000"),
        ({"n": None}, "n: None is no whole number"),
        ({"tp": 1.5}, "tp: 1.5; a whole number"),
        ({"chat_prompt": math.inf}, "chat prompt: inf"),
        ({"chats_per_s": math.nan}, "chats_per_s must be"),
        ({"dtype": "<b>"}, "<b>"),
    ],
)  # fmt: skip
def test_what_cannot_be_advised_on_is_named(change, words):
    assert words in advice.advised(WANTED | change)["wrong"]


def test_advice_in_the_page(lab_page):
    page = lab_page(touch=True)
    page.wait_for_selector("#cp-advice.cp-live")
    box = page.locator("#cp-advice")
    box.locator("label", has_text="Requests simulated").locator("input").fill("20")
    box.get_by_role("button", name="Advise").click()
    page.wait_for_function(
        "() => /tokens a step|No budget/.test(document.querySelector('#cp-advice .cp-said').textContent) && !document.querySelector('#cp-advice .cp-run').disabled",
        timeout=200_000,
    )
    assert (
        box.locator("table tr").count() > 5 and "--max-num-batched-tokens" in box.locator("pre").inner_text()
    )
    assert not page.problems
