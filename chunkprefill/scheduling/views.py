"""What a policy looks through: lines of sequences and the memory, read-only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.core import ReadOnly, Rid, Sequence


class Line(ReadOnly):
    """Sequences in order, to look at: iterate, `len`, `[i]`, `reversed`, `rid in line`, `line.get(rid)`."""

    __slots__ = ("_seqs",)

    def __init__(self, seqs: dict[Rid, Sequence]) -> None:
        object.__setattr__(self, "_seqs", seqs)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._seqs.values())

    def __reversed__(self) -> Iterator[Sequence]:
        return reversed(self._seqs.values())

    def __len__(self) -> int:
        return len(self._seqs)

    def __contains__(self, item: Any) -> bool:
        return (item.rid if isinstance(item, Sequence) else item) in self._seqs

    def __getitem__(self, i: int | slice) -> Any:
        if i == 0 and self._seqs:  # the head of a long queue, without a copy of it
            return next(iter(self._seqs.values()))
        return list(self._seqs.values())[i]

    def get(self, rid: Rid) -> Sequence | None:
        """The sequence of that request if it stands in this line."""
        return self._seqs.get(rid)

    def each(self, n: int) -> dict[Rid, int]:
        """The tokens of a plan that gives `n` to each one here."""
        return dict.fromkeys(self._seqs, n)

    def values(self) -> Iterator[Sequence]:
        """The same as iterating."""
        return iter(self)

    def __repr__(self) -> str:
        return f"[{', '.join(map(repr, self))}]"


class Memory(ReadOnly):
    """The block pool, to look at: n_blocks (None: no end), block_size, n_free, n_used, blocks_for(n)."""

    __slots__ = ("_pool", "block_size", "blocks_for", "n_blocks")

    def __init__(self, pool: BlockPool) -> None:
        for name in ("block_size", "blocks_for", "n_blocks"):
            object.__setattr__(self, name, getattr(pool, name))
        object.__setattr__(self, "_pool", pool)

    n_free = property(lambda self: self._pool.n_free)
    n_used = property(lambda self: self._pool.n_used)
