"""Reading a GGUF file: its fields, its `Config`, and its tensors as float32, of the kinds that SmolLM2's has.

As with `config.json`, a field is honoured, known to change nothing, or refused by name.
Source: the GGUF specification and block layouts of ggml.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from chunkprefill.model.config import Config
from chunkprefill.model.families import number_at, whole_at
from chunkprefill.strict import words

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
        try:
            with path.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._read_head()
        except (OSError, ValueError, KeyError, struct.error, RecursionError, OverflowError) as error:
            raise ValueError(f"{path}: not readable as GGUF, version 3 ({error})") from None

    def _read_head(self) -> None:
        self._at = 0
        magic, version, n_tensors, n_fields = self._take("<4sIQQ")
        if (magic, version) != (b"GGUF", 3):
            raise ValueError(f"it begins with {magic!r}, version {version}")
        self.fields: dict[str, Any] = {}
        for _ in range(n_fields):
            if (name := self._string()) in self.fields:
                raise ValueError(f"the field {name!r} is there twice")
            self.fields[name] = self._value(self._take("<I")[0])
        self.tensors: dict[str, GgufTensor] = {}
        for _ in range(n_tensors):
            name, (n_dims,) = self._string(), self._take("<I")
            shape = self._take(f"<{n_dims}Q")[::-1]
            if name in self.tensors:
                raise ValueError(f"the tensor {name!r} is there twice")
            self.tensors[name] = GgufTensor(shape, *self._take("<IQ"))
        alignment = whole_at(self.fields, "general.alignment", 32)
        self._data = -(-self._at // alignment) * alignment

    def get(self, name: str) -> np.ndarray:
        """A tensor in float32, dequantised if need be. ValueError for one that the file does not hold whole."""
        tensor = self.tensors[name]
        n, start = prod(tensor.shape), self._data + tensor.offset
        if tensor.kind != _F32 and tensor.kind not in _BLOCK_BYTES:
            raise ValueError(f"tensor {name} is of GGUF kind {tensor.kind}; there are F32, Q4_1 and Q8_0")
        if tensor.kind != _F32 and tensor.shape[-1] % _BLOCK:
            raise ValueError(f"tensor {name} is {list(tensor.shape)}: rows are not whole blocks of {_BLOCK}")
        width = _BLOCK_BYTES.get(tensor.kind, 4 * _BLOCK)
        if start + n * width // _BLOCK > len(self._bytes):
            raise ValueError(f"tensor {name} {list(tensor.shape)} goes beyond the end of the file")
        if tensor.kind == _F32:
            return np.frombuffer(self._bytes, "<f4", n, start).reshape(tensor.shape).copy()
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
        if self._at > len(self._bytes):
            raise ValueError(f"a string of {n} bytes goes beyond the end of the file")
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


# Fields, and the one value of each under which a model computes what is built here.
_FIXED = {
    "attention.causal": True,
    "rope.scaling.type": "none",
    "rope.scaling.factor": 1.0,
    "rope.scale_linear": 1.0,
    "expert_count": 0,
    "expert_used_count": 0,
    "use_parallel_residual": False,
    "tensor_data_layout": "Meta AI original pth",
}
_HONOURED = words(
    """
    block_count context_length embedding_length feed_forward_length vocab_size attention.head_count
    attention.head_count_kv attention.key_length attention.value_length attention.layer_norm_rms_epsilon
    rope.dimension_count rope.freq_base
    """
)
_HARMLESS = ("general.", "tokenizer.", "quantize.imatrix.")  # beginnings of names


def config_of_gguf(file: GgufFile) -> Config:
    """The `Config` of a GGUF file of a Llama.

    Raises ValueError naming the field and its value for another architecture, a field that is missing or
    mistyped, and every field that may change the computation.
    """
    fields = file.fields
    architecture = fields.get("general.architecture")
    if architecture != "llama":
        raise ValueError(f"general.architecture is {architecture!r}: only 'llama' is implemented")
    for name, value in fields.items():
        own = name.removeprefix("llama.")
        if own in _FIXED and own != name and value != _FIXED[own]:
            raise ValueError(f"{name} is {value!r}: only {_FIXED[own]!r} is implemented")
        if not name.startswith(_HARMLESS) and (own == name or (own not in _HONOURED and own not in _FIXED)):
            raise ValueError(f"{name} is {value!r}: an unknown field, which may change what a model computes")
    d_model = whole_at(fields, "llama.embedding_length")
    n_heads = whole_at(fields, "llama.attention.head_count")
    head_dim = whole_at(fields, "llama.attention.key_length", d_model // n_heads)
    for name in ("attention.value_length", "rope.dimension_count"):
        if (other := whole_at(fields, f"llama.{name}", head_dim)) != head_dim:
            raise ValueError(
                f"llama.{name} is {other}, and the heads hold {head_dim} numbers: not implemented"
            )
    tokens = fields.get("tokenizer.ggml.tokens")
    return Config(
        n_layers=whole_at(fields, "llama.block_count"),
        n_heads=n_heads,
        n_kv_heads=whole_at(fields, "llama.attention.head_count_kv", n_heads),
        head_dim=head_dim,
        vocab_size=whole_at(fields, "llama.vocab_size", len(tokens) if isinstance(tokens, list) else None),
        d_model=d_model,
        d_ff=whole_at(fields, "llama.feed_forward_length"),
        max_positions=whole_at(fields, "llama.context_length"),
        rope_theta=number_at(fields, "llama.rope.freq_base", 10_000.0),
        norm_eps=number_at(fields, "llama.attention.layer_norm_rms_epsilon"),
        tied="output.weight" not in file.tensors,
    )
