"""Exercise: which chunk emits a token."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from chunkprefill_course.exercises.texts import prose
from chunkprefill_course.forms.answers import Plain, figure, truth
from chunkprefill_course.forms.boards import Cell, board
from chunkprefill_course.forms.exercise import Case, Exercise, Wrong
from chunkprefill_course.forms.feedback import counted
from chunkprefill_course.forms.running import Program
from chunkprefill_course.forms.variants import Variant


def solution(cached, length, n_prompt, n_generated):
    """A token comes out when all that is known has been run."""
    return cached + length == n_prompt + n_generated


def _when(rule: str) -> Variant:
    return Variant(solution, ("cached + length == n_prompt + n_generated", rule))


def cases(rng: random.Random) -> Iterator[Case]:
    """All chunks of sequences of up to 5 known tokens, sixty of longer ones, and some as long as there may be."""
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
    yield _case(3584, 416, 3000, 1000)
    yield _case(3584, 415, 3000, 1000)
    yield _case(0, 4464, 70_000, 0)  # 2**16 are left: a narrow type of numbers cannot tell
    for n_prompt, n_generated in (
        (MOST, 0),
        (MOST, MOST),
        (1, MOST),
        (MOST, 1),
        (100_000, 20_000),
        (9000, 3),
    ):
        known = n_prompt + n_generated
        for left in (0, 1):
            yield _case(0, known - left, n_prompt, n_generated)
            yield _case(known - left - 1, 1, n_prompt, n_generated)
            yield _case(cached := rng.randrange(known - 1), known - left - cached, n_prompt, n_generated)


MOST = 1_000_000  # tokens of a prompt, and of what is generated: what the prompt of the exercise allows
MOST_DRAWN = 60  # tokens


def _case(cached: int, length: int, n_prompt: int, n_generated: int) -> Case:
    return {"cached": cached, "length": length, "n_prompt": n_prompt, "n_generated": n_generated}


def _known(case: Case) -> int:
    return case["n_prompt"] + case["n_generated"]


def _left(case: Case) -> int:
    """Known tokens that the chunk leaves to be run."""
    return _known(case) - case["cached"] - case["length"]


def want(case: Case) -> bool:
    """Nothing is pending after the chunk."""
    return not range(case["cached"] + case["length"], case["n_prompt"] + case["n_generated"])


def judge(case: Case, value: Plain) -> str:
    """Yes or no."""
    if bool(value) == want(case):
        return ""
    known = case["n_prompt"] + case["n_generated"]
    left = known - case["cached"] - case["length"]
    if value:
        still = "have" if left > 1 else "has"
        return f"it emits although {figure(left)} of the {counted(known, 'token')} known so far still {still} to be run"
    return f"it emits nothing, and of the {counted(known, 'token')} known so far none is left to run"


def run(program: Program, case: Case) -> Any:
    """Call it."""
    return truth(program(case["cached"], case["length"], case["n_prompt"], case["n_generated"]))


def picture(case: Case, value: Plain) -> str:
    """The known tokens: cached, in this chunk, still pending."""
    end, known = case["cached"] + case["length"], case["n_prompt"] + case["n_generated"]
    if known > MOST_DRAWN:
        return ""
    cells: list[Cell] = [
        ("old" if p < case["cached"] else "new" if p < end else "empty", "p" if p < case["n_prompt"] else "g")
        for p in range(known)
    ]
    verdict = "it says: emits" if value else "it says: emits nothing"
    return board(
        [("known", cells)],
        title=f"cached {case['cached']}, chunk {case['length']}: {verdict}",
        note="p prompt · g generated earlier",
    )


who_emits = Exercise(
    id="who-emits",
    title="Which chunk emits a token?",
    name="emits",
    prompt=prose("who-emits"),
    starter="def emits(cached, length, n_prompt, n_generated):\n    ...",
    example=(_case(0, 4, 8, 0), _case(4, 4, 8, 0)),
    cases=cases,
    conditions={
        "a prompt's last chunk": lambda c: c["n_generated"] == 0 and c["cached"] > 0 and not _left(c),
        "a prompt's first chunk of several": lambda c: c["n_generated"] == 0 == c["cached"] and _left(c) > 1,
        "a whole prompt": lambda c: c["n_generated"] == 0 == c["cached"] and not _left(c),
        "one token, more to come": lambda c: c["length"] == 1 and _left(c) > 0,
        "a decoding step": lambda c: c["length"] == 1 and c["n_generated"] > 1 and not _left(c),
        "the prompt ends, outputs to run": lambda c: c["cached"] + c["length"] == c["n_prompt"] < _known(c),
        "among the outputs": lambda c: c["n_prompt"] < c["cached"] + c["length"] < _known(c),
        "all again in one chunk": lambda c: c["cached"] == 0 < c["n_generated"] and not _left(c),
        "one token left": lambda c: _left(c) == 1,
        "as many left as 16 bits count": lambda c: _left(c) == 2**16,
        "as many known as there may be, and none left": lambda c: _known(c) == 2 * MOST and not _left(c),
        "as many known as there may be, and one left": lambda c: _known(c) == 2 * MOST and _left(c) == 1,
        "a prompt as long as there may be, and none left": lambda c: (
            c["n_prompt"] == MOST == _known(c) and not _left(c)
        ),
        "a prompt as long as there may be, and one left": lambda c: (
            c["n_prompt"] == MOST == _known(c) and _left(c) == 1
        ),
    },
    run=run,
    want=want,
    judge=judge,
    picture=picture,
    show=lambda c: (
        f"`emits(cached={c['cached']}, length={c['length']}, n_prompt={c['n_prompt']}, "
        f"n_generated={c['n_generated']})`"
    ),
    solution=solution,
    wrong=(
        Wrong(
            _when("cached + length >= n_prompt"),
            "This takes the end of the prompt for the end of what is known. A sequence that lost its cache first has to run its generated tokens again, because the next token depends on them.",
        ),
        Wrong(
            _when("cached + length == n_prompt"),
            "Here a token comes out at the end of the prompt and never again. Each decoding step runs one known token and emits the next.",
        ),
        Wrong(
            _when("length == 1 or cached + length == n_prompt + n_generated"),
            "This takes every chunk of one token for a decoding step. A prompt can be cut into chunks of one token too, and only the last of them emits.",
        ),
        Wrong(
            _when("cached > 0 and cached + length == n_prompt + n_generated"),
            "This assumes that a first chunk never emits. A short prompt fits into one chunk, which is then also the last.",
        ),
    ),
    slips=(
        Wrong(
            _when("cached + length < n_prompt + n_generated"),
            "This is the other way round: a token comes out when nothing is left to run.",
        ),
        Wrong(
            _when("cached + length == n_prompt + n_generated - 1"),
            "This is one token off. The next token comes out when *all* known tokens have been run.",
        ),
        Wrong(
            _when("cached == n_prompt + n_generated"),
            "This looks at what was cached before the chunk. The chunk's own tokens count too.",
        ),
        Wrong(
            _when("length == n_prompt + n_generated"),
            "This emits only if one chunk runs everything. What earlier chunks cached counts too.",
        ),
        Wrong(
            _when("True"),
            "This lets every chunk emit. Before the last chunk the model has not read everything that is known.",
        ),
    ),
    hints=(
        "What must the model have read before it can give the next token?",
        "Everything that is known, prompt and generated tokens alike. How much of that is cached after this chunk?",
        "After the chunk `cached + length` tokens are in the cache, and `n_prompt + n_generated` are known.",
    ),
    minutes=6,
)
