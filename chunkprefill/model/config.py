"""The shape of a decoder-only transformer, and what it costs to hold and to run.

The shape legend of the whole package: T tokens in the strip, S cached positions, H query heads, Hkv key/value
heads, D numbers in a head, L layers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

from chunkprefill.model.rope import RopeScaling
from chunkprefill.whole import check_fields, flag, real_number, whole_number

SIZES = ("n_layers", "n_heads", "n_kv_heads", "head_dim", "vocab_size", "d_model", "d_ff", "max_positions")
FLAGS = ("tied", "qkv_bias", "o_bias", "mlp_bias", "qk_norm")


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
    rope_scaling: RopeScaling | None = None
    norm_eps: float = 1e-5
    tied: bool = False  # the head is the embedding
    qkv_bias: bool = False  # Qwen2
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False  # Qwen3: RMSNorm over each query and key head
    family: str = "llama"
    n_experts: int = 0  # of a layer, each an MLP `d_ff` wide; 0: one MLP for all tokens
    n_active: int = 0  # experts that each token passes through

    def __post_init__(self) -> None:
        if not self.d_model:
            object.__setattr__(self, "d_model", self.n_heads * self.head_dim)
        if not self.d_ff:
            object.__setattr__(self, "d_ff", 16 * math.ceil(self.d_model / 6))
        check_fields(self, whole_number, SIZES, least=1)
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"{self.n_heads} query heads cannot share {self.n_kv_heads} key/value heads")
        if self.head_dim % 2:
            raise ValueError(f"head_dim is {self.head_dim}; RoPE turns pairs, so it must be even")
        check_fields(self, whole_number, ("n_experts", "n_active"), least=0)
        if self.n_active > self.n_experts or (self.n_experts and not self.n_active):
            raise ValueError(f"n_active is {self.n_active}: a token passes 1 to {self.n_experts} experts")
        check_fields(self, real_number, ("rope_theta",), above=True)
        check_fields(self, real_number, ("norm_eps",), below=1.0)
        check_fields(self, flag, FLAGS)
        if self.rope_scaling is not None and not isinstance(self.rope_scaling, get_args(RopeScaling)):
            kinds = ", ".join(kind.__name__ for kind in get_args(RopeScaling))
            raise ValueError(f"rope_scaling is {self.rope_scaling!r}: {kinds} or None is needed")

    @property
    def d_q(self) -> int:
        """Numbers in all query heads of a token."""
        return self.n_heads * self.head_dim

    @property
    def d_kv(self) -> int:
        """Numbers in all key (or value) heads of a token."""
        return self.n_kv_heads * self.head_dim

    @property
    def expert_params(self) -> int:
        """Weights of one layer's MLP, or of one of its experts."""
        return 3 * self.d_model * self.d_ff

    @property
    def linear_params(self) -> int:
        """Weights in the matrices of one layer that a token multiplies, each once (its own experts only)."""
        shared = self.d_model * (2 * self.d_q + 2 * self.d_kv + self.n_experts)  # the last: the router
        return shared + max(self.n_active, 1) * self.expert_params

    @property
    def layer_params(self) -> int:
        """Weights in the matrices of one layer, those of all its experts included."""
        return self.linear_params + max(self.n_experts - self.n_active, 0) * self.expert_params

    def experts_touched(self, n_tokens: int) -> float:
        """Experts of a layer that `n_tokens` tokens pass through, on average, if each draws its own evenly.

        E(1 - (1 - k/E)^n): k for one token, near E for many. Real routers are uneven and touch fewer.
        """
        if not self.n_experts:
            return 1.0 if n_tokens else 0.0
        return self.n_experts * (1 - (1 - self.n_active / self.n_experts) ** n_tokens)

    @property
    def head_params(self) -> int:
        """Weights of the head, which makes logits of a hidden state."""
        return self.vocab_size * self.d_model

    @property
    def n_params(self) -> int:
        """All parameters; a tied head is counted once."""
        qkv = self.d_q + 2 * self.d_kv
        layer = self.layer_params + 2 * self.d_model + 2 * self.head_dim * self.qk_norm
        layer += qkv * self.qkv_bias + self.d_model * self.o_bias
        layer += (2 * self.d_ff + self.d_model) * self.mlp_bias
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
