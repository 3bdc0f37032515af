"""Predictions and questions of chapter 8: what do vLLM and the others do?"""

from __future__ import annotations

from chunkprefill_course.exercises.texts import prose
from chunkprefill_course.forms.choice import Choice, Option

guess_threshold = Choice(
    id="guess-threshold",
    predict=True,
    prompt=prose("guess-threshold"),
    options=(
        Option(
            "same",
            "It stays as it was.",
            "The budget was used up by the long prompt, iteration after iteration. The cap leaves half "
            "of it to the queue.",
        ),
        Option(
            "half",
            "It is halved.",
            "Half of each iteration is free now. But the short prompt does not need half of all "
            "iterations: its 200 tokens fit into the first one.",
        ),
        Option(
            "tiny",
            "It falls to less than a hundredth.",
            "The short prompt no longer waits for the long "
            "one to end. It gets what the cap leaves in the very next iteration.",
        ),
    ),
)

guess_two_cards = Choice(
    id="guess-two-cards",
    predict=True,
    prompt="Two GPUs serve conversations. Either both do everything, each for half of the requests, or "
    "one only prefills and the other only decodes. Which arrangement carries more requests a "
    "second?",
    options=(
        Option(
            "alike",
            "Two that do everything, always.",
            "Where bounds are loose, a GPU that does both fills its steps better. Where they are tight, "
            "a chunk disturbs the decodes beside it too much.",
        ),
        Option(
            "apart",
            "One for each task, always.",
            "Where the bound on the time between tokens is tight, yes. Where it is loose, one of the two "
            "GPUs waits for work.",
        ),
        Option(
            "depends",
            "It depends on what is promised.",
            "With a tight bound on the time between tokens, no budget keeps both promises on one GPU. "
            "With a loose one, GPUs that do both carry more.",
        ),
    ),
)

whose_rules = Choice(
    id="whose-rules",
    prompt="Two chats decode, a document is half prefilled, and a third chat waits. An engine decides: "
    "the document gets 512 tokens, and no other request gets any. The next five decisions look "
    "the same. Which engine is it, with default settings?",
    options=(
        Option(
            "a",
            "vLLM V1.",
            "Its running chats were admitted before the document, so they get their tokens before it does.",
        ),
        Option(
            "b",
            "SGLang.",
            "As long as a prompt can run, prompts run; decodes have iterations of their own, and run "
            "when no prompt is left. `--enable-mixed-chunk` or an interval would change that.",
            True,
        ),
        Option("c", "tiny-llm.", "It would run the same chunk, and then a decoding step before the next."),
        Option("d", "Orca.", "It cuts nothing: the document would have run whole, beside the decodes."),
    ),
)

smaller_chunks = Choice(
    id="smaller-chunks",
    prompt="An SGLang server with default settings gets a steady stream of long prompts. Its chats fall "
    "silent for half a minute. The operator lowers `--chunked-prefill-size` from 8,192 to 2,048. "
    "What happens to the silence?",
    options=(
        Option(
            "a",
            "It shrinks to a quarter.",
            "It would, if a decoding step came after each chunk. But after each chunk the scheduler "
            "first looks for another prompt to run.",
        ),
        Option(
            "b",
            "It stays, or gets worse.",
            "Prompts still go first. They now come in more pieces, and take a little longer.",
            True,
        ),
        Option("c", "It is gone.", "Decodes would have to run in between. Chunks alone protect no request."),
    ),
)

threshold_above = Choice(
    id="threshold-above",
    prompt="A recipe for vLLM sets `max_num_batched_tokens` to 8,192 and `long_prefill_token_threshold` to "
    "16,384. What does the threshold do?",
    options=(
        Option(
            "a",
            "It cuts prompts longer than 16,384 tokens.",
            "All prompts longer than what is left of the budget are cut, with or without it.",
        ),
        Option(
            "b",
            "It keeps two prompts in each iteration.",
            "That takes a threshold of half the budget or less.",
        ),
        Option(
            "c",
            "Nothing: the budget is the smaller of the two.",
            "No prompt gets more than the budget in an iteration. A cap above it never binds.",
            True,
        ),
    ),
)

what_prefix_saves = Choice(
    id="what-prefix-saves",
    prompt="A prompt of 32,768 tokens begins with 30,720 that are cached from an earlier request. What "
    "work is left?",
    options=(
        Option(
            "a",
            "The same as for a prompt of 2,048 tokens.",
            "As many passes, and as many products with "
            "the weights. But each of its tokens looks back at all that is cached.",
        ),
        Option(
            "b",
            "The passes of 2,048 tokens, each looking back at 30,720 more.",
            "Nothing of the prefix "
            "is computed again, and all of it is read by attention, as a late chunk reads what its early "
            "ones have cached.",
            True,
        ),
        Option(
            "c",
            "Nothing until the first token.",
            "The last tokens of the prompt have never been run: there are no logits to draw a token from.",
        ),
    ),
)

who_pays_for_budget = Choice(
    id="who-pays-for-budget",
    prompt="From chapter 4: an engine runs decodes first and takes prompts in order of arrival. Prompts "
    "are cut into chunks. Which requests does the cutting protect?",
    options=(
        Option(
            "a",
            "Requests that are decoding when a long prompt comes.",
            "A decode waits for one chunk at a time. That is the promise of the chunks.",
            True,
        ),
        Option(
            "b",
            "Requests that come after the long prompt.",
            "A newcomer has a prompt to run, and waits in line behind the long one. It takes another "
            "order, or a cap, to let it in.",
        ),
        Option("c", "The long prompt.", "It pays: it takes more passes, and shares each of them."),
    ),
)
