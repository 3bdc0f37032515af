"""PS3, overhead and diagnosis: count tasks, price scheduling, mend a slow server, advise its owner."""

from __future__ import annotations

import random
from functools import partial

from chunkprefill_grading.problems.draw import labels, near, pick, stamp, stream
from chunkprefill_grading.problems.ps3_case import case_questions
from chunkprefill_grading.problems.sheet import Answers, Judgement, Question, Sheet, chosen, numbers_right

OVERHEAD_TOLERANCE = 1e-4  # relative: one request or one token more or less is outside, in every draw
#: The card Q4: what follows most directly; the first is right.
CONSEQUENCES = (
    "The scheduler has more and smaller tasks to track and to dispatch for each request.",
    "The model has more query-key pairs to compute for each request.",
    "The finished cache of each request takes more memory.",
    "The first token of the long request comes sooner.",
    "The output of the long request is less exact.",
)


def tasks_questions(rng: random.Random) -> list[Question]:
    """The card Q4 in numbers, and as a choice."""
    # Wide ranges: each number is half of the points, and another draw's must not be right by chance.
    chunk, n_output, n_chats = (
        rng.randrange(200, 900),
        rng.randrange(2_000, 32_000),
        rng.randrange(100, 1_000),
    )
    n = chunk * rng.randrange(40, 1_000) + rng.randrange(1, chunk)
    passes = -(-n // chunk)
    right: dict[str, float] = {"tasks": passes + n_output - 1, "between": n_chats * (passes - 1)}
    dealt = dict(zip(labels(rng, len(CONSEQUENCES)), pick(rng, CONSEQUENCES, len(CONSEQUENCES))))
    (right_label,) = [each for each, words in dealt.items() if words == CONSEQUENCES[0]]

    def consequence(answers: Answers) -> Judgement:
        answer, why = chosen(answers.value("consequence"), list(dealt))
        if why:
            return Judgement(0, why, ("no label",))
        if answer == right_label:
            return Judgement(1)
        return Judgement(0, "It does not follow, or not most directly.", ("another consequence",))

    text = (
        f"A prompt of {n:,} tokens used to be prefilled in one pass. Now it is cut into chunks of {chunk:,} "
        f"(the "
        f"last one is what is left), and {n_chats} short chats decode all the while, a token each in every "
        f"step. "
        f"The long request emits {n_output:,} tokens in all; the first comes from its last chunk. Fill in:\n\n"
        "- `tasks`: how often the scheduler gives the long request some tokens, from its first chunk to its "
        "end\n"
        "- `between`: decoding tasks of the chats in the steps of its chunks, the last chunk's step not "
        "counted"
    )
    return [
        Question(
            name="tasks",
            title="Many small tasks",
            kind="numbers",
            text=text,
            table=tuple((f"`{name}`", 0.5) for name in right),
            starter='tasks = {"tasks": None, "between": None}',
            solution=f"tasks = {right!r}".replace("'", '"'),
            form={"kind": "numbers", "names": list(right)},
            judge=lambda answers: numbers_right(answers.value("tasks"), right, 0.5),
        ),
        Question(
            name="consequence",
            title="What follows",
            kind="choice",
            text="What is the most direct consequence of cutting the prompt?\n\n"
            + "\n".join(f"- `{label}`: {words}" for label, words in dealt.items()),
            table=(("the consequence", 1),),
            starter="consequence = None",
            solution=f'consequence = "{right_label}"',
            form={"kind": "choice", "of": list(dealt)},
            judge=consequence,
        ),
    ]


def overhead_question(rng: random.Random) -> Question:
    """The card Q5 with drawn prices: what scheduling costs with small and with large chunks.

    Five numbers, because one that is another draw's by chance must be a fifth of the question, and no more.
    """
    s0, row = rng.randrange(300, 900, 10), rng.randrange(12, 40)  # µs
    token, gpu0, gpu = (
        near(rng, 4, 12, 1),
        rng.randrange(2, 7),
        rng.randrange(12, 30),
    )  # µs, ms, µs a token
    small, large = rng.choice([(64, 1024), (48, 768), (32, 512)])
    n, n_chats = large * rng.randrange(8, 60), rng.randrange(60, 160)

    def cpu(chunk: int) -> float:
        """µs of a step of a chunk beside the chats."""
        return s0 + row * (n_chats + 1) + token * (chunk + n_chats)

    def run(chunk: int) -> float:
        """µs on the GPU."""
        return 1e3 * gpu0 + gpu * (chunk + n_chats)

    right = {
        "small_ms": cpu(small) / 1e3,
        "share_small": cpu(small) / (cpu(small) + run(small)),
        "share_large": cpu(large) / (cpu(large) + run(large)),
        "prompt_small_ms": cpu(small) * (n // small) / 1e3,
        "prompt_large_ms": cpu(large) * (n // large) / 1e3,
    }
    text = (
        f"Preparing a step takes the CPU {s0} µs, and {row} µs more for each request in the step, and "
        f"{token:g} µs "
        f"more for each token in it. Running it takes the GPU {gpu0} ms, and {gpu} µs more for each token. "
        f"The GPU "
        f"waits while the CPU prepares. {n_chats} chats decode in every step; beside them, one prompt of "
        f"{n:,} "
        f"tokens is prefilled, in chunks of {small} or of {large:,} tokens. Let Python compute, and fill in (0.01% "
        f"off is near enough):\n\n"
        f"- `small_ms`: CPU time of a step with a chunk of {small}, ms\n"
        f"- `share_small`: its share of that step's time, CPU and GPU together, 0 to 1\n"
        f"- `share_large`: the same for a chunk of {large:,}\n"
        f"- `prompt_small_ms`: CPU time of all steps of the prompt with chunks of {small}, ms\n"
        f"- `prompt_large_ms`: the same for chunks of {large:,}"
    )
    hints = {
        "small_ms": "The chats count twice: as requests and as tokens.",
        "prompt_small_ms": "One step a chunk, each with all of its parts.",
    }
    return Question(
        name="overhead",
        title="What scheduling costs",
        kind="numbers",
        text=text,
        table=tuple((f"`{name}`", 1) for name in right),
        starter="overhead = {" + ", ".join(f'"{name}": None' for name in right) + "}",
        solution="overhead = {" + ", ".join(f'"{name}": {value:.8g}' for name, value in right.items()) + "}",
        form={"kind": "numbers", "names": list(right)},
        judge=lambda answers: numbers_right(
            answers.value("overhead"), right, 1, tolerance=OVERHEAD_TOLERANCE, hints=hints
        ),
    )


RUBRIC = (
    ("names what chunking adds for the scheduler (more tasks for each request, more state to keep)", 1),
    ("says when that matters and when it does not: by the length of a step, or by overlapping", 1),
    ("rests on numbers of this notebook, and draws a decision from them", 1),
)
MODEL_ANSWER = (
    "Cutting prompts gives the scheduler one task for each chunk in place of one for each prompt, and "
    "half-built "
    "caches to keep meanwhile. Preparing a step costs about the same however few prompt tokens are in it, "
    "so its "
    "share is large where steps are short (`share_small`) and small where they are long (`share_large`). "
    "Where the "
    "next step is prepared while this one runs, it costs nothing until it takes longer than the step. So I "
    "would "
    "take the largest chunk whose step still keeps the promised time between tokens, and look at the GPU's "
    "idle "
    "time before I buy a faster CPU."
)


def written_question() -> Question:
    """The written part of the card Q5, marked by a person."""
    return Question(
        name="advice",
        title="Advice to an operator",
        kind="written",
        text="An operator asks: *we cut prompts into chunks so that chats stay fast. Does the scheduling "
        "that this "
        "adds cost us anything, and what should we do?* Answer in 80 to 150 words, with numbers of this "
        "notebook. "
        "Write below the line in the next cell that begins with `<!-- answer`, and leave that line where it "
        "is.",
        table=RUBRIC,
        solution=MODEL_ANSWER,
        rubric="\n".join(f"- {points} point: {what}" for what, points in RUBRIC),
    )


def sheet(secret: str) -> Sheet:
    """PS3 as drawn from a secret."""
    shown = partial(stream, secret, "PS3", "shown")
    return Sheet(
        name="PS3",
        stamp=stamp("PS3", secret),
        title="Problem set 3: overhead and diagnosis",
        intro="You count and price what scheduling adds, find out why a server is slow and mend it, and "
        "advise its "
        "owner. It goes with chapters 6 and 7.",
        setup="",
        questions=(
            *tasks_questions(shown("tasks")),
            overhead_question(shown("overhead")),
            *case_questions(shown),
            written_question(),
        ),
    )
