"""Arguments of the loop, checked at its door: one clear line in place of an error from deep inside."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.core import Request
from chunkprefill.whole import as_real, briefly, needed


def _refuse_class(name: str, thing: Any) -> None:
    if isinstance(thing, type):
        raise ValueError(
            f"{name} is the class {thing.__name__}: an instance is needed, {thing.__name__}(...)"
        )


def check_policy(policy: Any) -> None:
    """ValueError for a policy's class in place of an instance, and for an object that cannot schedule."""
    _refuse_class("policy", policy)
    if not callable(getattr(policy, "schedule", None)):
        raise ValueError(f"policy is {briefly(policy)}: it has no schedule(state) that returns a Plan")


def check_pool(pool: Any) -> None:
    """ValueError unless `pool` is a BlockPool or None."""
    if pool is not None:
        needed("pool", pool, BlockPool, "such as BlockPool(n_blocks), or None")


def check_executor(executor: Any) -> None:
    """ValueError for an executor's class in place of an instance, and for an object that cannot run a batch."""
    _refuse_class("executor", executor)
    if not callable(getattr(executor, "launch", None)):
        raise ValueError(
            f"executor is {briefly(executor)}: it has no launch(batch, tables) that returns a handle"
        )


def as_requests(requests: Iterable[Request]) -> tuple[Request, ...]:
    """The requests of a list. ValueError if it is not a list, or if an entry is not a Request."""
    if not isinstance(requests, Iterable):
        raise ValueError(f"requests is {briefly(requests)}: a list of Requests is needed")
    given = tuple(requests)
    for i, request in enumerate(given):
        if not isinstance(request, Request):  # the message is not written for each of a million
            needed(f"entry {i} of the requests", request, Request)
    return given


def as_seconds(step: int, what: str, seconds: Any) -> float:
    """What a cost returned, in s. ValueError unless it is a finite number of at least 0."""
    number = as_real(seconds)
    if number is None or not 0 <= number < math.inf:
        took = f"{seconds} s" if number is not None else briefly(seconds)
        raise ValueError(f"step {step}: {what} took {took}; a cost returns seconds, finite and at least 0")
    return number


def check_cost(name: str, cost: Any) -> None:
    """ValueError unless `cost` can be called; a class is refused too, because an instance is meant."""
    _refuse_class(name, cost)
    if not callable(cost):
        raise ValueError(f"{name} is {briefly(cost)}: a function of a batch that returns seconds is needed")
