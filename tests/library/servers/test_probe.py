"""`probe` against a server of our own: every policy, every fault, hostile text; loopback only."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import threading
from dataclasses import replace
from importlib.util import find_spec

import pytest

import chunkprefill as cp
from chunkprefill.__main__ import main
from chunkprefill.servers import commands, prometheus
from chunkprefill.servers import probe as module
from chunkprefill.servers.client import Address, Client, ProbeError, clean, in_thread
from chunkprefill.servers.probe import ProbePlan, probe
from chunkprefill.servers.record import ProbeRecord
from chunkprefill.servers.stream import EventReader, Stream
from tests.library.servers.standin import HOSTILE, StandIn
from tests.proof import few_of

if not any(map(find_spec, ("httpx", "httpx2"))):
    pytest.skip("PROBING IS NOT TESTED HERE: httpx is not installed", allow_module_level=True)

# Seconds enough for any machine: a probe of these takes one or two where nothing else runs.
PLAN = ProbePlan(document=3000, rounds=1, seconds=900, seed=1)
QUICK = ProbePlan(document=256, rounds=1, seconds=900, seed=1)
QUIET = {"say": lambda line: None}


NAMED = [
    (cp.PrefillFirst(4096), "prompts first"),
    (cp.ChunkedPrefill(8192), "prompts first"),
    (cp.ChunkedPrefill(400), "stall-free by arrival"),
    (cp.ChunkedPrefill(400, order="shortest"), "newcomers pass"),
    (cp.VllmV1(256, long_prefill_token_threshold=128), "newcomers pass"),
    (cp.ChunkedPrefill(400, max_seqs=4, order="shortest"), "unknown"),
    (cp.RequestLevel(8), "unknown"),
]


@pytest.mark.parametrize(("policy", "verdict"), few_of(NAMED, NAMED[::2]), ids=repr)
def test_a_policy_is_named_rightly_or_not_at_all(policy, verdict):
    """On a busy machine times may say too little: then `unknown` is right too, and nothing else is."""
    with StandIn(policy, noise=0.1) as server:
        found = probe(server.url, plan=PLAN, **QUIET)
    assert found.verdict.name in (verdict, "unknown"), found
    assert found.table().rows and str(found.verdict) in str(found)


def test_a_stall_free_server_seen_end_to_end(tmp_path):
    lines = []
    with StandIn(
        cp.ChunkedPrefill(300), metrics="vllm:num_requests_running 3\nvllm:num_preemptions_total 0\n"
    ) as server:
        found = probe(server.url, plan=PLAN, say=lines.append)
    assert lines[0].startswith(
        f"to {server.url}, model (the first that it lists and that writes text):"
    )  # before anything is sent
    assert "3,000 tokens" in lines[0]
    assert found.engine == "vLLM" and found.metrics["before"] == {"running": 3, "preemptions": 0}
    assert found.door == "POST /v1/completions, prompts as token ids, ignore_eos"
    kinds = [s.kind for s in found.streams]
    assert [kinds.count(k) for k in ("warm-up", "alone", "chat", "stand-in", "document", "late")] == [
        2,
        1,
        6,
        1,
        1,
        4,
    ]
    document = next(s for s in found.streams if s.kind == "document")
    assert document.n_prompt == 3000 and document.ttft > 0
    assert {tuple(body["prompt"]) for body in server.seen}.__len__() == len(server.seen), (
        "no prefix is shared"
    )
    found.save(tmp_path / "probe.json")
    again = ProbeRecord.load(tmp_path / "probe.json")
    assert again == found and again.verdict == found.verdict
    assert found.picture().alt and found._repr_html_()


def test_a_short_context_is_kept_to():
    with StandIn(cp.ChunkedPrefill(100), context=700) as server:
        found = probe(server.url, plan=ProbePlan(rounds=1, seconds=900, seed=1), **QUIET)
    assert found.rounds and not any(s.error for s in found.streams), found
    assert all(len(body["prompt"]) + body["max_tokens"] <= 700 for body in server.seen)


def test_what_is_sent_stays_within_what_was_said():
    with StandIn(cp.ChunkedPrefill(300)) as server:
        probe(server.url, plan=PLAN, **QUIET)
    prompts = sum(len(body["prompt"]) for body in server.seen)
    answers = sum(body["max_tokens"] for body in server.seen)
    assert prompts <= PLAN.most_prompt_tokens and answers <= PLAN.most_answer_tokens


@pytest.mark.parametrize(
    ("server", "door"),
    [
        ({"extras": False}, "POST /v1/completions, prompts as token ids"),
        ({"door": "text"}, "POST /v1/completions, prompts as text, ignore_eos"),
        ({"door": "text", "extras": False, "counts": False}, "POST /v1/completions, prompts as text"),
        ({"door": "chat"}, "POST /v1/chat/completions, prompts as text, ignore_eos"),
        ({"door": "chat", "extras": False}, "POST /v1/chat/completions, prompts as text"),
    ],
)
def test_the_richest_way_in_is_found(server, door):
    with StandIn(cp.ChunkedPrefill(300), **server) as one:
        found = probe(one.url, plan=QUICK, **QUIET)
    assert found.door == door and found.rounds


@pytest.mark.parametrize(
    ("server", "kind", "words"),
    [
        ({"fault": "401"}, "unauthorized", "it wants a key: --key-env NAME"),
        ({"key": "sesame"}, "unauthorized", "it wants a key"),
        ({"fault": "500"}, "server-error", "answers 500; it says: broken"),
        ({"fault": "no-stream"}, "no-streaming", "answers all at once though `stream` is true"),
        ({"models": ("a", "b")}, "no-model", "has no model 'smol'; it has a, b"),
        ({"context": 1}, "too-long", "maximum context length"),
    ],
)
def test_what_cannot_be_probed_is_said_by_name(server, kind, words):
    with StandIn(cp.ChunkedPrefill(300), **server) as one, pytest.raises(ProbeError) as error:
        probe(one.url, "smol", QUICK, **QUIET)
    assert words in str(error.value) and error.value.kind == kind, error.value
    assert str(error.value).isprintable()


def test_nothing_listens_and_no_model_listed():
    with pytest.raises(ProbeError, match=r"nothing listens at http://127\.0\.0\.1:9 ") as error:
        probe("127.0.0.1:9", **QUIET)
    assert error.value.kind == "nothing-listens"
    with (
        StandIn(cp.ChunkedPrefill(300), models=None) as one,
        pytest.raises(ProbeError, match="name one: --model"),
    ):
        probe(one.url, plan=QUICK, **QUIET)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("cut-document", "the server closed the stream after 2 of 4 tokens"),
        ("cut", "the server closed the stream after 6 of"),
        ("buffered", "buffered"),
    ],
)
def test_a_fault_midway_is_unknown_and_what_came_is_kept(fault, words):
    with StandIn(cp.ChunkedPrefill(300), fault=fault) as one:
        found = probe(one.url, plan=replace(PLAN, document=2500), **QUIET)
    assert found.verdict.name == "unknown"
    said = " ".join((*found.verdict.evidence, *found.notes))
    assert words in said, said
    assert any(s.tokens for s in found.streams)


def test_a_server_that_hangs_ends_with_the_time():
    with StandIn(cp.ChunkedPrefill(300), fault="hang") as one:
        found = probe(one.url, plan=replace(QUICK, seconds=3), **QUIET)
    assert found.verdict.name == "unknown"
    assert any(note.startswith("stopped after 3 s during ") for note in found.notes), found.notes


def test_a_server_that_still_loads_is_waited_for():
    lines = []
    with StandIn(cp.ChunkedPrefill(300), fault="loading") as one:
        found = probe(one.url, plan=QUICK, say=lines.append)
    assert found.rounds and sum("still loading" in line for line in lines) == 2


def test_prefilling_on_another_machine_is_not_called_by_a_policys_name():
    with StandIn(cp.ChunkedPrefill(400), apart=True) as one:
        found = probe(one.url, plan=PLAN, **QUIET)
    assert found.verdict.name == "unknown", found
    if "came at once" not in found.verdict.evidence[0]:  # this machine was busy, which is an answer too
        assert "did not grow" in found.verdict.evidence[0], found


def test_hostile_text_and_the_key_reach_neither_terminal_nor_page_nor_file(tmp_path, capsys, monkeypatch):
    names = ("smol\x1b[2J<script>",)
    with StandIn(cp.ChunkedPrefill(300), fault="hostile", models=names) as one:
        found = probe(one.url, plan=QUICK, **QUIET)
        assert (
            found.door and "script>alert" not in found._repr_html_() and "<script" not in found._repr_html_()
        )
        found.save(tmp_path / "probe.json")
    text = (tmp_path / "probe.json").read_text() + str(found)
    assert "\x1b" not in text and "owned" not in text
    monkeypatch.setenv("THE_KEY", "wrong-and-secret")
    with StandIn(cp.ChunkedPrefill(300), key="sesame") as one:  # it sends the key back in its error
        assert main(["probe", one.url, "--key-env", "THE_KEY"]) == 2
    out = "".join(capsys.readouterr())
    assert "the key was refused" in out and "[key]" in out
    assert "wrong-and-secret" not in out and "\x1b" not in out


def test_a_key_opens_the_door_and_is_stored_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("THE_KEY", "sesame-open")
    path = tmp_path / "probe.json"
    with StandIn(cp.ChunkedPrefill(300), key="sesame-open") as one:
        main(
            [
                "probe",
                one.url,
                "--key-env",
                "THE_KEY",
                "--document",
                "256",
                "--rounds",
                "1",
                "--out",
                str(path),
            ]
        )
    assert "sesame" not in path.read_text() and ProbeRecord.load(path).rounds


def test_a_dry_run_sends_nothing_and_says_what_it_would(capsys):
    with StandIn(cp.ChunkedPrefill(300)) as one:
        assert main(["probe", one.url, "--dry-run", "--document", "2000"]) == 0
        assert not one.seen
    said = capsys.readouterr().out
    assert "a document of 2,000 tokens" in said and "at most" in said and "prompt tokens" in said


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["ftp://host"], "must begin with http"),
        (["http://user:pw@127.0.0.1:1"], "holds a user or a password"),
        (["http://127.0.0.1:1?key=x"], "must not hold a query"),
        (["http://[::1"], "is no URL"),
        (["http://example.invalid", "--key-env", "THE_KEY"], "unencrypted"),
        (["127.0.0.1:9", "--key-env", "NOT_SET"], "no key in the environment variable NOT_SET"),
        (["127.0.0.1:9", "--chats", "0"], "chats must be a whole number from 1 to 16, got 0"),
        (["127.0.0.1:9", "--document", "3"], "document must be a whole number from 64"),
        (["127.0.0.1:9", "--seconds", "nan"], "seconds must be from 1"),
    ],
)
def test_bad_input_is_one_line(args, words, capsys, monkeypatch):
    monkeypatch.setenv("THE_KEY", "sesame")
    assert main(["probe", *args]) == 2
    said = capsys.readouterr().err
    assert words in said and "pw" not in said and said.count("\n") == 1


@pytest.mark.parametrize("typed", ["", "http://"])
@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/chat/completions"])
def test_an_address_is_taken_as_it_is_typed(typed, path):
    address = Address.of(f"{typed}127.0.0.1:8000{path}")
    assert address.page("/v1/models") == "http://127.0.0.1:8000/v1/models" and address.loopback
    assert not Address.of("https://example.com/openai/v1").loopback


def test_clean_leaves_one_printable_line():
    said = clean(HOSTILE * 50 + "\n\u2028sesame", 120, "sesame")
    assert said.isprintable() and len(said) <= 120 and "\u202e" not in said
    assert clean("the key sesame", secret="sesame") == "the key [key]"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: d.update(format="x"),
        lambda d: d.update(version=9),
        lambda d: d.pop("streams"),
        lambda d: d["streams"][0].update(tokens=[2.0, 1.0], counts=[1, 1]),
        lambda d: d["streams"][0].update(sent=-1),
        lambda d: d["streams"][0].update(tokens=["x"], counts=[1]),
        lambda d: d["streams"][0].update(n_prompt=True),
        lambda d: d.update(metrics=[1]),
        lambda d: d.update(metrics={"before": {"a": "5"}}),
        lambda d: d.update(metrics={"before": {"a": float("nan")}}),
        lambda d: d.update(server=None),
        lambda d: d["streams"][0].update(kind="robot"),
        lambda d: d["streams"][0].update(name=None),
        lambda d: d["streams"][0].update(sent="0"),
    ],
)
def test_a_broken_file_is_refused_by_name(spoil, tmp_path):
    from tests.library.servers.test_judge import probe as some

    some().save(tmp_path / "good.json")
    document = json.loads((tmp_path / "good.json").read_text())
    spoil(document)
    (tmp_path / "bad.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"bad\.json: not a probe"):
        ProbeRecord.load(tmp_path / "bad.json")


def test_a_document_that_was_halved_is_recorded_halved_and_grows_no_more():
    sent = []

    async def send(stream):
        sent.append(stream.n_prompt)
        if stream.n_prompt > 3000:
            raise ProbeError("too-long", "too long")
        stream.sent, stream.tokens = 1.0, [1.0 + stream.n_prompt / 1e5]

    run = module._Run(None, ProbePlan(), "m", lambda line: None, random.Random(0))
    run.send = send
    took = asyncio.run(module._size_document(run))
    assert sent == [1024, 4096, 2048]
    assert [n for n, _ in run.alone] == [1024, 2048] and took == run.alone[-1][1]


def test_a_key_is_taken_out_before_text_is_cut():
    assert "sesam" not in clean("x" * 198 + "sesame", 200, "sesame").replace("[key]", "")
    assert "ses" not in clean(" " * 3997 + "sesame", 200, "sesame")
    stream = Stream("a", "chat", "", 1, 8)
    events = EventReader(stream)
    events.line(b"data: " + b"x" * 78 + b"sesame", 0.0)
    events.close(0.0)
    assert clean(events.error, secret="sesame").endswith("[key]")


def test_a_key_never_travels_unencrypted_from_python_either():
    with pytest.raises(ProbeError, match="unencrypted"):
        probe("http://example.invalid", key="sesame", **QUIET)


@pytest.mark.parametrize(
    "url", ["http://xn--.invalid:1", "http://" + "a" * 70 + ".\u00fc:1", "http://a\u200b.b:1"]
)
def test_a_host_that_is_no_name_is_an_error_by_name(url):
    with pytest.raises(ProbeError) as caught:
        probe(url, **QUIET)
    assert caught.value.kind in ("url", "nothing-listens")


def test_the_verdict_is_printed_before_files_are_written(tmp_path, monkeypatch, capsys):
    record = ProbeRecord("s", "m")
    monkeypatch.setattr(commands, "probe", lambda *a, **k: record)
    assert main(["probe", "127.0.0.1:9", "--out", str(tmp_path / "no" / "x.json")]) == 2
    out, err = capsys.readouterr()
    assert "verdict" not in out and "No such file" in err
    monkeypatch.setattr(ProbeRecord, "save", lambda self, path: (_ for _ in ()).throw(OSError("disk full")))
    assert main(["probe", "127.0.0.1:9", "--out", str(tmp_path / "x.json")]) == 2
    out, err = capsys.readouterr()
    assert "verdict: unknown" in out and "disk full" in err and not (tmp_path / "x.json").exists()


def test_ctrl_c_cancels_what_runs_in_the_thread():
    ended = []

    async def work():
        try:
            threading.Timer(0.05, signal.raise_signal, (signal.SIGINT,)).start()
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a worker of pytest's ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            in_thread(work())
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended


def test_a_server_that_never_lists_its_models_ends_with_the_time(monkeypatch):
    async def never(self):
        await asyncio.sleep(60)

    monkeypatch.setattr(Client, "listed", never)
    with pytest.raises(ProbeError, match="had not listed its models and metrics after 1 s"):
        probe("127.0.0.1:9", plan=ProbePlan(seconds=1), **QUIET)


def test_metrics_are_finite_and_a_share_is_no_sum():
    page = 'vllm:kv_cache_usage_perc{engine="0"} 0.7\nvllm:kv_cache_usage_perc{engine="1"} 0.6\n'
    page += 'vllm:num_requests_running{engine="0"} 1e308\nvllm:num_requests_running{engine="1"} 1e308\n'
    page += 'vllm:num_requests_waiting{engine="0"} 2\nvllm:num_requests_waiting{engine="1"} 3\n'
    assert prometheus.rows(page) == {"waiting": 5.0, "cache_use": 0.7}
