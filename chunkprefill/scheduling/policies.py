"""Who runs next: the policies of the textbook and of the papers, each a frozen dataclass that only looks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from itertools import chain, islice
from math import inf

from chunkprefill.scheduling.core import Plan, Rid, Sequence
from chunkprefill.scheduling.state import State


class Draft:
    """A plan in the making: what is granted and who is evicted, and the budget and the blocks that are left.

    `decodes` and `prompts` are the running sequences, told apart: one token to go after an output, or more
    work. A prompt is admitted only if all of its known tokens fit beside what the running prompts still need
    (`spare`), for two half-built caches that wait for each other's blocks would wait for ever.
    """

    def __init__(self, state: State, budget: float = inf) -> None:
        self.state, self.pool, self.budget = state, state.pool, budget
        self.free = self.spare = state.pool.n_free  # blocks
        self.tokens: dict[Rid, int] = {}
        self.evicted: list[Rid] = []
        self.decodes = state.decoding.each(1)
        self.prompts = list(state.prefilling)
        for seq in self.prompts:
            self.spare -= self.blocks(seq, seq.known - seq.cached)

    @property
    def n_running(self) -> int:
        """Sequences that still hold a cache."""
        return len(self.state.running) - len(self.evicted)

    def blocks(self, seq: Sequence, n: int) -> int:
        """Blocks that `n` tokens more of `seq` take."""
        return max(0, self.pool.blocks_for(seq.cached + n) - seq.room // self.pool.block_size)

    def decode(self) -> None:
        """One token for each decode, while the budget lasts; the last admitted give up their cache for it."""
        served = dict(self.decodes)
        if len(served) > self.budget:
            served = dict(islice(served.items(), int(self.budget)))
        if self.free < inf:
            for seq in [seq for seq in self.state.decoding if seq.cached == seq.room]:
                if seq.rid in served and seq.rid not in self.evicted:
                    self._make_room(seq)
            for rid in self.evicted:
                served.pop(rid, None)
        self.tokens = self.tokens | served if self.tokens else served
        self.budget -= len(served)

    def chunk(self, seq: Sequence, most: float = inf) -> bool:
        """As much of what is pending as `most`, budget and free blocks allow; False if that is nothing."""
        in_reach = seq.room + self.free * self.pool.block_size - seq.cached
        n = min(seq.pending, most, self.budget, in_reach)
        if n > 0:
            self.tokens[seq.rid] = int(n)
            self.free -= self.blocks(seq, int(n))
            self.budget -= n
        return n > 0

    def admit(self, seq: Sequence, most: float = inf) -> bool:
        """A chunk for one who waits, if its whole cache will fit; False, and nothing granted, if not."""
        need = self.pool.blocks_for(seq.known)
        if need > self.spare or not self.chunk(seq, most):
            return False
        self.spare -= need
        return True

    def _make_room(self, seq: Sequence) -> None:
        """A block for `seq`, if need be from the last ones admitted, or it gives up itself."""
        while self.free < 1:
            if self._evict_last() is seq:
                return
        self.free -= 1
        self.spare -= 1

    def _evict_last(self) -> Sequence:
        left = (seq for seq in reversed(self.state.running) if seq.rid not in self.evicted)
        victim = next(left)
        if not self.decodes.pop(victim.rid, None):
            self.prompts.remove(victim)
        granted = self.tokens.pop(victim.rid, 0)
        self.budget += granted
        self.free += self.blocks(victim, granted) + victim.room // self.pool.block_size
        self.evicted.append(victim.rid)
        return victim

    def plan(self) -> Plan:
        """The plan. If no one could be granted a token, the last admitted make room for the first."""
        while not self.tokens and self.n_running and not self.chunk(self.state.running[0]):
            self._evict_last()
        return Plan(self.tokens, tuple(self.evicted))


class _Checked:
    """Arguments of a policy that are counts must be whole numbers of at least 1."""

    def __post_init__(self) -> None:
        for each in fields(self):  # type: ignore[arg-type]
            value = getattr(self, each.name)
            counts = each.type == "int" or (each.type == "int | None" and value is not None)
            if counts and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                name = f"{type(self).__name__}: {each.name}"
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")


@dataclass(frozen=True)
class RequestLevel(_Checked):
    """Request-level scheduling: a batch of requests runs to its end before the next is admitted.

    One request's wait is bounded by the batches before it. (Static batching, as before Orca, OSDI'22.)
    """

    batch_size: int  # requests

    def schedule(self, state: State) -> Plan:
        draft = Draft(state)
        draft.decode()
        if not state.running:
            for seq, _ in zip(state.waiting, range(self.batch_size)):
                if not draft.admit(seq):
                    break
        return draft.plan()


@dataclass(frozen=True)
class PrefillFirst(_Checked):
    """Prefilling-prioritized: whole prompts as soon as they fit, decoding waits (early vLLM).

    A prompt longer than `max_tokens` runs alone. mixed: decodes ride along in what the prompts leave of
    `max_tokens` (Orca). chunk: prompts are cut, and still go first (SGLang's default): a decode waits as long
    as prompts come.
    """

    max_tokens: int  # a step
    chunk: int | None = None  # tokens of one prompt in one step
    mixed: bool = False

    def schedule(self, state: State) -> Plan:
        draft = Draft(state, self.max_tokens)
        if self.chunk:
            for seq in draft.prompts:
                draft.chunk(seq, self.chunk)
        for seq in state.waiting:
            if not self.chunk and seq.known > draft.budget:
                if not draft.tokens and seq.known > self.max_tokens:  # or it would never run
                    draft.budget = seq.known
                    if draft.admit(seq):
                        return draft.plan()
                    draft.budget = self.max_tokens
                break
            if not draft.admit(seq, self.chunk or inf):
                break
        if self.mixed or not draft.tokens:
            draft.decode()
        return draft.plan()


@dataclass(frozen=True)
class Alternate(_Checked):
    """A chunk of the oldest prompt, then a decoding step, in turn: serial, not fused (tiny-llm)."""

    chunk: int  # tokens

    def schedule(self, state: State) -> Plan:
        draft = Draft(state)
        if state.n_steps % 2 == 0 or not draft.decodes:
            for seq in draft.prompts[:1]:
                draft.chunk(seq, self.chunk)
            for seq in state.waiting if not draft.prompts else ():
                draft.admit(seq, self.chunk)
                break
        if not draft.tokens:
            draft.decode()
        return draft.plan()


@dataclass(frozen=True)
class SerialChunks(_Checked):
    """Iteration-level scheduling as the textbook draws it: one task a sequence, a chunk or a decoding step.

    A step is as long as all of its chunks together: with k prompts a decode waits for k chunks.
    """

    chunk: int  # tokens

    def schedule(self, state: State) -> Plan:
        draft = Draft(state)
        draft.decode()
        for seq in draft.prompts:
            draft.chunk(seq, self.chunk)
        for seq in () if draft.evicted else state.waiting:
            if not draft.admit(seq, self.chunk):
                break
        return draft.plan()


@dataclass(frozen=True)
class ChunkedPrefill(_Checked):
    """Stall-free batching: every decode first, chunks in what is left of the budget (Sarathi-Serve, OSDI'24).

    order: who gets the rest. "arrival" (a wait is bounded by who came before), "shortest" (fewest tokens to
    go) or "priority" (then arrival); in the last two, one request's wait has no bound under an endless stream
    of others.
    """

    token_budget: int  # tokens a step
    max_seqs: int = 256  # that hold a cache
    order: str = "arrival"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in ("arrival", "shortest", "priority"):
            raise ValueError(f"ChunkedPrefill: order is arrival, shortest or priority, got {self.order!r}")

    def schedule(self, state: State) -> Plan:
        draft = Draft(state, self.token_budget)
        draft.decode()
        slots = 0 if draft.evicted else self.max_seqs - draft.n_running
        for seq in self._line(draft.prompts, state.waiting if slots > 0 and draft.budget else ()):
            if draft.budget < 1:
                break
            if seq.cached:
                draft.chunk(seq)
            elif slots > 0:  # nobody passes one who does not fit
                slots = slots - 1 if draft.admit(seq) else 0
        return draft.plan()

    def _line(self, prompts: list[Sequence], waiting: Iterable[Sequence]) -> Iterable[Sequence]:
        if self.order == "shortest":
            return sorted(chain(prompts, waiting), key=lambda seq: seq.known - seq.cached)
        if self.order == "priority":
            return sorted(chain(prompts, waiting), key=lambda seq: (seq.priority, seq.order))
        return chain(prompts, waiting)
