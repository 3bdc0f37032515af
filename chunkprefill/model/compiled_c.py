"""C that is compiled at first use, for the processor it runs on, and kept beside the cached weights.

Where there is no C compiler, or it fails, `compiled` returns None, and torch does the work.
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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from chunkprefill.model.smollm2 import cache_dir
from chunkprefill.recording import cpuinfo

HERE = Path(__file__).parent
HEADER = HERE / "numbers.h"
TYPES = {
    torch.float32: ("-DSTORED=float", "-DSUM=float"),
    torch.float64: ("-DSTORED=double", "-DSUM=double", "-DDOUBLE"),
    torch.bfloat16: ("-DSTORED=uint16_t", "-DSUM=float", "-DBFLOAT16"),
}
# Not -ffast-math: a library linked with it may change how the whole process rounds.
FLAGS = ("-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
POINTER, STRIDE, COUNT, FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_float

Function = Callable[..., Any]
Signature = tuple[Any, ...]  # what a function returns (None: nothing), then its arguments


def compiled(
    name: str, dtype: torch.dtype, signatures: Mapping[str, Signature]
) -> dict[str, Function] | None:
    """The functions of NAME.c, beside this file, for this type of number, by their names.

    Compiles what is not kept yet. None where that cannot be done; each caller remembers the answer.
    """
    try:
        compiler = shlex.split(os.environ.get("CC", ""))
    except ValueError:  # a quote that is not closed
        return None
    compiler = compiler or [found for name in ("gcc", "clang") if (found := shutil.which(name))][:1]
    if not compiler or dtype not in TYPES or os.name != "posix":
        return None
    source = HERE / f"{name}.c"
    command = [*compiler, *FLAGS, *TYPES[dtype], str(source), "-lm"]
    text = source.read_bytes() + HEADER.read_bytes()
    # What `-march=native` depends on belongs to the name: machines may share a cache.
    processor = cpuinfo("flags", "Features") or platform.machine()
    seen = hashlib.sha256(text + repr((command, processor)).encode()).hexdigest()[:16]
    kept = _kept(f"{name}-{seen}.so")
    try:
        if kept is not None and kept.is_file():
            library = ctypes.CDLL(str(kept))
        else:
            with tempfile.TemporaryDirectory(dir=kept.parent if kept else None) as folder:
                fresh = Path(folder, f"{name}.so")
                subprocess.run([*command, "-o", str(fresh)], check=True, capture_output=True, timeout=60)
                fresh.chmod(0o700)
                if kept is not None:
                    fresh.replace(kept)  # in one step: a second process sees the whole file or none
                library = ctypes.CDLL(str(kept or fresh))
        functions = {each: getattr(library, each) for each in signatures}
    except (OSError, AttributeError, subprocess.SubprocessError):
        return None
    for each, (returned, *arguments) in signatures.items():
        functions[each].restype, functions[each].argtypes = returned, arguments
    return functions


def _kept(name: str) -> Path | None:
    """Where the compiled code is kept; None where another user could put it there, or without a home."""
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
