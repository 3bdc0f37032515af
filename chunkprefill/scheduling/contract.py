"""The rules of the contract, each with its message: they look at a plan and a state, and change neither."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from operator import attrgetter, index
from typing import Any

from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.core import Batch, Plan, ReadOnly, Rid, ScheduleError, Sequence

Columns = tuple[Batch | None, Any, Any, Any]  # a batch, its sequences, their ends, what was known of each

# Assignment is closed to policies; the loop writes through the slots themselves.
set_cached, set_known, set_room = (vars(Sequence)[name].__set__ for name in ("cached", "known", "room"))
NOTHING: Columns = (None, (), (), ())
get_cached, get_known = attrgetter("cached"), attrgetter("known")


class Contract(ReadOnly):
    """What a plan must keep to; `State` adds what happens when it does."""

    __slots__ = ()
    _live: dict[Rid, Sequence]
    _running: dict[Rid, Sequence]
    _waiting: OrderedDict[Rid, Sequence]
    _tables: dict[Rid, list[int]]
    _memory: BlockPool
    _last: dict[Rid, float]  # known tokens at which a request is finished
    _queued: dict[Rid, int]  # known tokens of each one that waits, as they were when it joined the queue
    _sums: list[int]  # tokens cached and known by all who run
    _last_step: Columns  # of the batch applied last
    _evictions: int  # since a token was last emitted

    def __len__(self) -> int:
        return len(self._live)

    def _check_unchanged(self, plan: Plan, starts: Any, knowns: Any, new: list[Rid]) -> None:
        """Assignment is closed; who went past the lock is found by the sums that the loop keeps."""
        cached, known = sum(starts), sum(knowns)
        if len(starts) - len(new) < len(self._running):
            others = [seq for rid, seq in self._running.items() if rid not in plan.tokens]
            cached, known = cached + sum(map(get_cached, others)), known + sum(map(get_known, others))
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
        set_cached(seq, cached), set_known(seq, known)
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
        if self._evictions > 1000 and self._evictions > 1000 + 8 * sum(map(get_known, self._live.values())):
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
