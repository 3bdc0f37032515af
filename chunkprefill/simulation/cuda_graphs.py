"""CUDA graphs, priced: kernels launched one by one, or replayed at a recorded size with padding."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from chunkprefill.scheduling.core import Batch
from chunkprefill.simulation.kernels import Kernels

#: Sizes that vLLM records unless told otherwise (`vllm/config/vllm.py`, 2026), for `max_num_seqs` of 256.
VLLM_SIZES = (1, 2, 4, *range(8, 256, 8), *range(256, 513, 16))
MODES = ("none", "decodes", "decodes, pieces")


@dataclass(frozen=True, kw_only=True)
class CudaGraphs:
    """Seconds of a step when the processor must launch what the device runs; batch -> s.

    A graph is a recording of a step's kernels at one size. Replaying it is one launch, and a batch of another
    size is padded to the next size recorded. Attention over prompts does not fit into a recording made for
    decodes, so a step with a chunk in it loses the full graph: it is replayed in pieces, the layers' parts
    from graphs and attention launched between them, or launched kernel by kernel.

    cost:      what the device takes, batch -> s (`published`)
    mode:      "none": every kernel is launched; "decodes": full graphs for steps of decodes alone, the others
               kernel by kernel (vLLM's `FULL_DECODE_ONLY`); "decodes, pieces": graphs in pieces for the
               others (vLLM's default, `FULL_AND_PIECEWISE`)
    sizes:     recorded sizes, tokens, ascending; a larger batch is launched kernel by kernel
    launch:    s of the processor for a kernel. replay: s for a graph, whole or a piece
    kernels:   kernels in a layer, attention and the writing of the cache among them

    Launching runs ahead of the device, so a step takes the longer of the two: `launching(batch)` on the
    processor, `device(batch)` on the device. What the two constants are depends on engine and machine: they
    are assumptions here, to be moved. Source of the modes: vLLM's documentation, "CUDA Graphs".
    Raises ValueError for an unknown mode, or sizes that are not ascending whole numbers above 0.
    """

    cost: Kernels
    mode: str = "decodes, pieces"
    sizes: Sequence[int] = VLLM_SIZES
    launch: float = 10e-6  # s
    replay: float = 15e-6  # s
    kernels: int = 10

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode {self.mode!r} is unknown; choose one of {', '.join(MODES)}")
        sizes = list(self.sizes)
        if not sizes or sizes != sorted(set(sizes)) or sizes[0] < 1:
            raise ValueError(f"sizes must ascend from at least 1: {sizes[:6]}")

    def __call__(self, batch: Batch) -> float:
        return max(self.launching(batch), self.device(batch))

    def runs(self, batch: Batch) -> str:
        """How this batch is launched: "graph", "pieces" or "kernels"."""
        sums = batch.totals()
        if self.mode == "none" or sums.n_tokens > self.sizes[-1]:
            return "kernels"
        if not sums.chunks:
            return "graph"
        return "pieces" if self.mode == MODES[2] else "kernels"

    def padded(self, batch: Batch) -> int:
        """Tokens that the device's products run over."""
        n = batch.totals().n_tokens
        return n if self.runs(batch) == "kernels" else self.sizes[bisect_left(self.sizes, n)]

    def launching(self, batch: Batch) -> float:
        """Seconds of the processor. A layer in pieces is one replay and two launches (cache, attention)."""
        layers = self.cost.config.n_layers
        how = self.runs(batch)
        if how == "graph":
            return self.replay
        if how == "pieces":
            return layers * (self.replay + 2 * self.launch) + self.replay
        return (layers * self.kernels + 3) * self.launch  # and embedding, last norm, head

    def device(self, batch: Batch) -> float:
        """Seconds of the device. Padding runs through the products, not through attention or the head."""
        n, padded = batch.totals().n_tokens, self.padded(batch)
        more = self.cost.linear(padded) - self.cost.linear(n)
        return self.cost(batch) + self.cost.config.n_layers * more
