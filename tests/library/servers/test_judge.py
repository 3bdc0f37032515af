"""Verdicts on simulated servers: right, or unknown, and never wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chunkprefill as cp
from chunkprefill.servers.judge import UNKNOWN, VERDICTS, StepTokens, judge
from chunkprefill.servers.record import ProbeRecord
from chunkprefill.servers.stream import Stream
from tests.library.servers.seen import World, probe_of
from tests.library.servers.standin import linear

COST = linear(0.006, 0.00006)
FIRST, ARRIVAL, PASS = "prompts first", "stall-free by arrival", "newcomers pass"
POLICIES = {
    "prompts first": (cp.PrefillFirst(4096), FIRST),
    "prompts first, in chunks": (cp.PrefillFirst(2048, chunk=512), FIRST),
    "whole, mixed": (cp.PrefillFirst(4200, mixed=True), FIRST),
    "a budget above the document": (cp.ChunkedPrefill(8192), FIRST),
    "chunks off": (cp.VllmV1(8192, enable_chunked_prefill=False), FIRST),
    "1000": (cp.ChunkedPrefill(1000), ARRIVAL),
    "2048, a document of two steps": (cp.ChunkedPrefill(2048), UNKNOWN),
    "512": (cp.ChunkedPrefill(512), ARRIVAL),
    "64": (cp.ChunkedPrefill(64), ARRIVAL),
    "vLLM 256": (cp.VllmV1(256), ARRIVAL),
    "in turn": (cp.Alternate(512), ARRIVAL),
    "shortest": (cp.ChunkedPrefill(512, order="shortest"), PASS),
    "the textbook's": (cp.SerialChunks(512), PASS),
    "vLLM with a threshold": (cp.VllmV1(256, long_prefill_token_threshold=128), PASS),
    "request by request": (cp.RequestLevel(8), UNKNOWN),
    "no seat": (cp.ChunkedPrefill(512, max_seqs=4), UNKNOWN),
}


@pytest.mark.parametrize("name", POLICIES)
def test_each_policy_is_named_rightly(name):
    policy, verdict = POLICIES[name]
    found = judge(probe_of(World(policy, COST)))
    assert found.name == verdict, found
    assert found.evidence and found.unseen and found.name in VERDICTS
    assert bool(found.change) == found.known


@pytest.mark.parametrize(
    ("policy", "document", "why"),
    [
        (cp.SerialChunks(1629), 2677, "fewer than 4 steps to go"),
        (cp.ChunkedPrefill(1579, order="shortest"), 2729, "fewer than 4 steps to go"),
        (cp.ChunkedPrefill(175, 4), 5395, "the document's seat"),
        (cp.ChunkedPrefill(844, 4, "shortest"), 5665, "the document's seat"),
    ],
    ids=str,
)
def test_a_newcomer_that_could_not_pass_tells_nothing(policy, document, why):
    """Too few steps left, or no seat: servers that let newcomers pass look then like those that do not."""
    found = judge(probe_of(World(policy, linear(0.01, 0.0002)), document=document))
    assert found.name == UNKNOWN and why in found.evidence[0], found


@pytest.mark.parametrize(
    ("budget", "document"), [(64, 4096), (200, 4096), (512, 4096), (1000, 8192), (2048, 8192)]
)
def test_tokens_a_step_hold_the_budget(budget, document):
    found = judge(probe_of(World(cp.ChunkedPrefill(budget), COST), document=document))
    assert found.step and found.step.low <= budget <= found.step.high, found
    assert found.step.likely == pytest.approx(budget, rel=0.2)


def test_a_threshold_is_the_chunk_that_is_told():
    found = judge(probe_of(World(cp.VllmV1(256, long_prefill_token_threshold=128), COST)))
    assert found.step and found.step.likely == pytest.approx(128, rel=0.1)


def test_prompts_that_go_first_in_pieces_have_no_step_that_could_be_told():
    assert judge(probe_of(World(cp.PrefillFirst(2048, chunk=512), COST))).step is None
    whole = judge(probe_of(World(cp.ChunkedPrefill(8192), COST)))
    assert str(whole.step) == "at least 4,099 tokens a step"


#: What may be said of a family, besides "unknown".
FAMILIES = {
    "prefill-first": (st.builds(cp.PrefillFirst, st.integers(256, 8192)), {FIRST}),
    "in chunks": (
        st.builds(cp.PrefillFirst, st.just(8192), st.integers(64, 2048)),
        {FIRST},
    ),
    "arrival": (st.builds(cp.ChunkedPrefill, st.integers(48, 1800)), {ARRIVAL}),
    "alternate": (st.builds(cp.Alternate, st.integers(48, 1800)), {ARRIVAL}),
    "shortest": (
        st.builds(cp.ChunkedPrefill, st.integers(96, 1800), order=st.just("shortest")),
        {PASS},
    ),
    "serial": (st.builds(cp.SerialChunks, st.integers(48, 1800)), {PASS}),
    "request level": (st.builds(cp.RequestLevel, st.integers(1, 8)), set()),
    "few seats": (
        st.builds(cp.ChunkedPrefill, st.integers(64, 1800), st.integers(1, 4), order=st.just("shortest")),
        set(),
    ),
    "few seats, by arrival": (
        st.builds(cp.ChunkedPrefill, st.integers(64, 1800), st.integers(1, 4)),
        set(),
    ),
}


@settings(max_examples=12, deadline=None, derandomize=True)
@pytest.mark.parametrize("family", FAMILIES)
@given(data=st.data())
def test_no_verdict_is_wrong_whatever_the_noise(family, data):
    policies, allowed = FAMILIES[family]
    world = World(
        data.draw(policies),
        linear(data.draw(st.floats(0.002, 0.03)), data.draw(st.floats(1e-5, 5e-4))),
        noise=data.draw(st.floats(0, 0.6)),
        delay=data.draw(st.floats(0, 0.004)),
        seed=data.draw(st.integers(0, 99)),
    )
    found = judge(probe_of(world, document=data.draw(st.integers(2500, 6000))))
    assert found.name in allowed | {UNKNOWN}, (world, found)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(64, 1024), st.floats(0, 0.2), st.integers(0, 99))
def test_with_a_little_noise_stall_free_servers_are_named_and_so_is_their_step(budget, noise, seed):
    found = judge(probe_of(World(cp.ChunkedPrefill(budget), linear(0.004, 0.0002), noise=noise, seed=seed)))
    assert found.name == ARRIVAL, found
    assert found.step and found.step.low * 0.9 <= budget <= found.step.high * 1.1, (budget, found)


def probe() -> ProbeRecord:
    return probe_of(World(cp.ChunkedPrefill(512), COST))


def changed(kind: str, **fields) -> ProbeRecord:
    """The probe, with each stream of a kind changed: a field may be a function of the stream."""
    base = probe()
    values = lambda s: {k: v(s) if callable(v) else v for k, v in fields.items()}  # noqa: E731
    streams = tuple(replace(s, **values(s)) if s.kind == kind else s for s in base.streams)
    return replace(base, streams=streams)


def at_once(s: Stream) -> list[float]:
    return [s.tokens[-1] + i * 1e-5 for i in range(len(s.tokens))]


def in_eights(s: Stream) -> list[float]:
    return [s.tokens[i // 8 * 8 + 7] + i * 1e-6 for i in range(len(s.tokens) // 8 * 8)]


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (changed("document", tokens=[], counts=[]), "did not come in time"),
        (changed("document", error="the server closed the stream"), "closed the stream"),
        (changed("late", error="500"), "500"),
        (changed("late", tokens=[], counts=[]), "no late chat was answered"),
        (changed("chat", tokens=at_once), "buffered"),
        (changed("chat", tokens=in_eights, counts=lambda s: [1] * (len(s.tokens) // 8 * 8)), "buffered"),
        (changed("chat", reads=2), "buffered"),
        (replace(probe(), streams=()), "no round"),
    ],
)
def test_what_is_missing_is_said_and_makes_the_verdict_unknown(broken, why):
    found = judge(broken)
    assert found.name == UNKNOWN and why in found.evidence[0], found


def test_rounds_that_contradict_each_other_are_unknown():
    one, other = probe(), probe_of(World(cp.ChunkedPrefill(8192), COST))
    mixed = [s for s in one.streams if s.round != "with, round 2"]
    mixed += [s for s in other.streams if s.round == "with, round 2"]
    found = judge(replace(one, streams=tuple(mixed)))
    assert found.name == UNKNOWN and "one round says" in found.evidence[0]


def test_tokens_held_back_by_the_network_are_no_freeze():
    """All that was due while the document was prefilled comes at once when it is through."""
    base = probe()
    streams = []
    for s in base.streams:
        document = base.of(s.round, "document")
        if s.kind == "chat" and document:
            sent, first = document[0].sent, document[0].tokens[0]
            held = [first if sent < t < first else t for t in s.tokens]
            s = replace(s, tokens=[t + 1e-6 * i for i, t in enumerate(held)])
        streams.append(s)
    found = judge(replace(base, streams=tuple(streams)))
    assert found.name == UNKNOWN and "came at once" in found.evidence[0]


def test_a_document_that_left_no_trace_is_unknown():
    """As on a server that prefills on another machine: the chats' gaps stay as they are."""
    base = probe_of(World(cp.ChunkedPrefill(8), linear(0.006, 1e-8)), document=1000)
    found = judge(base)
    assert found.name == UNKNOWN and "did not grow" in found.evidence[0]


@pytest.mark.parametrize(
    ("low", "high", "likely"),
    [(458, 515, 512), (100, 110, 105), (458, 2100, 1279), (4096, float("inf"), 4096)],
)
def test_the_likely_step(low, high, likely):
    assert StepTokens(low, high).likely == likely


def test_a_stream_without_tokens_has_no_times():
    empty = Stream("a", "chat", "r", 1, 1)
    assert empty.ttft is None and empty.gaps == []


def one_chat_a_round(n_tokens: int) -> ProbeRecord:
    """The last `n_tokens` of each early chat in the rounds with a document."""
    base = probe()
    streams = [
        replace(s, tokens=s.tokens[-n_tokens:], counts=s.counts[-n_tokens:])
        if s.kind == "chat" and s.round != "without"
        else s
        for s in base.streams
    ]
    return replace(base, streams=tuple(streams))


def test_a_record_that_no_probe_left_makes_a_doubt_and_no_error():
    base = probe()
    twice = replace(base, streams=(*base.streams, base.of("with, round 1", "document")[0]))
    no_chats = tuple(s for s in base.streams if s.kind != "chat" or s.round == "without")
    for record, why in (
        (twice, "with, round 1 has 2 documents"),
        (replace(base, streams=no_chats), "has no early chat"),
        (one_chat_a_round(1), "fewer than 2 tokens"),
    ):
        found = judge(record)
        assert found.name == UNKNOWN and why in found.evidence[0], found
