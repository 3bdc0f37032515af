"""What a step costs: a model on a chip as a sum over operators, and a scheduler as a sum over requests."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from math import isfinite

from chunkprefill.model.config import Config
from chunkprefill.scheduling.core import Batch

LLAMA3_8B = Config(32, 32, 8, 128, 128_256, d_model=4096, d_ff=14_336, rope_theta=500_000.0)


def _check(cost: object, least: dict[str, int]) -> None:
    for each in fields(cost):  # type: ignore[arg-type]
        value = getattr(cost, each.name)
        if isinstance(value, int | float) and not (isfinite(value) and value >= least.get(each.name, 0)):
            low = least.get(each.name, 0)
            raise ValueError(f"{type(cost).__name__}: {each.name} must be finite and at least {low}: {value}")


@dataclass(frozen=True)
class SchedulerCost:
    """Seconds of scheduling a step: s0 + per_decode x decodes + per_chunk x chunks + per_token x tokens."""

    s0: float = 0.0
    per_decode: float = 0.0
    per_chunk: float = 0.0
    per_token: float = 0.0

    def __post_init__(self) -> None:
        _check(self, {})

    def __call__(self, batch: Batch) -> float:
        if not (self.per_decode or self.per_chunk or self.per_token):
            return self.s0
        t = batch.totals()
        requests = self.per_decode * t.n_decodes + self.per_chunk * len(t.chunks)
        return self.s0 + requests + self.per_token * t.n_tokens


@dataclass(frozen=True)
class Roofline:
    """Seconds of a step: for each operator max(compute, memory), summed over operators and layers.

    By default Llama-3-8B in bf16 on an H100: rates as measured on one (a product of 8192-wide matrices, a
    copy), and fixed times a kernel as in vLLM's. One max over the whole step would let decodes hide behind
    chunks for free: the kernels run one after the other, and each is bound by its own worse side. Method and
    constants: facts on which `profiles/` agree (Vidur, aiconfigurator, LLMServingSim).
    """

    config: Config = LLAMA3_8B
    flops: float = 798e12  # a second, in matrix products
    bandwidth: float = 3.0e12  # bytes/s
    attention_flops: float = 650e12  # a second, all SMs busy
    bytes_per_value: int = 2
    tile: int = 128  # tokens: a matrix product pays for whole tiles
    query_tile: int = 128  # queries of one head that one SM takes at once
    n_sm: int = 132
    layer_s: float = 10e-6  # a layer's matrix products, however small
    chunk_s: float = 11e-6  # attention of one chunk in one layer, however small
    decode_s: float = 11e-6  # attention of all decodes in one layer, however small

    def __post_init__(self) -> None:
        whole = ("bytes_per_value", "tile", "query_tile", "n_sm")
        _check(self, dict.fromkeys(whole, 1) | dict.fromkeys(("flops", "bandwidth", "attention_flops"), 1))

    def __call__(self, batch: Batch) -> float:
        return sum(self.parts(batch).values())

    def parts(self, batch: Batch) -> dict[str, float]:
        """Seconds by operator: linear layers, attention of chunks, attention of decodes, head."""
        n_tokens, n_decodes, context, chunks, n_emits = batch.totals()
        layers, linear, activations, head, vocab = self._sizes
        return {
            "linear": layers * (self.layer_s + self._product(linear, n_tokens, activations))
            if n_tokens
            else 0.0,
            "chunk attention": layers * sum([self._chunk(p, c) for p, c in chunks]),
            "decode attention": layers * (self.decode_s + (context + n_decodes) * self._read)
            if n_decodes
            else 0.0,
            "head": self._product(head, n_emits, vocab),
        }

    def _product(self, weights: int, n: int, out: int) -> float:
        """n tokens times matrices of `weights` numbers in all, reading and writing `out` numbers a token."""
        if not n:
            return 0.0
        compute = 2 * weights * -(-n // self.tile) * self.tile / self.flops
        return max(compute, (weights + n * out) * self.bytes_per_value / self.bandwidth)

    def _chunk(self, p: int, c: int) -> float:
        """Attention of c tokens over a prefix of p in one layer.

        Each SM walks the keys for one tile of queries: with fewer tiles than SMs the others are idle, and a
        small chunk pays for the walk all the same.
        """
        waves = -(-self.config.n_heads * -(-c // self.query_tile) // self.n_sm)
        return self.chunk_s + max(waves * self._walk * (p + c / 2), (p + c) * self._read)

    @cached_property
    def _walk(self) -> float:
        """Seconds that one SM takes to pass a tile of queries over one key."""
        return 4 * self.query_tile * self.config.head_dim / (self.attention_flops / self.n_sm)

    @cached_property
    def _read(self) -> float:
        """Seconds to read one token's keys and values in one layer."""
        return 2 * self.config.d_kv * self.bytes_per_value / self.bandwidth

    @cached_property
    def _sizes(self) -> tuple[int, int, int, int, int]:
        """Layers; weights and, for a token, numbers read and written of a layer's products; of the head."""
        c = self.config
        activations = 3 * c.d_model + 2 * c.d_q + 2 * c.d_kv + 3 * c.d_ff
        return c.n_layers, c.linear_params, activations, c.head_params, c.vocab_size
