"""Evidence from the parts of our own steps, measured: what a visit costs, and which part is the largest."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from chunkprefill.engine import Engine, replay
from chunkprefill.metrics.breakdown import CODE, WORDS, Breakdown, OverheadFit, breakdown, fit_overhead
from chunkprefill.model.config import Config
from chunkprefill.model.transformer import Transformer
from chunkprefill.model.weights import random_model
from chunkprefill.scheduling.core import Plan
from chunkprefill.scheduling.policies import ChunkedPrefill, SerialChunks
from chunkprefill.scheduling.state import State
from chunkprefill.scheduling.trace import PARTS, Trace
from chunkprefill_course.evidence.designs import SKIP, Design, grid, medians, no_collection, timed
from chunkprefill_course.evidence.evidence import Evidence, Number
from chunkprefill_course.evidence.timing import one_core
from chunkprefill_course.parts_recording import STEP_WORDS, step_parts

#: A model so small that a step is over at once: the parts do not depend on it.
SMALL = Config(1, 2, 1, 16, 256, d_ff=64, max_positions=16_384)
#: Where 22.4 ms of scheduling went, ms: WukLab, 2024, figure 7: vLLM 0.5.4, Llama-8B on an A6000, 1,024 tokens in
#: and out. Scheduling alone; the forward pass is not in it. Read off the figure's bars.
CITED_SCHEDULING_MS = {
    "deciding the batch": 1.1,
    "building inputs": 7.0,
    "detokenising": 4.7,
    "metadata of requests": 2.5,
    "preparing outputs": 2.3,
    "sampling metadata": 1.8,
    "logging": 1.0,
    "fourteen smaller parts": 2.0,
}


def measure(
    designs: Sequence[Design],
    *,
    policy: Callable[[Design], Any] = lambda design: design.policy,
    model: Transformer | None = None,
    rounds: int = 5,
    n_steps: int = 4,
    seed: int = 0,
) -> list[Trace]:
    """Each design replayed `rounds` times, shuffled anew each time; medians of every step.

    Its policy is asked at each step and its plan left aside.
    """
    model = model or random_model(SMALL)
    found: dict[Design, list[Trace]] = {design: [] for design in designs}
    for i in range(rounds + 1):
        with one_core(), no_collection():
            for design in random.Random(f"{seed} {i}").sample(list(designs), len(designs)):
                again = replay(design.trace(n_steps), Engine(model, policy(design)), decide=True)
                if i:  # one round warms up
                    found[design].append(again)
    return [medians(traces) for traces in found.values()]


# --- cost-per-visit -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ByToken:
    """Serial chunks by one who looks at every token: it hashes each chunk, as a prefix cache does."""

    chunk: int

    def schedule(self, state: State) -> Plan:
        plan = SerialChunks(self.chunk).schedule(state)
        for rid, n in plan.tokens.items():
            seen = 0
            for token in range(n):  # a policy sees no text: the work of a chain of hashes without it
                seen = hash((rid, seen, token))
        return plan


@dataclass(frozen=True)
class Again:
    """Asks a policy the same thing several times; its last plan.

    The first time, a policy meets caches from which the pass before has driven its data, and a larger pass more of
    it: that is no cost of the decision.
    """

    policy: Any
    times: int = 16

    def schedule(self, state: State) -> Plan:
        for _ in range(self.times):
            plan = self.policy.schedule(state)
        return plan


@cache
def visit_fits() -> dict[str, OverheadFit]:
    """Decodes, chunks and tokens varied apart: a fit for deciding, for building inputs, for all parts.

    Held out: steps with twice as many decodes, chunks and tokens as any that was fitted. Measured once.
    """
    designs = list(grid((0, 8, 32), (0, 1, 4), (16, 128)))
    larger = [Design(64, 0, 1), Design(64, 8, 16), Design(64, 8, 128), Design(16, 8, 128), Design(0, 8, 128)]
    traces = measure([*designs, *larger])
    fitted, out = traces[: len(designs)], traces[len(designs) :]
    parts: dict[str, tuple[str, ...]] = {"decide": ("decide",), "inputs": ("inputs",), "all": ()}
    return {of: fit_overhead(timed(fitted, *names), timed(out, *names)) for of, names in parts.items()}


def growth(base: Design, *others: Design, policy: Callable[[Design], Any]) -> list[dict[str, float]]:
    """How many times as long each part takes in each of `others` as in `base`; `policy` as in `measure`."""
    traces = measure([base, *others], rounds=9, policy=policy)
    # The least disturbed of its steps: on a busy machine a median holds other programs' time, too.
    took = [{part: min(column[SKIP:]) for part, column in trace.parts.items()} for trace in traces]
    return [{part: seconds / took[0][part] for part, seconds in one.items()} for one in took[1:]]


def cost_per_visit(*, changed: bool = False) -> Evidence:
    """What deciding and building inputs grow with. changed: a policy that looks at every token.

    It could fail: parts are timed on batches in which requests and tokens vary apart. The flip changes the
    condition alone, what the policy looks at.
    """
    designs = Design(8, 4, 16), Design(32, 16, 16), Design(8, 4, 256)
    requests, tokens = growth(*designs, policy=lambda d: Again(ByToken(d.length) if changed else d.policy))
    by_requests, by_tokens, inputs = requests["decide"], tokens["decide"], tokens["inputs"]
    numbers = [
        Number("deciding, four times the requests", by_requests, "×", "measured"),
        Number("deciding, the same requests with sixteen times the chunk", by_tokens, "×", "measured"),
        Number("building inputs, the same requests with sixteen times the chunk", inputs, "×", "measured"),
    ]
    if not changed:
        fits = visit_fits()
        for of, words in (("decide", "deciding"), ("inputs", "building inputs"), ("all", "all parts")):
            fit = fits[of]
            for unit, each in (("decode", "per_decode"), ("chunk", "per_chunk"), ("token", "per_token")):
                numbers.append(Number(f"{words}, a {unit}", getattr(fit.cost, each), "s", "measured"))
        numbers += [
            Number("all parts, variance explained", fits["all"].r2, "%", "measured"),
            Number("all parts, median error of steps fitted", fits["all"].error, "%", "measured"),
            Number("the same on twice the batch", fits["all"].held_out_error, "%", "measured"),
            Number("vLLM 0.33's schedule and update, a request, at least", 18, "µs", "published"),
            Number("and at most", 21, "µs", "published"),
        ]
    return Evidence(
        claim="cost-per-visit",
        holds=by_tokens <= 1.5 and by_requests >= 1.15 * by_tokens and inputs >= 1.5,
        setting="steps made so that decodes, chunks and tokens vary apart, replayed on one core of this CPU; "
        "the policy is asked at each step, 16 times in a row for the first three numbers: the least of interleaved "
        "rounds; the others are medians."
        + (" The policy hashes every token of a chunk, as a prefix cache does." if changed else ""),
        numbers=tuple(numbers),
        otherwise="let the policy look at every token: hash each chunk, as a prefix cache does.",
        timed=True,
    )


# --- overhead-share: the measured part ----------------------------------------------------------------


@cache
def measured_shares() -> dict[str, float]:
    """Our engine on this CPU: the share of a step, for a small model and a larger one."""
    larger = Config(4, 9, 3, 64, 4096, d_ff=1536, max_positions=4096)
    found = {}
    with one_core():
        for label, config, chunk in (
            ("our engine here, one layer 32 wide, 16 decodes", SMALL, 0),
            ("our engine here, four layers 576 wide, and a chunk of 256", larger, 256),
        ):
            design = Design(16, 1 if chunk else 0, chunk or 1)
            (trace,) = measure([design], model=random_model(config), rounds=3, n_steps=2)
            found[label] = breakdown(trace, skip=SKIP).share
    return found


# --- not-the-decision ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class TaskByValue:
    """A request, as a policy might write it down; compares by value, which is what a dataclass does."""

    rid: Any
    n_tokens: int


@dataclass(frozen=True)
class Listed:
    """Stall-free batching with a list where a dict belongs: `task in granted` walks all that were granted."""

    token_budget: int

    def schedule(self, state: State) -> Plan:
        granted: list[TaskByValue] = []
        for rid, n in ChunkedPrefill(self.token_budget).schedule(state).tokens.items():
            task = TaskByValue(rid, n)
            if task not in granted:
                granted.append(task)
        return Plan({task.rid: task.n_tokens for task in granted})


def our_breakdown(*, listed: bool = False, n_decodes: int = 384, rounds: int = 5) -> Breakdown:
    """Parts of our steps, `n_decodes` decodes beside a chunk of 64. listed: under a policy that searches."""
    design, budget = Design(n_decodes, 1, 64), n_decodes + 64
    policy = Listed(budget) if listed else ChunkedPrefill(budget)
    (trace,) = measure([design], policy=lambda _: policy, rounds=rounds)
    return breakdown(trace, label="with a list" if listed else "ours", skip=SKIP)


def not_the_decision(*, changed: bool = False) -> Evidence:
    """Which part of our steps is the largest. changed: a policy that looks its requests up in a list.

    It could fail: parts are timed, and deciding is one of them. The flip changes the condition alone: the same
    plan, found by searching a list.
    """
    found = our_breakdown(listed=changed)
    first, second = found.largest[:2]
    # In the order of PARTS and not by size: the small ones change places from run to run.
    numbers = [
        Number(f"{WORDS[name]} ({CODE[name].split(' (')[0]})", found.parts[name], "s", "measured")
        for name in PARTS
    ]
    deciding = found.parts["decide"] / found.scheduling
    numbers.append(Number("deciding, of all parts", deciding, "%", "measured"))
    if not changed:
        both = (found.parts[first] + found.parts[second]) / found.scheduling
        numbers.append(Number("the two largest parts, of all parts", both, "%", "measured"))
        (wide,) = measure(
            [Design(32, 1, 64)], model=random_model(replace(SMALL, vocab_size=49_152)), rounds=3
        )
        at = breakdown(wide, skip=SKIP)
        label = "choosing among 49,152 tokens, not 256 (32 decodes, a chunk of 64)"
        numbers += [
            Number(f"{label}: {WORDS['read']}", at.parts["read"], "s", "measured"),
            Number(f"{label}: {WORDS['inputs']}", at.parts["inputs"], "s", "measured"),
            Number(f"{label}: {WORDS['decide']}", at.parts["decide"], "s", "measured"),
        ]
        (theirs,) = (row for row in step_parts().rows if row["engine"] == "vLLM")
        numbers += [
            Number(
                f"vLLM 0.32, {theirs['step']}: {words}",
                round(1e6 * theirs["parts_s"][name]),
                "µs",
                "recorded",
            )
            for name, words in STEP_WORDS.items()
            if name in theirs["parts_s"]
        ]
        numbers += [
            Number(f"vLLM 0.5.4 on an A6000, 2024: {words}", ms, "ms", "published")
            for words, ms in CITED_SCHEDULING_MS.items()
        ]
        of_all = 100 * CITED_SCHEDULING_MS["deciding the batch"] / sum(CITED_SCHEDULING_MS.values())
        numbers.append(Number("deciding, of that scheduling", round(of_all), "%", "published"))
    return Evidence(
        claim="not-the-decision",
        holds=first != "decide" and deciding < 0.25,
        setting="our engine on one core of this CPU: 384 decodes beside a chunk of 64, decodes first; "
        "medians of interleaved rounds."
        + (" The policy looks every request up in a list." if changed else ""),
        numbers=tuple(numbers),
        otherwise="let the policy keep its requests in a list and ask `task in granted`: the same decisions, "
        "and deciding takes the most.",
        timed=True,
    )
