"""Secrets, and what is drawn from them: a stream of numbers for each purpose, none telling of another."""

from __future__ import annotations

import hmac
import random
import secrets
from collections import Counter
from collections.abc import Sequence
from typing import Any

N_DIGITS = 32  # hexadecimal: 128 bits
MOST_DIGITS = 128
N_STAMP = 10  # hexadecimal digits of a draw's public name


def new_secret() -> str:
    """128 bits from the system's source of randomness, as 32 hexadecimal digits."""
    while True:
        secret = secrets.token_hex(N_DIGITS // 2)
        if not weakness(secret):  # one in a million looks regular by chance
            return secret


def check_secret(secret: Any) -> str:
    """`secret` in lower case; ValueError says why it is too weak to draw a problem set from."""
    if why := weakness(secret):
        raise ValueError(f"the secret {why}; leave it out, and one of 128 bits is made")
    return str(secret).lower()


def weakness(secret: Any) -> str:
    """Why a secret could be guessed, or "": what people type, patterns and words, not only short ones.

    What is random passes but for about one in a million. A test of form cannot see whether a secret is known.
    """
    if not isinstance(secret, str):
        return f"must be text, got {type(secret).__name__}"
    digits = secret.lower()
    if strange := sorted(set(digits) - set("0123456789abcdef")):
        return f"must be hexadecimal digits, it holds {strange[0]!r}"
    if not N_DIGITS <= len(digits) <= MOST_DIGITS or len(digits) % 2:
        return f"has {len(digits)} digits, an even number from {N_DIGITS} to {MOST_DIGITS} is needed"
    if (n := len(set(digits))) < 8:
        return f"is too regular: {n} different digits among {len(digits)}"
    for period in range(1, len(digits) // 2 + 1):
        if (digits[:period] * len(digits))[: len(digits)] == digits:
            return f"is too regular: it repeats after {period} digits"
    values = [int(digit, 16) for digit in digits]
    for lag in range(1, 9):  # 0123…, 00 01 02 …, and what goes down, or nearly so
        steps = Counter((b - a) % 16 for a, b in zip(values, values[lag:]))
        step, n = steps.most_common(1)[0]
        if n > 0.45 * (len(digits) - lag):
            return (
                f"is too regular: {n} of {len(digits) - lag} digits are {step} more than {lag} places before"
            )
    if digits in (digits[::-1], digits[len(digits) // 2 :] + digits[: len(digits) // 2]):
        return "is too regular: it is the same read backwards"
    if all(32 <= byte < 127 for byte in bytes.fromhex(digits)):
        return "is text in disguise: all of its bytes are letters and signs"
    return ""


def stamp(problem_set: str, secret: str) -> str:
    """The public name of a draw, such as "PS1-3f9a21bc04": it tells two draws apart, and nothing else."""
    label = f"{problem_set}/stamp".encode()
    return f"{problem_set}-{hmac.digest(secret.encode(), label, 'sha256').hex()[:N_STAMP]}"


def stream(secret: str, *labels: str | int) -> random.Random:
    """The generator of numbers for one purpose: HMAC-SHA256 of its labels under the secret is its seed.

    Who sees everything that one stream has given cannot tell anything of another's, or of the secret.
    """
    text = "/".join(str(label) for label in labels)
    return random.Random(int.from_bytes(hmac.digest(bytes.fromhex(secret), text.encode(), "sha256")))


def pick(rng: random.Random, items: Sequence[Any], n: int) -> list[Any]:
    """`n` different items, in random order."""
    return rng.sample(list(items), n)


def labels(rng: random.Random, n: int) -> list[str]:
    """`n` different names of choices, such as "qzt47": of 438,976, so that another draw's name nothing here."""
    found: list[str] = []
    while len(found) < n:
        label = "".join(rng.choice("bcdfghjkmnpqrstvwxz") for _ in range(3))
        label += "".join(rng.choice("23456789") for _ in range(2))
        found += [label] * (label not in found)
    return found


def near(rng: random.Random, least: float, most: float, digits: int) -> float:
    """A number in [least, most], rounded so that it can be printed in full."""
    return round(least + (most - least) * rng.random(), digits)
