"""Figures that others published, or that arithmetic gives, come out of the simulator with their values."""

from __future__ import annotations

import numpy as np
import pytest

import chunkprefill as cp

KV_BYTES = 128 * 1024  # a token of Llama-3.1-8B: 2 x 32 layers x 8 heads x 128 x 2 bytes


def test_two_prompts_of_a_second_each_together_and_one_after_the_other():
    """Mean TTFT 2.0 s together, 1.5 s in turn."""
    requests = [cp.Request(i, 0.0, 1000, 1) for i in range(2)]

    def seconds(batch):
        return sum(batch.length) / 1000

    together = cp.simulate(requests, cp.SerialChunks(1000), seconds)
    in_turn = cp.simulate(requests, cp.ChunkedPrefill(1000), seconds)
    assert cp.ttft(together).mean() == 2.0 and cp.ttft(in_turn).mean() == 1.5


def test_two_long_prompts_on_a_small_memory_need_the_full_length_gate():
    """2 x (120,000 + 1,000) tokens at 128 KiB are 29.54 GiB; on 26 GiB they evict each other without it."""
    assert cp.MODELS["llama-3.1-8b"].kv_bytes(1) == KV_BYTES
    requests = [cp.Request(i, 0.0, 120_000, 1000) for i in range(2)]
    assert sum(r.n_prompt + r.n_output for r in requests) * KV_BYTES / 2**30 == pytest.approx(
        29.54, abs=0.005
    )
    pool = cp.BlockPool(int(26 * 2**30 / KV_BYTES / 16))
    traces = [
        cp.simulate(requests, cp.VllmV1(8192, scheduler_reserve_full_isl=gate), cp.Roofline(), pool)
        for gate in (True, False)
    ]
    evictions = [sum(map(len, trace.preempted.values())) for trace in traces]
    durations = [trace.steps[-1].end for trace in traces]
    assert evictions[0] == 0 and evictions[1] > 50
    assert durations[1] > 5 * durations[0]


def test_priority_changes_nothing_while_there_are_seats():
    """An urgent request beside 30 others: as long as first come, first served."""
    others = [cp.Request(i, 0.0, 200, 100, None, 5) for i in range(30)]
    urgent = cp.Request("urgent", 1.0, 200, 100, None, 0)
    took = [
        cp.latency(cp.simulate([*others, urgent], cp.VllmV1(2048, policy=policy)))[-1]
        for policy in ("fcfs", "priority")
    ]
    assert took[0] == took[1]


@pytest.mark.parametrize(("budget", "gap"), [(8192, 3.41), (1200, 0.5)])
def test_a_decode_beside_two_cold_prompts_has_a_token_a_budget(budget, gap):
    """2,400 tokens a second, two prompts of 72k: every 3.41 s at a budget of 8192, every 0.5 s at 1,200."""
    requests = [cp.Request("chat", 0.0, 1, 400), *(cp.Request(i, 0.01, 72_000, 1) for i in range(2))]
    trace = cp.simulate(requests, cp.ChunkedPrefill(budget), lambda batch: sum(batch.length) / 2400)
    gaps = cp.tbt(trace)
    full = gaps[gaps > 0.9 * gap]
    assert len(full) == 144_000 // (budget - 1) and np.allclose(full, gap, atol=0.01)


def test_prefilling_first_in_chunks_silences_a_decode_over_twenty_times_as_long_as_in_turn():
    """Published: 11,152 ms in chunks of 2048 with prefilling first, 522 ms with one and one in turn."""
    chat = cp.Request("chat", 0.0, 64, 60)
    documents = [cp.Request(i, 0.2 + 0.01 * i, 16_384, 1) for i in range(4)]
    gaps = {
        policy: cp.largest_tbt(cp.simulate([chat, *documents], policy))[0]
        for policy in (cp.PrefillFirst(2048, chunk=2048), cp.Alternate(2048, prefills=1, decodes=1))
    }
    first, in_turn = gaps.values()
    assert first > 20 * in_turn and first / in_turn == pytest.approx(11_152 / 522, rel=0.6)
