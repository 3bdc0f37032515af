"""Evidence about CUDA graphs, priced: what a step with a chunk loses, and what padding costs."""

from __future__ import annotations

from chunkprefill.analysis.graphs import VLLM_SIZES, CudaGraphs
from chunkprefill.evidence.evidence import Evidence, Number
from chunkprefill.evidence.overhead import MODELS
from chunkprefill.evidence.tradeoff import mixed
from chunkprefill.simulation.published import published

POWERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
N_DECODES, CHUNK, CONTEXT = 30, 64, 1000


def _ms(label: str, seconds: float) -> Number:
    return Number(label, round(1e3 * seconds, 2), "ms", "simulated")


def lost_graphs(*, changed: bool = False) -> Evidence:
    """A decoding step, then the same with a chunk beside it. changed: a model of 8 billion parameters."""
    name = "Llama-3-8B" if changed else "SmolLM2-135M"
    full, pieces = (
        CudaGraphs(cost=published("h100", MODELS[name]), mode=mode) for mode in ("decodes", "decodes, pieces")
    )
    alone = mixed(n_decodes=N_DECODES, context=CONTEXT)
    beside = mixed(chunk=CHUNK, n_decodes=N_DECODES, context=CONTEXT)
    lost = full(beside) / full.cost(beside)  # how far the step is from what its kernels need
    return Evidence(
        claim="lost-graphs",
        holds=full(alone) < 1.1 * full.cost(alone) and lost > 1.5,
        setting=f"{name} on an H100 by published kernel timings, {N_DECODES} decodes at context {CONTEXT:,}, "
        f"with a chunk of {CHUNK} and without; full graphs are recorded for decodes. A launch takes "
        f"{1e6 * full.launch:g} µs and a replay {1e6 * full.replay:g} µs of the processor, by assumption.",
        numbers=(
            _ms("decodes: their kernels", full.cost(alone)),
            _ms("decodes, from a full graph", full(alone)),
            _ms("with the chunk: the kernels", full.cost(beside)),
            _ms("with the chunk, launched one by one", full(beside)),
            _ms("with the chunk, graphs in pieces", pieces(beside)),
            Number("the step over its kernels", round(lost, 2), "×", "simulated"),
        ),
        otherwise="take Llama-3-8B: its kernels are so long that launching runs ahead of them.",
    )


def padding(*, changed: bool = False) -> Evidence:
    """Each number of decodes, padded to the next size that vLLM records. changed: powers of two only."""
    sizes = POWERS if changed else VLLM_SIZES
    numbers, worst = [], 0.0
    for name in ("SmolLM2-135M", "Llama-3-8B", "Llama-3-70B"):
        graphs = CudaGraphs(cost=published("h100", MODELS[name]), sizes=sizes)
        steps = [mixed(n_decodes=n, context=CONTEXT // 2) for n in range(1, sizes[-1] + 1)]
        more = [graphs.device(step) / graphs.cost(step) - 1 for step in steps]
        worst = max(worst, *more)
        n = more.index(max(more)) + 1
        label = f"{name}, at worst ({n} decodes run as {graphs.padded(steps[n - 1])})"
        numbers.append(Number(label, round(100 * max(more), 1), "%", "simulated"))
    return Evidence(
        claim="padding",
        holds=worst < 0.05,
        setting=f"1 to {sizes[-1]} decodes at context {CONTEXT // 2}, each padded to the next of "
        f"{len(sizes)} recorded sizes, on an H100 by published kernel timings: how much longer the step is.",
        numbers=tuple(numbers),
        otherwise="record powers of two only: above the saturation point the rows that pad are work.",
    )
