"""PS1's first question (a variant of the card Q1): order the steps that build a cache, leave out the rest."""

from __future__ import annotations

import random
from typing import Any

from chunkprefill_grading.problems import answer_forms
from chunkprefill_grading.problems.draw import pick
from chunkprefill_grading.problems.sheet import Answers, Judgement, Question, refused

#: what does not belong, whatever the prompt: each is a mistake that people make
DECOYS = (
    ("clear", "Empty the cache, so that the next chunk has room."),
    ("rewind", "Set the position of the next token back to 0."),
    ("early", "Pick an output token from the logits of the first chunk's last position."),
    ("whole", "Run the whole prompt once more in one pass, so that no chunk is missing."),
    ("average", "Average the logits of all chunks."),
    ("again", "Run the last chunk a second time, to store its keys and values for good."),
)


def steps_of(lengths: list[int]) -> list[tuple[str, str]]:
    """The steps that belong, in one order that works, each with its words."""
    start, rows = 0, []
    for i, length in enumerate(lengths):
        span = f"positions {start} to {start + length - 1}"
        rows.append((f"chunk{i}", f"Run the tokens at {span}, and store their keys and values."))
        start += length
    return [
        (
            "cut",
            f"Cut the prompt into chunks of {', '.join(map(str, lengths[:-1]))} and {lengths[-1]} tokens.",
        ),
        ("room", f"Reserve an empty cache for {start + 2} positions."),
        *rows,
        ("pick", f"Pick the first output token from the logits of position {start - 1}."),
        ("decode", f"Run the first output token as a chunk of one, at position {start}."),
        ("second", f"Pick the second output token from the logits of position {start}."),
    ]


def broken(keys: list[str], n_chunks: int) -> str:
    """Play the steps; the first rule that one breaks, as words, or ""."""
    done: list[str] = []
    for key in keys:
        if key.startswith("chunk"):
            i = int(key.removeprefix("chunk"))
            if "cut" not in done:
                return "a chunk runs before the prompt is cut"
            if "room" not in done:
                return "a chunk runs before there is a cache to store its keys and values in"
            if i and f"chunk{i - 1}" not in done:
                return "a chunk reads positions that are not in the cache yet"
        if key == "pick" and f"chunk{n_chunks - 1}" not in done:
            return "the first output token is picked before the last position has run"
        if key == "decode" and "pick" not in done:
            return "an output token is run before it has been picked"
        if key == "second" and "decode" not in done:
            return "the second output token is picked before the first has run"
        done.append(key)
    return ""


def order_question(rng: random.Random) -> Question:
    """Lengths, decoys and letters from `rng`."""
    lengths = [rng.randrange(16, 65) for _ in range(rng.randrange(3, 6))]
    lengths[-1] = rng.randrange(5, min(lengths) + 1)
    right = steps_of(lengths)
    cards = right + pick(rng, DECOYS, 3)
    letters = "abcdefghijklmn"[: len(cards)]
    dealt = list(zip(letters, pick(rng, cards, len(cards))))
    letter_of = {key: letter for letter, (key, _) in dealt}
    meaning = {letter: key for letter, (key, _) in dealt}
    wanted = [key for key, _ in right]

    def judge(answers: Answers) -> Judgement:
        """4 points; 2 where everything runs but something is missing or superfluous."""
        keys, why = read(answers.value("order"), meaning)
        if why:
            return Judgement(0, why)
        mine = [key for key in keys if key in wanted]
        if rule := broken(mine, len(lengths)):
            return Judgement(0, f"Played step by step, {rule}.")
        if not all(f"chunk{i}" in mine for i in range(len(lengths))):
            return Judgement(0, "The cache is not complete at the end: a chunk never runs.")
        lacking, extra = len(wanted) - len(mine), len(keys) - len(mine)
        if lacking or extra:
            words = [
                f"{lacking} steps are missing" * bool(lacking),
                f"{extra} do not belong there" * bool(extra),
            ]
            return Judgement(2, f"What is there works; {' and '.join(filter(None, words))}.")
        return Judgement(4)

    listed = "\n".join(f"- `{letter}`: {text}" for letter, (_, text) in dealt)
    n_tokens = sum(lengths)
    return Question(
        name="order",
        title="Build the cache in order",
        kind="order",
        text=f"A prompt of {n_tokens} tokens is to be prefilled in {len(lengths)} chunks, and two output "
        f"tokens "
        "are to be made from it. Put the steps into an order that works, as a string of letters such as "
        f'`"x z y"`. {len(cards) - len(right)} of the steps do not belong there: leave them out.\n\n{listed}',
        table=(
            ("every step that belongs there, in an order that works, and no other", 2),
            ("the cache is built: all chunks run, and no step comes before what it needs", 2),
        ),
        starter="order = None",
        solution=f'order = "{" ".join(letter_of[key] for key in wanted)}"',
        form={"kind": "letters", "of": letters},
        judge=judge,
    )


def read(answer: Any, meaning: dict[str, str]) -> tuple[list[str], str]:
    """The keys of an answer in letters, and "" or why it is none. NoAnswer where there is none."""
    given = answer_forms.read(answer, {"kind": "letters", "of": "".join(meaning)})
    if given.value is None:
        return [], refused(given).comment
    return [meaning[letter] for letter in given.value], ""
