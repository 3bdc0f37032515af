"""Hidden inputs for functions, and what is said of an answer that does not fit."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import numpy as np

from chunkprefill_grading.sandbox.session import BadAnswer, Raised

TOLERANCE = 2e-3  # absolute, of float32 numbers of size one: far above rounding, far below a wrong rule
N_INPUTS = 3  # hidden inputs a criterion


def normal(numbers: np.random.Generator, *shape: int) -> np.ndarray:
    """Normal numbers in float32."""
    return numbers.standard_normal(shape).astype(np.float32)


def hidden_inputs(
    seed: Callable[[str], random.Random], label: str
) -> Iterator[tuple[random.Random, np.random.Generator]]:
    """A whole-number and an array generator for each hidden input of a criterion."""
    rng = seed(label)
    for _ in range(N_INPUTS):
        yield rng, np.random.default_rng(rng.getrandbits(64))


def tried(ask: Callable[[], str], what: str) -> tuple[bool, str]:
    """Whether a check passes; if not, its comment, or what the student's code did instead of answering."""
    try:
        why = ask()
    except (BadAnswer, Raised) as refused:
        why = refused.why
    return not why, f"{what}: {why}." if why else ""
