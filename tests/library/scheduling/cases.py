"""Random workloads, pools and policies, and an audit of a trace that owes nothing to the loop."""

from __future__ import annotations

from collections import Counter

from hypothesis import strategies as st

import chunkprefill as cp

ORDERS = ("arrival", "shortest", "priority", "hrrn")
small = st.integers(1, 40)


@st.composite
def workloads(draw, most=10):
    """Requests in any order of arrival, with names of both kinds."""
    n = draw(st.integers(1, most))
    names = draw(st.permutations([*range(n)] if draw(st.booleans()) else [f"r{i}" for i in range(n)]))
    when = st.one_of(st.just(0.0), st.floats(0, 30, allow_nan=False), st.integers(0, 30).map(float))
    return [
        cp.Request(rid, draw(when), draw(small), draw(st.integers(1, 12)), None, draw(st.integers(-2, 2)))
        for rid in names
    ]


def need(requests, size):
    """Blocks of the largest request."""
    return max(-(-(r.n_prompt + r.n_output - 1) // size) for r in requests)


@st.composite
def pools(draw, requests):
    """None, or just enough for the largest request and a little more."""
    if draw(st.integers(0, 3)) == 0:
        return None
    size = draw(st.sampled_from((1, 2, 4, 16)))
    return cp.BlockPool(need(requests, size) + draw(st.sampled_from((0, 0, 1, 3, 10))), size)


policies = st.one_of(
    st.builds(cp.RequestLevel, st.integers(1, 5)),
    st.builds(cp.PrefillFirst, st.integers(1, 64), st.one_of(st.none(), st.integers(1, 20)), st.booleans()),
    st.builds(cp.Alternate, st.integers(1, 20), st.integers(1, 3), st.integers(1, 3)),
    st.builds(cp.SerialChunks, st.integers(1, 20)),
    st.builds(cp.ChunkedPrefill, st.integers(1, 32), st.integers(1, 6), st.sampled_from(ORDERS)),
    st.builds(
        cp.ChunkedPrefill,
        st.sampled_from((None, 8, 32)),
        st.integers(1, 6),
        st.just("shortest"),
        prefill_cap=st.integers(1, 12),
        aging=st.sampled_from((0.0, 0.5, 20.0)),
    ),
    st.integers(1, 16).flatmap(
        lambda small: st.builds(cp.PrefillAware, st.just(small), st.integers(small, 40), st.integers(1, 6))
    ),
    st.builds(
        cp.VllmV1,
        max_num_batched_tokens=st.integers(1, 64),
        max_num_seqs=st.integers(1, 6),
        long_prefill_token_threshold=st.sampled_from((0, 0, 1, 5, 30)),
        policy=st.sampled_from(("fcfs", "priority")),
        enable_chunked_prefill=st.just(True),
        max_model_len=st.sampled_from((None, 60, 45)),
        scheduler_reserve_full_isl=st.booleans(),
        watermark=st.sampled_from((0.0, 0.1, 0.5)),
    ),
    st.builds(  # what may not be cut must fit; outputs may still outgrow the budget
        cp.VllmV1,
        max_num_batched_tokens=st.integers(40, 44),
        max_num_seqs=st.integers(1, 6),
        long_prefill_token_threshold=st.sampled_from((0, 7)),
        policy=st.sampled_from(("fcfs", "priority")),
        enable_chunked_prefill=st.just(False),
        scheduler_reserve_full_isl=st.booleans(),
    ),
)


@st.composite
def runs(draw, most=10):
    """(requests, policy, pool, overlap)."""
    requests = draw(workloads(most))
    return requests, draw(policies), draw(pools(requests)), draw(st.booleans())


def cost(batch):
    """A price with a part a step, a token and a context, exact in binary."""
    t = batch.totals()
    return 0.25 + t.n_tokens / 64 + t.context / 1024


def n_outputs(request, policy):
    """Tokens that a request may emit."""
    limit = getattr(policy, "max_model_len", None)
    return request.n_output if limit is None else min(request.n_output, limit - request.n_prompt)


def audit(trace, policy, pool, *, overlap=False, measured=False):
    """Replay a trace from its requests alone; every rule of the loop, said a second time.

    measured: whether a pass had landed before the next step was scheduled, times do not tell. A loop that was
    slow to look lands a pass after it has ended, and a fast one before; so both are allowed.
    """
    by_rid = {r.rid: r for r in trace.requests}
    cached, known, emitted, finished = Counter(), {r.rid: r.n_prompt for r in trace.requests}, Counter(), {}
    size = 16 if pool is None else pool.block_size
    previous, leaving = None, []
    for i, step in enumerate(trace.steps):
        on_its_way = overlap and (measured or (previous is not None and step.scheduled < previous.end))
        if leaving and not on_its_way:  # their last tokens have landed
            for rid in leaving:
                cached[rid] = 0
            leaving = []
        assert step.scheduled <= step.dispatched <= step.start <= step.end, (i, step)
        if previous:
            assert step.start >= previous.end
            assert step.scheduled >= (previous.start if overlap else previous.end)
        for rid in step.batch.preempted:
            assert cached[rid] > 0, f"step {i} evicts {rid}, which holds nothing"
            cached[rid] = 0
        assert len(set(step.batch.rid)) == len(step.batch.rid)
        assert len(step.batch) > 0 or (overlap and step.batch.preempted and isinstance(policy, cp.VllmV1))
        for chunk in step.batch.chunks:
            rid = chunk.rid
            assert by_rid[rid].arrival <= step.scheduled, f"step {i} runs {rid} before it has arrived"
            assert rid not in finished and rid not in step.batch.preempted
            assert chunk.start == cached[rid] and 1 <= chunk.length <= known[rid] - chunk.start
            cached[rid] = chunk.end
            assert chunk.emits == (chunk.end == known[rid])
        held = {rid: -(-n // size) for rid, n in cached.items() if n}
        left = sum(held.get(rid, 0) for rid in leaving) if overlap and measured else 0
        assert sum(held.values()) - step.blocks_used in {0, left}, f"step {i}"
        assert pool is None or pool.n_blocks is None or step.blocks_used <= pool.n_blocks
        for chunk in step.batch.chunks:
            if chunk.emits:
                known[chunk.rid] += 1
                emitted[chunk.rid] += 1
                if emitted[chunk.rid] == n_outputs(by_rid[chunk.rid], policy):
                    finished[chunk.rid] = step.end
        for rid in leaving:
            cached[rid] = 0
        leaving = [rid for rid, at in finished.items() if at == step.end and rid in step.batch.rid]
        previous = step
    assert set(finished) == set(by_rid), "not all finished"
    assert all(emitted[rid] == n_outputs(r, policy) for rid, r in by_rid.items())
    return finished
