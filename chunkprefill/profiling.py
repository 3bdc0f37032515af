"""A few steps under torch.profiler, as a small chrome trace: parts, operators, the GPU where there is one.

The loop is the serial one of `serve`, with a label around each call; the profiler slows what it watches.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from chunkprefill.engine import Engine
from chunkprefill.model.config import Config
from chunkprefill.model.transformer import Transformer
from chunkprefill.model.weights import random_model
from chunkprefill.scheduling.core import Request
from chunkprefill.scheduling.policies import ChunkedPrefill
from chunkprefill.scheduling.state import State
from chunkprefill.scheduling.trace import Trace

#: A model whose pass is short enough to leave the time between passes visible.
SHAPE = Config(2, 4, 2, 32, 512, d_ff=256, max_positions=4096)
ON_GPU = Config(4, 16, 8, 64, 512, d_ff=2048, max_positions=4096)
LABELS = ("decide", "blocks", "inputs", "launch", "pass", "wait", "read", "book")
LANES = {"parts": 1, "operators": 2, "GPU": 3}
N_DECODES, CHUNK, WARM = 6, 32, 4


@contextmanager
def threads(n: int | None) -> Iterator[None]:
    """Torch on so many threads, for a while; None: as it is."""
    before = torch.get_num_threads()
    torch.set_num_threads(n or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def labelled(model: Transformer) -> Iterator[None]:
    """Each forward pass of `model` stands under a label: on a GPU it is launched, on a CPU it is run."""
    name, stack = "launch" if model.device.type == "cuda" else "pass", list[Any]()

    def enter(*_: Any) -> None:
        stack.append(record_function(name))
        stack[-1].__enter__()

    def leave(*_: Any) -> None:
        stack.pop().__exit__(None, None, None)

    hooks = model.register_forward_pre_hook(enter), model.register_forward_hook(leave)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def quiet() -> Iterator[None]:
    """The profiler's library writes the time of day when it starts and stops, unless it is told not to."""
    before = os.environ.get("KINETO_LOG_LEVEL")
    os.environ["KINETO_LOG_LEVEL"] = before or "99"
    try:
        yield
    finally:
        if before is None:
            del os.environ["KINETO_LOG_LEVEL"]


def run(model: Transformer, n_steps: int) -> dict[str, Any]:
    """Decodes beside a prompt in chunks, `n_steps` of them profiled; what torch exports."""
    total = n_steps + 2 * WARM
    requests = [Request(f"d{i}", 0.0, 8, total + 4) for i in range(N_DECODES)]
    requests.append(Request("p", 0.0, (total + 2) * CHUNK, 2))
    policy = ChunkedPrefill(CHUNK + N_DECODES)
    engine, state, trace = Engine(model, policy), State(), Trace(requests)
    cuda = model.device.type == "cuda"
    for request in requests:
        state.arrive(request)
    with engine.executor(requests) as executor:

        def step() -> None:
            with record_function("decide"):
                plan = state.ask(policy)
            with record_function("blocks"):
                batch = state.apply(plan)
            with record_function("inputs"):
                handle = executor.launch(batch, state.tables)
            if cuda and handle.events:
                with record_function("wait"):
                    handle.events[1].synchronize()
            with record_function("read"):
                handle.wait()
            with record_function("book"):
                trace.record(batch, (0.0, 0.0, 0.0, 0.0), state.pool.n_used)
                state.commit(batch)

        activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if cuda else [])
        for _ in range(WARM):
            step()
        for n in (WARM, n_steps):  # a profiler is slow at first, too
            with quiet(), labelled(model), profile(activities=activities) as profiler:
                for _ in range(n):
                    step()
                if cuda:
                    torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        return json.loads(path.read_text("utf-8"))


Span = tuple[str, float, float]  # name, beginning and end in µs


def reduced(exported: dict[str, Any]) -> list[dict[str, Any]]:
    """Events of three lanes, from 0 µs: parts (what lies within another cut out), outer operators, the GPU.

    Neither paths nor arguments are kept: a name, a time, a lane.
    """
    spans: dict[str, list[Span]] = {"parts": [], "operators": [], "GPU": []}
    for event in exported["traceEvents"]:
        if event.get("ph") != "X":
            continue
        kind, name, begin = event.get("cat", ""), event["name"], float(event["ts"])
        span = (name, begin, begin + float(event["dur"]))
        if kind == "user_annotation" and name in LABELS:
            spans["parts"].append(span)
        elif kind == "cpu_op" and name not in LABELS:
            spans["operators"].append(span)
        elif kind in ("kernel", "gpu_memcpy", "gpu_memset"):
            spans["GPU"].append((_kernel(name), *span[1:]))
    spans["parts"], spans["operators"] = innermost(spans["parts"]), outermost(spans["operators"])
    zero = min(begin for each in spans.values() for _, begin, _ in each)
    events: list[dict[str, Any]] = [
        {"ph": "M", "name": "thread_name", "pid": 1, "tid": tid, "args": {"name": lane}}
        for lane, tid in LANES.items()
        if spans[lane]
    ]
    for lane, found in spans.items():
        for name, begin, end in found:
            event = {"ph": "X", "name": name, "pid": 1, "tid": LANES[lane]}
            events.append(event | {"ts": round(begin - zero, 2), "dur": round(end - begin, 2)})
    return events


def _kernel(name: str) -> str:
    """The last part of a kernel's name without its template arguments."""
    return name.split("<")[0].split("(")[0].removeprefix("void ").split("::")[-1][:48]


def innermost(spans: Sequence[Span]) -> list[Span]:
    """Spans that nest, cut so that each moment belongs to the innermost one."""
    cut: list[Span] = []
    open_: list[Span] = []
    at = 0.0

    def close(until: float) -> None:
        nonlocal at
        while open_ and open_[-1][2] <= until:
            name, _, end = open_.pop()
            if end > at:
                cut.append((name, at, end))
            at = max(at, end)

    for span in sorted(spans, key=lambda s: (s[1], -s[2])):
        close(span[1])
        if open_ and span[1] > at:
            cut.append((open_[-1][0], at, span[1]))
        at = max(at, span[1])
        open_.append(span)
    close(float("inf"))
    return cut


def outermost(spans: Sequence[Span]) -> list[Span]:
    """Those that lie in no other."""
    kept: list[Span] = []
    for span in sorted(spans, key=lambda s: (s[1], -s[2])):
        if not kept or span[1] >= kept[-1][2]:
            kept.append(span)
    return kept


def profile_steps(
    model: Transformer | None = None, *, n_steps: int = 3, device: str = "cpu"
) -> dict[str, Any]:
    """Some steps of decodes beside a prompt's chunks under torch's profiler, for `profile_picture`.

    model: None is one so small that the time between its passes can be seen. Runs on one thread. Returns
    {"traceEvents": ...}: written as JSON it opens in a viewer of chrome traces. Raises ValueError for fewer
    than 2 steps.
    """
    if n_steps < 2:
        raise ValueError(f"{n_steps} steps: two are needed, to look between them")
    if model is None:
        cuda = device.startswith("cuda")
        dtype = torch.bfloat16 if cuda else torch.float32
        model = random_model(ON_GPU if cuda else SHAPE, device=device, dtype=dtype)
    with threads(1):
        events = reduced(run(model, n_steps))
    what = f"{n_steps} steps of {N_DECODES} decodes beside a chunk of {CHUNK}, one thread, profiled by torch"
    return {"bench": "profile", "what": what, "displayTimeUnit": "ms", "traceEvents": events}
