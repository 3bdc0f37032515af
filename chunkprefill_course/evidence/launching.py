"""Evidence about CUDA graphs: what a step without one loses, recorded; what padding costs, priced."""

from __future__ import annotations

from chunkprefill.simulation.cuda_graphs import VLLM_SIZES, CudaGraphs
from chunkprefill.simulation.published import published
from chunkprefill_course.evidence.evidence import Evidence, Number
from chunkprefill_course.evidence.overhead import MODELS
from chunkprefill_course.evidence.tradeoff import mixed
from chunkprefill_course.gpu_recording import Row, digest, where_from
from chunkprefill_course.real_engines import Folded

POWERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
CONTEXT = 1000


SHORT = ((1, 2048), (8, 128))  # (decodes, context) of steps whose kernels are short
LONG = ((64, 2048), (16, 8192))


def _pairs() -> dict[tuple[str, int, int], tuple[Row, Row]]:
    """(model, decodes, context) -> the recorded step launched kernel by kernel, and from a full graph."""
    found: dict[tuple[str, int, int], dict[bool, Row]] = {}
    for row in digest().get("rows", ()):
        if row.get("section") == "decodes" and row.get("blocks") == "in runs":
            key = (row["model"], row["decodes"], row["context"])
            found.setdefault(key, {})[bool(row["graphs"])] = row
    return {key: (ways[False], ways[True]) for key, ways in found.items() if len(ways) == 2}


def graph_rows() -> dict[tuple[str, int, int], tuple[float, float]]:
    """(model, decodes, context) -> s of the recorded step launched kernel by kernel, and from a full graph."""
    return {key: (eager["s"], graph["s"]) for key, (eager, graph) in _pairs().items()}


def graph_table() -> Folded:
    """Recorded decoding steps, some short and some long, with and without a full graph, and the range of their runs; folded."""
    found = _pairs()
    rows = [
        (f"{model}: {n} at {context:,}", _ms(eager), _ms(graph))
        for (model, n, context), (eager, graph) in sorted(found.items())
        if (n, context) in SHORT + LONG
    ]
    runs = min((row["runs"] for pair in found.values() for row in pair), default=0)
    header = ("decodes at context", "kernel by kernel, ms", "from a graph, ms")
    caption = f"Recorded: {where_from(digest())}; medians of {runs} passes (shortest–longest)"
    return Folded(header=header, rows=rows, caption=caption)


def _ms(row: Row) -> str:
    return f"{1e3 * row['s']:.1f} ({1e3 * row['s_least']:.1f}–{1e3 * row['s_most']:.1f})"


def lost_graphs(*, changed: bool = False) -> Evidence:
    """Recorded steps kernel by kernel over the same from a full graph. changed: steps of many long contexts.

    It could fail: the rows were recorded before this claim was worded, and the sentence that it replaces ("on a
    large model nothing is lost") fails on them. The flip changes the condition alone, how long the contexts are.
    """
    found = graph_rows()
    wanted = LONG if changed else SHORT
    ratios = {key: eager / graph for key, (eager, graph) in found.items() if key[1:] in wanted}
    numbers = []
    for model, n, context in sorted(ratios):
        eager, graph = found[model, n, context]
        label = f"{model}, {n} at {context:,}"
        numbers += [
            Number(f"{label}: kernel by kernel", round(1e3 * eager, 2), "ms", "recorded"),
            Number(f"{label}: from a full graph", round(1e3 * graph, 2), "ms", "recorded"),
        ]
    large = [ratio for (model, *_), ratio in ratios.items() if model == "Llama-3-8B"]
    return Evidence(
        claim="lost-graphs",
        holds=bool(large) and min(large) > 1.5,
        setting=f"decoding steps of two models on a GPU, {where_from(digest())}: the same step launched kernel by "
        "kernel and replayed from a full graph.",
        numbers=tuple(numbers),
        otherwise="put many long contexts into the step: their kernels hide most of the launching.",
    )


def padding(*, changed: bool = False) -> Evidence:
    """Each number of decodes, padded to the next size that vLLM records. changed: powers of two only.

    It could fail: every number of decodes is priced with and without its padding, and the worst one decides. The
    flip changes the condition alone, how close together the recorded sizes lie.
    """
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
