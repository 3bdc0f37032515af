"""A step's time from its kernels: what published kernel timings say that a plain roofline misses."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from math import ceil, inf, log2
from typing import TYPE_CHECKING

from chunkprefill.configs import DTYPES, Device
from chunkprefill.model.config import Config
from chunkprefill.simulation.layout import Layout, Shard, all_reduce_s
from chunkprefill.whole import check_fields, real_number

if TYPE_CHECKING:
    from chunkprefill.scheduling.core import Batch, Totals


Curve = list[tuple[float, float]]  # (log2 of tokens, share), ascending
#: Share of the longest decode's extra walk that nothing else hides: 0.4 to 0.8 where blocks that share one
#: memory are followed one by one (`benchmarks.kernel_fit.followed`).
TAIL = 0.7


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How near one device's kernels come to its sheet, timed one by one: linear, chunks, decodes."""

    t_linear: float  # s a layer in its small kernels (norms, rotation, activation), however few the tokens
    reach: tuple[tuple[float, float], ...]  # (tokens, share of the nearer limit that products reach there)
    head: float = 1.0  # how much nearer the head comes, a far larger matrix
    t_sample: float = 0.0  # s a step to sample, however few the rows
    sampled: float = 0.0  # bytes that sampling moves for each logit
    t_chunk: float  # s a layer
    walk: float  # s for a thread block to walk over one cached token (a head of 128), all its queries at once
    t_block: float  # s for a thread block to start and end
    t_empty: float = 0.0  # s for a thread block that finds no queries of its own
    beside: float = 1.0  # how much slower a decode's block walks than a chunk's
    apart: float = 0.0  # and how much again where the heads of its group do not run at one time
    attention: float  # share of the FLOP/s that attention reaches
    reading: float  # share of the bandwidth at which that kernel reads keys and queries
    l2: float = inf  # bytes of one head's keys beyond which the heads of a group read them again
    t_decode: float  # s a layer
    t_row: float  # s a layer to begin each decode, while there is little to read
    decode: float  # share of the bandwidth that decodes reach
    t_fill: float = 0.0  # s a layer lost to waves of blocks that end apart, all of it from `warm` bytes on
    warm: float = inf  # bytes: the cache of the device, in which a benchmark finds its keys again
    block_q: int = 64  # queries of one head that a thread block takes
    tile: int = 128  # tokens of a matrix product's tile
    shared: bool = True  # decodes beside a chunk run in the chunks' kernel; False: in one of their own
    source: str = ""


def _at(curve: Curve, n_tokens: float) -> float:
    """The value of a curve at `n_tokens`: straight between corners, level beyond them."""
    place = log2(n_tokens) if n_tokens > 1 else 0.0
    i = bisect_right(curve, (place, inf))
    if i == 0:
        return curve[0][1]
    if i == len(curve):
        return curve[-1][1]
    (left, low), (right, high) = curve[i - 1], curve[i]
    return low + (high - low) * (place - left) / (right - left)


@dataclass(frozen=True)
class Kernels:
    """Seconds of a batch: n_layers · (linear + attention) + head, a sum of operators, each with its limit.

    config: the model. device: its sheet. fit: what its kernels reach. overhead: s a step besides (launches,
    sampling). layout: number formats, and devices that share each layer. Called with a Batch it gives
    seconds; it walks the chunks, not the decodes.
    Source of the form: FlashAttention's grid (a thread block takes `block_q` queries of a head and walks over
    their keys), SARATHI's tiles (arXiv 2308.16369, fig. 7), and the timings that `fit.source` names.
    """

    config: Config
    device: Device
    fit: Fit
    overhead: float = 0.0
    layout: Layout = field(default_factory=Layout)

    def __post_init__(self) -> None:
        kinds = {"config": Config, "device": Device, "fit": Fit, "layout": Layout}
        for name, kind in kinds.items():
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise TypeError(f"Kernels: {name} must be a {kind.__name__}, got a {type(value).__name__}")
        check_fields(self, real_number, ("overhead",), of="Kernels: ")
        _ = self._shard, self._rates  # what this device cannot hold or compute is refused here
        all_reduce_s(0, self.layout, self.device)

    def __str__(self) -> str:
        return f"kernels of {self.device.name}, {self.layout}: {self.source}"

    @property
    def source(self) -> str:
        """Where the timings come from, and what in this price they do not cover."""
        beyond = []
        if self.config.n_experts:
            beyond.append("experts")
        if self.layout.dtype not in ("bf16", "fp16"):
            beyond.append(f"weights in {self.layout.dtype}")
        if self.layout.cache not in ("bf16", "fp16"):
            beyond.append(f"a cache in {self.layout.cache}")
        if self.layout.tp > 1:
            beyond.append("all-reduce")
        scaled = f"; by its sheet: {', '.join(beyond)}" if beyond else ""
        return self.fit.source + scaled

    def __call__(self, batch: Batch) -> float:
        return self.of(batch.totals())

    def of(self, sums: Totals) -> float:
        """Seconds of a batch with these sums."""
        n_keys, longest = sums.decode_context + sums.n_decodes, sums.longest_decode + 1
        if sums.chunks and self.fit.shared:
            attention = self.chunk_attention(sums.chunks, sums.n_decodes, n_keys, longest)
        else:
            attention = self.chunk_attention(sums.chunks)
            attention += self.decode_attention(sums.n_decodes, n_keys, longest)
        shared = 0.0
        if self.layout.tp > 1:
            n_bytes = sums.n_tokens * self.config.d_model * self._shard.wide
            shared = 2 * all_reduce_s(n_bytes, self.layout, self.device)
        layers = self.config.n_layers * (self.linear(sums.n_tokens) + attention + shared)
        return self.overhead + layers + self.head(sums.n_emits)

    @cached_property
    def _shard(self) -> Shard:
        return Shard(self.config, self.layout)

    @cached_property
    def _rates(self) -> tuple[float, float]:
        """FLOP/s of the sheet: in the layers' products, and elsewhere."""
        return self.device.rate(self.layout.dtype), self.device.rate(self.layout.activations)

    def linear(self, n_tokens: int) -> float:
        """Seconds of one layer's matrix products, norms and activations over `n_tokens` tokens.

        Products run on whole tiles, so 513 tokens cost what 640 do; all weights are read for any number. Of
        an MoE each expert multiplies its own tokens: n·k over the experts that n tokens touch.
        """
        if not n_tokens:
            return 0.0
        c, fit, shard = self.config, self.fit, self._shard
        # Numbers that a token moves: in and out of four products, the MLP's activation, two norms and sums.
        moved = 10 * c.d_model + 2 * shard.d_q + 2 * shard.d_kv + 6 * shard.d_ff * max(c.n_active, 1)
        if not c.n_experts:
            params = shard.attention_params + shard.expert_params
            return fit.t_linear + self._product(n_tokens, params, 1, n_tokens * moved)
        touched = c.experts_touched(n_tokens)
        each = n_tokens * c.n_active / touched
        shared = self._product(n_tokens, shard.attention_params, 1, n_tokens * moved)
        router = shard.router_params * shard.wide / self.device.bandwidth
        return fit.t_linear + shared + router + self._product(each, shard.expert_params, touched, 0)

    def _product(self, n_tokens: float, params: int, n_matrices: float, moved: float) -> float:
        """Seconds of `n_matrices` products of `n_tokens` tokens each with `params` weights."""
        shard, (rate, _) = self._shard, self._rates
        tile = self.fit.tile if n_tokens > 2 * self.fit.tile else self.fit.tile // 2
        padded = ceil(n_tokens / tile) * tile
        compute = 2 * params * n_matrices * padded / rate
        memory = (params * n_matrices * shard.weight + moved * shard.wide) / self.device.bandwidth
        # Shares were timed with 16-bit weights: others meet their two limits at another number of tokens.
        alike = DTYPES["bf16"] / shard.weight * self._rates[1] / rate
        shares, least = self._shares
        return max(compute / _at(shares, padded * alike), memory / _at(least, n_tokens * alike))

    @cached_property
    def _shares(self) -> tuple[Curve, Curve]:
        """Shares of the limits over log tokens: where products compute, and where they read.

        The second never rises: one token more cannot make the same weights come sooner.
        """
        shares = [(log2(n), share) for n, share in self.fit.reach]
        lowest = accumulate((share for _, share in shares), min)
        return shares, [(place, low) for (place, _), low in zip(shares, lowest)]

    def chunk_attention(
        self, chunks: Sequence[tuple[int, int]], n_decodes: int = 0, n_keys: int = 0, longest: int = 0
    ) -> float:
        """Seconds of one layer's attention for chunks of (start, length) and decodes beside them, one launch.

        n_keys: keys that all decodes read; longest: of the longest decode, 0 where all are alike.
        A chunk of c after p makes ⌈c / block_q⌉ thread blocks for each head; they walk over p to p + c
        tokens. Blocks run in waves, one to a multiprocessor, the longest first; a wave lasts as long as its
        longest: in all w(p + c/2) + c/2 for w full waves. So a chunk too short to fill the device pays for a
        *serial* walk over its whole prefix: half the chunk, the same time. A decode beside a chunk is a block
        of one query for each head, and the grid gives every sequence as many blocks as the longest chunk has:
        all but one of a decode's are empty, and cost their launch.
        """
        if not chunks:
            return 0.0
        c, fit, shard, n_sms = self.config, self.fit, self._shard, self.device.n_sms
        n_heads = shard.n_heads
        groups: list[tuple[float, int, int]] = []  # longest walk, how much shorter the shortest is, blocks
        pairs = read = n_queries = n_blocks = most = 0
        for start, length in chunks:
            pairs += length * (2 * start + length)
            read += start + length
            n_queries += length
            of_head = -(-length // fit.block_q)
            most = max(most, of_head)
            n_blocks += of_head
            groups.append((start + length, length, n_heads * of_head))
        keys = float(read)
        if n_decodes:
            group = n_heads // shard.n_kv_heads
            # The share of heads that run when others have ended.
            apart = 1 - min(1.0, n_sms / (group * n_decodes))
            keys += n_keys * self._reads(n_keys, apart)
            n_queries += n_decodes
            longest = longest or round(n_keys / n_decodes)
            slower = fit.beside + fit.apart * apart
            groups.append((longest * slower, 0, n_heads))
            if n_decodes > 1:
                rest = (n_keys - longest) / (n_decodes - 1)
                groups.append((rest * slower, 0, n_heads * (n_decodes - 1)))
        groups.sort(reverse=True)
        walked = 0.0  # tokens: the longest walk of each wave, summed
        begin = waves = 0  # blocks so far; waves that they began
        for far, span, n in groups:
            end = -(-(begin + n) // n_sms)
            new = end - waves
            walked += new * (far - span * (n_sms * (waves + end - 1) / 2 - begin) / n)
            begin, waves = begin + n, end
        empty = n_heads * ((len(chunks) + n_decodes) * most - n_blocks - n_decodes)
        walks = waves * fit.t_block + fit.walk * c.head_dim / 128 * walked
        arithmetic = 2 * pairs * shard.d_q / (fit.attention * self._rates[1])
        moved = keys * shard.kv_bytes + n_queries * 2 * shard.d_q * shard.wide  # queries and outputs
        reading = moved / (fit.reading * self.device.bandwidth)
        return fit.t_chunk + empty * fit.t_empty + max(walks, arithmetic, reading)

    def _reads(self, n_keys: int, apart: float) -> float:
        """How often a decode's keys come from memory beside a chunk: heads of a group share one reading.

        They do while they run at one time, or while what they read stays in the device's cache.
        """
        shard = self._shard
        spilt = n_keys * shard.kv_bytes / shard.n_kv_heads / self.fit.l2 - 1
        return 1 + (shard.n_heads // shard.n_kv_heads - 1) * apart * min(max(spilt, 0.0), 1.0)

    def decode_attention(self, n_decodes: int, n_keys: int, longest: int = 0) -> float:
        """Seconds of one layer's attention for decodes alone that read `n_keys` tokens, one at most `longest`.

        Reading is nearly all. The longest sequence goes on when the others have ended, too few to keep the
        memory busy: that costs TAIL of the walk over what it has beyond their mean. With few sequences each
        is split among several blocks, and the walk is shorter.
        """
        if not n_decodes:
            return 0.0
        fit, shard, device = self.fit, self._shard, self.device
        n_bytes = n_keys * shard.kv_bytes
        n_blocks, slots = n_decodes * shard.n_kv_heads, 2 * device.n_sms
        split = 1.0 if n_blocks >= 0.8 * slots else n_blocks / slots  # FlashAttention's own rule
        beyond = max(longest - n_keys / n_decodes, 0.0) * fit.walk * self.config.head_dim / 128
        tail = TAIL * split * beyond
        full = min(1.0, n_blocks / (2 * slots)) ** 0.5
        begin = max(n_decodes * fit.t_row, fit.t_fill * full * min(n_bytes / fit.warm, 1.0))
        return fit.t_decode + begin + tail + n_bytes / (fit.decode * device.bandwidth)

    def head(self, n_rows: int) -> float:
        """Seconds of the head for `n_rows` rows that emit, and of sampling from their logits."""
        if not n_rows:
            return 0.0
        shard, fit, device = self._shard, self.fit, self.device
        tile = fit.tile if n_rows > fit.tile else fit.tile // 2
        padded = ceil(n_rows / tile) * tile
        shares, least = self._shares
        compute = 2 * shard.head_params * padded / (self._rates[1] * _at(shares, padded))
        memory = shard.head_params * shard.wide / (device.bandwidth * _at(least, n_rows))
        sampled = n_rows * self.config.vocab_size * fit.sampled / device.bandwidth
        return max(compute, memory) / fit.head + fit.t_sample + sampled
