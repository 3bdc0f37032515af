"""The bench of a device: its models, its clock, and how much time is left."""

from __future__ import annotations

import gc
import random
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from time import perf_counter
from typing import Any, TypeVar

import torch

from benchmarks.gpu.roofline import Ceilings, SequencePart
from benchmarks.runner import turn
from chunkprefill.configs import MODELS as SHAPES
from chunkprefill.engine import Engine
from chunkprefill.model.cache import KVCache
from chunkprefill.model.config import Config
from chunkprefill.model.graphs import DecodeGraphs
from chunkprefill.model.transformer import Transformer
from chunkprefill.model.weights import _empty
from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.core import Batch, Request, Rid
from chunkprefill.scheduling.policies import ChunkedPrefill

K = TypeVar("K")
JsonRow = dict[str, Any]
POSITIONS = (
    40_960  # tokens: room for the longest prompt measured; the weights are random, so none was trained
)
#: Shapes by the names of the models that have them (their published config.json); more positions than theirs.
MODELS = {
    name: replace(SHAPES[name.lower()], max_positions=POSITIONS)
    for name in ("SmolLM2-135M", "Qwen3-0.6B", "Llama-3-8B")
}
MODELS["tiny"] = replace(SHAPES["tiny"], max_positions=1024)


def random_on(config: Config, *, seed: int, device: str | torch.device, dtype: torch.dtype) -> Transformer:
    """Random weights drawn on the device itself: `random_model` takes minutes for eight billion of them.

    Seeded, but not the same numbers on every device.
    """
    generator = torch.Generator(device).manual_seed(seed)
    model = _empty(config, device, dtype)
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            weight.uniform_(-0.1, 0.1, generator=generator).add_(1.0 if "norm" in name else 0.0)
        else:
            variance = 0.05 if name == "embedding" else 1 / weight.shape[-1]
            bound = (3 * variance) ** 0.5
            weight.uniform_(-bound, bound, generator=generator)
    return model


@dataclass(eq=False)
class Lab:
    """Where sections measure: the device, the size of the grids, and a clock that says when to stop.

    size: "tiny" (in the tests), "smoke" (a point or two of each) or "full".
    """

    device: str
    dtype: torch.dtype
    backend: str | None  # of attention; None is the fastest that runs
    size: str
    seed: int = 0
    ceilings: Ceilings | None = None
    deadline: float = float("inf")  # of the section under way, by perf_counter
    cut: str = ""  # what a section left out for want of time
    _models: dict[str, Transformer] = field(default_factory=dict)
    _engines: dict[str, Engine] = field(default_factory=dict)
    _graphs: dict[str, DecodeGraphs] = field(default_factory=dict)

    @property
    def cuda(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def top(self) -> Ceilings:
        """The ceilings of this run; RuntimeError before they were measured."""
        if self.ceilings is None:
            raise RuntimeError("the ceilings were not measured: without them there is no fraction to state")
        return self.ceilings

    def pick(self, *, tiny: K, smoke: K, full: K) -> K:
        """The grid of this size."""
        return {"tiny": tiny, "smoke": smoke, "full": full}[self.size]

    def late(self, what: str = "") -> bool:
        """Whether this section has used up its share; `what` is then written down as left out."""
        if perf_counter() < self.deadline:
            return False
        self.cut = self.cut or what or "the remaining rows"
        return True

    # --- models and caches ----------------------------------------------------------------------------
    def names(self) -> list[str]:
        """The models whose weights and caches fit on this device; smaller ones first."""
        if self.size == "tiny":
            return ["tiny"]
        if not self.cuda:
            return ["SmolLM2-135M"]
        memory = torch.cuda.get_device_properties(self.device).total_memory
        wide = self.dtype.itemsize
        return [name for name, c in MODELS.items() if name != "tiny" and 2 * c.weight_bytes(wide) < memory]

    @property
    def main(self) -> str:
        """The largest model that fits."""
        return self.names()[-1]

    def model(self, name: str) -> Transformer:
        if name not in self._models:
            began = perf_counter()
            self._models[name] = random_on(MODELS[name], seed=self.seed, device=self.device, dtype=self.dtype)
            self.sync()
            say(f"{name}: random weights in {perf_counter() - began:.1f} s")
        return self._models[name]

    def cache(self, name: str, n_tokens: int) -> KVCache:
        """An empty cache of one sequence, read by the attention of this run."""
        model = self.model(name)
        return KVCache(model.config, n_tokens, dtype=self.dtype, device=self.device, backend=self.backend)

    def engine(self, name: str, n_tokens: int) -> Engine:
        """An engine whose cache holds `n_tokens` tokens and is full of random numbers, one a model."""
        engine = self._engines.get(name)
        blocks = -(-n_tokens // 16)
        if engine is None or (engine.pool is None or (engine.pool.n_blocks or 0) < blocks):
            for kept in (self._engines, self._graphs):
                kept.pop(name, None)
            engine = None
            self.tidy()
            engine = Engine(self.model(name), ChunkedPrefill(512), BlockPool(blocks), backend=self.backend)
            engine.cache.reserve(blocks)
            for store in (engine.cache.keys, engine.cache.values):
                store.uniform_(-1, 1)  # a card at work on zeros draws less power, and so runs faster
            self._engines[name] = engine
        return engine

    def step(
        self, name: str, rows: Sequence[SequencePart], *, scattered: bool = False, graphs: bool = False
    ) -> Callable[[], tuple[float, float]]:
        """One step of an engine, to be run again and again: seconds of the pass, and of the whole step.

        The pass is timed by events on the device. The whole step is wall time: inputs built, the pass
        launched, its tokens read. scattered: the blocks of the caches lie anywhere, not in runs. graphs: the
        pass is played back from a CUDA graph; ValueError where it cannot be.
        """
        engine = self.engine(name, self.steps_tokens)
        if graphs and name not in self._graphs:
            self._graphs[name] = DecodeGraphs(self.model(name), engine.cache)
        engine.graphs = self._graphs[name] if graphs else None
        rids = tuple(range(len(rows)))
        requests = tuple(Request(i, 0.0, row.start + row.length, 1) for i, row in enumerate(rows))
        pool = engine.cache.pool.copy()
        sizes = [pool.blocks_for(row.start + row.length) for row in rows]
        blocks = pool.take(sum(sizes))
        if scattered:
            random.Random(self.seed).shuffle(blocks)
        taken = iter(blocks)
        tables: dict[Rid, list[int]] = {i: list(islice(taken, size)) for i, size in enumerate(sizes)}
        batch = Batch(rids, *(tuple(column) for column in zip(*rows)))
        executor = engine.executor(requests)

        def run() -> tuple[float, float]:
            self.sync()
            began = perf_counter()
            seconds, _ = executor.launch(batch, tables).wait()
            return seconds, perf_counter() - began

        return run

    @property
    def steps_tokens(self) -> int:
        """Tokens that the caches of a step may hold in all."""
        return self.pick(tiny=2048, smoke=140_000, full=140_000)

    def forget(self) -> None:
        """Let go of the engines' caches; the weights stay."""
        self._engines.clear()
        self._graphs.clear()
        self.tidy()

    def tidy(self) -> None:
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()

    # --- the clock ------------------------------------------------------------------------------------
    def sync(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def timed(self, work: Callable[[], Any]) -> Callable[[], float]:
        """`work`, returning its seconds: by events around it on a GPU, by the wall clock elsewhere."""

        def run() -> float:
            self.sync()
            if not self.cuda:
                began = perf_counter()
                work()
                return perf_counter() - began
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
            work()
            last.record()
            last.synchronize()
            return float(first.elapsed_time(last)) / 1e3

        return run

    def rounds(
        self, work: Mapping[K, Callable[[], Any]], repeats: int, *, warm: int = 1
    ) -> dict[K, list[Any]]:
        """What each piece of work returns, once a round, in turn, then the other way; `warm` rounds are lost.

        Stops after a whole round where the section's time is up; one round is always run.
        """
        samples: dict[K, list[Any]] = {key: [] for key in work}
        for i in range(warm + repeats):
            if i > warm and self.late(f"repeats beyond {i - warm} of {repeats}"):
                break
            for key in turn(work, i):
                found = work[key]()
                if i >= warm:
                    samples[key].append(found)
        return samples


def median(samples: Sequence[float]) -> float:
    return float(statistics.median(samples))


def in_groups(items: Sequence[K], n: int) -> Iterator[Sequence[K]]:
    """The items, `n` at a time."""
    for first in range(0, len(items), n):
        yield items[first : first + n]


def say(line: str) -> None:
    """To standard error, at once: a person who waits sees where the run is."""
    print(line, file=sys.stderr, flush=True)
