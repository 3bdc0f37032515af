"""vLLM V1's scheduling rules, proved against decisions recorded from vLLM itself (see `parity`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop
from math import inf
from typing import Any

from chunkprefill.scheduling.core import Plan, Rid, Sequence
from chunkprefill.scheduling.pool_trial import Trial
from chunkprefill.scheduling.state import State
from chunkprefill.whole import check_fields, flag, real_number, whole_number


def _urgency(seq: Sequence) -> tuple[int, int]:
    """Small is urgent; equals go by arrival."""
    return seq.priority, seq.order


@dataclass(frozen=True)
class VllmV1:
    """vLLM V1 (0.33.0), with the names of its own settings.

    Running requests first, in order of admission, each up to `long_prefill_token_threshold` (0: no cap; none
    either for a lone request) and the budget; a request that runs out of blocks takes them from the last
    admitted ("fcfs") or from the least urgent ("priority"). Then, unless a request was evicted, the queue, as
    long as its head fits. "Decodes first" is no rule here: it follows as long as an unfinished prompt is the
    last one running.

    Prefix caching is the pool's (`BlockPool(n, prefix_caching=True)`), asynchronous scheduling the loop's
    (`serve(overlap=True)`). vLLM's `num_gpu_blocks` counts its null block: that many less one is the pool.

    num_speculative_tokens: drafts that each decode brings to be verified. They take their share of the budget,
    1 + drafts a decode, fewer where less is left (vLLM PR 51725; methods such as EAGLE, MTP and n-gram, which
    need no slots of their own). A request admitted with one token to go is padded to as many, or it waits.
    Nothing else of speculation is here: no draft is in a batch, takes a block or is accepted.
    """

    max_num_batched_tokens: int = 2048  # a step: the token budget
    max_num_seqs: int = 256
    long_prefill_token_threshold: int = 0
    policy: str = "fcfs"  # or "priority"
    enable_chunked_prefill: bool = True
    max_model_len: int | None = None  # tokens of a prompt and its outputs
    scheduler_reserve_full_isl: bool = True  # admit only if blocks for all known tokens are free
    watermark: float = 0.0  # share of all blocks that an admission leaves free while others run
    num_speculative_tokens: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        of, counts = "VllmV1: ", ("long_prefill_token_threshold", "num_speculative_tokens")
        check_fields(self, whole_number, ("max_num_batched_tokens", "max_num_seqs"), of=of, least=1)
        check_fields(self, whole_number, counts, of=of, least=0)
        if self.max_model_len is not None:
            check_fields(self, whole_number, ("max_model_len",), of=of, least=2)
        check_fields(self, flag, ("enable_chunked_prefill", "scheduler_reserve_full_isl"), of=of)
        check_fields(self, real_number, ("watermark",), of=of, below=1.0)
        if self.policy not in ("fcfs", "priority"):
            raise ValueError(f"VllmV1: policy is fcfs or priority, got {self.policy!r}")

    @property
    def _speculates(self) -> bool:
        return self.num_speculative_tokens > 0

    @property
    def max_prompt(self) -> int | None:
        """A prompt that may not be cut must fit the budget."""
        return None if self.enable_chunked_prefill else self.max_num_batched_tokens

    def schedule(self, state: State) -> Plan:
        pool, admits = state.pool, bool(state.waiting) and len(state.running) < self.max_num_seqs
        counting = not (pool.prefix_caching and admits)
        plan = self._plan(state, pool.trial(counting=counting), counting)
        return self._plan(state, pool.trial()) if plan is None else plan

    def _plan(self, state: State, trial: Trial, counting: bool = False) -> Any:
        """The plan; None if a request must be evicted from a prefix cache that was only counted."""
        caching, budget = state.pool.prefix_caching, self.max_num_batched_tokens
        threshold = self.long_prefill_token_threshold if len(state.running) + len(state.waiting) > 1 else 0
        running, tokens, evicted = list(state.running), dict[Rid, int](), list[Rid]()
        drafts = self.num_speculative_tokens
        verified: dict[Rid, int] = {}  # drafts that are run beside a token
        for seq in running:
            cached = seq.cached
            n = seq.known - cached
            if n != 1:
                n = min(n, threshold or n, budget)
                if n < 1:
                    continue  # its last token is on its way
            if evicted or cached + n > seq.capacity - caching:  # a block that it completes gets a key
                while seq.rid not in evicted and trial.need(seq, cached + n) > trial.free:
                    if caching and counting:
                        return None
                    left = [each for each in running if each.rid not in evicted]
                    victim = max(left, key=_urgency) if self.policy == "priority" else left[-1]
                    evicted.append(victim.rid)
                    budget += tokens.pop(victim.rid, 0)  # if it was given some already, they go back
                    budget += verified.pop(victim.rid, 0)
                    trial.evict(victim)
                if seq.rid in evicted:
                    continue  # by another or by itself; the ones behind it are still looked at
                trial.grant(seq, n)
            tokens[seq.rid] = n
            budget -= n
            if drafts and seq.decoding and (n_drafts := self._drafts(seq, threshold, budget)):
                verified[seq.rid] = n_drafts
                budget -= n_drafts
            if budget < 1:
                break
        if not evicted:
            self._admit(state, trial, tokens, budget, threshold)
        trial.close()
        return Plan(tokens, tuple(evicted), trial.moves)

    def _drafts(self, seq: Sequence, threshold: int, budget: float) -> int:
        """Drafts that a decode has verified beside its token."""
        most = [self.num_speculative_tokens, budget]
        if threshold:
            most.append(threshold - 1)
        if self.max_model_len is not None:
            most.append(self.max_model_len - seq.cached - 2)
        return max(0, int(min(most)))

    def _queue(self, waiting: Iterable[Sequence]) -> Iterator[Sequence]:
        if self.policy == "fcfs":
            yield from waiting
            return
        heap = [(*_urgency(seq), seq) for seq in waiting]
        heapify(heap)
        while heap:
            yield heappop(heap)[-1]

    def _admit(self, state: State, trial: Trial, tokens: dict[Rid, int], budget: int, threshold: int) -> None:
        """Grant tokens to the head of the queue, and to the next, until one does not fit."""
        pool, n_running, queue = state.pool, len(state.running), self._queue(state.waiting)
        margin = int(self.watermark * (pool.n_blocks + 1)) if pool.n_blocks else 0
        prompts_run = any(rid in tokens for rid in state.prefilling.each(1)) if self._speculates else False
        while budget and n_running < self.max_num_seqs and (seq := next(queue, None)):
            hits = trial.hits(seq)
            padding = 0
            if self._speculates and seq.known - hits == 1 and not prompts_run and (tokens or hits):
                limit, padded = self.max_model_len or inf, 1 + self.num_speculative_tokens
                if hits + padded + 1 <= limit:
                    if padded > budget:
                        break  # better not at all than without its padding
                    padding = padded - 1
            n = min(seq.known - hits, threshold or seq.known)
            if n > budget and not self.enable_chunked_prefill:
                if n_running or seq.known == seq.n_prompt:
                    break
                budget = n  # alone, resumed, and grown beyond the budget by its own outputs: or it never runs
            n = min(n, budget)
            end = seq.known if self.scheduler_reserve_full_isl else hits + n
            if trial.need(seq, end) + (margin if n_running else 0) > trial.free:
                break
            trial.grant(seq, n)
            tokens[seq.rid] = n
            budget, n_running = budget - n - padding, n_running + 1
