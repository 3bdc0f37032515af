"""Evidence about who waits for whom: counted in traces, priced by published kernel timings."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from chunkprefill.metrics.timelines import request_timelines
from chunkprefill.plots.grid import step_tasks
from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.core import Plan, Request
from chunkprefill.scheduling.policies import ChunkedPrefill, PrefillFirst, SerialChunks
from chunkprefill.scheduling.state import State
from chunkprefill.scheduling.trace import Trace
from chunkprefill.scheduling.vllm import VllmV1
from chunkprefill.simulation.published import published
from chunkprefill.simulation.simulate import simulate
from chunkprefill_course.evidence.evidence import Evidence, Number

BUDGET = 512  # tokens an iteration
PRICED = "priced by published kernel timings of Llama-3.1-8B on an RTX 4090"
EARLY, LATE = ("chat 1", "chat 2"), ("chat 3", "chat 4")

#: Two chats decode, a document comes, two more chats come while it is being prefilled.
DOCUMENT_AMONG_CHATS = (
    Request("chat 1", 0.0, 64, 60),
    Request("chat 2", 0.016, 64, 60),
    Request("document", 0.1, 4096, 12, priority=1),
    Request("chat 3", 0.16, 64, 40),
    Request("chat 4", 0.3, 64, 40),
)
#: Eight chats decode, and two documents come at once.
TWO_DOCUMENTS = (
    *(Request(f"chat {i}", 0.0, 16, 80) for i in range(1, 9)),
    *(Request(f"document {i}", 0.1, 2048, 40) for i in (1, 2)),
)
#: What breaks each condition of the claim, in words.
BREAKS = {
    "order": "cut the prompts as before, but let them go first.",
    "budget": "lower the budget to 4 tokens while 8 chats decode.",
    "memory": "give the cache 165 blocks of 16 tokens, too few for all of them.",
    "task": "give every prompt a chunk in each iteration, not one chunk in all.",
}


def _ms(label: str, seconds: float) -> Number:
    return Number(label, round(1e3 * seconds), "ms", "simulated")


@dataclass(frozen=True)
class Gap:
    """Between two neighbouring tokens of one request, at most, over all of them."""

    n_tokens: int  # pairs of neighbouring tokens looked at
    steps: int  # iterations from the one to the next: 1 means never left out
    prompt_tokens: int  # that ran in these iterations, of whomever
    seconds: float


def widest_gaps(trace: Trace) -> Gap:
    """Each of the three at its largest, not all of one gap."""
    n_prompt = {request.rid: request.n_prompt for request in trace.requests}
    last: dict[Any, tuple[int, int, float]] = {}
    n, steps, prompts, seconds, run = 0, 0, 0, 0.0, 0
    for i, step in enumerate(trace.steps):
        run += sum(c.length for c in step.batch if c.start < n_prompt[c.rid])
        for chunk in step.batch:
            if not chunk.emits:
                continue
            if chunk.rid in last:
                before, ran, end = last[chunk.rid]
                n, steps, prompts = n + 1, max(steps, i - before), max(prompts, run - ran)
                seconds = max(seconds, step.end - end)
            last[chunk.rid] = i, run, step.end
    return Gap(n, steps, prompts, seconds)


@dataclass(frozen=True)
class Lowered:
    """Stall-free batching whose operator lowers the budget at some time."""

    before: int
    after: int
    at: float  # s

    def schedule(self, state: State) -> Plan:
        return ChunkedPrefill(self.after if state.now >= self.at else self.before).schedule(state)


def random_workload(dice: random.Random) -> tuple[list[Request], int]:
    """A few requests of any lengths, and a budget."""
    lines = [
        Request(rid, dice.randint(0, 30), dice.choice((1, 5, 40, 200)), dice.randint(1, 20))
        for rid in range(dice.randint(2, 12))
    ]
    return lines, dice.choice((4, 16, 64))


def no_stall(*, changed: bool = False, breaking: str = "", n_random: int = 200, seed: int = 0) -> Evidence:
    """How long a decoding step is kept waiting by others, under stall-free batching.

    breaking: a key of `BREAKS`, the condition to break; changed: the first of them.
    It could fail: gaps are counted step by step in the trace, in 200 random workloads too. Each of the four
    conditions can be broken alone, and each time the verdict flips.
    Raises ValueError for a condition that the claim does not have.
    """
    breaking = breaking or ("order" if changed else "")
    if breaking and breaking not in BREAKS:
        raise ValueError(f"no condition {breaking!r}; there are {', '.join(BREAKS)}")
    policy: Any = ChunkedPrefill(BUDGET)
    if breaking in ("order", "budget", "task"):
        policy = {
            "order": PrefillFirst(BUDGET, chunk=BUDGET),
            "budget": Lowered(BUDGET, 4, at=0.1),
            "task": SerialChunks(BUDGET),
        }[breaking]
    pool = BlockPool(165) if breaking == "memory" else None
    gap = widest_gaps(simulate(TWO_DOCUMENTS, policy, published("rtx4090"), pool))
    numbers = [
        Number("iterations from one token to the next, at most", gap.steps),
        Number("prompt tokens that ran in between, at most", gap.prompt_tokens),
        _ms("longest gap", gap.seconds),
    ]
    held = True
    if not breaking:
        dice, n_gaps = random.Random(seed), 0
        for _ in range(n_random):
            requests, budget = random_workload(dice)
            found = widest_gaps(simulate(requests, ChunkedPrefill(budget), lambda batch: 1.0))
            n_gaps += found.n_tokens
            held = held and found.steps <= 1 and found.prompt_tokens < budget
        numbers.append(Number(f"gaps looked at in {n_random} random workloads", n_gaps))
    return Evidence(
        claim="no-stall",
        holds=held and gap.steps == 1 and gap.prompt_tokens < BUDGET,
        setting=f"8 chats decode when two documents of 2,048 tokens come, budget {BUDGET}, {PRICED}"
        + (f". One condition is broken: {BREAKS[breaking]}" if breaking else "; then random workloads."),
        numbers=tuple(numbers),
        otherwise=BREAKS["order"],
    )


def silence(trace: Trace, rids: tuple[str, ...] = EARLY) -> float:
    """Longest gap between two tokens of these requests, s."""
    return max(request_timelines(trace)[rid].longest for rid in rids)


def first_word(trace: Trace, rids: tuple[str, ...] = LATE) -> float:
    """Longest wait of these requests for their first token, s."""
    return max(request_timelines(trace)[rid].first_token for rid in rids)


def _run(policy: Any) -> Trace:
    return simulate(DOCUMENT_AMONG_CHATS, policy, published("rtx4090"))


def not_by_itself(*, changed: bool = False) -> Evidence:
    """Does cutting prompts shorten a longest gap while prompts go first? changed: decoding steps go first.

    It could fail: one decoding step between two chunks would make the longest gap a chunk long. The flip changes
    the condition alone, which tasks go first; the chunk stays.
    """
    whole, cut = _run(PrefillFirst(8192)), _run(PrefillFirst(BUDGET, chunk=BUDGET))
    if changed:
        cut = _run(ChunkedPrefill(BUDGET))
    first, *_, last = (i for i, row in enumerate(step_tasks(cut)) if row.get("document", ("",))[0] == "P")
    between = sum(EARLY[0] in row for row in step_tasks(cut)[first : last + 1])
    return Evidence(
        claim="not-by-itself",
        holds=silence(cut) >= 0.95 * silence(whole) and between == 0,
        setting=f"a document of 4,096 tokens comes while two chats decode, {PRICED}; whole, and in chunks of "
        f"{BUDGET}. " + ("Decoding steps go first." if changed else "Prompts go first."),
        numbers=(
            _ms("longest gap, document whole", silence(whole)),
            _ms("longest gap, document in chunks", silence(cut)),
            Number("decoding steps of chat 1 from the first chunk to the last", between),
        ),
        otherwise="let decoding steps go first, and the chunks take what is left of the budget.",
    )


def who_is_protected(*, changed: bool = False) -> Evidence:
    """Whose wait do chunks in order of arrival shorten? changed: the shortest prompt goes first.

    It could fail on either side: the early chats' gap might not shrink, and the late chats' wait might. The flip
    changes the condition alone, the order of admission.
    """
    whole = _run(PrefillFirst(8192))
    cut = _run(ChunkedPrefill(BUDGET, order="shortest" if changed else "arrival"))
    others = {
        "priority to chats": ChunkedPrefill(BUDGET, order="priority"),
        "vLLM's rules": VllmV1(BUDGET),
        "vLLM's rules, priority to chats": VllmV1(BUDGET, policy="priority"),
    }
    numbers = [
        _ms("chats that decode, longest gap, document whole", silence(whole)),
        _ms("the same, document in chunks", silence(cut)),
        _ms("late chats, first token, document whole", first_word(whole)),
        _ms("the same, document in chunks", first_word(cut)),
    ]
    if not changed:
        waits = {name: first_word(_run(policy)) for name, policy in others.items()}
        numbers += [_ms(f"the same, {name}", s) for name, s in waits.items()]
    return Evidence(
        claim="who-is-protected",
        holds=silence(cut) <= 0.25 * silence(whole) and first_word(cut) >= 0.9 * first_word(whole),
        setting=f"two chats decode, a document of 4,096 tokens comes, then two more chats; chunks of {BUDGET}"
        f", decodes first, prompts {'shortest first' if changed else 'in order of arrival'}, {PRICED}.",
        numbers=tuple(numbers),
        otherwise="let the shortest prompt go first.",
    )


def preempted_passes(*, changed: bool = False) -> Evidence:
    """Passes of a document whose cache was taken away. changed: the cache never runs out.

    It could fail: passes and tokens are counted in the trace, and a request that kept its cache would run 2,048
    tokens in as many passes as undisturbed. The flip changes the condition alone, how many blocks there are.
    """
    pool = None if changed else BlockPool(165)
    trace = simulate(TWO_DOCUMENTS, ChunkedPrefill(BUDGET), published("rtx4090"), pool)
    evicted = [rid for rids in trace.preempted.values() for rid in rids]
    rid = evicted[0] if evicted else "document 1"
    n_passes = sum(row.get(rid, ("",))[0] == "P" for row in step_tasks(trace))
    n_run = sum(n for row in step_tasks(trace) for r, (kind, _, n) in row.items() if r == rid and kind == "P")
    at_least = -(-2048 // BUDGET)
    free = simulate(TWO_DOCUMENTS, ChunkedPrefill(BUDGET), published("rtx4090"))
    undisturbed = sum(row.get(rid, ("",))[0] == "P" for row in step_tasks(free))
    return Evidence(
        claim="preempted-passes",
        holds=n_passes > undisturbed and n_run > 2048,
        setting=f"two documents of 2,048 tokens among 8 chats, budget {BUDGET}, a cache "
        + ("that never runs out." if changed else "of 165 blocks of 16 tokens."),
        numbers=(
            Number("evictions", len(evicted)),
            Number(f"passes of {rid}", n_passes),
            Number("passes of the same document if its cache is left alone", undisturbed),
            Number("⌈n/c⌉ with the whole budget", at_least),
            Number("tokens run to cache a prompt of 2,048", n_run),
        ),
        otherwise="give the cache as many blocks as it asks for.",
    )
