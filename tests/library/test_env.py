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
        ((9, 0), torch.bfloat16),
        ((12, 0), torch.bfloat16),
        ((8, 9), torch.bfloat16),
        ((8, 0), torch.bfloat16),
        ((7, 5), torch.float16),
        ((7, 0), torch.float16),
        ((6, 1), torch.float32),
        ((3, 7), torch.float32),
    ],
)
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


# --- errors in a notebook -----------------------------------------------------------------------------


class Shell:
    """What of IPython's shell an error is shown with."""

    def __init__(self):
        self.shown, self.whole = [], 0

    def _showtraceback(self, kind, error, lines):
        self.shown = lines

    def showtraceback(self, *_, **__):
        self.whole += 1


def raised(source):
    code = compile(source, "<ipython-input-3>", "exec")
    try:
        exec(code, {})
    except Exception as error:
        return type(error), error, error.__traceback__
    raise AssertionError("it raised nothing")


def test_an_error_of_ours_is_shown_with_the_line_of_the_cell_and_its_message():
    shell = Shell()
    env.show_shortly(shell, *raised("import chunkprefill as cp\n\ncp.Request('a', 0.0, -3, 1)"))
    assert shell.whole == 0 and len(shell.shown) == 2
    assert shell.shown[0].startswith("in your cell, line 3") and "n_prompt" in shell.shown[1]
    assert sys.last_value is not None


def test_an_error_of_the_readers_own_is_shown_whole():
    shell = Shell()
    env.show_shortly(shell, *raised("1 / 0"))
    assert shell.whole == 1 and not shell.shown


def test_setup_asks_ipython_once_it_is_there(monkeypatch):
    asked = []
    shell = types.SimpleNamespace(set_custom_exc=lambda kinds, show: asked.append((kinds, show)))
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    env.setup(quiet=True)
    assert asked == [((Exception,), env.show_shortly)]


def test_a_reader_s_own_module_on_the_way_is_shown_too(tmp_path, monkeypatch):
    (tmp_path / "my_helper.py").write_text(
        "import chunkprefill as cp\ndef make():\n    return cp.Request('a', 0.0, -3, 1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    shell = Shell()
    env.show_shortly(shell, *raised("import my_helper\nmy_helper.make()"))
    assert len(shell.shown) == 3 and shell.shown[0].startswith("in your cell, line 2")
    assert shell.shown[1] == "in my_helper.py, line 3: return cp.Request('a', 0.0, -3, 1)"
