"""The state of a server and the one checker of the contract: a batch comes out, or nothing has changed."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from itertools import compress, islice, repeat
from math import inf
from operator import add, eq, le
from time import perf_counter
from typing import Any

from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.contract import (
    NOTHING,
    Contract,
    get_cached,
    get_known,
    set_cached,
    set_known,
    set_room,
)
from chunkprefill.scheduling.core import Batch, Plan, Request, Rid, ScheduleError, Sequence
from chunkprefill.scheduling.views import Line, Memory

_put = object.__setattr__


class State(Contract):
    """All that a policy may look at: `pool`, `now` (s), `n_steps` (taken so far), `waiting`, `running`.

    `waiting` is the queue, evicted sequences at its front; `running` is who holds a cache, in order of
    admission; `decoding` and `prefilling` are the same again, in two parts: who has one token to go after an
    output (in the order in which they came to that), and who has more. The loop alone calls `arrive`, `ask`,
    `apply`, `commit`: they are shut while a policy decides. Made by hand from `waiting` and `running`
    sequences it serves for one decision: nobody ever finishes.
    """

    __slots__ = (
        *("_check_s", "_deciding", "_evictions", "_last", "_last_step", "_live", "_memory", "_n_commits"),
        *("_next_finish", "_n_steps", "_now", "_queued", "_running", "_sums", "_tables", "_waiting"),
        *("_decoding", "_prefilling", "decoding", "pool", "prefilling", "running", "waiting"),
    )
    pool: Memory
    decoding: Line
    prefilling: Line
    running: Line
    waiting: Line

    def __init__(
        self,
        pool: BlockPool | None = None,
        now: float = 0.0,
        waiting: Iterable[Sequence] = (),
        running: Iterable[Sequence] = (),
    ) -> None:
        memory = BlockPool(None) if pool is None else pool.copy()
        queue, holders = OrderedDict[Rid, Sequence](), dict[Rid, Sequence]()
        holding, standing = list(running), list(waiting)
        parts: tuple[dict[Rid, Sequence], ...] = ({}, {})
        mine: dict[str, Any] = {"_memory": memory, "_now": now, "_deciding": False, "_sums": [0, 0]}
        mine |= {"_waiting": queue, "_running": holders, "_decoding": parts[0], "_prefilling": parts[1]}
        mine |= {name[1:]: Line(mine[name]) for name in ("_waiting", "_running", "_decoding", "_prefilling")}
        mine |= {"pool": Memory(memory), "_last_step": NOTHING}
        mine |= {"_live": {}, "_tables": {}, "_last": {}, "_queued": {}}
        mine |= dict.fromkeys(("_n_steps", "_n_commits", "_next_finish", "_evictions", "_check_s"), 0)
        for name, value in mine.items():
            _put(self, name, value)
        for seq in (*holding, *standing):
            self._join(seq, inf)
        for seq in holding:
            if not 0 < seq.cached < seq.known:
                raise ValueError(f"request {seq.rid}: runs with {seq.cached} of {seq.known} tokens cached")
            self._tables[seq.rid] = memory.take(memory.blocks_for(seq.cached))
            set_room(seq, len(self._tables[seq.rid]) * memory.block_size)
            self._admit(seq.rid)
            self._sums[0] += seq.cached
        self._sort_out()

    now = property(lambda self: self._now, doc="s from the start of the run")
    n_steps = property(lambda self: self._n_steps, doc="steps taken so far")
    check_s = property(lambda self: self._check_s, doc="s spent on checking the contract so far")

    def _loop_only(self, what: str) -> None:
        if self._deciding:
            self._shut(f"state.{what} is for the loop alone")

    @property
    def tables(self) -> dict[Rid, list[int]]:
        """Block ids of each sequence that holds a cache; for the loop and its executor."""
        self._loop_only("tables")
        return self._tables

    def arrive(self, request: Request, n_output: int | None = None) -> None:
        """A request joins the queue. n_output: tokens after which it is finished, if not its own n_output."""
        self._loop_only("arrive")
        rid, last = request.rid, request.n_prompt + (n_output or request.n_output)
        self._join(
            Sequence(rid, request.n_prompt, request.arrival, request.priority, order=len(self._last)), last
        )

    def _join(self, seq: Sequence, last: float) -> None:
        if seq.rid in self._last:
            raise ValueError(f"request {seq.rid}: a request of that name has arrived before")
        self._last[seq.rid] = last
        self._live[seq.rid] = self._waiting[seq.rid] = seq
        self._queued[seq.rid] = seq.known

    def _admit(self, rid: Rid) -> None:
        self._running[rid] = self._prefilling[rid] = self._waiting.pop(rid)
        known = self._queued.pop(rid)
        self._sums[1] += known
        if self._last[rid] - known < self._next_finish - self._n_steps:
            _put(self, "_next_finish", self._n_steps + self._last[rid] - known)

    def ask(self, policy: Any, now: float | None = None) -> Plan:
        """The policy's plan. ScheduleError if it is no Plan, or if the policy moved what it was shown."""
        _put(self, "_now", self._now if now is None else now)
        before = len(self._running), len(self._waiting), self._memory.n_used
        _put(self, "_deciding", True)
        try:
            plan = policy.schedule(self)
        finally:
            _put(self, "_deciding", False)
        after = len(self._running), len(self._waiting), self._memory.n_used
        if after != before:
            raise ScheduleError(f"a policy only looks: {before} running, waiting, blocks used became {after}")
        if not isinstance(plan, Plan):
            raise ScheduleError(f"a policy returns a Plan, {type(policy).__name__} returned {plan!r}")
        return plan

    def apply(self, plan: Plan) -> Batch:
        """Check a plan against the contract, evict, take blocks, advance the caches; returns the batch.

        ScheduleError names the rule, the request and the numbers, and then nothing has changed.
        """
        self._loop_only("apply")
        began = perf_counter()
        if plan.preempted:
            self._check_evictions(plan)
        elif not plan.tokens:
            self._refuse_empty()
        rids, lengths = tuple(plan.tokens), tuple(plan.tokens.values())
        try:  # columns, for a row at a time costs twice as much; which row is wrong is found out afterwards
            seqs = list(map(self._live.__getitem__, rids))
            n_tokens, least = sum(lengths), min(lengths, default=1)
        except (KeyError, TypeError):
            return self.apply(self._refuse_row(plan))
        starts, knowns = tuple(map(get_cached, seqs)), tuple(map(get_known, seqs))
        new = [rid for rid, start in zip(rids, starts) if not start] if 0 in starts else []
        self._check_unchanged(plan, starts, knowns, new)
        ends = tuple(map(add, starts, lengths))
        if n_tokens.__class__ is not int or least < 1 or not all(map(le, ends, knowns)):
            return self.apply(self._refuse_row(plan))
        growing = [(seq, end) for seq, end in zip(seqs, ends) if end > seq.room]
        grants = self._check_room(plan, growing) if growing else []
        _put(self, "_check_s", self._check_s + perf_counter() - began)

        if plan.preempted:
            self._evict(plan.preempted)
        if grants:
            blocks, size = iter(self._memory.take(sum(grants))), self._memory.block_size
            for (seq, _), n in zip(growing, grants):
                self._tables.setdefault(seq.rid, []).extend(islice(blocks, n))
                set_room(seq, seq.room + n * size)
        deque(map(set_cached, seqs, ends), maxlen=0)
        for rid in new:
            self._admit(rid)
        self._sums[0] += n_tokens
        _put(self, "_n_steps", self._n_steps + 1)
        batch = Batch(rids, starts, lengths, tuple(map(eq, ends, knowns)), plan.preempted)
        _put(self, "_last_step", (batch, seqs, ends, knowns))
        return batch

    def commit(self, batch: Batch) -> list[Rid]:
        """Count what the batch emitted, free what finished; returns who did. Once after each `apply`."""
        self._loop_only("commit")
        applied, seqs, ends, _ = self._last_step
        if batch is not applied or self._n_steps == self._n_commits:
            raise ValueError(f"a batch of {len(batch)} chunks to commit, which is not the one applied last")
        emitting, knowns = compress(seqs, batch.emits), map(add, compress(ends, batch.emits), repeat(1))
        deque(map(set_known, emitting, knowns), maxlen=0)
        n_emits = sum(batch.emits)
        self._sums[1] += n_emits
        if self._prefilling:
            self._sort_out()
        _put(self, "_n_commits", self._n_steps)
        if n_emits:
            _put(self, "_evictions", 0)
        return self._finish() if self._n_steps >= self._next_finish else []

    def _finish(self) -> list[Rid]:
        """Let those go who have emitted all they will; nobody else can have, before `_next_finish` steps."""
        finished = [rid for rid, seq in self._running.items() if seq.known == self._last[rid]]
        for rid in finished:
            del self._live[rid]
            self._forget(self._running.pop(rid))
        left = (self._last[rid] - seq.known for rid, seq in self._running.items())
        _put(self, "_next_finish", self._n_steps + min(left, default=1))
        return finished

    def _sort_out(self) -> None:
        """Who has come to decode moves from one part to the other."""
        for seq in [seq for seq in self._prefilling.values() if seq.decoding]:
            self._decoding[seq.rid] = self._prefilling.pop(seq.rid)

    def _forget(self, seq: Sequence) -> None:
        """Its cache is gone."""
        if not self._decoding.pop(seq.rid, None):
            del self._prefilling[seq.rid]
        self._memory.give(self._tables.pop(seq.rid))
        self._sums[0] -= seq.cached
        self._sums[1] -= seq.known

    def _evict(self, rids: tuple[Rid, ...]) -> None:
        """Caches are lost, outputs kept; each in its turn goes to the front of the queue."""
        for rid in rids:
            seq = self._running.pop(rid)
            self._forget(seq)
            set_cached(seq, 0), set_room(seq, 0)
            self._waiting[rid] = seq
            self._waiting.move_to_end(rid, last=False)
            self._queued[rid] = seq.known
        _put(self, "_evictions", self._evictions + len(rids))
