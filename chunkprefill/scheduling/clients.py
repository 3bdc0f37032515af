"""A closed loop: clients that send their next request when the last one was answered."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NoReturn

from chunkprefill.scheduling.arguments import as_requests
from chunkprefill.scheduling.core import Batch, Request, Rid
from chunkprefill.whole import whole_number


@dataclass(frozen=True)
class Clients:
    """`n` clients that share a list of requests, for `serve`, `simulate` and `Engine.run` in place of it.

    Each takes the next request of the list when its last one was answered. A request's own arrival is the
    earliest moment at which it may be sent; the trace says when it was. Iterating over `Clients` is refused,
    because its requests have no arrivals before the run.
    """

    n: int
    requests: tuple[Request, ...]  # in the order in which they are sent

    def __iter__(self) -> NoReturn:
        raise ValueError(
            f"{self.n} clients send when they are answered: their {len(self.requests)} requests have no "
            "arrivals before they are served, by serve, simulate or Engine.run"
        )


def clients(n: int, requests: Iterable[Request]) -> Clients:
    """A closed loop of `n` clients over `requests`: the server never has more than `n` of them.

    The first `n` requests are sent at their own arrivals; after that, each answer sends the next one, at the
    end of the step with the answer's last token. Benchmarks call `n` their `max_concurrency`.
    Raises ValueError for fewer than one client, and for an entry that is not a Request.
    """
    n = whole_number("n, the number of clients,", n, 1)
    return Clients(n, tuple(sorted(as_requests(requests), key=lambda request: request.arrival)))


def listed(requests: Iterable[Request] | Clients) -> tuple[Request, ...]:
    """The requests of an open or a closed loop, as they were given. Errors: `as_requests`."""
    return as_requests(requests.requests if isinstance(requests, Clients) else requests)


class Sending:
    """What the clients of one run have sent, and what they are waiting for."""

    def __init__(self, clients: Clients, n_outputs: Mapping[Rid, int]) -> None:
        self.first = clients.requests[: clients.n]  # what is sent before anything is answered
        self._next = deque(clients.requests[clients.n :])
        self._left = dict(n_outputs)  # tokens to come
        self.sent: dict[Rid, Request] = {}  # each with the moment at which it was sent, as its arrival

    def answered(self, batch: Batch, end: float) -> Iterator[Request]:
        """The requests that are sent because a step that ended at `end` (s) answered others."""
        for rid, emits in zip(batch.rid, batch.emits):
            self._left[rid] -= emits
            if emits and not self._left[rid] and self._next:
                request = self._next.popleft()
                request = replace(request, arrival=max(request.arrival, end))
                self.sent[request.rid] = request
                yield request
