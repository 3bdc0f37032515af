"""Where a measurement comes from: machine, date, commit, versions, seed; and how its JSON is written."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


DTYPES = ("float64", "float32", "bfloat16", "float16")


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


def add_common_args(parser: argparse.ArgumentParser) -> None:
    """The options that every bench has."""
    parser.add_argument("--out", type=Path, help="write the JSON here (default: standard output)")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers (default: %(default)s)")
    parser.add_argument("--commit", help="the commit measured, where there is no .git to ask")
    parser.add_argument("--dirty", choices=("true", "false"), help="whether the tree had uncommitted changes")


def provenance(
    *, seed: int, device: str = "cpu", commit: str | None = None, dirty: str | None = None
) -> dict[str, Any]:
    """Everything needed to tell whose numbers these are; what cannot be known reads "unknown".

    Torch is asked only when it is loaded already: a bench of the scheduler does not need it.
    """
    torch = sys.modules.get("torch")
    driver, device_name = "none", cpu_name()
    if torch is not None and device.startswith("cuda"):
        device_name = torch.cuda.get_device_name(device)
        driver = _run("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader") or "unknown"
    changed = _run("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no")
    return {
        "device": device_name,
        "driver": driver,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit or _run("git", "-C", str(ROOT), "rev-parse", "HEAD") or "unknown",
        "dirty": dirty == "true" if dirty else ("unknown" if changed is None else bool(changed)),
        "python": platform.python_version(),
        "torch": torch.__version__ if torch is not None else "not loaded",
        "threads": torch.get_num_threads() if torch is not None else 1,
        "versions": {name: _version(name) for name in ("numpy", "transformers")},
        "seed": seed,
    }


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


def cpu_name() -> str:
    """The processor's own name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown"


def _run(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"
