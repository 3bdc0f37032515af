"""Exercise (the card Q1): order the steps that build the cache of a long prompt, chunk by chunk."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

from chunkprefill_course.exercises.texts import prose
from chunkprefill_course.forms.boards import Cell, board
from chunkprefill_course.forms.order import Broken, Card, Order

LENGTHS = (4, 4, 2)  # tokens in each chunk
N = sum(LENGTHS)
STARTS = (0, 4, 8)


@cache
def _model() -> Any:
    import torch

    from chunkprefill.model.weights import load_model

    return load_model("tiny", dtype=torch.float64)


def _prompt() -> list[int]:
    return [7 * i + 3 for i in range(N)]


@dataclass(eq=False)
class TinyModel:
    """A tiny real model at work on a prompt of ten tokens."""

    pieces: tuple[int, ...] = (N,)
    cache: Any = None
    logits: Any = None
    output: list[int] = field(default_factory=list)

    @property
    def filled(self) -> int:
        """Positions whose keys and values are in the cache."""
        return self.cache.length if self.cache is not None else 0


def split(bench: TinyModel) -> None:
    """Cut the prompt."""
    bench.pieces = LENGTHS


def reserve(bench: TinyModel) -> None:
    """Make an empty cache."""
    from chunkprefill.model.cache import KVCache

    bench.cache = KVCache(_model().config, N + 1, dtype=_model().dtype)


def run_chunk(i: int, bench: TinyModel) -> None:
    """One forward pass over chunk i, if everything that it needs is there."""
    from chunkprefill.generation import prefill

    start, end = STARTS[i], STARTS[i] + LENGTHS[i]
    if len(bench.pieces) == 1:
        raise Broken(f"there is no chunk {i + 1} yet, the prompt is still in one piece")
    if bench.cache is None:
        raise Broken(f"chunk {i + 1} has nowhere to put its keys and values, because no cache is reserved")
    if bench.filled < start:
        raise Broken(
            f"chunk {i + 1} reads positions {bench.filled}–{start - 1}, which are not in the cache yet"
        )
    bench.logits = prefill(_model(), _prompt()[start:end], bench.cache)


def pick(bench: TinyModel) -> None:
    """The first output token."""
    if bench.filled < N:
        raise Broken(
            f"the first output token comes from the logits of position {N - 1}, "
            f"and only {bench.filled} of {N} positions have been run"
        )
    bench.output.append(int(bench.logits.argmax()))


def decode_token(bench: TinyModel) -> None:
    """The first decoding step: a chunk of one token."""
    from chunkprefill.generation import prefill

    if not bench.output:
        raise Broken("generation feeds the first output token back, and no token has been picked yet")
    prefill(_model(), bench.output, bench.cache)


def said(bench: TinyModel) -> str:
    """How things stand."""
    cut = "The prompt is cut into 3 chunks" if len(bench.pieces) > 1 else "The prompt is in one piece"
    if bench.cache is None:
        return f"{cut}. No cache is reserved."
    held = "is empty" if not bench.filled else f"holds positions 0–{bench.filled - 1}"
    token = " The first output token is picked." if bench.output and bench.filled == N else ""
    last = " Generation has begun." if bench.filled > N else ""
    return f"{cut}. The cache {held}.{token}{last}"


def picture(bench: TinyModel) -> str:
    """The prompt above, the cache beneath, position under position."""
    cut = len(bench.pieces) > 1
    chunk_of = [i + 1 for i, length in enumerate(LENGTHS) for _ in range(length)]
    prompt: list[Cell] = [("old", str(chunk_of[p]) if cut else "") for p in range(N)]
    if bench.output:
        prompt.append(("token", "↓"))
    held: list[Cell] = [
        ("empty", "") if p >= bench.filled else ("new" if p < N else "token", "kv") for p in range(N + 1)
    ]
    rows = [("tokens", prompt)] + ([("cache", held)] if bench.cache is not None else [])
    title = "Prompt, in chunks 1 to 3" if cut else "Prompt, in one piece"
    return board(rows, title=title, columns=[str(p) for p in range(N + 1)])


def finish(bench: TinyModel) -> str:
    """Is it the cache that a single pass would have built?"""
    import torch

    from chunkprefill.generation import generate
    from chunkprefill.model.cache import KVCache

    model = _model()
    standard = KVCache(model.config, N + 1, dtype=model.dtype)
    expected = generate(model, _prompt(), 2, cache=standard)
    for layer in range(model.config.n_layers):
        for ours, theirs in zip(bench.cache.kv(layer), standard.kv(layer)):
            if not torch.allclose(ours, theirs, rtol=0, atol=1e-12):
                return f"The cache of layer {layer} is not the one that a single pass builds."
    return "" if bench.output == expected[:1] else "The first token is not the one that a single pass gives."


cache_order = Order(
    id="cache-order",
    title="Build the cache, chunk by chunk",
    prompt=prose("cache-order"),
    start=TinyModel,
    steps=(
        Card("split", "Cut the prompt into chunks of 4, 4 and 2 tokens.", split),
        Card("room", "Reserve an empty cache with room for 11 positions.", reserve),
        Card("c1", "Run the first chunk: store its keys and values.", partial(run_chunk, 0)),
        Card("c2", "Run the second chunk: store its keys and values.", partial(run_chunk, 1)),
        Card("c3", "Run the last chunk: store its keys and values.", partial(run_chunk, 2)),
        Card("first", "Pick the first output token from the last position's logits.", pick),
        Card("decode", "Begin generation: run that token as a chunk of one.", decode_token),
    ),
    said=said,
    picture=picture,
    finish=finish,
    hints=(
        "What does a chunk need before it can run? Think of what its queries read and where its own keys go.",
        "A chunk's queries read the keys and values of every earlier position. Which chunks produced those?",
        "Two steps need nothing, so they come first, in either order. The three chunks follow in the order of their positions. Only then is there a last position to pick a token from.",
    ),
)
