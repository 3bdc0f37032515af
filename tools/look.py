"""Photograph every page for a person to look at: `python tools/look.py [PAGE ...] [--widths 390 768 1440]`.

Each page of the built book is opened at each width, light and dark, and saved whole in `screenshots/`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import threading
from pathlib import Path

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


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pages", nargs="*", help="pages, such as book/intro (default: all of them)")
    parser.add_argument("--widths", nargs="+", type=int, default=[390, 768, 1440], help="in CSS pixels")
    parser.add_argument("--schemes", nargs="+", choices=["light", "dark"], default=["light", "dark"])
    parser.add_argument("--out", type=Path, default=SHOTS)
    args = parser.parse_args()
    path = chromium()
    if path is None:
        print("no chromium or google-chrome on PATH, and CHROMIUM names none", file=sys.stderr)
        return 1
    from playwright.sync_api import sync_playwright
    from tqdm import tqdm

    every = [p.relative_to(BUILT).with_suffix("").as_posix() for p in sorted(BUILT.glob("*/*.html"))]
    chosen = [page for page in args.pages or every if not page.startswith("_")]
    args.out.mkdir(parents=True, exist_ok=True)
    shots = [(page, width, scheme) for page in chosen for width in args.widths for scheme in args.schemes]
    with server(BUILT) as httpd, sync_playwright() as playwright:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        for page, width, scheme in tqdm(shots, unit="page"):
            context = browser.new_context(
                viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
            )
            tab = context.new_page()
            tab.goto(f"http://127.0.0.1:{httpd.server_port}/{page}.html", wait_until="networkidle")
            tab.screenshot(path=args.out / f"{page.replace('/', '_')}-{width}-{scheme}.png", full_page=True)
            context.close()
        browser.close()
        httpd.shutdown()
    print(f"{len(shots)} pictures in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
