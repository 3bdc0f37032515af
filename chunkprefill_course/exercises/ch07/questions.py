"""Predictions and questions of chapter 7: why is this server slow?"""

from __future__ import annotations

from chunkprefill_course.forms.choice import Choice, Option

guess_second_gpu = Choice(
    id="guess-second-gpu",
    predict=True,
    prompt="A server cuts prompts into small chunks, so that no chat is ever held up, and none is. But "
    "documents get their first token more than ten times later than promised. Its GPU is busy nearly all of "
    "the time, and hardly waits for the CPU. Does it need a second GPU?",
    options=(
        Option(
            "yes",
            "Yes: a busy GPU has nothing left to give.",
            "Busy says that a kernel runs. It does not "
            "say that much gets done: a GPU that reads all weights for a handful of tokens is busy too.",
        ),
        Option(
            "cpu",
            "No, it needs a faster CPU: many small steps mean a lot of scheduling.",
            "Each step does cost the CPU something, and there are many. Here it is a small part of the time.",
        ),
        Option(
            "set",
            "No: with other settings the same machine can serve this load.",
            "The work per step was too "
            "small, not the machine. Larger chunks read the weights less often for the same prompt.",
        ),
    ),
)

same_symptom = Choice(
    id="same-symptom",
    prompt="On two servers P99 of the time between tokens is far over its bound. On the first the "
    "longest step is as long as that gap. On the second all steps are short. What follows?",
    options=(
        Option(
            "a",
            "The first puts too much into a step; on the second, decodes sit out several steps.",
            "A gap is made of steps. Either one of them is long, or there are several. The first wants a "
            "smaller budget, the second another order.",
            True,
        ),
        Option(
            "b",
            "Both put too much into a step.",
            "On the second no step is long. Whatever its users wait for, it is not the end of one step.",
        ),
        Option(
            "c",
            "Both run prompts first.",
            "On the first a long step explains the gap alone. Who goes first in it need not matter.",
        ),
    ),
)

one_change = Choice(
    id="one-change",
    prompt="An operator raises the token budget, lets decodes go first and doubles the cache, all at "
    "once. The server is healthy again. What has been learned?",
    options=(
        Option(
            "a",
            "The cause: one of the three.",
            "One of them was needed, or two together. Which one is unknown, and the other changes stay, "
            "with costs of their own.",
        ),
        Option(
            "b",
            "That this configuration serves this load, and not what was wrong.",
            "A diagnosis is tested by changing one thing. The next load will raise the question again.",
            True,
        ),
        Option(
            "c",
            "Nothing at all.",
            "Something: the load can be served on this machine. That alone was worth "
            "knowing before buying another.",
        ),
    ),
)

who_was_protected = Choice(
    id="who-was-protected",
    prompt="From chapter 3: decodes go first and prompts are served in order of arrival. A chat that "
    "arrived behind a document waits a long time for its first token. Which change helps it?",
    options=(
        Option(
            "a",
            "A smaller token budget.",
            "It shortens the gaps of requests that decode. The document takes more steps, and the chat "
            "waits behind all of them.",
        ),
        Option(
            "b",
            "The shortest prompt first.",
            "The chat's prompt passes between the document's chunks. The document pays with a few steps.",
            True,
        ),
        Option("c", "More cache blocks.", "The chat does not wait for memory. It waits for its turn."),
    ),
)
