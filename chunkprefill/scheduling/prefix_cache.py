"""Prefix caching: blocks that stay behind with their content, so that a prompt that begins alike can use them.

A block is known by what it holds and by all that lies before it, so an equal key means an equal prefix. Only
whole blocks have a key. A block that no sequence holds any more keeps its content until it is taken for
something else: the block freed first goes first, and of one sequence the tail goes before the head.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any

from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.core import Request, Rid, ScheduleError, Sequence

Key = Hashable


def block_contents(request: Request, block_size: int) -> list[Hashable]:
    """What each whole block of the prompt holds, in order: equal where two prompts say that it is equal.

    [] for a request that says nothing about its prompt: it shares with no other.
    """
    n_blocks = request.n_prompt // block_size
    if request.blocks is not None:
        if len(request.blocks) != n_blocks:
            raise ValueError(
                f"request {request.rid}: {len(request.blocks)} block hashes, but {request.n_prompt} prompt tokens "
                f"have {n_blocks} whole blocks of {block_size}"
            )
        return [("block", each) for each in request.blocks]
    if request.segments is not None:
        return list(_in_blocks(request.segments, block_size, n_blocks))
    if request.prompt is not None:
        starts = range(0, n_blocks * block_size, block_size)
        return [request.prompt[start : start + block_size] for start in starts]
    return []


def _in_blocks(
    segments: Iterable[tuple[str, int]], block_size: int, n_blocks: int
) -> Iterator[tuple[tuple[str, int, int], ...]]:
    """Each block as its pieces of segments, (name, first token in the segment, tokens)."""
    pieces: list[tuple[str, int, int]] = []
    room = block_size
    for name, length in segments:
        start = 0
        while start < length:
            n = min(room, length - start)
            pieces.append((name, start, n))
            start, room = start + n, room - n
            if not room:
                yield tuple(pieces)
                pieces, room = [], block_size


class EvictionOrder:
    """Blocks in the order in which they go. A block can be taken out of the middle, and put back there."""

    def __init__(self) -> None:
        self._after: dict[int, int] = {-1: -1}  # -1 stands before the first and after the last
        self._before: dict[int, int] = {-1: -1}
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator[int]:
        block = self._after[-1]
        while block != -1:
            yield block
            block = self._after[block]

    @property
    def first(self) -> int:
        """The block that goes next."""
        return self._after[-1]

    def append(self, block: int) -> None:
        """The block goes after all the others."""
        last = self._before[-1]
        self._after[last] = self._before[-1] = block
        self._before[block], self._after[block] = last, -1
        self._n += 1

    def remove(self, block: int) -> int:
        """Take a block out; returns the one before it (-1: none), behind which `restore` can put it back."""
        before, after = self._before.pop(block), self._after.pop(block)
        self._after[before], self._before[after] = after, before
        self._n -= 1
        return before

    def restore(self, block: int, before: int) -> None:
        """Put a block back behind the one that stood before it."""
        after = self._after[before]
        self._after[before] = self._before[after] = block
        self._before[block], self._after[block] = before, after
        self._n += 1


class PrefixCache:
    """The blocks of a run: which sequence holds which, what each of them contains, which of them goes next.

    `memory` has the blocks without content. What is done between `begin` and `keep` can be undone by `undo`.
    """

    def __init__(self, memory: BlockPool) -> None:
        self.memory = memory
        self.block_size = memory.block_size
        self.tables: dict[Rid, list[int]] = {}  # block ids of each sequence that holds a cache
        self.n_keyed: dict[Rid, int] = {}  # its first blocks that have a key
        self._keys: dict[Rid, list[Key]] = {}  # of the whole blocks of its prompt
        self._interned: dict[Key, int] = {}  # (key of the block before, content) -> key
        self._holders: dict[int, int] = {}  # how many sequences hold a block; free blocks are not in it
        self._key_of: dict[int, Key] = {}
        self._with_key: dict[Key, dict[int, None]] = {}  # blocks of that content, first cached first
        self._free = EvictionOrder()  # blocks with content that no sequence holds
        self._written: dict[Rid, int] = {}  # keyed blocks of a sequence before the plan at hand
        self._journal: list[tuple[Callable[..., Any], tuple[Any, ...]]] | None = None

    @property
    def n_free(self) -> float:
        """Blocks that can be taken, with content or without."""
        return self.memory.n_free + len(self._free)

    @property
    def n_used(self) -> int:
        """Blocks that sequences hold."""
        return self.memory.n_used - len(self._free)

    def arrive(self, rid: Rid, contents: Iterable[Hashable] = ()) -> None:
        """A request has arrived; contents: of its prompt's whole blocks, see `block_contents`."""
        keys: list[Key] = []
        before: Key = None
        for content in contents:
            before = self._interned.setdefault((before, content), len(self._interned))
            keys.append(before)
        self._keys[rid] = keys

    def leave(self, rid: Rid) -> None:
        """A request has finished."""
        del self._keys[rid]

    def key(self, rid: Rid, i: int) -> Key:
        """The key of a sequence's i-th block. A block with outputs is found by its own request alone."""
        keys = self._keys[rid]
        return keys[i] if i < len(keys) else (rid, i)

    def hits(self, rid: Rid, known: int) -> list[int]:
        """The blocks in which a sequence without a cache finds its first tokens. The last one is computed."""
        found: list[int] = []
        for i in range((known - 1) // self.block_size):
            blocks = self._with_key.get(self.key(rid, i))
            if not blocks:
                break
            found.append(next(iter(blocks)))
        return found

    def need(self, rid: Rid, end: int, hits: Iterable[int] = ()) -> int:
        """Free blocks that a sequence takes up to token `end`; a hit that no sequence holds is one of them."""
        held = len(self.tables.get(rid, ()))
        free_hits = n_hits = 0
        for block in hits:
            n_hits += 1
            free_hits += block not in self._holders
        return max(0, -(-end // self.block_size) - held - n_hits) + free_hits

    # What changes the cache, each step with what undoes it.

    def begin(self) -> None:
        """What follows can be undone."""
        assert self._journal is None, "a plan is being tried already"
        self._journal = []
        self._written = {}

    def keep(self) -> None:
        """What was done since `begin` stands."""
        self._journal = None

    def undo(self) -> None:
        """Everything is as it was at `begin`."""
        journal, self._journal = self._journal, None
        for back, arguments in reversed(journal or ()):
            back(*arguments)

    def _note(self, back: Callable[..., Any], *arguments: Any) -> None:
        if self._journal is not None:
            self._journal.append((back, arguments))

    def grant(self, seq: Sequence, n: int, on_its_way: bool = False) -> int:
        """Take blocks for `n` tokens more of a sequence; returns where they start.

        A sequence without a cache starts behind what it finds, or as far behind as leaves it `n` tokens to
        compute. on_its_way: the value of its newest token is not known yet. ScheduleError, with the numbers,
        if there are too few free blocks. Nothing happens, and the call can be left out, as long as the new
        end stays below the capacity: no block is taken, and none is completed.
        """
        rid, cached, known = seq.rid, seq.cached, seq.known
        hits: list[int] = []
        new = rid not in self.tables
        if new:
            hits = self.hits(rid, known)[: (known - n) // self.block_size]
            cached = len(hits) * self.block_size
        need = self.need(rid, cached + n, hits)
        if need > self.n_free:
            blocks = f"{need} more blocks needed, {self.n_free} of {self.memory.n_blocks} free for it"
            raise ScheduleError(
                f"request {rid}: out of blocks, {n} tokens planned, {cached} cached, {blocks}"
            )
        if new:
            self.adopt(rid, hits)
        self.grow(rid, cached + n, known - on_its_way)
        return cached

    def adopt(self, rid: Rid, hits: list[int]) -> None:
        """A sequence without a cache begins with these blocks."""
        for block in hits:
            self._hold(block)
        self.tables[rid], self.n_keyed[rid] = list(hits), len(hits)
        self._written.setdefault(rid, len(hits))
        self._note(self.tables.pop, rid)
        self._note(self.n_keyed.pop, rid)

    def grow(self, rid: Rid, end: int, n_valued: int) -> None:
        """A sequence takes blocks up to token `end`; whole blocks of its first `n_valued` tokens get keys at once.

        At once, and not when a pass has filled them: a request admitted in the same step can use them, because
        in each layer keys and values of all tokens of the step are stored before any of them are read.
        """
        table = self.tables[rid]
        n = -(-end // self.block_size) - len(table)
        if n > 0:
            table += self._take(n)
            self._note(table.__delitem__, slice(len(table) - n, None))
        self.register(rid, min(end, n_valued))

    def register(self, rid: Rid, n_tokens: int) -> None:
        """The first `n_tokens` tokens of a sequence are known and cached: their whole blocks get keys."""
        first, until = self.n_keyed[rid], n_tokens // self.block_size
        if until <= first:
            return
        self._written.setdefault(rid, first)
        for i in range(first, until):
            self._set_key(self.tables[rid][i], self.key(rid, i))
        self.n_keyed[rid] = until
        self._note(self.n_keyed.__setitem__, rid, first)

    def release(self, rid: Rid) -> None:
        """A sequence gives up its cache: the blocks that it alone holds are free, its last block goes first."""
        table, n_keyed = self.tables.pop(rid), self.n_keyed.pop(rid)
        self._note(self.tables.__setitem__, rid, table)
        self._note(self.n_keyed.__setitem__, rid, n_keyed)
        if self._journal is not None and not self.memory.withdrawn_count:
            for i in range(self._written.get(rid, n_keyed), n_keyed):  # granted by the plan that evicts it
                if self._holders[table[i]] > 1:
                    raise ScheduleError(
                        f"request {rid}: evicted, but another one would use what it never computed"
                    )
                self._drop_key(table[i])
        empty: list[int] = []
        for block in reversed(table):
            n_holders = self._holders[block]
            if n_holders > 1:
                self._holders[block] = n_holders - 1
            else:
                del self._holders[block]
                if block in self._key_of:
                    self._free.append(block)
                    self._note(self._free.remove, block)
                else:
                    empty.append(block)
            self._note(self._holders.__setitem__, block, n_holders)
        if empty:
            self.memory.give(empty[::-1])
            self._note(self.memory.take, len(empty))

    def _hold(self, block: int) -> None:
        n_holders = self._holders.get(block, 0)
        self._holders[block] = n_holders + 1
        if n_holders:
            self._note(self._holders.__setitem__, block, n_holders)
        else:
            self._note(self._free.restore, block, self._free.remove(block))
            self._note(self._holders.pop, block)

    def _take(self, n: int) -> list[int]:
        """Blocks without content first; then those that lose theirs, in the order of eviction."""
        n_empty = int(min(n, self.memory.n_free))
        blocks = self.memory.take(n_empty)
        self._note(self.memory.give, list(blocks))
        while len(blocks) < n:
            block = self._free.first
            self._note(self._free.restore, block, self._free.remove(block))
            self._drop_key(block)
            blocks.append(block)
        for block in blocks:
            self._holders[block] = 1
            self._note(self._holders.pop, block)
        return blocks

    def _set_key(self, block: int, key: Key) -> None:
        self._key_of[block] = key
        blocks = self._with_key.setdefault(key, {})
        blocks[block] = None
        self._note(self._forget, block, key)

    def _forget(self, block: int, key: Key) -> None:
        del self._key_of[block]
        blocks = self._with_key[key]
        del blocks[block]
        if not blocks:
            del self._with_key[key]

    def _drop_key(self, block: int) -> None:
        key = self._key_of[block]
        order = list(self._with_key[key])
        self._forget(block, key)
        self._note(self._restore_key, block, key, order)

    def _restore_key(self, block: int, key: Key, order: list[int]) -> None:
        self._key_of[block] = key
        self._with_key[key] = dict.fromkeys(order)
