"""vLLM V1's scheduling rules, proved against decisions recorded from vLLM itself (see `parity`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import heapify, heappop

from chunkprefill.scheduling.core import Plan, Rid, Sequence
from chunkprefill.scheduling.state import State


def _urgency(seq: Sequence) -> tuple[int, int]:
    """Small is urgent; equals go by arrival."""
    return seq.priority, seq.order


@dataclass(frozen=True)
class VllmV1:
    """vLLM V1 (0.33.0; no prefix caching, no speculation), with the names of its own settings.

    Running requests first, in order of admission, each up to `long_prefill_token_threshold` (0: no cap; none
    either for a lone request) and the budget; who runs out of blocks takes them from the last admitted
    ("fcfs") or from the least urgent ("priority"). Then, unless somebody was evicted, the queue, while its
    head fits. "Decodes first" is no rule here: it follows as long as an unfinished prompt is the last one
    running.
    """

    max_num_batched_tokens: int = 2048  # a step: the token budget
    max_num_seqs: int = 256
    long_prefill_token_threshold: int = 0
    policy: str = "fcfs"  # or "priority"
    enable_chunked_prefill: bool = True
    max_model_len: int | None = None  # tokens of a prompt and its outputs
    scheduler_reserve_full_isl: bool = True  # admit only if blocks for all known tokens are free
    watermark: float = 0.0  # share of all blocks that an admission leaves free while others run

    def __post_init__(self) -> None:
        least = {"max_num_batched_tokens": 1, "max_num_seqs": 1, "long_prefill_token_threshold": 0}
        for name, low in {**least, **({} if self.max_model_len is None else {"max_model_len": 2})}.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < low:
                raise ValueError(f"VllmV1: {name} must be a whole number of at least {low}, got {value!r}")
        if self.policy not in ("fcfs", "priority"):
            raise ValueError(f"VllmV1: policy is fcfs or priority, got {self.policy!r}")
        if not 0 <= self.watermark < 1:
            raise ValueError(f"VllmV1: watermark must be at least 0 and below 1, got {self.watermark!r}")

    @property
    def max_prompt(self) -> int | None:
        """A prompt that may not be cut must fit the budget."""
        return None if self.enable_chunked_prefill else self.max_num_batched_tokens

    def schedule(self, state: State) -> Plan:
        size, free, budget = state.pool.block_size, state.pool.n_free, self.max_num_batched_tokens
        threshold = self.long_prefill_token_threshold if len(state.running) + len(state.waiting) > 1 else 0
        running, tokens, evicted = list(state.running), dict[Rid, int](), list[Rid]()
        grown: dict[Rid, int] = {}  # blocks taken in this step, to be returned with the tokens
        for seq in running:
            cached = seq.cached
            n = seq.known - cached
            if n > 1:
                n = min(n, threshold or n, budget)
            if evicted or cached + n > seq.room:
                need = -(-(cached + n) // size) - seq.room // size
                while need > free and seq.rid not in evicted:
                    left = [each for each in running if each.rid not in evicted]
                    victim = max(left, key=_urgency) if self.policy == "priority" else left[-1]
                    evicted.append(victim.rid)
                    budget += tokens.pop(victim.rid, 0)  # if it was given some already, they go back
                    free += victim.room // size + grown.pop(victim.rid, 0)
                if seq.rid in evicted:
                    continue  # by another or by itself; whoever is behind it is still looked at
                free -= need
                grown[seq.rid] = need
            tokens[seq.rid] = n
            budget -= n
            if budget < 1:
                break
        if not evicted:
            self._admit(self._queue(state.waiting), tokens, budget, free, threshold, len(running), state)
        return Plan(tokens, tuple(evicted))

    def _queue(self, waiting: Iterable[Sequence]) -> Iterator[Sequence]:
        if self.policy == "fcfs":
            yield from waiting
            return
        heap = [(*_urgency(seq), seq) for seq in waiting]
        heapify(heap)
        while heap:
            yield heappop(heap)[-1]

    def _admit(
        self,
        queue: Iterator[Sequence],
        tokens: dict[Rid, int],
        budget: int,
        free: float,
        threshold: int,
        n_running: int,
        state: State,
    ) -> None:
        """Grant tokens to the head of the queue, and to the next, until one does not fit."""
        pool = state.pool
        margin = int(self.watermark * (pool.n_blocks + 1)) if pool.n_blocks else 0
        while budget and n_running < self.max_num_seqs and (seq := next(queue, None)):
            n = min(seq.known, threshold or seq.known)
            if n > budget and not self.enable_chunked_prefill:
                if n_running or seq.known == seq.n_prompt:
                    break
                budget = n  # alone, resumed, and grown beyond the budget by its own outputs: or it never runs
            n = min(n, budget)
            whole = seq.known if self.scheduler_reserve_full_isl else n
            if pool.blocks_for(whole) + (margin if n_running else 0) > free:
                break
            tokens[seq.rid] = n
            budget, free, n_running = budget - n, free - pool.blocks_for(n), n_running + 1
