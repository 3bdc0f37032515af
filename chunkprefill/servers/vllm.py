"""Serve requests on vLLM itself, where it and a GPU are at hand: its own timestamps, our definitions."""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from chunkprefill.engine import prompt_of
from chunkprefill.measure import measured
from chunkprefill.metrics.summary import Spread
from chunkprefill.plots.style import Table, Tabular
from chunkprefill.scheduling.core import Request, Rid
from chunkprefill.servers.client import in_thread

MODEL = "Qwen/Qwen3-0.6B"
VOCABULARY = 1000  # prompts are drawn from the first so many token ids, which every model has


@dataclass(frozen=True)
class Missing:
    """vLLM was not run, and why."""

    why: str

    def __str__(self) -> str:
        return (
            f"vLLM was not run here: {self.why}. It takes a CUDA GPU and `pip install vllm`; then this cell, "
            "or `python -m benchmarks vllm`, runs these requests on it."
        )

    __repr__ = __str__


@dataclass(frozen=True)
class Served:
    """One request as vLLM served it; times in s, from the start of the run."""

    rid: Rid
    arrival: float  # when it was handed to the engine
    tokens: tuple[float, ...]  # when the engine had each of its tokens


@dataclass(frozen=True, repr=False)
class VllmRun(Tabular):
    """How vLLM served a workload.

    n_merged: tokens that were handed over together with an earlier one, so that their gaps are not seen.
    """

    version: str
    settings: dict[str, Any]
    served: tuple[Served, ...]
    n_merged: int = 0
    device: str = field(default="", compare=False)

    def ttft(self) -> list[float]:
        """[requests] s. See DEFINITIONS."""
        return [one.tokens[0] - one.arrival for one in self.served]

    def tbt(self) -> list[float]:
        """[tokens that are not a request's first] s. See DEFINITIONS."""
        return [b - a for one in self.served for a, b in pairwise(one.tokens)]

    def table(self) -> Table:
        """Both, as measured numbers."""
        rows = []
        for name, values in (("TTFT", self.ttft()), ("TBT", self.tbt())):
            spread = Spread.of(values)
            rows.append((name, *(measured(x) for x in (spread.p50, spread.p99, spread.max))))
        header = ("", "median", "P99", "longest")
        return Table(header=header, rows=rows, caption=f"vLLM {self.version}, {self.settings['model']}")


def why_not() -> str:
    """Why vLLM cannot run here; "" if it can."""
    if importlib.util.find_spec("vllm") is None:
        return "vLLM is not installed"
    try:
        import torch

        return "" if torch.cuda.is_available() else "no CUDA device"
    except Exception as error:  # a broken install raises more than ImportError
        return f"torch cannot be used ({type(error).__name__})"


def on_vllm(
    requests: Iterable[Request],
    *,
    model: str = MODEL,
    budget: int = 512,
    threshold: int = 0,
    policy: str = "fcfs",
    memory: float = 0.6,
    **more: Any,
) -> VllmRun | Missing:
    """Serve `requests` on vLLM under its own scheduler, each handed over when it arrives.

    model: a name or folder that vLLM can load. budget, threshold, policy: `max_num_batched_tokens`,
    `long_prefill_token_threshold`, `scheduling_policy`. memory: the share of the GPU's that vLLM may take.
    more: further arguments of vLLM's `AsyncEngineArgs`. Prompts are drawn from the rids, answers have exactly
    `n_output` tokens, the prefix cache is off. `Missing` where vLLM or a GPU is not there: never an error.
    """
    if why := why_not():
        return Missing(why)
    requests = sorted(requests, key=lambda request: request.arrival)
    if not requests:
        raise ValueError("no requests to serve")
    settings = {
        "model": model,
        "max_num_batched_tokens": budget,
        "max_num_seqs": min(256, budget),  # vLLM refuses a budget below the number of sequences
        "long_prefill_token_threshold": threshold,
        "scheduling_policy": policy,
        "enable_prefix_caching": False,
        "gpu_memory_utilization": memory,
        "max_model_len": max(request.n_prompt + request.n_output for request in requests),
        "disable_log_stats": False,  # or outputs have no timestamps
        **more,
    }
    return in_thread(_run(requests, settings))


async def _run(requests: Sequence[Request], settings: dict[str, Any]) -> VllmRun:
    import torch
    import vllm
    from vllm.sampling_params import RequestOutputKind

    engine = vllm.AsyncLLMEngine.from_engine_args(vllm.AsyncEngineArgs(**settings))
    try:

        def params(n: int) -> Any:
            return vllm.SamplingParams(
                max_tokens=n,
                ignore_eos=True,
                temperature=0.0,
                detokenize=False,
                output_kind=RequestOutputKind.DELTA,
            )

        warm = Request("warm-up", 0.0, min(64, requests[0].n_prompt), 2)
        await _one(engine, warm, params(2), time.monotonic(), 0)
        zero = time.monotonic() + 0.05
        ranked = settings["scheduling_policy"] != "fcfs"
        sent = (_one(engine, r, params(r.n_output), zero, r.priority * ranked) for r in requests)
        rows = await asyncio.gather(*sent)
    finally:
        engine.shutdown()
    served, merged = zip(*rows)
    return VllmRun(vllm.__version__, settings, served, sum(merged), torch.cuda.get_device_name())


async def _one(engine: Any, request: Request, params: Any, zero: float, priority: int) -> tuple[Served, int]:
    """Hand one request over when its time has come, and note when the engine had each token.

    The engine stamps by the clock of its own process, so that only differences count: a token's time is that
    of the hand-over plus what passed in the engine since it queued the request. The way to the engine and
    back is not in it.
    """
    await asyncio.sleep(max(0.0, zero + request.arrival - time.monotonic()))
    handed, times, n_merged = time.monotonic() - zero, list[float](), 0
    prompt = {"prompt_token_ids": list(request.prompt or prompt_of(request, VOCABULARY))}
    async for output in engine.generate(prompt, params, str(request.rid), priority=priority):
        n, stats = len(output.outputs[0].token_ids), output.metrics
        if not stats or not stats.queued_ts:
            raise RuntimeError(f"request {request.rid}: vLLM gave no timestamps; are its statistics off?")
        times += [handed + stats.last_token_ts - stats.queued_ts] * n
        n_merged += max(0, n - 1)
    if len(times) != request.n_output:
        raise RuntimeError(f"request {request.rid}: {len(times)} tokens came, {request.n_output} were asked")
    return Served(request.rid, handed, tuple(times)), n_merged
