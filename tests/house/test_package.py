"""What the package promises as a whole: its names, its size, its pins, its house rules."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib

import pytest

import chunkprefill as cp
import chunkprefill_course as course
from tests.needs import ROOT, need

PACKAGES = ("chunkprefill", "chunkprefill_course", "chunkprefill_grading")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


PUBLIC = [(package, name) for package in (cp, course) for name in package.__all__ if name != "__version__"]


@pytest.mark.parametrize(("package", "name"), PUBLIC, ids=lambda it: getattr(it, "__name__", it))
def test_every_public_name_is_there_and_says_what_it_is(package, name):
    thing = getattr(package, name)
    assert (getattr(thing, "__doc__", None) or "").strip(), f"{package.__name__}.{name} has no docstring"


def test_editors_can_follow_the_public_names():
    """The stubs name what the tables name, and each package says that it is typed."""
    done = subprocess.run(
        [sys.executable, ROOT / "tools/stubs.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert all((ROOT / package / "py.typed").is_file() for package in PACKAGES)


def test_the_wheel_carries_all_three_packages():
    assert PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == list(PACKAGES)
    bound = PYPROJECT["project"]["requires-python"]
    assert bound == ">=3.11", f"{bound}: a lower bound only"


def test_an_unknown_name_is_answered_with_those_there_are():
    with pytest.raises(AttributeError, match=r"no attribute 'prefil'.*prefill"):
        cp.prefil  # noqa: B018


def test_every_module_says_in_one_line_what_it_holds():
    for path in (p for name in PACKAGES for p in (ROOT / name).rglob("*.py")):
        doc = ast.get_docstring(ast.parse(path.read_text()))
        assert doc and doc.splitlines()[0].strip(), f"{path.relative_to(ROOT)} has no docstring"


def test_versions_agree():
    assert cp.__version__ == PYPROJECT["project"]["version"]
    assert f"## {cp.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert f"version: {cp.__version__}" in (ROOT / "CITATION.cff").read_text()


def test_pins_are_plain():
    """No hashes, no addresses; torch in the development pins only."""
    for name in ("book", "dev"):
        for line in (ROOT / f"requirements/{name}.txt").read_text().splitlines():
            assert line.startswith("#") or re.fullmatch(r"[\w.-]+==[\w.]+", line), f"{name}.txt: {line!r}"
    book, dev = ((ROOT / f"requirements/{n}.txt").read_text().splitlines() for n in ("book", "dev"))
    assert "torch==2.13.0" in dev and not any(line.startswith("torch") for line in book)
    assert set(book[1:]) <= set(dev), "the two environments would build two different books"


def test_other_pythons_get_one_clear_line():
    script = (
        "import sys; sys.version_info = type('V', (tuple,), {'major': 3, 'minor': 10})((3, 10, 0))\n"
        "import chunkprefill"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr.strip().endswith("chunkprefill needs Python 3.11 or newer, this is 3.10")


def tracked(*patterns: str) -> list:
    done = subprocess.run(["git", "ls-files", "-z", *patterns], capture_output=True, text=True, cwd=ROOT)
    need("git", done.returncode == 0, "the tree is no git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_nothing_committed_knows_the_machine_it_was_written_on():
    home_paths = re.compile(r"(?<![\w.])/(?:wor[k]|roo[t]|home/(?!ada/)\w+|Users/\w+)/")
    for path in tracked(
        "*.py", "*.md", "*.ipynb", "*.json", "*.yml", "*.toml", "*.txt", "Makefile", ".ci/run"
    ):
        if "vendor" in path.parts:
            continue
        found = home_paths.search(path.read_text(errors="replace"))
        assert not found, f"{path.relative_to(ROOT)} holds the path {found and found.group()!r}"


# Who did it has a name: the policy, the loop, the request, the server, a student. `fmt: skip` hides golf.
LIMITS = {r"somebody|nobody|whoever": 10, r"#\s*fmt:\s*skip": 20}


@pytest.mark.parametrize("pattern", LIMITS)
def test_what_reads_translated_or_golfed_stays_rare(pattern):
    found = []
    for path in tracked("*.py"):
        if path.name == "test_package.py":
            continue
        lines = path.read_text("utf8").splitlines()
        found += [
            f"{path.relative_to(ROOT)}: {line.strip()[:80]}"
            for line in lines
            if re.search(pattern, line, re.I)
        ]
    assert len(found) < LIMITS[pattern], "\n".join([f"{len(found)} lines", *found[:20]])


# Names that stand for two things in the library, and why they may.
NAMED_TWICE = {
    "gated": "its definition, and the C that computes it",
    "main": "a command each",
    "rms_norm": "its definition, and the C that computes it",
    "rotate_": "its definition, and the C that computes it",
}


def test_one_name_is_one_thing():
    """No two classes or functions of the library share a name; private ones may."""
    homes: dict[str, list[str]] = {}
    for path in tracked("chunkprefill/*.py"):
        for node in ast.parse(path.read_text("utf8")).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                homes.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    twice = {name: at for name, at in homes.items() if len(at) > 1 and not name.startswith("_")}
    assert twice.keys() == NAMED_TWICE.keys(), twice


# Classes that share a name, and why they may.
CLASSES_NAMED_TWICE = {
    "Solution": "the text of an exercise's own solution, which is shown to students as theirs would stand",
}


def test_no_two_classes_share_a_name():
    """Of all the rooms together; private ones may."""
    homes: dict[str, list[str]] = {}
    for path in tracked("*.py"):
        if path.is_relative_to(ROOT / "tests"):
            continue
        for node in ast.parse(path.read_text("utf8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    twice = {name: at for name, at in homes.items() if len(at) > 1}
    assert twice.keys() == CLASSES_NAMED_TWICE.keys(), twice


# Files of the three packages that share a name, and why they may. Benches are called as their commands are.
FILES_NAMED_TWICE = {
    "__init__.py": "a folder each",
    "__main__.py": "a command each",
    "parts.py": "evidence is filed by its topic, here that of a picture",
    "prefilling.py": "evidence is filed by its topic, here that of a picture",
    "questions.py": "a chapter each",
    "rope.py": "an exercise is called by what it asks to be written",
    "vllm.py": "its policy, and how it is run",
    "events.py": "of a trace, and of a stream",
}


def test_no_two_files_share_a_name():
    homes: dict[str, list[str]] = {}
    for package in PACKAGES:
        for path in tracked(f"{package}/*.py"):
            homes.setdefault(path.name, []).append(str(path.relative_to(ROOT)))
    twice = {name: at for name, at in homes.items() if len(at) > 1}
    assert twice.keys() == FILES_NAMED_TWICE.keys(), twice


# What the library offers, and what may be called so elsewhere.
CALLED_SO_ELSEWHERE = {
    "picture": "an exercise's own, among the functions that each exercise has",
    "setup": "what Sphinx calls in an extension",
    "summary": "a command of the grader",
}


def test_a_public_name_of_the_library_is_one_thing():
    """No other package, bench or tool defines a function or a class by it."""
    public = set(cp.__all__)
    found: dict[str, list[str]] = {}
    for path in tracked("*.py"):
        if path.relative_to(ROOT).parts[0] in ("chunkprefill", "tests"):
            continue
        for node in ast.parse(path.read_text("utf8")).body:
            if (
                isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
                and node.name in public
            ):
                found.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert found.keys() == CALLED_SO_ELSEWHERE.keys(), found


# Functions with more than six parameters, each with the reason why nothing among them is a value. What joins
# the list needs a reason of its own; what a change makes shorter leaves it.
MANY_PARAMETERS = {
    "chunkprefill/engine.py: __init__": "public: what an engine runs on, each with a default",
    "chunkprefill/generation.py: generate": "public, and asked for one by one in the first notebook",
    "chunkprefill/measuring.py: calibrate": "public: the edges of a grid, and how it is measured",
    "chunkprefill/model/paged_decode.py: _walk": "a GPU kernel takes pointers and strides, and no values",
    "chunkprefill/plots/comparisons.py: frontier_picture": "public: as `frontier`",
    "chunkprefill/plots/prefilling.py: curve_picture": "public: two axes, each with a label and a scale",
    "chunkprefill/plots/style.py: line": "an SVG element: two points and its attributes",
    "chunkprefill/plots/style.py: text": "an SVG element: a point and its attributes",
    "chunkprefill/scheduling/core.py: __init__": "public: the fields of a record that is written by hand for speed",
    "chunkprefill/servers/vllm.py: on_vllm": "public: how vLLM is started, beside what is served",
    "chunkprefill/servers/advise.py: advise": "public: a question to a calculator, each part with a default",
    "chunkprefill/simulation/capacity.py: capacity": "public: `simulate`, three bounds, and how to search",
    "chunkprefill/simulation/price.py: pool_for": "public: a deployment as engines spell it on their command line",
    "chunkprefill/simulation/sweep.py: sweep": "public: `simulate` over a grid, and where its rows go",
    "chunkprefill/simulation/workloads.py: documents_and_chats": "public: two kinds of requests, both in numbers",
    "chunkprefill_course/gpu_recording.py: recorded": "public: a view, and the reader's own numbers beside it",
    "tests/library/model/test_batch_attention.py: check": "what a test varies, each with a default",
}


def test_what_travels_together_is_a_value():
    """At most six parameters, beside `self`; `**options` is one."""
    found = set()
    for path in tracked("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                a = node.args
                names = [each.arg for each in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
                if len(names) - (names[:1] in (["self"], ["cls"])) + bool(a.vararg) + bool(a.kwarg) > 6:
                    found.add(f"{path.relative_to(ROOT)}: {node.name}")
    assert found == MANY_PARAMETERS.keys(), "give what travels together a value, or say why there is none"
