"""Predictions and questions of chapter 5: how big should a chunk be?"""

from __future__ import annotations

from chunkprefill_course.forms.choice import Choice, Option

guess_budget = Choice(
    id="guess-budget",
    predict=True,
    prompt="A server answers conversations. Of 100 gaps between two tokens, 99 must be at most 50 ms long. "
    "It runs decodes first and fills up with chunks, under a token budget. Four budgets are tried. With "
    "which does it carry the most requests a second without breaking the promise?",
    options=(
        Option(
            "128",
            "128 tokens an iteration.",
            "Every gap is far shorter than asked for. In exchange, each pass reads all the weights for a "
            "few tokens, and the queue of prompts grows.",
        ),
        Option(
            "256",
            "256 tokens an iteration.",
            "The promise is kept with room to spare: room in which more requests could have been served.",
        ),
        Option(
            "512",
            "512 tokens an iteration.",
            "Its full step just fits under the bound. A larger one "
            "breaks it as soon as prompts come often; a smaller one reads the weights more often.",
        ),
        Option(
            "1024",
            "1,024 tokens an iteration.",
            "It wastes the least, but its full step is longer than the bound. Only when prompts are rare "
            "do full steps make up under 1% of the gaps.",
        ),
    ),
)

guess_depth = Choice(
    id="guess-depth",
    predict=True,
    number="times as long",
    prompt="A prompt of 128,000 tokens is cut into 250 chunks of 512. The first chunk has been timed. How "
    "long does the last one take?",
    options=(
        Option(
            "same",
            "Equally long: it has equally many tokens.",
            "It has equally many tokens, but many more to look back at. Each of its queries reads the "
            "whole cache that the other chunks have built.",
        ),
        Option(
            "twice",
            "About twice as long.",
            "It would be, if the prompt ended much earlier. Attention "
            "grows with what is cached, and here that is 250 times the chunk.",
        ),
        Option(
            "more",
            "More than four times as long.",
            "The matrix products take as long as before. Attention now runs over the whole prompt, and "
            "has overtaken them.",
        ),
    ),
)

what_thumb_forgets = Choice(
    id="what-thumb-forgets",
    prompt="*Take the chunk that lasts as long as a decoding step.* What does this rule never ask?",
    options=(
        Option(
            "a", "How long a chunk takes.", "It does ask that: it compares the chunk's time with another."
        ),
        Option(
            "b",
            "How long a user is willing to wait between two tokens.",
            "The bound is not in it. A decoding step may be far shorter than any reader needs, and a "
            "chunk as short as that reads the weights for only a few tokens.",
            True,
        ),
        Option(
            "c",
            "How many tokens the prompt has.",
            "True, and a late chunk of a long prompt takes longer. But a rule that asked only for that "
            "would still not know what is allowed.",
        ),
        Option(
            "d",
            "What a decoding step takes.",
            "That is what it goes by. It changes with the number of decodes and with their contexts, so "
            "the rule's answer moves with the load.",
        ),
    ),
)

loose_bound = Choice(
    id="loose-bound",
    prompt="A job summarises 10,000 documents overnight. No user reads along. How should the token budget be "
    "chosen?",
    options=(
        Option(
            "a",
            "Small, so that the steps are even.",
            "Even steps serve a reader who waits for the next token. Here no reader does, and each step "
            "reads all the weights.",
        ),
        Option(
            "b",
            "As large as memory allows.",
            "Without a bound on the time between tokens, fewer and longer steps read the weights less "
            "often. Well above the saturation point a larger budget makes little difference, so stop "
            "before the activations of a step would take blocks from the cache.",
            True,
        ),
        Option(
            "c",
            "So that a chunk lasts as long as a decoding step.",
            "Then the job would read the weights more often than needed, and no user would gain.",
        ),
    ),
)

over_tile = Choice(
    id="over-tile",
    prompt="An operator computes that a budget of 270 tokens is the largest whose step fits. Tests with 256 "
    "show the same number of requests a second. What is the likely reason?",
    options=(
        Option(
            "a",
            "Both are below the saturation point, so size does not matter.",
            "Below it size matters "
            "most: the time is that of reading the weights, and more tokens come almost free.",
        ),
        Option(
            "b",
            "The products run in tiles of 128 tokens: the last 14 of the 270 tokens begin a third tile.",
            "The step takes longer for the third tile, and 14 tokens are all it gets for that: the gain "
            "and the loss cancel out. How much longer depends on the machine. A budget at a multiple of "
            "the tile gets the most for what it pays.",
            True,
        ),
        Option("c", "The decodes take the other 14.", "Decodes count the same in both budgets."),
    ),
)

why_slower_days = Choice(
    id="why-slower-days",
    prompt="A server has kept its bound for weeks, with prompts of up to 8,000 tokens and a budget of 512. "
    "Today P99 of the time between tokens is four times as long. The rate is the same, the steps have 512 "
    "tokens as before, and no request was evicted. What do you look at first?",
    options=(
        Option(
            "a",
            "How long today's prompts are.",
            "A chunk's attention grows with what is cached before "
            "it. 512 tokens at the end of a prompt of 100,000 are not the 512 tokens of yesterday.",
            True,
        ),
        Option(
            "b",
            "Whether decodes still go first.",
            "If they did not, steps would be as long as before, "
            "and chats would sit out some of them. Here the steps themselves have become longer.",
        ),
        Option(
            "c",
            "Whether the budget is too small.",
            "A smaller budget makes steps shorter. The complaint is that they are long.",
        ),
    ),
)

whose_price = Choice(
    id="whose-price",
    prompt="From chapter 3: a budget is lowered from 1,024 to 256, decodes go first, prompts are served in "
    "order of arrival. Who waits *longer* now?",
    options=(
        Option(
            "a",
            "Requests that are decoding.",
            "Their steps have become shorter. They are the reason to lower a budget.",
        ),
        Option(
            "b",
            "Requests with a prompt to run, and all behind them.",
            "The same prompt takes more passes, and each pass reads the weights again.",
            True,
        ),
        Option(
            "c",
            "No request: the same work is done.",
            "The products are the same, but more is read. The requests whose prompts have not run yet "
            "pay for it.",
        ),
    ),
)
