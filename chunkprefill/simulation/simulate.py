"""The same loop with a price for a model: predicted seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.core import Batch, Request, Rid
from chunkprefill.scheduling.serve import Policy, serve
from chunkprefill.scheduling.trace import Trace
from chunkprefill.simulation.cost import Roofline, SchedulerCost

Cost = Callable[[Batch], float]  # s


class Priced:
    """An executor that computes nothing: a batch takes what `cost` says."""

    def __init__(self, cost: Cost) -> None:
        self.cost = cost

    def launch(self, batch: Batch, tables: Mapping[Rid, list[int]]) -> Priced.Handle:
        """Ready at once."""
        return Priced.Handle(self.cost(batch))

    class Handle:
        """A price."""

        __slots__ = ("seconds",)

        def __init__(self, seconds: float) -> None:
            self.seconds = seconds

        def wait(self) -> tuple[float, dict[Rid, int]]:
            """The price, and no token."""
            return self.seconds, {}


def simulate(
    requests: Iterable[Request],
    policy: Policy,
    cost: Cost | None = None,
    pool: BlockPool | None = None,
    *,
    scheduling: Cost | None = None,
    overlap: bool = False,
) -> Trace:
    """Serve `requests` under `policy`, each step at the price of `cost` (default: `Roofline()`).

    scheduling: price of scheduling a step in s; None: it is free. pool=None never runs out of blocks.
    overlap: schedule a step while the one before it runs. The trace is a function of the arguments alone.
    Errors: `serve`.
    """
    executor = Priced(cost or Roofline())
    scheduling = scheduling or SchedulerCost()
    return serve(requests, policy, executor, pool, scheduling=scheduling, overlap=overlap, label=str(policy))
