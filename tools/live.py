"""The part of the packages that runs in a page, as one zip: `python tools/live.py [--out FILE]`.

A browser has Python and its standard library, and nothing else. A module belongs to that *floor* if all that
it imports at its top, and all that those import, is the standard library or stands on the floor itself. What
a function imports when it is called does not count: it is asked for only where it is there. `make html` makes
the zip from the sources; it is the same, byte for byte, on every machine.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import sys
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(Path(__file__).parent))
import slices  # noqa: E402

PACKAGES = ("chunkprefill", "chunkprefill_course")
OUT = ROOT / "book/_static/live/packages.zip"
DATA = (".css", ".json", ".txt", ".html", ".md")  # what modules read beside themselves
NOT_IN_A_PAGE = ("chunkprefill_course/data/", "chunkprefill_course/evidence/")
#: Of the room that talks to real servers a page takes the advice, and what that imports. A page has no server.
OF_SERVERS = (
    "chunkprefill.servers",
    "chunkprefill.servers.advise",
    "chunkprefill.servers.client",
    "chunkprefill.servers.stream",
)
READS_A_SERVER = ("chunkprefill_course.clinic.reading",)
#: What modules on the floor read from elsewhere.
TABLES = ("accuracy", "config_keys", "devices", "kernels", "models")
BESIDE = tuple(f"chunkprefill/data/{name}.json" for name in TABLES)


@cache
def modules() -> dict[str, Path]:
    """Dotted name -> file, of the packages."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def top_imports(path: Path) -> set[str]:
    """Dotted names that a file imports when it is loaded; what stands under `if TYPE_CHECKING` is not."""
    found: set[str] = set()
    todo: list[ast.AST] = [ast.parse(path.read_text("utf8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        todo += ast.iter_child_nodes(node)
    return found


@cache
def needs(name: str) -> frozenset[str]:
    """Distributions outside the standard library that loading the module `name` needs."""
    found: set[str] = set()
    seen, todo = {name}, [name]
    while todo:
        for dotted in top_imports(modules()[todo.pop()]):
            top = dotted.partition(".")[0]
            if top not in PACKAGES:
                found |= {top} - set(sys.stdlib_module_names)
                continue
            while dotted not in modules():
                dotted = dotted.rpartition(".")[0]
            if dotted not in seen:
                seen.add(dotted)
                todo.append(dotted)
    return frozenset(found)


def in_a_page() -> list[str]:
    """Modules of the floor that a page is sent."""
    kept = []
    for name in floor():
        place = modules()[name].relative_to(ROOT).as_posix()
        asks = name.startswith("chunkprefill.servers") and name not in OF_SERVERS
        if not (asks or name in READS_A_SERVER or place.startswith(NOT_IN_A_PAGE)):
            kept.append(name)
    return kept


def floor() -> list[str]:
    """Modules that load on the standard library alone."""
    return [name for name in modules() if not needs(name)]


def files() -> list[Path]:
    """What the zip holds: the floor, and the data beside it."""
    kept = [modules()[name] for name in in_a_page()]
    rooms = {path.parent for path in kept}
    kept += [path for room in rooms for path in room.iterdir() if path.suffix in DATA]
    return sorted([*kept, *(ROOT / place for place in BESIDE)])


def contents() -> dict[str, bytes]:
    """{place in the zip: bytes}: the files, and the programs of the explorers that the notebooks hold."""
    programs = json.dumps(slices.live(), indent=1, ensure_ascii=False).encode()
    held = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in files()}
    return dict(sorted((held | {"chunkprefill_course/live/explorers.json": programs}).items()))


def packed() -> bytes:
    """The zip: names in order, one date for all, so that equal sources give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for place, content in contents().items():
            info = zipfile.ZipInfo(place, (2020, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return buffer.getvalue()


def fetched() -> list[Path]:
    """What a page fetches beside the zip when a reader first presses Run: the page says how much of it is here."""
    static = ROOT / "book/_static"
    core = [path for path in (static / "vendor/pyodide").iterdir() if path.name != "LICENSE"]
    return sorted([*core, static / "live-worker.js"])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=OUT, help="default: book/_static/live/packages.zip")
    out = parser.parse_args(argv).out
    out.parent.mkdir(parents=True, exist_ok=True)
    content = packed()
    sys.path.insert(0, str(ROOT))
    from chunkprefill_course.live import explorers
    from chunkprefill_course.live.lab import options

    form = json.dumps(options(), indent=1).encode()
    asked: dict[str, Any] = {id: slices.asked(explorers.made(made)) for id, made in slices.live().items()}
    asked |= slices.NOT_LIVE  # a page shows a field for a number, or says why there is none
    sizes = {path.name: path.stat().st_size for path in fetched()} | {"packages.zip": len(content)}
    for path, made in (
        (out, content),
        (out.with_name("sizes.json"), json.dumps(sizes, indent=1).encode()),
        (out.with_name("lab.json"), form),
        (out.with_name("explorers.json"), json.dumps(asked, ensure_ascii=False).encode()),
    ):
        if not path.is_file() or path.read_bytes() != made:  # an unchanged file keeps its date
            path.write_bytes(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
