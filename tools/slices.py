"""What a page must run to draw an explorer anew: the notebook's own statements that its frames hang on.

A page shows the frames that were recorded. To draw one for any value, the reader's browser runs the code of the
notebook: the statement with the `Explorer`, and before it those statements alone that define what it uses. Some
explorers cannot be drawn there, because they need what a page does not have: `NOT_LIVE` says which, and why; the page
says it too.
"""

from __future__ import annotations

import ast
import json
import symtable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
#: In front of each program: what the first cell of a notebook imports, beside its look for Colab.
PRELUDE = "import chunkprefill as cp\nimport chunkprefill_course as course\n"
#: A name that a notebook reads from the real model's weights -> the same without them.
WITHOUT_WEIGHTS = {"config": 'cp.MODELS["smollm2-135m"]'}
COMPREHENSIONS = ("listcomp", "setcomp", "dictcomp", "genexpr")
#: id -> why no page can draw it for a value that was not recorded, as the page says it.
NOT_LIVE = {
    "documents-chats": "its requests are drawn with numpy, which Python in a page does not have here",
    "frontier": "it needs fifty simulated runs and numpy, which Python in a page does not have here",
    "lanes": "the idle share in its caption takes numpy, which Python in a page does not have here",
}
#: Nothing in these is a number: their recorded frames are all that there are.
NO_NUMBER = ("six-rules",)


@dataclass(frozen=True)
class Statement:
    """A top-level statement of a notebook: its text, the names it binds, uses at once, and uses when called."""

    text: str
    binds: frozenset[str]
    uses: frozenset[str]
    late: frozenset[str]


def statements(notebook: Path) -> list[tuple[ast.stmt, Statement]]:
    """All of a notebook, in order; cells that are no plain Python (magics) are left out."""
    found = []
    for cell in json.loads(notebook.read_text("utf8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] != "code":
            continue
        try:
            parsed = ast.parse(source).body
        except SyntaxError:
            continue
        for node in parsed:
            text = ast.get_source_segment(source, node) or ""
            if (
                isinstance(node, ast.Assign)
                and ast.unparse(node.targets[0]) in WITHOUT_WEIGHTS
                and "model" in text
            ):
                name = ast.unparse(node.targets[0])
                text = f"{name} = {WITHOUT_WEIGHTS[name]}"
            found.append((node, _statement(ast.parse(text).body[0], text)))
    return found


def _statement(node: ast.stmt, text: str) -> Statement:
    table = symtable.symtable(text, "cell", "exec")
    binds = {name.get_name() for name in table.get_symbols() if name.is_assigned() or name.is_imported()}
    uses, late = _uses(table, False)
    for inner in ast.walk(node):  # `table[key] = value` changes what it is bound to
        target: ast.AST = inner
        while isinstance(target, ast.Subscript | ast.Attribute):
            changes = isinstance(inner.ctx, ast.Store)  # type: ignore[attr-defined]
            target = target.value
            if changes and isinstance(target, ast.Name):
                binds.add(target.id)
    return Statement(text, frozenset(binds), frozenset(uses | late), frozenset(late))


def _uses(table: symtable.SymbolTable, called: bool) -> tuple[set[str], set[str]]:
    """Global names that a scope reads at once, and those that it reads when a function in it is called."""
    free = {
        name.get_name()
        for name in table.get_symbols()
        if name.is_referenced() and (name.is_global() or table.get_type() == "module")
    }
    at_once, late = (set(), free) if called else (free, set())
    for inner in table.get_children():
        function = inner.get_type() == "function" and inner.get_name() not in COMPREHENSIONS
        more = _uses(inner, called or function)
        at_once, late = at_once | more[0], late | more[1]
    return at_once, late


def is_explorer(node: ast.stmt) -> ast.Call | None:
    """The call, where a statement shows an explorer."""
    call = getattr(node, "value", None)
    if isinstance(call, ast.Call) and ast.unparse(call.func) in ("course.Explorer", "Explorer"):
        return call
    return None


def explorers(notebook: Path) -> dict[str, str]:
    """id -> the program that makes the explorer, under the name `explorer`."""
    every, out = statements(notebook), {}
    for at, (node, shown) in enumerate(every):
        if call := is_explorer(node):
            id = next(ast.literal_eval(k.value) for k in call.keywords if k.arg == "id")
            wanted = sorted(_wanted([s for _, s in every[: at + 1]]))
            made = ast.get_source_segment(shown.text, ast.parse(shown.text).body[0].value)  # type: ignore[attr-defined]
            lines = [every[i][1].text for i in wanted if i != at]
            out[id] = "\n".join([PRELUDE, *lines, f"explorer = {made}"])
    return out


def _wanted(every: list[Statement]) -> set[int]:
    """Numbers of the statements that the last one hangs on, itself among them.

    What a function uses it looks up when it is called: there the last binding counts, not the one before it.
    """
    wanted, todo = {len(every) - 1}, [len(every) - 1]
    while todo:
        at = todo.pop()
        for name in every[at].uses:
            for before in {at, len(every)} if name in every[at].late else {at}:
                for i in reversed(range(before)):
                    if name in every[i].binds:
                        if i not in wanted:
                            wanted.add(i)
                            todo.append(i)
                        break
    return wanted


def all_explorers(root: Path = ROOT) -> dict[str, str]:
    """Those of every notebook; an id is unique in the book."""
    return {
        id: program
        for path in sorted((root / "notebooks").glob("*.ipynb"))
        for id, program in explorers(path).items()
    }


def live(root: Path = ROOT) -> dict[str, str]:
    """Those that a page can draw for any value."""
    recorded = {*NOT_LIVE, *NO_NUMBER}
    return {id: program for id, program in all_explorers(root).items() if id not in recorded}


def asked(explorer: Any) -> dict[str, list[Any]]:
    """What a page asks for: {label: [least, most, whether it is a whole number]} of the parameters that are numbers."""
    found = {}
    for label, values in explorer.parameters.items():
        if len(values) > 1 and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            found[label] = [min(values), max(values), all(isinstance(v, int) for v in values)]
    return found
