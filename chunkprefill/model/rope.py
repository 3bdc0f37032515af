"""How a model stretches RoPE's angles so that more positions fit: Llama 3's rule, linear, and YaRN.

Each rule turns the frequencies of a head's pairs, radians a position `[D/2]`, into others. What they share is
that an angle depends on the token's own position alone. "dynamic" and "longrope" are not here: their angles
also depend on how long the sequence has grown, so a key cached early would differ from one computed later.
This file needs no torch: it calls methods of the tensors that it is given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Llama3Scaling:
    """Llama 3's stretching of RoPE: slow frequencies are divided by `factor`, fast ones stay, a ramp between.

    Source: "The Llama 3 Herd of Models", 2024, and the released code; the keys are those of `config.json`.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_positions: int
    amplitude: ClassVar[float] = 1.0  # what cosine and sine are multiplied by

    def __post_init__(self) -> None:
        if not self.factor >= 1 or not 0 < self.low_freq_factor < self.high_freq_factor:
            raise ValueError(f"RoPE scaling needs factor >= 1 and 0 < low < high frequency factor: {self}")
        if self.original_positions < 1:
            raise ValueError(f"RoPE scaling: original_positions is {self.original_positions}, not >= 1")

    def stretch(self, frequencies: Any, theta: float) -> Any:
        """The stretched frequencies, `[D/2]`."""
        turns = frequencies * (self.original_positions / (2 * math.pi))  # in the context it was trained on
        ramp = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        return (frequencies / self.factor).lerp(frequencies, ramp.clamp(0, 1))


@dataclass(frozen=True)
class LinearScaling:
    """Position interpolation: every frequency is divided by `factor`.

    Source: "Extending Context Window of Large Language Models via Positional Interpolation", 2306.15595.
    """

    factor: float
    amplitude: ClassVar[float] = 1.0  # what cosine and sine are multiplied by

    def __post_init__(self) -> None:
        if not 0 < self.factor < math.inf:
            raise ValueError(f"RoPE scaling needs a factor above 0: {self}")

    def stretch(self, frequencies: Any, theta: float) -> Any:
        """The stretched frequencies, `[D/2]`."""
        return frequencies / self.factor


@dataclass(frozen=True)
class YarnScaling:
    """YaRN: pairs that turn slowly are interpolated, fast ones stay, a ramp over the pair's index between.

    `beta_fast` and `beta_slow` are turns within `original_positions`: the ramp's ends. `truncate` rounds the
    ends outwards to whole pairs. `amplitude` multiplies cosine and sine, and so sharpens the attention.
    Source: "YaRN: Efficient Context Window Extension of Large Language Models", arXiv 2309.00071.
    """

    factor: float
    original_positions: int
    amplitude: float
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.factor < math.inf or self.original_positions < 1:
            raise ValueError(f"YaRN needs a factor above 0 and original_positions of at least 1: {self}")
        if not 0 < self.beta_slow <= self.beta_fast < math.inf:
            raise ValueError(f"YaRN needs 0 < beta_slow <= beta_fast: {self}")

    def stretch(self, frequencies: Any, theta: float) -> Any:
        """The stretched frequencies, `[D/2]`."""
        n_pairs = len(frequencies)
        low, high = self._ramp_ends(2 * n_pairs, theta)
        pair = frequencies.new_ones(n_pairs).cumsum(0) - 1  # 0, 1, …: made on the device
        ramp = ((pair - low) / (high - low)).clamp(0, 1)
        return frequencies / self.factor * ramp + frequencies * (1 - ramp)

    def _ramp_ends(self, head_dim: int, theta: float) -> tuple[float, float]:
        def index(turns: float) -> float:
            """The pair that makes so many turns in the context that the model was trained on."""
            context = self.original_positions / (turns * 2 * math.pi)
            return head_dim * math.log(context) / (2 * math.log(theta))

        low, high = index(self.beta_fast), index(self.beta_slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, head_dim - 1)
        return low, high + 0.001 if low == high else high  # so the released code avoids dividing by 0


def yarn_amplitude(factor: float, mscale: float, mscale_all_dim: float) -> float:
    """What YaRN multiplies cosine and sine by where a file does not say: 0.1 ln(factor) + 1.

    DeepSeek's files give two weights of that logarithm (other files give none: 0); then it is the ratio of the two.
    """

    def rule(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    return rule(mscale) / rule(mscale_all_dim) if mscale and mscale_all_dim else rule(1.0)


RopeScaling = Llama3Scaling | LinearScaling | YarnScaling
