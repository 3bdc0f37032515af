"""`python -m chunkprefill.bench NAME [options]` runs one bench and writes its JSON."""

from __future__ import annotations

import importlib
import pkgutil
import sys

from chunkprefill import bench

HELPERS = {"twin", "overhead_runs", "__main__", "kernel_fit", "provenance"}  # and gpu_*


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    found = {m.name for m in pkgutil.iter_modules(bench.__path__)} - HELPERS
    names = sorted(name for name in found if not name.startswith("gpu_"))
    if not argv or argv[0] not in names:
        wrong = f"no bench named {argv[0]!r}\n" if argv and not argv[0].startswith("-") else ""
        print(f"{wrong}usage: python -m chunkprefill.bench {{{','.join(names)}}} [--help]", file=sys.stderr)
        return 0 if argv and argv[0] in ("-h", "--help") else 2
    return importlib.import_module(f"chunkprefill.bench.{argv[0]}").main(argv[1:])


if __name__ == "__main__":
    sys.exit(main())
