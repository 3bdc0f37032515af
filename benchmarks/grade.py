"""Submissions a minute, beside `nbgrader autograde` on the same three questions, and of each problem set.

Both grade the same honest answers, one after the other, each grader in processes of its own from start to
end. nbgrader runs in an environment that `--nbgrader` makes and throws away, or in one that `--venv` names;
it has no sandbox. Processor time is counted as well, for machines that others use.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from tqdm import tqdm

from benchmarks.runner import ROOT, options, positive, provenance_of, write
from chunkprefill_grading import problems
from chunkprefill_grading.marking import run as runs
from chunkprefill_grading.marking.mark import Mark
from chunkprefill_grading.problems import key as keys
from chunkprefill_grading.sandbox.limits import SandboxError
from chunkprefill_grading.sandbox.process import PipeSession
from chunkprefill_grading.sandbox.session import ArraySpec, Refused, Session

INSIDE = "seconds inside: "
TARGET = 10.0  # nbgrader's seconds over ours
SETS = ("PS1", "PS2", "PS3")
QUESTIONS = (
    ("passes", "def passes(n, c):\n    return -(-n // c)"),
    ("reread", "def reread(n, c):\n    return sum(range(c, n, c))"),
    ("doubled", "def doubled(x):\n    return [2 * each for each in x]"),
)
TESTS = (
    "assert passes(1000, 256) == 4\nassert passes(512, 256) == 2",
    "assert reread(1024, 256) == 1536\nassert reread(1000, 256) == 1536",
    "assert doubled([1.0, -2.5, 3.0]) == [2.0, -5.0, 6.0]",
)
KEY: dict[str, Any] = {
    **{"problem_set": "three questions", "needs_torch": False, "max_score": 3.0},
    "questions": [{"name": name, "points": 1.0} for name, _ in QUESTIONS],
}
OURS = "import sys; from benchmarks.grade import once; once(*sys.argv[1:])"


def main(argv: list[str] | None = None) -> int:
    """Exit status 0 whatever the figures are; a row that could not be measured says why."""
    parser = options("grade", __doc__)
    parser.add_argument("--submissions", type=positive, default=10, help="a class (default: %(default)s)")
    parser.add_argument("--repeats", type=positive, default=3, help="of each (default: %(default)s)")
    parser.add_argument("--nbgrader", action="store_true", help="install nbgrader in a throwaway environment")
    parser.add_argument("--venv", type=Path, help="an environment that has nbgrader")
    parser.add_argument("--sets", nargs="*", choices=SETS, default=SETS, help="problem sets to time too")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="chunkprefill-bench-") as folder:
        rows = measure(Path(folder), args)
    document = {
        "bench": "grade",
        "provenance": provenance_of(args),
    }
    write({**document, "rows": rows, "verdict": verdict(rows)}, args.out)
    return 0


def measure(folder: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each case; the two graders of the three questions take turns."""
    rows: dict[str, dict[str, Any]] = {}
    jobs: dict[str, Callable[[int], Sequence[str] | None]] = {"ours, three questions": _ours(folder, args)}
    try:
        jobs["nbgrader, three questions"] = _nbgrader(folder, args)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        rows["nbgrader, three questions"] = {
            "case": "nbgrader, three questions",
            "not_run": str(error)[-600:],
        }
    jobs |= {f"ours, {name}": _problem_set(folder, name, args) for name in args.sets}
    samples: dict[str, list[tuple[float, float]]] = {case: [] for case in jobs}
    for repeat in tqdm(range(args.repeats), desc="grade", file=sys.stderr):
        for case, prepare in jobs.items():
            try:
                samples[case].append(timed(prepare(repeat) or ()))
            except (RuntimeError, SandboxError) as error:
                rows[case] = {"case": case, "not_run": str(error)[-600:]}
    for case, pairs in samples.items():
        if pairs and case not in rows:
            n = args.submissions
            wall, cpu = (statistics.median(column) for column in zip(*pairs))
            rows[case] = {
                **{"case": case, "submissions": n, "per_minute": 60 * n / wall},
                **{"wall_s_each": wall / n, "cpu_s_each": cpu / n, "samples_wall_cpu_s": pairs},
            }
    return [rows[case] for case in dict.fromkeys([*jobs, *rows])]


def verdict(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How many times as fast, on both clocks."""
    by_case = {row["case"]: row for row in rows if "not_run" not in row}
    ours, theirs = (by_case.get(f"{name}, three questions") for name in ("ours", "nbgrader"))
    if ours is None or theirs is None:
        return {"target": TARGET, "met": None, "why": "one of the two could not be run here"}
    ratios = {clock: theirs[f"{clock}_s_each"] / ours[f"{clock}_s_each"] for clock in ("wall", "cpu")}
    return {"target": TARGET, "times_as_fast": ratios, "met": ratios["wall"] >= TARGET}


def timed(command: Sequence[str]) -> tuple[float, float]:
    """Wall and processor seconds of a command and of all that it started. RuntimeError if it fails.

    What runs in the sandbox is no child of this process that could be asked in the end: `once` prints its seconds.
    """
    before, begun = os.times(), perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    after, wall = os.times(), perf_counter() - begun
    if done.returncode:
        raise RuntimeError(f"{command[0]}: exit status {done.returncode}: {done.stderr.strip()[-400:]}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    inside = done.stdout.strip().removeprefix(INSIDE) if done.stdout.startswith(INSIDE) else "0"
    return wall, cpu + float(inside)


def once(submitted: str, out: str, key: str = "") -> None:
    """Grade a class in this process, and print the processor seconds that were spent in the sandbox."""
    log = Path(f"{out}.cpu")  # the judges are processes of their own

    class Counted(PipeSession):
        closed = False

        def close(self) -> None:
            super().close()
            if not self.closed:
                self.closed = True
                with log.open("a") as file:
                    file.write(f"{self.cpu_s}\n")

    runs.PipeSession = Counted  # type: ignore[misc]
    by = runs.Judging(keys.read(key)) if key else runs.Judging(KEY, marker=mark)
    results = runs.run(Path(submitted), Path(out), by, quiet=True)
    if wrong := [result for result in results if result.status not in ("ok", "needs manual")]:
        raise RuntimeError(f"{wrong[0].status}: {wrong[0].reason}")
    print(f"{INSIDE}{sum(map(float, log.read_text().split()))}")


def mark(key: dict[str, Any], answers: Session, written: dict[str, str]) -> list[Mark]:
    """Our marks for the three questions."""
    marks = []
    for name, wanted in (("passes", _passes), ("reread", _reread), ("doubled", _doubled)):
        try:
            marks.append(Mark(name, float(wanted(answers)), 1.0))
        except Refused as refused:
            marks.append(Mark(name, 0.0, 1.0, refused.status, refused.why))
    return marks


def _passes(answers: Session) -> bool:
    return answers.call("passes", [1000, 256]) == 4 and answers.call("passes", [512, 256]) == 2


def _reread(answers: Session) -> bool:
    return all(answers.call("reread", [n, 256]) == 1536 for n in (1024, 1000))


def _doubled(answers: Session) -> bool:
    (back,) = answers.call("doubled", [[1.0, -2.5, 3.0]], [ArraySpec((3,), "float64")])
    return back.tolist() == [2.0, -5.0, 6.0]


def _ours(folder: Path, args: argparse.Namespace) -> Callable[[int], Sequence[str]]:
    submitted = folder / "ours"
    submitted.mkdir()
    cells = [{"cell_type": "code", "source": source} for _, source in QUESTIONS]
    for i in range(args.submissions):
        (submitted / f"s{i:03d}.ipynb").write_text(json.dumps({"cells": cells}))
    return lambda repeat: [sys.executable, "-c", OURS, str(submitted), str(folder / f"ours-{repeat}")]


def _problem_set(folder: Path, name: str, args: argparse.Namespace) -> Callable[[int], Sequence[str]]:
    """The solution of a problem set, handed in by a class; its secret comes from the seed."""
    home, submitted = folder / name, folder / f"{name}-in"
    secret = keys_secret(args.seed, name)
    problems.new(name, home, secret)
    submitted.mkdir()
    for i in range(args.submissions):
        (submitted / f"s{i:03d}.ipynb").write_bytes((home / "solution.ipynb").read_bytes())
    command, key = [sys.executable, "-c", OURS, str(submitted)], str(home / "key.json")
    return lambda repeat: [*command, str(folder / f"{name}-{repeat}"), key]


def keys_secret(seed: int, name: str) -> str:
    """A secret for timing: no class must ever use it. The first that is not refused as too weak."""
    for i in range(100):
        secret = hashlib.sha256(f"{name} {seed} {i}".encode()).hexdigest()[:32]
        try:
            keys.make(name, secret)
        except ValueError:
            continue
        return secret
    raise RuntimeError(f"{name}: no secret of seed {seed} is accepted")


def _nbgrader(folder: Path, args: argparse.Namespace) -> Callable[[int], Sequence[str]]:
    """nbgrader's own layout of a course with the same answers in it. RuntimeError where it is not there."""
    home = args.venv
    if home is None:
        if not args.nbgrader:
            raise RuntimeError(
                "not asked for: --nbgrader installs it, --venv names an environment that has it"
            )
        home = folder / "venv"
        venv.create(home, with_pip=True)
        timed([str(home / "bin" / "python"), "-m", "pip", "install", "-q", "nbgrader"])
    python = home / "bin" / "python"
    course = folder / "course"
    _course(course, args.submissions)
    paths = os.pathsep.join([str(python.parent.absolute()), os.environ.get("PATH", os.defpath)])
    nbgrader = ["env", f"PATH={paths}", str(python.absolute()), "-m", "nbgrader"]
    place = [f"--CourseDirectory.root={course}"]
    timed([*nbgrader, "generate_assignment", "ps", "--force", *place])
    return lambda repeat: [*nbgrader, "autograde", "ps", "--force", *place]


def _course(course: Path, n: int) -> None:
    """Three answer cells, each followed by its tests, in nbgrader's metadata."""
    cells: list[dict[str, Any]] = []
    for (name, answer), test in zip(QUESTIONS, TESTS):
        meta = {"schema_version": 3, "locked": False, "task": False}
        cells.append(_cell(f"{name}-answer", answer, {**meta, "grade": False, "solution": True}))
        tested = {**meta, "grade": True, "solution": False, "locked": True, "points": 1}
        cells.append(_cell(f"{name}-test", test, tested))
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    text = json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5})
    places = [course / "source" / "ps", *(course / "submitted" / f"s{i:03d}" / "ps" for i in range(n))]
    for place in places:
        place.mkdir(parents=True)
        (place / "ps.ipynb").write_text(text)


def _cell(name: str, source: str, meta: dict[str, Any]) -> dict[str, Any]:
    return {
        **{"cell_type": "code", "id": name, "source": source, "outputs": [], "execution_count": None},
        "metadata": {"nbgrader": {"grade_id": name, **meta}},
    }
