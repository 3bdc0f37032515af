"""The shape of a decoder-only transformer, and what it costs to hold and to run.

The shape legend of the whole package: T tokens in the strip, S cached positions, H query heads, Hkv key/value
heads, D numbers in a head, L layers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Llama3Scaling:
    """Llama 3's stretching of RoPE: slow frequencies are divided by `factor`, fast ones stay, a ramp between.

    Source: "The Llama 3 Herd of Models", 2024, and the released code; the keys are those of `config.json`.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_positions: int

    def __post_init__(self) -> None:
        if not self.factor >= 1 or not 0 < self.low_freq_factor < self.high_freq_factor:
            raise ValueError(f"RoPE scaling needs factor >= 1 and 0 < low < high frequency factor: {self}")
        if self.original_positions < 1:
            raise ValueError(f"RoPE scaling: original_positions is {self.original_positions}, not >= 1")


@dataclass(frozen=True)
class Config:
    """The shape of a model of the Llama family (Llama, SmolLM2, Qwen2, Qwen3, Mistral).

    `d_model` and `d_ff` left at 0 mean n_heads × head_dim, and 8/3 of d_model rounded up to a multiple of 16.
    Raises ValueError for sizes that no model can have.
    """

    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    vocab_size: int
    d_model: int = 0  # width of the residual stream
    d_ff: int = 0  # width of the MLP
    max_positions: int = 8192  # tokens in the longest sequence the model was made for
    rope_theta: float = 10_000.0
    rope_scaling: Llama3Scaling | None = None
    norm_eps: float = 1e-5
    tied: bool = False  # the head is the embedding
    qkv_bias: bool = False  # Qwen2
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False  # Qwen3: RMSNorm over each query and key head
    family: str = "llama"

    def __post_init__(self) -> None:
        if not self.d_model:
            object.__setattr__(self, "d_model", self.n_heads * self.head_dim)
        if not self.d_ff:
            object.__setattr__(self, "d_ff", 16 * math.ceil(self.d_model / 6))
        for name in (
            "n_layers", "n_heads", "n_kv_heads", "head_dim", "vocab_size", "d_model", "d_ff", "max_positions",
        ):  # fmt: skip
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} is {value!r}, a whole number of at least 1 is needed")
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"{self.n_heads} query heads cannot share {self.n_kv_heads} key/value heads")
        if self.head_dim % 2:
            raise ValueError(f"head_dim is {self.head_dim}; RoPE turns pairs, so it must be even")
        if not (0 < self.rope_theta < math.inf and 0 <= self.norm_eps < 1):
            raise ValueError(f"rope_theta {self.rope_theta} or norm_eps {self.norm_eps} is out of range")

    @property
    def d_q(self) -> int:
        """Numbers in all query heads of a token."""
        return self.n_heads * self.head_dim

    @property
    def d_kv(self) -> int:
        """Numbers in all key (or value) heads of a token."""
        return self.n_kv_heads * self.head_dim

    @property
    def linear_params(self) -> int:
        """Weights in the matrices of one layer; every token multiplies each of them once."""
        return self.d_model * (2 * self.d_q + 2 * self.d_kv + 3 * self.d_ff)

    @property
    def head_params(self) -> int:
        """Weights of the head, which makes logits of a hidden state."""
        return self.vocab_size * self.d_model

    @property
    def n_params(self) -> int:
        """All parameters; a tied head is counted once."""
        qkv = self.d_q + 2 * self.d_kv
        layer = self.linear_params + 2 * self.d_model + 2 * self.head_dim * self.qk_norm
        layer += (
            qkv * self.qkv_bias + self.d_model * self.o_bias + (2 * self.d_ff + self.d_model) * self.mlp_bias
        )
        return self.n_layers * layer + self.head_params * (1 if self.tied else 2) + self.d_model

    def weight_bytes(self, bytes_per_value: int = 2) -> int:
        """Bytes of all parameters."""
        return self.n_params * bytes_per_value

    def kv_bytes(self, n_tokens: int = 1, bytes_per_value: int = 2) -> int:
        """Bytes of the keys and values of `n_tokens` tokens in all layers."""
        return 2 * self.n_layers * self.d_kv * n_tokens * bytes_per_value

    def linear_flops(self, n_tokens: int = 1) -> int:
        """Floating-point operations of all layers' matrix products for `n_tokens` tokens (2 a weight)."""
        return 2 * self.n_layers * self.linear_params * n_tokens

    def attention_flops(self, n_pairs: int) -> int:
        """Operations of all layers' attention over `n_pairs` query-key pairs (2 D a score, 2 D a sum)."""
        return 4 * self.n_layers * self.d_q * n_pairs

    def head_flops(self, n_rows: int = 1) -> int:
        """Operations of the head for `n_rows` rows that emit a token."""
        return 2 * self.head_params * n_rows


TINY = Config(n_layers=2, n_heads=4, n_kv_heads=2, head_dim=16, vocab_size=256, d_ff=128)
LLAMA3_8B = Config(
    n_layers=32, n_heads=32, n_kv_heads=8, head_dim=128, vocab_size=128_256, d_ff=14_336, rope_theta=500_000.0
)
