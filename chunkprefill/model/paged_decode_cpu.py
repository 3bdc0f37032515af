"""The attention of decoding steps on a CPU: one call of C walks every block table, and nothing is copied.

The same work as `paged_decode` does on a GPU. The C beside this file is compiled at first use, for this
processor, and kept in the cache of the weights. Where there is no C compiler, `compiled` returns None, and
the chunks of a batch are attended to one by one.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from chunkprefill.model.smollm2 import cache_dir

SOURCE = Path(__file__).with_suffix(".c")
TYPES = {
    torch.float32: ("-DSTORED=float", "-DSUM=float"),
    torch.float64: ("-DSTORED=double", "-DSUM=double", "-DDOUBLE"),
    torch.bfloat16: ("-DSTORED=uint16_t", "-DSUM=float", "-DBFLOAT16"),
}
# Not -ffast-math: a library linked with it may change how the whole process rounds.
FLAGS = ("-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
MOST_D, MOST_G = 256, 16  # as in the C


def can_walk(dtype: torch.dtype, head_dim: int, group: int) -> bool:
    """Whether the kernel takes heads of this size, this many queries a key head, and compiles here."""
    return head_dim <= MOST_D and group <= MOST_G and compiled(dtype) is not None


def walk_on_cpu(
    q: Tensor, keys: Tensor, values: Tensor, tables: Tensor, ends: Tensor, *, n_splits: int = 1
) -> Tensor:
    """One query a sequence, q `[B, H, D]`, on blocks of keys and values `[blocks, block, Hkv, D]`.

    tables `[B, width]` int32 names each sequence's blocks, ends `[B]` int32 says how many positions are
    filled. Returns `[B, H, D]`. n_splits is for the kernel of the GPU; here a sequence's keys stay together.
    """
    n, n_heads, head_dim = q.shape
    _, size, n_kv_heads, _ = keys.shape
    assert q.stride()[1:] == (head_dim, 1) and keys.is_contiguous() and values.is_contiguous()
    assert tables.is_contiguous() and tables.dtype == ends.dtype == torch.int32
    run = compiled(q.dtype)
    assert run is not None  # `can_walk` was asked before
    out = q.new_empty((n, n_heads, head_dim))
    pointers = [x.data_ptr() for x in (keys, values, tables, ends, out)]
    shape = (n, tables.shape[1], size, n_kv_heads, n_heads // n_kv_heads, head_dim)
    if run(q.data_ptr(), q.stride(0), *pointers, *shape, int(ends.max()), torch.get_num_threads()):
        raise MemoryError(f"no memory for the scores of {n} decoding steps")
    return out


@cache
def compiled(dtype: torch.dtype) -> Callable[..., int] | None:
    """The C function for this type of number, compiled if it is not yet; None where it cannot be."""
    try:
        compiler = shlex.split(os.environ.get("CC", ""))
    except ValueError:  # a quote that is not closed
        return None
    compiler = compiler or [found for name in ("gcc", "clang") if (found := shutil.which(name))][:1]
    if not compiler or dtype not in TYPES or os.name != "posix":
        return None
    command = [*compiler, *FLAGS, *TYPES[dtype], str(SOURCE), "-lm"]
    seen = hashlib.sha256(SOURCE.read_bytes() + repr((command, _processor())).encode()).hexdigest()[:16]
    kept = _kept(f"paged_decode-{seen}.so")
    try:
        if kept is not None and kept.is_file():
            function = ctypes.CDLL(str(kept)).paged_decode
        else:
            with tempfile.TemporaryDirectory(dir=kept.parent if kept else None) as folder:
                fresh = Path(folder, "paged_decode.so")
                subprocess.run([*command, "-o", str(fresh)], check=True, capture_output=True, timeout=60)
                fresh.chmod(0o700)
                if kept is not None:
                    fresh.replace(kept)  # in one step: a second process sees the whole file or none
                function = ctypes.CDLL(str(kept or fresh)).paged_decode
    except (OSError, AttributeError, subprocess.SubprocessError):
        return None
    pointer, count = ctypes.c_void_p, ctypes.c_int
    function.argtypes = [pointer, ctypes.c_int64, *[pointer] * 5, *[count] * 8]
    function.restype = count
    return function


def _kept(name: str) -> Path | None:
    """Where the compiled code is kept; None where someone else could have put it there, or there is no home."""
    try:
        folder = cache_dir() / "compiled"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = folder / name
        mine = all(map(_is_mine, [folder, kept] if kept.exists() else [folder]))
    except (OSError, RuntimeError, AttributeError):
        return None
    return kept if mine else None


def _is_mine(path: Path) -> bool:
    """Whether this user owns a file or folder, and no other may write to it."""
    found = path.stat()
    return found.st_uid == os.getuid() and not found.st_mode & 0o022


def _processor() -> str:
    """What `-march=native` depends on: a cache may be shared between machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())
