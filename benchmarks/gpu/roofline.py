"""What a pass must cost at least: each operator at the rates that this machine was measured to reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

from chunkprefill.model.config import Config


class SequencePart(NamedTuple):
    """A sequence's part in a pass: positions `start` to `start + length`; whether it makes a token."""

    start: int
    length: int
    emits: bool = True


@dataclass(frozen=True)
class Ceilings:
    """Rates measured in the same run: FLOP/s of a large matrix product, bytes/s of a copy, both ways counted.

    value_bytes: bytes of a number in that type. Raises ValueError unless all are above 0.
    """

    flops: float
    copy: float
    value_bytes: int

    def __post_init__(self) -> None:
        if not (self.flops > 0 and self.copy > 0 and self.value_bytes > 0):
            raise ValueError(f"ceilings must be above 0: {self}")

    def operator(self, flops: float, values: float) -> float:
        """Seconds of an operator that does `flops` and moves `values` numbers: the worse limit of the two."""
        return max(flops / self.flops, values * self.value_bytes / self.copy)


def operators(config: Config, rows: Sequence[SequencePart], top: Ceilings) -> dict[str, float]:
    """Seconds by operator, all layers together; their sum is the operator roofline of the pass.

    The operators are the four matrix products of a layer, the attention of each chunk, that of all rows of
    one token together, and the head. What lies between them (norms, RoPE, activations, residuals) is taken as
    free, so no kernels reach the sum. No tiles: a started tile costs what it holds. In the last layer rows
    that emit nothing stop at attention, as in `Transformer.forward`.
    """
    c, n_emits = config, sum(row.emits for row in rows)
    n = sum(row.length for row in rows)
    shapes = {
        "qkv": (c.d_model, c.d_q + 2 * c.d_kv),
        "out": (c.d_q, c.d_model),
        "gate_up": (c.d_model, 2 * c.d_ff),
        "down": (c.d_ff, c.d_model),
    }
    seconds = {}
    for name, (wide, out) in shapes.items():
        last = n if name == "qkv" else n_emits
        passes = [n] * (c.n_layers - 1) + [last]
        seconds[name] = sum(_product(wide, out, tokens, top) for tokens in passes)
    chunks = [row for row in rows if row.length > 1]
    decodes = [row for row in rows if row.length == 1]
    seconds["chunk attention"] = c.n_layers * sum(_attention(c, [row], top) for row in chunks)
    seconds["decode attention"] = c.n_layers * _attention(c, decodes, top)
    seconds["head"] = _product(c.d_model, c.vocab_size, n_emits, top)
    return seconds


def roofline(config: Config, rows: Sequence[SequencePart], top: Ceilings) -> float:
    """Seconds: the sum over operators of max(compute, memory)."""
    return sum(operators(config, rows, top).values())


def prefill_roofline(config: Config, n_tokens: int, chunk: int, top: Ceilings) -> float:
    """The same of a whole prompt in chunks, of which the last alone makes a token."""
    starts = range(0, n_tokens, chunk)
    rows = [SequencePart(at, min(chunk, n_tokens - at), at + chunk >= n_tokens) for at in starts]
    assert len(rows) == ceil(n_tokens / chunk)
    return sum(roofline(config, [row], top) for row in rows)


def pass_bytes(config: Config, rows: Sequence[SequencePart], value_bytes: int) -> int:
    """Bytes that a decode-only pass cannot do without: every weight once, every cached key and value once."""
    weights = config.n_layers * config.linear_params + (
        config.head_params if any(r.emits for r in rows) else 0
    )
    cached = sum(row.start + row.length for row in rows)
    return weights * value_bytes + config.kv_bytes(cached, value_bytes)


def _product(wide: int, out: int, n: int, top: Ceilings) -> float:
    if not n:
        return 0.0
    return top.operator(2.0 * wide * out * n, wide * out + n * (wide + out))


def _attention(c: Config, rows: Sequence[SequencePart], top: Ceilings) -> float:
    """Of one layer and one launch: query-key pairs, keys and values read once, queries and outputs."""
    pairs = sum(row.length * row.start + row.length * (row.length + 1) / 2 for row in rows)
    moved = sum(2 * c.d_kv * (row.start + row.length) + 2 * c.d_q * row.length for row in rows)
    return top.operator(4 * c.d_q * pairs, moved)
