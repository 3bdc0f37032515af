"""PS1's second function: a chunk's turned keys and its values into a paged cache, in a drawn layout."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from chunkprefill_grading.problems.hidden import EXACT, TOLERANCE, hidden_inputs, normal, tried
from chunkprefill_grading.problems.sheet import Answers, Judgement, Question, tally
from chunkprefill_grading.problems.texts import fill
from chunkprefill_grading.sandbox.session import ArraySpec

CACHE_LAYOUTS = ("blocks slots Hkv D", "blocks Hkv slots D", "slots blocks Hkv D", "blocks slots D Hkv")
NEW_LAYOUTS = ("T Hkv D", "Hkv T D", "T D Hkv")
_CANONICAL = ("blocks", "slots", "Hkv", "D")
SIZES = (4, 8, 12)  # of a head: with the smallest alone, half a head is one pair, and pairings look alike
HEADS = (1, 2, 3)  # of keys and values: every criterion meets each
#: where a chunk lies: it begins and ends inside a block; at the edges of blocks; it is one token
PLACES = ("inside", "edges", "one")


@dataclass(frozen=True)
class Storing:
    """Where a position is stored, how its key is turned, and in which layout it is asked for."""

    block: int
    theta: float
    halves: bool  # number i is paired with i + R/2; else 2i with 2i + 1
    part: str  # which numbers of a head are turned: "all", "first" half, "last" half
    backwards: bool  # the turn is by -φ
    first: int  # the position that counts as 0 in φ is -first
    reversed: bool  # the last slot of a block is filled first
    joint: bool  # keys and values in one cache [2, ...]
    signature: tuple[str, ...]
    cache: str
    new: str

    def span(self, size: int) -> slice:
        """The numbers of a head that are turned."""
        return {"all": slice(0, size), "first": slice(0, size // 2), "last": slice(size // 2, size)}[
            self.part
        ]

    def turned(self, k: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """k [T, Hkv, D], each token turned by its position, in float64."""
        out = k.astype(float).copy()
        part = out[..., self.span(k.shape[-1])].copy()
        size = part.shape[-1]
        steps = (positions + self.first)[:, None, None]
        angles = steps * self.theta ** (-2.0 * np.arange(size // 2) / size)  # [T, 1, R/2]
        angles = -angles if self.backwards else angles
        one = slice(0, size // 2) if self.halves else slice(0, None, 2)
        two = slice(size // 2, None) if self.halves else slice(1, None, 2)
        a, b = part[..., one].copy(), part[..., two].copy()
        part[..., one] = a * np.cos(angles) - b * np.sin(angles)
        part[..., two] = a * np.sin(angles) + b * np.cos(angles)
        out[..., self.span(k.shape[-1])] = part
        return out

    def places(self, table: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The block and the slot in it of each position."""
        slots = positions % self.block
        return table[positions // self.block], self.block - 1 - slots if self.reversed else slots

    def store(self, cache: np.ndarray, table: np.ndarray, cached: int, new: np.ndarray) -> np.ndarray:
        """The cache [blocks, slots, Hkv, D] with `new` [T, Hkv, D] at positions cached, …"""
        out = cache.astype(float).copy()
        out[self.places(table, cached + np.arange(len(new)))] = new
        return out


def drawn(rng: random.Random) -> Storing:
    """Rules and a layout: thousands of them, so that the solution of one draw does not fit another."""
    joint = rng.random() < 0.5
    caches = ("cache",) if joint else ("cache_k", "cache_v")
    arguments = (*caches, "table", "cached", "k", "v")
    return Storing(
        block=rng.choice([3, 4, 5, 6]),
        theta=float(rng.randrange(20, 400) * 50),
        halves=rng.random() < 0.5,
        part=rng.choice(["all", "first", "last"]),
        backwards=rng.random() < 0.5,
        first=rng.choice([0, 1, 2]),
        reversed=rng.random() < 0.5,
        joint=joint,
        signature=tuple(rng.sample(arguments, len(arguments))),
        cache=rng.choice(CACHE_LAYOUTS),
        new=rng.choice(NEW_LAYOUTS),
    )


def _moved(array: np.ndarray, names: tuple[str, ...], layout: str) -> np.ndarray:
    return np.ascontiguousarray(array.transpose([names.index(name) for name in layout.split()]))


def store_question(rng: random.Random, seed: Callable[[str], random.Random]) -> Question:
    """Rules from `rng`; hidden inputs from the streams that `seed` opens."""
    rule = drawn(rng)

    def span(rng: random.Random, place: str, label: str) -> tuple[int, int]:
        """Positions that are cached, and of the chunk."""
        block, inside = rule.block, rng.randrange(1, rule.block)
        cached = 0 if label == "first" else block * rng.randrange(2, 6) + (inside if place != "edges" else 0)
        if place == "one":
            return cached and cached + block * (1024 // block), 1  # a position that 10 bits cannot count
        ends = -cached % block if place == "edges" else rng.randrange(1, block) - cached % block
        return cached, ends + block * rng.randrange(1, 4)

    def both(
        answers: Answers, rng: random.Random, numbers: Any, drawn: tuple[int, int, int, int, bool]
    ) -> Any:
        """Call it once; what came back and what was due, of keys and of values, and what may have changed."""
        cached, length, n_heads, size, shuffled = drawn
        n_blocks = -(-(cached + length) // rule.block) + rng.choice([0, 1])  # one may not be used yet
        table = np.arange(n_blocks, dtype=np.int64)
        if shuffled:  # never block i in place i: a write that forgets the table must miss
            table = np.array(rng.sample(range(n_blocks, 3 * n_blocks + 2), n_blocks), dtype=np.int64)
        shape = (int(table.max()) + 2, rule.block, n_heads, size)
        caches = [normal(numbers, *shape) for _ in range(2)]
        k, v = (normal(numbers, length, n_heads, size) for _ in range(2))
        laid = [_moved(cache, _CANONICAL, rule.cache) for cache in caches]
        sent: dict[str, Any] = {"table": table, "cached": cached}
        for name, array in (("k", k), ("v", v)):
            sent[name] = _moved(array, ("T", "Hkv", "D"), rule.new)
        sent |= {"cache": np.stack(laid), "cache_k": laid[0], "cache_v": laid[1]}
        args = [sent[name] for name in rule.signature]
        if rule.joint:
            (got,) = answers.call("store", args, [ArraySpec((2, *laid[0].shape), "float32")])
        else:
            got = answers.call("store", args, [ArraySpec(laid[0].shape, "float32")] * 2)
        positions = cached + np.arange(length)
        due = [
            _moved(rule.store(cache, table, cached, new), _CANONICAL, rule.cache)
            for cache, new in zip(caches, (rule.turned(k, positions), v))
        ]
        written = np.zeros(shape, bool)
        written[rule.places(table, positions)] = True
        return {
            what: (g, d, _moved(written, _CANONICAL, rule.cache))
            for what, g, d in zip(("keys", "values"), got, due)
        }

    def compared(found: Any, what: str) -> str:
        got, due, written = found
        off = np.abs(got - due) > np.where(written & (what == "keys"), TOLERANCE, EXACT)
        if (off & ~written).any():
            return f"slots changed that do not belong to this chunk ({what})"
        if not off.any():
            return ""
        return f"{'all' if off[written].all() else 'some'} of the {what} in its slots are off"

    def criterion(answers: Answers, label: str, parts: tuple[str, ...], what: str) -> tuple[bool, str]:
        for rng, numbers, place, size, n_heads in hidden_inputs(seed, label, PLACES, SIZES, HEADS):
            drawn = (*span(rng, place, label), n_heads, size, label != "first")

            def ask() -> str:
                found = both(answers, rng, numbers, drawn)  # noqa: B023
                return next(filter(None, (compared(found[part], part) for part in parts)), "")

            right, why = tried(ask, what)
            if not right:
                return False, why
        return True, ""

    def judge(answers: Answers) -> Judgement:
        """1 point for values, which hang on few of the rules, 2 for a first chunk's keys, 3 for a later one's."""
        cases = (
            (1.0, "values", ("values",), "Values of a later chunk"),
            (2.0, "first", ("keys",), "Keys of a first chunk"),
            (3.0, "keys", ("keys",), "Keys of a later chunk"),
        )
        parts = [(points, *criterion(answers, label, named, what)) for points, label, named, what in cases]
        return tally(parts, [what.lower() for *_, what in cases])

    signature = ", ".join(rule.signature)
    constants = f"BLOCK, THETA = {rule.block}, {rule.theta}\n\n\n"
    return Question(
        name="store",
        title="Store a chunk in a paged cache",
        kind="code",
        text=text(rule, signature),
        table=(
            ("values of later chunks in their slots, all other slots untouched", 1),
            ("keys of first chunks, where the blocks lie in order", 2),
            ("keys of later chunks in their slots, turned by their own positions", 3),
        ),
        starter=f"{constants}def store({signature}):\n    raise NotImplementedError",
        solution=constants + solution(rule, signature),
        form=form(rule),
        judge=judge,
    )


def text(rule: Storing, signature: str) -> str:
    """The question, in words."""
    turned = {
        "all": "all D numbers of a head are turned, R = D",
        "first": "of the D numbers of a head, the first R = D/2 are turned, and the others stay as they are",
        "last": "of the D numbers of a head, the last R = D/2 are turned, and the others stay as they are",
    }[rule.part]
    pairs = "Number i of these is paired with number i + R/2, for i < R/2"
    if not rule.halves:
        pairs = "Number 2i of these is paired with number 2i + 1, for i < R/2"
    rotation = "(a cos φ − b sin φ, a sin φ + b cos φ)"
    if rule.backwards:
        rotation = "(a cos φ + b sin φ, b cos φ − a sin φ)"
    step = f"(p + {rule.first})" if rule.first else "p"
    dims = ", ".join(rule.cache.split())
    caches = f"`cache_k` and `cache_v` are `[{dims}]`, with {rule.block} slots in a block"
    if rule.joint:
        caches = f"`cache` is `[2, {dims}]`, keys before values, with {rule.block} slots in a block"
    return fill(
        "store",
        block=rule.block,
        slot=f"{rule.block - 1} - p % {rule.block}" if rule.reversed else f"p % {rule.block}",
        turned=turned,
        pairs=pairs,
        rotation=rotation,
        angle=f"{step} · {rule.theta:g}^(−2i/R)",
        signature=signature,
        caches=caches,
        new=", ".join(rule.new.split()),
        returned="the cache" if rule.joint else "both caches, that of the keys first,",
    )


def form(rule: Storing) -> dict[str, Any]:
    """Shapes that the public check tries the function with."""
    sizes = {"blocks": 4, "slots": rule.block, "Hkv": 2, "D": 8, "T": 3}
    cache = ["float32", [sizes[name] for name in rule.cache.split()]]
    new = ["float32", [sizes[name] for name in rule.new.split()]]
    joint = ["float32", [2, *cache[1]]]
    args: dict[str, Any] = {"cache": joint, "cache_k": cache, "cache_v": cache, "table": ["int64", [4]]}
    args |= {"cached": 1, "k": new, "v": new}
    return {
        "kind": "arrays",
        "args": [args[name] for name in rule.signature],
        "returns": [joint] if rule.joint else [cache, cache],
    }


def solution(rule: Storing, signature: str) -> str:
    """The function in torch, in the drawn layout."""
    to_new = ", ".join(str(rule.new.split().index(name)) for name in ("T", "Hkv", "D"))
    order = rule.cache.split()
    at_front = ", ".join(str(order.index(name)) for name in _CANONICAL)
    span = {"all": "slice(0, D)", "first": "slice(0, D // 2)", "last": "slice(D // 2, D)"}[rule.part]
    one, two = ("[..., : R // 2]", "[..., R // 2 :]") if rule.halves else ("[..., 0::2]", "[..., 1::2]")
    sign, step = "-" if rule.backwards else "", f"(p + {rule.first})" if rule.first else "p"
    slot = "BLOCK - 1 - p % BLOCK" if rule.reversed else "p % BLOCK"
    lines = [
        f"def store({signature}):",
        f"    k, v = (x.permute({to_new}) for x in (k, v))  # [T, Hkv, D]",
        "    n_tokens, _, D = k.shape",
        "    p = cached + torch.arange(n_tokens)  # positions of the chunk",
        f"    turned, span = k.clone(), {span}",
        "    part = k[..., span]",
        "    R = part.shape[-1]",
        f"    angle = {sign}{step}[:, None, None] * THETA ** (-2 * torch.arange(R // 2) / R)  # [T, 1, R/2]",
        f"    a, b = part{one}, part{two}",
        "    made = torch.empty_like(part)",
        f"    made{one} = a * angle.cos() - b * angle.sin()",
        f"    made{two} = a * angle.sin() + b * angle.cos()",
        "    turned[..., span] = made",
        "    block = table[p // BLOCK]",
        f"    slot = {slot}",
    ]
    if rule.joint:
        lines += ["    cache = cache.clone()", "    cache_k, cache_v = cache[0], cache[1]"]
    else:
        lines += ["    cache_k, cache_v = cache_k.clone(), cache_v.clone()"]
    lines += [
        "    for cache_x, new in ((cache_k, turned), (cache_v, v)):",
        f"        cache_x.permute({at_front})[block, slot] = new  # a view [blocks, slots, Hkv, D]",
        f"    return {'cache' if rule.joint else 'cache_k, cache_v'}",
    ]
    return "\n".join(lines)
