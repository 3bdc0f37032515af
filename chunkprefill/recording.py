"""Where a measurement comes from: machine, date, commit, versions, seed."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# What a hook of git, or a person, may have set for another checkout.
OTHERS = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_COMMON_DIR",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_NAMESPACE",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_CONFIG_PARAMETERS",
    "GIT_CONFIG_COUNT",
)


def provenance(
    *, seed: int, device: str = "cpu", commit: str | None = None, dirty: str | None = None
) -> dict[str, Any]:
    """Everything needed to tell whose numbers these are; what cannot be known reads "unknown".

    Torch is asked only when it is loaded already: a bench of the scheduler does not need it.
    """
    torch = sys.modules.get("torch")
    driver, device_name = "none", cpuinfo("model name") or platform.processor() or "unknown"
    if torch is not None and device.startswith("cuda"):
        device_name = torch.cuda.get_device_name(device)
        driver = run_quietly("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader") or "unknown"
    changed = git("status", "--porcelain", "--untracked-files=no")
    return {
        "device": device_name,
        "driver": driver,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit or git("rev-parse", "HEAD") or "unknown",
        "dirty": dirty == "true" if dirty else ("unknown" if changed is None else bool(changed)),
        "python": platform.python_version(),
        "torch": torch.__version__ if torch is not None else "not loaded",
        "threads": torch.get_num_threads() if torch is not None else 1,
        "versions": {name: _version(name) for name in ("numpy", "transformers")},
        "seed": seed,
    }


def cpuinfo(*names: str) -> str | None:
    """What the system says of its first processor under one of these names; None where it says nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    rows = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in rows if name.strip() in names), None)


def git(*words: str) -> str | None:
    """What git says of the checkout that this package lies in; None where it lies in none, or git is missing.

    A checkout above it is another's: the package may be installed, or unpacked, in someone's own project.
    """
    own = {name: value for name, value in os.environ.items() if name not in OTHERS}
    own["GIT_CEILING_DIRECTORIES"] = str(ROOT.parent)
    return run_quietly("git", "-C", str(ROOT), *words, env=own)


def run_quietly(*command: str, env: dict[str, str] | None = None) -> str | None:
    """What a program prints; None where it is missing, fails or hangs."""
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"
