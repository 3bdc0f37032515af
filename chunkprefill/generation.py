"""A model at work: prefill a prompt in chunks, then generate. A decoding step is a chunk of one token."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

import torch
from torch import Tensor

from chunkprefill.model.cache import KVCache
from chunkprefill.model.transformer import Transformer, check_model
from chunkprefill.splitting import chunk_lengths
from chunkprefill.whole import briefly, needed, whole_number

Tokens = Tensor | Sequence[int]


def prefill(
    model: Transformer,
    tokens: Tokens,
    cache: KVCache,
    chunk_size: int | Iterable[int] | None = None,
    *,
    progress: bool = False,
    on_chunk: Callable[[int, int], object] | None = None,
) -> Tensor:
    """Extend `cache` by `tokens`, one forward pass a chunk, and return the last token's logits, `[vocab]`.

    `chunk_size` is an int (which may exceed the prompt), the chunks' lengths, or None for one pass. After
    each pass `on_chunk(start, length)` is called. Any split gives the same cache and the same logits. On an
    error the cache is as it was; ValueError names the numbers for a prompt that is empty, does not fit into
    what is left of the cache or has ids outside the vocabulary, and for a bad split (see `chunk_lengths`).
    """
    strip = _strip(model, tokens, cache)
    lengths = chunk_lengths(len(strip), chunk_size)
    if len(strip) > cache.room:
        raise ValueError(
            f"the prompt has {len(strip)} tokens, the cache room for {cache.room} of {cache.max_len}"
        )
    begin, done = cache.length, 0
    try:
        for length in _bar(lengths, "prefill", "chunk", progress):
            last = done + length == len(strip)
            logits = forward(model, strip[done : done + length], cache, emits=last)
            if on_chunk is not None:
                on_chunk(begin + done, length)
            done += length
    except BaseException:
        cache.length = begin  # what was written beyond it is never read
        raise
    return logits[-1]


def generate(
    model: Transformer,
    tokens: Tokens,
    n: int,
    *,
    cache: KVCache | None = None,
    chunk_size: int | Iterable[int] | None = None,
    stop: Collection[int] = (),
    progress: bool = False,
) -> list[int]:
    """The next `n` tokens, each the most likely one; fewer if one of them is in `stop` (which is kept).

    Prefills `tokens` in chunks first. The last token is returned without being cached, so n tokens need room
    for len(tokens) + n − 1. Raises ValueError as `prefill` does, before the cache changes.
    """
    check_model(model)
    n = whole_number("n", n, 0)
    if not hasattr(tokens, "__len__"):
        raise ValueError(f"the prompt is {tokens!r}: a sequence of token ids is needed")
    _check_stop(stop)
    positions = len(tokens) + max(n, 1) - 1
    if cache is None:
        cache = KVCache(model.config, max(positions, 1), dtype=model.dtype, device=model.device)
    if positions > cache.room:
        raise ValueError(
            f"{len(tokens)} prompt tokens and {n} new ones need {positions} positions, there are {cache.room}"
        )
    logits = prefill(model, tokens, cache, chunk_size, progress=progress)
    return decode(model, logits, cache, n, stop=stop, progress=progress)


def decode(
    model: Transformer,
    logits: Tensor,
    cache: KVCache,
    n: int,
    *,
    stop: Collection[int] = (),
    progress: bool = False,
) -> list[int]:
    """Up to `n` most likely tokens from the logits `[vocab]` that `prefill` returned; see `generate`."""
    check_model(model)
    needed("logits", logits, Tensor, "such as prefill returns")
    needed("cache", cache, KVCache, "the one that was prefilled")
    n = whole_number("n", n, 0)
    _check_stop(stop)
    output: list[int] = []
    for _ in _bar(range(n), "decode", "token", progress):
        if output:  # a decoding step is a pass over a chunk of one token
            logits = forward(model, torch.tensor(output[-1:], device=model.device), cache)[-1]
        output.append(int(logits.argmax()))
        if output[-1] in stop:
            break
    return output


def forward(model: Transformer, strip: Tensor, cache: KVCache, *, emits: bool = True) -> Tensor:
    """One pass over the next tokens of one sequence; the logits of the last are returned if it `emits`."""
    with torch.inference_mode():
        logits = model(strip, cache.window(len(strip), emits=emits))
    cache.length += len(strip)
    return logits.clone()  # made outside inference mode, an ordinary tensor that a reader may change


def _bar(items: Sequence[int], name: str, unit: str, shown: bool) -> Iterable[int]:
    """The items under a progress bar on standard error; tqdm is needed only to show one."""
    if not shown:
        return items
    from tqdm import tqdm

    return tqdm(items, desc=name, unit=unit)


def _strip(model: Transformer, tokens: Tokens, cache: KVCache) -> Tensor:
    """The tokens as a checked strip `[T]` on the model's device."""
    check_model(model)
    needed("cache", cache, KVCache)
    try:
        strip = torch.as_tensor(tokens)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"the prompt is no sequence of token ids: {error}") from error
    if strip.ndim != 1:
        raise ValueError(f"tokens have the shape {list(strip.shape)}, one prompt [T] is needed")
    if not len(strip):
        raise ValueError("the prompt has 0 tokens, at least 1 is needed")
    if strip.dtype == torch.bool or strip.is_floating_point() or strip.is_complex():
        raise ValueError(f"tokens are {strip.dtype}, whole numbers are needed")
    strip = strip.to(device=model.device, dtype=torch.long)
    low, high = int(strip.min()), int(strip.max())
    if low < 0 or high >= model.config.vocab_size:
        wrong = low if low < 0 else high
        raise ValueError(f"token id {wrong} is outside the vocabulary of {model.config.vocab_size}")
    if (cache.dtype, cache.device) != (model.dtype, model.device):
        raise ValueError(
            f"the cache is {cache.dtype} on {cache.device}, the model {model.dtype} on {model.device}"
        )
    if cache.config != model.config:
        raise ValueError("the cache was made for another model: their configs differ")
    return strip


def _check_stop(stop: Collection[int]) -> None:
    if not isinstance(stop, Collection):
        raise ValueError(f"stop is {briefly(stop)}: a list of token ids is needed")
