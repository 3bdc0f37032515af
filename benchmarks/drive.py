"""Send timed requests to a real server, and keep when each token came: its side of a comparison.

The same requests run on our own engine and in the simulator; what comes out of each is `Answer`s.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from chunkprefill.metrics.timelines import request_timelines
from chunkprefill.scheduling.clients import Clients, listed
from chunkprefill.scheduling.core import Request, Rid
from chunkprefill.scheduling.trace import Trace
from chunkprefill.servers.client import COMPLETIONS, Address, Client, Door, clean, in_thread
from chunkprefill.servers.stream import Stream

DOOR = Door(COMPLETIONS, ids=True, extras=True)
FIRST_S = 0.05  # until the first request is sent


@dataclass(frozen=True)
class Answer:
    """One request as its client saw it; s from the start of the run. ids: tokens where the server told them."""

    arrival: float
    tokens: tuple[float, ...]
    ids: tuple[int, ...] = ()

    @property
    def ttft(self) -> float | None:
        """s until the first token; None where none came."""
        return self.tokens[0] - self.arrival if self.tokens else None

    def longest_gap(self, since: float = 0.0, until: float = float("inf")) -> float:
        """s: the longest gap between two tokens that ends after `since` and begins before `until`."""
        return max((b - a for a, b in pairwise(self.tokens) if b > since and a < until), default=0.0)


def answers_of(trace: Trace) -> dict[Rid, Answer]:
    """What clients would have seen of a run of our own engine, or of a simulated one."""
    ids = trace.outputs
    return {
        rid: Answer(one.arrival, one.tokens, tuple(ids.get(rid, ())))
        for rid, one in request_timelines(trace).items()
    }


def drive(
    url: str,
    requests: Iterable[Request] | Clients,
    *,
    model: str,
    until: Sequence[Rid] = (),
    priorities: bool = False,
    seconds: float = 120.0,
) -> dict[Rid, Answer]:
    """Send `requests`, which have prompts, to a server that takes token ids, each when it arrives.

    Of a closed loop (`clients`) the next is sent when one is answered, as `simulate` and `Engine.run` do it.
    until: stop once these have been answered; the others' answers end there. priorities: send them along (a
    server that schedules by arrival refuses them). Raises ProbeError as `probe` does, and ValueError for a
    request without a prompt.
    """
    n_first = requests.n if isinstance(requests, Clients) else None
    ordered = sorted(listed(requests), key=lambda request: request.arrival)
    for request in ordered:
        if request.prompt is None:
            raise ValueError(f"request {request.rid}: a real server wants its prompt")
    send = Sent(ordered, model, set(until), priorities, n_first)
    return in_thread(_drive(Address.of(url), send, seconds))


@dataclass(frozen=True)
class Sent:
    """What `drive` sends. n_first: how many by the clock, the others as answers come; None: all by the clock."""

    requests: Sequence[Request]
    model: str
    until: set[Rid]
    priorities: bool
    n_first: int | None


async def _drive(address: Address, what: Sent, seconds: float) -> dict[Rid, Answer]:
    requests, until = what.requests, what.until
    streams = {r.rid: Stream(str(r.rid), "", "", r.n_prompt, r.n_output) for r in requests}
    later = requests[what.n_first :] if what.n_first is not None else ()
    turns = {request.rid: asyncio.Event() for request in later}
    queue = deque(turns.values())
    async with Client(address, read_s=seconds) as client:
        zero = client.now() + FIRST_S

        async def send(request: Request) -> None:
            if request.rid in turns:
                await turns[request.rid].wait()
            await asyncio.sleep(max(0.0, zero + request.arrival - client.now()))
            body: dict[str, Any] = DOOR.body(what.model, list(request.prompt or ()), request.n_output)
            body["return_token_ids"] = True
            if what.priorities:
                body["priority"] = request.priority
            await client.stream(streams[request.rid], DOOR.path, body)
            if queue:
                queue.popleft().set()

        tasks = {request.rid: asyncio.ensure_future(send(request)) for request in requests}
        waited = [task for rid, task in tasks.items() if not until or rid in until]
        try:
            await asyncio.wait_for(asyncio.gather(*waited), seconds)
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
    for rid, stream in streams.items():
        if stream.error:
            raise RuntimeError(f"request {clean(rid)}: {stream.error}")
    return {
        rid: Answer(s.sent - zero, tuple(t - zero for t in s.tokens), tuple(s.ids))
        for rid, s in streams.items()
    }


def numbers(answers: Mapping[Rid, Answer], names: Mapping[str, Sequence[Rid]]) -> dict[str, float | None]:
    """{what: s}: the chats' longest gap from the document's arrival on, and first tokens by class.

    names: {"chats": rids, and each further class: rids}; "document" among them dates the gap.
    """
    since = min((answers[rid].arrival for rid in names.get("document", ())), default=0.0)
    last = max(
        (answers[rid].tokens[0] for kind, rids in names.items() if kind != "chats" for rid in rids),
        default=float("inf"),
    )
    out: dict[str, float | None] = {
        "gap": max((answers[rid].longest_gap(since, last) for rid in names["chats"]), default=0.0)
    }
    for kind, rids in names.items():
        if kind != "chats":
            firsts = [answers[rid].ttft for rid in rids]
            out[kind] = max((t for t in firsts if t is not None), default=None)
    return out
