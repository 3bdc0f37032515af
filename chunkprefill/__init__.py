"""Chunked prefilling, for real: build a KV cache in pieces, schedule many prompts, measure what it costs.

`import chunkprefill as cp` offers every public name and imports nothing until a name is used, so that the
scheduler and the simulator start in milliseconds and run where torch cannot.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

if not (3, 11) <= sys.version_info[:2] <= (3, 13):  # pip checks this too; a copied folder has only this line
    raise RuntimeError(
        f"chunkprefill needs Python 3.11 to 3.13, this is {sys.version_info.major}.{sys.version_info.minor}"
    )

__version__ = "0.1.0"

# module -> the public names it holds; the table of contents of the package
_PUBLIC = {
    "bench.provenance": "provenance",
    "bench.profile": "profile_steps",
    "bench.vllm": "on_vllm",
    "measure": "measured",
    "analysis.summary": "DEFINITIONS Spread Summary summary",
    "analysis.metrics": "goodput interference largest_tbt scheduling_delay stalls tbt tpot ttft",
    "analysis.style": "Canvas Picture Table picture",
    "analysis.explore": "Explorer",
    "analysis.recorded": "recorded recorded_picture",
    "analysis.engines": "decisions_picture settings_table sources_table",
    "analysis.breakdown": "Breakdown OverheadFit breakdown fit_overhead part_times",
    "analysis.bars": "bars_picture",
    "analysis.fitplots": "fit_picture",
    "analysis.partpictures": "breakdown_picture",
    "analysis.profilepicture": "profile_picture",
    "analysis.graphs": "CudaGraphs",
    "analysis.lanes": "lanes_picture",
    "analysis.tasks": "Tasks tasks",
    "analysis.traceplots": "dashboard_picture run_table",
    "analysis.comparisons": "cdf_picture frontier_picture frontier_table spread_table",
    "analysis.grid": "grid_picture",
    "analysis.timeline": "lives same_moments timeline timeline_picture timeline_table",
    "analysis.plots": "curve_picture filling_picture mask_picture passes_picture share_picture",
    "model.config": "Config",
    "model.cache": "KVCache",
    "model.weights": "load_model random_model",
    "model.tokenizer": "load_tokenizer",
    "engine": "chunk_lengths decode generate prefill",
    "env": "setup",
    "calibration": "calibrate",
    "simulation.calibrated": "Calibrated fit fit_host prediction_errors reprice",
    "simulation.capacity": "Capacity at_rate capacity",
    "simulation.pipeline": "Pipeline simulate_pipeline",
    "simulation.sweep": "sweep",
    "simulation.devices": "DEVICES Device",
    "simulation.kernels": "Kernels",
    "simulation.published": "published",
    "model.paged": "PagedKVCache",
    "serving": "Engine replay",
    "scheduling.core": "Batch Chunk Plan Request ScheduleError Sequence Step",
    "scheduling.blocks": "BlockPool",
    "scheduling.trace": "PARTS Trace",
    "scheduling.state": "State",
    "scheduling.serve": "serve",
    "scheduling.policies": "Alternate ChunkedPrefill PrefillFirst RequestLevel SerialChunks",
    "scheduling.vllm": "VllmV1",
    "simulation.cost": "Roofline SchedulerCost",
    "simulation.simulate": "simulate",
    "simulation.workloads": "bursty code conversation documents_and_chats poisson read_azure read_mooncake",
    "exercises": "Choice Exercise Feedback Option Order recall",
}
# `cp.exercises.chunk_mask`, `cp.evidence.same_cache`: names by the room
_ROOMS = {"env": "env", "exercises": "exercises", "evidence": "evidence", "clinic": "exercises.clinic"}
_HOME = {name: module for module, names in _PUBLIC.items() for name in names.split()}
__all__ = ["__version__", *_HOME]  # noqa: PLE0604  (every entry is a str)


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"chunkprefill.{_ROOMS[name]}")
    if name not in _HOME:
        there = ", ".join(sorted(_HOME))
        raise AttributeError(f"module 'chunkprefill' has no attribute {name!r}; it has {there}")
    value = getattr(importlib.import_module(f"chunkprefill.{_HOME[name]}"), name)
    globals()[name] = value  # the next use skips this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
