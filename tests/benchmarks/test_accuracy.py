"""The simulator against measured runs: the bench itself, and its table on the runs that are at hand."""

from __future__ import annotations

import json
import re

import pytest

import chunkprefill as cp
from benchmarks import accuracy
from chunkprefill.metrics.waits import latency, ttft
from tests.needs import need, shared_dir

ENGINE = {
    "device": "rtx4090",
    "max_num_seqs": 64,
    "n_blocks": 2000,
    "tp": 1,
    "max_num_batched_tokens": 1024,
    "block_size": 16,
    "prefix_caching": False,
    "dtype": "bfloat16",
    "async_scheduling": True,
}


@pytest.fixture
def made(tmp_path):
    """A run that our own simulator made, written as if it had been measured; each price times 1 + off."""

    def write(off=0.0, **changed):
        engine = ENGINE | changed
        cost = cp.price("llama-3.1-8b", engine["device"], dtype=engine["dtype"])
        requests = cp.poisson(30, 4.0, prompt=(20, 2000), output=(2, 150), seed=5)
        policy, pool = cp.VllmV1(1024, 64), cp.BlockPool(engine["n_blocks"] - 1)
        trace = cp.simulate(requests, policy, lambda b: (1 + off) * cost(b), pool, overlap=True)
        rows = [
            {
                "rid": r.rid,
                "n_prompt": r.n_prompt,
                "n_output": r.n_output,
                "arrival": r.arrival,
                "first_token": r.arrival + float(first),
                "last_token": r.arrival + float(last),
                "blocks": [f"{r.rid}-{i}" for i in range(r.n_prompt // 16)],
            }
            for r, first, last in zip(trace.requests, ttft(trace), latency(trace))
        ]
        document = {
            "source": "made here",
            "commit": "0" * 40,
            "path": "bench/examples/RTX4090/Llama-3.1-8B/vllm",
            "licence": "none",
            "engine": engine,
            "requests": rows,
        }
        path = tmp_path / "made.json"
        path.write_text(json.dumps(document))
        return path

    return write


def test_a_run_of_our_own_is_predicted_exactly(made):
    row = accuracy.judged(accuracy.MeasuredRun.load(made()))
    assert all(abs(off) < 1e-4 for each in row["error"].values() for off in each.values())
    assert row["all_within_bound"] and row["requests"] == 30 and row["preemptions"] == 0


def test_a_slower_server_shows_in_every_time(made):
    row = accuracy.judged(accuracy.MeasuredRun.load(made(off=0.25)))
    assert not row["all_within_bound"]
    assert all(off < -0.1 for off in row["error"]["TPOT"].values())
    assert row["error"]["tokens a second"]["all"] > 0
    assert row["error"]["makespan"]["all"] < 0
    with_gap = row["otherwise"]["a gap of 0.25 ms a step"]
    assert with_gap["TPOT"]["mean"] > row["error"]["TPOT"]["mean"]


def test_what_is_no_run_is_refused_by_name(tmp_path):
    path = tmp_path / "no.json"
    for text in ("{}", "[]", "not json", json.dumps({"engine": {}, "requests": [], "path": "a/b"})):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"no\.json: not a measured run"):
            accuracy.MeasuredRun.load(path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: d["engine"].update(num_speculative_tokens=3), r"engine\.num_speculative_tokens is 3"),
        (lambda d: d["engine"].update(pp=2), r"engine\.pp is 2: a setting that is not known"),
        (lambda d: d["engine"].update(ep=True), r"engine\.ep is True: a setting that is not known"),
        (
            lambda d: d["engine"].update(prefix_caching="false"),
            r"engine\.prefix_caching must be True or False",
        ),
        (lambda d: d["engine"].update(async_scheduling=1), r"engine\.async_scheduling must be True or False"),
        (lambda d: d["engine"].update(policy="lifo"), "policy is fcfs or priority"),
        (lambda d: d["engine"].update(n_blocks=0), "n_blocks must be a whole number"),
        (lambda d: d["engine"].update(device="abacus"), "no device named 'abacus'"),
        (lambda d: d["engine"].pop("max_num_batched_tokens"), "KeyError: 'max_num_batched_tokens'"),
        (lambda d: d["requests"][3].update(first_token=-1.0), "request 3: first_token must be"),
        (lambda d: d["requests"][3].update(arrival=1e6), "request 3: arrival, first_token, .* go backwards"),
        (lambda d: d["requests"][3].update(last_token="9"), "request 3: last_token must be"),
        (lambda d: d["requests"][3].update(rid=2), "request 2: name used twice"),
        (lambda d: d["requests"][3].update(n_output=0), "request 3: n_output must be"),
        (lambda d: d["requests"][3].update(success=False), "request 3: success is False: it was not served"),
        (
            lambda d: d["requests"][3].update(error="timeout"),
            "request 3: error is 'timeout': it was not served",
        ),
        (
            lambda d: d["requests"][3].update(first_token=d["requests"][3]["arrival"]),
            "request 3: .* go backwards or stand still",
        ),
        (
            lambda d: d["engine"].update(prefix_caching=True, block_size=32),
            "block hashes, but .* blocks of 32",
        ),
        (
            lambda d: d["engine"].update(prefix_caching=True) or d["requests"][3].pop("blocks"),
            "KeyError: 'blocks'",
        ),
        (lambda d: d.update(engine=None), "AttributeError"),
    ],
)
def test_a_run_that_would_be_read_as_another_is_refused_by_name(made, spoil, message):
    document = json.loads((path := made()).read_text())
    spoil(document)
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"made\.json: not a measured run.*" + message):
        accuracy.MeasuredRun.load(path)


def test_the_rules_that_a_run_names_are_those_it_is_replayed_by(made):
    rules = {"policy": "priority", "enable_chunked_prefill": False, "long_prefill_token_threshold": 64}
    run = accuracy.MeasuredRun.load(made(**rules, max_model_len=4096, kv_dtype="fp8"))
    assert run.policy() == cp.VllmV1(1024, 64, max_model_len=4096, **rules)
    assert "cache in fp8" in str(run.price())


def test_settings_that_change_nothing_are_passed_over(made):
    row = accuracy.judged(accuracy.MeasuredRun.load(made(pp=1, dp=1, ep=False, enforce_eager=False, seed=3)))
    assert row["all_within_bound"]


def test_where_blocks_were_not_recorded_the_servers_share_of_memory_tells_them(made):
    path, blocks = made(), []
    for share in (0.9, 0.95):
        document = json.loads(path.read_text())
        document["engine"] |= {"n_blocks": None, "gpu_memory_utilization": share, "kv_dtype": "auto"}
        path.write_text(json.dumps(document))
        blocks.append(accuracy.MeasuredRun.load(path).pool().n_blocks)
    assert blocks[0] == cp.pool_for("llama-3.1-8b", "rtx4090", budget=1024, max_seqs=64).n_blocks < blocks[1]


def test_bench_writes_its_table_and_skips_loudly(made, tmp_path, capsys, monkeypatch):
    out = tmp_path / "accuracy.json"
    assert accuracy.main([str(made()), "--out", str(out), "--commit", "abc", "--dirty", "false"]) == 0
    document = json.loads(out.read_text())
    assert document["bench"] == "accuracy" and document["rows"][0]["run"] == "made"
    told = capsys.readouterr().err
    assert "TTFT mean" in told and "LLMServingSim" in told
    monkeypatch.setenv("CHUNKPREFILL_SHARED", str(tmp_path))
    monkeypatch.setattr(accuracy, "ROOT", tmp_path / "nowhere")
    assert accuracy.main([]) == 0
    assert "SKIPPED" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda d: d["engine"].update(n_blocks=3),
            "made: its settings could not have served it: request 0: could",
        ),
        (
            lambda d: d["engine"].update(max_model_len=9),
            "could not have served it: request 0: .* max_model_len is 9",
        ),
        (lambda d: d.update(engine=None), r"made\.json: not a measured run"),
    ],
)
def test_a_run_that_cannot_have_been_is_one_line(made, spoil, message, capsys):
    document = json.loads((path := made()).read_text())
    spoil(document)
    path.write_text(json.dumps(document))
    assert accuracy.main([str(path)]) == 2
    told = capsys.readouterr().err
    assert re.fullmatch(f"accuracy: .*{message}.*\n", told), told


def test_answers_of_one_token_and_tokens_that_came_together(made, tmp_path, capsys):
    """Neither has a time between tokens to be off by."""
    document = json.loads((path := made()).read_text())
    for row in document["requests"]:
        row["last_token"] = row["first_token"]
    for n_output, cells in ((1, None), (4, {})):
        for row in document["requests"]:
            row["n_output"] = n_output
        path.write_text(json.dumps(document))
        assert accuracy.main([str(path), "--out", str(tmp_path / "out.json")]) == 0
        row = json.loads((tmp_path / "out.json").read_text())["rows"][0]
        assert row["error"].get("TPOT") == cells and set(row["error"]["TTFT"]) == set(accuracy.SPREAD)
        assert "TTFT mean" in capsys.readouterr().err


def test_a_run_without_prefix_caching_needs_no_hashes(made):
    document = json.loads((path := made()).read_text())
    for row in document["requests"]:
        del row["blocks"]
    path.write_text(json.dumps(document))
    assert accuracy.judged(accuracy.MeasuredRun.load(path))["all_within_bound"]


def test_figures_may_be_kept_but_not_the_runs(made):
    """Nothing of a single request is in the document."""
    row = accuracy.judged(accuracy.MeasuredRun.load(made()))
    text = json.dumps(row)
    assert '"blocks"' not in text and "arrival" not in text and len(text) < 12_000


def test_runs_that_others_measured():
    """The aim is 5% in each cell; this holds what was reached, so that it is not lost."""
    folder = shared_dir()
    need("shared", folder and (folder / "runs").is_dir(), "no measured runs")
    for path in sorted((folder / "runs").glob("*.json")):  # type: ignore[operator]
        for metric, each in accuracy.error_of(accuracy.MeasuredRun.load(path)).items():
            for statistic, off in each.items():
                assert abs(off) < 0.065, (path.stem, metric, statistic, off)
