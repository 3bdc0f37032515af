"""Measure an engine step by step and fit its cost, so that the simulator speaks of your machine."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from statistics import median

from chunkprefill.engine import Engine, check_engine, replay
from chunkprefill.scheduling.core import Batch, Request, Rid, Step
from chunkprefill.scheduling.policies import ChunkedPrefill
from chunkprefill.scheduling.trace import Trace
from chunkprefill.simulation.calibration import Calibrated, fit, fit_host, prediction_errors, reprice
from chunkprefill.simulation.simulate import simulate

Rows = tuple[tuple[int, int], ...]  # one step: (positions before, tokens) of each chunk


def calibrate(
    engine: Engine,
    *,
    max_tokens: int = 512,
    max_context: int = 1024,
    max_decodes: int = 16,
    repeats: int = 3,
    seed: int = 0,
    progress: bool = True,
    about: str = "",
) -> Calibrated:
    """The cost of `engine`, fitted to steps made for it, and its errors on a mixed run that it never saw.

    max_tokens: largest step; max_context: longest sequence; both in tokens, within the model's positions.
    max_decodes: most decodes in a step. repeats: how often each step is measured; the median counts.
    Swept: the number of tokens alone (both sides of each tile), chunks at every depth, decodes by number and
    context. Held out: a run of chunks and decodes mixed, under chunked prefilling, arrivals included.
    Raises ValueError for sizes that the model cannot take, and what `replay` raises.
    """
    from tqdm import tqdm

    check_engine(engine)
    most = engine.model.config.max_positions
    if not (max_tokens >= 8 and 32 <= max_context <= most - 8 and max_decodes >= 1 and repeats >= 1):
        raise ValueError(
            f"max_tokens {max_tokens} (8 at least), max_context {max_context} (32 to {most - 8}), "
            f"max_decodes {max_decodes} and repeats {repeats} (1 at least)"
        )
    sizes = token_sizes(max_tokens)
    designs = [
        *token_sweep(sizes),
        *chunk_sweep(max_tokens, max_context),
        *decode_sweep(max_decodes, max_context),
    ]
    replay(designs[0], engine)  # claims memory, wakes threads
    alike: dict[Rows, list[Step]] = {}  # steps of one shape
    held = mixed_run(max_tokens, max_context, max_decodes, seed)
    again = []
    with tqdm(total=repeats * (len(designs) + 1), desc="calibrating", disable=not progress) as bar:
        for i in range(repeats):
            for design in random.Random(f"{seed} {i}").sample(designs, len(designs)):
                for step in replay(design, engine).steps:
                    rows = tuple(zip(step.batch.start, step.batch.length))
                    alike.setdefault(rows, []).append(step)
                bar.update()
            # In each round, not after all of them: a machine's pace drifts, and both must see it.
            again.append(replay(held, engine))
            bar.update()
    executions = [(steps[0].batch, median(s.end - s.start for s in steps)) for steps in alike.values()]
    schedulings = [
        (steps[0].batch, median(s.dispatched - s.scheduled for s in steps)) for steps in alike.values()
    ]
    cost = fit(executions, sizes, about=about)
    host = fit_host(schedulings)
    return replace(cost, host=host, held_out=prediction_errors(median_of(again), cost))


def median_of(replays: Sequence[Trace]) -> Trace:
    """A trace of the same batches, in which each step takes the median of its times in `replays`."""
    took = zip(*([step.end - step.start for step in trace.steps] for trace in replays))
    seconds = iter([median(each) for each in took])
    return reprice(replays[0], lambda batch: next(seconds))


def token_sizes(max_tokens: int) -> list[int]:
    """Numbers of tokens worth measuring: powers of two, halves between, both sides of each tile of 128."""
    sizes = {1, max_tokens} | {2**i for i in range(1, 20)} | {3 * 2**i for i in range(2, 19)}
    for tile in (128, 256, 512):
        sizes |= {tile - 1, tile, tile + 1}
    return sorted(n for n in sizes if n <= max_tokens)


def token_sweep(sizes: Sequence[int]) -> Iterator[Trace]:
    """The number of tokens alone: prompts of each size, whole, one a step."""
    for n in sizes:
        yield designed([Request(f"n{n}", 0.0, n, 1)], [[(f"n{n}", n)]])


def chunk_sweep(max_tokens: int, max_context: int) -> Iterator[Trace]:
    """Chunks of several sizes, each at every depth of one long prompt."""
    for length in sorted({min(max_tokens, max_context, c) for c in (16, 64, 256)}):
        steps = [[("long", min(length, max_context - at))] for at in range(0, max_context, length)]
        yield designed([Request("long", 0.0, max_context, 1)], steps)


def decode_sweep(max_decodes: int, max_context: int) -> Iterator[Trace]:
    """Decodes by number and context apart: 1, 4, 16, ... of them, over a short, a middling, a long cache."""
    numbers = sorted({min(max_decodes, 4**i) for i in range(6)})
    for n in numbers:
        for context in sorted({16, max_context // 4, max_context}):
            if n * context > 4 * max_context and context > 16:
                continue  # building the caches would take longer than what is learned
            names = [f"d{i}" for i in range(n)]
            requests = [Request(name, 0.0, context, 6) for name in names]
            yield designed(requests, [[(name, context)] for name in names] + 5 * [[(d, 1) for d in names]])


def mixed_run(max_tokens: int, max_context: int, max_decodes: int, seed: int) -> Trace:
    """Batches of a server under load: prompts of all lengths, in chunks beside decodes."""
    draw = random.Random(f"held out {seed}")
    requests = [
        Request(i, 0.0, draw.randint(8, max_context // 2), draw.randint(4, 24))
        for i in range(2 * max_decodes)
    ]
    budget = max(max_tokens // 2, max_decodes + 1)
    return simulate(requests, ChunkedPrefill(budget, max_seqs=max_decodes))


def designed(requests: Sequence[Request], steps: Iterable[Sequence[tuple[Rid, int]]]) -> Trace:
    """A trace without times whose steps give each named request so many tokens: something to `replay`."""
    trace, cached = Trace(requests), {request.rid: 0 for request in requests}
    known = {request.rid: request.n_prompt for request in requests}
    for rows in steps:
        start, emits = tuple(cached[rid] for rid, _ in rows), []
        for rid, n in rows:
            cached[rid] += n
            emits.append(cached[rid] == known[rid])
            known[rid] += emits[-1]
        rids, lengths = zip(*rows)
        trace.record(Batch(rids, start, lengths, tuple(emits)), (0.0, 0.0, 0.0, 0.0), 0)
    return trace
