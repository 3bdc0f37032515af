"""What nbval does not see in a notebook: pictures without words, widgets without state, what Colab lacks."""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import ipywidgets
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
VIEW = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"

# A path that starts at the root of a machine: none of a URL, a closing tag, `and/or`, `tokens/s`.
_ROOTS = "home|root|Users|usr|tmp|var|opt|mnt|srv|etc|private|content|workspaces?"
ABSOLUTE = re.compile(rf"(?<![\w.:/<~*-])/(?:{_ROOTS})/[\w.-]+|\b[A-Za-z]:\\+[\w.-]+")
ADDRESS = re.compile(r"<[^<>]* at 0x[0-9a-f]+>")
MARKDOWN_IMAGE = re.compile(r"!\[\s*\]\(")
EMPTY_ALTS = {"", "figure", "image", "picture", "plot", "chart", "graph", "diagram"}

# Between ipywidgets 7.7.1, which Colab has, and 8: what only one of the two knows. Held to the installed
# version 8 by tests/notebooks, and to 7.7.1 by `tools/colab.py check`.
ONLY_8 = {
    "ColorsInput",
    "DatetimePicker",
    "FloatsInput",
    "IntsInput",
    "NaiveDatetimePicker",
    "Stack",
    "TagsInput",
    "TimePicker",
}
ONLY_8_ARGUMENTS = {
    "behavior",
    "border_bottom",
    "border_left",
    "border_right",
    "border_top",
    "description_allow_html",
    "font_family",
    "font_size",
    "font_style",
    "font_variant",
    "playing",
    "repeat",
    "tabbable",
    "text_color",
    "text_decoration",
    "titles",
    "tooltip",
}
ONLY_7_ARGUMENTS = {"description_tooltip", "overflow_x", "overflow_y"}
IN_BOTH = {("Button", "tooltip"), ("ToggleButton", "tooltip")}

PLOTTING = re.compile(
    r"\bplt\.(?!show\b|close\b|style\b|rcParams\b)\w+\(|\.(?:plot|bar|barh|step|scatter|imshow)\("
)
SHOWN = re.compile(r"\bplt\.show\(|\bdisplay\(")


def lint(notebook: NotebookNode) -> list[str]:
    """Findings, each beginning with the cell that it is about; an empty list is a clean notebook."""
    found = [*_metadata(notebook)]
    for index, cell in enumerate(notebook.cells):
        found += [f"cell {index} ({cell.get('id', '?')}): {what}" for what in _cell(cell)]
    found += [f"the code: {what}" for what in lint_code(code_of(notebook))]
    return [*found, *_order(notebook)]


def code_of(notebook: NotebookNode) -> str:
    """The notebook's Python, magics and shell lines left out."""
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    lines = "\n".join(cells).splitlines()
    return "\n".join(re.sub(r"^(\s*)[%!].*", r"\1pass", line) for line in lines)


# --- cells and their outputs --------------------------------------------------------------------------


def _cell(cell: NotebookNode) -> Iterator[str]:
    if cell.cell_type != "code":
        if MARKDOWN_IMAGE.search(cell.source):
            yield "an image without alt text"
        yield from unnamed_pictures(cell.source)
        yield from _paths(cell.source)
        return
    yield from _paths(cell.source)
    for output in cell.outputs:
        if output.output_type == "error":
            yield f"an error output, {output.ename}: {output.evalue}"
        elif output.output_type == "stream":
            if output.name == "stderr":
                yield f"something on stderr, which a reader would see: {output.text.strip()[:80]!r}"
            yield from _paths(output.text)
        else:
            yield from _data(output.data)


def _data(data: NotebookNode) -> Iterator[str]:
    html = _text(data.get("text/html", ""))
    for kind in data:
        if kind.startswith("image/") and not html:
            yield f"{kind} without alt text: show it as HTML with a name (analysis.style does)"
    for kind, content in data.items():
        if kind.startswith("text/") or kind == "image/svg+xml":
            text = _text(content)
            yield from _paths(text)
            if found := ADDRESS.search(text):
                yield f"an address in memory, new at each run: {found[0]}"
    yield from unnamed_pictures(html)


def _text(content: str | list[str]) -> str:
    return content if isinstance(content, str) else "".join(content)


def _paths(text: str) -> Iterator[str]:
    home = os.path.expanduser("~")  # "~" for a user who has none
    own = [str(place) for place in (ROOT, Path(home)) if len(place.parts) > 1 and str(place) in text]
    for path in [*own[:1], *(found[0] for found in ABSOLUTE.finditer(text))][:1]:
        yield f"an absolute path, {path}"


VOID = {"area", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


class _Pictures(HTMLParser):
    """Finds `<svg>` and `<img>` that say nothing to a reader who does not see them."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[
            tuple[str, bool]
        ] = []  # each with: is it, or what it is in, hidden or part of an image?
        self.unnamed: list[str] = []
        self.waiting: dict[int, str] = {}  # depth of an svg without a label: a <title> may still name it

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        has = {name: (value or "").strip() for name, value in attrs}
        hidden = has.get("aria-hidden") == "true" or has.get("role") in ("presentation", "none")
        inside = bool(self.open) and self.open[-1][1]
        if tag == "img" and not (hidden or inside) and has.get("alt", "").lower() in EMPTY_ALTS:
            self.unnamed.append("an <img> without alt text")
        if tag == "svg" and not (hidden or inside):
            named = has.get("aria-label", "").lower() not in EMPTY_ALTS or has.get("aria-labelledby")
            if has.get("role") != "img":
                self.unnamed.append('an <svg> that is neither role="img" nor aria-hidden="true"')
            elif not named:
                self.waiting[len(self.open)] = "an <svg> without aria-label or <title>"
        if tag == "title" and self.open and self.open[-1][0] == "svg":
            self.waiting.pop(len(self.open) - 1, None)
        if tag not in VOID:
            self.open.append((tag, inside or hidden or tag == "svg"))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        while any(name == tag for name, _ in self.open):
            name, _ = self.open.pop()
            if said := self.waiting.pop(len(self.open), None):
                self.unnamed.append(said)
            if name == tag:
                return


def unnamed_pictures(html: str) -> list[str]:
    """One line for each picture in this HTML that has no words for a reader who does not see it."""
    parser = _Pictures()
    parser.feed(html)
    parser.close()
    return [*parser.unnamed, *parser.waiting.values()]


# --- widgets ------------------------------------------------------------------------------------------


def widget_state(notebook: NotebookNode) -> dict | None:
    """The saved widget models, by id; None where there is none, or what is there has not their form."""
    place: object = notebook.metadata
    for key in ("widgets", STATE, "state"):
        place = place.get(key) if isinstance(place, dict) else None
    return place if isinstance(place, dict) else None


def _metadata(notebook: NotebookNode) -> Iterator[str]:
    """Every view has its state, every reference its model, every picture inside a widget its words."""
    if notebook.metadata.get("widgets") and widget_state(notebook) is None:
        yield "metadata.widgets without `state`, as Colab saves it, kills nbconvert: run `make notebooks`"
    state = widget_state(notebook) or {}
    for index, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            view = output.get("data", {}).get(VIEW)
            if view is not None and view.get("model_id") not in state:
                yield f"cell {index} ({cell.get('id')}): a widget without saved state; run `make notebooks`"
    for reference in sorted(set(re.findall(r"IPY_MODEL_(\w+)", json.dumps(state))) - set(state)):
        yield f"metadata.widgets: a widget names model {reference}, which has no state"
    for name, model in state.items():
        if model.get("model_name") == "ImageModel":
            yield f"metadata.widgets, {name}: an Image widget has no alt text; use HTML('<img alt=...>')"
        if isinstance(value := model.get("state", {}).get("value"), str):
            yield from (f"metadata.widgets, {name}: {what}" for what in unnamed_pictures(value))


def lint_code(source: str) -> list[str]:
    """What of this Python would not work with ipywidgets 7.7 and 8 alike, or draws and never shows."""
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        return [f"line {error.lineno} is no Python: {error.msg}"]
    return [*_versions(tree), *_silent_plots(tree)]


def _versions(tree: ast.Module) -> Iterator[str]:
    modules, names = _ipywidgets_names(tree)
    if not (modules or names):
        return
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=owner), attr=attr) if owner in modules and attr in ONLY_8:
                yield f"ipywidgets.{attr} is new in ipywidgets 8, and Colab has 7.7.1"
            case ast.ImportFrom(module="ipywidgets"):
                for alias in node.names:
                    if alias.name in ONLY_8:
                        yield f"ipywidgets.{alias.name} is new in ipywidgets 8, and Colab has 7.7.1"
            case ast.Assign(targets=targets):
                for target in targets:
                    if isinstance(target, ast.Attribute) and target.attr in ("titles", "tabbable"):
                        yield f".{target.attr} is new in ipywidgets 8, and Colab has 7.7.1"
            case ast.Call(func=ast.Attribute(value=ast.Name(id=owner), attr=cls)) if owner in modules:
                yield from _arguments(cls, node)
            case ast.Call(func=ast.Name(id=name)) if name in names:
                yield from _arguments(names[name], node)


def _ipywidgets_names(tree: ast.Module) -> tuple[set[str], dict[str, str]]:
    """What ipywidgets is called here, and what its classes are called: `{local name: class}`."""
    modules: set[str] = set()
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {a.asname or a.name for a in node.names if a.name == "ipywidgets"}
        elif isinstance(node, ast.ImportFrom) and node.module == "ipywidgets":
            names |= {a.asname or a.name: a.name for a in node.names}
    return modules, names


def _arguments(cls: str, call: ast.Call) -> Iterator[str]:
    if not (
        isinstance(known := getattr(ipywidgets, cls, None), type) and issubclass(known, ipywidgets.Widget)
    ):
        return
    for keyword in call.keywords:
        if keyword.arg in ONLY_8_ARGUMENTS and (cls, keyword.arg) not in IN_BOTH:
            yield f"{cls}({keyword.arg}=...) is new in ipywidgets 8, and Colab has 7.7.1"
        if keyword.arg in ONLY_7_ARGUMENTS:
            yield f"{cls}({keyword.arg}=...) is gone from ipywidgets 8"


def _silent_plots(tree: ast.Module) -> Iterator[str]:
    """Callbacks that plot without plt.show(): Colab and ipywidgets then show nothing, or the plot before."""
    functions = {f.name: f for f in ast.walk(tree) if isinstance(f, ast.FunctionDef)}
    callbacks: list[ast.AST] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and any(_called(d) in INTERACT for d in node.decorator_list):
            callbacks.append(node)
        if isinstance(node, ast.Call) and _called(node) in REGISTER | INTERACT:
            callbacks += [arg for arg in node.args[:1] if isinstance(arg, ast.Name | ast.Lambda)]
    for callback in callbacks:
        code = _reached(callback, functions)
        if PLOTTING.search(code) and not SHOWN.search(code):
            name = getattr(callback, "id", getattr(callback, "name", "a lambda"))
            yield f"{name} is called by a widget and plots: end it with plt.show()"


INTERACT = {"interact", "interactive", "interactive_output", "interact_manual"}
REGISTER = {"observe", "on_click", "on_submit"}


def _called(node: ast.AST) -> str:
    node = node.func if isinstance(node, ast.Call) else node
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _reached(start: ast.AST, functions: dict[str, ast.FunctionDef]) -> str:
    """The source of a callback and of every function here that it calls, directly or not."""
    seen: dict[str, str] = {}
    todo: list[ast.AST] = [start]
    while todo:
        node = todo.pop()
        node = functions.get(node.id, node) if isinstance(node, ast.Name) else node
        if (text := ast.unparse(node)) not in seen:
            seen[text] = text
            todo += [n for n in ast.walk(node) if isinstance(n, ast.Name) and n.id in functions]
    return "\n".join(seen)


# --- the run ------------------------------------------------------------------------------------------


def _order(notebook: NotebookNode) -> Iterator[str]:
    """Committed outputs come from one run, from the top."""
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code" and cell.source]
    if counts != list(range(1, len(counts) + 1)):
        yield f"cells were run in the order {counts}: run `make notebooks`"
