"""`python -m benchmarks engines`: this engine, `transformers` and vLLM on the same weights and threads.

One prompt of 2,048 tokens in chunks, 32 requests served under two budgets, and 32 sequences that only decode,
in float32 and bfloat16. Runs are interleaved, each figure is a median, raw samples stand beside it. Each
engine runs in its best settings: ours with packed weights, `transformers` with sdpa, the faster of its two
caches and its padded `generate` in batches sorted by length, vLLM compiled, in the environment that
`make engines` makes and in a process of its own, which waits while others run. Where an engine is missing its
part is skipped, loudly.

Tokens are compared: in float32 they have to be equal; for every output that parts from ours the place is
recorded, and the margin between the two tokens there, in logits of our model.

On a machine that others use, `--clock cpu --threads 1` counts processor time, which waiting does not enter.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import serve
from benchmarks.runner import CLOCKS, ROOT, options, positive, provenance_of, turn, write
from benchmarks.twin import published_config, published_weights, quiet, transformers_twin, twin_prefills
from chunkprefill.engine import Engine, prompt_of
from chunkprefill.generation import chunk_lengths, prefill
from chunkprefill.model.cache import KVCache
from chunkprefill.model.transformer import Transformer
from chunkprefill.model.weights import load_model
from chunkprefill.scheduling.core import Request
from chunkprefill.scheduling.policies import ChunkedPrefill
from chunkprefill.simulation.workloads import poisson

PYTHON = ROOT / ".venv-engines" / "bin" / "python"
CHUNKS, BUDGETS = (64, 256, 512, 2048), (256, 1024)
PARTED = 4  # outputs that part from ours: the margins of so many are worked out
#: vLLM's time over ours that is asked for, by dtype and work.
TARGETS = {
    ("float32", "prefill"): 1.0,
    ("float32", "serve"): 1.0,
    ("float32", "decode"): 1.0,
    ("bfloat16", "prefill"): 1.0,
    ("bfloat16", "serve"): 0.8,
}


@dataclass(frozen=True)
class Timed:
    """One run: how long it took, and the tokens of each request in their order."""

    seconds: float
    tokens: list[list[int]]


Run = Callable[[], Timed]
Clock = Callable[[], float]  # s


@dataclass(frozen=True)
class EngineWork:
    """How much work is measured: small for a test, the whole by default."""

    n_prompt: int  # tokens of the prompt that is prefilled alone
    chunks: tuple[int, ...]
    requests: tuple[Request, ...]  # served together, all there at the start
    budgets: tuple[int, ...]
    context: int  # tokens that each of as many sequences has when it only decodes
    steps: int  # of decoding alone
    clock: Clock


def work_asked(args: argparse.Namespace) -> EngineWork:
    """What the options ask for; requests are drawn from the seed."""
    lengths = (max(1, args.prompt // 32), max(1, args.prompt * 736 // 2048))
    drawn = poisson(args.requests, 1.0, prompt=lengths, output=args.output, seed=args.seed)
    requests = tuple(Request(r.rid, 0.0, r.n_prompt, r.n_output) for r in drawn)
    chunks = tuple(chunk for chunk in args.chunks if chunk <= args.prompt) or (args.prompt,)
    return EngineWork(
        args.prompt, chunks, requests, tuple(args.budgets), args.prompt // 4, args.steps, CLOCKS[args.clock]
    )


class VllmProcess:
    """vLLM in its own environment, and what may be asked of it; see `benchmarks.vllm_worker`."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process, self.log = process, log
        self.about: dict[str, Any] = {}

    def ask(self, work: dict[str, Any]) -> dict[str, Any]:
        """Send one line, read one line. RuntimeError with the end of its log if it cannot."""
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(json.dumps(work) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except OSError:
            line = ""
        answer = (
            json.loads(line) if line else {"error": "the process ended:\n" + self.log.read_text()[-2000:]}
        )
        if "error" in answer:
            raise RuntimeError(f"vLLM: {answer['error']}")
        return answer

    def run(self, do: str, **work: Any) -> Timed:
        answer = self.ask({"do": do, **work})
        return Timed(answer["seconds"], answer["tokens"])


@contextmanager
def vllm_process(python: Path, folder: Path, start: dict[str, Any]) -> Iterator[VllmProcess]:
    """vLLM with the weights in `folder`, started as `start` says and at the end stopped; its log lies there."""
    log = folder / "vllm.log"
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
        environment.pop(name, None)
    openmp = python.parent.parent / "lib" / "libiomp5.so"  # vLLM asks for it; its wheel depends on it
    if openmp.is_file():
        environment["LD_PRELOAD"] = str(openmp)
    with log.open("w") as errors:
        process = subprocess.Popen(
            [str(python), "-s", "-P", str(Path(__file__).with_name("vllm_worker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
            cwd=folder,
        )
        server = VllmProcess(process, log)
        try:
            print("starting vLLM: a minute, or three the first time", file=sys.stderr)
            server.about = server.ask({"model": str(folder), "max_model_len": 4096, **start})
            yield server
        finally:
            process.kill()
            process.wait()


def write_folder(model: Transformer, folder: Path) -> None:
    """The weights and the config as published, in float32: what vLLM loads."""
    from safetensors.torch import save_file

    weights = published_weights(model)
    if model.config.tied:
        del weights["lm_head.weight"]
    save_file({name: x.contiguous().clone() for name, x in weights.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(published_config(model.config)))


def clocked(clock: Clock, work: Callable[[], list[list[int]]]) -> Timed:
    began = clock()
    tokens = work()
    return Timed(clock() - began, tokens)


def first_token(logits: Tensor) -> list[list[int]]:
    return [[int(logits.argmax())]]


def our_prefill(model: Transformer, prompt: list[int], chunk: int) -> list[list[int]]:
    cache = KVCache(model.config, len(prompt), dtype=model.dtype)
    return first_token(prefill(model, prompt, cache, chunk))


class StepClock:
    """A policy's decisions as they are, and the clock at each: a step of the engine begins with one."""

    def __init__(self, policy: ChunkedPrefill, clock: Clock) -> None:
        self.policy, self.clock, self.times = policy, clock, list[float]()

    def schedule(self, state: Any) -> Any:
        self.times.append(self.clock())
        return self.policy.schedule(state)


def our_decode(model: Transformer, prompts: list[list[int]], steps: int, budget: int, clock: Clock) -> Timed:
    """Seconds of `steps` iterations in which every request decodes, deciding and building inputs included."""
    ahead = sum(map(len, prompts)) // budget + len(prompts)
    requests = [Request(i, 0.0, len(p), steps + ahead, prompt=tuple(p)) for i, p in enumerate(prompts)]
    policy = StepClock(ChunkedPrefill(budget), clock)
    trace = Engine(model, policy).run(requests)
    alone = [i for i, step in enumerate(trace.steps) if list(step.batch.length) == [1] * len(prompts)]
    first = alone[1]  # the first is not timed: kernels are set up in it
    assert first + steps - 1 in alone, "the first requests ended while others decoded"
    seconds = policy.times[first + steps] - policy.times[first]
    return Timed(seconds, [trace.outputs[r.rid] for r in requests])


def their_decode(twin: Any, prompts: list[list[int]], steps: int, clock: Clock) -> Timed:
    """The same with `transformers`: one batch of equal lengths, its dynamic cache, nothing to pad."""
    from transformers import DynamicCache

    cache = DynamicCache(config=twin.config)
    with torch.inference_mode():
        ids = torch.tensor(prompts)
        logits = twin(ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
        columns = [logits[:, -1].argmax(-1, keepdim=True)]
        began = 0.0
        for i in range(steps + 1):
            if i == 1:  # the first is not timed, as with the others
                began = clock()
            out = twin(columns[-1], past_key_values=cache, use_cache=True, logits_to_keep=1)
            columns.append(out.logits[:, -1].argmax(-1, keepdim=True))
        seconds = clock() - began
    return Timed(seconds, torch.cat(columns, 1).tolist())


def engine_rows(
    load: EngineWork, model: Transformer, twin: Any | None, vllm: VllmProcess | None
) -> Iterator[tuple[dict[str, Any], list[list[int]], dict[str, Run]]]:
    """Each piece of work: what it is, the prompts, and every engine's run of it, ours first."""
    generator = torch.Generator().manual_seed(load.n_prompt)
    prompt = torch.randint(0, model.config.vocab_size, (load.n_prompt,), generator=generator).tolist()
    for chunk in load.chunks:
        runs: dict[str, Run] = {
            "chunkprefill": partial(clocked, load.clock, partial(our_prefill, model, prompt, chunk))
        }
        if twin is not None:
            strip, lengths = torch.tensor(prompt), chunk_lengths(len(prompt), chunk)
            for name, run in twin_prefills(twin).items():
                work = partial(lambda run, *given: first_token(run(*given)), run, strip, lengths)
                runs[f"transformers, {name} cache"] = partial(clocked, load.clock, work)
        if vllm is not None:
            runs["vllm"] = partial(vllm.run, "serve", prompts=[prompt], lengths=[1], budget=chunk)
        yield {"work": "prefill", "prompt": len(prompt), "chunk": chunk}, [prompt], runs
    prompts = [list(prompt_of(request, model.config.vocab_size)) for request in load.requests]
    outputs = [request.n_output for request in load.requests]
    for budget in load.budgets:
        runs = {"chunkprefill": partial(clocked, load.clock, serve.ours(model, load.requests, budget))}
        if twin is not None:
            name = "padded generate, sorted"
            theirs = serve.theirs(model, load.requests, 8, budget, twin=twin)[name]
            runs[f"transformers, {name}"] = partial(clocked, load.clock, theirs)
        if vllm is not None:
            runs["vllm"] = partial(vllm.run, "serve", prompts=prompts, lengths=outputs, budget=budget)
        about = {"work": "serve", "requests": len(prompts), "budget": budget}
        about |= {"prompt_tokens": sum(map(len, prompts)), "output_tokens": sum(outputs)}
        yield about, prompts, runs
    n, budget = len(prompts), max(load.budgets)
    drawn = torch.randint(0, model.config.vocab_size, (n, load.context), generator=generator).tolist()
    runs = {"chunkprefill": partial(our_decode, model, drawn, load.steps, budget, load.clock)}
    if twin is not None:
        runs["transformers, dynamic cache"] = partial(their_decode, twin, drawn, load.steps, load.clock)
    if vllm is not None:
        runs["vllm"] = partial(vllm.run, "decode", prompts=drawn, steps=load.steps, budget=budget)
    yield {"work": "decode", "sequences": n, "context": load.context, "steps": load.steps}, drawn, runs


def measure(
    model: Transformer, about: dict[str, Any], prompts: list[list[int]], runs: dict[str, Run], repeats: int
) -> dict[str, Any]:
    """One row: a first round that warms up and compares tokens, then all in turn, `repeats` times."""
    first = {name: run() for name, run in runs.items()}
    ours = first["chunkprefill"].tokens
    kept = dict(runs)
    for name, run in first.items():  # of two settings of one engine the slower by a quarter is set aside
        rivals = [r.seconds for other, r in first.items() if other.split(",")[0] == name.split(",")[0]]
        if run.seconds > 1.25 * min(rivals):
            del kept[name]
    samples: dict[str, list[float]] = {name: [] for name in kept}
    for i in range(repeats):
        for name in turn(kept, i):
            gc.collect()
            samples[name].append(kept[name]().seconds)
    medians = {name: statistics.median(values) for name, values in samples.items()}
    dtype = str(model.dtype).removeprefix("torch.")
    row: dict[str, Any] = {"dtype": dtype, **about, "median_s": medians, "ratios": {}}
    for engine in ("transformers", "vllm"):
        times = [s for name, s in medians.items() if name.split(",")[0] == engine]
        if times:
            row["ratios"][engine] = min(times) / medians["chunkprefill"]
    target = TARGETS.get((dtype, about["work"]))
    if target is not None and "vllm" in row["ratios"]:
        row |= {"target": target, "met": row["ratios"]["vllm"] >= target}
    row["outputs"] = {
        name: compare_outputs(model, prompts, ours, run.tokens)
        for name, run in first.items()
        if name != "chunkprefill"
    }
    warm = {name: run.seconds for name, run in first.items()}
    return row | {"samples_s": samples, "warmup_s": warm}


def compare_outputs(
    model: Transformer, prompts: Sequence[list[int]], ours: list[list[int]], theirs: list[list[int]]
) -> dict[str, Any]:
    """How many outputs are equal as far as both go, and for the first that part: where, by what margin."""
    parted = []
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        at = next((j for j, (x, y) in enumerate(zip(a, b)) if x != y), None)
        if at is not None:
            parted.append((i, at))
    places = []
    for i, at in parted[:PARTED]:
        tokens = prompts[i] + ours[i][:at]
        cache = KVCache(model.config, len(tokens), dtype=model.dtype)
        logits = prefill(model, tokens, cache, 512)
        margin = float(logits[ours[i][at]] - logits[theirs[i][at]])
        places.append({"output": i, "token": at, "margin": margin, "largest_logit": float(logits.max())})
    return {"equal": len(ours) - len(parted), "of": len(ours), "parted": places}


def our_profile(model: Transformer, load: EngineWork) -> list[list[Any]]:
    """Where our time goes: [operator, share of the processor's time, calls], the largest first."""
    from torch.profiler import ProfilerActivity, profile

    run = serve.ours(model, load.requests, load.budgets[0])
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        run()
    rows = seen.key_averages()
    whole = sum(row.self_cpu_time_total for row in rows)
    largest = sorted(rows, key=lambda row: -row.self_cpu_time_total)[:12]
    return [[row.key, row.self_cpu_time_total / whole, row.count] for row in largest]


def main(argv: list[str]) -> int:
    parser = options("engines", __doc__)
    parser.add_argument(
        "--model", default="smollm2-135m", help="a name of load_model's (default: %(default)s)"
    )
    parser.add_argument(
        "--dtypes", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"]
    )
    parser.add_argument("--prompt", type=positive, default=2048, help="tokens (default: %(default)s)")
    parser.add_argument("--chunks", type=positive, nargs="+", default=CHUNKS, help="tokens")
    parser.add_argument("--requests", type=positive, default=32, help="default: %(default)s")
    parser.add_argument("--output", type=positive, default=33, help="tokens of each (default: %(default)s)")
    parser.add_argument("--budgets", type=positive, nargs="+", default=BUDGETS, help="tokens a step")
    parser.add_argument("--steps", type=positive, default=16, help="of decoding alone (default: %(default)s)")
    parser.add_argument("--repeats", type=positive, default=3, help="samples of each (default: %(default)s)")
    parser.add_argument("--threads", type=positive, default=2, help="of each engine (default: %(default)s)")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="default: %(default)s")
    parser.add_argument("--vllm", type=Path, default=PYTHON, help="python with vLLM (default: %(default)s)")
    parser.add_argument(
        "--without", nargs="+", choices=("transformers", "vllm"), default=[], help="leave out"
    )
    parser.add_argument("--profile", action="store_true", help="record where the time of serving goes, too")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    load = work_asked(args)
    document: dict[str, Any] = {
        "bench": "engines",
        "what": "seconds of each engine on the same weights and threads; ratios are theirs over ours",
        "model": args.model,
        "clock": args.clock,
        "engines": {},
        "rows": [],
        "profiles": {},
        "provenance": provenance_of(args),
    }
    for dtype in args.dtypes:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            engines = stack.enter_context(engines_for(args, dtype, folder))
            document["engines"] |= engines.about
            for about, prompts, runs in engine_rows(load, engines.model, engines.twin, engines.vllm):
                row = measure(engines.model, about, prompts, runs, args.repeats)
                document["rows"].append(row)
                print(line(row), file=sys.stderr, flush=True)
                if args.out:  # after each row: a bench that is stopped has lost nothing
                    write(document, args.out)
            if args.profile:
                profiles = document["profiles"][dtype] = {"chunkprefill": our_profile(engines.model, load)}
                if engines.vllm is not None:
                    prompts = [list(prompt_of(r, engines.model.config.vocab_size)) for r in load.requests]
                    lengths = [request.n_output for request in load.requests]
                    work = {
                        "do": "profile",
                        "prompts": prompts,
                        "lengths": lengths,
                        "budget": load.budgets[0],
                    }
                    profiles["vllm"] = engines.vllm.ask(work)["operators"]
    write(document, args.out)
    return 0


@dataclass(frozen=True)
class EngineSet:
    """The engines of one dtype, and what is recorded about them."""

    model: Transformer
    twin: Any | None
    vllm: VllmProcess | None
    about: dict[str, Any]


@contextmanager
def engines_for(args: argparse.Namespace, dtype: str, folder: Path) -> Iterator[EngineSet]:
    """Ours, and the others where they are; a missing one is said loudly."""
    model = load_model(args.model, dtype=torch.float32, pack=False)
    write_folder(model, folder)
    model = model.to(getattr(torch, dtype)).pack()
    about: dict[str, Any] = {"chunkprefill": {"backend": "sdpa, packed weights"}}
    twin = None
    if "transformers" not in args.without:
        try:
            import transformers

            quiet()
            twin, about["transformers"] = transformers_twin(model), {"version": transformers.__version__}
        except ImportError as error:
            print(f"MISSING transformers ({error}): its part is skipped", file=sys.stderr)
    with ExitStack() as stack:
        vllm = None
        if "vllm" not in args.without:
            if args.vllm.is_file():
                most = max(*args.chunks, *args.budgets)
                start = {"dtype": dtype, "most": most, "clock": args.clock}
                vllm = stack.enter_context(vllm_process(args.vllm.absolute(), folder, start))
                about["vllm"] = vllm.about
            else:
                print(
                    f"MISSING vLLM ({args.vllm} is not there: `make engines`): its part is skipped",
                    file=sys.stderr,
                )
        yield EngineSet(model, twin, vllm, about)


def line(row: dict[str, Any]) -> str:
    what = {"prefill": "chunk", "serve": "budget", "decode": "context"}[row["work"]]
    times = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in row["median_s"].items())
    ratios = ", ".join(f"{ratio:.2f} of {engine}" for engine, ratio in row["ratios"].items())
    equal = ", ".join(f"{o['equal']} of {o['of']} equal to {name}" for name, o in row["outputs"].items())
    return f"{row['dtype']} {row['work']}, {what} {row[what]}: {times}; {ratios}; {equal}"
