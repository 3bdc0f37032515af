"""Exercise (the card Q2): a long prompt is being prefilled, a short one arrives; plan what runs next."""

from __future__ import annotations

from chunkprefill.exercises.playback import Playback, WrongPlan

first_iterations = Playback(
    id="first-iterations",
    title="A short request arrives",
    prompt="`long` is a document of 64 tokens, and 8 of them are cached. An iteration has room for 8 tokens "
    "in all. Before iteration 2 somebody sends `short`, a prompt of 4 tokens. Plan the first four "
    "iterations. `short` shall say its first token as early as it can, and then a token in each "
    "iteration. Whatever room that leaves belongs to `long`. An answer is a list, with the tokens of each "
    "request for each iteration: `[{'long': 8}, …]`.",
    n_long=64,
    n_cached=8,
    n_short=4,
    arrival=2,
    budget=8,
    n_iterations=4,
    wrong=(
        WrongPlan(
            ({"long": 8}, {"long": 8}, {"long": 8}, {"long": 8}),
            "late",
            "First come, first served: the short request waits until the document is done. The chunks make "
            "room between them, and nobody uses it.",
        ),
        WrongPlan(
            ({"long": 8}, {"long": 8, "short": 4}, {"long": 8, "short": 1}, {"long": 8, "short": 1}),
            "budget",
            "The budget counts all tokens of an iteration, whoever they belong to. What comes on top makes "
            "the iteration longer, and everybody in it waits for that.",
        ),
        WrongPlan(
            ({"long": 8}, {"long": 6, "short": 2}, {"long": 6, "short": 2}, {"long": 7, "short": 1}),
            "cut",
            "The short prompt is cut in two although it fits into one iteration. Its first token comes only "
            "after its last chunk.",
        ),
        WrongPlan(
            ({"long": 8}, {"short": 4}, {"short": 1}, {"short": 1}),
            "idle",
            "The document stops while the short request runs. That buys nothing: the first token comes in "
            "the same iteration, and the rest of the room is lost.",
        ),
        WrongPlan(
            ({"long": 8}, {"long": 4, "short": 4}, {"long": 8}, {"long": 8}),
            "stall",
            "The short request is let in and then forgotten. Once its prompt is cached it has a token to say "
            "in every iteration.",
        ),
        WrongPlan(
            (
                {"long": 4, "short": 4},
                {"long": 7, "short": 1},
                {"long": 7, "short": 1},
                {"long": 7, "short": 1},
            ),
            "early",
            "The short request runs before it has come. A scheduler decides each iteration with what it "
            "knows then.",
        ),
    ),
    hints=(
        "Take iteration 2 alone. Who has something to run, and for whom is waiting worse?",
        "The whole prompt of `short` fits into iteration 2. How many of the 8 tokens are left for `long`?",
        "From iteration 3 on `short` decodes: one token. Its share is 4, then 1, then 1.",
    ),
)
