"""Traces are read or refused by file and line; generators keep their seeds, rates and shapes."""

from __future__ import annotations

import gzip
import json
import os
import re
import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chunkprefill as cp
from chunkprefill.servers.commands import read_load
from chunkprefill.simulation import workloads
from chunkprefill.simulation.workloads import seconds_of
from tests.needs import need, shared_dir

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


def test_azure(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(HEADER + "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\r\n")
    assert cp.read_azure(path) == [cp.Request(0, 0.0, 374, 44), cp.Request(1, 4.314579, 396, 109)]


def test_mooncake_in_both_forms(tmp_path):
    table, lines = tmp_path / "m.csv", tmp_path / "m.jsonl"
    table.write_text("timestamp_ms,input_length,output_length\n500,6758,500\n3500,7322,490\n")
    rows = [(500, 6758, 500), (3500, 7322, 490)]
    text = [
        json.dumps({"timestamp": t, "input_length": p, "output_length": o, "hash_ids": [1]})
        for t, p, o in rows
    ]
    lines.write_text("\n".join(text) + "\n\n")
    assert (
        cp.read_mooncake(table)
        == cp.read_mooncake(lines)
        == [
            cp.Request(0, 0.0, 6758, 500),
            cp.Request(1, 3.0, 7322, 490),
        ]
    )


def test_what_prompts_share_is_told_by_their_blocks(tmp_path):
    """The first lines of a conversation: its second turn begins as the first one ended."""
    path = tmp_path / "m.jsonl"
    rows = [(0, 1100, [0, 1, 2]), (60_000, 1500, [0, 1, 3]), (120_000, 1024, [0, 1]), (180_000, 500, [9])]
    lines = [{"timestamp": t, "input_length": p, "output_length": 2, "hash_ids": ids} for t, p, ids in rows]
    path.write_text("\n".join(map(json.dumps, lines)))
    told, untold = cp.read_mooncake(path, prefixes=True), cp.read_mooncake(path)
    assert told[0].segments == (("block 0", 512), ("block 1", 512), ("block 2", 76))
    assert [replace(r, segments=None) for r in told] == untold and {r.segments for r in untold} == {None}

    def begins(requests):
        pool, policy = cp.BlockPool(1000, prefix_caching=True), cp.ChunkedPrefill(4096)
        trace = cp.simulate(requests, policy, lambda batch: 0.01, pool)
        return {c.rid: c.start for step in reversed(trace.steps) for c in step.batch}

    # whole blocks of the pool, and never a prompt's last token
    assert begins(told) == {0: 0, 1: 1024, 2: 1008, 3: 0} and set(begins(untold).values()) == {0}


def test_blocks_of_bailian_may_leave_a_rest_that_no_prompt_shares(tmp_path):
    path = tmp_path / "b.jsonl"
    row = {"chat_id": 1, "timestamp": 0.5, "input_length": 37, "output_length": 2}
    lines = [row | {"hash_ids": [7, 8]}, row | {"hash_ids": [7, 8, 9]}, row | {"hash_ids": [7, 8]}]
    path.write_text("\n".join(map(json.dumps, lines)))
    parts = [r.segments for r in cp.read_mooncake(path, prefixes=True)]
    assert parts[1] == (("block 7", 16), ("block 8", 16), ("block 9", 5))
    assert parts[0][:2] == parts[2][:2] == parts[1][:2]
    assert parts[0][2][1] == parts[2][2][1] == 5 and parts[0][2] != parts[2][2]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([1], "hash_ids: 1 of them, and 1100 tokens have 3 blocks of 512"),
        ([1, 2, 3, 4], "hash_ids: 4 of them"),
        ("abc", "hash_ids: 'abc', and 1100"),
        ([1, 2, "x"], "'x' is no whole number"),
        ([1, 2, True], "True is no whole number"),
        (None, "hash_ids: None"),
        (..., "no 'hash_ids'"),
    ],
)
def test_blocks_that_are_not_those_of_the_prompt_are_refused(tmp_path, ids, message):
    path = tmp_path / "m.jsonl"
    row = {"timestamp": 0, "input_length": 1100, "output_length": 2, "hash_ids": ids}
    path.write_text(json.dumps({key: value for key, value in row.items() if value is not ...}))
    assert len(cp.read_mooncake(path)) == 1
    with pytest.raises(ValueError, match=rf"m\.jsonl:1: {re.escape(message)}"):
        cp.read_mooncake(path, prefixes=True)
    path.write_text("timestamp_ms,input_length,output_length\n0,1100,2\n")
    with pytest.raises(ValueError, match=r"m\.jsonl:2: no 'hash_ids'"):
        cp.read_mooncake(path, prefixes=True)


def test_lines_of_bailian_count_seconds_under_the_same_keys(tmp_path):
    path = tmp_path / "b.jsonl"
    rows = [{"chat_id": 159, "parent_chat_id": -1, "timestamp": t, "turn": 1} for t in (61.114, 62.9)]
    lengths = {"input_length": 521, "output_length": 132}
    path.write_text("\n".join(json.dumps(row | lengths) for row in rows))
    assert [r.arrival for r in cp.read_mooncake(path)] == [0.0, 1.786]
    path.write_text("\n".join(json.dumps({"timestamp_ms": r["timestamp"]} | lengths) for r in rows))
    assert [r.arrival for r in cp.read_mooncake(path)] == [0.0, 0.001786]


GOOD = "2023-11-16 18:15:46.6,374,44"


@pytest.mark.parametrize(
    "row",
    [
        "2023-11-16 18:15:46.6,374",
        "x,374,44",
        "2023-11-16 18:15:46.6,-3,44",
        "2023-11-16 18:15:46.6,374,0",
        "2023-11-16 18:15:46.6,3.5,44",
        "2023-11-16 18:15:46.6,,44",
        "2023-11-16 18:15:46.6,374,44,9",
        "",
        "2023-11-16 18:15:46.x,374,44",
        "\x00,1,1",
    ],
)
def test_a_malformed_row_is_refused_with_file_and_line(tmp_path, row):
    path = tmp_path / "a.csv"
    path.write_text(f"{HEADER}{GOOD}\n{row}\n{GOOD}\n")
    with pytest.raises(ValueError, match=r"a\.csv:3: "):
        cp.read_azure(path)


SAME = "2023-11-16 18:15:47,5,6\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEADER[:-1]},ContextTokens\n{SAME[:-1]},7\n", ":1: column ContextTokens is there twice"),
        (HEADER + "1711011200123,5,6\n", ":2: '1711011200123' is no time"),  # or year 1711, and so on
        (HEADER + "20231116T181547,5,6\n", ":2: '20231116T181547' is no time"),
        (HEADER + "2023-11-16 18:15.5,5,6\n", ":2: '2023-11-16 18:15.5' is no time"),
        (HEADER + "2023-11-16 18.5,5,6\n", ":2: '2023-11-16 18.5' is no time"),
        (HEADER + '"2023-11-16 18:15:46,5",5,6\n', ":2: '2023-11-16 18:15:46,5' is no time"),
        (HEADER + "2023-11-16 18:15:47+01:00,5,6\n" + SAME, ":3: one of .*47.01:00' and .*:47' has a zone"),
        (HEADER + SAME.replace("5,6", "1_0,6"), ":2: '1_0' is no whole number"),
        (HEADER + SAME.replace("5,6", "\u0661,6"), ":2: '\u0661' is no whole number"),
    ],
)
def test_what_would_be_read_as_something_else_is_refused(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.csv" + message):
        cp.read_azure(tmp_path / "a.csv")


@pytest.mark.parametrize("read", [cp.read_azure, cp.read_mooncake])
def test_bytes_that_are_no_text_are_refused_with_file_and_line(tmp_path, read):
    for content in (
        LINE.encode() + b"\n\xe9",
        (HEADER + SAME).encode("utf-16"),
        HEADER.encode() + b"\xe9,1,1",
    ):
        (tmp_path / "m.jsonl").write_bytes(content)
        with pytest.raises(ValueError, match=r"m\.jsonl:[12]: "):
            read(tmp_path / "m.jsonl")


@pytest.mark.parametrize("read", [cp.read_azure, cp.read_mooncake])
def test_a_trace_that_is_compressed_or_a_pointer_is_named(tmp_path, read):
    for content, said in (
        (gzip.compress(HEADER.encode()), "gzip"),
        (b"version https://git-lfs.x", "git-lfs"),
    ):
        (tmp_path / "a.csv").write_bytes(content)
        with pytest.raises(ValueError, match=rf"a\.csv:1: it is .*{said}"):
            read(tmp_path / "a.csv")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name on this system")
def test_a_trace_may_come_through_a_pipe(tmp_path):
    """Nothing of it is looked at before it is read."""
    os.mkfifo(path := tmp_path / "pipe")
    text = f"{HEADER}{GOOD}\n{GOOD}\n"
    writer = threading.Thread(target=lambda: path.write_text(text))
    writer.start()
    assert len(cp.read_azure(path)) == 2
    writer.join(60)
    for read in (cp.read_mooncake, lambda path: read_load(str(path))):
        with pytest.raises(ValueError, match="pipe: no regular file"):
            read(path)


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", HEADER])
def test_a_foreign_or_empty_file_is_refused(tmp_path, text):
    (tmp_path / "a.csv").write_text(text)
    for read in (cp.read_azure, cp.read_mooncake):
        with pytest.raises(ValueError, match=r"a\.csv:1: "):
            read(tmp_path / "a.csv")
    with pytest.raises(ValueError, match=r"none\.csv: cannot be read"):
        cp.read_azure(tmp_path / "none.csv")


LINE = '{"timestamp": 1, "input_length": 3, "output_length": 4}'


@pytest.mark.parametrize(
    "line",
    [
        "{",
        '{"timestamp": 1}',
        LINE.replace("3", "0"),
        LINE.replace("3", "2.5"),
        LINE.replace("3", "null"),
        LINE.replace(": 1,", ": NaN,"),
        "[1, 2]",
        "7",
        LINE.replace("3", "true"),
        LINE.replace(": 1,", ": true,"),
        LINE.replace(": 1,", ': "1_0",'),
        LINE.replace(": 1,", ": -Infinity,"),
        LINE.replace(": 3,", ": 3, " + '"input_length": 5,'),
        LINE.replace(": 3,", ": 3, " + '"timestamp_ms": 5,'),
        LINE.replace(": 1,", ": 0.5,"),  # whole milliseconds, or seconds
        LINE.replace(": 1,", ": 1700000000000000,"),  # microseconds since 1970
        LINE.replace(": 1,", ": 1700000000000000000,"),
        LINE.replace(": 3,", ": 3, " + '"chat_id": 5,'),  # Bailian's, beside one of Mooncake's
    ],
)
def test_a_malformed_line_is_refused_with_file_and_line(tmp_path, line):
    path = tmp_path / "m.jsonl"
    path.write_text(f"{LINE}\n{line}\n")
    with pytest.raises(ValueError, match=r"m\.jsonl:2: "):
        cp.read_mooncake(path)


@pytest.mark.parametrize("key", ["timestamp", "timestamp_ms"])
def test_a_date_in_seconds_is_no_count_of_milliseconds(tmp_path, key):
    path = tmp_path / "m.jsonl"
    path.write_text(
        "\n".join(LINE.replace('"timestamp": 1', f'"{key}": {t}') for t in (1700000050, 1700000000))
    )
    with pytest.raises(
        ValueError, match=r"m\.jsonl:2: the first request comes at 1700000000: as millisec.* 20 days"
    ):
        cp.read_mooncake(path)
    path.write_text("\n".join(LINE.replace('"timestamp": 1', f'"{key}": {t}') for t in (1700000050, 0)))
    assert [r.arrival for r in cp.read_mooncake(path)] == [1700000.05, 0.0]


def test_empty_rows_at_the_end_are_none(tmp_path):
    path = tmp_path / "a.csv"
    for end in ("\n", "\n\n", "  \n", ",,\n , ,\n\n", ""):
        path.write_text(f"{HEADER}{GOOD}\n{GOOD}\n{end}")
        assert len(cp.read_azure(path)) == 2
    path.write_text(f"{HEADER}{GOOD}\n\n\n{GOOD}\n")
    with pytest.raises(ValueError, match=r"a\.csv:3: an empty row"):
        cp.read_azure(path)
    path.write_text(f"{HEADER}\n\n")
    with pytest.raises(ValueError, match=r"a\.csv:1: no requests"):
        cp.read_azure(path)


def test_what_may_stand_before_the_first_line(tmp_path):
    path = tmp_path / "m.jsonl"
    for before in ("\ufeff", "\n", "  ", "\ufeff\r\n"):
        path.write_text(before + LINE + "\n", encoding="utf-8")
        assert cp.read_mooncake(path) == [cp.Request(0, 0.0, 3, 4)]


def test_the_shared_traces():
    shared = shared_dir()
    need("shared", shared, "the recorded traces")
    conversation = cp.read_azure(shared / "traces" / "AzureLLMInferenceTrace_conv.csv")
    assert len(conversation) == 19_366 and 3_500 < conversation[-1].arrival < 3_504
    for what, published in zip(("n_prompt", "n_output"), workloads.CONVERSATION):
        found = np.quantile([getattr(r, what) for r in conversation], workloads.AZURE_QUANTILES)
        assert np.allclose(found, published, rtol=0.01, atol=1), what
    code = cp.read_azure(shared / "traces" / "AzureLLMInferenceTrace_code.csv")
    for what, published in zip(("n_prompt", "n_output"), workloads.CODE):
        found = np.quantile([getattr(r, what) for r in code], workloads.AZURE_QUANTILES)
        assert np.allclose(found, published, rtol=0.01, atol=1), what
    for name in ("conversation", "synthetic"):
        assert len(cp.read_mooncake(shared / "traces" / f"mooncake_{name}_lengths.csv")) > 1000


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 99), st.floats(0.1, 50))
def test_generators_keep_seed_and_rate(seed, rate):
    for make in (cp.poisson, cp.bursty, cp.conversation, cp.code):
        requests = make(400, rate, seed=seed)
        assert requests == make(400, rate, seed=seed) != make(400, rate, seed=seed + 1)
        arrivals = [r.arrival for r in requests]
        assert arrivals == sorted(arrivals) and [r.rid for r in requests] == list(range(400))
    assert 400 / cp.poisson(400, rate, seed=seed)[-1].arrival == pytest.approx(rate, rel=0.3)


def test_published_shapes_come_back():
    for make, (prompts, outputs) in ((cp.conversation, workloads.CONVERSATION), (cp.code, workloads.CODE)):
        requests = make(20_000, seed=1)
        for lengths, published in (
            ([r.n_prompt for r in requests], prompts),
            ([r.n_output for r in requests], outputs),
        ):
            for q, expected in list(zip(workloads.AZURE_QUANTILES, published))[1:-1]:
                assert np.quantile(lengths, q) == pytest.approx(expected, rel=0.08, abs=2)
            assert published[0] <= min(lengths) and max(lengths) <= published[-1]
    rank = [
        np.argsort(np.argsort([getattr(r, n) for r in cp.conversation(20_000)]))
        for n in ("n_prompt", "n_output")
    ]
    assert np.corrcoef(rank)[0, 1] == pytest.approx(0.07, abs=0.03)


def test_bursts_come_together():
    gaps = np.diff([r.arrival for r in cp.bursty(20_000, 5.0, burst=8, seed=2)])
    assert np.mean(gaps == 0) == pytest.approx(1 - 1 / 8, abs=0.02)
    assert np.mean(gaps) == pytest.approx(1 / 5, rel=0.1)


def test_documents_and_chats():
    requests = cp.documents_and_chats(n_documents=2, n_chats=3, n_late=4, document=999, at=2.0, window=0.5)
    assert [r.rid for r in requests] == [
        *("chat0", "chat1", "chat2", "doc0", "doc1"),
        *(f"late{i}" for i in range(4)),
    ]
    assert all(r.n_prompt == 999 and r.priority == 1 and r.arrival == 2.0 for r in requests[3:5])
    assert all(2 <= r.arrival <= 2.5 and r.priority == 0 for r in requests[5:])


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: cp.poisson(0, 1.0), "n must be"),
        (lambda: cp.poisson(3, 0.0), "rate, in requests/s, must be"),
        (lambda: cp.poisson(3, 1.0, prompt=0), "prompt must be"),
        (lambda: cp.bursty(3, 1.0, burst=0), "burst must be"),
        (lambda: cp.poisson(3, 1.0, output=(5, 4)), "output must be"),
        (lambda: cp.code(2.5), "n must be"),
    ],
)
def test_arguments_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("zone", ["+00:00", "Z", " +0000", "+00"])
def test_a_stamp_may_have_a_zone(tmp_path, zone):
    assert seconds_of(f"2000-01-01 00:00:01.5000000{zone}") == 1.5
    assert seconds_of(f"2000-01-01T00:00:02{zone}") == 2.0
    path = tmp_path / "azure.csv"
    head = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    path.write_text(f"{head}2023-11-16 18:01:51.25{zone},5,5\n2023-11-16 20:01:52.75+02:00,5,5\n")
    assert [r.arrival for r in cp.read_azure(path)] == [0.0, 1.5]


@pytest.mark.parametrize(
    "stamp", ["2000-01-01 00:00:01+99:00", "2000-01-01 00:00:01+05:30:15", "00:01Z", "x+00:00"]
)
def test_a_zone_that_is_none_is_refused(stamp):
    with pytest.raises(ValueError):
        seconds_of(stamp)
    assert seconds_of("2000-01-02") == 86400.0
    assert seconds_of("2000-01-01 05:30:00+05:30") == 0.0 == seconds_of("1999-12-31 22:00-02:00")
