"""Predictions and questions of chapter 4: who waits for whom?"""

from __future__ import annotations

from chunkprefill_course.forms.choice import Choice, Option

guess_p99 = Choice(
    id="guess-p99",
    predict=True,
    prompt="Eight chats write 200 tokens each when a document of 16,384 tokens comes. One scheduler runs the "
    "document whole, first. The other cuts it into chunks of about 500, decodes first. Pool all gaps between "
    "tokens of the chats: which scheduler has the smaller **99th percentile**?",
    options=(
        Option(
            "whole",
            "The one that runs the document whole.",
            "Each chat falls silent once. That is one gap in two hundred, and the 99th percentile "
            "ignores the worst one in a hundred. Chunks make some thirty gaps of each chat longer, and "
            "those it does see.",
        ),
        Option(
            "chunks",
            "The one that cuts it.",
            "It has the smaller *largest* gap, by far. But it makes "
            "many gaps a little longer, and a percentile counts how many, not how bad.",
        ),
        Option(
            "same",
            "They have about the same.",
            "Their totals are close. What differs is how the waiting is spread, and that is exactly what "
            "a percentile measures.",
        ),
    ),
)

guess_throughput = Choice(
    id="guess-throughput",
    predict=True,
    prompt="64 requests with long prompts and short answers wait for one server, all at once. Does "
    "cutting the prompts into chunks, decodes riding along, raise or lower the tokens that it "
    "processes per second?",
    options=(
        Option(
            "raises",
            "It raises them.",
            "It does where decoding steps would otherwise run alone with "
            "few sequences in them: they ride on chunks that read the weights anyway.",
        ),
        Option(
            "lowers",
            "It lowers them.",
            "It does where decoding steps are full anyway, or prompts so "
            "long that their chunks outnumber them: each chunk reads the weights once more for little.",
        ),
        Option(
            "depends",
            "It depends on how many fit into memory, and on how long the prompts are.",
            "Both signs occur on the same server. The card's promise has conditions.",
        ),
    ),
)

trade_off = Choice(
    id="documents-and-chats",
    prompt="One server reads documents and answers chats. Its operators begin to cut the documents' "
    "prefilling into segments, and let the chats decode beside each segment. What is the main "
    "trade-off?",
    options=(
        Option(
            "a",
            "Chats stay responsive while a document is read; the price is more scheduling work, because "
            "each document is now many small tasks.",
            "One task a document has become dozens to track and "
            "dispatch, with chats in between. Nothing was computed away: it is the same cache, and each "
            "pass reads the weights again.",
            True,
        ),
        Option(
            "b",
            "Documents finish sooner; the price is that chats wait longer.",
            "The other way round. The document shares its steps, and its own first token comes later.",
        ),
        Option(
            "c",
            "Less is computed in all; the price is a cache that is only approximate.",
            "Every query "
            "meets the same keys as before, so the cache is the same, and so is the arithmetic. Chapter 2 "
            "ran it.",
        ),
        Option(
            "d",
            "Less memory is needed; the price is slower decoding.",
            "The activations of a pass "
            "shrink. The document's cache is as large as before, and is held for longer.",
        ),
    ),
)

which_number = Choice(
    id="which-number",
    prompt="Two teams compare schedulers. Both report a mean time between tokens of 20 ms. Users of one "
    "complain that the text freezes. Which number would have shown it?",
    options=(
        Option(
            "a",
            "The mean over more users.",
            "A freeze of two seconds among two hundred tokens adds ten "
            "milliseconds to a mean, however many users there are.",
        ),
        Option(
            "b",
            "The largest time between tokens, beside the percentiles.",
            "A freeze is rare by nature. Only the maximum is sure to show it; percentiles describe the "
            "smaller gaps.",
            True,
        ),
        Option(
            "c",
            "Tokens a second of the whole server.",
            "A server that freezes its chats to read a document is busy the whole time. Its throughput "
            "may even be higher.",
        ),
    ),
)

ride_along = Choice(
    id="ride-along",
    prompt="Sixteen short chats decode on a device that never waits to be given work (steps are replayed "
    "from graphs). Beside which of these do they add the least time to what the other work takes "
    "alone?",
    options=(
        Option(
            "a",
            "Beside a chunk of 64 tokens.",
            "Its step waits for the weights to come from memory, not "
            "for arithmetic. The decodes use the same weights while these are there.",
            True,
        ),
        Option(
            "b",
            "Beside a chunk of 2,048 tokens.",
            "That step is busy with arithmetic, and the decodes' "
            "arithmetic comes on top. The chunk's weights are shared, but nothing was waiting for them.",
        ),
        Option(
            "c",
            "Beside nothing: alone they disturb no one.",
            "Alone they read all the weights for "
            "sixteen tokens. Beside a small chunk, the chunk has read them already.",
        ),
    ),
)

whose_order = Choice(
    id="whose-order",
    prompt="From chapter 3: chunks are on, decodes go first, prompts in order of arrival. A chat arrives "
    "behind a document of 100,000 tokens. When does its prompt begin to run?",
    options=(
        Option(
            "a",
            "In the next step, beside a chunk.",
            "There is room in the step only for what the budget "
            "leaves, and the document, which came first, takes all of that.",
        ),
        Option(
            "b",
            "When the document's last chunk leaves room.",
            "Running decodes first protects requests that decode. In order of arrival, a newcomer's "
            "prompt waits in line like any other.",
            True,
        ),
        Option(
            "c",
            "When the document has written its answer.",
            "The document stops filling the budget as "
            "soon as its prompt is cached; from then on it takes one token a step.",
        ),
    ),
)
