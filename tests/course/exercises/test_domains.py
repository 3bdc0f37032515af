"""Wrong at the edge of what a prompt allows, or by an answer kept from another call; and right up to that edge."""

from __future__ import annotations

import math
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch

import chunkprefill as cp
from chunkprefill_course import exercises
from tests.course.exercises.programs import changed, refused_in_every_check, solved
from tests.proof import draws

SEEDS = draws(range(1), range(3))
RANK = "return seq.pending - self.rate * (state.now - seq.arrival)"


def kept(name, key):
    """The solution, which keeps each answer under a key that says too little."""
    answers = {}

    def program(*given):
        asked = key(*given)
        if asked not in answers:
            answers[asked] = solved(name)(*given)
        return answers[asked]

    return program


def logits_kept(tokens, chunk_size, run):
    """Runs everything, and returns the logits of the first prompt of this length."""
    logits = solved("chunk_loop")(tokens, chunk_size, run)
    return LOGITS.setdefault((len(tokens), chunk_size), logits)


LOGITS: dict = {}


def one_is_no_list(tokens, chunk_size, run):
    for start in range(0, len(tokens), chunk_size):
        chunk = tokens[start : start + chunk_size]
        logits = run(chunk if len(chunk) > 1 else chunk[0])
    return logits


def in_chunks_of(most):
    return lambda tokens, chunk_size, run: solved("chunk_loop")(tokens, min(chunk_size, most), run)


def written(write):
    """`cache_write` by another way of writing."""

    def cache_write(cache, length, new):
        write(cache, length, length + len(new), new)
        return length + len(new)

    return cache_write


def flat(cache, length, end, new):
    size = new[0].numel()
    cache.reshape(-1)[length * size : end * size] = new.reshape(-1)


def lined_up(cache, length, end, new):
    cache.contiguous()[length:end] = new


def four_numbers_of_a_head(cache, length, end, new):
    cache[length:end, :, :4] = new[:, :, :4]


def of_two_heads(cache, length, end, new):
    cache[length:end, :2] = new[:, :2]


def no_negative_ones(cache, length, end, new):
    cache[length:end] = new.clamp(min=0)


def narrower(cache, length, end, new):
    cache[length:end] = new.float()


def no_doubled_moments(times):
    for tokens in times.values():
        tokens[:] = sorted(set(tokens))
    return solved("largest_gap")(times)


def of_the_longest(times):
    tokens = max(times.values(), key=lambda tokens: tokens[-1] - tokens[0])
    return max([after - before for before, after in pairwise(tokens)], default=0)


def served_by_name(running, free, block_size):
    """Who asks first is told by the name; the last admitted is still the one to go."""
    cached, left, evicted = dict(running), [name for name, _ in running], []
    for name in sorted(cached):
        if name in evicted or cached[name] % block_size:
            continue
        while free < 1:
            evicted.append(left.pop())
            free += -(-cached[evicted[-1]] // block_size)
        free -= 1
    return evicted, sum(cached[name] for name in evicted)


def searched_where_few_decode(requests, decoding, pending, budget):
    """A list is walked as long as it is short."""
    known = decoding if len(decoding) < 60 else set(decoding)
    plan = dict.fromkeys(decoding, 1)
    left = budget - len(plan)
    for name in requests:
        if name not in known and left > 0:
            plan[name] = min(pending[name], left)
            left -= plan[name]
    return plan


def totals(seconds, budgets, n_decodes, n_prompt, most=10**9, first=10**9):
    """Seconds under each budget; of chunks of at most `most` tokens, and of the `first` steps."""
    taken = {}
    for budget in budgets:
        size = min(budget - n_decodes, most)
        starts = range(0, n_prompt, size)[:first]
        taken[budget] = [seconds(min(size, n_prompt - at), at, n_decodes) for at in starts]
    return taken


def chosen(**limits):
    def choose_budget(seconds, budgets, n_decodes, n_prompt, bound):
        taken = totals(seconds, budgets, n_decodes, n_prompt, **limits)
        return min((b for b in budgets if max(taken[b]) <= bound), key=lambda b: sum(taken[b]))

    return choose_budget


def of_the_first_pairs(seconds, budgets, n_decodes, n_prompt):
    taken = totals(seconds, budgets, n_decodes, n_prompt)
    ordered = sorted(budgets)
    for small, large in pairwise(ordered[:4]):
        if sum(taken[small]) < sum(taken[large]):
            return small, large
    return ordered[-2], ordered[-1]


def in_whole_milliseconds(seconds, budgets, n_decodes, n_prompt):
    taken = totals(seconds, budgets, n_decodes, n_prompt)
    ms = {budget: round(1000 * sum(steps)) for budget, steps in taken.items()}
    pairs = list(combinations(sorted(budgets), 2))
    return next((pair for pair in pairs if ms[pair[0]] < ms[pair[1]]), pairs[0])


#: exercise, wrong program, what the reply has to say
WRONG = [
    ("kv_bytes", lambda *a: round(math.exp(sum(math.log(n) for i, n in enumerate((2, *a)) if i != 2))), ""),
    ("kv_bytes", lambda a, b, c, d, e, f: 2 * min(a, 500) * c * d * e * f, "the cache takes"),
    ("kv_bytes", lambda a, b, c, d, e, f: 2 * a * c * min(d, 600) * e * f, "the cache takes"),
    ("kv_bytes", lambda a, b, c, d, e, f: 2 * a * c * d * min(e, 10**6) * f, "the cache takes"),
    ("kv_bytes", lambda a, b, c, d, e, f: 2 * a * c * d * e * min(f, 16), "the cache takes"),
    ("branch_on_t", lambda s, n: n > 1 and 0 < s < 4096, "fewer keys than it should"),
    ("branch_on_t", lambda s, n: 1 < n < 1000 and s > 0, "fewer keys than it should"),
    ("branch_on_t", lambda s, n: s * (n - 1) % 256 != 0, ""),
    ("branch_on_t", lambda s, n: n > 1 and (s > 0 or n > 512), "the keys that it should"),
    ("who_emits", lambda s, n, p, g: s + n == p + g and p < 100_000, "none is left"),
    ("who_emits", lambda s, n, p, g: s + n == p + g or s > 10**6, "still has to be run"),
    ("who_emits", lambda s, n, p, g: math.isclose(s + n, p + g, rel_tol=1e-5), "still has to be run"),
    ("rope_positions", lambda s, n: [p % 131_072 for p in range(s, s + n)], "gets position"),
    ("rope_positions", lambda s, n: [s + i % 256 for i in range(n)], "gets position"),
    (
        "chunk_mask",
        lambda s, n: [[s + i - 30_000 < j <= s + i for j in range(s + n)] for i in range(n)],
        "which came before it",
    ),
    ("cache_write", written(flat), "reshape of a view"),
    ("cache_write", written(lined_up), "so do contiguous"),
    ("cache_write", written(four_numbers_of_a_head), "no token's key"),
    ("cache_write", written(of_two_heads), "heads of"),
    ("cache_write", written(no_negative_ones), "no token's key"),
    ("cache_write", written(narrower), "no token's key"),
    ("chunk_loop", in_chunks_of(1024), "chunks of up to 2,048 tokens need 2 passes"),
    ("chunk_loop", in_chunks_of(4095), "need 1 pass"),
    ("chunk_loop", one_is_no_list, "it takes a list of tokens, of one"),
    ("mixed_batch", lambda b, t, n: [(p, s, x[-512:]) for p, s, x in solved("mixed_batch")(b, t, n)], "see"),
    ("mixed_batch", lambda b, t, n: solved("mixed_batch")(b[:100], t, n), "rows; the batch has 256 tokens"),
    ("make_room", served_by_name, "would be right"),
    ("make_room", lambda running, free, size: solved("make_room")(running[:200], free, size), "evicts"),
    ("largest_gap", no_doubled_moments, "changed times"),
    ("largest_gap", of_the_longest, "is silent from"),
    ("largest_gap", lambda times: min(solved("largest_gap")(times), 10**6), "for 86,400,000 ms"),
    ("count_visits", lambda p, o, c, k, v: (-(-p // c) + min(o, 4096) - 1) * (k + 1) * v, "visits of"),
    ("count_visits", lambda *a: float(np.float32(solved("count_visits")(*a))), "visits of"),
    ("count_visits", lambda *a: solved("count_visits")(*a) % 2**31, "visits of"),
    ("write_linear", searched_where_few_decode, "looked at names"),
    (
        "write_linear",
        lambda r, d, pending, budget: solved("write_linear")(r, d, pending, min(budget, 2048)),
        "gets 2,048 tokens",
    ),
    ("choose_budget", chosen(most=2048), "keeps the bound, and so does"),
    ("choose_budget", chosen(first=64), "keeps the bound, and so does"),
    ("tile_cliff", of_the_first_pairs, "the larger is not slower"),
    ("tile_cliff", in_whole_milliseconds, "the larger is not slower"),
    ("vllm_step", lambda r, w, b, cap: solved("vllm_step")(r, w, min(b, 99_999), cap), "would be right"),
    ("write_aging", changed("write_aging", (RANK, f"return round({RANK[7:]}, 1)")), "whose rank is lower"),
    (
        "write_aging",
        changed("write_aging", (RANK, RANK.replace("self.rate", "max(self.rate, 0.1)"))),
        "whose rank is lower",
    ),
    ("write_aging", changed("write_aging", (RANK, f"{RANK} / 1000")), "divided by 1,000"),
    (
        "write_chunked_prefill",
        changed("write_chunked_prefill", ("pending, left)", "pending, left, 98_304)")),
        "stays unused",
    ),
]


@pytest.mark.parametrize("k", range(len(WRONG)), ids=lambda k: f"{WRONG[k][0]}-{k}")
def test_what_is_wrong_at_the_edge_is_caught_in_every_check(k):
    name, program, said = WRONG[k]
    refused_in_every_check(name, program, said, SEEDS)


#: exercise, what of a question the program takes for all of it
KEYS = [
    ("mixed_batch", lambda batch, tables, size: (str(batch), size)),
    ("mixed_batch", lambda batch, tables, size: (len(batch), sum(n for *_, n in batch), size)),
    ("make_room", lambda running, free, size: (len(running), free, size)),
    ("vllm_step", lambda running, waiting, budget, cap: (len(running), len(waiting), budget, cap)),
    ("write_linear", lambda requests, decoding, _, budget: (len(requests), len(decoding), budget)),
    ("largest_gap", lambda times: tuple(map(len, times.values()))),
    ("choose_budget", lambda _, budgets, *rest: (tuple(budgets), *rest)),
    ("tile_cliff", lambda _, budgets, *rest: (len(budgets), *rest)),
    ("rope_positions", lambda cached, length: length),
    ("chunk_mask", lambda start, length: length),
    ("count_visits", lambda p, o, c, k, v: (p, o, c)),
]


@pytest.mark.parametrize("k", range(len(KEYS)), ids=lambda k: f"{KEYS[k][0]}-{k}")
def test_an_answer_kept_under_too_short_a_name_is_caught_in_every_check(k):
    name, key = KEYS[k]
    for seed in SEEDS:
        feedback = getattr(exercises, name).check(kept(name, key), seed=seed)
        assert feedback.ok is False and "remembers" in feedback.message, str(feedback)


def test_logits_of_another_prompt_are_not_those_that_are_wanted():
    for seed in SEEDS:
        LOGITS.clear()
        feedback = exercises.chunk_loop.check(logits_kept, seed=seed)
        assert feedback.ok is False and "remembers" in feedback.message, str(feedback)


def test_where_two_answers_read_alike_the_reply_says_what_is_wrong_with_one():
    first = {}

    def cache_write(cache, length, new):
        first.setdefault("cache", cache)[length : length + len(new)] = new
        return length + len(new)

    message = exercises.cache_write.check(cache_write, seed=0).message
    assert "gave for this input a wrong answer (no row of the cache has changed" in message
    assert "and called alone the right answer" in message


class Yes:
    """An object that says itself whether it is true."""

    def __init__(self, cached, length):
        self.cached, self.length = cached, length

    def __bool__(self):
        return self.cached > 0 and self.length > 1


def by_the_masks(cached, length):
    """Writes both masks out, query by query."""
    seen = [[key <= query for key in range(cached + length)] for query in range(length)]
    due = [[key <= cached + query for key in range(cached + length)] for query in range(length)]
    return length > 1 and seen != due


def one_by_one(cache, length, new):
    """Calls itself for every row."""
    if not len(new):
        return length
    cache[length] = new[0]
    return one_by_one(cache, length + 1, new[1:])


def counted_out(n_prompt, n_output, chunk, n_chats, visit):
    """Serves the document, step by step."""
    time, left, said = 0, n_prompt, 0
    while said < n_output:
        time += visit * (n_chats + 1)
        left -= min(left, chunk)
        said += left == 0
    return time


def down_the_line(running, free, block_size):
    """Calls itself with one request less, or one that is evicted less."""
    if not running:
        return [], 0
    (_, cached), rest = running[0], running[1:]
    if cached % block_size:
        return down_the_line(rest, free, block_size)
    if free:
        return down_the_line(rest, free - 1, block_size)
    last, n = running[-1]
    if not rest:
        return [last], n
    evicted, again = down_the_line(running[:-1], free + math.ceil(n / block_size), block_size)
    return [last, *evicted], n + again


#: slow, deep or odd, and right within what the prompts allow
RIGHT = [
    ("branch_on_t", Yes),
    ("branch_on_t", by_the_masks),
    ("rope_positions", lambda s, n: [s, *RIGHT[2][1](s + 1, n - 1)] if n else []),
    ("who_emits", lambda s, n, p, g: not (["p"] * p + ["g"] * g)[s + n :]),
    ("cache_write", one_by_one),
    ("cache_write", written(lambda cache, a, b, new: cache.numpy().__setitem__(slice(a, b), new.numpy()))),
    ("cache_write", written(lambda cache, a, b, new: cache.index_copy_(0, torch.arange(a, b), new))),
    ("count_visits", counted_out),
    ("kv_bytes", lambda a, b, c, d, e, f: sum(2 * a * c * d * f for _ in range(e))),
    ("kv_bytes", lambda a, b, c, d, e, f: np.prod([2.0, a, c, d, e, f])),
    ("make_room", down_the_line),
    ("largest_gap", lambda times: max(np.diff(tokens, prepend=tokens[0]).max() for tokens in times.values())),
    ("starve", lambda budget, n, seconds: [(k, 1, 1) for k in range(seconds) for _ in range(budget)]),
    ("write_chunked_prefill", cp.ChunkedPrefill),
]


@pytest.mark.parametrize("k", range(len(RIGHT)), ids=lambda k: f"{RIGHT[k][0]}-{k}")
def test_what_is_right_within_the_prompt_passes(k):
    name, program = RIGHT[k]
    for seed in SEEDS:
        feedback = getattr(exercises, name).check(program, seed=seed)
        assert feedback.ok is True, str(feedback)


def test_replies_count_one_and_many_and_name_what_was_handed_in():
    def said(name, program):
        return getattr(exercises, name).check(program, seed=0).message

    rows = [[True], [True, True]]
    assert "Its rows have 1, 2, 3 cells" in said(
        "chunk_mask", lambda s, n: [[True] * (s + i + 1) for i in range(n)]
    )
    assert "expected a mask, as rows or as a tensor, in order" in said("chunk_mask", lambda s, n: {0: rows})
    odd = said("chunk_mask", lambda s, n: [[None] * (s + n) for _ in range(n)])
    assert "holds `None`; every cell is True or False" in odd and ".bool()" not in odd
    one_list = said("chunk_mask", lambda s, n: [[True] * (s + n)] * n)
    assert "rows 0 and 1 are one and the same list" in one_list.lower()
    assert "are one and the same list, which grew" in said("mixed_batch", growing)
    assert "shortest on average" in said("choose_budget", shortest_on_average)
    assert "expected (arrival" in said("refute_claim", lambda *_: [(math.nan,)])
    nan = said("refute_claim", lambda b, p: [(math.nan, b, 1)])
    assert nan.count("equest number 0") == 1 and "got nan" in nan
    plan = said("write_chunked_prefill", Sequences)
    assert "by the `rid` of each" in plan and "Sequence(" not in plan
    deep = said("kv_bytes", deeper)
    assert "too deeply for Python" in deep and "does that end?" in deep


def growing(batch, tables, block_size):
    """One list of slots, which every row holds."""
    rows = []
    for name, cached, length in batch:
        slots = []
        for p in range(cached + length):
            slots.append(tables[name][p // block_size] * block_size + p % block_size)
            if p >= cached:
                rows.append((p, slots[-1], slots))
    return rows


def shortest_on_average(seconds, budgets, n_decodes, n_prompt, bound):
    """The mean in place of the sum."""
    taken = totals(seconds, budgets, n_decodes, n_prompt)
    return min((b for b in budgets if max(taken[b]) <= bound), key=lambda b: sum(taken[b]) / len(taken[b]))


def deeper(*given):
    return deeper(*given)


class Sequences:
    """A plan of sequences."""

    def __init__(self, token_budget):
        pass

    def schedule(self, state):
        return cp.Plan(dict.fromkeys((*state.running, *state.waiting), 1))
