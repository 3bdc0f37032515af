"""Renew the pins in requirements/: install each .in file into an empty environment, freeze."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "requirements"
HEADER = "# Pinned by `make lock` from {name}.in on Python {version}. Edit that file, not this one.\n"


def freeze(name: str) -> str:
    """The pinned closure of requirements/NAME.in, one `package==version` a line."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder, "Scripts" if sys.platform == "win32" else "bin", "python")
        subprocess.run([python, "-m", "pip", "install", "-r", FOLDER / f"{name}.in"], check=True)
        frozen = subprocess.run(
            [python, "-m", "pip", "freeze"], check=True, capture_output=True, text=True
        ).stdout
    pins = [re.sub(r"\+\w+$", "", line) for line in frozen.splitlines() if re.match(r"^[\w.-]+==", line)]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return HEADER.format(name=name, version=version) + "\n".join(sorted(pins, key=str.lower)) + "\n"


def main() -> int:
    for name in ("book", "dev"):
        print(f"resolving requirements/{name}.in", file=sys.stderr)
        (FOLDER / f"{name}.txt").write_text(freeze(name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
