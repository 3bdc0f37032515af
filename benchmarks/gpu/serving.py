"""Sections on a server at work: what scheduling takes and leaves idle; documents beside chats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from benchmarks.gpu.lab import JsonRow, Lab, median
from benchmarks.gpu.steps import why_no_graphs
from benchmarks.runner import turn
from chunkprefill.engine import Engine
from chunkprefill.metrics.summary import summary
from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.core import Request
from chunkprefill.scheduling.loop import Policy
from chunkprefill.scheduling.policies import (
    Alternate,
    ChunkedPrefill,
    PrefillFirst,
    RequestLevel,
    SerialChunks,
)
from chunkprefill.scheduling.trace import Trace
from chunkprefill.scheduling.vllm import VllmV1
from chunkprefill.simulation.workloads import documents_and_chats, poisson


def scheduling(lab: Lab) -> Iterator[JsonRow]:
    """Where the host's time goes in a step, and how long the device waits for it: serial and overlapped."""
    n, output = lab.pick(tiny=(4, 4), smoke=(16, 16), full=(32, 48))
    prompt = lab.pick(tiny=(5, 30), smoke=(64, 512), full=(64, 1024))
    requests = [
        Request(r.rid, 0.0, r.n_prompt, r.n_output)
        for r in poisson(n, 1.0, prompt=prompt, output=output, seed=lab.seed)
    ]
    for name in lab.pick(tiny=lab.names(), smoke=[lab.main], full=lab.names()[::-1]):
        if lab.late(name):
            return
        ways = {"serial": {}, "overlapped": {"overlap": True}}
        if not why_no_graphs(lab, name):
            ways["overlapped, graphs"] = {"overlap": True, "graphs": True}
        lab.forget()
        work = {
            way: partial(server(lab, name, ChunkedPrefill(512), requests, **how).run, requests)
            for way, how in ways.items()
        }
        traces = lab.rounds(work, lab.pick(tiny=1, smoke=1, full=2))
        for way, runs in traces.items():
            yield {"model": name, "way": way, "requests": n, **host_time(runs)}


def host_time(runs: Sequence[Trace]) -> JsonRow:
    """Medians over runs of the same requests: wall and step times, parts of scheduling, idle gaps."""
    one = [gaps_of(trace) for trace in runs]
    parts = {part: median([sum(trace.parts[part]) for trace in runs]) for part in runs[0].parts}
    return {
        **{key: median([each[key] for each in one]) for key in one[0]},
        **{"parts_s": parts, "samples_s": [each["wall_s"] for each in one]},
        "samples_idle_s": [each["idle_s"] for each in one],
    }


def gaps_of(trace: Trace) -> dict[str, float]:
    """Seconds of one run: in all, between steps, from scheduling to dispatch; the device's own idle time.

    `idle_s` is by the loop's clock, `device_idle_s` by events on the device (0 where there are none).
    """
    steps = list(trace.steps)
    idle = sum(max(0.0, after.start - before.end) for before, after in pairwise(steps))
    wall = steps[-1].end - steps[0].scheduled
    scheduled = sum(step.dispatched - step.scheduled for step in steps)
    return {
        **{"steps": len(steps), "wall_s": wall, "idle_s": idle, "idle_share": idle / wall},
        **{"scheduling_s": scheduled, "scheduling_share": scheduled / wall},
        **{"device_idle_s": sum(trace.gaps), "device_idle_share": sum(trace.gaps) / wall},
        "step_s": median([step.end - step.start for step in steps]),
    }


def server(
    lab: Lab,
    name: str,
    policy: Policy,
    requests: Sequence[Request],
    *,
    overlap: bool = False,
    graphs: bool = False,
) -> Engine:
    """An engine whose cache has room for all of these requests at once: growing copies, and takes time."""
    pool = BlockPool(None)
    blocks = sum(pool.blocks_for(r.n_prompt + r.n_output) for r in requests)
    engine = Engine(
        lab.model(name), policy, BlockPool(blocks), overlap=overlap, backend=lab.backend, graphs=graphs
    )
    engine.cache.reserve(blocks)
    return engine


def policies(lab: Lab) -> Iterator[JsonRow]:
    """A long document arrives while chats decode and more chats come: who waits, under every policy."""
    requests = workload(lab)
    name = lab.main
    every = every_policy(lab)
    server(lab, name, ChunkedPrefill(512), requests).run(requests)  # warms up: libraries, allocator
    runs: dict[str, list[dict[str, Any]]] = {label: [] for label in every}
    for i in range(lab.pick(tiny=1, smoke=1, full=2)):
        for label in turn(every, i):
            if lab.late(f"round {i + 1} from {label}"):
                break
            runs[label].append(who_waits(server(lab, name, every[label], requests).run(requests)))
    for label, samples in runs.items():
        if samples:
            middle = {key: median([one[key] for one in samples]) for key in samples[0]}
            yield {
                **{"model": name, "policy": label, "requests": len(requests)},
                **{"document": max(r.n_prompt for r in requests)},
                **middle,
                "samples": samples,
            }


def workload(lab: Lab) -> list[Request]:
    document, output = lab.pick(tiny=(80, 8), smoke=(8192, 32), full=(16_384, 200))
    chat = lab.pick(tiny=(5, 20), smoke=(50, 200), full=(50, 200))
    at = 0.0 if lab.size == "tiny" else 0.3  # s: the chats still decode then
    n = lab.pick(tiny=2, smoke=8, full=8)
    return documents_and_chats(
        n_chats=n, n_late=n, document=document, chat=chat, output=output, at=at, window=0.3, seed=lab.seed
    )


def every_policy(lab: Lab) -> dict[str, Policy]:
    """Each policy of the book, by its own name; budgets and chunks of 512 where it has one."""
    budget = lab.pick(tiny=16, smoke=512, full=512)
    found: list[Policy] = [
        RequestLevel(8),
        PrefillFirst(2 * budget),
        PrefillFirst(2 * budget, mixed=True),
        PrefillFirst(2 * budget, chunk=budget),
        Alternate(budget),
        SerialChunks(budget),
        ChunkedPrefill(budget),
        ChunkedPrefill(budget, order="shortest"),
        ChunkedPrefill(4 * budget),
        VllmV1(max_num_batched_tokens=budget),
    ]
    return {str(policy): policy for policy in (found[::3] if lab.size == "smoke" else found)}


def who_waits(trace: Trace) -> dict[str, float]:
    """Seconds: what chats wait between tokens, late ones and the document for their first; and tokens/s."""
    whole = summary(trace, lambda request: str(request.rid).rstrip("0123456789"))
    chat, late, doc = (whole.classes[kind] for kind in ("chat", "late", "doc"))
    return {
        **{"chat_tbt_p50": chat.tbt.p50, "chat_tbt_p99": chat.tbt.p99, "chat_tbt_max": chat.tbt.max},
        **{"late_ttft_p50": late.ttft.p50, "late_ttft_max": late.ttft.max, "document_ttft": doc.ttft.max},
        **{"ttft_p50": whole.ttft.p50, "tbt_p99": whole.tbt.p99, "tbt_max": whole.tbt.max},
        **{"output_tokens_per_s": whole.output_tokens_per_s, "duration_s": whole.duration or 0.0},
        "steps": float(len(trace.steps)),
    }
