"""What to change on a server, in its engine's own names."""

from __future__ import annotations

#: verdict: engine: what would change it; "" for an engine that is not known. Flags as in the sources of vLLM
#: 0.33.0 and SGLang 0.5.23.
_WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "prompts first": {
        "vllm": (
            "vLLM: keep chunked prefill on (its default) and lower --max-num-batched-tokens below the document's "
            "length: chats then get a token after every chunk",
        ),
        "sglang": (
            "SGLang: --enable-mixed-chunk lets decodes share a step with a chunk; a smaller "
            "--chunked-prefill-size makes the step shorter",
        ),
        "": ("a token budget (tokens a step) below the document's length, with decodes in every step",),
    },
    "stall-free by arrival": {
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
    },
    "newcomers pass": {
        "vllm": (
            "vLLM: nothing needs to change for newcomers; --max-num-batched-tokens and "
            "--long-prefill-token-threshold move the chats' gaps against the document's first token",
        ),
        "sglang": (
            "SGLang: nothing needs to change for newcomers; --chunked-prefill-size moves the chats' gaps against "
            "the document's first token",
        ),
        "": (
            "nothing for newcomers; the token budget moves the chats' gaps against the document's first token",
        ),
    },
}


def changes(engine: str, verdict: str) -> tuple[str, ...]:
    """What would change a verdict, in flags where the engine, such as `vLLM 0.32.0`, is known."""
    words = _WORDS[verdict]
    return words.get(engine.lower().partition(" ")[0], words[""])
