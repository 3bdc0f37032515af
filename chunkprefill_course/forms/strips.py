"""A tensor for where torch is not: what storing and reading rows takes, written in place, in plain Python."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

Shape = tuple[int, ...]
Index = int | slice | tuple[Any, ...]


class Strip:
    """Numbers in rows, as `torch.Tensor` has them: slices are views of the same numbers, not copies."""

    def __init__(self, numbers: list[float], shape: Shape, places: Sequence[int] | None = None) -> None:
        self._numbers, self.shape = numbers, shape
        self._places = range(_product(shape)) if places is None else places  # where each of ours stands

    @classmethod
    def of_rows(cls, rows: list[Any]) -> Strip:
        """From nested lists, all equally long."""
        shape, flat = [], rows
        inner: Any = rows
        while isinstance(inner, list):
            shape.append(len(inner))
            inner = inner[0] if inner else None
        for _ in shape[1:]:
            flat = [number for row in flat for number in row]
        return cls(list(flat), tuple(shape))

    ndim = property(lambda self: len(self.shape))

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        return self.ndim

    def numel(self) -> int:
        return _product(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Index) -> Any:
        part = self._part(index)
        return part if part.shape else part._numbers[part._places[0]]

    def __setitem__(self, index: Index, value: Any) -> None:
        self._part(index).copy_(value)

    def copy_(self, source: Any) -> Strip:
        """Write the numbers of `source` over these, in place."""
        if isinstance(source, int | float):
            source = Strip([float(source)] * self.numel(), self.shape)
        elif not isinstance(source, Strip):
            source = Strip.of_rows([row.tolist() if isinstance(row, Strip) else row for row in source])
        theirs = source.shape
        if theirs != self.shape and (1,) * (self.ndim - len(theirs)) + theirs != self.shape:
            raise ValueError(f"shapes differ: {list(theirs)} is written to {list(self.shape)}")
        for place, number in zip(self._places, [source._numbers[p] for p in source._places]):
            self._numbers[place] = number
        return self

    def narrow(self, dim: int, start: int, length: int) -> Strip:
        """The part [start, start + length) of one dimension, as a view."""
        return self._part((*[slice(None)] * dim, slice(start, start + length)))

    def clone(self) -> Strip:
        return Strip([self._numbers[place] for place in self._places], self.shape)

    def zero_(self) -> Strip:
        return self.copy_(0.0)

    def tolist(self) -> list[Any]:
        return [each.tolist() if isinstance(each, Strip) else each for each in self]

    def __repr__(self) -> str:
        return f"Strip({self.tolist()})"

    def _part(self, index: Index) -> Strip:
        indices = index if isinstance(index, tuple) else (index,)
        if ... in indices:
            at = indices.index(...)
            missing = self.ndim - len(indices) + 1
            indices = (*indices[:at], *[slice(None)] * missing, *indices[at + 1 :])
        if len(indices) > self.ndim:
            raise IndexError(f"too many indices for {self.ndim} dimensions")
        shape: list[int] = []
        places, stride = [0], self.numel()
        for n, one in zip(self.shape, (*indices, *[slice(None)] * (self.ndim - len(indices)))):
            stride = stride // n if n else 0
            if isinstance(one, slice):
                chosen = list(range(*one.indices(n)))
                shape.append(len(chosen))
            else:
                if not -n <= one < n:
                    raise IndexError(f"index {one} is out of range for a dimension of {n}")
                chosen = [one % n]
            places = [place + stride * i for place in places for i in chosen]
        return Strip(self._numbers, tuple(shape), [self._places[place] for place in places])


def _product(shape: Shape) -> int:
    product = 1
    for n in shape:
        product *= n
    return product
