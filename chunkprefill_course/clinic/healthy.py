"""Healthy servers and their loads, drawn from a seed; what is planted in them stands in `faults`."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from chunkprefill.configs import DEVICES
from chunkprefill.configs import MODELS as SHAPES
from chunkprefill.scheduling.core import Batch, Request
from chunkprefill.simulation.cost import SchedulerCost
from chunkprefill.simulation.kernels import Kernels
from chunkprefill.simulation.published import FITS, published
from chunkprefill_course.clinic.server import Machine, Settings

MODELS = {
    "1.2 billion": SHAPES["llama-3.2-1b"],
    "3.2 billion": SHAPES["llama-3.2-3b"],
    "8.0 billion": SHAPES["llama-3-8b"],
    "14.8 billion": SHAPES["qwen2.5-14b"],
}
CLASSES = (
    ("chats", "documents"),
    ("questions", "reports"),
    ("completions", "repositories"),
    ("searches", "contracts"),
    ("replies", "transcripts"),
    ("commands", "logs"),
)
FULL_STEP = (0.009, 0.075)  # s: what a healthy server's full step may take
BLOCK = 16  # tokens
STEPS = 800  # of a run, about
LAUNCH = (5e-6, 60e-6)  # s of the CPU for a kernel: a fast one, and PyTorch's own operators on a slow one
KERNELS = 10  # in a layer, as `CudaGraphs` counts


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What comes: two classes of requests, by prompt and output tokens (least, most), and how often."""

    names: tuple[str, str]
    short: tuple[tuple[int, int], tuple[int, int]]
    long: tuple[tuple[int, int], tuple[int, int]]
    n_short: int
    n_long: int
    rate: float = 1.0  # requests/s

    @property
    def limit(self) -> int:
        """Prompt tokens above which a request is a long one."""
        return self.short[0][1]

    @property
    def means(self) -> tuple[float, float]:
        """Prompt and output tokens of a request, on average."""
        n = self.n_short + self.n_long
        kinds = ((self.n_short, self.short), (self.n_long, self.long))
        prompt, output = (sum(k * sum(lengths[i]) / 2 for k, lengths in kinds) / n for i in (0, 1))
        return prompt, output

    def requests(self, rng: random.Random) -> tuple[Request, ...]:
        """Poisson arrivals; the long ones spread over the run."""
        n, now, made = self.n_short + self.n_long, 0.0, []
        every = n / self.n_long if self.n_long else 0.0
        places = {int((i + rng.uniform(0.2, 0.8)) * every) for i in range(self.n_long)}
        for i in range(n):
            now += rng.expovariate(self.rate)
            prompt, output = self.long if i in places else self.short
            made.append(Request(i, round(now, 6), rng.randint(*prompt), rng.randint(*output)))
        return tuple(made)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A healthy server under its load."""

    machine: Machine
    load: Traffic
    requests: tuple[Request, ...]
    healthy: Settings
    size: int  # tokens of a full step
    margins: tuple[float, float, float]  # promised / what the healthy server does, one for each promise


def scene(rng: random.Random, fault: str) -> Scene | None:
    """One try at a healthy server in which this fault would show; None where it cannot."""
    device, (model, config) = rng.choice(list(FITS)), rng.choice(list(MODELS.items()))
    memory = 0.9 * DEVICES[device].memory - 2 * config.n_params
    if memory < 4e9:
        return None
    cost = published(device, config, overhead=rng.choice((0.0, 0.0003, 0.001)))
    load = _load(rng, fault)
    cut = fault == "chunk-too-small" or (fault != "tile-unfriendly" and rng.random() < 0.4)
    sizes = [k * cost.fit.tile for k in (2, 3, 4, 5, 6, 8)]
    if fault != "tile-unfriendly" and rng.random() < 0.5:
        sizes = [250, 375, 500, 640, 750, 1000]  # close below a multiple, or at one
    if cut:
        sizes = [208, 336, 464, 592, 720, 976]  # with the decodes beside it
    prompt, output = load.means
    share = output / (prompt + output)  # of tokens that are decodes
    least, most = FULL_STEP
    fitting = [b for b in sizes if least <= _step(cost, share * b, b - share * b, load) <= most]
    if not fitting:
        return None
    size = rng.choice(fitting)
    busy = rng.uniform(0.8, 0.92) if fault == "tile-unfriendly" else rng.uniform(0.45, 0.75)
    decodes = min(busy * size * share, rng.uniform(40, 70) if "decodes" in fault else rng.uniform(12, 40))
    seconds = _step(cost, decodes, decodes * prompt / output, load)
    rate = decodes / (output * seconds)
    n = max(60, min(int(STEPS * rate * seconds), 200))
    n_long = round(n * load.n_long / (load.n_long + load.n_short))
    load = replace(load, rate=rate, n_long=n_long, n_short=n - n_long)
    fast = SchedulerCost(rng.uniform(1e-4, 4e-4), rng.uniform(2e-6, 6e-6), rng.uniform(4e-6, 1e-5), 1e-8)
    # A CPU that takes x of the time for its rows, whatever their number.
    row = rng.uniform(0.4, 0.65) / (rate * output)
    slow = SchedulerCost(rng.uniform(3e-4, 1e-3), row, row, 1e-8)
    launch = _launch(random.Random(f"{size} {rate} launch"), fault, seconds, config.n_layers)
    if not LAUNCH[0] <= launch <= LAUNCH[1]:
        return None
    name = f"{cost.device.name}, a model of {model} parameters"
    machine = Machine(name=name, cost=cost, fast=fast, slow=slow, launch=launch)
    healthy = Settings(
        token_budget=size + rng.choice((128, 256, 512)) if cut else size,
        chunk=size if cut else rng.choice((4096, 8192)),
        n_blocks=int(rng.uniform(0.7, 1) * memory / (BLOCK * 4 * config.n_layers * config.d_kv)),
        order="shortest" if load.n_long else rng.choice(("arrival", "shortest")),
    )
    if fault == "healthy":  # what looks suspicious need not be a fault
        if rng.random() < 0.25:
            healthy = replace(healthy, first="prompts")
        elif rng.random() < 0.3:
            healthy = replace(healthy, order="arrival")
    requests = load.requests(rng)
    margins = (rng.uniform(1.1, 1.22), rng.uniform(1.35, 1.8), rng.uniform(1.3, 1.6))
    return Scene(machine=machine, load=load, requests=requests, healthy=healthy, size=size, margins=margins)


def _launch(rng: random.Random, fault: str, seconds: float, n_layers: int) -> float:
    """Seconds of the CPU for a kernel; drawn apart, so that the cases drawn before there was such a row stay."""
    if fault != "launch-bound":
        return rng.uniform(5e-6, 20e-6)
    return rng.uniform(1.7, 2.3) * seconds / (KERNELS * n_layers)


def _load(rng: random.Random, fault: str) -> Traffic:
    """Who comes. Some faults need company: long prompts to stand behind, or long answers."""
    low, answer = rng.randint(120, 500), rng.randint(50, 130)
    documents = rng.random() < 0.5  # whether there are any, and how many of a hundred requests
    n_long = rng.randint(3, 8) if documents else 0
    if fault in ("budget-below-decodes", "pool-too-small"):
        low, answer = rng.randint(20, 45), rng.randint(220, 350)
        n_long = 0 if fault == "budget-below-decodes" else n_long
    elif fault == "tile-unfriendly":
        low, answer = rng.randint(250, 700), rng.randint(25, 70)
    elif fault == "healthy" and rng.random() < 0.3:
        low, answer = rng.randint(20, 120), rng.randint(120, 300)
    elif fault in ("long-head", "prefill-first", "budget-too-large"):
        n_long = rng.randint(4, 10)
    first = rng.randint(2500, 7000)
    return Traffic(
        names=rng.choice(CLASSES),
        short=((low, int(low * rng.uniform(1.5, 3))), (answer, int(answer * rng.uniform(1.3, 2)))),
        long=((first, int(first * rng.uniform(1.2, 1.7))), (rng.randint(10, 30), rng.randint(40, 80))),
        n_short=100 - n_long,
        n_long=n_long,
    )


def _step(cost: Kernels, decodes: float, chunk: float, load: Traffic) -> float:
    """Seconds of a step of so many decodes and prompt tokens of this load."""
    n, (prompt, output) = round(decodes), load.means
    rows = [(int(prompt + output / 2), 1)] * n + [(int(prompt / 2), round(chunk))] * (chunk >= 1)
    starts, lengths = zip(*rows)
    return cost(Batch(tuple(range(len(rows))), starts, lengths, (True,) * len(rows)))
