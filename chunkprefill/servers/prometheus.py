"""A server's `/metrics` page, read with care: the few numbers that a diagnosis wants."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

MOST_LINES = 50_000
#: A series, its labels, its number. A label's value may hold a brace or an escaped quote; each character can be
#: read in one way only, so that a hostile line takes no longer than an honest one.
_LINE = re.compile(r'^([A-Za-z_:][\w:]*)(\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\} *| +)(\S+)')
#: row -> the series that hold it, by engine; the first that is there counts. Labels are summed over, but a share
#: (`cache_use`) is that of the fullest engine.
SERIES = {
    "running": ("vllm:num_requests_running", "sglang:num_running_reqs", "llamacpp:requests_processing"),
    "waiting": ("vllm:num_requests_waiting", "sglang:num_queue_reqs", "llamacpp:requests_deferred"),
    "preemptions": ("vllm:num_preemptions_total", "vllm:num_preemptions", "sglang:num_retracted_reqs"),
    "cache_use": ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "sglang:token_usage"),
    "prefix_queries": ("vllm:prefix_cache_queries_total", "vllm:prefix_cache_queries"),
    "prefix_hits": ("vllm:prefix_cache_hits_total", "vllm:prefix_cache_hits"),
    "prompt_tokens": (
        "vllm:prompt_tokens_total",
        "sglang:prompt_tokens_total",
        "llamacpp:prompt_tokens_total",
    ),
    "output_tokens": (
        "vllm:generation_tokens_total",
        "sglang:generation_tokens_total",
        "llamacpp:tokens_predicted_total",
    ),
}


def series(page: str) -> dict[str, float]:
    """{name: sum over its labels} of the finite numbers on a page; lines that are none are passed over."""
    sums = {name: sum(values) for name, values in _values(page).items()}
    return {name: value for name, value in sums.items() if math.isfinite(value)}


def _values(page: str) -> dict[str, list[float]]:
    """{name: its finite numbers, one a set of labels}."""
    out: dict[str, list[float]] = {}
    for line in page.splitlines()[:MOST_LINES]:
        if line.startswith("#") or not (found := _LINE.match(line)):
            continue
        try:
            value = float(found[3])
        except ValueError:
            continue
        if math.isfinite(value):
            out.setdefault(found[1], []).append(value)
    return out


def rows(page: str) -> dict[str, float]:
    """The rows of SERIES that a page has."""
    there, values = series(page), _values(page)
    there |= {name: max(values[name]) for name in SERIES["cache_use"] if name in values}
    found = {row: next((there[n] for n in names if n in there), None) for row, names in SERIES.items()}
    return {row: value for row, value in found.items() if value is not None}


def engine(page: str) -> str:
    """The engine that wrote a page, by its names; "" if it is none of these."""
    for prefix, name in (("vllm:", "vLLM"), ("sglang:", "SGLang"), ("llamacpp:", "llama.cpp")):
        if f"\n{prefix}" in f"\n{page}":
            return name
    return ""


def between(before: Mapping[str, float], after: Mapping[str, float], row: str) -> float:
    """By how much a counter grew; nan where it is not on both pages."""
    return after[row] - before[row] if row in before and row in after else math.nan
