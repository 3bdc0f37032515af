"""`advise` by rules: tighter promises, more memory, and a table that is `simulate` run by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chunkprefill as cp
from chunkprefill.__main__ import main
from chunkprefill.configs import find_device, find_model
from chunkprefill.servers import advise as a
from chunkprefill.servers import commands
from chunkprefill.servers.advise import Advice, Mix, Place, Promise, Row, advise, predict
from chunkprefill.servers.commands import against, read_load, read_model
from chunkprefill.simulation.layout import Layout
from tests.library.servers.seen import World, probe_of

LOAD = Mix(chats_per_s=6.0, chat=(200, 40), documents_per_s=0.5, document=(4000, 40), n=60)
BUDGETS = (128, 512, 2048, 8192)
PLACE = ("llama-3.2-1b", "rtx4090")
PROMISES = ("tbt p99 20ms", "ttft chats p99 2s")


@pytest.fixture(scope="module")
def advice() -> Advice:
    return advise(*PLACE, LOAD, PROMISES, budgets=BUDGETS)


def test_the_table_is_simulate_run_by_hand(advice):
    requests = LOAD.requests()
    for row in advice.rows:
        pool = cp.pool_for(*PLACE, budget=row.budget, max_seqs=min(256, row.budget))
        policy = cp.VllmV1(max_num_batched_tokens=row.budget, max_num_seqs=min(256, row.budget))
        trace = cp.simulate(requests, policy, cp.price(*PLACE), pool, scheduling=a.HOST, overlap=True)
        assert row.n_blocks == pool.n_blocks
        gaps, firsts = cp.tbt(trace), cp.ttft(trace)
        assert row.waits["tbt", ""]["p99"] == np.quantile(gaps, 0.99)
        assert row.waits["tbt", ""]["max"] == gaps.max()
        chats = np.array([str(r.rid).startswith("chats") for r in requests])
        assert row.waits["ttft", "chats"]["p99"] == np.quantile(firsts[chats], 0.99)
        assert row.waits["ttft", "documents"]["max"] == firsts[~chats].max()
        sizes = [sum(step.batch.length) for step in trace.steps]
        assert row.full == pytest.approx(np.mean([n >= row.budget for n in sizes]))
        n_tokens = sum(r.n_output for r in requests)
        lasted = trace.steps[-1].end - min(r.arrival for r in requests)
        assert row.tokens_per_s == pytest.approx(n_tokens / lasted)


def test_it_says_what_to_set_why_and_how_far_off_it_may_be(advice):
    text = str(advice)
    assert advice.best in BUDGETS and f"--max-num-batched-tokens {advice.best}" in text
    assert f"--chunked-prefill-size {advice.best}" in text and "error bar: " in text
    assert "prices: " in text and "with half as many requests again: " in text
    assert "promise: TTFT of chats, P99: 2 s" in text


@settings(max_examples=200, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_tighter_promise_never_gives_a_larger_budget(data):
    """Whatever was predicted: quantiles that rise and fall with the budget among it."""
    seconds = st.floats(0.001, 10)
    rows = tuple(
        Row(
            budget,
            data.draw(st.integers(1, 9999)),
            {
                (metric, kind): {"p99": data.draw(seconds), "max": data.draw(seconds)}
                for metric, kind in (("tbt", ""), ("ttft", "chats"))
            },
            tokens_per_s=1.0,
            why=data.draw(st.sampled_from(["", "", "", "no room for a cache"])),
        )
        for budget in BUDGETS
    )
    place = Place(find_model("tiny"), find_device("h100"))
    kinds = [("tbt", "", "p99"), ("tbt", "", "max"), ("ttft", "chats", "p99")]
    loose = tuple(Promise(*kind, data.draw(seconds)) for kind in kinds)
    tight = tuple(replace(p, bound=p.bound * data.draw(st.floats(0.01, 1.0))) for p in loose)
    before, after = (Advice(place, "", (), promises, rows) for promises in (loose, tight))
    assert (after.best or 0) <= (before.best or 0)
    if before.best:
        row = next(r for r in rows if r.budget == before.best)
        assert all(row.value(p) <= p.bound for p in loose)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.sampled_from(["llama-3-8b", "qwen3-0.6b"]),
    st.sampled_from(BUDGETS),
    st.floats(20e9, 200e9),
    st.floats(1, 3),
)
def test_more_memory_never_gives_fewer_blocks(model, budget, memory, more):
    small = replace(find_device("h100"), memory=memory)
    large = replace(small, memory=memory * more)
    blocks = [Place(find_model(model), device).pool(budget).n_blocks for device in (small, large)]
    assert blocks[0] <= blocks[1]


def test_a_larger_budget_never_leaves_more_blocks(advice):
    blocks = [row.n_blocks for row in advice.rows]
    assert blocks == sorted(blocks, reverse=True)


def test_a_quantile_that_falls_because_stalls_are_rare_is_not_kept():
    """P99 rises and falls again; the budgets beyond the hill stall for longer, not for less."""
    place = Place(find_model("tiny"), find_device("h100"))
    p99 = {128: 0.02, 512: 0.04, 2048: 0.08, 8192: 0.03}
    rows = tuple(Row(b, 9, {("tbt", ""): {"p99": s, "max": b / 1e4}}) for b, s in p99.items())
    found = Advice(place, "", (), (Promise.of("tbt p99 50ms"),), rows)
    assert found.best == 512
    assert "1 broken*" in str(found.table()) and "few, not short" in str(found)


def test_where_no_budget_keeps_all_promises_it_names_the_nearest_and_what_would_help():
    found = advise(*PLACE, LOAD, ["tbt max 12ms", "ttft documents max 50ms"], budgets=(128, 512, 2048))
    assert found.best is None and found.nearest is not None
    text = str(found)
    assert f"no budget keeps every promise. The nearest is {found.nearest.budget:,}, which breaks" in text
    helps = [words for words, _ in found.elsewhere]
    assert "tp=2" in helps and "weights in fp8" in helps and any("replicas" in words for words in helps)
    worst = [max(found.value(r, p) / p.bound for p in found.promises) for r in found.rows]
    assert found.worst(found.nearest) == min(worst)


def test_a_model_that_does_not_fit_is_said():
    found = advise("llama-3-70b", "t4", LOAD, PROMISES, budgets=(512,))
    assert found.best is None and found.nearest is None
    assert "nothing fits: no room for a cache" in str(found)


def test_a_request_that_does_not_fit_is_said():
    device = replace(find_device("rtx4090"), memory=4.6e9)
    long = [cp.Request("chats 0", 0.0, 100, 10), cp.Request("documents 1", 0.0, 120_000, 10)]
    found = advise("llama-3.2-1b", device, long, PROMISES, budgets=(512,))
    assert "a request does not fit: request documents 1" in found.rows[0].why


@pytest.mark.parametrize(
    ("text", "promise"),
    [
        ("tbt p99 50ms", Promise("tbt", "", "p99", 0.05)),
        ("ITL max <= 0.2 s", Promise("tbt", "", "max", 0.2)),
        ("ttft chats p90 1s", Promise("ttft", "chats", "p90", 1.0)),
        ("ttft all p50 .5s", Promise("ttft", "", "p50", 0.5)),
    ],
)
def test_a_promise_in_words(text, promise):
    assert Promise.of(text) == promise


@pytest.mark.parametrize(
    "text", ["", "tbt 50ms", "tbt p42 50ms", "tbt p99 50", "ttft robots p99 1s", "tbt p99 0ms", "tbt p99 -1s"]
)
def test_what_is_no_promise_is_refused_by_name(text):
    with pytest.raises(ValueError, match="promise"):
        Promise.of(text)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (("tbtt", "", "p99", 0.05), "metric 'tbtt'; there are 'tbt', 'ttft'"),
        (("tbt", "chat", "p99", 0.05), "kind 'chat'"),
        (("tbt", "", "p42", 0.05), "at 'p42'"),
        (("tbt", "", "p99", -0.05), "above 0, got -0.05"),
    ],
)
def test_a_promise_of_parts_that_do_not_exist_is_refused(parts, words):
    with pytest.raises(ValueError, match=words):
        Promise(*parts)


def test_a_promise_that_no_request_can_break_is_not_said_to_be_kept():
    chats = [cp.Request(i, i / 10, 50, 5) for i in range(30)]
    with pytest.raises(
        ValueError, match="TTFT of documents, P90: 1 s: no request of the load has such a wait"
    ):
        advise(*PLACE, chats, "ttft documents p90 1s", budgets=512)
    with pytest.raises(ValueError, match="TBT, P99: 50 ms: no request of the load has such a wait"):
        advise(*PLACE, [replace(r, n_output=1) for r in chats], ["tbt p99 50ms"], budgets=[512])
    found = advise(*PLACE, chats, ["ttft documents p90 1s", "tbt p99 50ms"], budgets=[512])
    assert found.unheld == [Promise.of("ttft documents p90 1s")] and found.best == 512
    assert "promise: TTFT of documents, P90: 1 s (no request of the load has such a wait)" in str(found)
    assert "promise: TBT, P99: 50 ms\n" in str(found)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"budgets": ()}, "no budget to try"),
        ({"budgets": ["512"]}, "a budget must be a whole number from 1 to 1,048,576, got '512'"),
        ({"budgets": "512"}, "got '512'"),
        ({"promises": [3]}, "no promise"),
        ({"promises": None}, "no promise to keep"),
        ({"load": "trace.csv"}, "load is 'trace.csv': a Mix or requests are needed"),
        ({"load": None}, "load is None"),
    ],
)
def test_what_cannot_be_advised_on_is_refused_by_name(changes, words):
    usual = {"load": LOAD, "promises": PROMISES, "budgets": (512,)}
    with pytest.raises((ValueError, TypeError), match=words):
        advise(*PLACE, **(usual | changes))


def test_a_config_that_is_refused_is_named_with_its_file(tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": ["DeepseekV3ForCausalLM"]}')
    for path in (tmp_path, tmp_path / "config.json"):
        with pytest.raises(
            ValueError, match=r"config\.json: architecture 'DeepseekV3ForCausalLM' is unknown"
        ):
            read_model(str(path))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"chat": 300}, "chat must be"),
        ({"chat": (300, 200, 1)}, "chat must be"),
        ({"chat": (True, 2)}, "chat: "),
        ({"n": 30.5}, "n must be"),
        ({"n": "30"}, "n must be"),
        ({"seed": None}, "seed must be"),
        ({"chats_per_s": 0.0, "documents_per_s": 0.0}, "both 0"),
        ({"chats_per_s": math.nan}, "chats_per_s must be"),
        ({"chat": (0, 1)}, "chat: "),
        ({"n": 3}, "n must be"),
    ],
)
def test_a_load_out_of_range_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        Mix(**wrong)


def test_the_command(capsys):
    line = ["advise", *PLACE, "--requests", "40", "--chats-per-s", "6", "--chat", "200+20"]
    line += ["--documents-per-s", "0.5", "--document", "3000+20", "--budgets", "256", "1024"]
    assert main([*line, "--promise", "tbt p99 1s", "--promise", "ttft chats p99 9s"]) == 0
    out = capsys.readouterr().out
    assert "set a budget of 1,024 tokens a step" in out and "llama-3.2-1b in bf16 on GeForce RTX 4090" in out
    assert main([*line, "--promise", "tbt max 0.1ms"]) == 1
    assert "no budget keeps every promise" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["no-such-model", "h100"], "no shape named 'no-such-model'"),
        (["llama-3-8b", "abacus"], "no device named 'abacus'"),
        (["llama-3-8b", "h100", "--chat", "300"], "PROMPT+OUTPUT"),
        (["llama-3-8b", "h100", "--promise", "soon"], "no promise 'soon'"),
        (["llama-3-8b", "h100", "--trace", "/nowhere.json"], "/nowhere.json"),
        (["llama-3-8b", "h100", "--budgets", "0"], "a budget must be a whole number from 1"),
    ],
)
def test_bad_input_is_one_line(options, words, capsys):
    assert main(["advise", *options]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line != "simulating"]
    assert len(said) == 1 and words in said[0]


def test_a_trace_is_a_load(tmp_path):
    trace = predict(LOAD.requests(), Place(find_model(PLACE[0]), find_device(PLACE[1])), 512)
    trace.save(tmp_path / "trace.json")
    assert read_load(str(tmp_path / "trace.json")) == LOAD.requests()
    (tmp_path / "azure.csv").write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:01:51.0000000,100,5\n"
        "2023-11-16 18:01:52.0000000,5000,7\n"
    )
    requests = read_load(str(tmp_path / "azure.csv"))
    assert [(r.n_prompt, a.kind_of(r)) for r in requests] == [(100, "chats"), (5000, "documents")]


def test_a_long_trace_is_cut_and_that_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(commands, "MOST_REQUESTS", 30)
    path = tmp_path / "m.jsonl"
    lines = [f'{{"timestamp": {100 * i}, "input_length": 100, "output_length": 5}}' for i in range(31)]
    for n, said in ((31, True), (30, False)):
        path.write_text("\n".join(lines[:n]))
        main(["advise", *PLACE[:2], "--trace", str(path), "--budgets", "512"])
        told = capsys.readouterr()
        assert (f"of 31 requests in {path} the first 30 are simulated" in told.err) == said
        assert "30 requests" in told.out


def test_an_advice_is_held_against_a_probe(advice):
    """A probe of a server that is the simulator itself: what it measured is what is predicted, nearly."""
    place = Place(find_model(PLACE[0]), find_device(PLACE[1]))
    seen = probe_of(World(cp.ChunkedPrefill(512), place.cost), document=16_000)
    assert seen.verdict.name == "stall-free by arrival", seen.verdict
    text = against(advice, seen)
    assert "tokens a step; the advice is" in text and "document's first token" in text
    unknown = probe_of(World(cp.RequestLevel(2), place.cost))
    assert "nothing, for its verdict is unknown" in against(advice, unknown)


def test_an_error_bar_travels_with_the_package():
    rows = a.accuracy()
    assert rows and all({"device", "metric", "error"} <= set(row) for row in rows)
    place = Place(find_model(PLACE[0]), find_device(PLACE[1]))
    assert 0 < a.worst_error(place) < 0.5 and "runs that nothing was fitted to" in a.error_words(place)


def test_the_error_bar_is_read_from_data(tmp_path, monkeypatch):
    place = Place(find_model(PLACE[0]), find_device(PLACE[1]))
    rows = [
        {"device": place.device.name, "metric": "TTFT P99", "error": -0.04},
        {"device": place.device.name, "metric": "TBT P99", "error": 0.02},
        {"device": "another", "metric": "TBT P99", "error": 0.5},
    ]
    monkeypatch.setattr(a, "accuracy", lambda: rows)
    assert a.worst_error(place) == 0.04
    assert "2 predicted waits and rates" in a.error_words(place) and "4% at most" in a.error_words(place)
    elsewhere = replace(place, device=find_device("t4"))
    assert a.worst_error(elsewhere) == 0.5 and "none of them is of T4" in a.error_words(elsewhere)
    monkeypatch.setattr(a, "accuracy", list)
    assert a.worst_error(place) == 0.0 and "not known" in a.error_words(place)


@pytest.mark.parametrize(
    ("dtype", "kv_dtype", "flags"),
    [
        ("float8_e4m3fn", None, " --quantization fp8"),
        ("fp8_e5m2", "fp8_e4m3", " --quantization fp8 --kv-cache-dtype fp8"),
        ("bfloat16", "bfloat16", ""),
        ("bf16", "float8_e4m3fn", " --kv-cache-dtype fp8"),
    ],
)
def test_flags_are_words_that_the_engine_knows(advice, dtype, kv_dtype, flags):
    class Torch(str):  # as a torch dtype prints
        def __str__(self) -> str:
            return f"torch.{str.__str__(self)}"

    for make in (str, Torch):
        kv = None if kv_dtype is None else make(kv_dtype)
        place = replace(advice.place, layout=Layout(make(dtype), kv))
        line = replace(advice, place=place).flags(512)[0]
        assert line == f"vLLM:   --max-num-batched-tokens 512{flags}"


def test_measuring_names_the_model_and_takes_the_key(monkeypatch, capsys):
    pytest.importorskip("httpx")
    from chunkprefill.servers import commands as module

    asked = []

    def probe(url, model=None, *, key=None):
        asked.append((url, model, key))
        return probe_of(World(cp.RequestLevel(2), Place(find_model(PLACE[0]), find_device(PLACE[1])).cost))

    monkeypatch.setattr(module, "probe", probe)
    monkeypatch.setenv("THE_KEY", "sesame")
    line = ["advise", *PLACE, "--requests", "40", "--budgets", "1024", "--promise", "tbt p99 1s"]
    assert main([*line, "--measure", "https://host", "--model", "smol", "--key-env", "THE_KEY"]) == 0
    assert asked == [("https://host", "smol", "sesame")] and "held against" in capsys.readouterr().out
