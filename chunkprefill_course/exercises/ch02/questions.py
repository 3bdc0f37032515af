"""Predictions and questions of chapter 2: can the cache be built in pieces?"""

from __future__ import annotations

from chunkprefill_course.forms.choice import Choice, Option

N, C = 1000, 256

guess_text = Choice(
    id="guess-text",
    predict=True,
    prompt="A real model reads the same prompt twice, once in one pass and once in chunks of 7 tokens. How do its two answers compare?",
    options=(
        Option(
            "same",
            "They are the same, word for word.",
            "A token only looks back. What it finds there does not depend on which pass put it there.",
        ),
        Option(
            "close",
            "They are similar, with a few different words.",
            "That would happen if later chunks saw only part of what came before. They see all of it.",
        ),
        Option(
            "worse",
            "The second is worse, because each chunk is read without the others.",
            "Chunks are not read on their own. Each looks back at all the keys and values cached before it.",
        ),
    ),
)

guess_speed = Choice(
    id="guess-speed",
    predict=True,
    number="times as long as one pass",
    prompt="One prompt, alone on the machine, is prefilled in one pass and then again in chunks of 16 tokens. How long do the chunks take in total?",
    options=(
        Option(
            "shorter",
            "Less time: small pieces are easier.",
            "The same multiplications have to be done, and cutting the prompt saves none of them.",
        ),
        Option(
            "same",
            "The same time: it is the same work.",
            "The arithmetic is the same. The reading is not, because every pass fetches all the weights again.",
        ),
        Option(
            "longer",
            "More time.",
            "The arithmetic is the same, but every pass reads all the weights again, and a small chunk has too few tokens to hide that.",
        ),
    ),
)

guess_price = Choice(
    id="guess-price",
    predict=True,
    prompt="Two things are read again and again when a prompt is cut into small chunks: the model's "
    "weights, by every pass, and the keys and values cached so far, by every later chunk. Which of the two costs more of the extra time?",
    options=(
        Option(
            "weights",
            "The weights.",
            "Every pass reads all of them, from the first chunk on, and a small chunk has too little arithmetic to hide that.",
        ),
        Option(
            "cache",
            "The cached keys and values.",
            "They add up, and in a very long prompt they overtake the weights. In a prompt like this one a pass still reads fewer bytes of them.",
        ),
    ),
)

how_many_passes = Choice(
    id="how-many-passes",
    prompt=f"A prompt of {N:,} tokens is prefilled alone, in chunks of at most {C}. How many forward "
    "passes does that take?",
    options=(
        Option(
            "a",
            f"{N // C}",
            "That many *whole* chunks fit. The tokens left over need a pass too.",
        ),
        Option("b", f"{-(-N // C)}", f"{N:,} divided by {C}, rounded up: the last chunk is short.", True),
        Option(
            "c",
            f"{-(-N // C) + 1}",
            "The first output token comes from the last chunk and needs no pass of its own.",
        ),
        Option(
            "d",
            f"{N:,}",
            "That would be one token per pass, as in decoding. All tokens of a chunk run together.",
        ),
    ),
)

why_it_works = Choice(
    id="why-it-works",
    prompt="Why can the cache be built in pieces at all?",
    options=(
        Option(
            "a",
            "The keys and values of a position depend on that position and those before it, never "
            "on later ones.",
            "So a chunk can be finished before the next one is read.",
            True,
        ),
        Option(
            "b",
            "Neighbouring chunks overlap by a few tokens, so that nothing is lost at the seams.",
            "No token is run twice. A chunk looks back through the cache, not through an overlap.",
        ),
        Option(
            "c",
            "The differences are too small to change the next token.",
            "In exact arithmetic there is no difference at all. What remains is rounding, from sums taken in another order.",
        ),
        Option(
            "d",
            "Each chunk is a separate text, and the model combines their meanings at the end.",
            "Nothing is combined at the end. Every token of a later chunk looks at every token before it.",
        ),
    ),
)

when_causal = Choice(
    id="when-causal",
    prompt="For which chunks of a prompt does `is_causal=True` of torch's attention give the right mask?",
    options=(
        Option(
            "a",
            "For all of them.",
            "Its staircase starts in the top left corner. From the second chunk on it has to end in the bottom right corner instead.",
        ),
        Option(
            "b",
            "For the first.",
            "There are as many queries as keys, so the staircase reaches both corners.",
            True,
        ),
        Option(
            "c",
            "For the last.",
            "The last chunk has the longest prefix, so there the staircase is furthest off.",
        ),
        Option(
            "d",
            "For none.",
            "With nothing cached the mask is square, and the staircase is where it should be.",
        ),
    ),
)

first_token = Choice(
    id="first-token",
    prompt="A prompt is run in five chunks. When can its first output token be picked?",
    options=(
        Option(
            "a",
            "After the first chunk: the model has begun to read.",
            "A token picked there would continue the first fifth of the prompt as if the rest did not exist.",
        ),
        Option(
            "b",
            "After each chunk, one token each.",
            "A chunk that is not the last is followed by tokens that are already known. There is nothing to pick.",
        ),
        Option(
            "c",
            "After the fifth chunk.",
            "The first output token follows the prompt's *last* token, so that token must have been run.",
            True,
        ),
    ),
)

pairs_in_chunks = Choice(
    id="pairs-in-chunks",
    prompt="A prompt is run in four chunks instead of one pass. What happens to the number of query–key pairs that attention scores?",
    options=(
        Option(
            "a",
            "It falls to a quarter.",
            "Each chunk has a quarter of the queries, but there are four chunks, and each looks at all the keys before it.",
        ),
        Option(
            "b",
            "It stays the same.",
            "Each token still looks at itself and at every earlier token once. What grows is how often the keys are *read*.",
            True,
        ),
        Option(
            "c", "It grows fourfold.", "No pair is computed twice, because each query belongs to one chunk."
        ),
    ),
)

what_for = Choice(
    id="what-for",
    prompt="Cutting a prompt into chunks costs time and lowers the peak of working memory. Why do servers do it?",
    options=(
        Option(
            "a",
            "To make the prompt's own first token come sooner.",
            "That token comes later: the same work, with more reading.",
        ),
        Option(
            "b",
            "To fit the cache into less memory.",
            "The finished cache has the same size, however it was built.",
        ),
        Option(
            "c",
            "To let other requests run between the chunks.",
            "A pass cannot be interrupted. Short passes give the scheduler moments at which another request can run. The next chapters are about using them.",
            True,
        ),
        Option("d", "To compute less.", "Nothing is saved. Every query still meets every earlier key."),
    ),
)
