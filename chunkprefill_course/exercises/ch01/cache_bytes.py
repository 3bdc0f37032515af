"""Exercise: how many bytes a cache takes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from typing import Any

from chunkprefill_course.exercises.texts import prose
from chunkprefill_course.forms.amount_bars import bars
from chunkprefill_course.forms.answers import Plain, apart, number
from chunkprefill_course.forms.exercise import Case, Exercise, Wrong
from chunkprefill_course.forms.running import Program
from chunkprefill_course.forms.variants import Variant


def solution(n_layers, n_heads, n_kv_heads, head_dim, n_tokens, bytes_per_number):
    """Keys and values, for each key/value head, in each layer."""
    return 2 * n_layers * n_kv_heads * head_dim * n_tokens * bytes_per_number


def _with(product: str) -> Variant:
    return Variant(solution, ("2 * n_layers * n_kv_heads * head_dim * n_tokens * bytes_per_number", product))


NAMES = ("n_layers", "n_heads", "n_kv_heads", "head_dim", "n_tokens", "bytes_per_number")


MOST = dict.fromkeys(NAMES, 1000) | {"n_tokens": 2_000_000}  # what the prompt allows
#: arguments that are as large as they may be, together
LARGE = (("n_layers",), ("n_heads", "n_kv_heads"), ("head_dim",), ("n_tokens",), ("bytes_per_number",))


def case_of(*values: int) -> Case:
    """The arguments by name."""
    return dict(zip(NAMES, values))


def cases(rng: random.Random) -> Iterator[Case]:
    """One thing at a time away from the example, then as much of each as there may be, then thirty shapes of models."""
    yield case_of(2, 2, 2, 4, 1, 2)
    yield case_of(1, 4, 2, 4, 1, 2)
    yield case_of(1, 2, 2, 4, 2, 2)
    yield case_of(1, 2, 2, 4, 1, 4)
    yield case_of(1, 2, 2, 4, 1, 1)
    yield case_of(1, 2, 1, 4, 1, 2)
    yield case_of(1, 3, 3, 5, 1, 2)
    yield case_of(3, 6, 2, 7, 5, 1)
    yield case_of(2, 2, 1, 3, 1, 8)
    yield case_of(61, 96, 12, 80, 1_000_003, 2)
    yield case_of(300, 520, 260, 576, 3, 3)
    yield from (case_of(*(MOST[name] if name in large else 3 for name in NAMES)) for large in LARGE)
    yield case_of(1, 1000, 1000, 997, 1_999_993, 1000)  # sums of logarithms cannot tell its last digits
    for _ in range(30):
        n_kv_heads = rng.randint(1, 8)
        n_heads, head_dim = n_kv_heads * rng.randint(1, 4), rng.choice((32, 64, 80, 128))
        yield case_of(
            rng.randint(1, 40), n_heads, n_kv_heads, head_dim, rng.randint(1, 9000), rng.choice((1, 2, 4))
        )


def _is_largest(name: str, case: Case) -> bool:
    return bool(case[name] == MOST[name])


def want(case: Case) -> int:
    """Counted: a number is stored for each of these."""
    return solution(**case)


def judge(case: Case, value: Plain) -> str:
    """The right number."""
    right = want(case)
    said, true = apart(value, right)
    return "" if value == right else f"it returned {said}; the cache takes {true} bytes"


def run(program: Program, case: Case) -> Any:
    """Call it."""
    return number(program(*case.values()), "a number of bytes")


def picture(case: Case, value: Plain) -> str:
    """Both numbers, as bars to the same scale."""
    given, right = float(value), float(want(case))
    fill = "prefill" if given == right else "trouble"
    rows = (("this program", given, fill), ("the cache", right, "prefill"))
    return bars(rows, unit="bytes", title="Bytes of the cache", badge="counted")


def show(case: Case) -> str:
    """The call, with its names: six bare numbers would tell nothing."""
    return "`kv_bytes(" + ", ".join(f"{name}={value}" for name, value in case.items()) + ")`"


kv_bytes = Exercise(
    id="kv-bytes",
    title="The bytes of a cache",
    name="kv_bytes",
    prompt=prose("kv-bytes"),
    starter="def kv_bytes(n_layers, n_heads, n_kv_heads, head_dim, n_tokens, bytes_per_number):\n    ...",
    example=(case_of(1, 2, 2, 4, 1, 2),),
    cases=cases,
    conditions={
        "more bytes than 32 bits count": lambda case: want(case) > 2**32 and want(case) % 2**20 > 0,
        "several layers": lambda case: case["n_layers"] > 1,
        "query heads share": lambda case: case["n_heads"] > case["n_kv_heads"] > 1,
        "one key/value head": lambda case: case["n_kv_heads"] == 1,
        "several tokens": lambda case: case["n_tokens"] > 2,
        "four bytes": lambda case: case["bytes_per_number"] == 4,
        "one byte": lambda case: case["bytes_per_number"] == 1,
        "eight bytes": lambda case: case["bytes_per_number"] == 8,
        "three bytes": lambda case: case["bytes_per_number"] == 3,
        "so many bytes that a product of floats keeps them, and no sum of logarithms does": lambda case: (
            2**50 < want(case) < 2**53
        ),
        **{f"{large[-1]} as large as it may be": partial(_is_largest, large[-1]) for large in LARGE},
        "more layers and key/value heads than 8 bits count": lambda case: (
            min(case["n_layers"], case["n_kv_heads"]) > 2**8
        ),
    },
    run=run,
    want=want,
    judge=judge,
    picture=picture,
    show=show,
    solution=solution,
    wrong=(
        Wrong(
            _with("2 * n_kv_heads * head_dim * n_tokens * bytes_per_number"),
            "This is the cache of one layer. Every layer keeps its own keys and values.",
        ),
        Wrong(
            _with("2 * n_layers * n_heads * head_dim * n_tokens * bytes_per_number"),
            "This counts a key and a value for each *query* head. Where query heads share, fewer are kept.",
        ),
        Wrong(
            _with("2 * n_layers * n_kv_heads * head_dim * n_tokens * 2"),
            "This takes every number to have two bytes. That is right for bfloat16; float32 has four.",
        ),
        Wrong(
            _with(
                "2 * n_layers * n_kv_heads * head_dim * bytes_per_number * (n_tokens * (n_tokens + 1) // 2)"
            ),
            "This counts as if each token kept something for every earlier one. Scores of pairs are computed and discarded; every token keeps the same amount.",
        ),
    ),
    slips=(
        Wrong(
            _with("n_layers * n_kv_heads * head_dim * n_tokens * bytes_per_number"),
            "A factor 2 is missing: each token keeps a key *and* a value.",
        ),
        Wrong(
            _with("3 * n_layers * n_kv_heads * head_dim * n_tokens * bytes_per_number"),
            "This counts three lists for each token. Of query, key and value, the query is discarded.",
        ),
        Wrong(
            _with("2 * n_layers * n_kv_heads * head_dim * n_tokens"),
            "This counts numbers, not bytes. Each number takes `bytes_per_number` bytes.",
        ),
        Wrong(
            _with("2 * n_layers * n_kv_heads * head_dim * bytes_per_number"),
            "This is the cache of one token. There are `n_tokens` tokens.",
        ),
        Wrong(
            _with("2 * n_layers * n_heads * n_kv_heads * head_dim * n_tokens * bytes_per_number"),
            "This multiplies query heads by key/value heads. Only key/value heads keep anything.",
        ),
        Wrong(
            _with("8 * 2 * n_layers * n_kv_heads * head_dim * n_tokens * bytes_per_number"),
            "These are bits. The question is about bytes, eight times fewer.",
        ),
    ),
    hints=(
        "Start with one token in one layer: how many lists are kept for it, and how long is each?",
        "Of query, key and value, two are kept. Which heads produce them?",
        "Multiply six things. One of the arguments is not among them.",
    ),
    minutes=4,
)
