"""What every bench shares: its options, its provenance, whose turn it is, and how its JSON is written."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from chunkprefill.recording import provenance

ROOT = Path(__file__).resolve().parents[1]
T = TypeVar("T")

DTYPES = ("float64", "float32", "bfloat16", "float16")
#: On a machine that others use, `cpu` counts this process alone.
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


def positive(text: str) -> int:
    """A count on the command line; ArgumentTypeError for one below 1."""
    return _at_least(1, text)


def natural(text: str) -> int:
    """A count on the command line that may be 0; ArgumentTypeError for one below."""
    return _at_least(0, text)


def _at_least(least: int, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
    if value < least:
        raise argparse.ArgumentTypeError(f"{value} is below {least}")
    return value


def options(bench: str, doc: str | None) -> argparse.ArgumentParser:
    """A parser with the options that every bench has."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {bench}", description=doc)
    add_common_args(parser)
    return parser


def add_common_args(parser: argparse.ArgumentParser) -> None:
    """The same options, for a tool that measures as well."""
    parser.add_argument("--out", type=Path, help="write the JSON here (default: standard output)")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers (default: %(default)s)")
    parser.add_argument("--commit", help="the commit measured, where there is no .git to ask")
    parser.add_argument("--dirty", choices=("true", "false"), help="whether the tree had uncommitted changes")


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Where a bench of the model runs, and in which type."""
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--dtype", choices=DTYPES, help="default: float32, on cuda bfloat16")
    parser.add_argument("--threads", type=positive, help="of torch (default: its own choice)")


def provenance_of(args: argparse.Namespace, device: str | None = None) -> dict[str, Any]:
    """Where the numbers of this run come from: `provenance`, as the options say. device: default --device."""
    device = device or getattr(args, "device", None) or "cpu"
    return provenance(seed=args.seed, device=device, commit=args.commit, dirty=args.dirty)


def turn(items: Iterable[T], i: int) -> list[T]:
    """The items of round `i`: in order, in the next round the other way, so that none always comes first."""
    order = list(items)
    return order if i % 2 == 0 else order[::-1]


def write(document: dict[str, Any], out: Path | None) -> None:
    """JSON to a file, replaced in one step (a killed bench leaves the old one), or to standard output."""
    text = json.dumps(document, indent=1) + "\n"
    if out is None:
        sys.stdout.write(text)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".part")
    partial.write_text(text)
    partial.replace(out)
    print(f"wrote {out}", file=sys.stderr)
