"""env.setup: the policy by compute capability, every way to fail, and one line that says why."""

from __future__ import annotations

import subprocess
import sys
import types
from typing import Any

import pytest
import torch

from chunkprefill import env


def machine(monkeypatch: Any, capability: Any, works: bool = True) -> None:
    """A pretended GPU; `capability` may be an error to raise."""

    def ask(*_: Any) -> Any:
        if isinstance(capability, BaseException):
            raise capability
        return capability

    def ones(*shape: int, device: str, dtype: torch.dtype) -> torch.Tensor:
        if not works:
            raise RuntimeError("CUDA error: no kernel image is available\nand a page of advice")
        return real(*shape, dtype=dtype)

    real = torch.ones
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", ask)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Pretended GPU")
    monkeypatch.setattr(torch, "ones", ones)


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [
        ((9, 0), torch.bfloat16), ((12, 0), torch.bfloat16),
        ((8, 9), torch.bfloat16), ((8, 0), torch.bfloat16),
        ((7, 5), torch.float16), ((7, 0), torch.float16), ((6, 1), torch.float32), ((3, 7), torch.float32),
    ],
)  # fmt: skip
def test_a_gpu_gets_the_dtype_that_it_computes_fast(
    monkeypatch: Any, capsys: Any, capability: tuple[int, int], dtype: torch.dtype
) -> None:
    machine(monkeypatch, capability)
    chosen = env.setup()
    backend = "varlen" if capability >= (8, 0) else "sdpa"
    assert (chosen.device, chosen.dtype, chosen.backend, chosen.colab) == ("cuda", dtype, backend, False)
    line = capsys.readouterr().out
    assert "Pretended GPU" in line and "{}.{}".format(*capability) in line and line.count("\n") == 1


@pytest.mark.parametrize(
    ("capability", "works"),
    [
        ((7, 5), False),
        (RuntimeError("driver too old"), True),
        (AssertionError("not compiled with CUDA"), True),
    ],
)
def test_a_gpu_that_cannot_be_used_is_left_alone(
    monkeypatch: Any, capsys: Any, capability: Any, works: bool
) -> None:
    machine(monkeypatch, capability, works)
    chosen = env.setup()
    assert (chosen.device, chosen.dtype) == ("cpu", torch.float32)
    line = capsys.readouterr().out
    assert "cannot use it" in line and line.count("\n") == 1


def test_a_cpu_gets_float32_and_a_colab_without_gpu_is_told_where_one_is(
    monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert env.setup(quiet=True) == env.Setup("cpu", torch.float32, "sdpa", False, "no CUDA device")
    assert capsys.readouterr().out == ""
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    assert env.setup().colab
    assert "Change runtime type" in capsys.readouterr().out


@pytest.mark.parametrize("asked", ["sdpa", "reference", "varlen", "flash", ""])
def test_a_backend_asked_for_is_taken_where_it_runs(monkeypatch: Any, capsys: Any, asked: str) -> None:
    machine(monkeypatch, (7, 5))
    chosen = env.setup(backend=asked)
    line = capsys.readouterr().out
    assert line.count("\n") == 1 and "was asked for" in line
    assert chosen.backend == (asked if asked in ("sdpa", "reference") else "sdpa")
    assert ("7.5" in line.split("asked for")[1]) == (asked == "varlen"), "the reason is named"


def test_without_torch_it_says_so_and_does_not_raise() -> None:
    code = "import sys; sys.modules['torch'] = None; from chunkprefill import env; print(env.setup())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "pip install torch" in done.stdout and "dtype=None" in done.stdout
