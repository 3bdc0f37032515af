"""Predictions and questions of chapter 2: can the cache be built in pieces?"""

from __future__ import annotations

from chunkprefill.exercises.choice import Choice, Option

N, C = 1000, 256

guess_text = Choice(
    id="guess-text",
    predict=True,
    prompt="A real model gets the same prompt twice: once in one pass, once in chunks of 7 tokens. How do "
    "its two answers compare?",
    options=(
        Option("same", "They are the same, word for word.", "A token looks only backwards. What it looks "
               "at does not depend on which pass put it there."),
        Option("close", "They are alike, with a few other words.", "That would be so if the later chunks "
               "saw only a part of what came before. They see all of it."),
        Option("worse", "The second is worse: each chunk is read without the others.", "Chunks are not "
               "read on their own. Each one looks back at all the keys and values cached before it."),
    ),
)  # fmt: skip

guess_speed = Choice(
    id="guess-speed",
    predict=True,
    prompt="One prompt, nobody else on the machine. It is prefilled in one pass, and then again in chunks "
    "of 16 tokens. How long do the chunks take, all together?",
    options=(
        Option("shorter", "Less time: small pieces are easier.", "The same multiplications have to be "
               "done. Cutting them up saves none of them."),
        Option("same", "The same time: it is the same work.", "The arithmetic is the same. The reading is "
               "not: every pass fetches all the weights again."),
        Option("longer", "More time.", "The arithmetic is the same, but each pass reads all the weights "
               "again, and a small chunk has too few tokens to hide that behind."),
    ),
)  # fmt: skip

guess_price = Choice(
    id="guess-price",
    predict=True,
    prompt="Two things are read again and again when a prompt is cut into small chunks: the model's "
    "weights, by every pass, and the keys and values cached so far, by every later chunk. Which of them "
    "makes up more of the extra time?",
    options=(
        Option("weights", "The weights.", "They are there in full from the first chunk on, and a small "
        "chunk cannot hide reading them."),
        Option("cache", "The cached keys and values.", "They add up too, and a long prompt has many. For "
               "each pass they are still the smaller pile."),
    ),
)  # fmt: skip

how_many_passes = Choice(
    id="how-many-passes",
    prompt=f"A prompt of {N:,} tokens is prefilled alone, in chunks of at most {C}. How many forward "
    "passes does that take?",
    options=(
        Option("a", f"{N // C}", "That many *whole* chunks fit. The tokens that are left over need a pass "
        "as well."),
        Option("b", f"{-(-N // C)}", f"{N:,} divided by {C}, rounded up: the last chunk is short.", True),
        Option("c", f"{-(-N // C) + 1}", "The first output token comes out of the last chunk; it needs no "
        "pass of its own."),
        Option("d", f"{N:,}", "That would be one token a pass, as in decoding. A chunk's tokens run side "
        "by side."),
    ),
)  # fmt: skip

why_it_works = Choice(
    id="why-it-works",
    prompt="Why can the cache be built in pieces at all?",
    options=(
        Option("a", "The keys and values of a position depend on that position and those before it, never "
        "on later ones.",
               "So a chunk can be finished before the next one has been looked at.", True),
        Option("b", "Neighbouring chunks overlap by a few tokens, so that nothing is lost at the seams.",
               "No token is run twice. A chunk looks back through the cache, not through an overlap."),
        Option("c", "The differences are too small to change the next token.",
               "In exact arithmetic there are none. What is left is the rounding of another order of sums."),
        Option("d", "Each chunk is a text of its own, and the model joins their meanings at the end.",
               "Nothing is joined at the end. Every token of a later chunk looks at every token before it."),
    ),
)  # fmt: skip

when_causal = Choice(
    id="when-causal",
    prompt="For which chunks of a prompt does `is_causal=True` of torch's attention give the right mask?",
    options=(
        Option("a", "For all of them.", "Its border starts in the top left corner. From the second chunk "
               "on it has to end in the bottom right one."),
        Option("b", "For the first.", "There are as many queries as keys, so both corners lie on the "
        "border.", True),
        Option("c", "For the last.", "The last chunk has the longest prefix: there the border is furthest "
        "off."),
        Option("d", "For none.", "With nothing cached the mask is square, and the border is where it "
        "should be."),
    ),
)  # fmt: skip

first_token = Choice(
    id="first-token",
    prompt="A prompt is run in five chunks. When can its first output token be picked?",
    options=(
        Option("a", "After the first chunk: the model has begun to read.", "A token picked there would "
               "continue the first fifth of the prompt, as if the rest had not been asked."),
        Option("b", "After each chunk, one token each.", "A chunk that is not the last is followed by "
               "tokens that are known already. There is nothing to pick."),
        Option("c", "After the fifth chunk.", "The first output token follows the prompt's *last* token, "
        "so that one has to have been run.", True),
    ),
)  # fmt: skip

pairs_in_chunks = Choice(
    id="pairs-in-chunks",
    prompt="A prompt is run in four chunks in place of one pass. What happens to the number of query–key "
    "pairs for which attention computes a score?",
    options=(
        Option("a", "It falls to a quarter.", "Each chunk has a quarter of the queries, but there are "
               "four of them, and they look at all keys before them."),
        Option("b", "It stays the same.", "Each token still looks at itself and at every token before it, "
               "once. What grows is how often the keys are *read*.", True),
        Option("c", "It grows fourfold.", "No pair is computed twice: each query belongs to one chunk."),
    ),
)  # fmt: skip

what_for = Choice(
    id="what-for",
    prompt="Cutting a prompt into chunks costs time, and its peak of working memory is smaller. What is "
    "it done for, on a server?",
    options=(
        Option("a", "To make the prompt's own first token come sooner.", "It comes later: the same work, "
        "with more reading."),
        Option("b", "To fit the cache into less memory.", "The finished cache has the same size, "
        "whichever way it was built."),
        Option("c", "To let others run between the chunks.", "A pass cannot be interrupted. Short passes "
               "give the scheduler moments at which it can let somebody else run: that is what the next "
               "chapters are about.", True),
        Option("d", "To compute less.", "Nothing is computed away. Every query still meets every earlier "
        "key."),
    ),
)  # fmt: skip
