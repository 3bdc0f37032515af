"""How a prompt is cut into chunks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from chunkprefill.whole import as_whole


def chunk_lengths(n_tokens: int, chunk_size: int | Iterable[int] | None = None) -> list[int]:
    """The chunks a prompt of `n_tokens` is cut into: of one size, of the lengths given, or (None) one piece.

    Raises ValueError for an empty prompt, a chunk below one token, lengths that do not add up, lengths without
    an order (a set), and what is no whole number at all.
    """
    n_tokens = whole(n_tokens, "n_tokens", "of tokens")
    if n_tokens < 1:
        raise ValueError(f"the prompt has {n_tokens} tokens, at least 1 is needed")
    if chunk_size is None:
        return [n_tokens]
    single = isinstance(chunk_size, (str, bytes)) or getattr(chunk_size, "ndim", 1) == 0
    if isinstance(chunk_size, (Set, Mapping)):
        raise ValueError(f"chunk_size is a {type(chunk_size).__name__}, which has no order: a list is needed")
    if isinstance(chunk_size, Iterable) and not single:
        lengths = [whole(n, f"chunk {i}", "of tokens") for i, n in enumerate(chunk_size)]
        for i, length in enumerate(lengths):
            if length < 1:
                raise ValueError(f"chunk {i} has {length} tokens, at least 1 is needed")
        if sum(lengths) != n_tokens:
            raise ValueError(f"the chunks add up to {sum(lengths)} tokens, the prompt has {n_tokens}")
        return lengths
    size = whole(chunk_size, "chunk_size", "or a list of lengths")
    if size < 1:
        raise ValueError(f"chunk_size is {size}, at least 1 is needed")
    return [min(size, n_tokens - start) for start in range(0, n_tokens, size)]


def whole(value: object, name: str, more: str) -> int:
    """The value as an int, if it is a whole number of any library's; True and 2.0 are none."""
    number = as_whole(value)
    if number is None:
        raise ValueError(f"{name} is {value!r}: a whole number {more} is needed")
    return number
