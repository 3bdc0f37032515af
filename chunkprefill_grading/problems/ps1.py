"""PS1, the cache: order its building, count its cost, attend from a chunk, store a chunk."""

from __future__ import annotations

import random
from functools import partial

from chunkprefill_grading.problems.draw import pick, stamp, stream
from chunkprefill_grading.problems.ps1_attention import attention_question
from chunkprefill_grading.problems.ps1_order import order_question
from chunkprefill_grading.problems.ps1_store import store_question
from chunkprefill_grading.problems.sheet import Answers, Judgement, Question, Sheet, numbers_right
from chunkprefill_grading.problems.texts import fill

#: what may be asked of a prompt that is cut into chunks: words, and a hint
ASKED = {
    "reread": (
        "cached positions that later chunks read again, summed over all chunks (in one layer)",
        "Count, for each chunk, the cached positions before it.",
    ),
    "last_pairs": (
        "pairs of a query and a key that it sees, in the last chunk (one head, no window)",
        "A query sees all cached positions, and the chunk's own up to itself.",
    ),
    "pairs": (
        "pairs of a query and a key that it sees, in all chunks together (one head, no window)",
        "A query sees the positions up to its own, however the prompt is cut.",
    ),
    "cache_bytes": ("bytes of the finished cache of this prompt", "Keys and values, in each layer."),
    "block_bytes": (
        "bytes of the blocks of $block positions that hold the finished cache of this prompt",
        "The last block takes its full size, however little is in it.",
    ),
    "read_bytes": (
        "bytes of cached keys and values that the last chunk reads, in all layers, each once",
        "What was cached before the chunk, keys and values, in each layer.",
    ),
}
N_ASKED = 3


def counts_question(rng: random.Random) -> Question:
    """Four numbers of one prompt, cut into chunks, on one model; which ones is drawn."""
    n_layers, n_heads, size = rng.randrange(18, 81), rng.choice([2, 4, 8, 16]), rng.choice([64, 96, 128])
    chunk, block = rng.randrange(150, 1100), rng.choice([16, 32, 48, 64])
    n = chunk * rng.randrange(20, 180) + rng.randrange(1, chunk)  # the last chunk is a shorter one
    starts = range(0, n, chunk)
    last = n - starts[-1]
    position = 2 * n_layers * n_heads * size * 2  # bytes
    numbers = {
        "reread": sum(starts),
        "last_pairs": last * starts[-1] + last * (last + 1) // 2,
        "pairs": n * (n + 1) // 2,
        "cache_bytes": position * n,
        "block_bytes": position * block * -(-n // block),
        "read_bytes": position * starts[-1],
    }
    asked = pick(rng, list(ASKED), N_ASKED)
    points = {"passes": 0.5, asked[0]: 1.0, asked[1]: 1.0, asked[2]: 1.5}
    right = {"passes": len(starts)} | {name: numbers[name] for name in asked}
    hints = {"passes": "The last chunk may be shorter; it is a pass all the same."}
    hints |= {name: ASKED[name][1] for name in asked}

    def judge(answers: Answers) -> Judgement:
        """Points for each number."""
        return numbers_right(answers.value("counts"), dict(right), points, hints=hints)

    lines = [f"- `{name}`: {ASKED[name][0].replace('$block', str(block))}" for name in asked]
    return Question(
        name="counts",
        title="Count",
        kind="numbers",
        text=fill(
            "counts",
            n=f"{n:,}",
            chunk=f"{chunk:,}",
            n_layers=n_layers,
            n_heads=n_heads,
            size=size,
            asked="\n".join(["- `passes`: forward passes", *lines]),
        ),
        table=tuple(points.items()),
        starter="counts = {" + ", ".join(f'"{name}": None' for name in right) + "}",
        solution=f"counts = {right!r}".replace("'", '"'),
        form={"kind": "numbers", "names": list(right)},
        judge=judge,
    )


def sheet(secret: str) -> Sheet:
    """PS1 as drawn from a secret."""
    shown = partial(stream, secret, "PS1", "shown")
    hidden = partial(stream, secret, "PS1", "hidden")
    return Sheet(
        name="PS1",
        stamp=stamp("PS1", secret),
        title="Problem set 1: the cache",
        intro="A long prompt is prefilled in chunks. You put the steps into order, count what they cost, "
        "and write "
        "two of them. It goes with chapters 1 and 2.",
        setup="import torch",
        questions=(
            order_question(shown("order")),
            counts_question(shown("counts")),
            attention_question(shown("attention"), partial(hidden, "attention")),
            store_question(shown("store"), partial(hidden, "store")),
        ),
        needs_torch=True,
    )
