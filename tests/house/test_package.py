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
from tests.needs import ROOT, tracked

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


def homes(root: str, *kinds: type[ast.AST]) -> dict[str, set[str]]:
    """Public name -> the files below `root` whose top level defines a function or a class by it."""
    found: dict[str, set[str]] = {}
    for path in tracked(f"{root}*.py"):
        if path.is_relative_to(ROOT / "tests"):
            continue
        for node in ast.parse(path.read_text("utf8")).body:
            if isinstance(node, kinds) and not node.name.startswith("_"):  # type: ignore[attr-defined]
                found.setdefault(node.name, set()).add(str(path.relative_to(ROOT)))
    return found


def held_to(allowed: dict[str, tuple[str, str]], found: dict[str, set[str]]) -> None:
    """Each name that is found is allowed, in these places (a pattern) alone; none is allowed that is not found."""
    strange = {
        name: sorted(place for place in places if not re.fullmatch(allowed.get(name, ("", ""))[0], place))
        for name, places in found.items()
    }
    assert not {name: places for name, places in strange.items() if places}, "one name, one thing"
    assert not allowed.keys() - found.keys(), "these stand for one thing by now"


def several(found: dict[str, set[str]]) -> dict[str, set[str]]:
    return {name: places for name, places in found.items() if len(places) > 1}


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
IN_C = (r"chunkprefill/model/(fused_cpu|transformer)\.py", "its definition, and the C that computes it")
# Names that stand for several things in the library: where they may, and why.
NAMED_TWICE = {
    "gated": IN_C,
    "rms_norm": IN_C,
    "rotate_": IN_C,
    "main": (r"chunkprefill/(demo|__main__|servers/commands|scheduling/parity)\.py", "a command each"),
}


def test_one_name_is_one_thing():
    """No two classes or functions of the library share a name; private ones may."""
    held_to(NAMED_TWICE, several(homes("chunkprefill/", ast.ClassDef, *FUNCTIONS)))


# Classes that share a name.
CLASSES_NAMED_TWICE = {
    "Solution": (
        r"chunkprefill_course/exercises/ch\d\d/\w+\.py",
        "an exercise's own, shown to students as theirs",
    )
}


def test_no_two_classes_share_a_name():
    held_to(CLASSES_NAMED_TWICE, several(homes("", ast.ClassDef)))


TOPIC = "evidence is filed by its topic, here that of a picture"
# Files of the three packages that share a name. Benches are called as their commands are.
FILES_NAMED_TWICE = {
    "__init__.py": (r".*", "a folder each"),
    "__main__.py": (r".*", "a command each"),
    "parts.py": (r"chunkprefill/plots/.*|chunkprefill_course/evidence/.*", TOPIC),
    "questions.py": (r"chunkprefill_course/exercises/ch\d\d/.*", "a chapter each"),
    "rope.py": (
        r"chunkprefill/model/.*|chunkprefill_course/exercises/.*",
        "an exercise is called by what it asks",
    ),
    "vllm.py": (r"chunkprefill/(scheduling|servers)/.*", "its policy, and how it is run"),
}


def test_no_two_files_share_a_name():
    found: dict[str, set[str]] = {}
    for package in PACKAGES:
        for path in tracked(f"{package}/*.py"):
            found.setdefault(path.name, set()).add(str(path.relative_to(ROOT)))
    held_to(FILES_NAMED_TWICE, several(found))


# What the library offers, and what is called so elsewhere.
CALLED_SO_ELSEWHERE = {
    "picture": (
        r"chunkprefill_course/exercises/ch\d\d/\w+\.py",
        "one of the functions that each exercise has",
    ),
    "setup": (r"book/_ext/\w+\.py", "what Sphinx calls in an extension"),
    "summary": (r"chunkprefill_grading/cli\.py", "a command of the grader"),
}


def test_a_public_name_of_the_library_is_one_thing():
    """No function or class elsewhere is called as something the library offers."""
    found = homes("", ast.ClassDef, *FUNCTIONS)
    elsewhere = {
        name: {place for place in places if not place.startswith("chunkprefill/")}
        for name, places in found.items()
        if name in cp.__all__
    }
    held_to(CALLED_SO_ELSEWHERE, {name: places for name, places in elsewhere.items() if places})


# What the three packages import and do not ask pip for: each is asked for when it is used, and missed by name.
IMPORTED_WHERE_THERE = {"distributed", "huggingface_hub", "jinja2", "triton", "vllm"}


def test_what_is_imported_is_asked_for():
    """Each package that the wheel imports is among its dependencies, or is optional and named here."""
    asked = {re.match(r"[\w-]+", each)[0].replace("-", "_") for each in PYPROJECT["project"]["dependencies"]}
    found = set()
    for package in PACKAGES:
        for path in tracked(f"{package}/*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf8"))):
                names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                found |= {name.partition(".")[0] for name in names}
    foreign = found - sys.stdlib_module_names - {*PACKAGES}
    assert foreign - asked == IMPORTED_WHERE_THERE, "ask pip for it, or name it as optional"
    assert asked <= foreign, f"nothing imports {asked - foreign}"


# Functions with more than six parameters, each with the reason why nothing among them is a value. What joins
# the list needs a reason of its own; what a change makes shorter leaves it.
MANY_PARAMETERS = {
    "chunkprefill/engine.py: __init__": "public: what an engine runs on, each with a default",
    "chunkprefill/generation.py: generate": "public, and asked for one by one in the first notebook",
    "chunkprefill/measuring.py: calibrate": "public: the edges of a grid, and how it is measured",
    "chunkprefill/model/paged_decode.py: _walk": "a GPU kernel takes pointers and strides, and no values",
    "chunkprefill/plots/comparisons.py: frontier_picture": "public: four columns of a row, each with a default, and a bound",
    "chunkprefill/plots/curve.py: curve_picture": "public: two axes, each with a label and a scale",
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
