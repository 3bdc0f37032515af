"""`python -m benchmarks NAME [options]` runs one bench and writes its JSON."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import benchmarks

HELPERS = {
    "__main__",
    "checkpoints",
    "drive",
    "kernel_fit",
    "openvino_worker",
    "overhead_runs",
    "runner",
    "twin",
    "vllm_server",
    "vllm_worker",
}


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    names = sorted({m.name for m in pkgutil.iter_modules(benchmarks.__path__)} - HELPERS)
    if not argv or argv[0] not in names:
        wrong = f"no bench named {argv[0]!r}\n" if argv and not argv[0].startswith("-") else ""
        print(f"{wrong}usage: python -m benchmarks {{{','.join(names)}}} [--help]", file=sys.stderr)
        return 0 if argv and argv[0] in ("-h", "--help") else 2
    return importlib.import_module(f"benchmarks.{argv[0]}").main(argv[1:])


if __name__ == "__main__":
    sys.exit(main())
