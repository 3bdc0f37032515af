"""The nouns of scheduling: what a request is, what a policy sees of it, what a step ran."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import index
from typing import Any, NamedTuple

Rid = int | str


class ScheduleError(ValueError):
    """A rule of the contract was broken; the message names the rule, the request and the numbers."""


class Closed(ScheduleError, AttributeError):
    """A policy reached for what it may not see or do: nothing changed, and `hasattr` is False."""


def _whole(what: str, value: Any, least: int) -> int:
    """`value` as an int of at least `least`; numpy integers pass, bools and floats do not."""
    try:
        number = index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < least:
        raise ValueError(f"{what} must be a whole number of at least {least}, got {value!r}")
    return number


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody asks of the server.

    rid: int or str, unique in a run. arrival: s from the start. n_prompt, n_output: tokens; the output length
    is for the loop alone, a policy never sees it. prompt: token ids, n_prompt of them; None: an engine draws
    them from rid. priority: a lower number is more urgent. Raises ValueError naming request and field.
    """

    rid: Rid
    arrival: float
    n_prompt: int
    n_output: int
    prompt: tuple[int, ...] | None = None
    priority: int = 0

    def __post_init__(self) -> None:
        put = object.__setattr__
        if isinstance(self.rid, bool) or not (isinstance(self.rid, str) or hasattr(self.rid, "__index__")):
            raise ValueError(f"request {self.rid!r}: rid must be a whole number or a string")
        if self.rid.__class__ is not int and not isinstance(self.rid, str):
            put(self, "rid", index(self.rid))
        name = f"request {self.rid}"
        for what in ("n_prompt", "n_output"):
            put(self, what, _whole(f"{name}: {what}", getattr(self, what), 1))
        try:
            arrival = float(self.arrival)
        except (TypeError, ValueError):
            arrival = math.nan
        if not (math.isfinite(arrival) and arrival >= 0):
            raise ValueError(f"{name}: arrival must be finite and at least 0 s, got {self.arrival!r}")
        put(self, "arrival", arrival)
        if isinstance(self.priority, bool) or not hasattr(self.priority, "__index__"):
            raise ValueError(f"{name}: priority must be a whole number, got {self.priority!r}")
        put(self, "priority", index(self.priority))
        if self.prompt is not None:
            prompt = tuple(_whole(f"{name}: a token id", token, 0) for token in self.prompt)
            if len(prompt) != self.n_prompt:
                raise ValueError(f"{name}: prompt has {len(prompt)} tokens, n_prompt is {self.n_prompt}")
            put(self, "prompt", prompt)


class ReadOnly:
    """What a policy may look at and not change: what it tries at the wrong door is refused by name."""

    __slots__ = ()

    def _name(self) -> str:
        return type(self).__name__.lower()

    def _shut(self, what: str) -> Any:
        raise Closed(f"{self._name()}: a policy only looks, {what}")

    def __setattr__(self, name: str, value: Any) -> None:
        self._shut(f"it may not set {name} to {value!r}")

    def __delattr__(self, name: str) -> None:
        self._shut(f"it may not delete {name}")

    def __setitem__(self, key: Any, value: Any) -> None:
        self._shut(f"it may not set [{key!r}] to {value!r}")

    def __delitem__(self, key: Any) -> None:
        self._shut(f"it may not delete [{key!r}]")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._shut(f"{name!r} is not there for it to use (no future, no memory, no queue is its own)")

    def __setstate__(self, state: Any) -> None:  # copying is looking
        for name, value in state[1].items():
            object.__setattr__(self, name, value)


class Sequence(ReadOnly):
    """What a policy sees of a request that has arrived: how much is known, how much of it is cached.

    Every step lets `cached` catch up with `known`; there are no phases. Assignment raises. `order` is the
    place in the order of arrival, `room` the tokens that the blocks it holds can take.
    """

    __slots__ = ("arrival", "cached", "known", "n_prompt", "order", "priority", "rid", "room")
    rid: Rid
    n_prompt: int
    arrival: float  # s
    priority: int
    order: int
    known: int
    cached: int
    room: int

    def __init__(
        self,
        rid: Rid,
        n_prompt: int,
        arrival: float,
        priority: int = 0,
        cached: int = 0,
        generated: int = 0,
        order: int = 0,
    ) -> None:
        put = object.__setattr__
        put(self, "rid", rid), put(self, "n_prompt", n_prompt), put(self, "arrival", arrival)
        put(self, "priority", priority), put(self, "order", order), put(self, "room", 0)
        put(self, "cached", cached), put(self, "known", n_prompt + generated)

    @property
    def generated(self) -> int:
        """Tokens emitted so far."""
        return self.known - self.n_prompt

    @property
    def pending(self) -> int:
        """Known tokens that are not in the cache yet."""
        return self.known - self.cached

    @property
    def decoding(self) -> bool:
        """It has emitted, and all but the newest token is cached."""
        return self.known > self.n_prompt and self.known - self.cached == 1

    def _name(self) -> str:
        return f"request {self.rid}"

    def __repr__(self) -> str:
        return f"Sequence(rid={self.rid!r}, {self.cached} of {self.known} cached, {self.generated} generated)"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a policy proposes: how many tokens each request gets, in order, and whom to evict first."""

    tokens: Mapping[Rid, int] = field(default_factory=dict)
    preempted: tuple[Rid, ...] = ()

    def __post_init__(self) -> None:
        if self.tokens.__class__ is not dict and not isinstance(self.tokens, Mapping):
            raise ScheduleError(f"plan: tokens must map each request to its tokens, got {self.tokens!r}")
        if self.preempted.__class__ is not tuple:
            if isinstance(self.preempted, str) or not isinstance(self.preempted, Iterable):
                raise ScheduleError(f"plan: preempted must list requests, got {self.preempted!r}")
            object.__setattr__(self, "preempted", tuple(self.preempted))


class Chunk(NamedTuple):
    """Positions [start, end) of one sequence, run in one step; emits if all that is known is then cached."""

    rid: Rid
    start: int
    length: int
    emits: bool

    @property
    def end(self) -> int:
        return self.start + self.length


class Totals(NamedTuple):
    """Sums over a batch, so that a cost need not walk it.

    A decode is a row of one token that extends a cache and emits; every other row is a chunk.
    """

    n_tokens: int
    n_decodes: int
    decode_context: int  # cached tokens that the decodes read, their own not counted
    chunks: tuple[tuple[int, int], ...]  # (start, length)
    n_emits: int

    @property
    def context(self) -> int:
        """Cached tokens that the batch reads."""
        return self.decode_context + sum(start for start, _ in self.chunks)

    @property
    def pairs(self) -> int:
        """Query-key pairs: a chunk of c over a prefix of p has cp + c(c + 1)/2."""
        return self.decode_context + self.n_decodes + sum(c * p + c * (c + 1) // 2 for p, c in self.chunks)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step runs, as columns (a row is a chunk), and who was evicted to make room for it."""

    rid: tuple[Rid, ...]
    start: tuple[int, ...]
    length: tuple[int, ...]
    emits: tuple[bool, ...]
    preempted: tuple[Rid, ...] = ()

    def __len__(self) -> int:
        return len(self.rid)

    def __iter__(self) -> Iterator[Chunk]:
        return map(Chunk, self.rid, self.start, self.length, self.emits)

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        """The rows as Chunks."""
        return tuple(self)

    def totals(self) -> Totals:
        """Sums for a cost model, in one pass."""
        n_tokens, n_emits = sum(self.length), sum(self.emits)
        wide: tuple[tuple[int, int], ...] = ()
        if n_tokens > len(self.rid) or n_emits < len(self.rid) or 0 in self.start:
            rows = zip(self.start, self.length, self.emits)
            wide = tuple([(p, c) for p, c, emits in rows if c != 1 or not p or not emits])
        prefixes = sum(self.start) - sum([p for p, _ in wide])
        return Totals(n_tokens, len(self.rid) - len(wide), prefixes, wide, n_emits)


@dataclass(frozen=True, slots=True)
class Step:
    """One iteration: four times (s since the run began), its batch, the blocks held while it ran."""

    scheduled: float  # the policy begins
    dispatched: float  # the batch is handed over
    start: float  # of execution
    end: float
    batch: Batch
    blocks_used: int
