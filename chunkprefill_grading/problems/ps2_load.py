"""PS2's machine and hidden workloads, and what a run of a policy on them is held to."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from math import inf
from typing import Any, NamedTuple

import numpy as np

from chunkprefill.metrics import waits as metrics
from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.core import Batch, Plan, Request
from chunkprefill.scheduling.state import State
from chunkprefill.simulation.simulate import simulate
from chunkprefill_grading.problems.draw import near
from chunkprefill_grading.problems.ps2_policy import Owed

POOL = BlockPool(1_000_000)  # memory is no matter here; a number, because a state travels as JSON
ROUNDING = 1.02  # a step may outlast the bound by 2%: for a token more or less, not for another rule
DOCUMENTS, WHOLE = 1.25, 1.15  # times what the course's own policy takes
GIVEN_UP = 5  # times that: a run is stopped, whatever it may still do
FORMS = ("plain", "tiles", "launches")  # of a machine's prices
BOUNDS = ("tbt", "chats", "documents", "throughput")


class Endless(Exception):
    """A run was given up: it took many times as long as it should."""


@dataclass(frozen=True)
class StepPrice:
    """Seconds of a step: a fixed part, a part a token, a part a query-key pair, a part a decode.

    tile: tokens; a chunk pays for whole tiles. launch: s more for each chunk.
    """

    base: float
    token: float
    pair: float
    decode: float
    tile: int = 1
    launch: float = 0.0

    def price(self, cached: int, n: int) -> float:
        """Seconds that a chunk of n tokens behind a prefix adds to a step."""
        tiles = -(-n // self.tile) * self.tile
        return self.launch + self.token * tiles + self.pair * n * (cached + n / 2)

    def seconds(self, chunks: Any, n_decodes: int) -> float:
        """Of chunks [(cached, length), …] beside decodes; the notebook has the same function."""
        return self.base + sum(self.price(*chunk) for chunk in chunks) + self.decode * n_decodes

    def __call__(self, batch: Batch) -> float:
        """Of a batch."""
        sums = batch.totals()
        return self.seconds(sums.chunks, sums.n_decodes)


class Reached(NamedTuple):
    """What a run came to, in s: the largest gap, the latest first tokens, the end."""

    tbt: float
    chats: float
    documents: float
    throughput: float  # s until all are served: tokens are the same, so less is more


@dataclass(frozen=True)
class BoundedWorkload:
    """A workload and what it is held to. A chat has at most `chat` prompt tokens; the rest are documents."""

    name: str
    requests: tuple[Request, ...]
    machine: StepPrice
    tbt: float  # s, the bound on every gap
    ttft: float  # s, the bound on every chat's first token
    chat: int  # tokens
    owed: float  # share of a step that documents are owed

    def reference(self) -> Owed:
        """The course's own policy for it."""
        return Owed(self.machine, self.tbt, self.chat, self.owed)

    def run(self, policy: Any, *, hopeless: Reached | None = None) -> Reached:
        """Serve it under a policy. Raises what the policy raises, ScheduleError, or Endless.

        hopeless: limits; stop at the first step after which one of them cannot be kept any more.
        """
        return self._serve(policy, GIVEN_UP * self.own.throughput, hopeless)

    def _serve(self, policy: Any, longest: float, hopeless: Reached | None = None) -> Reached:
        spent, n_steps = 0.0, 0

        def cost(batch: Batch) -> float:
            nonlocal spent, n_steps
            seconds = self.machine(batch)
            spent, n_steps = spent + seconds, n_steps + 1
            if spent > longest or n_steps > 10_000:
                raise Endless
            if hopeless and (
                spent > hopeless.throughput or (seconds > hopeless.tbt and any(_decodes(batch)))
            ):
                raise Endless
            return seconds

        watched = StopsWhenLate(policy, self, hopeless) if hopeless else policy
        trace = simulate(self.requests, watched, cost, POOL)
        events = metrics.Events(trace)
        first, gaps = metrics.ttft(events), metrics.tbt(events)
        long = np.array([request.n_prompt > self.chat for request in self.requests])
        return Reached(
            float(gaps.max()), float(first[~long].max()), float(first[long].max()), metrics.duration(events)
        )

    @cached_property
    def own(self) -> Reached:
        """What the course's own policy comes to."""
        return self._serve(self.reference(), inf)

    @cached_property
    def limits(self) -> Reached:
        """The largest values that pass. The documents' and the whole run's follow from the reference's."""
        documents, whole = DOCUMENTS * self.own.documents, WHOLE * self.own.throughput
        return Reached(self.tbt * ROUNDING, self.ttft, documents, whole)

    def kept(self, reached: Reached) -> dict[str, bool]:
        """Which of the BOUNDS hold."""
        return {name: value <= most for name, value, most in zip(BOUNDS, reached, self.limits)}


@dataclass(frozen=True)
class StopsWhenLate:
    """A policy whose run ends as soon as a request has waited too long for a first token."""

    policy: Any
    load: BoundedWorkload
    hopeless: Reached

    def schedule(self, state: State) -> Plan:
        """Its plan, or Endless."""
        if state.n_steps % 8 == 0:  # now and then: it is a short cut
            for seq in chain(state.prefilling, state.waiting):
                limit = self.hopeless.chats if seq.n_prompt <= self.load.chat else self.hopeless.documents
                if not seq.generated and state.now - seq.arrival > limit:
                    raise Endless
        return self.policy.schedule(state)


def _decodes(batch: Batch) -> list[bool]:
    """Which rows extend a cache by one token and emit: whose requests wait for this step."""
    return [n == 1 and start > 0 and emits for start, n, emits in zip(batch.start, batch.length, batch.emits)]


@dataclass(frozen=True)
class Service:
    """What a drawn problem set shows of the server: the machine and the rules."""

    machine: StepPrice
    tbt: float
    ttft: float
    chat: int
    owed: float
    document: int  # tokens of the longest


def service(rng: random.Random) -> Service:
    """A machine on which a chunk at a document's end costs several times as much as one at its start.

    Any fixed budget that keeps the bound there wastes most steps before: no shipped policy solves that.
    """
    base, token = near(rng, 0.030, 0.040, 4), near(rng, 4e-5, 6e-5, 7)
    document = rng.randrange(7000, 9001, 100)
    pair = float(f"{(7 + 1.5 * rng.random()) * token / document:.2e}")
    decode = near(rng, 3e-4, 4.5e-4, 5)
    form = rng.choice(FORMS)
    tile = rng.choice([12, 16, 20, 24, 28, 32]) if form == "tiles" else 1
    launch = near(rng, 4e-4, 9e-4, 6) if form == "launches" else 0.0
    machine = StepPrice(base, token, pair, decode, tile, launch)
    tbt = round(base * (1.38 + 0.1 * rng.random()), 3)
    return Service(machine, tbt, 1.5, rng.randrange(550, 651, 10), rng.choice([0.3, 0.35, 0.4]), document)


def chats(
    rng: random.Random, s: Service, load: float, span: float, prompt: Any, output: Any
) -> list[Request]:
    """Chats that come for `span` s and take `load` of what a step has left beyond its fixed part."""
    out: list[Request] = []
    t, spare = 0.0, (s.tbt - s.machine.base) / s.tbt  # s of work a second
    while True:
        n_prompt, n_output = rng.randrange(*prompt), rng.randrange(*output)
        work = s.machine.seconds([(0, n_prompt)], n_output) - s.machine.base
        t += work / spare / load * (0.6 + 0.8 * rng.random())
        if t > span:
            return out
        out.append(Request(f"r{len(out)}", round(t, 3), n_prompt, n_output))


def loads(rng: random.Random, s: Service) -> list[BoundedWorkload]:
    """Three workloads: a document beside chats, then beside more of them; a stream of chats that leaves it
    little; documents in a row.
    """
    stream = chats(rng, s, 0.9, 5.0, (200, 501), (2, 7))
    stream.append(Request("d0", 0.5, rng.randrange(1600, 2301), 6))
    row = chats(rng, s, 0.25, 4.0, (60, 301), (15, 31))
    row += [  # several at once: who gives each of them its chunk makes long steps
        Request(
            f"d{i}", round(0.3 + 0.04 * i, 3), rng.randrange(int(0.6 * s.document), int(0.75 * s.document)), 6
        )
        for i in range(3)
    ]
    size = rng.randrange(int(0.93 * s.document), s.document)
    wave = chats(rng, s, 0.9, 0.6, (60, 121), (25, 41))
    spare = 1 - s.machine.base / s.tbt
    later = (
        0.6 * (s.machine.seconds([(0, size)], 0) - s.machine.base) / spare
    )  # s: most of the document is read
    alone = [Request(f"e{i}", 0.0, rng.randrange(60, 121), rng.randrange(260, 301)) for i in range(5)]
    alone += [
        Request(f"w{i}", round(r.arrival + later, 3), r.n_prompt, r.n_output) for i, r in enumerate(wave)
    ]
    alone.append(Request("d0", 0.2, size, 6))
    out = []
    for name, requests in (("alone", alone), ("stream", stream), ("row", row)):
        came = sorted(requests, key=lambda request: request.arrival)
        names = rng.sample(range(1000), len(came))  # a name tells nothing
        renamed = [Request(n, r.arrival, r.n_prompt, r.n_output) for n, r in zip(names, came)]
        out.append(BoundedWorkload(name, tuple(renamed), s.machine, s.tbt, s.ttft, s.chat, s.owed))
    return out
