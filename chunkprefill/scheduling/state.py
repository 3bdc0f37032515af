"""The state of a server and the one checker of the contract: a batch comes out, or nothing has changed."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from itertools import compress, filterfalse
from operator import add, attrgetter, eq, gt, index, le
from time import perf_counter
from typing import Any

from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.core import Batch, Plan, ReadOnly, Request, Rid, ScheduleError, Sequence
from chunkprefill.scheduling.views import Line, Memory

# Assignment is closed to policies; the loop writes through the slots themselves.
_put = object.__setattr__
_set_cached, _set_known, _set_room = (vars(Sequence)[name].__set__ for name in ("cached", "known", "room"))
_cached, _known, _room = map(attrgetter, ("cached", "known", "room"))


class State(ReadOnly):
    """All that a policy may look at: `pool`, `now` (s), `n_steps` (taken so far), `waiting`, `running`.

    `waiting` is the queue, evicted sequences at its front; `running` is who holds a cache, in order of
    admission. The loop alone calls `arrive`, `ask`, `apply`, `commit`: they are shut while a policy decides.
    """

    __slots__ = (
        *("_check_s", "_deciding", "_evictions", "_last", "_live", "_memory", "_n_steps", "_now", "_queued"),
        *("_running", "_tables", "_waiting", "pool", "running", "waiting"),
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
            "_evictions": 0,  # since a token was last emitted
            **{"_now": 0.0, "_n_steps": 0, "_deciding": False, "_check_s": 0.0},
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
        """The policy's plan. ScheduleError if it is no Plan, or if the policy changed what it was shown."""
        began = perf_counter()
        before = self._shown()
        checked = perf_counter() - began
        _put(self, "_now", self._now if now is None else now)
        _put(self, "_deciding", True)
        try:
            plan = policy.schedule(self)
        finally:
            _put(self, "_deciding", False)
        began = perf_counter()
        if self._shown() != before:
            self._restore(*before)
        if not isinstance(plan, Plan):
            raise ScheduleError(f"a policy returns a Plan, {type(policy).__name__} returned {plan!r}")
        _put(self, "_check_s", self._check_s + checked + perf_counter() - began)
        return plan

    def _shown(self) -> tuple[int, int, list[Sequence], list[int], list[int]]:
        """What a policy could have changed behind our back."""
        seqs = list(self._running.values())
        return (
            self._memory.n_used,
            len(self._waiting),
            seqs,
            list(map(_cached, seqs)),
            list(map(_known, seqs)),
        )

    def _restore(self, n_used: int, n_waiting: int, seqs: list[Sequence], cached: Any, known: Any) -> None:
        """Undo it where that can be done, and say to whom it was done."""
        for seq, c, k in zip(seqs, cached, known):
            if (seq.cached, seq.known) != (c, k):
                changed = f"its cached {c} became {seq.cached}, its known {k} became {seq.known}"
                for each, c, k in zip(seqs, cached, known):
                    _set_cached(each, c), _set_known(each, k)
                raise ScheduleError(f"request {seq.rid}: a policy only looks, {changed}")
        was, became = (
            (len(seqs), n_waiting, n_used),
            (len(self._running), len(self._waiting), self.pool.n_used),
        )
        raise ScheduleError(f"a policy only looks: running, waiting, blocks used were {was}, became {became}")

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
        try:  # columns, for a row at a time costs twice as much; what is wrong is found out afterwards
            seqs = list(map(self._live.__getitem__, rids))
            if set(map(type, lengths)) - {int} or min(lengths, default=1) < 1:
                raise ValueError
            starts, knowns = tuple(map(_cached, seqs)), tuple(map(_known, seqs))
            ends = tuple(map(add, starts, lengths))
            if not all(map(le, ends, knowns)):
                raise ValueError
        except (KeyError, ValueError):
            return self.apply(self._refuse_row(plan))
        new = tuple(filterfalse(self._running.__contains__, rids))
        if new:
            self._check_queue(new)
        growing = tuple(compress(zip(seqs, ends), map(gt, ends, map(_room, seqs))))
        grants = self._check_room(plan, growing) if growing else []
        _put(self, "_check_s", self._check_s + perf_counter() - began)

        if plan.preempted:
            self._evict(plan.preempted)
        for (seq, _), n in zip(growing, grants):
            table = self._tables.setdefault(seq.rid, [])
            table += self._memory.take(n)
            _set_room(seq, len(table) * self._memory.block_size)
        deque(map(_set_cached, seqs, ends), maxlen=0)
        for rid in new:
            self._running[rid] = self._waiting.pop(rid)
            del self._queued[rid]
        _put(self, "_n_steps", self._n_steps + 1)
        return Batch(rids, starts, lengths, tuple(map(eq, ends, knowns)), plan.preempted)

    def commit(self, batch: Batch) -> list[Rid]:
        """Count what the batch emitted, free what finished; returns who did."""
        self._loop_only("commit")
        rids = tuple(compress(batch.rid, batch.emits))
        seqs = tuple(map(self._live.__getitem__, rids))
        knowns = [seq.known + 1 for seq in seqs]
        deque(map(_set_known, seqs, knowns), maxlen=0)
        finished = list(compress(rids, map(eq, knowns, map(self._last.__getitem__, rids))))
        for rid in finished:
            del self._live[rid], self._running[rid]
            self._memory.give(self._tables.pop(rid))
        if rids:
            _put(self, "_evictions", 0)
        return finished

    def _evict(self, rids: tuple[Rid, ...]) -> None:
        """Caches are lost, outputs kept; each in its turn goes to the front of the queue."""
        for rid in rids:
            seq = self._running.pop(rid)
            self._memory.give(self._tables.pop(rid))
            _set_cached(seq, 0), _set_room(seq, 0)
            self._waiting[rid] = seq
            self._waiting.move_to_end(rid, last=False)
            self._queued[rid] = seq.known
        _put(self, "_evictions", self._evictions + len(rids))

    # The rules of the contract. Nothing below changes anything.

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

    def _check_queue(self, rids: tuple[Rid, ...]) -> None:
        """Who is admitted must be as it was when it joined the queue, which is too long to be looked over."""
        for rid in rids:
            seq, known = self._waiting[rid], self._queued[rid]
            if (seq.cached, seq.known) != (0, known):
                became = f"its cached 0 became {seq.cached}, its known {known} became {seq.known}"
                _set_cached(seq, 0), _set_known(seq, known)
                raise ScheduleError(f"request {rid}: a policy only looks, {became}")

    def _check_room(self, plan: Plan, growing: tuple[tuple[Sequence, int], ...]) -> list[int]:
        """Blocks that each growing sequence takes."""
        size = self._memory.block_size
        grants = [-(-end // size) - seq.room // size for seq, end in growing]
        there = self._memory.n_free + sum(len(self._tables[rid]) for rid in plan.preempted)
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
            if isinstance(n, bool) or not hasattr(n, "__index__"):
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
