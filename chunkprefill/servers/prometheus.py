"""A server's `/metrics` page, read with care: the few numbers that a diagnosis wants."""

from __future__ import annotations

import math
import re

MOST_LINES = 50_000
#: A series, its labels, its number. A label's value may hold a brace or an escaped quote; each character can be
#: read in one way only, so that a hostile line takes no longer than an honest one.
_LINE = re.compile(r'^[ \t]*([A-Za-z_:][\w:]*)([ \t]*\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\}[ \t]*|[ \t]+)(\S+)')
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_LABEL = re.compile(r'(?<!\w)([A-Za-z_]\w*)[ \t]*=[ \t]*"((?:[^"\\]|\\.)*)"')
#: row -> the series that hold it, by engine; the first that is there counts. Labels are summed over, but a share
#: (`cache_use`) is that of the fullest engine. SGLang's `num_retracted_reqs` is no count: it tells of the last
#: batch alone.
SERIES = {
    "running": ("vllm:num_requests_running", "sglang:num_running_reqs", "llamacpp:requests_processing"),
    "waiting": ("vllm:num_requests_waiting", "sglang:num_queue_reqs", "llamacpp:requests_deferred"),
    "preemptions": (
        "vllm:num_preemptions_total",
        "vllm:num_preemptions",
        "sglang:num_retracted_requests_total",
    ),
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
#: The name of a series on a page -> its own. OpenMetrics, as Python's client writes it, has no colons in names.
_WANTED = {
    there: name for names in SERIES.values() for name in names for there in (name, name.replace(":", "_", 1))
}
#: Ranks of one engine: each that tells of itself tells of the same requests.
_RANKS = frozenset(("tp_rank", "pp_rank", "moe_ep_rank"))
Labels = frozenset[tuple[str, str]]


def _samples(page: str) -> dict[str, list[tuple[Labels, float]]]:
    """{name: its labels and numbers} of the series in SERIES; nan for a number that is none or below 0."""
    out: dict[str, list[tuple[Labels, float]]] = {}
    for line in page.split("\n")[:MOST_LINES]:  # a label may hold what `splitlines` takes for a line's end
        found = _LINE.match(line)
        if not found or found[1] not in _WANTED:
            continue
        labels = frozenset(
            (name, _ESCAPED.sub(_unescaped, value))
            for name, value in _LABEL.findall(found[2])
            if name not in _RANKS
        )
        out.setdefault(_WANTED[found[1]], []).append((labels, _number(found[3])))
    return out


def _unescaped(found: re.Match[str]) -> str:
    return "\n" if found[1] == "n" else found[1]


def _number(text: str) -> float:
    try:
        value = math.nan if "_" in text else float(text)
    except ValueError:
        return math.nan
    return value if 0 <= value < math.inf else math.nan


def _of_model(samples: list[tuple[Labels, float]], model: str) -> list[tuple[Labels, float]]:
    """The samples of one model; all of them where they name none or one, none where it is not among several."""
    names = {value for labels, _ in samples for name, value in labels if name == "model_name"}
    if not model or len(names) < 2:
        return samples
    return [sample for sample in samples if ("model_name", model) in sample[0]]


def rows(page: str, model: str = "") -> dict[str, float]:
    """The rows of SERIES that a page has; of `model` alone where it tells of several models.

    A row is missing where one of its numbers is none: the sum of the others would pass for all.
    """
    samples = _samples(page)
    found = {}
    for row, names in SERIES.items():
        name = next((name for name in names if name in samples), None)
        engines: dict[Labels, float] = {}
        for labels, value in _of_model(samples.get(name or "", []), model):
            known = engines.get(labels, value)
            engines[labels] = math.nan if math.isnan(known) or math.isnan(value) else max(known, value)
        if not engines or any(map(math.isnan, engines.values())):
            continue
        value = max(engines.values()) if row == "cache_use" else sum(engines.values())
        if math.isfinite(value):
            found[row] = value
    return found


def engine(page: str) -> str:
    """The engine that wrote a page, by its names; "" if it is none of these."""
    for prefix, name in (("vllm:", "vLLM"), ("sglang:", "SGLang"), ("llamacpp:", "llama.cpp")):
        if re.search(rf"^[ \t]*{prefix[:-1]}[:_]", page, re.MULTILINE):
            return name
    return ""
