"""Memory in blocks: how much there is, and which blocks are free."""

from __future__ import annotations

from dataclasses import dataclass, field

from chunkprefill.whole import flag, whole_number


@dataclass(eq=False, slots=True)
class BlockPool:
    """Blocks of `block_size` cached tokens; `n_blocks=None` never runs out. Ids count from 0.

    n_blocks: blocks that sequences can hold. vLLM's `num_gpu_blocks` counts one more, the null block that it
    never gives to a request: a server that reports 1,000 blocks is `BlockPool(999)`. prefix_caching: blocks
    keep their content after a request, and requests that begin with the same tokens use it (`Request` says how
    equal tokens are known). A run begins on a `copy`, so a pool can be given to many runs, and each starts with
    an empty cache. What is free is a stack of returned ids and the first id never used: a pool of a billion blocks
    costs nothing.
    """

    n_blocks: int | None
    block_size: int = 16
    prefix_caching: bool = False
    n_used: int = field(default=0, init=False)
    #: Whether a block stays cached that one plan granted and withdrew, so that no pass filled it. In vLLM it
    #: does, and `parity` compares decisions with vLLM's; a model must not read such a block.
    withdrawn_count: bool = field(default=False, init=False, repr=False)
    _fresh: int = field(default=0, init=False)
    _returned: list[int] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if self.n_blocks is not None:
            self.n_blocks = whole_number("n_blocks", self.n_blocks, 1)
        self.block_size = whole_number("block_size", self.block_size, 1)
        self.prefix_caching = flag("prefix_caching", self.prefix_caching)

    @property
    def n_free(self) -> float:
        """Blocks that can be taken; infinite where the pool never runs out."""
        return float("inf") if self.n_blocks is None else self.n_blocks - self.n_used

    def blocks_for(self, n_tokens: int) -> int:
        """Blocks that hold `n_tokens` tokens, the last one perhaps in part."""
        return -(-n_tokens // self.block_size)

    def take(self, n: int) -> list[int]:
        """Take `n` free blocks; ValueError if there are fewer, and then none is taken."""
        if n < 0 or n > self.n_free:
            raise ValueError(f"{n} blocks asked for, {self.n_free} of {self.n_blocks} free")
        keep = max(0, len(self._returned) - n)
        blocks = self._returned[keep:][::-1]
        del self._returned[keep:]
        fresh = self._fresh + n - len(blocks)
        blocks += range(self._fresh, fresh)
        self._fresh = fresh
        self.n_used += n
        return blocks

    def give(self, blocks: list[int]) -> None:
        """Return blocks that were taken."""
        self._returned += reversed(blocks)
        self.n_used -= len(blocks)

    def copy(self) -> BlockPool:
        """A pool of its own, in the same state."""
        other = BlockPool(self.n_blocks, self.block_size, self.prefix_caching)
        other.withdrawn_count = self.withdrawn_count
        other.n_used, other._fresh, other._returned = self.n_used, self._fresh, list(self._returned)
        return other
