"""PS1's functions: attention of a chunk with a window, the paged write of turned keys; numpy references."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from chunkprefill.grading.problems.sheet import Answers, Question, Verdict, plainly, tally
from chunkprefill.grading.session import ArraySpec, BadAnswer, Raised

TOLERANCE = 2e-3  # absolute, of float32 numbers of size one: far above rounding, far below a wrong rule
N_INPUTS = 3  # hidden inputs a criterion


@dataclass(frozen=True)
class Window:
    """Who sees whom: the first `sink` positions always, and the last `width` of those up to one's own."""

    width: int
    sink: int

    def visible(self, query: int, key: int) -> bool:
        """Whether the query at one position sees the key at another."""
        return key <= query and (query - key < self.width or key < self.sink)

    def attend(self, q: np.ndarray, k: np.ndarray, v: np.ndarray, start: int) -> np.ndarray:
        """q [T, H, D], k and v [S, Hkv, D] -> [T, H, D], query by query, head by head, in float64."""
        n_queries, n_heads, size = q.shape
        group, out = n_heads // k.shape[1], np.zeros(q.shape)
        for i in range(n_queries):
            seen = [j for j in range(k.shape[0]) if self.visible(start + i, j)]
            for h in range(n_heads):
                scores = k[seen, h // group].astype(float) @ q[i, h].astype(float) / size**0.5
                weights = np.exp(scores - scores.max())
                out[i, h] = weights @ v[seen, h // group].astype(float) / weights.sum()
        return out


@dataclass(frozen=True)
class Paging:
    """Where a position's key is stored, and how it is turned: blocks of `block` slots; pairs of numbers."""

    block: int
    theta: float
    halves: bool  # number i is paired with i + D/2; else 2i with 2i + 1

    def turned(self, k: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """k [T, Hkv, D], each token turned by its position, in float64."""
        size = k.shape[-1]
        angles = positions[:, None, None] * self.theta ** (-2.0 * np.arange(size // 2) / size)  # [T, 1, D/2]
        first = slice(0, size // 2) if self.halves else slice(0, None, 2)
        other = slice(size // 2, None) if self.halves else slice(1, None, 2)
        out, a, b = np.zeros(k.shape), k[..., first].astype(float), k[..., other].astype(float)
        out[..., first] = a * np.cos(angles) - b * np.sin(angles)
        out[..., other] = a * np.sin(angles) + b * np.cos(angles)
        return out

    def store(
        self, cache: np.ndarray, table: np.ndarray, cached: int, new: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The cache [slots, Hkv, D] with `new` [T, Hkv, D] at positions cached, ...; the slots written."""
        positions = cached + np.arange(len(new))
        slots = table[positions // self.block] * self.block + positions % self.block
        out = cache.astype(float).copy()
        out[slots] = new
        return out, slots


def _normal(random: np.random.Generator, *shape: int) -> np.ndarray:
    return random.standard_normal(shape).astype(np.float32)


def _hidden(
    seed: Callable[[str], random.Random], label: str
) -> Iterator[tuple[random.Random, np.random.Generator]]:
    """A whole-number and an array generator for each hidden input of a criterion."""
    rng = seed(label)
    for _ in range(N_INPUTS):
        yield rng, np.random.default_rng(rng.getrandbits(64))


def _tried(ask: Callable[[], str], what: str) -> tuple[bool, str]:
    """Whether a check passes; if not, its comment, or what the student's code did instead of answering."""
    try:
        why = ask()
    except (BadAnswer, Raised) as refused:
        why = plainly(refused)
    return not why, f"{what}: {why}." if why else ""


def attention_question(rng: random.Random, seed: Callable[[str], random.Random]) -> Question:
    """A window from `rng`; hidden inputs from the streams that `seed` opens."""
    rule = Window(rng.randrange(6, 12), rng.randrange(1, 4))

    def one(answers: Answers, numbers: Any, start: int, length: int, heads: tuple[int, int]) -> str:
        size = 4
        q = _normal(numbers, length, heads[0], size)
        k, v = (_normal(numbers, start + length, heads[1], size) for _ in range(2))
        (got,) = answers.call("chunk_attention", [q, k, v, start], [ArraySpec(q.shape, "float32")])
        wrong = np.abs(got - rule.attend(q, k, v, start)).max(axis=(1, 2)) > TOLERANCE
        if not wrong.any():
            return ""
        return f"{wrong.sum()} of {length} queries are off, the first is the chunk's query {wrong.argmax()}"

    def criterion(answers: Answers, label: str, what: str) -> tuple[bool, str]:
        for rng, numbers in _hidden(seed, label):
            heads = rng.choice([(2, 2), (3, 3)])
            start, length = 0, rng.randrange(3, rule.width + 1)
            if label != "first":
                start, length = rng.randrange(1, rule.width - 2), rng.randrange(2, 4)
                length = min(length, rule.width - start)
            if label == "window":
                heads = rng.choice([(4, 2), (6, 2), (6, 3)])
                start, length = (
                    rng.randrange(rule.width + 4, 3 * rule.width),
                    rng.randrange(2, 2 * rule.width),
                )
            right, why = _tried(lambda: one(answers, numbers, start, length, heads), what)  # noqa: B023
            if not right:
                return False, why
        return True, ""

    def judge(answers: Answers) -> Verdict:
        """2 points for a prompt's first chunk, 2 for a later one, 2 for far keys and shared heads."""
        cases = (
            ("first", "A first chunk"),
            ("later", "A later chunk"),
            ("window", "A chunk far from the start"),
        )
        parts = [(2.0, *criterion(answers, label, what)) for label, what in cases]
        return tally(parts, [what.lower() for _, what in cases])

    text = (
        "This model does not look at everything. The query at position p sees the key at position j if j is "
        "not "
        f"after p, and if j is one of the last {rule.width} positions up to p (p itself counts) **or** one "
        f"of the "
        f"first {rule.sink} positions of the prompt. Write `chunk_attention(q, k, v, start)` for a chunk "
        f"whose "
        "first token stands at position `start`:\n\n"
        "- `q` is `[T, H, D]`: the chunk's queries, at positions start, start + 1, …\n"
        "- `k` and `v` are `[S, Hkv, D]`: positions 0 to S − 1, the chunk's own at the end, so S = start + "
        "T. "
        "H is a multiple of Hkv, and query head h uses key/value head h // (H // Hkv).\n"
        "- It returns `[T, H, D]`: softmax of q·k / √D over the keys that are seen, times v."
    )
    solution = (
        "def chunk_attention(q, k, v, start):\n"
        "    n_queries, n_heads, size = q.shape\n"
        "    k, v = (x.repeat_interleave(n_heads // x.shape[1], dim=1) for x in (k, v))  # [S, H, D]\n"
        "    p = start + torch.arange(n_queries)[:, None]  # position of each query\n"
        "    j = torch.arange(k.shape[0])[None, :]  # position of each key\n"
        "    seen = (j <= p) & ((p - j < WINDOW) | (j < SINK))\n"
        '    scores = torch.einsum("thd,shd->hts", q, k) / size**0.5\n'
        '    return torch.einsum("hts,shd->thd", scores.masked_fill(~seen, -torch.inf).softmax(-1), v)'
    )
    arrays = [["float32", [3, 4, 8]], ["float32", [5, 2, 8]], ["float32", [5, 2, 8]], 2]
    return Question(
        name="chunk_attention",
        title="Attention of a chunk",
        kind="code",
        text=text,
        table=(
            ("first chunks, as long as the window or shorter", 2),
            ("later chunks that see everything before them", 2),
            ("chunks far from the start, with fewer key/value heads than query heads", 2),
        ),
        starter=f"WINDOW, SINK = {rule.width}, {rule.sink}\n\n\ndef chunk_attention(q, k, v, start):\n"
        "    raise NotImplementedError",
        solution=f"WINDOW, SINK = {rule.width}, {rule.sink}\n\n\n{solution}",
        form={"kind": "arrays", "args": arrays, "returns": [["float32", [3, 4, 8]]]},
        judge=judge,
    )


def store_question(rng: random.Random, seed: Callable[[str], random.Random]) -> Question:
    """Block size, base and pairing from `rng`; hidden inputs from the streams that `seed` opens."""
    rule = Paging(rng.choice([3, 4, 5, 6]), float(rng.randrange(20, 400) * 50), rng.random() < 0.5)

    def both(
        answers: Answers, rng: random.Random, numbers: Any, cached: int, shuffled: bool
    ) -> dict[str, Any]:
        """Call it once; what came back and what was due, of keys and of values."""
        n_heads, size, length = rng.choice([1, 2, 3]), rng.choice([4, 6, 8]), rng.randrange(3, 3 * rule.block)
        n_blocks = -(-(cached + length) // rule.block)
        table = np.arange(n_blocks, dtype=np.int64)
        if shuffled:  # never block i in place i: a write that forgets the table must miss
            table = np.array(rng.sample(range(n_blocks, 3 * n_blocks + 2), n_blocks), dtype=np.int64)
        n_slots = rule.block * (int(table.max()) + 2)
        caches = [_normal(numbers, n_slots, n_heads, size) for _ in range(2)]
        k, v = (_normal(numbers, length, n_heads, size) for _ in range(2))
        spec = ArraySpec(caches[0].shape, "float32")
        got = answers.call("store", [*caches, table, cached, k, v], [spec, spec])
        turned = rule.turned(k, cached + np.arange(length))
        due = [rule.store(cache, table, cached, new) for cache, new in zip(caches, (turned, v))]
        return {what: (g, d, slots) for what, g, (d, slots) in zip(("keys", "values"), got, due)}

    def compared(found: Any, what: str) -> str:
        got, due, slots = found
        off = np.abs(got - due).max(axis=(1, 2)) > TOLERANCE
        written = np.isin(np.arange(len(off)), slots)
        if (off & ~written).any():
            return f"{(off & ~written).sum()} slots changed that do not belong to this chunk ({what})"
        return f"{(off & written).sum()} of {written.sum()} slots hold other {what} than they should" * bool(
            off.any()
        )

    def criterion(answers: Answers, label: str, parts: tuple[str, ...], what: str) -> tuple[bool, str]:
        for rng, numbers in _hidden(seed, label):
            cached = 0 if label == "first" else rng.randrange(rule.block + 1, 6 * rule.block)

            def ask() -> str:
                found = both(answers, rng, numbers, cached, label != "first")  # noqa: B023
                return next(filter(None, (compared(found[part], part) for part in parts)), "")

            right, why = _tried(ask, what)
            if not right:
                return False, why
        return True, ""

    def judge(answers: Answers) -> Verdict:
        """2 points for values, 2 for the keys of a first chunk, 2 for those of a later one."""
        cases = (
            ("values", ("values",), "Values of a later chunk"),
            ("first", ("keys",), "Keys of a first chunk"),
            ("keys", ("keys",), "Keys of a later chunk"),
        )
        parts = [(2.0, *criterion(answers, *case)) for case in cases]
        return tally(parts, [what.lower() for _, _, what in cases])

    pairs = (
        "Number i of a key is paired with number i + D/2, for i < D/2"
        if rule.halves
        else "Number 2i of a key is paired with number 2i + 1, for i < D/2"
    )
    text = (
        f"The cache lies in blocks of {rule.block} slots. Position p of this sequence is stored in slot "
        f"`table[p // {rule.block}] * {rule.block} + p % {rule.block}`. Keys are stored turned (RoPE), "
        f"values as "
        f"they are. {pairs}; the pair (a, b) of the token at position p becomes "
        f"(a cos φ − b sin φ, a sin φ + b cos φ), with φ = p · {rule.theta:g}^(−2i/D). "
        "Write `store(cache_k, cache_v, table, cached, k, v)`:\n\n"
        "- `cache_k`, `cache_v` are `[slots, Hkv, D]`; `table` is `[blocks]`, whole numbers\n"
        "- `cached` positions of the sequence are stored already\n"
        "- `k`, `v` are `[T, Hkv, D]`: the keys, not yet turned, and values of its next T tokens\n"
        "- It returns both caches with the chunk stored. All other slots stay as they are."
    )
    first, other = ("[..., : D // 2]", "[..., D // 2 :]") if rule.halves else ("[..., 0::2]", "[..., 1::2]")
    solution = (
        "def store(cache_k, cache_v, table, cached, k, v):\n"
        "    n_tokens, _, D = k.shape\n"
        "    p = cached + torch.arange(n_tokens)  # positions of the chunk\n"
        "    angle = p[:, None, None] * THETA ** (-2 * torch.arange(D // 2) / D)  # [T, 1, D/2]\n"
        f"    a, b = k{first}, k{other}\n"
        "    turned = torch.empty_like(k)\n"
        f"    turned{first} = a * angle.cos() - b * angle.sin()\n"
        f"    turned{other} = a * angle.sin() + b * angle.cos()\n"
        "    slots = table[p // BLOCK] * BLOCK + p % BLOCK\n"
        "    cache_k, cache_v = cache_k.clone(), cache_v.clone()\n"
        "    cache_k[slots], cache_v[slots] = turned, v\n"
        "    return cache_k, cache_v"
    )
    constants = f"BLOCK, THETA = {rule.block}, {rule.theta}\n\n\n"
    cache = ["float32", [4 * rule.block, 2, 8]]
    arrays = [cache, cache, ["int64", [2]], 1, ["float32", [3, 2, 8]], ["float32", [3, 2, 8]]]
    return Question(
        name="store",
        title="Store a chunk in a paged cache",
        kind="code",
        text=text,
        table=(
            ("values of later chunks in their slots, all other slots untouched", 2),
            ("keys of first chunks, where the blocks lie in order", 2),
            ("keys of later chunks in their slots, turned by their own positions", 2),
        ),
        starter=f"{constants}def store(cache_k, cache_v, table, cached, k, v):\n    raise "
        f"NotImplementedError",
        solution=constants + solution,
        form={"kind": "arrays", "args": arrays, "returns": [cache, cache]},
        judge=judge,
    )
