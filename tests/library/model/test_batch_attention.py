"""A mixed batch over a cache in blocks: every way of reading it gives what each sequence alone would give."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import chunkprefill as cp
from chunkprefill.model import backends, batch_attention, paged, paged_decode_cpu
from chunkprefill.model.attention import reference
from chunkprefill.model.backends import backend_for, why_not_varlen
from tests.library.model.equality import DEVICES, TOLERANCES, assert_same, difference, small_model
from tests.needs import need

CPU = torch.device("cpu")


def flash_like(q: Any, k: Any, v: Any, part: batch_attention.Varlen) -> Any:
    """What the kernel promises, row by row: used[i] keys from first[i] on, or those behind the pages."""
    cu_q, first, used, pages = part.cu_q, part.first, part.used, part.pages
    max_q, max_k = part.max_q, part.max_k
    assert max_q == int((cu_q[1:] - cu_q[:-1]).max()) and max_k == int(used.max())
    assert cu_q.dtype == first.dtype == used.dtype == torch.int32 and len(first) == len(cu_q)
    assert part.window == ((-1, -1) if max_q == 1 else (-1, 0)), (
        "bottom-right causal, or no mask for lone queries"
    )
    out = torch.empty_like(q)
    for i, n in enumerate(used.tolist()):
        rows = slice(int(cu_q[i]), int(cu_q[i + 1]))
        if pages is not None:
            keys, values = (x[pages[i].long()].flatten(0, 1)[:n] for x in (k, v))
        else:
            at = int(first[i])
            keys, values = k[at : at + n], v[at : at + n]
        out[rows] = reference(q[rows], keys, values)
    return out


def mixed(rng: random.Random, n: int, size: int, *, runs: bool) -> tuple[cp.Batch, dict[int, list[int]]]:
    """n chunks (about half of them decoding steps) of sequences whose blocks lie anywhere, or in runs."""
    spans = []
    for _ in range(n):
        start = rng.randrange(0, 3 * size)
        length = 1 if start and rng.random() < 0.5 else rng.randrange(1, 2 * size)
        spans.append((start, length))
    needs = [-(-(start + length) // size) for start, length in spans]
    ids = list(range(sum(needs) + n))
    if not runs:
        rng.shuffle(ids)
    tables: dict[int, list[int]] = {}
    for rid, need_ in enumerate(needs):
        tables[rid], ids = ids[:need_], ids[need_:]
        rng.random() < 0.3 and ids.pop(0)
    emits = [rng.random() < 0.7 for _ in spans]
    columns = [list(range(n)), [s for s, _ in spans], [length for _, length in spans], emits]
    return cp.Batch(*columns), tables


def cache_of(
    size: int,
    backend: str | None,
    *,
    dtype: torch.dtype = torch.float64,
    device: str = "cpu",
    walks: bool | None = None,
    head_dim: int = 8,
) -> cp.PagedKVCache:
    """A cache in blocks of `size`, read by this backend even where the real one would not be chosen."""
    config = small_model(head_dim=head_dim).config
    pool = cp.BlockPool(None, size)
    cache = cp.PagedKVCache(config, pool, dtype=dtype, device=device, backend=backend and "sdpa")
    cache.backend = backend or cache.backend
    cache.walks = cache.walks if walks is None else walks
    return cache


def check(batch: cp.Batch, tables: dict[int, list[int]], cache: cp.PagedKVCache) -> paged.PagedWindow:
    """Attend through a window and, apart, sequence by sequence; both the rows and what is stored agree."""
    config, dtype, device = cache.config, cache.keys.dtype, cache.keys.device
    n_blocks = 1 + max(max(table) for table in tables.values())
    cache.reserve(n_blocks)
    g = torch.Generator(device=device).manual_seed(3)
    cache.keys.normal_(generator=g)
    cache.values.normal_(generator=g)
    before = [(cache.kv(1, tables[rid], start)) for rid, start in zip(batch.rid, batch.start)]
    rows = sum(batch.length)
    heads = (config.n_heads, config.n_kv_heads, config.n_kv_heads)
    strip = torch.randn(rows, sum(heads), config.head_dim, generator=g, dtype=dtype, device=device)
    q, k, v = strip.split(heads, dim=1)
    window = cache.window(batch, tables)
    out = window.attend(1, q, k, v)
    row = 0
    for (rid, length), (old_k, old_v) in zip(zip(batch.rid, batch.length), before):
        here = slice(row, row + length)
        keys, values = torch.cat([old_k, k[here]]), torch.cat([old_v, v[here]])
        expected = reference(q[here].double(), keys.double(), values.double())
        assert difference([out[here]], [expected]) <= TOLERANCES[dtype]
        now = cache.kv(1, tables[rid], len(keys))
        assert torch.equal(now[0], keys) and torch.equal(now[1], values)
        row += length
    ends = torch.tensor(batch.length).cumsum(0) - 1
    assert window.emit_rows().tolist() == [int(e) for e, emits in zip(ends, batch.emits) if emits]
    return window


cases = st.tuples(st.integers(0, 2**31), st.integers(1, 9), st.sampled_from([1, 4, 16]), st.booleans())


@given(cases)
@settings(max_examples=60, deadline=None)
def test_one_by_one(case: tuple[int, int, int, bool]) -> None:
    seed, n, size, runs = case
    batch, tables = mixed(random.Random(seed), n, size, runs=runs)
    for backend in ("sdpa", "reference"):
        check(batch, tables, cache_of(size, backend, walks=False))


@pytest.mark.parametrize("names", [{"seqused_k", "block_table"}, {"seqused_k"}, {"window_size"}])
@given(cases)
@settings(max_examples=60, deadline=None)
def test_varlen_bounds(names: set[str], case: tuple[int, int, int, bool]) -> None:
    """What is told to the kernel is right for each signature that torch has had, pages included."""
    seed, n, size, runs = case
    batch, tables = mixed(random.Random(seed), n, size, runs=runs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_attention, "varlen_parameters", lambda: frozenset(names))
        patch.setattr(batch_attention, "PAGE", 16)
        patch.setattr(batch_attention, "_public", flash_like if "seqused_k" in names else None)
        patch.setattr(batch_attention, "_older", None if "seqused_k" in names else flash_like)
        window = check(batch, tables, cache_of(size, "varlen", walks=False))
    lone = {length == 1 for length in batch.length}
    assert len(window.parts) <= 2 * len(lone), "launches grow with kinds of chunks, not with sequences"
    for _, part in window.parts:
        assert isinstance(part, batch_attention.Varlen)
        copied = part.blocks is not None
        assert not (copied and runs), "a run is read where it is"
        assert not (copied and "block_table" in names and size == 16), "pages need no copy"


def walk_like(q: Any, keys: Any, values: Any, tables: Any, ends: Any, *, n_splits: int) -> Any:
    """What our own kernel promises, and that what it is given is what it takes."""
    assert tables.dtype == ends.dtype == torch.int32 and len(tables) == len(ends) == len(q)
    assert n_splits in (1, 2, 4, 8, 16)
    rows = [
        reference(
            q[i : i + 1],
            *(
                batch_attention.read(x, tables[i, : -(-n // keys.shape[1])].long())[:n]
                for x in (keys, values)
            ),
        )
        for i, n in enumerate(ends.tolist())
    ]
    return torch.cat(rows)


@given(cases)
@settings(max_examples=60, deadline=None)
def test_decodes_that_walk_their_tables(case: tuple[int, int, int, bool]) -> None:
    seed, n, size, runs = case
    batch, tables = mixed(random.Random(seed), n, size, runs=runs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_attention, "_kernel", lambda device: walk_like)
        patch.setattr(batch_attention, "varlen_parameters", frozenset)
        patch.setattr(batch_attention, "_older", flash_like)
        window = check(batch, tables, cache_of(size, "varlen", walks=True))
    lone = [isinstance(part, batch_attention.Walked) for _, part in window.parts].count(True)
    assert lone == (1 in batch.length) and len(window.parts) <= lone + 2


@given(cases, st.sampled_from([8, 64, 128]), st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
@settings(max_examples=60, deadline=None)
def test_decodes_that_walk_their_tables_on_a_cpu(case: Any, head_dim: int, dtype: torch.dtype) -> None:
    """The compiled kernel, in each type it takes, at constant head sizes and others, on tables anywhere."""
    need("a C compiler", paged_decode_cpu.kernel(dtype), "apt-get install gcc")
    seed, n, size, runs = case
    batch, tables = mixed(random.Random(seed), n, size, runs=runs)
    window = check(batch, tables, cache_of(size, None, dtype=dtype, head_dim=head_dim))
    lone = [part for _, part in window.parts if isinstance(part, batch_attention.Walked)]
    assert len(lone) == (1 in batch.length), "one call for all decoding steps"


def test_long_sequences_walk_their_tables_on_a_cpu() -> None:
    """Scores far apart, sequences of one position and of thousands, more threads than sequences."""
    need("a C compiler", paged_decode_cpu.kernel(torch.float32), "apt-get install gcc")
    keys, values = torch.randn(2, 300, 16, 3, 64).unbind()
    chunks = [
        batch_attention.StripChunk(0, 4500, 4501, list(range(282))),
        batch_attention.StripChunk(1, 0, 1, [299]),
    ]
    q = 40 * torch.randn(2, 9, 64)
    out = batch_attention.Walked.of(chunks, 3, CPU)(q, keys, values)
    for chunk in chunks:
        k, v = (
            batch_attention.read(x, torch.tensor(chunk.table))[: chunk.end].double() for x in (keys, values)
        )
        assert difference([out[chunk.row][None]], [reference(q[chunk.row][None].double(), k, v)]) <= 2e-5


def test_without_a_compiler_decodes_run_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paged_decode_cpu, "kernel", lambda dtype: None)
    batch, tables = mixed(random.Random(1), 9, 4, runs=False)
    window = check(batch, tables, cache_of(4, None))
    assert all(isinstance(part, batch_attention.Alone) for _, part in window.parts)


@given(st.integers(1, 5000), st.integers(1, 200_000))
def test_long_keys_are_split_until_the_device_is_full(n_programs: int, longest: int) -> None:
    n = batch_attention.splits_for(n_programs, longest)
    assert n in (1, 2, 4, 8, 16)
    assert n == 1 or (n_programs * n / 2 < 264 and longest > 128 * n), "no needless split"
    assert n == 16 or n * n_programs >= 264 or longest <= 256 * n, "and each that does"


@given(cases)
@settings(max_examples=60, deadline=None)
def test_padded_decodes(case: tuple[int, int, int, bool]) -> None:
    """One call for all decoding steps of a batch gives what each alone gives, whatever their lengths."""
    seed, n, size, _ = case
    rng = random.Random(seed)
    lengths = [rng.randrange(1, 5 * size) for _ in range(n)]
    ids = list(range(sum(-(-m // size) for m in lengths)))
    rng.shuffle(ids)
    chunks, keys = [], torch.randn(len(ids), size, 2, 8, dtype=torch.float64)
    values = torch.randn_like(keys)
    for row, m in enumerate(lengths):
        table, ids = ids[: -(-m // size)], ids[-(-m // size) :]
        chunks.append(batch_attention.StripChunk(row, m - 1, m, table))
    q = torch.randn(n, 4, 8, dtype=torch.float64)
    out = batch_attention.Padded.of(chunks, size, CPU)(q, keys, values)
    for chunk in chunks:
        blocks = torch.tensor(chunk.table)
        k, v = (batch_attention.read(x, blocks)[: chunk.end] for x in (keys, values))
        expected = reference(q[chunk.row : chunk.row + 1], k, v)
        assert difference([out[chunk.row : chunk.row + 1]], [expected]) <= 1e-12


def test_the_backend_is_chosen_and_refused_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    assert backend_for(None, "cpu", torch.float32) == "sdpa"
    with pytest.raises(ValueError, match="varlen attention cannot run here: it needs a CUDA device"):
        backend_for("varlen", "cpu", torch.float32)
    with pytest.raises(ValueError, match="no attention backend 'flash'"):
        backend_for("flash", "cpu", torch.float32)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (7, 5))
    assert "7.5" in str(why_not_varlen(cuda, torch.float16))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    assert "float32" in str(why_not_varlen(cuda, torch.float32))
    monkeypatch.setattr(backends, "varlen_parameters", frozenset)
    assert "no varlen_attn" in str(why_not_varlen(cuda, torch.bfloat16))
    monkeypatch.setattr(backends, "varlen_parameters", lambda: frozenset({"seqused_k"}))
    assert backend_for(None, cuda, torch.bfloat16) == "varlen"
    assert backend_for("sdpa", cuda, torch.bfloat16) == "sdpa"


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("backend", "walks"), [(None, None), (None, False), ("sdpa", None)])
def test_mixed_batches_on_a_gpu(dtype: torch.dtype, backend: str | None, walks: bool | None) -> None:
    need("cuda", "cuda" in DEVICES, "no CUDA device")
    for seed in range(20):
        batch, tables = mixed(random.Random(seed), 9, 16, runs=seed % 2 == 0)
        check(batch, tables, cache_of(16, backend, dtype=dtype, device="cuda", walks=walks, head_dim=16))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_one_sequence_on_a_gpu(dtype: torch.dtype) -> None:
    need("cuda", "cuda" in DEVICES, "no CUDA device")
    for head_dim in (8, 16, 64):
        model = small_model(dtype=dtype, device="cuda", head_dim=head_dim)
        tokens = [7 * i % 61 for i in range(300)]
        for chunk in (None, 1, 64, [130, 1, 169]):
            assert_same(model, tokens, chunk, backend=None)


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("policy", [cp.ChunkedPrefill(24), cp.PrefillFirst(64)], ids=str)
def test_engine_on_a_gpu_says_what_each_request_alone_says(policy: Any, overlap: bool) -> None:
    """float32, for greedy tokens of two roundings may differ; small pool, so that some are evicted."""
    need("cuda", "cuda" in DEVICES, "no CUDA device")
    model = small_model(dtype=torch.float32, device="cuda")
    requests = [cp.Request(i, 0.0, 5 + 9 * i, 12) for i in range(6)]
    engine = cp.Engine(model, policy, cp.BlockPool(14, 8), overlap=overlap)
    outputs = engine.run(requests).outputs
    from chunkprefill.engine import prompt_of

    for r in requests:
        assert outputs[r.rid] == cp.generate(model, prompt_of(r, model.config.vocab_size), r.n_output)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_graph_plays_back_what_the_pass_computes(dtype: torch.dtype) -> None:
    """Sizes recorded and sizes filled up; what differs in rounding alone may choose among equals."""
    need("cuda", "cuda" in DEVICES, "no CUDA device")
    from chunkprefill.model.graphs import DecodeGraphs

    model = small_model(dtype=dtype, device="cuda", head_dim=16)
    cache = cp.PagedKVCache(model.config, cp.BlockPool(None, 16), dtype=dtype, device="cuda")
    graphs = DecodeGraphs(model, cache)
    rng = random.Random(5)
    with torch.inference_mode():
        for n in (1, 3, 8, 8, 13, 3):
            tables = {rid: [4 * rid, 4 * rid + 1, 4 * rid + 2] for rid in range(n)}
            starts = [rng.randrange(33, 48) for _ in range(n)]
            cache.reserve(4 * n)
            cache.keys.normal_()
            cache.values.normal_()
            batch = cp.Batch(list(range(n)), starts, [1] * n, [True] * n)
            strip = torch.tensor(rng.choices(range(61), k=n), device="cuda")
            played = graphs(strip, cache.window(batch, tables))
            assert played is not None and played.shape == (n,)
            stored = cache.keys.clone()
            logits = model(strip, cache.window(batch, tables))
            assert difference([stored], [cache.keys]) <= TOLERANCES[dtype]
            top, chosen = logits.max(-1).values, logits.gather(-1, played[:, None])[:, 0]
            assert float((top - chosen).max()) <= TOLERANCES[dtype] * float(logits.abs().max())
        mixed_batch = cp.Batch([0, 1], [3, 40], [5, 1], [True, True])
        strip = torch.zeros(6, dtype=torch.long, device="cuda")
        assert graphs(strip, cache.window(mixed_batch, tables)) is None, "a chunk is left to the pass itself"


def test_an_engine_without_the_kernel_refuses_graphs() -> None:
    with pytest.raises(ValueError, match="CUDA graphs need varlen attention on a GPU, with triton"):
        cp.Engine(small_model(), cp.ChunkedPrefill(8), graphs=True)
