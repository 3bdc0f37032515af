"""The KV cache of one sequence, and the window through which the model extends it by a chunk."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from chunkprefill.model.attention import backend_named
from chunkprefill.model.backends import backend_for
from chunkprefill.model.config import Config
from chunkprefill.strict import first_line
from chunkprefill.whole import needed, whole_number


class KVCache:
    """Keys and values of up to `max_len` positions of one sequence, in every layer.

    `length` says how many positions are filled. The caller of a forward pass advances it once, afterwards:
    all layers of one pass write to the same positions. `backend` names the attention that reads the cache:
    `reference`, `sdpa` or `varlen`; None takes the fastest that runs there.
    Raises ValueError for a `max_len` below 1 or beyond the positions that the model was made for, for a
    `dtype` that is no floating-point `torch.dtype`, for a device that torch cannot use here, and for a
    `length` that is below 0 or beyond what has been written.
    """

    def __init__(
        self,
        config: Config,
        max_len: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        backend: str | None = None,
    ) -> None:
        needed("config", config, Config, "such as model.config")
        self.config = config
        self.max_len = whole_number(
            "max_len, within the model's positions,", max_len, 1, config.max_positions
        )
        self._length = 0
        self._written = 0  # positions that hold keys and values, whether or not they still count
        device, dtype = usable(device), floating(dtype)
        self._attention = backend_named(backend_for(backend, device, dtype))
        # A head's positions lie side by side: what attention reads is one strip of memory a head.
        shape = (config.n_layers, config.n_kv_heads, max_len, config.head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)  # [L, Hkv, max_len, D]
        self.values = torch.zeros_like(self.keys)

    @property
    def length(self) -> int:
        """Positions that count; set it lower to drop the last ones, or higher after they were written."""
        return self._length

    @length.setter
    def length(self, length: int) -> None:
        self._length = whole_number("length, within the positions written,", length, 0, self._written)

    @property
    def dtype(self) -> torch.dtype:
        return self.keys.dtype

    @property
    def device(self) -> torch.device:
        return self.keys.device

    @property
    def room(self) -> int:
        """Positions that are left."""
        return self.max_len - self.length

    @property
    def n_bytes(self) -> int:
        """Bytes of the keys and values cached so far."""
        return self.config.kv_bytes(self.length, self.keys.element_size())

    def kv(self, layer: int) -> tuple[Tensor, Tensor]:
        """The cached keys (after RoPE) and values of a layer, each `[length, Hkv, D]`; views, not copies."""
        return self.read(layer, self.length)

    def read(self, layer: int, end: int) -> tuple[Tensor, Tensor]:
        """Keys and values of positions 0 to `end`, each `[end, Hkv, D]`."""
        return self.keys[layer, :, :end].transpose(0, 1), self.values[layer, :, :end].transpose(0, 1)

    def write(self, layer: int, start: int, k: Tensor, v: Tensor) -> None:
        """Put k and v, each `[T, Hkv, D]`, at positions start to start + T."""
        end = start + k.shape[0]
        self.keys[layer, :, start:end] = k.transpose(0, 1)
        self.values[layer, :, start:end] = v.transpose(0, 1)
        self._written = max(self._written, end)

    def window(self, length: int, *, emits: bool = True) -> Window:
        """The next `length` positions; with `emits`, the logits of the last one are wanted."""
        if not 1 <= length <= self.room:
            raise ValueError(
                f"a window of {length} tokens; the cache has room for {self.room} of {self.max_len}"
            )
        return Window(self, self.length, length, emits)


def floating(dtype: torch.dtype) -> torch.dtype:
    """The type itself, if it is a floating-point type of torch; ValueError for others and for mere names."""
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f"dtype is {dtype!r}: a floating-point type is needed, such as torch.float32")
    return dtype


def usable(device: torch.device | str) -> torch.device:
    """The device, if torch can compute on it here; ValueError says what is missing, in one line."""
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError, ValueError):
        raise ValueError(
            f"device is {device!r}: a name is needed that torch knows, 'cpu' or 'cuda'"
        ) from None
    if found.type == "meta":
        raise ValueError("device is 'meta': it holds no numbers to compute with")
    if found.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (found.index or 0) >= count:
            raise ValueError(
                f"device is {str(device)!r}, and torch finds {count} CUDA devices here; use 'cpu'"
            )
        return found
    try:
        torch.empty(1, device=found).sum()
    except Exception as error:  # each backend fails in its own way
        said = first_line(error)
        raise ValueError(f"device is {str(device)!r}, which torch cannot use here: {said}") from None
    return found


@dataclass(frozen=True, eq=False)
class Window:
    """What `Transformer.forward` sees of a cache: where the strip's tokens stand and what they attend to."""

    cache: KVCache
    start: int
    length: int
    emits: bool

    def positions(self) -> Tensor:
        """Where each token of the strip stands, `[T]`, counted from the beginning of the sequence."""
        return torch.arange(self.start, self.start + self.length, device=self.cache.device)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store the strip's k and v, `[T, Hkv, D]`, then let q, `[T, H, D]`, look back on all there is."""
        self.cache.write(layer, self.start, k, v)
        return self.cache._attention(q, *self.cache.read(layer, self.start + self.length))

    def emit_rows(self) -> slice:
        """The rows of the strip whose logits are wanted: the last, or none while the prompt is unfinished."""
        return slice(self.length - self.emits, self.length)
