"""What to change on a server, in its engine's own names."""

from __future__ import annotations

#: engine: {idea: flag}. Read in the sources of vLLM 0.33.0 and SGLang 0.5.23.
FLAGS = {
    "vllm": {
        "budget": "--max-num-batched-tokens",
        "threshold": "--long-prefill-token-threshold",
        "order": "--scheduling-policy priority",
        "seats": "--max-num-seqs",
    },
    "sglang": {
        "budget": "--chunked-prefill-size",
        "mixed": "--enable-mixed-chunk",
        "order": "--schedule-policy shortest-prefill-first",
        "seats": "--max-running-requests",
    },
}


def engine_key(engine: str) -> str:
    """The key of FLAGS for a server's name such as `vLLM 0.32.0`; "" where it is not known."""
    word = engine.lower().split(" ")[0] if engine else ""
    return word if word in FLAGS else ""


def changes(engine: str, verdict: str) -> tuple[str, ...]:
    """What would change a verdict, as flags where the engine is known."""
    key = engine_key(engine)
    if verdict == "prompts first":
        return _CALMER.get(key, _CALMER[""])
    if verdict == "stall-free by arrival":
        return _NEWCOMERS.get(key, _NEWCOMERS[""])
    return _SMALLER.get(key, _SMALLER[""])


_CALMER = {
    "vllm": (
        "vLLM: keep chunked prefill on (its default) and lower --max-num-batched-tokens below the document's "
        "length: chats then get a token after every chunk",
    ),
    "sglang": (
        "SGLang: --enable-mixed-chunk lets decodes share a step with a chunk; a smaller "
        "--chunked-prefill-size makes the step shorter",
    ),
    "": ("a token budget (tokens a step) below the document's length, with decodes in every step",),
}
_NEWCOMERS = {
    "vllm": (
        "vLLM: --long-prefill-token-threshold below --max-num-batched-tokens leaves room in each step, in "
        "which a newcomer passes the document",
        "vLLM: a smaller --max-num-batched-tokens shortens the chats' gaps, and delays the document",
    ),
    "sglang": (
        "SGLang: --schedule-policy shortest-prefill-first caps a long prompt's chunk while shorter ones wait",
    ),
    "": (
        "a cap on one prompt's chunk below the token budget, or shortest first: newcomers then pass",
        "a smaller token budget shortens the chats' gaps, and delays the document",
    ),
}
_SMALLER = {
    "vllm": (
        "vLLM: nothing needs to change for newcomers; --max-num-batched-tokens and "
        "--long-prefill-token-threshold move the chats' gaps against the document's first token",
    ),
    "sglang": (
        "SGLang: nothing needs to change for newcomers; --chunked-prefill-size moves the chats' gaps against "
        "the document's first token",
    ),
    "": ("nothing for newcomers; the token budget moves the chats' gaps against the document's first token",),
}
