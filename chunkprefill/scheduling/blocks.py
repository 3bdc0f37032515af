"""Memory in blocks: how much there is, and which blocks are free."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(eq=False, slots=True)
class BlockPool:
    """Blocks of `block_size` cached tokens; `n_blocks=None` never runs out. Ids count from 0.

    A run begins on a `copy`, so a pool can be given to many runs. What is free is a stack of returned ids and
    the first id never used: a pool of a billion blocks costs nothing.
    """

    n_blocks: int | None
    block_size: int = 16
    n_used: int = field(default=0, init=False)
    _fresh: int = field(default=0, init=False)
    _returned: list[int] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        for what, value in (("n_blocks", self.n_blocks), ("block_size", self.block_size)):
            if what == "n_blocks" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{what} must be a whole number of at least 1, got {value!r}")

    @property
    def n_free(self) -> float:
        """Blocks that can be taken; infinite where the pool never runs out."""
        return float("inf") if self.n_blocks is None else self.n_blocks - self.n_used

    def blocks_for(self, n_tokens: int) -> int:
        """Blocks that hold `n_tokens` tokens, the last one perhaps in part."""
        return -(-n_tokens // self.block_size)

    def take(self, n: int) -> list[int]:
        """`n` free blocks; ValueError, and nothing taken, if there are fewer."""
        if n < 0 or n > self.n_free:
            raise ValueError(f"{n} blocks asked for, {self.n_free} of {self.n_blocks} free")
        keep = max(0, len(self._returned) - n)
        blocks = self._returned[: keep - 1 if keep else None : -1] if n else []
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
        """The same memory in the same state, apart."""
        other = BlockPool(self.n_blocks, self.block_size)
        other.n_used, other._fresh, other._returned = self.n_used, self._fresh, list(self._returned)
        return other
