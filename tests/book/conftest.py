"""The built book for every test below: built once, copied, served, and opened in one browser."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.needs import ROOT, need
from tools import live
from tools.look import FLAGS, chromium
from tools.serve import server

BUILT = ROOT / "_build/html"


def pages() -> list[str]:
    """Every page of the table of contents, as its path without a suffix; the first is the root."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf8"))

    def below(entry: dict) -> Iterator[str]:
        yield from (entry[key] for key in ("root", "file") if key in entry)
        for key in ("parts", "chapters", "sections"):
            for inner in entry.get(key) or []:
                yield from below(inner)

    return list(below(toc))


def build(root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Build the book in `root` into its `_build`, with every warning an error."""
    main = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", main, "build", ".", "-W", "-n", "--keep-going"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=600, check=False)


def little_book(root: Path, pages: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Build a book of these pages ({file name: text}; the first is the root) as the real one is built."""
    for name in ("_config.yml", "book/_ext", "book/_templates", "book/_static", "book/references.bib"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(ROOT / name)
    first, *others = (Path(name).stem for name in pages)
    chapters = "chapters:\n" + "".join(f"  - file: {name}\n" for name in others) if others else ""
    (root / "_toc.yml").write_text(f"format: jb-book\nroot: {first}\n{chapters}")
    for name, text in pages.items():
        (root / name).write_text(text)
    return build(root)


def is_fresh() -> bool:
    """Whether `_build/html` was built without a warning, and nothing it is made of is younger."""
    mark = BUILT / ".clean"
    if not mark.is_file():
        return False
    sources = [
        ROOT / "_config.yml",
        ROOT / "_toc.yml",
        *ROOT.glob("notebooks/*.ipynb"),
        *ROOT.glob("book/**/*"),
    ]
    return max(p.stat().st_mtime for p in sources if "__pycache__" not in p.parts) <= mark.stat().st_mtime


@contextmanager
def _alone() -> Iterator[None]:
    """One build at a time in a checkout (where the system has file locks)."""
    (ROOT / "_build").mkdir(exist_ok=True)
    with open(ROOT / "_build/.lock", "w") as lock:
        try:
            import fcntl
        except ImportError:
            yield
        else:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


@pytest.fixture(scope="session")
def site_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the built book, which no other process rewrites while a test reads it."""
    folder = tmp_path_factory.mktemp("book") / "html"
    with _alone():
        if not is_fresh():
            live.main([])  # what the pages run in the reader's browser is copied with them
            done = build()
            if done.returncode:
                pytest.fail(
                    f"the book does not build with -W -n:\n{(done.stdout + done.stderr)[-4000:]}",
                    pytrace=False,
                )
        shutil.copytree(BUILT, folder)
    return folder


@pytest.fixture(scope="session")
def site_url(site_dir: Path) -> Iterator[str]:
    """The address of the served copy, without a slash at its end."""
    with server(site_dir) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def browser() -> Iterator:
    """One Chromium for all tests; Playwright's driver, the system's browser."""
    path = chromium()
    need("chromium", path, "no chromium or google-chrome on PATH, and CHROMIUM names none")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield one
        one.close()


@contextmanager
def comes_and_goes(page: Any, selector: str, attribute: str, timeout_ms: int = 120_000) -> Iterator[None]:
    """Within, press what makes an element carry an attribute for a while (`aria-busy`, `disabled`); then wait until
    the attribute has been set and removed again. The
    attribute's absence alone might mean that nothing has begun, and that the words of the last answer still stand."""
    page.evaluate(
        """([selector, attribute]) => {
            const element = document.querySelector(selector);
            if (element.hasAttribute(attribute)) throw new Error(`${selector} has ${attribute} already`);
            element.cameAndWent = false;
            new MutationObserver((_, seen) => {
                if (element.hasAttribute(attribute)) return;
                element.cameAndWent = true;
                seen.disconnect();
            }).observe(element, {attributeFilter: [attribute]});
        }""",
        [selector, attribute],
    )
    yield
    page.wait_for_function(
        "selector => document.querySelector(selector).cameAndWent", arg=selector, timeout=timeout_ms
    )


def soon(locator: Any) -> Any:
    """Playwright's `expect`, with a minute: on a busy machine what a page kept comes back after it has loaded."""
    from playwright.sync_api import expect

    expect.set_options(timeout=60_000)
    return expect(locator)


@pytest.fixture(scope="session")
def new_page(browser) -> Iterator[Callable]:
    """`new_page(width, scheme, touch=False)`: a blank page that keeps what goes wrong in `page.problems`.

    `width` is in CSS pixels, `scheme` is "light" or "dark". `page.problems` collects console errors,
    exceptions and failed requests; `page.requested` all addresses asked for. Each call makes its own context:
    nothing stored in one page is seen by another.
    """
    opened = []

    def make(width: int = 1440, scheme: str = "light", *, touch: bool = False):
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            has_touch=touch,
            reduced_motion="reduce",
        )
        opened.append(context)
        page = context.new_page()
        page.problems, page.requested = [], []

        def note(line: str) -> None:
            # The browser's own giving up: a page left before its icon came, a worker stopped while it loaded.
            # What a server or a rule refuses has another name, and a blob never leaves the page.
            if not ("ERR_ABORTED" in line and ("favicon" in line or "failed: blob:" in line)):
                page.problems.append(line)

        page.on(
            "console", lambda message: note(f"console: {message.text}") if message.type == "error" else None
        )
        page.on("pageerror", lambda error: note(f"exception: {error}"))
        page.on("request", lambda request: page.requested.append(request.url))
        page.on("requestfailed", lambda request: note(f"failed: {request.url} {request.failure}"))
        page.on(
            "response",
            lambda answer: note(f"{answer.status}: {answer.url}") if answer.status >= 400 else None,
        )
        return page

    yield make
    for context in opened:
        context.close()
