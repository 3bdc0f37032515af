"""Photograph every page for a person to look at: `python tools/look.py [PAGE ...] [--widths 390 768 1440]`.

Each page of the built book is opened at each width, light and dark, and saved whole in `screenshots/`.
`python tools/look.py --screens FILE [PAGE ...]` measures instead: how many screens of a phone each page is, and
what takes them, as JSON (`-`: to standard output).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))  # so that tests may import this file as tools.look

from serve import BUILT, server

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
)
SHOTS = BUILT.parents[1] / "screenshots"


def chromium() -> str | None:
    """The browser's path: what CHROMIUM in the environment names, or one of the usual names on PATH."""
    named = os.environ.get("CHROMIUM")
    usual = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    return next(filter(None, map(shutil.which, [named] if named else usual)), None)


SCREEN = {"width": 390, "height": 844}  # a phone's, in CSS pixels
MEASURE = """() => {
  const kinds = [['evidence', '.cp-evidence'], ['explorer', '.cp-explorer'], ['form', '.cp-el'],
    ['recorded', '.cp-recorded'], ['picture', 'svg, img'], ['table', 'table']];
  const tall = (node) => node.getBoundingClientRect().height;
  const kind = (node) => {
    if (!node.matches('.cell')) return node.matches('section') ? null : 'prose';
    return (kinds.find(([, mark]) => node.querySelector(`.cell_output :is(${mark})`)) || ['text'])[0];
  };
  const parts = (section) => {
    const found = {};
    const add = (name, height) => { found[name] = (found[name] || 0) + height; };
    for (const node of section.children) {
      if (node.matches('section')) { for (const [name, height] of Object.entries(parts(node))) add(name, height); continue; }
      const input = node.matches('.cell') && node.querySelector(':scope > .cell_input, :scope > details');
      if (input) add('code', tall(input));
      add(kind(node), tall(node) - (input ? tall(input) : 0));
    }
    return found;
  };
  const article = document.querySelector('.bd-article'), top = article.querySelector('section');
  const sections = [...top.querySelectorAll(':scope > section')].map((section) =>
    ({title: section.querySelector('h2').firstChild.textContent.trim(), height: tall(section), parts: parts(section)}));
  return {page: document.documentElement.scrollHeight, sections, parts: parts(top)};
}"""


@contextmanager
def opened(path: str) -> Iterator[tuple[Any, str]]:
    """A browser, and the address of the built book, served."""
    from playwright.sync_api import sync_playwright

    with server(BUILT) as httpd, sync_playwright() as playwright:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser, f"http://127.0.0.1:{httpd.server_port}"
        browser.close()
        httpd.shutdown()


def screens(browser: Any, address: str) -> dict[str, Any]:
    """How many screens of a phone a page is with every fold shut, and its sections and kinds of content."""
    context = browser.new_context(viewport=SCREEN, reduced_motion="reduce")
    tab = context.new_page()
    tab.goto(address)
    tab.wait_for_load_state("networkidle")
    tab.add_style_tag(content="* { content-visibility: visible !important; }")  # laid out, near or not
    found = tab.evaluate(MEASURE)
    context.close()

    def told(parts: dict[str, float]) -> dict[str, float]:
        tallest = sorted(parts.items(), key=lambda part: -part[1])
        return {name: round(height / SCREEN["height"], 1) for name, height in tallest}

    sections = [
        {
            "title": one["title"],
            "screens": round(one["height"] / SCREEN["height"], 1),
            "of": told(one["parts"]),
        }
        for one in found["sections"]
    ]
    total = round(found["page"] / SCREEN["height"], 1)
    return {"screens": total, "of": told(found["parts"]), "sections": sections}


def measure(path: str, chosen: list[str], out: str) -> None:
    """Write each page's screens as JSON, and a line a page for the person who asked."""
    rows = []
    with opened(path) as (browser, home):
        for page in chosen:
            rows.append({"page": page} | screens(browser, f"{home}/{page}.html"))
            print(f"{rows[-1]['screens']:6.1f}  {page}  {rows[-1]['of']}", file=sys.stderr)
    text = json.dumps({"screen": SCREEN, "rows": rows}, indent=1, ensure_ascii=False) + "\n"
    if out == "-":
        print(text, end="")
    else:
        Path(out).write_text(text, encoding="utf8")


def photograph(path: str, chosen: list[str], args: argparse.Namespace) -> None:
    """Save each page at each width in each scheme."""
    from tqdm import tqdm

    args.out.mkdir(parents=True, exist_ok=True)
    shots = [(page, width, scheme) for page in chosen for width in args.widths for scheme in args.schemes]
    with opened(path) as (browser, home):
        for page, width, scheme in tqdm(shots, unit="page"):
            context = browser.new_context(
                viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
            )
            tab = context.new_page()
            tab.goto(f"{home}/{page}.html")
            tab.wait_for_load_state("networkidle")
            tab.screenshot(path=args.out / f"{page.replace('/', '_')}-{width}-{scheme}.png", full_page=True)
            context.close()
    print(f"{len(shots)} pictures in {args.out}")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pages", nargs="*", help="pages, such as book/intro (default: all of them)")
    parser.add_argument("--widths", nargs="+", type=int, default=[390, 768, 1440], help="in CSS pixels")
    parser.add_argument("--schemes", nargs="+", choices=["light", "dark"], default=["light", "dark"])
    parser.add_argument("--out", type=Path, default=SHOTS)
    parser.add_argument("--screens", metavar="FILE", help="measure, and write JSON; take no pictures")
    args = parser.parse_args()
    path = chromium()
    if path is None:
        print("no chromium or google-chrome on PATH, and CHROMIUM names none", file=sys.stderr)
        return 1
    every = [p.relative_to(BUILT).with_suffix("").as_posix() for p in sorted(BUILT.glob("*/*.html"))]
    chosen = [page for page in args.pages or every if not page.startswith("_")]
    if args.screens:
        measure(path, chosen, args.screens)
    else:
        photograph(path, chosen, args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
