"""Write `book/api.md` and a page for each room of the packages: `python tools/api.py [--check]`.

Nothing is imported, so that the pages can be made where torch is not installed. The names are those of the tables
`_PUBLIC` in each package's `__init__.py`, grouped by room and module; signatures and docstrings are read with `ast`.
"""

from __future__ import annotations

import argparse
import ast
import copy
import inspect
import json
import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("chunkprefill", "chunkprefill_course")
BOOK = ROOT / "book"
ARGUMENT = r"[a-z_]\w*(?:, [a-z_]\w*)*: +\S"  # a line that explains an argument
WIDTH = 72  # characters of a signature line; a phone scrolls the box, a desktop need not

MADE = (
    "<!-- Written by tools/api.py from the sources. Do not edit: change a docstring, then `make pages`. -->"
)

HEAD = f"""# The package, name by name

{MADE}

`import chunkprefill as cp`, then `cp.NAME`; a name is imported when it is first used, so the scheduler and the simulator start
without torch. Each room of the package has a page of its own, which says what its names take and return.
"""

UNITS = """Shapes are in brackets: `T` tokens in one pass, `S` positions in the cache, `H` query heads, `Hkv` key/value
heads, `D` numbers in a head, `L` layers. Times are in seconds, sizes in bytes, lengths in tokens.
"""


@dataclass(frozen=True)
class ApiPage:
    """One page: its file's name, its title, what a reader finds in it, and the modules whose names it holds."""

    name: str
    title: str
    says: str
    modules: tuple[str, ...]  # dotted; one that is a package stands for all that is in it
    package: str = "chunkprefill as cp"

    def holds(self, module: str) -> bool:
        return any(f"{module}.".startswith(f"{one}.") for one in self.modules)


#: A phone lays out and styles a page as a whole: all names on one page kept it busy for seconds.
API_PAGES = (
    ApiPage(
        "cache",
        "Cache, model and engine",
        "Cut a prompt into chunks, build its KV cache on a model, generate from it; run many prompts on an engine.",
        tuple(f"chunkprefill.{one}" for one in ("splitting", "generation", "engine", "model", "env")),
    ),
    ApiPage(
        "scheduling",
        "Scheduling",
        "Requests, plans, batches and traces; the pool of cache blocks; the loop that serves requests; the policies that decide who runs.",
        ("chunkprefill.scheduling",),
    ),
    ApiPage(
        "simulation",
        "Simulation and prices",
        "Run the loop on a price in place of a model: cost models, named models and devices, workloads, capacity, calibration.",
        ("chunkprefill.simulation", "chunkprefill.configs"),
    ),
    ApiPage(
        "metrics",
        "Metrics and measurements",
        "What a trace says: waits, gaps, summaries, where the time of a step goes; and how an engine is measured and profiled.",
        tuple(f"chunkprefill.{one}" for one in ("metrics", "measuring", "profiling", "recording", "measure")),
    ),
    ApiPage(
        "plots",
        "Pictures",
        "Draw a trace or numbers: each picture is an SVG with its caption, its description and a table of its numbers.",
        ("chunkprefill.plots",),
    ),
    ApiPage(
        "servers",
        "Real servers",
        "Probe a running server, read what the probe recorded, and get advice on the server's settings.",
        ("chunkprefill.servers",),
    ),
    ApiPage(
        "course",
        "The course's own",
        "Forms that ask and answer, and recorded runs: what the notebooks and pages use beside the library.",
        ("chunkprefill_course",),
        "chunkprefill_course as course",
    ),
)

Definition = ast.ClassDef | ast.FunctionDef | ast.Assign | ast.AnnAssign


@dataclass(frozen=True)
class DefinedAt:
    """Where a public name is defined: its node, and the source lines around it."""

    node: Definition
    lines: list[str]

    def lead(self, node: ast.stmt) -> str:
        """The `#:` or `#` lines right above a statement."""
        first = node.lineno - 1
        while first and self.lines[first - 1].startswith("#"):
            first -= 1
        return " ".join(line.lstrip("#: ") for line in self.lines[first : node.lineno - 1])

    def comment(self, node: ast.stmt) -> str:
        """The comment at the end of a statement's last line; it holds the unit."""
        line = self.lines[(node.end_lineno or node.lineno) - 1][node.end_col_offset or 0 :]
        return line.partition("#")[2].strip()


def public_table(source: str) -> dict[str, list[str]]:
    """`_PUBLIC` as {module: names}, read from the text of a package's `__init__.py`; {} where it has none."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_PUBLIC":
            return {module: names.split() for module, names in ast.literal_eval(node.value).items()}
    return {}


def module_path(module: str) -> Path:
    """The file of `module`, dotted, the package first."""
    base = ROOT.joinpath(*module.split("."))
    return base.with_suffix(".py") if base.with_suffix(".py").is_file() else base / "__init__.py"


@cache
def find(module: str, name: str, *, seen: frozenset[str] = frozenset()) -> DefinedAt:
    """The definition of `name`, followed through `from … import` where a package hands it on."""
    path = module_path(module)
    source = path.read_text("utf8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return DefinedAt(node, source.splitlines())
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if isinstance(node, ast.Assign | ast.AnnAssign) and any(
            getattr(t, "id", "") == name for t in targets
        ):
            return DefinedAt(node, source.splitlines())
    for inner, names in public_table(source).items():  # a package with a lazy table of its own
        if name in names:
            return find(f"{module}.{inner}", name, seen=seen | {module})
    for line in ast.walk(ast.parse(source)):
        if isinstance(line, ast.ImportFrom) and any((a.asname or a.name) == name for a in line.names):
            here = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
            base = here[: len(here) - line.level + 1] if line.level else []
            full = ".".join(filter(None, [*base, line.module]))
            target = full
            if target not in seen and module_path(target).is_file():
                return find(target, name, seen=seen | {module})
    raise ValueError(f"_PUBLIC names {module}.{name}, and {path.relative_to(ROOT)} does not define it")


def signature(node: ast.FunctionDef, *, name: str = "", method: bool = False) -> str:
    """`name(arguments) -> result`, one argument a line where one line is too long."""
    args = copy.deepcopy(node.args)
    if method and args.args:  # self, and a default only if every argument has one
        args.args.pop(0)
        args.defaults = args.defaults[-len(args.args) :] if args.args else []
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    inside = ast.unparse(args)
    line = f"{name or node.name}({inside}){result}"
    if len(line) <= WIDTH:
        return line
    parts = _split_arguments(inside)
    return f"{name or node.name}(\n" + "".join(f"    {part},\n" for part in parts) + f"){result}"


def _split_arguments(text: str) -> list[str]:
    """The arguments of a call, split at the commas that are in no bracket and no string."""
    parts, depth, quote, start = [], 0, "", 0
    for i, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character == "," and not depth:
            parts.append(text[start:i].strip())
            start = i + 1
    return [*parts, text[start:].strip()]


def _escaped(text: str) -> str:
    """`text` with its backticks kept and every other mark of MyST made harmless."""
    spans = re.split(r"(``[^`]+``|`[^`\n]+`)", text)
    return "".join(
        "`" + span.strip("`") + "`" if i % 2 else re.sub(r"([\\*_\[\]<>${}|~#])", r"\\\1", span)
        for i, span in enumerate(spans)
    )


def prose(docstring: str | None) -> str:
    """A docstring as MyST: backticks stay code, `name: text` lines become a list, examples stay."""
    if not docstring:
        return ""
    blocks = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(docstring)):
        lines = block.splitlines()
        if all(line.startswith(("    ", ">>>")) for line in lines):
            blocks.append("```text\n" + inspect.cleandoc("\n".join(["", *lines])) + "\n```")
            continue
        if re.match(ARGUMENT, lines[0]) and all(re.match(rf"{ARGUMENT}|  ", line) for line in lines):
            items = re.sub(r"\n +", " ", "\n".join(lines)).splitlines()  # one argument a line
            named = [item.partition(":") for item in items]
            blocks.append("\n".join(f"- `{name}`: {_escaped(text.strip())}" for name, _, text in named))
            continue
        blocks.append(_escaped("\n".join(line.strip() for line in lines)))
    return "\n\n".join(blocks)


def as_code(text: str) -> list[str]:
    """Lines of a Python block, as a directive: a signature is no program, and formatters leave it alone."""
    return ["```{code-block} python", ":class: cp-signature", text, "```"]


def is_dataclass(node: ast.ClassDef) -> bool:
    """Whether a decorator makes `node` a dataclass."""
    return any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)


def class_lines(found: DefinedAt, name: str) -> list[str]:
    """A class as MyST: how it is made, its docstring, its public methods."""
    node = found.node
    assert isinstance(node, ast.ClassDef)
    fields = [
        n for n in node.body if isinstance(n, ast.AnnAssign) and not ast.unparse(n.target).startswith("_")
    ]
    methods = [n for n in node.body if isinstance(n, ast.FunctionDef)]
    init = next((m for m in methods if m.name == "__init__"), None)
    if init is not None:
        made = signature(init, name=name, method=True).removesuffix(" -> None")
    elif is_dataclass(node) or fields:
        made = f"{name}(\n"
        for field in fields:
            if "ClassVar" in ast.unparse(field.annotation) or "init=False" in ast.unparse(field):
                continue
            default = f" = {ast.unparse(field.value)}" if field.value else ""
            note = found.comment(field)
            line = f"    {ast.unparse(field.target)}: {ast.unparse(field.annotation)}{default},"
            made += line + (f"  # {note}" if note else "") + "\n"
        made = made + ")" if made.count("\n") > 1 else f"{name}()"
    else:
        made = f"class {name}"
    out = [*as_code(made), "", prose(ast.get_docstring(node)), ""]
    for method in methods:
        doc = ast.get_docstring(method)
        if method.name.startswith("_") or not doc:
            continue
        decorators = {ast.unparse(d) for d in method.decorator_list}
        title = (
            method.name if decorators & {"property", "cached_property", "functools.cached_property"} else None
        )
        text = title or signature(method, method="staticmethod" not in decorators)
        first, _, rest = prose(doc).partition("\n\n")
        term = " ".join(text.split()).replace("( ", "(").replace(", )", ")")
        out += [
            f"`.{term}`",
            f": {first}",
            *("\n  " + part.replace("\n", "\n  ") for part in rest.split("\n\n") if rest),
            "",
        ]
    return out


def name_lines(module: str, name: str) -> list[str]:
    """One public name as MyST."""
    found = find(module, name)
    node = found.node
    out = [f"({label(module, name)})=", f"### `{name}`", ""]
    if isinstance(node, ast.ClassDef):
        return out + class_lines(found, name)
    if isinstance(node, ast.FunctionDef):
        return [*out, *as_code(signature(node)), "", prose(ast.get_docstring(node)), ""]
    return [*out, *constant_lines(found, node, name), prose(found.comment(node)), ""]


def rows_read(value: ast.AST | None) -> list[str]:
    """Names of the rows, where a constant is a table among the library's data."""
    for each in ast.walk(value) if isinstance(value, ast.DictComp) else ():
        if isinstance(each, ast.Constant) and str(each.value).endswith(".json"):
            data = ROOT / "chunkprefill" / "data" / str(each.value)
            return list(json.loads(data.read_text("utf8"))["rows"])
    return []


def constant_lines(found: DefinedAt, node: ast.Assign | ast.AnnAssign, name: str) -> list[str]:
    """A constant as MyST: a table of names as a list, any other value as it is written, if it is short."""
    note = [prose(found.lead(node)), ""]
    if rows := rows_read(node.value):
        return [*note, ", ".join(f"`{row}`" for row in rows) + ".", ""]
    if isinstance(node.value, ast.Dict) and all(isinstance(key, ast.Constant) for key in node.value.keys):
        keys = [f"`{key.value!s}`" for key in node.value.keys if isinstance(key, ast.Constant)]
        values = node.value.values
        if not all(isinstance(value, ast.Constant) and isinstance(value.value, str) for value in values):
            return [*note, ", ".join(keys) + ".", ""]
        said = [value.value for value in values if isinstance(value, ast.Constant)]
        return [*note, *(f"- {key}: {_escaped(str(text))}" for key, text in zip(keys, said)), ""]
    value = ast.unparse(node.value) if node.value else "…"
    if isinstance(node.value, ast.Call):  # an exercise holds its solution
        value = f"{ast.unparse(node.value.func)}(…)"
    return [*note, *as_code(f"{name} = {value if len(value) <= WIDTH else '…'}"), ""]


def tables() -> dict[str, list[str]]:
    """{dotted module: its public names}, of both packages."""
    found: dict[str, list[str]] = {}
    for package in PACKAGES:
        table = public_table(module_path(package).read_text("utf8"))
        found |= {f"{package}.{module}": names for module, names in table.items()}
    return found


def page_of(module: str) -> ApiPage:
    """The one room that holds `module`."""
    found = [room for room in API_PAGES if room.holds(module)]
    if len(found) != 1:
        rooms = ", ".join(room.name for room in found) or "none"
        raise ValueError(
            f"{module}: each module belongs to one room of API_PAGES, and these hold it: {rooms}"
        )
    return found[0]


def label(module: str, name: str) -> str:
    """What a link to a name is written to: `Picture` and `picture` are two."""
    is_class = isinstance(find(module, name).node, ast.ClassDef)
    return f"api-{'class-' if is_class else ''}{name}"


def api_page(room: ApiPage) -> str:
    """A room's page: each of its modules, each of their names."""
    short = room.package.split()[-1]
    out = [f"# {room.title}, name by name", "", MADE, "", room.says]
    out += [f"`import {room.package}`, then `{short}.NAME`. [All names](../api.md).", "", UNITS]
    for module, names in tables().items():
        if page_of(module) is room:
            docstring = ast.get_docstring(ast.parse(module_path(module).read_text("utf8"))) or ""
            out += [f"## `{module}`", "", prose(docstring.partition("\n")[0]), ""]
            for name in names:
                out += name_lines(module, name)
    return _tidy(out)


def first_page() -> str:
    """`book/api.md`: the rooms, and all their names as links."""
    out = [HEAD]
    for room in API_PAGES:
        names = [(m, name) for m, names in tables().items() if page_of(m) is room for name in names]
        links = ", ".join(
            f"[`{name}`]({label(m, name)})" for m, name in sorted(names, key=lambda one: one[1].lower())
        )
        out += [f"## [{room.title}](api/{room.name}.md)", "", room.says, "", f"{links}.", ""]
    return _tidy(out)


def _tidy(lines: list[str]) -> str:
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def pages() -> dict[Path, str]:
    """{file: text} of all that this writes."""
    made = {BOOK / "api.md": first_page()}
    return made | {BOOK / f"api/{room.name}.md": api_page(room) for room in API_PAGES}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="fail if a page is stale; write nothing")
    check = parser.parse_args().check
    made = pages()
    stale = [path for path, text in made.items() if not path.is_file() or path.read_text("utf8") != text]
    stale += sorted(set((BOOK / "api").glob("*.md")) - set(made))  # of a room that is no more
    if check:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is stale: run `make pages`", file=sys.stderr)
        return int(bool(stale))
    (BOOK / "api").mkdir(exist_ok=True)
    for path in stale:
        if path in made:
            path.write_text(made[path], encoding="utf8")
        else:
            path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
