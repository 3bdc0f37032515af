"""What a page weighs on a phone: `python tools/pageweight.py [--out FILE]`.

Chromium at 390 pixels, gzip as a web server sends it, slow 4G (1.6 Mbit/s, 150 ms), a processor slowed four times:
bytes before anything is pressed, first paint, load, blocking time, the slowest tap. JSON with provenance.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import threading
from functools import cache, partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Any

from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from look import FLAGS, chromium  # noqa: E402
from pdf import pages  # noqa: E402
from serve import Handler  # noqa: E402

from benchmarks.runner import add_common_args, write  # noqa: E402
from chunkprefill.recording import provenance  # noqa: E402

ZIPPED = (".html", ".js", ".mjs", ".css", ".svg", ".json")
NETWORK = {"offline": False, "latency": 150, "downloadThroughput": 1.6e6 / 8, "uploadThroughput": 0.75e6 / 8}
WATCH = """
window.blocked = 0; window.tapped = 0;
new PerformanceObserver(list => list.getEntries().forEach(e => { if (e.duration > 50) window.blocked += e.duration - 50; }))
  .observe({type: 'longtask', buffered: true});
new PerformanceObserver(list => list.getEntries().forEach(e => { window.tapped = Math.max(window.tapped, e.duration); }))
  .observe({type: 'event', buffered: true, durationThreshold: 16});
"""


@cache
def zipped(path: str, changed: float) -> bytes:
    return gzip.compress(Path(path).read_bytes(), 6)


class Zipping(Handler):
    """Serves text as a web server does: compressed."""

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if path.suffix not in ZIPPED or not path.is_file():
            return super().do_GET()
        body = zipped(str(path), path.stat().st_mtime)
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(str(path)))
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def weigh(browser: Any, address: str) -> dict[str, float]:
    """One visit with an empty cache."""
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.add_init_script(WATCH)
    wire = context.new_cdp_session(page)
    wire.send("Network.enable")
    wire.send("Network.emulateNetworkConditions", NETWORK)
    wire.send("Emulation.setCPUThrottlingRate", {"rate": 4})
    n_bytes = []
    wire.on("Network.loadingFinished", lambda event: n_bytes.append(event["encodedDataLength"]))
    page.goto(address, wait_until="load")
    page.wait_for_timeout(1500)
    loaded = sum(n_bytes)
    times = page.evaluate(
        """() => ({paint: performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0,
        load: performance.getEntriesByType('navigation')[0].loadEventEnd, blocked: window.blocked})"""
    )
    slowest = 0.0
    for selector in (".cp-choice label", ".cp-explorer label", ".bd-article summary"):
        target = page.locator(f"{selector} >> visible=true").first
        if target.count():
            target.scroll_into_view_if_needed(timeout=10_000)
            page.wait_for_timeout(800)  # what scrolling draws is drawn: a reader looks before tapping
            page.evaluate("() => { window.tapped = 0; }")
            target.tap(timeout=10_000, force=True)
            page.wait_for_timeout(400)
            slowest = max(slowest, page.evaluate("() => window.tapped"))
    times["tap"] = slowest
    context.close()
    return {"kB": loaded / 1e3, **{f"{name}_ms": value for name, value in times.items()}}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--visits", type=int, default=3, help="of each page; medians are kept (default: %(default)s)"
    )
    add_common_args(parser)
    args = parser.parse_args(argv)
    from playwright.sync_api import sync_playwright

    path = chromium()
    if not path:
        print("no chromium or google-chrome on PATH, and CHROMIUM names none", file=sys.stderr)
        return 1
    rows = []
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(Zipping, directory=str(ROOT / "_build/html")))
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        for name in tqdm(pages(), unit="page", disable=None):
            visits = [
                weigh(browser, f"http://127.0.0.1:{httpd.server_port}/{name}.html")
                for _ in range(args.visits)
            ]
            rows.append({"page": name} | {key: round(median(v[key] for v in visits), 1) for key in visits[0]})
        browser.close()
    httpd.shutdown()
    where = provenance(seed=args.seed, commit=args.commit, dirty=args.dirty)
    write(
        {
            "bench": "pageweight",
            "what": "medians of visits at 390 px, slow 4G, processor slowed 4 times",
            "visits": args.visits,
            "provenance": where,
            "rows": rows,
        },
        args.out,
    )
    print(json.dumps(max(rows, key=lambda row: row["blocked_ms"])), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
