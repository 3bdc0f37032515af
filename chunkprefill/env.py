"""Where to run: `setup()` looks at the machine, chooses, and says why."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


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

    A `backend` asked for by name is taken if it runs here; else the reason is printed and the choice stands.

    CPU: float32. A GPU of compute capability 8.0 or newer: bfloat16. 7.x (a T4): float16, for its bfloat16 is
    emulated and falls off the fast attention kernels. Older ones: float32. A GPU that torch sees and cannot
    use is left alone. Comparisons of results belong in float32 or float64 everywhere.
    """
    colab = "google.colab" in sys.modules
    try:
        import torch
    except Exception as error:  # a broken install raises more than ImportError
        why = f"torch cannot be imported ({_line(error)}): pip install torch. The simulator runs without it."
        return _tell(Setup("cpu", None, "none", colab, why), quiet)
    dtype, device, why = torch.float32, "cpu", "no CUDA device"
    try:
        if torch.cuda.is_available():
            capability = torch.cuda.get_device_capability()
            name = torch.cuda.get_device_name()
            dtype = _dtype_for(capability)
            torch.ones(8, 8, device="cuda", dtype=dtype).mm(
                torch.ones(8, 8, device="cuda", dtype=dtype)
            ).sum().item()
            device, why = "cuda", f"{name}, compute capability {capability[0]}.{capability[1]}"
    except Exception as error:  # drivers and torch builds that do not match fail in many ways
        dtype, device, why = torch.float32, "cpu", f"torch sees a GPU and cannot use it ({_line(error)})"
    if device == "cpu" and colab:
        why += "; Runtime > Change runtime type gives one"
    chosen, reason = _backend_for(backend, device, dtype)
    return _tell(Setup(device, dtype, chosen, colab, why + reason), quiet)


def _backend_for(asked: str | None, device: str, dtype: torch.dtype) -> tuple[str, str]:
    """The attention backend, and why; nothing to say of a CPU that nobody asked about."""
    import torch

    from chunkprefill.model.backends import backend_for, why_not_varlen

    best = backend_for(None, device, dtype)
    try:
        if asked is not None:
            return backend_for(asked, device, dtype), f"; {asked} attention was asked for"
    except ValueError as error:
        return best, f"; {asked} attention was asked for: {_line(error)}"
    why_not = why_not_varlen(torch.device(device), dtype)
    if device == "cpu":
        return best, ""
    return best, f"; no varlen attention: {why_not}" if why_not else "; one launch takes many sequences"


def _dtype_for(capability: tuple[int, int]) -> torch.dtype:
    import torch

    if capability >= (8, 0):
        return torch.bfloat16
    return torch.float16 if capability >= (7, 0) else torch.float32


def _line(error: Exception) -> str:
    """The first line of an error, which may be pages."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:120]


def _tell(chosen: Setup, quiet: bool) -> Setup:
    if not quiet:
        dtype = str(chosen.dtype).removeprefix("torch.")
        print(
            f"chunkprefill runs on {chosen.device} in {dtype} with {chosen.backend} attention: {chosen.why}"
        )
    return chosen
