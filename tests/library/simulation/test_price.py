"""A price for any model on any device, and the cache that a device has room for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import chunkprefill as cp
from chunkprefill.configs import DEVICES, DTYPES, LLAMA3_8B, MODELS, Device, find_device, find_model
from chunkprefill.scheduling.core import Batch
from chunkprefill.simulation.layout import LINKS, Layout, Shard, all_reduce_s
from chunkprefill.simulation.price import Serving, memory_use

ROWS = st.lists(st.tuples(st.integers(0, 9000), st.integers(1, 2048)), max_size=3)
CONTEXTS = st.lists(st.integers(1, 9000), max_size=60)
NAMES = sorted(MODELS)
PRICED = st.sampled_from(sorted(DEVICES))
#: Dense parameters as their owners publish them, in billions.
PUBLISHED = {
    "smollm2-135m": 0.1345,
    "llama-2-7b": 6.738,
    "llama-2-70b": 68.98,
    "llama-3-8b": 8.03,
    "llama-3.1-405b": 405.85,
    "llama-3.2-1b": 1.236,
    "llama-3.2-3b": 3.21,
    "qwen2.5-7b": 7.62,
    "qwen2.5-72b": 72.7,
    "qwen3-0.6b": 0.596,
    "qwen3-32b": 32.76,
    "qwen3-30b-a3b": 30.53,
    "qwen3-235b-a22b": 235.09,
    "mixtral-8x7b": 46.70,
}


def batch(chunks=(), decodes=()):
    rows = [(start, length, True) for start, length in chunks] + [(k, 1, True) for k in decodes]
    start, length, emits = zip(*rows)
    return Batch(tuple(range(len(rows))), start, length, emits)


# --- names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLISHED)
def test_shapes_have_the_published_number_of_parameters(name):
    assert MODELS[name].n_params / 1e9 == pytest.approx(PUBLISHED[name], rel=2e-3)


def test_names_as_the_hub_writes_them():
    for name in ("meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Meta-Llama-3.1-8B", "LLAMA-3.1-8B"):
        assert find_model(name) is MODELS["llama-3.1-8b"]
    assert find_model("Qwen/Qwen3-30B-A3B-Instruct-2507") is MODELS["qwen3-30b-a3b"]
    assert find_model("mistralai/Mixtral-8x7B-Instruct-v0.1") is MODELS["mixtral-8x7b"]
    assert find_model("mistralai/Mistral-7B-Instruct-v0.3") is MODELS["mistral-7b"]
    for name in (
        "mistralai/Mistral-7B-v0.1",
        "mistralai/Mistral-7B-Instruct-v0.2",
    ):  # 32,000 tokens, a window
        with pytest.raises(ValueError, match="no shape named"):
            find_model(name)
    assert {MODELS[f"llama-2-{n}"].max_positions for n in ("7b", "13b", "70b")} == {4096}
    assert find_model(LLAMA3_8B) is LLAMA3_8B and find_device("H100") is DEVICES["h100"]


@pytest.mark.parametrize(
    "wrong, error, match",
    [
        (lambda: cp.price("llama-9", "h100"), ValueError, "'llama-9'.*llama-3-8b"),
        (lambda: cp.price("llama-3-8b", "abacus"), ValueError, "'abacus'.*rtx4090"),
        (lambda: cp.price(DEVICES["h100"], "h100"), TypeError, "model.*got a Device"),
        (lambda: cp.price("llama-3-8b", LLAMA3_8B), TypeError, "device.*got a Config"),
        (lambda: cp.price("llama-3-8b", "h100", dtype="int3"), ValueError, "'int3'.*int4"),
        (lambda: cp.price("llama-3-8b", "h100", kv_dtype="int3"), ValueError, "'int3'.*int4"),
        (lambda: cp.price("llama-3-8b", "h100", tp=3), ValueError, "tp 3: 32 query and 8"),
        (lambda: cp.price("llama-3-8b", "h100", tp=0), ValueError, "tp.*0"),
        (lambda: cp.price("llama-3-8b", "h100", tp=2.0), ValueError, r"tp.*2\.0"),
        (lambda: cp.Roofline(DEVICES["a100"]), TypeError, r"got a Device.*Roofline\.of"),
        (lambda: cp.Roofline("llama-3-8b"), TypeError, "config must be a Config, got a str"),
        (lambda: cp.Roofline(flops="fast"), TypeError, "flops must be a number, got 'fast'"),
        (lambda: cp.Roofline(layout="bf16"), TypeError, "layout must be a Layout"),
        (lambda: cp.Kernels("llama-3-8b", DEVICES["h100"], None), TypeError, "config must be a Config"),
        (lambda: cp.Kernels(LLAMA3_8B, "h100", None), TypeError, "device must be a Device"),
        (lambda: cp.pool_for("llama-3-8b", "h100", budget=0), ValueError, "budget.*0"),
        (lambda: cp.pool_for("llama-3-8b", "h100", budget=512, utilisation=9), ValueError, "utilisation.*9"),
        (lambda: cp.pool_for("llama-3-70b", "h100", budget=512), ValueError, r"llama-3-70b.*weights 131\."),
    ],
)
def test_wrong_arguments_fail_where_they_are_given(wrong, error, match):
    with pytest.raises(error, match=match):
        wrong()


def test_a_price_says_where_it_comes_from():
    assert "LLMServingSim" in str(cp.price("llama-3.1-8b", "rtx4090"))
    roofline = cp.price("llama-3.1-8b", "mi300x")
    assert "roofline" in str(roofline) and "MI300X data sheet" in roofline.source
    scaled = cp.price("qwen3-30b-a3b", "rtx4090", dtype="int4", kv_dtype="fp8", tp=2).source
    for what in ("experts", "weights in int4", "cache in fp8", "all-reduce"):
        assert what in scaled
    same = cp.price("llama-3.1-8b", "h200")
    assert "timed on the H100 SXM 80GB, which has the same chip" in same.source
    assert same(batch(decodes=[1000] * 32)) < cp.price("llama-3.1-8b", "h100")(batch(decodes=[1000] * 32))
    mine = replace(DEVICES["rtx4090"], name="mine", bandwidth=5e11)
    assert "roofline" in str(cp.price("llama-3.1-8b", mine))


# --- bytes ------------------------------------------------------------------------------------------


@given(st.sampled_from(NAMES), st.sampled_from([1, 2, 4, 8]), st.sampled_from(sorted(DTYPES)))
def test_more_devices_hold_no_more_each_and_narrower_numbers_take_no_more(name, tp, dtype):
    config = MODELS[name]
    if config.n_heads % tp or (config.n_kv_heads % tp and tp % config.n_kv_heads):
        return
    shard = Shard(config, Layout(dtype, tp=tp))
    for fewer in range(1, tp):
        if tp % fewer == 0 and not config.n_heads % fewer:
            assert shard.weight_bytes <= Shard(config, Layout(dtype, tp=fewer)).weight_bytes
    for other, size in DTYPES.items():
        if size <= DTYPES[dtype]:
            assert Shard(config, Layout(other, tp=tp)).weight_bytes <= shard.weight_bytes
    assert shard.weight_bytes * tp >= config.n_params * DTYPES[dtype] * 0.999


@pytest.mark.parametrize("name", NAMES)
def test_one_device_in_16_bits_holds_every_parameter(name):
    assert Shard(MODELS[name], Layout()).weight_bytes == MODELS[name].weight_bytes()


def test_known_bytes():
    two = Shard(MODELS["llama-3.1-8b"], Layout()).block_bytes(2 * 121_000)
    assert two / 2**30 == pytest.approx(29.54, abs=0.005)
    int4 = Shard(MODELS["llama-3.1-8b"], Layout("int4", "fp8"))
    assert int4.weight_bytes / 2**30 == pytest.approx(5.31, abs=0.05)  # AWQ checkpoints of it: 5.3 GiB
    assert int4.block_bytes() == MODELS["llama-3.1-8b"].kv_bytes() / 2
    use = memory_use("llama-3.1-8b", "h100", Serving(2048, prompt_logprobs=True))
    assert use.logits == 2048 * 128_256 * 6


@given(st.integers(0, 10_000), st.integers(1, 200), st.integers(1, 200))
def test_experts_touched(n, n_experts, n_active):
    config = replace(LLAMA3_8B, n_experts=max(n_experts, n_active), n_active=n_active)
    touched = config.experts_touched(n)
    assert min(n, 1) * n_active * (1 - 1e-9) <= touched <= min(n * n_active, config.n_experts) * (1 + 1e-9)
    assert touched <= config.experts_touched(n + 1)
    assert config.experts_touched(1) == pytest.approx(n_active)


def test_experts_touched_by_drawing_them():
    import random

    rng, config = random.Random(7), MODELS["qwen3-30b-a3b"]
    drawn = [len({e for _ in range(16) for e in rng.sample(range(128), 8)}) for _ in range(400)]
    assert config.experts_touched(16) == pytest.approx(sum(drawn) / 400, rel=0.02)


# --- seconds ----------------------------------------------------------------------------------------


@given(PRICED, ROWS, CONTEXTS)
def test_more_tokens_are_never_cheaper(device, chunks, contexts):
    cost = cp.price("llama-3.1-8b", device)
    before = cost(batch(chunks, contexts)) if chunks or contexts else 0.0
    assert cost(batch(chunks, [*contexts, 700])) > before * 0.9
    if not chunks:
        assert cost(batch(chunks, [*contexts, 700])) > before
        assert cost(batch(chunks, [700, *(k + 64 for k in contexts)])) >= cost(
            batch(chunks, [700, *contexts])
        )


@given(PRICED, st.sampled_from(["llama-3.1-8b", "qwen3-30b-a3b", "mixtral-8x7b"]), CONTEXTS.filter(len))
def test_narrower_numbers_never_slow_decodes_down(device, name, contexts):
    decodes = batch(decodes=contexts)
    wide = cp.price(name, device)(decodes)
    assert cp.price(name, device, dtype="fp8")(decodes) <= wide
    assert cp.price(name, device, kv_dtype="fp8")(decodes) <= wide
    assert cp.price(name, device, dtype="int4", kv_dtype="fp8")(decodes) <= wide


def test_an_moe_reads_more_as_its_tokens_grow():
    cost = cp.price("qwen3-30b-a3b", "h200")
    one, few, many = (cost(batch(decodes=[100] * n)) for n in (1, 16, 256))
    dense = cp.price(replace(MODELS["qwen3-30b-a3b"], n_experts=0, n_active=0), "h200")
    assert few > 3 * one and many < 2 * few  # at 16 tokens two thirds of the experts have been read
    assert dense(batch(decodes=[100] * 16)) < 1.2 * dense(batch(decodes=[100]))


def test_all_reduce_is_latency_and_bytes_over_the_link():
    device, layout = DEVICES["h100"], Layout(tp=4)
    latency, share = LINKS["nvlink"]
    assert all_reduce_s(0, layout, device) == latency
    assert all_reduce_s(1e9, layout, device) == pytest.approx(latency + 1.5e9 / (share * 450e9))
    assert all_reduce_s(1e9, Layout(), device) == 0
    with pytest.raises(ValueError, match=r"'mine' has no link"):
        cp.price("llama-3.1-8b", Device("mine", 1e14, 1e12, 100, 8e10, "made up"), tp=2)
    pcie = DEVICES["rtxpro6000"]
    assert all_reduce_s(1.31e6, Layout(tp=2), pcie) == pytest.approx(155e-6, rel=0.05)
    assert all_reduce_s(21e6, Layout(tp=2), pcie) == pytest.approx(1.4e-3, rel=0.05)


def test_two_devices_over_nvlink_are_faster_and_not_twice_as_fast():
    one, two = (cp.price("llama-3-70b", "h200", tp=tp) for tp in (1, 2))
    for work in (batch([(0, 2048)]), batch(decodes=[1000] * 32)):
        assert 1 < one(work) / two(work) < 2


# --- memory -----------------------------------------------------------------------------------------


@given(st.integers(20, 400), st.integers(1, 200), st.integers(1, 8192))
def test_more_memory_never_means_fewer_blocks(gb, more, budget):
    small, large = (replace(DEVICES["h100"], memory=size * 1e9) for size in (gb, gb + more))
    try:
        n_blocks = cp.pool_for("llama-3.1-8b", small, budget=budget).n_blocks
    except ValueError:
        n_blocks = 0
    try:
        assert cp.pool_for("llama-3.1-8b", large, budget=budget).n_blocks >= n_blocks
    except ValueError:
        assert not n_blocks


def test_what_takes_memory_leaves_fewer_blocks():
    def blocks(**more):
        return cp.pool_for("llama-3.1-8b", "h100", **({"budget": 2048} | more)).n_blocks

    plain = blocks()
    assert blocks(budget=16_384) < plain and blocks(utilisation=0.8) < plain
    assert blocks(prompt_logprobs=True, budget=16_384) < blocks(budget=16_384)
    assert blocks(dtype="fp8") > plain and blocks(kv_dtype="fp8") > 1.99 * plain
    assert blocks(kv_dtype="auto") == plain  # as vLLM calls it
    assert blocks(tp=2) > 2 * plain
    assert blocks(block_size=32) == plain // 2 or blocks(block_size=32) == plain // 2 - 1
