"""What a model costs on a device, in one call, and how much of a cache the device has room for."""

from __future__ import annotations

from dataclasses import dataclass, replace

from chunkprefill.configs import DEVICES, Device, find_device, find_model
from chunkprefill.model.config import Config
from chunkprefill.scheduling.blocks import BlockPool
from chunkprefill.simulation.cost import Roofline
from chunkprefill.simulation.kernels import Kernels
from chunkprefill.simulation.layout import Layout, Shard
from chunkprefill.simulation.published import FITS
from chunkprefill.whole import as_real, check_fields, flag, needed, whole_number

#: Devices with the chip of one whose kernels were timed, and another memory.
SAME_CHIP = {"h200": "h100"}
SEATS = 256  # sequences that sample in one step: vLLM's default `max_num_seqs`


def price(
    model: Config | str,
    device: Device | str,
    *,
    dtype: str = "bf16",
    kv_dtype: str | None = None,
    tp: int = 1,
) -> Kernels | Roofline:
    """Seconds of a batch of any model on any device: Batch -> s.

    model: a `Config`, or a name of `MODELS`. device: a `Device`, or a name of `DEVICES`. dtype: of the
    layers' weights; kv_dtype: of the cache, None: 16 bits, or 32 with fp32 weights. tp: devices that share
    each layer; every layer then adds up its parts twice.
    Where kernels of the device were timed and published, the price is a fit to them (`Kernels`); elsewhere it
    is a `Roofline` by the device's sheet; a device with the chip of a timed one (`SAME_CHIP`) takes its shares
    of the sheet. `str(cost)` and `cost.source` say which, and what was scaled.
    Raises TypeError for a wrong type and ValueError for an unknown name or heads that tp cannot share.
    """
    return priced(find_model(model), find_device(device), Layout(dtype, kv_dtype, tp))


def priced(config: Config, where: Device, layout: Layout) -> Kernels | Roofline:
    """`price`, once its names are looked up."""
    for name, device in DEVICES.items():
        fit = FITS.get(SAME_CHIP.get(name, name))
        if fit and device == where and layout.dtype != "fp32":
            if name in SAME_CHIP:
                timed = f"timed on the {DEVICES[SAME_CHIP[name]].name}, which has the same chip; "
                fit = replace(fit, source=timed + fit.source)
            return Kernels(config, where, fit, layout=layout)
    return Roofline.of(where, config, layout)


class NoRoom(ValueError):
    """A device has no room for a cache beside the weights and a step."""


@dataclass(frozen=True)
class MemoryUse:
    """What fills the memory of each device; bytes."""

    device: Device
    usable: float  # the share of its memory that the engine may take
    weights: float
    activations: float  # of a step of the whole budget
    logits: float
    block: float  # one block of the cache

    @property
    def cache(self) -> float:
        """What is left for the cache; below 0 where the rest does not fit."""
        return self.usable - self.weights - self.activations - self.logits

    @property
    def n_blocks(self) -> int:
        """Whole blocks in what is left."""
        return max(int(self.cache // self.block), 0)

    def __str__(self) -> str:
        gib = 2**30
        parts = {"weights": self.weights, "activations": self.activations, "logits": self.logits}
        rest = ", ".join(f"{name} {n_bytes / gib:.2f}" for name, n_bytes in parts.items())
        return f"{self.device.name}: {self.usable / gib:.2f} GiB usable, {rest}, {self.n_blocks:,} blocks"


@dataclass(frozen=True)
class Serving:
    """How an engine is set up to hold a model: what decides the memory that a step needs."""

    budget: int  # tokens of a step
    max_seqs: int = SEATS
    utilisation: float = 0.9  # share of the memory that the engine may take
    block_size: int = 16  # tokens
    prompt_logprobs: bool = False  # logits of every prompt token, not of the sampled rows alone

    def __post_init__(self) -> None:
        check_fields(self, whole_number, ("budget", "max_seqs", "block_size"), least=1)
        check_fields(self, flag, ("prompt_logprobs",))
        share = as_real(self.utilisation)
        if share is None or not 0 < share <= 1:
            raise ValueError(f"utilisation must be above 0 and at most 1, got {self.utilisation!r}")


def memory_use(
    model: Config | str, device: Device | str, serving: Serving, layout: Layout | None = None
) -> MemoryUse:
    """What fills each device's memory. Errors as of `price`."""
    where = find_device(device)
    needed("serving", serving, Serving, "such as Serving(budget=2048)")
    shard = Shard(find_model(model), layout or Layout())
    rows = serving.budget if serving.prompt_logprobs else min(serving.max_seqs, serving.budget)
    return MemoryUse(
        device=where,
        usable=serving.utilisation * where.memory,
        weights=shard.weight_bytes,
        activations=shard.activation_bytes(serving.budget),
        logits=shard.logit_bytes(rows),
        block=shard.block_bytes(serving.block_size),
    )


def pool_for(
    config: Config | str,
    device: Device | str,
    *,
    dtype: str = "bf16",
    budget: int,
    tp: int = 1,
    utilisation: float = 0.9,
    kv_dtype: str | None = None,
    max_seqs: int = SEATS,
    block_size: int = 16,
    prompt_logprobs: bool = False,
) -> BlockPool:
    """The cache that a device has room for: its memory, less weights, activations and logits, in blocks.

    budget: tokens of a step, whose activations must fit; max_seqs: sequences that sample in it, and so rows
    of logits (with `prompt_logprobs` every token of the budget has one), tokens x vocabulary x 6 bytes.
    utilisation: share of the memory that the engine takes. tp: devices, each with its share.
    vLLM measures what a step needs and finds less room: contexts and recorded graphs are not counted here.
    Raises ValueError, with the bytes of each, where nothing is left; otherwise as `price`.
    """
    serving = Serving(budget, max_seqs, utilisation, block_size, prompt_logprobs)
    return pool_of(config, device, serving, Layout(dtype, kv_dtype, tp))


def pool_of(model: Config | str, device: Device | str, serving: Serving, layout: Layout) -> BlockPool:
    """`pool_for`, with model, device and layout looked up. NoRoom, with the bytes of each, where nothing is left."""
    use = memory_use(model, device, serving, layout)
    if use.n_blocks < 1:
        name = model if isinstance(model, str) else "the model"
        raise NoRoom(f"{name} leaves no block of cache on {layout.tp} x {use}")
    return BlockPool(use.n_blocks, serving.block_size)
