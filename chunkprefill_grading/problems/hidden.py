"""Hidden inputs for functions, and what is said of an answer that does not fit."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from chunkprefill_grading.sandbox.session import BadAnswer, Raised

TOLERANCE = 2e-4  # absolute, of float32 numbers of size one: far above rounding, far below a wrong rule
EXACT = 1e-6  # absolute: numbers that are copied and not computed
N_INPUTS = 3  # hidden inputs a criterion


def normal(numbers: np.random.Generator, *shape: int) -> np.ndarray:
    """Normal numbers in float32."""
    return numbers.standard_normal(shape).astype(np.float32)


def hidden_inputs(
    seed: Callable[[str], random.Random], label: str, *kinds: Sequence[Any]
) -> Iterator[tuple[Any, ...]]:
    """For each hidden input of a criterion: a whole-number and an array generator, and one of each of `kinds`.

    kinds: N_INPUTS each, so that every criterion meets all of them, together in an order that is drawn.
    """
    rng = seed(label)
    dealt = [rng.sample(list(kind), N_INPUTS) for kind in kinds]
    for k in range(N_INPUTS):
        yield rng, np.random.default_rng(rng.getrandbits(64)), *(kind[k] for kind in dealt)


def tried(ask: Callable[[], str], what: str) -> tuple[bool, str]:
    """Whether a check passes; if not, its comment, or what the student's code did instead of answering."""
    try:
        why = ask()
    except (BadAnswer, Raised) as refused:
        why = refused.why
    return not why, f"{what}: {why}." if why else ""
