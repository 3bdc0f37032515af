"""`python -m benchmarks parts`: where a step's time goes in today's vLLM on this CPU, and in our engine, on the same steps.

Chats decode beside the chunks of a document, on the same weights, one thread. vLLM runs in this machine's
`.venv-engines`, in one process, with each step ended before the next is scheduled, so that its parts add up to the
step; each of its own methods that makes up a part is timed (`benchmarks.vllm_worker.PARTS`). Our engine serves the
same requests under the same budget. The tokens of both are compared.

A CPU runs a pass and does not launch it: what launching costs on a GPU is in neither column.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.engines import PYTHON, compare_outputs, vllm_process, write_folder
from benchmarks.runner import options, positive, provenance_of, write
from chunkprefill.engine import Engine, prompt_of
from chunkprefill.model.transformer import Transformer
from chunkprefill.model.weights import load_model
from chunkprefill.scheduling.core import Request
from chunkprefill.scheduling.policies import ChunkedPrefill
from chunkprefill.scheduling.trace import PARTS as OUR_PARTS

FEWEST = 10  # steps of a kind: fewer have no median
MOST_SEQS = 64  # of vLLM in `benchmarks.vllm_worker`: it asks for as large a budget to start with
SKIP = 2  # steps of a kind that come first, and warm up
Step = Mapping[str, Any]  # "tokens" of each request, "seconds", "parts": s


def requests_of(n_chats: int, prompt: int, chunk: int, n_chunks: int) -> list[Request]:
    """Chats that decode all the while, and a document whose prompt takes `n_chunks` chunks."""
    budget = n_chats + chunk
    ahead = -(-n_chats * prompt // budget) + 1  # steps until the last chat decodes
    n_output = ahead + 2 * n_chunks
    chats = [Request(f"chat {i}", 0.0, prompt, n_output) for i in range(n_chats)]
    return [*chats, Request("document", 0.0, chunk * n_chunks, 1)]


def our_steps(
    model: Transformer, requests: Sequence[Request], budget: int
) -> tuple[list[Step], list[list[int]]]:
    """Each step of our engine with its parts; the contract's check, a tool of teaching, is in none of them."""
    trace = Engine(model, ChunkedPrefill(budget)).run(requests)
    steps: list[Step] = []
    for i, step in enumerate(trace.steps):
        parts = {name: trace.timings[name][i] for name in OUR_PARTS} | {"pass": trace.timings["wait"][i]}
        seconds = step.end - step.scheduled - trace.timings["check"][i]
        steps.append({"tokens": sorted(step.batch.length), "seconds": seconds, "parts": parts})
    return steps, [trace.outputs[r.rid] for r in requests]


def kinds_of(steps: Sequence[Step], n_chats: int, chunk: int) -> dict[str, list[Step]]:
    """The steps that are compared: the chats alone, and beside a chunk."""
    alone, beside = [1] * n_chats, [*[1] * n_chats, chunk]
    found = {
        f"{n_chats} decodes": [step for step in steps if step["tokens"] == alone],
        f"{n_chats} decodes and a chunk of {chunk}": [step for step in steps if step["tokens"] == beside],
    }
    for kind, some in found.items():
        if len(some) - SKIP < FEWEST:
            raise ValueError(f"{len(some)} steps of {kind}: a median takes {FEWEST}, and {SKIP} warm up")
    return {kind: some[SKIP:] for kind, some in found.items()}


def row_of(engine: str, kind: str, steps: Sequence[Step]) -> dict[str, Any]:
    """Medians and quartiles of the steps, of each part, and of what no part covers."""
    names = sorted({name for step in steps for name in step["parts"]})
    series = {name: [step["parts"].get(name, 0.0) for step in steps] for name in names}
    series["rest"] = [step["seconds"] - sum(step["parts"].values()) for step in steps]
    quartiles = {name: _quartiles(values) for name, values in series.items()}
    return {
        "engine": engine,
        "step": kind,
        "n": len(steps),
        "step_s": median(step["seconds"] for step in steps),
        "parts_s": {name: middle for name, (_, middle, _) in quartiles.items()},
        "quartiles_s": {name: [low, high] for name, (low, _, high) in quartiles.items()},
        "samples_s": [round(step["seconds"], 6) for step in steps],
    }


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    ordered = sorted(values)
    return ordered[len(ordered) // 4], median(ordered), ordered[-1 - len(ordered) // 4]


def main(argv: list[str]) -> int:
    parser = options("parts", __doc__)
    parser.add_argument(
        "--model", default="smollm2-135m", help="a name of load_model's (default: %(default)s)"
    )
    parser.add_argument("--chats", type=positive, default=32, help="that decode (default: %(default)s)")
    parser.add_argument(
        "--prompt", type=positive, default=64, help="tokens of a chat's (default: %(default)s)"
    )
    parser.add_argument("--chunk", type=positive, default=64, help="tokens (default: %(default)s)")
    parser.add_argument("--chunks", type=positive, default=32, help="of the document (default: %(default)s)")
    parser.add_argument("--threads", type=positive, default=1, help="of each engine (default: %(default)s)")
    parser.add_argument("--vllm", type=Path, default=PYTHON, help="python with vLLM (default: %(default)s)")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    if not args.vllm.is_file():
        print(f"MISSING vLLM: {args.vllm} is not there, `make engines` makes it", file=sys.stderr)
        return 1
    requests, budget = requests_of(args.chats, args.prompt, args.chunk, args.chunks), args.chats + args.chunk
    model = load_model(args.model, dtype=torch.float32, pack=False)
    prompts = [list(prompt_of(request, model.config.vocab_size)) for request in requests]
    lengths = [request.n_output for request in requests]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_folder(model, folder)
        start = {
            "dtype": "float32",
            "most": max(budget, MOST_SEQS),
            "clock": "wall",
            "async_scheduling": False,
        }
        with vllm_process(args.vllm.absolute(), folder, start) as vllm:
            theirs = vllm.ask({"do": "parts", "prompts": prompts, "lengths": lengths, "budget": budget})
            about = vllm.about
    model.pack()
    ours, tokens = our_steps(model, requests, budget)
    rows = []
    for engine, steps in (("vLLM", theirs["steps"]), ("our engine", ours)):
        for kind, some in kinds_of(steps, args.chats, args.chunk).items():
            rows.append(row_of(engine, kind, some))
            print(f"{engine}, {kind}: {1e3 * rows[-1]['step_s']:.1f} ms, n {len(some)}", file=sys.stderr)
    write(
        {
            "bench": "parts",
            "what": "where a step's time goes, medians of steps, one thread, each step ended before the next is scheduled",
            "model": args.model,
            "dtype": "float32",
            "vllm": about["vllm"],
            "runner": theirs["runner"],
            "scheduler": theirs["scheduler"],
            "tokens": compare_outputs(model, prompts, tokens, theirs["tokens"]),
            "rows": rows,
            "provenance": provenance_of(args),
        },
        args.out,
    )
    return 0
