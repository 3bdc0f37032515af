"""How a prompt is cut into chunks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from chunkprefill.whole import whole_number


def chunk_lengths(n_tokens: int, chunk_size: int | Iterable[int] | None = None) -> list[int]:
    """The chunks a prompt of `n_tokens` is cut into: of one size, of the lengths given, or (None) one piece.

    Raises ValueError for an empty prompt, a chunk below one token, lengths that do not add up, lengths without
    an order (a set), and what is no whole number at all.
    """
    n_tokens = whole_number("n_tokens", n_tokens, 1)
    if chunk_size is None:
        return [n_tokens]
    single = isinstance(chunk_size, (str, bytes)) or getattr(chunk_size, "ndim", 1) == 0
    if isinstance(chunk_size, (Set, Mapping)):
        raise ValueError(f"chunk_size is a {type(chunk_size).__name__}, which has no order: a list is needed")
    if isinstance(chunk_size, Iterable) and not single:
        lengths = [whole_number(f"chunk {i}", n, 1) for i, n in enumerate(chunk_size)]
        if sum(lengths) != n_tokens:
            raise ValueError(f"the chunks add up to {sum(lengths)} tokens, the prompt has {n_tokens}")
        return lengths
    size = whole_number("chunk_size, where it is no list of lengths,", chunk_size, 1)
    return [min(size, n_tokens - start) for start in range(0, n_tokens, size)]
