"""Programs that an engineer wrote from the prompts alone, without a look at the known mistakes: those that passed."""

from __future__ import annotations

import heapq
import itertools

import numpy as np
import pytest
import torch

import chunkprefill as cp
from chunkprefill_course import exercises
from tests.course.exercises.programs import changed
from tests.proof import draws

SEEDS = draws(range(1), range(5))


def _narrow(kind):
    return lambda cached, length: torch.arange(cached, cached + length).to(kind).tolist()


def _gap_in(kind):
    return lambda times: max(
        (float(np.diff(np.array(moments, dtype=kind)).max()) for moments in times.values() if moments[1:]),
        default=0,
    )


def by_rank(rank):
    """`Aging` with another rank."""
    kept = "return seq.pending - self.rate * (state.now - seq.arrival)"
    return changed("write_aging", (kept, f"return {rank}"))


def by_length(key):
    """`ShortestFirst` by another length."""
    return changed("write_shortest_first", ("key=lambda seq: seq.pending", f"key=lambda seq: {key}"))


def over(tokens):
    """The loop over other tokens than the prompt's."""

    def prefill_in_chunks(prompt, chunk_size, run):
        for start in range(0, len(prompt), chunk_size):
            logits = run(tokens(prompt)[start : start + chunk_size])
        return logits

    return prefill_in_chunks


def where_it_stands(prompt, chunk_size, run):
    """Takes the first place of a token for its place."""
    chunk = []
    for token in prompt:
        chunk.append(token)
        if len(chunk) == chunk_size or prompt.index(token) == len(prompt) - 1:
            logits, chunk = run(chunk), []
    return logits


def until_a_zero(prompt, chunk_size, run):
    """Takes a token 0 for the end."""
    rest, logits = list(prompt), None
    while rest and rest[0]:
        logits = run(rest[:chunk_size])
        del rest[:chunk_size]
    return logits


def steps_of(seconds, budget, n_decodes, n_prompt):
    size = budget - n_decodes
    starts = range(0, n_prompt, size)
    return [seconds(min(size, n_prompt - start), start, n_decodes) for start in starts]


def stops_at_the_first_too_slow(seconds, budgets, n_decodes, n_prompt, bound):
    best, least = None, float("inf")
    for budget in sorted(budgets):
        taken = steps_of(seconds, budget, n_decodes, n_prompt)
        if max(taken) > bound:
            break
        if sum(taken) < least:
            best, least = budget, sum(taken)
    return best if best is not None else budgets[0]


def last_two_steps(seconds, budgets, n_decodes, n_prompt, bound):
    taken = {budget: steps_of(seconds, budget, n_decodes, n_prompt) for budget in budgets}
    return min((b for b in budgets if max(taken[b][-2:]) <= bound), key=lambda b: sum(taken[b]))


def climbs(seconds, budgets, n_decodes, n_prompt, bound):
    taken = {budget: steps_of(seconds, budget, n_decodes, n_prompt) for budget in budgets}
    fit = [b for b in sorted(budgets) if max(taken[b]) <= bound]
    for one, two in itertools.pairwise(fit):
        if sum(taken[two]) >= sum(taken[one]):
            return one
    return fit[-1]


def sixteens(seconds, budgets, n_decodes, n_prompt, bound):
    def taken(budget):
        return steps_of(seconds, max(1, (budget - n_decodes) // 16 * 16) + n_decodes, n_decodes, n_prompt)

    fit = [b for b in budgets if max(taken(b)) <= bound]
    return min(fit, key=lambda b: sum(taken(b)), default=budgets[0])


def cliff_by(measure):
    """The first pair, in order of size, that is a cliff by another measure."""

    def cliff(seconds, budgets, n_decodes, n_prompt):
        taken = {b: measure(seconds, b - n_decodes, n_decodes, n_prompt) for b in sorted(budgets)}
        pairs = [(a, b) for a in taken for b in taken if a < b and taken[a] < taken[b]]
        return pairs[0] if pairs else (min(budgets), max(budgets))

    return cliff


def without_cache(seconds, size, n, n_prompt):
    return sum(seconds(min(size, n_prompt - start), 0, n) for start in range(0, n_prompt, size))


def without_rest(seconds, size, n, n_prompt):
    return sum(seconds(size, start, n) for start in range(0, n_prompt - size + 1, size))


PROMPTS = "(*state.running, *state.waiting)"
WRONG = [
    ("branch_on_t", lambda cached, length: 0 < cached < 100 and length > 1),
    ("who_emits", lambda c, n, p, g: c + n == p + g and c < 1000),
    ("rope_positions", _narrow(torch.uint8)),
    ("rope_positions", _narrow(torch.int16)),
    ("rope_positions", _narrow(torch.bfloat16)),
    (
        "kv_bytes",
        lambda a, b, c, d, e, f: np.prod(np.array([2, a, c, d, e, f], dtype=np.int32), dtype=np.int32),
    ),
    ("kv_bytes", lambda a, b, c, d, e, f: torch.tensor([2.0, a, c, d, e, f]).prod()),
    ("largest_gap", _gap_in(np.float16)),
    ("largest_gap", _gap_in(np.float32)),
    ("chunk_loop", over(sorted)),
    ("chunk_loop", over(lambda prompt: list(dict.fromkeys(prompt)))),
    ("chunk_loop", where_it_stands),
    ("chunk_loop", until_a_zero),
    ("choose_budget", stops_at_the_first_too_slow),
    ("choose_budget", last_two_steps),
    ("choose_budget", climbs),
    ("choose_budget", sixteens),
    ("tile_cliff", cliff_by(without_cache)),
    ("tile_cliff", cliff_by(without_rest)),
    (
        "make_room",
        changed("make_room", ("left, evicted = list(running), []", "left, evicted = sorted(running), []")),
    ),
    ("vllm_step", changed("vllm_step", ("in running + waiting", "in sorted(running) + sorted(waiting)"))),
    ("vllm_step", changed("vllm_step", ("in running + waiting", "in running + waiting[:8]"))),
    ("write_linear", changed("write_linear", ("in requests:", "in sorted(requests):"))),
    (
        "write_linear",
        changed("write_linear", ("in requests:", "in (list(pending)[i] for i in range(len(requests))):")),
    ),
    (
        "write_linear",
        changed(
            "write_linear",
            ("    left =", "    known = set(map(str, decoding))\n    left ="),
            ("if name not in plan", "if str(name) not in known"),
        ),
    ),
    *(
        (name, changed(name, (old, new)))
        for name, old in (
            ("write_prefill_first", "in state.waiting:"),
            ("write_chunked_prefill", f"in {PROMPTS}:"),
            ("write_shortest_first", "seq.pending):"),
            ("write_aging", "key=rank):"),
        )
        for new in {
            "write_prefill_first": (
                "in sorted(state.waiting, key=lambda seq: seq.rid):",
                "in state.waiting[:8]:",
                "in state.waiting[:128]:",
            ),
            "write_chunked_prefill": (
                "in sorted((*state.running, *state.waiting), key=lambda seq: seq.rid):",
                "in (*state.running, *state.waiting[: max(0, 16 - len(state.running))]):",
                "in (*state.running, *state.waiting[: max(0, 128 - len(state.running))]):",
            ),
            "write_shortest_first": ("seq.pending)[:4]:", "seq.pending)[:128]:"),
            "write_aging": ("key=rank)[:4]:", "key=rank)[:128]:"),
        }[name]
    ),
    ("write_prefill_first", changed("write_prefill_first", ("in state.running}", "in state.running[:128]}"))),
    ("write_chunked_prefill", changed("write_chunked_prefill", ("pending, left)", "pending, left, 512)"))),
    (
        "write_chunked_prefill",
        changed("write_chunked_prefill", ("pending, left)", "pending, left // 16 * 16 or left)")),
    ),
    (
        "write_chunked_prefill",
        changed(
            "write_chunked_prefill",
            (f"in {PROMPTS}:", f"in sorted({PROMPTS}, key=lambda seq: -seq.cached):"),
        ),
    ),
    (
        "write_shortest_first",
        changed(
            "write_shortest_first",
            ("key=lambda seq: seq.pending", "key=lambda seq: seq.pending + seq.cached // 2"),
        ),
    ),
    (
        "write_shortest_first",
        changed(
            "write_shortest_first",
            (
                f"sorted({PROMPTS}, key=lambda seq: seq.pending)",
                f"[*sorted([*{PROMPTS}][:128], key=lambda seq: seq.pending), *[*{PROMPTS}][128:]]",
            ),
        ),
    ),
    ("write_aging", by_rank("seq.pending - self.rate * int(state.now - seq.arrival)")),
    ("write_aging", by_rank("seq.pending - self.rate * round(state.now - seq.arrival)")),
    ("write_aging", by_rank("seq.pending - self.rate * min(60, state.now - seq.arrival)")),
    ("starve", lambda budget, n, seconds: [(k, budget, 1) for k in range(min(seconds, 60))]),
    ("starve", lambda budget, n, seconds: [(k, min(budget, 32), 1) for k in range(seconds)]),
    ("refute_claim", lambda budget, patience: [(0, budget, 1)] * min(20, patience + 1)),
    ("refute_claim", lambda budget, patience: [(0, budget * min(patience + 1, 60), 1), (0, 1, 1)]),
    ("refute_claim", lambda budget, patience: [*[(0, 1, patience + 9)] * min(19, budget), (0, 1, 1)]),
    ("write_aging", by_rank("max(0, seq.pending - self.rate * (state.now - seq.arrival))")),
    ("write_aging", by_rank("seq.pending - int(self.rate) * (state.now - seq.arrival)")),
    ("write_aging", by_rank("seq.pending - round(self.rate) * (state.now - seq.arrival)")),
    # Slips of a second round: a rank with a floor, a rate or a wait with a roof, no rate taken for one.
    ("write_aging", by_rank("max(-1000, seq.pending - self.rate * (state.now - seq.arrival))")),
    ("write_aging", by_rank("seq.pending - min(self.rate, 512) * (state.now - seq.arrival)")),
    ("write_aging", by_rank("seq.pending - self.rate * min(state.now - seq.arrival, 256)")),
    ("write_aging", by_rank("seq.pending - (self.rate or 1) * (state.now - seq.arrival)")),
    ("write_shortest_first", by_length("seq.pending + seq.cached / 100")),
    ("write_shortest_first", by_length("seq.pending - seq.cached / 100")),
    (
        "write_shortest_first",
        changed(
            "write_shortest_first",
            ("(*state.running, *state.waiting)", "state.waiting[:16] + [*state.running]"),
        ),
    ),
    (
        "write_chunked_prefill",
        changed(
            "write_chunked_prefill",
            (
                "and left > 0:",
                "and left > 0 and (seq.cached or sum(not s.decoding for s in state.running) < 3):",
            ),
        ),
    ),
    (
        "write_prefill_first",
        changed(
            "write_prefill_first",
            ("in state.running}", "in sorted(state.running, key=lambda s: s.generated > 256)[:2]}"),
        ),
    ),
    (
        "write_prefill_first",
        changed(
            "write_prefill_first",
            (
                "tokens = {seq.rid: 1 for seq in state.running}",
                "tokens = {seq.rid: 1 for seq in state.running if seq.generated < 256} or state.running.each(1)",
            ),
        ),
    ),
    (
        "make_room",
        changed(
            "make_room",
            (
                "    for name, cached in running:",
                "    free = min(free, 200)\n    for name, cached in running:",
            ),
        ),
    ),
    ("make_room", changed("make_room", ("-(-n // block_size)", "min(200, -(-n // block_size))"))),
    (
        "make_room",
        lambda *given: [
            each if isinstance(each, int) else each[:100] for each in exercises.make_room.solution(*given)
        ],
    ),
    ("make_room", lambda running, free, size: exercises.make_room.solution(running[:200], free, size)),
]


@pytest.mark.parametrize("k", range(len(WRONG)), ids=lambda k: f"{WRONG[k][0]}-{k}")
def test_they_are_caught_in_every_check(k):
    name, program = WRONG[k]
    for seed in SEEDS:
        feedback = getattr(exercises, name).check(program, seed=seed)
        assert feedback.ok is False and "remembers" not in str(feedback), str(feedback)


def rows_with_iterators(batch, tables, block_size):
    """What a row sees as something that can be read once."""
    for name, cached, length in batch:
        slots = [tables[name][p // block_size] * block_size + p % block_size for p in range(cached + length)]
        yield from ((p, slots[p], iter(slots[: p + 1])) for p in range(cached, cached + length))


class InBytes:
    """Its plans hold numbers of eight bits: what they are added to is longer."""

    def __init__(self, token_budget):
        self.policy = cp.ChunkedPrefill(token_budget)

    def schedule(self, state):
        tokens = self.policy.schedule(state).tokens
        return cp.Plan({rid: np.uint8(n) if n < 99 else np.int32(n) for rid, n in tokens.items()})


class OnAHeap:
    """Who has the least left, from a heap, ties by the later one."""

    def __init__(self, token_budget):
        self.token_budget = token_budget

    def schedule(self, state):
        tokens = {seq.rid: 1 for seq in state.running if seq.decoding}
        every = enumerate((*state.waiting, *state.running))
        heap = [(seq.pending, -k, seq.rid) for k, seq in every if not seq.decoding]
        heapq.heapify(heap)
        left = self.token_budget - len(tokens)
        while heap and left:
            pending, _, rid = heapq.heappop(heap)
            tokens[rid] = min(pending, left)
            left -= tokens[rid]
        return cp.Plan(tokens)


RIGHT = [
    ("starve", lambda budget, n, seconds: [(k, budget, 1) for k in range(1000)]),
    ("starve", lambda budget, n, seconds: [(k, 1, 1) for k in range(seconds) for _ in range(budget)]),
    ("starve", lambda budget, n, seconds: np.array([(k, budget, 1) for k in range(seconds)])),
    ("refute_claim", lambda budget, patience: np.array([(0, budget * patience, 1), (0, budget, 1)])),
    ("refute_claim", lambda budget, patience: [(3, budget * (patience + 1), 9), (3.25, budget, 1000)]),
    ("mixed_batch", rows_with_iterators),
    ("mixed_batch", lambda *given: list(rows_with_iterators(*given))),
    ("write_shortest_first", OnAHeap),
    ("write_chunked_prefill", InBytes),
    (
        "chunk_loop",
        lambda tokens, size, run: [run(tuple(tokens[i : i + size])) for i in range(0, len(tokens), size)][-1],
    ),
    (
        "write_linear",
        lambda *given: exercises.write_linear.solution([n for n, _ in given[2].items()], *given[1:]),
    ),
    (
        "write_linear",
        lambda *given: exercises.write_linear.solution([*reversed([*reversed(given[2])])], *given[1:]),
    ),
]


@pytest.mark.parametrize("k", range(len(RIGHT)), ids=lambda k: f"{RIGHT[k][0]}-{k}")
def test_right_ones_pass(k):
    name, program = RIGHT[k]
    for seed in SEEDS:
        feedback = getattr(exercises, name).check(program, seed=seed)
        assert feedback.ok is True, str(feedback)
