"""What kernels started by nbval find: quiet settings in folders of their own, this checkout's packages.

A notebook that loads the real model is skipped, loudly, where its weights were not fetched before:
fetching them writes to standard error, which nbval compares.
"""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

os.environ["TQDM_DISABLE"] = "1"  # nbval compares stderr, and a bar is never the same twice
os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # as many kernels run at once as there are cores
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # the committed outputs are a CPU's
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))

# Where a home cannot be written, or is new, these programs say so on stderr: each gets a folder of its own.
# So does Jupyter's data, where a user's own kernel might stand in for this environment's.
os.environ.pop("JUPYTER_PATH", None)
SETTINGS = Path(tempfile.mkdtemp(prefix="chunkprefill-nbval-"))
atexit.register(shutil.rmtree, SETTINGS, ignore_errors=True)
for name in ("MPLCONFIGDIR", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
    folder = SETTINGS / name.lower()
    folder.mkdir()
    os.environ[name] = str(folder)


def pytest_configure(config) -> None:
    """Make matplotlib's list of fonts now: the first cell that draws would say on stderr that it does."""
    if config.getoption("nbval", False):
        import matplotlib.font_manager  # noqa: F401


def pytest_collection_modifyitems(items) -> None:
    """Skip the cells of notebooks whose model is not here; fail them where `REQUIRE` names it."""
    from chunkprefill.model.smollm2 import is_fetched

    if is_fetched() or "smollm2" in os.environ.get("REQUIRE", "").split(","):
        return
    why = "MISSING smollm2: its weights are not here, and `python -m chunkprefill fetch` could not get them"
    needs = {path: "smollm2" in path.read_text("utf8") for path in {item.path for item in items}}
    for item in items:
        if needs[item.path]:
            item.add_marker(pytest.mark.skip(reason=why))
