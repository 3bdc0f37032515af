"""PS1's first function: attention of a chunk, under a rule and in a layout that the secret draws."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chunkprefill_grading.problems.hidden import TOLERANCE, hidden_inputs, normal, tried
from chunkprefill_grading.problems.sheet import Answers, Judgement, Question, tally
from chunkprefill_grading.problems.texts import fill
from chunkprefill_grading.sandbox.session import ArraySpec

ARGUMENTS = ("q", "k", "v", "start")
Q_LAYOUTS = ("T H D", "H T D", "T D H")
KV_LAYOUTS = ("S Hkv D", "Hkv S D", "Hkv D S", "S D Hkv")
OUT_LAYOUTS = ("T H D", "H T D", "T H*D")
#: query heads and key/value heads of the hidden inputs: some share, all share, none does. Confused numbers tell.
HEADS = (((6, 2), (6, 3)), ((5, 1), (3, 1)), ((3, 3), (5, 5)))
SIZES = (4, 8, 10)  # of a head: never as many as there are heads
#: who is seen: words, and code on `p` [T, 1] and `j` [1, S]
SEEN = {
    "sink": (
        "j is one of the last $width positions up to p (p itself counts) **or** one of the first $other "
        "positions of the prompt",
        "(p - j < WIDTH) | (j < OTHER)",
    ),
    "stride": (
        "j is one of the last $width positions up to p (p itself counts) **or** a multiple of $other",
        "(p - j < WIDTH) | (j % OTHER == 0)",
    ),
    "blocks": (
        "j lies in the same block of $other positions as p (0 to $last, and so on) **or** is one of the last "
        "$width positions up to p (p itself counts)",
        "(p - j < WIDTH) | (j // OTHER == p // OTHER)",
    ),
    "parity": (
        "j is one of the last $width positions up to p (p itself counts) **or** p − j is a multiple of $other",
        "(p - j < WIDTH) | ((p - j) % OTHER == 0)",
    ),
}
#: what q·k is divided by: words, code, and the number for D
SCALES: dict[str, tuple[str, str, Callable[[int], float]]] = {
    "root": ("√D", "size**0.5", lambda size: size**0.5),
    "half root": ("(2√D)", "(2 * size**0.5)", lambda size: 2 * size**0.5),
    "width": ("D", "size", float),
    "root of twice": ("√(2D)", "(2 * size) ** 0.5", lambda size: (2 * size) ** 0.5),
}
#: how scores become weights: words, and code
WEIGHTS = {
    "all": (
        "the softmax of the scores over the keys that are seen",
        "scores.masked_fill(~seen, -torch.inf).softmax(-1)",
    ),
    "some": (
        "the softmax of the scores over the keys that are seen **and one more score of 0, whose weight goes to no "
        "key**",
        "torch.cat([scores.masked_fill(~seen, -torch.inf), torch.zeros_like(scores[..., :1])], -1)"
        ".softmax(-1)[..., :-1]",
    ),
}
#: scores: words, and code on `scores` [H, T, S]
SCORES = {
    "capped": (
        "q·k / $scale, and of that c · tanh(score / c) with c = $number",
        "NUMBER * torch.tanh(scores / NUMBER)",
    ),
    "distance": ("q·k / $scale, less $number · (p − j)", "scores - NUMBER * (p - j)"),
    "length": ("$number · q·k / $scale · ln(p + 2)", "NUMBER * scores * torch.log(p + 2.0)"),
    "first": ("q·k / $scale, and $number is added where j is p itself", "scores + NUMBER * (p == j)"),
}


@dataclass(frozen=True)
class Attention:
    """A drawn rule, and the layout that it is asked for in."""

    width: int
    other: int
    number: float
    seen: str  # of SEEN
    scores: str  # of SCORES
    interleaved: bool  # query head h uses key/value head h % Hkv; else neighbours share one
    signature: tuple[str, ...]
    q: str
    kv: str
    out: str
    scale: str = "root"  # of SCALES
    weights: str = "all"  # of WEIGHTS

    def sees(self, p: np.ndarray, j: np.ndarray) -> np.ndarray:
        """[T, S]: whether the query at p [T, 1] sees the key at j [1, S]."""
        near = p - j < self.width
        far = {
            "sink": j < self.other,
            "stride": j % self.other == 0,
            "blocks": j // self.other == p // self.other,
            "parity": (p - j) % self.other == 0,
        }[self.seen]
        return (j <= p) & (near | far)

    def scored(self, scores: np.ndarray, p: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Scores [T, S] of one head, by the drawn rule."""
        if self.scores == "capped":
            return self.number * np.tanh(scores / self.number)
        if self.scores == "distance":
            return scores - self.number * (p - j)
        if self.scores == "length":
            return self.number * scores * np.log(p + 2.0)
        return scores + self.number * (p == j)

    def attend(self, q: np.ndarray, k: np.ndarray, v: np.ndarray, start: int) -> np.ndarray:
        """q [T, H, D], k and v [S, Hkv, D] -> [T, H, D], head by head, in float64."""
        n_queries, n_heads, size = q.shape
        n_shared = k.shape[1]
        p, j = start + np.arange(n_queries)[:, None], np.arange(k.shape[0])[None, :]
        out = np.zeros(q.shape)
        for h in range(n_heads):
            shared = h % n_shared if self.interleaved else h // (n_heads // n_shared)
            scores = q[:, h].astype(float) @ k[:, shared].astype(float).T / SCALES[self.scale][2](size)
            scores = np.where(self.sees(p, j), self.scored(scores, p, j), -np.inf)
            top = scores.max(axis=1, keepdims=True)
            weights = np.exp(scores - top)
            whole = weights.sum(axis=1, keepdims=True) + (np.exp(-top) if self.weights == "some" else 0.0)
            out[:, h] = weights @ v[:, shared].astype(float) / whole
        return out


def drawn(rng: random.Random) -> Attention:
    """A rule and a layout: 221,184 of them, so that the solution of one draw does not fit another."""
    scale, weights = rng.choice(list(SCALES)), rng.choice(list(WEIGHTS))
    scores = rng.choice(list(SCORES))
    bounds = {"capped": (0.6, 1.2), "distance": (0.15, 0.4), "length": (0.6, 1.4), "first": (0.8, 1.8)}[
        scores
    ]
    seen = rng.choice(list(SEEN))
    return Attention(
        width=rng.randrange(4, 9),
        other=rng.randrange(11, 17) if seen == "blocks" else rng.randrange(3, 6),
        number=round(rng.uniform(*bounds), 2),
        seen=seen,
        scores=scores,
        interleaved=rng.random() < 0.5,
        signature=tuple(rng.sample(ARGUMENTS, len(ARGUMENTS))),
        q=rng.choice(Q_LAYOUTS),
        kv=rng.choice(KV_LAYOUTS),
        out=rng.choice(OUT_LAYOUTS),
        scale=scale,
        weights=weights,
    )


def laid_out(array: np.ndarray, first: Sequence[str], layout: str) -> np.ndarray:
    """An array whose dimensions are named `first`, in the order of `layout`; "H*D" joins two of them."""
    names = layout.replace("*", " ").split()
    moved = array.transpose([list(first).index(name) for name in names])
    joined = [n.split("*") for n in layout.split()]
    shape, at = [], 0
    for names_of in joined:
        size = 1
        for _ in names_of:
            size *= moved.shape[at]
            at += 1
        shape.append(size)
    return np.ascontiguousarray(moved.reshape(shape))


def commas(layout: str) -> str:
    """A layout as it is written in a text."""
    return ", ".join(layout.replace("*", " · ").split(" ")).replace(", ·,", " ·")


def attention_question(rng: random.Random, seed: Callable[[str], random.Random]) -> Question:
    """A rule from `rng`; hidden inputs from the streams that `seed` opens."""
    rule = drawn(rng)

    def one(answers: Answers, numbers: Any, start: int, length: int, shape: tuple[int, int, int]) -> str:
        n_heads, n_shared, size = shape
        q = normal(numbers, length, n_heads, size)
        k, v = (normal(numbers, start + length, n_shared, size) for _ in range(2))
        due = laid_out(rule.attend(q, k, v, start), ("T", "H", "D"), rule.out)
        sent = {
            "q": laid_out(q, ("T", "H", "D"), rule.q),
            "k": laid_out(k, ("S", "Hkv", "D"), rule.kv),
            "v": laid_out(v, ("S", "Hkv", "D"), rule.kv),
            "start": start,
        }
        args = [sent[name] for name in rule.signature]
        (got,) = answers.call("chunk_attention", args, [ArraySpec(due.shape, "float32")])
        off = np.abs(got - due) > TOLERANCE
        return "" if not off.any() else f"{'all' if off.all() else 'some'} of the numbers are off"

    def criterion(answers: Answers, label: str, what: str) -> tuple[bool, str]:
        for rng, numbers, heads, size, several in hidden_inputs(
            seed, label, HEADS, SIZES, (True, True, False)
        ):
            shape = (*rng.choice(heads), size)
            start, length = 0, rng.randrange(3, rule.width + 1)
            if label == "later":
                start, length = rng.randrange(1, rule.width - 1), rng.randrange(2, 5) if several else 1
            if label == "far":
                start = rng.randrange(rule.width + 4, 4 * rule.width)
                length = rng.randrange(4, 2 * rule.width)
                if not several:
                    start, length = rng.randrange(1030, 1200), 1  # more keys than 10 bits count
            right, why = tried(lambda: one(answers, numbers, start, length, shape), what)  # noqa: B023
            if not right:
                return False, why
        return True, ""

    def judge(answers: Answers) -> Judgement:
        """2 points for a prompt's first chunk, 2 for a later one, 2 for far keys."""
        cases = (
            ("first", "A first chunk"),
            ("later", "A later chunk"),
            ("far", "A chunk far from the start"),
        )
        parts = [(2.0, *criterion(answers, label, what)) for label, what in cases]
        return tally(parts, [what.lower() for _, what in cases])

    values = {"width": rule.width, "other": rule.other, "last": rule.other - 1, "number": f"{rule.number:g}"}
    values["scale"] = SCALES[rule.scale][0]
    signature = ", ".join(rule.signature)
    constants = f"WIDTH, OTHER, NUMBER = {rule.width}, {rule.other}, {rule.number:g}\n\n\n"
    example = examples(rule)
    return Question(
        name="chunk_attention",
        title="Attention of a chunk",
        kind="code",
        text=fill(
            "attention",
            seen=filled(SEEN[rule.seen][0], values),
            scores=filled(SCORES[rule.scores][0], values),
            signature=signature,
            q=commas(rule.q),
            kv=commas(rule.kv),
            out=commas(rule.out),
            weights=WEIGHTS[rule.weights][0],
            sharing="h % Hkv" if rule.interleaved else "h // (H // Hkv)",
        ),
        table=(
            ("first chunks, as long as the window or shorter", 2),
            ("later chunks that begin within the window", 2),
            ("chunks far from the start", 2),
        ),
        starter=f"{constants}def chunk_attention({signature}):\n    raise NotImplementedError",
        solution=constants + solution(rule),
        form={
            "kind": "arrays",
            "args": [example[name] for name in rule.signature],
            "returns": [["float32", example["out"]]],
        },
        judge=judge,
    )


def filled(words: str, values: dict[str, Any]) -> str:
    """Words with their `$names` filled in."""
    for name, value in values.items():
        words = words.replace(f"${name}", str(value))
    return words


def examples(rule: Attention) -> dict[str, Any]:
    """Shapes that the public check tries the function with, and the shape that must come back."""
    sizes = {"T": 3, "H": 4, "D": 8, "S": 5, "Hkv": 2}
    out = [sizes["H"] * sizes["D"] if "*" in name else sizes[name] for name in rule.out.split()]
    q = ["float32", [sizes[name] for name in rule.q.split()]]
    kv = ["float32", [sizes[name] for name in rule.kv.split()]]
    return {"q": q, "k": kv, "v": kv, "start": 2, "out": out}


def solution(rule: Attention) -> str:
    """The function in torch, in the drawn layout."""
    to_q = [rule.q.split().index(name) for name in ("T", "H", "D")]
    to_kv = [rule.kv.split().index(name) for name in ("S", "Hkv", "D")]
    shared = "heads % k.shape[1]" if rule.interleaved else "heads // (n_heads // k.shape[1])"
    back = {"T H D": "out", "H T D": "out.transpose(0, 1)", "T H*D": "out.reshape(n_queries, -1)"}[rule.out]
    return "\n".join(
        [
            f"def chunk_attention({', '.join(rule.signature)}):",
            f"    q = q.permute({', '.join(map(str, to_q))})  # [T, H, D]",
            f"    k, v = (x.permute({', '.join(map(str, to_kv))}) for x in (k, v))  # [S, Hkv, D]",
            "    n_queries, n_heads, size = q.shape",
            "    heads = torch.arange(n_heads)",
            f"    shared = {shared}  # of each query head",
            "    k, v = k[:, shared], v[:, shared]  # [S, H, D]",
            "    p = start + torch.arange(n_queries)[:, None]  # position of each query",
            "    j = torch.arange(k.shape[0])[None, :]  # position of each key",
            f"    seen = (j <= p) & ({SEEN[rule.seen][1]})",
            f'    scores = torch.einsum("thd,shd->hts", q, k) / {SCALES[rule.scale][1]}',
            f"    scores = {SCORES[rule.scores][1]}",
            f"    weights = {WEIGHTS[rule.weights][1]}",
            '    out = torch.einsum("hts,shd->thd", weights, v)',
            f"    return {back}",
        ]
    )
