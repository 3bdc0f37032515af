"""Reading a GGUF file: its fields, and its tensors as float32. Only the kinds that the wheel's file holds.

Source: the GGUF specification and block layouts of ggml. A file comes here only after its sha256 was checked.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_SCALARS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}  # GGUF type to struct letter
_STRING, _ARRAY = 8, 9
_F32, _Q4_1, _Q8_0 = 0, 3, 8
_BLOCK = 32  # weights that share a scale
_BLOCK_BYTES = {_Q4_1: 20, _Q8_0: 34}


@dataclass(frozen=True)
class GgufTensor:
    """One tensor in the file: its shape, rows first, and where its bytes are."""

    shape: tuple[int, ...]
    kind: int
    offset: int


class GgufFile:
    """A GGUF file, version 3: `fields` by name, `tensors` by name, and `get` for one in float32."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._at = 0
        magic, version, n_tensors, n_fields = self._take("<4sIQQ")
        if (magic, version) != (b"GGUF", 3):
            raise ValueError(f"{path}: not a GGUF file of version 3")
        self.fields = {self._string(): self._value(self._take("<I")[0]) for _ in range(n_fields)}
        self.tensors: dict[str, GgufTensor] = {}
        for _ in range(n_tensors):
            name, (n_dims,) = self._string(), self._take("<I")
            shape = self._take(f"<{n_dims}Q")[::-1]
            self.tensors[name] = GgufTensor(shape, *self._take("<IQ"))
        alignment = self.fields.get("general.alignment", 32)
        self._data = -(-self._at // alignment) * alignment

    def get(self, name: str) -> np.ndarray:
        """A tensor in float32, dequantised if need be."""
        tensor = self.tensors[name]
        n, start = int(np.prod(tensor.shape)), self._data + tensor.offset
        if tensor.kind == _F32:
            return np.frombuffer(self._bytes, "<f4", n, start).reshape(tensor.shape).copy()
        if tensor.kind not in _BLOCK_BYTES:
            raise ValueError(f"tensor {name} is of GGUF kind {tensor.kind}; there are F32, Q4_1 and Q8_0")
        width = _BLOCK_BYTES[tensor.kind]
        blocks = np.frombuffer(self._bytes, np.uint8, n // _BLOCK * width, start).reshape(-1, width)
        scale = blocks[:, :2].copy().view("<f2").astype(np.float32)  # [blocks, 1]
        if tensor.kind == _Q8_0:
            weights = blocks[:, 2:].view(np.int8) * scale
        else:  # the low halves of 16 bytes are the first 16 weights, the high halves the others
            least = blocks[:, 2:4].copy().view("<f2").astype(np.float32)
            packed = blocks[:, 4:]
            weights = np.concatenate((packed & 15, packed >> 4), axis=1) * scale + least
        return weights.reshape(tensor.shape)

    def _take(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from(layout, self._bytes, self._at)
        self._at += struct.calcsize(layout)
        return values

    def _string(self) -> str:
        (n,) = self._take("<Q")
        self._at += n
        return self._bytes[self._at - n : self._at].decode("utf-8")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            element, n = self._take("<IQ")
            if element in (_STRING, _ARRAY):
                return [self._value(element) for _ in range(n)]
            return list(self._take(f"<{n}{_SCALARS[element]}"))
        return self._take(f"<{_SCALARS[kind]}")[0]
