"""What the world outside sees of a page: a description, a picture, one address; a sitemap, robots.txt, a 404 page."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

NAME = "Chunked prefilling"
PICTURE = "_static/social.png"
MOST = 180  # characters of a description


def home(app: Sphinx) -> str:
    """Where the pages are published, with a slash at its end: made from the repository's address."""
    url = str(app.config.html_theme_options.get("repository_url", ""))
    found = re.fullmatch(r"https://github\.com/([\w.-]+)/([\w.-]+)/?", url)
    return f"https://{found[1]}.github.io/{found[2]}/" if found else "/"


def description(doctree: Any) -> str:
    """The first paragraph that says something: not a link to Colab, not a caption."""
    for node in doctree.findall(nodes.paragraph) if doctree is not None else ():
        if isinstance(node.parent, nodes.section | nodes.document):
            text = re.sub(r"\s+", " ", node.astext()).strip()
            if len(text) > 60 and not text.startswith(
                ("A chapter of", "A practice page of", "Further reading of")
            ):
                return text if len(text) <= MOST else text[: MOST - 1].rsplit(" ", 1)[0] + "…"
    return "A course on chunked prefilling in LLM inference, to read or to run."


def describe(app: Sphinx, pagename: str, _template: str, context: dict[str, Any], doctree: Any) -> None:
    """Add what search engines and previews of links read; give the front page one title, not twice the same."""
    title = re.sub(r"<[^>]+>", "", str(context.get("title") or "")) or NAME
    front = pagename == str(app.config.root_doc)
    words, address = description(doctree), f"{home(app)}{pagename}.html"
    if front:
        context["docstitle"] = ""
        context["title"] = title = f"{NAME}: a course to read or to run"
    pairs = {
        "og:type": "website" if front else "article",
        "og:site_name": NAME,
        "og:title": title,
        "og:description": words,
        "og:url": address,
        "og:image": home(app) + PICTURE,
        "og:image:alt": "One document and four chats under three schedulers, as a timeline",
    }
    tags = [
        f'<meta name="description" content="{escape(words)}">',
        f'<link rel="canonical" href="{escape(address)}">',
    ]
    tags += [f'<meta property="{name}" content="{escape(value)}">' for name, value in pairs.items()]
    tags.append('<meta name="twitter:card" content="summary_large_image">')
    context["metatags"] = str(context.get("metatags", "")) + "\n" + "\n".join(tags)


LOST = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>There is no such page</title><meta name="robots" content="noindex">
<style>:root{{color-scheme:light dark}}body{{font:1.1rem/1.6 system-ui,sans-serif;max-width:36rem;margin:15vh auto;padding:0 1rem}}</style>
</head><body><h1>There is no such page</h1>
<p>It may have moved: the chapters have practice pages and further reading of their own now.</p>
<p><a href="{home}">To the first page</a> · <a href="{home}search.html">Search the book</a></p></body></html>
"""


def write(app: Sphinx, exception: Exception | None) -> None:
    """After a build: sitemap.xml, robots.txt, 404.html."""
    if exception is not None or app.builder.name != "html":
        return
    out, base = Path(app.outdir), home(app)
    places = "".join(
        f"<url><loc>{escape(base + name)}.html</loc></url>\n" for name in sorted(app.env.found_docs)
    )
    head = '<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n'
    (out / "sitemap.xml").write_text(f"{head}{places}</urlset>\n", encoding="utf8")
    (out / "robots.txt").write_text(f"User-agent: *\nAllow: /\nSitemap: {base}sitemap.xml\n", encoding="utf8")
    (out / "404.html").write_text(LOST.format(home=escape(base)), encoding="utf8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("html-page-context", describe, priority=998)
    app.connect("build-finished", write)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
