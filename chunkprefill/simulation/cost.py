"""What a step costs: a model on a chip as a sum over operators, and a scheduler as a sum over requests."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property
from math import isfinite

from chunkprefill.configs import DEVICES, LLAMA3_8B, Device
from chunkprefill.model.config import Config
from chunkprefill.scheduling.core import Batch
from chunkprefill.simulation.layout import Layout, Shard, all_reduce_s
from chunkprefill.whole import as_real


def _check(cost: object, least: dict[str, int]) -> None:
    """Each number of `cost` is one, finite, and at least what `least` says, 0 where it says nothing."""
    name = type(cost).__name__
    for each in fields(cost):  # type: ignore[arg-type]
        if str(each.type) not in ("int", "float"):
            continue
        given, low = getattr(cost, each.name), least.get(each.name, 0)
        if (value := as_real(given)) is None:
            raise TypeError(f"{name}: {each.name} must be a number, got {given!r}")
        if not (isfinite(value) and value >= low):
            raise ValueError(f"{name}: {each.name} must be finite and at least {low}: {value}")
        object.__setattr__(cost, each.name, value)


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
    constants: facts on which published profiles agree (Vidur, aiconfigurator, LLMServingSim).
    `Roofline.of` takes the rates of another device from its sheet.
    """

    config: Config = LLAMA3_8B
    flops: float = 798e12  # a second, in matrix products
    bandwidth: float = 3.0e12  # bytes/s
    attention_flops: float = 650e12  # a second, all SMs busy
    layout: Layout = field(default_factory=Layout)
    tile: int = 128  # tokens: a matrix product pays for whole tiles
    query_tile: int = 128  # queries of one head that one SM takes at once
    n_sm: int = 132
    layer_s: float = 10e-6  # a layer's matrix products, however small
    chunk_s: float = 11e-6  # attention of one chunk in one layer, however small
    decode_s: float = 11e-6  # attention of all decodes in one layer, however small
    device: Device = DEVICES["h100"]  # whose links add up a layer's parts where several share it

    def __post_init__(self) -> None:
        for name, kind in (("config", Config), ("layout", Layout), ("device", Device)):
            value = getattr(self, name)
            if not isinstance(value, kind):
                hint = "; Roofline.of(device, config) takes a device" if isinstance(value, Device) else ""
                wrong = f"got a {type(value).__name__}{hint}"
                raise TypeError(f"Roofline: {name} must be a {kind.__name__}, {wrong}")
        whole = ("tile", "query_tile", "n_sm")
        _check(self, dict.fromkeys(whole, 1) | dict.fromkeys(("flops", "bandwidth", "attention_flops"), 1))
        _ = self._shard  # heads that cannot be shared are refused here, and devices without links
        all_reduce_s(0, self.layout, self.device)

    @classmethod
    def of(cls, device: Device, config: Config = LLAMA3_8B, layout: Layout | None = None) -> Roofline:
        """`config` on a device by its sheet, at the shares of it that an H100 was measured to reach."""
        if not isinstance(device, Device):
            raise TypeError(f"Roofline.of: device must be a Device, got a {type(device).__name__}")
        layout, sheet = layout or Layout(), DEVICES["h100"]
        rate = device.rate(layout.dtype)
        wide = device.rate(layout.activations)
        return cls(
            config=config,
            flops=rate * cls.flops / sheet.flops,
            bandwidth=device.bandwidth * cls.bandwidth / sheet.bandwidth,
            attention_flops=wide * cls.attention_flops / sheet.flops,
            layout=layout,
            n_sm=device.n_sms,
            device=device,
        )

    def __call__(self, batch: Batch) -> float:
        return sum(self.parts(batch).values())

    def __str__(self) -> str:
        return f"roofline of {self.device.name}, {self.layout}: {self.source}"

    @property
    def source(self) -> str:
        """Where its numbers come from."""
        return f"rates by its sheet ({self.device.source}), at an H100's measured shares; no kernel was timed"

    @property
    def bytes_per_value(self) -> float:
        """Bytes of a weight."""
        return self._shard.weight

    def parts(self, batch: Batch) -> dict[str, float]:
        """Seconds by operator: linear layers, attention of chunks, of decodes, head, and adding up parts."""
        totals = batch.totals()
        n_tokens, n_decodes, chunks = totals.n_tokens, totals.n_decodes, totals.chunks
        shard, layers = self._shard, self.config.n_layers
        linear = decodes = shared = 0.0
        if n_tokens:
            linear = layers * (self.layer_s + self._linear(n_tokens))
            if self.layout.tp > 1:
                one = n_tokens * self.config.d_model * shard.wide
                shared = 2 * layers * all_reduce_s(one, self.layout, self.device)
        if n_decodes:
            decodes = layers * (self.decode_s + (totals.decode_context + n_decodes) * self._read)
        return {
            "linear": linear,
            "chunk attention": layers * sum([self._chunk(p, c) for p, c in chunks]),
            "decode attention": decodes,
            "head": self._head(totals.n_emits),
            "all-reduce": shared,
        }

    def _linear(self, n_tokens: int) -> float:
        """The products of one layer: whole tiles of tokens times its matrices, read once."""
        shard, c = self._shard, self.config
        written = 3 * c.d_model + 2 * shard.d_q + 2 * shard.d_kv + 3 * shard.d_ff * max(c.n_active, 1)
        tokens = -(-n_tokens // self.tile) * self.tile
        compute = 2 * shard.active_params * tokens / self.flops
        n_bytes = shard.read_bytes(n_tokens) + n_tokens * written * shard.wide
        return max(compute, n_bytes / self.bandwidth)

    def _head(self, n_rows: int) -> float:
        """The head over the rows that emit."""
        if not n_rows:
            return 0.0
        shard = self._shard
        compute = 2 * shard.head_params * -(-n_rows // self.tile) * self.tile / self._wide_flops
        n_bytes = (shard.head_params + n_rows * self.config.vocab_size) * shard.wide
        return max(compute, n_bytes / self.bandwidth)

    def _chunk(self, p: int, c: int) -> float:
        """Attention of c tokens over a prefix of p in one layer.

        Each SM walks the keys for one tile of queries: with fewer tiles than SMs the others are idle, and a
        small chunk pays for the walk all the same.
        """
        waves = -(-self._shard.n_heads * -(-c // self.query_tile) // self.n_sm)
        return self.chunk_s + max(waves * self._walk * (p + c / 2), (p + c) * self._read)

    @cached_property
    def _walk(self) -> float:
        """Seconds that one SM takes to pass a tile of queries over one key."""
        return 4 * self.query_tile * self.config.head_dim / (self.attention_flops / self.n_sm)

    @cached_property
    def _read(self) -> float:
        """Seconds to read one token's keys and values in one layer."""
        return self._shard.kv_bytes / self.bandwidth

    @cached_property
    def _wide_flops(self) -> float:
        """FLOP/s of the head, which stays in 16 bits where the layers' weights are fp8."""
        if self.device.rate(self.layout.dtype) == self.device.rate(self.layout.activations):
            return self.flops
        return self.flops * self.device.rate(self.layout.activations) / self.device.rate(self.layout.dtype)

    @cached_property
    def _shard(self) -> Shard:
        return Shard(self.config, self.layout)
