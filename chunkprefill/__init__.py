"""Chunked prefilling, for real: build a KV cache in pieces, schedule many prompts, measure what it costs.

`import chunkprefill as cp` offers every public name and imports nothing until a name is used, so that the
scheduler and the simulator start in milliseconds and run where torch cannot.
"""

from __future__ import annotations

import sys

from chunkprefill.lazy import door

if sys.version_info < (3, 11):  # noqa: UP036  # pip checks this too; a copied folder has only this line
    raise RuntimeError(
        f"chunkprefill needs Python 3.11 or newer, this is {sys.version_info[0]}.{sys.version_info[1]}"
    )

__version__ = "0.1.0"

# module -> the public names it holds; the table of contents of the package
_PUBLIC = {
    "splitting": "chunk_lengths",
    "generation": "decode generate prefill",
    "engine": "Engine replay",
    "model.config": "Config",
    "model.cache": "KVCache",
    "model.paged": "PagedKVCache",
    "model.weights": "load_model random_model",
    "model.tokenizer": "load_tokenizer",
    "scheduling.core": "Batch Chunk Plan Request ScheduleError Sequence Step",
    "scheduling.blocks": "BlockPool",
    "scheduling.trace": "PARTS Trace",
    "scheduling.state": "State",
    "scheduling.loop": "serve",
    "scheduling.clients": "Clients clients",
    "scheduling.policies": "Alternate ChunkedPrefill PrefillAware PrefillFirst RequestLevel SerialChunks",
    "scheduling.vllm": "VllmV1",
    "simulation.cost": "Roofline SchedulerCost",
    "simulation.simulate": "simulate",
    "simulation.workloads": "bursty code conversation documents_and_chats poisson read_azure read_mooncake",
    "simulation.calibration": "Calibrated fit fit_host prediction_errors reprice",
    "simulation.capacity": "Capacity at_rate capacity",
    "simulation.pipeline": "Pipeline simulate_pipeline",
    "simulation.sweep": "sweep",
    "simulation.kernels": "Kernels",
    "simulation.published": "published",
    "simulation.cuda_graphs": "CudaGraphs",
    "simulation.layout": "Layout",
    "simulation.price": "Serving memory_use pool_for price",
    "configs": "DEVICES MODELS Device",
    "measuring": "calibrate",
    "profiling": "profile_steps",
    "recording": "provenance",
    "measure": "measured",
    "metrics.summary": "DEFINITIONS Spread Summary summary",
    "metrics.waits": "goodput interference largest_tbt latency scheduling_delay stalls tbt tpot ttft",
    "metrics.breakdown": "Breakdown OverheadFit breakdown fit_overhead part_times",
    "metrics.tasks": "Tasks tasks",
    "metrics.timelines": "align_arrivals request_timelines",
    "plots.style": "Canvas Picture Table picture",
    "plots.bars": "bars_picture passes_picture share_picture",
    "plots.cells": "filling_picture mask_picture",
    "plots.curve": "curve_picture",
    "plots.fits": "fit_picture",
    "plots.parts": "breakdown_picture",
    "plots.profile": "profile_picture",
    "plots.lanes": "lanes_picture",
    "plots.dashboard": "dashboard_picture run_table",
    "plots.comparisons": "cdf_picture frontier_picture frontier_table spread_table",
    "plots.grid": "grid_picture",
    "plots.timeline": "timeline_picture timeline_table",
    "servers.vllm": "on_vllm",
    "servers.advise": "Advice Mix Promise advise",
    "servers.client": "ProbeError",
    "servers.judge": "Verdict",
    "servers.probe": "ProbePlan probe",
    "servers.record": "ProbeRecord",
    "env": "setup",
}
_ROOMS = {"env": "env"}
__getattr__, __dir__, _names = door(__name__, _PUBLIC, _ROOMS)
__all__ = ["__version__", *_names]  # noqa: PLE0604  (every entry is a str)
