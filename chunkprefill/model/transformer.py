"""A decoder-only transformer that sees a flat strip of tokens; only `kv` knows whose tokens they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chunkprefill.model import fused_cpu
from chunkprefill.model.attention import accumulation_dtype
from chunkprefill.model.config import Config
from chunkprefill.model.linear import add_linear, linear, pack
from chunkprefill.whole import briefly


class KV(Protocol):
    """What the model asks of a cache."""

    def positions(self) -> Tensor:
        """Where each token of the strip stands in its own sequence, `[T]`."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store k, v `[T, Hkv, D]`; return what each query of q, `[T, H, D]`, gathers from its sequence."""

    def emit_rows(self) -> Tensor | slice:
        """The rows of the strip whose logits are wanted."""


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm over the last dimension; the squares are summed in at least float32."""
    if x.is_cuda:  # one kernel, which sums half precision in float32
        return F.rms_norm(x, weight.shape, weight, eps)
    if fused_cpu.can_fuse(x, weight):
        return fused_cpu.rms_norm(x, weight, eps)
    wide = F.rms_norm(x.to(accumulation_dtype(x.dtype)), weight.shape, eps=eps)
    return wide.to(x.dtype) * weight


def rope_frequencies(config: Config, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Radians a position for each pair of a head, `[D/2]`, stretched where the model stretches them.

    float32 where the model is not float64: the published models were trained with that rounding.
    """
    pairs = torch.arange(0, config.head_dim, 2, dtype=dtype, device=device) / config.head_dim
    frequencies = 1.0 / config.rope_theta**pairs
    scaling = config.rope_scaling
    return frequencies if scaling is None else scaling.stretch(frequencies, config.rope_theta)


def rotate_(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE in place: turn the pairs (i, i + D/2) of x, `[T, heads, D]`; see `Transformer._angles`."""
    if fused_cpu.can_fuse(x, cos, sin):
        return fused_cpu.rotate_(x, cos, sin)
    first, second = x.chunk(2, dim=-1)
    other = torch.cat((second, first), dim=-1)  # each number's partner, in its place
    return x.mul_(cos).addcmul_(other, sin)


def gated(module: nn.Linear, x: Tensor) -> Tensor:
    """silu(gate) · up, `[T, d_ff]`, where module(x) is gate and up side by side.

    They are one product on a CPU, and two on a GPU, where it is strides that cost.
    """
    if not x.is_cuda:
        gate_up = linear(x, module.weight, module.bias)  # [T, 2 d_ff]
        del x  # the peak of memory is here, and nothing else holds it
        if fused_cpu.can_fuse(gate_up):
            return fused_cpu.gated(gate_up)
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate).mul_(up)
    biases = (None, None) if module.bias is None else module.bias.chunk(2)
    gate, up = (F.linear(x, weight, bias) for weight, bias in zip(module.weight.chunk(2), biases))
    return F.silu(gate, inplace=True).mul_(up)


def check_model(model: object) -> None:
    """ValueError for what is no model: neither a `Transformer` nor another that has its `config`."""
    if not callable(model) or not hasattr(model, "config"):
        raise ValueError(f"model is {briefly(model)}: a model is needed, such as load_model returns")


class Layer(nn.Module):
    """Norm, attention, residual; norm, gated MLP, residual. Products that share an input are one product."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = self.config = config
        self.norm1 = nn.Parameter(torch.empty(c.d_model))
        self.qkv = nn.Linear(c.d_model, c.d_q + 2 * c.d_kv, bias=c.qkv_bias)
        self.q_norm = nn.Parameter(torch.empty(c.head_dim)) if c.qk_norm else None
        self.k_norm = nn.Parameter(torch.empty(c.head_dim)) if c.qk_norm else None
        self.out = nn.Linear(c.d_q, c.d_model, bias=c.o_bias)
        self.norm2 = nn.Parameter(torch.empty(c.d_model))
        self.gate_up = nn.Linear(c.d_model, 2 * c.d_ff, bias=c.mlp_bias)
        self.down = nn.Linear(c.d_ff, c.d_model, bias=c.mlp_bias)

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries `[T, H, D]`, keys and values `[T, Hkv, D]` of x `[T, d_model]`; RoPE is applied."""
        c = self.config
        qkv = linear(rms_norm(x, self.norm1, c.norm_eps), self.qkv.weight, self.qkv.bias)
        qkv = qkv.unflatten(-1, (-1, c.head_dim))  # [T, H + 2 Hkv, D]
        q, k, v = qkv.split((c.n_heads, c.n_kv_heads, c.n_kv_heads), dim=1)
        if self.q_norm is not None and self.k_norm is not None:
            q.copy_(rms_norm(q, self.q_norm, c.norm_eps))
            k.copy_(rms_norm(k, self.k_norm, c.norm_eps))
        rotate_(qkv[:, : c.n_heads + c.n_kv_heads], cos, sin)  # q and k lie side by side
        return q, k, v

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """The residual stream after the layer; x `[rows, d_model]` is used up, attended is `[rows, H, D]`."""
        x = add_linear(x, attended.flatten(1), self.out.weight, self.out.bias)
        y = gated(self.gate_up, rms_norm(x, self.norm2, self.config.norm_eps))
        return add_linear(x, y, self.down.weight, self.down.bias)


class Transformer(nn.Module):
    """Llama, SmolLM2, Qwen2, Qwen3 or Mistral, as `config` says; weights come from `model.weights`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.n_experts:
            raise ValueError(f"{config.n_experts} experts a layer can be priced, not run: dense models only")
        self.config = config
        self.embedding = nn.Parameter(torch.empty(config.vocab_size, config.d_model))
        self.layers = cast(Sequence[Layer], nn.ModuleList(Layer(config) for _ in range(config.n_layers)))
        self.norm = nn.Parameter(torch.empty(config.d_model))
        self.head = self.embedding if config.tied else nn.Parameter(torch.empty_like(self.embedding))

    @property
    def dtype(self) -> torch.dtype:
        return self.embedding.dtype

    @property
    def device(self) -> torch.device:
        return self.embedding.device

    def pack(self) -> Transformer:
        """Pack the weights for this processor, see `model.linear`; returns the model itself.

        Takes as much memory again. The head is packed in at least float32, which logits are computed in.
        """
        for layer in self.layers:
            for module in (layer.qkv, layer.out, layer.gate_up, layer.down):
                pack(module.weight)
        pack(self.head, accumulation_dtype(self.dtype))
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Transformer:
        """Drop the packed copies before torch moves or casts the weights (`to`, `half`, `cuda`)."""
        for parameter in self.parameters():
            parameter.__dict__.pop("packed", None)
        return super()._apply(fn, recurse)

    def forward(self, tokens: Tensor, kv: KV) -> Tensor:
        """Logits `[rows, vocab]`, in at least float32, of the rows that `kv` wants; tokens is a strip `[T]`.

        Every layer hands its keys and values to `kv`. The cache's length is the caller's to advance, once.
        """
        x = self.embedding[tokens]  # [T, d_model]
        cos, sin = self._angles(kv.positions())
        for i, layer in enumerate(self.layers):
            q, k, v = layer.project(x, cos, sin)
            attended = kv.attend(i, q, k, v)  # [T, H, D]
            if i == self.config.n_layers - 1:
                # The last keys and values are stored: from here on a row is of use only if it emits a token.
                rows = kv.emit_rows()
                x, attended = x[rows], attended[rows]
            x = layer.finish(x, attended)
        return self._logits(rms_norm(x, self.norm, self.config.norm_eps))

    def _angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine of RoPE's angles at these positions, each `[T, 1, D]`; −sine for the first half."""
        wide = accumulation_dtype(self.dtype)
        angles = positions[:, None, None] * rope_frequencies(self.config, wide, positions.device)
        cos, sin = angles.cos(), angles.sin()  # [T, 1, D/2]
        if self.config.rope_scaling is not None:
            cos, sin = (x * self.config.rope_scaling.amplitude for x in (cos, sin))
        cos, sin = cos.to(self.dtype), sin.to(self.dtype)
        return torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)

    def _logits(self, x: Tensor) -> Tensor:
        wide = accumulation_dtype(x.dtype)
        if x.is_cuda and x.dtype != wide:  # half-precision product, float32 sums, no wide copy of the head
            return torch.mm(x, self.head.T, out_dtype=wide)
        return linear(x.to(wide), self.head)
