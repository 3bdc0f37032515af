"""Compiling C where it runs: kept for the next process, loaded only if it is ours, done without where it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from chunkprefill.model import compiled_c, fused_cpu, paged_decode_cpu
from tests.needs import need

KERNELS = {"fused_cpu": fused_cpu.SIGNATURES, "paged_decode_cpu": paged_decode_cpu.SIGNATURES}


def compile_all(dtype: torch.dtype = torch.float32) -> list[bool]:
    """Whether each file of C compiles now, whatever was compiled before."""
    return [compiled_c.compiled(name, dtype, KERNELS[name]) is not None for name in KERNELS]


def test_no_compiler_and_one_that_fails_are_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    missing, broken = tmp_path / "no-such-compiler", tmp_path / "false"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CHUNKPREFILL_CACHE", str(tmp_path / "cache"))
    for compiler in (missing, broken):
        monkeypatch.setenv("CC", str(compiler))
        assert not any(compile_all())
    monkeypatch.setenv("CC", "'unclosed")
    assert not any(compile_all())
    monkeypatch.delenv("CC")
    assert not any(compile_all(torch.float16)), "a type that the C does not take"


def test_every_file_of_c_is_kept_once_for_each_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    need("a C compiler", fused_cpu.kernels(torch.float32), "apt-get install gcc")
    assert {path.stem for path in compiled_c.HERE.glob("*.c")} == set(KERNELS)
    monkeypatch.setenv("CHUNKPREFILL_CACHE", str(tmp_path))
    for dtype in (torch.float32, torch.bfloat16):
        assert all(compile_all(dtype)) and all(compile_all(dtype))
    assert len(list((tmp_path / "compiled").iterdir())) == 2 * len(KERNELS)


def test_a_changed_header_is_compiled_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    need("a C compiler", fused_cpu.kernels(torch.float32), "apt-get install gcc")
    monkeypatch.setenv("CHUNKPREFILL_CACHE", str(tmp_path))
    assert all(compile_all())
    other = tmp_path / "numbers.h"
    other.write_bytes(compiled_c.HEADER.read_bytes() + b"\n")
    monkeypatch.setattr(compiled_c, "HEADER", other)
    assert all(compile_all())
    assert len(list((tmp_path / "compiled").iterdir())) == 2 * len(KERNELS)


def test_a_kept_file_that_is_no_library_is_done_without(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    need("a C compiler", fused_cpu.kernels(torch.float32), "apt-get install gcc")
    monkeypatch.setenv("CHUNKPREFILL_CACHE", str(tmp_path))
    assert all(compile_all())
    other = tmp_path / "other"
    (other / "compiled").mkdir(parents=True, mode=0o700)
    for path in (tmp_path / "compiled").iterdir():
        (other / "compiled" / path.name).write_bytes(b"no library")
    monkeypatch.setenv("CHUNKPREFILL_CACHE", str(other))
    assert not any(compile_all())


def test_code_that_another_could_have_written_is_not_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CHUNKPREFILL_CACHE", str(tmp_path))
    kept = compiled_c._kept("x.so")
    assert kept is not None and kept.parent.stat().st_mode & 0o777 == 0o700
    kept.write_bytes(b"")
    kept.chmod(0o666)
    assert compiled_c._kept("x.so") is None
    kept.chmod(0o600)
    assert compiled_c._kept("x.so") == kept
    kept.parent.chmod(0o770)
    assert compiled_c._kept("x.so") is None
    kept.parent.chmod(0o700)
    monkeypatch.setattr(compiled_c.os, "getuid", lambda: -1)
    assert compiled_c._kept("x.so") is None

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(compiled_c, "cache_dir", homeless)
    assert compiled_c._kept("x.so") is None


def test_a_compiler_with_options_compiles_into_a_private_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    need("a C compiler", fused_cpu.kernels(torch.float32), "apt-get install gcc")
    monkeypatch.setattr(compiled_c, "_kept", lambda name: None)
    monkeypatch.setenv("CC", "gcc -pipe" if compiled_c.shutil.which("gcc") else "clang -pipe")
    assert all(compile_all())
