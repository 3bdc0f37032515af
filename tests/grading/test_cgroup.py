"""Control groups where they may be made, and nothing where they may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from chunkprefill_grading.sandbox import cgroup


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree as the kernel shows it, and this process in it."""
    own = tmp_path / "user.slice" / "grading.scope"
    own.mkdir(parents=True)
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n")
    (own.parent / "cgroup.subtree_control").write_text("memory pids\n")
    (own / "cgroup.subtree_control").write_text("\n")
    read = cgroup._read
    told = "0::/user.slice/grading.scope\n"
    monkeypatch.setattr(cgroup, "_read", lambda p: told if p == Path("/proc/self/cgroup") else read(p))
    return tmp_path


def test_a_group_is_made_where_memory_and_processes_can_be_bounded(tree: Path) -> None:
    made = cgroup.group(1 << 20, 8, root=tree)
    assert made is not None and made.path.parent == tree / "user.slice"
    assert (made.path / "memory.max").read_text() == str(1 << 20)
    assert (made.path / "pids.max").read_text() == "8"
    assert made.add(4711) and (made.path / "cgroup.procs").read_text() == "4711"
    other = cgroup.group(1 << 20, 8, root=tree)
    assert other is not None and other.path != made.path


def test_nothing_is_made_without_cgroup_v2_or_without_its_controllers(tree: Path, tmp_path: Path) -> None:
    (tree / "user.slice" / "cgroup.subtree_control").write_text("cpu\n")
    assert cgroup.group(1 << 20, 8, root=tree) is None
    (tree / "cgroup.controllers").unlink()
    assert cgroup.group(1 << 20, 8, root=tree) is None
    assert not list(tree.rglob(f"{cgroup.PREFIX}*"))


def test_here_it_is_a_group_or_nothing() -> None:
    made = cgroup.group(1 << 30, 64)
    if made is not None:
        made.close()
        assert not made.path.exists()
