"""What a person gets wrong in a public function is answered in one line: the rule, and what was given."""

from __future__ import annotations

import math

import pytest
import torch

import chunkprefill as cp
import chunkprefill_course as course

TINY = cp.Config(n_layers=1, n_heads=2, n_kv_heads=1, head_dim=8, vocab_size=64)
REQUESTS = [cp.Request(i, 0.1 * i, 50, 5) for i in range(6)]
POLICY = cp.ChunkedPrefill(64)
TRACE = cp.simulate(REQUESTS, POLICY)
NO_TRACE = "is a list of 6: a Trace is needed, such as"


def model():
    return cp.random_model(TINY)


#: a call, and what the refusal says
REFUSED = [
    (lambda: cp.summary(REQUESTS), NO_TRACE),
    (lambda: cp.ttft(REQUESTS), NO_TRACE),
    (lambda: cp.tbt(None), "source is None: a Trace is needed"),
    (lambda: cp.tasks(REQUESTS), NO_TRACE),
    (lambda: cp.breakdown(REQUESTS), NO_TRACE),
    (lambda: cp.run_table(REQUESTS), NO_TRACE),
    (lambda: cp.reprice(REQUESTS, cp.Roofline()), NO_TRACE),
    (lambda: cp.request_timelines(REQUESTS), NO_TRACE),
    (lambda: cp.align_arrivals(TRACE, REQUESTS), "measured is a list of 6: a Trace is needed"),
    (lambda: cp.replay(TRACE, None), "engine is None: an Engine is needed"),
    (lambda: cp.replay(None, None), "trace is None: a Trace is needed"),
    (lambda: cp.calibrate(None), "engine is None: an Engine is needed"),
    (lambda: cp.Trace([1]), "entry 0 of the requests is 1: a Request is needed"),
    (lambda: cp.Trace(None), "requests is None: a list of Requests is needed"),
    (
        lambda: cp.Engine(model(), POLICY).run(cp.Clients(1, (5,))),
        "entry 0 of the requests is 5: a Request is needed",
    ),
    (lambda: cp.load_model(None), "no model 'None': 'tiny', 'smollm2-135m', a folder, or OWNER/NAME"),
    (lambda: cp.load_model(["a"]), "no model \"['a']\": 'tiny'"),
    (lambda: cp.load_tokenizer(5), "no model '5': 'tiny'"),
    (lambda: cp.load_model("/dev/null"), "no model '/dev/null': 'tiny'"),
    (lambda: cp.reprice(TRACE, 0.1), "cost is 0.1: a function of a batch"),
    (lambda: cp.prediction_errors(TRACE, 3), "cost is 3: a function of a batch"),
    (lambda: cp.simulate(POLICY, REQUESTS), "policy is a list of 6: it has no schedule"),
    (lambda: cp.serve(REQUESTS, POLICY, cp.Roofline()), "executor is a Roofline: it has no launch"),
    (
        lambda: cp.simulate(REQUESTS, POLICY, lambda batch: None),
        "step 0: execution took None; a cost returns seconds",
    ),
    (lambda: cp.simulate(REQUESTS, POLICY, lambda batch: "1"), "step 0: execution took '1'; a cost returns"),
    (
        lambda: cp.simulate(REQUESTS, POLICY, lambda batch: -1.0),
        "step 0: execution took -1.0 s; a cost returns",
    ),
    (lambda: cp.simulate(REQUESTS, POLICY, scheduling=lambda batch: None), "step 0: scheduling took None"),
    (
        lambda: cp.simulate_pipeline(REQUESTS, POLICY, n_stages="4"),
        "n_stages must be a whole number of at least 1, got '4'",
    ),
    (lambda: cp.KVCache([TINY], 64), "config is a list of 1: a Config is needed"),
    (lambda: cp.PagedKVCache(TINY, 16), "pool is 16: a BlockPool is needed"),
    (lambda: cp.PagedKVCache(None), "config is None: a Config is needed"),
    (lambda: cp.random_model("tiny"), "config is 'tiny': a Config is needed"),
    (lambda: cp.random_model(TINY, seed="a"), "seed is 'a': a whole number is needed"),
    (
        lambda: cp.random_model(TINY, dtype="bf16"),
        "dtype is 'bf16': a dtype is needed, such as torch.float32",
    ),
    (lambda: cp.Engine(None, POLICY), "model is None: a model is needed, such as load_model returns"),
    (lambda: cp.prefill(TINY, [1], cp.KVCache(TINY, 4)), "model is a Config: a model is needed"),
    (lambda: cp.decode(model(), None, cp.KVCache(TINY, 4), 1), "logits is None: a Tensor is needed"),
    (
        lambda: cp.decode(model(), torch.zeros(64), cp.KVCache(TINY, 4), -1),
        "n must be a whole number of at least 0, got -1",
    ),
    (lambda: cp.decode(model(), torch.zeros(64), None, 1), "cache is None: a KVCache is needed"),
    (lambda: cp.generate(model(), [1, 2], 2, stop=2), "stop is 2: a list of token ids is needed"),
    (
        lambda: cp.summary(TRACE, ttft_bound=-1),
        "ttft_bound is -1: a number of seconds, at least 0",
    ),
    (
        lambda: cp.summary(TRACE, tbt_bound="0.1"),
        "tbt_bound is '0.1': a number of seconds, at least 0",
    ),
    (lambda: cp.summary(TRACE, by="rid"), "by is 'rid': a function of a Request"),
    (
        lambda: cp.goodput(TRACE, ttft_bound=1, tbt_bound=-1),
        "tbt_bound is -1: a number of seconds, at least 0",
    ),
    (
        lambda: cp.goodput(TRACE, ttft_bound=math.nan, tbt_bound=1),
        "ttft_bound is nan: a number of seconds, at least 0",
    ),
    (lambda: cp.tasks(TRACE, block_size=0), "block_size must be a whole number of at least 1, got 0"),
    (lambda: cp.breakdown(TRACE, skip=-1), "skip, in steps, must be a whole number of at least 0, got -1"),
    (lambda: cp.fit_host([]), "0 steps to fit"),
    (lambda: cp.sweep(REQUESTS, {"p": POLICY}), "workloads is a list of 6: {label: requests} is needed"),
    (lambda: cp.sweep({"a": REQUESTS}, POLICY), "a list of them, or {label: policy}, is needed"),
    (lambda: cp.at_rate(REQUESTS, "2"), "rate, in requests/s, must be a finite number above 0, got '2'"),
    (lambda: cp.poisson(10, "2"), "rate, in requests/s, must be a finite number above 0, got '2'"),
    (lambda: cp.poisson(10, 2, prompt="512"), "prompt must be one whole number of tokens, or (least, most)"),
    (lambda: cp.poisson(10, 2, prompt=[1, 2]), "prompt must be one whole number of tokens, or (least, most)"),
    (lambda: cp.poisson(10, 2, seed="x"), "seed must be a whole number, got 'x'"),
    (lambda: cp.documents_and_chats(n_chats=-1), "n_chats must be a whole number of at least 0, got -1"),
    (lambda: cp.memory_use("Llama-3-8B", "h100", 512), "serving is 512: a Serving is needed"),
    (lambda: cp.price(8, "h100"), "got an int: 8"),
    (
        lambda: cp.dashboard_picture(TRACE, panels="steps", caption="c"),
        "panels is 'steps': a list of one or more",
    ),
    (lambda: cp.dashboard_picture(TRACE, panels=(), caption="c"), "panels is (): a list of one or more"),
    (lambda: cp.bars_picture({"a": 3}, alt="a", caption="c"), "{group: {series: amount}} is needed"),
    (
        lambda: cp.curve_picture({"a": [1, 2]}, x_label="x", y_label="y", alt="a", caption="c"),
        "series 'a' is [1, 2]: two lists are needed, its xs and its ys",
    ),
    (lambda: cp.measured("3"), "measured '3': a number is needed, in s"),
    (lambda: cp.probe(8000), "url is 8000: a text is needed"),
    (lambda: course.recall(None, answer="a", measured="m"), "choice is None: a Choice is needed"),
    (lambda: course.recorded_vllm("gap", settings=["x"]), "'budget 256, threshold 128', 'two documents"),
    (
        lambda: course.exercises.chunk_mask.check(lambda s, n: [], seconds="2"),
        "seconds is '2': a number above 0 is needed",
    ),
    (
        lambda: course.exercises.chunk_mask.as_choice(guilty=99),
        "guilty is 99: a number from 0 to 3 is needed",
    ),
]


@pytest.mark.parametrize("k", range(len(REFUSED)))
def test_a_mistake_gets_one_line_with_the_rule_and_what_was_given(k):
    call, said = REFUSED[k]
    with pytest.raises((ValueError, TypeError)) as refused:
        call()
    words = str(refused.value)
    assert said in words and "\n" not in words and len(words) < 300, words


def test_a_wrong_stop_is_refused_before_the_cache_changes():
    cache = cp.KVCache(TINY, 8)
    with pytest.raises(ValueError, match="stop is 2"):
        cp.generate(model(), [1, 2], 2, cache=cache, stop=2)
    assert cache.length == 0


def test_what_is_no_mistake_is_taken():
    half, also = (
        cp.simulate(TRACE.requests, cp.ChunkedPrefill(8), lambda batch, s=s: s)
        for s in (0.5, torch.tensor(0.5))
    )
    assert half.steps == also.steps
    assert str(cp.measured(torch.tensor(0.5), "s")) == str(cp.measured(0.5, "s"))
    assert cp.summary(TRACE, ttft_bound=1, tbt_bound=0.5).goodput is not None
    free = cp.goodput(TRACE, ttft_bound=math.inf, tbt_bound=math.inf)
    assert free == pytest.approx(len(TRACE.requests) / cp.metrics.waits.duration(TRACE))
    assert cp.summary(TRACE, ttft_bound=math.inf, tbt_bound=math.inf).goodput == free
    assert cp.poisson(3, 2, prompt=(5, 5))[0].n_prompt == 5 and cp.documents_and_chats(n_chats=0, n_late=1)
    said = course.exercises.chunk_mask.check(5).message
    assert "this is `5`, an int" in said
