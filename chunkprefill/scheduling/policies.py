"""Which requests run next: policies of the textbook and of papers, each a frozen dataclass that only looks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from itertools import chain, islice
from math import inf

from chunkprefill.scheduling.core import Plan, Rid, Sequence
from chunkprefill.scheduling.state import State
from chunkprefill.whole import check_fields, flag, real_number, whole_number

ORDERS = ("arrival", "shortest", "priority", "hrrn")  # in which ChunkedPrefill serves prompts


class PlanBuilder:
    """A plan in the making: what is granted and what is evicted, and the budget and the blocks that are left.

    `decodes` and `prompts` are the running sequences, told apart: one token to go after an output, or more
    work. A prompt is admitted only if all of its known tokens fit beside what the running prompts still need
    (`spare`), because two half-built caches that wait for each other's blocks would wait for ever.
    """

    def __init__(self, state: State, budget: float = inf) -> None:
        self.state, self.pool, self.budget = state, state.pool, budget
        self.trial = state.pool.trial()
        self.tokens: dict[Rid, int] = {}
        self.evicted: list[Rid] = []
        self.decodes = state.decoding.each(1)
        self.prompts = list(state.prefilling)
        self.spare = self.trial.free  # blocks
        for seq in self.prompts:
            self.spare -= self.trial.need(seq, seq.known)

    @property
    def n_running(self) -> int:
        """Sequences that still hold a cache."""
        return len(self.state.running) - len(self.evicted)

    def pending(self, seq: Sequence) -> int:
        """Tokens of `seq` to compute: known ones that are not cached, in its own cache or in the prefix cache."""
        return seq.known - (seq.cached or self.trial.hits(seq))

    def decode(self) -> None:
        """One token for each decode, while the budget lasts; the last admitted give up their cache for it."""
        served = dict(self.decodes)
        if len(served) > self.budget:
            served = dict(islice(served.items(), int(self.budget)))
        if self.pool.prefix_caching or self.trial.free < inf:
            for seq in self.state.decoding:
                outgrown = seq.known > seq.capacity - self.pool.prefix_caching
                if outgrown and seq.rid in served and seq.rid not in self.evicted:
                    self._make_space(seq)
            for rid in self.evicted:
                served.pop(rid, None)
        self.tokens = self.tokens | served if self.tokens else served
        self.budget -= len(served)

    def chunk(self, seq: Sequence, most: float = inf) -> bool:
        """As much of what is pending as `most`, budget and free blocks allow; False if that is nothing."""
        n = min(self.pending(seq), most, self.budget, self.trial.reach(seq))
        if n > 0:
            self.trial.grant(seq, int(n))
            self.tokens[seq.rid] = int(n)
            self.budget -= n
        return n > 0

    def admit(self, seq: Sequence, most: float = inf) -> bool:
        """A chunk for a waiting request, if its whole cache will fit; False, and nothing granted, if not."""
        need = self.trial.need(seq, seq.known)
        if need > self.spare or not self.chunk(seq, most):
            return False
        self.spare -= need
        return True

    def fill(self, max_seqs: int, order: Callable[[Iterable[Sequence]], Iterable[Sequence]] = iter) -> None:
        """Give the prompts what is left of the budget, in `order`, and seats to those that wait.

        No sequence passes one that does not fit, and none is admitted in a step that evicts.
        """
        slots = 0 if self.evicted else max_seqs - self.n_running
        waiting = self.state.waiting if slots > 0 and self.budget > 0 else ()
        for seq in order(chain(self.prompts, waiting)):
            if self.budget < 1:
                break
            if seq.cached:
                self.chunk(seq)
            elif slots > 0:
                slots = slots - 1 if self.admit(seq) else 0

    def _make_space(self, seq: Sequence) -> None:
        """A block for a decode that needs one, if need be from the last ones admitted, or it gives up itself."""
        need = self.trial.need(seq, seq.known)
        while self.trial.free < need:
            if self._evict_last() is seq:
                return
        self.trial.grant(seq, 1)
        self.spare -= need

    def _evict_last(self) -> Sequence:
        victim = next(
            seq for seq in reversed(self.state.running) if seq.pending and seq.rid not in self.evicted
        )
        if not self.decodes.pop(victim.rid, None):
            self.prompts.remove(victim)
        self.budget += self.tokens.pop(victim.rid, 0)
        self.trial.evict(victim)
        self.evicted.append(victim.rid)
        return victim

    def build(self) -> Plan:
        """The plan. If no request could be granted a token, the last admitted make room for the first.

        Not while a request waits for its last token (steps overlap): then the plan is empty, because the
        blocks of that request will be free in a moment.
        """
        ending = len(self.state.running) > len(self.state.decoding) + len(self.state.prefilling)
        while not self.tokens and not ending and self.n_running and not self.chunk(self.state.running[0]):
            self._evict_last()
        self.trial.close()
        if ending and not self.tokens:
            return Plan()
        return Plan(self.tokens, tuple(self.evicted), self.trial.moves)


class _Checked:
    """Arguments of a policy that are counts must be whole numbers of at least 1.

    Its name in labels and records shows a field with `repr=False` only where it is not at its default.
    """

    def __repr__(self) -> str:
        shown = (
            f"{each.name}={getattr(self, each.name)!r}"
            for each in fields(self)  # type: ignore[arg-type]
            if each.repr or getattr(self, each.name) != each.default
        )
        return f"{type(self).__name__}({', '.join(shown)})"

    def __post_init__(self) -> None:
        for each in fields(self):  # type: ignore[arg-type]
            value = getattr(self, each.name)
            if each.type == "int" or (each.type == "int | None" and value is not None):
                number = whole_number(f"{type(self).__name__}: {each.name}", value, 1)
                object.__setattr__(self, each.name, number)
            elif each.type == "bool":
                object.__setattr__(self, each.name, flag(f"{type(self).__name__}: {each.name}", value))


@dataclass(frozen=True)
class RequestLevel(_Checked):
    """Request-level scheduling: a batch of requests runs to its end before the next is admitted.

    One request's wait is bounded by the batches before it. (Static batching, as before Orca, OSDI'22.)
    """

    batch_size: int  # requests

    def schedule(self, state: State) -> Plan:
        plan = PlanBuilder(state)
        plan.decode()
        if not state.running:
            for seq, _ in zip(state.waiting, range(self.batch_size)):
                if not plan.admit(seq):
                    break
        return plan.build()


@dataclass(frozen=True)
class PrefillFirst(_Checked):
    """Prefilling-prioritized: whole prompts as soon as they fit, decoding waits (early vLLM).

    A prompt longer than `max_tokens` runs alone. Decodes by themselves all run, however many they are.
    mixed: decodes ride along in what the prompts leave of `max_tokens` (Orca). chunk: prompts are cut, and
    still go first (SGLang's default): a decode waits as long as prompts come.
    """

    max_tokens: int  # of prompts in a step; mixed: of all
    chunk: int | None = None  # tokens of one prompt in one step
    mixed: bool = False

    def schedule(self, state: State) -> Plan:
        plan = PlanBuilder(state, self.max_tokens)
        if self.chunk:
            for seq in plan.prompts:
                plan.chunk(seq, self.chunk)
        for seq in state.waiting:
            if not self.chunk and (pending := plan.pending(seq)) > plan.budget:
                if not plan.tokens and pending > self.max_tokens:  # or it would never run
                    plan.budget = pending
                    if plan.admit(seq):
                        return plan.build()
                    plan.budget = self.max_tokens
                break
            if not plan.admit(seq, self.chunk or inf):
                break
        if not self.mixed and not plan.tokens:
            plan.budget = inf  # the bound is one on prompts
        if self.mixed or not plan.tokens:
            plan.decode()
        return plan.build()


@dataclass(frozen=True, repr=False)
class Alternate(_Checked):
    """Prefilling steps, then decoding steps, in turn: serial, not fused (tiny-llm alternates 1 and 1).

    A prefilling step is a chunk of the oldest prompt. Turns are counted in steps, `prefills` of one kind and
    then `decodes` of the other; a step of a kind that has no work goes to the other kind.
    """

    chunk: int  # tokens
    prefills: int = field(default=1, repr=False)  # steps
    decodes: int = field(default=1, repr=False)  # steps

    def schedule(self, state: State) -> Plan:
        plan = PlanBuilder(state)
        if state.n_steps % (self.prefills + self.decodes) < self.prefills or not plan.decodes:
            for seq in plan.prompts[:1]:
                plan.chunk(seq, self.chunk)
            for seq in state.waiting if not plan.prompts else ():
                plan.admit(seq, self.chunk)
                break
        if not plan.tokens:
            plan.decode()
        return plan.build()


@dataclass(frozen=True)
class SerialChunks(_Checked):
    """Iteration-level scheduling as the textbook draws it: one task a sequence, a chunk or a decoding step.

    A step is as long as all of its chunks together: with k prompts a decode waits for k chunks.
    """

    chunk: int  # tokens

    def schedule(self, state: State) -> Plan:
        plan = PlanBuilder(state)
        plan.decode()
        for seq in plan.prompts:
            plan.chunk(seq, self.chunk)
        for seq in () if plan.evicted else state.waiting:
            if not plan.admit(seq, self.chunk):
                break
        return plan.build()


@dataclass(frozen=True, repr=False)
class ChunkedPrefill(_Checked):
    """Stall-free batching: every decode first, chunks in what is left of the budget (Sarathi-Serve, OSDI'24).

    prefill_cap: a limit on the prompts' tokens alone, beside the budget or (token_budget=None) in its place.
    order: which prompt gets the rest.
    - "arrival": a wait is bounded by the requests that came before.
    - "shortest", fewest tokens to go, or "priority", then arrival: under an endless stream of others one
      request's wait has no bound. `aging` (shortest only) counts each second waited as so many tokens less:
      a request can then be passed only by those that come within its tokens / aging seconds of it.
    - "hrrn", highest response ratio next: seconds waited per token to go. A request of n tokens can be passed
      by one of q < n only if that came within the first 1 − q/n of its wait, so the wait is bounded while
      such requests bring less than 1 / (1 − q/n) of what the server can take.
    Sources: for hrrn and aging, SGLang's pull requests 32911 and 30806.
    """

    token_budget: int | None  # tokens a step; None: only prefill_cap limits it
    max_seqs: int = 256  # that hold a cache
    order: str = "arrival"
    prefill_cap: int | None = field(default=None, repr=False)  # tokens of prompts a step
    aging: float = field(default=0.0, repr=False)  # tokens/s

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in ORDERS:
            raise ValueError(f"ChunkedPrefill: order is {', '.join(ORDERS)}; got {self.order!r}")
        if self.token_budget is None and self.prefill_cap is None:
            raise ValueError("ChunkedPrefill: token_budget and prefill_cap are None; one of them is needed")
        check_fields(self, real_number, ("aging",), of="ChunkedPrefill: ")
        if self.aging and self.order != "shortest":
            raise ValueError(f"ChunkedPrefill: aging is for order 'shortest', got {self.order!r}")

    def schedule(self, state: State) -> Plan:
        plan = PlanBuilder(state, inf if self.token_budget is None else self.token_budget)
        plan.decode()
        if self.prefill_cap is not None:
            plan.budget = min(plan.budget, self.prefill_cap)
        plan.fill(self.max_seqs, lambda line: self._sorted(line, plan))
        return plan.build()

    def _sorted(self, line: Iterable[Sequence], plan: PlanBuilder) -> Iterable[Sequence]:
        """Prompts under way and waiting, in the order in which they are served."""
        now, pending = plan.state.now, plan.pending
        if self.order == "shortest":
            aging = self.aging
            return sorted(line, key=lambda seq: pending(seq) - aging * max(now - seq.arrival, 0.0))
        if self.order == "hrrn":
            return sorted(line, key=lambda seq: (-max(now - seq.arrival, 0.0) / pending(seq), seq.order))
        if self.order == "priority":
            return sorted(line, key=lambda seq: (seq.priority, seq.order))
        return line


@dataclass(frozen=True)
class PrefillAware(_Checked):
    """Stall-free batching whose budget follows the pressure (P-PAS, arXiv 2608.15171; vLLM RFC 52906).

    With at least two prompts active, waiting ones included, and at least one decode, a step has `small`
    tokens; otherwise it has `large`: no decode is held up, or a single prompt holds them up, which is soon
    over. First come, first served. The paper takes 2,048 and 16,384.
    """

    small: int  # tokens a step under pressure
    large: int  # tokens a step otherwise
    max_seqs: int = 256  # that hold a cache

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.small > self.large:
            raise ValueError(f"PrefillAware: small is {self.small}, more than large, which is {self.large}")

    def schedule(self, state: State) -> Plan:
        plan = PlanBuilder(state, self.budget(state))
        plan.decode()
        plan.fill(self.max_seqs)
        return plan.build()

    def budget(self, state: State) -> int:
        """Tokens of the next step. A prompt is active until all of its own tokens are cached."""
        decoding = any(seq.cached >= seq.n_prompt for seq in state.running)
        active = (seq for seq in chain(state.prefilling, state.waiting) if seq.cached < seq.n_prompt)
        return self.small if decoding and len(list(islice(active, 2))) == 2 else self.large
