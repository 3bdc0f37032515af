"""Predictions and questions of chapter 1: what does prefilling build, and what does it cost?"""

from __future__ import annotations

from dataclasses import replace

from chunkprefill.configs import SMOLLM2_135M as SMOLLM2
from chunkprefill.model.config import Config
from chunkprefill_course.forms.choice import Choice, Option

N_TOKENS, BYTES_PER_NUMBER = 1000, 4


def _megabytes(config: Config, share: float = 1) -> str:
    return f"{share * config.kv_bytes(N_TOKENS, BYTES_PER_NUMBER) / 1e6:,.1f} MB"


guess_twice = Choice(
    id="guess-twice",
    predict=True,
    number="times as long",
    prompt="A prompt of 512 tokens is prefilled in one pass. How long does a prompt of 1,024 tokens take on the same small model?",
    options=(
        Option(
            "same",
            "About as long: one pass is one pass.",
            "A pass reads the weights once but multiplies them with every token. Beyond the first few dozen tokens the multiplying takes the time.",
        ),
        Option(
            "twice",
            "About twice as long.",
            "Nearly all the work is matrix products, and each token costs the same there. Attention grows faster but is still the smaller part at this length.",
        ),
        Option(
            "four",
            "About four times as long: every token looks at every other.",
            "That holds for attention alone, which takes over at far longer prompts.",
        ),
    ),
)

guess_share = Choice(
    id="guess-share",
    predict=True,
    number="% of the time in matrix products",
    prompt="Where does the time of prefilling 1,024 tokens go?",
    options=(
        Option(
            "linear",
            "Mostly into the matrix products with the weights.",
            "Each token is multiplied by every weight once. At this length that is far more arithmetic than looking back.",
        ),
        Option(
            "attention",
            "Mostly into attention: looking back at the other tokens.",
            "Attention's share grows with the prompt. It has not overtaken the matrix products here.",
        ),
        Option(
            "even",
            "Half and half.",
            "They are equal at one prompt length only, which depends on the model.",
        ),
    ),
)

what_is_built = Choice(
    id="what-is-built",
    prompt="A prompt has been prefilled. What is kept of that work for the tokens to come?",
    options=(
        Option(
            "a",
            "The keys and values of every prompt position, in every layer.",
            "These, and the logits of the last position, from which the first output token is picked. Everything else can be discarded.",
            True,
        ),
        Option(
            "b",
            "The hidden state of every prompt position, after the last layer.",
            "Later tokens never look at those. They look at keys and values, layer by layer.",
        ),
        Option(
            "c",
            "The queries of every prompt position, in every layer.",
            "A query is used once, by its own token. Later tokens ask with queries of their own.",
        ),
        Option(
            "d",
            "A short summary of the prompt.",
            "Nothing is summarised. The cache grows by the same number of bytes with every token.",
        ),
    ),
)

cache_size = Choice(
    id="cache-size",
    prompt=f"SmolLM2-135M has {SMOLLM2.n_layers} layers, {SMOLLM2.n_heads} query heads and "
    f"{SMOLLM2.n_kv_heads} key/value heads of {SMOLLM2.head_dim} numbers each. How large is its cache for "
    f"{N_TOKENS:,} tokens in float32, at {BYTES_PER_NUMBER} bytes a number?",
    options=(
        Option(
            "a", _megabytes(SMOLLM2, 0.5), "That counts only one of the two. Keys and values are both kept."
        ),
        Option(
            "b",
            _megabytes(SMOLLM2),
            f"2 × {SMOLLM2.n_layers} layers × {SMOLLM2.n_kv_heads} heads × {SMOLLM2.head_dim} numbers × "
            f"{BYTES_PER_NUMBER} bytes × {N_TOKENS:,} tokens.",
            True,
        ),
        Option(
            "c",
            _megabytes(replace(SMOLLM2, n_kv_heads=SMOLLM2.n_heads)),
            "That counts a key and a value for each *query* head. Here three query heads share one of each.",
        ),
        Option(
            "d",
            _megabytes(SMOLLM2, 1 / SMOLLM2.n_layers),
            "That is the cache of one layer. Every layer keeps its own.",
        ),
    ),
)

who_waits = Choice(
    id="who-waits",
    prompt="A server prefills a prompt of 16,000 tokens in one forward pass. Ten other requests are in "
    "the middle of their answers. What happens to those requests during that pass?",
    options=(
        Option(
            "a",
            "They go on, a little slower.",
            "A request cannot join a forward pass that is already running. Every request outside it waits.",
        ),
        Option(
            "b",
            "They get no token until the pass is over.",
            "A pass runs to its end. The longer it is, the longer the gap of every request that is not in it.",
            True,
        ),
        Option(
            "c",
            "They lose their caches and have to start again.",
            "Their caches stay where they are. These requests lose time, not work.",
        ),
        Option(
            "d",
            "They finish first, and the prompt waits.",
            "That is a rule about which request runs next. While a pass runs, no other request does, whatever the rule.",
        ),
    ),
)

why_one_row = Choice(
    id="why-one-row",
    prompt="The last matrix of the model turns a hidden state into logits, one for each token of the vocabulary. For how many positions of a prompt does prefilling need them?",
    options=(
        Option(
            "a",
            "For the last one.",
            "Only the token after the prompt is unknown. Logits of other positions would predict tokens that are already there.",
            True,
        ),
        Option(
            "b",
            "For every one.",
            "Training needs them all. Here they would predict tokens that the prompt already contains, at a cost in time and memory.",
        ),
        Option(
            "c",
            "For none.",
            "The first output token is picked from the logits of the prompt's last position.",
        ),
    ),
)
