"""Right programs in many styles pass; wrong ones of every kind are refused, each with words that fit."""

from __future__ import annotations

import collections
import decimal
import fractions
import itertools
import math
import types
from functools import partial

import numpy as np
import pytest
import torch

import chunkprefill as cp
from chunkprefill_course import exercises
from tests.proof import draws

SEEDS = draws((0,), (0, 1))

# --- right, in many styles ----------------------------------------------------------------------------


def product_of(*factors):
    return math.prod(factors)


class Bytes:
    def __call__(self, *a):
        return 2 * a[0] * a[2] * a[3] * a[4] * a[5]

    def method(self, n_layers, n_heads, n_kv_heads, head_dim, n_tokens, bytes_per_number):
        return self(n_layers, n_heads, n_kv_heads, head_dim, n_tokens, bytes_per_number)


def kv_by_counting(n_layers, n_heads, n_kv_heads, head_dim, n_tokens, bytes_per_number):
    total = 0
    for _ in range(n_layers):
        for what in ("key", "value"):
            total += len(what[:1]) * n_kv_heads * head_dim * n_tokens * bytes_per_number
    return total


KV = [
    kv_by_counting,
    Bytes(),
    Bytes().method,
    lambda a, b, c, d, e, f: product_of(2, a, c, d, e, f),
    lambda a, b, c, d, e, f: float(2 * a * c * d * e * f),
    lambda a, b, c, d, e, f: np.int64(2) * a * c * d * e * f,
    lambda a, b, c, d, e, f: torch.tensor([2, a, c, d, e, f]).prod(),
    lambda a, b, c, d, e, f: np.prod(np.array([[2], [a], [c], [d], [e], [f]]), axis=0),
    lambda a, b, c, d, e, f: fractions.Fraction(2 * a * c * d * e * f),
    lambda a, b, c, d, e, f: decimal.Decimal(2 * a * c * d * e * f),
    lambda n_layers, n_heads, n_kv_heads, *rest: n_layers * n_kv_heads * math.prod(rest, start=2),
]


def mask_with_cat(start, length):
    return torch.cat([torch.ones(length, start), torch.ones(length, length).tril()], dim=1).bool()


def mask_row_by_row(start, length):
    for query in range(length):
        yield [True] * (start + query + 1) + [False] * (length - query - 1)


MASK = [
    mask_with_cat,
    mask_row_by_row,
    lambda s, n: torch.ones(n, s + n).tril(diagonal=s).bool(),
    lambda s, n: torch.arange(s + n)[None, :] <= torch.arange(s, s + n)[:, None],
    lambda s, n: np.tri(n, s + n, s, dtype=bool),
    lambda s, n: np.arange(s + n) <= np.arange(s, s + n)[:, None],
    lambda s, n: ~torch.ones(n, s + n, dtype=torch.bool).triu(s + 1),
    lambda s, n: [[j <= s + i for j in range(s + n)] for i in range(n)],
    lambda s, n: tuple(tuple(j - i <= s for j in range(s + n)) for i in range(n)),
    lambda s, n: [torch.arange(s + n) <= s + i for i in range(n)],
    lambda s, n: [np.arange(s + n) <= s + i for i in range(n)],
]

ROPE = [
    lambda c, n: torch.arange(c, c + n),
    lambda c, n: torch.arange(n) + c,
    lambda c, n: np.arange(c, c + n),
    lambda c, n: range(c, c + n),
    lambda c, n: [c + i for i in range(n)],
    lambda c, n: tuple(range(c, c + n)),
    lambda c, n: (c + i for i in range(n)),
    lambda c, n: map(c.__add__, range(n)),
    lambda c, n: collections.deque(range(c, c + n)),
    lambda c, n: list(range(c + n))[c:],
    lambda c, n: torch.ones(n, dtype=torch.int32).cumsum(0) + c - 1,
]


def write_row_by_row(cache, length, new):
    for i, row in enumerate(new):
        cache[length + i] = row
    return length + len(new)


def write_by_copy(cache, length, new):
    cache[length : length + new.shape[0]].copy_(new)
    return length + new.shape[0]


def write_narrow(cache, length, new):
    cache.narrow(0, length, new.size(0)).copy_(new)
    return torch.tensor(length + new.size(0))


def write_by_index(cache, length, new):
    cache.index_copy_(0, torch.arange(length, length + len(new)), new)
    return np.int64(length + len(new))


def write_a_view(cache, length, new):
    view = cache[length:][: len(new)]
    view[:] = new
    return length + len(new)


def write_heads(cache, length, new):
    end = length + new.shape[0]
    for head in range(new.shape[1]):
        cache[length:end, head] = new[:, head]
    return end


WRITE = [
    write_row_by_row,
    write_by_copy,
    write_narrow,
    write_by_index,
    write_a_view,
    write_heads,
    lambda cache, n, new: cache.__setitem__(slice(n, n + len(new)), new) or n + len(new),
    lambda cache, n, new: (cache[n : n + len(new)].zero_().add_(new), float(n + len(new)))[1],
    lambda cache, n, new: (cache[n : n + len(new), ...].copy_(new.clone()), n + len(new))[1],
    lambda cache, n, new: torch.add(new, 0, out=cache[n : n + len(new)]).shape[0] + n,
]


def loop_with_while(tokens, chunk_size, run):
    start, logits = 0, None
    while start < len(tokens):
        logits = run(tokens[start : start + chunk_size])
        start += chunk_size
    return logits


def loop_on_a_copy(tokens, chunk_size, run):
    rest = list(tokens)
    while rest:
        logits = run(rest[:chunk_size])
        del rest[:chunk_size]
    return logits


def loop_with_islice(tokens, chunk_size, run):
    ahead = iter(tokens)
    while chunk := list(itertools.islice(ahead, chunk_size)):
        logits = run(chunk)
    return logits


def loop_recursive(tokens, chunk_size, run):
    logits = run(tokens[:chunk_size])
    return loop_recursive(tokens[chunk_size:], chunk_size, run) if tokens[chunk_size:] else logits


def loop_with_tensors(tokens, chunk_size, run):
    for chunk in torch.tensor(tokens).split(chunk_size):
        logits = run(chunk)
    return logits


def loop_even(tokens, chunk_size, run):
    n = math.ceil(len(tokens) / chunk_size)
    for chunk in np.array_split(np.array(tokens), n):
        logits = run(chunk)
    return logits


LOOP = [
    loop_with_while,
    loop_on_a_copy,
    loop_with_islice,
    loop_recursive,
    loop_with_tensors,
    loop_even,
    lambda t, c, run: [run(t[i : i + c]) for i in range(0, len(t), c)][-1],
    lambda t, c, run: [run(tuple(t[i : i + c])) for i in range(0, len(t), c)].pop(),
    lambda t, c, run: collections.deque((run(t[i : i + c]) for i in range(0, len(t), c)), maxlen=1)[0],
    lambda t, c, run: [run(t[i * c : (i + 1) * c]) for i in range(-(-len(t) // c))][-1],
]


EMITS = [
    lambda c, n, p, g: c + n >= p + g,
    lambda c, n, p, g: not p + g - c - n,
    lambda c, n, p, g: int(c + n == p + g),
    lambda c, n, p, g: (c + n == p + g) and n,
    lambda c, n, p, g: np.bool_(c + n == p + g),
    lambda c, n, p, g: torch.tensor(c + n == p + g),
    lambda c, n, p, g: torch.tensor([c + n]) == p + g,
    lambda c, n, p, g: np.equal(c + n, p + g),
    lambda c, n, p, g: 0 if c + n < p + g else 5,
    lambda c, n, p, g: max(0, 1 - (p + g - c - n)),
]

BRANCH = [
    lambda c, n: n > 1 and c,
    lambda c, n: c and n > 1,
    lambda c, n: c > 0 and n != 1,
    lambda c, n: min(c, n - 1),
    lambda c, n: not (c == 0 or n == 1),
    lambda c, n: bool(c) & (n > 1),
    lambda c, n: c * (n - 1),
    lambda c, n: c * (n - 1) / 2,
    lambda c, n: np.bool_(c > 0 and n > 1),
    lambda c, n: torch.tensor(c * (n - 1)),
]


def gap_with_numpy(times):
    return max((np.diff(tokens).max() for tokens in times.values() if len(tokens) > 1), default=0)


def gap_with_torch(times):
    gaps = [torch.tensor(tokens, dtype=torch.float64).diff() for tokens in times.values()]
    return torch.cat([torch.zeros(1, dtype=torch.float64), *gaps]).max()


def gap_with_index(times):
    longest = 0
    for request in times:
        for i in range(len(times[request]) - 1):
            if times[request][i + 1] - times[request][i] > longest:
                longest = times[request][i + 1] - times[request][i]
    return longest


def gap_with_zip(times):
    return max([0, *(b - a for t in times.values() for a, b in itertools.pairwise(t))])


GAP = [
    gap_with_numpy,
    gap_with_torch,
    gap_with_index,
    gap_with_zip,
    lambda times: max((b - a for t in times.values() for a, b in itertools.pairwise(t)), default=0),
    lambda times: max(max((b - a for a, b in itertools.pairwise(t)), default=0) for t in times.values()),
    lambda times: max([b - a for t in map(sorted, times.values()) for a, b in itertools.pairwise(t)] or [0]),
    lambda times: float(gap_with_zip(times)),
    lambda times: fractions.Fraction(gap_with_zip(times)),
    lambda times: np.array([gap_with_zip(times)]),
]


def budget_by_sorting(seconds, budgets, n_decodes, n_prompt, bound):
    tried = []
    for budget in sorted(budgets):
        size = budget - n_decodes
        steps = [seconds(min(size, n_prompt - start), start, n_decodes) for start in range(0, n_prompt, size)]
        if max(steps) <= bound:
            tried.append((sum(steps), budget))
    return min(tried)[1]


def budget_with_inner(seconds, budgets, n_decodes, n_prompt, bound):
    def steps(budget):
        start = 0
        while start < n_prompt:
            chunk = min(budget - n_decodes, n_prompt - start)
            yield seconds(chunk, start, n_decodes)
            start += chunk

    fitting = [b for b in budgets if all(step <= bound for step in steps(b))]
    return min(fitting, key=lambda b: sum(steps(b)))


BUDGET = [
    budget_by_sorting,
    budget_with_inner,
    lambda *a: np.int64(budget_by_sorting(*a)),
    lambda *a: float(budget_with_inner(*a)),
    lambda *a: torch.tensor(budget_with_inner(*a)),
    partial(budget_with_inner),
]

VISITS = [
    lambda p, o, c, k, v: (math.ceil(p / c) + o - 1) * (k + 1) * v,
    lambda p, o, c, k, v: ((p + c - 1) // c + o - 1) * (k + 1) * v,
    lambda p, o, c, k, v: v * sum(k + 1 for _ in range(-(-p // c) + o - 1)),
    lambda p, o, c, k, v: v * (len(range(0, p, c)) + o - 1) * (1 + k),
    lambda p, o, c, k, v: float((-(-p // c) + o - 1) * (k + 1) * v),
    lambda p, o, c, k, v: np.ceil(p / c + o - 1) * (k + 1) * v,
    lambda p, o, c, k, v: (p // c + bool(p % c) + o - 1) * (k + 1) * v,
    lambda p, o, c, k, v: torch.tensor((-(-p // c) + o - 1) * (k + 1) * v),
    lambda p, o, c, k, v: fractions.Fraction((-(-p // c) + o - 1) * (k + 1) * v),
    lambda p, o, c, k, v: (divmod(p - 1, c)[0] + o) * (k + 1) * v,
]


def plan_with_set(requests, decoding, pending, budget):
    known = set(decoding)
    plan = {name: 1 for name in requests if name in known}
    left = budget - len(plan)
    for name in requests:
        if left <= 0:
            break
        if name not in known:
            plan[name] = min(left, pending[name])
            left -= plan[name]
    return plan


def plan_counter(requests, decoding, pending, budget):
    plan = collections.Counter(decoding)
    left = budget - len(decoding)
    for name in [name for name in requests if name not in plan]:
        if left > 0:
            plan[name] += min(left, pending[name])
            left -= plan[name]
    return plan


def plan_ordered(requests, decoding, pending, budget):
    plan = collections.OrderedDict((name, 1) for name in decoding)
    left = budget - len(plan)
    for name in requests:
        take = min(left, pending[name])
        if name not in plan and take > 0:
            plan[name], left = take, left - take
    return plan


def plan_default(requests, decoding, pending, budget):
    plan = collections.defaultdict(int)
    for name in decoding:
        plan[name] = 1
    left = max(0, budget - len(decoding))
    waiting = (name for name in requests if name not in plan)
    while left and (name := next(waiting, None)) is not None:
        plan[name] = min(pending[name], left)
        left -= plan[name]
    return types.MappingProxyType(plan)


def plan_frozen(requests, decoding, pending, budget):
    known, left = frozenset(decoding), budget - len(decoding)
    chunks = {}
    for i in range(len(requests)):
        name = requests[i]
        if name in known or left < 1:
            continue
        chunks[name] = np.int64(min(pending[name], left))
        left -= chunks[name]
    return dict.fromkeys(decoding, 1) | chunks


LINEAR = [plan_with_set, plan_counter, plan_ordered, plan_default, plan_frozen]


def step_with_left(running, waiting, budget, threshold):
    plan, left = {}, budget
    every = [*running, *waiting]
    cap = threshold if threshold and len(every) > 1 else math.inf
    for name, pending in every:
        take = min(pending, left, cap)
        if take:
            plan[name] = take
            left -= take
    return plan


STEP = [
    step_with_left,
    lambda *a: collections.OrderedDict(step_with_left(*a)),
    lambda *a: collections.Counter(step_with_left(*a)),
    lambda *a: collections.defaultdict(int, step_with_left(*a)),
    lambda *a: types.MappingProxyType(step_with_left(*a)),
    lambda *a: {name: np.int64(n) for name, n in step_with_left(*a).items()},
    lambda *a: {name: torch.tensor(n) for name, n in step_with_left(*a).items()},
    lambda *a: collections.UserDict(step_with_left(*a)),
    lambda *a: collections.ChainMap(step_with_left(*a)),
    lambda *a: dict(sorted(step_with_left(*a).items())),
]


class PlainFirst:
    def __init__(self, max_tokens):
        self.max_tokens = max_tokens

    def schedule(self, state):
        row, total = [], 0
        for seq in list(state.waiting):
            if row and total + seq.pending > self.max_tokens:
                break
            row.append(seq)
            total += seq.pending
        return cp.Plan(
            {seq.rid: seq.pending for seq in row} or dict.fromkeys((s.rid for s in state.running), 1)
        )


class FirstByIndex:
    def __init__(self, budget):
        self.budget = np.int64(budget)

    def schedule(self, state):
        tokens, i = collections.OrderedDict(), 0
        while i < len(state.waiting):
            seq = state.waiting[i]
            if tokens and sum(tokens.values()) + seq.pending > self.budget:
                break
            tokens[seq.rid], i = np.int64(seq.pending), i + 1
        return cp.Plan(tokens or {seq.rid: 1 for seq in state.running})


class Chunks:
    def __init__(self, token_budget):
        self.token_budget = token_budget

    def key(self, seq):
        return 0

    def schedule(self, state):
        every = state.running + state.waiting
        plan = collections.defaultdict(int)
        for seq in every:
            if seq.decoding:
                plan[seq.rid] += 1
        left = self.token_budget - sum(plan.values())
        for seq in sorted([seq for seq in every if not seq.decoding], key=self.key):
            take = min(seq.pending, left)
            if take > 0:
                plan[seq.rid] = take
            left -= take
        return cp.Plan(plan)


class Shortest(Chunks):
    def key(self, seq):
        return seq.pending


class ShortestLastFirst(Chunks):
    def key(self, seq):
        return seq.n_prompt - seq.cached, -seq.rid


RIGHT = {
    "kv_bytes": KV,
    "chunk_mask": MASK,
    "rope_positions": ROPE,
    "cache_write": WRITE,
    "chunk_loop": LOOP,
    "who_emits": EMITS,
    "branch_on_t": BRANCH,
    "largest_gap": GAP,
    "choose_budget": BUDGET,
    "count_visits": VISITS,
    "write_linear": LINEAR,
    "vllm_step": STEP,
    "write_prefill_first": [PlainFirst, FirstByIndex, cp.PrefillFirst, cp.PrefillFirst(4), PlainFirst],
    "write_chunked_prefill": [Chunks, cp.ChunkedPrefill, Chunks(8), Chunks, partial(Chunks)],
    "write_shortest_first": [
        Shortest,
        ShortestLastFirst,
        lambda n: cp.ChunkedPrefill(n, order="shortest"),
        Shortest(3),
    ],
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_programs_pass_in_whatever_style(name):
    form = getattr(exercises, name)
    for k, program in enumerate(RIGHT[name]):
        for seed in SEEDS:
            feedback = form.check(program, seed=seed)
            assert feedback.ok is True, (name, k, str(feedback))


# --- wrong, of every kind -----------------------------------------------------------------------------

ANSWERS: dict = {}
SEEN: list = []


def cached_by_length(start, length):
    """Kept by one argument of two."""
    return ANSWERS.setdefault(
        length, [[j <= start + i for j in range(start + length)] for i in range(length)]
    )


def collects(times, gaps=[]):  # noqa: B006
    gaps.append(0)
    for tokens in times.values():
        gaps.extend(b - a for a, b in itertools.pairwise(tokens))
    return max(gaps)


def first_answer_for_ever(cached, length, n_prompt, n_generated):
    SEEN.append(cached + length == n_prompt + n_generated)
    return SEEN[0]


SHARED: dict = {}


def one_dict(running, waiting, budget, threshold):
    SHARED.clear()
    SHARED.update(step_with_left(running, waiting, budget, threshold))
    return SHARED


def empties(running, waiting, budget, threshold):
    plan = step_with_left(list(running), list(waiting), budget, threshold)
    waiting.clear()
    return plan


def sorts_in_place(times):
    for tokens in times.values():
        tokens.insert(0, tokens[0])
    return gap_with_zip(times)


def rebinds(cache, length, new):
    end = length + len(new)
    cache = torch.cat([cache[:length], new, cache[end:]])
    return end


def writes_a_copy(cache, length, new):
    rows = cache[length : length + len(new)].clone()
    rows[:] = new
    return length + len(new)


def zeroes(cache, length, new):
    cache[:length] = 0
    cache[length : length + len(new)] = new
    return length + len(new)


def additive(start, length):
    hidden = torch.ones(length, start + length).triu(start + 1)
    return torch.zeros(length, start + length).masked_fill(hidden.bool(), -math.inf)


def precomputed_hashes(requests, decoding, pending, budget):
    hashes = [hash(name) for name in decoding]
    plan, left = dict.fromkeys(decoding, 1), budget - len(decoding)
    for name in requests:
        if hash(name) not in hashes and left > 0:
            plan[name] = min(pending[name], left)
            left -= plan[name]
    return plan


def any_equal(requests, decoding, pending, budget):
    plan, left = dict.fromkeys(decoding, 1), budget - len(decoding)
    for name in requests:
        if not any(hash(other) == hash(name) and other == name for other in decoding) and left > 0:
            plan[name] = min(pending[name], left)
            left -= plan[name]
    return plan


def an_index(requests, decoding, pending, budget):
    plan, left = dict.fromkeys(decoding, 1), budget - len(decoding)
    for name in requests:
        try:
            decoding.index(name)
        except ValueError:
            if left > 0:
                plan[name] = min(pending[name], left)
                left -= plan[name]
    return plan


def raises_later(cached, length):
    return [list(range(cached, cached + length))][cached]


def forgets_a_way_out(cached, length):
    if cached < 3:
        return range(cached, cached + length)


class NoPlan(Chunks):
    def schedule(self, state):
        return dict(super().schedule(state).tokens)


class NoSchedule:
    def __init__(self, budget):
        pass


class Halves(Chunks):
    def schedule(self, state):
        decodes = [seq.rid for seq in state.running if seq.decoding]
        plan = dict.fromkeys(decodes[: max(1, self.token_budget // 2)], 1)
        left = self.token_budget - len(plan)
        for seq in state.running + state.waiting:
            if not seq.decoding and left > 0:
                plan[seq.rid] = min(left, seq.pending)
                left -= plan[seq.rid]
        return cp.Plan(plan)


class RenewsNothing(PlainFirst):
    def __init__(self, max_tokens):
        super().__init__(max_tokens)
        self.left = max_tokens

    def schedule(self, state):
        tokens = {}
        for seq in state.waiting:
            if seq.pending > self.left and (tokens or self.left == self.max_tokens == 0):
                break
            tokens[seq.rid] = seq.pending
            self.left -= seq.pending
        return cp.Plan(tokens or {seq.rid: 1 for seq in state.running})


def emits_only_if(cached, length, n_prompt, n_generated):
    if cached + length == n_prompt + n_generated:
        return True


BATCH = exercises.mixed_batch.solution

#: exercise, wrong program, what the reply has to say
WRONG = [
    ("chunk_mask", cached_by_length, "remembers"),
    ("chunk_mask", additive, "additive"),
    ("chunk_mask", lambda s, n: torch.ones(n, s + n).tril(s), ".bool()"),
    ("chunk_mask", lambda s, n: torch.ones(n, s + n).tril(s).int(), "whole numbers"),
    ("chunk_mask", lambda s, n: torch.ones(1, n, s + n).tril(s).bool(), "shape (1, "),
    ("rope_positions", lambda c, n: torch.arange(c, c + n).float(), "whole numbers (ints, not floats)"),
    ("rope_positions", lambda c, n: set(range(c, c + n)), "in order"),
    ("rope_positions", raises_later, "IndexError"),
    ("rope_positions", forgets_a_way_out, "without a return"),
    ("largest_gap", collects, "remembers"),
    ("largest_gap", sorts_in_place, "changed times"),
    ("largest_gap", lambda times: [gap_with_zip(times)], "expected a number of ms"),
    ("largest_gap", lambda times: 10**5000, "about 1e5000"),
    ("largest_gap", lambda times: print(gap_with_zip(times)), ""),
    ("who_emits", first_answer_for_ever, "remembers"),
    ("who_emits", emits_only_if, "returned nothing: is there a path"),
    ("branch_on_t", lambda c, n: True if c and n > 1 else None, "returned nothing: is there a path"),
    ("mixed_batch", lambda *a: [(p or False, s, x) for p, s, x in BATCH(*a)], "holds False"),
    (
        "starve",
        lambda b, n, s: [(k, b, 0) for k in range(s)],
        "n_output must be a whole number of at least 1",
    ),
    (
        "starve",
        lambda b, n, s: [(k - 1, b, 1) for k in range(s)],
        "arrival, in s, must be a finite number of at least 0",
    ),
    ("starve", lambda b, n, s: [(None, b, 1) for k in range(s)], "expected (arrival, n_prompt, n_output)"),
    ("starve", lambda b, n, s: [(k, n, 1) for k in range(s)], "as long as the document"),
    ("refute_claim", lambda b, p: [(None, b * (p + 1), 1), (0, 1, 1)], "expected (arrival, n_prompt"),
    ("refute_claim", lambda b, p: [(0, b, 1)] * (p + 1), "while 20 of them are enough"),
    ("refute_claim", lambda b, p: [(0, b, 1000), (0, 1, 1)], "leaves the others"),
    ("who_emits", lambda *a: str(EMITS[1](*a)), "expected True or False"),
    ("branch_on_t", lambda c, n: [c > 0 and n > 1], "expected True or False"),
    ("vllm_step", one_dict, "one and the same object"),
    ("vllm_step", empties, "changed waiting"),
    ("vllm_step", lambda *a: list(step_with_left(*a).items()), "expected a dict of tokens by name"),
    ("vllm_step", lambda *a: dict.fromkeys(step_with_left(*a), 10**5000), "pending"),
    ("cache_write", rebinds, "o row of the cache has changed"),
    ("cache_write", writes_a_copy, "o row of the cache has changed"),
    ("cache_write", zeroes, "zeros"),
    ("kv_bytes", lambda a, b, c, d, e, f: a * c * d * e * f, "A factor 2 is missing"),
    ("kv_bytes", lambda a, b, c, d, e, f: 10**5000, "about 1e5000"),
    ("count_visits", lambda p, o, c, k, v: (-(-p // c) + o - 1) * (k + 1) * v / 1000, "in ms"),
    ("write_linear", precomputed_hashes, "r"),
    ("write_linear", any_equal, "looked at names"),
    ("write_linear", an_index, "looked at names"),
    ("write_chunked_prefill", NoPlan, "return cp.Plan("),
    ("write_chunked_prefill", NoSchedule, "no method schedule"),
    ("write_chunked_prefill", Halves, "could decode and is left out"),
    ("write_prefill_first", RenewsNothing, ""),
    ("write_prefill_first", lambda n: cp.PrefillFirst(n, mixed=True), "decoding waits"),
]


@pytest.mark.parametrize("name, program, said", WRONG, ids=lambda x: getattr(x, "__name__", str(x))[:30])
def test_wrong_programs_are_refused_in_words_that_fit(name, program, said):
    form = getattr(exercises, name)
    for seed in SEEDS:
        ANSWERS.clear(), SEEN.clear()
        feedback = form.check(program, seed=seed)
        assert not feedback and said in str(feedback), str(feedback)
        assert len(str(feedback)) < 900, "words, not pages"


@pytest.mark.parametrize("form", [getattr(exercises, name) for name in RIGHT], ids=lambda form: form.id)
def test_every_mistake_that_is_known_has_its_own_reply_in_every_check(form):
    from chunkprefill_course.forms.feedback import plain_text

    for wrong in (*form.wrong, *form.slips):
        once = () if wrong in form.wrong else (0,)  # test_forms checks the former with seed 0
        for seed in draws(once, (*once, 1)):
            feedback = form.check(wrong.program, seed=seed)
            assert feedback.ok is False and plain_text(wrong.hint) in str(feedback), (
                wrong.hint,
                str(feedback),
            )


@pytest.mark.parametrize("form", [getattr(exercises, name) for name in RIGHT], ids=lambda form: form.id)
def test_every_condition_is_met_in_every_check(form):
    assert len(form.conditions) >= 5
    for seed in draws(range(2), range(5)):
        assert not form.unmet(form.drawn(seed))


def test_an_error_is_told_with_the_line_of_the_reader():
    feedback = exercises.rope_positions.check(raises_later, seed=0)
    line = raises_later.__code__.co_firstlineno + 1
    assert f"line {line} of your code (return [list(range(cached" in str(feedback)

    def two_ways(cached, length):
        if cached > 4:
            return range(length)
        return range(cached, cached + length)

    feedback = exercises.rope_positions.check(two_ways, seed=0)
    assert f"line {two_ways.__code__.co_firstlineno + 2} of your code" in str(feedback)
