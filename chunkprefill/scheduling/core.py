"""The nouns of scheduling: what a request is, what a policy sees of it, what a step ran."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from chunkprefill.whole import as_whole, check_fields, real_number, whole_number

Rid = int | str


class ScheduleError(ValueError):
    """A rule of the contract was broken; the message names the rule, the request and the numbers."""


class Closed(ScheduleError, AttributeError):
    """A policy tried to use what only the loop may use: nothing changed, and `hasattr` is False."""


def _pairs(name: str, segments: Any) -> list[tuple[Any, Any]]:
    """The segments of request `name`. ValueError unless they are (name, tokens) pairs."""
    rows = None if isinstance(segments, str) or not isinstance(segments, Iterable) else list(segments)
    if rows is None or any(not isinstance(row, tuple | list) or len(row) != 2 for row in rows):
        raise ValueError(f"{name}: segments must list (name, tokens) pairs, got {segments!r}")
    return [(part, n) for part, n in rows]


def _hashes(name: str, blocks: Any) -> tuple[Rid, ...]:
    """The block hashes of request `name`. ValueError unless it is a list of values that can be hashed."""
    if isinstance(blocks, str) or not isinstance(blocks, Iterable):
        raise ValueError(f"{name}: blocks must list a hash of each whole block, got {blocks!r}")
    hashes = tuple(blocks)
    for each in hashes:
        try:
            hash(each)
        except TypeError:
            raise ValueError(f"{name}: blocks holds {each!r}, which is no hash") from None
    return hashes


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks of the server.

    rid: int or str, unique in a run. arrival: s from the start. n_prompt, n_output: tokens; the output length
    is for the loop alone, a policy never sees it. prompt: token ids, n_prompt of them; None: an engine draws
    them. priority: a lower number is more urgent. Raises ValueError naming request and field.

    Prefix caching learns from `prompt` what a request shares with others or, without token ids, from one of
    these. segments: (name, tokens) pairs, n_prompt tokens in all; equal names stand for equal tokens, and a
    shorter segment for the first tokens of a longer one. blocks: a hash of each whole block of the prompt,
    which covers all that lies before the block too. A request with none of the three shares nothing.
    """

    rid: Rid
    arrival: float
    n_prompt: int
    n_output: int
    prompt: tuple[int, ...] | None = None
    priority: int = 0
    segments: tuple[tuple[str, int], ...] | None = None
    blocks: tuple[Rid, ...] | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        if not isinstance(self.rid, str):
            if (number := as_whole(self.rid)) is None:
                raise ValueError(f"request {self.rid!r}: rid must be a whole number or a string")
            put(self, "rid", number)
        name = f"request {self.rid}"
        check_fields(self, whole_number, ("n_prompt", "n_output"), of=f"{name}: ", least=1)
        put(self, "arrival", float(real_number(f"{name}: arrival, in s,", self.arrival)))
        if (priority := as_whole(self.priority)) is None:
            raise ValueError(f"{name}: priority must be a whole number, got {self.priority!r}")
        put(self, "priority", priority)
        if self.prompt is not None:
            prompt = tuple(whole_number(f"{name}: a token id", token, 0) for token in self.prompt)
            if len(prompt) != self.n_prompt:
                raise ValueError(f"{name}: prompt has {len(prompt)} tokens, n_prompt is {self.n_prompt}")
            put(self, "prompt", prompt)
        if self.segments is not None:
            pairs = _pairs(name, self.segments)
            segments = tuple(
                [(str(part), whole_number(f"{name}: segment {part}", n, 1)) for part, n in pairs]
            )
            if (total := sum([n for _, n in segments])) != self.n_prompt:
                raise ValueError(f"{name}: segments of {total} tokens, n_prompt is {self.n_prompt}")
            put(self, "segments", segments)
        if self.blocks is not None:
            put(self, "blocks", _hashes(name, self.blocks))
        if sum([each is not None for each in (self.prompt, self.segments, self.blocks)]) > 1:
            raise ValueError(
                f"{name}: its prompt is given twice; one of prompt, segments and blocks is the rule"
            )


class ReadOnly:
    """What a policy may look at and not change; an attempt to change it is refused by name."""

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
        return self._shut(
            f"it has no {name!r} to use (neither the future, nor memory, nor the queue is its own)"
        )

    def __setstate__(self, state: Any) -> None:  # a copy sets its own fields, once
        for name, value in state[1].items():
            object.__setattr__(self, name, value)


class Sequence(ReadOnly):
    """What a policy sees of a request that has arrived: how much is known, how much of it is cached.

    Every step lets `cached` catch up with `known`; there are no phases. Assignment raises. `order` is the
    place in the order of arrival, `capacity` the tokens that the blocks it holds can take. vLLM calls `known`
    `num_tokens` and `cached` `num_computed_tokens`.
    """

    __slots__ = ("arrival", "cached", "capacity", "known", "n_prompt", "order", "priority", "rid")
    rid: Rid
    n_prompt: int
    arrival: float  # s
    priority: int
    order: int
    known: int
    cached: int
    capacity: int

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
        put(self, "rid", rid)
        put(self, "n_prompt", n_prompt)
        put(self, "arrival", arrival)
        put(self, "priority", priority)
        put(self, "order", order)
        put(self, "cached", cached)
        put(self, "known", n_prompt + generated)
        put(self, "capacity", 0)

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


# Assignment is closed to policies; the loop, and what rebuilds a state, write through the slots themselves.
set_cached, set_known, set_capacity = (
    vars(Sequence)[name].__set__ for name in ("cached", "known", "capacity")
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a policy proposes: how many tokens each request gets, in order, and which ones to evict first.

    moves: the order in which blocks are taken and given back, which under prefix caching decides which cached
    blocks are lost: (request, tokens) for a grant, (request, 0) for an eviction. A request may be granted
    tokens and then evicted. Grants that `moves` does not name come last, in the order of `tokens`; without
    any moves the evictions come first.
    """

    tokens: Mapping[Rid, int] = field(default_factory=dict)
    preempted: tuple[Rid, ...] = ()
    moves: tuple[tuple[Rid, int], ...] = field(default=(), compare=False)

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
    longest_decode: int = 0  # cached tokens of the decode that has most

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
        prefixes, longest = sum(self.start), max(self.start, default=0)
        if n_tokens > len(self.rid) or n_emits < len(self.rid) or 0 in self.start:
            rows = zip(self.start, self.length, self.emits)
            wide = tuple([(p, c) for p, c, emits in rows if c != 1 or not p or not emits])
            prefixes -= sum([p for p, _ in wide])
            if any(p == longest for p, _ in wide):  # else it is a decode's: the rest need not be looked at
                rows = zip(self.start, self.length, self.emits)
                longest = max([p for p, c, emits in rows if c == 1 and p and emits], default=0)
        return Totals(n_tokens, len(self.rid) - len(wide), prefixes, wide, n_emits, longest)


@dataclass(frozen=True, slots=True)
class Step:
    """One iteration: four times (s since the run began), its batch, the blocks held while it ran."""

    scheduled: float  # the policy begins
    dispatched: float  # the batch is handed over
    start: float  # of execution
    end: float
    batch: Batch
    blocks_used: int
