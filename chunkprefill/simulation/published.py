"""Kernel costs of real devices, fitted to published timings by `python -m chunkprefill.bench kernels`."""

from __future__ import annotations

from chunkprefill.model.config import LLAMA3_8B, Config
from chunkprefill.simulation.devices import DEVICES
from chunkprefill.simulation.kernels import Fit, Kernels

_SERVINGSIM = "LLMServingSim (casys-kaist, commit 5daddb2, MIT), vLLM 0.19's kernels on Llama-3.1-8B in bf16"

#: Each with its mean errors, of one layer: linear, a chunk alone, a chunk beside decodes, decodes alone.
FITS = {
    # 2.7%, 4.0%, 10.6%, 8.5%
    "rtx4090": Fit(
        t_linear=0.0, compute=0.996, memory=0.909, leak=0.119,
        t_chunk=2.32e-6, walk=3.12e-8, t_block=5.84e-6, attention=0.824, reading=0.458,
        t_decode=1.22e-5, t_row=1.99e-7, decode=0.923, source=_SERVINGSIM,
    ),
    # 2.4%, 3.3%, 8.8%, 5.6%
    "rtxpro6000": Fit(
        t_linear=3.26e-6, compute=0.830, memory=1.0, leak=0.369,
        t_chunk=1.96e-6, walk=2.14e-8, t_block=4.70e-6, attention=0.994, reading=0.552,
        t_decode=1.23e-5, t_row=1.03e-7, decode=0.915, source=_SERVINGSIM,
    ),
    # 4.1%, 8.7% (whole prompts), -, 9.3%. No timing of a later chunk, or of one beside decodes, was at hand:
    # decodes are priced as if alone, which is their best case.
    "h100": Fit(
        t_linear=0.0, compute=0.661, memory=0.907, leak=0.180,
        t_chunk=1.14e-5, walk=7.41e-9, t_block=8.70e-7, attention=1.0, reading=0.363,
        t_decode=1.13e-5, t_row=1.85e-7, decode=0.954, shared=False,
        source="linear: Vidur (microsoft, commit 7d47513, MIT), Llama-2-70B; attention: aiconfigurator "
        "(NVIDIA, commit 095f58a, Apache-2.0), vLLM 0.24's FlashAttention 3, 32 query and 8 key/value heads",
    ),
}  # fmt: skip


def published(device: str = "h100", config: Config = LLAMA3_8B, *, overhead: float = 0.0) -> Kernels:
    """The cost of `config` in 16-bit on a device whose kernels were timed and published: a key of FITS.

    overhead: s a step beside its kernels. Other models scale by their shapes: a prediction.
    Raises ValueError for a device without published timings.
    """
    if device not in FITS:
        raise ValueError(f"no published kernel timings of {device!r} here; there are {', '.join(FITS)}")
    return Kernels(config, DEVICES[device], FITS[device], overhead)
