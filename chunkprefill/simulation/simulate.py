"""The same loop with a price for a model: predicted seconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from chunkprefill.scheduling.arguments import check_cost
from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.clients import Clients
from chunkprefill.scheduling.core import Batch, Request, Rid
from chunkprefill.scheduling.loop import Cost, Known, Policy, serve
from chunkprefill.scheduling.trace import Trace
from chunkprefill.simulation.cost import Roofline, SchedulerCost


class CostModelExecutor:
    """An executor that computes nothing: a batch takes what `cost` says."""

    def __init__(self, cost: Cost) -> None:
        check_cost("cost", cost)
        self.cost = cost

    def launch(self, batch: Batch, tables: Mapping[Rid, list[int]]) -> Known:
        """Ready at once."""
        return Known(self.cost(batch))


def simulate(
    requests: Iterable[Request] | Clients,
    policy: Policy,
    cost: Cost | None = None,
    pool: BlockPool | None = None,
    *,
    scheduling: Cost | None = None,
    overlap: bool = False,
) -> Trace:
    """Serve `requests`, or what `clients` send, under `policy`, each step at the price of `cost`.

    cost: default `Roofline()`. scheduling: price of scheduling a step in s; None: it is free. pool=None never
    runs out of blocks. overlap: schedule a step while the one before it runs. The trace is a function of the
    arguments alone. Errors: `serve`.
    """
    executor = CostModelExecutor(Roofline() if cost is None else cost)
    scheduling = SchedulerCost() if scheduling is None else scheduling
    check_cost("scheduling", scheduling)
    return serve(requests, policy, executor, pool, scheduling=scheduling, overlap=overlap)
