"""Evidence about what small chunks cost on the recorded GPU: weights read again, the cache read again, launching."""

from __future__ import annotations

from dataclasses import dataclass

from chunkprefill.configs import DEVICES, MODELS
from chunkprefill.plots.style import Table
from chunkprefill.simulation.cost import Roofline
from chunkprefill.simulation.layout import Layout, Shard
from chunkprefill.simulation.published import published
from chunkprefill_course.evidence.evidence import Evidence, Number
from chunkprefill_course.evidence.tradeoff import mixed
from chunkprefill_course.gpu_recording import digest, recorded

LARGE, SMALL = "Llama-3-8B", "Qwen3-0.6B"  # recorded both, on one host
N_PROMPT = 8192
FEW, MANY = (
    (64, 128, 256),
    (2048, 4096),
)  # tokens of chunks whose kernels are short, and of such that are long
AS_LONG = 2.0  # of two passes: the one takes less than so many times the other


@dataclass(frozen=True)
class Prefilled:
    """A prompt of 8,192 tokens in chunks on the recorded GPU; s. least, most: of `runs` runs.

    weights, cache: what the products with the weights, and attention, add to those of one pass over the whole
    prompt, by published kernel timings. Tiles that fit better can make either a little negative.
    """

    chunk: int
    passes: int
    seconds: float
    least: float
    most: float
    runs: int
    weights: float
    cache: float

    @property
    def a_pass(self) -> float:
        """s of one pass, on average."""
        return self.seconds / self.passes

    def rest(self, one: Prefilled) -> float:
        """s longer than in one pass that neither reading explains."""
        return self.seconds - one.seconds - self.weights - self.cache


def priced_parts(model: str, chunk: int, n: int = N_PROMPT) -> tuple[float, float]:
    """s of prefilling n tokens in chunks on an H100: the products with the weights, attention."""
    cost = published("h100", MODELS[model.lower()])
    passes = [(start, min(chunk, n - start)) for start in range(0, n, chunk)]
    products = sum(cost.linear(length) for _, length in passes)
    attention = sum(cost.chunk_attention([piece]) for piece in passes)
    return cost.config.n_layers * products, cost.config.n_layers * attention


def prefilled(model: str = LARGE) -> list[Prefilled]:
    """The recorded prefillings of one prompt, the smallest chunks first; [] where nothing was recorded."""
    rows = sorted(recorded("chunks", model=model).rows, key=lambda row: row["chunk"]) if digest() else []
    whole = priced_parts(model, N_PROMPT)
    found = []
    for row in rows:
        weights, cache = (part - once for part, once in zip(priced_parts(model, row["chunk"]), whole))
        time = (row["s"], row["s_least"], row["s_most"])
        found.append(Prefilled(row["chunk"], row["passes"], *time, row["runs"], weights, cache))
    return found


def split_table(model: str = LARGE) -> Table:
    """What each chunk size adds to one pass: measured with its runs, what reading explains, and the rest."""
    rows = prefilled(model)
    one = rows[-1]
    cells = [
        (
            f"{r.chunk:,}",
            f"{r.seconds - one.seconds:.2f} ({r.least - one.seconds:.2f}–{r.most - one.seconds:.2f})",
            *(f"{round(s, 2) + 0.0:.2f}".replace("-", "−") for s in (r.weights, r.cache, r.rest(one))),
        )
        for r in rows
        if r.chunk <= 1024
    ]
    return Table(
        header=("chunk", "longer, s", "weights", "cache", "rest"),
        rows=cells,
        caption=f"{model}, a prompt of {N_PROMPT:,} tokens, s longer than in one pass: recorded, middle one of "
        f"{one.runs} runs (shortest–longest). Weights and cache read again: priced, as in chapter 2",
    )


def passes_table() -> Table:
    """A pass of two models, one with a small part of the other's weights, by chunk."""
    both = {model: {r.chunk: r for r in prefilled(model)} for model in (LARGE, SMALL)}
    cells = []
    for chunk in (*FEW, 512, 1024, *MANY):
        large, small = (both[model][chunk] for model in (LARGE, SMALL))
        cells.append((f"{chunk:,}", _ms(large), _ms(small)))
    runs = both[LARGE][FEW[0]].runs
    return Table(
        header=("chunk", f"{LARGE}, ms", f"{SMALL}, ms"),
        rows=cells,
        caption=f"One pass, on average over a prompt of {N_PROMPT:,} tokens: middle one of {runs} runs "
        "(shortest–longest)",
    )


def _ms(row: Prefilled) -> str:
    return f"{1e3 * row.a_pass:.1f} ({1e3 * row.least / row.passes:.1f}–{1e3 * row.most / row.passes:.1f})"


def launch_floor(*, changed: bool = False) -> Evidence:
    """Passes of a large and of a small model, recorded on one host. changed: long chunks.

    It could fail: a host that launches fast enough would let the large model's pass take as many times the small
    one's as its kernels say, and the ratios of the claimed side would be the priced ones.
    """
    chunks = MANY if changed else FEW
    both = {model: {r.chunk: r for r in prefilled(model)} for model in (LARGE, SMALL)}
    numbers, ratios = [], []
    for chunk in chunks:
        large, small = (both[model][chunk] for model in (LARGE, SMALL))
        ratios.append(large.a_pass / small.a_pass)
        priced = [sum(priced_parts(model, chunk)) for model in (LARGE, SMALL)]
        for model, row in ((LARGE, large), (SMALL, small)):
            numbers.append(
                Number(f"{model}, chunks of {chunk:,}: a pass", round(1e3 * row.a_pass, 1), "ms", "recorded")
            )
        numbers += [
            Number(f"chunks of {chunk:,}: larger over smaller", round(ratios[-1], 2), "×", "recorded"),
            Number(f"chunks of {chunk:,}: kernels alone", round(priced[0] / priced[1], 1), "×", "simulated"),
        ]
    read = [Shard(MODELS[model.lower()], Layout()).weight_bytes for model in (LARGE, SMALL)]
    numbers.append(Number("weights, larger over smaller", round(read[0] / read[1], 1), "×", "counted"))
    runs = both[LARGE][FEW[0]].runs
    return Evidence(
        claim="launch-floor",
        holds=max(ratios) < AS_LONG,
        setting=f"a prompt of {N_PROMPT:,} tokens in chunks, launched kernel by kernel on one GPU and host, "
        f"{runs} runs of each: {LARGE}, and {SMALL}, which has a small part of its weights.",
        numbers=tuple(numbers),
        otherwise="take long chunks: their kernels outlast their launches, and the larger model takes longer.",
    )


# --- where reading the weights stops to be the limit --------------------------------------------------


def saturation(model: str, device: str = "h100", dtype: str = "bf16") -> int:
    """Tokens in a pass from which arithmetic takes longer than reading the layers' weights, by a device's sheet.

    Of an MoE the weights are those of the experts that so many tokens touch.
    """
    layout = Layout(dtype)
    cost = Roofline.of(DEVICES[device], MODELS[model], layout)
    shard = Shard(MODELS[model], layout)
    low, high = 1, 1 << 20
    while low < high:
        n = (low + high) // 2
        enough = 2 * shard.active_params * n / cost.flops >= shard.read_bytes(n) / cost.bandwidth
        low, high = (low, n) if enough else (n + 1, high)
    return low


# --- where the recording and a price disagree ---------------------------------------------------------


def riding_rows() -> list[tuple[int, float, float]]:
    """(chunk, saved as recorded, saved as priced) of 16 decodes at context 128 beside a chunk on an H100."""
    price, found = published("h100"), []
    for row in recorded("piggyback", model=LARGE).rows if digest() else ():
        if (row["decodes"], row["context"]) == (16, 128):
            chunk, some = row["chunk"], {"n_decodes": 16, "context": 128}
            added = price(mixed(chunk=chunk, **some)) - price(mixed(chunk=chunk))
            found.append((chunk, row["saves"], price(mixed(**some)) / added))
    return found
