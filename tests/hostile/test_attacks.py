"""Each attack gets the status and the points that it must get, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from chunkprefill.grading import sandbox, seccomp
from chunkprefill.grading.marking import Mark
from chunkprefill.grading.process import PipeSession
from chunkprefill.grading.results import Result
from chunkprefill.grading.run import Grader
from chunkprefill.grading.sandbox import Limits, SandboxError
from chunkprefill.grading.session import Crashed, Refused, Session
from tests.hostile import world
from tests.hostile.attacks import ATTACKS, Attack
from tests.needs import need

LIMITS = Limits(cpu_s=2, idle_s=2.0, wall_s=120.0, memory_mb=512, tmp_mb=4)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: Any) -> Iterator[Path]:
    try:
        sandbox.probe(LIMITS)
    except SandboxError as error:
        need("bwrap", False, str(error))
    with sandbox.staged(tmp_path_factory.mktemp("grader") / "stage") as folder:
        yield folder


def children() -> set[str]:
    """Processes that came from this one and live."""
    mine = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == os.getpid() and fields[0] != "Z":
                mine.add(stat.parent.name)
    return mine


@pytest.fixture(scope="module")
def outcomes(stage: Path, tmp_path_factory: Any) -> dict[str, tuple[Result, list[Any]]]:
    """Every attack, some at a time: many only sleep."""
    folder, before = tmp_path_factory.mktemp("submitted"), children()
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
        grader = Grader(world.KEY, stage=stage, limits=LIMITS, marker=marker)
        return attack.name, (grader.grade(student, grader.read(student, folder)), loot)

    with ThreadPoolExecutor(4) as pool:
        made = dict(pool.map(one, enumerate(ATTACKS)))
    assert len(made) == len(ATTACKS), "two attacks of one name"
    assert (folder / "canary.txt").read_text() == "alive"
    assert children() == before
    return made


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_attack(attack: Attack, outcomes: dict[str, tuple[Result, list[Any]]]) -> None:
    result, loot = outcomes[attack.name]
    assert (result.status, result.score) == (attack.status, attack.points), explained(result)
    assert attack.why in result.reason
    assert len(result.marks) == len(world.QUESTIONS)
    assert loot == []


def explained(result: Result) -> str:
    cells = "\n".join(f"cell {cell}: {words}" for cell, words in result.cells)
    marks = "\n".join(str(mark) for mark in result.marks)
    return f"{result.status} {result.score}: {result.reason}\n{cells}\n{marks}"


SEARCH = """
import os
loot = [path for path in WANTED if os.path.lexists(path)]
for folder, folders, files in os.walk('/'):
    for name in files:
        own = 'chunkprefill' in folder and name.partition('.')[0] in ('policies', 'marking', 'ps2')
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
        Path.home() / ".ssh",
        Path(__file__).resolve().parents[2],
    ]
    wanted = [*map(str, wanted), *PRIVATE]
    student = world.hand_in(tmp_path, "Mallory", *world.HONEST, SEARCH.replace("WANTED", repr(wanted)))
    found: list[object] = []

    def marker(key: dict[str, Any], answers: Session, written: dict[str, str]) -> list[Mark]:
        found.extend(answers.value("loot"))
        return world.mark(key, answers, written)

    grader = Grader(world.KEY, stage=stage, limits=LIMITS, marker=marker)
    result = grader.grade(student, grader.read(student, tmp_path))
    assert result.score == 3, explained(result)
    assert found == []


def test_a_session_that_ended_stays_ended(stage: Path, tmp_path: Path) -> None:
    with PipeSession(["def f():\n    import os\n    os._exit(1)"], stage=stage, limits=LIMITS) as session:
        for _ in range(2):
            with pytest.raises(Refused) as error:
                session.call("f", [])
            assert error.value.status == "crashed"


def test_nothing_that_solves_a_question_is_mounted(stage: Path) -> None:
    names = {path.name for path in stage.rglob("*") if path.suffix == ".py"}
    allowed = {f"{module.rpartition('.')[2]}.py" for module in sandbox.ALLOWED_MODULES}
    assert names == allowed
    assert not names & {"policies.py", "vllm.py", "attention.py", "cache.py", "marking.py", "session.py"}


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
    for name, numbers in seccomp.CALLS.items():
        if name in kernel and kernel[name] <= seccomp.LATEST:
            assert numbers[column] == kernel[name], name


CALLING = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
found = {}
for number in NUMBERS:
    ctypes.set_errno(0)
    found[number] = [libc.syscall(number, 0, 0, 0, 0, 0, 0), ctypes.get_errno()]
"""


@pytest.mark.skipif(platform.machine() not in seccomp.AUDIT, reason="no filter for this processor")
def test_every_call_of_the_filter_is_refused_and_so_is_what_is_younger(stage: Path) -> None:
    column = [*seccomp.AUDIT].index(platform.machine())
    due = {n[column]: name for name, n in seccomp.CALLS.items() if n[column] is not None}
    young = dict.fromkeys(range(seccomp.LATEST + 1, seccomp.LATEST + 40), "")
    with PipeSession(
        [CALLING.replace("NUMBERS", repr([*due, *young]))], stage=stage, limits=LIMITS
    ) as session:
        assert session.troubles == []
        found = session.value("found")
    for number, name in {**due, **young}.items():
        wanted = {"clone": errno.EAGAIN, "fork": errno.EAGAIN, "vfork": errno.EAGAIN, "clone3": errno.ENOSYS}
        refusal = errno.ENOSYS if number in young else wanted.get(name, errno.EPERM)
        assert found[number] == [-1, refusal], (number, name)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="x32 is a second set of numbers of this processor")
def test_the_other_numbers_of_the_same_calls_end_the_process(stage: Path) -> None:
    code = "import ctypes\nctypes.CDLL(None).syscall(0x40000000 + 57)"
    with pytest.raises(Crashed, match="SIGSYS"):
        PipeSession([code], stage=stage, limits=LIMITS)
