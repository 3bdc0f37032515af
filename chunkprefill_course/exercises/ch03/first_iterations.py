"""Exercise (the card Q2): a long prompt is being prefilled, a short one arrives; plan what runs next."""

from __future__ import annotations

from chunkprefill_course.exercises.texts import prose
from chunkprefill_course.forms.playback import Playback, WrongPlan

first_iterations = Playback(
    id="first-iterations",
    title="A short request arrives",
    prompt=prose("first-iterations"),
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
            "First come, first served: the short request waits until the document is done. There is room "
            "between the chunks, but no rule uses it.",
        ),
        WrongPlan(
            ({"long": 8}, {"long": 8, "short": 4}, {"long": 8, "short": 1}, {"long": 8, "short": 1}),
            "budget",
            "The budget covers all tokens of an iteration, whichever request they belong to. Extra "
            "tokens make the iteration longer, and every request in it waits for that.",
        ),
        WrongPlan(
            ({"long": 8}, {"long": 6, "short": 2}, {"long": 6, "short": 2}, {"long": 7, "short": 1}),
            "cut",
            "The short prompt is cut in two even though it fits into one iteration. Its first token "
            "comes only after its last chunk.",
        ),
        WrongPlan(
            ({"long": 8}, {"short": 4}, {"short": 1}, {"short": 1}),
            "idle",
            "The document stops while the short request runs. That buys nothing: the short request's "
            "first token comes in the same iteration anyway, and the rest of the room is wasted.",
        ),
        WrongPlan(
            ({"long": 8}, {"long": 4, "short": 4}, {"long": 8}, {"long": 8}),
            "stall",
            "The short request is admitted and then forgotten. Once its prompt is cached, it can produce "
            "a token in every iteration.",
        ),
        WrongPlan(
            (
                {"long": 4, "short": 4},
                {"long": 7, "short": 1},
                {"long": 7, "short": 1},
                {"long": 7, "short": 1},
            ),
            "early",
            "The short request runs before it has arrived. A scheduler decides each iteration with what "
            "it knows at that moment.",
        ),
    ),
    hints=(
        "Look at iteration 2 alone. Which requests have something to run, and which of them suffers more "
        "from waiting?",
        "The whole prompt of `short` fits into iteration 2. How many of the 8 tokens are left for `long`?",
        "From iteration 3 on `short` decodes: one token. Its share is 4, then 1, then 1.",
    ),
)
