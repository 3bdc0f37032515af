"""Exercise: how many bytes a cache takes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from chunkprefill.analysis.style import Canvas
from chunkprefill.exercises.exercise import Case, Exercise, Wrong
from chunkprefill.exercises.running import Plain, Program


def solution(n_layers, n_heads, n_kv_heads, head_dim, n_tokens, bytes_per_number):
    """Keys and values, for each key/value head, in each layer."""
    return 2 * n_layers * n_kv_heads * head_dim * n_tokens * bytes_per_number


def one_layer(n_layers, n_heads, n_kv_heads, head_dim, n_tokens, bytes_per_number):
    """Forgets that every layer keeps its own."""
    return 2 * n_kv_heads * head_dim * n_tokens * bytes_per_number


def query_heads(n_layers, n_heads, n_kv_heads, head_dim, n_tokens, bytes_per_number):
    """A key and a value for each query head."""
    return 2 * n_layers * n_heads * head_dim * n_tokens * bytes_per_number


def half_precision(n_layers, n_heads, n_kv_heads, head_dim, n_tokens, bytes_per_number):
    """Two bytes a number, come what may."""
    return 2 * n_layers * n_kv_heads * head_dim * n_tokens * 2


def pairs(n_layers, n_heads, n_kv_heads, head_dim, n_tokens, bytes_per_number):
    """Counts query-key pairs as if they were kept."""
    return 2 * n_layers * n_kv_heads * head_dim * bytes_per_number * (n_tokens * (n_tokens + 1) // 2)


NAMES = ("n_layers", "n_heads", "n_kv_heads", "head_dim", "n_tokens", "bytes_per_number")


def case_of(*values: int) -> Case:
    """The arguments by name."""
    return dict(zip(NAMES, values))


def cases(rng: random.Random) -> Iterator[Case]:
    """One thing at a time away from the example, then thirty shapes of models."""
    for changed in ((2, 2, 2, 4, 1, 2), (1, 4, 2, 4, 1, 2), (1, 2, 2, 4, 2, 2), (1, 2, 2, 4, 1, 4)):
        yield case_of(*changed)
    for _ in range(30):
        n_kv_heads = rng.randint(1, 8)
        n_heads = n_kv_heads * rng.randint(1, 4)
        yield case_of(rng.randint(1, 40), n_heads, n_kv_heads, rng.choice((32, 64, 128)),
                      rng.randint(1, 9000), rng.choice((1, 2, 4)))  # fmt: skip


def want(case: Case) -> int:
    """Counted: a number is stored for each of these."""
    return solution(**case)


def judge(case: Case, value: Plain) -> str:
    """A whole number, and the right one."""
    right = want(case)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return f"it returned `{str(value)[:60]}`; a number of bytes is wanted"
    return "" if value == right else f"it returned {value:,}; the cache takes {right:,} bytes"


def run(program: Program, case: Case) -> Any:
    """Call it."""
    return program(*case.values())


def picture(case: Case, value: Plain) -> str:
    """Both numbers, as bars to the same scale."""
    given, right = float(value), float(want(case))
    longest, canvas = max(given, right, 1.0), Canvas(112)
    for k, (name, amount) in enumerate((("this program", given), ("the cache", right))):
        canvas.text(0, 20 + 56 * k, name, bold=True)
        canvas.text(canvas.width, 20 + 56 * k, f"{amount:,.0f} bytes", anchor="end")
        fill = "prefill" if amount == right else "trouble"
        canvas.rect(0, 28 + 56 * k, max(canvas.width * max(amount, 0) / longest, 2), 18, fill, radius=2)
    alt = f"This program says {given:,.0f} bytes, the cache takes {right:,.0f}."
    image = canvas.picture(alt=alt, caption="To scale.", badge="counted").image()
    return f'<div style="max-width:{canvas.width:.0f}px">{image}</div>'


def show(case: Case) -> str:
    """The call, with its names: six bare numbers would tell nothing."""
    return "`kv_bytes(" + ", ".join(f"{name}={value}" for name, value in case.items()) + ")`"


kv_bytes = Exercise(
    id="kv-bytes",
    title="The bytes of a cache",
    name="kv_bytes",
    prompt="Write `kv_bytes(n_layers, n_heads, n_kv_heads, head_dim, n_tokens, bytes_per_number)`: the bytes "
    "that the cache of `n_tokens` tokens takes. Each layer has `n_heads` query heads, which share "
    "`n_kv_heads` key/value heads of `head_dim` numbers.",
    starter="def kv_bytes(n_layers, n_heads, n_kv_heads, head_dim, n_tokens, bytes_per_number):\n    ...",
    example=(case_of(1, 2, 2, 4, 1, 2),),
    cases=cases,
    run=run,
    want=want,
    judge=judge,
    picture=picture,
    show=show,
    solution=solution,
    wrong=(
        Wrong(one_layer, "This is the cache of one layer. Every layer keeps keys and values of its own."),
        Wrong(
            query_heads,
            "A key and a value are counted for each *query* head. Where query heads share, fewer are kept.",
        ),
        Wrong(
            half_precision,
            "Every number is taken to have two bytes. That is so in bfloat16; float32 has four.",
        ),
        Wrong(
            pairs,
            "The tokens are counted as if each kept something for every earlier one. What meets in pairs is "
            "computed and thrown away; each token keeps the same.",
        ),
    ),
    hints=(
        "Begin with one token in one layer: how many lists are kept of it, and how long is each?",
        "Of query, key and value, two are kept. Which heads make them?",
        "Multiply six things. One of the arguments is not among them.",
    ),
    minutes=4,
)
