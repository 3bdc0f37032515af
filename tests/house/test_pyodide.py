"""The floor that a page stands on: the standard library of the newest Python, in WebAssembly, under node."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from tests.needs import ROOT, need

sys.path.insert(0, str(ROOT / "tools"))
import live

PYODIDE = ROOT / "book/_static/vendor/pyodide"
SCRIPT = """
import {loadPyodide} from %(module)s;
import {readFileSync} from "node:fs";
const say = (value) => console.log(JSON.stringify(String(value)));
process.on("uncaughtException", (error) => { say(error.message ?? error); process.exit(1); });
const python = await loadPyodide({indexURL: %(folder)s});
python.unpackArchive(new Uint8Array(readFileSync(%(packages)s)), "zip");
say(await python.runPythonAsync(readFileSync(%(program)s, "utf8")));
"""


@pytest.fixture(scope="module")
def in_pyodide(tmp_path_factory):
    """`run(program)`: the value of a Python program's last line, as text, run as a page would run it."""
    node = shutil.which("node")
    need("node", node, "node is not on PATH")
    folder = tmp_path_factory.mktemp("pyodide")
    (folder / "packages.zip").write_bytes(live.packed())

    def run(program: str) -> str:
        (folder / "program.py").write_text(program)
        places = {
            "module": (PYODIDE / "pyodide.mjs").as_uri(),
            "folder": f"{PYODIDE}/",
            "packages": str(folder / "packages.zip"),
            "program": str(folder / "program.py"),
        }
        (folder / "run.mjs").write_text(SCRIPT % {key: json.dumps(place) for key, place in places.items()})
        done = subprocess.run([node, folder / "run.mjs"], capture_output=True, text=True, timeout=300)
        last = (done.stdout.strip().splitlines() or [""])[-1]
        assert done.returncode == 0, f"{last}\n{done.stderr[-2000:]}"
        return str(json.loads(last))

    return run


LOADED = """
import importlib, sys
for name in {names!r}:
    importlib.import_module(name)
version = sys.version_info[:2]
"""
SERVED = """
import chunkprefill as cp
chats = [cp.Request(i, 0.01 * i, 60 + i, 20) for i in range(4)]
requests = chats + [cp.Request('document', 0.05, 3000, 5)]
steps = cp.simulate(requests, cp.ChunkedPrefill(256, order='shortest')).steps
taken = repr([(s.start, s.end, s.batch.rid, s.batch.length) for s in steps])
"""


@pytest.fixture(scope="module")
def there(in_pyodide):
    """What one run finds: to start it takes most of the time."""
    program = LOADED.format(names=live.in_a_page()) + SERVED + "import json; json.dumps([version, taken])"
    return json.loads(in_pyodide(program))


def test_the_floor_loads_on_the_newest_python(there):
    assert len(live.in_a_page()) > 40
    assert tuple(there[0]) >= (3, 14)


def test_a_simulation_takes_the_same_steps_there(there):
    scope: dict = {}
    exec(SERVED, scope)
    assert there[1] == scope["taken"]


def test_the_zip_is_the_same_every_time():
    assert live.packed() == live.packed()
