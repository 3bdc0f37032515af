"""Where to run: `setup()` looks at the machine, chooses, and says why."""

from __future__ import annotations

import contextlib
import linecache
import os
import sys
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chunkprefill.strict import first_line

if TYPE_CHECKING:
    import torch


#: Where this package stands, and what stands beside it under its name.
_PACKAGES = os.path.dirname(os.path.abspath(__file__))
_STANDARD = os.path.dirname(os.__file__) + os.sep


@dataclass(frozen=True)
class Setup:
    """What `setup` chose; `dtype` is None only where torch is missing."""

    device: str
    dtype: torch.dtype | None
    backend: str  # of attention, see `model.attention`
    colab: bool
    why: str


def setup(*, backend: str | None = None, quiet: bool = False) -> Setup:
    """Choose device, dtype and attention backend, print what and why in a line or two, and never raise.

    In a notebook, errors of this package are shown from then on with the lines of your cell and the message,
    without the package's own lines; `%tb` shows them all.

    A `backend` asked for by name is taken if it runs here; else the reason is printed and the choice stands.

    CPU: float32. A GPU of compute capability 8.0 or newer: bfloat16. 7.x (a T4): float16, because its bfloat16
    is emulated and falls off the fast attention kernels. Older ones: float32. A GPU that torch sees and cannot
    use is left alone. Comparisons of results belong in float32 or float64 everywhere.
    """
    _shorten_tracebacks()
    chosen = _choose(backend)
    if not quiet:
        where = f"{chosen.device} in {str(chosen.dtype).removeprefix('torch.')}"
        print(f"chunkprefill runs on {where} with {chosen.backend} attention: {chosen.why}")
    return chosen


def _choose(backend: str | None) -> Setup:
    colab = "google.colab" in sys.modules
    try:
        import torch
    except Exception as error:  # a broken install raises more than ImportError
        said = first_line(error)
        why = f"torch cannot be imported ({said}): pip install torch. The simulator runs without it."
        return Setup("cpu", None, "none", colab, why)
    dtype, device, why = torch.float32, "cpu", "no CUDA device"
    try:
        if torch.cuda.is_available():
            capability = torch.cuda.get_device_capability()
            name = torch.cuda.get_device_name()
            if capability >= (7, 0):
                dtype = torch.bfloat16 if capability >= (8, 0) else torch.float16
            ones = torch.ones(8, 8, device="cuda", dtype=dtype)
            (ones @ ones).sum().item()  # whether it computes at all
            device, why = "cuda", f"{name}, compute capability {capability[0]}.{capability[1]}"
    except Exception as error:  # drivers and torch builds that do not match fail in many ways
        dtype, device, why = torch.float32, "cpu", f"torch sees a GPU and cannot use it ({first_line(error)})"
    if device == "cpu" and colab:
        why += "; Runtime > Change runtime type gives one"
    chosen, reason = _backend_for(backend, device, dtype)
    return Setup(device, dtype, chosen, colab, why + reason)


def _shorten_tracebacks() -> None:
    """In IPython, show what a reader can use of an error that this package raises."""
    find = getattr(sys.modules.get("IPython"), "get_ipython", None)
    shell = find() if find else None
    if shell is not None:
        with contextlib.suppress(Exception):  # another shell than we know
            shell.set_custom_exc((Exception,), show_shortly)


def show_shortly(shell: Any, kind: Any, error: Any, trace: Any, tb_offset: Any = None) -> None:
    """The reader's own lines that an error passed, and its message; all of it where the error is not ours.

    The reader's are cells, and files that are neither Python's, nor installed, nor this package's.
    """
    passed = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(trace)]
    first = next((i for i, (name, _) in enumerate(passed) if _is_cell(name)), len(passed))
    cells = [(name, line) for name, line in passed[first:] if _is_readers(name)]  # before it is the shell
    if not cells or not any(name.startswith(_PACKAGES) for name, _ in passed):
        shell.showtraceback((kind, error, trace), tb_offset=tb_offset)
        return
    sys.last_type, sys.last_value, sys.last_traceback = kind, error, trace  # what `%tb` shows
    lines = []
    for name, line in cells:
        where = "your cell" if _is_cell(name) else os.path.basename(name)
        lines.append(f"in {where}, line {line}: {linecache.getline(name, line).strip()}")
    lines.append(f"{kind.__name__}: {error}")
    shell._showtraceback(kind, error, lines)


def _is_cell(name: str) -> bool:
    return "ipykernel_" in name or name.startswith("<ipython")


def _is_readers(name: str) -> bool:
    """Whether a file is a cell, or one that the reader wrote."""
    if _is_cell(name):
        return True
    installed = "site-packages" in name or "dist-packages" in name
    return not installed and not name.startswith((_PACKAGES, _STANDARD, "<"))  # "<": made by a library


def _backend_for(asked: str | None, device: str, dtype: torch.dtype) -> tuple[str, str]:
    """The attention backend, and why; nothing to say of a CPU that was not asked about."""
    import torch

    from chunkprefill.model.backends import backend_for, why_not_varlen

    best = backend_for(None, device, dtype)
    try:
        if asked is not None:
            return backend_for(asked, device, dtype), f"; {asked} attention was asked for"
    except ValueError as error:
        return best, f"; {asked} attention was asked for: {first_line(error)}"
    why_not = why_not_varlen(torch.device(device), dtype)
    if device == "cpu":
        return best, ""
    return best, f"; no varlen attention: {why_not}" if why_not else "; one launch takes many sequences"
