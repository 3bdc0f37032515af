"""PS1, the cache: order its building, count its cost, attend from a chunk, store a chunk."""

from __future__ import annotations

import random
from functools import partial

from chunkprefill.grading.problems.draw import stream
from chunkprefill.grading.problems.ps1_code import attention_question, store_question
from chunkprefill.grading.problems.ps1_order import order_question
from chunkprefill.grading.problems.sheet import Answers, Question, Sheet, Verdict, numbers_right


def counts_question(rng: random.Random) -> Question:
    """Four numbers of one prompt, cut into chunks, on one model."""
    n_layers, n_heads, size = rng.randrange(18, 81), rng.choice([2, 4, 8, 16]), rng.choice([64, 96, 128])
    chunk = rng.randrange(150, 1100)
    n = chunk * rng.randrange(6, 15) + rng.randrange(1, chunk)  # the last chunk is a shorter one
    starts = range(0, n, chunk)
    last = n - starts[-1]
    right = {
        "passes": len(starts),
        "reread": sum(starts),
        "last_pairs": last * starts[-1] + last * (last + 1) // 2,
        "cache_bytes": 2 * n_layers * n_heads * size * 2 * n,
    }

    def judge(answers: Answers) -> Verdict:
        """A point for each number."""
        hints = {
            "passes": "The last chunk may be shorter; it is a pass all the same.",
            "reread": "Count, for each chunk, the cached positions before it.",
            "last_pairs": "A query sees all cached positions, and the chunk's own up to itself.",
            "cache_bytes": "Keys and values, in each layer.",
        }
        return numbers_right(answers.value("counts"), dict(right), 1, hints=hints)

    text = (
        f"A prompt of {n:,} tokens is prefilled in chunks of {chunk:,} (the last one is what is left). The "
        f"model has "
        f"{n_layers} layers with {n_heads} key/value heads of {size} numbers, 2 bytes each. Fill in whole "
        f"numbers:\n\n"
        "- `passes`: forward passes\n"
        "- `reread`: cached positions that later chunks read again, summed over all chunks (in one layer)\n"
        "- `last_pairs`: pairs of a query and a key that it sees, in the last chunk (one head, no window)\n"
        "- `cache_bytes`: bytes of the finished cache of this prompt"
    )
    return Question(
        name="counts",
        title="Count",
        kind="numbers",
        text=text,
        table=tuple((name, 1) for name in right),
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
