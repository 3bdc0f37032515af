"""The GPU bench in miniature, on this processor: run once in a whole run, read by all that look at its document."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.gpu import run as gpu
from tests.once import once

COMMIT = "abcdef0123"


def recording(factory: pytest.TempPathFactory) -> Path:
    """The file that the bench wrote; its profile lies beside it."""
    return once(factory, "gpu-miniature", make) / "gpu.json"


def make(folder: Path) -> None:
    """All sections, every profile, one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        options = ["--tiny", "--out", str(folder / "gpu.json"), "--commit", COMMIT, "--dirty", "false"]
        assert gpu.main([*options, "--profile", "all"]) == 0
    finally:
        torch.set_num_threads(threads)
