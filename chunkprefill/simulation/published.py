"""Kernel costs of real devices, fitted to published timings by `python -m benchmarks kernels`."""

from __future__ import annotations

from typing import Any

from chunkprefill.configs import DEVICES, LLAMA3_8B, table
from chunkprefill.model.config import Config
from chunkprefill.simulation.kernels import Fit, Kernels


def _fit(row: dict[str, Any]) -> Fit:
    return Fit(**row | {"reach": tuple(map(tuple, row["reach"]))})


#: By device, from `data/kernels.json`. Of an H100 no timing of a later chunk, or of one beside decodes, was
#: at hand: there decodes are priced as if alone, which is their best case.
FITS = {device: _fit(row) for device, row in table("kernels.json").items()}


def published(device: str = "h100", config: Config = LLAMA3_8B, *, overhead: float = 0.0) -> Kernels:
    """The cost of `config` in 16-bit on a device whose kernels were timed and published: a key of FITS.

    overhead: s a step beside its kernels. Other models scale by their shapes: a prediction.
    Raises ValueError for a device without published timings.
    """
    if device not in FITS:
        raise ValueError(f"no published kernel timings of {device!r} here; there are {', '.join(FITS)}")
    return Kernels(config, DEVICES[device], FITS[device], overhead)
