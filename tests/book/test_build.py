"""The built pages, read as files: there, light, and asking nothing of another host."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.book.conftest import build, little_book, pages
from tests.needs import ROOT

PLAIN_LIMIT, CHAPTER_LIMIT = (
    1_500_000,
    6_000_000,
)  # bytes as served, uncompressed, everything that a page loads
LOADS = {  # element -> its attributes that make a browser fetch at once
    "script": ("src",),
    "link": ("href",),
    "img": ("src", "srcset"),
    "iframe": ("src",),
    "audio": ("src",),
    "video": ("src", "poster"),
    "source": ("src", "srcset"),
    "track": ("src",),
    "embed": ("src",),
    "object": ("data",),
    "input": ("src",),
    "use": ("href", "xlink:href"),
    "image": ("href", "xlink:href"),
}
FETCHING_LINKS = {"stylesheet", "icon", "shortcut icon", "preload", "modulepreload", "prefetch", "manifest"}
FETCHING_LINKS |= {"preconnect", "dns-prefetch", "apple-touch-icon", "prerender"}


class Loads(HTMLParser):
    """What a page makes a browser fetch: `.found`, a list of addresses as written."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self._style = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        have = {name: value or "" for name, value in attrs}
        self._style = tag == "style"
        if tag == "link" and have.get("rel", "").lower() not in FETCHING_LINKS:
            return
        for name in LOADS.get(tag, ()):
            if have.get(name):
                self.found += (
                    [part.split()[0] for part in have[name].split(", ")] if name == "srcset" else [have[name]]
                )
        self.found += css_urls(have.get("style", ""))

    def handle_data(self, data: str) -> None:
        if self._style:
            self.found += css_urls(data)
            self._style = False


def css_urls(css: str) -> list[str]:
    """The addresses that a style sheet loads."""
    css = re.sub(r"/\*.*?\*/", "", css, flags=re.S)
    quoted = re.findall(r"""url\(\s*(?:"([^"]*)"|'([^']*)'|([^)'"\s]*))\s*\)|@import\s+["']([^"']+)""", css)
    return ["".join(groups) for groups in quoted]


def is_foreign(address: str) -> bool:
    """Whether an address leaves the page's own host."""
    parts = urlsplit(address)
    return bool(parts.netloc) or parts.scheme not in ("", "data", "blob")


def weight(site: Path, page: str) -> dict[str, int]:
    """Every file that a page may load, with its bytes: page, scripts, styles, and what those load in turn."""
    html = (site / f"{page}.html").read_text("utf8")
    sizes = {f"{page}.html": len(html.encode())}

    def add(path: Path) -> None:
        name = path.resolve().relative_to(site.resolve()).as_posix()
        if name in sizes:
            return
        sizes[name] = path.stat().st_size
        if path.suffix == ".css":
            for address in css_urls(path.read_text("utf8")):
                # icon fonts are named by the theme's style sheet and used by no element: see icons.css
                if (
                    not is_foreign(address)
                    and not address.startswith("data:")
                    and "fontawesome" not in address
                ):
                    add(path.parent / urlsplit(address).path)
        if path.name == "embed.js":
            for font in path.parent.glob("*.woff2"):
                add(font)
        if (
            path.name == "startup.js"
        ):  # MathJax: the parts that _config.yml loads, and the three faces of plain formulas
            for part in (
                "core.js",
                "input/tex.js",
                "output/chtml.js",
                "output/chtml/fonts/tex.js",
                "a11y/assistive-mml.js",
            ):
                add(path.parent / part)
            for face in ("Main-Regular", "Math-Italic", "Size2-Regular", "Zero"):
                add(path.parent / f"output/chtml/fonts/woff-v2/MathJax_{face}.woff")

    for address in Loads(html).found:
        if not is_foreign(address) and not address.startswith("data:"):
            add((site / page).parent / urlsplit(address).path)
    return sizes


@pytest.mark.parametrize("page", pages())
def test_each_entry_of_the_contents_is_a_page(site_dir: Path, page: str) -> None:
    html = (site_dir / f"{page}.html").read_text("utf8")
    assert "</html>" in html and len(re.findall(r"<h1[ >]", html.partition('id="main-content"')[2])) >= 1


def test_the_root_leads_to_the_first_page(site_dir: Path) -> None:
    assert f"{pages()[0]}.html" in (site_dir / "index.html").read_text("utf8")


def test_nothing_comes_from_another_host(site_dir: Path) -> None:
    foreign = []
    for path in site_dir.rglob("*"):
        if path.suffix == ".html" and "_sources" not in path.parts:
            found = Loads(path.read_text("utf8")).found
        elif path.suffix == ".css":
            found = css_urls(path.read_text("utf8"))
        else:
            continue
        foreign += [f"{path.relative_to(site_dir)}: {address}" for address in found if is_foreign(address)]
    assert foreign == []


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="//cdn.example/x.css">',
        '<img srcset="a.png 1x, https://cdn.example/b.png 2x">',
        "<style>@import 'https://cdn.example/x.css';</style>",
        '<p style="background: url(https://cdn.example/x.png)">',
        '<svg><use href="https://cdn.example/x.svg#a"/></svg>',
    ],
)
def test_a_foreign_load_would_be_seen(html: str) -> None:
    assert any(map(is_foreign, Loads(html).found)), html


@pytest.mark.parametrize("page", pages())
def test_weight_as_served(site_dir: Path, page: str) -> None:
    sizes = weight(site_dir, page)
    limit = CHAPTER_LIMIT if page.startswith("notebooks/") else PLAIN_LIMIT
    heaviest = sorted(sizes.items(), key=lambda item: -item[1])[:6]
    assert sum(sizes.values()) <= limit, (
        f"{page}: {sum(sizes.values()):,} bytes, at most {limit:,}; {heaviest}"
    )


@pytest.mark.parametrize("page", pages())
def test_a_page_loads_no_script_that_it_does_not_use(site_dir: Path, page: str) -> None:
    html = (site_dir / f"{page}.html").read_text("utf8")
    body = html.partition('<article class="bd-article">')[2].partition("</article>")[0]
    loaded = " ".join(Loads(html).found)
    uses = {
        "mathjax": 'class="math' in body,
        "html-manager": "vnd.jupyter.widget-view" in body,
        "copybutton": False,
        "course.js": any(mark in body for mark in ("cp-el", "cp-explorer", "vnd.jupyter.widget-view")),
        "require": False,
        "thebe": False,
        "fontawesome.js": False,
        "searchindex": False,
    }
    wrong = {
        name: "loaded" if name in loaded else "missing"
        for name, used in uses.items()
        if (name in loaded) > used
    }
    missing = {name for name in ("mathjax", "html-manager", "course.js") if uses[name] and name not in loaded}
    assert not wrong and not missing
    assert "thebe" not in html.lower()


def test_search_works_without_a_server(site_dir: Path) -> None:
    """Its index is a script, which a page opened from a folder may load."""
    html = (site_dir / "search.html").read_text("utf8")
    assert {"sections.js", "search.js"} <= {Path(urlsplit(a).path).name for a in Loads(html).found}
    assert "fetch(" not in (site_dir / "_static/search.js").read_text("utf8")


def test_no_address_of_the_machine_that_built_it(site_dir: Path) -> None:
    for path in site_dir.rglob("*.html"):
        assert str(ROOT) not in path.read_text("utf8"), path


def test_vendored_files_are_those_listed() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools/vendor.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    for package in json.loads((ROOT / "book/_static/vendor/VERSIONS.json").read_text("utf8")):
        assert any("LICENSE" in name for name in package["files"]), (
            f"{package['name']} has no licence beside it"
        )


def test_api_pages_are_up_to_date_and_need_no_package() -> None:
    command = [sys.executable, "-I", "-S", ROOT / "tools/api.py", "--check"]  # -S: nothing is installed
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_api_pages_have_every_public_name_and_what_it_says() -> None:
    import chunkprefill as cp
    import chunkprefill_course as course

    page = "\n".join(path.read_text("utf8") for path in sorted((ROOT / "book/api").glob("*.md")))
    named = re.findall(r"^### `(\w+)`", page, flags=re.M)
    public = sorted(name for name in [*cp.__all__, *course.__all__] if name != "__version__")
    assert sorted(named) == public
    listed = re.findall(r"\[`(\w+)`\]\(api-", (ROOT / "book/api.md").read_text("utf8"))
    assert sorted(listed) == public
    said = page.split("### `simulate`")[1].split("### `")[0]
    for argument in inspect.signature(cp.simulate).parameters:
        assert re.search(rf"\b{argument}\b", said), argument


def test_a_bad_page_fails_the_build_and_fails_it_again(tmp_path: Path) -> None:
    """Broken references, unknown badges, silent pictures: named, and a second build does not forgive them."""
    bad = {
        "reference": ("[nowhere](nowhere.md)", "nowhere"),
        "badge": ("{badge}`guessed`", "it is one of measured"),
        "image": ("![](book/_static/favicon.svg)", "has no alt text"),
        "drawing": ("<svg viewBox='0 0 1 1'><path d='M0 0'/></svg>", "has no aria-label"),
    }
    texts = {"good.md": "# Good\n\n{badge}`measured` ![a table](book/_static/favicon.svg)\n"}
    texts |= {f"{name}.md": f"# {name}\n\n{text}\n" for name, (text, _) in bad.items()}
    for done in (little_book(tmp_path, texts), build(tmp_path)):
        said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
        warnings = [line for line in said.splitlines() if "WARNING" in line or "ERROR" in line]
        assert done.returncode != 0
        for name, (_, says) in bad.items():
            assert any(f"{name}.md" in line and says in line for line in warnings), (name, warnings)
        assert not any("good.md" in line for line in warnings), warnings


def test_every_icon_that_a_page_uses_is_drawn(site_dir: Path) -> None:
    drawn = set(
        re.findall(
            r"\.fa-([a-z-]+)::before \{\s*--icon: \d", (ROOT / "book/_static/icons.css").read_text("utf8")
        )
    )
    sizes = {"solid", "regular", "brands", "lg", "sm", "fw", "xs"}
    for path in site_dir.glob("**/*.html"):
        for classes in re.findall(r'<(?:i|span) class="(fa[srb]? [^"]*|fa-[^"]*)"', path.read_text("utf8")):
            used = {name.removeprefix("fa-") for name in classes.split() if name.startswith("fa-")} - sizes
            assert used <= drawn, f"{path.name}: {used - drawn} not in icons.css"


def test_every_link_inside_the_book_leads_somewhere(site_dir: Path) -> None:
    """Raw links too, which the build does not check: the page is there, and so is the place on it."""
    pages_read = {p: p.read_text("utf8") for p in site_dir.rglob("*.html") if "_static" not in p.parts}
    places = {p: set(re.findall(r'\b(?:id|name)="([^"]+)"', html)) for p, html in pages_read.items()}
    broken = []
    for path, html in pages_read.items():
        for address in re.findall(r'<a\b[^>]*\bhref="([^"]*)"', html):
            parts = urlsplit(unescape(address))
            if parts.scheme or parts.netloc or not (parts.path or parts.fragment):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                broken.append(f"{path.name}: {address} (no such file)")
            elif target in places and parts.fragment and unquote(parts.fragment) not in places[target]:
                broken.append(f"{path.name}: {address} (no such place)")
    assert broken == []


@pytest.mark.parametrize("page", [page for page in pages() if page.startswith("notebooks/")])
def test_long_code_starts_folded_and_no_cell_is_lost(site_dir: Path, page: str) -> None:
    html = (site_dir / f"{page}.html").read_text("utf8")
    cell = r'<div class="cell\b([^"]*)">\s*(<details(?:(?!<div class="cell\b).)*?</summary>)?\s*<div class="cell_input\b'
    cells = re.findall(cell + r"[^>]*>.*?<pre[^>]*>(.*?)</pre>", html, flags=re.S)
    for tags, fold, code in cells:
        assert bool(fold) == ("tag_hide-input" in tags or code.count("\n") > 12), code
    notebook = json.loads((ROOT / f"{page}.ipynb").read_text("utf8"))
    removed = {"remove-input", "remove-cell"}
    sources = [c for c in notebook["cells"] if c["cell_type"] == "code" and "".join(c["source"]).strip()]
    needs_kernel = [c for c in sources if "○ Not attempted." in json.dumps(c, ensure_ascii=False)]
    setup = [c for c in sources if c["id"] == "setup"]
    kept = [c for c in sources if not removed & set(c["metadata"].get("tags", []))]
    dropped = [c for c in kept if c in needs_kernel or c in setup]
    assert len(cells) == len(kept) - len(dropped)
    assert "○ Not attempted." not in html and "written by tools/colab.py" not in html


def words_of(html: str) -> str:
    """A page's text, folds included, scripts and styles left out."""
    body = html.partition('<article class="bd-article">')[2].partition("</article>")[0]
    body = re.sub(r"<(script|style|svg)\b.*?</\1>", " ", body, flags=re.S)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", body)))


@pytest.mark.parametrize("page", pages())
def test_what_is_not_recorded_is_not_mentioned(site_dir: Path, page: str) -> None:
    text = words_of((site_dir / f"{page}.html").read_text("utf8")).lower()
    if page != "book/measurements":
        assert "not yet recorded" not in text and "not recorded yet" not in text


@pytest.mark.parametrize("page", [page for page in pages() if page.startswith("notebooks/")])
def test_a_page_asks_for_no_kernel(site_dir: Path, page: str) -> None:
    text = words_of((site_dir / f"{page}.html").read_text("utf8"))
    asks = ("with a kernel", "without a kernel", "run the cell", "not attempted", "in this notebook")
    assert [words for words in asks if words in text.lower()] == []


@pytest.mark.parametrize("page", [page for page in pages() if page.startswith("notebooks/")])
def test_long_evidence_waits_behind_its_verdict(site_dir: Path, page: str) -> None:
    html = (site_dir / f"{page}.html").read_text("utf8")
    for found in re.finditer(r'<div class="cp-evidence".*?</table>', html, flags=re.S):
        n_rows = found[0].partition("</thead>")[2].count("<tr")
        inside = html[: found.start()].rstrip().endswith("</summary>")
        assert inside or n_rows <= 6 or "<details" in found[0], found[0][:300]


@pytest.mark.parametrize("page", pages())
def test_every_table_has_a_row(site_dir: Path, page: str) -> None:
    """Three tables of measurements had columns, a caption and nothing else."""
    html = (site_dir / f"{page}.html").read_text("utf8")
    empty = [table for table in re.findall(r"<table.*?</table>", html, re.S) if "<td" not in table]
    assert not empty, [re.sub(r"<[^>]+>", " ", table)[:80] for table in empty]


@pytest.mark.parametrize("page", pages())
def test_code_in_a_line_breaks_between_its_words(site_dir: Path, page: str) -> None:
    """Not `max_num_batched_token|s`, and not `-|-penalty`."""
    html = (site_dir / f"{page}.html").read_text("utf8")
    article = re.sub(
        r"<pre.*?</pre>", "", html[html.index("<article") : html.index("</article>")], flags=re.S
    )
    for code in re.findall(r"<code[^>]*>(.*?)</code>", article, re.S):
        assert not re.search(r'(?<![\w>"-])--\w', code), code
        for name in re.findall(r"[\w./:]{21,}", re.sub(r"<(?!wbr>)[^>]+>", " ", code)):
            assert not re.search(r"\w[_.]\w", name), name
