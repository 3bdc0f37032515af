"""Evidence about what chunks buy and what they cost on one server: priced by published kernel timings."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from statistics import mean, median
from typing import Any

from chunkprefill.metrics.timelines import request_timelines
from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.scheduling.core import Batch, Request
from chunkprefill.scheduling.policies import Alternate, ChunkedPrefill, PrefillFirst
from chunkprefill.scheduling.trace import Trace
from chunkprefill.simulation.pipeline import simulate_pipeline
from chunkprefill.simulation.published import published
from chunkprefill.simulation.simulate import simulate
from chunkprefill.simulation.workloads import documents_and_chats
from chunkprefill_course.evidence.evidence import Evidence, Number
from chunkprefill_course.evidence.scheduling import PRICED

BUDGETS = tuple(range(128, 1025, 32))  # tokens an iteration, swept


def _ms(label: str, seconds: float) -> Number:
    ms = 1e3 * seconds
    return Number(label, round(ms, 1) if ms < 100 else round(ms), "ms", "simulated")


def _s(label: str, seconds: float) -> Number:
    return Number(label, round(seconds, 2), "s", "simulated")


def mixed(*, chunk: int = 0, start: int = 0, n_decodes: int = 0, context: int = 0) -> Batch:
    """One step: a chunk of a prompt that has `start` tokens cached, and decodes at `context` tokens each.

    The chunk does not emit: more of its prompt is to come.
    """
    n_chunks = int(chunk > 0)
    return Batch(
        rid=tuple(range(n_decodes + n_chunks)),
        start=(context,) * n_decodes + (start,) * n_chunks,
        length=(1,) * n_decodes + (chunk,) * n_chunks,
        emits=(True,) * n_decodes + (False,) * n_chunks,
    )


def added(price: Callable[[Batch], float], chunk: int, n_decodes: int, context: int) -> tuple[float, ...]:
    """Seconds of a step: of the decodes alone, of the chunk alone, of both."""
    return (
        price(mixed(n_decodes=n_decodes, context=context)),
        price(mixed(chunk=chunk)),
        price(mixed(chunk=chunk, n_decodes=n_decodes, context=context)),
    )


def piggyback(*, changed: bool = False, device: str = "rtx4090") -> Evidence:
    """What decodes cost beside a chunk, and alone. changed: the same with long contexts.

    It would fail if a chunk's step were busy with arithmetic, as that of 512 tokens is, whose number is shown.
    """
    context = 2048 if changed else 128
    price = published(device)
    alone, without, both = added(price, 64, 16, context)
    extra = both - without
    numbers = [
        _ms("a step of the decodes alone", alone),
        _ms("a step of the chunk alone", without),
        _ms("a step of both", both),
        _ms("so the decodes add", extra),
        Number("alone, as a multiple of that", round(alone / extra, 1), "×", "simulated"),
    ]
    if not changed:
        full, only, together = added(price, 512, 16, context)
        numbers.append(
            Number("the same beside a chunk of 512", round(full / (together - only), 1), "×", "simulated")
        )
    return Evidence(
        claim="piggyback",
        holds=alone >= 3 * extra,
        setting=f"16 decodes with {context:,} tokens cached each, and a chunk of 64 at the start of its "
        f"prompt, {PRICED}.",
        numbers=tuple(numbers),
        otherwise="give each of the decodes a context of 2,048 tokens.",
    )


def mixing_loses(*, changed: bool = False) -> Evidence:
    """Is one step for a chunk and decodes longer than two, one for each? changed: short contexts.

    The kernels that price it were measured with both in one launch; where decodes have a launch of their own
    the recorded H100 run finds the reverse, so the evidence could fail.
    """
    context = 128 if changed else 8192
    alone, without, both = added(published("rtxpro6000"), 512, 64, context)
    return Evidence(
        claim="mixing-loses",
        holds=both >= 1.2 * (alone + without),
        setting=f"A chunk of 512 and 64 decodes with {context:,} tokens cached each, priced by published kernel "
        "timings of Llama-3.1-8B on an RTX PRO 6000, whose attention takes both in one launch.",
        numbers=(
            _ms("a step of the decodes alone", alone),
            _ms("a step of the chunk alone", without),
            _ms("a step of both", both),
            Number("that, over the two apart", round(both / (alone + without), 2), "×", "simulated"),
        ),
        otherwise="give each of the decodes a context of 128 tokens.",
    )


def throughput(trace: Trace) -> float:
    """Prompt and output tokens a second, from the start to the end of the run."""
    return sum(r.n_prompt + r.n_output for r in trace.requests) / trace.steps[-1].end


def throughput_of(
    policy: Any, *, n_prompt: int = 1024, n_output: int = 28, slots: int | None = 8, n: int = 64
) -> float:
    """Tokens a second of `n` requests that are all there from the start; memory holds `slots` of them."""
    requests = [Request(rid, 0.0, n_prompt, n_output) for rid in range(n)]
    pool = None if slots is None else BlockPool(slots * (1 + (n_prompt + n_output) // 16))
    return throughput(simulate(requests, policy, published("rtx4090"), pool))


def gains(cut: Callable[[int], Any], **given: Any) -> list[float]:
    """Of each of `BUDGETS`: tokens a second in chunks over whole prompts first, less 1.

    cut: a policy of a budget. given: what `throughput_of` takes.
    """
    whole = throughput_of(PrefillFirst(8192), **given)
    return [throughput_of(cut(budget), **given) / whole - 1 for budget in BUDGETS]


def throughput_when(*, changed: bool = False) -> Evidence:
    """Does cutting prompts raise total throughput? changed: chunks and decodes in steps of their own.

    No single budget decides, because the priced kernels work in whole tiles: the verdict is on the median of a
    sweep. It would fail if riding along saved less than reading the weights again costs.
    """
    cut = Alternate if changed else ChunkedPrefill
    found = gains(cut)
    numbers = [
        Number(f"gain, median of {len(found)} budgets", _percent(median(found)), "%", "simulated"),
        Number("gain, least", _percent(min(found)), "%", "simulated"),
        Number("gain, most", _percent(max(found)), "%", "simulated"),
    ]
    if not changed:
        others: dict[str, dict[str, Any]] = {
            "median, if memory holds all 64": {"slots": None},
            "median, if prompts have 4,096 tokens": {"n_prompt": 4096},
        }
        for words, given in others.items():
            numbers.append(Number(words, _percent(median(gains(cut, **given))), "%", "simulated"))
    return Evidence(
        claim="throughput-when",
        holds=median(found) >= 0.03,
        setting="64 requests of 1,024 prompt and 28 output tokens are there from the start, and memory "
        f"holds 8 at a time, {PRICED}; budgets of {BUDGETS[0]} to {BUDGETS[-1]:,} tokens; "
        + ("a chunk, then a decoding step, in turn." if changed else "decodes ride along with chunks."),
        numbers=tuple(numbers),
        otherwise="run chunks and decodes in steps of their own, in turn.",
    )


def _percent(share: float) -> int:
    return round(100 * share)


def document_wait(chunk: int, *, n_chats: int = 8, n_prompt: int = 8192) -> float:
    """Seconds to a document's first token, `n_chats` decoding beside chunks of `chunk` tokens."""
    requests = [Request("document", 1.0, n_prompt, 4)]
    requests += [Request(f"chat {i}", 0.0, 64, 400) for i in range(n_chats)]
    trace = simulate(requests, ChunkedPrefill(chunk + n_chats), published("rtx4090"))
    return request_timelines(trace)["document"].first_token


def ttft_price(*, changed: bool = False) -> Evidence:
    """How long a document's first token takes as its chunks shrink. changed: chunks far above saturation.

    It could fail: the waits come from runs, and need not be in order. The flip changes the condition alone, how
    long the chunks are against the saturation point.
    """
    sizes: Sequence[int] = (8192, 4096, 2048) if changed else (8192, 512, 128)
    waits = [document_wait(size) for size in sizes]
    return Evidence(
        claim="ttft-price",
        holds=waits == sorted(waits) and waits[-1] >= 1.25 * waits[0],
        setting=f"a document of 8,192 tokens comes while 8 chats decode; decodes first, {PRICED}.",
        numbers=tuple(_ms(f"first token, chunks of {n:,}", s) for n, s in zip(sizes, waits)),
        otherwise="compare only chunks of 2,048 tokens and more.",
    )


def waits_by_class(policy: Any, *, n_late: int = 40) -> dict[str, float]:
    """Mean time to the first token by class, s, of two documents and the chats that come behind them."""
    requests = documents_and_chats(
        n_documents=2, n_late=n_late, chat=(200, 400), document=8192, window=2.0, output=60
    )
    told = request_timelines(simulate(requests, policy, published("rtx4090")))
    classes = {
        name: [told[rid].first_token for rid in told if str(rid).startswith(name)] for name in ("late", "doc")
    }
    return {name: mean(waits) for name, waits in classes.items() if waits}


def fairness(*, changed: bool = False) -> Evidence:
    """Which requests wait longer under which order of admission? changed: one chat comes behind the documents.

    It could fail: an order under which late chats gain and documents do not pay would refute it, and the waits
    are those of runs. The flip changes the condition alone, whether there is a queue.
    """
    n_late = 1 if changed else 40
    by = {
        "in order of arrival": ChunkedPrefill(512),
        "shortest first": ChunkedPrefill(512, order="shortest"),
        "chats have priority": ChunkedPrefill(512, order="priority"),
    }
    waits = {name: waits_by_class(policy, n_late=n_late) for name, policy in by.items()}
    first, others = waits["in order of arrival"], [waits[name] for name in list(by)[1:]]
    return Evidence(
        claim="fairness",
        holds=all(w["late"] < 0.5 * first["late"] and w["doc"] > 1.5 * first["doc"] for w in others),
        setting=f"8 chats decode, two documents of 8,192 tokens come, then {n_late} chat{'s' * (n_late > 1)} "
        f"within 2 s; budget 512, decodes first, {PRICED}.",
        numbers=tuple(
            _s(f"{who}, {name}", w[key])
            for key, who in (("late", "late chats"), ("doc", "documents"))
            for name, w in waits.items()
        ),
        otherwise="let one late chat come, not 40.",
    )


def bubbles(*, changed: bool = False, n_stages: int = 4) -> Evidence:
    """Idle time of pipeline stages, prompts whole and in chunks. changed: all prompts are as long as a chunk.

    It would fail if decodes alone, or the order of batches, made the stages wait.
    """
    dice = random.Random(1)
    lengths = [
        (512 if changed else dice.choice((4096, 100, 100, 100, 100)), dice.randint(40, 80))
        for _ in range(160)
    ]
    requests = [Request(rid, 0.0, *tokens) for rid, tokens in enumerate(lengths)]
    whole, cut = (
        simulate_pipeline(requests, policy, published("rtx4090"), n_stages)
        for policy in (PrefillFirst(512, mixed=True), ChunkedPrefill(512))
    )
    return Evidence(
        claim="bubbles",
        holds=cut.bubbles <= 0.75 * whole.bubbles and cut.duration < whole.duration,
        setting=f"160 requests on a pipeline of {n_stages} stages, "
        + ("all prompts of 512 tokens, " if changed else "one prompt in five a document, ")
        + f"{PRICED}; decodes ride along.",
        numbers=(
            Number("stages idle, prompts whole", round(100 * whole.bubbles), "%", "simulated"),
            Number("stages idle, in chunks", round(100 * cut.bubbles), "%", "simulated"),
            _s("all done after, prompts whole", whole.duration),
            _s("all done after, in chunks", cut.duration),
        ),
        otherwise="give all prompts 512 tokens: no iteration is longer than a chunk.",
    )
