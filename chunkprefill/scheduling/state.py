"""The state of a server and the one checker of the contract: a batch comes out, or nothing has changed."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from itertools import compress, islice, repeat
from operator import add, attrgetter, eq, index, le
from time import perf_counter
from typing import Any

from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.core import Batch, Plan, ReadOnly, Request, Rid, ScheduleError, Sequence
from chunkprefill.scheduling.views import Line, Memory

# Assignment is closed to policies; the loop writes through the slots themselves.
_put = object.__setattr__
_set_cached, _set_known, _set_room = (vars(Sequence)[name].__set__ for name in ("cached", "known", "room"))
_cached, _known = attrgetter("cached"), attrgetter("known")


class State(ReadOnly):
    """All that a policy may look at: `pool`, `now` (s), `n_steps` (taken so far), `waiting`, `running`.

    `waiting` is the queue, evicted sequences at its front; `running` is who holds a cache, in order of
    admission. The loop alone calls `arrive`, `ask`, `apply`, `commit`: they are shut while a policy decides.
    """

    __slots__ = (
        *("_check_s", "_deciding", "_evictions", "_last", "_last_step", "_live", "_memory", "_n_commits"),
        *("_next_finish", "_n_steps", "_now", "_queued", "_running", "_sums", "_tables", "_waiting"),
        *("pool", "running", "waiting"),
    )
    pool: Memory
    running: Line
    waiting: Line

    def __init__(self, pool: BlockPool | None = None) -> None:
        memory = BlockPool(None) if pool is None else pool.copy()
        waiting, running = OrderedDict[Rid, Sequence](), dict[Rid, Sequence]()
        for name, value in {
            **{"pool": Memory(memory), "running": Line(running), "waiting": Line(waiting)},
            **{"_memory": memory, "_running": running, "_waiting": waiting, "_live": {}, "_tables": {}},
            "_last": {},  # known tokens at which a request is finished
            "_queued": {},  # known tokens of each one that waits, as they were when it joined the queue
            "_sums": [0, 0],  # tokens cached and known by all who run
            "_last_step": (None, (), (), ()),  # the batch applied last, its sequences, their ends and knowns
            "_evictions": 0,  # since a token was last emitted
            **{
                "_now": 0.0,
                "_n_steps": 0,
                "_n_commits": 0,
                "_next_finish": 0,
                "_deciding": False,
                "_check_s": 0.0,
            },
        }.items():
            _put(self, name, value)

    now = property(lambda self: self._now, doc="s from the start of the run")
    n_steps = property(lambda self: self._n_steps, doc="steps taken so far")
    check_s = property(lambda self: self._check_s, doc="s spent on checking the contract so far")

    def __len__(self) -> int:
        return len(self._live)

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
        rid = request.rid
        if rid in self._last:
            raise ValueError(f"request {rid}: a request of that name has arrived before")
        seq = Sequence(rid, request.n_prompt, request.arrival, request.priority, order=len(self._last))
        self._last[rid] = request.n_prompt + (n_output or request.n_output)
        self._live[rid] = self._waiting[rid] = seq
        self._queued[rid] = seq.known

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
        starts, knowns = tuple(map(_cached, seqs)), tuple(map(_known, seqs))
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
                _set_room(seq, seq.room + n * size)
        deque(map(_set_cached, seqs, ends), maxlen=0)
        for rid in new:
            self._running[rid] = self._waiting.pop(rid)
            known = self._queued.pop(rid)
            self._sums[1] += known
            if self._last[rid] - known < self._next_finish - self._n_steps:
                _put(self, "_next_finish", self._n_steps + self._last[rid] - known)
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
        deque(map(_set_known, emitting, knowns), maxlen=0)
        n_emits = sum(batch.emits)
        self._sums[1] += n_emits
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

    def _forget(self, seq: Sequence) -> None:
        """Its cache is gone."""
        self._memory.give(self._tables.pop(seq.rid))
        self._sums[0] -= seq.cached
        self._sums[1] -= seq.known

    def _evict(self, rids: tuple[Rid, ...]) -> None:
        """Caches are lost, outputs kept; each in its turn goes to the front of the queue."""
        for rid in rids:
            seq = self._running.pop(rid)
            self._forget(seq)
            _set_cached(seq, 0), _set_room(seq, 0)
            self._waiting[rid] = seq
            self._waiting.move_to_end(rid, last=False)
            self._queued[rid] = seq.known
        _put(self, "_evictions", self._evictions + len(rids))

    # The rules of the contract. Nothing below changes anything, but what a policy changed is put back.

    def _check_unchanged(self, plan: Plan, starts: Any, knowns: Any, new: list[Rid]) -> None:
        """Assignment is closed; who went past the lock is found by the sums that the loop keeps."""
        cached, known = sum(starts), sum(knowns)
        if len(starts) - len(new) < len(self._running):
            others = [seq for rid, seq in self._running.items() if rid not in plan.tokens]
            cached, known = cached + sum(map(_cached, others)), known + sum(map(_known, others))
        # The queue is too long to be summed: one looks at who leaves it.
        known -= sum([self._queued.get(rid, -1) for rid in new])
        if [cached, known] == self._sums:
            return
        for rid in plan.tokens:
            if rid in self._waiting:
                self._put_back(self._waiting[rid], 0, self._queued[rid])
        batch, seqs, ends, before = self._last_step
        for seq, end, k, emits in zip(seqs, ends, before, batch.emits if batch else ()):
            if seq.rid in self._running:
                self._put_back(seq, end, k + emits)
        became = f"{self._sums} tokens cached and known became {[cached, known]}"
        raise ScheduleError(f"requests {[*self._running]}: a policy only looks, {became}")

    def _put_back(self, seq: Sequence, cached: int, known: int) -> None:
        if (seq.cached, seq.known) == (cached, known):
            return
        became = f"its cached {cached} became {seq.cached}, its known {known} became {seq.known}"
        _set_cached(seq, cached), _set_known(seq, known)
        raise ScheduleError(f"request {seq.rid}: a policy only looks, {became}")

    def _check_evictions(self, plan: Plan) -> None:
        seen = []
        for rid in plan.preempted:
            if not isinstance(rid, Hashable) or rid not in self._running:
                raise ScheduleError(f"request {rid}: to be evicted, but holds no cache: {self._where(rid)}")
            if rid in plan.tokens:
                raise ScheduleError(
                    f"request {rid}: {plan.tokens[rid]} tokens planned, and evicted by the same plan"
                )
            if rid in seen:
                raise ScheduleError(
                    f"request {rid}: evicted twice in one plan ({len(plan.preempted)} evictions)"
                )
            seen.append(rid)
        if self._evictions > 1000 and self._evictions > 1000 + 8 * sum(map(_known, self._live.values())):
            raise ScheduleError(
                f"request {rid}: livelock, {self._evictions} evictions since a token was last emitted"
            )

    def _check_room(self, plan: Plan, growing: list[tuple[Sequence, int]]) -> list[int]:
        """Blocks that each growing sequence takes."""
        size = self._memory.block_size
        grants = [-(-end // size) - seq.room // size for seq, end in growing]
        there = self._memory.n_free
        if plan.preempted:
            there += sum(len(self._tables[rid]) for rid in plan.preempted)
        if sum(grants) > there:
            for (seq, _), n in zip(growing, grants):
                if n > there:
                    planned = f"{plan.tokens[seq.rid]} tokens planned, {seq.cached} cached"
                    blocks = f"{n} more blocks needed, {there} of {self._memory.n_blocks} free for it"
                    raise ScheduleError(f"request {seq.rid}: out of blocks, {planned}, {blocks}")
                there -= n
        return grants

    def _refuse_empty(self) -> None:
        for seq in self._live.values():
            pending = f"{seq.pending} tokens pending, {len(self)} requests live"
            raise ScheduleError(f"request {seq.rid}: empty plan while there is work, {pending}")
        raise ScheduleError("empty plan: 0 requests are live, so there is nothing to apply")

    def _refuse_row(self, plan: Plan) -> Plan:
        """Refuse the row that breaks a rule. If none does, numbers were numpy's: the plan in plain ones."""
        tokens = {}
        for rid, n in plan.tokens.items():
            seq = self._live.get(rid)
            if seq is None:
                raise ScheduleError(f"request {rid}: {n} tokens planned, but {self._where(rid)}")
            if not hasattr(n, "__index__"):
                raise ScheduleError(f"request {rid}: {n!r} tokens planned, a whole number is the rule")
            if n < 1 or n > seq.pending:
                rule = "" if n > 0 else ", at least 1 is the rule"
                raise ScheduleError(f"request {rid}: {n} tokens planned, {seq.pending} pending{rule}")
            tokens[rid] = index(n)
        return Plan(tokens, plan.preempted)

    def _where(self, rid: Any) -> str:
        live = f"{len(self)} requests are live"
        if not isinstance(rid, Hashable) or rid not in self._last:
            return f"no such request has arrived ({live})"
        return "it waits in the queue, 0 tokens cached" if rid in self._live else f"it has finished ({live})"
