"""Which attention runs where, and the reason where one cannot."""

from __future__ import annotations

import inspect
import os
import shutil
from functools import cache
from importlib.util import find_spec

import torch

from chunkprefill.model.attention import backend_named
from chunkprefill.model.config import Config
from chunkprefill.model.paged_decode_cpu import can_walk


def backend_for(name: str | None, device: torch.device | str, dtype: torch.dtype) -> str:
    """The name itself, or with None the fastest that runs there: `varlen` if it can, else `sdpa`.

    ValueError for an unknown name, and for `varlen` where it cannot run, with the reason.
    """
    why = why_not_varlen(torch.device(device), dtype)
    if name is None:
        return "sdpa" if why else "varlen"
    backend_named(name)
    if name == "varlen" and why:
        raise ValueError(f"varlen attention cannot run here: {why}")
    return name


@cache
def varlen_parameters() -> frozenset[str]:
    """The parameters of this torch's `varlen_attn`; none where it has no such function."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return frozenset()
    return frozenset(inspect.signature(varlen_attn).parameters)


def why_not_varlen(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why `varlen` cannot run there, in a few words; None where it can."""
    if device.type != "cuda":
        return "it needs a CUDA device"
    capability = torch.cuda.get_device_capability(device)
    if capability < (8, 0):
        return f"it needs compute capability 8.0, this device has {capability[0]}.{capability[1]}"
    if dtype not in (torch.float16, torch.bfloat16):
        return f"it takes float16 and bfloat16, not {str(dtype).removeprefix('torch.')}"
    return None if varlen_parameters() else f"torch {torch.__version__} has no varlen_attn"


def walks(backend: str, device: torch.device, dtype: torch.dtype, config: Config) -> bool:
    """Whether our own kernel for decoding steps runs beside this backend.

    With `varlen`, on a GPU, it needs triton; with `sdpa` it runs on a CPU. Both need a C compiler.
    """
    head_dim = config.head_dim
    if device.type == "cpu":
        return backend == "sdpa" and can_walk(dtype, head_dim, config.n_heads // config.n_kv_heads)
    if backend != "varlen":
        return False
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    known = find_spec("triton") is not None and compiler is not None
    return known and head_dim >= 16 and head_dim & (head_dim - 1) == 0 and not why_not_varlen(device, dtype)
