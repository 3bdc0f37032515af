"""Evidence about scheduling's cost that is counted or priced: tasks and state, shares of a step, overlap."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from chunkprefill.configs import MODELS as SHAPES
from chunkprefill.model.config import Config
from chunkprefill.plots.style import Table
from chunkprefill.scheduling.core import Request
from chunkprefill.scheduling.policies import ChunkedPrefill
from chunkprefill.scheduling.trace import Trace
from chunkprefill.simulation.cost import Roofline, SchedulerCost
from chunkprefill.simulation.published import published
from chunkprefill.simulation.simulate import simulate
from chunkprefill_course.evidence.evidence import Evidence, Number
from chunkprefill_course.evidence.tradeoff import mixed

#: Shapes of models from 135 million to 70 billion weights, from their published configurations.
MODELS = {
    name: SHAPES[name.lower()]
    for name in ("SmolLM2-135M", "Llama-3.2-1B", "Llama-3.2-3B", "Llama-3-8B", "Llama-3-70B")
}
#: s for a request in a step: vLLM 0.33.0's own schedule() and update_from_output(), on two CPU cores.
VLLM_VISIT = (18e-6, 21e-6)
#: Share of an iteration that scheduling took, %: WukLab, 2024, figures 2 to 4: vLLM 0.5.4 on A100s, 512 tokens a step.
#: Workload -> model -> share: to be read along a row, never across workloads.
CITED_SHARES = {
    "ShareGPT": {"1.3B": 48.1, "8B": 45.9, "70B": 32.1},
    "1,024 in and 1,024 out": {"1.3B": 44.1, "8B": 37.0, "70B": 26.6},
    "1,024 in and 64 out": {"1.3B": 23.7, "8B": 26.5, "70B": 6.7},
    "LooGLE": {"8B": 7.5},
}


def shares_table() -> Table:
    """The cited shares, a workload a row: read along a row, and never from one row into another."""
    models = ("1.3B", "8B", "70B")
    rows = [
        (workload, *(f"{row[model]}%" if model in row else "–" for model in models))
        for workload, row in CITED_SHARES.items()
    ]
    caption = (
        "Scheduling's share of an iteration, median: vLLM 0.5.4 on A100s, 512 tokens a step (WukLab, 2024)"
    )
    return Table(header=("workload", *models), rows=rows, caption=caption)


def visit_cost(seconds: float) -> SchedulerCost:
    """A scheduler that takes so many s for each request in a step, whatever it does there."""
    return SchedulerCost(0.0, seconds, seconds)


# --- more-tasks ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """What prompts asked of a scheduler in one run, for each prompt that was counted.

    visits: steps in which a chunk of it ran. half_built: of these, how many left its cache unfinished, to be
    carried to the next decision. mixed: of these, how many ran beside decodes. block_seconds: blocks it held
    before its first token, times the s it held them. decode_visits: rows beyond a prompt's end, in all.
    """

    visits: float
    half_built: float
    mixed: float
    block_seconds: float
    decode_visits: int


def kept(trace: Trace, rids: Iterable[object], block_size: int = 16) -> Kept:
    """Count visits and state of the prompts of `rids` in a trace. ValueError if there are none."""
    ends = {r.rid: r.n_prompt for r in trace.requests}
    prompts = ends.keys() & set(rids)
    if not prompts:
        raise ValueError(f"none of the {len(trace.requests)} requests is named: nothing to count")
    visits = half = both = decodes = 0
    seconds = 0.0
    for step in trace.steps:
        rows = [c for c in step.batch if c.rid in prompts and c.start < ends[c.rid]]
        n = sum(c.start >= ends[c.rid] for c in step.batch)
        visits, decodes = visits + len(rows), decodes + n
        half += sum(not row.emits for row in rows)
        both += len(rows) if n else 0
        seconds += sum(-(-row.end // block_size) for row in rows) * (step.end - step.start)
    n = len(prompts)
    return Kept(visits / n, half / n, both / n, seconds / n, decodes)


def documents_beside_chats(chunk: int, *, n_prompt: int = 4096, n_chats: int = 8) -> Kept:
    """Four documents, one after another, in chunks of `chunk` beside decoding chats: what they ask for."""
    names = [f"document {i}" for i in range(4)]
    requests = [Request(f"chat {i}", 0.0, 64, 1600) for i in range(n_chats)]
    requests += [Request(name, 1.0 + 4 * i, n_prompt, 8) for i, name in enumerate(names)]
    return kept(simulate(requests, ChunkedPrefill(chunk + n_chats), published("rtx4090")), names)


def more_tasks(*, changed: bool = False) -> Evidence:
    """Visits and state of a prompt, by chunk. changed: prompts that fit the smallest chunk.

    It could fail: rows of the trace are counted, and state need not grow as visits do; block-seconds do not until
    chunks are very short. The flip changes the condition alone, the prompt against the chunk.
    """
    n_prompt, sizes = 32 if changed else 4096, (1024, 256, 64, 32)
    found = {c: documents_beside_chats(c, n_prompt=n_prompt) for c in sizes}
    few, many, last = found[1024], found[64], found[32]
    numbers = [Number(f"visits, chunks of {c:,}", k.visits) for c, k in found.items()]
    numbers += [
        Number(f"decisions with its cache half built, chunks of {c:,}", k.half_built)
        for c, k in found.items()
    ]
    numbers += [Number(f"mixed batches, chunks of {c:,}", k.mixed) for c, k in found.items()]
    numbers += [
        Number(
            f"block-seconds before its first token, chunks of {c:,}",
            float(f"{k.block_seconds:.3g}"),
            "",
            "simulated",
        )
        for c, k in found.items()
    ]
    numbers.append(Number("decoding visits in the whole run, whatever the chunk", many.decode_visits))
    return Evidence(
        claim="more-tasks",
        holds=many.visits >= 0.9 * 16 * few.visits
        and many.mixed >= 0.9 * 16 * few.mixed
        and many.half_built >= 16 * few.half_built > 0
        and last.block_seconds >= 1.8 * many.block_seconds,
        setting=f"four documents of {n_prompt:,} tokens, one after another, beside eight chats that decode, "
        "priced by published kernel timings of Llama-3.1-8B on an RTX 4090; counted for one document.",
        numbers=tuple(numbers),
        otherwise="send prompts of 32 tokens, which fit in the smallest chunk: one visit each, and no state.",
    )


# --- overhead-share -----------------------------------------------------------------------------------


def step_seconds(config: Config, *, chunk: int = 0, n_decodes: int = 32, context: int = 1000) -> float:
    """A step of `config`, priced on an H100 by a roofline (memory for its weights taken for granted)."""
    return Roofline(config)(mixed(chunk=chunk, start=0, n_decodes=n_decodes, context=context))


def share(scheduling: float, step: float) -> float:
    """Of scheduling and step one after the other, the share of the scheduling."""
    return scheduling / (scheduling + step)


def priced_shares(visit: float | SchedulerCost, *, chunk: int = 0, n_decodes: int = 32) -> dict[str, float]:
    """Model -> share of a step. visit: s to schedule each request in it, or the cost of scheduling a step."""
    cost = visit if isinstance(visit, SchedulerCost) else visit_cost(visit)
    scheduling = cost(mixed(chunk=chunk, start=0, n_decodes=n_decodes, context=1000))
    return {
        name: share(scheduling, step_seconds(config, chunk=chunk, n_decodes=n_decodes))
        for name, config in MODELS.items()
    }


def overhead_share(*, changed: bool = False) -> Evidence:
    """Scheduling's share of a step, short ones and long ones. changed: a visit costs next to nothing.

    It could fail: the priced shares follow from the cost of a visit, so the verdict also asks the clock: on our
    engine the share of a short step has to be three times that of a long one, at least. The flip changes the
    condition alone, the cost of a visit.
    """
    from chunkprefill_course.evidence.parts import measured_shares, visit_fits

    visit = VLLM_VISIT[1] / (100 if changed else 1)
    decodes, chunks = priced_shares(visit), priced_shares(visit, chunk=2048)
    measured = (1.0, 0.0) if changed else tuple(measured_shares().values())  # a short step, a long one
    numbers = [
        Number(f"{name}, 32 decodes", round(100 * x, 1), "%", "simulated") for name, x in decodes.items()
    ]
    numbers += [
        Number(f"{name}, and a chunk of 2,048", round(100 * x, 1), "%", "simulated")
        for name, x in chunks.items()
    ]
    if not changed:
        ours = priced_shares(visit_fits()["all"].cost)
        numbers += [
            Number(f"{name}, 32 decodes, our engine's cost here", x, "%", "measured")
            for name, x in ours.items()
        ]
        numbers += [Number(label, x, "%", "measured") for label, x in measured_shares().items()]
        numbers += [
            Number(f"vLLM 0.5.4 on A100s, 2024, {workload}: {model}", x, "%", "published")
            for workload, row in CITED_SHARES.items()
            for model, x in row.items()
        ]
    small, large = min(chunks.values()), max(decodes.values())
    return Evidence(
        claim="overhead-share",
        holds=large >= 0.2 and small <= 0.05 and measured[0] >= 3 * measured[1],
        setting=f"each request in a step costs {1e6 * visit:g} µs to schedule"
        + ("" if changed else ", as in vLLM 0.33's own scheduler on two CPU cores")
        + "; steps priced on an H100 by a roofline; scheduling and step one after the other."
        + ("" if changed else " Measured: our own engine on this CPU, two models of its size."),
        numbers=tuple(numbers),
        otherwise="let a visit cost a hundredth of that: the share is small however short the step.",
        timed=not changed,
    )


# --- overlap ------------------------------------------------------------------------------------------


SHORT = (64, 60)  # prompt and output tokens: short contexts, where a step is shortest beside its scheduling


def overlapped(config: Config, visit: float, *, n: int = 64) -> dict[str, float]:
    """Mean s a step of `n` decodes: free scheduling, serial, overlapped; and of the scheduling itself."""
    requests = [Request(i, 0.0, *SHORT) for i in range(n)]
    policy, cost = ChunkedPrefill(n + 512), Roofline(config)
    found = {}
    for name, price, overlap in (
        ("free", 0.0, False),
        ("serial", visit, False),
        ("overlapped", visit, True),
    ):
        trace = simulate(requests, policy, cost, scheduling=visit_cost(price), overlap=overlap)
        # From one decoding step's end to the next's: prompts are done, and no request has finished.
        ends = [step.end for step in trace.steps if step.batch.totals().n_decodes == n]
        found[name] = (ends[-1] - ends[0]) / (len(ends) - 1)
    return found | {"scheduling": n * visit}


def overlap(*, changed: bool = False) -> Evidence:
    """Scheduling under the step before. changed: a model whose step is shorter than its scheduling.

    It could fail: both loops are run, and a loop that waits for the last step's tokens before it schedules hides
    nothing. The flip changes the condition in the sentence alone, the step against its scheduling.
    """
    name = "SmolLM2-135M" if changed else "Llama-3-8B"
    found = overlapped(MODELS[name], VLLM_VISIT[1])
    exposed = {how: found[how] - found["free"] for how in ("serial", "overlapped")}
    numbers = [
        Number("scheduling a step", round(1e3 * found["scheduling"], 2), "ms", "simulated"),
        Number("the step itself", round(1e3 * found["free"], 2), "ms", "simulated"),
        Number("serial, a step takes", round(1e3 * found["serial"], 2), "ms", "simulated"),
        Number("overlapped, a step takes", round(1e3 * found["overlapped"], 2), "ms", "simulated"),
        Number("not hidden by overlap", round(1e3 * exposed["overlapped"], 2) + 0.0, "ms", "simulated"),
        Number(
            "of what a serial step pays",
            round(100 * exposed["overlapped"] / exposed["serial"]) + 0.0,
            "%",
            "simulated",
        ),
    ]
    return Evidence(
        claim="overlap",
        holds=exposed["overlapped"] <= 0.02 * exposed["serial"],
        setting=f"{name} on an H100 by a roofline, 64 requests that decode with at most {sum(SHORT)} tokens cached, each costing "
        f"{1e6 * VLLM_VISIT[1]:g} µs a step to schedule, as in vLLM 0.33's own scheduler.",
        numbers=tuple(numbers),
        otherwise="take SmolLM2-135M: its step is over before the next one is scheduled, and the difference "
        "shows.",
    )
