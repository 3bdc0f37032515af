"""Tokens a second of `Engine` under `ChunkedPrefill`, beside transformers serving the same requests.

The rivals run the same weights with equal threads: transformers' continuous batching (sdpa on CPU), and its
padded `generate` in batches, with the requests sorted by length and as they come. All outputs are
compared. Samples are interleaved. On a machine that others use, `--clock cpu --threads 1` counts processor
time.
"""

from __future__ import annotations

import gc
import logging
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from benchmarks.runner import CLOCKS, add_model_options, options, positive, provenance_of, turn, write
from benchmarks.twin import transformers_twin
from chunkprefill.configs import SMOLLM2_135M
from chunkprefill.engine import Engine, prompt_of
from chunkprefill.model.transformer import Transformer
from chunkprefill.model.weights import random_model
from chunkprefill.scheduling.core import Request
from chunkprefill.scheduling.policies import ChunkedPrefill
from chunkprefill.simulation.workloads import poisson

TARGETS = {"continuous batching": 2.0, "padded generate, sorted": 1.2}  # their seconds over ours, CPU
Run = Callable[[], list[list[int]]]  # the outputs, in the order of the requests


def main(argv: list[str] | None = None) -> int:
    parser = options("serve", __doc__)
    add_model_options(parser)
    parser.add_argument("--layers", type=positive, default=2, help="SmolLM2's width (default: %(default)s)")
    parser.add_argument("--requests", type=positive, default=32, help="default: %(default)s")
    parser.add_argument("--budget", type=positive, default=256, help="tokens a step (default: %(default)s)")
    parser.add_argument("--batch", type=positive, default=8, help="the padded rival's (default: %(default)s)")
    parser.add_argument("--repeats", type=positive, default=5, help="samples of each (default: %(default)s)")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="default: %(default)s")
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    cuda = args.device.startswith("cuda")
    dtype = getattr(torch, args.dtype or ("bfloat16" if cuda else "float32"))
    config = replace(SMOLLM2_135M, n_layers=args.layers)
    model = random_model(config, seed=args.seed, device=args.device, dtype=dtype).pack()
    requests = [
        Request(r.rid, 0.0, r.n_prompt, r.n_output)
        for r in poisson(args.requests, 1.0, prompt=(64, 760), output=32, seed=args.seed)
    ]
    n_tokens = sum(r.n_prompt + r.n_output for r in requests)
    runs: dict[str, Run] = {"chunkprefill": ours(model, requests, args.budget)}
    runs |= theirs(model, requests, args.batch, args.budget)

    clock, outputs = CLOCKS[args.clock], {name: run() for name, run in runs.items()}  # warm
    equal = {name: sum(a == b for a, b in zip(out, outputs["chunkprefill"])) for name, out in outputs.items()}
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(args.repeats):
        for name in turn(runs, i):
            gc.collect()
            begun = clock()
            runs[name]()
            if cuda:
                torch.cuda.synchronize()
            samples[name].append(clock() - begun)
            print(f"run {i + 1} of {args.repeats}: {name} {samples[name][-1]:.2f} s", file=sys.stderr)
    seconds = {name: statistics.median(values) for name, values in samples.items()}
    rows = []
    for name, s in seconds.items():
        ratio, target = s / seconds["chunkprefill"], None if cuda else TARGETS.get(name)
        row = {"server": name, "s": s, "tokens_a_second": n_tokens / s, "over_ours": ratio}
        row |= {"equal_outputs": equal[name], "target": target, "samples_s": samples[name]}
        met = target is not None and ratio >= target and equal[name] == len(requests)
        rows.append(row | ({"met": met} if target else {}))
        print(
            f"{name:>26}: {s:6.2f} s, {n_tokens / s:8,.0f} tokens/s, {ratio:.2f} times ours,"
            f" {equal[name]} of {len(requests)} outputs equal",
            file=sys.stderr,
        )
    document = {
        "bench": "serve",
        "what": "prompt and output tokens served a second, all requests present at the start; medians",
        "requests": {"n": len(requests), "tokens": n_tokens, "prompt": sum(r.n_prompt for r in requests)},
        "model": {"layers": args.layers, "d_model": config.d_model, "heads": "9/3", "d_ff": 1536},
        "dtype": str(dtype).removeprefix("torch."),
        "budget": args.budget,
        "batch": args.batch,
        "clock": args.clock,
        "rows": rows,
        "provenance": provenance_of(args),
    }
    write(document, args.out)
    return 0


def ours(model: Transformer, requests: Sequence[Request], budget: int) -> Run:
    def run() -> list[list[int]]:
        outputs = Engine(model, ChunkedPrefill(budget)).run(requests).outputs
        return [outputs[request.rid] for request in requests]

    return run


def theirs(
    model: Transformer, requests: Sequence[Request], batch: int, budget: int, *, twin: Any = None
) -> dict[str, Run]:
    """transformers on the same weights (`twin`, if it is made already); none, said loudly, where it is missing."""
    try:
        from transformers import GenerationConfig
        from transformers.generation.configuration_utils import ContinuousBatchingConfig
    except ImportError as error:
        print(f"MISSING transformers with continuous batching ({error}): rows skipped", file=sys.stderr)
        return {}
    logging.getLogger("transformers").setLevel(logging.ERROR)
    c = model.config
    other = transformers_twin(model) if twin is None else twin
    prompts = [list(prompt_of(request, c.vocab_size)) for request in requests]
    n_new = max(request.n_output for request in requests)
    greedy = GenerationConfig(do_sample=False, max_new_tokens=n_new, eos_token_id=None, pad_token_id=0)

    def padded(order: Sequence[int]) -> Run:
        def run() -> list[list[int]]:
            outputs: dict[int, list[int]] = {}
            for first in range(0, len(order), batch):
                group = order[first : first + batch]
                longest = max(len(prompts[i]) for i in group)
                ids = torch.zeros(len(group), longest, dtype=torch.long, device=model.device)
                mask = torch.zeros_like(ids)
                for row, i in enumerate(group):  # padded on the left
                    ids[row, longest - len(prompts[i]) :] = torch.tensor(prompts[i])
                    mask[row, longest - len(prompts[i]) :] = 1
                with torch.inference_mode():
                    made = other.generate(input_ids=ids, attention_mask=mask, generation_config=greedy)
                outputs |= dict(zip(group, made[:, longest:].tolist()))
            return [outputs[i] for i in range(len(prompts))]

        return run

    def continuous() -> list[list[int]]:
        pages = sum(-(-(len(prompt) + n_new) // 16) for prompt in prompts)
        settings = ContinuousBatchingConfig(page_size=16, num_blocks=pages + 8, max_batch_tokens=budget)
        made = other.generate_batch(prompts, greedy, settings)
        by_prompt = {tuple(one.prompt_ids): list(one.generated_tokens) for one in made.values()}
        return [by_prompt.get(tuple(prompt), []) for prompt in prompts]

    by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    return {
        "continuous batching": continuous,
        "padded generate, sorted": padded(by_length),
        "padded generate, as they come": padded(range(len(prompts))),
    }
