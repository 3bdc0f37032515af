"""Sections beside `transformers`, on the very same weights: its caches in chunks, and its batching."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch

from benchmarks.gpu.lab import MODELS, JsonRow, Lab, median, say
from benchmarks.gpu.passes import CHUNKS, one_prefill, some_tokens
from benchmarks.gpu.serving import server
from benchmarks.gpu.steps import why_no_graphs
from benchmarks.twin import quiet, transformers_twin, twin_prefills
from chunkprefill.engine import Engine, prompt_of
from chunkprefill.generation import chunk_lengths
from chunkprefill.scheduling.core import Request
from chunkprefill.scheduling.policies import ChunkedPrefill
from chunkprefill.simulation.workloads import poisson

EQUAL = {"float64": 1e-3, "float32": 1e-3, "float16": 0.1, "bfloat16": 0.5}  # of the largest logit


def twin_prefill(lab: Lab) -> Iterator[JsonRow]:
    """One prompt in chunks of each size by both, interleaved; theirs with the faster of its two caches."""
    quiet()
    import transformers

    prompts = lab.pick(tiny=(96,), smoke=(8192,), full=(8192, 2048))
    sizes = lab.pick(tiny=(16, 96), smoke=(2048,), full=CHUNKS[::-1])
    for name in lab.pick(tiny=lab.names(), smoke=[lab.main], full=[lab.main, "Qwen3-0.6B"]):
        twin = transformers_twin(lab.model(name))
        for n in prompts:
            slower: list[str] = []  # their cache that lost, size by size
            for size in [size for size in sizes if size <= n]:
                if lab.late(f"{name}, {n} tokens, chunks of {size}"):
                    return
                row = twin_row(lab, name, twin, n, size, without=settled(slower))
                if len(row.get("warm_s", ())) == 2:
                    slower.append(max(row["warm_s"], key=row["warm_s"].__getitem__))
                yield row | {"transformers": transformers.__version__}


def settled(slower: Sequence[str]) -> str:
    """The cache that lost the last three times: smaller chunks only widen the gap, and cost minutes."""
    return slower[-1] if len(slower) >= 3 and len(set(slower[-3:])) == 1 else ""


def twin_row(lab: Lab, name: str, twin: Any, n: int, size: int, *, without: str = "") -> JsonRow:
    tokens, cache = some_tokens(lab, name, n), lab.cache(name, n)
    ours = partial(one_prefill, lab, name, cache, tokens, size)
    theirs = their_prefills(twin, tokens, size)
    theirs.pop(without, None)
    expected = ours().float()
    warm, refused, gap = {}, {}, 0.0
    for kind, run in theirs.items():
        found: list[torch.Tensor] = []
        try:
            warm[kind] = lab.timed(partial(keep, run, found))()
            gap = max(gap, float((found[0].float() - expected).abs().max() / expected.abs().max()))
        except (RuntimeError, TypeError, ValueError, AttributeError) as error:
            refused[kind] = f"{type(error).__name__}: {error}"[:300]
            say(f"transformers with {kind}: {refused[kind]}")
    row: JsonRow = {"model": name, "prompt": n, "chunk": size, "logits_differ": gap, "refused": refused}
    row["not_tried"] = without
    dtype = str(lab.dtype).removeprefix("torch.")
    if not warm or not gap < EQUAL[dtype]:  # other logits would be other weights: no ratio then
        say(f"no ratio: logits differ by {gap:.2g} of the largest")
        return row | {"ratio": None}
    best = min(warm, key=warm.__getitem__)
    work = {"ours": lab.timed(ours), "theirs": lab.timed(theirs[best])}
    repeats = 3 if warm[best] < 1.5 else 2  # a slow one is timed well enough by fewer
    samples = lab.rounds(work, lab.pick(tiny=2, smoke=1, full=repeats), warm=0)
    mine, other = median(samples["ours"]), median(samples["theirs"])
    row |= {"s": mine, "theirs_s": other, "cache": best, "ratio": other / mine, "warm_s": warm}
    return row | {"samples_s": samples["ours"], "their_samples_s": samples["theirs"]}


def keep(run: Callable[[], torch.Tensor], found: list[torch.Tensor]) -> None:
    """Put what `run` returns at the end of `found`."""
    found.append(run())


def their_prefills(twin: Any, tokens: torch.Tensor, size: int) -> dict[str, Callable[[], torch.Tensor]]:
    """The last token's logits by each of their caches."""
    lengths = chunk_lengths(len(tokens), size)
    return {
        f"{name.capitalize()}Cache": partial(run, tokens, lengths)
        for name, run in twin_prefills(twin).items()
    }


def twin_batching(lab: Lab) -> Iterator[JsonRow]:
    """The same requests, all there at the start: our engine in a token budget, their continuous batching."""
    quiet()
    import transformers

    n, output, budget = lab.pick(tiny=(3, 4, 32), smoke=(16, 16, 512), full=(48, 64, 512))
    prompt = lab.pick(tiny=(5, 30), smoke=(64, 512), full=(128, 1024))
    drawn = poisson(n, 1.0, prompt=prompt, output=output, seed=lab.seed)
    requests = [Request(r.rid, 0.0, r.n_prompt, r.n_output) for r in drawn]
    for name in lab.pick(tiny=lab.names(), smoke=[lab.main], full=[lab.main, "Qwen3-0.6B"]):
        if lab.late(name):
            return
        prompts = [list(prompt_of(request, MODELS[name].vocab_size)) for request in requests]
        twin = transformers_twin(lab.model(name))
        if find_spec("flash_attn") is None:  # else it looks for kernels on a hub
            twin.set_attn_implementation("paged|sdpa")
        attention = twin.config._attn_implementation
        overlap = lab.cuda  # on a CPU it would only fight for the same cores
        ways = {"ours": False} | ({} if why_no_graphs(lab, name) else {"ours, graphs": True})
        lab.forget()
        runs: dict[str, Callable[[], list[list[int]]]] = {}
        for way, graphs in ways.items():
            engine = server(lab, name, ChunkedPrefill(budget), requests, overlap=overlap, graphs=graphs)
            runs[way] = partial(our_outputs, engine, requests)
        outputs = {way: run() for way, run in runs.items()}  # warm, and before their server is at work
        with their_server(twin, prompts, output, budget) as theirs:
            runs["theirs"], found = theirs, theirs()
            work = {way: lab.timed(run) for way, run in runs.items()}
            samples = lab.rounds(work, lab.pick(tiny=1, smoke=1, full=3), warm=0)
        expected = outputs["ours"]
        mine, other = median(samples["ours"]), median(samples["theirs"])
        complete = [len(one) for one in found] == [output] * n
        n_tokens = sum(request.n_prompt + request.n_output for request in requests)
        yield {
            "model": name,
            "requests": n,
            "tokens": n_tokens,
            "output": output,
            "budget": budget,
            "equal_outputs": sum(a == b for a, b in zip(expected, found)),
            "complete": complete,
            "s": mine,
            "theirs_s": other,
            "overlap": overlap,
            "ratio": other / mine if complete else None,
            "tokens_a_second": n_tokens / mine,
            "graphs_s": median(samples["ours, graphs"]) if "ours, graphs" in samples else None,
            "transformers": transformers.__version__,
            "their_attention": attention,
            "samples_s": samples,
        }


def our_outputs(engine: Engine, requests: Sequence[Request]) -> list[list[int]]:
    """One run, its outputs in the order of the requests."""
    made = engine.run(requests).outputs
    return [made[request.rid] for request in requests]


@contextmanager
def their_server(
    twin: Any, prompts: Sequence[list[int]], output: int, budget: int
) -> Iterator[Callable[[], list[list[int]]]]:
    """Their continuous batching at work: what it yields serves all prompts, and returns outputs in order.

    The server runs from before the first call to after the last: their `generate_batch` starts and stops one
    each time, which takes half a second and is no part of serving. Blocks for all prompts, the same token
    budget, else their defaults. No block is shared between requests: the same prompts come again.
    """
    from transformers import GenerationConfig
    from transformers.generation.configuration_utils import ContinuousBatchingConfig
    from transformers.generation.continuous_batching.utils import WorkloadHints

    greedy = GenerationConfig(do_sample=False, max_new_tokens=output, eos_token_id=-1, pad_token_id=0)
    known = {field.name for field in fields(ContinuousBatchingConfig)}
    block = 256 if twin.device.type == "cuda" else 16
    chosen: dict[str, Any] = {
        "page_size" if "page_size" in known else "block_size": block,  # 5.17 and newer ones differ
        "num_blocks": sum(-(-(len(prompt) + output) // block) for prompt in prompts) + 8,
        "max_batch_tokens": budget,
        "allow_block_sharing": False,
    }
    hints = WorkloadHints(
        max_prompt_length=max(map(len, prompts)), max_generated_length=output, num_requests=len(prompts)
    )
    with twin.continuous_batching_context_manager(
        generation_config=greedy,
        continuous_batching_config=ContinuousBatchingConfig(**chosen),
        block=True,
        timeout=10,
        workload_hints=hints,
    ) as manager:

        def run() -> list[list[int]]:
            manager.add_requests(inputs=[list(p) for p in prompts], max_new_tokens=output)
            made: dict[tuple[int, ...], list[int]] = {}
            while len(made) < len(prompts):
                one = manager.get_result(timeout=1)
                if one is not None and one.is_finished():
                    made[tuple(one.prompt_ids)] = list(one.generated_tokens)
                elif one is None and not manager.is_running():
                    raise RuntimeError("its server stopped before every request was done")
            return [made[tuple(prompt)] for prompt in prompts]

        yield run
