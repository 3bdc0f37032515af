"""Fetch the scripts and fonts that the book serves itself: `python tools/vendor.py [--check]`.

Each package is taken with `npm pack` at the version pinned here, and only the files that a page can load
are kept, with their licence. `VERSIONS.json` lists them with their sha256; `--check` (no network) holds the
folder to that list.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENDOR = ROOT / "book/_static/vendor"
AXE = ROOT / "tests/book/vendor"  # what only the tests load is kept out of the book

# html-manager's archive has no licence file; this is the text of its repository.
BSD_JUPYTER = """Copyright (c) 2015 Project Jupyter Contributors
All rights reserved.

Redistribution and use in source and binary forms, with or without
modification, are permitted provided that the following conditions are met:

1. Redistributions of source code must retain the above copyright notice, this
   list of conditions and the following disclaimer.

2. Redistributions in binary form must reproduce the above copyright notice,
   this list of conditions and the following disclaimer in the documentation
   and/or other materials provided with the distribution.

3. Neither the name of the copyright holder nor the names of its
   contributors may be used to endorse or promote products derived from
   this software without specific prior written permission.

THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS AND CONTRIBUTORS "AS IS"
AND ANY EXPRESS OR IMPLIED WARRANTIES, INCLUDING, BUT NOT LIMITED TO, THE
IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS FOR A PARTICULAR PURPOSE ARE
DISCLAIMED. IN NO EVENT SHALL THE COPYRIGHT HOLDER OR CONTRIBUTORS BE LIABLE
FOR ANY DIRECT, INDIRECT, INCIDENTAL, SPECIAL, EXEMPLARY, OR CONSEQUENTIAL
DAMAGES (INCLUDING, BUT NOT LIMITED TO, PROCUREMENT OF SUBSTITUTE GOODS OR
SERVICES; LOSS OF USE, DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER
CAUSED AND ON ANY THEORY OF LIABILITY, WHETHER IN CONTRACT, STRICT LIABILITY,
OR TORT (INCLUDING NEGLIGENCE OR OTHERWISE) ARISING IN ANY WAY OUT OF THE USE
OF THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH DAMAGE.

The woff2 files beside this are Font Awesome 5 Free, under the SIL Open Font License 1.1
(https://openfontlicense.org), copyright Fonticons, Inc.
"""

# pyodide's archive has none either; axe-core, which only the tests load, carries the same licence in full.
MPL_PYODIDE = (
    "Pyodide is under the Mozilla Public License 2.0, below; its sources are at github.com/pyodide/pyodide.\n"
    "It contains CPython and its standard library, under the PSF License (docs.python.org/license).\n\n"
    + (AXE / "axe-core/LICENSE").read_text("utf8")
)


@dataclass(frozen=True, kw_only=True)
class Package:
    """One npm package: `files` are (prefix or path inside the package, folder it goes to); "" is the top."""

    name: str
    version: str
    licence: str  # SPDX
    folder: Path
    files: tuple[tuple[str, str], ...]
    licence_text: str = ""  # written where the package carries none

    def keeps(self, path: str) -> str | None:
        """Where a file of the package goes, or None if no page needs it."""
        for prefix, folder in self.files:
            if path == prefix or (prefix.endswith("/") and path.startswith(prefix)):
                return f"{folder}{path.removeprefix(prefix) or Path(path).name}"
        return None


PACKAGES = (
    Package(
        name="mathjax",
        version="3.2.2",
        licence="Apache-2.0",
        folder=VENDOR / "mathjax",
        files=(  # the parts of tex-chtml without its menu: 0.7 MB in place of 1.2
            ("es5/startup.js", ""),
            ("es5/core.js", ""),
            ("es5/input/tex.js", "input/"),
            ("es5/output/chtml.js", "output/"),
            ("es5/output/chtml/fonts/", "output/chtml/fonts/"),
            ("es5/a11y/assistive-mml.js", "a11y/"),
            ("LICENSE", ""),
        ),
    ),
    Package(
        name="@jupyter-widgets/html-manager",
        version="1.0.15",
        licence="BSD-3-Clause AND OFL-1.1",
        folder=VENDOR / "html-manager",
        files=(
            ("dist/embed.js", ""),
            ("dist/embed.js.LICENSE.txt", ""),
            ("dist/1551f4f60c37af51121f.woff2", ""),
            ("dist/7a3337626410ca2f4071.woff2", ""),
            ("dist/d878b0a6a1144760244f.woff2", ""),
        ),
        licence_text=BSD_JUPYTER,
    ),
    Package(  # Python in the page: the core alone, no packages; it is loaded when a reader presses Run
        name="pyodide",
        version="314.0.7",
        licence="MPL-2.0",
        folder=VENDOR / "pyodide",
        files=(
            ("pyodide.mjs", ""),
            ("pyodide.asm.mjs", ""),
            ("pyodide.asm.wasm", ""),
            ("python_stdlib.zip", ""),
            ("pyodide-lock.json", ""),
        ),
        licence_text=MPL_PYODIDE,
    ),
    Package(
        name="axe-core",
        version="4.14.1",
        licence="MPL-2.0",
        folder=AXE / "axe-core",
        files=(("axe.min.js", ""), ("LICENSE", ""), ("LICENSE-3RD-PARTY.txt", "")),
    ),
)


def sha256(path: Path) -> str:
    """The digest of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fetch(package: Package) -> None:
    """Replace a package's folder by what `npm pack` gives, unpacking only names on its list."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            ["npm", "pack", "--silent", f"{package.name}@{package.version}"],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        (archive,) = Path(folder).glob("*.tgz")
        shutil.rmtree(package.folder, ignore_errors=True)
        with tarfile.open(archive) as tar:
            for member in tar:
                target = package.keeps(member.name.removeprefix("package/"))
                if target is None or not member.isfile() or ".." in target:
                    continue
                source = tar.extractfile(member)
                assert source is not None  # isfile() was checked
                (package.folder / target).parent.mkdir(parents=True, exist_ok=True)
                (package.folder / target).write_bytes(source.read())
    if package.licence_text:
        (package.folder / "LICENSE").write_text(package.licence_text, encoding="utf8")


EDITOR = ROOT / "tools/editor"  # what the editor is made of, pinned in its package.json
EDITOR_OUT = VENDOR / "codemirror"


def bundle() -> None:
    """Bundle CodeMirror and `tools/editor/editor.mjs` into one module, with the licences of all its parts."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in EDITOR.iterdir():
            shutil.copy(file, folder)
        npm = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--no-package-lock"]
        subprocess.run(npm, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(EDITOR_OUT, ignore_errors=True)
        EDITOR_OUT.mkdir(parents=True)
        command = [
            "npx",
            "esbuild",
            "editor.mjs",
            "--bundle",
            "--minify",
            "--format=esm",
            "--legal-comments=none",
        ]
        subprocess.run(
            [*command, f"--outfile={EDITOR_OUT / 'editor.js'}"], cwd=folder, check=True, capture_output=True
        )
        texts = []
        for part in sorted(editor_parts()):
            text = (folder / "node_modules" / part / "LICENSE").read_text("utf8").strip()
            texts.append(f"{part} {editor_parts()[part]}\n\n{text}\n")
        (EDITOR_OUT / "LICENSE").write_text("\n---\n\n".join(texts), encoding="utf8")


def editor_parts() -> dict[str, str]:
    """The packages that the bundle is made of: name -> version."""
    return json.loads((EDITOR / "package.json").read_text("utf8"))["dependencies"]


def inventory(folder: Path) -> list[dict]:
    """What `VERSIONS.json` says of the packages under `folder`: name, version, licence, files with sha256."""
    made = [
        {
            "name": "codemirror",
            "version": editor_parts()["@codemirror/view"],
            "licence": "MIT",
            "files": {
                path.relative_to(folder).as_posix(): sha256(path) for path in sorted(EDITOR_OUT.rglob("*"))
            },
        }
    ]
    return (made if folder == VENDOR else []) + [
        {
            "name": package.name,
            "version": package.version,
            "licence": package.licence,
            "files": {
                path.relative_to(folder).as_posix(): sha256(path)
                for path in sorted(package.folder.rglob("*"))
                if path.is_file()
            },
        }
        for package in PACKAGES
        if package.folder.parent == folder
    ]


def problems() -> list[str]:
    """One line for each file that differs from `VERSIONS.json`, is missing, or was never listed."""
    found = []
    for folder in (VENDOR, AXE):
        listed = json.loads((folder / "VERSIONS.json").read_text("utf8"))
        wanted = {name: digest for package in listed for name, digest in package["files"].items()}
        here = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
        here.pop("VERSIONS.json")
        found += [
            f"{folder.name}/{name}: not in VERSIONS.json" for name in sorted(here.keys() - wanted.keys())
        ]
        found += [f"{folder.name}/{name}: missing" for name in sorted(wanted.keys() - here.keys())]
        found += [
            f"{folder.name}/{name}: sha256 {sha256(here[name])[:9]}…, VERSIONS.json says {wanted[name][:9]}…"
            for name in sorted(wanted.keys() & here.keys())
            if sha256(here[name]) != wanted[name]
        ]
        pinned = {p.name: p.version for p in PACKAGES if p.folder.parent == folder}
        if folder == VENDOR:
            pinned["codemirror"] = editor_parts()["@codemirror/view"]
        if {p["name"]: p["version"] for p in listed} != pinned:
            found.append(f"{folder.name}/VERSIONS.json: its versions are not those pinned in tools/vendor.py")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare with VERSIONS.json, fetch nothing")
    if parser.parse_args().check:
        found = problems()
        print("\n".join(found) or f"{len(PACKAGES)} vendored packages are as listed")
        return bool(found)
    if shutil.which("npm") is None:
        print("npm is not installed: it fetches the pinned packages", file=sys.stderr)
        return 1
    for package in PACKAGES:
        print(f"{package.name} {package.version} ({package.licence})", flush=True)
        fetch(package)
    print("codemirror, bundled (MIT)", flush=True)
    bundle()
    for folder in (VENDOR, AXE):
        (folder / "VERSIONS.json").write_text(json.dumps(inventory(folder), indent=1) + "\n", encoding="utf8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
