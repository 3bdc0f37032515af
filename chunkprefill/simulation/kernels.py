"""A step's time from its kernels: what published kernel timings say that a plain roofline misses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from chunkprefill.model.config import Config
from chunkprefill.simulation.devices import Device

if TYPE_CHECKING:
    from chunkprefill.scheduling.core import Batch


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How near one device's kernels come to its sheet: thirteen numbers, timed one by one."""

    t_linear: float  # s a layer that no size removes
    compute: float  # share of the device's FLOP/s that a matrix product reaches
    memory: float  # share of its bandwidth that a matrix product reaches
    leak: float  # share of the lesser of the two that does not hide behind the greater
    t_chunk: float  # s a layer
    walk: float  # s for a thread block to walk over one cached token (a head of 128), all its queries at once
    t_block: float  # s for a thread block to start and end
    attention: float  # share of the FLOP/s that attention reaches
    reading: float  # share of the bandwidth at which chunks read keys and queries
    t_decode: float  # s a layer
    t_row: float  # s a layer for each decode
    decode: float  # share of the bandwidth that decodes reach
    block_q: int = 64  # queries of one head that a thread block takes
    tile: int = 128  # tokens of a matrix product's tile
    shared: bool = True  # decodes beside a chunk run in the chunks' kernel; False: in one of their own
    source: str = ""


@dataclass(frozen=True)
class Kernels:
    """Seconds of a batch: n_layers · (linear + attention) + head, a sum of operators, each with its limit.

    config: the model. device: its sheet. fit: what its kernels reach. overhead: s a step besides (launches,
    sampling). Called with a Batch it gives seconds; it walks the chunks, not the decodes.
    Source of the form: FlashAttention's grid (a thread block takes `block_q` queries of a head and walks over
    their keys), SARATHI's tiles (arXiv 2308.16369, fig. 7), and the timings that `fit.source` names.
    """

    config: Config
    device: Device
    fit: Fit
    overhead: float = 0.0

    def __call__(self, batch: Batch) -> float:
        sums = batch.totals()
        n_keys = sums.decode_context + sums.n_decodes
        if sums.chunks and self.fit.shared:
            attention = self.chunk_attention(sums.chunks, sums.n_decodes, n_keys)
        else:
            attention = self.chunk_attention(sums.chunks) + self.decode_attention(sums.n_decodes, n_keys)
        layers = self.config.n_layers * (self.linear(sums.n_tokens) + attention)
        return self.overhead + layers + self.head(sums.n_emits)

    def linear(self, n_tokens: int) -> float:
        """Seconds of one layer's matrix products, norms and activations over `n_tokens` tokens.

        Products run on whole tiles, so 257 tokens cost what 384 do; all weights are read for any number.
        """
        if not n_tokens:
            return 0.0
        c, fit = self.config, self.fit
        # Numbers that a token moves: in and out of four products, the MLP's activation, two norms and sums.
        moved = 10 * c.d_model + 2 * c.d_q + 2 * c.d_kv + 6 * c.d_ff
        flops = 2 * c.linear_params * ceil(n_tokens / fit.tile) * fit.tile
        return fit.t_linear + self._limit(flops, 2 * (c.linear_params + moved * n_tokens))

    def chunk_attention(
        self, chunks: Sequence[tuple[int, int]], n_decodes: int = 0, n_keys: int = 0
    ) -> float:
        """Seconds of one layer's attention for chunks of (start, length) and decodes beside them, one launch.

        A chunk of c after p makes ⌈c / block_q⌉ thread blocks for each head; they walk over p to p + c
        tokens. Blocks run in waves, one to a multiprocessor, the longest first; a wave lasts as long as its
        longest: in all w(p + c/2) + c/2 for w full waves. So a chunk too short to fill the device pays for a
        *serial* walk over its whole prefix: half the chunk, the same time. A decode beside a chunk is a block
        of one query for each head: it loses the kernel made for decodes, and costs about twice.
        """
        if not chunks:
            return 0.0
        c, fit, n_sms = self.config, self.fit, self.device.n_sms
        pairs = float(n_keys)
        moved = n_keys * c.d_kv + n_decodes * c.d_q  # keys and queries; as many values and outputs
        groups: list[tuple[float, int, int]] = []  # longest walk, how much shorter the shortest is, blocks
        if n_decodes:
            groups.append((n_keys / n_decodes, 0, c.n_heads * n_decodes))
        for start, length in chunks:
            pairs += length * (start + length / 2)
            moved += (start + length) * c.d_kv + length * c.d_q
            groups.append((start + length, length, c.n_heads * -(-length // fit.block_q)))
        walked = 0.0  # tokens: the longest walk of each wave, summed
        begin = waves = 0  # blocks so far; waves that they began
        for longest, span, n_blocks in sorted(groups, reverse=True):
            end = -(-(begin + n_blocks) // n_sms)
            n = end - waves
            walked += n * (longest - span * (n_sms * (waves + end - 1) / 2 - begin) / n_blocks)
            begin, waves = begin + n_blocks, end
        walks = waves * fit.t_block + fit.walk * c.head_dim / 128 * walked
        arithmetic = 4 * pairs * c.d_q / (fit.attention * self.device.flops)
        return fit.t_chunk + max(walks, arithmetic, 4 * moved / (fit.reading * self.device.bandwidth))

    def decode_attention(self, n_decodes: int, n_keys: int) -> float:
        """Seconds of one layer's attention for decodes alone that read `n_keys` tokens: reading is all."""
        if not n_decodes:
            return 0.0
        fit, n_bytes = self.fit, 4 * n_keys * self.config.d_kv
        return fit.t_decode + n_decodes * fit.t_row + n_bytes / (fit.decode * self.device.bandwidth)

    def head(self, n_rows: int) -> float:
        """Seconds of the head for `n_rows` rows that emit."""
        if not n_rows:
            return 0.0
        padded = ceil(n_rows / self.fit.tile) * self.fit.tile
        return self._limit(self.config.head_flops(padded), 2 * self.config.head_params)

    def _limit(self, flops: float, n_bytes: float) -> float:
        compute = flops / (self.fit.compute * self.device.flops)
        memory = n_bytes / (self.fit.memory * self.device.bandwidth)
        return max(compute, memory) + self.fit.leak * min(compute, memory)
