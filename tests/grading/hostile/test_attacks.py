"""Each attack gets the status and the points that it must get, and leaves nothing behind."""

from __future__ import annotations

import errno
import os
import pickle
import platform
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chunkprefill_grading.marking.mark import Mark
from chunkprefill_grading.marking.results import Result
from chunkprefill_grading.marking.run import Grader, Judging
from chunkprefill_grading.sandbox import limits as sandbox
from chunkprefill_grading.sandbox import seccomp
from chunkprefill_grading.sandbox.limits import Limits, SandboxError
from chunkprefill_grading.sandbox.process import PipeSession
from chunkprefill_grading.sandbox.session import Crashed, Refused, Session
from tests.grading.hostile import world
from tests.grading.hostile.attacks import ATTACKS, SAYING, Attack
from tests.grading.hostile.later_attacks import LATER
from tests.needs import need
from tests.once import once
from tests.processes import children
from tests.proof import PROOF

ALL = [*ATTACKS, *LATER]
#: a third of every kind; `make proof` tries all (each session of `make soak` would try them anew)
TRIED = ALL if PROOF else ALL[::3]
pytestmark = pytest.mark.proof
SAID = [attack for attack in SAYING if attack in TRIED]
#: for all that ends by itself: a walk over all folders takes 0.4 s of CPU time, and over 2 on a busy machine
LIMITS = Limits(wall_s=120.0, memory_mb=512, tmp_mb=4)
#: for what runs until it is stopped
HASTY = replace(LIMITS, cpu_s=3, idle_s=2.0)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: Any) -> Iterator[Path]:
    try:
        sandbox.require_sandbox(LIMITS)
    except SandboxError as error:
        need("bwrap", False, str(error))
    with sandbox.staged(tmp_path_factory.mktemp("grader") / "stage") as folder:
        yield folder


@pytest.fixture(scope="module")
def outcomes(stage: Path, tmp_path_factory: Any) -> dict[str, tuple[Result, list[Any]]]:
    """Every attack, once in a whole run."""
    made = once(tmp_path_factory, "attacks", lambda folder: attacked(stage, folder)) / "outcomes"
    return pickle.loads(made.read_bytes())


def attacked(stage: Path, folder: Path) -> None:
    """Grade them all, some at a time, because many only sleep."""
    before = children()
    (folder / "canary.txt").write_text("alive")

    def one(number_and_attack: tuple[int, Attack]) -> tuple[str, tuple[Result, list[Any]]]:
        number, attack = number_and_attack
        loot: list[Any] = []

        def marker(key: dict[str, Any], answers: Session, written: dict[str, str]) -> list[Mark]:
            marks = world.mark(key, answers, written)
            if attack.loot:
                loot.extend(answers.value("loot"))
            return marks

        student = world.hand_in(folder, f"Mallory {number}", *attack.cells)
        limits = HASTY if "timeout" in (attack.ends, attack.status) else LIMITS
        grader = Grader(Judging(world.KEY, limits, marker=marker), stage)
        return attack.name, (grader.grade(student, grader.read(student, folder)), loot)

    with ThreadPoolExecutor(8) as pool:
        made = dict(pool.map(one, enumerate(TRIED)))
    assert len(made) == len(TRIED), "two attacks of one name"
    assert (folder / "canary.txt").read_text() == "alive"
    assert children() <= before
    (folder / "outcomes").write_bytes(pickle.dumps(made))


@pytest.mark.parametrize("attack", TRIED, ids=lambda attack: attack.name)
def test_attack(attack: Attack, outcomes: dict[str, tuple[Result, list[Any]]]) -> None:
    result, loot = outcomes[attack.name]
    assert (result.status, result.score) == (attack.status, attack.points), explained(result)
    assert attack.why in explained(result)
    assert len(result.marks) == len(world.QUESTIONS)
    assert loot == []
    if attack.ends:
        left_out = any("left out" in words for _, words in result.cells)
        assert left_out or any(mark.status == attack.ends for mark in result.marks), explained(result)


@pytest.mark.parametrize("attack", SAID, ids=lambda attack: attack.name)
def test_nothing_is_repeated_that_was_said_of_hidden_inputs(
    attack: Attack, outcomes: dict[str, tuple[Result, list[Any]]]
) -> None:
    result, _ = outcomes[attack.name]
    assert result.mark("double").status == "raised"
    for number in ("3.25", "15000"):  # of the hidden input; the line that is shown is the notebook's own
        assert number not in explained(result)


def explained(result: Result) -> str:
    cells = "\n".join(f"cell {cell}: {words}" for cell, words in result.cells)
    marks = "\n".join(str(mark) for mark in result.marks)
    return f"{result.status} {result.score}: {result.reason}\n{cells}\n{marks}"


SEARCH = """
import os
loot = [path for path in WANTED if os.path.lexists(path)]
for folder, folders, files in os.walk('/'):
    for name in files:
        own = 'chunkprefill_course' in folder or name.partition('.')[0] in ('marking', 'ps2', 'ps2_policy')
        if own or name.endswith('.ipynb') or name in ('key.json', 'collected.json'):
            loot.append(os.path.join(folder, name))
"""
PRIVATE = (
    "/etc/passwd",
    "/etc/hostname",
    "/home",
    "/var",
    "/run",
    "/sys",
    "/proc",
    "/dev/shm",
    "/mnt",
    "/boot",
)


def test_the_key_and_the_others_are_out_of_reach(stage: Path, tmp_path: Path) -> None:
    """By name, and by walking everywhere."""
    (tmp_path / "key.json").write_text(world.SECRET)
    world.hand_in(tmp_path, "Ada", f"# {world.SECRET}")
    wanted = [
        tmp_path,
        tmp_path / "key.json",
        stage,
        os.path.expanduser("~/.ssh"),
        Path(__file__).resolve().parents[3],
    ]
    wanted = [*map(str, wanted), *PRIVATE]
    student = world.hand_in(tmp_path, "Mallory", *world.HONEST, SEARCH.replace("WANTED", repr(wanted)))
    found: list[object] = []

    def marker(key: dict[str, Any], answers: Session, written: dict[str, str]) -> list[Mark]:
        found.extend(answers.value("loot"))
        return world.mark(key, answers, written)

    grader = Grader(Judging(world.KEY, LIMITS, marker=marker), stage)
    result = grader.grade(student, grader.read(student, tmp_path))
    assert result.score == 3, explained(result)
    assert found == []


def test_what_one_submission_leaves_no_other_finds(stage: Path) -> None:
    """Files, folders, and modules that would be loaded at the start."""
    leaving = (
        "import os\nfor name in ('x', 'usercustomize.py', 'json.py', '.pth'):\n    open(f'/tmp/{name}', 'w').write('x = 1')\n"
        "os.mkdir('/tmp/.local')\nleft = sorted(os.listdir('/tmp'))"
    )
    with PipeSession([leaving], stage=stage, limits=LIMITS) as session:
        assert len(session.value("left")) == 5
        with PipeSession(["import os\nfound = os.listdir('/tmp')"], stage=stage, limits=LIMITS) as other:
            assert other.value("found") == [], "while the first one runs"
    with PipeSession(["import os\nfound = os.listdir('/tmp')"], stage=stage, limits=LIMITS) as other:
        assert other.value("found") == [], "after it"


def test_a_session_that_ended_stays_ended(stage: Path, tmp_path: Path) -> None:
    with PipeSession(["def f():\n    import os\n    os._exit(1)"], stage=stage, limits=LIMITS) as session:
        for _ in range(2):
            with pytest.raises(Refused) as error:
                session.call("f", [])
            assert error.value.status == "crashed"


def test_the_library_is_mounted_and_nothing_that_solves_a_question(stage: Path) -> None:
    assert sorted(path.name for path in stage.iterdir()) == ["chunkprefill", "chunkprefill_grading"]
    inside = {path.relative_to(stage).as_posix() for path in (stage / "chunkprefill_grading").rglob("*.py")}
    due = {f"{module.replace('.', '/')}.py" for module in sandbox.INSIDE}
    assert inside == due | {"chunkprefill_grading/sandbox/reader.py"}  # how answers are read: public
    assert (stage / "chunkprefill" / "scheduling" / "policies.py").is_file()


def header_numbers(name: str) -> dict[str, int]:
    """The kernel's own table, where its headers are installed."""
    found = [*Path("/usr/include").glob(name), *Path("/usr/include").glob(f"*/{name}")]
    text = found[0].read_text() if found else ""
    return {call: int(n) for call, n in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)$", text, re.M)}


@pytest.mark.parametrize(("column", "header"), [(0, "asm/unistd_64.h"), (1, "asm-generic/unistd.h")])
def test_the_numbers_of_system_calls_are_the_kernels(column: int, header: str) -> None:
    kernel = header_numbers(header)
    if "clone" not in kernel or (column == 0 and kernel["clone"] != 56):
        pytest.skip("no headers of this processor's kernel here")
    for name, numbers in named_calls().items():
        if name in kernel and kernel[name] <= seccomp.LATEST:
            assert numbers[column] == kernel[name], name


def named_calls() -> dict[str, seccomp.Numbers]:
    """Every call that the filter has a rule for."""
    calls = {name: numbers for group in seccomp.ALLOWED.values() for name, numbers in group.items()}
    rules = (seccomp.BY_VALUE, seccomp.BY_BITS, seccomp.WITH_BITS, seccomp.ERRORS)
    calls |= {name: rule[0] for group in rules for name, rule in group.items()}
    return calls | seccomp.TO_ITSELF


def test_no_call_has_two_rules() -> None:
    groups = [*seccomp.ALLOWED.values(), seccomp.BY_VALUE, seccomp.BY_BITS, seccomp.WITH_BITS]
    groups += [seccomp.TO_ITSELF, seccomp.ERRORS]
    assert sum(map(len, groups)) == len(named_calls())


FUTEX = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
word = ctypes.c_int(0)
found = [[libc.syscall(NUMBER, ctypes.byref(word), op, 1, 0, 0, 0), ctypes.get_errno()] for op in (0x81, 1)]
import numpy
product = float((numpy.ones((64, 64)) @ numpy.ones((64, 64))).sum())
"""


@pytest.mark.skipif(platform.machine() not in seccomp.AUDIT, reason="no filter for this processor")
def test_a_futex_is_the_process_s_own(stage: Path) -> None:
    number = seccomp.WITH_BITS["futex"][0][seccomp.column_of(platform.machine())]
    code = FUTEX.replace("NUMBER", str(number))
    with PipeSession([code], stage=stage, limits=LIMITS) as session:
        assert session.troubles == []
        assert session.value("found") == [[0, 0], [-1, errno.EPERM]]
        assert session.value("product") == 64.0**3


def test_torch_works_with_futexes_of_its_own(stage: Path) -> None:
    pytest.importorskip("torch")
    code = "import torch\nx = torch.ones(256, 256, requires_grad=True)\n(x @ x).sum().backward()\ny = x.grad.sum().item()"
    limits = Limits(cpu_s=20, idle_s=5.0, memory_mb=1024)
    with PipeSession([code], stage=stage, limits=limits, needs_torch=True) as session:
        assert session.troubles == [] and session.value("y") == 2.0 * 256**3


CALLING = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
found = {}
for number in NUMBERS:
    ctypes.set_errno(0)
    found[number] = [libc.syscall(number, 0, 0, 0, 0, 0, 0), ctypes.get_errno()]
"""


@pytest.mark.skipif(platform.machine() not in seccomp.AUDIT, reason="no filter for this processor")
def test_every_call_without_a_rule_is_refused_and_so_is_what_is_younger(stage: Path) -> None:
    column = seccomp.column_of(platform.machine())
    calls = {numbers[column]: name for name, numbers in named_calls().items()}
    unused = range(335, 424)  # but for what the kernel lets through every filter: its own return probes
    tried = [n for n in range(seccomp.LATEST + 40) if n not in calls and n not in unused]
    assert len(tried) > 200
    with PipeSession([CALLING.replace("NUMBERS", repr(tried))], stage=stage, limits=LIMITS) as session:
        assert session.troubles == []
        found = session.value("found")
    for number in tried:
        refusal = errno.ENOSYS if number > seccomp.LATEST else errno.EPERM
        assert found[number] == [-1, refusal], number


def test_a_thread_cannot_start_and_the_library_is_told_so_in_words_it_knows(stage: Path) -> None:
    column = seccomp.column_of(platform.machine())
    due = {n[column]: error for n, error in seccomp.ERRORS.values() if n[column] is not None}
    with PipeSession([CALLING.replace("NUMBERS", repr(list(due)))], stage=stage, limits=LIMITS) as session:
        found = session.value("found")
    assert found == {number: [-1, error] if error else [0, 0] for number, error in due.items()}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="x32 is a second set of numbers of this processor")
def test_the_other_numbers_of_the_same_calls_end_the_process(stage: Path) -> None:
    code = "import ctypes\nctypes.CDLL(None).syscall(0x40000000 + 57)"
    with pytest.raises(Crashed, match="SIGSYS"):
        PipeSession([code], stage=stage, limits=LIMITS)
