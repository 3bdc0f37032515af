"""What clients would see of a simulated server: a trace as a probe."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from chunkprefill.metrics.timelines import request_timelines
from chunkprefill.scheduling.core import Batch, Request
from chunkprefill.servers.record import COMPARISON, ProbeRecord
from chunkprefill.servers.stream import Stream
from chunkprefill.simulation.simulate import simulate


@dataclass(frozen=True)
class World:
    """A server and its network. Noise is a share of each step; delay is added to each token's arrival, s."""

    policy: Any
    cost: Callable[[Batch], float]
    noise: float = 0.0
    delay: float = 0.0
    seed: int = 0


def probe_of(
    world: World, *, document: int = 4096, chats: int = 3, late: int = 2, rounds: int = 2
) -> ProbeRecord:
    """The rounds of a probe, simulated; the same arrivals as `probe` chooses."""
    rng = random.Random(world.seed)

    def cost(batch: Batch) -> float:
        return world.cost(batch) * (1 + rng.uniform(-world.noise, world.noise))

    alone = _run(world, cost, [Request("document", 0.0, document, 4)])["document"].tokens[0]
    usual = world.cost(Batch(tuple(range(chats)), (60,) * chats, (1,) * chats, (True,) * chats))
    answer = 60 + int(4 * alone / usual)
    streams: list[Stream] = []
    for name in (COMPARISON, *(f"with, round {i + 1}" for i in range(rounds))):
        with_it = name != COMPARISON
        begin = 40 * usual + rng.uniform(0, usual)
        requests = [Request(f"chat {i}", 0.0, 32, answer) for i in range(chats)]
        requests.append(Request("document", begin, document if with_it else 32, 4 if with_it else 32))
        requests += [
            Request(f"late {i}", begin + (0.15 + 0.2 * i) * alone, 32, 4 if with_it else 32)
            for i in range(late)
        ]
        for rid, life in _run(world, cost, requests).items():
            kind = rid.split(" ")[0]
            kind = "stand-in" if kind == "document" and not with_it else kind
            tokens, at = [], 0.0
            for t in life.tokens:
                at = max(at, t + rng.uniform(0, world.delay))
                tokens.append(at)
            n = next(r.n_prompt for r in requests if r.rid == rid)
            ended = tokens[-1] + 1e-6
            stream = Stream(
                rid, kind, name, n, answer, life.arrival, tokens, [1] * len(tokens), len(tokens), ended
            )
            streams.append(stream)
    return ProbeRecord("simulated", "none", streams=tuple(streams), alone=((document, alone),))


def _run(world: World, cost: Callable[[Batch], float], requests: list[Request]) -> dict[Any, Any]:
    return request_timelines(simulate(requests, world.policy, cost))
