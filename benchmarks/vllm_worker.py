"""vLLM in an environment of its own, driven over its standard input and output, one JSON object a line.

Run by `benchmarks.engines` with the interpreter that `make engines` made; it imports neither this package nor
chunkprefill. The first line it reads says how to start: `model`, a folder, `dtype`, `most`, tokens a step, and the `clock`.
Each line after that is one piece of work, and its answer has `seconds` or the `error`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # in this process: its scheduler's budget can then be changed
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # as many threads as OMP_NUM_THREADS says
    "HF_HUB_OFFLINE": "1",
}


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
#: Part of a step -> vLLM 0.32's own methods that are it: where each object hangs on the engine, and the method.
#: A call inside another is taken out of the outer one's time.
PARTS = {
    "decide": ["scheduler.schedule"],
    "blocks": ["scheduler.kv_cache_manager.allocate_slots"],
    "inputs": [
        "runner._update_states",
        "runner._prepare_inputs",
        "runner._determine_batch_execution_and_padding",
        "runner._get_slot_mappings",
        "runner._build_attention_metadata",
        "runner._preprocess",
    ],
    "pass": ["runner._model_forward", "runner.model.compute_logits"],
    "read": ["runner._sample", "runner._bookkeeping_sync"],
    "book": ["scheduler.update_from_output"],
    "outputs": ["outputs.process_outputs"],
}


class PartsMeter:
    """Seconds of named parts, each without the parts that ran inside it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.inside: list[float] = []  # s of parts within each call that has begun
        self.seconds: dict[str, float] = {}

    def wrap(self, owner: Any, name: str, part: str) -> None:
        """Time every call of `owner.name` from now on."""
        call = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = self.clock()
            self.inside.append(0.0)
            try:
                return call(*args, **kwargs)
            finally:
                took = self.clock() - began
                self.seconds[part] = self.seconds.get(part, 0.0) + took - self.inside.pop()
                if self.inside:
                    self.inside[-1] += took

        setattr(owner, name, timed)


class VllmWorker:
    """One engine of vLLM, whose token budget is set anew for each piece of work.

    async_scheduling: None leaves it as vLLM sets it; False lets each step end before the next one is scheduled.
    """

    def __init__(
        self,
        model: str,
        dtype: str,
        most: int,
        max_model_len: int,
        clock: str,
        async_scheduling: bool | None = None,
    ) -> None:
        import torch
        import vllm

        self.llm = vllm.LLM(
            model,
            skip_tokenizer_init=True,
            dtype=dtype,
            max_num_batched_tokens=most,
            max_model_len=max_model_len,
            max_num_seqs=64,
            enable_prefix_caching=False,
            disable_log_stats=True,
            async_scheduling=async_scheduling,
        )
        self.about = {
            "vllm": vllm.__version__,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "preloaded": [
                os.path.basename(path) for path in os.environ.get("LD_PRELOAD", "").split() if path
            ],
        }
        self.n_runs, self.clock = 0, CLOCKS[clock]

    def submit(self, prompts: list[list[int]], lengths: list[int], budget: int) -> None:
        """Hand all requests to the engine, to be decoded greedily to exactly these lengths."""
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt

        self.llm.llm_engine.engine_core.engine_core.scheduler.max_num_scheduled_tokens = budget
        self.n_runs += 1
        for i, (prompt, n) in enumerate(zip(prompts, lengths)):
            params = SamplingParams(temperature=0, max_tokens=n, ignore_eos=True, detokenize=False)
            name = f"{self.n_runs}-{i}"
            self.llm.llm_engine.add_request(name, TokensPrompt(prompt_token_ids=prompt), params)

    def step(self, tokens: dict[int, list[int]]) -> None:
        """One iteration; tokens takes what each request has so far."""
        for output in self.llm.llm_engine.step():
            at = int(output.request_id.split("-")[1])
            tokens[at] = list(output.outputs[0].token_ids)

    def serve(self, prompts: list[list[int]], lengths: list[int], budget: int) -> dict[str, Any]:
        """Seconds from the first request's coming to the last token."""
        tokens: dict[int, list[int]] = {}
        began = self.clock()
        self.submit(prompts, lengths, budget)
        while self.llm.llm_engine.has_unfinished_requests():
            self.step(tokens)
        return {
            "seconds": self.clock() - began,
            "tokens": [tokens[i] for i in range(len(prompts))],
        }

    def decode(self, prompts: list[list[int]], steps: int, budget: int) -> dict[str, Any]:
        """Seconds of `steps` iterations in which every request decodes."""
        tokens: dict[int, list[int]] = {}
        # The first requests decode already while the last ones are prefilled.
        ahead = sum(map(len, prompts)) // budget + len(prompts)
        self.submit(prompts, [steps + ahead] * len(prompts), budget)
        while len(tokens) < len(prompts):
            self.step(tokens)
        self.step(tokens)
        began = self.clock()
        for _ in range(steps):
            self.step(tokens)
        seconds = self.clock() - began
        while self.llm.llm_engine.has_unfinished_requests():
            self.step(tokens)
        return {"seconds": seconds, "tokens": [tokens[i] for i in range(len(prompts))]}

    def parts(self, prompts: list[list[int]], lengths: list[int], budget: int) -> dict[str, Any]:
        """Each iteration of a run: the tokens of each request in it, its seconds, and those of its parts."""
        core = self.llm.llm_engine.engine_core.engine_core
        runner = core.model_executor.driver_worker.worker.model_runner
        roots = {
            "scheduler": core.scheduler,
            "runner": runner,
            "outputs": self.llm.llm_engine.output_processor,
        }
        meter = PartsMeter(self.clock)
        for part, methods in PARTS.items():
            for path in methods:
                root, *between, name = path.split(".")
                owner = roots[root]
                for attribute in between:
                    owner = getattr(owner, attribute)
                meter.wrap(owner, name, part)
        planned: list[list[int]] = []
        schedule = core.scheduler.schedule

        def remember(*args: Any, **kwargs: Any) -> Any:
            plan = schedule(*args, **kwargs)
            planned.append(sorted(plan.num_scheduled_tokens.values()))
            return plan

        core.scheduler.schedule = remember
        tokens: dict[int, list[int]] = {}
        steps = []
        self.submit(prompts, lengths, budget)
        while self.llm.llm_engine.has_unfinished_requests():
            meter.seconds = {}
            n_planned, began = len(planned), self.clock()
            self.step(tokens)
            seconds = self.clock() - began
            if len(planned) == n_planned + 1:
                steps.append({"tokens": planned[-1], "seconds": seconds, "parts": meter.seconds})
        scheduler = type(core.scheduler).__name__
        return {
            "steps": steps,
            "tokens": [tokens[i] for i in range(len(prompts))],
            "runner": type(runner).__module__ + "." + type(runner).__name__,
            "scheduler": scheduler,
        }

    def profile(self, prompts: list[list[int]], lengths: list[int], budget: int) -> dict[str, Any]:
        """Where a run's time goes: [operator, share of the processor's time, calls], the largest first."""
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CPU]) as seen:
            self.serve(prompts, lengths, budget)
        rows = seen.key_averages()
        whole = sum(row.self_cpu_time_total for row in rows)
        rows = sorted(rows, key=lambda row: -row.self_cpu_time_total)[:12]
        return {"operators": [[row.key, row.self_cpu_time_total / whole, row.count] for row in rows]}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # vLLM writes its log to standard output
    os.environ.update({name: os.environ.get(name, value) for name, value in SETTINGS.items()})
    server = VllmWorker(**json.loads(sys.stdin.readline()))
    print(json.dumps(server.about), file=answers)
    for line in sys.stdin:
        work = json.loads(line)
        try:
            answer = getattr(server, work.pop("do"))(**work)
        except Exception as error:  # told to the bench, which stops: this process has no reader of tracebacks
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()
