"""Predictions and questions of chapter 3: who runs next?"""

from __future__ import annotations

from chunkprefill_course.exercises.texts import prose
from chunkprefill_course.forms.choice import Choice, Option

guess_waits = Choice(
    id="guess-waits",
    predict=True,
    prompt=prose("guess-waits"),
    options=(
        Option(
            "silence",
            "The longest gap in chat 1.",
            "Chat 1 decodes beside every chunk, so it waits for one chunk at a time. Chat 3 still has "
            "its prompt to run, and waits in line behind the document.",
        ),
        Option(
            "first",
            "The time until chat 3's first token.",
            "The chunks leave no room for chat 3: its prompt arrived after the document's, and is served "
            "after it.",
        ),
        Option(
            "both",
            "Both.",
            "Cutting makes room between the chunks, and decoding steps use it. A prompt that arrived "
            "later cannot use it as long as prompts are served in order of arrival.",
        ),
        Option(
            "neither",
            "Neither: it is the same work.",
            "The work is the same. But a decoding step no longer has to wait for all of it.",
        ),
    ),
)

guess_cut_alone = Choice(
    id="guess-cut-alone",
    predict=True,
    prompt="A scheduler runs prompts first, and decoding only when no prompt is left. Its author cuts "
    "all prompts into chunks of 512 and changes nothing else. What happens to the longest gap in "
    "chat 1?",
    options=(
        Option(
            "one",
            "It shrinks to about one chunk.",
            "After each chunk the scheduler asks the same "
            "question as before, and a prompt is still waiting: the rest of this one.",
        ),
        Option("half", "It shrinks a little.", "Nothing runs between the chunks but the next chunk."),
        Option(
            "not",
            "It does not shrink.",
            "Between two chunks the scheduler may choose, and it chooses the next chunk. Cutting creates "
            "the opening; only the order decides which request uses it.",
        ),
    ),
)

decode_is = Choice(
    id="decode-is",
    prompt="In this book's package a step has no phases. What is a decoding step to it?",
    options=(
        Option(
            "a",
            "A flag that the scheduler sets on a sequence.",
            "There is no flag that could be set wrongly. What a sequence needs follows from two numbers: "
            "tokens known, tokens cached.",
        ),
        Option(
            "b",
            "A chunk of one token, after which everything known is cached.",
            "So it emits, like the "
            "last chunk of a prompt. One kind of task, and one rule for when a token comes out.",
            True,
        ),
        Option(
            "c",
            "Any chunk of one token.",
            "A prompt may be cut so that a chunk has one token. It emits "
            "only if nothing is left to cache: chapter 2's trap.",
        ),
    ),
)

why_still_waiting = Choice(
    id="why-still-waiting",
    prompt="An engine runs decodes first and chunks of 512 in what is left. A user sends 20 tokens right "
    "after another user's document of 100,000 and waits for seconds. What would help *this* user?",
    options=(
        Option(
            "a",
            "Smaller chunks.",
            "Then there would be more of them, and the user would still wait behind all of them. Chapter "
            "5 shows that they cost more time in all.",
        ),
        Option(
            "b",
            "Letting a short prompt pass between the chunks.",
            "There is room after every chunk. The order of admission decides which request uses it.",
            True,
        ),
        Option(
            "c",
            "Decoding steps before chunks.",
            "That is so already. This user has no decoding step yet, because the prompt has not run.",
        ),
    ),
)

which_condition = Choice(
    id="which-condition",
    prompt="Decodes first, 100 sequences decoding, one long prompt. The operator lowers the token budget "
    "from 512 to 64. What happens?",
    options=(
        Option(
            "a",
            "The prompt is cut into chunks of 64.",
            "The decodes use up the budget before the prompt's turn comes.",
        ),
        Option(
            "b",
            "64 of the 100 decode; the others, and the prompt, are left out.",
            "The promise has a "
            "condition: the budget is at least the number of decodes. Here it is broken, whatever the "
            "order.",
            True,
        ),
        Option(
            "c",
            "All 100 decode, because decodes go first.",
            "They go first, but only as far as the budget reaches. The budget limits all tokens of the "
            "iteration.",
        ),
    ),
)

who_is_next = Choice(
    id="who-is-next",
    prompt="From chapter 2: the first token of a prompt in three chunks can come out…",
    options=(
        Option(
            "a",
            "after the first chunk, if it is urgent.",
            "The first chunk's last position knows "
            "nothing of what comes after it. Its next token is a token of the prompt.",
        ),
        Option(
            "b",
            "after the last chunk, whatever runs between the chunks.",
            "Only then is every known token cached. Other requests may run in between: the cache stays.",
            True,
        ),
        Option(
            "c",
            "only if nothing else runs between the chunks.",
            "A chunk needs the cache of the chunks before it, and a cache does not fade while other "
            "requests run.",
        ),
    ),
)
