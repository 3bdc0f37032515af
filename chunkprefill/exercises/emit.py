"""Exercise: which chunk emits a token."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from chunkprefill.exercises.draw import Cell, board
from chunkprefill.exercises.exercise import Case, Exercise, Wrong
from chunkprefill.exercises.feedback import counted
from chunkprefill.exercises.running import Plain, Program


def solution(cached, length, n_prompt, n_generated):
    """A token comes out when all that is known has been run."""
    return cached + length == n_prompt + n_generated


def prompt_done(cached, length, n_prompt, n_generated):
    """Looks at the prompt alone."""
    return cached + length >= n_prompt


def prompt_just_done(cached, length, n_prompt, n_generated):
    """Looks at the prompt alone, and at its very end."""
    return cached + length == n_prompt


def one_token(cached, length, n_prompt, n_generated):
    """Takes a chunk of one token for a decoding step."""
    return length == 1 or cached + length == n_prompt + n_generated


def not_the_first(cached, length, n_prompt, n_generated):
    """Holds that a first chunk cannot be the last."""
    return cached > 0 and cached + length == n_prompt + n_generated


def cases(rng: random.Random) -> Iterator[Case]:
    """All chunks of sequences of up to 5 known tokens, and sixty of longer ones."""
    for n_prompt in range(1, 4):
        for n_generated in range(3):
            known = n_prompt + n_generated
            yield from (
                _case(cached, length, n_prompt, n_generated)
                for cached in range(known)
                for length in range(1, known - cached + 1)
            )
    for i in range(60):
        n_prompt, n_generated = rng.randint(1, 40), rng.choice((0, rng.randint(1, 12)))
        known = n_prompt + n_generated
        cached = rng.randrange(known)
        yield _case(
            cached, known - cached if i % 2 else rng.randint(1, known - cached), n_prompt, n_generated
        )


def _case(cached: int, length: int, n_prompt: int, n_generated: int) -> Case:
    return {"cached": cached, "length": length, "n_prompt": n_prompt, "n_generated": n_generated}


def want(case: Case) -> bool:
    """Nothing is pending after the chunk."""
    return not range(case["cached"] + case["length"], case["n_prompt"] + case["n_generated"])


def judge(case: Case, value: Plain) -> str:
    """Yes or no."""
    if value not in (0, 1):
        return f"it returned {value!r}; True or False is wanted"
    if bool(value) == want(case):
        return ""
    known = case["n_prompt"] + case["n_generated"]
    left = known - case["cached"] - case["length"]
    if value:
        return f"it emits although {left} of the {counted(known, 'token')} known so far must still be run"
    return f"it emits nothing although nothing is left to run of the {counted(known, 'token')} known so far"


def run(program: Program, case: Case) -> Any:
    """Call it."""
    return program(case["cached"], case["length"], case["n_prompt"], case["n_generated"])


def picture(case: Case, value: Plain) -> str:
    """The known tokens: cached, in this chunk, still pending."""
    end, known = case["cached"] + case["length"], case["n_prompt"] + case["n_generated"]
    cells: list[Cell] = [
        ("old" if p < case["cached"] else "new" if p < end else "empty", "p" if p < case["n_prompt"] else "g")
        for p in range(known)
    ]
    verdict = "it says: emits" if value else "it says: emits nothing"
    return board([("known", cells)], title=f"cached {case['cached']}, chunk {case['length']}: {verdict}",
                 note="p prompt · g generated earlier")  # fmt: skip


who_emits = Exercise(
    id="who-emits",
    title="Which chunk emits a token?",
    name="emits",
    prompt="A sequence has `n_prompt` prompt tokens and `n_generated` tokens that it has generated so "
    "far; `cached` of them are in the cache, and a chunk runs the next `length`. Write `emits(cached, "
    "length, n_prompt, n_generated)`: True if a new output token comes out of this chunk. (A sequence "
    "that lost its cache has to run its generated tokens again, in chunks, like a prompt.)",
    starter="def emits(cached, length, n_prompt, n_generated):\n    ...",
    example=(_case(0, 4, 8, 0), _case(4, 4, 8, 0)),
    cases=cases,
    run=run,
    want=want,
    judge=judge,
    picture=picture,
    show=lambda c: f"`emits(cached={c['cached']}, length={c['length']}, n_prompt={c['n_prompt']}, "
    f"n_generated={c['n_generated']})`",
    solution=solution,
    wrong=(
        Wrong(
            prompt_done,
            "The end of the prompt is taken for the end of what is known. A sequence that lost its cache has "
            "generated tokens to run again first; the next token depends on them.",
        ),
        Wrong(
            prompt_just_done,
            "A token comes out at the end of the prompt and never again. Each decoding step runs one "
            "known token and emits the next.",
        ),
        Wrong(
            one_token,
            "A chunk of one token is taken for a decoding step. A prompt can be cut into chunks of one token "
            "as well, and only the last of them emits.",
        ),
        Wrong(
            not_the_first,
            "The first chunk is thought never to emit. A short prompt fits into one chunk, which is then the "
            "last as well.",
        ),
    ),
    hints=(
        "What does the model need to have read before it can say the next token?",
        "Everything known, prompt and generated tokens alike. How much of that is cached after this chunk?",
        "After the chunk `cached + length` tokens are in the cache, and `n_prompt + n_generated` are known.",
    ),
    minutes=6,
)  # fmt: skip
