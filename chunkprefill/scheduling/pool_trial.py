"""A plan tried out on the pool: what its grants and evictions take, one after the other; nothing of it stays."""

from __future__ import annotations

from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.core import Rid, Sequence
from chunkprefill.scheduling.prefix_cache import PrefixCache


class PlainTrial:
    """A trial that counts blocks and looks at no content.

    free: blocks that are left. moves: what was done, for `Plan.moves`; () here, because the order of plain
    blocks does not matter.
    """

    moves: tuple[tuple[Rid, int], ...] = ()

    def __init__(self, pool: BlockPool | PrefixCache) -> None:
        self.size, self.free = pool.block_size, pool.n_free
        self._grown: dict[Rid, int] = {}  # blocks granted to running sequences

    def close(self) -> None:
        """The trial ends: nothing that was tried stays."""

    def hits(self, seq: Sequence) -> int:
        """Tokens of a waiting sequence that are cached already: it begins behind them."""
        return 0

    def need(self, seq: Sequence, end: int) -> int:
        """Blocks that `seq` takes up to token `end`."""
        return max(0, -(-end // self.size) - seq.capacity // self.size)

    def reach(self, seq: Sequence) -> float:
        """Tokens that `seq` can be granted with the blocks that are left."""
        return seq.capacity + self.free * self.size - seq.cached

    def grant(self, seq: Sequence, n: int) -> None:
        """Give `n` tokens to `seq`, for which there must be blocks."""
        need = self.need(seq, seq.cached + n)
        if need:
            self.free -= need
            self._grown[seq.rid] = need

    def evict(self, seq: Sequence) -> None:
        """Take its cache from a running sequence, with what it was granted."""
        self.free += seq.capacity // self.size + self._grown.pop(seq.rid, 0)


class CachedTrial:
    """The same under prefix caching, where each block taken may be one that another request would have found.

    Its methods mean what those of `PlainTrial` mean. The trial is made on the cache itself, which is set back when the trial ends, at the latest when the policy
    has answered (`State.ask`).
    """

    def __init__(self, cache: PrefixCache, unread: set[Rid]) -> None:
        cache.undo()
        cache.begin()
        self._cache, self._unread, self.size = cache, unread, cache.block_size
        self._moves: list[tuple[Rid, int]] = []

    def close(self) -> None:
        self._cache.undo()

    @property
    def free(self) -> float:
        return self._cache.n_free

    @property
    def moves(self) -> tuple[tuple[Rid, int], ...]:
        return tuple(self._moves)

    def _found(self, seq: Sequence) -> list[int]:
        return [] if seq.rid in self._cache.tables else self._cache.hits(seq.rid, seq.known)

    def hits(self, seq: Sequence) -> int:
        return len(self._found(seq)) * self.size

    def need(self, seq: Sequence, end: int) -> int:
        return self._cache.need(seq.rid, end, self._found(seq))

    def reach(self, seq: Sequence) -> float:
        hits = self._found(seq)
        start = seq.cached or len(hits) * self.size
        held = len(self._cache.tables.get(seq.rid, hits)) - self._cache.need(seq.rid, 0, hits)
        return (held + self.free) * self.size - start

    def grant(self, seq: Sequence, n: int) -> None:
        self._cache.grant(seq, n, seq.rid in self._unread)
        self._moves.append((seq.rid, n))

    def evict(self, seq: Sequence) -> None:
        self._cache.release(seq.rid)
        self._moves.append((seq.rid, 0))


Trial = PlainTrial | CachedTrial
