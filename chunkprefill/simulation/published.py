"""Kernel costs of real devices, fitted to published timings by `python -m benchmarks kernels`."""

from __future__ import annotations

from chunkprefill.configs import DEVICES, LLAMA3_8B
from chunkprefill.model.config import Config
from chunkprefill.simulation.kernels import Fit, Kernels

_SERVINGSIM = "LLMServingSim (casys-kaist, commit 5daddb2, MIT), vLLM 0.19's kernels on Llama-3.1-8B in bf16"

#: How well each fits, and where it leans to one side, stands in `benchmarks/results/kernels.json`. Of an H100 no
#: timing of a later chunk, or of one beside decodes, was at hand: there decodes are priced as if alone, which
#: is their best case.
FITS = {
    "rtx4090": Fit(
        t_linear=8.469e-06,
        reach=(
            (1, 0.913),
            (16, 0.905),
            (24, 0.848),
            (64, 0.843),
            (128, 0.791),
            (192, 0.792),
            (256, 0.920),
            (384, 0.925),
            (512, 0.994),
            (640, 0.939),
            (768, 0.992),
            (896, 0.945),
            (1024, 0.958),
            (1152, 0.929),
            (1280, 0.976),
            (1408, 0.959),
            (1536, 0.965),
            (1664, 0.951),
            (1792, 0.963),
            (1920, 0.953),
            (2048, 0.963),
        ),
        head=1.05,
        t_sample=5.308e-05,
        sampled=2.687,
        t_chunk=3.661e-06,
        walk=3.232e-08,
        t_block=4.614e-06,
        t_empty=2.733e-09,
        beside=1.024,
        apart=0.08016,
        attention=0.8507,
        reading=0.8125,
        l2=5.96e07,
        t_decode=1.164e-05,
        t_row=1.84e-07,
        decode=0.9482,
        t_fill=3.98e-05,
        warm=7.2e07,
        source=_SERVINGSIM,
    ),
    "rtxpro6000": Fit(
        t_linear=1.022e-05,
        reach=(
            (1, 0.908),
            (16, 0.909),
            (24, 0.862),
            (64, 0.854),
            (128, 0.829),
            (192, 0.744),
            (256, 0.741),
            (384, 0.654),
            (512, 0.657),
            (640, 0.738),
            (768, 0.686),
            (896, 0.720),
            (1024, 0.722),
            (1152, 0.719),
            (1280, 0.766),
            (1408, 0.740),
            (1536, 0.699),
            (1664, 0.749),
            (1792, 0.753),
            (1920, 0.781),
            (2048, 0.743),
        ),
        head=1.05,
        t_sample=1.51e-05,
        sampled=6,
        t_chunk=3.002e-06,
        walk=2.14e-08,
        t_block=3.59e-06,
        t_empty=1.829e-09,
        beside=1.027,
        apart=0.2878,
        attention=0.8422,
        reading=0.8175,
        l2=9.289e07,
        t_decode=1.031e-05,
        t_row=1.41e-07,
        decode=0.9482,
        t_fill=3.581e-05,
        warm=1.28e08,
        source=_SERVINGSIM,
    ),
    "h100": Fit(
        t_linear=2e-05,
        reach=(
            (1, 0.859),
            (16, 0.860),
            (24, 0.843),
            (64, 0.847),
            (128, 0.812),
            (192, 0.697),
            (256, 0.739),
            (384, 0.594),
            (512, 0.687),
            (640, 0.528),
            (768, 0.618),
            (896, 0.615),
            (1024, 0.616),
            (1152, 0.598),
            (1280, 0.661),
            (1408, 0.626),
            (1536, 0.661),
            (1664, 0.625),
            (1792, 0.652),
            (1920, 0.650),
            (2048, 0.638),
            (3072, 0.652),
            (4096, 0.645),
        ),
        t_chunk=1.012e-05,
        walk=7.407e-09,
        t_block=9.256e-07,
        attention=1,
        reading=0.3111,
        t_decode=1.121e-05,
        t_row=1.722e-07,
        decode=0.9412,
        shared=False,
        source="linear: Vidur (microsoft, commit 7d47513, MIT), Llama-2-70B; attention: aiconfigurator "
        "(NVIDIA, commit 095f58a, Apache-2.0), vLLM 0.24's FlashAttention 3, 32 query and 8 key/value heads",
    ),
}


def published(device: str = "h100", config: Config = LLAMA3_8B, *, overhead: float = 0.0) -> Kernels:
    """The cost of `config` in 16-bit on a device whose kernels were timed and published: a key of FITS.

    overhead: s a step beside its kernels. Other models scale by their shapes: a prediction.
    Raises ValueError for a device without published timings.
    """
    if device not in FITS:
        raise ValueError(f"no published kernel timings of {device!r} here; there are {', '.join(FITS)}")
    return Kernels(config, DEVICES[device], FITS[device], overhead)
