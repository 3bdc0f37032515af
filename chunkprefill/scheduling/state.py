"""The state of a server: what a policy sees of it, the contract that its plans keep, and what a step changes.

From the top: the views of sequences and of memory; `State`, with the loop's calls in their order (`arrive`,
`ask`, `apply`, `commit`, `land`); and `Books`, the accounts behind a state, with each rule of the contract.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable, Iterable, Iterator
from itertools import compress, islice, repeat
from math import inf
from operator import add, attrgetter, eq, index, le
from time import perf_counter
from typing import Any, NamedTuple

from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.core import (
    Batch,
    Plan,
    ReadOnly,
    Request,
    Rid,
    ScheduleError,
    Sequence,
    set_cached,
    set_capacity,
    set_known,
)
from chunkprefill.scheduling.pool_trial import CachedTrial, PlainTrial, Trial
from chunkprefill.scheduling.prefix_cache import PrefixCache, block_contents

get_cached, get_known = attrgetter("cached"), attrgetter("known")


class SequenceView(ReadOnly):
    """Sequences in order, to look at: iterate, `len`, `[i]`, `reversed`, `rid in view`, `view.get(rid)`."""

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

    def __add__(self, other: Any) -> list[Sequence]:
        """`state.running + state.waiting`: a list of both."""
        return [*self, *other] if isinstance(other, SequenceView | list | tuple) else NotImplemented

    def __radd__(self, other: Any) -> list[Sequence]:
        return [*other, *self] if isinstance(other, list | tuple) else NotImplemented

    def get(self, rid: Rid) -> Sequence | None:
        """The sequence of that request, or None if it is not in this view."""
        return self._seqs.get(rid)

    def each(self, n: int) -> dict[Rid, int]:
        """The tokens of a plan that gives `n` to every sequence here."""
        return dict.fromkeys(self._seqs, n)

    def values(self) -> Iterator[Sequence]:
        """The same as iterating."""
        return iter(self)

    def __repr__(self) -> str:
        return f"[{', '.join(map(repr, self))}]"


class PoolView(ReadOnly):
    """The block pool, to look at: n_blocks (None: no end), block_size, n_free, n_used, blocks_for(n).

    prefix_caching: blocks keep their content. Then `hits` says what a waiting request would find, and `trial`
    tries a plan out, because each block that a plan takes may be one that another request would have found.
    """

    __slots__ = ("_books", "_pool", "block_size", "blocks_for", "n_blocks", "prefix_caching")

    def __init__(self, books: Books) -> None:
        pool, put = books.memory, object.__setattr__
        put(self, "block_size", pool.block_size)
        put(self, "blocks_for", pool.blocks_for)
        put(self, "n_blocks", pool.n_blocks)
        put(self, "prefix_caching", books.cache is not None)
        put(self, "_pool", pool if books.cache is None else books.cache)
        put(self, "_books", books)

    def _name(self) -> str:
        return "pool"

    n_free = property(lambda self: self._pool.n_free, doc="blocks that can be taken")
    n_used = property(lambda self: self._pool.n_used, doc="blocks that sequences hold")

    def hits(self, seq: Sequence) -> int:
        """Tokens that a waiting request would find in the prefix cache now; 0 without one."""
        cache = self._books.cache
        return 0 if cache is None or seq.cached else len(cache.hits(seq.rid, seq.known)) * self.block_size

    def trial(self, *, counting: bool = False) -> Trial:
        """Try a plan out on the pool: grants and evictions in their order. Nothing of it stays.

        counting: count blocks and look at no content, which is faster; enough under prefix caching too for a
        plan that neither evicts nor admits.
        """
        books = self._books
        if counting or books.cache is None:
            return PlainTrial(self._pool)
        return CachedTrial(books.cache, books.unread)


class State(ReadOnly):
    """All that a policy may look at: `pool`, `now` (s), `n_steps` (taken so far), `waiting`, `running`.

    `waiting` is the queue, with evicted sequences at its front. `running` has the sequences with a cache, in
    order of admission; `decoding` and `prefilling` are the same sequences in two parts: those with one token
    to go after an output (in the order in which they got there), and those with more. Only the loop calls
    `arrive`, `ask`, `apply` and `commit`: while a policy decides they raise. A state made by hand from
    `waiting` and `running` sequences serves for one decision, and its requests never finish. n_steps: steps
    taken before it; decoding: the order of `decoding`, where that is not the order of `running`.

    Where steps overlap, a token counts as known while it is still on its way. A request whose last token is on
    its way is in `running` and holds its blocks, but has nothing pending and is in neither part of `running`.
    """

    __slots__ = ("_books", "decoding", "pool", "prefilling", "running", "waiting")
    pool: PoolView
    waiting: SequenceView
    running: SequenceView
    decoding: SequenceView
    prefilling: SequenceView

    def __init__(
        self,
        pool: BlockPool | None = None,
        now: float = 0.0,
        waiting: Iterable[Sequence] = (),
        running: Iterable[Sequence] = (),
        *,
        n_steps: int = 0,
        decoding: Iterable[Rid] = (),
    ) -> None:
        books = Books(BlockPool(None) if pool is None else pool.copy(), now, n_steps)
        put = object.__setattr__
        put(self, "_books", books)
        put(self, "pool", PoolView(books))
        put(self, "waiting", SequenceView(books.waiting))
        put(self, "running", SequenceView(books.running))
        put(self, "decoding", SequenceView(books.decoding))
        put(self, "prefilling", SequenceView(books.prefilling))
        holding = list(running)
        for seq in (*holding, *waiting):
            books.join(seq, inf)
        for seq in holding:
            if not 0 < seq.cached < seq.known:
                raise ValueError(f"request {seq.rid}: runs with {seq.cached} of {seq.known} tokens cached")
            books.hold(seq)
        books.sort_out()
        for rid in decoding:
            if rid in books.decoding:
                books.decoding[rid] = books.decoding.pop(rid)

    now = property(lambda self: self._books.now, doc="s from the start of the run")
    n_steps = property(lambda self: self._books.n_steps, doc="steps taken so far")
    check_s = property(lambda self: self._books.check_s, doc="s spent on checking the contract so far")

    def __len__(self) -> int:
        """Requests that have arrived and have not finished."""
        return len(self._books.live)

    def _loop_only(self, what: str) -> Books:
        if self._books.deciding:
            self._shut(f"state.{what} is for the loop alone")
        return self._books

    @property
    def tables(self) -> dict[Rid, list[int]]:
        """Block ids of each sequence that holds a cache; for the loop and its executor."""
        return self._loop_only("tables").tables

    def arrive(self, request: Request, n_output: int | None = None) -> None:
        """A request joins the queue. n_output: tokens after which it is finished, if not its own n_output."""
        books = self._loop_only("arrive")
        contents = [] if books.cache is None else block_contents(request, books.cache.block_size)
        rid, order = request.rid, len(books.last_known)
        seq = Sequence(rid, request.n_prompt, request.arrival, request.priority, order=order)
        books.join(seq, request.n_prompt + (n_output or request.n_output), contents)

    def ask(self, policy: Any, now: float | None = None) -> Plan:
        """The policy's plan. ScheduleError if it is no Plan, or if the policy changed what it was shown."""
        books = self._books
        if now is not None:
            books.now = now
        before = books.counts()
        books.deciding = True
        try:
            plan = policy.schedule(self)
        finally:
            books.deciding = False
            if books.cache is not None:
                books.cache.undo()  # what the policy tried
        after = books.counts()
        if after != before:
            raise ScheduleError(f"a policy only looks: {before} running, waiting, blocks used became {after}")
        if not isinstance(plan, Plan):
            raise ScheduleError(f"a policy returns a Plan, {type(policy).__name__} returned {plan!r}")
        return plan

    def apply(self, plan: Plan) -> Batch:
        """Check a plan against the contract, evict, take blocks, advance the caches; returns the batch.

        ScheduleError names the rule, the request and the numbers, and then nothing has changed.
        """
        books = self._loop_only("apply")
        began = perf_counter()
        plan, rids, lengths, seqs, starts, knowns, ends, new, n_tokens = books.checked(plan)
        if books.cache is None:
            growing = [(seq, end) for seq, end in zip(seqs, ends) if end > seq.capacity]
            grants = books.check_blocks(plan, growing) if growing else []
            books.check_s += perf_counter() - began
            if plan.preempted:
                books.evict(plan.preempted)
            if grants:
                books.grow(growing, grants)
        else:
            moves = books.checked_moves(plan, [seq for seq, end in zip(seqs, ends) if end >= seq.capacity])
            books.check_s += perf_counter() - began
            granted = books.move(moves)
            if plan.preempted:
                books.evict(plan.preempted)
            if new:  # an admitted request begins behind what it finds
                starts = tuple([granted.get(rid, start) for rid, start in zip(rids, starts)])
                ends = tuple(map(add, starts, lengths))
                books.n_cached += sum([granted[rid] for rid in new])
        deque(map(set_cached, seqs, ends), maxlen=0)
        for rid in new:
            books.admit(rid)
        books.n_cached += n_tokens
        books.n_steps += 1
        batch = Batch(rids, starts, lengths, tuple(map(eq, ends, knowns)), plan.preempted)
        books.applied = Applied(batch, seqs, ends, knowns)
        return batch

    def commit(self, batch: Batch, *, landed: bool = True) -> list[Rid]:
        """Count what the batch emitted, free and return the requests that finished. Once after each `apply`.

        landed=False: the tokens are still on their way. They count as known, so that the next step can be
        scheduled; a request whose last token is on its way keeps its blocks until `land`.
        """
        books = self._loop_only("commit")
        applied, seqs, ends, _ = books.applied
        if batch is not applied or books.n_steps == books.n_committed:
            raise ValueError(f"a batch of {len(batch)} chunks to commit, which is not the one applied last")
        emitting, knowns = compress(seqs, batch.emits), map(add, compress(ends, batch.emits), repeat(1))
        deque(map(set_known, emitting, knowns), maxlen=0)
        n_emits = sum(batch.emits)
        books.n_known += n_emits
        if books.prefilling:
            books.sort_out()
        books.n_committed = books.n_steps
        if n_emits:
            books.n_evictions = 0
        last = books.last_tokens() if books.n_steps >= books.next_finish else []
        if not landed:
            books.await_tokens(batch, last)
            return []
        for rid in last:
            books.leave(rid)
        return last

    def land(self, batch: Batch) -> list[Rid]:
        """A batch that was committed with landed=False has its tokens; returns the requests that finished."""
        books = self._loop_only("land")
        if not books.in_flight or books.in_flight[0].batch is not batch:
            raise ValueError(f"a batch of {len(batch)} chunks to land, which is not the one committed first")
        return books.settle()

    @property
    def n_in_flight(self) -> int:
        """Batches that were committed and have not landed."""
        return len(self._books.in_flight)


class Applied(NamedTuple):
    """A batch as it was applied, by rows: its sequences, their ends, what was known of each before."""

    batch: Batch | None
    seqs: Iterable[Sequence]
    ends: Iterable[int]
    knowns: Iterable[int]


class InFlight(NamedTuple):
    """A batch whose tokens are on their way, and the requests that finish when it lands."""

    batch: Batch
    ends: Iterable[int]
    last: list[Rid]


Numbers = tuple[int, ...]  # one a row of a plan
#: A plan that keeps the contract, as columns: requests, tokens, sequences, starts, known tokens, ends; last
#: the requests without a cache, and the sum of the tokens.
Checked = tuple[Plan, tuple[Rid, ...], Numbers, list[Sequence], Numbers, Numbers, Numbers, list[Rid], int]


class Books:
    """The accounts of a server, which only the loop changes, and the rules of the contract."""

    def __init__(self, memory: BlockPool, now: float, n_steps: int) -> None:
        self.memory = memory
        self.cache = PrefixCache(memory) if memory.prefix_caching else None
        self.now = now  # s
        self.deciding = False  # a policy has been asked and has not answered
        self.live: dict[Rid, Sequence] = {}
        self.waiting: OrderedDict[Rid, Sequence] = OrderedDict()
        self.running: dict[Rid, Sequence] = {}
        self.decoding: dict[Rid, Sequence] = {}
        self.prefilling: dict[Rid, Sequence] = {}
        self.tables: dict[Rid, list[int]] = {} if self.cache is None else self.cache.tables  # block ids
        self.last_known: dict[Rid, float] = {}  # known tokens at which a request is finished
        self.queued: dict[Rid, int] = {}  # known tokens of each waiting request when it joined the queue
        self.n_cached = 0  # tokens of all running sequences
        self.n_known = 0
        self.applied = Applied(None, (), (), ())  # the last batch
        self.in_flight: deque[InFlight] = deque()
        self.unread: set[Rid] = set()  # requests whose newest token has no value yet, under prefix caching
        self.n_steps = self.n_committed = n_steps
        self.next_finish: float = 0  # no request can finish before that step
        self.n_evictions = 0  # since a token was last emitted
        self.check_s = 0.0

    def counts(self) -> tuple[int, int, int]:
        """Sequences running and waiting, blocks used."""
        return len(self.running), len(self.waiting), (self.cache or self.memory).n_used

    # What a step changes.

    def join(self, seq: Sequence, last_known: float, contents: Iterable[Hashable] = ()) -> None:
        """A sequence joins the end of the queue. contents: of its prompt's whole blocks, see `PrefixCache`."""
        if seq.rid in self.last_known:
            raise ValueError(f"request {seq.rid}: a request of that name has arrived before")
        self.last_known[seq.rid] = last_known
        self.live[seq.rid] = self.waiting[seq.rid] = seq
        self.queued[seq.rid] = seq.known
        if self.cache is not None:
            self.cache.arrive(seq.rid, contents)

    def hold(self, seq: Sequence) -> None:
        """Admit a sequence that was made with a cache, and give it the blocks of that cache."""
        if self.cache is None:
            self.tables[seq.rid] = self.memory.take(self.memory.blocks_for(seq.cached))
        else:
            self.cache.arrive(seq.rid)
            self.cache.adopt(seq.rid, [])
            self.cache.grow(seq.rid, seq.cached, seq.known)
        set_capacity(seq, len(self.tables[seq.rid]) * self.memory.block_size)
        self.admit(seq.rid)
        self.n_cached += seq.cached

    def admit(self, rid: Rid) -> None:
        """Move a sequence from the queue to the running ones."""
        self.running[rid] = self.prefilling[rid] = self.waiting.pop(rid)
        known = self.queued.pop(rid)
        self.n_known += known
        self.next_finish = min(self.next_finish, self.n_steps + self.last_known[rid] - known)

    def grow(self, growing: list[tuple[Sequence, int]], grants: list[int]) -> None:
        """Take blocks for the sequences that outgrow theirs."""
        blocks, size = iter(self.memory.take(sum(grants))), self.memory.block_size
        for (seq, _), n in zip(growing, grants):
            self.tables.setdefault(seq.rid, []).extend(islice(blocks, n))
            set_capacity(seq, seq.capacity + n * size)

    def sort_out(self) -> None:
        """Move the sequences that have begun to decode from one part to the other."""
        for seq in [seq for seq in self.prefilling.values() if seq.decoding]:
            self.decoding[seq.rid] = self.prefilling.pop(seq.rid)

    def last_tokens(self) -> list[Rid]:
        """The requests that have emitted all their tokens. Before `next_finish` there are none."""
        last = [rid for rid, seq in self.running.items() if seq.known == self.last_known[rid]]
        left = (self.last_known[rid] - seq.known for rid, seq in self.running.items() if seq.pending)
        self.next_finish = self.n_steps + min((n for n in left if n), default=1)
        return last

    def await_tokens(self, batch: Batch, last: list[Rid]) -> None:
        """The tokens of a batch are on their way; nothing is pending in a request that waits for its last."""
        self.in_flight.append(InFlight(batch, self.applied.ends, last))
        if self.cache is not None:
            self.unread.update(compress(batch.rid, batch.emits))
        for rid in last:
            seq = self.running[rid]
            set_known(seq, seq.known - 1)
            self.n_known -= 1
            self.unlist(rid)

    def settle(self) -> list[Rid]:
        """The tokens of the first batch in flight have values now; returns the requests that finish with it.

        A block that one of these tokens completed has no key yet, because the value was not known when the
        next step was scheduled. It gets one before its request leaves, row by row.
        """
        batch, ends, last = self.in_flight.popleft()
        if self.cache is None:
            for rid in last:
                self.leave(rid)
            return last
        self.unread = set[Rid]().union(*(compress(b.rid, b.emits) for b, _, _ in self.in_flight))
        size, finished = self.cache.block_size, set(last)
        emitting = compress(zip(batch.rid, ends), batch.emits)
        for rid, end in [(rid, end) for rid, end in emitting if end % size == 0 or rid in finished]:
            if rid in self.running:
                self.cache.register(rid, end)
            if rid in finished:
                self.leave(rid)
        return last

    def leave(self, rid: Rid) -> None:
        """A request has finished. It may have been evicted while its last token was on its way."""
        del self.live[rid]
        seq = self.running.pop(rid, None)
        if seq is None:
            del self.waiting[rid], self.queued[rid]
        else:
            self.release(seq)
        if self.cache is not None:
            self.cache.leave(rid)

    def evict(self, rids: Iterable[Rid]) -> None:
        """Caches are lost, outputs kept; each sequence in turn goes to the front of the queue."""
        for rid in rids:
            seq = self.running.pop(rid)
            self.release(seq)
            set_cached(seq, 0)
            set_capacity(seq, 0)
            self.waiting[rid] = seq
            self.waiting.move_to_end(rid, last=False)
            self.queued[rid] = seq.known
            self.n_evictions += 1

    def release(self, seq: Sequence) -> None:
        """Give back the blocks of a sequence, if it still has them, and take it out of the sums."""
        self.unlist(seq.rid)
        if self.cache is None:
            self.memory.give(self.tables.pop(seq.rid))
        elif seq.rid in self.tables:
            self.cache.release(seq.rid)
        self.n_cached -= seq.cached
        self.n_known -= seq.known

    def unlist(self, rid: Rid) -> None:
        """Take a running sequence out of the part of `running` that it is in."""
        if not self.decoding.pop(rid, None):
            self.prefilling.pop(rid, None)

    def move(self, moves: Iterable[tuple[Rid, int]]) -> dict[Rid, int]:
        """Take and give back blocks of the prefix cache in this order; returns where each grant starts.

        ScheduleError where there are too few, and then nothing has changed.
        """
        cache = self.cache
        assert cache is not None
        starts: dict[Rid, int] = {}
        cache.begin()
        try:
            for rid, n in moves:
                if n:
                    starts[rid] = cache.grant(self.live[rid], n, rid in self.unread)
                else:
                    cache.release(rid)
        except BaseException:
            cache.undo()
            raise
        cache.keep()
        for rid in starts:
            if rid in self.tables:  # not evicted by the same plan
                set_capacity(self.live[rid], len(self.tables[rid]) * cache.block_size)
        return starts

    # The contract: each rule with its message. A check changes nothing, except that `put_back` restores a
    # number that a policy changed.

    def checked(self, plan: Plan) -> Checked:
        """The plan as columns, after every check but that of its blocks."""
        if plan.preempted:
            self.check_evictions(plan)
        elif not plan.tokens:
            self.refuse_empty()
        rids, lengths = tuple(plan.tokens), tuple(plan.tokens.values())
        # Columns, because a row at a time costs twice as much; the row that is wrong is found afterwards.
        try:
            seqs = list(map(self.live.__getitem__, rids))
            n_tokens, least = sum(lengths), min(lengths, default=1)
        except (KeyError, TypeError):
            return self.checked(self.checked_rows(plan))
        if n_tokens.__class__ is not int or least < 1:  # added up as they are, 8 bits would overflow
            return self.checked(self.checked_rows(plan))
        starts, knowns = tuple(map(get_cached, seqs)), tuple(map(get_known, seqs))
        new = [rid for rid, start in zip(rids, starts) if not start] if 0 in starts else []
        self.check_unchanged(plan, starts, knowns, new)
        ends = tuple(map(add, starts, lengths))
        if not all(map(le, ends, knowns)):
            return self.checked(self.checked_rows(plan))
        return plan, rids, lengths, seqs, starts, knowns, ends, new, n_tokens

    def check_unchanged(
        self, plan: Plan, starts: tuple[int, ...], knowns: tuple[int, ...], new: list[Rid]
    ) -> None:
        """Assignment is closed to policies; the sums that the loop keeps find one that got past the lock."""
        cached, known = sum(starts), sum(knowns)
        if len(starts) - len(new) < len(self.running):
            others = [seq for rid, seq in self.running.items() if rid not in plan.tokens]
            cached, known = cached + sum(map(get_cached, others)), known + sum(map(get_known, others))
        # The queue is too long to be summed: only the sequences that leave it are looked at.
        known -= sum([self.queued.get(rid, -1) for rid in new])
        if cached == self.n_cached and known == self.n_known:
            return
        for rid in plan.tokens:
            if rid in self.waiting:
                self.put_back(self.waiting[rid], 0, self.queued[rid])
        batch, seqs, ends, before = self.applied
        waiting_for_last = {rid for flight in self.in_flight for rid in flight.last}
        for seq, end, k, emits in zip(seqs, ends, before, batch.emits if batch else ()):
            if seq.rid in self.running:
                self.put_back(seq, end, k + (emits and seq.rid not in waiting_for_last))
        became = f"{[self.n_cached, self.n_known]} tokens cached and known became {[cached, known]}"
        raise ScheduleError(f"requests {[*self.running]}: a policy only looks, {became}")

    def put_back(self, seq: Sequence, cached: int, known: int) -> None:
        """ScheduleError if a policy changed these numbers, which are then as they were."""
        if (seq.cached, seq.known) == (cached, known):
            return
        became = f"its cached {cached} became {seq.cached}, its known {known} became {seq.known}"
        set_cached(seq, cached)
        set_known(seq, known)
        raise ScheduleError(f"request {seq.rid}: a policy only looks, {became}")

    def check_evictions(self, plan: Plan) -> None:
        """Each evicted request holds a cache, is named once, and gets no token of the same plan."""
        seen: set[Rid] = set()
        for rid in plan.preempted:
            if not isinstance(rid, Hashable) or rid not in self.running:
                raise ScheduleError(f"request {rid}: to be evicted, but holds no cache: {self.where(rid)}")
            if rid in plan.tokens:
                raise ScheduleError(
                    f"request {rid}: {plan.tokens[rid]} tokens planned, and evicted by the same plan"
                )
            if rid in seen:
                raise ScheduleError(
                    f"request {rid}: evicted twice in one plan ({len(plan.preempted)} evictions)"
                )
            seen.add(rid)
        if self.n_evictions > 1000 and self.n_evictions > 1000 + 8 * sum(map(get_known, self.live.values())):
            raise ScheduleError(
                f"request {rid}: livelock, {self.n_evictions} evictions since a token was last emitted"
            )

    def check_blocks(self, plan: Plan, growing: list[tuple[Sequence, int]]) -> list[int]:
        """Blocks that each growing sequence takes, if there are enough."""
        size = self.memory.block_size
        grants = [-(-end // size) - seq.capacity // size for seq, end in growing]
        free = self.memory.n_free
        if plan.preempted:
            free += sum(len(self.tables[rid]) for rid in plan.preempted)
        if sum(grants) > free:
            for (seq, _), n in zip(growing, grants):
                if n > free:
                    planned = f"{plan.tokens[seq.rid]} tokens planned, {seq.cached} cached"
                    blocks = f"{n} more blocks needed, {free} of {self.memory.n_blocks} free for it"
                    raise ScheduleError(f"request {seq.rid}: out of blocks, {planned}, {blocks}")
                free -= n
        return grants

    def checked_moves(self, plan: Plan, growing: list[Sequence]) -> list[tuple[Rid, int]]:
        """The moves of a plan, which must amount to its evictions and its tokens.

        growing: the sequences that need blocks or complete one. Where they are not among the moves they come
        last; for the others there is nothing to move.
        """
        if not plan.moves:
            return [
                *((rid, 0) for rid in plan.preempted),
                *((seq.rid, plan.tokens[seq.rid]) for seq in growing),
            ]
        granted: dict[Rid, int] = {}
        evicted = []
        for rid, n in plan.moves:
            if n:
                granted[rid] = n
            else:
                granted.pop(rid, None)
                evicted.append(rid)
        if any(plan.tokens.get(rid) != n for rid, n in granted.items()) or tuple(evicted) != plan.preempted:
            planned = f"{dict(plan.tokens)} planned, {list(plan.preempted)} to be evicted"
            raise ScheduleError(f"plan: its moves amount to other tokens or evictions than it has: {planned}")
        missing = [(seq.rid, plan.tokens[seq.rid]) for seq in growing if seq.rid not in granted]
        return [*plan.moves, *missing]

    def refuse_empty(self) -> None:
        """A plan that does nothing is an error."""
        for seq in self.live.values():
            pending = f"{seq.pending} tokens pending, {self.how_many()}"
            raise ScheduleError(f"request {seq.rid}: empty plan while there is work, {pending}")
        raise ScheduleError("empty plan: 0 requests are live, so there is nothing to apply")

    def checked_rows(self, plan: Plan) -> Plan:
        """Refuse the row that breaks a rule. If none does, numbers were numpy's: the plan in plain ones."""
        tokens = {}
        for rid, n in plan.tokens.items():
            seq = self.live.get(rid)
            if seq is None:
                raise ScheduleError(f"request {rid}: {n} tokens planned, but {self.where(rid)}")
            if not hasattr(n, "__index__"):
                raise ScheduleError(f"request {rid}: {n!r} tokens planned, a whole number is the rule")
            if n < 1 or n > seq.pending:
                rule = "" if n > 0 else ", at least 1 is the rule"
                raise ScheduleError(f"request {rid}: {n} tokens planned, {seq.pending} pending{rule}")
            tokens[rid] = index(n)
        return Plan(tokens, plan.preempted, plan.moves)

    def how_many(self) -> str:
        """`1 request is live`, `2 requests are live`."""
        n = len(self.live)
        return "1 request is live" if n == 1 else f"{n} requests are live"

    def where(self, rid: Any) -> str:
        """Where a request is that is not where a plan wants it."""
        live = self.how_many()
        if not isinstance(rid, Hashable) or rid not in self.last_known:
            return f"no such request has arrived ({live})"
        return "it waits in the queue, 0 tokens cached" if rid in self.live else f"it has finished ({live})"
