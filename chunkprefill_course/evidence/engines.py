"""Evidence about real engines: decisions recorded from vLLM, and users' reports made to happen again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import pairwise
from typing import Any

from chunkprefill.metrics.summary import Summary, summary
from chunkprefill.metrics.timelines import request_timelines
from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.core import Plan, Request, Rid
from chunkprefill.scheduling.core import Sequence as Seq
from chunkprefill.scheduling.parity import RecordedCase, ReplayedCase, decisions, load
from chunkprefill.scheduling.parity import replayed as replay_of
from chunkprefill.scheduling.policies import ChunkedPrefill, PrefillFirst
from chunkprefill.scheduling.state import State
from chunkprefill.scheduling.trace import Trace
from chunkprefill.scheduling.vllm import VllmV1
from chunkprefill.simulation.capacity import at_rate
from chunkprefill.simulation.published import published
from chunkprefill.simulation.simulate import simulate
from chunkprefill.simulation.workloads import conversation, poisson
from chunkprefill_course.evidence.evidence import Evidence, Number
from chunkprefill_course.evidence.tradeoff import throughput

DEVICE = "rtxpro6000"
ON = "priced by published kernel timings of Llama-3.1-8B on an RTX PRO 6000"


# --- one moment, many rules ---------------------------------------------------------------------------


def moment() -> State:
    """Chats 1 and 2 decode; a document of 4,096 tokens has come, and chat 3 behind it."""
    running = [Seq(f"chat {i}", 64, 0.0, cached=70, generated=7, order=i - 1) for i in (1, 2)]
    waiting = [Seq("document", 4096, 0.1, priority=1, order=2), Seq("chat 3", 64, 0.16, order=3)]
    return State(now=0.2, running=running, waiting=waiting)


def proposals(engines: Mapping[str, Any], state: State | None = None) -> dict[str, Plan]:
    """What each policy would run next, were it asked at the same moment (default: `moment()`)."""
    return {name: policy.schedule(state or moment()) for name, policy in engines.items()}


def first_difference(a: Trace, b: Trace) -> int | None:
    """The first step in which two runs of the same requests decide otherwise; None if none does."""
    pairs = zip(a.steps, b.steps)
    return next((i for i, (x, y) in enumerate(pairs) if set(x.batch) != set(y.batch)), None)


# --- decisions recorded from vLLM ---------------------------------------------------------------------


def recordings() -> dict[str, RecordedCase]:
    """Decisions of vLLM 0.33.0's own scheduler that travel with the package, by name."""
    with resources.as_file(resources.files(__package__).joinpath("recorded.json")) as path:
        return {case.name: case for case in load(str(path))}


def replayed(case: RecordedCase, policy: Any = None) -> ReplayedCase:
    """The requests of a recording, served by our loop: step t is second t. Default: the recorded settings."""
    return replay_of(case, policy)


def equal_steps(case: RecordedCase, policy: Any = None) -> list[bool]:
    """For each recorded step, whether ours is the same: who runs, how many tokens, in which order, and the
    counts of the running, the waiting and the free blocks.
    """
    mine = decisions(case, replayed(case, policy))
    return [recorded == next(mine, None) for recorded in case.steps]


def same_decisions(*, changed: bool = False) -> Evidence:
    """Are our decisions vLLM's? changed: textbook stall-free batching, with the same budgets.

    It could fail: vLLM's own scheduler made the recording, and one field of one step that differs refutes it. The
    flip changes the rules alone, on the same requests, budgets and slots.
    """
    n_steps = n_equal = n_whole = 0
    cases = recordings()
    for case in cases.values():
        settings = case.policy
        budget, slots = settings.max_num_batched_tokens, settings.max_num_seqs
        equal = equal_steps(case, ChunkedPrefill(budget, slots) if changed else None)
        n_steps, n_equal, n_whole = n_steps + len(equal), n_equal + sum(equal), n_whole + all(equal)
    return Evidence(
        claim="same-decisions",
        holds=n_equal == n_steps,
        setting="decisions recorded from vLLM 0.33.0's own scheduler, prefix caching and speculation off, "
        "held against those of "
        + ("stall-free batching with the same budgets." if changed else "`VllmV1` with the same settings."),
        numbers=(
            Number("recorded cases", len(cases)),
            Number("recorded steps", n_steps),
            Number("steps that are equal in every field", n_equal),
            Number("cases that are equal from first to last", n_whole),
        ),
        otherwise="take stall-free batching in place of vLLM's rules, with the same budgets.",
    )


# --- reports of users, made to happen again -----------------------------------------------------------


@dataclass(frozen=True)
class Frozen:
    """How long a short prompt behind a long one is kept, s, and what the long one pays."""

    short: float  # to its first token
    long: float  # to its first token
    alone: float  # the long one's, had no other come


def frozen(
    threshold: int, *, budget: int = 2048, n_long: int = 325_000, n_short: int = 200, device: str = DEVICE
) -> Frozen:
    """vLLM's rules: `n_short` tokens come 5 s after another request's `n_long`. threshold: 0 is none."""
    policy = VllmV1(budget, long_prefill_token_threshold=threshold)
    requests = [Request("long", 0.0, n_long, 4), Request("short", 5.0, n_short, 40)]
    both, alone = (
        request_timelines(simulate(some, policy, published(device))) for some in (requests, requests[:1])
    )
    return Frozen(both["short"].first_token, both["long"].first_token, alone["long"].first_token)


def threshold_passes(*, changed: bool = False) -> Evidence:
    """Does a threshold below the budget let a short prompt in? changed: a threshold that the budget hides.

    It could fail: the wait comes from a run under rules that were held against vLLM's own, and the long prompt
    might pay for it. The flip changes the condition alone, the threshold against the budget.
    """
    threshold = 4096 if changed else 1024
    without, found = frozen(0), frozen(threshold)
    return Evidence(
        claim="threshold-passes",
        holds=found.short <= 0.05 * without.short and found.long <= 1.05 * without.long,
        setting=f"vLLM's rules, budget 2,048, threshold {threshold:,}: 200 tokens come 5 s after a prompt of "
        f"325,000, {ON}.",
        numbers=(
            _s("the short prompt's first token, no threshold", without.short),
            _s(f"the same, threshold {threshold:,}", found.short),
            _s("the long prompt's first token, no threshold", without.long),
            _s(f"the same, threshold {threshold:,}", found.long),
        ),
        otherwise="set the threshold above the budget: 4,096.",
    )


@dataclass(frozen=True)
class Rates:
    """Tokens a second of one who decodes, alone and while a long prompt is prefilled beside."""

    alone: float
    beside: float
    n_beside: int  # tokens written while the prompt ran
    n_steps: int  # steps that ran a piece of the prompt
    prompt: float  # s, from the long prompt's arrival to its first token

    @property
    def ratio(self) -> float:
        """How many times slower it gets."""
        return self.alone / self.beside


def beside_a_prompt(budget: int, *, n_prompt: int = 65_535, device: str = DEVICE) -> Rates:
    """vLLM's rules: one request decodes behind 4,094 tokens, and 2 s later a prompt of `n_prompt` comes."""
    requests = [Request("writes", 0.0, 4094, 1500), Request("reads", 2.0, n_prompt, 1)]
    trace = simulate(requests, VllmV1(budget), published(device))
    told = request_timelines(trace)
    begun, done = told["reads"].boxes[0][1], told["reads"].tokens[0]
    before = [t for t in told["writes"].tokens if t <= begun]
    n_beside = sum(begun < t <= done for t in told["writes"].tokens)
    return Rates(
        (len(before) - 1) / (before[-1] - before[0]),
        n_beside / (done - begun),
        n_beside,
        len(told["reads"].boxes),
        told["reads"].first_token,
    )


def token_a_step(*, changed: bool = False) -> Evidence:
    """What does decoding get beside a long prompt? changed: a budget whose steps last about as long as decoding steps.

    It could fail: tokens and steps are counted apart, and a rule that runs decodes in between would make more
    tokens than steps. The flip changes the condition alone, how long a full iteration is.
    """
    budget = 64 if changed else 8192
    found = beside_a_prompt(budget)
    return Evidence(
        claim="token-a-step",
        holds=found.n_beside == found.n_steps and found.ratio >= 10,
        setting=f"vLLM's rules, budget {budget:,} (our choice): one request decodes, a prompt of 65,535 tokens comes, "
        f"{ON}.",
        numbers=(
            Number("steps that ran a piece of the prompt", found.n_steps),
            Number("tokens written in the meantime", found.n_beside),
            Number("tokens a second alone", round(found.alone, 1), "", "simulated"),
            Number("tokens a second beside the prompt", round(found.beside, 2), "", "simulated"),
            Number("times slower", round(found.ratio, 1), "×", "simulated"),
            _s("the prompt's first token", found.prompt),
        ),
        otherwise="take a budget of 64 tokens.",
    )


@dataclass(frozen=True)
class Kinds:
    """Steps of a run by what they ran, in the second half of the time in which requests came."""

    prompts: int  # nothing but pieces of prompts
    decodes: int  # nothing but decodes
    both: int
    silence: float  # s, the longest between two tokens of one request, while requests came

    @property
    def left_out(self) -> float:
        """Steps without decodes for each step with some."""
        return self.prompts / max(self.decodes + self.both, 1)


def stream_of_prompts(
    policy: Any, *, rate: float = 6.0, n: int = 600, device: str = DEVICE, seed: int = 0
) -> Kinds:
    """Prompts of 3,000 to 6,000 tokens come `rate` a second, faster than the GPU can prefill them."""
    requests = poisson(n, rate, prompt=(3000, 6000), output=200, seed=seed)
    trace = simulate(requests, policy, published(device))
    last, counts = max(r.arrival for r in requests), [0, 0, 0]
    for step in trace.steps:
        sums = step.batch.totals()
        if last / 2 <= step.start <= last:
            counts[2 if sums.chunks and sums.n_decodes else 0 if sums.chunks else 1] += 1
    gaps = (
        min(b, last) - a
        for life in request_timelines(trace).values()
        for a, b in pairwise(life.tokens)
        if a < last
    )
    return Kinds(counts[0], counts[1], counts[2], max(gaps, default=0.0))


def always_a_prompt(*, changed: bool = False) -> Evidence:
    """Do decodes get steps while prompts go first and keep coming? changed: decodes go first.

    It could fail: steps are counted by what they ran, and a prompt that does not fit into memory would let decodes
    in. The flip changes the condition alone, which tasks go first.
    """
    policy: Any = ChunkedPrefill(8192) if changed else PrefillFirst(8192, chunk=8192)
    found = stream_of_prompts(policy)
    return Evidence(
        claim="always-a-prompt",
        holds=found.left_out >= 5,
        setting="360 requests a minute with 3,000 to 6,000 prompt and 200 output tokens, chunks of 8,192, "
        f"{'decodes' if changed else 'prompts'} first, {ON}. Counted in the second half of the time in which "
        "requests come.",
        numbers=(
            Number("steps of prompts alone", found.prompts),
            Number("steps with decodes in them", found.decodes + found.both),
            _s("longest gap between two tokens so far", found.silence),
        ),
        otherwise="let decodes go first, and the chunks take what is left.",
    )


def let_in(n_blocks: int = 1200, *, n: int = 300, rate: float = 6.0, seed: int = 0, **rule: Any) -> Summary:
    """Conversations under vLLM's rules, budget 2,048, a cache of `n_blocks`; rule: arguments of `VllmV1`."""
    requests = at_rate(conversation(n, seed=seed), rate)
    return summary(simulate(requests, VllmV1(2048, **rule), published(DEVICE), BlockPool(n_blocks)))


def first_chunk_only(*, changed: bool = False) -> Evidence:
    """What is lost by admitting a prompt when its first chunk fits? changed: there is memory for all.

    It could fail: prompts that start sooner might gain more than evictions cost. The flip changes the condition
    alone, how many blocks there are.
    """
    n_blocks = 32_768 if changed else 1200
    first, whole = (let_in(n_blocks, scheduler_reserve_full_isl=gate) for gate in (False, True))
    numbers = []
    for name, told in (("first chunk", first), ("whole prompt", whole)):
        numbers += [
            Number(f"{name} must fit: caches taken away", told.preemptions, "", "simulated"),
            Number(f"{name} must fit: tokens computed again", told.recomputed_tokens, "", "simulated"),
            Number(
                f"{name} must fit: output tokens a second", round(told.output_tokens_per_s), "", "simulated"
            ),
        ]
    return Evidence(
        claim="first-chunk-only",
        holds=whole.output_tokens_per_s >= 1.1 * first.output_tokens_per_s
        and first.recomputed_tokens >= 2 * whole.recomputed_tokens,
        setting="300 conversations, 6 a second, vLLM's rules, budget 2,048, a cache of "
        f"{n_blocks:,} blocks of 16 tokens, {ON}.",
        numbers=tuple(numbers),
        otherwise="give the cache 32,768 blocks: room for every request.",
    )


def job(policy: Any, *, n: int = 50, n_prompt: int = 40_000, n_output: int = 256) -> float:
    """Tokens a second of an offline job: all requests are there from the start."""
    requests = [Request(rid, 0.0, n_prompt, n_output) for rid in range(n)]
    return throughput(simulate(requests, policy, published(DEVICE), BlockPool(32_768)))


def who_still_decodes(
    n_prompt: int = 130_000, budget: int = 512, outputs: Sequence[int] = (40, 80, 160)
) -> tuple[int, int]:
    """A long prompt comes among chats with `outputs` tokens to write: its steps, and those with no decode."""
    requests: list[Request] = [Request(f"chat {i}", 0.0, 64, n) for i, n in enumerate(outputs)]
    trace = simulate([*requests, Request("long", 0.1, n_prompt, 1)], VllmV1(budget), lambda batch: 0.05)
    ran: list[set[Rid]] = [set(step.batch.rid) for step in trace.steps if "long" in step.batch.rid]
    return len(ran), sum(rids == {"long"} for rids in ran)


def _s(label: str, seconds: float) -> Number:
    return Number(label, round(seconds, 2 if seconds < 10 else 1), "s", "simulated")
