"""Honest cells live in the sandbox: plots, progress, magics, the library; what is absent says so by name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from chunkprefill_grading.sandbox import limits as sandbox
from chunkprefill_grading.sandbox.limits import Limits
from chunkprefill_grading.sandbox.process import PipeSession
from tests.grading.hostile import world

CELLS = """
%matplotlib inline
%load_ext autoreload
import matplotlib.pyplot as plt, seaborn as sns, ipywidgets
from tqdm.auto import tqdm, trange
from IPython.display import display, HTML
sns.set_theme(style="whitegrid")
plt.rcParams["figure.figsize"] = (7, 4)
plt.style.use("ggplot")
---
fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3))
fig2, axes = plt.subplots(2, 3)
totals = []
for ax, n in zip(axes.flat, range(6)):
    (line,) = ax.plot([1, 2], [n, n], label=f"{n}")
    line.set_color("red")
    totals.append(n)
for row in axes:
    for ax in row:
        totals.append(1)
axes[1, 2].set_title("x"); axes[0][1].legend(loc="best")
counts, edges, patches = plt.hist([1, 2, 3])
with plt.style.context("dark"): plt.show()
plt.savefig("figure.png")
---
import numpy as np
low, high = left.get_ylim()
left.set_ylim(low - 0.1, high * 1.1)
colors = plt.rcParams["axes.prop_cycle"].by_key()["color"]
for i, bar in enumerate([left.bar([1], [2])] * 3):
    left.text(bar.get_x() + bar.get_width() / 2, -bar.get_height() // 2, "x", color=colors[i % len(colors)])
left.text(0, left.get_ylim()[1] * 0.9, f"{high:.2f} of {high}, {round(high)}, %d %.1f" % (high, low))
ticks = np.linspace(low, high, 3).tolist() + [max(high, 1), float(np.maximum(high, 2))]
if high > 2 or left in colors: del colors[0]
tint = next(left._get_lines.prop_cycler)["color"] or plt.cm.viridis(np.linspace(0, 1, len(ticks)))
sizes = [int(high), abs(low) ** 2, sum([high, 1]), 3 - high, not plt.gca().lines]
---
%time total = sum(totals)
files = !ls *.ipynb
done = 0
with tqdm(total=10, desc="work") as bar:
    for i in trange(10):
        done += i; bar.update(1); bar.set_postfix(done=done)
squares = [i * i for i in tqdm([1, 2, 3], leave=False)]
tqdm.write("done")
---
%%time
import chunkprefill as cp
requests = [cp.Request(i, 0.1 * i, 900 + i, 20) for i in range(8)]
trace = cp.simulate(requests, cp.ChunkedPrefill(256), cp.Roofline())
latest = max(cp.ttft(trace).tolist())
class Mine(cp.ChunkedPrefill):
    pass
mine = cp.simulate(requests, Mine(128))
---
import pandas as pd
import scipy.stats
from torch import nn
x = 1
df = pd.DataFrame({"a": [1]})
x = 2
---
%%bash
rm -rf /
---
display(fig); HTML("<b>x</b>"); get_ipython().run_line_magic("who", "")
@ipywidgets.interact(n=(1, 9))
def shown(n=3): return n
np_answer = __import__("numpy").quantile([1.0, 2.0, 3.0], 0.5)
answer = {"total": total, "done": done, "files": len(files), "squares": squares, "x": x}
""".strip().split("\n---\n")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: Any, walls: None) -> Any:
    with sandbox.staged(tmp_path_factory.mktemp("grader") / "stage") as folder:
        yield folder


def test_a_notebook_that_draws_shows_and_simulates_defines_its_answers(stage: Path) -> None:
    with PipeSession(CELLS, stage=stage, limits=Limits()) as session:
        assert session.value("answer") == {"total": 21, "done": 45, "files": 0, "squares": [1, 4, 9], "x": 1}
        assert 0 < session.value("latest") < 10 and session.value("np_answer") == 2.0
        assert session.call("shown", [4]) == 4
        said = [words for _, words, _ in session.troubles]
        assert session.value("sizes")[0] == 0 and session.value("sizes")[-1] is True
    assert [row[0] for row in session.troubles] == [6, 6, 6, 6], session.troubles
    assert "No module named 'pandas'" in said[0] and "(code cell 6, line 1: `import pandas as pd`)" in said[0]
    assert "No module named 'scipy'" in said[1] and "No module named 'torch'" in said[2]
    assert "the sandbox has the standard library, numpy" in said[3]
    assert "(code cell 6, line 5: `df = pd.DataFrame" in said[3]


AWAITING = """
async def double(n):
    import asyncio
    await asyncio.sleep(0.01)
    return 2 * n
---
import asyncio
four = await double(2)
both = await asyncio.gather(double(1), double(3))
async with asyncio.Lock():
    inside = True
many = [n async for n in (await double(n) for n in range(3))]
---
from __future__ import annotations
six = await double(3)
---
await double(1) / 0
after = 1
---
import nest_asyncio
nest_asyncio.apply()
ten = asyncio.run(double(5))
---
%%writefile helper.py
LIMIT = 512
def larger(n): return n > LIMIT
---
%%writefile -a helper.py
MORE = "it's"
---
from helper import MORE, larger
import helper
found = [larger(513), helper.LIMIT, MORE]
---
%%file 'math.py'
pi = 3
---
import importlib, math
importlib.reload(math)
pi = math.pi
"""


def test_cells_that_await_and_cells_that_write_a_module(stage: Path) -> None:
    """A notebook runs inside an event loop; nothing that a student writes stands before the library."""
    with PipeSession(AWAITING.split("---\n"), stage=stage, limits=Limits(idle_s=2.0)) as session:
        assert (session.value("four"), session.value("both"), session.value("six")) == (4, [2, 6], 6)
        assert session.value("many") == [0, 2, 4] and session.value("inside") is True
        assert session.value("ten") == 10
        assert session.value("found") == [True, 512, "it's"] and session.value("pi") > 3.14
        assert [row[0] for row in session.troubles] == [4], session.troubles
        assert (
            "ZeroDivisionError" in session.troubles[0][1]
            and "line 1: `await double(1) / 0`" in session.troubles[0][1]
        )


def test_before_a_notebook_runs_nothing_is_loaded_that_no_question_needs(stage: Path) -> None:
    """Each submission pays for it: files, archives and addresses came along with an abstract base class."""
    with PipeSession(["import sys; loaded = sorted(sys.modules)"], stage=stage, limits=Limits()) as session:
        loaded = session.value("loaded")
    assert not {"importlib.resources", "tempfile", "shutil", "pathlib", "urllib.parse", "numpy"} & set(loaded)
    assert "chunkprefill_grading.sandbox.stand_ins" in loaded


def test_an_error_is_shown_with_the_line_that_raised_it_in_whatever_cell_that_is(stage: Path) -> None:
    cells = [
        "x = 1\n\ndef half(n):\n    return n / (x - 1)\n",
        "y = 2\nz = half(y)\n# the end",
        "import nowhere\nf = lambda: g",
    ]
    with PipeSession([*cells, "f()"], stage=stage, limits=Limits()) as session:
        found = {number: words for number, words, _ in session.troubles}
    assert [*found] == [2, 3, 4]
    assert found[2].endswith("(code cell 1, line 4: `return n / (x - 1)`)")
    assert found[3].endswith("(code cell 3, line 1: `import nowhere`)")
    assert found[4].endswith("(code cell 3, line 2: `f = lambda: g`)")


def test_the_course_is_not_there_and_costs_its_own_import(stage: Path) -> None:
    cells = ["import chunkprefill_course as course\nimport math\nx = 3", "course.exercises", *world.HONEST]
    with PipeSession(cells, stage=stage, limits=Limits()) as session:
        assert session.value("x") == 3 and session.value("number") == 42
        assert [row[0] for row in session.troubles] == [1, 2]


NODES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
TOUCHING = """
import os, fcntl, stat
worked = []
def tried(name, act):
    try: act()
    except OSError: return
    worked.append(name)
for node in NODES:
    tried("chmod " + node, lambda: os.chmod(node, 0))
    tried("utime " + node, lambda: os.utime(node, (0, 0)))
    tried("chown " + node, lambda: os.chown(node, os.getuid(), os.getgid()))
    tried("fchmod " + node, lambda: os.fchmod(os.open(node, os.O_RDONLY), 0))
for folder, _, files in os.walk("/site"):
    for name in files[:2]:
        path = os.path.join(folder, name)
        tried("lease " + path, lambda: fcntl.fcntl(os.open(path, os.O_RDONLY), 1024, fcntl.F_RDLCK))
        tried("write " + path, lambda: os.open(path, os.O_WRONLY))
open("/tmp/mine", "w").write("x"); mine = open("/tmp/mine").read()
open("/dev/null", "w").write("x"); random = len(open("/dev/urandom", "rb").read(8))
who = os.getuid()
made = 0
try:
    while made < 10**6: open(f"/tmp/{made}", "w").close(); made += 1
except OSError: pass
"""


@pytest.mark.parametrize("as_root", [True, False])
def test_nodes_and_files_of_others_stay_as_they_are_in_both_kinds_of_isolation(
    stage: Path, monkeypatch: pytest.MonkeyPatch, as_root: bool
) -> None:
    if as_root and not sandbox.runs_as_root():
        pytest.skip("not the superuser, or not allowed to isolate without a user namespace")
    monkeypatch.setattr(sandbox, "runs_as_root", lambda: as_root)
    before = [(os.stat(node).st_mode, os.stat(node).st_uid, os.stat(node).st_mtime) for node in NODES]
    limits = Limits(n_made=500, n_files=4000)
    with PipeSession([TOUCHING.replace("NODES", repr(NODES))], stage=stage, limits=limits) as session:
        assert session.troubles == []
        assert session.value("worked") == []
        assert session.value("mine") == "x" and session.value("random") == 8
        assert session.value("who") == sandbox.STRANGER
        assert session.value("made") < 500, "/tmp has no more inodes than a submission may make files"
    assert [(os.stat(node).st_mode, os.stat(node).st_uid, os.stat(node).st_mtime) for node in NODES] == before
