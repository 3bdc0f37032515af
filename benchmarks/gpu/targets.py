"""What the recorded rows say about the targets, and the profile of a step that misses one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from benchmarks.gpu.lab import JsonRow, Lab
from benchmarks.gpu.passes import one_prefill, some_tokens
from benchmarks.gpu.steps import Load, rows_of

MODEL = "Llama-3-8B"
STEP = (512, 0, 64, 2048)  # chunk, cached before it, decodes, context
ALONE = (0, 0, 64, 2048)
AT_LEAST, AT_MOST = "at least", "at most"


def targets(rows: Sequence[JsonRow]) -> list[JsonRow]:
    """Each target with what was found: `met` is None where it was not measured.

    Set for an H100 in bfloat16, against ceilings of the same run; on other devices they are only stated.
    """
    found = [
        _one(
            "prefill-2048",
            "prefilling 8k at chunk 2048: share of the measured matrix peak",
            AT_LEAST,
            0.60,
            _value(rows, "prefilling", "fraction_of_peak", prompt=8192, chunk=2048),
        ),
        _one(
            "prefill-512",
            "prefilling 8k at chunk 512: share of the measured matrix peak",
            AT_LEAST,
            0.45,
            _value(rows, "prefilling", "fraction_of_peak", prompt=8192, chunk=512),
        ),
    ]
    for blocks in ("in runs", "scattered"):
        step = {"blocks": blocks, "graphs": False, "cached": 0, "decodes": 64, "context": 2048}
        ratio = _value(rows, "mixed", "over_roofline", chunk=512, **step)
        share = _value(rows, "decodes", "fraction_of_copy", **step)
        found += [
            _one(
                f"mixed, blocks {blocks}",
                "a chunk of 512 and 64 decodes at 2k: times its roofline",
                AT_MOST,
                1.4,
                ratio,
            ),
            _one(
                f"decodes, blocks {blocks}",
                "64 decodes at 2k alone: share of the copy's bandwidth",
                AT_LEAST,
                0.70,
                share,
            ),
        ]
    share = _value(rows, "decodes", "fraction_of_copy", **(step | {"blocks": "in runs", "graphs": True}))
    found.append(
        _one(
            "decodes, from a graph",
            "64 decodes at 2k, from a CUDA graph: share of the copy's bandwidth",
            AT_LEAST,
            0.70,
            share,
        )
    )
    ratios = [row["ratio"] for row in _rows(rows, "twin_prefill", prompt=8192) if row.get("ratio")]
    found += [
        _one(
            "transformers prefill",
            "8k in chunks by transformers: its time over ours, the least of all",
            AT_LEAST,
            1.2,
            min(ratios, default=None),
        ),
        _one(
            "transformers batching",
            "continuous batching by transformers: its time over ours",
            AT_LEAST,
            1.5,
            _value(rows, "twin_batching", "ratio"),
        ),
    ]
    tried = [row["equal"] for row in rows if row["section"] == "equality" and row.get("equal") is not None]
    equal = sum(tried) / len(tried) if tried else None
    found.append(
        _one(
            "equality",
            "chunked and standard cache equal within tolerance: share of cases tried",
            AT_LEAST,
            1.0,
            equal,
        )
    )
    return found


def _rows(rows: Sequence[JsonRow], section: str, **where: Any) -> list[JsonRow]:
    where |= {"section": section, "model": MODEL}
    return [row for row in rows if all(row.get(key) == value for key, value in where.items())]


def _value(rows: Sequence[JsonRow], section: str, key: str, **where: Any) -> float | None:
    return next((row[key] for row in _rows(rows, section, **where)), None)


def _one(name: str, what: str, how: str, bound: float, value: float | None) -> JsonRow:
    met = None if value is None else (value >= bound if how == AT_LEAST else value <= bound)
    return {"target": name, "what": what, "bound": f"{how} {bound}", "value": value, "met": met}


def profiles(lab: Lab, found: Sequence[JsonRow], *, every: bool = False) -> dict[str, list[JsonRow]]:
    """Where the device's time goes in the step behind each missed target (or behind `every` one)."""
    steps = _steps(lab)
    wanted = [one["target"] for one in found if every or one["met"] is False]
    return {name: key_averages(lab, steps[name]()) for name in wanted if name in steps}


def _steps(lab: Lab) -> Mapping[str, Callable[[], Callable[[], Any]]]:
    """What makes the work behind each target ready to run: caches are claimed only for those asked."""
    name = lab.main

    def prefilling(size: int) -> Callable[[], Callable[[], Any]]:
        n = min(8192, 4 * size)
        return lambda: partial(one_prefill, lab, name, lab.cache(name, n), some_tokens(lab, name, n), size)

    def step(load: Load, scattered: bool) -> Callable[[], Callable[[], Any]]:
        return partial(lab.step, name, rows_of(load), scattered=scattered)

    scale = lab.pick(tiny=32, smoke=1, full=1)
    mixed, alone = ((c // scale, p, n // scale, k // scale) for c, p, n, k in (STEP, ALONE))
    return {
        "prefill-2048": prefilling(2048 // scale),
        "prefill-512": prefilling(512 // scale),
        "mixed, blocks in runs": step(mixed, False),
        "mixed, blocks scattered": step(mixed, True),
        "decodes, blocks in runs": step(alone, False),
        "decodes, blocks scattered": step(alone, True),
        "transformers prefill": prefilling(64 // scale),
    }


def key_averages(lab: Lab, work: Callable[[], Any], top: int = 16) -> list[JsonRow]:
    """The operators and kernels that take most time in one run of `work`, after one that warms up."""
    from torch.profiler import ProfilerActivity, profile

    work()
    lab.sync()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if lab.cuda else [])]
    with profile(activities=activities) as record:
        work()
        lab.sync()
    rows = [
        {
            "name": event.key[:120],
            "calls": event.count,
            # A kernel's time is told twice, under its own name and under the operator that launched it.
            "device_us": float(event.self_device_time_total) if _is_kernel(event) else 0.0,
            "host_us": float(event.self_cpu_time_total),
        }
        for event in record.key_averages()
    ]
    key = "device_us" if lab.cuda else "host_us"
    total = sum(row[key] for row in rows) or 1.0
    rows = [row | {"share": row[key] / total} for row in rows]
    by_device = sorted(rows, key=lambda row: -row["device_us"])[:top]
    by_host = sorted(rows, key=lambda row: -row["host_us"])[: top // 2]
    return by_device + [row for row in by_host if row not in by_device]


def _is_kernel(event: Any) -> bool:
    return "cuda" in str(event.device_type).lower()


def as_text(found: Mapping[str, Sequence[JsonRow]]) -> str:
    """The profiles as tables."""
    lines = []
    for name, rows in found.items():
        lines += [name, f"{'device ms':>10} {'host ms':>9} {'calls':>6}  what"]
        lines += [
            f"{row['device_us'] / 1e3:10.3f} {row['host_us'] / 1e3:9.3f} {row['calls']:6d}  {row['name']}"
            for row in rows
        ]
        lines.append("")
    return "\n".join(lines)
