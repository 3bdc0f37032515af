"""Runs in OpenVINO's own environment: a job as JSON on standard input, what was seen as JSON on the last line."""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def main() -> int:
    import numpy as np
    import openvino
    import openvino_genai as genai

    job = json.loads(sys.stdin.read())
    config = genai.SchedulerConfig()
    config.cache_size, config.enable_prefix_caching = 1, False
    for name, value in job["settings"].items():
        setattr(config, name, value)
    pipe = genai.ContinuousBatchingPipeline(job["model"], config, "CPU")

    def add(rid: int, one: dict[str, Any]) -> Any:
        options = genai.GenerationConfig()
        options.max_new_tokens, options.ignore_eos, options.do_sample = one["n_output"], True, False
        return pipe.add_request(rid, openvino.Tensor(np.array([one["ids"]], np.int64)), options)

    # All of it once before it is timed: the first step of a size is compiled and takes seconds more.
    warm = [add(10_000 + i, one | {"n_output": 2}) for i, one in enumerate(job["requests"])]
    while pipe.has_non_finished_requests():
        pipe.step()
    for handle in warm:
        while handle.can_read():
            handle.read()
    waiting = list(enumerate(job["requests"]))
    running: dict[int, Any] = {}
    seen = {rid: {"name": one["name"], "sent": 0.0, "tokens": []} for rid, one in waiting}
    begun, n_steps = time.monotonic(), 0
    while waiting or pipe.has_non_finished_requests():
        while waiting and (waiting[0][1]["after_steps"] <= n_steps or not pipe.has_non_finished_requests()):
            rid, one = waiting.pop(0)
            seen[rid]["sent"] = time.monotonic() - begun
            running[rid] = add(rid, one)
        pipe.step()
        now = time.monotonic() - begun
        n_steps += 1
        for rid, handle in running.items():
            while handle.can_read():
                for output in handle.read().values():
                    seen[rid]["tokens"] += [round(now, 5)] * len(output.generated_ids)
    print(json.dumps({"version": genai.__version__, "requests": list(seen.values())}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
