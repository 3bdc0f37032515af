"""The clinic's server: what a person could change about it, and the machine that it runs on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import chain

from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.core import Plan, Request
from chunkprefill.scheduling.core import Sequence as Running
from chunkprefill.scheduling.policies import PlanBuilder
from chunkprefill.scheduling.state import State
from chunkprefill.scheduling.trace import Trace
from chunkprefill.simulation.cost import SchedulerCost
from chunkprefill.simulation.cuda_graphs import CudaGraphs
from chunkprefill.simulation.kernels import Kernels
from chunkprefill.simulation.simulate import simulate

#: What each setting may be, where it is no number.
WORDS = {
    "first": ("decodes", "prompts"),
    "order": ("arrival", "shortest"),
    "inputs": ("at once", "row by row"),
    "launching": ("graphs", "one by one"),
}
EVERY_SIZE = tuple(2**k for k in range(21))  # graphs are recorded for every step that a budget allows
MOST = 1_000_000  # that a setting may be
MOST_STEPS = 60_000  # of a run, at least


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a person could change about the server.

    token_budget: tokens a step, decodes and chunks together (vLLM: max_num_batched_tokens)
    chunk:        prompt tokens a step, of all prompts together (SGLang: chunked_prefill_size)
    n_blocks:     cache blocks of 16 tokens
    first:        who goes first: "decodes", or "prompts", and then a step holds one kind alone
    order:        which prompt goes first: by "arrival", or the "shortest" (fewest tokens to go)
    inputs:       how the CPU builds a batch's inputs: "at once", or "row by row"
    launching:    how the CPU launches a step's kernels: "graphs", or "one by one"

    Raises ValueError for a count below 1 or an unknown word.
    """

    token_budget: int
    chunk: int
    n_blocks: int
    first: str = "decodes"
    order: str = "arrival"
    inputs: str = "at once"
    launching: str = "graphs"

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name in WORDS:
                if value not in WORDS[each.name]:
                    raise ValueError(f"{each.name} is one of {', '.join(WORDS[each.name])}, got {value!r}")
            elif not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST:
                raise ValueError(f"{each.name} must be a whole number from 1 to {MOST:,}, got {value!r}")


@dataclass(frozen=True)
class Rules:
    """A step under `Settings`: decodes and then a chunk of prompts, or prompts as long as there are any."""

    settings: Settings

    def schedule(self, state: State) -> Plan:
        s = self.settings
        plan, left = PlanBuilder(state, s.token_budget), s.chunk
        if s.first == "decodes":
            plan.decode()
        open_door = not plan.evicted
        for seq in self._line(plan.prompts, state.waiting if open_door else ()):
            if left < 1 or plan.budget < 1:
                break
            before = plan.budget
            if seq.cached:
                plan.chunk(seq, left)
            elif open_door:  # none passes a request that does not fit
                open_door = plan.admit(seq, left)
            left -= int(before - plan.budget)
        if s.first == "prompts" and not plan.tokens:
            plan.decode()
        return plan.build()

    def _line(self, prompts: list[Running], waiting: Iterable[Running]) -> Iterable[Running]:
        if self.settings.order == "shortest":
            return sorted(chain(prompts, waiting), key=lambda seq: seq.known - seq.cached)
        return chain(prompts, waiting)

    def __str__(self) -> str:
        return "clinic"  # a trace's label gives nothing away


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What cannot be changed here: the price of a step, and the CPU's price of preparing one.

    cost: Batch -> s, from published kernel timings. fast, slow: Batch -> s of scheduling, where inputs are
    built at once and row by row. launch: s of the CPU for a kernel.
    """

    name: str
    cost: Kernels
    fast: SchedulerCost
    slow: SchedulerCost
    launch: float

    @property
    def tile(self) -> int:
        """Tokens of a matrix product's tile."""
        return self.cost.fit.tile

    def step(self, settings: Settings) -> CudaGraphs:
        """Batch -> s of a step, and `launching(batch)`, s of the CPU to launch it."""
        mode = "none" if settings.launching == "one by one" else "decodes, pieces"
        return CudaGraphs(cost=self.cost, mode=mode, sizes=EVERY_SIZE, launch=self.launch)


def run_server(requests: Sequence[Request], settings: Settings, machine: Machine) -> Trace:
    """The run: a function of its arguments alone.

    Raises ScheduleError where a request could never fit the pool, ValueError where a step takes so few tokens
    that the run would go on for ever.
    """
    prompts, tokens = sum(r.n_prompt for r in requests), sum(r.n_prompt + r.n_output - 1 for r in requests)
    n_steps = max(prompts // settings.chunk, tokens // settings.token_budget)
    if n_steps > MOST_STEPS:
        raise ValueError(f"this load would take {n_steps:,} steps or more, and {MOST_STEPS:,} are replayed")
    scheduling = machine.fast if settings.inputs == "at once" else machine.slow
    pool = BlockPool(settings.n_blocks)
    one_by_one = settings.launching == "one by one"
    cost = (
        machine.step(settings) if one_by_one else machine.cost
    )  # with graphs, launching never holds a step up
    return simulate(requests, Rules(settings), cost, pool, scheduling=scheduling)
