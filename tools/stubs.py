"""The packages' `__init__.pyi`, made from their tables of public names, for editors and type checkers.

    python tools/stubs.py [--check]

`import chunkprefill as cp` imports a name when it is first used, which a reader's editor cannot see through.
Nothing of the packages is imported here.
"""

from __future__ import annotations

import argparse
import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("chunkprefill", "chunkprefill_course")


def tables(package: str) -> tuple[dict[str, str], dict[str, str]]:
    """Module -> names, and room -> module, as the package's own file has them."""
    public: dict[str, str] = {}
    rooms: dict[str, str] = {}
    for node in ast.walk(ast.parse((ROOT / package / "__init__.py").read_text("utf8"))):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_PUBLIC":
            public = ast.literal_eval(node.value)
        elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_ROOMS":
            rooms = ast.literal_eval(node.value)
    return public, rooms


def _rank(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions: the order that the formatter keeps imports in."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def stub(package: str) -> str:
    """The text of `__init__.pyi`."""
    public, rooms = tables(package)
    lines = ["# Made by tools/stubs.py from the table in __init__.py: `make pages` writes it again."]
    lines += [f"from {package} import {module} as {name}" for name, module in sorted(rooms.items())]
    for module, names in sorted(public.items()):
        lines += [
            f"from {package}.{module} import {name} as {name}" for name in sorted(names.split(), key=_rank)
        ]
    if package == "chunkprefill":
        lines += ["", "__version__: str"]
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if one is stale")
    args = parser.parse_args(argv)
    stale = []
    for package in PACKAGES:
        path, text = ROOT / package / "__init__.pyi", stub(package)
        if path.is_file() and path.read_text("utf8") == text:
            continue
        stale.append(f"{package}/__init__.pyi")
        if not args.check:
            path.write_text(text, encoding="utf8")
    if args.check and stale:
        print(f"stale, run `make pages`: {', '.join(stale)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
