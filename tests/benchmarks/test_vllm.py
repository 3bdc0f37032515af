"""The bench that runs vLLM beside our engine: what of it needs no vLLM; and, where there is one, the real thing."""

from __future__ import annotations

import argparse
import json
from importlib.util import find_spec
from pathlib import Path

import pytest

import chunkprefill as cp
from benchmarks import vllm as bench
from benchmarks.drive import Answer, answers_of, drive, numbers
from benchmarks.vllm_server import VllmServer, engines_python, free_port
from chunkprefill_course.vllm_recording import vllm_number
from tests.library.servers.standin import StandIn, linear
from tests.needs import ROOT

RESULTS = ROOT / "benchmarks/results/vllm-cpu.json"


def test_each_setting_stands_for_a_policy_of_the_same_numbers():
    names = [one.name for one in bench.settings()]
    assert len(names) == len(set(names)) == 11
    flag_names = {
        "max-num-batched-tokens": "max_num_batched_tokens",
        "long-prefill-token-threshold": "long_prefill_token_threshold",
        "scheduling-policy": "policy",
    }
    for one in bench.settings():
        for flag, field in flag_names.items():
            if flag in one.flags:
                assert getattr(one.policy, field) == one.flags[flag], one.name
        assert one.policy.enable_chunked_prefill == ("no-enable-chunked-prefill" not in one.flags)
        assert one.load in bench.loads(0, 500, 20)
        if one.n_blocks:  # vLLM keeps one block back
            assert one.flags["num-gpu-blocks-override"] == one.n_blocks + 1


def test_loads_are_a_function_of_the_seed_and_share_no_prompt_but_the_one_that_comes_again():
    one, same, other = bench.loads(1, 500, 20), bench.loads(1, 500, 20), bench.loads(2, 500, 20)
    assert one == same != other
    requests = {id(r): r for load in one.values() for r in load.requests if r.rid != "again"}.values()
    begun = {r.prompt[:8] for r in requests}
    again = {r.rid: r.prompt for r in one["again"].requests}
    assert again["again"] == again["document"]
    assert len(begun) == len(requests), "no other prompt begins as another does"


def test_numbers_are_what_clients_wait():
    answers = {
        "chat": Answer(0.0, (0.5, 1.0, 3.5, 4.0, 9.0)),
        "document": Answer(1.0, (3.6, 3.7)),
        "late": Answer(2.0, (3.0,)),
    }
    found = numbers(answers, {"chats": ["chat"], "document": ["document"], "late": ["late"]})
    assert found == {"gap": 2.5, "document": 2.6, "late": 1.0}  # the gap of 5 s begins after all of it
    trace = cp.simulate([cp.Request("a", 0.0, 10, 3)], cp.ChunkedPrefill(64))
    (one,) = answers_of(trace).values()
    assert len(one.tokens) == 3 and one.ttft == cp.ttft(trace)[0]


def test_tokens_that_differ_are_an_error_that_names_them():
    one = bench.settings()[0]
    trace = cp.Trace([cp.Request("a", 0.0, 4, 4)], outputs={"a": [1, 2, 3, 4]})
    same = {"a": Answer(0.0, (1.0,) * 4, (1, 2, 3, 4))}
    assert bench.same_tokens(one, same, trace) == 4
    with pytest.raises(RuntimeError, match=r"a: vLLM says \[1, 2, 9, 4\], our engine \[1, 2, 3, 4\]"):
        bench.same_tokens(one, {"a": Answer(0.0, (1.0,) * 4, (1, 2, 9, 4))}, trace)
    with pytest.raises(RuntimeError, match="vLLM says"):
        bench.same_tokens(one, {"a": Answer(0.0, (1.0,), (1,))}, trace)


@pytest.mark.parametrize("caching", [False, True])
def test_the_document_comes_again_when_it_has_been_answered(caching):
    """In the simulator and on a server that speaks the protocol: by the event, whatever a step costs."""
    load = bench.loads(1, 900, 240)["again"]
    for token_s in (1e-6, 1e-4, 1e-3):
        trace = cp.simulate(
            load.sent(),
            cp.VllmV1(256, max_num_seqs=64),
            linear(0.01, token_s),
            cp.BlockPool(512, 32, caching),
        )
        answers = answers_of(trace)
        bench.in_order(load, answers)
        assert answers["again"].arrival == answers["document"].tokens[-1]
        own = vllm_number(digested_column(answers, load), "own")
        assert own == pytest.approx(answers["again"].ttft)
        assert (own < 0.5 * answers["document"].ttft) == caching or token_s < 1e-4


def digested_column(answers, load):
    row = bench.column(answers, load.names).row()
    return {**row, "first_s": {rid: times[1] for rid, times in row["tokens_s"].items()}}


def test_a_document_that_comes_again_too_early_is_refused():
    load = bench.loads(1, 900, 60)["again"]
    early = {"document": Answer(1.0, (3.0, 5.0)), "again": Answer(4.0, (6.0,))}
    with pytest.raises(RuntimeError, match=r"sent again at 4\.00 s and answered at 5\.00 s"):
        bench.in_order(load, early)
    bench.in_order(bench.loads(1, 900, 60)["document"], early)


@pytest.mark.skipif(
    not any(map(find_spec, ("httpx", "httpx2"))), reason="DRIVING IS NOT TESTED HERE: httpx is not installed"
)
def test_a_closed_loop_is_driven_by_answers():
    requests = [cp.Request(f"r{i}", 0.0, 16, 4, tuple(range(100, 116))) for i in range(4)]
    with StandIn(cp.ChunkedPrefill(64)) as one:
        found = drive(one.url, cp.clients(2, requests), model="smol")
    for i in (2, 3):
        ended = sorted(max(answer.tokens) for answer in found.values())
        assert found[f"r{i}"].arrival >= ended[i - 2] - 1e-6
    assert all(len(answer.tokens) == 4 for answer in found.values())


def test_a_recording_that_sent_it_by_the_clock_is_read_as_it_was():
    """Sent at 6.0 s while it was being read: its own wait begins with the first one's token."""
    column = {"s": {"again": 7.4}, "preemptions": 0, "first_s": {"document": 7.3, "again": 13.4}}
    assert vllm_number(column, "own") == pytest.approx(6.1)


def test_without_an_environment_it_says_how_to_make_one(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("CHUNKPREFILL_ENGINES", str(tmp_path))
    assert bench.main([]) == 1
    assert "`make engines` makes it" in capsys.readouterr().err


def test_a_server_that_does_not_start_ends_with_its_own_words(tmp_path):
    """Its command is a Python that fails as vLLM would; nothing is left running."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "ValueError: no such model" >&2\nexit 3\n')
    python.chmod(0o755)
    server = VllmServer(tmp_path, python, log=tmp_path / "log")
    with (
        pytest.raises(RuntimeError, match=r"vLLM ended with 3; its log says:\nValueError: no such model"),
        server,
    ):
        pass
    assert server._process is None


def test_it_listens_on_loopback_alone(tmp_path):
    server = VllmServer(
        tmp_path, Path("python"), {"max-num-batched-tokens": 64, "enforce-eager": True}, port=1
    )
    line = server.command()
    assert line[line.index("--host") + 1] == "127.0.0.1" and server.url == "http://127.0.0.1:1"
    assert line[-4:] == ["--max-num-batched-tokens", "64", "--enforce-eager", "--no-enable-prefix-caching"]
    assert 1024 <= free_port() < 65_536


@pytest.mark.skipif(not RESULTS.exists(), reason="NOTHING IS RECORDED: python -m benchmarks vllm")
def test_the_recording_shows_what_the_book_says():
    document = json.loads(RESULTS.read_text())
    rows = {row["settings"]: row for row in document["rows"]}
    assert list(rows) == [one.name for one in bench.settings()] and document["provenance"]["commit"]
    for one in bench.settings():
        row = rows[one.name]
        if one.expected:
            assert row["verdict"]["name"] == one.expected
        assert row["same_tokens"] > 0, "the same tokens as our engine, in float32"

    def own(settings: str, column: str) -> float:
        """s: what the document waited by itself the second time: since it was sent, and the first was read."""
        tokens = rows[settings]["columns"][column]["tokens_s"]
        return tokens["again"][1] - max(tokens["again"][0], tokens["document"][1])

    for column in ("vLLM", "our engine", "simulator"):
        seen = {name: row["columns"][column]["s"] for name, row in rows.items()}
        small, large = seen["budget 256"], seen["budget 4096"]
        assert large["gap"] > 3 * small["gap"], "chunks bound what a chat waits"
        assert seen["budget 256, threshold 128"]["late"] < 0.3 * small["late"], "newcomers pass"
        first, urgent = seen["two documents, by arrival"], seen["two documents, by priority"]
        assert urgent["late"] < 0.8 * first["late"], "priority passes the second document, not the first"
        assert rows["few blocks"]["columns"][column]["preemptions"] > 0
        assert own("the document again, prefix cache", column) < 0.2, (
            "it waits for the first, and is not read"
        )
        assert own("the document again, no prefix cache", column) > 3, "it is read a second time"


@pytest.mark.slow
@pytest.mark.skipif(
    engines_python(ROOT) is None, reason="REAL vLLM IS NOT TESTED HERE: no .venv-engines (`make engines`)"
)
def test_a_real_vllm_is_named_rightly(tmp_path):
    """A threshold lets newcomers pass: one start of the five settings; the bench records all of them."""
    args = argparse.Namespace(seed=3, document=1500, answer=100, eager=True, repeats=1)
    one = next(s for s in bench.settings() if s.name == "budget 256, threshold 128")
    runs = bench.Bench(bench.write_folder(tmp_path / "smol"), engines_python(ROOT), args)
    seen, more, answers = runs.on_vllm(one, probed=True)
    assert more["verdict"]["name"] in ("newcomers pass", "unknown")
    ours, trace = runs.on_ours(one)
    assert bench.same_tokens(one, answers, trace) > 0
    assert seen.numbers["late"] < seen.numbers["document"] and ours.numbers["document"] > 0
