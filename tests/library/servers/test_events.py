"""What servers say, byte for byte: streams as the usual ones write them, and answers that are none."""

from __future__ import annotations

import asyncio
import gzip
import json
import socketserver
import threading
import zlib
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from importlib.util import find_spec
from itertools import pairwise

import pytest

import chunkprefill as cp
from chunkprefill.servers import client as module
from chunkprefill.servers import probe as probing
from chunkprefill.servers import prometheus
from chunkprefill.servers.client import DOORS, Address, Client, ProbeError
from chunkprefill.servers.judge import UNKNOWN, judge, tokens_an_event
from chunkprefill.servers.probe import ProbePlan, patient
from chunkprefill.servers.stream import MOST_LINE, BrokenAnswer, EventReader, Lines, Stream, count, message
from tests.library.servers.seen import World, probe_of
from tests.library.servers.standin import StandIn, linear
from tests.library.servers.test_judge import ARRIVAL

WITH_HTTPX = pytest.mark.skipif(
    not any(map(find_spec, ("httpx", "httpx2"))), reason="PROBING IS NOT TESTED HERE: httpx is not installed"
)


def data(document: object, end: bytes = b"\n\n") -> bytes:
    return b"data: " + (document if isinstance(document, bytes) else json.dumps(document).encode()) + end


def chat(**delta: object) -> dict:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


def read(*events: bytes, n_output: int = 4, split: int = 1 << 20) -> tuple[Stream, EventReader]:
    """The events, in pieces of `split` bytes; a piece's number is its time."""
    stream = Stream("s", "chat", "r", 8, n_output)
    found, lines, whole = EventReader(stream), Lines(), b"".join(events)
    for i, at in enumerate(range(0, len(whole), split)):
        for line in lines(whole[at : at + split]):
            found.line(line, float(i))
    for line in lines(b"\n"):
        found.line(line, 1e6)
    found.close(1e6)
    return stream, found


DONE = b"data: [DONE]\n\n"
WORD = {"choices": [{"text": "word "}]}


@pytest.mark.parametrize(
    ("events", "counts"),
    [
        ((data(WORD), data(WORD)), [1, 1]),
        ((data(WORD, b"\r\n\r\n"), data(WORD, b"\r\n\r\n")), [1, 1]),
        ((data(WORD, b"\r\r"), data(WORD, b"\r\r")), [1, 1]),
        ((data(WORD, b"\n"), data(WORD, b"")), [1, 1]),
        ((b"data:" + json.dumps(WORD).encode() + b"\n\n",), [1]),
        ((b"id: 1\nevent: message\nretry: 5\n" + data(WORD),), [1]),
        ((b"\xef\xbb\xbf" + data(WORD), data(WORD)), [1, 1]),  # a byte order mark before the first
        ((b'data: {"choices": [{\ndata: "text": "word"}]}\n\n',), [1]),
        ((b": ping\n\n", data(WORD), b":\n\n"), [1]),
        ((data(chat(role="assistant", content="")), data(chat(content="a"))), [1]),
        ((data(chat(content="")), data(chat(content="a")), data(chat(content="")), data(chat())), [1]),
        ((data(chat(role="assistant", content="a")), data(chat(role="assistant", content="b"))), [1, 1]),
        ((data(chat(content=None, reasoning_content="hm")), data(chat(thinking="hm"))), [1, 1]),
        ((data(chat(content=None, tool_calls=[{"index": 0, "function": {"arguments": "x"}}])),), [1]),
        ((data(chat(content="Zürich 日本 🙂")),), [3]),
        ((data({"choices": [{"text": "one two three "}]}), data(WORD)), [3, 1]),
        (
            (
                data({**WORD, "usage": {"completion_tokens": 2}}),
                data({**WORD, "usage": {"completion_tokens": 4}}),
            ),
            [2, 2],
        ),
        (({**WORD, "usage": {"completion_tokens": 0}}, {**WORD, "usage": None}), [1, 1]),
        (({"choices": [{"text": ""}], "usage": {"completion_tokens": 1}},), [1]),
        (({"choices": [{"text": ""}]}, WORD, {"choices": [], "usage": {"completion_tokens": 3}}), [3]),
        ((WORD, WORD, {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}), [2, 2]),
        (({"choices": [{"text": "", "finish_reason": "length"}], "usage": {"completion_tokens": 3}},), []),
        (({"choices": []}, {"choices": [3]}, {"choices": None}, {}), []),
    ],
)
@pytest.mark.parametrize("split", [1, 7, 1 << 20])
def test_tokens_are_told_from_what_is_none(events, counts, split):
    events = [one if isinstance(one, bytes) else data(one) for one in events]
    stream, found = read(*events, split=split)
    assert not found.error and stream.counts == counts and len(stream.tokens) == len(counts)
    assert stream.tokens == sorted(stream.tokens)


def test_a_token_is_here_with_the_byte_that_completes_its_event():
    first, second = data(WORD), data(WORD)
    stream, _ = read(first, second, split=len(first))
    assert stream.tokens == [0.0, 1.0]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (data({"error": {"message": "out of memory"}}), "out of memory"),
        (data({"object": "error", "message": "out of memory", "code": 500}), "out of memory"),
        (b"event: error\n" + data({"message": "out of memory"}), "out of memory"),
        (b'error: {"code": 500, "message": "out of memory"}\n\n', "out of memory"),
        (b"error: out of memory\n\n", "out of memory"),
        (data({"error": "out of memory", "error_type": "x"}), "out of memory"),
        (data({"error": {"code": 1}}), "an error without a message"),
        (data(b"out of memory"), "no JSON object: out of memory"),
        (data(b"[1]"), "no JSON object: [1]"),
        (data({**WORD, "usage": {"completion_tokens": 99}}), "99 tokens by the server's count, and 4 were"),
        (data(WORD) * 13, "more than the 4 tokens asked for"),
    ],
)
def test_an_error_inside_a_stream_is_one(said, words):
    stream, found = read(data(WORD), said, DONE)
    assert words in found.error and stream.tokens


@pytest.mark.parametrize("finish", ["", None])
def test_only_a_reason_ends_an_answer(finish):
    _, found = read(data({"choices": [{"text": "a", "finish_reason": finish}]}))
    assert not found.done
    _, found = read(data({"choices": [{"text": "a", "finish_reason": "stop"}]}))
    assert found.done


def test_a_line_is_bounded():
    lines = Lines()
    with pytest.raises(BrokenAnswer, match="more than"):
        for _ in range(9):
            lines(b"x" * (MOST_LINE // 8))
    with pytest.raises(BrokenAnswer, match="more than"):
        read(*[b"data: " + b"[" * 60_000 + b"\n"] * 5)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (
            {"detail": [{"loc": ["body", "prompt"], "msg": "a string is wanted"}]},
            "a string is wanted (body.prompt)",
        ),
        ({"detail": "Not Found"}, "Not Found"),
        ({"error": {"error": {"error": {"error": {"error": "deep"}}}}}, ""),
        ({"error": None, "message": "busy"}, "busy"),
        ([1], ""),
        (None, ""),
    ],
)
def test_the_words_of_an_error_are_found(document, words):
    assert message(document) == words


def test_counts_are_whole_numbers():
    assert [count(x) for x in (3, True, 3.0, -1, 1 << 40, "3", None)] == [3] + [None] * 6


@contextmanager
def canned(*answers: bytes):
    """A server that gives these answers, one a connection, the last one again and again."""
    left = list(answers)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            length = 0
            while line := self.rfile.readline().strip():
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            self.rfile.read(length)
            self.wfile.write(left.pop(0) if len(left) > 1 else left[0])

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


def reply(status: int, body: bytes = b"", **headers: str) -> bytes:
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return (
        f"HTTP/1.1 {status} X\r\n{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
        + body
    )


def ask(url: str, n_output: int = 2) -> Stream:
    async def asked() -> Stream:
        stream = Stream("s", "chat", "r", 8, n_output)
        async with Client(Address.of(url)) as client:
            await client.stream(stream, "/v1/completions", DOORS[0].body("m", [1], n_output))
        return stream

    return asyncio.run(asked())


SSE = {"Content_Type": "text/event-stream"}
TWO = data(WORD) + data(WORD)


@WITH_HTTPX
@pytest.mark.parametrize(
    "answer",
    [
        reply(200, TWO + DONE, **SSE),
        reply(200, TWO, **SSE),  # neither [DONE] nor a finish_reason, and all tokens there
        reply(200, b"\n\n" + TWO + DONE, Content_Type="application/json"),
        reply(200, gzip.compress(TWO + DONE), Content_Encoding="gzip", **SSE),
        reply(200, zlib.compress(TWO + DONE), Content_Encoding="deflate", **SSE),
        reply(200, TWO + DONE, Content_Encoding="br", **SSE),  # which it is not
    ],
)
def test_a_stream_is_read_whatever_its_wrapping(answer):
    with canned(answer) as url:
        stream = ask(url)
    assert stream.counts == [1, 1] and stream.ended is not None and not stream.error


@WITH_HTTPX
@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (reply(200, b"<!doctype html><p>Sign in"), "not-openai", "with a web page"),
        (reply(200, b'{"a":1}\n{"a":2}\n'), "not-openai", "lines of JSON"),
        (reply(200, b'{"choices": []}'), "no-streaming", "all at once"),
        (reply(200, b'{"error": {"message": "boom"}}'), "server-error", "boom"),
        (reply(200, b""), "closed", "before any token"),
        (reply(200, b"\x8b\x02\x80", Content_Encoding="br", **SSE), "not-openai", "encoded (br), unasked"),
        (reply(200, b"nonsense", Content_Encoding="gzip", **SSE), "not-openai", "cannot be inflated"),
        (reply(200, data(chat(content=None)) + DONE), "not-openai", "without a token"),
        (
            reply(200, data({"choices": [], "usage": {"completion_tokens": 2}}) + DONE),
            "no-streaming",
            "counts 2 tokens of an answer, and none",
        ),
        (reply(307, Location="https://there.example/x"), "redirect", "a redirect to https://there.example/x"),
        (reply(413, b"Payload Too Large"), "too-long", "413"),
        (reply(422, b'{"error": "inputs must have less than 512 tokens"}'), "too-long", "less than 512"),
        (reply(422, b'{"detail": [{"loc": ["body"], "msg": "no"}]}'), "refused", "no (body)"),
        (reply(503, b"Loading model"), "busy", "503"),
        (b"", "closed", "does it speak TLS, https://?"),
    ],
)
def test_what_is_no_stream_is_said_by_name(answer, kind, words):
    with canned(answer) as url, pytest.raises(ProbeError) as error:
        ask(url)
    assert (error.value.kind, words in str(error.value)) == (kind, True), error.value
    assert error.value.kind in module.FAILURES and str(error.value).isprintable()


@WITH_HTTPX
def test_a_body_that_inflates_without_end_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "MOST_STREAM", 1 << 20)
    bomb = gzip.compress(b": ping\n" * 2_000_000)
    with (
        canned(reply(200, bomb, Content_Encoding="gzip", **SSE)) as url,
        pytest.raises(ProbeError, match="bytes came"),
    ):
        ask(url)


@WITH_HTTPX
@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            "[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate",
            "in the environment variable SSL_CERT_FILE",
        ),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number", "does not speak TLS"),
        ("[SSL] record layer failure", "does not speak TLS"),
    ],
)
def test_a_failure_of_tls_is_no_silence(said, words):
    client = Client(Address.of("https://127.0.0.1:9"))
    error = client._named(client._httpx.ConnectError(said))
    assert error.kind == "tls" and words in str(error)


@WITH_HTTPX
def test_an_authority_that_is_no_file_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(ProbeError, match=r"SSL_CERT_FILE .*none\.pem") as error:
        Client(Address.of("https://127.0.0.1:9"))
    assert error.value.kind == "tls"


@WITH_HTTPX
@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (reply(200, b"<html>"), "not-openai", "with no list of models but a web page"),
        (reply(200, b'{"models": []}'), "not-openai", 'but {"models": []}'),
        (reply(500, b"oops"), "server-error", "answers 500; it says: oops"),
        (reply(307, Location="/login"), "redirect", "a redirect to /login"),
        (reply(401), "unauthorized", "it wants a key"),
    ],
)
def test_a_page_of_models_that_is_none_is_said_by_name(answer, kind, words):
    async def listed() -> object:
        async with Client(Address.of(url)) as client:
            return await client.listed()

    with canned(answer) as url, pytest.raises(ProbeError) as error:
        asyncio.run(listed())
    assert error.value.kind == kind and words in str(error.value)


@WITH_HTTPX
def test_every_model_of_a_long_list_may_be_asked_for():
    names = [{"id": f"model {i}"} for i in range(500)]

    async def listed() -> object:
        async with Client(Address.of(url)) as client:
            return await client.listed()

    with canned(reply(200, json.dumps({"data": names}).encode())) as url:
        assert len(asyncio.run(listed())) == 500


class Clock:
    """A client of which only the time is asked."""

    def __init__(self) -> None:
        self.t = 0.0

    def now(self) -> float:
        return self.t


@pytest.mark.parametrize(
    ("retry_s", "n_asked"),
    [(None, 3), (5.0, 3), (59.0, 2), (61.0, 1), (1e9, 1)],
)
def test_a_busy_server_is_asked_again_when_it_says(retry_s, n_asked, monkeypatch):
    clock, asked = Clock(), []

    async def sleep(seconds):
        clock.t += seconds

    async def ask():
        asked.append(clock.t)
        if len(asked) < 3:
            raise ProbeError("busy", "busy", retry_s)
        return "answer"

    monkeypatch.setattr(probing.asyncio, "sleep", sleep)
    try:
        assert asyncio.run(patient(ask, clock, ProbePlan(), lambda line: None)) == "answer"
    except ProbeError as error:
        assert error.kind == "busy" and f"left alone for {retry_s:,.0f} s" in str(error)
    assert len(asked) == n_asked
    assert all(b - a == max(1.0, retry_s or 0.0) for a, b in pairwise(asked))


def test_a_retry_after_is_a_number_or_a_date():
    later = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    assert module._retry_s("17") == 17.0 and 3500 < module._retry_s(later) <= 3600
    assert module._retry_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert [module._retry_s(x) for x in ("", "soon", "-1", "nan", "9" * 400)][:4] == [None] * 4


@WITH_HTTPX
def test_a_document_that_fails_keeps_what_came_before_it():
    with StandIn(cp.ChunkedPrefill(300)) as one:
        one._refuses = lambda path, body, n: (500, "out of memory") if n > 2000 else None
        found = probing.probe(
            one.url, plan=ProbePlan(document=3000, rounds=1, seconds=20), say=lambda line: None
        )
    assert found.verdict.name == UNKNOWN and "out of memory" in found.verdict.evidence[0]
    assert "server-error" in found.verdict.evidence[0]
    assert [bool(s.tokens) for s in found.streams] == [True] * (len(found.streams) - 1) + [False]


@WITH_HTTPX
def test_a_model_that_writes_no_text_is_passed_over_and_the_choice_is_said():
    lines = []
    with StandIn(cp.ChunkedPrefill(300), models=("text-embedding-nomic", "smol", "other")) as one:
        probing.probe(one.url, plan=ProbePlan(document=256, rounds=1, seconds=20), say=lines.append)
        assert {body["model"] for body in one.seen} == {"smol"}
    assert "smol is asked for, of 3 models; --model NAME asks for another" in lines


@WITH_HTTPX
def test_a_limit_by_another_name_and_a_temperature_that_is_fixed():
    def refuses(path, body, n):
        for name in ("max_tokens", "ignore_eos", "temperature"):
            if name in body:
                return 400, f"Unsupported parameter: {name}"
        return None

    with StandIn(cp.ChunkedPrefill(300), door="chat") as one:
        one._refuses = refuses
        found = probing.probe(
            one.url, plan=ProbePlan(document=256, rounds=1, seconds=20), say=lambda line: None
        )
    assert found.rounds and not any(s.error for s in found.streams)


def several(k: int, policy: object):
    """A probe whose server hands `k` steps over at once."""
    base = probe_of(World(policy, linear(0.006, 0.00006)), document=3000)
    streams = []
    for s in base.streams:
        kept = [i for i in range(len(s.tokens)) if i % k == 0 or i == len(s.tokens) - 1]
        counts = [1, *(b - a for a, b in pairwise(kept))]
        streams.append(replace(s, tokens=[s.tokens[i] for i in kept], counts=counts, reads=len(kept)))
    return replace(base, streams=tuple(streams))


@pytest.mark.parametrize("k", [2, 4, 8])
@pytest.mark.parametrize("budget", [128, 700, 1500])
def test_events_of_several_tokens_count_no_steps_and_hide_chunks(k, budget):
    found = several(k, cp.ChunkedPrefill(budget))
    assert tokens_an_event(found) > 1.5
    verdict = judge(found)
    assert verdict.name in (ARRIVAL, UNKNOWN) and verdict.step is None, verdict


def test_a_silence_of_several_steps_is_no_sign_of_prompts_first():
    verdict = judge(several(4, cp.PrefillFirst(4096)))
    assert verdict.name == UNKNOWN and "a silence may hide some" in verdict.evidence[0], verdict


def test_a_newcomer_that_passed_may_have_been_elsewhere():
    verdict = judge(probe_of(World(cp.ChunkedPrefill(512, order="shortest"), linear(0.006, 0.00006))))
    assert "sent to another" in verdict.unseen[-1]


def test_tokens_two_at_a_time_are_called_buffered():
    base = probe_of(World(cp.ChunkedPrefill(512), linear(0.006, 0.00006)))
    streams = [
        replace(s, tokens=[s.tokens[min(i | 1, len(s.tokens) - 1)] for i in range(len(s.tokens))])
        for s in base.streams
    ]
    verdict = judge(replace(base, streams=tuple(streams)))
    assert verdict.name == UNKNOWN and "buffered" in verdict.evidence[0], verdict


@pytest.mark.parametrize(
    ("line", "rows"),
    [
        ('vllm:num_requests_running{model_name="a}b",engine="0"} 2.0 1700000000.1', {"running": 2.0}),
        ('vllm:num_requests_running{model_name="a\\"} 9"} 2.0', {"running": 2.0}),
        ("vllm:num_requests_running{} 2", {"running": 2.0}),
        ('vllm:num_preemptions_total 3.0 # {trace_id="a"} 1.0', {"preemptions": 3.0}),
        (
            "llamacpp:prompt_tokens_total 55\nllamacpp:tokens_predicted_total 1.2e+06",
            {"prompt_tokens": 55.0, "output_tokens": 1_200_000.0},
        ),
        ("vllm:num_requests_running NaN", {}),
        ('vllm:num_requests_running{engine="0" 2', {}),
        ("vllm:num_requests_running{" + 'x="b",' * 50_000, {}),
        ("vllm:num_requests_running" + " " * 300_000, {}),
        ("vllm:num_requests_running{" + "a" * 300_000 + "} 2", {"running": 2.0}),
        ('  vllm:num_requests_running\t{engine="0"}\t2', {"running": 2.0}),
        ('vllm:num_requests_running{model_name="a\u2028b"} 2\r', {"running": 2.0}),
        ("vllm:num_requests_running 1_000", {}),
        (
            'vllm_num_requests_running 2\nvllm_num_preemptions_total 3 # {a="b"} 1',
            {"running": 2.0, "preemptions": 3.0},
        ),
        ("vllm:num_preemptions_total -3", {}),
        # of several engines one does not tell: the sum of the others is not theirs all
        ('vllm:num_requests_running{engine="0"} 2\nvllm:num_requests_running{engine="1"} NaN', {}),
        # each rank of an engine tells of the same requests
        (
            'sglang:num_running_reqs{tp_rank="0",dp_rank="0"} 4\nsglang:num_running_reqs{tp_rank="1",dp_rank="0"} 4'
            '\nsglang:num_running_reqs{tp_rank="0",dp_rank="1"} 3',
            {"running": 7.0},
        ),
        # SGLang keeps the last batch's retractions under one name, and counts them all under another
        (
            "sglang:num_retracted_reqs 1\nsglang:num_retracted_requests_total 48",
            {"preemptions": 48.0},
        ),
        ("sglang:num_retracted_reqs 1", {}),
    ],
)
def test_metrics_in_any_legal_writing(line, rows):
    assert prometheus.rows(f"# TYPE x gauge\n{line}\n# EOF\n") == rows


def test_metrics_of_several_models_are_those_of_the_one_that_was_asked():
    page = 'vllm:num_preemptions_total{model_name="a"} 2\nvllm:num_preemptions_total{model_name="b"} 30\n'
    page += 'vllm:num_requests_running{model_name="a"} 1\nvllm:num_requests_waiting 5\n'
    assert prometheus.rows(page, "b") == {"running": 1.0, "waiting": 5.0, "preemptions": 30.0}
    assert prometheus.rows(page, "an alias") == {"running": 1.0, "waiting": 5.0}
    assert prometheus.rows(page)["preemptions"] == 32.0
    odd = r'vllm:num_preemptions_total{model_name="a\\b\"c\nd"} 7'
    assert prometheus.rows(page + odd, 'a\\b"c\nd')["preemptions"] == 7.0


@pytest.mark.parametrize(
    ("page", "engine"),
    [
        ("vllm:x 1", "vLLM"),
        ("# HELP\nsglang_x 1", "SGLang"),
        ("\n llamacpp:x{} 1", "llama.cpp"),
        ("vllmx 1\n# vllm:x\nmy_vllm:x 1", ""),
    ],
)
def test_an_engine_is_known_by_its_series(page, engine):
    assert prometheus.engine(page) == engine
