"""Programs of a hostile reader: right up to a size, for one order, or by a rule of their own; and odd but right ones."""

from __future__ import annotations

import collections
import functools
import itertools
import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

import chunkprefill as cp
from chunkprefill_course import exercises
from tests.course.exercises.programs import changed, refused_in_every_check, solved
from tests.proof import draws

SEEDS = draws(range(1), range(2))
PROMPTS = "(*state.running, *state.waiting)"
SHORTEST = "key=lambda seq: seq.pending)"
RANK = "return seq.pending - self.rate * (state.now - seq.arrival)"


def ranked(rank):
    """`Aging` with another rank."""
    return changed("write_aging", (RANK, f"return {rank}"))


def batch_with(table=lambda table, cached, length, size: table, order=lambda batch, tables: batch):
    """`mixed_batch` with another reading of a table, or of the order of requests."""

    def mixed_batch(batch, tables, block_size):
        rows = []
        for name, cached, length in order(batch, tables):
            blocks = table(tables[name], cached, length, block_size)
            slots = [block * block_size + i for block in blocks for i in range(block_size)]
            rows += [(p, slots[p], slots[: p + 1]) for p in range(cached, cached + length)]
        return rows

    return mixed_batch


class SharesEqually:
    """Of several that are equally short, each gets its share."""

    def __init__(self, budget):
        self.budget = budget

    def schedule(self, state):
        tokens = {seq.rid: 1 for seq in state.running if seq.decoding}
        left = self.budget - len(tokens)
        prompts = [seq for seq in (*state.running, *state.waiting) if not seq.decoding]
        prompts.sort(key=lambda seq: seq.pending)
        for pending, group in itertools.groupby(prompts, key=lambda seq: seq.pending):
            equals = list(group)
            share, more = divmod(min(left, pending * len(equals)), len(equals))
            for i, seq in enumerate(equals):
                if n := share + (i < more):
                    tokens[seq.rid] = n
                    left -= n
        return cp.Plan(tokens)


def sixteen_bits(tokens, chunk_size, run):
    narrow = np.array(tokens).astype(np.int16).tolist()
    for start in range(0, len(tokens), chunk_size):
        logits = run(narrow[start : start + chunk_size])
    return logits


def a_thousand(tokens, chunk_size, run):
    for start in range(0, min(len(tokens), 1024), chunk_size):
        logits = run(tokens[start : start + chunk_size])
    return logits


def row_by_row_up_to(n):
    def cache_write(cache, length, new):
        for i in range(min(len(new), n)):
            cache[length + i] = new[i]
        return length + len(new)

    return cache_write


def in_a_ring(cache, length, new):
    for i in range(len(new)):
        cache[(length + i) % 256] = new[i]
    return length + len(new)


def steps_of(seconds, budget, n_decodes, n_prompt):
    starts = range(0, n_prompt, budget - n_decodes)
    return [seconds(min(budget - n_decodes, n_prompt - start), start, n_decodes) for start in starts]


def within(fits):
    def choose_budget(seconds, budgets, n_decodes, n_prompt, bound):
        taken = {budget: steps_of(seconds, budget, n_decodes, n_prompt) for budget in budgets}
        open_ = [budget for budget in budgets if fits(max(taken[budget]), bound)]
        return min(open_ or budgets, key=lambda budget: sum(taken[budget]))

    return choose_budget


def all_but_the_last(seconds, budgets, n_decodes, n_prompt, bound):
    taken = {budget: steps_of(seconds, budget, n_decodes, n_prompt) for budget in budgets}
    return min((b for b in budgets if max(taken[b]) <= bound), key=lambda b: sum(taken[b][:-1]))


class Tires:
    """Leaves one out after forty steps."""

    def __init__(self, max_tokens):
        self.policy, self.n = cp.PrefillFirst(max_tokens), 0

    def schedule(self, state):
        self.n += 1
        tokens = dict(self.policy.schedule(state).tokens)
        if self.n > 40 and len(tokens) > 1:
            tokens.popitem()
        return cp.Plan(tokens)


def gaps_of(times):
    return [after - before for tokens in times.values() for before, after in itertools.pairwise(tokens)]


def vllm_up_to(n):
    return lambda *given: dict(list(solved("vllm_step")(*given).items())[:n])


#: exercise, wrong program, what the reply has to say
WRONG = [
    ("kv_bytes", lambda a, b, c, d, e, f: 2 * a * c * d * e * {1: 1, 2: 2, 4: 4}.get(f, 4), "bytes"),
    ("kv_bytes", lambda a, b, c, d, e, f: 2 * a * c * min(d, 128) * e * f, "the cache takes"),
    (
        "chunk_mask",
        lambda s, n: [[s + i - 32 < j <= s + i for j in range(s + n)] for i in range(n)],
        "came before it",
    ),
    (
        "chunk_mask",
        lambda s, n: [[s + i - 4096 < j <= s + i for j in range(s + n)] for i in range(n)],
        "came before it",
    ),
    (
        "chunk_mask",
        lambda s, n: np.int8(np.arange(s + n) % 256 - 128) <= np.arange(s, s + n)[:, None] - 128,
        "after it",
    ),
    (
        "chunk_mask",
        lambda s, n: [[j <= s + i % 128 for j in range(s + n)] for i in range(n)],
        "which came before it",
    ),
    ("rope_positions", lambda c, n: range(c, c + min(n, 500)), "needs (512,)"),
    ("cache_write", row_by_row_up_to(128), "holds nothing"),
    ("cache_write", in_a_ring, "overwritten"),
    ("chunk_loop", sixteen_bits, "comes next in the prompt"),
    ("chunk_loop", a_thousand, "never run"),
    ("mixed_batch", batch_with(lambda t, c, n, size: t[-math.ceil((c + n) / size) :]), "slot"),
    ("mixed_batch", batch_with(lambda t, c, n, size: [*t[: c // size], t[-1]] if n == 1 else t), "slot"),
    ("mixed_batch", batch_with(order=lambda b, t: [row for name in t for row in b if row[0] == name]), ""),
    (
        "mixed_batch",
        lambda batch, tables, size: [
            row
            for one, table in zip(batch, tables.values())
            for row in solved("mixed_batch")([one], {one[0]: table}, size)
        ],
        "",
    ),
    (
        "write_prefill_first",
        changed("write_prefill_first", ("in state.waiting:", "in state.waiting[:255]:")),
        "would fit",
    ),
    (
        "write_prefill_first",
        changed("write_prefill_first", ("in state.running}", "in state.running[:255]}")),
        "left out",
    ),
    (
        "write_chunked_prefill",
        changed("write_chunked_prefill", (PROMPTS, f"{PROMPTS}[:255]")),
        "stays unused",
    ),
    (
        "write_chunked_prefill",
        changed("write_chunked_prefill", ("pending, left)", "pending, left, 65_536)")),
        "stays unused",
    ),
    (
        "write_chunked_prefill",
        changed("write_chunked_prefill", (PROMPTS, f"sorted({PROMPTS}, key=lambda seq: seq.arrival)")),
        "half done come first, in the order of state.running",
    ),
    (
        "write_chunked_prefill",
        changed(
            "write_chunked_prefill",
            (PROMPTS, "(*sorted(state.running, key=lambda seq: seq.arrival), *state.waiting)"),
        ),
        "which was admitted first",
    ),
    (
        "write_chunked_prefill",
        changed(
            "write_chunked_prefill",
            (PROMPTS, "(*sorted(state.running, key=lambda seq: seq.pending), *state.waiting)"),
        ),
        "before request",
    ),
    ("write_shortest_first", changed("write_shortest_first", (SHORTEST, f"{SHORTEST}[:255]")), ""),
    (
        "write_shortest_first",
        changed("write_shortest_first", (SHORTEST, "key=lambda seq: seq.pending // 2)")),
        "goes before",
    ),
    (
        "write_shortest_first",
        changed("write_shortest_first", (SHORTEST, "key=lambda seq: min(seq.pending, 64))")),
        "goes before",
    ),
    ("write_shortest_first", SharesEqually, "share what is left"),
    ("write_aging", changed("write_aging", ("key=rank)", "key=rank)[:255]")), ""),
    (
        "write_aging",
        ranked("seq.pending - (0 if seq.cached else self.rate * (state.now - seq.arrival))"),
        "rank",
    ),
    ("write_aging", ranked("seq.pending - self.rate * state.now"), ""),
    (
        "starve",
        lambda budget, n, seconds: [(k, budget, 1) for k in range(min(seconds, 256))],
        "has to wait for more",
    ),
    (
        "starve",
        lambda budget, n, seconds: [(k + 0.5, budget, 1) for k in range(seconds)],
        "has to wait for more",
    ),
    (
        "refute_claim",
        lambda budget, patience: [(0, budget * min(patience + 1, 300), 1), (0, 1, 1)],
        "it stands",
    ),
    (
        "refute_claim",
        lambda budget, patience: [(0, min(budget, 4096) * (patience + 1), 1), (0, 1, 1)],
        "it stands",
    ),
    ("largest_gap", lambda times: round(solved("largest_gap")(times), 3), "ms"),
    (
        "largest_gap",
        lambda times: max([0, *gaps_of(dict(itertools.islice(times.items(), 16)))]),
        "is silent from",
    ),
    (
        "largest_gap",
        lambda times: max([0, *gaps_of({k: v[:256] for k, v in times.items()})]),
        "is silent from",
    ),
    (
        "largest_gap",
        lambda times: max([0, *gaps_of({k: times.get(k, []) for k in "abcd"})]),
        "is silent from",
    ),
    ("choose_budget", within(lambda longest, bound: longest <= 1.001 * bound), "the bound is"),
    (
        "choose_budget",
        within(lambda longest, bound: math.isclose(longest, bound, rel_tol=1e-3) or longest < bound),
        "the bound is",
    ),
    (
        "who_emits",
        lambda c, n, p, g: np.uint16((c + n) % 2**16) == np.uint16((p + g) % 2**16),
        "still have to be run",
    ),
    (
        "mixed_batch",
        lambda *given: [(p, s % 2**16, x) for p, s, x in solved("mixed_batch")(*given)],
        "written to slot",
    ),
    (
        "starve",
        lambda budget, n, seconds: [
            (k, budget, 1) for k in range(seconds - n // budget if n > 4 * budget else seconds)
        ],
        "has to wait for more",
    ),
    ("choose_budget", all_but_the_last, "keeps the bound"),
    ("write_prefill_first", Tires, "left out"),
    (
        "write_prefill_first",
        changed("write_prefill_first", ("left = self.max_tokens", "left = min(self.max_tokens, 65_536)")),
        "would fit",
    ),
    ("write_linear", lambda requests, *rest: solved("write_linear")(requests[:1024], *rest), "gets 0 tokens"),
    ("count_visits", lambda p, o, c, k, v: (round(p / c + 0.49) + o - 1) * (k + 1) * v, "visits of"),
    ("count_visits", lambda p, o, c, k, v: (-(-p // c) + o - 1) * (min(k, 255) + 1) * v, "visits of"),
    ("make_room", lambda running, free, size: solved("make_room")(running[:16], free, size), "evicts"),
    ("vllm_step", vllm_up_to(128), "would be right"),
    ("vllm_step", vllm_up_to(255), "would be right"),
    (
        "vllm_step",
        lambda r, w, budget, cap: solved("vllm_step")(r, w, min(budget, 65_536), cap),
        "would be right",
    ),
]


@pytest.mark.parametrize("k", range(len(WRONG)), ids=lambda k: f"{WRONG[k][0]}-{k}")
def test_they_are_caught_in_every_check_in_words_that_fit(k):
    name, program, said = WRONG[k]
    refused_in_every_check(name, program, said, SEEDS)


class Chunks:
    """Who decodes comes first in one order of all, and a generator shares the budget out."""

    def __init__(self, token_budget):
        self.token_budget = token_budget

    def shares(self, state):
        left = self.token_budget
        for seq in sorted([*state.running, *state.waiting], key=lambda seq: not seq.decoding):
            if n := min(1 if seq.decoding else seq.pending, left):
                yield seq.rid, n
            left -= n

    def schedule(self, state):
        return cp.Plan(dict(self.shares(state)))


class Smallest:
    """The least pending again and again, of a set."""

    def __init__(self, token_budget):
        self.token_budget = token_budget

    def schedule(self, state):
        tokens = {seq.rid: 1 for seq in state.running if seq.decoding}
        left = self.token_budget - len(tokens)
        prompts = {seq for seq in (*state.running, *state.waiting) if not seq.decoding}
        while prompts and left:
            seq = min(prompts, key=lambda seq: (seq.pending, -seq.order))
            prompts.discard(seq)
            tokens[seq.rid] = min(left, seq.pending)
            left -= tokens[seq.rid]
        return cp.Plan(tokens)


class Makes:
    """An instance that makes policies when it is called."""

    def __call__(self, max_tokens):
        return cp.PrefillFirst(max_tokens)


def from_the_end(running, free, block_size):
    """Who is served and who is evicted are told apart by one index."""
    kept, i = len(running), 0
    while i < kept:
        if running[i][1] % block_size == 0:
            while not free:
                kept -= 1
                free += math.ceil(running[kept][1] / block_size)
            free -= 1
        i += 1
    return [name for name, _ in running[kept:]], sum(n for _, n in running[kept:])


def two_fingers(requests, decoding, pending, budget):
    """Both lists are in one order, so one walk compares them."""
    plan, left, ahead = {}, budget - len(decoding), iter(decoding)
    following = next(ahead, None)
    for name, n in pending.items():
        if following is not None and name == following:
            plan[name], following = 1, next(ahead, None)
        elif left > 0:
            plan[name] = (take := min(n, left))
            left -= take
    return plan


Row = collections.namedtuple("Row", "position slot seen")

RIGHT = [
    ("kv_bytes", lambda *a: functools.reduce(int.__mul__, (n for i, n in enumerate(a) if i != 1), 2)),
    ("kv_bytes", lambda a, b, c, d, e, f: (Decimal(2) * a * c) * d * e * f),
    ("chunk_mask", lambda s, n: np.fromfunction(lambda i, j: j <= s + i, (n, s + n))),
    ("chunk_mask", lambda s, n: (map((s + i).__ge__, range(s + n)) for i in range(n))),
    ("rope_positions", lambda c, n: itertools.islice(itertools.count(c), n)),
    (
        "chunk_loop",
        lambda t, c, run: functools.reduce(lambda _, s: run(t[s : s + c]), range(0, len(t), c), None),
    ),
    ("chunk_loop", lambda t, c, run: [run(x for x in t[s : s + c]) for s in range(0, len(t), c)][-1]),
    ("mixed_batch", lambda *given: [Row(p, s, frozenset(x)) for p, s, x in solved("mixed_batch")(*given)]),
    (
        "mixed_batch",
        lambda *given: [(p, torch.tensor(s), np.array(x)) for p, s, x in solved("mixed_batch")(*given)],
    ),
    ("write_prefill_first", Makes()),
    ("write_chunked_prefill", Chunks),
    ("write_shortest_first", Smallest),
    (
        "write_shortest_first",
        changed("write_shortest_first", (SHORTEST, "key=lambda seq: -seq.pending, reverse=True)")),
    ),
    ("write_aging", ranked("seq.pending + self.rate * seq.arrival")),
    ("write_aging", ranked("(seq.pending - self.rate * (state.now - seq.arrival), -seq.order)")),
    (
        "starve",
        lambda budget, n, seconds: (
            (Decimal(k), Fraction(budget), np.int8(1)) for k in reversed(range(seconds))
        ),
    ),
    ("starve", lambda budget, n, seconds: zip(range(seconds), itertools.repeat(budget), itertools.repeat(1))),
    ("starve", lambda budget, n, seconds: [(k, budget, 1) for k in range(seconds - 1)]),
    ("refute_claim", lambda budget, patience: [(0, budget * -(-(patience + 1) // 2), 1)] * 2 + [(0, 1, 1)]),
    ("largest_gap", lambda times: max(map(Decimal, gaps_of(times)), default=Decimal(0))),
    ("choose_budget", within(lambda longest, bound: not longest > bound)),
    ("tile_cliff", lambda *given: map(Fraction, solved("tile_cliff")(*given))),
    ("count_visits", lambda p, o, c, k, v: (math.ceil(Fraction(p, c)) + o - 1) * Fraction(v) * (k + 1)),
    ("make_room", from_the_end),
    (
        "make_room",
        lambda *given: (set(solved("make_room")(*given)[0]), np.int64(solved("make_room")(*given)[1])),
    ),
    ("write_linear", two_fingers),
    ("vllm_step", lambda *given: {name: np.float64(n) for name, n in solved("vllm_step")(*given).items()}),
]


@pytest.mark.parametrize("k", range(len(RIGHT)), ids=lambda k: f"{RIGHT[k][0]}-{k}")
def test_right_ones_pass(k):
    name, program = RIGHT[k]
    for seed in SEEDS:
        feedback = getattr(exercises, name).check(program, seed=seed)
        assert feedback.ok is True, str(feedback)
