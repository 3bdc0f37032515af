"""The whole book as one PDF with contents: `python tools/pdf.py [--out _build/book.pdf]`.

Chromium prints each built page; the parts are joined, with a bookmark a page. Every fold is open, code wraps, the
page is light: see the print rules of `reader.css`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from pathlib import Path

import yaml
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from look import FLAGS, chromium  # noqa: E402
from serve import server  # noqa: E402

FOOT = '<div style="font-size:8px;width:100%;text-align:center"><span class="pageNumber"></span></div>'


def pages() -> list[str]:
    """Every page of the table of contents, in its order, without a suffix."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf8"))
    found: list[str] = []

    def below(entry: dict) -> None:
        found.extend(entry[key] for key in ("root", "file") if key in entry)
        for key in ("parts", "chapters", "sections"):
            for inner in entry.get(key) or []:
                below(inner)

    below(toc)
    return found


def printed(folder: Path, names: list[str], out: Path) -> list[tuple[str, Path]]:
    """Each page as a PDF of its own: (title, file)."""
    from playwright.sync_api import sync_playwright

    made = []
    with server(folder) as httpd, sync_playwright() as playwright:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        page = browser.new_page()
        for i, name in enumerate(tqdm(names, unit="page", disable=None)):
            page.goto(f"http://127.0.0.1:{httpd.server_port}/{name}.html")
            page.wait_for_load_state("load")
            title = page.locator("h1").first.evaluate(
                "head => head.firstChild ? head.innerText.replace('#', '').trim() : ''"
            )
            path = out / f"{i:03}.pdf"
            page.pdf(
                path=str(path),
                format="A4",
                print_background=True,
                display_header_footer=True,
                header_template="<div></div>",
                footer_template=FOOT,
                margin={"top": "16mm", "bottom": "18mm", "left": "16mm", "right": "16mm"},
            )
            made.append((title or name, path))
        browser.close()
        httpd.shutdown()
    return made


def joined(parts: list[tuple[str, Path]], out: Path) -> int:
    """One file with a bookmark a page; returns its number of sheets."""
    from pypdf import PdfWriter

    writer = PdfWriter()
    for title, path in parts:
        writer.append(str(path), outline_item=title)
    out.parent.mkdir(parents=True, exist_ok=True)
    writer.write(str(out))
    return len(writer.pages)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "_build/book.pdf", help="default: _build/book.pdf")
    args = parser.parse_args(argv)
    if not chromium():
        print("no chromium or google-chrome on PATH, and CHROMIUM names none", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        n = joined(printed(ROOT / "_build/html", pages(), Path(folder)), args.out)
    print(f"{args.out}: {n} sheets")
    return 0


if __name__ == "__main__":
    sys.exit(main())
